"""Which pairs are for training and which for testing."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from data_gen.files.userfiles import read_lines
from data_gen.imports.entry import Entry
from data_gen.imports.report import Place, Report
from data_gen.scenes.schema import shown

HASH_BYTES = 8  # of the hash that decides


@dataclasses.dataclass(frozen=True)
class Rule:
    """Decides for entries that do not say their split themselves: by their ids, else by share.

    Attributes:
      test_share: of all groups, drawn by the hash of their name.
      test_ids: the test pairs, with their places in the file that lists them; None where no file does.
    """

    test_share: float = 0.0
    test_ids: dict[str, Place] | None = None

    def split(self, entry: Entry) -> str:
        """A pair's split. It depends on nothing but the entry, so it stays when pairs are added."""
        if entry.split is not None:
            return entry.split
        if self.test_ids is not None:
            return "test" if entry.id in self.test_ids else "train"
        return "test" if drawn(entry.group) < self.test_share else "train"

    def check(self, entries: Sequence[Entry], report: Report) -> None:
        """Reports ids that no pair has, and pairs that say otherwise themselves."""
        by_id = {entry.id: entry for entry in entries}
        for id, place in (self.test_ids or {}).items():
            if id not in by_id:
                report.problem(place, f"no pair has the id {shown(id)}")
            elif by_id[id].split == "train":
                report.problem(
                    place, f"{shown(id)} says itself that it is a train pair ({by_id[id].place.name})"
                )


def drawn(name: str) -> float:
    """A number in 0..1 that a name alone decides, the same on every machine."""
    digest = hashlib.sha256(name.encode()).digest()[:HASH_BYTES]
    return int.from_bytes(digest, "big") / 2 ** (8 * HASH_BYTES)


def read_ids(path: Path) -> dict[str, Place]:
    """A file of one id per line. Raises ValueError where it cannot be read, or is empty."""
    lines = [line.strip() for line in read_lines(path)]
    found = {
        line: Place(-1, number, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line
    }
    if not found:
        raise ValueError(f"{path} lists no ids; expected one per line")
    return found


def shared_pictures(splits: Sequence[str], digests: Sequence[tuple[str, str]]) -> int:
    """How many pictures are in train and in test pairs: a model may know those by heart."""
    seen = collections.defaultdict(set)
    for split, pair in zip(splits, digests, strict=True):
        for digest in pair:
            seen[digest].add(split)
    return sum(len(found) > 1 for found in seen.values())
