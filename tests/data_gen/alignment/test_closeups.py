"""Crops that Blender renders: the same window with more detail, or the object from beside."""

import dataclasses
import json
import random
import subprocess

import numpy as np
import pytest
from PIL import Image

from data_gen.align import main
from data_gen.alignment.check import alike
from data_gen.alignment.closeups import AZIMUTH, Rendering, scene_of
from data_gen.alignment.crops import (
    CLOSEUP,
    IMAGE,
    RERENDER,
    Turn,
    cut,
    from_json_values,
    patch_of,
    plan_cut,
    to_json_values,
)
from data_gen.alignment.items import Item
from data_gen.alignment.records import AlignedDataset
from data_gen.alignment.rules import rules_for
from data_gen.alignment.staged import make_staged
from data_gen.alignment.things import view_of
from data_gen.files.png import decode
from data_gen.records.dataset import Dataset, NoDataset
from data_gen.render.controller import WorkerError
from data_gen.render.crew import MAX_WORKER_FAILURES
from data_gen.render.pair import Window
from data_gen.scenes import scene as scenes
from data_gen.scenes.geometry import project, turned
from tests.data_gen.alignment.scenes import SAMPLE, thing
from tests.data_gen.alignment.test_crops import plain
from tests.data_gen.test_beam import BEAM_PYTHON, ROOT

FLAGS = ["--model_side=96", "--crop_side=48", "--pictures=a", "--items=I-C:2,T-I:1"]


@pytest.fixture(scope="module")
def picture(small_dataset):
    """(record, view) of a picture of 64x64 pixels, and its things made plain to ask for."""
    record = Dataset(small_dataset).record("train", 0)
    return record, view_of(record, "a", rules_for(96))


@pytest.fixture(scope="module")
def studio(blender):
    """One for closeups; `beside` makes of it one for crops from beside."""
    with Rendering(CLOSEUP, 0, blender).studio() as opened:
        yield opened


def beside(studio):
    return dataclasses.replace(studio, rendering=dataclasses.replace(studio.rendering, view=RERENDER))


def item_of(view, angle=0.0):
    """I-C of the thing that shows most, whose crop is not blurred."""
    thing = max(view.things, key=lambda each: each.pixels)
    plan = plan_cut(thing, view.width, view.height, random.Random(1))
    plan = dataclasses.replace(plan, angle=angle, blur=0.0, loss=1.0, brightness=1.0, contrast=1.0)
    return Item("I-C", "", (), (plan,), (thing.id,), (thing.id,), {})


@pytest.mark.parametrize("angle", [0.0, 10.0])
def test_a_patch_holds_its_window_at_the_place_where_the_picture_has_it(angle):
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:75, 0:100] / 20
    waves = 128 + 60 * np.sin(rows)[..., None] + 60 * np.cos(columns)[..., None] * np.ones(3)
    picture = np.round(waves + rng.uniform(0, 1, 3)).astype(np.uint8)
    plan = plain(centre=(50.0, 40.0), side=24.0)
    plan = dataclasses.replace(plan, angle=angle)
    (x0, y0, x1, y1), pixels, inside = patch_of(plan, 24)  # as fine as the picture itself
    assert x1 - x0 == pytest.approx(pixels) and y1 - y0 == pytest.approx(pixels)
    patch = Image.fromarray(picture).resize((pixels, pixels), Image.Resampling.BICUBIC, (x0, y0, x1, y1))
    difference = np.abs(cut(np.asarray(patch), inside, 24).astype(int) - cut(picture, plan, 24))
    assert difference.max() <= 2


def test_a_window_of_a_mask_is_that_window_of_the_whole_mask(picture, studio):
    record, _ = picture
    scene = scenes.from_json(record["scene_a"])
    whole = decode(studio.renderer.render("mask", scene))
    fine = decode(studio.renderer.render("mask", scene, Window((10, 20, 50, 60), 120)))
    again = decode(studio.renderer.render("mask", scene))  # the next request has its whole picture
    np.testing.assert_array_equal(fine[1::3, 1::3], whole[20:60, 10:50])  # centres of pixels
    np.testing.assert_array_equal(again, whole)


@pytest.mark.parametrize("angle", [0.0, -8.0])
def test_a_closeup_is_the_cut_out_with_more_detail(angle, picture, studio):
    record, view = picture
    item = item_of(view, angle)
    shots = studio.of_picture(view, record["scene_a"])
    (plan,) = shots.rendered(item).cuts
    crop = shots.crop(plan, 96)
    coarse = round(plan.side)
    cut_out = cut(decode(record["image_a"]), item.cuts[0], coarse)
    enlarged = cut(decode(record["image_a"]), item.cuts[0], 96)
    small = np.asarray(Image.fromarray(crop).resize((coarse, coarse), Image.Resampling.BOX))
    elsewhere = np.roll(cut_out, 2, axis=1)
    error, moved = (np.abs(small.astype(float) - other).mean() for other in (cut_out, elsewhere))
    assert error < 8 and error < moved / 2
    # Edges are as sharp as the crop's pixels and not as the picture's.
    steepest = [np.abs(np.diff(image.astype(int), axis=1)).max() for image in (crop, enlarged)]
    assert steepest[0] > 1.3 * steepest[1]
    assert plan == dataclasses.replace(item.cuts[0], view=CLOSEUP)


def test_from_beside_the_object_is_where_its_new_window_says(picture, studio):
    record, view = picture
    view = dataclasses.replace(view, rules=dataclasses.replace(view.rules, crop_area=(0.0, 1.0)))
    item = item_of(view)
    shots = beside(studio).of_picture(view, record["scene_a"])
    (plan,) = shots.rendered(item).cuts
    scene = shots._turned(plan.thing, plan.turn.azimuth)
    box, pixels, _ = patch_of(plan, 48)
    shown = decode(studio.renderer.render("mask", scene, Window(box, pixels))) == plan.thing
    assert AZIMUTH[0] <= abs(plan.turn.azimuth) <= AZIMUTH[1]
    assert plan.box == item.cuts[0].box and plan.view == RERENDER
    assert shown[pixels // 4 : -pixels // 4, pixels // 4 : -pixels // 4].mean() > 0.3
    assert from_json_values(json.loads(json.dumps(to_json_values(plan)))) == plan


def test_the_camera_goes_around_an_object_that_keeps_its_pixel():
    camera = scenes.Camera(location=(1.0, -8.0, 6.0), target=(0.0, 0.0, 0.0), lens=60.0)
    place = (1.5, -0.5, 0.4)
    again = turned(camera, place, 20.0)
    pixels = [project(each, 160, 120, np.array([place])) for each in (camera, again)]
    np.testing.assert_allclose(*pixels)
    a, b = (np.subtract(each.location, place)[:2] for each in (camera, again))
    assert np.cross(a, b) / (a @ b) == pytest.approx(np.tan(np.radians(20)))  # anticlockwise


def test_what_is_stored_of_a_cut_from_the_picture_has_no_turn():
    plan = plan_cut(thing(1, "small red rubber cube", (30, 30, 50, 55)), 100, 75, random.Random(3))
    assert "turn" not in to_json_values(plan)
    assert from_json_values(to_json_values(plan)) == plan
    assert to_json_values(dataclasses.replace(plan, turn=Turn(20.0, (1, 2, 3, 4))))["turn"]["azimuth"] == 20.0


def test_a_dataset_of_closeups_asks_what_one_of_cut_outs_asks_and_is_rendered_again_by_the_check(
    small_dataset, tmp_path, capsys
):
    flags = [f"--data={small_dataset}", *FLAGS]
    assert main([*flags, f"--out={tmp_path / 'image'}"]) == 0
    assert main([*flags, f"--out={tmp_path / 'close'}", "--crop=closeup", "--workers=1", "--preview"]) == 0
    assert not list(tmp_path.glob("*.staging"))
    read = {name: AlignedDataset(tmp_path / name) for name in ("image", "close")}
    metadata = read["close"].metadata
    assert metadata["crop"]["view"] == CLOSEUP and metadata["crop"]["blender"]
    assert read["image"].metadata["crop"] == {"view": IMAGE} and metadata["items_left_out"] == 0
    pairs = [
        zip(*(each.records(split) for each in read.values()), strict=True) for split in read["image"].splits
    ]
    compared = 0
    for first, second in (pair for of_split in pairs for pair in of_split):
        assert [id for id, _ in first.items] == [id for id, _ in second.items]
        for (_, a), (_, b), of_a, of_b in zip(
            first.items, second.items, first.crops, second.crops, strict=True
        ):
            assert a.rounds == b.rounds and [cut.centre for cut in a.cuts] == [cut.centre for cut in b.cuts]
            for one, other in zip(of_a, of_b, strict=True):
                assert one != other and np.abs(decode(one).astype(float) - decode(other)).mean() < 25
                compared += 1
    assert compared > 4
    capsys.readouterr()
    assert main([f"--check={tmp_path / 'close'}"]) == 0
    assert ": 0 disagreements" in (said := capsys.readouterr().out) and "not rendered again" not in said


def test_rounding_of_the_denoiser_is_no_other_crop_and_a_shift_is():
    crop = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    assert alike(crop, crop + 1) and not alike(crop, np.roll(crop, 1, axis=0))


def test_a_scene_that_cannot_be_rebuilt_is_refused(picture, tmp_path):
    record, _ = picture
    scene = json.loads(record["scene_a"])
    scene["objects"][0]["shape"] = "asset:toys/car.glb"
    with pytest.raises(NoDataset, match="pair/a: .* it has asset:toys/car.glb; name the folder"):
        scene_of(json.dumps(scene), "pair/a", None)
    with pytest.raises(NoDataset, match="not in --assets"):
        scene_of(json.dumps(scene), "pair/a", tmp_path)
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "car.glb").touch()
    assert scene_of(json.dumps(scene), "pair/a", tmp_path).objects[0].shape == "asset:toys/car.glb"
    with pytest.raises(NoDataset, match="cannot be rebuilt"):
        scene_of("{}", "pair/a", None)


def test_a_scene_that_renders_to_another_picture_is_refused(picture, studio):
    record, view = picture
    scene = json.loads(record["scene_a"])
    scene["camera"]["location"][0] += 0.5
    with pytest.raises(NoDataset, match="does not render to its picture any more"):
        studio.of_picture(view, json.dumps(scene))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers=2"], "--workers is for crops that are rendered"),
        (["--assets=somewhere"], "--assets is for crops that are rendered"),
        (["--crop=closeup", "--blender_python=/nowhere"], "/nowhere"),
        (["--crop=closeup", "--assets=/nowhere"], "no such folder"),
    ],
)
def test_flags_of_rendered_crops_are_refused_before_anything_is_written(flags, message, tmp_path, capsys):
    try:
        code = main([f"--data={SAMPLE}", f"--out={tmp_path / 'set'}", *flags])
    except SystemExit as exit:  # by argparse
        code = exit.code
    assert code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_whose_renderer_dies_says_where_it_goes_on_and_does(
    small_dataset, fake_blender, tmp_path, monkeypatch, capsys
):
    """Drawn silhouettes are not Blender's masks, so nothing of this run is kept but the folder."""
    monkeypatch.setenv("FAKE_WORKER", json.dumps({"die": "tiny"}))
    flags = [f"--data={small_dataset}", *FLAGS, f"--out={tmp_path / 'set'}", "--crop=closeup"]
    assert main([*flags, f"--blender_python={fake_blender}", "--workers=1"]) == 1
    assert "the same command goes on with it" in capsys.readouterr().err
    assert main([*flags, f"--blender_python={fake_blender}", "--seed=3"]) == 2
    assert "seed: 0 there, 3 here" in capsys.readouterr().err


@pytest.mark.parametrize(("stopping", "tries"), [(False, MAX_WORKER_FAILURES), (True, 1)])
def test_a_renderer_that_dies_is_tried_again_but_not_in_a_run_that_stops(stopping, tries, studio):
    class Dying:
        tried = 0

        def examples(self, record, split, studio):
            self.tried += 1
            raise WorkerError("died")

    maker = Dying()
    with pytest.raises(WorkerError):
        make_staged(maker, {}, "train", studio, lambda: stopping)
    assert maker.tried == tries


@pytest.mark.slow
@pytest.mark.skipif(not BEAM_PYTHON.exists(), reason="needs `make setup-beam`")
def test_beam_renders_the_crops_of_a_plain_run(small_dataset, tmp_path):
    flags = [f"--data={small_dataset}", *FLAGS, "--crop=rerender"]
    assert main([*flags, f"--out={tmp_path / 'plain'}"]) == 0
    command = [str(BEAM_PYTHON), "-m", "data_gen.align_beam", *flags, f"--out={tmp_path / 'set'}"]
    result = subprocess.run([*command, "--runner=DirectRunner"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert main([*flags, f"--out={tmp_path / 'set'}", f"--staged={tmp_path / 'set.staging'}"]) == 0
    sets = [AlignedDataset(tmp_path / name) for name in ("plain", "set")]
    records = [[record for split in each.splits for record in each.records(split)] for each in sets]
    assert [record.items for record in records[0]] == [record.items for record in records[1]]
    for first, second in zip(*records, strict=True):
        for a, b in zip(sum(first.crops, ()), sum(second.crops, ()), strict=True):
            assert alike(decode(a), decode(b))
