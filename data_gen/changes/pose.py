"""Where an object is and which way it faces: move, rotate."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np

from data_gen.changes.registry import Kind, Object, Preset, Scene, register
from data_gen.scenes.geometry import project
from data_gen.scenes.schema import PLAIN
from data_gen.scenes.shapes import shape

MIN_TURN = 60.0  # a shape that looks the same after less than this hardly shows that it turned


@register
class Move(Kind):
    """To a spot nearby: a box around both places that spans the picture would say little."""

    name = "move"

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, Object]:
        angle = rng.uniform(0.0, 2 * math.pi)
        distance = rng.uniform(1.2, 2.6) * item.radius
        x, y, z = item.position
        moved = (x + distance * math.cos(angle), y + distance * math.sin(angle), z)
        return item, dataclasses.replace(item, position=moved)

    def sentence(self, subject: str, before: Object | None, after: Object | None, scene: Scene) -> str:
        assert before is not None and after is not None
        places = np.array([before.position, after.position])
        (x0, y0), (x1, y1) = project(scene.camera, scene.width, scene.height, places).tolist()
        if abs(x1 - x0) > abs(y1 - y0):
            return f"{subject} moved to the {'right' if x1 > x0 else 'left'}"
        return f"{subject} moved {'towards' if y1 > y0 else 'away from'} the camera"


@register
class Rotate(Kind):
    """About the vertical, where it shows: not a plain sphere, nor by a quarter turn of a plain cube."""

    name = "rotate"

    def suits(self, item: Object, preset: Preset) -> bool:
        return item.texture != PLAIN or shape(item.shape).turn >= MIN_TURN

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, Object]:
        turn = shape(item.shape).turn
        if turn < MIN_TURN:  # its texture shows the turn
            turn = 360.0
        angle = rng.choice((-1, 1)) * rng.uniform(0.35, 0.5) * min(turn, 240.0)
        return item, dataclasses.replace(item, rotation=(item.rotation + angle) % 360.0)

    def sentence(self, subject: str, before: Object | None, after: Object | None, scene: Scene) -> str:
        assert before is not None and after is not None
        angle = (after.rotation - before.rotation + 180) % 360 - 180  # counter-clockwise seen from above
        way = "counter-clockwise" if angle > 0 else "clockwise"
        return f"{subject} turned {way} by about {max(5, 5 * round(abs(angle) / 5))} degrees, seen from above"
