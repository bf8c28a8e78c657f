"""The reward as it is usually written: a function of one completion, called in a loop.

numpy on the boxes of a completion, scipy for the assignment, one dictionary of terms per completion. The
terms are those of `dig_jax.tasks.differences.reward` at its defaults, so that both sides compute the same.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from dig_jax.tasks.differences.reward import RewardConfig

_SLACK = 1e-5  # as in dig_jax: an IoU of exactly the threshold counts


def overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and generalised IoU of every pair, [N, 4] and [M, 4] to [N, M] each."""
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.clip(sides, 0, None)
    intersection = sides[..., 0] * sides[..., 1]
    union = area_a[:, None] + area_b[None, :] - intersection
    iou = intersection / np.maximum(union, 1e-12)
    hull = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    hull_area = np.maximum(hull[..., 0] * hull[..., 1], 1e-12)
    return iou, iou - (hull_area - union) / hull_area


def score(predicted: np.ndarray, valid: bool, true: np.ndarray, config: RewardConfig) -> dict[str, float]:
    """Reward and its terms of one completion: predicted boxes [N, 4] against true ones [M, 4]."""
    count, wanted = len(predicted), len(true)
    hits, iou_sum = 0, 0.0
    if count and wanted:
        iou, giou = overlaps(predicted, true)
        l1 = np.abs(predicted[:, None, :] - true[None, :, :]).mean(axis=-1)
        rows, columns = linear_sum_assignment(config.l1_weight * l1 + config.giou_weight * (1 - giou))
        matched = iou[rows, columns]
        hits, iou_sum = int((matched >= config.iou_threshold - _SLACK).sum()), float(matched.sum())
    if valid and not count and not wanted:
        precision = recall = f1 = mean_iou = 1.0
    else:
        precision, recall = hits / max(count, 1), hits / max(wanted, 1)
        f1 = 2 * hits / max(count + wanted, 1)
        mean_iou = iou_sum / max(count, wanted, 1)
    accuracy = config.f1_weight * f1 + config.iou_weight * mean_iou
    reward = (1 - config.format_weight) * accuracy + config.format_weight * valid
    return {
        "reward": float(np.clip(reward, 0, 1)),
        "accuracy": accuracy,
        "format": float(valid),
        "f1": f1,
        "iou": mean_iou,
        "precision": precision,
        "recall": recall,
        "true_positives": hits,
    }
