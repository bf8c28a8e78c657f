"""The control for comparison: pairs whose first image belongs to another pair."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dig_jax.data.loader import PairDataset
from dig_jax.data.records import Pair


class MismatchedPairs(PairDataset):
    """A `PairDataset` in which image A of every pair is that of another one, of the same size.

    Boxes stay those of the true pair, which nobody can find by comparing any more: what a model still scores
    it owes to image B alone, or to guessing.

    Raises:
      ValueError: a pair is the only one of its size.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._other = np.zeros(len(self), int)
        for size in np.unique(self.image_sizes, axis=0):
            alike = np.flatnonzero((self.image_sizes == size).all(axis=1))
            if len(alike) == 1:
                height, width = size
                raise ValueError(f"only one pair has {width}x{height} pixels: none to exchange an image with")
            self._other[alike] = np.roll(alike, len(alike) // 2)  # neighbours may be of one scene

    def __getitem__(self, index: int) -> Pair:
        """Pair number `index`, with the first image of another."""
        other = super().__getitem__(int(self._other[index]))
        return dataclasses.replace(super().__getitem__(index), image_a=other.image_a)
