"""Pairs as COCO JSON with two pictures per image entry; boxes are [x, y, width, height].

    {"images": [{"id": 7, "file_name_a": "A/7.png", "file_name_b": "B/7.png", "width": 640, "height": 480}],
     "annotations": [{"id": 1, "image_id": 7, "bbox": [10, 20, 30, 40], "category_id": 1}],
     "categories": [{"id": 1, "name": "building"}]}

COCO itself has one picture per entry, so the two names are ours: see docs/own_pairs.md.
"""

from __future__ import annotations

import collections
from pathlib import Path
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
)
from data_gen.imports.report import Place, Report
from data_gen.scenes.schema import shown

FORM = "[x, y, width, height]"
NAMES = (("file_name_a", "file_name_b"), ("image_a", "image_b"))
CATEGORY, IMAGE, ANNOTATION = range(3)  # the order of the report


def read(data: dict[str, Any], name: str, source: Source, report: Report) -> list[Entry]:
    """The pairs of a COCO file; what is wrong goes to the report, with the place.

    Raises ValueError where one of its three parts is no list.
    """
    for key in ("annotations", "categories"):
        if not isinstance(data.get(key, []), list):
            raise ValueError(f"{name}: {key}: expected a list, got {shown(data[key])}")
    if "annotations" not in data:
        raise ValueError(f"{name}: annotations is missing; it is [] where no pair has a difference")
    kinds = read_categories(data.get("categories", []), name, report)
    differences: dict[str, list[Difference]] = collections.defaultdict(list)
    images = [item.get("id") if isinstance(item, dict) else None for item in data["images"]]
    known = {key_of(id) for id in images}
    for number, item in enumerate(data["annotations"]):
        fields = fields_of(item, ANNOTATION, number, f"{name}: annotations", report)
        if fields and (difference := read_annotation(fields, kinds, known)):
            differences[key_of(item["image_id"])].append(difference)
    entries = []
    for number, item in enumerate(data["images"]):
        fields = fields_of(item, IMAGE, number, f"{name}: images", report)
        if fields and (entry := read_image(fields, differences[key_of(item.get("id"))], source)):
            entries.append(entry)
    return entries


Difference = tuple[tuple[Box | None, Box | None], str, str]  # boxes in A and B, kind, description


def key_of(id: Any) -> str:
    """Tells the id 1 from "1", and takes whatever JSON can hold."""
    return repr(id)


def fields_of(item: Any, section: int, number: int, name: str, report: Report) -> Fields | None:
    """The fields of an entry of a list; None, and a problem, where it is no object."""
    id = item.get("id") if isinstance(item, dict) else None
    place = Place(section, number, f"{name}[{number}]" + (f" (id {shown(id)})" if id is not None else ""))
    if isinstance(item, dict):
        return Fields(item, place, report)
    report.problem(place, f"expected an object, got {shown(item)}")
    return None


def read_categories(items: list[Any], name: str, report: Report) -> dict[str, str]:
    """Id -> name of a kind of difference."""
    kinds: dict[str, str] = {}
    for number, item in enumerate(items):
        fields = fields_of(item, CATEGORY, number, f"{name}: categories", report)
        word = fields.text("name", MAX_WORD) if fields else None
        if fields and word and kinds.setdefault(key_of(item.get("id")), word) != word:
            fields.wrong(f"id {shown(item.get('id'))} is that of another category, too")
    return kinds


def read_annotation(fields: Fields, kinds: dict[str, str], known: set[str]) -> Difference | None:
    """One difference: `bbox` for both pictures, or `bbox_a` and `bbox_b`, null where it does not show.

    Of all three, `bbox` is what other tools read, around both.
    """
    values = fields.values
    if not fields.has("image_id"):
        fields.wrong("image_id is missing")
    elif key_of(values["image_id"]) not in known:
        fields.wrong(f"image_id: no image has the id {shown(values['image_id'])}")
    if values.get("iscrowd"):
        fields.wrong("iscrowd: a crowd is no single difference with a box of its own; leave it out")
    kind = KIND
    if fields.has("category_id"):
        kind = kinds.get(key_of(values["category_id"]), KIND)
        if key_of(values["category_id"]) not in kinds:
            fields.wrong(f"category_id: no category has the id {shown(values['category_id'])}")
    description = fields.text("description") if fields.has("description") else ""
    given = [key for key in ("bbox", "bbox_a", "bbox_b") if fields.has(key)]
    if given == ["bbox"]:
        box = read_box(fields, "bbox")
        boxes = (box, box)
    elif given and ("bbox" not in given or {"bbox_a", "bbox_b"} <= values.keys()):
        in_a, in_b = (read_box(fields, key) if key in given else None for key in ("bbox_a", "bbox_b"))
        boxes = (in_a, in_b)
    else:
        found = " and ".join(given) or "none of them"
        return fields.wrong(f"expected bbox, or bbox_a and bbox_b (null where it does not show), got {found}")
    return (boxes, kind, description or "") if fields.sound else None


def read_box(fields: Fields, key: str) -> Box | None:
    """The corners of a box."""
    if (box := fields.numbers(key, fields.values[key], FORM)) is None:
        return None
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return fields.wrong(
            f"{key}: width and height must be above 0, got {shown(fields.values[key])}: a box is {FORM}"
        )
    return x, y, x + width, y + height


def read_image(fields: Fields, differences: list[Difference], source: Source) -> Entry | None:
    """One pair."""
    id, paths = fields.id(), picture_paths(fields, source)
    units = fields.choice("box_units", UNITS) or source.units
    split = fields.choice("split", SPLITS)
    group = fields.id("group") if fields.has("group") else id
    size = fields.size()
    if not paths:
        return None
    boxes, kinds, descriptions = zip(*differences, strict=True) if differences else ((), (), ())
    id = id or fields.place.name
    return Entry(fields.place, id, paths, boxes, units, kinds, descriptions, split, group or "", size)


def picture_paths(fields: Fields, source: Source) -> tuple[Path, Path] | None:
    """The files of A and B: two names, a list of two, or one name in the two folders of the command."""
    for keys in NAMES:
        if any(fields.has(key) for key in keys):
            names = [fields.name(key) for key in keys]
            break
    else:
        one = fields.values.get("file_name")
        if isinstance(one, list) and len(one) == 2:
            names = [
                fields.checked_text(f"file_name[{number}]", name, MAX_SENTENCE)
                for number, name in enumerate(one)
            ]
        elif isinstance(one, str) and source.folders:
            name = fields.name("file_name")
            names = [f"{folder}/{name}" if name else None for folder in source.folders]
        else:
            return fields.wrong(
                "expected two pictures: file_name_a and file_name_b, or file_name as a list of two, or "
                f"file_name and --folders=A,B; got file_name {shown(one)}"
            )
    a, b = names
    return (source.path(a), source.path(b)) if a and b else None
