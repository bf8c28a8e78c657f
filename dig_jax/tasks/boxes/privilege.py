"""Pictures that tell where the true boxes are, for a teacher (`config.distill`): as large as the others.

A prompt with these pictures has the tokens, the positions and the number of patches of the one without, so
it fits the same bucket, whatever the model's family. Places stay where they are: what a teacher says of
coordinates is right in the student's pictures.

- `boxes`: each true box is framed, in all pictures. Whoever has not learnt what a frame means has to guess.
- `crops`: all pictures are grey but for the same crops around the true boxes. Two pictures that are alike
  outside of them differ nowhere else any more, so a model that compares sees what matters and nothing else.
"""

from collections.abc import Sequence

import numpy as np

KINDS = ("boxes", "crops")

FRAME_COLOR = (255, 0, 0)
GREY = 127

_FRAME = 1 / 64  # width of a frame, in shares of the smaller side of the picture; at least one pixel
_MARGIN = 0.25  # of a crop around its box, in shares of the box's sides ...
_LEAST_MARGIN = 1 / 32  # ... and at least this share of the picture's smaller side


def shown(images: Sequence[np.ndarray], boxes: np.ndarray, kind: str) -> tuple[np.ndarray, ...]:
    """The pictures of an example with its true boxes given away.

    Args:
      images: uint8 [H, W, 3] each.
      boxes: float [M, 4], x0, y0, x1, y1 in 0..1 of every picture.
      kind: of `KINDS`.
    """
    show = {"boxes": framed, "crops": cropped}[kind]
    return tuple(show(image, boxes) for image in images)


def framed(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The picture with a frame around each box, outside of it where there is room."""
    picture = image.copy()
    width = max(1, round(min(image.shape[:2]) * _FRAME))
    for box in boxes:
        x0, y0, x1, y1 = _pixels(box, image.shape[:2], (width, width))
        inner = picture[y0 + width : y1 - width, x0 + width : x1 - width].copy()
        picture[y0:y1, x0:x1] = FRAME_COLOR
        picture[y0 + width : y1 - width, x0 + width : x1 - width] = inner
    return picture


def cropped(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The picture in grey, with what is in and closely around each box as it is."""
    picture = np.full_like(image, GREY)
    height, width = image.shape[:2]
    least = min(height, width) * _LEAST_MARGIN
    for box in boxes:
        across, down = (box[2] - box[0]) * width * _MARGIN, (box[3] - box[1]) * height * _MARGIN
        x0, y0, x1, y1 = _pixels(box, (height, width), (max(across, least), max(down, least)))
        picture[y0:y1, x0:x1] = image[y0:y1, x0:x1]
    return picture


def _pixels(box: np.ndarray, size: tuple[int, int], margin: tuple[float, float]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the pixels that a box touches, grown by a margin (x, y) and cut at the borders."""
    height, width = size
    x0, y0, x1, y1 = box * np.array([width, height, width, height])
    return (
        max(int(np.floor(x0 - margin[0])), 0),
        max(int(np.floor(y0 - margin[1])), 0),
        min(int(np.ceil(x1 + margin[0])), width),
        min(int(np.ceil(y1 + margin[1])), height),
    )
