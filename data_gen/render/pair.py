"""Renders one planned pair and checks that the pictures show what the plan says."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.files.png import decode
from data_gen.plan.pair import PairPlan
from data_gen.records.record import make_record
from data_gen.records.truth import (
    Areas,
    Contrast,
    Difference,
    Spill,
    check_masks,
    check_pictures,
    measure_boxes,
    silhouette_areas,
)
from data_gen.render.controller import Worker
from data_gen.scenes import scene as scenes
from data_gen.scenes.geometry import silhouette_box
from data_gen.scenes.presets import Acceptance
from data_gen.scenes.scene import Scene
from data_gen.scenes.shapes import shape

DRAFT_SLACK = 1.3  # by which a draft may miss a limit
MARGIN = 2  # pixels around a silhouette's planned box: bevels and the outline's few points


@dataclasses.dataclass(frozen=True)
class RenderedPair:
    """Two PNG files, the rest of the record (see record.py), and further PNG files by feature name."""

    pictures: tuple[bytes, bytes]
    record: dict[str, Any]
    extras: dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Window:
    """A square of a picture, x0, y0, x1, y1 in its pixels, and how many pixels a side it is rendered with."""

    box: tuple[float, float, float, float]
    pixels: int


class Renderer:
    """Asks a worker for pictures of scenes; `folder` is for the files it writes, `name` is for its log."""

    def __init__(self, worker: Worker, folder: Path, name: str = "") -> None:
        self.worker, self.folder, self.name = worker, folder, name

    def render(self, op: str, scene: Scene, window: Window | None = None) -> bytes:
        """The PNG file of a "mask", "depth" or "picture" of the scene, or of a window of it."""
        path = self.folder / f"{op}.png"
        path.unlink(missing_ok=True)
        more = {} if window is None else {"window": window.box, "pixels": window.pixels}
        self._ask(op, scene, path, **more)
        return path.read_bytes()

    def areas(self, scene: Scene, known: tuple[Scene, Areas] | None = None) -> dict[int, float]:
        """Every object's silhouette in pixels; objects that a `known` scene has too are not done again."""
        rendered: dict[int, float] = {}
        if known and known[0].camera == scene.camera:
            same = set(known[0].objects) & set(scene.objects)
            rendered = {item.id: known[1][item.id] for item in same}
        boxes = {
            item.id: frame_box(silhouette_box(item, scene.camera, scene.width, scene.height), scene)
            for item in scene.objects
            if not shape(item.shape).convex and item.id not in rendered
        }
        for number in [number for number, box in boxes.items() if box is None]:
            del boxes[number]
            rendered[number] = 0.0  # out of the frame
        if boxes:
            self._ask("silhouettes", scene, self.folder / "alone", boxes=boxes)
            for number in boxes:
                alone = decode((self.folder / f"alone.{number}.png").read_bytes())
                rendered[number] = float(np.count_nonzero(alone))
        return silhouette_areas(scene, rendered)

    def _ask(self, op: str, scene: Scene, path: Path, **more: Any) -> None:
        scene_values = scenes.to_dict(scene)
        self.worker.ask({"op": op, "id": self.name, "scene": scene_values, "path": str(path), **more})


def render_pair(
    worker: Worker,
    plan: PairPlan,
    accept: Acceptance,
    folder: Path,
    masks: bool = False,
    depth: bool = False,
) -> RenderedPair:
    """Renders a plan; `masks` and `depth` add those features for both scenes.

    Raises Rejected when the result is not good enough, WorkerError when the renderer fails.
    """
    renderer = Renderer(worker, folder, plan.id)
    # Masks cost a few percent of what pictures do: look at them first.
    mask_files = (renderer.render("mask", plan.scene_a), renderer.render("mask", plan.scene_b))
    decoded = (decode(mask_files[0]), decode(mask_files[1]))
    areas_a = renderer.areas(plan.scene_a)
    areas = (areas_a, renderer.areas(plan.scene_b, known=(plan.scene_a, areas_a)))
    differences = check_masks(plan, decoded, areas, accept)
    pictures, contrasts, spill = render_pictures(renderer, plan, differences, decoded, areas_a, accept)
    extras = dict(zip(("mask_a", "mask_b"), mask_files, strict=True)) if masks else {}
    if depth:
        extras |= {
            f"depth_{which}": renderer.render("depth", getattr(plan, f"scene_{which}")) for which in "ab"
        }
    record = make_record(plan, differences, contrasts, spill, decoded, areas)
    return RenderedPair(pictures, record, extras)


def render_pictures(
    renderer: Renderer,
    plan: PairPlan,
    differences: tuple[Difference, ...],
    masks: tuple[np.ndarray, np.ndarray],
    areas_a: Areas,
    accept: Acceptance,
) -> tuple[tuple[bytes, bytes], tuple[Contrast, ...], Spill]:
    """Both pictures and what they say.

    Where the camera or the light of B differs from A's as well, the changes are judged on B as seen with A's:
    one mask and one picture more. The invariant of the masks holds there, whatever the jitter.
    """
    judged = dataclasses.replace(plan, scene_b=plan.scene_b_undistracted)
    if plan.has_distractors:
        masks = (masks[0], decode(renderer.render("mask", judged.scene_b)))
        areas = (areas_a, renderer.areas(judged.scene_b, known=(plan.scene_a, areas_a)))
        differences = check_masks(judged, masks, areas, accept)
    if plan.changes and plan.scene_a.denoise:  # without a denoiser, pictures cost little more than drafts
        check_draft(renderer, judged, masks, accept)
    a, b = renderer.render("picture", judged.scene_a), renderer.render("picture", judged.scene_b)
    boxes = [difference.box for difference in differences]
    measured = check_pictures(judged, boxes, masks, (decode(a), decode(b)), accept)
    if plan.has_distractors:
        b = renderer.render("picture", plan.scene_b)
    return (a, b), *measured


def check_draft(
    renderer: Renderer, plan: PairPlan, masks: tuple[np.ndarray, np.ndarray], accept: Acceptance
) -> None:
    """Raises Rejected when pictures at a sixteenth of the cost are clearly not good enough."""
    small = tuple(mask[::2, ::2] for mask in masks)
    pictures = []
    for shown in (plan.scene_a, plan.scene_b):
        height, width = small[0].shape
        draft = dataclasses.replace(shown, width=width, height=height, samples=max(2, shown.samples // 4))
        pictures.append(decode(renderer.render("picture", draft)))
    loose = dataclasses.replace(
        accept,
        min_changed_fraction=accept.min_changed_fraction / DRAFT_SLACK,
        min_changed_pixels=int(accept.min_changed_pixels / 4 / DRAFT_SLACK),
        min_changed=accept.min_changed / DRAFT_SLACK,
        min_delta_e=accept.min_delta_e / DRAFT_SLACK,
        max_delta_e=accept.max_delta_e * DRAFT_SLACK,
        max_outside=accept.max_outside * DRAFT_SLACK,
        max_outside_ratio=accept.max_outside_ratio * DRAFT_SLACK,
    )
    boxes = [measure_boxes(change.object_id, (small[0], small[1])) for change in plan.changes]
    check_pictures(plan, boxes, (small[0], small[1]), (pictures[0], pictures[1]), loose)


def frame_box(box: tuple[float, float, float, float], scene: Scene) -> tuple[int, int, int, int] | None:
    """The whole pixels of the frame around a box, with MARGIN; None when it lies outside."""
    x0, y0 = max(0, math.floor(box[0]) - MARGIN), max(0, math.floor(box[1]) - MARGIN)
    x1 = min(scene.width, math.ceil(box[2]) + MARGIN)
    y1 = min(scene.height, math.ceil(box[3]) + MARGIN)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
