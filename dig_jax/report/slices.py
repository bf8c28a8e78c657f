"""Held-out answers by what was to be found: which kinds and sizes of boxes, how many in an example."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

from dig_jax.evaluate import Answer
from dig_jax.tasks.task import Task

SIDES = (0.05, 0.1, 0.2)  # bounds of sizes: side of the square of a box's area, in shares of the picture's
SIZE_NAMES = ("below 5 % of a side", "5 to 10 %", "10 to 20 %", "20 % and more")

Slices = dict[str, dict[str, list[float]]]  # slice -> value -> [sum, count]


def slices_of(task: Task, answers: Sequence[Answer]) -> Slices:
    """Sums over the answers of an evaluation.

    Args:
      task: that they answer.
      answers: with what is true and what was read.

    Returns:
      "kind" and "size": boxes found, and all of them; "number": the task's main term by number of boxes, and
      answers. Empty for tasks without boxes.
    """
    kinds: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {name: [0, 0] for name in SIZE_NAMES}
    numbers: dict[str, list[float]] = {}
    for answer in answers:
        truth = answer.truth
        if "boxes" not in truth:
            continue
        _add(numbers, str(len(truth["boxes"])), answer.terms[task.main])
        found = task.found(answer.read, truth)
        for row, hit in enumerate(found):
            _add(sizes, size_name(truth["boxes"][row]), hit)
            if "kinds" in truth:
                _add(kinds, truth["kinds"][row], hit)
    sizes = {name: sums for name, sums in sizes.items() if sums[1]}
    found_slices = {"kind": dict(sorted(kinds.items())), "size": sizes}
    by_number = dict(sorted(numbers.items(), key=lambda one: int(one[0])))
    return {name: sums for name, sums in (*found_slices.items(), ("number", by_number)) if sums}


def size_name(box: Sequence[float]) -> str:
    """The slice of a box [x0, y0, x1, y1], shares of width and height."""
    side = math.sqrt(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))
    return SIZE_NAMES[bisect.bisect_right(SIDES, side)]


def worst(task: Task, answers: Sequence[Answer], count: int) -> list[Answer]:
    """Up to `count` answers of the least reward, of equal ones those of the least main term, then the first.

    Args:
      task: that they answer.
      answers: those without an example, which another process has, can not be drawn and are left out.
      count: how many.
    """
    shown = [answer for answer in answers if answer.example is not None]
    return sorted(shown, key=lambda answer: _badness(task, answer.terms))[:count]


def _badness(task: Task, terms: dict[str, float]) -> tuple[float, float]:
    return terms["reward"], terms[task.main]


def _add(sums: dict[str, list[float]], name: str, value: Any) -> None:
    total = sums.setdefault(name, [0, 0])
    total[0] += float(value)
    total[1] += 1
