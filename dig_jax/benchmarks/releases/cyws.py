"""VIRAT-STD and COCO-Inpainted as published with "The Change You Want to See" (CYWS).

Their boxes come as pickled NumPy files, which run code when they are read, and are refused.
docs/benchmark_sets.md has a command for each that converts those that you trust to annotations.json, which is
read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import Box, PictureFile, Row
from dig_jax.data import images
from dig_jax.data.example import Size
from dig_jax.machines import textfile

SIZES = ("small", "medium", "large")

_BOXES = "annotations.json"
_EDGE = 0.01  # share of a side that a box may stick out: drawn by hand, and rounded
_INPAINTED = re.compile(r"(\d+)_mask(\d*)\.png")


def virat_rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The pairs ID.png and ID_2.png; boxes are corners in pixels, the same in both.

    Raises:
      FileNotFoundError: there are no boxes, or not in JSON, or a picture is missing.
      ValueError: a box is none, or has no area; names it.
    """
    folder = files.find(root, "folder std", "std", "VIRAT-STD", "std/")
    found = []
    for id, values in _boxes(folder).items():
        shown = folder / f"{id}.png", folder / f"{id}_2.png"
        corners = [_four(box, f"{folder / _BOXES}, {id}") for box in values]
        found.append(_row(f"{split}/{id}", shown, corners, split, f"{folder / _BOXES}, {id}"))
    return found


def inpainted_rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The pairs of one size: a picture, and the same without some of its objects.

    The number in INDEX_maskN.png says which: bit k of it, from the left, for object k of the picture's;
    without a number it is all of them. Pairs are shown as they lie in the folder. The paper turns, shifts
    and scales both pictures of a pair before its detector sees them, which is harder.

    Raises:
      FileNotFoundError, ValueError: as `virat_rows`.
    """
    files.split_of(split, SIZES, "COCO-Inpainted")
    inner = f"test/{split}"
    folder = files.find(root, inner, f"coco_inpainted/{inner}", f"COCO-Inpainted/{inner}")
    return list(_inpainted(folder, split))


def _inpainted(folder: epath.Path, split: str) -> Iterator[Row]:
    boxes = _boxes(folder)
    for path in sorted((folder / "inpainted").iterdir(), key=lambda path: path.name):
        match = _INPAINTED.fullmatch(path.name)
        if match is None:
            continue
        index, mask = match.groups()
        place = f"{folder / _BOXES}, {index}"
        if index not in boxes:
            raise ValueError(f"{place}: no boxes, and {path} is of that picture")
        objects = [_four(box, place) for box in boxes[index]]
        count = len(objects)
        bits = int(mask) if mask else 2**count - 1
        if not 0 < bits < 2**count:
            raise ValueError(f"{path}: the mask {mask or 'of all'} is of no object; the picture has {count}")
        gone = [box for k, box in enumerate(objects) if bits >> (count - 1 - k) & 1]
        corners = [(x, y, x + width, y + height) for x, y, width, height in gone]
        shown = folder / "images_and_masks" / f"{index}.png", path
        yield _row(f"{split}/{path.stem}", shown, corners, split, place)


def _boxes(folder: epath.Path) -> dict[str, Any]:
    path = folder / _BOXES
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; the boxes are published as pickled files (.npy), which run code when they"
            " are read: docs/benchmark_sets.md has a command that converts those you trust"
        )
    boxes = textfile.read_json(path)
    for id, values in boxes.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}, {id}: expected a list of boxes, got {str(values)[:80]}")
    return boxes


def _four(box: Any, place: str) -> tuple[float, ...]:
    return files.Record({"box": box}, place).numbers("box", 4)


def _row(
    index: str, shown: Sequence[epath.Path], corners: Sequence[Sequence[float]], split: str, place: str
) -> Row:
    size = images.image_size(images.read_file(shown[0]), str(shown[0]))
    return Row(
        index=index,
        images=tuple(PictureFile(path) for path in shown),
        question="",
        boxes=tuple(_share(box, size, place) for box in corners),
        size=size,
        category=split,
        splits=(split,),
        fields={"category": split},
    )


def _share(corners: Sequence[float], size: Size, place: str) -> Box:
    height, width = size
    x0, y0, x1, y1 = np.divide(corners, [width, height] * 2).tolist()
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"{place}: box {list(corners)} has no area")
    return x0, y0, x1, y1


def faults(rows: Sequence[Row]) -> list[str]:
    """Says how many boxes lie outside their pictures, which then are not those that they were drawn on."""
    outside = [
        row.index
        for row in rows
        for x0, y0, x1, y1 in row.boxes
        if min(x0, y0) < -_EDGE or max(x1, y1) > 1 + _EDGE
    ]
    if not outside:
        return []
    return [
        f"{len(outside)} boxes lie outside their pictures, the first in pair {outside[0]}: are they"
        " of another size than the published ones?"
    ]
