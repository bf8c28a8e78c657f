"""Crops of which Blender renders the pixels, instead of cutting them out of the picture.

    closeup    the window as the picture's own camera sees it, with as many pixels as the crop has
    rerender   the object from another side, 15 to 30 degrees around it, so that a crop is not to be found by
               comparing pixels; its window is drawn anew, around what is visible of it there

Questions are those of crops from the picture: the same objects are asked for, in the same words. A question
with a crop that cannot be rendered, as something hides the object from every side tried, is left out and
counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.alignment.crops import CLOSEUP, IMAGE, Cut, Turn, cut, patch_of, plan_cut
from data_gen.alignment.items import Item
from data_gen.alignment.rules import Rules
from data_gen.alignment.things import Thing, View, view_of
from data_gen.files.png import decode
from data_gen.records.dataset import NoDataset
from data_gen.records.record import normalize
from data_gen.records.truth import mask_box, occlusion
from data_gen.render.controller import Worker
from data_gen.render.interpreter import Blender
from data_gen.render.pair import Renderer, Window
from data_gen.scenes.geometry import turned
from data_gen.scenes.scene import Object, Scene, from_dict
from data_gen.scenes.schema import SceneError, load_json

AZIMUTH = (15.0, 30.0)  # degrees, to either side
SIDES = 4  # azimuths tried, to the left and to the right in turn
MARK = "asset:"  # before the names of a user's files
TIMEOUT = 120.0  # seconds that one crop may take; it takes about one


@dataclasses.dataclass(frozen=True)
class Rendering:
    """How crops are rendered.

    Attributes:
      view: CLOSEUP or RERENDER.
      seed: decides the sides and the windows of RERENDER.
      blender: that renders.
      device: of the renderer.
      assets: the user's folder of meshes and pictures that scenes name, if any.
    """

    view: str
    seed: int
    blender: Blender
    device: str = "cpu"
    assets: Path | None = None

    def facts(self) -> dict[str, Any]:
        """What decides the pixels, as JSON values: crops of two of them are not mixed."""
        return {"view": self.view, "blender": self.blender.version, "device": self.device}

    @contextlib.contextmanager
    def studio(self, scratch: Path | None = None) -> Iterator[Studio]:
        """A render worker with one thread, and a folder for its files, which ends with the block."""
        device = [f"--device={self.device}"] if self.device != "cpu" else []
        assets = [f"--assets={self.assets.resolve()}"] if self.assets else []
        command = self.blender.command(1, *device, *assets)
        with (
            Worker(command, TIMEOUT, scratch) as worker,
            tempfile.TemporaryDirectory(prefix="data_gen_crops_", dir=scratch) as folder,
        ):
            yield Studio(self, worker, Renderer(worker, Path(folder)))


@dataclasses.dataclass(frozen=True)
class Studio:
    """A worker that renders crops as `rendering` says. Used by one thread, except for `worker.kill`."""

    rendering: Rendering
    worker: Worker
    renderer: Renderer

    def of_picture(self, view: View, scene: str) -> Shots:
        """What renders the crops of a picture with this scene.

        Raises:
          NoDataset: the scene cannot be rebuilt, or does not render to the picture any more.
          WorkerError: the renderer failed.
        """
        self.renderer.name = view.id
        return Shots(self, view, scene_of(scene, view.id, self.rendering.assets))


class Shots:
    """Renders the crops of one picture."""

    def __init__(self, studio: Studio, view: View, scene: Scene) -> None:
        self.studio, self.view, self.scene = studio, view, scene
        self._sides: dict[tuple[int, float], tuple[float, Thing] | None] = {}
        self._require_its_picture()

    def rendered(self, item: Item) -> Item | None:
        """The item with its crops as they are rendered; None where one cannot be."""
        rules, view = self.view.rules, self.studio.rendering.view
        if view == CLOSEUP:
            cuts = [dataclasses.replace(plan, view=view) for plan in item.cuts]
            return dataclasses.replace(item, cuts=tuple(cuts))
        need = rules.option_seen if item.kind in ("C-I", "T-I") else rules.min_seen
        shown = [self._from_the_side(plan, need) for plan in item.cuts]
        found = tuple(plan for plan in shown if plan)
        return dataclasses.replace(item, cuts=found) if len(found) == len(shown) else None

    def crop(self, plan: Cut, side: int) -> np.ndarray:
        """The pixels of a crop, uint8 [side, side, 3]."""
        if plan.view == IMAGE:
            raise ValueError("a crop of the picture is cut, not rendered")
        scene = self._turned(plan.thing, plan.turn.azimuth) if plan.turn else self.scene
        box, pixels, inside = patch_of(plan, side)
        return cut(decode(self.studio.renderer.render("picture", scene, Window(box, pixels))), inside, side)

    def _from_the_side(self, plan: Cut, need: float) -> Cut | None:
        """The same crop from another side, its window and augmentation drawn anew."""
        key = plan.thing, need
        if key not in self._sides:
            self._sides[key] = self._side(*key)
        found = self._sides[key]
        if found is None:
            return None
        azimuth, thing = found
        rng = random.Random(f"{self.studio.rendering.seed}/{self.view.id}/{plan.thing}/{plan.centre}")
        window = plan_cut(thing, self.view.width, self.view.height, rng)
        turn = Turn(azimuth, thing.box)
        return dataclasses.replace(window, box=plan.box, view=self.studio.rendering.view, turn=turn)

    def _side(self, number: int, need: float) -> tuple[float, Thing] | None:
        """The azimuth from which an object is seen as well as in the picture, and how it looks there."""
        rng = random.Random(f"{self.studio.rendering.seed}/{self.view.id}/{number}/side")
        sign = rng.choice((-1, 1))
        for trial in range(SIDES):
            azimuth = round(sign * (-1) ** trial * rng.uniform(*AZIMUTH), 2)
            seen = self._seen_from(number, azimuth)
            if seen and seen.seen >= need:
                return azimuth, seen
        return None

    def _seen_from(self, number: int, azimuth: float) -> Thing | None:
        """An object as its mask shows it from there; None where it cannot be asked for, or is cut off."""
        scene = self._turned(number, azimuth)
        (item,) = (each for each in scene.objects if each.id == number)
        view = seen_alone(scene, self._mask(scene), item, self._alone(scene, item), self.view.rules)
        if not view.eligible:
            return None
        (thing,) = view.eligible
        x0, y0, x1, y1 = thing.box
        return thing if x0 > 0 and y0 > 0 and x1 < view.width and y1 < view.height else None

    def _turned(self, number: int, azimuth: float) -> Scene:
        """The scene with its camera gone around an object, which stays where it is in the picture."""
        (item,) = (each for each in self.scene.objects if each.id == number)
        camera = turned(self.scene.camera, item.position, azimuth)
        return dataclasses.replace(self.scene, camera=camera)

    def _mask(self, scene: Scene) -> np.ndarray:
        return decode(self.studio.renderer.render("mask", scene))

    def _alone(self, scene: Scene, item: Object) -> int:
        """Pixels of its silhouette."""
        return int(np.count_nonzero(self._mask(dataclasses.replace(scene, objects=(item,)))))

    def _require_its_picture(self) -> None:
        """Raises NoDataset where objects are not where the record has them: then crops would be of others."""
        mask, blender = self._mask(self.scene), self.studio.rendering.blender.version
        for thing in self.view.things:
            box, pixels = mask_box(mask == thing.id), np.count_nonzero(mask == thing.id)
            if (box, pixels) != (thing.box, thing.pixels):
                raise NoDataset(
                    f"{self.view.id}: its scene does not render to its picture any more: with Blender "
                    f"{blender} object {thing.id} has {pixels} pixels at {list(box)}, in the record "
                    f"{thing.pixels} at {list(thing.box)}; render the pairs anew, or cut crops from pictures "
                    "(--crop=image)"
                )


def scene_of(text: str, name: str, assets: Path | None) -> Scene:
    """The scene of a record. Raises NoDataset where it cannot be rebuilt here, with the reason."""
    try:
        values = load_json(text)
        for found in sorted(each for each in _strings(values) if each.startswith(MARK)):
            if assets is None:
                raise SceneError(f"it has {found}; name the folder that holds that with --assets")
            if not (assets / found.removeprefix(MARK)).is_file():
                raise SceneError(f"it has {found}, which is not in --assets={assets}")
        # The renderer reads a user's meshes itself; the check knows only those that scenes are planned with.
        shapes = [item["shape"] for item in values["objects"]]
        known = ["cube" if shape.startswith(MARK) else shape for shape in shapes]
        objects = [item | {"shape": shape} for item, shape in zip(values["objects"], known, strict=True)]
        scene = from_dict({**values, "objects": objects})
    except (SceneError, KeyError, TypeError, AttributeError) as error:
        raise NoDataset(f"{name}: its scene cannot be rebuilt: {error}") from error
    named = zip(scene.objects, shapes, strict=True)
    return dataclasses.replace(
        scene, objects=tuple(dataclasses.replace(item, shape=shape) for item, shape in named)
    )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def seen_alone(scene: Scene, mask: np.ndarray, item: Object, area: int, rules: Rules) -> View:
    """The view of a scene's mask in which one object alone is looked at.

    Args:
      scene, mask: of all objects, uint8 [height, width].
      item: the object.
      area: of its silhouette, in pixels.
      rules: what is clear in the picture.
    """
    shown = mask == item.id
    pixels = int(np.count_nonzero(shown))
    box = normalize(mask_box(shown), scene.width, scene.height)
    columns = {
        "id": [item.id],
        "bbox": [box],
        "visible_pixels": [pixels],
        "occlusion": [occlusion(pixels, area)],
    }
    values = dataclasses.asdict(dataclasses.replace(scene, objects=(item,)))
    return view_of({"id": "turned", "scene_a": json.dumps(values), "objects_a": columns}, "a", rules)
