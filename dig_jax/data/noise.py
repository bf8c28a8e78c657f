"""Wrong numbers of boxes in supervised answers, so that a policy keeps trying several.

A warm-up on pairs that all have the same number of differences ends certain of that number: it would draw
another one less than once in a million completions, and GRPO can only reinforce what is drawn. A pretrained
model does not have that problem, because it has written lists of every length.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_SIDES = (0.1, 0.4)  # of a false box, in shares of the image


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

    def __call__(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The boxes float [n, 4] to write for a pair with true `boxes` [M, 4]."""
        if rng.random() >= self.share:
            return boxes
        counts = [count for count in range(self.max_boxes + 1) if count != len(boxes)]
        count = int(rng.choice(counts))
        false = [_random_box(rng) for _ in range(count - len(boxes))]
        return np.concatenate([boxes[:count], np.reshape(false, (-1, 4))])


NO_NOISE = CountNoise(share=0.0, max_boxes=1)


def _random_box(rng: np.random.Generator) -> np.ndarray:
    sides = rng.uniform(*_SIDES, size=2)
    corner = rng.uniform(0, 1 - sides)
    return np.concatenate([corner, corner + sides])
