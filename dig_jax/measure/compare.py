"""Two models on the same rows: paired differences, intervals and McNemar's test, per benchmark and in all.

Both models are resampled by the same groups, so that what is hard for both does not blur their difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.intervals import Interval, McNemar, interval, mcnemar, resamples
from dig_jax.benchmarks.row import Mark, Row

OVERALL = "overall"

Marked = tuple[Benchmark, Sequence[Row], Sequence[Mark]]


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a model gained on a benchmark, or on all of them.

    Attributes:
      name: of the benchmark, or `OVERALL`.
      metric: of its score.
      rows: that both answered.
      before, after: the scores of both on those rows.
      ends: 95 % interval of after - before; None where there are too few groups.
      test: of the rows that are right altogether (a hit of 1).
      notes: what a reader must know, such as rows that one of both lacks.
    """

    name: str
    metric: str
    rows: int
    before: float
    after: float
    ends: Interval | None
    test: McNemar
    notes: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """after - before."""
        return self.after - self.before

    def record(self) -> dict[str, Any]:
        """As values that JSON takes."""
        return dataclasses.asdict(self) | {"difference": self.gain}


def differences(before: Mapping[str, Marked], after: Mapping[str, Marked]) -> list[Difference]:
    """The differences on every benchmark that both have, and over all of them if there are several.

    The overall score is the mean of the headline scores, each as a share of its highest value.

    Args:
      before, after: name -> benchmark, rows and marks of the two models.

    Raises:
      ValueError: they have no benchmark in common, or one of which no row is in both.
    """
    names = [name for name in before if name in after]
    if not names:
        raise ValueError(f"no benchmark in common: {', '.join(before)} and {', '.join(after)}")
    found, drawn, hits = [], [], []
    for name in names:
        difference, values, right = _of_one(name, before[name], after[name])
        found.append(difference)
        drawn.append(values / before[name][0].top)
        hits.append(right)
    if len(names) == 1:
        return found
    tops = [before[name][0].top for name in names]
    first, second = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    ends = interval(np.mean(drawn, axis=0)) if all(values.size for values in drawn) else None
    overall = Difference(
        OVERALL,
        f"mean of {len(names)} headline scores, each as a share of its highest value",
        sum(difference.rows for difference in found),
        float(np.mean([one.before / top for one, top in zip(found, tops, strict=True)])),
        float(np.mean([one.after / top for one, top in zip(found, tops, strict=True)])),
        ends,
        mcnemar(first, second),
    )
    return [*found, overall]


def _of_one(
    name: str, before: Marked, after: Marked
) -> tuple[Difference, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The difference on one benchmark, that of every resample, and the hits of both."""
    benchmark, rows, _ = before
    found = [{mark.index: mark for mark in marks} for _, _, marks in (before, after)]
    asked_after = {row.index: row for row in after[1]}
    both = [row for row in rows if row.index in asked_after]
    if not both:
        raise ValueError(f"{name}: no row was answered by both models")
    if other := [row.index for row in both if _truth(row) != _truth(asked_after[row.index])]:
        raise ValueError(
            f"{name}: {len(other)} rows, {other[0]} the first, have another question or label in the second"
            " folder: the two were measured on different files"
        )
    first, second = ([marks[row.index] for row in both] for marks in found)

    scores = [benchmark.scores(both, marks) for marks in (first, second)]
    metric = next((key for key in (benchmark.headline, *benchmark.alone) if key in scores[0]), None)
    if metric is None:
        raise ValueError(f"{name}: {'; '.join(benchmark.faults(both))}: no score can be compared")

    def gains(numbers: np.ndarray) -> dict[str, float]:
        chosen = [both[i] for i in numbers]
        drawn = [benchmark.aggregate(chosen, [marks[i] for i in numbers]) for marks in (first, second)]
        return {metric: drawn[1][metric] - drawn[0][metric]} if metric in drawn[0] else {}

    drawn = resamples(gains, [benchmark.group(row) for row in both]).get(metric, np.zeros(0))
    right = _right(first), _right(second)
    apart = len(rows) + len(after[1]) - 2 * len(both)
    notes = (f"{apart} rows that one of both lacks are left out",) if apart else ()
    ends = interval(drawn) if drawn.size else None
    values = scores[0][metric], scores[1][metric]
    difference = Difference(name, metric, len(both), values[0], values[1], ends, mcnemar(*right), notes)
    return difference, drawn, right


def _right(marks: Sequence[Mark]) -> np.ndarray:
    """Which rows are right altogether, bool [n]."""
    return np.array([mark.hit >= 1 for mark in marks], bool)


def _truth(row: Row) -> tuple[Any, ...]:
    """What must be the same in both: pictures may lie elsewhere."""
    return row.question, tuple(row.options.items()), row.answer, row.boxes
