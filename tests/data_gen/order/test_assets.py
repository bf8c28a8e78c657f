"""A folder of the user's meshes and pictures: what is listed, what is refused, and that Blender shows it."""

import dataclasses
import subprocess

import numpy as np
import pytest
from PIL import Image

from data_gen.order import assets
from data_gen.records import truth
from data_gen.render.controller import Worker, WorkerError
from data_gen.render.pair import Renderer, decode
from data_gen.scenes import scene
from data_gen.scenes.geometry import silhouette_area
from data_gen.scenes.presets import RICH
from data_gen.scenes.shapes import SHAPES

# A box of 4 x 2 x 1 that stands far from the origin.
CORNERS = [(x, y, z) for x in (10, 14) for y in (5, 7) for z in (3, 4)]
FACES = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
# Blender's importer reads y as up.
OBJ = "".join(f"v {x} {z} {-y}\n" for x, y, z in CORNERS) + "".join(
    f"f {' '.join(map(str, face))}\n" for face in FACES
)
PLY = (
    f"ply\nformat ascii 1.0\nelement vertex {len(CORNERS)}\n"
    "property float x\nproperty float y\nproperty float z\n"
    f"element face {len(FACES)}\nproperty list uchar int vertex_indices\nend_header\n"
    + "".join(f"{x} {y} {z}\n" for x, y, z in CORNERS)
    + "".join(f"4 {' '.join(str(corner - 1) for corner in face)}\n" for face in FACES)
)

# Has Blender write the box in its own formats, and a white picture as OpenEXR: SOURCE.obj FOLDER.
CONVERT = """
import sys
import bpy
source, folder = sys.argv[-2:]
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.wm.obj_import(filepath=source)
bpy.ops.wm.save_as_mainfile(filepath=f"{folder}/box.blend")
bpy.ops.preferences.addon_enable(module="io_scene_gltf2")
bpy.ops.export_scene.gltf(filepath=f"{folder}/box.glb")
room = bpy.data.images.new("room", 2, 1, float_buffer=True)
room.pixels = [1.0] * 8
room.file_format, room.filepath_raw = "OPEN_EXR", f"{folder}/bright.exr"
room.save()
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of each sort, and one that is none."""
    root = tmp_path / "mine"
    (root / "toys").mkdir(parents=True)
    (root / "toys" / "Brick-box_1.obj").write_text(OBJ)
    (root / "box.ply").write_text(PLY)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
        root / "skin.png"
    )
    Image.new("RGB", (8, 4), (255, 255, 255)).save(root / "preview.jpg")
    # The smallest picture in Radiance's format: 2 x 1 pixels of white light.
    (root / "room.hdr").write_bytes(
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 2\n" + bytes((128, 128, 128, 129)) * 2
    )
    return root


def test_a_folder_is_listed_by_what_its_files_are(folder):
    found = assets.scan(folder)
    assert found.shapes == ("asset:box.ply", "asset:toys/Brick-box_1.obj")
    assert found.textures == ("asset:skin.png",) and found.environments == ("asset:room.hdr",)
    extended = assets.extend(RICH, found)
    assert set(found.shapes) < set(extended.shapes) and "asset:room.hdr" in extended.environments


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (tmp_path / "secret.obj").write_text(OBJ)
    (folder / "toys" / "link.obj").symlink_to(tmp_path / "secret.obj")
    with pytest.raises(ValueError, match=r"link\.obj is a link to a file outside"):
        assets.scan(folder)


@pytest.mark.parametrize(("name", "message"), [("empty.obj", "0 bytes"), ("na;me.obj", "letters, digits")])
def test_files_that_cannot_be_used_are_named(name, message, folder):
    (folder / name).write_text("" if name == "empty.obj" else OBJ)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        assets.scan(folder)


def test_a_folder_without_assets_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no file to use"):
        assets.scan(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        assets.scan(tmp_path / "none")


def test_blender_shows_the_users_files(folder, blender, tmp_path):
    source = str(folder / "toys" / "Brick-box_1.obj")
    subprocess.run([blender.executable, "-c", CONVERT, source, str(folder)], check=True, capture_output=True)
    (folder / "broken.glb").write_text("no glTF")
    found = assets.scan(folder)
    assert {name.rpartition(".")[2] for name in found.shapes} == {"obj", "ply", "glb", "blend"}
    camera = scene.Camera((1.0, -8.0, 6.0), (0.0, 0.0, 0.0), 60.0)
    good = dataclasses.replace(found, shapes=tuple(n for n in found.shapes if "broken" not in n))
    try:
        with Worker(blender.command(1, f"--assets={folder}"), timeout=60) as worker:
            assets.register(worker, good)
            renderer = Renderer(worker, tmp_path)
            for name in good.shapes:
                assert SHAPES[name].half_height == pytest.approx(0.5 / 5**0.5, abs=1e-4)  # of a 4 x 2 x 1 box
                item = scene.Object(
                    5, name, "rubber", "red", (200, 0, 0), "large", 1.2, texture="asset:skin.png"
                )
                room = "asset:bright.exr" if name.endswith(".blend") else "asset:room.hdr"
                lighting = scene.Lighting("hdri", image=room)
                shown = scene.Scene(120, 90, 2, 0, camera, lighting, (item.at(0.2, 0.1),))
                assert scene.from_json(scene.to_json(shown)) == shown
                mask = decode(renderer.render("mask", shown))
                area = silhouette_area(shown.objects[0], camera, 120, 90)
                assert np.count_nonzero(mask == 5) == pytest.approx(area, rel=0.05)
                picture = decode(renderer.render("picture", shown))
                plain = dataclasses.replace(
                    shown, objects=(dataclasses.replace(shown.objects[0], texture="plain"),)
                )
                distance = truth.delta_e(picture, decode(renderer.render("picture", plain)))
                assert distance[mask == 5].mean() > 10
                assert picture[mask == 0].mean() > 60  # the room gives light
            assert shown.objects[0].name.endswith("rubber brick box 1")  # the last: of toys/Brick-box_1.obj
            with pytest.raises(WorkerError, match=r"measure.:\s*asset:broken\.glb: .*Bad glTF"):
                assets.register(worker, dataclasses.replace(found, shapes=("asset:broken.glb",)))
            with pytest.raises(WorkerError, match="no such file in the asset folder"):
                assets.register(worker, dataclasses.replace(found, shapes=("asset:../secret.obj",)))
    finally:
        for name in found.shapes:
            SHAPES.pop(name, None)
