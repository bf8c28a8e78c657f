"""Procedural textures: each gives 0 where a surface has its first colour and 1 where it has its second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_gen.render.blender.nodes import Tree

# Patterns are cut a little off the origin: on a plane through it, 3-D patterns flicker between two cells.
OFF_CENTRE = (0.137, 0.071, 0.113)

Pattern = Callable[[Tree, Any], Any]


def checker(tree: Tree, place: Any) -> Any:
    return tree.add("TexChecker", {"Vector": place, "Scale": 2.6, 1: (0, 0, 0, 1), 2: (1, 1, 1, 1)}).outputs[
        0
    ]


def stripes(tree: Tree, place: Any) -> Any:
    bands = tree.add(
        "TexWave", {"Vector": place, "Scale": 0.75, "Distortion": 0.0}, bands_direction="DIAGONAL"
    )
    return step(tree, bands.outputs[1], 0.5)


def dots(tree: Tree, place: Any) -> Any:
    cells = tree.add("TexVoronoi", {"Vector": place, "Scale": 2.6, "Randomness": 0.0})
    return tree.math("SUBTRACT", 1.0, step(tree, cells.outputs[0], 0.36))


def brick(tree: Tree, place: Any) -> Any:
    """Courses along z; on the ground, along y."""
    x, y, z = split(tree, place)
    flat = tree.add(
        "CombineXYZ", {0: tree.math("ADD", x, tree.math("MULTIPLY", y, 0.5)), 1: tree.math("ADD", z, y)}
    )
    sizes = {"Brick Width": 0.62, "Row Height": 0.31, "Mortar Size": 0.035, "Mortar Smooth": 0.0}
    return tree.add("TexBrick", {"Vector": flat.outputs[0], "Scale": 1.0, **sizes}).outputs["Fac"]


def noise(tree: Tree, place: Any) -> Any:
    grain = tree.add("TexNoise", {"Vector": place, "Scale": 3.2, "Detail": 2.0})
    return step(tree, grain.outputs[0], 0.53)


def wood(tree: Tree, place: Any) -> Any:
    rings = tree.add(
        "TexWave",
        {"Vector": place, "Scale": 1.3, "Distortion": 2.5, "Detail": 2.0, "Detail Scale": 1.2},
        wave_type="RINGS",
        rings_direction="Y",
    )
    return rings.outputs[1]


def marble(tree: Tree, place: Any) -> Any:
    veins = tree.add(
        "TexWave", {"Vector": place, "Scale": 0.6, "Distortion": 9.0, "Detail": 3.0, "Detail Scale": 1.5}
    )
    return tree.math("POWER", veins.outputs[1], 2.2)


def voronoi(tree: Tree, place: Any) -> Any:
    cracks = tree.add("TexVoronoi", {"Vector": place, "Scale": 2.2}, feature="DISTANCE_TO_EDGE")
    return tree.math("SUBTRACT", 1.0, step(tree, cracks.outputs[0], 0.07))


def magic(tree: Tree, place: Any) -> Any:
    swirl = tree.add("TexMagic", {"Vector": place, "Scale": 1.6, "Distortion": 1.6}, turbulence_depth=2)
    return step(tree, swirl.outputs[1], 0.5)


def waves(tree: Tree, place: Any) -> Any:
    ripples = tree.add("TexWave", {"Vector": place, "Scale": 0.9, "Distortion": 5.0, "Detail": 0.0})
    return ripples.outputs[1]


def grid(tree: Tree, place: Any) -> Any:
    """Lines on three families of planes."""
    lines = [
        step(tree, tree.math("FRACT", tree.math("MULTIPLY", axis, 1.8)), 0.86) for axis in split(tree, place)
    ]
    return tree.math("MAXIMUM", tree.math("MAXIMUM", lines[0], lines[1]), lines[2])


def halves(tree: Tree, place: Any) -> Any:
    """One half this, one half that."""
    return step(tree, split(tree, place)[0], OFF_CENTRE[0])


PATTERNS: dict[str, Pattern] = {
    pattern.__name__: pattern
    for pattern in (checker, stripes, dots, brick, noise, wood, marble, voronoi, magic, waves, grid, halves)
}


def surface_color(tree: Tree, texture: str, first: Any, second: Any, size: float, image: Any = None) -> Any:
    """The colour of a surface, as a node output.

    Args:
      texture: a name of PATTERNS; anything else shows `image`, tinted by nothing.
      first, second: linear colours.
      size: of one repeat, in units of the object's own coordinates.
    """
    own = tree.add("TexCoord").outputs["Object"]
    place = tree.vector_math("ADD", tree.vector_math("DIVIDE", own, (size, size, size)), OFF_CENTRE)
    if image is not None:
        node = tree.add("TexImage", {"Vector": place}, image=image, projection="BOX", projection_blend=0.2)
        return node.outputs[0]
    return tree.mix_color(PATTERNS[texture](tree, place), first, second)


def split(tree: Tree, place: Any) -> list[Any]:
    return list(tree.add("SeparateXYZ", {0: place}).outputs)


def step(tree: Tree, value: Any, edge: float) -> Any:
    """0 below the edge, 1 above."""
    return tree.math("GREATER_THAN", value, edge)
