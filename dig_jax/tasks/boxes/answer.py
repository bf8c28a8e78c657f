"""Text to boxes: what the model said, and whether it said it in the required form.

The answer is one JSON list of boxes and nothing else, optionally inside one ``` fence. A box is either bare
or in Qwen3-VL's native form, in integers or decimals 0..1000 of the image's width and height, top-left corner
first:

    [[x0, y0, x1, y1], ...]        or        [{"bbox_2d": [x0, y0, x1, y1], "label": "..."}, ...]

`[]` is a valid answer: no differences. A list with the same box twice is not: one box can not be two
differences. A Thinking model's answer is what follows the last `</think>`; without that tag the completion
was cut off and there is no answer at all.

Any other text is invalid in form, for the first reason found. Its boxes are then every well-formed box
anywhere in the answer, so that an untrained model that wraps its list in prose still gets a signal for where
it looks.

Parsing is total (any string gives an answer, never an exception) and takes time linear in the text: rewards
must survive whatever a policy samples.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

COORDINATE_MAX = 1000  # coordinates are thousandths of the image's width or height
THINK_END = "</think>"

VALID = "valid"
TRUNCATED = "truncated"  # a Thinking model's text without </think>
EMPTY = "empty"  # nothing but white space
NO_BOX = "no_box"  # not a JSON list, and no box anywhere in it
NOT_A_LIST = "not_a_list"  # has boxes, but is not one JSON list: prose around it, cut off, or broken JSON
BAD_ITEM = "bad_item"  # an item of the list is not a box of four numbers
NOT_FINITE = "not_finite"  # NaN, Infinity, or a number too large for a float
OUT_OF_RANGE = "out_of_range"  # a coordinate outside 0..1000
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

# Corners this far apart stay apart in float32, which has a step of 6e-5 at 1000.
_CLOSE = 1e-3

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Answer:
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


def parse_answer(text: str, *, thinking: bool, max_boxes: int) -> Answer:
    """Reads the boxes out of a completion. Never raises, whatever the text.

    Args:
      text: the decoded completion, without special tokens.
      thinking: whether the prompt opened `<think>`, so that the answer starts after the last `</think>`.
      max_boxes: the most boxes to keep.
    """
    if thinking:
        _, end_tag, text = text.rpartition(THINK_END)
        if not end_tag:
            return _answer([], TRUNCATED)
    text = _without_fence(text.strip())
    if not text:
        return _answer([], EMPTY)

    items = _load_json(text)
    if isinstance(items, list):
        boxes, reason = _read_items(items)
        if reason != VALID:
            return _answer(_find_boxes(text, max_boxes), reason)
        if len(boxes) > max_boxes:
            return _answer(boxes[:max_boxes], TOO_MANY)
        return _answer(boxes, VALID if len(set(boxes)) == len(boxes) else REPEATED)
    found = _find_boxes(text, max_boxes)
    return _answer(found, NOT_A_LIST if found else NO_BOX)


def _answer(boxes: list[_Box], reason: str) -> Answer:
    return Answer(boxes=_normalised(boxes), valid=reason == VALID, reason=reason)


def _normalised(boxes: list[_Box]) -> np.ndarray:
    return np.asarray(boxes, np.float32).reshape(-1, 4) / np.float32(COORDINATE_MAX)


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


def _read_items(items: list[Any]) -> tuple[list[_Box], str]:
    """Returns the boxes of a list and `VALID`, or the reason that the first bad item is bad."""
    boxes: list[_Box] = []
    for item in items:
        corners = item.get("bbox_2d") if isinstance(item, dict) else item
        # `type(c) is float` and not isinstance: JSON's true and false must not pass for numbers.
        if not (isinstance(corners, list) and len(corners) == 4 and all(type(c) is float for c in corners)):
            return boxes, BAD_ITEM
        reason = _check_corners(corners)
        if reason != VALID:
            return boxes, reason
        x0, y0, x1, y1 = corners
        boxes.append((x0, y0, x1, y1))
    return boxes, VALID


def _check_corners(corners: Iterable[float]) -> str:
    x0, y0, x1, y1 = corners
    if not (math.isfinite(x0) and math.isfinite(y0) and math.isfinite(x1) and math.isfinite(y1)):
        return NOT_FINITE
    if min(x0, y0, x1, y1) < 0 or max(x0, y0, x1, y1) > COORDINATE_MAX:
        return OUT_OF_RANGE
    shorter = min(x1 - x0, y1 - y0)
    if abs(shorter) < _CLOSE:
        # Compared as they will be kept: 1 and 1 + 1e-12 are the same corner in float32.
        x0, y0, x1, y1 = _normalised([(x0, y0, x1, y1)])[0]
        shorter = min(x1 - x0, y1 - y0)
    return VALID if shorter > 0 else NOT_ORDERED


def _find_boxes(text: str, max_boxes: int) -> list[_Box]:
    """Returns the first `max_boxes` well-formed boxes anywhere in the text."""
    boxes: list[_Box] = []
    for match in _BOX.finditer(text):
        if len(boxes) == max_boxes:
            break
        x0, y0, x1, y1 = map(float, match.groups())
        if _check_corners((x0, y0, x1, y1)) == VALID:
            boxes.append((x0, y0, x1, y1))
    return boxes
