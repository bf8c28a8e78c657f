"""Overlap of boxes, batched: IoU, generalised IoU and the matching cost, under `jax.jit`.

Boxes are `x0, y0, x1, y1`, normalised to 0..1. Shape letters: n completions, N predicted and M true boxes,
both padded. A box without area is allowed and overlaps nothing.

XLA compiles once per shape, so callers pad all three sizes by `padded_size`: then neither the number of boxes
in an answer nor a smaller last batch compiles anything new.
"""

import jax
import jax.numpy as jnp
import numpy as np

# IoU is float32 of coordinates that are themselves rounded (0.1 is not a binary number), so a pair at a
# threshold may come out a few 1e-6 below it. The slack makes "IoU >= 0.5" hold where the exact IoU is 0.5.
IOU_SLACK = 1e-5


def padded_size(size: int) -> int:
    """Returns the power of two, at least 4, that an axis of this size is padded to."""
    return max(4, 1 << (size - 1).bit_length())


def pairwise_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of every pair: [..., N, 4], [..., M, 4] -> float32 [..., N, M] in 0..1."""
    intersection, union = _intersection_and_union(a, b)
    return _share(intersection, union)


def pairwise_giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised IoU of every pair: [..., N, 4], [..., M, 4] -> float32 [..., N, M] in -1..1.

    IoU minus the share of the smallest enclosing box that neither box covers (Rezatofighi et al., CVPR 2019,
    algorithm 1), so that boxes which do not touch still rank by distance.
    """
    intersection, union = _intersection_and_union(a, b)
    hull = jnp.float32(1.0)
    for (a0, b0), (a1, b1) in _sides(a, b):
        hull *= jnp.maximum(a1, b1) - jnp.minimum(a0, b0)
    return _share(intersection, union) - _share(hull - union, hull)


def paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box with its partner, on the host: [n, 4], [n, 4] -> float64 [n]."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    shared = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
    union = sum((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b)) - shared
    return np.where(union > 0, np.clip(shared / np.where(union > 0, union, 1), 0, 1), 0.0)


@jax.jit
def costs_and_ious(
    predicted: jax.Array,
    num_predicted: jax.Array,
    true: jax.Array,
    num_true: jax.Array,
    l1_weight: float,
    giou_weight: float,
) -> tuple[jax.Array, jax.Array]:
    """Cost of matching predicted to true boxes: `l1_weight * mean|P - T| + giou_weight * (1 - GIoU(P, T))`.

    Args:
      predicted: float32 [n, N, 4]; padding may hold anything, NaN too.
      num_predicted: int32 [n], how many rows of `predicted` are boxes.
      true: float32 [n, M, 4].
      num_true: int32 [n].
      l1_weight, giou_weight: scalars.

    Returns:
      The costs, float32 [n, N, M], infinite where either side is padding; and the IoU of every pair of boxes.
    """
    is_predicted = jnp.arange(predicted.shape[1]) < num_predicted[:, None]  # [n, N]
    is_true = jnp.arange(true.shape[1]) < num_true[:, None]  # [n, M]
    l1 = sum(jnp.abs(p - t) for (p, t) in _columns(predicted, true)) / 4
    cost = l1_weight * l1 + giou_weight * (1.0 - pairwise_giou(predicted, true))
    cost = jnp.where(is_predicted[:, :, None] & is_true[:, None, :], cost, jnp.inf)
    return cost, pairwise_iou(predicted, true)


# Coordinates are taken one at a time: an axis of length 4 or 2 is all overhead on a vector unit.


def _columns(a: jax.Array, b: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """The four coordinates of boxes, ready to be compared: [..., N, 1] of a and [..., 1, M] of b."""
    return [(a[..., :, None, i], b[..., None, :, i]) for i in range(4)]


def _sides(a: jax.Array, b: jax.Array) -> zip:
    """The same as (low, high) for the horizontal and the vertical side."""
    x0, y0, x1, y1 = _columns(a, b)
    return zip((x0, y0), (x1, y1), strict=True)


def _intersection_and_union(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Areas [..., N, M] of the intersection and the union of every pair."""
    intersection = area_a = area_b = jnp.float32(1.0)
    for (a0, b0), (a1, b1) in _sides(a, b):
        intersection *= jnp.maximum(jnp.minimum(a1, b1) - jnp.maximum(a0, b0), 0.0)
        area_a *= a1 - a0
        area_b *= b1 - b0
    return intersection, area_a + area_b - intersection


def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
    """`part / whole`, 0 where the whole is 0; clipped, because rounding can leave 0..1."""
    return jnp.where(whole > 0, jnp.clip(part / jnp.where(whole > 0, whole, 1.0), 0.0, 1.0), 0.0)
