"""The solids: their measures for planning and, as plain numbers, what their meshes are made from.

Every solid is centred at the origin, stands on z = -half_height, and stays within distance 1 of the vertical
axis: `Object.radius` scales it. Standard library only, because the render worker reads this file too.
"""

from __future__ import annotations

import dataclasses
import math

Point = tuple[float, float]
Vector = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Lathe:
    """A solid of revolution: (distance from the axis, z), from bottom to top; a closed curve for a ring."""

    profile: tuple[Point, ...]
    closed: bool = False


@dataclasses.dataclass(frozen=True)
class Extrusion:
    """A polygon, counter-clockwise, pulled to both sides: up and down, or if `upright`, forth and back."""

    polygon: tuple[Point, ...]
    half_depth: float
    upright: bool = False


@dataclasses.dataclass(frozen=True)
class Primitive:
    """A mesh that blender/meshes.py makes by name."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What planning and ground truth know of a solid.

    Attributes:
      noun: what a sentence calls it.
      half_height: from its centre to the ground.
      turn: smallest rotation about the vertical, in degrees, that maps it to itself; 0 when all do.
      outline: points whose convex hull holds the solid, and is the solid when it is `convex`.
      recipe: what the mesh is made from; None for a user's mesh.
    """

    noun: str
    half_height: float
    turn: float
    outline: tuple[Vector, ...]
    recipe: Lathe | Extrusion | Primitive | None
    convex: bool = False


def ring(radius: float, z: float, count: int = 48) -> list[Vector]:
    """Points on a level circle."""
    angles = [step * 2 * math.pi / count for step in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle), z) for angle in angles]


def ball(count: int = 256) -> list[Vector]:
    """Points spread evenly over the unit sphere along a Fibonacci spiral."""
    points = []
    for step in range(count):
        z = 1 - 2 * (step + 0.5) / count
        angle = (step + 0.5) * math.pi * (3 - 5**0.5)
        flat = math.sqrt(1 - z * z)
        points.append((flat * math.cos(angle), flat * math.sin(angle), z))
    return points


def arc(x: float, y: float, radius: float, start: float, end: float, steps: int) -> list[Point]:
    """Points on a circle around (x, y) from angle `start` to `end`, in degrees."""
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def lathe(noun: str, profile: list[Point], closed: bool = False, convex: bool = False) -> Shape:
    """A solid of revolution; the curve's heights are centred here."""
    heights = [z for _, z in profile]
    middle, half = (max(heights) + min(heights)) / 2, (max(heights) - min(heights)) / 2
    centred = tuple((r, z - middle) for r, z in profile)
    outline = tuple(point for r, z in centred for point in ring(r, z, 32))
    return Shape(noun, half, 0.0, outline, Lathe(centred, closed), convex)


def extrusion(
    noun: str,
    polygon: list[Point],
    half_depth: float,
    turn: float,
    upright: bool = False,
    convex: bool = False,
) -> Shape:
    """A polygon pulled up and down or, upright, forth and back; upright ones are centred here."""
    if upright:
        low, high = min(y for _, y in polygon), max(y for _, y in polygon)
        polygon = [(x, y - (low + high) / 2) for x, y in polygon]
        outline = [(x, side, y) for x, y in polygon for side in (-half_depth, half_depth)]
        half = (high - low) / 2
    else:
        outline = [(x, y, side) for x, y in polygon for side in (-half_depth, half_depth)]
        half = half_depth
    recipe = Extrusion(tuple(polygon), half_depth, upright)
    return Shape(noun, half, turn, tuple(outline), recipe, convex)


def regular(corners: int, radius: float) -> list[Point]:
    """A regular polygon."""
    return arc(0, 0, radius, 0, 360, corners)[:-1]


def alternating(points: int, outer: float, inner: float, flat: float = 0.0) -> list[Point]:
    """A star, or a gear when the tips and gaps are `flat` (in shares of a step from one tip to the next)."""
    step = 360 / points
    polygon: list[Point] = []
    for tip in range(points):
        for radius, centre in ((outer, tip * step), (inner, (tip + 0.5) * step)):
            corners = arc(0, 0, radius, centre - flat * step, centre + flat * step, 1)
            polygon += corners if flat else corners[:1]
    return polygon


def _cube() -> Shape:
    half = 0.5**0.5
    corners = [(x, y, z) for x in (-half, half) for y in (-half, half) for z in (-half, half)]
    return Shape("cube", half, 90.0, tuple(corners), Primitive(), convex=True)


def _icosahedron() -> Shape:
    """Lying on a face, corners at distance 1 from the centre."""
    golden = (1 + 5**0.5) / 2
    length = math.hypot(1, golden)
    corners = [
        tuple((0.0, a / length, b * golden / length)[(axis - turn) % 3] for axis in range(3))
        for a in (-1, 1)
        for b in (-1, 1)
        for turn in range(3)
    ]
    # The axis through the middle of the face (0, 1, g), (g, 0, 1), (1, g, 0) becomes the vertical.
    basis = ((2**-0.5, -(2**-0.5), 0.0), (6**-0.5, 6**-0.5, -2 * 6**-0.5), (3**-0.5,) * 3)
    turned = [
        tuple(sum(a * b for a, b in zip(row, corner, strict=True)) for row in basis) for corner in corners
    ]
    outline = tuple((x, y, z) for x, y, z in turned)
    return Shape("icosahedron", max(z for _, _, z in outline), 120.0, outline, Primitive(), convex=True)


# The helix of the spring: radius of the coil, of the wire, number of turns, half its height.
SPRING = (0.8, 0.14, 3.5, 0.75)
# Half sizes of the monkey's head, scaled to fit; its outline is a flattened cylinder around it.
MONKEY = (1.0, 0.73, 0.72)

SHAPES: dict[str, Shape] = {
    "cube": _cube(),
    "sphere": Shape("sphere", 1.0, 0.0, tuple(ball()), Primitive(), convex=True),
    "cylinder": Shape(
        "cylinder", 0.85, 0.0, (*ring(0.85, -0.85), *ring(0.85, 0.85)), Primitive(), convex=True
    ),
    "cone": Shape("cone", 1.1, 0.0, (*ring(0.95, -1.1), (0.0, 0.0, 1.1)), Primitive(), convex=True),
    "torus": lathe("torus", arc(0.66, 0, 0.34, 0, 360, 32)[:-1], closed=True),
    "tube": lathe("tube", [(0.55, -0.7), (0.9, -0.7), (0.9, 0.7), (0.55, 0.7)], closed=True),
    "capsule": lathe("capsule", arc(0, -0.5, 0.62, -90, 0, 12) + arc(0, 0.5, 0.62, 0, 90, 12), convex=True),
    "vase": lathe(
        "vase",
        [
            (0, -1),
            (0.42, -1),
            (0.5, -0.97),
            (0.75, -0.6),
            (0.85, -0.2),
            (0.78, 0.15),
            (0.52, 0.48),
            (0.36, 0.68),
            (0.36, 0.8),
            (0.52, 1.0),
            (0.42, 1.0),
            (0.28, 0.8),
            (0.28, 0.62),
            (0, 0.5),
        ],
    ),  # fmt: skip
    "pawn": lathe(
        "pawn",
        [
            (0, -1.1),
            (0.74, -1.1),
            (0.78, -1.05),
            (0.78, -0.9),
            (0.64, -0.78),
            (0.44, -0.5),
            (0.33, -0.1),
            (0.3, 0.18),
            (0.5, 0.24),
            (0.5, 0.32),
            (0.3, 0.38),
            *arc(0, 0.72, 0.42, -50, 90, 12),
        ],
    ),  # fmt: skip
    "goblet": lathe(
        "goblet",
        [
            (0, -1),
            (0.6, -1),
            (0.6, -0.92),
            (0.2, -0.82),
            (0.12, -0.6),
            (0.12, -0.2),
            (0.35, -0.08),
            (0.62, 0.2),
            (0.7, 0.6),
            (0.66, 1.0),
            (0.58, 1.0),
            (0.61, 0.6),
            (0.52, 0.26),
            (0, 0.06),
        ],
    ),  # fmt: skip
    "prism": extrusion("hexagonal prism", regular(6, 0.92), 0.75, turn=60, convex=True),
    "pyramid": Shape("pyramid", 0.8, 90.0, (*ring(1.0, -0.8, 4), (0.0, 0.0, 0.8)), Primitive(), convex=True),
    "star": extrusion("star", alternating(5, 1.0, 0.47), 0.42, turn=72),
    "gear": extrusion("gear", alternating(10, 1.0, 0.76, 0.13), 0.4, turn=36),
    "cross": extrusion(
        "cross",
        [
            (0.3, -0.3),
            (0.95, -0.3),
            (0.95, 0.3),
            (0.3, 0.3),
            (0.3, 0.95),
            (-0.3, 0.95),
            (-0.3, 0.3),
            (-0.95, 0.3),
            (-0.95, -0.3),
            (-0.3, -0.3),
            (-0.3, -0.95),
            (0.3, -0.95),
        ],
        0.45,
        turn=90,
    ),  # fmt: skip
    "l_block": extrusion(
        "L-shaped block",
        [(-0.8, 0), (0.8, 0), (0.8, 0.55), (-0.2, 0.55), (-0.2, 1.6), (-0.8, 1.6)],
        0.4,
        turn=360,
        upright=True,
    ),
    "arch": extrusion(
        "arch",
        [
            (0.45, 0),
            (0.9, 0),
            (0.9, 1.35),
            (-0.9, 1.35),
            (-0.9, 0),
            (-0.45, 0),
            *arc(0, 0.4, 0.45, 180, 0, 16),
        ],
        0.4,
        turn=180,
        upright=True,
    ),
    "spring": Shape(
        "spring",
        SPRING[3] + SPRING[1],
        360.0,
        (
            *ring(SPRING[0] + SPRING[1], -SPRING[3] - SPRING[1]),
            *ring(SPRING[0] + SPRING[1], SPRING[3] + SPRING[1]),
        ),
        Primitive(),
    ),
    "icosahedron": _icosahedron(),
    "monkey": Shape(
        "monkey head",
        MONKEY[2],
        360.0,
        tuple(
            (x, max(-MONKEY[1], min(MONKEY[1], y)), z)
            for z in (-MONKEY[2], MONKEY[2])
            for x, y, _ in ring(1, 0, 32)
        ),
        Primitive(),
    ),
}


def shape(name: str) -> Shape:
    """The solid of that name. Raises ValueError for an unknown one."""
    if name not in SHAPES:
        raise ValueError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}")
    return SHAPES[name]
