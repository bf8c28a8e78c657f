"""What an answer that boxes changes is taken for."""

import json

import pytest

from dig_jax.benchmarks.boxed import mark
from dig_jax.benchmarks.row import Reader, Row

ROW = Row("1", (), "", boxes=((0.1, 0.1, 0.4, 0.4),), size=(100, 200))
RIGHT = [20, 10, 80, 40]  # in pixels
OTHER = [100, 50, 120, 60]


@pytest.mark.parametrize(
    ("text", "boxes", "f1", "reason"),
    [
        ("[[100,100,400,400]]", [RIGHT], 1, "valid"),
        ('<think>[1,2,3,4]</think>```json\n[{"bbox_2d": [100, 100, 400, 400]}]\n```', [RIGHT], 1, "valid"),
        ("<answer>[[0.1, 0.1, 0.4, 0.4]]</answer>", [RIGHT], 1, "valid"),
        ("[[100,100,400,400],[500,500,600,600]]", [RIGHT, OTHER], 2 / 3, "valid"),
        ("One at [100,100,400,400] and one at [500,500,600,600].", [RIGHT, OTHER], 2 / 3, "not_a_list"),
        ("[]", [], 0, "valid"),
        ("There is none.", None, 0, "no_box"),
        ("[[100,100,400,4", None, 0, "no_box"),
        ("<think>[[100,100,400,400]]", None, 0, "cut_off"),
    ],
)
def test_boxes_are_read_in_the_answer_alone(text, boxes, f1, reason):
    found = mark(ROW, text, Reader())
    assert (found.hit, found.reason, found.unparsed) == (pytest.approx(f1), reason, boxes is None)
    assert found.cut_off == (reason == "cut_off")
    if boxes is not None:
        assert json.loads(found.answer) == [pytest.approx(box, abs=1e-3) for box in boxes]


def test_pixels_are_those_of_the_picture_as_the_model_sees_it():
    reader = Reader(box_convention="pixels", resized=lambda size: (size[0] * 2, size[1] * 2))
    assert json.loads(mark(ROW, "[[40, 20, 160, 80]]", reader).answer) == [pytest.approx(RIGHT, abs=1e-3)]


def test_identical_pictures_are_answered_with_an_empty_list():
    row = Row("1", (), "", boxes=())
    assert [mark(row, text, Reader()).hit for text in ("[]", "", "[[1,2,3,4]]")] == [1, 0, 0]
