"""Scenes are checked before Blender sees them, and errors name the place."""

import copy
import json
import math

import pytest

from data_gen.plan.pair import plan_pair
from data_gen.scenes import scene, schema
from data_gen.scenes.presets import RICH
from data_gen.scenes.schema import SceneError
from tests.helpers.paths import DOCS

VALID = json.loads(scene.to_json(plan_pair(RICH, 0, "train", 1, 0).scene_a))


def with_value(path, value):
    """VALID with one value replaced, or removed where it is None."""
    data = copy.deepcopy(VALID)
    *parents, last = path
    part = data
    for key in parents:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return data


def test_a_planned_scene_is_valid():
    assert scene.to_dict(scene.from_dict(VALID)).keys() == VALID.keys()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["width"], 0, r"\$\.width: 0 is less than the minimum of 8"),
        (["height"], 10**6, r"\$\.height: 1000000 is greater"),
        (["samples"], 2.5, r"\$\.samples: 2\.5 is not of type 'integer'"),
        (["version"], 1, r"\$\.version is 1; this version of data_gen reads 2"),
        (["camera"], None, r"\$: 'camera' is a required property"),
        (["camera", "lens"], "long", r"\$\.camera\.lens: 'long' is not of type 'number'"),
        (["camera", "location"], [1.0, 2.0], r"\$\.camera\.location: .* is too short"),
        (["camera", "location"], [0.0, 0.0, 9.0], r"\$\.camera: it looks straight up or down"),
        (["objects", 2, "radius"], 1e999, r"\$\.objects\[2\]\.radius"),
        (["objects", 2, "radius"], math.nan, r"\$\.objects\[2\]\.radius: nan is not a finite number"),
        (["objects", 0, "rgb"], [0, 0, 256], r"\$\.objects\[0\]\.rgb\[2\]: 256 is greater"),
        (["objects", 0, "shape"], "teapot", r"\$\.objects\[0\]\.shape: 'teapot' is n"),
        (["objects", 0, "shape"], "asset:../../etc/passwd", r"\$\.objects\[0\]\.shape"),
        (["objects", 0, "shape"], "asset:/etc/passwd", r"\$\.objects\[0\]\.shape"),
        (["objects", 0, "shape"], "asset:car.obj", r"'asset:car.obj' is not in the asset folder"),
        (["objects", 0, "material"], "jelly", r"\$\.objects\[0\]\.material: 'jelly' is not one of 'rubber'"),
        (["objects", 0, "name"], "bob", r"'name' was unexpected"),
        (["objects"], "many", r"\$\.objects: 'many' is not of type 'array'"),
        (
            ["lighting"],
            {**VALID["lighting"], "kind": "hdri", "image": ""},
            r"\$\.lighting\.image: hdri needs one of",
        ),
        (["lighting", "kind"], "simple", r"simple lighting shows"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(path, value, message):
    with pytest.raises(SceneError, match=message):
        scene.from_dict(with_value(path, value))


def test_two_objects_of_one_id_are_refused():
    data = with_value(["objects", 1, "id"], VALID["objects"][0]["id"])
    with pytest.raises(SceneError, match=r"\$\.objects\[1\]\.id: \d+ is the id of two objects"):
        scene.from_dict(data)


def test_more_objects_than_the_limit_are_refused():
    with pytest.raises(SceneError, match=r"\$\.objects"):
        scene.from_dict(with_value(["objects"], VALID["objects"] * 50))


@pytest.mark.parametrize("text", ["", "[", '{"width": NaN}', "[1, Infinity]", "[" * 100_000])
def test_text_that_is_no_json_is_an_error_of_ours(text):
    with pytest.raises(SceneError):
        scene.from_json(text)


@pytest.mark.parametrize("data", [None, 3, "x", [], [VALID], {}])
def test_values_that_are_no_scene_are_refused(data):
    with pytest.raises(SceneError):
        scene.from_dict(data)


def test_the_schema_in_docs_is_the_one_in_use():
    path = DOCS / "scene.schema.json"
    assert json.loads(path.read_text()) == schema.scene_schema(), (
        "python -m data_gen.schema > docs/scene.schema.json"
    )
