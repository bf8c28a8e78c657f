"""The parser: the forms it accepts, the reason for everything else, and that no text can hurt it."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.tasks.boxes import text as answers
from dig_jax.tasks.boxes.text import Reading, read_boxes


def parse(text: str, *, thinking: bool = False, max_boxes: int = 16) -> Reading:
    return read_boxes(text, thinking=thinking, max_boxes=max_boxes)


def thousandths(answer: Reading) -> list[list[int]]:
    return np.rint(answer.boxes * 1000).astype(int).tolist()


TWO_SMALL = [[1, 2, 3, 4], [5, 6, 7, 8]]
TWO_BOXES = [[10, 20, 300, 400], [500, 0, 1000, 1000]]


@pytest.mark.parametrize(
    "text",
    [
        "[[10,20,300,400],[500,0,1000,1000]]",
        "  [ [10, 20, 300, 400],\n\t[500, 0, 1000, 1000] ]\n",
        "[[10.0, 2e1, 300, 400], [500, -0, 1E3, 1000]]",
        "```json\n[[10,20,300,400],[500,0,1000,1000]]\n```",
        "```\n[[10,20,300,400],[500,0,1000,1000]]```",
        '[{"bbox_2d": [10,20,300,400], "label": "cube"}, {"bbox_2d": [500,0,1000,1000], "label": "sphere"}]',
        '```json\n[\n\t{"bbox_2d": [10, 20, 300, 400]},\n\t{"bbox_2d": [500, 0, 1000, 1000]}\n]\n```',
        '[{"label": "[1,2,3,4]", "bbox_2d": [10,20,300,400]}, {"bbox_2d": [500,0,1000,1000]}]',
        '[[10,20,300,400],{"bbox_2d":[500,0,1000,1000]}]',
    ],
)
def test_bare_and_native_lists_fenced_or_not_are_valid(text: str):
    answer = parse(text)
    assert (answer.valid, answer.reason) == (True, answers.VALID)
    assert thousandths(answer) == TWO_BOXES


def test_boxes_are_normalised_float32():
    answer = parse("[[0, 250, 500, 1000]]")
    assert answer.boxes.dtype == np.float32
    np.testing.assert_array_equal(answer.boxes, np.float32([[0, 0.25, 0.5, 1]]))


@pytest.mark.parametrize("text", ["[]", " [ ] ", "```json\n[]\n```"])
def test_the_empty_list_is_a_valid_answer(text: str):
    answer = parse(text)
    assert answer.valid and answer.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "reason", "kept"),
    [
        ("", answers.EMPTY, []),
        (" \n\t", answers.EMPTY, []),
        ("``````", answers.EMPTY, []),
        ("I see no difference.", answers.NO_BOX, []),
        ("No differences: []", answers.NO_BOX, []),
        ("null", answers.NO_BOX, []),
        ("[[1,2,3", answers.NO_BOX, []),
        ("[[\u0661,2,3,4]]", answers.NO_BOX, []),  # an Arabic-Indic digit one
        ("Here: [[1,2,3,4]]", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("[[1,2,3,4]] Done.", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("[[1,2,3,4],[5,6,7", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("[[1,2,3,4],]", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ('{"bbox_2d": [1,2,3,4]}', answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("Image 1:\n```json\n[[1,2,3,4]]\n```", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("<think>[9,9,10,10]</think>[[1,2,3,4]]", answers.NOT_A_LIST, [[9, 9, 10, 10], [1, 2, 3, 4]]),
        ("[1,2,3,4]", answers.BAD_ITEM, [[1, 2, 3, 4]]),
        ("[[[1,2,3,4]]]", answers.BAD_ITEM, [[1, 2, 3, 4]]),
        ("[[1,2,3,4],[5,6,7]]", answers.BAD_ITEM, [[1, 2, 3, 4]]),
        ("[[1,2,3,4,5]]", answers.BAD_ITEM, []),
        ("[[false,false,true,true]]", answers.BAD_ITEM, []),
        ('[["1","2","3","4"]]', answers.BAD_ITEM, []),
        ('[{"bbox": [1,2,3,4]}]', answers.BAD_ITEM, [[1, 2, 3, 4]]),
        ("[[1,2,3,4], null]", answers.BAD_ITEM, [[1, 2, 3, 4]]),
        ("[[NaN,2,3,4],[1,2,3,4]]", answers.NOT_FINITE, [[1, 2, 3, 4]]),
        ("[[0,0,Infinity,4]]", answers.NOT_FINITE, []),
        ("[[0,0,1e999,4]]", answers.NOT_FINITE, []),
        ("[[0,0,1001,4],[1,2,3,4]]", answers.OUT_OF_RANGE, [[1, 2, 3, 4]]),
        ("[[-1,0,3,4]]", answers.OUT_OF_RANGE, []),
        ("[[3,2,1,4]]", answers.NOT_ORDERED, []),
        ("[[1,4,3,2]]", answers.NOT_ORDERED, []),
        ("[[1,2,1,4]]", answers.NOT_ORDERED, []),
        ("[[1,2,1.000000000001,4]]", answers.NOT_ORDERED, []),  # the same corner in float32
    ],
)
def test_anything_else_is_invalid_for_a_named_reason_and_keeps_its_well_formed_boxes(text, reason, kept):
    answer = parse(text)
    assert (answer.valid, answer.reason, thousandths(answer)) == (False, reason, kept)


BALL = {"bbox_2d": [1, 2, 3, 4], "label": "ball"}
BALL_JSON = json.dumps(BALL)


@pytest.mark.parametrize(
    ("text", "reason", "kept"),
    [
        (f"There seems to be a change. {BALL_JSON}", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        (f"<answer>{BALL_JSON}</answer>", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ('[\n\t{"bbox_2d": [1,2,3,4]}\n\t{"bbox_2d": [5,6,7,8]}\n]', answers.NOT_A_LIST, TWO_SMALL),
        (f'{BALL_JSON}\n{{"bbox_2d": [5,6,7,8]}}', answers.NOT_A_LIST, TWO_SMALL),
        ("[[0, 50, 55, 9999], [0, 5, 533, 17, " + "9" * 6000 + ", 1, 2, 3, 4", answers.NO_BOX, []),
        ("[245, [1, 2, 3, 4]]", answers.BAD_ITEM, [[1, 2, 3, 4]]),
        ('{"bbox": [1, 2, 3, 4],\n"bbox": [5, 6, 7, ', answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ('[{"bbox_2d": <|box_start|>(1,2),(3,4)<|box_end|>}]', answers.NO_BOX, []),
        (f"```json\r\n[{BALL_JSON}]\r\n```\r\n", answers.VALID, [[1, 2, 3, 4]]),
        ("```JSON\n[[1,2,3,4]]\n```", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("```json\n[[1,2,3,4]]\n```\nThe ball changed.", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("```json\n[[1,2,3,4]]\n```\n```json\n[[5,6,7,8]]\n```", answers.NOT_A_LIST, TWO_SMALL),
        ('[{"bbox_2d": [1,2,3,4], "label": "\u7ea2\u8272\u7403\u4f53"}]', answers.VALID, [[1, 2, 3, 4]]),
        ("\u5dee\u5f02\u5982\u4e0b\uff1a[1, 2, 3, 4]\u3002", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("[\uff3b1\uff0c2\uff0c3\uff0c4\uff3d]", answers.NO_BOX, []),  # full-width brackets and commas
        ("[[1234, 800, 1600, 1100]]", answers.OUT_OF_RANGE, []),  # pixels
        ('[{"point_2d": [1, 2], "label": "ball"}]', answers.BAD_ITEM, []),
        ("[{'bbox_2d': [1, 2, 3, 4], 'label': 'ball'}]", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        ("[[1, 2, 3, 4]]<|im_end|>", answers.NOT_A_LIST, [[1, 2, 3, 4]]),
        (json.dumps([BALL | {"confidence": 0.93, "sub_label": None}]), answers.VALID, [[1, 2, 3, 4]]),
        (json.dumps([BALL, BALL]), answers.REPEATED, [[1, 2, 3, 4]] * 2),
    ],
)
def test_shapes_of_answers_that_real_models_give(text, reason, kept):
    answer = parse(text)
    assert (answer.reason, thousandths(answer)) == (reason, kept)


def test_a_repeated_box_is_a_format_error_that_keeps_both():
    answer = parse("[[1,2,3,4],[1,2,3,4]]")
    assert answer.reason == answers.REPEATED and thousandths(answer) == [[1, 2, 3, 4]] * 2


def test_more_than_max_boxes_is_a_format_error_that_keeps_the_first_ones():
    boxes = [[i, i, i + 10, i + 10] for i in range(5)]
    assert parse(json.dumps(boxes[:4]), max_boxes=4).valid
    answer = parse(json.dumps(boxes), max_boxes=4)
    assert (answer.valid, answer.reason, thousandths(answer)) == (False, answers.TOO_MANY, boxes[:4])


@pytest.mark.parametrize(
    ("text", "reason", "kept"),
    [
        ("The cube changed. </think>\n\n[[1,2,3,4]]", answers.VALID, [[1, 2, 3, 4]]),
        ("[[9,9,10,10]]</think>[]", answers.VALID, []),
        ("a</think>[[9,9,10,10]]</think>[[1,2,3,4]]", answers.VALID, [[1, 2, 3, 4]]),
        ("I am still looking at [[1,2,3,4]]", answers.TRUNCATED, []),
        ("[[1,2,3,4]]", answers.TRUNCATED, []),
        ("", answers.TRUNCATED, []),
        ("done</think>", answers.EMPTY, []),
    ],
)
def test_a_thinking_model_answers_after_the_last_think_tag(text, reason, kept):
    answer = parse(text, thinking=True)
    assert (answer.reason, thousandths(answer)) == (reason, kept)


MILLION = 1_000_000
HOSTILE = {
    "open brackets": "[" * MILLION,
    "nested lists": "[" * 100_000 + "]" * 100_000,
    "nested objects": '{"a":' * 200_000,
    "nested after a box": "[[1,2,3,4]," * 90_000,
    "huge integer": "[[" + "9" * MILLION + ",0,1,1]]",
    "huge exponent": "[[0,0,1,1e" + "9" * MILLION + "]]",
    "digits after a bracket": "[" + "1" * MILLION,
    "spaces after brackets": ("[" + " " * 1000) * 1000,
    "almost boxes": "[0,1,2," * 140_000,
    "almost numbers": "[0.1e+,-." * 110_000,
    "reversed boxes": "[4,2,3,4] " * 100_000,
    "reversed boxes in a list": "[" + "[4,2,3,4]," * 100_000 + "[4,2,3,4]]",
    "boxes in a list": "[" + "[1,2,3,4]," * 100_000 + "[1,2,3,4]]",
    "numbers in a list": "[" + "1," * 500_000 + "1]",
    "backslashes": "\\" * MILLION,
    "open string": '["' + "\\u00e9" * 160_000,
    "fences": "```" * 300_000,
    "think tags": "</think>" * 120_000,
    "unicode digits": "\u0661" * MILLION,
    "lone surrogates": "\ud800" * MILLION,
    "zero bytes": "\0" * MILLION,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("thinking", [False, True])
def test_a_megabyte_of_anything_is_read_in_linear_time(name: str, thinking: bool):
    text = "</think>" * thinking + HOSTILE[name]
    start = time.thread_time()
    answer = parse(text, thinking=thinking)
    milliseconds = 1000 * (time.thread_time() - start)
    assert milliseconds < 10 * len(text) / 1000
    assert len(answer.boxes) <= 16


def assert_sound(answer: Reading, max_boxes: int) -> None:
    assert answer.reason in answers.REASONS
    assert answer.valid == (answer.reason == answers.VALID)
    boxes = answer.boxes
    assert boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 4
    assert len(boxes) <= max_boxes
    assert np.all((boxes >= 0) & (boxes <= 1))
    assert np.all(boxes[:, :2] < boxes[:, 2:])


# Pieces of answers in any order: far more likely than random letters to reach the depths of the parser.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(["[", "]", "{", "}", ",", ":", "-", ".", "e", '"', "\\", "`", "```", "```json\n"]),
        st.sampled_from(["</think>", "<think>", '"bbox_2d"', '"label"', "NaN", "Infinity", "null", "true"]),
        st.sampled_from(
            ["[[1,2,3,4]]", "[5,6,7,8]", '{"bbox_2d":[1,2,3,4],"label":"a"}', " ", "\n", "\u0663"]
        ),
        st.integers(-10, 1100).map(str),
        st.floats().map(str),
    ),
    max_size=30,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(), PIECES), st.booleans(), st.integers(1, 4))
def test_any_text_gives_a_sound_answer(text: str, thinking: bool, max_boxes: int):
    assert_sound(read_boxes(text, thinking=thinking, max_boxes=max_boxes), max_boxes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["bbox_2d", "label"]), inner, max_size=2)
    ),
    max_leaves=20,
).map(json.dumps)


@settings(max_examples=300, deadline=None)
@given(JSON, st.integers(1, 4))
def test_any_json_gives_a_sound_answer(text: str, max_boxes: int):
    assert_sound(read_boxes(text, thinking=False, max_boxes=max_boxes), max_boxes)


@st.composite
def box_lists(draw: st.DrawFn) -> list[list[int]]:
    pair = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)
    corners = draw(st.lists(st.tuples(pair, pair), max_size=8))
    return [[x[0], y[0], x[1], y[1]] for x, y in corners]


@settings(deadline=None)
@given(box_lists(), st.booleans(), st.sampled_from(["{}", "```json\n{}\n```", " {}\n"]), st.booleans())
def test_every_list_of_proper_boxes_is_read_back_exactly(boxes, native, frame, thinking):
    items = [{"bbox_2d": box, "label": "x"} for box in boxes] if native else boxes
    text = "thought</think>" * thinking + frame.replace("{}", json.dumps(items))
    answer = parse(text, thinking=thinking)
    assert thousandths(answer) == boxes
    assert answer.valid == (len({tuple(box) for box in boxes}) == len(boxes))
