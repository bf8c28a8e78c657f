"""Answers of a model to the rows of a benchmark, a batch at a time, on all devices of all hosts.

Rows are read in batches of one bucket each, so that every bucket's programs are compiled once, and the number
of rows of a batch is one for each bucket: a bucket of large pictures takes fewer at a time. What is
drawn for a row depends on its prompt, the seed and its index alone: not on the rows beside it, the number of
devices, or how often the command was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from flax import nnx

from dig_jax.benchmarks.pixels import picture_sizes
from dig_jax.benchmarks.row import Row
from dig_jax.data.buckets import Bucket
from dig_jax.data.encode import Batch, ExampleEncoder
from dig_jax.data.example import Shape, Size, Turn
from dig_jax.data.loader import ExampleDataset
from dig_jax.data.planning import plan_padding
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.machines import agreement, parallel
from dig_jax.measure.saved import Answer
from dig_jax.rollout.drawer import Drawer, Limits
from dig_jax.rollout.engine import sample_keys
from dig_jax.rollout.sampling import Sampling
from dig_jax.rollout.thinking import make_budget
from dig_jax.tasks.questions import Question, QuestionSource

Ask = Callable[[Row, Sequence[Size]], Turn]


@dataclasses.dataclass(frozen=True)
class How:
    """How answers are drawn.

    Attributes:
      sampling: the distribution.
      max_new_tokens: of one answer.
      thinking_budget: tokens of thought after which it is closed; 0 lets the model think.
      seed: of the sampling noise.
      rows: of a batch, at most, for each group of devices that shares the model.
      patches: of a batch, at most, for each such group; a row that has more is read alone.
    """

    sampling: Sampling
    max_new_tokens: int
    thinking_budget: int
    seed: int
    rows: int
    patches: int


class RowSource(QuestionSource):
    """The rows of a benchmark as examples to encode; their pictures are decoded when they are asked for.

    Args:
      name: of the benchmark, for errors.
      rows: of it.
      ask: makes the question.

    Attributes:
      sizes: (height, width) of every picture, by its key.

    Raises:
      ValueError: pictures can not be read: a benchmark without some of its rows is another one.
    """

    def __init__(self, name: str, rows: Sequence[Row], ask: Ask):
        try:
            self.sizes = picture_sizes(rows)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        questions = [Question(row.index, row.images, functools.partial(ask, row), None) for row in rows]
        super().__init__(name, questions, name, self.sizes)

    def shapes(self) -> Sequence[Shape]:
        """The shape of every row; all can be read."""
        return [shape for shape in super().shapes() if shape is not None]

    def index(self, number: int) -> str:
        """What row `number` is called."""
        return self._questions[number].id

    @property
    def digest(self) -> str:
        """A hash of what is asked: indices, prompts and sizes of pictures, in any order of the rows."""
        lines = sorted(
            json.dumps([row.id, [dataclasses.astuple(turn) for turn in shape.messages], shape.sizes])
            for row, shape in zip(self._questions, self.shapes(), strict=True)
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of a source that share a bucket.

    Attributes:
      bucket: what they are padded to.
      rows: int, their numbers in the source, ascending.
      size: how many are read at a time.
    """

    bucket: Bucket
    rows: np.ndarray
    size: int


class Desk:
    """Draws answers to rows with one model, whatever its weights.

    Args:
      drawer: of completions.
      tokenizer: its own.
      encoder: of prompts.
      how: the answers are drawn.
    """

    def __init__(self, drawer: Drawer, tokenizer: Tokenizer, encoder: ExampleEncoder, how: How):
        self._drawer, self._tokenizer, self._encoder, self._how = drawer, tokenizer, encoder, how
        self._key = jax.random.key(how.seed)

    def parts(self, source: RowSource) -> list[Part]:
        """The rows of a source by bucket, those of small pictures first."""
        padding = plan_padding(ExampleDataset([source], max_bad_records=0, cache_bytes=0), self._encoder, ())
        shards, parts = parallel.data_shards(self._drawer.mesh), []
        for number, bucket in enumerate(padding.buckets):
            rows = np.flatnonzero(padding.smallest == number)
            if rows.size:
                most = max(1, min(self._how.rows, self._how.patches // max(bucket.num_patches, 1)))
                needed = -(-rows.size // shards)  # a few rows do not wait for a batch of empty ones
                exponent = min(math.floor(math.log2(most)), math.ceil(math.log2(needed)))
                parts.append(Part(bucket, rows, shards * 2**exponent))
        return parts

    def answers(
        self, weights: nnx.State, source: RowSource, parts: Sequence[Part], done: np.ndarray
    ) -> Iterator[list[Answer]]:
        """Answers to all rows that are not done, batch by batch; all processes take part.

        Args:
          weights: of the model, from `drawer.weights`.
          source: of the rows.
          parts: of the source, from `parts`.
          done: bool, of each row of the source, alike on all processes.
        """
        batches = [
            (part, chosen)
            for part in parts
            for todo in [part.rows[~done[part.rows]]]
            for chosen in np.split(todo, range(part.size, len(todo), part.size))
            if len(chosen)
        ]
        with ThreadPoolExecutor(1, thread_name_prefix="pictures") as reader:
            ahead = [reader.submit(self._read, source, *batch) for batch in batches[:1]]
            for number, (part, chosen) in enumerate(batches):
                batch = ahead.pop().result()
                if number + 1 < len(batches):  # read while the devices draw
                    ahead.append(reader.submit(self._read, source, *batches[number + 1]))
                yield self._draw(weights, source, batch, chosen, part.size)

    def _read(self, source: RowSource, part: Part, chosen: np.ndarray) -> Batch:
        """This process's rows of a batch; the last row fills what is missing to its size."""
        layout = parallel.row_layout(self._drawer.mesh, part.size)
        own = layout.of(jax.process_index())
        examples = [source[int(chosen[min(row, len(chosen) - 1)])] for row in own]
        return dataclasses.replace(self._encoder(examples, part.bucket), rows=own)

    def _draw(
        self, weights: nnx.State, source: RowSource, batch: Batch, chosen: np.ndarray, size: int
    ) -> list[Answer]:
        how = self._how
        agreement.agree_on_rows(batch.ids, batch.rows, size)
        indices = [source.index(int(row)) for row in chosen]
        numbers = np.resize(agreement.checksums(indices), size)[:, None]
        limits = Limits(how.sampling, how.max_new_tokens)
        budget = None
        if how.thinking_budget:
            budget = make_budget(self._tokenizer, how.thinking_budget, how.max_new_tokens, (size, 1))
        drawn = self._drawer.draw(
            weights, batch.prompts, batch.rows, sample_keys(self._key, 0, numbers), limits, budget
        )
        lengths = drawn.mask[:, 0].sum(axis=-1).astype(int)
        return [
            Answer(
                index,
                self._tokenizer.decode(drawn.tokens[row, 0, : lengths[row]].tolist()),
                int(lengths[row]),
                bool(drawn.finished[row, 0]),
            )
            for row, index in enumerate(indices)
        ]
