"""Reads the first box of an answer, in whatever form it is written.

`boxes.text` holds the one form that training rewards. Benchmarks measure models of other makers too, and
count the box that an answer gives in any of these forms:

- four numbers in brackets: [x0, y0, x1, y1], (x0, y0, x1, y1), [x0 y0 x1 y1], <box>x0, y0, x1, y1</box>;
- two corners: (x0, y0), (x1, y1) or [x0, y0], [x1, y1];
- named numbers: {"x1": ..., "y1": ..., "x2": ..., "y2": ...}, xmin ..., left ..., or x, y, width, height;
- four numbers and nothing else, or only "bbox:" before them; four with commas after words about a box.

Digits of names (`bbox_2d`, `x1`) and of prose are no coordinates, and a box that is cut off is none. Corners
are sorted and values clipped to the image. All of it takes time linear in the text and never raises.
"""

from __future__ import annotations

import math
import re
import unicodedata

from dig_jax.tasks.answers import final_answer
from dig_jax.tasks.boxes.text import Scale

BOX = "box"
NO_BOX = "no_box"

Corners = tuple[float, float, float, float]  # x0, y0, x1, y1, shares of width and height, 0..1

_NUMBER = r"[\"']?([+-]?(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d{1,3})?+)(?:px)?+[\"']?"
_SEPARATOR = r"(?:\s*+[,;]\s*+|\s++)"
_FOUR = _SEPARATOR.join([_NUMBER] * 4)
_CLOSED = r"(?:\s*+,\s*+[01]?\.\d++)?+\s*+,?+\s*+\\?+"  # after four numbers, perhaps with how sure a model is
_POINT = (
    rf"(?:[(\[]\s*+{_NUMBER}{_SEPARATOR}{_NUMBER}\s*+[)\]]"
    rf"|\{{\s*+[\"']?x[\"']?\s*+:\s*+{_NUMBER}\s*+,\s*+[\"']?y[\"']?\s*+:\s*+{_NUMBER}\s*+\}})"
)
_BETWEEN = r"(?:[^()\[\]{}0-9]|(?<=[A-Za-z_])\d|\([a-z]+_?\d?, ?[a-z]+_?\d?\)){0,40}"  # two corners
_FORMS = re.compile(
    rf"[(\[{{<]\s*+{_FOUR}{_CLOSED}[)\]}}>]"
    rf"|{_POINT}{_BETWEEN}{_POINT}"
    rf"|<(?:\|?box_start\|?|box|bbox|bounding_box)>\s*+{_FOUR}\s*+<"
)
_QUOTED = re.compile(rf"[\"']\s*+{_FOUR}\s*+[\"']")
_BARE = re.compile(rf"\s*(?:[\w ]{{0,24}}[:=])?\s*{_FOUR}[\s.;]*")
_LISTED = r"\s*+,\s*+".join([_NUMBER] * 4)
_IN_PROSE = re.compile(rf"(?<=[A-Za-z:=] ){_LISTED}(?![\d%]|\.\d|\s*+,\s*+[\d+-])")
_BOX_WORD = re.compile(r"box|coordinate|corner|region|located|answer", re.IGNORECASE)
_EXTENT = re.compile(r"\bx,? ?y,? ?w(?:idth)?,? ?h(?:eight)?\b", re.IGNORECASE)
_NAMED = re.compile(
    rf"(?<![^\W_])(x_?(?:[012]|min|max)|y_?(?:[012]|min|max)|left|top|right|bottom|x|y|w|h"
    rf"|width|height)[\"']?\s?[:=]\s?{_NUMBER}",
    re.IGNORECASE,
)
_SIDES = (  # names of x0, y0, x1, y1, that belong together
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_EXTENTS = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))

_BRACKETS = str.maketrans("\u3010\u3011\u3001", "[],")
_AHEAD = 60  # characters before a box that may say what its numbers are
_DECIMAL = re.compile(r"\.|[eE]-")
_MOST_UNIT = 1.5  # decimals up to here are shares that overshoot, not thousandths


def first_box(
    text: str, scale: Scale, *, decimals_are_shares: bool = True, opens_thought: bool = False
) -> tuple[Corners | None, str]:
    """The first box of a completion, and why there is none.

    Args:
      text: without special tokens.
      scale: coordinates of the image's right and bottom edge.
      decimals_are_shares: a box with a decimal point and no value above 1.5 counts shares, 0 to 1, whatever
        the scale.
      opens_thought: the prompt opened the thought, so that a text without `</think>` was cut off.

    Returns:
      The corners, sorted and clipped, or None; `BOX`, `NO_BOX`, or a reason of `answers.final_answer`.
    """
    final = final_answer(text, opens_thought)
    if final.reason:
        return None, final.reason
    said = final.text
    if not said.isascii():  # full-width brackets, commas and digits
        said = unicodedata.normalize("NFKC", said).translate(_BRACKETS)
    numbers = _first_numbers(said)
    if numbers is None:
        return None, NO_BOX
    values = [float(number) for number in numbers]
    if not all(map(math.isfinite, values)):
        return None, NO_BOX
    shares = any(map(_DECIMAL.search, numbers)) and max(values) <= _MOST_UNIT
    right, bottom = (1, 1) if shares and decimals_are_shares else scale
    xs, ys = sorted(values[::2]), sorted(values[1::2])
    x0, x1 = (min(max(x / right, 0.0), 1.0) for x in xs)
    y0, y1 = (min(max(y / bottom, 0.0), 1.0) for y in ys)
    return (x0, y0, x1, y1), BOX


def _first_numbers(text: str) -> list[str] | None:
    """Four numbers as written, x0, y0, x1, y1, of the first box."""
    form = _FORMS.search(text)
    named = _named(text, form.start() if form else len(text))
    if named is not None:
        return named
    form = form or _QUOTED.search(text)
    if form is None and len(text) < 200:
        form = _BARE.fullmatch(text)
    if form is None and (form := _IN_PROSE.search(text)):
        form = form if _BOX_WORD.search(text, max(0, form.start() - _AHEAD), form.start()) else None
    if form is None:
        return None
    numbers = [number for number in form.groups() if number is not None]
    if _EXTENT.search(text, max(0, form.start() - _AHEAD), form.start()):
        x, y, width, height = numbers
        return [x, y, _sum(x, width), _sum(y, height)]
    return numbers


def _named(text: str, end: int) -> list[str] | None:
    """Four numbers with names before this place in the text; None where they are not all there."""
    found: dict[str, str] = {}
    for match in _NAMED.finditer(text, 0, end):
        name = match[1].lower().replace("_", "")
        if name in found:  # another box begins
            found.clear()
        found[name] = match[2]
        if match.end() == len(text) and "{" in text:
            return None  # cut off, perhaps in the middle of a number
        for names in _SIDES:
            if all(name in found for name in names):
                return [found[name] for name in names]
        for names in _EXTENTS:
            if all(name in found for name in names):
                x, y, width, height = (found[name] for name in names)
                return [x, y, _sum(x, width), _sum(y, height)]
    return None


def _sum(one: str, other: str) -> str:
    """The sum of two numbers, with a decimal point where one of them has it."""
    total = float(one) + float(other)
    return repr(total) if _DECIMAL.search(one + other) else f"{total:.0f}"
