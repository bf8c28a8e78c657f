"""Is a rendered pair what its plan says? Boxes from masks, and the reasons to reject a pair.

Masks are uint8 [height, width] of object ids, 0 for the background; pictures are uint8 [height, width, 3]
sRGB. Boxes are half-open integer pixel boxes (x0, y0, x1, y1) with y down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from data_gen.plan.pair import PairPlan, Rejected
from data_gen.scenes.geometry import silhouette_area
from data_gen.scenes.presets import Acceptance
from data_gen.scenes.scene import Scene
from data_gen.scenes.shapes import shape

PixelBox = tuple[int, int, int, int]
NO_BOX: PixelBox = (0, 0, 0, 0)

STRIP_PIXELS = 1 << 18  # whose colours are compared at a time

Areas = Mapping[int, float]  # pixels of every object's silhouette, hidden parts included, by id


@dataclasses.dataclass(frozen=True)
class Difference:
    """What the masks say of a changed object.

    Attributes:
      box, box_a, box_b: around its visible pixels in A or B, in A, in B; NO_BOX where it is absent.
      visible_a, visible_b: those pixels.
      occlusion: share of its silhouette that is hidden, the larger of A and B.
    """

    box: PixelBox
    box_a: PixelBox
    box_b: PixelBox
    visible_a: int
    visible_b: int
    occlusion: float


@dataclasses.dataclass(frozen=True)
class Contrast:
    """What the pictures say of a changed object: its pixels that changed, its mean colour distance."""

    changed_pixels: int
    mean_delta_e: float


@dataclasses.dataclass(frozen=True)
class Spill:
    """What changed outside all boxes, by shadows and reflections: share of the picture, largest patch."""

    share: float
    largest: int


def check_masks(
    plan: PairPlan,
    masks: tuple[np.ndarray, np.ndarray],
    areas: tuple[Areas, Areas],
    accept: Acceptance,
) -> tuple[Difference, ...]:
    """The differences of a pair, in the order of `plan.changes`.

    Raises Rejected when an object is hidden, boxes of differences overlap, or the masks differ outside the
    boxes.
    """
    mask_a, mask_b = masks
    require_visible(plan.scene_a, mask_a, areas[0], accept)
    require_visible(plan.scene_b, mask_b, areas[1], accept)
    differences = tuple(measure_masks(change.object_id, masks, areas) for change in plan.changes)
    for number, difference in enumerate(differences):
        if any(iou(difference.box, earlier.box) >= accept.max_box_iou for earlier in differences[:number]):
            raise Rejected("boxes overlap")
        if difference.occlusion > accept.max_occlusion:
            raise Rejected("difference hidden")
    if not plan.has_distractors:
        require_equal_outside(differences, masks)
    return differences


def measure_masks(
    number: int, masks: tuple[np.ndarray, np.ndarray], areas: tuple[Areas, Areas]
) -> Difference:
    """The difference that object `number` makes."""
    box_a, box_b = (mask_box(mask == number) for mask in masks)
    visible = [int(np.count_nonzero(mask == number)) for mask in masks]
    hidden = max(
        occlusion(seen, area[number]) for seen, area in zip(visible, areas, strict=True) if number in area
    )
    return Difference(union(box_a, box_b), box_a, box_b, visible[0], visible[1], hidden)


def measure_boxes(number: int, masks: tuple[np.ndarray, np.ndarray]) -> PixelBox:
    """The box around object `number` in both masks."""
    return union(mask_box(masks[0] == number), mask_box(masks[1] == number))


def require_equal_outside(differences: Sequence[Difference], masks: tuple[np.ndarray, np.ndarray]) -> None:
    """The invariant of every pair: outside the boxes in A and in B, both masks agree in every pixel.

    It is tighter than the union of the two: between the places of an object that moved, nothing may differ.
    """
    boxes = [box for difference in differences for box in (difference.box_a, difference.box_b)]
    if np.any((masks[0] != masks[1]) & ~inside(boxes, masks[0].shape)):
        raise Rejected("masks differ outside boxes")


def check_pictures(
    plan: PairPlan,
    boxes: Sequence[PixelBox],
    masks: tuple[np.ndarray, np.ndarray],
    pictures: tuple[np.ndarray, np.ndarray],
    accept: Acceptance,
) -> tuple[tuple[Contrast, ...], Spill]:
    """How visible every difference is, and what else changed; `boxes` are those of the differences.

    Raises Rejected when a difference is too faint, or shadows and reflections alter too much elsewhere.
    """
    distance = delta_e(*pictures)
    changed = distance > accept.changed_delta_e
    contrasts = []
    for change in plan.changes:
        area = (masks[0] == change.object_id) | (masks[1] == change.object_id)
        contrast = Contrast(int(np.count_nonzero(changed & area)), float(distance[area].mean()))
        require_contrast(change.kind, contrast, area, accept)
        contrasts.append(contrast)
    # One pixel around a box still sees the object through the picture's reconstruction filter.
    spill = measure_spill(changed & ~inside([grow(box, 1) for box in boxes], changed.shape))
    if spill.share > accept.max_outside:
        raise Rejected("much changed outside")
    smallest = min((contrast.changed_pixels for contrast in contrasts), default=changed.size)
    if spill.largest > accept.max_outside_ratio * smallest:
        raise Rejected("large patch changed outside")
    return tuple(contrasts), spill


def require_contrast(kind: str, contrast: Contrast, area: np.ndarray, accept: Acceptance) -> None:
    """Raises Rejected when a difference in this area is too faint, or plainer than is wanted."""
    needed = max(
        accept.min_changed_fraction * np.count_nonzero(area),
        accept.min_changed * area.size,
        accept.min_changed_pixels,
    )
    if contrast.changed_pixels < needed or contrast.mean_delta_e < accept.min_delta_e:
        raise Rejected(f"faint {kind}")
    if contrast.mean_delta_e > accept.max_delta_e:
        raise Rejected(f"plain {kind}")


def measure_spill(changed: np.ndarray) -> Spill:
    """bool [height, width] -> share of it that is true, and its largest connected patch."""
    labels, count = ndimage.label(changed)
    largest = int(np.bincount(labels.ravel())[1:].max()) if count else 0
    return Spill(np.count_nonzero(changed) / changed.size, largest)


def require_visible(scene: Scene, mask: np.ndarray, areas: Areas, accept: Acceptance) -> None:
    """Raises Rejected when an object shows too few pixels or too little of its silhouette."""
    counts = np.bincount(mask.ravel(), minlength=256)
    for item in scene.objects:
        if counts[item.id] < accept.min_visible * mask.size:
            raise Rejected("object too small")
        if counts[item.id] < accept.min_visible_fraction * areas[item.id]:
            raise Rejected("object hidden")


def silhouette_areas(scene: Scene, rendered: Areas) -> dict[int, float]:
    """Every object's silhouette in pixels: a convex one's by geometry, the others' as `rendered`."""
    return {
        item.id: silhouette_area(item, scene.camera, scene.width, scene.height)
        if shape(item.shape).convex
        else rendered[item.id]
        for item in scene.objects
    }


def occlusion(visible: int, area: float) -> float:
    """The hidden share of a silhouette; geometry and pixels differ by a few percent, so not below 0."""
    return min(1.0, max(0.0, 1.0 - visible / max(area, 1.0)))


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


def inside(boxes: Sequence[PixelBox], shape: tuple[int, ...]) -> np.ndarray:
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
    result = np.empty(a.shape[:2], np.float32)
    rows = max(1, STRIP_PIXELS // max(1, a.shape[1]))
    for row in range(0, len(a), rows):  # all of a photo at once would take 100 bytes per pixel
        strip = slice(row, row + rows)
        result[strip] = np.linalg.norm(to_lab(a[strip]) - to_lab(b[strip]), axis=-1)
    return result


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
