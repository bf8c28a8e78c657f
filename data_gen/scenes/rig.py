"""Camera and light: how they are drawn for a scene, and how far they may differ between A and B."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import TypeVar

from data_gen.scenes.presets import Preset
from data_gen.scenes.scene import Camera, Lamp, Lighting, Vector

Choice = TypeVar("Choice")

# The lamps of the studio, after CLEVR's base scene: azimuth from the camera's side and elevation in degrees,
# distance and radius in metres, irradiance at the origin in W/m2.
STUDIO = (
    (-35.0, 55.0, 9.0, 1.4, 2.1),  # key: the shadows
    (50.0, 35.0, 9.5, 2.4, 0.8),  # fill: softens them
    (165.0, 40.0, 10.0, 1.4, 0.7),  # back: bright rims
)
STUDIO_JITTER = 1.0  # metres, as in CLEVR
DEGREES_PER_METRE = 10.0  # of light jitter, for surroundings and sun


def pick(rng: random.Random, choices: Sequence[Choice]) -> Choice:
    """One of the choices; a single one costs no random number."""
    return choices[0] if len(choices) == 1 else rng.choice(choices)


def between(rng: random.Random, limits: tuple[float, float]) -> float:
    """A number in the range; a range of one number costs no random number."""
    return limits[0] if limits[0] == limits[1] else rng.uniform(*limits)


def sample_camera(rng: random.Random, preset: Preset) -> Camera:
    """A camera that looks at the origin."""
    distance = rng.uniform(*preset.camera_distance)
    elevation = math.radians(rng.uniform(*preset.camera_elevation))
    azimuth = math.radians(rng.uniform(*preset.camera_azimuth))
    return Camera(
        towards(azimuth, elevation, distance), target=(0.0, 0.0, 0.0), lens=between(rng, preset.lens)
    )


def towards(azimuth: float, elevation: float, distance: float) -> Vector:
    """A point seen from the origin in that direction; angles in radians, azimuth 0 is the front."""
    flat = distance * math.cos(elevation)
    return flat * math.sin(azimuth), -flat * math.cos(azimuth), distance * math.sin(elevation)


def sample_lighting(rng: random.Random, preset: Preset) -> Lighting:
    kind = pick(rng, preset.lighting)
    if kind == "simple":
        return Lighting(kind, (simple_lamp(rng, preset),), preset.ambient, preset.horizon)
    if kind == "studio":
        return Lighting(kind, studio_lamps(rng), strength=rng.uniform(0.9, 1.1))
    if kind == "hdri":
        image = pick(rng, preset.environments)
        return Lighting(
            kind, image=image, rotation=rng.uniform(-180.0, 180.0), strength=rng.uniform(0.85, 1.2)
        )
    return Lighting(
        kind,
        rotation=rng.uniform(-180.0, 180.0),
        elevation=rng.uniform(35.0, 70.0),
        strength=rng.uniform(0.9, 1.1),
    )


def simple_lamp(rng: random.Random, preset: Preset) -> Lamp:
    """One high lamp to the left or right of the camera: short, soft shadows that stay near their objects."""
    elevation = math.radians(rng.uniform(58.0, 70.0))
    azimuth = math.radians(rng.choice((-1, 1)) * rng.uniform(20.0, 70.0))
    flat = math.cos(elevation)
    direction = (flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation))
    x, y, z = (preset.light_distance * part for part in direction)
    irradiance = rng.uniform(*preset.light_irradiance)
    radius = preset.light_distance * math.tan(math.radians(rng.uniform(*preset.light_angle)) / 2)
    return Lamp((x, y, z), irradiance, radius)


def studio_lamps(rng: random.Random) -> tuple[Lamp, ...]:
    """Three lamps around the scene, each moved a little."""
    lamps = []
    for azimuth, elevation, distance, radius, irradiance in STUDIO:
        position = towards(math.radians(azimuth), math.radians(elevation), distance)
        lamps.append(Lamp(moved(rng, position, STUDIO_JITTER), irradiance, radius))
    return tuple(lamps)


def moved(rng: random.Random, position: Vector, distance: float) -> Vector:
    """The position moved by up to `distance` along each axis."""
    x, y, z = (value + rng.uniform(-distance, distance) for value in position)
    return x, y, z


def jitter_camera(rng: random.Random, camera: Camera, distance: float) -> Camera:
    """The camera moved, still looking at the same spot."""
    return dataclasses.replace(camera, location=moved(rng, camera.location, distance)) if distance else camera


def jitter_lighting(rng: random.Random, lighting: Lighting, distance: float) -> Lighting:
    """The lamps moved, the surroundings or the sun turned."""
    if not distance:
        return lighting
    lamps = tuple(
        dataclasses.replace(lamp, position=moved(rng, lamp.position, distance)) for lamp in lighting.lamps
    )
    turn = rng.uniform(-distance, distance) * DEGREES_PER_METRE if lighting.kind in ("hdri", "sky") else 0.0
    rotation = (lighting.rotation + turn + 180.0) % 360.0 - 180.0
    return dataclasses.replace(lighting, lamps=lamps, rotation=rotation)
