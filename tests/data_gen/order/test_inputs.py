"""What a user brings to `python -m data_gen`: scenes, kinds of change, meshes."""

import json

import pytest

from data_gen.__main__ import main
from data_gen.changes import CHANGES
from data_gen.records.dataset import Dataset
from tests.data_gen.conftest import SMALL

CUBE = {"id": 1, "shape": "cube", "color": "red", "size": "large", "position": [0, 0]}
BALL = {"id": 2, "shape": "sphere", "color": "blue", "size": "large", "position": [-1.9, 0.4]}
RECOLOR = {"kind": "color", "id": 1, "set": {"color": "green"}}


@pytest.fixture
def order(fake_blender, tmp_path):
    """An order of one pair."""
    flags = ["--num_pairs=1", "--test_pairs=0", f"--blender_python={fake_blender}", "--workers=1"]
    return [*SMALL, *flags, f"--out={tmp_path / 'set'}"]


@pytest.fixture
def scenes(tmp_path):
    """Writes scenes and returns the flag that names them."""

    def write(*lines):
        path = tmp_path / "scenes.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return f"--scenes={path}"

    return write


def test_a_users_scene_with_its_changes_becomes_a_pair(order, scenes, tmp_path):
    flag = scenes({"scene": {"objects": [CUBE, BALL]}, "changes": [RECOLOR]})
    assert main([*order, flag]) == 0
    pair = Dataset(tmp_path / "set").pair("train", 0)
    assert pair.kinds == ("color",) and pair.num_objects == 2
    assert pair.scenes[0]["objects"][0]["color"] == "red" and pair.scenes[1]["objects"][0]["color"] == "green"


def test_changes_are_drawn_for_a_users_scene_without_any(order, scenes, tmp_path):
    assert main([*order, scenes({"scene": {"objects": [CUBE, BALL]}}), "--differences=1"]) == 0
    assert len(Dataset(tmp_path / "set").pair("train", 0).kinds) == 1


def test_a_users_scene_whose_change_does_not_show_fails_with_the_reason(order, scenes, tmp_path, capsys):
    flag = scenes({"scene": {"objects": [CUBE, BALL]}, "changes": [RECOLOR]})
    assert main([*order, flag, "--min_delta_e=500"]) == 1
    message = capsys.readouterr().err
    assert "faint color; " in message and "scenes.jsonl:1 says what changes, so nothing" in message
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"scene": {"objects": [{**CUBE, "shape": "cub"}]}}, "scenes.jsonl:1: $.objects[0].shape"),
        (
            {"scene": {"objects": [CUBE], "width": 640}},
            "scenes.jsonl:1: the scene is 640x64, the dataset 64x64",
        ),
        ({"scene": {"objects": [CUBE]}, "changes": [{"kind": "paint", "id": 1}]}, "$.changes[0].kind"),
    ],
)
def test_a_scene_that_is_none_is_refused_before_blender_sees_it(line, message, order, scenes, capsys):
    assert main([*order, scenes(line), "--blender_python=/no/python", "--stage=plan"]) == 2
    assert message in capsys.readouterr().err


def test_other_scenes_under_the_same_name_are_another_dataset(order, scenes, capsys):
    assert main([*order, scenes({"scene": {"objects": [CUBE]}, "changes": [RECOLOR]})]) == 0
    assert main([*order, scenes({"scene": {"objects": [CUBE, BALL]}, "changes": [RECOLOR]})]) == 2
    assert "holds another dataset (scenes.jsonl" in capsys.readouterr().err


KIND = """
import dataclasses
from data_gen.changes import Kind, register

@register
class Blacken(Kind):
    name = "blacken"

    def apply(self, rng, item, preset):
        return item, dataclasses.replace(item, color="black", rgb=(0, 0, 0))

    def sentence(self, subject, before, after, scene):
        return f"{subject} turned black"
"""


def test_a_users_kind_of_change_is_used_like_the_others(order, tmp_path):
    (tmp_path / "kinds.py").write_text(KIND)
    flags = [f"--kind_file={tmp_path / 'kinds.py'}", "--kinds=blacken", "--differences=1"]
    try:
        assert main([*order, *flags]) == 0
        assert main([*order, *flags]) == 0  # registered once, used twice
    finally:
        CHANGES.pop("blacken", None)
    pair = Dataset(tmp_path / "set").pair("train", 0)
    assert pair.kinds == ("blacken",) and pair.descriptions[0].endswith("turned black")


def test_a_missing_kind_file_is_named(order, capsys):
    assert main([*order, "--kind_file=no.py"]) == 2
    assert "no.py: no such Python file" in capsys.readouterr().err


def test_a_missing_folder_of_assets_is_named(order, capsys):
    assert main([*order, "--assets=nowhere"]) == 2
    assert "--assets=nowhere: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--objects=20-5", "expected a number or a range"),
        ("--identical=2", "expected a share from 0 to 1"),
        ("--camera_jitter=9", "camera_jitter"),
    ],
)
def test_a_setting_out_of_range_is_named(flag, message, order, capsys):
    assert main([*order, flag]) == 2
    assert message in capsys.readouterr().err
