"""Reads answers as VLMEvalKit does without a judge, for comparison with numbers that were made with it.

Its faults are kept, for they are what is compared: letters are taken from thoughts, "The answer is blue" is
B, `**Yes**` is unknown, digits of names are coordinates. Written from a description of its behaviour at
commit e8e78f05 and checked against its own scores; docs/benchmarks.md lists where answers differ from ours.

pandas reads some texts as missing: an option "None" is no option there, and an answer "NA" is "nan". Columns
of numbers become numbers: "3" is "3.0" where another row has no such option.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from dig_jax.benchmarks.row import Row
from dig_jax.data.example import Size

UNKNOWN = ""

_MISSING = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A")
    + ("NA", "NULL", "NaN", "None", "n/a", "nan", "null")
)
_FAILURE = "Failed to obtain answer via API"
_REFUSALS = (  # answers with one of these in them are taken for none of the options
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NONE_OF_THEM = "Z"
_TO_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_LAST_WORDS = 4

# Punctuation of yes/no answers, one after another; what is not here stays part of a word.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_AROUND_A_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # that are taken out; a flag of the pattern stands where their number is expected

_NUMBER = r"([+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)"
_BRACKETED = re.compile(r"\[\s*" + r"(?:\s*,\s*|\s+)".join([_NUMBER] * 4) + r"\s*\]")
_ANY_NUMBER = re.compile(_NUMBER)

_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")  # numbers in a column of a table
_DECIMAL = re.compile(
    r"\s*[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?)\s*", re.IGNORECASE
)


def as_loaded(rows: Sequence[Row]) -> list[Row]:
    """The rows with option texts as they are once pandas has loaded the table."""
    letters = sorted({letter for row in rows for letter in row.options})
    columns = {letter: _loaded([row.options.get(letter, "") for row in rows]) for letter in letters}
    return [
        dataclasses.replace(row, options={letter: columns[letter][number] for letter in row.options})
        for number, row in enumerate(rows)
    ]


def _loaded(column: Sequence[str]) -> Sequence[str]:
    """A column as its texts, which are those of numbers where all cells are numbers or missing."""
    given = [text for text in column if text not in _MISSING]
    if given and len(given) == len(column) and all(map(_WHOLE.fullmatch, column)):
        return [str(int(text)) for text in column]
    if not given or not all(map(_DECIMAL.fullmatch, given)):
        return column
    return [text if text in _MISSING else str(float(text)) for text in column]


def read_choice(text: str, options: Mapping[str, str]) -> str:
    """The letter, or "" where the toolkit finds none and would ask a judge."""
    present = {letter: option for letter, option in options.items() if option not in _MISSING}
    if text in _MISSING:
        text = "nan"
    if letter := _letter(text, present):
        return letter
    if len(text) > 2 * sum(map(len, present.values())):
        return UNKNOWN
    contained = [letter for letter, option in present.items() if option.lower() in text.lower()]
    return contained[0] if len(contained) == 1 else UNKNOWN


def _letter(text: str, options: Mapping[str, str]) -> str:
    """The letter that is named, or ""."""
    if _FAILURE in text:
        return UNKNOWN
    if any(refusal in text for refusal in _REFUSALS):
        return _NONE_OF_THEM
    words = text.translate(_TO_SPACES).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    if not named and _NONE_OF_THEM in words:
        return _NONE_OF_THEM
    match = _ANSWER_IS.search(text)
    return match[1].upper() if match and match[1].upper() in options else UNKNOWN


def read_yes_no(text: str) -> str:
    """ "Yes", "No", or "" where the toolkit says Unknown."""
    said = text.lower()
    joins = bool(_DIGITS_AROUND_A_COMMA.search(said))
    out = said
    for sign in _PUNCTUATION:
        beside_a_space = f"{sign} " in said or f" {sign}" in said
        out = out.replace(sign, "" if beside_a_space or joins else " ")
    words = _PERIOD.sub("", out, count=_MOST_PERIODS).split()
    if ("yes" in words) == ("no" in words):
        return UNKNOWN
    return "Yes" if "yes" in words else "No"


def read_box(text: str, size: Size) -> tuple[float, float, float, float] | None:
    """The box in pixels of the picture, x0, y0, x1, y1, or None."""
    match = _BRACKETED.search(text)
    numbers = list(match.groups()) if match else _ANY_NUMBER.findall(text)[:4]
    if len(numbers) < 4:
        return None
    values = [float(number) for number in numbers]
    height, width = size
    most = max(map(abs, values))
    x_scale, y_scale = (width, height) if most <= 1.5 else (width / 1000, height / 1000)
    if most > 1000:
        x_scale = y_scale = 1.0
    xs = sorted(min(max(value * x_scale, 0.0), float(width)) for value in values[::2])
    ys = sorted(min(max(value * y_scale, 0.0), float(height)) for value in values[1::2])
    return xs[0], ys[0], xs[1], ys[1]
