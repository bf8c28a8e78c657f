"""A planned set is balanced, its objects stand apart, and distractors are no differences."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.plan import describe, layout
from data_gen.plan.pair import from_dict, plan_targets, to_dict
from data_gen.scenes.geometry import project
from data_gen.scenes.presets import PRESETS, RICH, STAGE3, with_identical
from tests.data_gen.plan.test_plan import plan_something


@pytest.mark.parametrize("name", ["stage3", "rich"])
def test_kinds_sizes_and_regions_are_balanced(name):
    preset = PRESETS[name]
    targets = [plan_targets(preset, 5, "train", index) for index in range(900)]
    shares = [len([pair for pair in targets if len(pair) == m]) / 900 for m in range(5)]
    assert shares == pytest.approx(preset.weights, abs=0.005)
    for attribute, cards in (("kind", preset.kinds), ("size", list(preset.sizes)), ("region", range(9))):
        for slot in range(4):
            drawn = [getattr(pair[slot], attribute) for pair in targets if len(pair) > slot]
            even = len(drawn) / len(cards)
            assert max(abs(drawn.count(card) - even) for card in cards) <= 1, (attribute, slot)
    first = {(pair[0].kind, pair[0].size, pair[0].region) for pair in targets if pair}
    assert len(first) > 0.9 * len(preset.kinds) * len(preset.sizes) * 9  # in nearly all combinations


def test_changed_objects_are_where_the_plan_wants_them():
    cells = set()
    for index in range(60):
        plan = plan_something(STAGE3, 2, index)
        for change, target in zip(plan.changes, plan_targets(STAGE3, 2, "train", index), strict=True):
            item, camera = change.versions[0], plan.scene_a.camera
            assert item.size == target.size
            x, y = project(camera, STAGE3.width, STAGE3.height, np.array([item.position]))[0]
            x0, y0, x1, y1 = layout.cell(STAGE3, camera, target.region)
            # The outline of what was there first is what has its centre in the cell.
            assert x0 - 1 <= x <= x1 + 1 and y0 - 1 <= y <= y1 + 1
            cells.add(target.region)
    assert cells == set(range(9))


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 100_000))
def test_objects_do_not_interpenetrate_before_or_after(index):
    plan = plan_something(RICH, 1, index)
    for part in (plan.scene_a, plan.scene_b):
        for number, item in enumerate(part.objects):
            for other in part.objects[:number]:
                assert math.dist(item.position[:2], other.position[:2]) >= item.radius + other.radius


@settings(max_examples=40, deadline=None)
@given(index=st.integers(0, 100_000))
def test_a_sentence_fits_one_object_alone(index):
    plan = plan_something(RICH, 3, index)
    for change in plan.changes:
        part = plan.scene_a if change.before else plan.scene_b
        names = [describe.subject(other, part) for other in part.objects]
        assert len(set(names)) == len(names)
        if change.before:
            assert change.description.startswith(describe.subject(change.before, part))


def test_a_plan_survives_json_and_a_damaged_one_is_refused():
    plan = plan_something(RICH, 0, 1)
    data = json.loads(json.dumps(to_dict(plan)))
    assert from_dict(data) == plan
    with pytest.raises(ValueError, match="missing or unknown: split"):
        from_dict({key: value for key, value in data.items() if key != "split"})
    broken = copy.deepcopy(data)
    broken["scene_b"]["objects"][0]["radius"] = -1
    with pytest.raises(ValueError, match=r"scene_b: \$\.objects\[0\]\.radius: -1"):
        from_dict(broken)
    other = copy.deepcopy(data)
    other["changes"][0]["before"]["rotation"] = 1.25
    with pytest.raises(ValueError, match="does not say what differs"):
        from_dict(other)


@pytest.mark.parametrize("lighting", ["studio", "hdri", "sky"])
def test_distractors_move_camera_and_light_of_b_and_nothing_else(lighting):
    preset = dataclasses.replace(RICH, lighting=(lighting,))
    jittered = dataclasses.replace(preset, camera_jitter=0.1, light_jitter=0.5)
    still, moved = plan_something(preset, 0, 1), plan_something(jittered, 0, 1)
    assert moved.scene_a == still.scene_a and not still.has_distractors and moved.has_distractors
    assert moved.scene_b_undistracted == still.scene_b
    a, b = moved.scene_a, moved.scene_b
    assert 0 < math.dist(a.camera.location, b.camera.location) <= 0.1 * 3**0.5
    assert a.camera.target == b.camera.target and a.lighting != b.lighting


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"camera_jitter": 0.5}, "camera_jitter=0.5: expected 0 to 0.25"),
        ({"light_jitter": -1.0}, "light_jitter=-1.0"),
        ({"kinds": ()}, "kinds: expected at least one"),
        ({"kinds": ("texture",), "textures": ()}, "has no textures"),
        ({"lighting": ("simple",)}, "simple lighting shows neither glass nor textures"),
    ],
)
def test_presets_that_contradict_themselves_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RICH, **setting)


def test_a_share_of_identical_pairs_leaves_the_others_in_proportion():
    preset = with_identical(STAGE3, 0.2)
    assert preset.weights == pytest.approx((0.2, 0.2, 0.2, 0.2, 0.2))
    targets = [plan_targets(preset, 0, "train", index) for index in range(200)]
    assert sum(not pair for pair in targets) == 40
    with pytest.raises(ValueError, match="share"):
        with_identical(STAGE3, 1.5)
