"""The thresholds that decide what can be said of a scene, in one place."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rules:
    """Lengths are shares of the square that a picture is centred in, unless said otherwise.

    TinyGroundingGPT filters by size, overlap and number of boxes and gives no threshold (arXiv 2411.09691,
    section 3.2); these are ours. Between what is clear and what is not lies what is "maybe".

    Attributes:
      model_side: pixels of the square as the model sees it; pixels below are counted there.
      min_pixels: visible pixels from which an object's attributes can be seen.
      min_seen: visible share of its silhouette from which they can.
      apart, near: horizontal distance of two centres that is clear, and below which there is none.
      deep, level: the same in depth, in mean radii of the two objects.
      factor: by which the largest must surpass the next, and the nearest be nearer.
      crop_area: share of the picture that a cropped object's box takes.
      crop_side: pixels of that box's shorter side.
      option_seen: as min_seen, for the crops one chooses from.
      option_iou, option_inside: largest overlap of two options' boxes, and as a share of the smaller one.
      even_factor: areas of the boxes of `even` options differ by no more.
      min_objects: pictures with fewer objects that can be asked for are left out.
      max_group: objects meant by one phrase, and so boxes in an answer; descriptions box all there are.
      redundant: share of phrases with one attribute more than needed, so that length tells nothing.
    """

    model_side: int = 336
    min_pixels: float = 40.0
    min_seen: float = 0.5
    apart: float = 0.06
    near: float = 0.02
    deep: float = 0.5
    level: float = 0.2
    factor: float = 1.25
    crop_area: tuple[float, float] = (0.004, 0.25)
    crop_side: float = 12.0
    option_seen: float = 0.7
    option_iou: float = 0.1
    option_inside: float = 0.3
    even_factor: float = 2.0
    min_objects: int = 4
    max_group: int = 3
    redundant: float = 0.3

    def __post_init__(self) -> None:
        """Raises ValueError for a side on which nothing can be seen."""
        if not 32 <= self.model_side <= 4096:
            raise ValueError(f"model_side={self.model_side}: expected 32 to 4096 pixels")


def rules_for(model_side: int) -> Rules:
    """The rules for a model that sees squares of that side: small models are given small crops too."""
    return Rules(model_side=model_side, crop_side=12.0 if model_side >= 224 else 8.0)
