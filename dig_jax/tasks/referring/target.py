"""What is right for a phrase, and where its images are."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """The phrase and what it means.

    Attributes:
      phrase: asked for.
      boxes: float32 [1, 4], x0, y0, x1, y1 in 0..1 of the image; [0, 4] where nothing fits the phrase.
    """

    phrase: str
    boxes: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """A phrase about images of a record.

    Attributes:
      id: of the example.
      record: number of the record.
      images: names of its features, in the order shown.
      target: what is right.
    """

    id: str
    record: int
    images: tuple[str, ...]
    target: Target
