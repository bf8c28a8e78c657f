"""Lamps and surroundings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import bpy
from mathutils import Vector

from data_gen.render.blender.nodes import Tree

# At strength 1, a matt ground that reflects half of the light is to show 0.42 of a picture's white; Blender's
# own pictures of surroundings give it from 0.08 to 1.1 (measured).
EXPOSURE = {
    "city": 0.38,
    "courtyard": 1.11,
    "forest": 0.53,
    "interior": 0.49,
    "night": 5.3,
    "studio": 1.72,
    "sunrise": 1.55,
    "sunset": 1.07,
}
# The same for the sky, whose light on such a ground goes with the sine of the sun's elevation (measured).
SKY_EXPOSURE = 0.06


def simple_lamp(lamp: dict[str, Any]) -> Any:
    """A ball of light; its data, without an object."""
    data = bpy.data.lights.new("lamp", "POINT")
    data.energy = lamp["irradiance"] * 4 * math.pi * Vector(lamp["position"]).length_squared  # in watts
    data.shadow_soft_size = lamp["radius"]
    return data


def area_lamp(lamp: dict[str, Any]) -> Any:
    """A disc that faces the origin."""
    data = bpy.data.lights.new("lamp", "AREA")
    data.shape = "DISK"
    data.size = 2 * max(lamp["radius"], 0.01)
    # A Lambertian disc of power P gives P / (pi d^2) at distance d on its axis.
    data.energy = lamp["irradiance"] * math.pi * Vector(lamp["position"]).length_squared
    return data


def new_world(name: str) -> Any:
    """A world, which the scene shows: Blender's update functions want one there."""
    world = bpy.data.worlds.new(name)
    world.use_nodes = True
    bpy.context.scene.world = world
    return world


def simple_world() -> tuple[Any, Any]:
    """A grey sky that only metal reflects, and the colour ramp that sets its horizon and zenith."""
    world = new_world("simple")
    world.cycles.sampling_method = "NONE"
    world.cycles_visibility.diffuse = False
    tree = Tree(world.node_tree)
    height = tree.add("SeparateXYZ", {0: tree.add("TexCoord").outputs["Generated"]}).outputs["Z"]
    ramp = tree.add("ValToRGB", {0: height})
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.15, 0.8
    tree.output(tree.add("Background", {"Color": ramp.outputs[0]}), "OutputWorld")
    return world, ramp.color_ramp


def make_world(lighting: dict[str, Any], image: Any = None) -> Any:
    """The surroundings of a scene that is not simply lit."""
    world = new_world(lighting["kind"])
    tree = Tree(world.node_tree)
    strength = lighting["strength"]
    if lighting["kind"] == "studio":
        world.cycles.sampling_method = "NONE"  # it is nearly even: sampling its brightest spots gains nothing
        color = studio_room(tree)
    else:
        world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", 512
        direction = tree.add("TexCoord").outputs["Generated"]
        turn = (0.0, 0.0, math.radians(lighting["rotation"]))
        if lighting["kind"] == "hdri":
            turned = tree.add(
                "Mapping", {"Vector": direction, "Rotation": turn}, vector_type="POINT"
            ).outputs[0]
            color = tree.add("TexEnvironment", {"Vector": turned}, image=image).outputs[0]
            strength *= EXPOSURE.get(lighting["image"], 1.0)
        else:
            color = sky(tree, lighting)
            strength *= SKY_EXPOSURE / max(math.sin(math.radians(lighting["elevation"])), 0.1)
    tree.output(tree.add("Background", {"Color": color, "Strength": strength}), "OutputWorld")
    return world


def studio_room(tree: Tree) -> Any:
    """A grey room, brighter overhead and in a band like windows, so that metal has something to reflect."""
    direction = tree.add("TexCoord").outputs["Generated"]
    height = tree.add("SeparateXYZ", {0: direction}).outputs["Z"]
    ramp = tree.add("ValToRGB", {0: height})
    ramp.color_ramp.elements.remove(ramp.color_ramp.elements[1])
    for number, (position, gray) in enumerate(
        ((0.0, 0.22), (0.12, 0.5), (0.35, 0.75), (0.6, 0.3), (1.0, 0.45))
    ):
        element = ramp.color_ramp.elements[0] if number == 0 else ramp.color_ramp.elements.new(position)
        element.position, element.color = position, (gray, gray, gray, 1.0)
    return ramp.outputs[0]


def sky(tree: Tree, lighting: dict[str, Any]) -> Any:
    """A clear sky with its sun; Blender 5 renamed the model."""
    node = tree.add("TexSky")
    names = {entry.identifier for entry in node.bl_rna.properties["sky_type"].enum_items}
    node.sky_type = "NISHITA" if "NISHITA" in names else "SINGLE_SCATTERING"
    node.sun_elevation = math.radians(lighting["elevation"])
    node.sun_rotation = math.radians(lighting["rotation"])
    node.sun_size = math.radians(8.0)  # larger than the real one: shadows with a soft edge
    node.sun_intensity = 0.25
    return node.outputs[0]


def environment_path(name: str) -> Path:
    """The file of a picture of surroundings that comes with Blender."""
    return Path(bpy.utils.resource_path("LOCAL")) / "datafiles" / "studiolights" / "world" / f"{name}.exr"
