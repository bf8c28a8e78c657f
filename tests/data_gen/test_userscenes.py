"""A user's scenes: what they leave out is filled in, and errors name file, line and place."""

import json

import pytest

from data_gen import userscenes
from data_gen.plan import Rejected
from data_gen.presets import CLEVR, RICH

CUBE = {"id": 1, "shape": "cube", "color": "red", "size": "large", "position": [0, 0]}
VASE = {"id": 2, "shape": "vase", "color": "blue", "size": "small", "position": [2, 1]}
CONE = {"id": 3, "shape": "cone", "color": "green", "size": "small", "position": [-2, 1]}


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def plan(preset, user, index=0):
    for attempt in range(30):
        try:
            return userscenes.plan_user_pair(preset, user, 0, "train", index, attempt)
        except Rejected:
            continue
    raise AssertionError("30 attempts without a plan")


def test_what_a_scene_leaves_out_comes_from_the_preset(tmp_path):
    (user,) = userscenes.read(write(tmp_path / "a.jsonl", {"scene": {"objects": [CUBE]}}), CLEVR)
    (cube,) = user.scene.objects
    assert (user.scene.width, user.scene.height, user.scene.samples) == (480, 320, 16)
    assert cube.rgb == CLEVR.colors["red"] and cube.radius == 0.7 and cube.material == "rubber"
    assert cube.position[2] == pytest.approx(0.7 * 0.5**0.5)
    assert user.scene.lighting.kind == "studio" and not user.fixed


def test_parts_of_camera_and_light_may_be_left_out(tmp_path):
    scene = {"objects": [CUBE], "lighting": {"kind": "sky"}, "camera": {"lens": 80}}
    (user,) = userscenes.read(write(tmp_path / "a.jsonl", {"scene": scene}), CLEVR)
    assert user.scene.lighting.kind == "sky" and user.scene.lighting.lamps == ()
    assert user.scene.camera.lens == 80


def test_differences_are_drawn_into_a_scene_without_changes(tmp_path):
    line = {"scene": {"objects": [CUBE, VASE, CONE]}}
    (user,) = userscenes.read(write(tmp_path / "a.jsonl", line), RICH)
    kinds = set()
    for index in range(20):
        pair = plan(RICH, user, index)
        assert pair.scene_a.objects == user.scene.objects or any(c.kind == "add" for c in pair.changes)
        assert {item.id for item in pair.scene_a.objects} == {1, 2, 3}
        assert pair == plan(RICH, user, index)
        changed = {change.object_id for change in pair.changes}
        assert len(changed) == len(pair.changes) and {1, 2, 3} - changed  # something stays as it is
        kinds |= {change.kind for change in pair.changes}
    assert len(kinds) > 5


def test_changes_that_are_given_are_made(tmp_path):
    changes = [
        {"kind": "color", "id": 1, "set": {"color": "green"}},
        {"kind": "remove", "id": 2},
        {"kind": "add", "object": {**CONE, "id": 9}},
        {"kind": "size", "id": 3, "set": {"size": "large"}},
    ]
    line = {"scene": {"objects": [CUBE, VASE, CONE]}, "changes": changes}
    (user,) = userscenes.read(write(tmp_path / "a.jsonl", line), CLEVR)
    pair = plan(CLEVR, user)
    assert user.fixed and [change.kind for change in pair.changes] == ["color", "remove", "add", "size"]
    after = {item.id: item for item in pair.scene_b.objects}
    assert set(after) == {1, 3, 9}
    assert after[1].rgb == RICH.colors["green"] or after[1].rgb == CLEVR.colors["green"]
    assert after[3].radius == 0.7 and after[3].position[2] == pytest.approx(0.7 * 1.1)  # still on the ground
    assert [change.description for change in pair.changes][:2] == [
        "the cube became green",
        "the vase was removed",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"),
        ("[]", r':2: \$: expected {"scene"'),
        ({"scene": {"objects": [{**CUBE, "color": "beige"}]}}, r"objects\[0\]\.color: 'beige' is not one of"),
        ({"scene": {"objects": [{**CUBE, "color": ["red"]}]}}, r"objects\[0\]\.color"),
        ({"scene": {"objects": [{**CUBE, "shape": "teapot"}]}}, r"objects\[0\]\.(shape|position)"),
        ({"scene": {"objects": [CUBE, CUBE]}}, "1 is the id of two objects"),
        ({"scene": {"objects": 7}}, r"\$\.scene: expected an object with a list"),
        ({"scene": {"objects": [7]}}, r"objects\[0\]: expected an object"),
        ({"scene": {"objects": [CUBE], "fog": 1}}, "'fog' was unexpected"),
        (
            {"scene": {"objects": [CUBE]}, "changes": [{"kind": "melt", "id": 1}]},
            r"changes\[0\]\.kind: expected one",
        ),
        ({"scene": {"objects": [CUBE]}, "changes": [{"kind": "remove", "id": 5}]}, "scene A has no object 5"),
        (
            {"scene": {"objects": [CUBE]}, "changes": [{"kind": "color", "id": 1, "set": {"color": "red"}}]},
            r"changes\[0\]\.set changes nothing",
        ),
        (
            {"scene": {"objects": [CUBE]}, "changes": [{"kind": "color", "id": 1, "set": {"hue": 3}}]},
            "'hue' was unexpected",
        ),
        (
            {"scene": {"objects": [CUBE]}, "changes": [{"kind": "add", "object": CUBE}]},
            "an id that scene A lacks",
        ),
        (
            {
                "scene": {"objects": [CUBE]},
                "changes": [{"kind": "remove", "id": 1}, {"kind": "remove", "id": 1}],
            },
            "an object may change once",
        ),
    ],
)
def test_mistakes_are_named_with_file_line_and_place(line, message, tmp_path):
    path = write(tmp_path / "a.jsonl", {"scene": {"objects": [CUBE]}}, line)
    with pytest.raises(ValueError, match=message) as error:
        userscenes.read(path, CLEVR)
    assert str(error.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_scenes_is_refused(text, tmp_path):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"a\.jsonl"):
        userscenes.read(tmp_path / "a.jsonl", CLEVR)
    with pytest.raises(ValueError, match="No such file"):
        userscenes.read(tmp_path / "b.jsonl", CLEVR)
