"""Which of the true boxes an answer found, and which it missed: what a count of them does not tell."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from dig_jax.tasks.boxes.iou import IOU_SLACK


def found_boxes(
    predicted: np.ndarray, true: np.ndarray, threshold: float, l1_weight: float, giou_weight: float
) -> np.ndarray:
    """Matches boxes one to one at the least cost of `differences.reward`, on the host.

    Args:
      predicted: [N, 4], x0, y0, x1, y1, shares of width and height.
      true: [M, 4], the same.
      threshold: IoU from which a matched box counts as found.
      l1_weight, giou_weight: of the cost.

    Returns:
      bool [M].
    """
    predicted, true = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (predicted, true))
    a, b = predicted[:, None], true[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    hull = (np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = shared / np.where(union > 0, union, 1)
    giou = iou - (hull - union) / np.where(hull > 0, hull, 1)
    rows, columns = linear_sum_assignment(l1_weight * np.abs(a - b).mean(-1) + giou_weight * (1 - giou))
    found = np.zeros(len(true), bool)
    found[columns] = iou[rows, columns] >= threshold - IOU_SLACK
    return found
