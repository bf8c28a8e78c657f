"""Makes one pair: plan, masks, checks, pictures, checks, and again from the next attempt until it passes."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

from data_gen.pair import render_pair
from data_gen.plan import Rejected, pair_id, plan_pair
from data_gen.presets import Preset
from data_gen.render import Worker

MAX_ATTEMPTS = 100  # at a pair whose scenes are rejected

Job = tuple[str, int]  # split, index


class PairFailed(RuntimeError):
    """A pair that could not be made; the message has its id, which names preset, seed, split and index."""


@dataclasses.dataclass(frozen=True)
class FinishedPair:
    """Two PNG files and the rest of the record (see pack.py), plus the reasons of rejected attempts."""

    pictures: tuple[bytes, bytes]
    record: dict[str, Any]


def make_pair(worker: Worker, preset: Preset, seed: int, job: Job, folder: Path) -> FinishedPair:
    """Makes one pair; `folder` is for the renderer's files.

    Raises PairFailed when every attempt is rejected, WorkerError when the renderer fails.
    """
    rejected: list[str] = []
    for attempt in range(MAX_ATTEMPTS):
        try:
            plan = plan_pair(preset, seed, *job, attempt)
            pair = render_pair(worker, plan, preset.accept, folder)
        except Rejected as reason:
            rejected.append(str(reason))
            continue
        return FinishedPair(pair.pictures, pair.record | {"rejected": rejected})
    reasons = ", ".join(f"{reason} {count}x" for reason, count in collections.Counter(rejected).most_common())
    raise PairFailed(f"pair {pair_id(preset, seed, *job)}: all {MAX_ATTEMPTS} attempts rejected ({reasons})")
