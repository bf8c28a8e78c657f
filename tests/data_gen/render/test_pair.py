"""A rendered pair: its ground truth holds in its pictures, distractors or not; its scenes render again."""

import dataclasses

import numpy as np
import pytest

from data_gen.plan.pair import Rejected, plan_pair
from data_gen.records import truth
from data_gen.render.controller import Worker
from data_gen.render.pair import Renderer, decode, render_pair
from data_gen.scenes import scene
from data_gen.scenes.presets import RICH

SMALL = dataclasses.replace(
    RICH,
    width=96,
    height=96,
    samples=4,
    objects=(4, 6),
    weights=(0.0, 0.5, 0.5),
    accept=dataclasses.replace(RICH.accept, max_outside=0.05, max_outside_ratio=2.0),
)


@pytest.fixture(scope="module")
def worker(blender):
    with Worker(blender.command(1), timeout=120) as worker:
        yield worker


def make(worker, preset, index, folder, **extras):
    """(plan, rendered pair) of the first attempt that is accepted."""
    for attempt in range(40):
        try:
            plan = plan_pair(preset, 0, "train", index, attempt)
            return plan, render_pair(worker, plan, preset.accept, folder, **extras)
        except Rejected:
            continue
    raise AssertionError("40 attempts without a pair")


def test_the_record_says_what_masks_and_pictures_show(worker, tmp_path):
    for index in range(3):
        plan, pair = make(worker, SMALL, index, tmp_path, masks=True)
        record = pair.record
        masks = [decode(pair.extras[f"mask_{which}"]) for which in "ab"]
        a, b = (decode(picture) for picture in pair.pictures)
        assert a.shape == b.shape == (96, 96, 3)
        inside = np.zeros((96, 96), bool)
        for number, change in enumerate(plan.changes):
            shown = [mask == change.object_id for mask in masks]
            boxes = [truth.mask_box(part) for part in shown]
            for key, box in zip(("bboxes_a", "bboxes_b"), boxes, strict=True):
                np.testing.assert_allclose(np.array(record[key][number]) * 96, box)
            x0, y0, x1, y1 = np.rint(np.array(record["bboxes"][number]) * 96).astype(int)
            inside[y0:y1, x0:x1] = True
            assert [record[f"visible_pixels_{which}"][number] for which in "ab"] == [p.sum() for p in shown]
            distance = truth.delta_e(a, b)[shown[0] | shown[1]]
            assert record["mean_delta_e"][number] == pytest.approx(distance.mean(), rel=1e-5)
            assert record["changed_pixels"][number] == (distance > 10).sum()
            assert 0 <= record["occlusion"][number] <= SMALL.accept.max_occlusion
        assert not ((masks[0] != masks[1]) & ~inside).any()
        for mask, objects in zip(masks, (record["objects_a"], record["objects_b"]), strict=True):
            for item in objects:
                assert item["visible_pixels"] == (mask == item["id"]).sum()


def test_with_distractors_boxes_are_those_of_each_picture(worker, tmp_path):
    preset = dataclasses.replace(SMALL, camera_jitter=0.1, light_jitter=0.5)
    plan, pair = make(worker, preset, 1, tmp_path, masks=True)
    mask_b = decode(pair.extras["mask_b"])
    renderer = Renderer(worker, tmp_path)
    np.testing.assert_array_equal(mask_b, decode(renderer.render("mask", plan.scene_b)))
    still = decode(renderer.render("mask", plan.scene_b_undistracted))
    assert (mask_b != still).any()  # the camera did move
    for number, change in enumerate(plan.changes):
        box = truth.mask_box(mask_b == change.object_id)
        np.testing.assert_allclose(np.array(pair.record["bboxes_b"][number]) * 96, box)
    # The changes are judged without the jitter, which alters far more than they may.
    a, b = (decode(picture) for picture in pair.pictures)
    assert pair.record["outside_changed"] <= preset.accept.max_outside
    assert (truth.delta_e(a, b) > 0).mean() > 0.5


def test_a_records_scene_renders_to_the_same_picture_and_masks(worker, blender, tmp_path):
    _, pair = make(worker, SMALL, 2, tmp_path, masks=True, depth=True)
    # In another process, on two threads.
    with Worker(blender.command(2), timeout=120) as other:
        renderer = Renderer(other, tmp_path)
        for which, picture in zip("ab", pair.pictures, strict=True):
            shown = scene.from_json(pair.record[f"scene_{which}"])
            again = decode(renderer.render("picture", shown)).astype(int)
            assert np.abs(again - decode(picture)).max() <= 1
            for kind in ("mask", "depth"):
                stored = decode(pair.extras[f"{kind}_{which}"])
                np.testing.assert_array_equal(decode(renderer.render(kind, shown)), stored)


def test_a_scene_without_a_change_is_the_same_picture_twice(worker, tmp_path):
    preset = dataclasses.replace(SMALL, weights=(1.0,))
    _, pair = make(worker, preset, 0, tmp_path)
    a, b = (decode(picture).astype(int) for picture in pair.pictures)
    assert np.abs(a - b).max() <= 1 and pair.record["bboxes"] == []


def test_hard_pairs_can_be_asked_for(worker, tmp_path):
    accept = dataclasses.replace(SMALL.accept, max_delta_e=25.0, max_occlusion=0.1)
    preset = dataclasses.replace(SMALL, accept=accept, kinds=("color", "material"), weights=(0.0, 1.0))
    _, pair = make(worker, preset, 0, tmp_path)
    assert pair.record["mean_delta_e"][0] <= 25 and pair.record["occlusion"][0] <= 0.1
