"""Boxes are written as one right text, in every convention, and read back as they were written."""

import functools
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.tasks.boxes.text import VALID, BoxFormat
from tests.helpers.tasks import box_format, pairs_task

SIZE = (480, 640)  # of an image; thousandths do not depend on it
# Qwen2.5-VL sees 480x640 pixels as 476x644: multiples of 28.
PIXELS = BoxFormat("pixels", 1, lambda size: (476, 644))
UNIT = box_format("unit")


def box_lists(max_size: int = 5):
    side = st.floats(0, 1, width=32)
    box = st.tuples(side, side, side, side).map(
        lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
    )
    return st.lists(box, max_size=max_size).map(lambda boxes: np.array(boxes, np.float32).reshape(-1, 4))


def test_answers_by_hand():
    assert box_format().write(np.zeros((0, 4)), SIZE) == "[]"
    assert box_format().write(np.array([[0.5, 0.1234, 1, 0.9876], [0, 0.2, 0.3, 0.4]]), SIZE) == (
        "[[0,200,300,400],[500,123,1000,988]]"
    )
    assert box_format(step=20).write(np.array([[0.111, 0.229, 0.331, 0.449]]), SIZE) == "[[120,220,340,440]]"


def test_a_box_thinner_than_a_step_is_widened():
    assert box_format(step=20).write(np.array([[0.5, 0.5, 0.5, 0.5], [0.999, 0.2, 1, 0.4]]), SIZE) == (
        "[[500,500,520,520],[980,200,1000,400]]"
    )


@given(box_lists(), st.sampled_from([1, 10, 20, 50]))
def test_an_answer_is_json_on_the_grid_with_positive_areas_left_to_right(boxes, step):
    answer = json.loads(box_format(step=step).write(boxes, SIZE))
    assert len(answer) == len(boxes)
    assert answer == sorted(answer)
    for x0, y0, x1, y1 in answer:
        assert 0 <= x0 < x1 <= 1000 and 0 <= y0 < y1 <= 1000
        assert all(value % step == 0 for value in (x0, y0, x1, y1))


@given(box_lists())
def test_rounding_moves_no_side_by_more_than_a_step(boxes):
    rounded = np.array(json.loads(box_format(step=20).write(boxes, SIZE))).reshape(-1, 4) / 1000
    for box in boxes:
        assert (np.abs(rounded - box).max(axis=1) <= 0.02 + 1e-6).any()


@pytest.mark.parametrize("boxes", [[[0.5, 0, 0.4, 1]], [[0, 0, 1.2, 1]], [[0, 0, np.nan, 1]]])
def test_boxes_that_are_none_are_refused(boxes):
    with pytest.raises(ValueError, match=r"ordered \[x0, y0, x1, y1\] in 0..1"):
        box_format().write(np.array(boxes), SIZE)


def test_a_step_that_misses_1000_is_refused():
    with pytest.raises(ValueError, match="divisor of 1000, got 30"):
        box_format(step=30)


def test_each_convention_by_hand():
    boxes = np.array([[0.1, 0.25, 0.5, 1.0]])
    assert box_format().write(boxes, SIZE) == "[[100,250,500,1000]]"
    assert PIXELS.write(boxes, SIZE) == "[[64,119,322,476]]"
    assert UNIT.write(boxes, SIZE) == "[[0.100,0.312,0.500,0.875]]"  # 80 of 640 rows above


@pytest.mark.parametrize("boxes_as", [box_format(), PIXELS, UNIT], ids=lambda f: f.convention)
@given(boxes=box_lists(max_size=4))
def test_what_is_written_is_read_back_to_half_a_step(boxes_as, boxes):
    read = boxes_as.read(boxes_as.write(boxes, SIZE), SIZE, thinking=False, max_boxes=4)
    assert read.reason in (VALID, "repeated")  # boxes may fall together when they are rounded
    width, height = {"pixels": (644, 476), "unit": (1000, 750)}.get(boxes_as.convention, (1000, 1000))
    order = sorted(range(len(boxes)), key=lambda i: boxes_as.write(boxes[[i]], SIZE))
    assert len(order) == len(read.boxes)
    for box in boxes:
        gaps = np.abs(read.boxes - box) * [width, height, width, height]
        assert (gaps.max(axis=1) <= 1 + 1e-3).any()  # half a step by rounding, one where a side is widened


def test_a_coordinate_beyond_the_image_as_the_model_sees_it_is_out_of_range():
    inside, outside = "[[0,0,644,476]]", "[[0,0,645,476]]"
    assert PIXELS.read(inside, SIZE, thinking=False, max_boxes=1).valid
    assert PIXELS.read(outside, SIZE, thinking=False, max_boxes=1).reason == "out_of_range"
    assert UNIT.read("[[0,0,1.5,1]]", SIZE, thinking=False, max_boxes=1).reason == "out_of_range"


def test_unit_boxes_lie_on_the_square_that_the_image_is_centred_in():
    """One of 50 x 100 (height x width) covers the middle half of its square, from 0.25 to 0.75 downwards."""
    size = (50, 100)
    assert UNIT.write(np.array([[0, 0, 0.5, 1]]), size) == "[[0.000,0.250,0.500,0.750]]"
    read = functools.partial(UNIT.read, size=size, thinking=False, max_boxes=2)
    np.testing.assert_allclose(read("[[0,0.25,0.5,0.75]]").boxes, [[0, 0, 0.5, 1]])
    np.testing.assert_allclose(read("[[0,0.1,0.5,0.5]]").boxes, [[0, 0, 0.5, 0.5]])  # cut off at the top
    beside = read("[[0,0.1,0.5,0.2],[0,0.25,1,0.5]]")
    assert beside.reason == "out_of_range" and beside.boxes.tolist() == [[0, 0, 1, 0.5]]
    bottom = UNIT.write(np.array([[0.2, 1, 0.4, 1]]), size)  # without height, at the lower edge
    assert bottom == "[[0.200,0.749,0.400,0.750]]" and read(bottom).valid


def test_corners_of_a_large_image_that_float32_cannot_tell_apart_are_no_box():
    large = BoxFormat("pixels", 1, lambda size: (16000, 16000))
    read = large.read("[[15999.9,0,15999.9004,10]]", SIZE, thinking=False, max_boxes=1)
    assert read.reason == "not_ordered"


def test_pixels_have_no_coarser_step_and_conventions_have_known_names():
    with pytest.raises(ValueError, match=r"config.sft.answer_step=20: boxes in pixels have no step"):
        BoxFormat("pixels", 20, lambda size: size)
    with pytest.raises(ValueError, match="expected one of thousandths, pixels, unit"):
        box_format("percent")


def test_the_instruction_says_what_coordinates_count():
    assert "integers from 0 to 1000" in box_format().instruction(SIZE)
    assert "pixels of the image, which is 644 wide and 476 high" in PIXELS.instruction(SIZE)
    assert "[[0.100, 0.200, 0.300, 0.400]]" in UNIT.instruction(SIZE)
    assert PIXELS.fill("Boxes in {width} x {height}.", SIZE) == "Boxes in 644 x 476."


def test_the_question_does_not_give_the_number_of_differences_away():
    question = pairs_task(**{"data.question": ""}).question((SIZE, SIZE))
    assert "no difference" in question and "[]" in question
    assert not re.search(r"\b(two|three|four|\d) differences", question)
