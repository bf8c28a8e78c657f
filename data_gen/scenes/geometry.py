"""Where a scene's objects land in the picture, computed without a renderer.

Planning uses it to keep objects inside the frame and apart; verification uses the full silhouette to know
which share of an object is hidden. Pixels have y down and the origin at the top left corner of the picture.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from data_gen.scenes.scene import Camera, Object, Vector
from data_gen.scenes.shapes import shape

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels

SENSOR_WIDTH = 36.0  # millimetres, as set in blender/studio.py


@functools.lru_cache(maxsize=64)
def camera_axes(camera: Camera) -> np.ndarray:
    """Rows right, up and forward of the camera in world coordinates, float64 [3, 3]."""
    forward = np.subtract(camera.target, camera.location)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(right, forward), forward])


def turned(camera: Camera, pivot: Vector, azimuth: float) -> Camera:
    """The camera gone `azimuth` degrees around the vertical axis through `pivot`, anticlockwise from above.

    It moves as one with its target, so the pivot stays at its pixel.
    """
    cos, sin = math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth))

    def around(point: Vector) -> Vector:
        x, y = point[0] - pivot[0], point[1] - pivot[1]
        return pivot[0] + cos * x - sin * y, pivot[1] + sin * x + cos * y, point[2]

    return dataclasses.replace(camera, location=around(camera.location), target=around(camera.target))


def project(camera: Camera, width: int, height: int, points: np.ndarray) -> np.ndarray:
    """World points [n, 3] in front of the camera -> pixel positions [n, 2]."""
    x, y, depth = camera_axes(camera) @ (points - np.asarray(camera.location)).T
    scale = camera.lens / SENSOR_WIDTH * width / depth
    return np.stack([width / 2 + x * scale, height / 2 - y * scale], axis=1)


def ground_point(
    camera: Camera, width: int, height: int, pixel: tuple[float, float], z: float
) -> tuple[float, float] | None:
    """(x, y) of the point at height `z` seen at `pixel`, or None when the pixel looks above the horizon."""
    scale = SENSOR_WIDTH / camera.lens / width
    ray = np.array([(pixel[0] - width / 2) * scale, (height / 2 - pixel[1]) * scale, 1.0])
    ray = ray @ camera_axes(camera)
    if ray[2] > -1e-3:
        return None
    x, y, _ = np.asarray(camera.location) + ray * (z - camera.location[2]) / ray[2]
    return float(x), float(y)


def outline(item: Object) -> np.ndarray:
    """World points [n, 3] whose convex hull holds the object."""
    turn = math.radians(item.rotation)
    rotation = np.array(
        [(math.cos(turn), math.sin(turn), 0), (-math.sin(turn), math.cos(turn), 0), (0, 0, 1)]
    )
    return unit_outline(item.shape) @ rotation * item.radius + np.asarray(item.position)


@functools.cache
def unit_outline(name: str) -> np.ndarray:
    """The outline [n, 3] of the shape of radius 1 at the origin. Raises ValueError for an unknown one."""
    return np.array(shape(name).outline)


def silhouette_box(item: Object, camera: Camera, width: int, height: int) -> Box:
    """The box around the whole object, hidden parts and parts out of frame included."""
    pixels = project(camera, width, height, outline(item))
    (x0, y0), (x1, y1) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    return x0, y0, x1, y1


def silhouette_area(item: Object, camera: Camera, width: int, height: int) -> float:
    """Pixels a convex object would cover with nothing in front of it; an upper bound for others."""
    hull = _convex_hull(project(camera, width, height, outline(item)))
    x, y = hull[:, 0], hull[:, 1]
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def box_overlap(a: Box, b: Box) -> float:
    """The share of the smaller box that the other one covers."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _convex_hull(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull of points [n, 2] in order (Andrew's monotone chain)."""

    def half_hull(ordered: list[tuple[float, float]]) -> list[tuple[float, float]]:
        hull: list[tuple[float, float]] = []
        for x, y in ordered:
            while len(hull) > 1:
                (ax, ay), (bx, by) = hull[-2], hull[-1]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                hull.pop()
            hull.append((x, y))
        return hull[:-1]

    ordered = sorted(map(tuple, points.tolist()))
    return np.array(half_hull(ordered) + half_hull(ordered[::-1]))
