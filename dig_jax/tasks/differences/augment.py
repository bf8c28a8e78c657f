"""Changes of a pair that keep its labels: mirroring, exchanging the images, permuting the color channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from dig_jax.data.records import Pair

_SWAPPED_KINDS = {"add": "remove", "remove": "add"}


@dataclasses.dataclass(frozen=True)
class Augment:
    """Which changes are made. Each enabled one is applied to a pair with probability one half.

    Attributes:
      flip_horizontal: left becomes right.
      flip_vertical: top becomes bottom.
      transpose: rows become columns; square images only (others are left as they are).
      swap_pair: the first image becomes the second.
      permute_channels: R, G and B are permuted, the same way in both images (all six orders equally likely).
    """

    flip_horizontal: bool
    flip_vertical: bool
    transpose: bool
    swap_pair: bool
    permute_channels: bool

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """The pair with a random subset of the enabled changes. Images may be views of the given ones.

        The same draws are made whatever is enabled, so switching one change on does not alter the others.
        """
        flip_h, flip_v, transpose, swap = rng.random(4) < 0.5
        channels = rng.permutation(3)
        changed = pair
        if self.flip_horizontal and flip_h:
            changed = flip_horizontal(changed)
        if self.flip_vertical and flip_v:
            changed = flip_vertical(changed)
        if self.transpose and transpose and pair.size[0] == pair.size[1]:
            changed = transposed(changed)
        if self.swap_pair and swap:
            changed = swap_pair(changed)
        if self.permute_channels and (channels != np.arange(3)).any():
            changed = permute_channels(changed, channels)
        # "The red cube moved left" may no longer be true.
        return changed if changed is pair else dataclasses.replace(changed, descriptions=())


def flip_horizontal(pair: Pair) -> Pair:
    """Mirrors both images, and all boxes, left to right."""
    return _moved(pair, lambda image: image[:, ::-1], lambda x0, y0, x1, y1: (1 - x1, y0, 1 - x0, y1))


def flip_vertical(pair: Pair) -> Pair:
    """Mirrors both images, and all boxes, top to bottom."""
    return _moved(pair, lambda image: image[::-1], lambda x0, y0, x1, y1: (x0, 1 - y1, x1, 1 - y0))


def transposed(pair: Pair) -> Pair:
    """Exchanges rows and columns of both images and of all boxes."""
    return _moved(pair, lambda image: image.transpose(1, 0, 2), lambda x0, y0, x1, y1: (y0, x0, y1, x1))


def swap_pair(pair: Pair) -> Pair:
    """Exchanges the two images: what was added is now removed."""
    return dataclasses.replace(
        pair,
        image_a=pair.image_b,
        image_b=pair.image_a,
        boxes_a=pair.boxes_b,
        boxes_b=pair.boxes_a,
        kinds=tuple(_SWAPPED_KINDS.get(kind, kind) for kind in pair.kinds),
    )


def permute_channels(pair: Pair, order: np.ndarray) -> Pair:
    """Reorders the color channels of both images; `order` is a permutation of 0, 1, 2."""
    return dataclasses.replace(pair, image_a=pair.image_a[..., order], image_b=pair.image_b[..., order])


def _moved(
    pair: Pair,
    move_image: Callable[[np.ndarray], np.ndarray],
    move_box: Callable[..., tuple[np.ndarray, ...]],
) -> Pair:
    boxes = np.concatenate([pair.boxes, pair.boxes_a, pair.boxes_b])
    moved = np.stack(move_box(*boxes.T), axis=1)
    moved[~boxes.any(axis=1)] = 0  # all zeros means not visible, and stays so
    union, in_a, in_b = np.split(moved, 3)
    return dataclasses.replace(
        pair,
        image_a=move_image(pair.image_a),
        image_b=move_image(pair.image_b),
        boxes=union,
        boxes_a=in_a,
        boxes_b=in_b,
    )
