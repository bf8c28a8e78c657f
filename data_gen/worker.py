"""The render worker: scene descriptions in, PNG files out. The only file that imports `bpy`.

Run by path under the interpreter that has Blender's `bpy` (`python worker.py --threads=1`), never imported
by the controller: bpy pins its own Python and numpy, so this file uses the standard library and bpy alone.
One JSON request per line on stdin, one JSON reply per line on stdout:

    {"op": "hello"}                                      -> {"ok": true, "bpy": "4.5.15 LTS"}
    {"op": "mask", "scene": {...}, "path": "m.png"}      -> {"ok": true}   8-bit object ids, 0 = background
    {"op": "picture", "scene": {...}, "path": "p.png"}   -> {"ok": true}   8-bit sRGB

A request that fails gives {"ok": false, "error": "..."} and the worker stays alive; it ends when stdin
closes.

Pictures are raw Cycles: fixed sample count, seed from the scene, no denoiser. That is bit-identical from
process to process and for any thread count; OIDN is not. To be clean at few samples, shading is kept nearly
free of noise: one lamp, hemisphere light as a function of the surface normal instead of sampled bounces, and
a sky only metal sees.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import traceback
from typing import Any


def parse_threads() -> int:
    parser = argparse.ArgumentParser(
        description="Render worker of data_gen; started by `python -m data_gen`."
    )
    parser.add_argument("--threads", type=int, default=1, help="render threads of this process")
    return parser.parse_args().threads


# Blender's task scheduler makes a thread for every CPU it may use when it loads. With fewer render threads
# than that, the others spin: measured with one render thread on four CPUs, a pair of 128x128 pictures takes
# 1.2 s of CPU time instead of 0.4. So the process keeps to as many CPUs as it has render threads while it
# loads, and is set free afterwards.
THREADS = parse_threads()
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if CPUS:
    first = os.getpid()  # so that workers that load at the same time do not share a CPU
    os.sched_setaffinity(0, {CPUS[(first + number) % len(CPUS)] for number in range(THREADS)})

import bpy  # noqa: E402  # isort: skip - bmesh and mathutils exist only once bpy is imported

import bmesh  # noqa: E402
from mathutils import Vector  # noqa: E402

SENSOR_WIDTH = 36.0  # millimetres, as in geometry.py
METAL_ROUGHNESS = 0.15
SEGMENTS = 64  # of round shapes: no visible corners at 448 pixels
SHARP = math.radians(50)  # edges from this angle on are rounded


def main() -> None:
    # Ctrl-C goes to the whole process group, and Cycles swallows it; the controller ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blender prints from C: keep the real stdout for replies and point descriptor 1 elsewhere.
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    studio = Studio(THREADS)
    use_all_cpus()
    for line in sys.stdin:
        try:
            reply = studio.handle(json.loads(line))
        except Exception:  # any failure belongs to this request: report it and serve the next one
            reply = {"ok": False, "error": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")
    sys.stderr.flush()
    os._exit(0)  # a normal exit of bpy 4.5 can hang in its own teardown


def use_all_cpus() -> None:
    """Undoes the limit this process started with, for all of its threads."""
    for thread in os.listdir("/proc/self/task") if CPUS else []:
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(thread), CPUS)


class Studio:
    """Blender's one scene, set up once; meshes and materials are kept between requests."""

    def __init__(self, threads: int) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene = bpy.context.scene
        self.meshes: dict[str, Any] = {}
        self.materials: dict[tuple[Any, ...], Any] = {}
        self.solids: list[Any] = []
        self.lamps: list[Any] = []
        self.camera = self._link("camera", bpy.data.cameras.new("camera"))
        self.camera.data.sensor_fit = "HORIZONTAL"
        self.camera.data.sensor_width = SENSOR_WIDTH
        self.scene.camera = self.camera
        self.ground = self._link("ground", plane_mesh(half_side=100.0))
        self.world, self.sky_ramp = make_world()
        self.mask_material = make_mask_material()
        self._set_up_cycles(threads)

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "hello":
            return {"ok": True, "bpy": bpy.app.version_string}
        if request["op"] not in ("mask", "picture"):
            raise ValueError(f"unknown op {request['op']!r}; expected hello, mask or picture")
        self.build(request["scene"])
        if request["op"] == "mask":
            self.render_mask(request["path"])
        else:
            self.render_picture(request["scene"], request["path"])
        return {"ok": True}

    def build(self, scene: dict[str, Any]) -> None:
        """Makes Blender's scene show `scene` (see scene.py)."""
        for solid in self.solids:
            bpy.data.objects.remove(solid)
        for lamp in self.lamps:
            bpy.data.lights.remove(lamp.data)  # takes the object that holds it along
        self.solids = [self._add_solid(item, scene["ambient"]) for item in scene["objects"]]
        self.lamps = [self._add_lamp(light) for light in scene["lights"]]
        self.ground.material_slots[0].material = self._material("rubber", scene["ground"], scene["ambient"])
        for element, gray in zip(self.sky_ramp.elements, scene["sky"], strict=True):
            element.color = (gray, gray, gray, 1.0)
        camera, location = scene["camera"], Vector(scene["camera"]["location"])
        self.camera.location = location
        self.camera.rotation_euler = (Vector(camera["target"]) - location).to_track_quat("-Z", "Y").to_euler()
        self.camera.data.lens = camera["lens"]
        self.scene.render.resolution_x = scene["width"]
        self.scene.render.resolution_y = scene["height"]

    def render_mask(self, path: str) -> None:
        """One sample at the centre of every pixel, of a material that glows with the object's id."""
        self.scene.view_layers[0].material_override = self.mask_material
        self.scene.world = None  # a world would leak its own value into the background
        self.scene.cycles.pixel_filter_type, self.scene.cycles.filter_width = "BOX", 0.01
        self.scene.view_settings.view_transform = "Raw"
        self.scene.render.image_settings.color_mode = "BW"
        self._render(path, samples=1, seed=0)

    def render_picture(self, scene: dict[str, Any], path: str) -> None:
        self.scene.view_layers[0].material_override = None
        self.scene.world = self.world
        self.scene.cycles.pixel_filter_type, self.scene.cycles.filter_width = "BLACKMAN_HARRIS", 1.5
        self.scene.view_settings.view_transform = "Standard"
        self.scene.render.image_settings.color_mode = "RGB"
        self._render(path, samples=scene["samples"], seed=scene["seed"])

    def _render(self, path: str, samples: int, seed: int) -> None:
        self.scene.cycles.samples = samples
        self.scene.cycles.seed = seed
        self.scene.render.filepath = path
        bpy.ops.render.render(write_still=True)

    def _set_up_cycles(self, threads: int) -> None:
        render, cycles = self.scene.render, self.scene.cycles
        render.engine = "CYCLES"
        render.resolution_percentage = 100
        render.threads_mode, render.threads = "FIXED", threads
        render.use_compositing = render.use_sequencer = render.use_stamp = False
        render.dither_intensity = 0.0
        render.image_settings.file_format, render.image_settings.color_depth = "PNG", "8"
        cycles.device = "CPU"
        cycles.use_denoising = cycles.use_adaptive_sampling = cycles.use_light_tree = False
        cycles.caustics_reflective = cycles.caustics_refractive = False
        cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 3, 0, 3
        cycles.transmission_bounces = cycles.volume_bounces = cycles.transparent_max_bounces = 0
        cycles.sample_clamp_indirect = 2.0

    def _add_solid(self, item: dict[str, Any], ambient: list[float]) -> Any:
        if item["shape"] not in self.meshes:
            self.meshes[item["shape"]] = solid_mesh(item["shape"])
        solid = self._link(f"object-{item['id']}", self.meshes[item["shape"]])
        solid.material_slots[0].link = "OBJECT"  # the mesh is shared, the material is not
        solid.material_slots[0].material = self._material(item["material"], item["rgb"], ambient)
        solid.pass_index = item["id"]
        solid.scale = (item["radius"],) * 3
        solid.location = item["position"]
        solid.rotation_euler = (0.0, 0.0, math.radians(item["rotation"]))
        return solid

    def _add_lamp(self, light: dict[str, Any]) -> Any:
        data = bpy.data.lights.new("lamp", "POINT")
        position = Vector(light["position"])
        data.energy = light["irradiance"] * 4 * math.pi * position.length_squared  # in watts
        data.shadow_soft_size = light["radius"]
        lamp = self._link("lamp", data)
        lamp.location = position
        lamp.visible_camera = False
        return lamp

    def _material(self, kind: str, rgb: list[int], ambient: list[float]) -> Any:
        key = (kind, *rgb, *ambient)
        if key not in self.materials:
            self.materials[key] = make_material(kind, rgb, ambient)
        return self.materials[key]

    def _link(self, name: str, data: Any) -> Any:
        item = bpy.data.objects.new(name, data)
        if isinstance(data, bpy.types.Mesh):
            item.visible_diffuse = (
                False  # matt surfaces get indirect light from `ambient`, which has no noise
            )
        self.scene.collection.objects.link(item)
        return item


def plane_mesh(half_side: float) -> Any:
    mesh = bmesh.new()
    bmesh.ops.create_grid(mesh, x_segments=1, y_segments=1, size=half_side)
    return finish_mesh(mesh, "plane")


def solid_mesh(shape: str) -> Any:
    """The shape of radius 1 centred at the origin, its edges slightly rounded; as geometry.unit_outline."""
    mesh = bmesh.new()
    if shape == "cube":
        bmesh.ops.create_cube(mesh, size=2**0.5)
    elif shape == "sphere":
        bmesh.ops.create_uvsphere(mesh, u_segments=SEGMENTS, v_segments=SEGMENTS // 2, radius=1.0)
    elif shape == "cylinder":
        add_cone(mesh, bottom=0.85, top=0.85, height=1.7)
    elif shape == "cone":
        # Cut off at the tip: a shared apex would have one normal for all sides and shade like a ball.
        add_cone(mesh, bottom=0.95, top=0.02, height=2.2)
    else:
        raise ValueError(f"unknown shape {shape!r}; expected cube, sphere, cylinder or cone")
    sharp = [edge for edge in mesh.edges if edge.calc_face_angle() > SHARP and edge.calc_length() > 0.05]
    if sharp:
        bmesh.ops.bevel(mesh, geom=sharp, offset=0.04, segments=4, profile=0.5, affect="EDGES")
    return finish_mesh(mesh, shape)


def add_cone(mesh: Any, bottom: float, top: float, height: float) -> None:
    bmesh.ops.create_cone(mesh, cap_ends=True, segments=SEGMENTS, radius1=bottom, radius2=top, depth=height)


def finish_mesh(mesh: Any, name: str) -> Any:
    """A mesh that is shaded smooth where it is round, with an empty slot for each object's own material."""
    for face in mesh.faces:
        face.smooth = True
    data = bpy.data.meshes.new(name)
    mesh.to_mesh(data)
    mesh.free()
    # Rounded edges stay apart from flat faces: shared normals would bend the faces' reflections.
    data.set_sharp_from_angle(angle=math.radians(12))
    data.materials.append(None)
    return data


def make_material(kind: str, rgb: list[int], ambient: list[float]) -> Any:
    material = bpy.data.materials.new(kind)
    material.use_nodes = True
    # An ambient term must not turn every object into a lamp that Cycles samples.
    material.cycles.emission_sampling = "NONE"
    tree = material.node_tree
    tree.nodes.clear()
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    color = (*(srgb_to_linear(value / 255) for value in rgb), 1.0)
    if kind == "metal":
        surface = tree.nodes.new("ShaderNodeBsdfAnisotropic")
        surface.inputs["Roughness"].default_value = METAL_ROUGHNESS
    elif kind == "rubber":
        surface = tree.nodes.new("ShaderNodeBsdfDiffuse")
    else:
        raise ValueError(f"unknown material {kind!r}; expected rubber or metal")
    surface.inputs["Color"].default_value = color
    if kind == "rubber":
        surface = add_hemisphere_light(tree, surface, color, ambient)
    tree.links.new(surface.outputs[0], output.inputs["Surface"])
    return material


def add_hemisphere_light(tree: Any, surface: Any, color: tuple[float, ...], ambient: list[float]) -> Any:
    """`surface` plus light that grows from `ambient[0]` facing down to `ambient[1]` facing up."""
    normal = tree.nodes.new("ShaderNodeNewGeometry")
    split = tree.nodes.new("ShaderNodeSeparateXYZ")
    ramp = tree.nodes.new("ShaderNodeMapRange")
    glow = tree.nodes.new("ShaderNodeEmission")
    both = tree.nodes.new("ShaderNodeAddShader")
    for socket, value in zip(
        ("From Min", "From Max", "To Min", "To Max"), (-1.0, 1.0, *ambient), strict=True
    ):
        ramp.inputs[socket].default_value = value
    glow.inputs["Color"].default_value = color
    tree.links.new(normal.outputs["Normal"], split.inputs[0])
    tree.links.new(split.outputs["Z"], ramp.inputs["Value"])
    tree.links.new(ramp.outputs[0], glow.inputs["Strength"])
    tree.links.new(surface.outputs[0], both.inputs[0])
    tree.links.new(glow.outputs[0], both.inputs[1])
    return both


def make_world() -> tuple[Any, Any]:
    """A grey sky that only metal reflects, and the colour ramp that sets its horizon and zenith."""
    world = bpy.data.worlds.new("sky")
    world.use_nodes = True
    world.cycles.sampling_method = "NONE"
    world.cycles_visibility.diffuse = False
    tree = world.node_tree
    coordinates = tree.nodes.new("ShaderNodeTexCoord")
    split = tree.nodes.new("ShaderNodeSeparateXYZ")
    ramp = tree.nodes.new("ShaderNodeValToRGB")
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.15, 0.8
    tree.links.new(coordinates.outputs["Generated"], split.inputs[0])
    tree.links.new(split.outputs["Z"], ramp.inputs[0])
    tree.links.new(ramp.outputs[0], tree.nodes["Background"].inputs["Color"])
    return world, ramp.color_ramp


def make_mask_material() -> Any:
    """Glows with object id / 255, whatever the light."""
    material = bpy.data.materials.new("mask")
    material.use_nodes = True
    material.cycles.emission_sampling = "NONE"
    tree = material.node_tree
    tree.nodes.clear()
    info = tree.nodes.new("ShaderNodeObjectInfo")
    divide = tree.nodes.new("ShaderNodeMath")
    divide.operation = "DIVIDE"
    divide.inputs[1].default_value = 255.0
    glow = tree.nodes.new("ShaderNodeEmission")
    output = tree.nodes.new("ShaderNodeOutputMaterial")
    tree.links.new(info.outputs["Object Index"], divide.inputs[0])
    tree.links.new(divide.outputs[0], glow.inputs["Strength"])
    tree.links.new(glow.outputs[0], output.inputs["Surface"])
    return material


def srgb_to_linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


if __name__ == "__main__":
    main()
