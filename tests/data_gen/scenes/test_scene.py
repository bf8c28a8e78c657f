"""A scene survives JSON, and geometry.py agrees with hand-computed projections."""

import math

import numpy as np
import pytest

from data_gen.plan.pair import plan_pair
from data_gen.scenes import geometry, scene
from data_gen.scenes.presets import TINY
from data_gen.scenes.schema import BUILT_IN_SHAPES, SceneError
from data_gen.scenes.shapes import SHAPES

BUILT_IN = {name: SHAPES[name] for name in BUILT_IN_SHAPES}
ABOVE = scene.Camera(location=(0.0, -0.001, 10.0), target=(0.0, 0.0, 0.0), lens=36.0)


def make_object(shape="cube", **fields):
    values = dict(
        id=1, shape=shape, material="rubber", color="red", rgb=(200, 0, 0), size="large", radius=1.0
    )
    return scene.Object(**{**values, **fields})


def test_a_scene_read_back_from_json_is_equal():
    planned = plan_pair(TINY, 0, "train", 0, 0).scene_a
    assert scene.from_json(scene.to_json(planned)) == planned


def test_a_scene_with_an_unknown_field_is_refused():
    text = scene.to_json(plan_pair(TINY, 0, "train", 0, 0).scene_a).replace('"lens"', '"zoom":1,"lens"')
    with pytest.raises(SceneError, match="zoom"):
        scene.from_json(text)


def test_objects_rest_on_the_ground():
    for shape, solid in BUILT_IN.items():
        resting = make_object(shape, radius=0.5).at(1.0, 2.0)
        assert resting.position == (1.0, 2.0, 0.5 * solid.half_height)
        assert geometry.outline(resting)[:, 2].min() == pytest.approx(0.0, abs=0.01)


def test_a_point_one_metre_right_of_the_centre_projects_to_a_tenth_of_the_picture():
    # 36 mm lens on a 36 mm sensor 10 m away: the picture shows 10 m of ground.
    pixels = geometry.project(ABOVE, 100, 80, np.array([(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]))
    np.testing.assert_allclose(pixels, [(50, 40), (60, 40), (50, 30)], atol=0.01)


def test_ground_point_inverts_project():
    camera = scene.Camera(location=(2.0, -9.0, 6.0), target=(0.0, 0.0, 0.0), lens=50.0)
    spot = geometry.ground_point(camera, 200, 100, (130.0, 70.0), z=0.4)
    assert spot is not None
    np.testing.assert_allclose(
        geometry.project(camera, 200, 100, np.array([(*spot, 0.4)])), [(130, 70)], atol=1e-6
    )


def test_a_pixel_above_the_horizon_has_no_ground_point():
    level = scene.Camera(location=(0.0, -9.0, 1.0), target=(0.0, 0.0, 1.0), lens=50.0)
    assert geometry.ground_point(level, 200, 100, (100.0, 20.0), z=0.0) is None


def test_a_turned_cube_is_wider_but_covers_the_same_area_from_above():
    straight, turned = make_object(), make_object(rotation=45.0)
    boxes = [geometry.silhouette_box(item, ABOVE, 100, 100) for item in (straight, turned)]
    widths = [box[2] - box[0] for box in boxes]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(2), rel=0.01)
    areas = [geometry.silhouette_area(item, ABOVE, 100, 100) for item in (straight, turned)]
    assert areas[0] == pytest.approx(areas[1], rel=0.01)


def test_the_silhouette_of_a_far_sphere_is_a_disc():
    far = scene.Camera(location=(0.0, -100.0, 0.0), target=(0.0, 0.0, 0.0), lens=360.0)  # 10 m of width there
    sphere = make_object("sphere", position=(0.0, 0.0, 0.0))
    assert geometry.silhouette_area(sphere, far, 100, 100) == pytest.approx(math.pi * 10**2, rel=0.03)


def test_box_overlap_is_the_covered_share_of_the_smaller_box():
    assert geometry.box_overlap((0, 0, 10, 10), (8, 0, 12, 5)) == pytest.approx(0.5)
    assert geometry.box_overlap((0, 0, 10, 10), (10, 0, 12, 5)) == 0.0
