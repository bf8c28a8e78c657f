"""Makes one pair: plan, masks, checks, pictures, checks, and again from the next attempt until it passes."""

from __future__ import annotations

import collections
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_gen import scene as scenes
from data_gen.plan import PairPlan, Rejected, pair_id, plan_pair
from data_gen.presets import Preset
from data_gen.render import Worker
from data_gen.truth import NO_BOX, Difference, PixelBox, check_masks, check_pictures, mask_box

MAX_ATTEMPTS = 100  # at a pair whose scenes are rejected

Job = tuple[str, int]  # split, index


class PairFailed(RuntimeError):
    """A pair that could not be made; the message has its id, which names preset, seed, split and index."""


@dataclasses.dataclass(frozen=True)
class FinishedPair:
    """Two PNG files and the rest of the record (see pack.py), plus the reasons of rejected attempts."""

    pictures: tuple[bytes, bytes]
    record: dict[str, Any]


def make_pair(worker: Worker, preset: Preset, seed: int, job: Job, folder: Path) -> FinishedPair:
    """Makes one pair; `folder` is for the renderer's files.

    Raises PairFailed when every attempt is rejected, WorkerError when the renderer fails.
    """
    rejected: list[str] = []
    for attempt in range(MAX_ATTEMPTS):
        try:
            plan = plan_pair(preset, seed, *job, attempt)
            # Masks cost a few percent of what pictures do: look at them first.
            mask_a = decode(render(worker, "mask", plan.scene_a, folder))
            mask_b = decode(render(worker, "mask", plan.scene_b, folder))
            differences = check_masks(plan, mask_a, mask_b, preset.accept)
            files = (
                render(worker, "picture", plan.scene_a, folder),
                render(worker, "picture", plan.scene_b, folder),
            )
            pictures = (decode(files[0]), decode(files[1]))
            check_pictures(plan, differences, (mask_a, mask_b), pictures, preset.accept)
        except Rejected as reason:
            rejected.append(str(reason))
            continue
        return FinishedPair(files, make_record(plan, differences, mask_a, mask_b) | {"rejected": rejected})
    reasons = ", ".join(f"{reason} {count}x" for reason, count in collections.Counter(rejected).most_common())
    raise PairFailed(f"pair {pair_id(preset, seed, *job)}: all {MAX_ATTEMPTS} attempts rejected ({reasons})")


def make_record(
    plan: PairPlan, differences: tuple[Difference, ...], mask_a: np.ndarray, mask_b: np.ndarray
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
        "scene_a": scenes.to_json(plan.scene_a),
        "scene_b": scenes.to_json(plan.scene_b),
        "objects_a": describe_objects(plan.scene_a, mask_a),
        "objects_b": describe_objects(plan.scene_b, mask_b),
    }


def describe_objects(scene: scenes.Scene, mask: np.ndarray) -> list[dict[str, Any]]:
    """What each object is and where it shows."""
    return [
        {
            "id": item.id,
            "name": item.name,
            "shape": item.shape,
            "material": item.material,
            "color": item.color,
            "size": item.size,
            "bbox": normalize(mask_box(mask == item.id), scene.width, scene.height),
            "visible_pixels": int(np.count_nonzero(mask == item.id)),
        }
        for item in scene.objects
    ]


def normalize(box: PixelBox, width: int, height: int) -> list[float]:
    """Pixels -> 0..1; NO_BOX stays zeros."""
    return [0.0] * 4 if box == NO_BOX else [box[0] / width, box[1] / height, box[2] / width, box[3] / height]


def render(worker: Worker, op: str, scene: scenes.Scene, folder: Path) -> bytes:
    """The PNG file of a "mask" or a "picture" of the scene."""
    path = folder / f"{op}.png"
    path.unlink(missing_ok=True)
    worker.ask({"op": op, "scene": scenes.to_dict(scene), "path": str(path)})
    return path.read_bytes()


def decode(png: bytes) -> np.ndarray:
    """uint8 [height, width] or [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)))
