"""How well the changes between two pictures were boxed: F1 at IoU 0.5, matched IoU, false boxes, by size.

Boxes are matched one to one (Hungarian): as many pairs with IoU >= 0.5 as can be, and among such assignments
the one of the greatest total IoU. Each pair of pictures is measured once (`measure`), and what a set scores
is sums of those numbers (`scores`), so that resampling it is cheap.

None of this is average precision, which needs a confidence for every box, and models that answer in text give
none: numbers here are not to be laid beside the AP of change detectors.

A change is small, medium or large by the share of the picture that its box covers. The cuts are those of COCO
(32^2 and 96^2 pixels) for a picture of 640x480. A box that finds a change counts with that change's size, any
other box with its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dig_jax.benchmarks.row import Mark, Row
from dig_jax.tasks.boxes.iou import IOU_SLACK, paired_iou
from dig_jax.tasks.boxes.matching import assign

THRESHOLD = 0.5
HEADLINE = "F1@0.5"
SIZES = ("small", "medium", "large")
CUTS = (32**2 / (640 * 480), 96**2 / (640 * 480))  # below the first small, from the second on large

_FOUND = 2.0  # a pair above the threshold outweighs any IoU of one below it


def measure(predicted: np.ndarray, true: np.ndarray, parsed: bool = True) -> dict[str, float]:
    """What one answer adds to the scores.

    Args:
      predicted: [N, 4], x0, y0, x1, y1 in 0..1.
      true: [M, 4]; M = 0 for identical pictures.
      parsed: whether boxes, or that there are none, could be read: text that says nothing is not "none".

    Returns:
      "predicted" and "true", numbers of boxes, "found", true boxes with a match at IoU >= 0.5; each of them
      also by size, as "found_small"; "matched" pairs at any IoU and "iou", the sum over them; "f1" of this
      pair, 1 where rightly nothing is boxed; "answered", 1 if parsed.
    """
    predicted, true = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (predicted, true))
    ious = _ious(predicted, true)
    gains = ious + _FOUND * min(len(predicted), len(true)) * (ious >= THRESHOLD - IOU_SLACK)
    match = assign(-gains[None], np.array([len(predicted)]), np.array([len(true)]))[0]
    pairs = np.flatnonzero(match >= 0)
    matched = ious[pairs, match[pairs]]
    hits = pairs[matched >= THRESHOLD - IOU_SLACK]

    sizes, own = _sizes(true), _sizes(predicted)
    own[hits] = sizes[match[hits]]
    values = {
        "predicted": float(len(predicted)),
        "true": float(len(true)),
        "found": float(len(hits)),
        "matched": float(len(pairs)),
        "iou": float(matched.sum()),
        "answered": float(parsed),
        "f1": 2 * len(hits) / max(len(predicted) + len(true), 1),
    }
    if not len(predicted) and not len(true):
        values["f1"] = float(parsed)
    for number, size in enumerate(SIZES):
        values[f"predicted_{size}"] = float((own == number).sum())
        values[f"true_{size}"] = float((sizes == number).sum())
        values[f"found_{size}"] = float((own[hits] == number).sum())
    return values


def scores(rows: Sequence[Row], marks: Sequence[Mark]) -> dict[str, float]:
    """What a set scores; shares are 0 to 1.

    Args:
      rows: the pairs.
      marks: of the answer to each; their values are those of `measure`.

    Returns:
      "F1@0.5": mean over the pairs. "Precision", "Recall" and "F1@0.5 pooled": over all boxes together. "Mean
      matched IoU": over matched pairs of boxes, at any IoU. "F1@0.5 small", ...: over all boxes of a size,
      where there is a true one. "Identical: false boxes": boxes a pair of identical pictures, and
      "Identical: none boxed": share of those rightly answered with none, where there are such pairs.
    """
    if not marks:
        return {}
    values = [mark.values for mark in marks]
    found = {HEADLINE: float(np.mean([value["f1"] for value in values]))}
    hits, predicted, true = (_total(values, name) for name in ("found", "predicted", "true"))
    found["F1@0.5 pooled"] = _f1(hits, predicted, true)
    found["Precision"], found["Recall"] = hits / max(predicted, 1), hits / max(true, 1)
    found["Mean matched IoU"] = _total(values, "iou") / max(_total(values, "matched"), 1)
    for size in SIZES:
        hits, predicted, true = (_total(values, f"{name}_{size}") for name in ("found", "predicted", "true"))
        if true:
            found[f"F1@0.5 {size}"] = _f1(hits, predicted, true)
    if identical := [value for value in values if not value["true"]]:
        found["Identical: false boxes"] = _total(identical, "predicted") / len(identical)
        found["Identical: none boxed"] = _total(identical, "f1") / len(identical)
    return found


def _f1(hits: float, predicted: float, true: float) -> float:
    return 2 * hits / max(predicted + true, 1)


def _total(values: Sequence[Mapping[str, float]], name: str) -> float:
    return float(sum(value[name] for value in values))


def _ious(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """IoU of every predicted with every true box, float64 [N, M]."""
    count = len(predicted), len(true)
    return paired_iou(np.repeat(predicted, count[1], axis=0), np.tile(true, (count[0], 1))).reshape(count)


def _sizes(boxes: np.ndarray) -> np.ndarray:
    """Number of the size of each box, int [n]."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # A box is float32 somewhere on its way: one whose area is a cut exactly must not fall below it.
    return np.searchsorted(np.array(CUTS) * (1 - 1e-5), areas, side="right")
