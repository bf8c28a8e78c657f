"""One pair of a user: its pictures read, its boxes checked against them, its record made."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
from PIL import Image

from data_gen.files.png import encode
from data_gen.imports.boxes import BadBox, same_boxes, shares, union, whole
from data_gen.imports.entry import Box, Entry
from data_gen.imports.pictures import CLIPPED, BadPicture, Picture, decode, read_bytes
from data_gen.records.record import NO_SHARES, to_pixels
from data_gen.records.truth import Spill, delta_e, grow, inside, measure_spill
from data_gen.scenes.presets import Acceptance

CUT = "boxes that stick out by up to a pixel were cut at the picture's edge"
ADVICE = "are its units right?"

Both = tuple[Box | None, Box | None]  # a difference's box in A and in B


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What became of an entry.

    Attributes:
      problems: why it cannot be imported; empty when it can.
      notes: what was done to it.
      pictures: the PNG files, by feature name; empty where none were asked for or there are problems.
      record: everything else of the record.
      size: (width, height) of both pictures.
      digests: hashes of both files.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    pictures: dict[str, bytes] = dataclasses.field(default_factory=dict)
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    digests: tuple[str, str] = ("", "")


def prepare(entry: Entry, keep: bool = True, max_side: int | None = None) -> Prepared:
    """Reads and checks a pair.

    Args:
      keep: whether its PNG files are wanted.
      max_side: pixels of a side; larger pictures are shrunk to it.
    """
    problems: list[str] = []
    notes: list[str] = []
    found: list[Picture] = []
    digests: list[str] = []
    for which, path in zip("ab", entry.paths, strict=True):
        try:
            data = read_bytes(path)
            found.append(decode(data, path))
        except BadPicture as error:
            problems.append(f"image_{which}: {error}")
            continue
        digests.append(hashlib.sha256(data).hexdigest())
        notes += [f"image_{which} {note}" for note in found[-1].notes]
    sizes = [picture.size for picture in found]
    if len(set(sizes)) != 1:
        if sizes:
            a, b = (f"{width}x{height}" for width, height in sizes)
            problems.append(f"the pictures differ in size, {a} and {b} pixels: crop or scale one of them")
        return Prepared(tuple(problems), tuple(notes))
    boxes, wrong, cut = normalised(entry, sizes[0])
    problems += check_size(entry, sizes[0]) + wrong
    notes += [CUT] * cut
    pictures = [shrunk(picture.pixels, max_side) for picture in found]
    height, width = pictures[0].shape[:2]
    if (width, height) != sizes[0]:
        notes.append(f"pictures were shrunk to {max_side} pixels a side")
        problems += lost_boxes(boxes, width, height)
    if len(found) == 2:
        unions = {number: union(*both) for number, both in boxes.items()}
        distance = delta_e(*pictures)
        advice = "scale grey values to 8 bits" if any(CLIPPED in note for note in notes) else ADVICE
        problems += check_unions(unions, distance, advice)
    if problems:
        return Prepared(tuple(problems), tuple(notes))
    record = make_record(entry, list(boxes.values()), list(unions.values()), distance)
    files = {f"image_{which}": encode(pictures[number]) for number, which in enumerate("ab") if keep}
    return Prepared((), tuple(notes), files, record, (width, height), (digests[0], digests[1]))


def shrunk(pixels: np.ndarray, max_side: int | None) -> np.ndarray:
    """The picture with no side above `max_side`, as models' processors shrink it."""
    height, width = pixels.shape[:2]
    if max_side is None or max(width, height) <= max_side:
        return pixels
    size = [max(1, round(side * max_side / max(width, height))) for side in (width, height)]
    return np.asarray(Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.BICUBIC))


def lost_boxes(boxes: dict[int, Both], width: int, height: int) -> list[str]:
    """Boxes of which less than a pixel is left in a picture of this size."""
    return [
        f"box {number} is smaller than a pixel of the picture shrunk to {width}x{height}"
        for number, both in boxes.items()
        if any(box and not whole(box, width, height) for box in both)
    ]


def check_size(entry: Entry, size: tuple[int, int]) -> list[str]:
    """A file that gives another size than the upright picture has was made for another picture."""
    if entry.size is None or entry.size == size:
        return []
    said, width, height = "x".join(map(str, entry.size)), *size
    turned = entry.size == (height, width)
    advice = "; boxes are of the picture turned upright, as its EXIF data say" if turned else ""
    return [f"width and height say {said} pixels, the pictures have {width}x{height}{advice}"]


def normalised(entry: Entry, size: tuple[int, int]) -> tuple[dict[int, Both], list[str], bool]:
    """Boxes as shares of the picture, what is wrong with them, and whether any was cut at its edge.

    Boxes are by their number in the entry, and those with which something is wrong are missing.
    """
    boxes: dict[int, Both] = {}
    problems = []
    any_cut = False
    for number, both in enumerate(entry.boxes):
        done: list[Box | None] = []
        one = both[0] == both[1]  # given once for both, or twice the same
        for which, box in zip("ab", both[:1] if one else both, strict=not one):
            try:
                inside, cut = shares(box, entry.units, size) if box else (None, False)
                done.append(inside)
                any_cut |= cut
            except BadBox as error:
                problems.append(f"box {number}{'' if one else f' in {which.upper()}'}: {error}")
        if len(done) == (1 if one else 2):
            boxes[number] = (done[0], done[-1])
    return boxes, problems, any_cut


def check_unions(unions: dict[int, Box], distance: np.ndarray, advice: str) -> list[str]:
    """Boxes that are given twice, and boxes in which nothing differs: no model could answer them.

    `distance` is float [height, width]: how far the colours of the two pictures are apart. `advice` says what
    may help where they are equal.
    """
    problems = [
        f"boxes {first} and {second} are the same to a thousandth of the picture"
        for first, second in same_boxes(unions)
    ]
    height, width = distance.shape
    for number, box in unions.items():
        x0, y0, x1, y1 = to_pixels(box, width, height)
        if not distance[y0:y1, x0:x1].any():
            problems.append(
                f"box {number}: the pictures are equal in it (columns {x0} to {x1 - 1}, rows {y0} to "
                f"{y1 - 1}); {advice}"
            )
    return problems


def make_record(entry: Entry, boxes: list[Both], unions: list[Box], distance: np.ndarray) -> dict[str, Any]:
    """Every feature but the pictures: what a renderer alone knows is empty or, of measures, left out."""
    height, width = distance.shape
    areas = [to_pixels(box, width, height) for box in unions]
    changed = distance > Acceptance.changed_delta_e
    parts = [(slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in areas]
    spill: Spill = measure_spill(changed & ~inside([grow(area, 1) for area in areas], changed.shape))
    return {
        "id": entry.id,
        "num_differences": len(unions),
        "bboxes": [list(box) for box in unions],
        "bboxes_a": [list(a or NO_SHARES) for a, _ in boxes],
        "bboxes_b": [list(b or NO_SHARES) for _, b in boxes],
        "kinds": list(entry.kinds),
        "descriptions": list(entry.descriptions),
        "changed_pixels": [int(np.count_nonzero(changed[part])) for part in parts],
        "mean_delta_e": [float(distance[part].mean()) for part in parts],
        "outside_changed": spill.share,
        "outside_largest": spill.largest,
        "scene_a": "{}",
        "scene_b": "{}",
        "objects_a": [],
        "objects_b": [],
        "rejected": [],
    }
