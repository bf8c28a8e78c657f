"""From the boxes of a user to those of a record: shares of the upright picture, checked."""

from __future__ import annotations

from collections.abc import Mapping

from data_gen.imports.entry import Box

SLACK = 1.0  # pixels by which a box may leave the picture: tools round, and some count the last pixel twice
LEAST = 0.99  # pixels of a side; what rounding in thousandths may leave of one pixel is less


FORM = "a box is [x0, y0, x1, y1] with x0 < x1 and y0 < y1, and not [x, y, width, height]"


class BadBox(ValueError):
    """A box that is none of the picture's; the message quotes it."""


def shares(box: Box, units: str, size: tuple[int, int]) -> tuple[Box, bool]:
    """A box as shares of the width and height of a picture, and whether it was cut at the picture's edge.

    Raises BadBox for one that is inverted, empty, smaller than a pixel, or sticks out by more than SLACK.
    """
    width, height = size
    across, down = {"pixels": (width, height), "unit": (1, 1), "thousandths": (1000, 1000)}[units]
    text = f"[{', '.join(f'{value:g}' for value in box)}] in {units}"
    x0, x1 = (value / across * width for value in (box[0], box[2]))
    y0, y1 = (value / down * height for value in (box[1], box[3]))
    if x1 < x0 or y1 < y0:
        raise BadBox(f"{text} is inverted: {FORM}")
    if x0 == x1 or y0 == y1:
        raise BadBox(f"{text} is empty: {FORM}")
    if units != "unit" and max(box) <= 1:
        raise BadBox(f'{text} lies in the first pixel: if boxes are shares of the picture, say "unit"')
    if min(x0, y0) < -SLACK or x1 > width + SLACK or y1 > height + SLACK:
        advice = "" if units != "unit" or max(box) < 2 else ': if boxes are pixels, say "pixels"'
        raise BadBox(f"{text} leaves the picture of {width}x{height} pixels{advice}")
    inside = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    found = inside[0] / width, inside[1] / height, inside[2] / width, inside[3] / height
    if not whole(found, width, height):
        raise BadBox(f"{text} is smaller than a pixel of the picture of {width}x{height}")
    return found, inside != (x0, y0, x1, y1)


def whole(box: Box, width: int, height: int) -> bool:
    """Whether a box, in shares, has at least a pixel of a picture of this size."""
    x0, y0, x1, y1 = box
    return (x1 - x0) * width >= LEAST and (y1 - y0) * height >= LEAST


def union(a: Box | None, b: Box | None) -> Box:
    """The box around both, one of which may be missing."""
    boxes = [box for box in (a, b) if box is not None]
    lows, highs = zip(*((box[:2], box[2:]) for box in boxes), strict=True)
    (x0, y0), (x1, y1) = map(min, zip(*lows, strict=True)), map(max, zip(*highs, strict=True))
    return x0, y0, x1, y1


def same_boxes(boxes: Mapping[int, Box]) -> list[tuple[int, int]]:
    """Numbers of boxes that are equal to the thousandth, in which models answer: no answer can name both."""
    first: dict[tuple[int, ...], int] = {}
    found = []
    for number, box in boxes.items():
        earlier = first.setdefault(tuple(round(1000 * value) for value in box), number)
        found += [(earlier, number)] if earlier != number else []
    return found
