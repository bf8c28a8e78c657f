"""Pairs as JSON lines: one object per line, boxes as corners.

    {"id": "kitchen-1", "image_a": "a.png", "image_b": "b.png", "boxes": [[532, 106, 589, 168]]}

docs/own_pairs.md describes all fields.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from data_gen.imports.entry import (
    KIND,
    MAX_SENTENCE,
    MAX_WORD,
    SPLITS,
    UNITS,
    Box,
    Entry,
    Fields,
    Source,
    is_whole,
)
from data_gen.imports.report import Place, Report
from data_gen.scenes.schema import SceneError, load_json, shown

FORM = "[x0, y0, x1, y1]"
KEYS = (
    *("id", "image_a", "image_b", "boxes", "boxes_a", "boxes_b", "box_units", "kinds", "descriptions"),
    *("split", "group", "width", "height"),
)


def read(lines: list[str], name: str, source: Source, report: Report) -> list[Entry]:
    """The pairs of a file of this name; what is wrong goes to the report, with the line."""
    entries = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            entry = parse(line, Place(0, number, f"{name}:{number}"), source, report)
            entries += [entry] if entry else []
    return entries


def parse(line: str, place: Place, source: Source, report: Report) -> Entry | None:
    """The pair of one line; None where it does not even name its pictures."""
    try:
        values = load_json(line, nan=True)  # a box with NaN is told as such
    except SceneError as error:
        report.problem(place, str(error))
        return None
    if not isinstance(values, dict):
        report.problem(place, f'expected an object {{"id": ..., ...}} on every line, got {shown(values)}')
        return None
    fields = Fields(values, place, report)
    report_other_keys(fields, report)
    id = fields.id()
    images = [fields.name(key) for key in ("image_a", "image_b")]
    boxes = read_boxes(fields)
    count = None if boxes is None else len(boxes)
    kinds = fields.texts("kinds", count, KIND, MAX_WORD)
    descriptions = fields.texts("descriptions", count, "", MAX_SENTENCE)
    units = fields.choice("box_units", UNITS) or source.units
    split = fields.choice("split", SPLITS)
    group = fields.id("group") if fields.has("group") else id
    size = fields.size()
    if not (images[0] and images[1]):
        return None
    paths = (source.path(images[0]), source.path(images[1]))
    boxes = boxes if fields.sound and boxes else ()
    return Entry(place, id or place.name, paths, boxes, units, kinds, descriptions, split, group or "", size)


def read_boxes(fields: Fields) -> tuple[tuple[Box | None, Box | None], ...] | None:
    """Every difference's box in A and in B: of one list `boxes`, or of the lists `boxes_a` and `boxes_b`."""
    given = [key for key in ("boxes", "boxes_a", "boxes_b") if fields.has(key)]
    if given not in (["boxes"], ["boxes_a", "boxes_b"]):
        found = " and ".join(given) or "none of them"
        return fields.wrong(
            f"expected boxes, or boxes_a and boxes_b (both [] for equal pictures), got {found}"
        )
    lists = []
    for key in given:
        value = fields.values[key]
        if not isinstance(value, list):
            return fields.wrong(f"{key}: expected a list of boxes {FORM}, got {shown(value)}")
        if value and all(is_whole(number) or isinstance(number, float) for number in value):
            return fields.wrong(
                f"{key}: expected a list of boxes {FORM}, got one box without its own brackets"
            )
        lists.append([one_box(fields, f"{key}[{number}]", box, key) for number, box in enumerate(value)])
    if len(lists) == 1:
        return tuple((box, box) for box in lists[0])
    in_a, in_b = lists
    if len(in_a) != len(in_b):
        return fields.wrong(
            f"boxes_a has {len(in_a)} boxes and boxes_b {len(in_b)}: expected one of each difference in "
            "both, null where it does not show"
        )
    for number, both in enumerate(zip(fields.values["boxes_a"], fields.values["boxes_b"], strict=True)):
        if both == (None, None):
            fields.wrong(f"boxes_a[{number}] and boxes_b[{number}] are both null")
    return tuple(zip(in_a, in_b, strict=True))


def one_box(fields: Fields, name: str, value: Any, key: str) -> Box | None:
    """A box; null stands for none where there are two lists."""
    return None if value is None and key != "boxes" else fields.numbers(name, value, FORM)


def report_other_keys(fields: Fields, report: Report) -> None:
    """A key that looks like a slip is a problem, any other unknown one is noted: it is not used."""
    for key in fields.values:
        if key not in KEYS:
            if meant := slip_of(key):
                fields.wrong(f"unknown field {shown(key)}: is it {meant}?")
            else:
                report.note(fields.place, f"field {shown(key)} is not used")


def slip_of(key: str) -> str | None:
    """The field that was probably meant: the same but for case, plural or dashes, or a letter or two."""
    for known in KEYS:
        if bare(known) == bare(key):
            return known
    return next(iter(difflib.get_close_matches(key, KEYS, n=1, cutoff=0.85)), None)


def bare(key: str) -> str:
    """ "Box-Unit" and "box_units" -> "boxunit"."""
    return re.sub(r"[^a-z]", "", key.lower()).removesuffix("s").removesuffix("e")
