"""What is right for a phrase, and where its images are."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
from etils import epath

from dig_jax.data.example import Size

logger = logging.getLogger("dig_jax")


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


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One phrase of a file.

    Attributes:
      id: of the example.
      image: the file of its image.
      size: of the image; None where only the image tells.
      phrase: asked for.
      corners: x0, y0, x1, y1 in pixels; None where nothing fits the phrase.
    """

    id: str
    image: epath.Path
    size: Size | None
    phrase: str
    corners: tuple[float, ...] | None


def box_in(entry: Entry, size: Size) -> np.ndarray:
    """float32 [1, 4] or [0, 4] in 0..1. Raises ValueError for a box with no area inside the image."""
    if entry.corners is None:
        return np.zeros((0, 4), np.float32)
    height, width = size
    box = np.clip(np.divide(entry.corners, [width, height] * 2), 0, 1)
    if not (box[:2] < box[2:]).all():
        raise ValueError(f"bbox {list(entry.corners)} has no area inside {width}x{height} pixels")
    return box.astype(np.float32)[None]


def say_left_out(wrong: Sequence[str], boxes: int, where: object, what: str = "their phrases are") -> None:
    """Warns of boxes that published annotations have and nobody can point at; silent where all are fine.

    Args:
      wrong: what is wrong with each of them.
      boxes: how many there are in all.
      where: the files.
      what: is left out for them.
    """
    if wrong:
        logger.warning(
            "%s: %d of %d boxes have no area inside their image, and %s left out; the first: %s",
            where,
            len(wrong),
            boxes,
            what,
            wrong[0],
        )
