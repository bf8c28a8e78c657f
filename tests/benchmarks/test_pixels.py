"""What pixel limits do to pictures is counted and said."""

import dataclasses

import numpy as np
import pytest
from etils import epath

from dig_jax.benchmarks import pixels
from dig_jax.benchmarks.row import PictureFile, Row
from dig_jax.data.buckets import Bucket
from dig_jax.data.images import ImageConfig
from dig_jax.models import families
from tests.helpers.drawn_pairs import png

# As published with Qwen3-VL.
LIMITS = ImageConfig(16, 2, 2, 65536, 16777216, (0.5,) * 3, (0.5,) * 3)


def test_pictures_of_8k_are_said_to_be_shrunk_and_those_of_4k_are_not():
    found = pixels.shrinking([(4320, 7680)] * 3 + [(2160, 3840)] * 2 + [(4320, 7660), (1, 500)], LIMITS)
    assert (found.count, found.shrunk, found.unusable) == (7, 4, 1)
    assert str(found) == (
        "4 of 7 pictures are shrunk (at most 16,777,216 pixels): 3 from 7680x4320 to 5440x3072, 1 from"
        " 7660x4320 to 5440x3072; the least keeps 50.4% of its pixels; 1 are of a shape that no model takes"
    )


def test_nothing_is_said_to_be_shrunk_where_a_picture_is_only_rounded_or_enlarged():
    found = pixels.shrinking([(100, 70), (450, 450)], LIMITS)
    assert str(found) == "0 of 2 pictures are shrunk (at most 16,777,216 pixels)" and found.least == 1
    small = dataclasses.replace(LIMITS, max_pixels=65536)
    assert pixels.shrinking([(450, 450)], small).sizes == (((450, 450), (256, 256), 1),)


def test_the_bytes_of_a_prompt_grow_with_its_bucket():
    architecture = families.published("Qwen3-VL-4B")
    found = pixels.row_bytes(Bucket(100, 1000), LIMITS, architecture)
    assert found == {
        "patches": 1000 * 3 * 2 * 16 * 16 * 4,
        "tower": 1000 * 1024 * 2,
        "prompt": 100 * 2560 * 2,
        "cache": 100 * 36 * 2 * 8 * 128 * 2,
    }


def test_pictures_that_are_missing_or_damaged_are_counted_in_one_error(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.zeros((3, 5, 3), np.uint8)))
    (tmp_path / "b.png").write_bytes(b"no picture")
    shown = [PictureFile(epath.Path(tmp_path / name)) for name in ("a.png", "b.png", "c.png")]
    rows = [Row("1", (shown[0],), ""), Row("2", (shown[0],), "")]
    assert pixels.picture_sizes(rows) == {shown[0].key: (3, 5)}
    with pytest.raises(ValueError, match="2 of 3 pictures cannot be read, the first: .*b.png"):
        pixels.picture_sizes([*rows, Row("3", tuple(shown[1:]), "")])
