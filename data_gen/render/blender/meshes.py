"""Meshes: the solids of shapes.py with slightly rounded edges, and the ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import bmesh
import bpy
from mathutils import Matrix

from data_gen.scenes.shapes import MONKEY, SPRING, Extrusion, Lathe, shape

SEGMENTS = 64  # of round shapes: no visible corners at 448 pixels
SHARP = math.radians(50)  # edges from this angle on are rounded


def plane_mesh(half_side: float) -> Any:
    mesh = bmesh.new()
    bmesh.ops.create_grid(mesh, x_segments=1, y_segments=1, size=half_side)
    return finish_mesh(mesh, "plane")


def solid_mesh(name: str) -> Any:
    """The shape of radius 1 centred at the origin; as its outline in shapes.py. Raises ValueError."""
    recipe = shape(name).recipe
    mesh = bmesh.new()
    if isinstance(recipe, Lathe):
        add_lathe(mesh, recipe)
        return finish_mesh(mesh, name, sharp=math.radians(35))
    if isinstance(recipe, Extrusion):
        add_extrusion(mesh, recipe)
        round_edges(mesh, offset=0.03)
        return finish_mesh(mesh, name)
    if name == "spring":
        add_spring(mesh)
        return finish_mesh(mesh, name, sharp=math.radians(60))
    if name == "monkey":
        add_monkey(mesh)
        return finish_mesh(mesh, name, sharp=math.pi)
    add_simple_solid(mesh, name)
    round_edges(mesh, offset=0.04)
    return finish_mesh(mesh, name)


def add_simple_solid(mesh: Any, name: str) -> None:
    if name == "cube":
        bmesh.ops.create_cube(mesh, size=2**0.5)
    elif name == "sphere":
        bmesh.ops.create_uvsphere(mesh, u_segments=SEGMENTS, v_segments=SEGMENTS // 2, radius=1.0)
    elif name == "cylinder":
        add_cone(mesh, bottom=0.85, top=0.85, height=1.7)
    elif name == "cone":
        # Cut off at the tip: a shared apex would have one normal for all sides and shade like a ball.
        add_cone(mesh, bottom=0.95, top=0.02, height=2.2)
    elif name in ("pyramid", "icosahedron"):
        corners = [mesh.verts.new(corner) for corner in shape(name).outline]
        bmesh.ops.convex_hull(mesh, input=corners)
    else:
        raise ValueError(f"shape {name!r} has no mesh")


def add_cone(mesh: Any, bottom: float, top: float, height: float) -> None:
    bmesh.ops.create_cone(mesh, cap_ends=True, segments=SEGMENTS, radius1=bottom, radius2=top, depth=height)


def add_lathe(mesh: Any, recipe: Lathe) -> None:
    """Rings of vertices along the profile, joined by quads; points on the axis are single vertices."""
    rows = []
    for radius, z in recipe.profile:
        angles = [step * 2 * math.pi / SEGMENTS for step in range(SEGMENTS if radius > 1e-6 else 1)]
        rows.append([mesh.verts.new((radius * math.cos(a), radius * math.sin(a), z)) for a in angles])
    if not recipe.closed:  # a flat lid where the profile does not reach the axis
        for row in (rows[0], rows[-1]):
            if len(row) > 1:
                mesh.faces.new(row)
    pairs = list(zip(rows, rows[1:] + rows[:1] if recipe.closed else rows[1:], strict=False))
    for low, high in pairs:
        join_rings(mesh, low, high)


def join_rings(mesh: Any, low: Sequence[Any], high: Sequence[Any]) -> None:
    """Faces between two rings of vertices, either of which may be a single point."""
    for step in range(max(len(low), len(high))):
        following = step + 1
        corners = [low[step % len(low)], low[following % len(low)]]
        corners += [high[following % len(high)], high[step % len(high)]]
        mesh.faces.new(list(dict.fromkeys(corners)))  # a triangle at a point


def add_extrusion(mesh: Any, recipe: Extrusion) -> None:
    sides = []
    for depth in (-recipe.half_depth, recipe.half_depth):
        corners = [(x, -depth, y) if recipe.upright else (x, y, depth) for x, y in recipe.polygon]
        sides.append([mesh.verts.new(corner) for corner in corners])
    mesh.faces.new(sides[0][::-1])
    mesh.faces.new(sides[1])
    join_rings(mesh, *sides)


def add_spring(mesh: Any) -> None:
    """A wire along a helix, its ends closed."""
    radius, wire, turns, half = SPRING
    rows = []
    steps = int(turns * 32)
    for step in range(steps + 1):
        angle = step / steps * turns * 2 * math.pi
        z = -half + step / steps * 2 * half
        row = []
        for corner in range(12):
            around = corner / 12 * 2 * math.pi
            out = radius + wire * math.cos(around)
            row.append(
                mesh.verts.new((out * math.cos(angle), out * math.sin(angle), z + wire * math.sin(around)))
            )
        rows.append(row)
    for low, high in zip(rows, rows[1:], strict=False):
        join_rings(mesh, low, high)
    mesh.faces.new(rows[0])
    mesh.faces.new(rows[-1])


def add_monkey(mesh: Any) -> None:
    """Blender's Suzanne, rounded off and fitted into the box of MONKEY."""
    bmesh.ops.create_monkey(mesh)
    bmesh.ops.subdivide_edges(mesh, edges=list(mesh.edges), cuts=1, smooth=1.0, use_grid_fill=True)
    fit(mesh, MONKEY)


def fit(mesh: Any, half_sizes: Sequence[float]) -> None:
    """Moves and stretches the mesh into the box of these half sizes around the origin."""
    spans = [(min(v.co[axis] for v in mesh.verts), max(v.co[axis] for v in mesh.verts)) for axis in range(3)]
    middle = [(low + high) / 2 for low, high in spans]
    scale = [2 * half / max(high - low, 1e-9) for half, (low, high) in zip(half_sizes, spans, strict=True)]
    mesh.transform(Matrix.Diagonal((*scale, 1.0)) @ Matrix.Translation([-value for value in middle]))


def round_edges(mesh: Any, offset: float) -> None:
    sharp = [edge for edge in mesh.edges if edge.calc_face_angle() > SHARP and edge.calc_length() > 0.05]
    if sharp:
        bmesh.ops.bevel(mesh, geom=sharp, offset=offset, segments=4, profile=0.5, affect="EDGES")


def finish_mesh(mesh: Any, name: str, sharp: float = math.radians(12)) -> Any:
    """A mesh shaded smooth where it is round, with an empty slot for each object's own material.

    `sharp`: edges from this angle on stay apart, since shared normals would bend flat faces' reflections.
    """
    if name not in ("plane", "cube", "sphere", "cylinder", "cone"):  # whose faces all look outwards
        bmesh.ops.recalc_face_normals(mesh, faces=list(mesh.faces))
    for face in mesh.faces:
        face.smooth = True
    data = bpy.data.meshes.new(name)
    mesh.to_mesh(data)
    mesh.free()
    data.set_sharp_from_angle(angle=sharp)
    data.materials.clear()
    data.materials.append(None)
    return data
