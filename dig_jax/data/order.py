"""The order in which examples are shown: a position of an endless sequence -> a number in the data set.

Every order is a pure function of a seed and a position: nothing is remembered from one batch to the next, so
a run that was stopped goes on exactly, and all processes agree without asking.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np

Grouping = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # order, epoch, noise -> order

# Random numbers of a loader that are kept apart; the first is the order of data without parts.
ORDER_STREAM, AUGMENT_STREAM, NOISE_STREAM, PART_STREAM, DEAL_STREAM = range(5)

MAX_BLOCK = 1000  # positions


class Order(Protocol):
    """Where the example of a position is, and of which part of the data it is one."""

    def example(self, position: int) -> int:
        """Its number in the data set."""

    def part(self, position: int) -> int:
        """The number of its part."""


class Epochs:
    """Epoch follows epoch without end; each has every example once, in an order of its own.

    Args:
      size: number of examples.
      entropy: what the order is drawn from, with the number of the epoch behind it.
      shuffle: False keeps the order that the examples have.
      grouping: changes the order of an epoch; None leaves it.
    """

    def __init__(
        self, size: int, entropy: Sequence[int], *, shuffle: bool = True, grouping: Grouping | None = None
    ):
        self._size = size
        self._entropy = tuple(entropy)
        self._shuffle = shuffle
        self._grouping = grouping
        self._of_epoch = functools.lru_cache(maxsize=2)(self._draw)  # a batch may span two epochs

    def example(self, position: int) -> int:
        """The number of the example at a position."""
        epoch, place = divmod(position, self._size)
        return int(self._of_epoch(epoch)[place])

    def part(self, position: int) -> int:
        """There is one part."""
        return 0

    def _draw(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self._size)
        rng = np.random.default_rng([*self._entropy, epoch])
        order = rng.permutation(self._size)
        return self._grouping(order, epoch, rng) if self._grouping else order


class Dealt:
    """Positions are dealt to the parts of the data, each of which has its own epochs and its own shuffles.

    A block is as many positions as all parts together have shares. In every block each part has exactly its
    shares, at places that are drawn anew for each block. A part's n-th position shows what its n-th would
    alone, whatever the other parts are.

    Args:
      sizes: number of examples of each part; they lie one after another in the data set.
      shares: positions of a block that each part has, 1 or more.
      seed: of the blocks and of the shuffles.
      together: what is dealt, in positions: with as many as a batch has, each batch is of one part.
      groupings: of the epochs of each part; () leaves all as they are.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        shares: Sequence[int],
        seed: int,
        together: int = 1,
        groupings: Sequence[Grouping | None] = (),
    ):
        self._seed = seed
        self._shares = np.array(shares)
        self._together = together
        self._firsts = [0, *itertools.accumulate(sizes)]
        self._parts = [
            Epochs(size, (seed, PART_STREAM, part), grouping=groupings[part] if groupings else None)
            for part, size in enumerate(sizes)
        ]
        self._of_block = functools.lru_cache(maxsize=64)(self._deal)

    def example(self, position: int) -> int:
        """The number of the example at a position."""
        part, place = self._placed(position)
        return self._firsts[part] + self._parts[part].example(place)

    def part(self, position: int) -> int:
        """The part that has the position."""
        return self._placed(position)[0]

    def _placed(self, position: int) -> tuple[int, int]:
        """The part that has a position, and which of the part's own positions that is."""
        turn, row = divmod(position, self._together)
        block, place = divmod(turn, int(self._shares.sum()))
        parts, ranks = self._of_block(block)
        part = int(parts[place])
        return part, (block * int(self._shares[part]) + int(ranks[place])) * self._together + row

    def _deal(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """For each position of a block its part, and how many of that part's come before it there."""
        parts = np.repeat(np.arange(len(self._shares)), self._shares)
        parts = np.random.default_rng([self._seed, DEAL_STREAM, block]).permutation(parts)
        ranks = np.zeros_like(parts)
        for part, share in enumerate(self._shares):
            ranks[parts == part] = np.arange(share)
        return parts, ranks


def whole_shares(weights: Sequence[float]) -> tuple[int, ...]:
    """The smallest whole numbers that are to each other as these weights, all above 0: 3, 1 for 1.5, 0.5.

    Raises:
      ValueError: they are more than `MAX_BLOCK` together.
    """
    exact = [Fraction(repr(weight)) for weight in weights]  # as they are written: 0.7 is 7/10
    whole = [int(x * math.lcm(*(y.denominator for y in exact))) for x in exact]
    shares = tuple(x // math.gcd(*whole) for x in whole)
    if sum(shares) > MAX_BLOCK:
        raise ValueError(
            f"weights {', '.join(f'{weight:g}' for weight in weights)} are to each other as"
            f" {':'.join(map(str, shares))}, which takes {sum(shares)} examples to be exact, and the most are"
            f" {MAX_BLOCK}: choose weights that are to each other as small numbers, such as 2 and 1"
        )
    return shares


def grouped(which: np.ndarray, size: int) -> Grouping:
    """Makes batches of examples of one kind each, but for those where one kind's examples run out.

    An epoch begins with the rows that complete the last batch before it, and ends with a part of a batch.
    Both take from the largest; only the whole batches between them change places.

    Args:
      which: the kind of every example, such as its bucket, smallest first.
      size: rows of a batch.
    """

    def group(order: np.ndarray, epoch: int, rng: np.random.Generator) -> np.ndarray:
        order = order[np.argsort(which[order], kind="stable")]
        begin = min(-epoch * len(which) % size, len(which))
        batches, rest = np.split(order, [(len(which) - begin) // size * size])
        batches = rng.permutation(batches.reshape(-1, size)).ravel()
        return np.concatenate([rest[:begin], batches, rest[begin:]])

    return group
