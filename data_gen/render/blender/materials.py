"""Materials: matt rubber, metal and glass, the simple ones that need no samples, and those of the passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy

from data_gen.render.blender.nodes import Tree, linear
from data_gen.render.blender.textures import surface_color

METAL_ROUGHNESS = 0.15
IVORY, INK = (238, 232, 220), (36, 36, 42)  # second colours of textured objects
BRIGHT = 0.45  # luminance from which an object's second colour is the dark one


def new_material(name: str) -> tuple[Any, Tree]:
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    # Neither an ambient term nor a pass turns every object into a lamp that Cycles samples.
    material.cycles.emission_sampling = "NONE"
    return material, Tree(material.node_tree)


def make_material(kind: str, color: Any, tree: Tree) -> Any:
    """A surface lit by the whole scene; `color` is linear or a node output."""
    if kind == "metal":
        return tree.add("BsdfAnisotropic", {"Color": color, "Roughness": METAL_ROUGHNESS})
    if kind == "rubber":
        matt = tree.add("BsdfDiffuse", {"Color": color})
        gloss = tree.add("BsdfAnisotropic", {"Color": (1, 1, 1, 1), "Roughness": 0.45})
        fresnel = tree.add("Fresnel", {"IOR": 1.25}).outputs[0]
        return tree.mix_shader(fresnel, matt, gloss)
    if kind == "glass":
        # Light passes straight through for shadows: caustics would take thousands of samples.
        tint = tree.mix_color(0.38, color, (1, 1, 1, 1))
        glass = tree.add("BsdfGlass", {"Color": tint, "Roughness": 0.0, "IOR": 1.4})
        clear = tree.add("BsdfTransparent", {"Color": tint})
        return tree.mix_shader(tree.add("LightPath").outputs["Is Shadow Ray"], glass, clear)
    raise ValueError(f"unknown material {kind!r}; expected rubber, metal or glass")


def solid_material(item: dict[str, Any], image: Any = None) -> Any:
    """The material of an object of a scene."""
    material, tree = new_material(item["material"])
    color = linear(item["rgb"])
    if item["texture"] != "plain" and item["material"] != "glass":
        luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), color, strict=False))
        second = linear(INK if luminance > BRIGHT else IVORY)
        # A repeat as large as the object: its own coordinates run from -1 to 1.
        color = surface_color(tree, item["texture"], color, second, 2.0 if image else 1.0, image)
    tree.output(make_material(item["material"], color, tree))
    return material


def ground_material(ground: dict[str, Any], image: Any = None) -> Any:
    material, tree = new_material("ground")
    color = linear(ground["rgb"])
    if ground["texture"] != "plain":
        color = surface_color(tree, ground["texture"], color, linear(ground["rgb2"]), ground["scale"], image)
    tree.output(tree.add("BsdfDiffuse", {"Color": color}))
    return material


def simple_material(kind: str, rgb: Sequence[int], ambient: Sequence[float]) -> Any:
    """Rubber or metal that shows no noise at a few samples (see scene.Lighting)."""
    material, tree = new_material(kind)
    color = linear(rgb)
    if kind == "metal":
        surface = make_material("metal", color, tree)
    elif kind == "rubber":
        surface = add_hemisphere_light(tree, tree.add("BsdfDiffuse", {"Color": color}), color, ambient)
    else:
        raise ValueError(f"simple lighting has no material {kind!r}; expected rubber or metal")
    tree.output(surface)
    return material


def add_hemisphere_light(tree: Tree, surface: Any, color: Any, ambient: Sequence[float]) -> Any:
    """`surface` plus light that grows from `ambient[0]` facing down to `ambient[1]` facing up."""
    normal = tree.add("NewGeometry").outputs["Normal"]
    up = tree.add("SeparateXYZ", {0: normal}).outputs["Z"]
    inputs = {"Value": up, "From Min": -1.0, "From Max": 1.0}
    inputs |= {"To Min": ambient[0], "To Max": ambient[1]}
    strength = tree.add("MapRange", inputs).outputs[0]
    glow = tree.add("Emission", {"Color": color, "Strength": strength})
    return tree.add("AddShader", {0: surface.outputs[0], 1: glow.outputs[0]})


def identity_material() -> Any:
    """Glows with object id / 255, whatever the light."""
    material, tree = new_material("identity")
    number = tree.add("ObjectInfo").outputs["Object Index"]
    tree.output(tree.add("Emission", {"Strength": tree.math("DIVIDE", number, 255.0)}))
    return material


def depth_material() -> Any:
    """Glows with millimetres along the view axis / 65535: 16 bits reach 65 metres."""
    material, tree = new_material("depth")
    metres = tree.add("CameraData").outputs["View Z Depth"]
    tree.output(tree.add("Emission", {"Strength": tree.math("DIVIDE", metres, 65.535)}))
    return material
