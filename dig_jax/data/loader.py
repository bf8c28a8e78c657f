"""Batches of examples: `batch(step)` as a pure function, with a thread to prepare them ahead."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from etils import epath

from dig_jax.data.buckets import Bucket
from dig_jax.data.encode import Batch, ExampleEncoder
from dig_jax.data.example import BadRecord, Demonstration, Example, Shape, Source
from dig_jax.data.order import AUGMENT_STREAM, NOISE_STREAM, ORDER_STREAM, Dealt, Epochs, Order, grouped
from dig_jax.data.planning import plan_padding

logger = logging.getLogger("dig_jax")

Change = Callable[[Example, np.random.Generator], Example]
Demonstrate = Callable[[Example, np.random.Generator], Demonstration]
Privilege = Callable[[Example], Example]


@dataclasses.dataclass(frozen=True)
class PartData:
    """A part of a mixture, as it is loaded.

    Attributes:
      size: number of its examples.
      share: positions that it has in every block of `order.Dealt`.
    """

    size: int
    share: int


class ExampleDataset:
    """The examples of several data sets, one after another, decoded on demand and kept while memory allows.

    Args:
      sources: of the data sets; examples of all of them are equally likely.
      max_bad_records: how many unreadable examples are left out, with a warning each; one more is an error.
      cache_bytes: decoded examples are kept up to this much memory. None is evicted for another: in shuffled
        epochs the one that was used last is the one needed latest, so eviction would never pay.

    Attributes:
      shapes: of all examples.

    Raises:
      BadRecord: more are unreadable than may be, or all of a data set.
    """

    def __init__(self, sources: Sequence[Source], *, max_bad_records: int, cache_bytes: int):
        self._max_bad_records = max_bad_records
        self._bad: set[tuple[str, int]] = set()
        self._items: list[tuple[Source, int]] = []
        self.shapes: list[Shape] = []
        for source in sources:
            for record, error in source.unusable:
                self._leave_out(source, -1 - record, error)
            self._items += [(source, index) for index in range(len(source))]
            self.shapes += _known_shapes(source)
        self._cache: dict[int, Example] = {}
        self._cache_left = cache_bytes

    def __len__(self) -> int:
        return len(self._items)

    def leave_out(self, index: int, error: BadRecord) -> None:
        """Counts example number `index`, which could not be read.

        Raises:
          BadRecord: it is one too many.
        """
        self._leave_out(*self._items[index], error)

    def _leave_out(self, source: Source, record: int, error: BadRecord) -> None:
        if (source.name, record) in self._bad:
            return
        self._bad.add((source.name, record))
        if len(self._bad) > self._max_bad_records:
            raise BadRecord(
                f"{error}. That is unreadable example number {len(self._bad)}, and"
                f" config.data.max_bad_records is {self._max_bad_records}: restore the dataset, or allow more"
            ) from error
        logger.warning("%s. Left out (%d of at most %d)", error, len(self._bad), self._max_bad_records)

    def __getitem__(self, index: int) -> Example:
        """Example number `index`, in the order of the data sets and of their records. Raises BadRecord."""
        if index in self._cache:
            return self._cache[index]
        source, record = self._items[index]
        example = source[record]
        size = sum(image.nbytes for image in example.images)
        if size <= self._cache_left:
            self._cache_left -= size
            self._cache[index] = example
        return example


class MismatchedDataset(ExampleDataset):
    """The control for comparison: the first image of every example is that of another one, of the same size.

    Targets stay those of the true example, which nobody can find by comparing any more: what a model still
    scores it owes to its other images, or to guessing.

    Raises:
      ValueError: an example is the only one of its size.
    """

    def __init__(self, sources: Sequence[Source], *, max_bad_records: int, cache_bytes: int):
        super().__init__(sources, max_bad_records=max_bad_records, cache_bytes=cache_bytes)
        self._other = np.zeros(len(self), int)
        sizes = np.array([shape.sizes[0] for shape in self.shapes])
        for size in np.unique(sizes, axis=0):
            alike = np.flatnonzero((sizes == size).all(axis=1))
            if len(alike) == 1:
                height, width = size
                raise ValueError(
                    f"only one example has an image of {width}x{height} pixels: none to exchange it with"
                )
            self._other[alike] = np.roll(alike, len(alike) // 2)  # neighbours may be of one scene

    def __getitem__(self, index: int) -> Example:
        """Example number `index`, with the first image of another."""
        other, own = super().__getitem__(int(self._other[index])), super().__getitem__(index)
        return dataclasses.replace(own, images=(other.images[0], *own.images[1:]))


def _known_shapes(source: Source) -> list[Shape]:
    """Shapes; an unreadable example counts as the first readable one. What uses it will notice."""
    shapes = source.shapes()
    known = next((shape for shape in shapes if shape is not None), None)
    if known is None:
        if len(source):
            raise _why_unreadable(source, 0)
        return []
    return [known if shape is None else shape for shape in shapes]


def _why_unreadable(source: Source, index: int) -> BadRecord:
    try:
        source[index]
    except BadRecord as error:
        return error
    return BadRecord(f"{source.name}, example {index}: it could not be read a moment ago")


class ExampleLoader:
    """Batches of shuffled, augmented examples. A step number is all that is needed to continue a run.

    Epoch follows epoch without end, each in an order of its own (`order`). Position `step * batch_size + row`
    of that sequence decides which example a row holds and how it is augmented, so a batch depends neither on
    earlier batches nor on the number of processes. Each process loads the rows that it is asked for, which
    others may load as well. A batch is padded to the smallest bucket that holds the rows of all processes.

    Args:
      dataset: where the examples come from.
      encoder: turns them into arrays.
      bucket_pixels: pixels per image, after resizing, that each bucket is made for; empty derives a few
        buckets from the encoder's pixel limits and the sizes in the dataset.
      prompt_lengths: tokens of further buckets, for texts of very different lengths; empty for none.
      global_batch_size: rows per batch over all processes.
      seed: of order and augmentation.
      shuffle: False keeps the order of the dataset, for evaluation.
      group_sizes: whether batches of a shuffled epoch are made of examples of one bucket, where possible;
        with `parts`, of one part and one bucket: parts then have their shares of the batches.
      augment: changes an example and keeps its target true; None: examples are shown as they are stored.
      demonstrate: gives the answer to learn; None: there is none.
      privilege: the example as a teacher is shown it, with a prompt as long and images as large; None: there
        is no teacher.
      parts: of a mixture, whose examples lie one after another in the dataset, in this order: each has its
        share, and epochs and shuffles of its own. (): all examples are equally likely.
      readahead: how many of the following batches a background thread prepares while one is used; 0 for none.
      rows: ascending, the rows of a batch that this process loads (`parallel.RowLayout.of`); None: all.
      kept: folder where lengths of prompts are kept from one start to the next; None: nowhere.

    Attributes:
      batch_size: rows per batch, over all processes.
      num_examples: in the dataset.

    Raises:
      ValueError: an example fits into no bucket.
    """

    def __init__(
        self,
        dataset: ExampleDataset,
        encoder: ExampleEncoder,
        *,
        bucket_pixels: Sequence[int],
        global_batch_size: int,
        seed: int,
        shuffle: bool,
        group_sizes: bool,
        augment: Change | None = None,
        demonstrate: Demonstrate | None = None,
        privilege: Privilege | None = None,
        parts: Sequence[PartData] = (),
        prompt_lengths: Sequence[int] = (),
        readahead: int = 0,
        rows: np.ndarray | None = None,
        kept: epath.Path | None = None,
    ):
        self._dataset = dataset
        self._encoder = encoder
        self._seed = seed
        self._augment = augment
        self._demonstrate = demonstrate
        self._privilege = privilege
        self.num_examples = len(dataset)
        self.batch_size = global_batch_size
        self._rows = np.arange(global_batch_size) if rows is None else np.asarray(rows)
        self._padding = plan_padding(dataset, encoder, bucket_pixels, prompt_lengths, kept)
        self._order: Order
        by_size = group_sizes and self._padding.several  # one bucket would leave the order as it is
        if parts:
            ends = np.cumsum([part.size for part in parts])
            kinds = np.split(self._padding.smallest, ends[:-1]) if by_size else []
            self._order = Dealt(
                [part.size for part in parts],
                [part.share for part in parts],
                seed,
                together=global_batch_size if by_size else 1,
                groupings=[grouped(kind, global_batch_size) for kind in kinds],
            )
        else:
            grouping = grouped(self._padding.smallest, global_batch_size) if by_size else None
            self._order = Epochs(len(dataset), (seed, ORDER_STREAM), shuffle=shuffle, grouping=grouping)
        sizes = [part.size for part in parts] or [len(dataset)]
        self._part_of = np.repeat(np.arange(len(sizes)), sizes)  # of every example
        self._readahead = readahead
        self._waiting: dict[int, Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readahead") if readahead else None

    def batch(self, step: int, following: Iterable[int] | None = None) -> Batch:
        """This process's rows of batch number `step`. An error in loading it is raised here.

        Args:
          step: which batch.
          following: which batches are likely to be asked for after it, the likeliest first; as many as are
            read ahead are prepared. None: the next numbers.
        """
        if self._thread is None:
            return self._load(step)
        following = itertools.count(step + 1) if following is None else following
        wanted = [step, *itertools.islice(following, self._readahead)]
        waiting = {number: self._waiting.pop(number, None) for number in wanted}
        for future in self._waiting.values():
            future.cancel()
        self._waiting = {
            number: future or self._thread.submit(self._load, number) for number, future in waiting.items()
        }
        return self._waiting.pop(step).result()

    def close(self) -> None:
        """Forgets the batches prepared ahead and ends the thread."""
        self._waiting.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def bucket(self, step: int) -> Bucket:
        """What batch number `step` is padded to, on all processes alike."""
        return self.bucket_for(self.positions(step))

    def positions(self, step: int) -> np.ndarray:
        """Where all rows of batch number `step` are in the sequence, those of other processes too."""
        return step * self.batch_size + np.arange(self.batch_size)

    def bucket_for(self, positions: np.ndarray) -> Bucket:
        """The smallest bucket that holds the examples at all these positions."""
        return self._padding.bucket(self._indices(positions))

    def load(self, positions: np.ndarray, bucket: Bucket) -> Batch:
        """The examples at these positions, of any batches, padded to `bucket`; nothing is prepared ahead."""
        numbers = [int(position) for position in positions]
        examples = [self._example(position) for position in numbers]
        answers = None
        if self._demonstrate is not None:
            answers = [
                self._demonstrate(example, self._rng(NOISE_STREAM, position))
                for example, position in zip(examples, numbers, strict=True)
            ]
        batch = self._encoder(examples, bucket, answers)
        if self._privilege is None:
            return batch
        taught = self._encoder([self._privilege(example) for example in examples], bucket)
        return dataclasses.replace(batch, teacher=taught.prompts)

    def parts(self, positions: np.ndarray) -> np.ndarray:
        """Of which part of the mixture the examples at these positions are; 0 where there are no parts."""
        return np.array([self._order.part(int(position)) for position in positions], int)

    def first(self, part: int = 0) -> Example:
        """The first example of a part in the sequence."""
        return self._example(next(n for n in itertools.count() if self._order.part(n) == part))

    def figures(self, step: int) -> dict[str, float]:
        """What batch number `step` costs, over all processes.

        Returns:
          `bucket/prompt_length` and `bucket/num_patches`, the P and N it is padded to; `padding/prompt` and
          `padding/patches`, the shares of its prompt tokens and of its patches that are padding.
        """
        rows = self._indices(self.positions(step))
        bucket = self._padding.bucket(rows)
        figures = {f"bucket/{name}": float(size) for name, size in dataclasses.asdict(bucket).items()}
        return figures | {f"padding/{name}": x for name, x in self._padding.shares(rows, bucket).items()}

    def describe_padding(self) -> list[str]:
        """One line per bucket: the share of as many batches as hold all examples once, and its padding."""
        steps = -(-self.num_examples // self.batch_size)
        return self._padding.describe([self._indices(self.positions(step)) for step in range(steps)])

    def _load(self, step: int) -> Batch:
        batch = self.load(self.positions(step)[self._rows], self.bucket(step))
        return dataclasses.replace(batch, rows=self._rows)

    def _example(self, position: int) -> Example:
        example = self._readable(self._order.example(position))
        return self._augment(example, self._rng(AUGMENT_STREAM, position)) if self._augment else example

    def _rng(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, stream, number])

    def _readable(self, index: int) -> Example:
        """Example number `index`, or in place of an unreadable one, the next of its part and bucket."""
        for candidate in itertools.chain([index], self._alike(index)):  # others are looked for if it must be
            try:
                return self._dataset[candidate]
            except BadRecord as error:
                self._dataset.leave_out(candidate, error)
        raise BadRecord("no example of the dataset can be read")

    def _alike(self, index: int) -> Iterator[int]:
        """The other examples of its part and bucket, those behind it first."""
        kind = self._padding.smallest == self._padding.smallest[index]
        alike = np.flatnonzero(kind & (self._part_of == self._part_of[index]))
        yield from map(int, np.roll(alike, -int(np.searchsorted(alike, index)))[1:])

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        """Which examples of the dataset are at these positions."""
        return np.array([self._order.example(int(position)) for position in positions])
