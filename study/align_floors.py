"""What boxes score that know the pictures little or not at all: floors beside every table of phrases.

Without looking: `mean box` is the mean of the boxes that training asks for, `constant box` that of them which
is right of most, the same for every question. With eyes: `any object` is the chance to be right for who boxes
an object of the picture, drawn evenly, without reading the phrase, and `any of the shape` for who knows the
word for its shape alone. Objects are those that the record lists, as far as they show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from dig_jax.benchmarks.releases import aligned
from dig_jax.benchmarks.row import Row
from dig_jax.data.records import open_records
from dig_jax.tasks.boxes.iou import paired_iou

FOUND = 0.5  # IoU


def of_rows(root: epath.PathLike, rows: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of the rows that each floor has right, 0 to 1: without looking, and with eyes.

    Args:
      root: folder of the dataset.
      rows: of its held-out split, that ask for a box.
    """
    folder = epath.Path(root)
    kinds = {row.category for row in rows}
    asked = np.array([row.boxes[0] for row in aligned.rows(folder, kinds, "train")], np.float64)
    true = np.array([row.boxes[0] for row in rows], np.float64)
    constants = {"mean box": asked.mean(axis=0), "constant box": _most_often_right(asked)}
    things = _things(folder)
    chances = [_chances(row, things[row.images[0].key]) for row in rows]
    blind = {name: _share(box, true) for name, box in constants.items()}
    names = ("any object", "any of the shape")
    return blind, dict(zip(names, np.mean(chances, axis=0).tolist(), strict=True))


def _share(box: np.ndarray, true: np.ndarray) -> float:
    """The share of boxes [N, 4] that one box [4] finds."""
    return float((paired_iou(np.tile(box, (len(true), 1)), true) >= FOUND).mean())


def _most_often_right(boxes: np.ndarray) -> np.ndarray:
    """Of boxes [N, 4] that which finds most of them."""
    return boxes[np.argmax([_share(box, boxes) for box in boxes])]


def _things(folder: epath.Path) -> dict[str, dict[str, Any]]:
    """Of every held-out record, by its id: what it shows, and its size."""
    records = open_records(folder, aligned.HELD_OUT)
    reads = (records.read(number, ("id", "things")) for number in range(len(records)))
    return {read["id"].decode(): json.loads(read["things"]) for read in reads}


def _chances(row: Row, view: Mapping[str, Any]) -> tuple[float, float]:
    """The share of all objects whose box would be right, and of those of the same shape as the nearest."""
    scale = np.array([view["width"], view["height"]] * 2, np.float64)
    boxes = np.array([thing["box"] for thing in view["things"]], np.float64) / scale
    ious = paired_iou(boxes, np.tile(np.array(row.boxes[0], np.float64), (len(boxes), 1)))
    shapes = np.array([thing["shape"] for thing in view["things"]])
    alike = shapes == shapes[ious.argmax()]
    return float((ious >= FOUND).mean()), float((ious[alike] >= FOUND).mean())
