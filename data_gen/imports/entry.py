"""A pair as a user's file describes it, before its pictures are looked at, and the reading of its fields."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_gen.files.userfiles import home_expanded
from data_gen.imports.report import Place, Report
from data_gen.scenes.schema import shown

Box = tuple[float, float, float, float]  # x0, y0, x1, y1

UNITS = ("pixels", "unit", "thousandths")  # of the upright picture; shares of its width and height; 1000ths
SPLITS = ("train", "test")
KIND = "change"  # of a difference whose kind nobody named
MAX_ID = 200  # characters
MAX_WORD = 100  # of a kind
MAX_SENTENCE = 2000  # of a description
FAR = 1e9  # a larger coordinate is no coordinate


@dataclasses.dataclass(frozen=True)
class Entry:
    """One pair.

    Attributes:
      place: where it is described, for errors.
      id: unique in the file, once `same_id` has looked.
      paths: the files of pictures A and B.
      boxes: for each difference its box in A and in B, None where it does not show; equal where the user gave
        one box for both.
      units: of the boxes, one of UNITS.
      kinds, descriptions: one per difference; KIND and "" where the user gave none.
      split: one of SPLITS, or None where the command decides.
      group: pairs of one group come into the same split; the id where the user gave none.
      size: (width, height) that the file says the upright pictures have, or None.
    """

    place: Place
    id: str
    paths: tuple[Path, Path]
    boxes: tuple[tuple[Box | None, Box | None], ...]
    units: str
    kinds: tuple[str, ...]
    descriptions: tuple[str, ...]
    split: str | None
    group: str
    size: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Source:
    """Where pictures are looked for, and what boxes mean where the file does not say.

    Attributes:
      images: folder that relative paths start from.
      units: one of UNITS.
      folders: inside `images`, those of pictures A and B where an entry has one file name for both.
    """

    images: Path
    units: str = "pixels"
    folders: tuple[str, str] | None = None

    def path(self, name: str) -> Path:
        """The file of a picture that the user's file calls `name`."""
        return self.images / home_expanded(name)


class Fields:
    """The fields of one JSON object, each read by its kind. What is wrong goes to the report."""

    def __init__(self, values: Mapping[str, Any], place: Place, report: Report) -> None:
        self.values = values
        self.place = place
        self._report = report
        self.sound = True

    def wrong(self, text: str) -> Any:
        """Reports something about this object; returns None, which stands for a value that is no good."""
        self.sound = False
        self._report.problem(self.place, text)
        return None

    def has(self, key: str) -> bool:
        """Whether there is a value; null counts as none."""
        return self.values.get(key) is not None

    def id(self, key: str = "id") -> str | None:
        """A name of a pair or a group; whole numbers count as text."""
        value = self.values.get(key)
        text = str(value) if is_whole(value) else value.strip() if isinstance(value, str) else value
        return self.checked_text(key, text, MAX_ID)

    def text(self, key: str, longest: int = MAX_SENTENCE) -> str | None:
        """A text on one line."""
        value = self.values.get(key)
        return self.checked_text(key, one_line(value) if isinstance(value, str) else value, longest)

    def name(self, key: str) -> str | None:
        """The name of a file, kept as it is."""
        return self.checked_text(key, self.values.get(key), MAX_SENTENCE)

    def checked_text(self, name: str, value: Any, longest: int) -> str | None:
        """The value, where it is a text of at most so many characters."""
        if value is None:
            return self.wrong(f"{name} is missing")
        if not isinstance(value, str) or not value.strip():
            return self.wrong(f"{name}: expected a text, got {shown(value)}")
        if len(value) > longest or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
            return self.wrong(
                f"{name}: expected at most {longest} characters and no control characters, got {shown(value)}"
            )
        return value

    def choice(self, key: str, known: Sequence[str]) -> str | None:
        """One of `known`, or None where there is no value."""
        value = self.values.get(key)
        if value is not None and value not in known:
            return self.wrong(f"{key}: expected {' or '.join(known)}, got {shown(value)}")
        return value

    def texts(self, key: str, count: int | None, default: str, longest: int) -> tuple[str, ...]:
        """One text per difference; `default` for null and where the key is missing. `count` None: unknown."""
        values = self.values.get(key)
        if values is None:
            return (default,) * (count or 0)
        if not isinstance(values, list):
            self.wrong(f"{key}: expected a list of texts, got {shown(values)}")
            return ()
        if count is not None and len(values) != count:
            self.wrong(f"{key}: expected one for each of the {count} boxes, got {len(values)}")
        found = []
        for number, value in enumerate(values):
            value = one_line(value) if isinstance(value, str) else value
            blank = value is None or value == ""
            found.append(
                default if blank else self.checked_text(f"{key}[{number}]", value, longest) or default
            )
        return tuple(found)

    def size(self) -> tuple[int, int] | None:
        """The size that the object says its pictures have, if it does."""
        if not (self.has("width") or self.has("height")):
            return None
        for key in ("width", "height"):
            value: Any = self.values.get(key)
            if not is_number(value) or value < 1 or value != int(value):  # some tools write 640.0
                return self.wrong(f"{key}: expected a number of pixels, got {shown(value)}")
        return int(self.values["width"]), int(self.values["height"])

    def numbers(self, name: str, value: Any, form: str) -> Box | None:
        """Four finite numbers, which `form` names."""
        if not (isinstance(value, list) and len(value) == 4 and all(is_number(number) for number in value)):
            return self.wrong(f"{name}: expected {form}, four finite numbers, got {shown(value)}")
        a, b, c, d = (float(number) for number in value)
        return a, b, c, d


def one_line(text: str) -> str:
    """The text with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a coordinate could be."""
    number = is_whole(value) or isinstance(value, float)
    return number and abs(value) <= FAR and math.isfinite(value)


def report_same_ids(entries: Sequence[Entry], report: Report) -> None:
    """Reports entries that have the id of an earlier one."""
    first: dict[str, Entry] = {}
    for entry in entries:
        if (earlier := first.setdefault(entry.id, entry)) is not entry:
            report.problem(entry.place, f"id {shown(entry.id)} is that of {earlier.place.name}, too")
