"""Is a rendered pair what its plan says? Boxes from masks, and the reasons to reject a pair.

Masks are uint8 [height, width] of object ids, 0 for the background; pictures are uint8 [height, width, 3]
sRGB. Boxes are half-open integer pixel boxes (x0, y0, x1, y1) with y down.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from data_gen.geometry import silhouette_area
from data_gen.plan import PairPlan, Rejected
from data_gen.presets import Acceptance
from data_gen.scene import Scene

PixelBox = tuple[int, int, int, int]
NO_BOX: PixelBox = (0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Boxes of a changed object's visible pixels: in A or B, in A, in B; NO_BOX where it is absent."""

    box: PixelBox
    box_a: PixelBox
    box_b: PixelBox


def check_masks(
    plan: PairPlan, mask_a: np.ndarray, mask_b: np.ndarray, accept: Acceptance
) -> tuple[Difference, ...]:
    """The boxes of the pair's differences, in the order of `plan.changes`.

    Raises Rejected when an object is hidden, boxes of differences overlap, or the masks differ outside the
    boxes.
    """
    require_visible(plan.scene_a, mask_a, accept)
    require_visible(plan.scene_b, mask_b, accept)
    differences = []
    for change in plan.changes:
        box_a, box_b = (mask_box(mask == change.object_id) for mask in (mask_a, mask_b))
        differences.append(Difference(union(box_a, box_b), box_a, box_b))
    boxes = [difference.box for difference in differences]
    for number, box in enumerate(boxes):
        if any(iou(box, earlier) >= accept.max_box_iou for earlier in boxes[:number]):
            raise Rejected("boxes overlap")
    if np.any((mask_a != mask_b) & ~inside(boxes, mask_a.shape)):
        raise Rejected("masks differ outside boxes")
    return tuple(differences)


def check_pictures(
    plan: PairPlan,
    differences: tuple[Difference, ...],
    masks: tuple[np.ndarray, np.ndarray],
    pictures: tuple[np.ndarray, np.ndarray],
    accept: Acceptance,
) -> None:
    """Raises Rejected when a difference is too faint, or shadows and reflections alter too much elsewhere."""
    distance = delta_e(*pictures)
    changed = distance > accept.changed_delta_e
    smallest = changed.size
    for change in plan.changes:
        area = (masks[0] == change.object_id) | (masks[1] == change.object_id)
        pixels = int(np.count_nonzero(changed & area))
        smallest = min(smallest, pixels)
        enough = pixels >= accept.min_changed_fraction * np.count_nonzero(area)
        if not enough or distance[area].mean() < accept.min_mean_delta_e:
            raise Rejected(f"faint {change.kind}")
    # One pixel around a box still sees the object through the picture's reconstruction filter.
    boxes = [grow(difference.box, 1) for difference in differences]
    outside = changed & ~inside(boxes, changed.shape)
    if np.count_nonzero(outside) > accept.max_outside * changed.size:
        raise Rejected("much changed outside")
    labels, count = ndimage.label(outside)
    if count and np.bincount(labels.ravel())[1:].max() > accept.max_outside_ratio * smallest:
        raise Rejected("large patch changed outside")


def require_visible(scene: Scene, mask: np.ndarray, accept: Acceptance) -> None:
    """Raises Rejected when an object shows too few pixels or too little of its silhouette."""
    counts = np.bincount(mask.ravel(), minlength=256)
    for item in scene.objects:
        if counts[item.id] < accept.min_visible * mask.size:
            raise Rejected("object too small")
        full = silhouette_area(item, scene.camera, scene.width, scene.height)
        if counts[item.id] < accept.min_visible_fraction * full:
            raise Rejected("object hidden")


def mask_box(mask: np.ndarray) -> PixelBox:
    """The smallest box around the true pixels of a mask, NO_BOX when there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return NO_BOX
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def union(a: PixelBox, b: PixelBox) -> PixelBox:
    """The smallest box around both; an empty box adds nothing."""
    if a == NO_BOX or b == NO_BOX:
        return b if a == NO_BOX else a
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def grow(box: PixelBox, pixels: int) -> PixelBox:
    return max(0, box[0] - pixels), max(0, box[1] - pixels), box[2] + pixels, box[3] + pixels


def inside(boxes: list[PixelBox], shape: tuple[int, ...]) -> np.ndarray:
    """bool [height, width]: the pixels inside any of the boxes."""
    result = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        result[y0:y1, x0:x1] = True
    return result


def iou(a: PixelBox, b: PixelBox) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(0, width) * max(0, height)
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b))
    return overlap / (areas - overlap) if overlap else 0.0


def delta_e(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIELAB colour distance (CIE 1976) of two sRGB pictures, float32 [height, width]."""
    return np.linalg.norm(to_lab(a) - to_lab(b), axis=-1)


def to_lab(picture: np.ndarray) -> np.ndarray:
    """uint8 sRGB [..., 3] -> CIELAB float32 [..., 3], white point D65 (IEC 61966-2-1 and CIE 15)."""
    xyz = _SRGB_TO_LINEAR[picture] @ _LINEAR_TO_XYZ.T
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_CODES = np.arange(256, dtype=np.float32) / 255
_SRGB_TO_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
# Rows divided by the white point, so that white maps to (1, 1, 1).
_LINEAR_TO_XYZ = np.array(
    [
        [0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883],
    ],
    np.float32,
)
