"""Blender's one scene: makes it show a scene of ours, and renders its passes and its picture.

Pictures of simple lighting are raw Cycles: fixed sample count, seed from the scene, no denoiser. That is
bit-identical from process to process and for any number of threads. Others are cleaned by OpenImageDenoise,
which is so up to 1/255.

What stays the same from one request to the next is kept: meshes, materials, surroundings, and the objects
and lamps that both scenes of a pair share. Cycles' own `use_persistent_data` stays off: measured no faster
here, and pictures differ by up to 10/255 from those of a fresh session.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import bpy
from mathutils import Vector

from data_gen.render.blender import Refused, lights, materials
from data_gen.render.blender.assets import Assets, measure
from data_gen.render.blender.device import use_device
from data_gen.render.blender.meshes import plane_mesh, solid_mesh

SENSOR_WIDTH = 36.0  # millimetres, as in geometry.py
MAX_KEPT = 500  # materials; then all are made anew, so that a long run does not grow


class Studio:
    """Set up once; meshes, materials, surroundings and objects that stay the same are kept between requests.

    Args:
      threads: of the renderer.
      device: cpu, cuda or optix.
      assets: the user's folder of meshes and pictures.

    Raises Refused when the device is not there.
    """

    def __init__(self, threads: int, device: str, assets: Path | None) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene = bpy.context.scene
        self.device = device
        self.assets = Assets(assets)
        self.meshes: dict[str, Any] = {}
        self.materials: dict[str, Any] = {}
        self.solids: dict[str, Any] = {}  # by the JSON of an object
        self.lamps: dict[str, Any] = {}
        self.worlds: dict[str, Any] = {}
        self.camera = self._link("camera", bpy.data.cameras.new("camera"))
        self.camera.data.sensor_fit = "HORIZONTAL"
        self.camera.data.sensor_width = SENSOR_WIDTH
        self.scene.camera = self.camera
        self.ground = self._link("ground", plane_mesh(half_side=100.0))
        self.simple_world, self.sky_ramp = lights.simple_world()
        self.passes = {"mask": materials.identity_material(), "depth": materials.depth_material()}
        self._set_up_cycles(threads)

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Serves one request of worker.py's protocol."""
        op = request["op"]
        if op == "hello":
            return {"ok": True, "bpy": bpy.app.version_string, "device": self.device}
        if op == "measure":
            return {"ok": True, **measure(self._mesh(request["shape"]))}
        if op not in ("mask", "depth", "picture", "silhouettes"):
            raise ValueError(
                f"unknown op {op!r}; expected hello, measure, mask, depth, picture or silhouettes"
            )
        self.build(request["scene"])
        if "window" in request:
            self.look_at(request["scene"], request["window"], request["pixels"])
        if op == "picture":
            self.render_picture(request["scene"], request["path"])
        elif op == "silhouettes":
            self.render_silhouettes(request["scene"], request["boxes"], request["path"])
        else:
            self.render_pass(op, request["path"])
        return {"ok": True}

    def build(self, scene: dict[str, Any]) -> None:
        """Makes Blender's scene show `scene` (see data_gen/scenes/scene.py); what is there already stays."""
        if len(self.materials) > MAX_KEPT:
            self._forget()
        lighting = scene["lighting"]
        self._update(
            self.solids, [(key(item, lighting), item) for item in scene["objects"]], self._add_solid, lighting
        )
        lamps = [(f"{number}{key(lamp, lighting)}", lamp) for number, lamp in enumerate(lighting["lamps"])]
        self._update(self.lamps, lamps, self._add_lamp, lighting)
        self.ground.material_slots[0].material = self._ground_material(scene["ground"], lighting)
        self.ground.visible_diffuse = lighting["kind"] != "simple"
        self.world = self._world(lighting)
        camera, location = scene["camera"], Vector(scene["camera"]["location"])
        self.camera.location = location
        self.camera.rotation_euler = (Vector(camera["target"]) - location).to_track_quat("-Z", "Y").to_euler()
        self.camera.data.lens = camera["lens"]
        self.camera.data.shift_x = self.camera.data.shift_y = 0.0
        self.scene.render.resolution_x = scene["width"]
        self.scene.render.resolution_y = scene["height"]

    def look_at(self, scene: dict[str, Any], window: list[float], pixels: int) -> None:
        """Has the camera see a square of the picture alone: x0, y0, x1, y1 in its pixels, `pixels` a side.

        A longer lens and a shifted sensor: the place, the direction and so the perspective stay.
        """
        x0, y0, x1, y1 = window
        side = x1 - x0
        self.camera.data.lens = scene["camera"]["lens"] * scene["width"] / side
        self.camera.data.shift_x = ((x0 + x1) - scene["width"]) / 2 / side
        self.camera.data.shift_y = (scene["height"] - (y0 + y1)) / 2 / side
        self.scene.render.resolution_x = self.scene.render.resolution_y = pixels

    def render_pass(self, kind: str, path: str) -> None:
        """One sample at the centre of every pixel, of a material that glows with the object's id or depth."""
        self.scene.view_layers[0].material_override = self.passes[kind]
        self.scene.world = None  # a world would leak its own value into the background
        self.scene.cycles.pixel_filter_type, self.scene.cycles.filter_width = "BOX", 0.01
        self.scene.cycles.use_denoising = False
        self.scene.view_settings.view_transform = "Raw"
        settings = self.scene.render.image_settings
        settings.color_mode, settings.color_depth = "BW", "16" if kind == "depth" else "8"
        self._render(path, samples=1, seed=0)

    def render_silhouettes(self, scene: dict[str, Any], boxes: dict[str, list[float]], path: str) -> None:
        """The mask of each object alone, rendered within its box only, to `path`.ID.png."""
        render = self.scene.render
        width, height = scene["width"], scene["height"]
        by_id = {str(solid.pass_index): solid for solid in self.solids.values()}
        render.use_border = render.use_crop_to_border = True
        try:
            for number, (x0, y0, x1, y1) in boxes.items():
                for other, solid in by_id.items():
                    solid.hide_render = other != number
                render.border_min_x, render.border_max_x = x0 / width, x1 / width
                render.border_min_y, render.border_max_y = 1 - y1 / height, 1 - y0 / height
                self.render_pass("mask", f"{path}.{number}.png")
        finally:
            render.use_border = render.use_crop_to_border = False
            for solid in by_id.values():
                solid.hide_render = False

    def render_picture(self, scene: dict[str, Any], path: str) -> None:
        cycles = self.scene.cycles
        self.scene.view_layers[0].material_override = None
        self.scene.world = self.world
        cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
        cycles.use_denoising = scene["denoise"]
        self.scene.view_settings.view_transform = "Standard"
        settings = self.scene.render.image_settings
        settings.color_mode, settings.color_depth = "RGB", "8"
        simple = scene["lighting"]["kind"] == "simple"
        cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = (3, 0, 3) if simple else (8, 2, 3)
        cycles.transmission_bounces = cycles.transparent_max_bounces = 0 if simple else 6
        cycles.sample_clamp_indirect = 2.0 if simple else 5.0
        self._render(path, samples=scene["samples"], seed=scene["seed"])

    def _render(self, path: str, samples: int, seed: int) -> None:
        self.scene.cycles.samples = samples
        self.scene.cycles.seed = seed
        self._write_to(path)
        bpy.ops.render.render(write_still=True)

    def _write_to(self, path: str) -> None:
        """Sets the file to write, whatever is in its path. Raises Refused for one too long for Blender."""
        path = f"/{path.lstrip('/')}" if path.startswith("//") else path  # "//" is Blender's own mark
        if bpy.app.version >= (4, 5):  # from then on {name} is a variable, and a doubled brace is a brace
            path = path.replace("{", "{{").replace("}", "}}")
        self.scene.render.filepath = path
        if self.scene.render.filepath != path:
            raise Refused(f"the path is too long for Blender: {path}; name a shorter --out")

    def _set_up_cycles(self, threads: int) -> None:
        render, cycles = self.scene.render, self.scene.cycles
        render.engine = "CYCLES"
        render.resolution_percentage = 100
        render.threads_mode, render.threads = "FIXED", threads
        render.use_compositing = render.use_sequencer = render.use_stamp = False
        render.dither_intensity = 0.0
        render.image_settings.file_format = "PNG"
        use_device(self.scene, self.device)
        cycles.use_adaptive_sampling = cycles.use_light_tree = False
        cycles.caustics_reflective = cycles.caustics_refractive = False
        cycles.volume_bounces = 0
        cycles.denoiser, cycles.denoising_input_passes = "OPENIMAGEDENOISE", "RGB_ALBEDO_NORMAL"
        cycles.denoising_prefilter, cycles.denoising_quality = "FAST", "HIGH"

    def _update(
        self, kept: dict[str, Any], wanted: list[tuple[str, Any]], add: Any, lighting: dict[str, Any]
    ) -> None:
        """Removes the objects that are not wanted any more and adds the new ones."""
        names = {name for name, _ in wanted}
        for name in [name for name in kept if name not in names]:
            item = kept.pop(name)
            if item.type == "LIGHT":
                bpy.data.lights.remove(item.data)  # takes the object that holds it along
            else:
                bpy.data.objects.remove(item)
        for name, data in wanted:
            if name not in kept:
                kept[name] = add(data, lighting)

    def _add_solid(self, item: dict[str, Any], lighting: dict[str, Any]) -> Any:
        solid = self._link(f"object-{item['id']}", self._mesh(item["shape"]))
        # Simple lighting gives matt surfaces their indirect light without bounces.
        solid.visible_diffuse = lighting["kind"] != "simple"
        solid.material_slots[0].link = "OBJECT"  # the mesh is shared, the material is not
        solid.material_slots[0].material = self._solid_material(item, lighting)
        solid.pass_index = item["id"]
        solid.scale = (item["radius"],) * 3
        solid.location = item["position"]
        solid.rotation_euler = (0.0, 0.0, math.radians(item["rotation"]))
        return solid

    def _add_lamp(self, lamp: dict[str, Any], lighting: dict[str, Any]) -> Any:
        simple = lighting["kind"] == "simple"
        item = self._link("lamp", lights.simple_lamp(lamp) if simple else lights.area_lamp(lamp))
        item.location = lamp["position"]
        item.rotation_euler = (-Vector(lamp["position"])).to_track_quat("-Z", "Y").to_euler()
        item.visible_camera = False
        return item

    def _mesh(self, name: str) -> Any:
        if name not in self.meshes:
            self.meshes[name] = self.assets.mesh(name) if name.startswith("asset:") else solid_mesh(name)
        return self.meshes[name]

    def _solid_material(self, item: dict[str, Any], lighting: dict[str, Any]) -> Any:
        if lighting["kind"] == "simple":
            return self._simple_material(item["material"], item["rgb"], lighting)
        name = key([item["material"], item["texture"], item["rgb"]])
        if name not in self.materials:
            self.materials[name] = materials.solid_material(item, self._texture_image(item["texture"]))
        return self.materials[name]

    def _ground_material(self, ground: dict[str, Any], lighting: dict[str, Any]) -> Any:
        if lighting["kind"] == "simple":
            return self._simple_material("rubber", ground["rgb"], lighting)
        name = key(ground)
        if name not in self.materials:
            self.materials[name] = materials.ground_material(ground, self._texture_image(ground["texture"]))
        return self.materials[name]

    def _simple_material(self, kind: str, rgb: list[int], lighting: dict[str, Any]) -> Any:
        name = key([kind, rgb, lighting["ambient"]])
        if name not in self.materials:
            self.materials[name] = materials.simple_material(kind, rgb, lighting["ambient"])
        return self.materials[name]

    def _texture_image(self, texture: str) -> Any:
        return self.assets.image(texture) if texture.startswith("asset:") else None

    def _world(self, lighting: dict[str, Any]) -> Any:
        if lighting["kind"] == "simple":
            for element, gray in zip(self.sky_ramp.elements, lighting["horizon"], strict=True):
                element.color = (gray, gray, gray, 1.0)
            return self.simple_world
        name = key({**lighting, "lamps": None})
        if name not in self.worlds:  # one at a time is enough: a pair has one
            old = list(self.worlds.values())
            image = self.assets.image(lighting["image"]) if lighting["kind"] == "hdri" else None
            self.worlds = {name: lights.make_world(lighting, image)}
            for world in old:
                bpy.data.worlds.remove(world)
        return self.worlds[name]

    def _forget(self) -> None:
        """Drops all objects and materials."""
        for solid in self.solids.values():
            bpy.data.objects.remove(solid)
        for material in self.materials.values():
            bpy.data.materials.remove(material)
        self.solids, self.materials = {}, {}

    def _link(self, name: str, data: Any) -> Any:
        item = bpy.data.objects.new(name, data)
        self.scene.collection.objects.link(item)
        return item


def key(value: Any, lighting: dict[str, Any] | None = None) -> str:
    """A name for JSON values under which what is made of them is kept.

    Objects and lamps look different in simple lighting.
    """
    simple = lighting["ambient"] if lighting and lighting["kind"] == "simple" else None
    return json.dumps([value, simple])
