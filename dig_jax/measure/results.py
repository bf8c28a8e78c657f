"""What the answers to a benchmark come to: marks, scores with intervals, and what stands beside a score."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dig_jax.benchmarks.benchmark import Benchmark, Scores
from dig_jax.benchmarks.intervals import Interval, intervals
from dig_jax.benchmarks.row import Mark, Reader, Row
from dig_jax.measure.saved import Answer


@dataclasses.dataclass(frozen=True)
class Result:
    """A benchmark as one model did it.

    Attributes:
      benchmark: what was asked.
      rows: that were asked.
      marks: of the answers, in the order of the rows.
      answers: to them.
      scores: of all; without the headline where rows that count together are missing.
      intervals: of the scores that have one, at 95 %.
    """

    benchmark: Benchmark
    rows: Sequence[Row]
    marks: Sequence[Mark]
    answers: Sequence[Answer]
    scores: Scores
    intervals: Mapping[str, Interval]

    def figures(self) -> dict[str, float]:
        """How answers came out: shares that were `unparsed`, whose thought was `cut_off`, and that were
        `truncated` at the most tokens allowed; `median_tokens`."""
        count = len(self.marks)
        return {
            "unparsed": sum(mark.unparsed for mark in self.marks) / count,
            "cut_off": sum(mark.cut_off for mark in self.marks) / count,
            "truncated": sum(not answer.finished for answer in self.answers) / count,
            "median_tokens": statistics.median(answer.tokens for answer in self.answers),
        }


def chosen(benchmark: Benchmark, rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """A random part of the rows, the same for a seed, in their order: whole groups, until there are `count`.

    Args:
      benchmark: of the rows: how they belong together.
      rows: all.
      count: at least so many; 0 for all.
      seed: of the choice.
    """
    if not count or count >= len(rows):
        return list(rows)
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        members.setdefault(benchmark.group(row), []).append(number)
    names = sorted(members)  # so that the order of the rows in their file does not matter
    taken: list[int] = []
    for name in np.random.default_rng(seed).permutation(len(names)):
        if len(taken) >= count:
            break
        taken += members[names[name]]
    return [rows[number] for number in sorted(taken)]


def result_of(
    benchmark: Benchmark,
    rows: Sequence[Row],
    answers: Mapping[str, Answer],
    reader: Reader,
    *,
    with_intervals: bool = True,
) -> Result:
    """Marks answers and adds them up.

    Args:
      benchmark: what was asked.
      rows: all that were asked.
      answers: by index of their row.
      reader: how they are read.
      with_intervals: which take a second or so per thousand rows.
    """
    marks = [benchmark.mark(row, answers[row.index].prediction, reader) for row in rows]

    def scores(numbers: np.ndarray) -> Scores:
        return benchmark.aggregate([rows[i] for i in numbers], [marks[i] for i in numbers])

    told = benchmark.scores(rows, marks)
    ends = intervals(scores, [benchmark.group(row) for row in rows]) if with_intervals else {}
    ends = {name: of for name, of in ends.items() if name in told}
    return Result(benchmark, rows, marks, [answers[row.index] for row in rows], told, ends)


@dataclasses.dataclass(frozen=True)
class _KnownPicture:
    """A picture of saved rows: its key alone is left."""

    key: str

    @property
    def name(self) -> str:
        """The key."""
        return self.key

    def read(self) -> bytes:
        """Raises ValueError."""
        raise ValueError(f"{self.key}: saved results hold no pictures")


def to_record(row: Row, mark: Mark, answer: Answer) -> dict[str, Any]:
    """A row with its answer, as values that JSON takes; `from_record` makes row and mark of it again."""
    kept = {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)
        if field.name not in ("index", "images")
    }
    return {
        "index": row.index,
        "prediction": answer.prediction,
        **{name: getattr(mark, name) for name in ("answer", "hit", "reason", "cut_off")},
        "values": dict(mark.values),
        "tokens": answer.tokens,
        "finished": answer.finished,
        "row": {name: dict(x) if isinstance(x, Mapping) else x for name, x in kept.items()}
        | {"images": [picture.key for picture in row.images]},
    }


def from_record(record: Mapping[str, Any]) -> tuple[Row, Mark]:
    """The row, without its pictures, and the mark that `to_record` wrote. Raises KeyError or TypeError."""
    kept = dict(record["row"])
    kept["images"] = tuple(_KnownPicture(key) for key in kept["images"])
    kept["boxes"] = tuple(tuple(box) for box in kept["boxes"])
    kept["splits"] = tuple(kept["splits"])
    kept["size"] = tuple(kept["size"]) if kept["size"] else None
    names = ("index", "answer", "hit", "reason", "cut_off", "values")
    return Row(record["index"], **kept), Mark(**{name: record[name] for name in names})
