"""Boxes and acceptance on masks and pictures small enough to check by hand."""

import dataclasses

import numpy as np
import pytest

from data_gen.changes import Change
from data_gen.plan.pair import PairPlan, Rejected, plan_pair
from data_gen.records import truth
from data_gen.scenes.presets import TINY, Acceptance

SIZE = 40
ACCEPT = Acceptance(
    min_visible=0.01, min_visible_fraction=0.0, min_changed_fraction=0.3, min_delta_e=10.0, max_outside=0.05
)
GRAY, RED, BLUE = (128, 128, 128), (200, 20, 20), (20, 20, 200)
SCENE = plan_pair(dataclasses.replace(TINY, objects=(1, 1), weights=(1.0,)), 0, "train", 0, 0).scene_a
OBJECT = dataclasses.replace(SCENE.objects[0], id=1)


def make_plan(*changes):
    """A plan with these changes; its scenes hold the changed objects alone."""
    scenes = [
        dataclasses.replace(SCENE, width=SIZE, height=SIZE, objects=tuple(o for o in objects if o))
        for objects in ([change.before for change in changes], [change.after for change in changes])
    ]
    return PairPlan("x", "tiny", 0, "train", 0, 0, scene_a=scenes[0], scene_b=scenes[1], changes=changes)


def recolored(number=1):
    item = dataclasses.replace(OBJECT, id=number)
    return Change("color", item, item, "")


def mask(**rectangles):
    """uint8 [SIZE, SIZE] with id n inside the box given as on=(x0, y0, x1, y1)."""
    result = np.zeros((SIZE, SIZE), np.uint8)
    for name, (x0, y0, x1, y1) in rectangles.items():
        result[y0:y1, x0:x1] = int(name[1:])
    return result


def paint(ids, colors):
    """A gray picture in which object n has colors[n]."""
    picture = np.full((SIZE, SIZE, 3), GRAY, np.uint8)
    for number, color in colors.items():
        picture[ids == number] = color
    return picture


def check_masks(plan, a, b, accept=ACCEPT):
    """truth.check_masks with the silhouettes of cubes and the like, which need no renderer."""
    areas = tuple(truth.silhouette_areas(part, {}) for part in (plan.scene_a, plan.scene_b))
    return truth.check_masks(plan, (a, b), areas, accept)


def test_a_box_is_half_open_and_tight():
    assert truth.mask_box(mask(o1=(3, 5, 10, 20)) == 1) == (3, 5, 10, 20)
    assert truth.mask_box(np.zeros((4, 4), bool)) == truth.NO_BOX


def test_an_added_object_has_a_box_in_b_alone():
    plan = make_plan(Change("add", None, OBJECT, ""))
    (difference,) = check_masks(plan, mask(), mask(o1=(3, 5, 10, 20)), ACCEPT)
    assert (difference.box, difference.box_a, difference.box_b) == (
        (3, 5, 10, 20),
        truth.NO_BOX,
        (3, 5, 10, 20),
    )
    assert (difference.visible_a, difference.visible_b) == (0, 7 * 15)


def test_a_grown_object_has_the_union_of_its_boxes():
    a, b = mask(o1=(10, 10, 16, 16)), mask(o1=(8, 4, 18, 16))
    (difference,) = check_masks(make_plan(recolored()), a, b, ACCEPT)
    assert (difference.box_a, difference.box_b) == ((10, 10, 16, 16), (8, 4, 18, 16))
    assert difference.box == (8, 4, 18, 16)


def test_masks_that_differ_outside_the_boxes_are_rejected():
    a = mask(o1=(3, 5, 10, 20))
    b = a.copy()
    b[30, 30] = 7
    with pytest.raises(Rejected, match="masks differ outside boxes"):
        check_masks(make_plan(recolored()), a, b, ACCEPT)


def test_a_speck_of_an_object_is_rejected():
    with pytest.raises(Rejected, match="too small"):
        check_masks(make_plan(recolored()), mask(o1=(3, 5, 6, 10)), mask(o1=(3, 5, 6, 10)), ACCEPT)


def test_an_object_hidden_behind_another_is_rejected():
    full = truth.silhouette_area(OBJECT, SCENE.camera, SIZE, SIZE)
    accept = dataclasses.replace(ACCEPT, min_visible_fraction=0.7)
    ids = mask()
    ids.flat[: int(0.8 * full)] = 1
    check_masks(make_plan(recolored()), ids, ids, accept)
    ids.flat[int(0.6 * full) :] = 0
    with pytest.raises(Rejected, match="hidden"):
        check_masks(make_plan(recolored()), ids, ids, accept)


def test_differences_whose_boxes_overlap_are_rejected():
    ids = mask(o1=(5, 5, 20, 20), o2=(12, 5, 27, 20))
    ids[5, 5:27] = 1  # object 1 reaches behind object 2
    with pytest.raises(Rejected, match="boxes overlap"):
        check_masks(make_plan(recolored(1), recolored(2)), ids, ids, ACCEPT)


def check_pictures(a, b, accept=ACCEPT):
    ids = mask(o1=(10, 10, 20, 20))
    plan = make_plan(recolored())
    boxes = [difference.box for difference in check_masks(plan, ids, ids, accept)]
    truth.check_pictures(plan, boxes, (ids, ids), (a, b), accept)


def test_a_clear_recolouring_is_accepted():
    ids = mask(o1=(10, 10, 20, 20))
    check_pictures(paint(ids, {1: RED}), paint(ids, {1: BLUE}))


def test_a_difference_nobody_would_see_is_rejected():
    ids = mask(o1=(10, 10, 20, 20))
    with pytest.raises(Rejected, match="faint color"):
        check_pictures(paint(ids, {1: RED}), paint(ids, {1: (204, 22, 20)}))


def test_a_small_shadow_is_accepted_and_a_large_one_is_not():
    ids = mask(o1=(10, 10, 20, 20))
    a, b = paint(ids, {1: RED}), paint(ids, {1: BLUE})
    b[25:30, 25:30] = (60, 60, 60)  # 25 pixels; the difference itself has 100
    check_pictures(a, b)
    b[25:35, 25:32] = (60, 60, 60)  # 70 pixels
    with pytest.raises(Rejected, match="large patch changed outside"):
        check_pictures(a, b)
    b[25:40, 25:40] = (60, 60, 60)
    with pytest.raises(Rejected, match="much changed outside"):
        check_pictures(a, b)


def test_the_rim_of_a_box_may_change():
    ids = mask(o1=(10, 10, 20, 20))
    a, b = paint(ids, {1: RED}), paint(ids, {1: BLUE})
    b[9, 9:21] = BLUE
    check_pictures(a, b, dataclasses.replace(ACCEPT, max_outside=0.0))


def test_an_identical_pair_must_be_identical():
    plan, ids = make_plan(), mask()
    a, accept = paint(ids, {}), dataclasses.replace(ACCEPT, max_outside=0.0)
    truth.check_pictures(plan, (), (ids, ids), (a, a), accept)
    b = a.copy()
    b[3, 3] = 0
    with pytest.raises(Rejected, match="changed outside"):
        truth.check_pictures(plan, (), (ids, ids), (a, b), accept)


def test_lab_of_known_colours():
    picture = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    expected = [[(0, 0, 0), (100, 0, 0), (53.24, 80.09, 67.20)]]  # Lindbloom's calculator, D65
    np.testing.assert_allclose(truth.to_lab(picture), expected, atol=0.05)


def test_colours_are_compared_a_few_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (7, 5, 3), dtype=np.uint8) for _ in range(2))
    whole = np.linalg.norm(truth.to_lab(a) - truth.to_lab(b), axis=-1)
    for pixels in (1, 10, 12, 1000):
        monkeypatch.setattr(truth, "STRIP_PIXELS", pixels)
        np.testing.assert_array_equal(truth.delta_e(a, b), whole)


def test_iou_of_half_overlapping_boxes():
    assert truth.iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert truth.iou((0, 0, 10, 10), (10, 0, 15, 10)) == 0.0
