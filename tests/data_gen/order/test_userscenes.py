"""A user's scenes: what they leave out is filled in, and errors name file, line and place."""

import json

import pytest

from data_gen.order import userscenes
from data_gen.plan.pair import Rejected
from data_gen.scenes.presets import CLEVR, RICH

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


def test_a_file_as_windows_writes_it_is_read(tmp_path):
    line = json.dumps({"scene": {"objects": [{**CUBE, "color": "\u7ea2\u8272"}]}}, ensure_ascii=False)
    line = line.replace('"shape"', '"rgb": [200, 9, 9], "shape"')
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n{line}\r\n".encode())
    assert len(userscenes.read(tmp_path / "a.jsonl", CLEVR)) == 2


@pytest.mark.parametrize(("encoding", "line"), [("utf-16", 1), ("latin-1", 2)])
def test_a_file_in_another_encoding_is_named_with_the_line(tmp_path, encoding, line):
    path = tmp_path / "a.jsonl"
    text = '{"scene": {"objects": []}}\n{"scene": {"objects": [{"color": "caf\u00e9"}]}}\n'
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=rf"a\.jsonl:{line}: expected UTF-8"):
        userscenes.read(path, CLEVR)


def test_a_file_that_git_lfs_has_not_fetched_is_told_as_such(tmp_path):
    (tmp_path / "a.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=r"a\.jsonl is a Git LFS pointer"):
        userscenes.read(tmp_path / "a.jsonl", CLEVR)


EDIT = {"kind": "color", "id": 1, "set": {"color": "green"}}
NEW = {"kind": "add", "object": VASE}
WHOLE = {
    "scene": {
        "objects": [{**CUBE, "radius": 0.5, "rgb": [9, 9, 9], "rotation": 5}, CONE],
        "lighting": {"kind": "sky", "strength": 1},
        "camera": {"lens": 50},
        "ground": {"scale": 1},
        "width": 64,
        "version": 2,
    },
    "changes": [EDIT, NEW],
}
ODD = ("null", "true", "1.0", "-1", "1" + "0" * 400, "9" * 5000, "1e999", "NaN", '""', '"1"', "[]", "[[1]]")
ODD += ('{"a": 1}', "[" * 3000 + "]" * 3000, "[" * 400 + "]" * 400, '{"a": ' * 3000 + "1" + "}" * 3000)


def places(value, path=()):
    """The path of everything inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def with_value(value, path, new):
    """A copy with another value in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("path", places(WHOLE), ids=lambda path: ".".join(map(str, path)) or "all")
def test_an_odd_value_anywhere_is_taken_or_named_with_file_and_line(path, tmp_path):
    lines = json.dumps(with_value(WHOLE, path, "@")).replace('"@"', "%s")
    for odd in ODD:
        file = write(tmp_path / "a.jsonl", {"scene": {"objects": [CUBE]}}, lines % odd)
        try:
            scenes = userscenes.read(file, CLEVR)
        except ValueError as error:
            assert str(error).startswith(f"{file}:2: ") and len(str(error)) < 600
        else:
            assert len(scenes) == 2
            ids = [item.id for item in scenes[1].scene.objects]
            assert all(type(id) is int for id in ids)


def test_a_key_that_is_given_twice_is_a_mistake(tmp_path):
    line = json.dumps({"scene": {"objects": [CUBE]}}).replace('"id": 1', '"id": 1, "id": 3')
    with pytest.raises(ValueError, match=r"a\.jsonl:1: the key 'id' is given twice"):
        userscenes.read(write(tmp_path / "a.jsonl", line), CLEVR)
