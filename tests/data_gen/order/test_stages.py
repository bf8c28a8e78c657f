"""The four stages, one at a time and in shards, give what one run gives; the dataset says how it was made."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_gen.__main__ import main
from data_gen.verify import main as verify
from tests.data_gen.conftest import SMALL, assert_same_datasets, read


@pytest.fixture(scope="module")
def order(fake_blender):
    """A small order without an --out; two workers."""
    return [*SMALL, f"--blender_python={fake_blender}", "--workers=2", "--num_pairs=7"]


@pytest.fixture(scope="module")
def whole(order, tmp_path_factory):
    """The dataset of one run."""
    out = tmp_path_factory.mktemp("stages") / "whole"
    assert main([*order, f"--out={out}"]) == 0
    return out


def test_four_stages_one_by_one_give_the_dataset_of_one_run(order, whole, tmp_path):
    out = tmp_path / "staged"
    for stage in ("plan", "render", "verify", "pack"):
        assert not out.exists()
        assert main([*order, f"--out={out}", f"--stage={stage}"]) == 0
    assert_same_datasets(whole, out)
    assert not (tmp_path / "staged.staging").exists()


def test_shards_rendered_apart_and_copied_together_give_the_dataset_of_one_run(order, whole, tmp_path):
    for index in range(3):
        out = tmp_path / f"machine{index}" / "set"
        assert main([*order, f"--out={out}", "--num_shards=3", f"--shard_index={index}"]) == 0
        assert not out.exists()
        (tmp_path / "set.staging").mkdir(exist_ok=True)
        for shard in (tmp_path / f"machine{index}" / "set.staging").glob("shard-*"):
            shard.rename(tmp_path / "set.staging" / shard.name)
    assert main([*order, f"--out={tmp_path / 'set'}", "--stage=pack"]) == 0
    assert_same_datasets(whole, tmp_path / "set")


def test_packing_before_all_shards_are_rendered_names_the_missing_pairs(order, tmp_path, capsys):
    out = f"--out={tmp_path / 'set'}"
    assert main([*order, out, "--num_shards=3", "--shard_index=1"]) == 0
    assert main([*order, out, "--stage=pack"]) == 1
    message = capsys.readouterr().err
    assert "of 9 pairs are missing" in message and "tiny-11-test-000000: not rendered" in message
    assert not (tmp_path / "set").exists()


def test_a_run_goes_on_with_what_shards_have_rendered(order, whole, tmp_path, capsys):
    out = f"--out={tmp_path / 'set'}"
    assert main([*order, out, "--num_shards=2", "--shard_index=1"]) == 0
    assert main([*order, out]) == 0
    assert "9 pairs of preset tiny" in (message := capsys.readouterr().err)
    assert "4 are rendered already" in message
    assert_same_datasets(whole, tmp_path / "set")


def test_a_plan_does_not_depend_on_shards_or_on_the_number_of_pairs(order, tmp_path):
    def plan(name, *flags):
        assert main([*order, f"--out={tmp_path / name}", "--stage=plan", *flags]) == 0
        paths = (tmp_path / f"{name}.staging").glob("shard-*/plan.jsonl")
        lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        return {line["id"]: line for line in lines}

    whole = plan("a")
    parts = plan("b", "--num_shards=2", "--shard_index=0") | plan("b", "--num_shards=2", "--shard_index=1")
    assert parts == whole and len(whole) == 9
    assert plan("c", "--num_pairs=2").items() <= whole.items()


def test_a_plan_needs_no_blender(order, tmp_path):
    flags = ["--stage=plan", "--blender_python=/no/python", f"--out={tmp_path / 'set'}"]
    assert main([*order, *flags]) == 0


def test_metadata_say_how_the_dataset_was_made(whole, fake_blender):
    metadata = tfds.builder_from_directory(whole).info.metadata
    assert metadata == json.loads((whole / "metadata.json").read_text())
    assert metadata["seed"] == 11 and metadata["counts"] == {"train": 7, "test": 2}
    assert metadata["preset"]["width"] == 64 and metadata["preset"]["accept"]["changed_delta_e"]
    assert metadata["renderer"] == {"blender": "4.5.15 LTS", "device": "cpu"}
    assert metadata["flags"]["resolution"] == "64" and metadata["flags"]["blender_python"] == str(
        fake_blender
    )
    assert len(metadata["git_revision"]) >= 7
    assert metadata["statistics"]["pairs"] == 9 and metadata["skipped_pairs"] == {}


def test_the_card_says_what_is_inside_and_how_to_make_it_again(whole):
    card = (whole / "README.md").read_text()
    assert "dig_pairs: tiny, seed 11" in card and "| pairs | 7 train, 2 test |" in card
    assert "python -m data_gen --preset=tiny --num_pairs=7 --test_pairs=2 --seed=11" in card
    assert "--workers" not in card and "$" not in card


def test_a_dry_run_plans_and_estimates_and_writes_nothing(order, tmp_path, capsys):
    assert main([*order, f"--out={tmp_path / 'set'}", "--dry_run", "--num_pairs=998"]) == 0
    text = capsys.readouterr().out
    assert "1000 pairs; planned 50 of them" in text and "time  about" in text and "GB are free" in text
    assert not any(tmp_path.iterdir())


def test_progress_is_logged_with_rate_rejections_and_time_left(order, tmp_path):
    assert main([*order, f"--out={tmp_path / 'set'}", "--stage=plan"]) == 0
    assert main([*order, f"--out={tmp_path / 'set'}", "--stage=render"]) == 0
    (log,) = (tmp_path / "set.staging").glob("shard-*/log.txt")
    assert "pairs 9/9 (100%)" in log.read_text() and "pairs/s" in log.read_text()
    assert "0:00:00 left" in log.read_text() and "attempts rejected" in log.read_text()


def test_verify_passes_what_the_generator_makes(whole, capsys):
    assert verify([f"--data={whole}"]) == 0
    text = capsys.readouterr().out
    assert "pairs               9" in text and "all 9 pairs pass" in text


def test_verifying_staged_pairs_prints_their_statistics(order, tmp_path, capsys):
    for stage in ("plan", "render", "verify"):
        assert main([*order, f"--out={tmp_path / 'set'}", f"--stage={stage}"]) == 0
    assert "differences a pair" in capsys.readouterr().out


def test_a_damaged_staged_pair_is_made_again(order, whole, tmp_path, capsys):
    out = tmp_path / "set"
    for stage in ("plan", "render"):
        assert main([*order, f"--out={out}", f"--stage={stage}"]) == 0
    (picture,) = (tmp_path / "set.staging").glob("shard-*/train/000002.image_b.png")
    picture.write_bytes(picture.read_bytes()[:100])
    assert main([*order, f"--out={out}"]) == 1
    assert "tiny-11-train-000002 is damaged" in capsys.readouterr().err
    assert not out.exists()
    assert main([*order, f"--out={out}"]) == 0
    assert_same_datasets(whole, out)


def test_a_renderer_that_draws_the_wrong_thing_is_caught_before_packing(order, tmp_path, capsys):
    out = tmp_path / "set"
    for stage in ("plan", "render"):
        assert main([*order, f"--out={out}", f"--stage={stage}", "--differences=1"]) == 0
    (a,) = (tmp_path / "set.staging").glob("shard-*/train/000001.image_a.png")
    a.with_name("000001.image_b.png").write_bytes(a.read_bytes())  # nothing differs any more
    assert main([*order, f"--out={out}", "--differences=1"]) == 1
    assert "tiny-11-train-000001: box 0: 0.0% of it is changed" in capsys.readouterr().err
    assert not out.exists()


def test_fewer_pairs_than_were_rendered_can_be_packed(order, tmp_path):
    out = f"--out={tmp_path / 'set'}"
    assert main([*order, out, "--stage=plan"]) == 0
    assert main([*order, out, "--stage=render"]) == 0
    assert main([*order, out, "--num_pairs=2"]) == 0
    assert [record["id"] for record in read(tmp_path / "set", "train")] == [
        b"tiny-11-train-000000",
        b"tiny-11-train-000001",
    ]


def test_pictures_are_png_files_of_the_ordered_size(whole):
    records = read(whole, "train")
    assert {record["image_a"].shape for record in records} == {(64, 64, 3)}
    assert all(record["image_a"].dtype == np.uint8 for record in records)


def test_masks_and_depth_are_read_back_as_they_were_rendered(order, tmp_path):
    assert main([*order, f"--out={tmp_path / 'set'}", "--masks", "--depth", "--num_pairs=1"]) == 0
    (record,) = read(tmp_path / "set", "train")
    for which in "ab":
        mask, depth = record[f"mask_{which}"], record[f"depth_{which}"]
        assert mask.shape == depth.shape == (64, 64, 1)
        assert mask.dtype == np.uint8 and depth.dtype == np.uint16
        objects = record[f"objects_{which}"]
        assert set(np.unique(mask)) == {0, *objects["id"]}
        assert [np.count_nonzero(mask == number) for number in objects["id"]] == list(
            objects["visible_pixels"]
        )
        np.testing.assert_array_equal(
            depth, mask
        )  # the stand-in for Blender says an object's id for its depth
