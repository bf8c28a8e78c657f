"""From a seed to the two scenes of a pair: pure functions, no renderer.

What a pair shows depends on (preset, seed, split, index, attempt) alone. The number and kinds of its
differences do not depend on the attempt, so resampling a rejected scene does not shift the dataset's balance.
"""

from __future__ import annotations

import dataclasses
import math
import random

from data_gen.changes import CHANGES, Change, unchanged
from data_gen.geometry import Box, box_overlap, ground_point, silhouette_box
from data_gen.presets import Preset
from data_gen.scene import HALF_HEIGHT, Camera, Light, Object, Scene

GENERATOR = 1  # raise it with every change after which a seed gives other pairs
PLACES_PER_OBJECT = 40  # tries to find room for one object before the layout starts again
LAYOUTS = 20  # layouts tried before the attempt is given up


class Rejected(Exception):
    """This attempt at a pair is not good enough; `str(error)` is a short reason, used to count rejections."""


@dataclasses.dataclass(frozen=True)
class PairPlan:
    """Two scenes and the differences between them. `id` is unique over presets, seeds, splits and indices."""

    id: str
    scene_a: Scene
    scene_b: Scene
    changes: tuple[Change, ...]


def pair_id(preset: Preset, seed: int, split: str, index: int) -> str:
    return f"{preset.name}-{seed}-{split}-{index:06d}"


def plan_kinds(preset: Preset, seed: int, split: str, index: int) -> list[str]:
    """The kinds of difference this pair will have; empty for an identical pair."""
    rng = random.Random(f"kinds/{pair_id(preset, seed, split, index)}")
    count = rng.choices(range(len(preset.weights)), preset.weights)[0]
    return [rng.choice(preset.kinds) for _ in range(count)]


def plan_pair(preset: Preset, seed: int, split: str, index: int, attempt: int) -> PairPlan:
    """Attempt `attempt` at pair `index`. Raises Rejected when no layout fits or two objects share a name."""
    kinds = plan_kinds(preset, seed, split, index)
    name = pair_id(preset, seed, split, index)
    rng = random.Random(f"scene/{name}/{attempt}")
    camera, lights = sample_camera(rng, preset), sample_lights(rng, preset)
    # At least one object stays as it is.
    fewest = max(preset.objects[0], len(kinds) + 1)
    count = rng.randint(fewest, max(preset.objects[1], fewest))
    objects = [sample_object(rng, preset, number + 1) for number in range(count)]
    # Shuffled, so that changed objects cannot be told by their ids.
    rng.shuffle(objects)
    changes = [CHANGES[kind](rng, item, preset) for kind, item in zip(kinds, objects, strict=False)]
    changes += [unchanged(item) for item in objects[len(kinds) :]]
    require_unambiguous(changes)
    changes = place(rng, preset, camera, changes)
    noise_seed = rng.randrange(2**31)

    def scene(items: list[Object | None]) -> Scene:
        return Scene(
            width=preset.width,
            height=preset.height,
            samples=preset.samples,
            seed=noise_seed,
            camera=camera,
            lights=lights,
            ambient=preset.ambient,
            sky=preset.sky,
            ground=preset.ground,
            objects=tuple(sorted((item for item in items if item), key=lambda item: item.id)),
        )

    return PairPlan(
        id=name,
        scene_a=scene([change.before for change in changes]),
        scene_b=scene([change.after for change in changes]),
        changes=tuple(changes[: len(kinds)]),
    )


def sample_camera(rng: random.Random, preset: Preset) -> Camera:
    """A camera that looks at the origin from the front."""
    distance = rng.uniform(*preset.camera_distance)
    elevation = math.radians(rng.uniform(*preset.camera_elevation))
    azimuth = math.radians(rng.uniform(*preset.camera_azimuth))
    flat = distance * math.cos(elevation)
    location = (flat * math.sin(azimuth), -flat * math.cos(azimuth), distance * math.sin(elevation))
    return Camera(location=location, target=(0.0, 0.0, 0.0), lens=preset.lens)


def sample_lights(rng: random.Random, preset: Preset) -> tuple[Light, ...]:
    """One high lamp to the left or right of the camera: short, soft shadows that stay near their objects."""
    elevation = math.radians(rng.uniform(58.0, 70.0))
    azimuth = math.radians(rng.choice((-1, 1)) * rng.uniform(20.0, 70.0))
    flat = math.cos(elevation)
    towards = (flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation))
    x, y, z = (preset.light_distance * part for part in towards)
    irradiance = rng.uniform(*preset.light_irradiance)
    radius = preset.light_distance * math.tan(math.radians(rng.uniform(*preset.light_angle)) / 2)
    return (Light((x, y, z), irradiance, radius),)


def sample_object(rng: random.Random, preset: Preset, number: int) -> Object:
    """An object without a place yet."""
    color, size = rng.choice(list(preset.colors)), rng.choice(list(preset.sizes))
    return Object(
        id=number,
        shape=rng.choice(preset.shapes),
        material=rng.choice(preset.materials),
        color=color,
        rgb=preset.colors[color],
        size=size,
        radius=preset.sizes[size],
        rotation=rng.uniform(0.0, 90.0),
    )


def require_unambiguous(changes: list[Change]) -> None:
    """Raises Rejected when a name would mean two objects of the pair, before or after the changes."""
    owners: dict[str, int] = {}
    for change in changes:
        for item in change.versions:
            if owners.setdefault(item.name, item.id) != item.id:
                raise Rejected("same name")


def place(rng: random.Random, preset: Preset, camera: Camera, changes: list[Change]) -> list[Change]:
    """Finds every object a spot that suits it before and after its change; raises Rejected if there is none.

    Spots are drawn evenly over the picture rather than over the ground, so that far objects do not crowd.
    """
    for _ in range(LAYOUTS):
        placed: list[Change] = []
        boxes: list[Box] = []
        for change in changes:
            for _ in range(PLACES_PER_OBJECT):
                candidate = put_somewhere(rng, preset, camera, change)
                box = fitting_box(preset, camera, candidate, placed, boxes) if candidate else None
                if candidate and box:
                    placed.append(candidate)
                    boxes.append(box)
                    break
            else:
                break
        if len(placed) == len(changes):
            return placed
    raise Rejected("no layout")


def put_somewhere(rng: random.Random, preset: Preset, camera: Camera, change: Change) -> Change | None:
    """The change with its object at a random spot of the picture, or None when that is out of reach."""
    pixel = (rng.uniform(0, preset.width), rng.uniform(0, preset.height))
    first = change.versions[0]
    spot = ground_point(camera, preset.width, preset.height, pixel, first.radius * HALF_HEIGHT[first.shape])
    if spot is None or math.hypot(*spot) > preset.reach:
        return None
    return dataclasses.replace(
        change,
        before=change.before.at(*spot) if change.before else None,
        after=change.after.at(*spot) if change.after else None,
    )


def fitting_box(
    preset: Preset, camera: Camera, change: Change, placed: list[Change], boxes: list[Box]
) -> Box | None:
    """The box around both versions of the object, or None when it leaves the frame or meets another object.

    `boxes` are those of the objects in `placed`.
    """
    corners = [silhouette_box(item, camera, preset.width, preset.height) for item in change.versions]
    lefts, tops, rights, bottoms = zip(*corners, strict=True)
    box = (min(lefts), min(tops), max(rights), max(bottoms))
    if (
        min(box[0], box[1], preset.width - box[2], preset.height - box[3])
        < preset.frame_margin * preset.width
    ):
        return None
    if any(box_overlap(box, other) > preset.max_overlap for other in boxes):
        return None
    radius = max(item.radius for item in change.versions)
    spot = change.versions[0].position[:2]
    for neighbour in (item for other in placed for item in other.versions):
        if math.dist(neighbour.position[:2], spot) < radius + neighbour.radius + preset.gap:
            return None
    return box
