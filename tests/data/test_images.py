"""Preprocessing equals transformers' PIL image processor, and unusable images are refused with a reason."""

import dataclasses
import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from dig_jax.data.images import (
    ImageConfig,
    boxes_as_seen,
    decode_image,
    patch_grid,
    preprocess,
    smart_resize,
)
from dig_jax.models.qwen2_5_vl.family import FAMILY as QWEN

QWEN3_VL = ImageConfig(
    patch_size=16,
    merge_size=2,
    temporal_patch_size=2,
    min_pixels=65_536,
    max_pixels=16_777_216,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


QWEN2_5_VL = ImageConfig(14, 2, 2, 3136, 12_845_056, QWEN.pixel_mean, QWEN.pixel_std)


def reference(config: ImageConfig) -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(
        patch_size=config.patch_size,
        merge_size=config.merge_size,
        temporal_patch_size=config.temporal_patch_size,
        image_mean=list(config.mean),
        image_std=list(config.std),
        size={"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels},
    )


CLIP_SQUARE = ImageConfig(14, 1, 1, 70**2, 70**2, QWEN.pixel_mean, QWEN.pixel_std, square=True)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("config", [QWEN3_VL, QWEN2_5_VL], ids=["Qwen3-VL", "Qwen2.5-VL"])
@pytest.mark.parametrize(
    "size", [(448, 448), (300, 500), (100, 70), (33, 33), (256, 288), (40, 1000), (1, 1)]
)
def test_patches_equal_those_of_transformers_at_any_size(size, config):
    image = noise(*size)
    patches, grid = preprocess(image, config)
    expected = reference(config)(images=[image], input_data_format="channels_last", return_tensors="np")
    assert (1, *grid) == tuple(expected["image_grid_thw"][0])
    assert patches.dtype == np.float32
    np.testing.assert_allclose(patches, expected["pixel_values"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(70, 70), (100, 71), (40, 90), (1, 3)])
def test_on_a_square_patches_equal_those_of_transformers(size, tmp_path):
    """Built from the settings that we write, which we read back."""
    CLIP_SQUARE.save(tmp_path, "Processor")
    assert ImageConfig.from_folder(tmp_path) == CLIP_SQUARE
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    image = noise(*size)
    theirs = LlavaImageProcessorPil(**{key: value for key, value in written.items() if "class" not in key})
    pixels = theirs(images=[image], input_data_format="channels_last", return_tensors="np")["pixel_values"]
    patches, grid = preprocess(image, CLIP_SQUARE)
    assert grid == (5, 5)
    cut = pixels[0].reshape(3, 5, 14, 5, 14).transpose(1, 3, 0, 2, 4).reshape(25, -1)
    np.testing.assert_allclose(patches, cut, atol=1e-6, rtol=0)
    corner = np.rint(255 * patches[0, [0, 196, 392]])
    assert min(size) in (1, 70) or corner.tolist() == [122, 116, 104]  # the mean colour


def test_a_box_is_moved_and_shrunk_with_its_image_onto_the_square():
    """An image of 100 x 50 pixels (height x width) has 25 pixels of background on its left and its right."""
    seen = boxes_as_seen(np.array([[0, 0, 1, 1], [0.5, 0.5, 1, 1]]), (100, 50), CLIP_SQUARE)
    assert seen.tolist() == [[0.25, 0, 0.75, 1], [0.5, 0.5, 0.75, 1]]


def test_squares_have_one_size():
    with pytest.raises(ValueError, match="squares of one size"):
        dataclasses.replace(CLIP_SQUARE, max_pixels=84**2)


def test_other_settings_than_the_usual_ones_are_followed_too():
    clip_mean, clip_std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    config = ImageConfig(14, 2, 3, 28 * 28, 20_000, clip_mean, clip_std)
    image = noise(200, 301)  # above max_pixels
    patches, (h, w) = preprocess(image, config)
    expected = reference(config)(images=[image], input_data_format="channels_last", return_tensors="np")
    assert patches.shape == (h * w, 3 * 3 * 14 * 14) == (h * w, config.patch_dim)
    np.testing.assert_allclose(patches, expected["pixel_values"], atol=1e-6, rtol=0)


def test_known_sizes_after_resizing():
    sizes = {(448, 448): (448, 448), (300, 500): (288, 512), (100, 70): (320, 224), (33, 33): (256, 256)}
    assert {size: smart_resize(*size, QWEN3_VL) for size in sizes} == sizes
    assert patch_grid(300, 500, QWEN3_VL) == (18, 32)
    sizes = {(448, 448): (448, 448), (512, 512): (504, 504), (320, 480): (308, 476), (700, 1000): (700, 1008)}
    assert {size: smart_resize(*size, QWEN2_5_VL) for size in sizes} == sizes


def test_the_four_patches_of_a_merged_token_are_adjacent():
    config = dataclasses.replace(QWEN3_VL, min_pixels=1)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, 32:] = 255  # the second of four merged tokens
    patches, grid = preprocess(image, config)
    assert grid == (4, 4)
    np.testing.assert_array_equal(patches.mean(axis=1), [-1] * 4 + [1] * 4 + [-1] * 8)


def test_views_such_as_flipped_images_need_no_copy_first():
    image = noise(64, 96)
    config = dataclasses.replace(QWEN3_VL, min_pixels=1)
    for view in (image[:, ::-1], image[::-1], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(preprocess(view, config)[0], preprocess(view.copy(), config)[0])


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))]
)
def test_what_is_no_uint8_rgb_image_is_refused(image):
    with pytest.raises(ValueError, match=r"expected a uint8 image \[H, W, 3\]"):
        preprocess(image, QWEN3_VL)


def test_an_image_two_hundred_times_wider_than_high_is_refused():
    with pytest.raises(ValueError, match="2010x10 pixels"):
        smart_resize(10, 2010, QWEN3_VL)


def test_settings_written_to_a_folder_are_read_back_and_by_transformers(tmp_path):
    QWEN3_VL.save(tmp_path, "Qwen3VLProcessor")
    assert ImageConfig.from_folder(tmp_path) == QWEN3_VL
    image = noise(100, 70)
    loaded = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    expected = loaded(images=[image], input_data_format="channels_last", return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(preprocess(image, QWEN3_VL)[0], expected, atol=1e-6, rtol=0)


def test_settings_are_also_found_in_a_processor_config(tmp_path):
    QWEN3_VL.save(tmp_path, "Qwen3VLProcessor")
    file = tmp_path / "preprocessor_config.json"
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": json.loads(file.read_text())})
    )
    file.unlink()
    assert ImageConfig.from_folder(tmp_path) == QWEN3_VL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resample": 2}, "resample is 2; only 3 is supported"),
        ({"do_normalize": False}, "do_normalize is False"),
        ({"patch_size": None, "size": None}, "no value for patch_size, min_pixels, max_pixels"),
        ({"size": {"shortest_edge": 9, "longest_edge": 4}}, r"max_pixels \(4\) is below min_pixels \(9\)"),
        ({"image_mean": [0.5]}, "mean needs one value per RGB channel"),
    ],
)
def test_settings_we_cannot_follow_are_refused_by_name(tmp_path, change, message):
    QWEN3_VL.save(tmp_path, "Qwen3VLProcessor")
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ImageConfig.from_folder(tmp_path)


def test_a_folder_without_settings_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"preprocessor_config.json and no processor_config.json"):
        ImageConfig.from_folder(tmp_path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_damaged_files_are_refused_by_name():
    file = io.BytesIO()
    Image.fromarray(noise(40, 40)).save(file, "PNG")
    for data in (b"", b"not an image", file.getvalue()[:200], png_header(8, 8)):
        with pytest.raises(ValueError, match="x.png: not a readable image") as caught:
            decode_image(data, "x.png")
        assert "object at 0x" not in str(caught.value)


def test_an_image_that_git_lfs_has_not_fetched_is_told_as_such():
    with pytest.raises(ValueError, match="x.png is a Git LFS pointer"):
        decode_image(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "x.png")
