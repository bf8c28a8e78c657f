"""Planning is a pure function of the seed, and its scenes differ in exactly what the changes say."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.changes import CHANGES, Change, unchanged
from data_gen.plan.pair import (
    Rejected,
    plan_pair,
    plan_targets,
    require_unique_names,
    sample_object,
)
from data_gen.scenes.geometry import silhouette_box
from data_gen.scenes.presets import PRESETS, STAGE3, TINY

ATTRIBUTE = {name: name for name in ("color", "material", "shape", "size", "texture")} | {
    "rotate": "rotation"
}


def plan_something(preset, seed, index):
    """The first attempt that can be planned."""
    for attempt in range(50):
        try:
            return plan_pair(preset, seed, "train", index, attempt)
        except Rejected:
            continue
    raise AssertionError("50 attempts without a plan")


def kinds_of(preset, seed, index):
    """The kinds of difference that a pair shall have."""
    return [target.kind for target in plan_targets(preset, seed, "train", index)]


def test_the_same_seed_gives_the_same_plan():
    assert plan_something(TINY, 3, 7) == plan_something(TINY, 3, 7)


@pytest.mark.parametrize(
    "other", [(4, "train", 7, 0), (3, "test", 7, 0), (3, "train", 8, 0), (3, "train", 7, 1)]
)
def test_another_seed_split_index_or_attempt_gives_another_camera(other):
    cameras = {
        plan_pair(dataclasses.replace(TINY, objects=(2, 2)), *key).scene_a.camera
        for key in [(3, "train", 7, 0), other]
    }
    assert len(cameras) == 2


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), index=st.integers(0, 10_000), name=st.sampled_from(sorted(PRESETS)))
def test_scenes_differ_in_what_the_changes_say_and_nowhere_else(seed, index, name):
    preset = PRESETS[name]
    plan = plan_something(preset, seed, index)
    a, b = ({item.id: item for item in scene.objects} for scene in (plan.scene_a, plan.scene_b))
    assert [change.kind for change in plan.changes] == [
        target.kind for target in plan_targets(preset, seed, "train", index)
    ]
    for change in plan.changes:
        assert (a.pop(change.object_id, None), b.pop(change.object_id, None)) == (change.before, change.after)
        if change.kind == "move":
            assert differing_fields(change.before, change.after) == {"position"}
        elif change.kind in ATTRIBUTE:
            assert differing_fields(change.before, change.after) - {"rgb", "radius", "position"} == {
                ATTRIBUTE[change.kind]
            }
            assert change.before.position[:2] == change.after.position[:2]
        else:
            assert (change.before is None) == (change.kind == "add")
            assert (change.after is None) == (change.kind == "remove")
    assert a == b and a  # what is left is unchanged, and something is left
    assert dataclasses.replace(plan.scene_a, objects=()) == dataclasses.replace(plan.scene_b, objects=())


def differing_fields(before, after):
    return {key for key, value in dataclasses.asdict(before).items() if value != getattr(after, key)}


@settings(max_examples=20, deadline=None)
@given(index=st.integers(0, 10_000))
def test_every_object_is_inside_the_frame_with_a_margin(index):
    plan = plan_something(STAGE3, 0, index)
    margin = STAGE3.frame_margin * STAGE3.width
    for scene in (plan.scene_a, plan.scene_b):
        for item in scene.objects:
            x0, y0, x1, y1 = silhouette_box(item, scene.camera, scene.width, scene.height)
            assert min(x0, y0, scene.width - x1, scene.height - y1) >= margin


def test_kinds_do_not_depend_on_the_attempt_and_follow_the_weights():
    counts = [len(kinds_of(TINY, 0, index)) for index in range(2000)]
    shares = [counts.count(number) / 2000 for number in range(4)]
    assert shares == pytest.approx(TINY.weights, abs=0.03)
    kinds = [kind for index in range(2000) for kind in kinds_of(TINY, 0, index)]
    assert all(kinds.count(kind) / len(kinds) == pytest.approx(1 / 6, abs=0.03) for kind in TINY.kinds)


def test_every_kind_of_a_preset_is_registered():
    for preset in PRESETS.values():
        assert set(preset.kinds) <= set(CHANGES)


def test_a_pair_in_which_a_name_means_two_objects_is_rejected():
    first = sample_object(random.Random(0), TINY, 1)
    twin = dataclasses.replace(first, id=2)
    require_unique_names([unchanged(first)])
    with pytest.raises(Rejected, match="same name"):
        require_unique_names([unchanged(first), unchanged(twin)])
    # A green cube that becomes the red cube's double is just as ambiguous.
    green = dataclasses.replace(twin, color="no such color")
    with pytest.raises(Rejected, match="same name"):
        require_unique_names([unchanged(first), Change("color", green, twin, "")])


def test_a_scene_without_room_is_rejected():
    crowded = dataclasses.replace(TINY, objects=(9, 9), sizes={"small": 2.0, "large": 3.0}, weights=(1.0,))
    reasons = set()
    for attempt in range(5):
        with pytest.raises(Rejected) as error:
            plan_pair(crowded, 0, "train", 0, attempt)
        reasons.add(str(error.value))
    assert "objects do not fit" in reasons
