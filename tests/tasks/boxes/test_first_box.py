"""The first box of an answer, in the forms that models of all makers write."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.tasks.boxes.first_box import BOX, NO_BOX, first_box

SCALE = (1000, 1000)
FORMS = [
    "[100, 200, 300, 400]",
    "[100,200,300,400]",
    "[100 200 300 400]",
    "[\n  100,\n  200,\n  300,\n  400\n]",
    "(100, 200, 300, 400)",
    "[[100, 200, 300, 400]]",
    "[300, 400, 100, 200]",  # corners are sorted
    "[100.0, 200.0, 300.0, 400.0]",  # thousandths with a decimal point
    "[0.1, 0.2, 0.3, 0.4]",
    "[.1, .2, .3, .4]",
    "(100,200),(300,400)",
    "[[100, 200], [300, 400]]",
    "The 2 things together: (100,200),(300,400)",
    "top-left (100, 200), bottom-right (300, 400)",
    "(x1, y1) = (100, 200), (x2, y2) = (300, 400)",
    "<|box_start|>(100,200),(300,400)<|box_end|>",
    "<box>[[100, 200, 300, 400]]</box>",
    "<bbox>0.1 0.2 0.3 0.4</bbox>",
    '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "the one"}\n]\n```',
    '[{"bbox_2d": [100, 200, 300, 400]}, {"bbox_2d": [1, 2, 3, 4]}]',
    '[{"bbox_2d": [100, 200, 300, 400], "lab',  # the box itself is whole
    '{"bbox_2d": "100, 200, 300, 400"}',
    '{"x1": 100, "y1": 200, "x2": 300, "y2": 400}',
    '{"ymin": 200, "xmin": 100, "ymax": 400, "xmax": 300}',
    "x_min=100, y_min=200, x_max=300, y_max=400",
    '{"x": 100, "y": 200, "width": 200, "height": 200}',
    '[\n  {\n    "bbox_2d": [\n      100,\n      200,\n      300,\n      400\n    ]\n  }\n]',
    '{"label": "1 2 3 4", "bbox_2d": [100, 200, 300, 400]}',
    '["100", "200", "300", "400"]',
    "[100px, 200px, 300px, 400px]",
    "[100, 200, 300, 400,]",
    "[100, 200, 300, 400, 0.9]",  # and how sure the model is
    "\\[100, 200, 300, 400\\]",
    "[1e-1, 2e-1, 3e-1, 4e-1]",
    "\u3010100\uff0c200\uff0c300\uff0c400\u3011",  # brackets and commas of Chinese
    "\uff08100\uff0c200\uff09\uff0c\uff08300\uff0c400\uff09",
    '{"p1": [100, 200], "p2": [300, 400]}',
    '{"top_left": {"x": 100, "y": 200}, "bottom_right": {"x": 300, "y": 400}}',
    "(x, y, w, h) = (100, 200, 200, 200)",
    "The box is 100, 200, 300, 400.",
    "100, 200, 300, 400",
    "bbox_2d: 100, 200, 300, 400",
    "<think>[1, 2, 3, 4]</think>[100, 200, 300, 400]",
    "<answer>[100, 200, 300, 400]</answer>",
]


@pytest.mark.parametrize("text", FORMS)
def test_the_first_box_is_read_in_every_form(text):
    assert first_box(text, SCALE) == (pytest.approx((0.1, 0.2, 0.3, 0.4)), BOX)


@pytest.mark.parametrize(
    "text",
    [
        "[100, 200, 300]",
        "[100, 200, 300, 400, 500]",
        "[100, 200, 300, 40",
        "(100, 200), (300",
        '{"x1": 100, "y1": 200, "x2": 300, "y2": 40',
        "There are 2 dogs, 3 cats, 4 cars and 5 men.",
        '{"bbox_2d": null, "x1": 3}',
        "[1e999, 1, 2, 3]",
        "nothing there",
        "Pick 1, 2, 3, 4 of them.",
    ],
)
def test_what_is_cut_off_or_no_box_is_none(text):
    assert first_box(text, SCALE) == (None, NO_BOX)


def test_decimals_are_shares_and_integers_are_not_and_values_are_clipped():
    assert first_box("[0, 0, 1, 1]", SCALE)[0] == (0, 0, 0.001, 0.001)
    assert first_box("[0.0, 0, 1, 1]", SCALE)[0] == (0, 0, 1, 1)
    assert first_box("[-5, 20, 1003, 400]", SCALE)[0] == (0, 0.02, 1, 0.4)
    assert first_box("[0.5, 0.5, 1.2, 0.9]", SCALE)[0] == (0.5, 0.5, 1, 0.9)
    pixels = first_box("[10, 20, 30.5, 40]", (200, 100), decimals_are_shares=False)[0]
    assert pixels == pytest.approx((0.05, 0.2, 0.1525, 0.4))


@settings(deadline=None)
@given(st.text(alphabet="[](){}<>0123456789.,;:=eE+- \nxy\"'bboxwidthleft", max_size=300))
def test_any_text_is_read_without_an_error_and_boxes_lie_in_the_image(text):
    corners, reason = first_box(text, SCALE)
    assert (corners is None) == (reason != BOX)
    if corners:
        x0, y0, x1, y1 = corners
        assert 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1
