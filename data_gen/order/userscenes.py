"""Scenes that a user wrote: one JSON object per line, with changes or with changes to be drawn.

    {"scene": {"objects": [{"id": 1, "shape": "cube", "color": "red", "size": "large", "position": [0, 0]}]}}
    {"scene": {...}, "changes": [{"kind": "color", "id": 1, "set": {"color": "blue"}},
                                 {"kind": "remove", "id": 2}, {"kind": "add", "object": {...}}]}

What a scene leaves out comes from the preset. docs/scene.md describes all fields.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

from data_gen.changes import CHANGES, Change, unchanged
from data_gen.files.userfiles import read_lines
from data_gen.plan import pair as plan
from data_gen.plan.layout import NoRoom, fitting_box, place
from data_gen.plan.pair import PairPlan, Rejected, Target
from data_gen.scenes import rig, scene, schema
from data_gen.scenes.presets import CLEVR_COLORS, RICH_COLORS, Preset
from data_gen.scenes.scene import Object, Scene
from data_gen.scenes.schema import PLAIN, SceneError, shown
from data_gen.scenes.shapes import SHAPES

MAX_SCENES = 1_000_000
OBJECT_DEFAULTS = {"material": "rubber", "texture": PLAIN, "rotation": 0.0, "position": [0.0, 0.0]}


@dataclasses.dataclass(frozen=True)
class UserScene:
    """Scene A, and the differences; None where they are to be drawn. `where` is its place, for errors."""

    where: str
    scene: Scene
    changes: tuple[Change, ...] | None

    @property
    def fixed(self) -> bool:
        """Whether nothing is left to draw, so that another attempt would give the same pair."""
        return self.changes is not None


def read(path: Path, preset: Preset) -> list[UserScene]:
    """The scenes of a file. Raises ValueError, naming file, line and place in the JSON."""
    lines = read_lines(path)
    if not any(line.strip() for line in lines) or len(lines) > MAX_SCENES:
        raise ValueError(f"{path} has {len(lines)} lines; expected 1 to {MAX_SCENES} scenes, one per line")
    scenes = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                scenes.append(parse(schema.load_json(line), preset, f"{path}:{number}"))
            except SceneError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
            except RecursionError:
                raise ValueError(f"{path}:{number}: nested too deep") from None
    return scenes


def parse(data: Any, preset: Preset, where: str = "") -> UserScene:
    """One line's JSON values. Raises SceneError."""
    if not isinstance(data, dict) or "scene" not in data or not set(data) <= {"scene", "changes"}:
        raise SceneError('$: expected {"scene": {...}} or {"scene": {...}, "changes": [...]}')
    given = complete_scene(data["scene"], preset)
    if "changes" not in data:
        return UserScene(where, given, None)
    if not isinstance(data["changes"], list) or len(data["changes"]) > schema.MAX_OBJECTS:
        raise SceneError(f"$.changes: expected a list of up to {schema.MAX_OBJECTS} changes")
    changes = tuple(
        parse_change(entry, given, preset, f"$.changes[{number}]")
        for number, entry in enumerate(data["changes"])
    )
    if len({change.object_id for change in changes}) < len(changes):
        raise SceneError("$.changes: an object may change once")
    added = tuple(change.after for change in changes if change.after)
    scene.from_dict(_values(dataclasses.replace(given, objects=added)))  # as valid as the scene itself
    return UserScene(where, given, changes)


def complete_scene(data: Any, preset: Preset) -> Scene:
    """The scene with what it leaves out taken from the preset. Raises SceneError."""
    if not isinstance(data, dict) or not isinstance(data.get("objects", []), list):
        raise SceneError("$.scene: expected an object with a list of objects")
    rng = random.Random(0)
    defaults = Scene(
        width=preset.width,
        height=preset.height,
        samples=preset.samples,
        denoise=preset.denoise,
        seed=0,
        camera=middle_camera(preset),
        lighting=rig.sample_lighting(rng, dataclasses.replace(preset, lighting=preset.lighting[:1])),
        ground=preset.grounds[0],
        objects=(),
    )
    values = {**_values(defaults), **data}
    for part in ("camera", "lighting", "ground"):  # parts of them may be left out too
        if isinstance(values[part], dict):
            base = _values(defaults)[part]
            if part == "lighting" and values[part].get("kind", base["kind"]) != base["kind"]:
                base = dataclasses.asdict(scene.Lighting(values[part]["kind"]))
            values[part] = {**base, **values[part]}
    values["objects"] = [
        complete_object(item, preset, f"$.objects[{number}]") for number, item in enumerate(values["objects"])
    ]
    return scene.from_dict(_values(values))


def complete_object(data: Any, preset: Preset, where: str) -> dict[str, Any]:
    """An object with what it leaves out: numbers for words, height above the ground. Raises SceneError."""
    if not isinstance(data, dict):
        raise SceneError(f"{where}: expected an object")
    values = {**OBJECT_DEFAULTS, **data}
    for word, number, known in (
        ("color", "rgb", {**CLEVR_COLORS, **RICH_COLORS, **preset.colors}),
        ("size", "radius", preset.sizes),
    ):
        if word not in values:
            raise SceneError(f"{where}.{word} is missing")
        if number not in values:
            if not isinstance(values[word], str) or values[word] not in known:
                raise SceneError(
                    f"{where}.{word}: {shown(values[word])} is not one of {', '.join(known)}; add {number!r}"
                )
            values[number] = known[values[word]]
    position = values["position"]
    if isinstance(position, list | tuple) and len(position) == 2:
        solid = SHAPES.get(str(values.get("shape")))
        radius = values["radius"]
        if solid:  # a radius that is no number, or far too large, is the schema's to complain of
            rests = isinstance(radius, int | float) and abs(radius) <= schema.FAR
            values["position"] = [*position, radius * solid.half_height if rests else 0.0]
    return values


def parse_change(data: Any, given: Scene, preset: Preset, where: str) -> Change:
    """One entry of `changes`. Raises SceneError."""
    if not isinstance(data, dict) or str(data.get("kind")) not in CHANGES:
        raise SceneError(f"{where}.kind: expected one of {', '.join(CHANGES)}")
    kind, keys = data["kind"], set(data)
    if keys == {"kind", "object"}:
        taken = [item.id for item in given.objects]
        if not isinstance(data["object"], dict) or data["object"].get("id") in taken:
            raise SceneError(f"{where}.object: expected an object with an id that scene A lacks")
        return Change(kind, None, _object(data["object"], given, preset, f"{where}.object"))
    number = data.get("id")
    # By its type, too: in Python true is 1.
    before = next((item for item in given.objects if type(number) is int and item.id == number), None)
    if before is None:
        raise SceneError(f"{where}.id: scene A has no object {shown(number)}")
    if keys == {"kind", "id"}:
        return Change(kind, before, None)
    if keys != {"kind", "id", "set"} or not isinstance(data["set"], dict) or "id" in data["set"]:
        raise SceneError(f"{where}: expected kind and object, kind and id, or kind, id and set")
    values = _values(before)
    for word, number in (("color", "rgb"), ("size", "radius")):
        if word in data["set"]:
            del values[number]
    if {"shape", "size", "radius"} & set(data["set"]):  # it still rests on the ground
        values["position"] = list(before.position[:2])
    after = _object({**values, **data["set"]}, given, preset, f"{where}.set")
    if after == before:
        raise SceneError(f"{where}.set changes nothing")
    return Change(kind, before, after)


def _object(data: dict[str, Any], given: Scene, preset: Preset, where: str) -> Object:
    """A checked object."""
    values = _values(complete_object(data, preset, where))
    try:
        return scene.from_dict({**_values(given), "objects": [values]}).objects[0]
    except SceneError as error:
        raise SceneError(f"{where}: {error}") from None


def plan_user_pair(
    preset: Preset, user: UserScene, seed: int, split: str, index: int, attempt: int
) -> PairPlan:
    """Attempt `attempt` at a pair of this scene. Raises Rejected when changes that are drawn do not fit."""
    name = plan.pair_id(preset, seed, split, index)
    rng = random.Random(f"user/{name}/{attempt}")
    preset = dataclasses.replace(preset, width=user.scene.width, height=user.scene.height)
    changes = (
        draw_changes(rng, preset, user.scene, seed, split, index) if user.changes is None else user.changes
    )
    changed = {change.object_id for change in changes}
    still = [unchanged(item) for item in user.scene.objects if item.id not in changed]
    pair = plan.finish(user.scene, [*changes, *still], len(changes))
    pair = dataclasses.replace(
        pair, id=name, preset=preset.name, seed=seed, split=split, index=index, attempt=attempt
    )
    return plan.distract(rng, preset, pair)


def draw_changes(
    rng: random.Random, preset: Preset, given: Scene, seed: int, split: str, index: int
) -> list[Change]:
    """As many changes as the preset deals, as far as the scene's objects go; one object stays as it is.

    A kind that suits none of them gives way to one that does. Raises Rejected when a change does not fit.
    """
    free = list(given.objects)
    changes: list[Change] = []
    rng.shuffle(free)
    new_id = max((item.id for item in given.objects), default=0) + 1
    for target in plan.plan_targets(preset, seed, split, index):
        others = rng.sample(preset.kinds, len(preset.kinds))
        for kind in (target.kind, *others):
            standing = [unchanged(item) for item in free] + changes
            if kind == "add":
                drawn = plan.apply(rng, preset, Target(kind), plan.sample_object(rng, preset, new_id))
                new_id += 1
                break
            item = next((item for item in free if CHANGES[kind].suits(item, preset)), None)
            if item is not None and len(free) > 1:
                free.remove(item)
                standing = [change for change in standing if change.object_id != item.id]
                drawn = Change(kind, *CHANGES[kind].apply(rng, item, preset))
                break
        else:
            break  # nothing is left to change
        changes.append(fit(rng, preset, given, drawn, standing))
    return changes


def fit(rng: random.Random, preset: Preset, given: Scene, change: Change, standing: list[Change]) -> Change:
    """The change with its object where it is, or for a new one, where there is room. Raises Rejected."""
    if change.before is None:
        try:
            return place(rng, preset, given.camera, [change], fixed=standing)[0]
        except NoRoom:
            raise Rejected("objects do not fit") from None
    if change.after is None:
        return change
    before = change.before
    after = change.after.at(*change.after.position[:2])
    change = dataclasses.replace(change, after=after)
    # The user's own objects may overlap in the picture, so there are no boxes to stay clear of.
    stays = after.position == before.position
    if not stays and not fitting_box(preset, given.camera, change, standing, boxes=()):
        raise Rejected("objects do not fit")
    return change


def middle_camera(preset: Preset) -> scene.Camera:
    """The camera in the middle of the preset's ranges."""
    still = dataclasses.replace(
        preset,
        camera_distance=_middle(preset.camera_distance),
        camera_elevation=_middle(preset.camera_elevation),
        camera_azimuth=_middle(preset.camera_azimuth),
        lens=_middle(preset.lens),
    )
    return rig.sample_camera(random.Random(0), still)


def _middle(limits: tuple[float, float]) -> tuple[float, float]:
    return (sum(limits) / 2, sum(limits) / 2)


def _values(thing: Any) -> Any:
    """Dataclasses and tuples as dicts and lists, as JSON would return them."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        thing = dataclasses.asdict(thing)
    if isinstance(thing, dict):
        return {key: _values(value) for key, value in thing.items()}
    return [_values(value) for value in thing] if isinstance(thing, list | tuple) else thing
