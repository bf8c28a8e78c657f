"""Figures beside floors: what is scored without looking, by hand, and whether a score is above it."""

import numpy as np
import pytest
from etils import epath
from PIL import Image

from dig_jax.benchmarks.releases import aligned
from study import align_floors
from study.align_page import Line, _beside, _framed
from tests.helpers import aligned_records
from tests.helpers.aligned_records import item, thing


def test_floors_know_the_mean_box_any_object_and_the_shape(tmp_path):
    things = [thing(1, "cube", [0, 2, 4, 6], 5.0), thing(2, "cone", [5, 2, 8, 4], 9.0)]
    things.append(thing(3, "cube", [4, 6, 8, 8], 4.0))
    where = ("<image>\nOutput the coordinate of it", "[0.000,0.250,0.500,0.750]")
    aligned_records.write(tmp_path / "data", ["train", "test"], [item("T-C", 0, 0, where)], things)
    rows = aligned.rows(epath.Path(tmp_path / "data"), ("T-C",))
    blind, seeing = align_floors.of_rows(tmp_path / "data", rows)
    assert blind == {"mean box": 1, "constant box": 1}  # training asks for this box alone
    assert seeing == pytest.approx({"any object": 1 / 3, "any of the shape": 1 / 2})


def test_a_constant_box_is_the_one_that_is_right_most_often():
    boxes = np.array([[0, 0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.5, 0.5, 0.9, 0.8]])
    assert align_floors._most_often_right(boxes).tolist() == [0.5, 0.5, 0.9, 0.9]


def test_a_score_whose_interval_reaches_a_floor_is_not_above_it():
    line = Line("which crop", 300, 0.31, (0.26, 0.36), {"chance": 0.25}, {})
    assert line.above and ", above chance 25.0%" in str(line)
    assert "NOT above chance" in str(Line("which crop", 300, 0.29, (0.24, 0.34), {"chance": 0.25}, {}))


def test_the_right_crop_has_a_frame_and_pictures_stand_beside():
    crop = np.full((4, 4, 3), 7, np.uint8)
    right, wrong = (_framed(crop, flag) for flag in (True, False))
    assert right.shape == (12, 12, 3) and right[0, 0].tolist() == [34, 197, 94] and not wrong[0, 0].any()
    assert (right[4:8, 4:8] == 7).all()
    sheet = _beside(Image.new("RGB", (100, 50)), [Image.fromarray(right)] * 3, side=20)
    assert sheet.size == (100 + 2 * 28, 2 * 28)
