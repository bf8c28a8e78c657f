"""Static shapes: the few sizes that prompts are padded to, so that few programs are ever compiled.

A batch is padded to the smallest bucket that holds all of its rows. The image sizes of a dataset are known
before training, so the bucket of a step follows from its number: every process pads alike, without asking.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, order=True)
class Bucket:
    """What a prompt needs, or is padded to.

    Attributes:
      prompt_length: P, tokens of the prompt, those of its images included.
      num_patches: N, patches of all images of the prompt.
    """

    prompt_length: int
    num_patches: int

    def __str__(self) -> str:
        return f"{self.prompt_length} tokens and {self.num_patches} patches"

    def holds(self, need: Bucket) -> bool:
        """Whether a prompt that needs `need` fits."""
        return self.prompt_length >= need.prompt_length and self.num_patches >= need.num_patches

    def joined(self, other: Bucket) -> Bucket:
        """The smallest bucket that holds both."""
        return Bucket(max(self.prompt_length, other.prompt_length), max(self.num_patches, other.num_patches))

    def rounded(self) -> Bucket:
        """Rounded up to sizes that tiled hardware likes."""
        return Bucket(round_up(self.prompt_length), round_up(self.num_patches))


def derive_buckets(needs: Iterable[Bucket], most_patches: int) -> tuple[Bucket, ...]:
    """A short ladder of buckets for prompts of these needs, smallest first; each holds those before it.

    A rung takes the needs from above one half to the whole of its patches, from `most_patches` downwards, so
    padding less than doubles a prompt's patches. Rungs without a need are left out, and each shrinks to the
    largest of its needs: prompts of one size get one bucket, with next to no padding.

    Args:
      needs: of every prompt there will be.
      most_patches: where the ladder starts (what the pixel limits allow).
    """
    rungs: dict[int, Bucket] = {}
    for need in set(needs):
        # Text alone shares the lowest rung a prompt with images can have.
        rung = math.floor(math.log2(most_patches / max(need.num_patches, 1)))
        rungs[rung] = rungs.get(rung, need).joined(need)
    ladder: list[Bucket] = []
    for rung in sorted(rungs, reverse=True):
        bucket = rungs[rung].rounded()
        bucket = bucket.joined(ladder[-1]) if ladder else bucket
        if bucket not in ladder:
            ladder.append(bucket)
    return tuple(ladder)


def with_lengths(
    buckets: Sequence[Bucket], needs: Iterable[Bucket], lengths: Sequence[int]
) -> tuple[Bucket, ...]:
    """A ladder with a rung more for each of these prompt lengths beside each number of patches.

    Texts of one image may be of very different lengths: a caption and a conversation of many rounds. Rungs
    that no need takes are left out.

    Args:
      buckets: smallest first; each holds those before it.
      needs: of every prompt there will be.
      lengths: of prompts, in tokens.

    Returns:
      The smallest first, by tokens and patches together. Of two neighbours neither need hold the other, but
      the last holds all.
    """
    cut = {
        Bucket(length, bucket.num_patches)
        for bucket in buckets
        for length in lengths
        if length < bucket.prompt_length
    }
    ladder = sorted({*buckets, *cut}, key=lambda bucket: (bucket.prompt_length + bucket.num_patches, bucket))
    taken = {smallest_bucket(ladder, need) for need in set(needs)}
    return tuple(bucket for number, bucket in enumerate(ladder) if number in taken or bucket == buckets[-1])


def smallest_bucket(buckets: Sequence[Bucket], need: Bucket) -> int | None:
    """Index of the first of `buckets` (smallest first) that holds `need`; None when none does."""
    return next((index for index, bucket in enumerate(buckets) if bucket.holds(need)), None)


@dataclasses.dataclass(frozen=True)
class Padding:
    """What any batch of a dataset's prompts is padded to, and what that costs.

    Attributes:
      buckets: smallest first; the last holds all others.
      needs: int [len, 2], tokens and patches of every prompt of the dataset.
      smallest: int [len], number of the smallest bucket that holds each.
    """

    buckets: tuple[Bucket, ...]
    needs: np.ndarray
    smallest: np.ndarray

    @property
    def several(self) -> bool:
        """Whether there is more than one bucket to choose from."""
        return len(self.buckets) > 1

    def bucket(self, rows: np.ndarray) -> Bucket:
        """The smallest bucket that holds those of all of `rows` (int [B], their numbers in the dataset)."""
        return self.buckets[self._number(rows)]

    def _number(self, rows: np.ndarray) -> int:
        taken = [self.buckets[number] for number in np.unique(self.smallest[rows])]
        number = smallest_bucket(self.buckets, functools.reduce(Bucket.joined, taken))
        assert number is not None  # the last holds all
        return number

    def shares(self, rows: np.ndarray, bucket: Bucket) -> dict[str, float]:
        """Share of `prompt` tokens, and of `patches`, that is padding when `rows` are padded to `bucket`."""
        tokens, patches = self.needs[rows].mean(axis=0)
        return {
            "prompt": float(1 - tokens / bucket.prompt_length),
            "patches": float(1 - patches / bucket.num_patches),
        }

    def describe(self, batches: Sequence[np.ndarray]) -> list[str]:
        """One line per bucket: how many of `batches` (rows of each) take it, and its expected padding."""
        taken = np.array([self._number(rows) for rows in batches])
        lines = []
        for number, bucket in enumerate(self.buckets):
            chosen = [rows for rows, top in zip(batches, taken, strict=True) if top == number]
            line = f"bucket of {bucket}: {len(chosen) / len(batches):.0%} of the batches"
            if chosen:
                shares = self.shares(np.concatenate(chosen), bucket)
                tokens, patches = shares["prompt"], shares["patches"]
                line += f"; padding is {tokens:.1%} of their tokens and {patches:.1%} of their patches"
            lines.append(line)
        return lines


def round_up(length: int) -> int:
    """Rounds up to a multiple of 16, or of 64 from 256 on: few shapes, and friendly to tiled hardware."""
    multiple = 16 if length <= 256 else 64
    return math.ceil(length / multiple) * multiple


def round_up_coarsely(length: int) -> int:
    """Rounds up to one of four sizes per doubling (64, 80, 96, 112, 128, 160, ...), 0 to 0.

    At most a fifth of the result is padding (from 64 on), and lengths that nobody planned share programs.
    """
    if length <= 64:
        return 64 if length else 0
    step = 2 ** (math.ceil(math.log2(length)) - 3)
    return math.ceil(length / step) * step
