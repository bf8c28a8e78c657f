"""What is scored without looking: the marks of answers that know nothing of the pictures.

A score says little without them: yes to everything earns half of POPE, a box around the whole picture earns
Acc@0.5 wherever objects are large. They are marked and added up as the answers of a model are.
"""

from __future__ import annotations

import collections
import json
import math
import random
from collections.abc import Callable, Sequence

import numpy as np

from dig_jax.benchmarks.benchmark import Benchmark, Scores
from dig_jax.benchmarks.row import Mark, Reader, Row

_SEED = 0
_DRAWS = 120  # of random answers, at most
_BOX_DRAWS = 20
_MARKS = 60_000  # of all draws together, where that leaves enough: large sets need fewer
_MOST_COMMON = 840  # draws that accuracies may cost to be exact
_WHOLE = [0, 0, 1000, 1000]
_YES_NO = ("Yes", "No")


def baselines(benchmark: Benchmark, rows: Sequence[Row]) -> dict[str, Scores]:
    """The scores of answers without a model, by what answers.

    Returns:
      Of choices and yes/no: "majority answer" (the one that is right most often; of equals Yes, or A) and
      "random choice" (expected, see `_random_choice`). Of boxes: "whole image", "random box" (mean over up to
      20 draws of a fixed seed) and, where several boxes or none may be right, "no box". Empty where no row
      has a label.
    """
    labelled = [row for row in rows if row.answer or row.boxes or benchmark.task == "differences"]
    if not labelled:
        return {}
    if benchmark.task in ("choice", "yes_no"):
        majority = _most_common([row.answer for row in labelled])
        return {
            f"majority answer ({majority})": _score(benchmark, labelled, lambda row: majority),
            "random choice": _random_choice(benchmark, labelled),
        }
    found = {
        "whole image": _score(benchmark, labelled, lambda row: json.dumps([_WHOLE])),
        "random box": _random_box(benchmark, labelled),
    }
    if benchmark.task == "differences":
        found["no box"] = _score(benchmark, labelled, lambda row: "[]")
    return found


def _most_common(answers: Sequence[str]) -> str:
    counts = collections.Counter(answers)
    return max(_YES_NO if "Yes" in counts else sorted(counts), key=counts.__getitem__)


def _score(benchmark: Benchmark, rows: Sequence[Row], answer: Callable[[Row], str]) -> Scores:
    return benchmark.aggregate(rows, [benchmark.mark(row, answer(row), Reader()) for row in rows])


def _random_choice(benchmark: Benchmark, rows: Sequence[Row]) -> Scores:
    """Means over draws in which every row gives each of its answers equally often.

    So accuracies are the expected ones exactly; scores over groups and F1, which are no means over rows, are
    estimated.
    """
    generator, draws = random.Random(_SEED), _draws(rows)
    columns: list[list[Mark]] = []  # of each row, its mark in every draw
    for row in rows:
        answers = tuple(row.options) or _YES_NO
        marks = [benchmark.mark(row, answer, Reader()) for answer in answers]
        order = list(range(draws))
        generator.shuffle(order)
        columns.append([marks[number % len(marks)] for number in order])
    return _mean([benchmark.aggregate(rows, list(draw)) for draw in zip(*columns, strict=True)])


def _draws(rows: Sequence[Row]) -> int:
    """How many draws: a multiple of every number of options, unless the least common one is large."""
    common = math.lcm(*{len(row.options) or len(_YES_NO) for row in rows})
    if common > _MOST_COMMON:
        return _DRAWS
    return common * max(1, min(_DRAWS, _MARKS // len(rows)) // common)


def _random_box(benchmark: Benchmark, rows: Sequence[Row]) -> Scores:
    """Boxes whose corners are any two points of the picture, of at least a thousandth a side."""
    generator = np.random.default_rng(_SEED)
    draws = []
    for _ in range(max(1, min(_BOX_DRAWS, _MARKS // len(rows)))):
        first = generator.integers(0, 1000, size=(len(rows), 2))
        last = (first + generator.integers(1, 1000, size=(len(rows), 2))) % 1001
        corners = np.concatenate([np.minimum(first, last), np.maximum(first, last)], axis=1).tolist()
        texts = iter(json.dumps([box]) for box in corners)
        draws.append(_score(benchmark, rows, lambda row, texts=texts: next(texts)))  # type: ignore[misc]
    return _mean(draws)


def _mean(draws: Sequence[Scores]) -> Scores:
    return {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
