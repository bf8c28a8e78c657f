"""What runs inside Blender agrees with what planning and ground truth believe of it."""

import dataclasses

import numpy as np
import pytest

from data_gen.records import truth
from data_gen.render.controller import Worker, WorkerError
from data_gen.render.pair import Renderer, decode
from data_gen.scenes import scene
from data_gen.scenes.geometry import silhouette_area, silhouette_box
from data_gen.scenes.schema import BUILT_IN_SHAPES, TEXTURES
from data_gen.scenes.shapes import SHAPES

CAMERA = scene.Camera(location=(1.0, -8.0, 6.0), target=(0.0, 0.0, 0.0), lens=60.0)


@pytest.fixture(scope="module")
def renderer(blender, tmp_path_factory):
    with Worker(blender.command(1), timeout=120) as worker:
        yield Renderer(worker, tmp_path_factory.mktemp("renders"))


STUDIO = scene.Lighting("studio")


def make_scene(*objects, width=160, height=120, lighting=STUDIO, **fields):
    return scene.Scene(width, height, 1, 0, CAMERA, lighting, tuple(objects), **fields)


def make_object(number=1, shape="cube", x=0.2, y=0.4, **fields):
    values = {"material": "rubber", "color": "red", "rgb": (200, 0, 0), "size": "large", "radius": 0.9}
    return scene.Object(number, shape, rotation=30.0, **(values | fields)).at(x, y)


@pytest.mark.parametrize("shape", BUILT_IN_SHAPES)
def test_the_mask_of_a_shape_has_the_planned_box(shape, renderer):
    item = make_object(7, shape)
    mask = decode(renderer.render("mask", make_scene(item)))
    assert set(np.unique(mask)) == {0, 7}
    planned = np.array(silhouette_box(item, CAMERA, 160, 120))
    # The outlines of these two are cylinders around them.
    slack = 12 if shape in ("monkey", "spring") else 2.5
    box = np.array(truth.mask_box(mask == 7))
    np.testing.assert_allclose(box, planned, atol=slack)
    assert (box[:2] >= planned[:2] - 2).all() and (box[2:] <= planned[2:] + 2).all()
    assert item.position[2] == pytest.approx(0.9 * SHAPES[shape].half_height)


@pytest.mark.parametrize("shape", [name for name in BUILT_IN_SHAPES if SHAPES[name].convex])
def test_a_convex_shapes_area_follows_from_its_outline(shape, renderer):
    item = make_object(1, shape)
    area = np.count_nonzero(decode(renderer.render("mask", make_scene(item))))
    assert area == pytest.approx(silhouette_area(item, CAMERA, 160, 120), rel=0.05)


def test_hidden_parts_count_in_a_silhouette(renderer):
    behind, before = make_object(1, "torus", 0, 0.8), make_object(2, "cube", 0.3, -0.9)
    together = decode(renderer.render("mask", make_scene(behind, before)))
    alone = decode(renderer.render("mask", make_scene(behind)))
    areas = renderer.areas(make_scene(behind, before))
    assert areas[1] == np.count_nonzero(alone) > np.count_nonzero(together == 1)


def test_depth_is_in_millimetres_along_the_view_axis(renderer):
    depth = decode(renderer.render("depth", make_scene()))
    # The camera looks at the origin, which is in the middle of the picture.
    assert depth.dtype == np.uint16 or depth.max() > 255
    assert depth[60, 80] == pytest.approx(1000 * np.linalg.norm(CAMERA.location), abs=60)


def test_every_texture_shows_two_colours(renderer):
    plain = decode(renderer.render("picture", make_scene(make_object(), width=64, height=48)))
    for texture in TEXTURES:
        item = make_object(texture=texture)
        shown = decode(renderer.render("picture", make_scene(item, width=64, height=48)))
        mask = decode(renderer.render("mask", make_scene(item, width=64, height=48))) > 0
        distance = truth.delta_e(plain, shown)[mask]
        assert (distance > 10).mean() > 0.05 and np.ptp(distance) > 25, texture


def test_a_scene_renders_to_the_same_picture_again_whatever_came_between(renderer):
    first = make_scene(make_object(), width=64, height=48, lighting=scene.Lighting("sky"))
    other = dataclasses.replace(first, lighting=scene.Lighting("hdri", image="forest"), objects=())
    once, _, again = (decode(renderer.render("picture", part)).astype(int) for part in (first, other, first))
    assert np.abs(once - again).max() <= 1


def test_a_missing_gpu_is_an_error_that_names_the_flag(blender):
    command = blender.command(1, "--device=optix")
    with (
        Worker(command, timeout=60) as worker,
        pytest.raises(WorkerError, match="--device=optix: Cycles finds no"),
    ):
        worker.ask({"op": "hello"})
