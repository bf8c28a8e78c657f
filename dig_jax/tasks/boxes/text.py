"""Boxes as text: how a model is told to write them, how they are written, and how they are read back.

The answer is one JSON list of boxes and nothing else, optionally inside one ``` fence. A box is either bare
or in Qwen-VL's native form, in integers or decimals, top-left corner first:

    [[x0, y0, x1, y1], ...]        or        [{"bbox_2d": [x0, y0, x1, y1], "label": "..."}, ...]

What a coordinate counts is the convention of the model that writes it (`CONVENTIONS`); inside the program
boxes are shares of width and height, 0..1.

`[]` is a valid answer: no box. A list with the same box twice is not: one box can not be two things. A
Thinking model's answer is what follows the last `</think>`; without that tag the completion was cut off and
there is no answer at all.

Any other text is invalid in form, for the first reason found. Its boxes are then every well-formed box
anywhere in the answer, so that an untrained model that wraps its list in prose still gets a signal for where
it looks.

Reading is total (any string gives a reading, never an exception) and takes time linear in the text: rewards
must survive whatever a policy samples.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dig_jax.data.example import Size
from dig_jax.data.images import square_offset
from dig_jax.data.tokenizer import THINK_END

# What a coordinate counts. "thousandths" of the image's width or height: Qwen2-VL, Qwen3-VL. "pixels" of the
# image as the model sees it, after resizing: Qwen2.5-VL. "unit", 0 to 1 of the square that the image is
# centred in, three decimals: TinyGroundingGPT (of a square image, that is of its width and height).
CONVENTIONS = ("thousandths", "pixels", "unit")

VALID = "valid"
TRUNCATED = "truncated"  # a Thinking model's text without </think>
EMPTY = "empty"  # nothing but white space
NO_BOX = "no_box"  # not a JSON list, and no box anywhere in it
NOT_A_LIST = "not_a_list"  # has boxes, but is not one JSON list: prose around it, cut off, or broken JSON
BAD_ITEM = "bad_item"  # an item of the list is not a box of four numbers
NOT_FINITE = "not_finite"  # NaN, Infinity, or a number too large for a float
OUT_OF_RANGE = "out_of_range"  # a coordinate outside the image
NOT_ORDERED = "not_ordered"  # x0 >= x1 or y0 >= y1: reversed corners, or a box without area
REPEATED = "repeated"  # the same box twice
TOO_MANY = "too_many"  # more than `max_boxes` boxes; the first `max_boxes` are kept
REASONS = (
    VALID,
    TRUNCATED,
    EMPTY,
    NO_BOX,
    NOT_A_LIST,
    BAD_ITEM,
    NOT_FINITE,
    OUT_OF_RANGE,
    NOT_ORDERED,
    REPEATED,
    TOO_MANY,
)

# Four ASCII numbers in brackets. The possessive quantifiers (`++`) never give back what they took, so a
# failed match costs one pass from its bracket to the next, and a search of the whole text is linear.
_NUMBER = r"\s*+(-?\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+)\s*+"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]", re.ASCII)

# Every number becomes a float: `float` reads any number of digits in linear time and overflows to infinity,
# where `int` raises above 4300 digits.
_DECODER = json.JSONDecoder(parse_int=float, parse_float=float, parse_constant=float)

# Corners further apart than this share of the range stay apart in float32, whose step is 6e-8 of it.
_CLOSE = 1e-6

_Box = tuple[float, float, float, float]
Scale = tuple[int, int]  # coordinates of the right and the bottom edge of the image

THOUSANDTHS: Scale = (1000, 1000)


@dataclass(frozen=True, eq=False)
class Reading:
    """Boxes of one completion.

    Attributes:
      boxes: float32 [n, 4], `x0, y0, x1, y1` normalised to 0..1, x0 < x1 and y0 < y1, in the order given;
        repeated boxes are in it. n is at most `max_boxes`.
      valid: whether the form was right.
      reason: one of `REASONS`; `VALID` if and only if `valid`.
    """

    boxes: np.ndarray
    valid: bool
    reason: str


def read_boxes(text: str, *, thinking: bool, max_boxes: int, scale: Scale = THOUSANDTHS) -> Reading:
    """Reads the boxes out of a completion. Never raises, whatever the text.

    Args:
      text: the decoded completion, without special tokens.
      thinking: whether the prompt opened `<think>`, so that the answer starts after the last `</think>`.
      max_boxes: the most boxes to keep.
      scale: coordinates of the image's right and bottom edge.
    """
    if thinking:
        _, end_tag, text = text.rpartition(THINK_END)
        if not end_tag:
            return _reading([], TRUNCATED, scale)
    text = _without_fence(text.strip())
    if not text:
        return _reading([], EMPTY, scale)

    items = _load_json(text)
    if isinstance(items, list):
        boxes, reason = _read_items(items, scale)
        if reason != VALID:
            return _reading(_find_boxes(text, max_boxes, scale), reason, scale)
        if len(boxes) > max_boxes:
            return _reading(boxes[:max_boxes], TOO_MANY, scale)
        return _reading(boxes, VALID if len(set(boxes)) == len(boxes) else REPEATED, scale)
    found = _find_boxes(text, max_boxes, scale)
    return _reading(found, NOT_A_LIST if found else NO_BOX, scale)


def _reading(boxes: list[_Box], reason: str, scale: Scale) -> Reading:
    return Reading(boxes=_normalised(boxes, scale), valid=reason == VALID, reason=reason)


def _normalised(boxes: list[_Box], scale: Scale) -> np.ndarray:
    return np.asarray(boxes, np.float32).reshape(-1, 4) / np.asarray(scale * 2, np.float32)


def _without_fence(text: str) -> str:
    """Removes one code fence around the whole text, if there is one."""
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return text
    return text[3:-3].removeprefix("json").strip()


def _load_json(text: str) -> Any:
    """Returns the JSON value, or None if the text is not JSON.

    Deep nesting ends in RecursionError.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _read_items(items: list[Any], scale: Scale) -> tuple[list[_Box], str]:
    """Returns the boxes of a list and `VALID`, or the reason that the first bad item is bad."""
    boxes: list[_Box] = []
    for item in items:
        corners = item.get("bbox_2d") if isinstance(item, dict) else item
        # `type(c) is float` and not isinstance: JSON's true and false must not pass for numbers.
        if not (isinstance(corners, list) and len(corners) == 4 and all(type(c) is float for c in corners)):
            return boxes, BAD_ITEM
        reason = _check_corners(corners, scale)
        if reason != VALID:
            return boxes, reason
        x0, y0, x1, y1 = corners
        boxes.append((x0, y0, x1, y1))
    return boxes, VALID


def _check_corners(corners: Iterable[float], scale: Scale) -> str:
    x0, y0, x1, y1 = corners
    if not (math.isfinite(x0) and math.isfinite(y0) and math.isfinite(x1) and math.isfinite(y1)):
        return NOT_FINITE
    right, bottom = scale
    if min(x0, y0, x1, y1) < 0 or max(x0, x1) > right or max(y0, y1) > bottom:
        return OUT_OF_RANGE
    shorter = min(x1 - x0, y1 - y0)
    if abs(shorter) < _CLOSE * max(scale):
        # Compared as they will be kept: 1 and 1 + 1e-12 are the same corner in float32.
        x0, y0, x1, y1 = _normalised([(x0, y0, x1, y1)], scale)[0]
        shorter = min(x1 - x0, y1 - y0)
    return VALID if shorter > 0 else NOT_ORDERED


def _find_boxes(text: str, max_boxes: int, scale: Scale) -> list[_Box]:
    """Returns the first `max_boxes` well-formed boxes anywhere in the text."""
    boxes: list[_Box] = []
    for match in _BOX.finditer(text):
        if len(boxes) == max_boxes:
            break
        x0, y0, x1, y1 = map(float, match.groups())
        if _check_corners((x0, y0, x1, y1), scale) == VALID:
            boxes.append((x0, y0, x1, y1))
    return boxes


@dataclass(frozen=True)
class BoxFormat:
    """How one model writes boxes.

    Attributes:
      convention: one of `CONVENTIONS`.
      step: written coordinates are multiples of this many thousandths; 1 for pixels, which are coarse enough.
      resized: (height, width) of an image as stored -> as the model sees it.
    """

    convention: str
    step: int
    resized: Callable[[Size], Size]

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise ValueError(f"boxes are {self.convention!r}: expected one of {', '.join(CONVENTIONS)}")
        if self.step < 1 or 1000 % self.step:
            raise ValueError(f"the coordinate step must be a positive divisor of 1000, got {self.step}.")
        if self.convention == "pixels" and self.step != 1:
            raise ValueError(f"config.sft.answer_step={self.step}: boxes in pixels have no step, set it to 1")

    def scale(self, size: Size) -> Scale:
        """Coordinates of the right and the bottom edge of an image of this size."""
        if self.convention == "pixels":
            height, width = self.resized(size)
            return width, height
        return THOUSANDTHS if self.convention == "thousandths" else (1, 1)

    def read(self, text: str, size: Size, *, thinking: bool, max_boxes: int) -> Reading:
        """The boxes of a completion about an image of this size: see `read_boxes`.

        Of a box on the square that the image is centred in, what is beside the image is cut off; one that
        lies beside it as a whole is out of range.
        """
        reading = read_boxes(text, thinking=thinking, max_boxes=max_boxes, scale=self.scale(size))
        if self.convention != "unit" or size[0] == size[1]:
            return reading
        left, top, side = square_offset(size)
        moved = reading.boxes * np.float32(side) - np.array([left, top] * 2, np.float32)
        boxes = np.clip(moved / np.array([size[1], size[0]] * 2, np.float32), 0, 1)
        inside = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
        if inside.all():
            return Reading(boxes, reading.valid, reading.reason)
        reason = OUT_OF_RANGE if reading.valid else reading.reason
        return Reading(boxes[inside], valid=False, reason=reason)

    def write(self, boxes: np.ndarray, size: Size) -> str:
        """The text for a set of boxes: "[[x0,y0,x1,y1],...]", or "[]" for none.

        Boxes are sorted left to right (then top to bottom), so that there is one right text for a set of
        boxes. A box thinner than a step is widened to one, never written with zero area.

        Args:
          boxes: float [M, 4], x0, y0, x1, y1 normalised to 0..1.
          size: of the image, as stored.

        Raises:
          ValueError: a box is not ordered within 0..1.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        low, high = boxes[:, :2], boxes[:, 2:]
        # The negated form also catches NaN.
        if not ((boxes >= 0).all() and (boxes <= 1).all() and (low <= high).all()):
            raise ValueError(f"boxes must be ordered [x0, y0, x1, y1] in 0..1, got {boxes.tolist()}.")
        edge = np.ones(2)  # the right and the bottom of the image
        if self.convention == "unit":
            left, top, side = square_offset(size)
            extent, offset = np.array([size[1], size[0]]), np.array([left, top])
            low, high, edge = ((corner * extent + offset) / side for corner in (low, high, edge))
        steps = np.array(self.scale(size) if self.convention == "pixels" else [1000 // self.step] * 2)
        first, last = np.rint(low * steps), np.rint(high * steps)
        thin = first == last
        first = np.where(thin, np.minimum(np.floor(low * steps), np.ceil(edge * steps) - 1), first)
        last = np.where(thin, first + 1, last)
        corners = np.concatenate([first, last], axis=1).astype(int) * self.step
        return "[" + ",".join(f"[{self._coordinates(box)}]" for box in sorted(corners.tolist())) + "]"

    def fill(self, question: str, size: Size) -> str:
        """A user's question, with the size that pixels are counted in where it says {width} and {height}."""
        if "{width}" not in question and "{height}" not in question:
            return question
        height, width = self.resized(size)
        return question.replace("{width}", str(width)).replace("{height}", str(height))

    def instruction(self, size: Size) -> str:
        """What the question says about coordinates, and an example of an answer."""
        right, bottom = self.scale(size)
        box = [100, 200, 300, 400]
        if self.convention == "pixels":
            counted = f"pixels of the image, which is {right} wide and {bottom} high"
            box = [right // 10, bottom // 5, 3 * right // 10, 2 * bottom // 5]
        elif self.convention == "unit":
            counted, box = (
                "decimals from 0 to 1 of the width and height of the square that the image is centred in,"
                " with three digits"
                if size[0] != size[1]
                else "decimals from 0 to 1 of the width and height, with three digits",
                [100, 200, 300, 400],
            )
        else:
            counted, box = "integers from 0 to 1000 of the width and height", [100, 200, 300, 400]
        shown = self._coordinates(box).replace(",", ", ")
        return (
            f"Coordinates are {counted}. Answer with a JSON list of [x0, y0, x1, y1] boxes, where (x0, y0) is"
            f" the top left and (x1, y1) the bottom right corner, for example [[{shown}]]."
        )

    def _coordinates(self, box: list[int]) -> str:
        """Four whole numbers, thousandths or pixels, as they are written."""
        decimals = self.convention == "unit"
        return ",".join(f"{number / 1000:.3f}" if decimals else str(number) for number in box)
