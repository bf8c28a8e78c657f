"""Batches of pairs: `batch(step)` as a pure function, with a thread to prepare them ahead."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from etils import epath

from dig_jax.data.augment import Augment
from dig_jax.data.buckets import Bucket, Padding, derive_buckets, smallest_bucket
from dig_jax.data.encode import Batch, PairEncoder
from dig_jax.data.noise import NO_NOISE, CountNoise
from dig_jax.data.records import BadRecord, Pair, PairSource, open_pairs

logger = logging.getLogger("dig_jax")

_ORDER_STREAM, _AUGMENT_STREAM, _NOISE_STREAM = 0, 1, 2  # random numbers that are kept apart


class PairDataset:
    """The pairs of one or more datasets, one after another, decoded on demand and kept while memory allows.

    Args:
      folders: dataset folders; pairs of all of them are equally likely.
      split: the split read from each.
      num_differences: only pairs with these numbers of differences; empty for all.
      max_bad_records: how many unreadable pairs are left out, with a warning each; one more is an error.
      cache_bytes: decoded pairs are kept up to this much memory. No pair is evicted for another: in shuffled
        epochs the pair that was used last is the one needed latest, so eviction would never pay.

    Attributes:
      image_sizes: int [len, 2], (height, width) in pixels of every pair.

    Raises:
      FileNotFoundError, ValueError: see `open_pairs`; also when no pair is left.
    """

    def __init__(
        self,
        folders: Sequence[epath.PathLike],
        split: str,
        *,
        num_differences: Collection[int],
        max_bad_records: int,
        cache_bytes: int,
    ):
        self._max_bad_records = max_bad_records
        self._bad: set[tuple[str, int]] = set()
        self._items: list[tuple[PairSource, int]] = []
        sizes = []
        for folder in folders:
            source = open_pairs(folder, split)
            wanted = np.ones(len(source), bool)
            if num_differences:
                counts = source.num_differences()
                for index in np.flatnonzero(counts < 0):
                    self._leave_out(source, int(index), _why_unreadable(source, int(index)))
                wanted = np.isin(counts, list(num_differences))
            self._items += [(source, int(index)) for index in np.flatnonzero(wanted)]
            sizes.append(_known_sizes(source)[wanted])
        if not self._items:
            allowed = f" with {sorted(num_differences)} differences" if num_differences else ""
            raise ValueError(
                f"no pairs{allowed} in split {split!r} of {', '.join(map(str, folders)) or 'no folder'}."
            )
        self.image_sizes = np.concatenate(sizes)
        self._cache: dict[int, Pair] = {}
        self._cache_left = cache_bytes

    def __len__(self) -> int:
        return len(self._items)

    def leave_out(self, index: int, error: BadRecord) -> None:
        """Counts pair number `index`, which could not be read.

        Raises:
          BadRecord: it is one too many.
        """
        self._leave_out(*self._items[index], error)

    def _leave_out(self, source: PairSource, record: int, error: BadRecord) -> None:
        if (source.name, record) in self._bad:
            return
        self._bad.add((source.name, record))
        if len(self._bad) > self._max_bad_records:
            raise BadRecord(
                f"{error}. That is unreadable pair number {len(self._bad)}, and config.data.max_bad_records"
                f" is {self._max_bad_records}: restore the dataset, or allow more"
            ) from error
        logger.warning("%s. Left out (%d of at most %d)", error, len(self._bad), self._max_bad_records)

    def __getitem__(self, index: int) -> Pair:
        """Pair number `index`, in the order of the folders and of their records. Raises BadRecord."""
        if index in self._cache:
            return self._cache[index]
        source, record = self._items[index]
        pair = source[record]
        size = pair.image_a.nbytes + pair.image_b.nbytes
        if size <= self._cache_left:
            self._cache_left -= size
            self._cache[index] = pair
        return pair


def _known_sizes(source: PairSource) -> np.ndarray:
    """Image sizes; an unreadable pair counts as large as the first readable one. What uses it will notice."""
    sizes = source.image_sizes()
    unknown = sizes.min(axis=1, initial=1) == 0
    if unknown.all() and len(source):
        raise _why_unreadable(source, 0)
    sizes[unknown] = sizes[~unknown][:1]
    return sizes


def _why_unreadable(source: PairSource, index: int) -> BadRecord:
    try:
        source[index]
    except BadRecord as error:
        return error
    return BadRecord(f"{source.name}, pair {index}: it could not be read a moment ago")


class PairLoader:
    """Batches of shuffled, augmented pairs. A step number is all that is needed to continue a run.

    Epoch follows epoch without end, each in an order of its own. Position `step * batch_size + row` of
    that sequence decides which pair a row holds and how it is augmented, so a batch depends neither on
    earlier batches nor on the number of processes. Each process loads the rows that it is asked for, which
    others may load as well. A batch is padded to the smallest bucket that holds the rows of all processes.

    Args:
      dataset: where the pairs come from.
      encoder: turns them into arrays.
      bucket_pixels: pixels per image, after resizing, that each bucket is made for; empty derives a few
        buckets from the encoder's pixel limits and the sizes in the dataset.
      global_batch_size: rows per batch over all processes.
      seed: of order and augmentation.
      shuffle: False keeps the order of the dataset, for evaluation.
      group_sizes: whether batches of a shuffled epoch are made of pairs of one bucket, where that works out.
      augment: see `Augment`.
      count_noise: of the answers to learn.
      readahead: how many of the following batches a background thread prepares while one is used; 0 for none.
      rows: ascending, the rows of a batch that this process loads (`parallel.RowLayout.of`); None: all.

    Attributes:
      batch_size: rows per batch, over all processes.
      num_pairs: pairs in the dataset.

    Raises:
      ValueError: a pair fits into no bucket.
    """

    def __init__(
        self,
        dataset: PairDataset,
        encoder: PairEncoder,
        *,
        bucket_pixels: Sequence[int],
        global_batch_size: int,
        seed: int,
        shuffle: bool,
        group_sizes: bool,
        augment: Augment,
        count_noise: CountNoise = NO_NOISE,
        readahead: int = 0,
        rows: np.ndarray | None = None,
    ):
        self._dataset = dataset
        self._encoder = encoder
        self._seed = seed
        self._augment = augment
        self._count_noise = count_noise
        self.num_pairs = len(dataset)
        self.batch_size = global_batch_size
        self._rows = np.arange(global_batch_size) if rows is None else np.asarray(rows)
        self._shuffle = shuffle
        self._group_sizes = group_sizes
        self._epoch_order = functools.lru_cache(maxsize=2)(self._draw_order)  # a batch may span two epochs
        self._padding = plan_padding(dataset, encoder, bucket_pixels)
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
        """The smallest bucket that holds the pairs at all these positions."""
        return self._padding.bucket(self._indices(positions))

    def load(self, positions: np.ndarray, bucket: Bucket) -> Batch:
        """The pairs at these positions, of any batches, padded to `bucket`; nothing is prepared ahead."""
        numbers = [int(position) for position in positions]
        pairs = [self._pair(position) for position in numbers]
        answers = [
            self._count_noise(pair.boxes, self._rng(_NOISE_STREAM, position))
            for pair, position in zip(pairs, numbers, strict=True)
        ]
        return self._encoder(pairs, bucket, answers)

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
        """One line per bucket: how many batches of the first epoch take it, and what padding costs there."""
        steps = -(-self.num_pairs // self.batch_size)
        return self._padding.describe([self._indices(self.positions(step)) for step in range(steps)])

    def _load(self, step: int) -> Batch:
        batch = self.load(self.positions(step)[self._rows], self.bucket(step))
        return dataclasses.replace(batch, rows=self._rows)

    def _pair(self, position: int) -> Pair:
        pair = self._readable(self._index(position))
        return self._augment(pair, self._rng(_AUGMENT_STREAM, position))

    def _rng(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, stream, number])

    def _readable(self, index: int) -> Pair:
        """Pair number `index`, or in the place of an unreadable one, the next that takes the same bucket."""
        alike = np.flatnonzero(self._padding.smallest == self._padding.smallest[index])
        for candidate in np.roll(alike, -int(np.searchsorted(alike, index))):
            try:
                return self._dataset[int(candidate)]
            except BadRecord as error:
                self._dataset.leave_out(int(candidate), error)
        raise BadRecord("no pair of the dataset can be read")

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        """Which pairs of the dataset are at these positions."""
        return np.array([self._index(int(position)) for position in positions])

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, self.num_pairs)
        return int(self._epoch_order(epoch)[place])

    def _draw_order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self.num_pairs)
        rng = self._rng(_ORDER_STREAM, epoch)
        order = rng.permutation(self.num_pairs)
        # With one bucket, grouping leaves the order as it is.
        return self._grouped(order, epoch, rng) if self._group_sizes and self._padding.several else order

    def _grouped(self, order: np.ndarray, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """The same pairs in batches of one bucket each, but for those where one bucket's pairs run out.

        An epoch begins with the rows that complete the last batch before it, and ends with a part of a batch.
        Both take from the largest pairs; only the whole batches between them change places.
        """
        order = order[np.argsort(self._padding.smallest[order], kind="stable")]
        size = self.batch_size
        begin = min(-epoch * self.num_pairs % size, self.num_pairs)
        batches, rest = np.split(order, [(self.num_pairs - begin) // size * size])
        batches = rng.permutation(batches.reshape(-1, size)).ravel()
        return np.concatenate([rest[:begin], batches, rest[begin:]])


def plan_padding(dataset: PairDataset, encoder: PairEncoder, bucket_pixels: Sequence[int]) -> Padding:
    """The buckets of a dataset, and which of them each pair takes.

    Raises:
      ValueError: naming a pair, when no model takes its images or it fits into no bucket.
    """
    sizes, which = np.unique(dataset.image_sizes, axis=0, return_inverse=True)  # sizes are few

    def described(number: int) -> str:
        height, width = sizes[number]
        first = dataset[int(np.flatnonzero(which == number)[0])]
        return f"{first.id}, two images of {width}x{height} pixels"

    needs = []
    for number, (height, width) in enumerate(sizes):
        try:
            needs.append(encoder.need((int(height), int(width))))
        except ValueError as error:
            raise ValueError(f"{described(number)}: {error}") from None
    if bucket_pixels:
        buckets = tuple(sorted({encoder.need_of_pixels(pixels).rounded() for pixels in bucket_pixels}))
    else:
        most = encoder.need_of_pixels(encoder.image_config.max_pixels)
        buckets = derive_buckets(needs, most.num_patches)
    smallest = [smallest_bucket(buckets, need) for need in needs]
    if None in smallest:
        number = smallest.index(None)
        raise ValueError(
            f"{described(number)} need {needs[number]}, but the largest of"
            f" config.data.buckets={tuple(bucket_pixels)} holds {buckets[-1]}: add a bucket of more pixels,"
            " or shrink images with config.data.max_pixels"
        )
    table = np.array([(need.prompt_length, need.num_patches) for need in needs])
    return Padding(buckets, table[which], np.array(smallest)[which])
