"""Pairs are read back as written, by index, and problems are reported with the dataset's name."""

import dataclasses
import shutil

import numpy as np
import pytest

from dig_jax.data import images
from dig_jax.data.records import open_pairs
from tests.data.conftest import NUM_TEST, NUM_TRAIN
from tests.helpers.drawn_pairs import draw_pair, write_pairs


def test_a_pair_comes_back_as_it_was_written(pairs_folder):
    source = open_pairs(pairs_folder, "train")
    assert len(source) == NUM_TRAIN
    for index in (5, 0, 9):  # any order; number 0 and 9 have no difference
        read, written = source[index], draw_pair(index, num_differences=index % 3)
        for field in dataclasses.fields(read):
            value, expected = getattr(read, field.name), getattr(written, field.name)
            np.testing.assert_array_equal(value, expected, err_msg=field.name)
    assert source[0].boxes.shape == (0, 4)
    assert source[5].boxes.dtype == np.float32


def test_counts_and_sizes_are_known_without_decoding(pairs_folder):
    source = open_pairs(pairs_folder, "train")
    np.testing.assert_array_equal(source.num_differences(), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(source.image_sizes(), np.full((10, 2), 128))


def test_a_declared_image_size_is_believed_without_reading(tmp_path, monkeypatch):
    write_pairs(tmp_path, {"train": [draw_pair(i, size=(32, 64)) for i in range(3)]}, image_size=(32, 64))
    source = open_pairs(tmp_path, "train")
    monkeypatch.setattr(images, "image_size", None)
    np.testing.assert_array_equal(source.image_sizes(), [[32, 64]] * 3)


def test_a_slice_of_a_split_can_be_opened(pairs_folder):
    source = open_pairs(pairs_folder, "test[1:]")
    assert len(source) == NUM_TEST - 1
    assert source[0].id == draw_pair(1, seed=1).id


def test_a_folder_above_the_dataset_is_enough_when_it_holds_one(tmp_path):
    write_pairs(tmp_path / "dig_pairs" / "1.0.0", {"train": [draw_pair(0)]})
    assert len(open_pairs(tmp_path, "train")) == 1
    write_pairs(tmp_path / "dig_pairs" / "1.1.0", {"train": [draw_pair(0)]})
    with pytest.raises(ValueError, match="holds several datasets, name one of them"):
        open_pairs(tmp_path, "train")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        ("", "is not JSON"),
        ('{"name": {}, "pythonClassName": 3}', "does not describe a dataset"),
        (None, "is not complete: it has no|no dataset_info.json"),
    ],
)
def test_damaged_descriptions_of_a_dataset_are_named(tmp_path, pairs_folder, name, content, message):
    folder = shutil.copytree(pairs_folder, tmp_path / "d")
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f"{folder}.*({message})"):
        open_pairs(folder, "train")


def test_records_that_git_lfs_has_not_fetched_are_told_as_such(tmp_path, pairs_folder):
    folder = shutil.copytree(pairs_folder, tmp_path / "d")
    for file in folder.glob("*train.array_record*"):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="train.array_record.* is a Git LFS pointer.*`git lfs pull`"):
        open_pairs(folder, "train[:1]")
    assert len(open_pairs(folder, "test")) == NUM_TEST


def test_missing_folders_and_splits_are_named(tmp_path, pairs_folder):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        open_pairs(tmp_path / "nothing", "train")
    with pytest.raises(FileNotFoundError, match=r"no dataset_info.json.*data_gen.import_pairs"):
        open_pairs(tmp_path, "train")
    with pytest.raises(ValueError, match="has no split 'validation'; it has test, train"):
        open_pairs(pairs_folder, "validation[:5]")


def test_a_dataset_of_another_kind_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dig_jax.data.records._FEATURES", ("id", "caption"))
    write_pairs(tmp_path / "data", {"train": [draw_pair(0)]})
    with pytest.raises(ValueError, match="has no feature caption"):
        open_pairs(tmp_path / "data", "train")


def test_images_of_different_sizes_are_refused_with_the_pairs_name(tmp_path):
    pair = dataclasses.replace(draw_pair(0), image_b=draw_pair(0, size=(64, 64)).image_b)
    write_pairs(tmp_path / "data", {"train": [pair]})
    with pytest.raises(ValueError, match=r"drawn-0-00000: the images differ in size"):
        open_pairs(tmp_path / "data", "train")[0]


def test_an_image_above_the_pixel_limit_is_refused_with_the_pairs_name(pairs_folder, monkeypatch):
    monkeypatch.setattr("dig_jax.data.images.MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"drawn-0-00002, image_a: 128x128 pixels is more than the limit"):
        open_pairs(pairs_folder, "train")[2]
