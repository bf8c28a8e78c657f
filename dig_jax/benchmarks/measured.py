"""A benchmark as a task, so that it can be measured while a run trains: `config.evals.NAME.benchmark`.

Its examples come in an order that is drawn from the run's seed, rows that count only together one after
another, so that the first `num_examples` are a sample of the whole and the same one at every step. The scores
are those of the benchmark over the rows that were answered; of several answers to a row, the means over them.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.benchmarks import opening, registry
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.row import Mark, Reader, Row
from dig_jax.data.example import Example, Size, Source, Turn
from dig_jax.machines.folder import to_path
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.boxes.text import BoxFormat
from dig_jax.tasks.questions import Question, QuestionSource
from dig_jax.tasks.task import Answerer, Metric, Scores, Task, Terms

logger = logging.getLogger("dig_jax")

_YES = {"Yes": 1.0, "No": 0.0}  # what is said, as a number; -1 is neither
_NO_BOXES = np.zeros((0, 4), np.float32)


class MeasuredBenchmark(Task):
    """The questions of a benchmark; the target is the number of the row."""

    main = "hit"

    def __init__(self, benchmark: Benchmark, config: ConfigDict, answerer: Answerer):
        super().__init__(config, answerer)
        self.name = benchmark.name
        self.benchmark = benchmark
        self._boxes = BoxFormat(answerer.box_convention, config.sft.answer_step, answerer.resized)
        self._reader = Reader(answerer.thinking, answerer.box_convention, answerer.resized)
        self._rows: tuple[Row, ...] = ()
        self._values: tuple[str, ...] = ()
        self.terms = ("hit", "parsed", "said", "row")
        self.metrics = (
            Metric("score", benchmark.headline),
            Metric("hit", "right answers"),
            Metric("parsed", "answers read"),
        )

    @property
    def unit(self) -> str:
        """What its examples are called."""
        return f"questions of {self.benchmark.title}"

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """The rows of a split, or of all with "", in an order of the run's seed."""
        found = _opened(self.benchmark.name, str(folder), split)
        self._rows = found.rows
        probe = self.benchmark.mark(self._rows[0], "", self._reader) if self._rows else None
        self._values = tuple(probe.values) if probe else ()
        self.terms = ("hit", "parsed", "said", "row", *self._values)
        parts = self.benchmark.completeness(found.rows, found.splits)
        said = [*(f"{part.split} {part}" for part in parts), *self.benchmark.faults(found.rows)]
        logger.info("%s from %s: %s", self.benchmark.title, folder, "; ".join(said))
        questions = [
            Question(
                row.index,
                row.images,
                functools.partial(self._ask, row),
                number,
            )
            for number in _shuffled(self.benchmark, self._rows, self.config.seed)
            for row in [self._rows[number]]
        ]
        return QuestionSource(f"{self.benchmark.title} in {folder}", questions, self.name)

    def _ask(self, row: Row, sizes: Sequence[Size]) -> Turn:
        return self.benchmark.ask(row, sizes, self._boxes)

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """Marks the answers; the reward is a hit."""
        rows = [self._rows[example.target] for example in examples]
        marks = [self.benchmark.mark(row, text, self._reader) for row, text in zip(rows, texts, strict=True)]
        terms = {
            "hit": [mark.hit for mark in marks],
            "parsed": [not mark.unparsed for mark in marks],
            "said": [_YES.get(mark.answer, -1.0) for mark in marks],
            "row": [example.target for example in examples],
            **{name: [mark.values[name] for mark in marks] for name in self._values},
        }
        arrays = {name: np.asarray(values, np.float32) for name, values in terms.items()}
        notes = tuple(mark.reason for mark in marks)
        return Scores(arrays["hit"], arrays, notes, tuple({"answer": mark.answer} for mark in marks))

    def figures(self, terms: Terms) -> dict[str, float]:
        """The benchmark's scores over the rows that were answered, a dot for each slash of their names.

        `score` is its headline; `hit` and `parsed` are shares of the answers, 0 to 1.
        """
        numbers = np.asarray(terms["row"]).astype(int)
        order = np.argsort(numbers, kind="stable")
        rounds = _rounds(numbers[order])
        found: list[dict[str, float]] = []
        for own in (order[rounds == number] for number in range(rounds.max(initial=0) + 1)):
            rows = [self._rows[numbers[place]] for place in own]
            marks = [self._mark(row, terms, place) for row, place in zip(rows, own, strict=True)]
            found.append(self._scores(rows, marks))
        means = {name: float(np.mean([each[name] for each in found if name in each])) for name in found[0]}
        shares = {name: float(np.mean(terms[name])) for name in ("hit", "parsed")}
        whole = shares | {"reward": shares["hit"], "score": means[self.benchmark.headline]}
        return whole | {name.replace("/", "."): value for name, value in means.items()}

    def _scores(self, rows: list[Row], marks: list[Mark]) -> dict[str, float]:
        """Scores; a group of rows that count only together is left out where the sample cuts it."""
        if self.benchmark.groups is not None:
            whole = _sizes(self.benchmark, self._rows)
            here = _sizes(self.benchmark, rows)
            kept = [number for number, row in enumerate(rows) if _is_whole(self.benchmark, row, here, whole)]
            if kept:
                rows, marks = [rows[number] for number in kept], [marks[number] for number in kept]
        return self.benchmark.aggregate(rows, marks)

    def _mark(self, row: Row, terms: Terms, place: int) -> Mark:
        said = {1: "Yes", 0: "No"}.get(int(terms["said"][place]), "")
        values = {name: float(terms[name][place]) for name in self._values}
        return Mark(row.index, said, float(terms["hit"][place]), "", values=values)

    def truth(self, example: Example) -> dict[str, Any]:
        """The right answer, and the options."""
        row = self._rows[example.target]
        return {"options": dict(row.options), "answer": row.answer, "boxes": [list(box) for box in row.boxes]}

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """The pictures with the true boxes, above the question and the answer that was read."""
        row = self._rows[example.target]
        asked = [part for part in example.messages[-1].parts if isinstance(part, str)]
        true = np.asarray(row.boxes, np.float32).reshape(-1, 4)
        said = f"right: {row.answer or 'as drawn'}, read: {read['answer'] or 'none'}"
        return draw_boxes(example.images, true, _NO_BOXES, [*asked, said, *caption])


@functools.lru_cache(maxsize=16)  # a table is read once at the start of a run, for its identity and its rows
def _opened(name: str, folder: str, split: str) -> opening.Opened:
    return opening.open_rows(registry.benchmark(name), to_path(folder), (split,) if split else ())


def identity(name: str, folder: epath.PathLike, split: str) -> str:
    """A hash of the questions and answers of a benchmark's files: what a run that goes on must find again.

    Raises:
      FileNotFoundError, ValueError: as `opening.open_rows`.
    """
    digest = hashlib.sha256()
    for row in _opened(name, str(folder), split).rows:
        digest.update(repr((row.index, row.question, dict(row.options), row.answer, row.boxes)).encode())
    return digest.hexdigest()[:16]


def _shuffled(benchmark: Benchmark, rows: Sequence[Row], seed: int) -> list[int]:
    """Numbers of the rows in an order of the seed, those of a group one after another."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        name = benchmark.groups(row) if benchmark.groups is not None else row.index
        groups.setdefault(name, []).append(number)
    own = list(groups.values())
    return [number for place in np.random.default_rng(seed).permutation(len(own)) for number in own[place]]


def _rounds(numbers: np.ndarray) -> np.ndarray:
    """Of sorted numbers, how often each was there before: [3, 3, 5, 5] -> [0, 1, 0, 1]."""
    first = np.searchsorted(numbers, numbers, side="left")
    return np.arange(len(numbers)) - first


def _sizes(benchmark: Benchmark, rows: Sequence[Row]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[benchmark.group(row)] = sizes.get(benchmark.group(row), 0) + 1
    return sizes


def _is_whole(benchmark: Benchmark, row: Row, here: Mapping[str, int], whole: Mapping[str, int]) -> bool:
    return here[benchmark.group(row)] == whole[benchmark.group(row)]
