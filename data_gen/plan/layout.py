"""Where the objects of a pair stand: in the frame, apart, and balanced over the picture."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

import numpy as np

from data_gen.changes.registry import Change
from data_gen.scenes.geometry import Box, box_overlap, camera_axes, ground_point, project, silhouette_box
from data_gen.scenes.presets import Preset
from data_gen.scenes.scene import Camera
from data_gen.scenes.shapes import shape

PLACES_PER_OBJECT = 40  # tries to find room for one object before the layout starts again
LAYOUTS = 20  # layouts tried before the attempt is given up

COLUMNS = ROWS = 3
REGIONS = COLUMNS * ROWS  # cells of the window in which objects can stand, row by row


class NoRoom(Exception):
    """LAYOUTS layouts were tried and none fits."""


def place(
    rng: random.Random,
    preset: Preset,
    camera: Camera,
    changes: Sequence[Change],
    regions: Sequence[int | None] = (),
    fixed: Sequence[Change] = (),
) -> list[Change]:
    """Finds every object a spot that suits it before and after its change; raises NoRoom if there is none.

    Spots are drawn evenly over the picture rather than over the ground, so that far objects do not crowd.
    The first objects are put into these `regions` of it. Objects that are `fixed` have a place already.
    """
    windows = [cell(preset, camera, region) for region in regions]
    windows += [cell(preset, camera, None)] * (len(changes) - len(windows))
    for _ in range(LAYOUTS):
        placed = list(fixed)
        boxes = [bounding_box(preset, camera, change) for change in fixed]
        for change, window in zip(changes, windows, strict=True):
            for _ in range(PLACES_PER_OBJECT):
                candidate = put_somewhere(rng, preset, camera, change, window)
                box = fitting_box(preset, camera, candidate, placed, boxes) if candidate else None
                if candidate and box:
                    placed.append(candidate)
                    boxes.append(box)
                    break
            else:
                break
        if len(placed) == len(fixed) + len(changes):
            return placed[len(fixed) :]
    raise NoRoom


def cell(preset: Preset, camera: Camera, region: int | None) -> Box:
    """The part of the picture, in pixels, in which an object's centre is drawn: a region, or None for all."""
    x0, y0, x1, y1 = window(preset, camera)
    if region is None:
        return x0, y0, x1, y1
    row, column = divmod(region, COLUMNS)
    width, height = (x1 - x0) / COLUMNS, (y1 - y0) / ROWS
    return x0 + column * width, y0 + row * height, x0 + (column + 1) * width, y0 + (row + 1) * height


def window(preset: Preset, camera: Camera) -> Box:
    """The rows of the picture that show ground within the preset's reach, at full width."""
    top, bottom = 0.0, float(preset.height)
    forward = camera_axes(camera)[2][:2]
    forward = forward / np.linalg.norm(forward)
    depth_of_camera = float(forward @ np.asarray(camera.location[:2]))
    for distance in (preset.reach, -preset.reach):
        if distance <= depth_of_camera + 1.0:  # beside or behind the camera: all that is in front is in reach
            continue
        spot = np.array([(*(forward * distance), 0.0)])
        y = float(project(camera, preset.width, preset.height, spot)[0, 1])
        top, bottom = (max(top, y), bottom) if distance > 0 else (top, min(bottom, y))
    return 0.0, top, float(preset.width), bottom


def put_somewhere(
    rng: random.Random, preset: Preset, camera: Camera, change: Change, window: Box
) -> Change | None:
    """The change with its object at a random spot of the window, or None when there is no ground."""
    pixel = (rng.uniform(window[0], window[2]), rng.uniform(window[1], window[3]))
    first = change.versions[0]
    height = first.radius * shape(first.shape).half_height
    spot = ground_point(camera, preset.width, preset.height, pixel, height)
    return moved_to(change, *spot) if spot else None


def moved_to(change: Change, x: float, y: float) -> Change:
    """The change with its object at (x, y); one that moves ends as far from there as it did before."""
    first, last = change.versions[0], change.versions[-1]
    dx, dy = last.position[0] - first.position[0], last.position[1] - first.position[1]
    return dataclasses.replace(
        change,
        before=change.before.at(x, y) if change.before else None,
        after=change.after.at(x + dx, y + dy) if change.after else None,
    )


def bounding_box(preset: Preset, camera: Camera, change: Change) -> Box:
    """The box around both versions of an object."""
    corners = [silhouette_box(item, camera, preset.width, preset.height) for item in change.versions]
    lefts, tops, rights, bottoms = zip(*corners, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def fitting_box(
    preset: Preset, camera: Camera, change: Change, placed: Sequence[Change], boxes: Sequence[Box]
) -> Box | None:
    """The box around both versions of the object, or None when it leaves the frame or meets another object.

    `boxes` are those of the objects in `placed`.
    """
    box = bounding_box(preset, camera, change)
    if (
        min(box[0], box[1], preset.width - box[2], preset.height - box[3])
        < preset.frame_margin * preset.width
    ):
        return None
    if any(box_overlap(box, other) > preset.max_overlap for other in boxes):
        return None
    for item in change.versions:
        for neighbour in (version for other in placed for version in other.versions):
            apart = math.dist(neighbour.position[:2], item.position[:2])
            if apart < item.radius + neighbour.radius + preset.gap:
                return None
    return box
