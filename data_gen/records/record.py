"""The record of a pair: its features, which are the contract with whoever reads the pairs, and their values.

Boxes are [x0, y0, x1, y1] divided by the picture's width and height; a pair may have no difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_gen.plan.pair import PairPlan
from data_gen.records.truth import NO_BOX, Areas, Contrast, Difference, PixelBox, Spill, mask_box, occlusion
from data_gen.scenes import scene as scenes
from data_gen.scenes.schema import PLAIN

DEPTHS = ("depth_a", "depth_b")
NO_SHARES = (0.0, 0.0, 0.0, 0.0)  # the box of an object that is not visible

# Measures that need the renderer's masks: records of a user's own pairs do not have them.
OF_MASKS = ("visible_pixels_a", "visible_pixels_b", "occlusion")


def features(
    width: int | None, height: int | None, masks: bool = False, depth: bool = False, rendered: bool = True
) -> Any:
    """The TFDS features of a record. Boxes of absent objects are all zeros.

    Args:
      width, height: of all pictures, in pixels; None where they vary.
      masks, depth: whether records have object masks, and depth.
      rendered: whether they have what the renderer alone can tell, OF_MASKS.
    """
    import tensorflow_datasets as tfds  # slow to import: only packing needs it

    image = tfds.features.Image(shape=(height, width, 3), dtype=np.uint8, encoding_format="png")
    boxes = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
    counts = tfds.features.Tensor(shape=(None,), dtype=np.int64)
    shares = tfds.features.Tensor(shape=(None,), dtype=np.float32)
    objects = tfds.features.Sequence(
        {
            "id": np.int64,
            **{
                name: tfds.features.Text()
                for name in ("name", "shape", "material", "texture", "color", "size")
            },
            "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "visible_pixels": np.int64,
            "occlusion": np.float32,
        }
    )
    optional: dict[str, Any] = {}
    if masks:  # object ids, 0 for the background
        mask = tfds.features.Image(shape=(height, width, 1), dtype=np.uint8, encoding_format="png")
        optional |= {"mask_a": mask, "mask_b": mask}
    if depth:  # millimetres along the view axis, 0 for the background
        # Not an Image: TFDS reads 16-bit PNG with OpenCV or TensorFlow only.
        metres = tfds.features.Tensor(shape=(height, width, 1), dtype=np.uint16, encoding="zlib")
        optional |= dict.fromkeys(DEPTHS, metres)
    known: dict[str, Any] = {
        "id": tfds.features.Text(),
        "image_a": image,
        "image_b": image,
        "num_differences": np.int64,
        "bboxes": boxes,
        "bboxes_a": boxes,
        "bboxes_b": boxes,
        "kinds": tfds.features.Sequence(tfds.features.Text()),
        "descriptions": tfds.features.Sequence(tfds.features.Text()),
        # How hard each difference is to see (see truth.Difference and truth.Contrast).
        "visible_pixels_a": counts,
        "visible_pixels_b": counts,
        "changed_pixels": counts,
        "mean_delta_e": shares,
        "occlusion": shares,
        # What shadows and reflections changed outside the boxes (see truth.Spill).
        "outside_changed": np.float32,
        "outside_largest": np.int64,
        "scene_a": tfds.features.Text(),
        "scene_b": tfds.features.Text(),
        "objects_a": objects,
        "objects_b": objects,
        **optional,
    }
    return tfds.features.FeaturesDict(
        {key: feature for key, feature in known.items() if rendered or key not in OF_MASKS}
    )


def make_record(
    plan: PairPlan,
    differences: Sequence[Difference],
    contrasts: Sequence[Contrast],
    spill: Spill,
    masks: tuple[np.ndarray, np.ndarray],
    areas: tuple[Areas, Areas],
) -> dict[str, Any]:
    """Every feature of the record except the pictures, as JSON values."""
    size = (plan.scene_a.width, plan.scene_a.height)
    return {
        "id": plan.id,
        "num_differences": len(differences),
        "bboxes": [normalize(item.box, *size) for item in differences],
        "bboxes_a": [normalize(item.box_a, *size) for item in differences],
        "bboxes_b": [normalize(item.box_b, *size) for item in differences],
        "kinds": [change.kind for change in plan.changes],
        "descriptions": [change.description for change in plan.changes],
        "visible_pixels_a": [item.visible_a for item in differences],
        "visible_pixels_b": [item.visible_b for item in differences],
        "changed_pixels": [item.changed_pixels for item in contrasts],
        "mean_delta_e": [item.mean_delta_e for item in contrasts],
        "occlusion": [item.occlusion for item in differences],
        "outside_changed": spill.share,
        "outside_largest": spill.largest,
        "scene_a": scenes.to_json(plan.scene_a),
        "scene_b": scenes.to_json(plan.scene_b),
        "objects_a": describe_objects(plan.scene_a, masks[0], areas[0]),
        "objects_b": describe_objects(plan.scene_b, masks[1], areas[1]),
    }


def describe_objects(scene: scenes.Scene, mask: np.ndarray, areas: Areas) -> list[dict[str, Any]]:
    """What each object is and where it shows."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return [
        {
            "id": item.id,
            "name": item.name,
            "shape": item.shape,
            "material": item.material,
            "texture": "" if item.texture == PLAIN else item.texture,
            "color": item.color,
            "size": item.size,
            "bbox": normalize(mask_box(mask == item.id), scene.width, scene.height),
            "visible_pixels": int(counts[item.id]),
            "occlusion": occlusion(int(counts[item.id]), areas[item.id]),
        }
        for item in scene.objects
    ]


def normalize(box: PixelBox, width: int, height: int) -> list[float]:
    """Pixels -> 0..1; NO_BOX stays zeros."""
    return (
        list(NO_SHARES)
        if box == NO_BOX
        else [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
    )


def to_pixels(box: Sequence[float], width: int, height: int) -> PixelBox:
    """0..1 -> pixels, rounded; a box thinner than a pixel takes those that it touches."""
    x0, y0, x1, y1 = np.asarray(box, float) * (width, height, width, height)
    (left, right), (top, bottom) = _rounded(x0, x1), _rounded(y0, y1)
    return left, top, right, bottom


def _rounded(low: float, high: float) -> tuple[int, int]:
    first, last = round(low), round(high)
    return (math.floor(low), math.ceil(high)) if first == last and low < high else (first, last)
