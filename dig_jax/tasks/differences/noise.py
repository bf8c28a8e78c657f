"""Wrong numbers of boxes in supervised answers, so that a policy keeps trying several.

A warm-up on pairs that all have the same number of differences ends certain of that number, and GRPO can only
reinforce what is drawn. A pretrained model does not have that problem: it has written lists of every length.

False boxes are context: that a list goes on, and ends, is learnt, and so is a true box after a false one, but
not where the false one is. A policy that learnt to write random boxes after a right one would do so after the
first of two differences as well.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_SIDES = (0.1, 0.4)  # of a false box, in shares of the image


@dataclasses.dataclass(frozen=True)
class NamedBoxes:
    """What a supervised answer names.

    Attributes:
      boxes: float [n, 4], x0, y0, x1, y1 in 0..1, in any order.
      true: bool [n]; the coordinates of the others are not learnt.
    """

    boxes: np.ndarray
    true: np.ndarray


@dataclasses.dataclass(frozen=True)
class CountNoise:
    """Gives a share of the answers another number of boxes. The wrong boxes say nothing about the images.

    Attributes:
      share: of the answers that are changed, 0..1.
      max_boxes: the new number is 0..max_boxes, all but the true one equally likely. Boxes are left out from
        the end, or false ones of random size and place are added.
    """

    share: float
    max_boxes: int

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"sft.count_noise is {self.share}; expected 0 (off) to 1")
        if self.max_boxes < 1:
            raise ValueError(f"sft.count_noise_boxes is {self.max_boxes}; expected at least 1")

    def __call__(self, boxes: np.ndarray, rng: np.random.Generator) -> NamedBoxes:
        """What to write for a pair with true `boxes` [M, 4]."""
        count = len(boxes)
        if rng.random() < self.share:
            count = int(rng.choice([n for n in range(self.max_boxes + 1) if n != len(boxes)]))
        false = [_random_box(rng) for _ in range(count - len(boxes))]
        named = np.concatenate([boxes[:count], np.reshape(false, (-1, 4))])
        return NamedBoxes(named, np.arange(count) < len(boxes))


def _random_box(rng: np.random.Generator) -> np.ndarray:
    sides = rng.uniform(*_SIDES, size=2)
    corner = rng.uniform(0, 1 - sides)
    return np.concatenate([corner, corner + sides])
