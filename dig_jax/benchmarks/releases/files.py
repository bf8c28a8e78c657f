"""What the readers of releases share: finding files, reading lines, cells and keys of them, their pictures.

A file that cannot be read as it should gives one error, which names the file and the line.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from dig_jax.machines import textfile

GUIDE = "docs/benchmark_sets.md says how files must lie"
_LONGEST_CELL = 1 << 30  # Python's csv module stops at 131,072 characters: fewer than a picture has


def find(root: epath.Path, what: str, *places: str) -> epath.Path:
    """The first of the places below a folder that exists, files or folders.

    Args:
      root: of all benchmarks, or of this one: the first part of a place may be left out.
      what: is looked for, for errors.
      places: relative paths, the best one first.

    Raises:
      FileNotFoundError: names all places.
    """
    for path in candidates(root, *places):
        if path.exists():
            return path
    raise FileNotFoundError(f"{root} has no {what}: looked for {', '.join(places)}; {GUIDE}")


def candidates(root: epath.Path, *places: str) -> list[epath.Path]:
    """The places below a folder, then those without their first part."""
    inner = [place.partition("/")[2] for place in places]
    return [root / place for place in (*places, *inner) if place]


def split_of(split: str, known: Sequence[str], name: str) -> str:
    """The split itself. Raises ValueError where a benchmark has none of that name."""
    if split not in known:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(known)}")
    return split


@dataclasses.dataclass(frozen=True)
class Record:
    """One line, entry or file of a release.

    Attributes:
      values: by key.
      place: file and line or number, for errors.
    """

    values: Mapping[str, Any]
    place: str

    def text(self, key: str, *, default: str | None = None) -> str:
        """A text, or a whole number as one. Raises ValueError."""
        value = self.values.get(key, default)
        if textfile.is_a(value, int):
            return str(value)
        if not isinstance(value, str):
            raise ValueError(f"{self.place}: {key} is {_shown(value)}; expected a text")
        return value

    def one_of(self, key: str, answers: Mapping[str, str]) -> str:
        """What stands for the text under `key`, whatever its case. Raises ValueError."""
        value = self.text(key).strip()
        if value.lower() not in answers:
            raise ValueError(f"{self.place}: {key} is {_shown(value)}; expected {' or '.join(answers)}")
        return answers[value.lower()]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of at least one text; whole numbers count as texts. Raises ValueError."""
        values = self.values.get(key)
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{self.place}: {key} is {_shown(values)}; expected a list of texts")
        return tuple(Record({key: value}, self.place).text(key) for value in values)

    def number(self, key: str) -> int:
        """A whole number, as one or as a text. Raises ValueError."""
        value = self.text(key)
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"{self.place}: {key} is {_shown(value)}; expected a whole number") from None

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """So many finite numbers. Raises ValueError."""
        values = self.values.get(key)
        if not isinstance(values, list | tuple) or len(values) != count or not textfile.is_a(values, list):
            raise ValueError(f"{self.place}: {key} is {_shown(values)}; expected {count} numbers")
        return tuple(float(value) for value in values)

    def fields(self) -> dict[str, str]:
        """All values as texts, what is no text as JSON; pictures in them left out."""
        return {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in self.values.items()
            if value is not None and key != "image" and not isinstance(value, bytes)
        }


def jsonl(path: epath.Path) -> Iterator[Record]:
    """The lines of a JSON-lines file; empty ones are skipped. Raises ValueError at the first wrong one."""
    for number, line in enumerate(textfile.read_text(path).split("\n"), start=1):
        if line.strip():
            yield _record(textfile.parse_json(line, f"{path}, line {number}"), f"{path}, line {number}")


def json_list(path: epath.Path) -> Iterator[Record]:
    """The entries of a JSON file that is one list of objects. Raises ValueError."""
    entries = textfile.parse_json(textfile.read_text(path), str(path))
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of objects, got {_shown(entries)}")
    for number, entry in enumerate(entries, start=1):
        yield _record(entry, f"{path}, entry {number}")


def csv_rows(path: epath.Path, delimiter: str = ",") -> Iterator[Record]:
    """The rows of a table with a first line of names, all cells as texts. Raises ValueError."""
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(textfile.read_text(path), newline=""), delimiter=delimiter)
    names: list[str] = []
    try:
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not names:
                names = [cell.strip() for cell in cells]
            elif len(cells) == len(names):
                yield Record(dict(zip(names, cells, strict=True)), place)
            elif cells:
                raise ValueError(f"{place}: {len(cells)} cells, and the first line names {len(names)}")
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error


def _record(value: Any, place: str) -> Record:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object {{...}}, got {_shown(value)}")
    return Record(value, place)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)[:80]


def lettered(options: Sequence[str], place: str) -> dict[str, str]:
    """Options by letter, A first. Raises ValueError for none, or more than there are letters."""
    if not 0 < len(options) <= len(string.ascii_uppercase):
        raise ValueError(f"{place}: {len(options)} options")
    return dict(zip(string.ascii_uppercase, options, strict=False))


def right_letter(letter: str, options: Mapping[str, str], place: str) -> str:
    """The letter of the right option, of "B", "b", "(b)". Raises ValueError where there is no such option."""
    found = letter.strip().strip("()").upper()
    if found not in options:
        raise ValueError(f"{place}: the answer is {_shown(letter)}; expected one of {', '.join(options)}")
    return found
