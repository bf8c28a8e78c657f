"""Rows that make one decision together: rotations of a question, its cycles, the two of a pair.

A score over groups is another score where a group is not whole: with only the first rotation of each
question, circular accuracy is plain accuracy. So groups are counted before anything is scored, and what is
missing is said.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

from dig_jax.benchmarks.row import Row

CYCLE = "cycle_category"  # HR-Bench's column: in which of the four orders the options are
_CYCLES = 4
ROTATION = 1_000_000  # MMBench: rotation k of question i has the index i + k * ROTATION


def rotations(rows: Sequence[Row]) -> list[str]:
    """MMBench: a question has as many rotations as options, the first of them unrotated."""

    def missing(group: list[Row]) -> bool:
        found = {int(row.index) // ROTATION for row in group}
        return found != set(range(max(len(row.options) for row in group)))

    return _faults(rows, lambda row: str(int(row.index) % ROTATION), missing, "question", "all its rotations")


def cycles(rows: Sequence[Row]) -> list[str]:
    """HR-Bench: every question is asked with its options in four orders."""

    def missing(group: list[Row]) -> bool:
        counts = collections.Counter(row.fields.get(CYCLE, "") for row in group)
        return len(counts) != _CYCLES or len(set(counts.values())) != 1

    return _faults(rows, asked, missing, "question", "its four cycles")


def asked(row: Row) -> str:
    """What is asked, whatever the order of the options: the same in all cycles of a question.

    Two pictures may be asked the same. What their rows are numbered is not known, so it is not relied upon.
    """
    return " | ".join((row.question.strip(), *sorted(text.strip() for text in row.options.values())))


def pairs(rows: Sequence[Row]) -> list[str]:
    """MMVP: rows 2k - 1 and 2k are a pair."""
    return _faults(
        rows,
        lambda row: str((int(row.index) + 1) // 2),
        lambda group: len(group) != 2,
        "pair",
        "both its rows",
    )


def one_yes_one_no(rows: Sequence[Row]) -> list[str]:
    """MME: every picture has two questions, one of them rightly answered yes."""

    def missing(group: list[Row]) -> bool:
        return sorted(row.answer for row in group) != ["No", "Yes"]

    def name(row: Row) -> str:
        return row.fields.get("image_path") or "|".join(picture.key for picture in row.images)

    return _faults(rows, lambda row: f"{row.category}, {name(row)}", missing, "picture", "one yes and one no")


def _faults(
    rows: Sequence[Row],
    key: Callable[[Row], str],
    missing: Callable[[list[Row]], bool],
    what: str,
    whole: str,
) -> list[str]:
    groups = collections.defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    broken = [name for name, group in groups.items() if missing(group)]
    if not broken:
        return []
    return [f"{len(broken)} of {len(groups)} {what}s lack {whole}, the first is {what} {broken[0]}"]
