"""Prompts tokenise as transformers does it, answers are canonical, and special tokens are known."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.data.prompts import QUESTION, answer_ids, format_answer, prompt_ids
from dig_jax.data.tokenizer import load_tokenizer

load_once = functools.cache(load_tokenizer)


def box_lists(max_size: int = 5):
    side = st.floats(0, 1, width=32)
    box = st.tuples(side, side, side, side).map(
        lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
    )
    return st.lists(box, max_size=max_size).map(lambda boxes: np.array(boxes, np.float32).reshape(-1, 4))


def test_answers_by_hand():
    assert format_answer(np.zeros((0, 4))) == "[]"
    assert format_answer(np.array([[0.5, 0.1234, 1, 0.9876], [0, 0.2, 0.3, 0.4]])) == (
        "[[0,200,300,400],[500,123,1000,988]]"
    )
    assert format_answer(np.array([[0.111, 0.229, 0.331, 0.449]]), step=20) == "[[120,220,340,440]]"


def test_a_box_thinner_than_a_step_is_widened():
    assert format_answer(np.array([[0.5, 0.5, 0.5, 0.5], [0.999, 0.2, 1, 0.4]]), step=20) == (
        "[[500,500,520,520],[980,200,1000,400]]"
    )


@given(box_lists(), st.sampled_from([1, 10, 20, 50]))
def test_an_answer_is_json_on_the_grid_with_positive_areas_left_to_right(boxes, step):
    answer = json.loads(format_answer(boxes, step))
    assert len(answer) == len(boxes)
    assert answer == sorted(answer)
    for x0, y0, x1, y1 in answer:
        assert 0 <= x0 < x1 <= 1000 and 0 <= y0 < y1 <= 1000
        assert all(value % step == 0 for value in (x0, y0, x1, y1))


@given(box_lists())
def test_rounding_moves_no_side_by_more_than_a_step(boxes):
    rounded = np.array(json.loads(format_answer(boxes, 20))).reshape(-1, 4) / 1000
    for box in boxes:
        assert (np.abs(rounded - box).max(axis=1) <= 0.02 + 1e-6).any()


@pytest.mark.parametrize("boxes", [[[0.5, 0, 0.4, 1]], [[0, 0, 1.2, 1]], [[0, 0, np.nan, 1]]])
def test_boxes_that_are_none_are_refused(boxes):
    with pytest.raises(ValueError, match=r"ordered \[x0, y0, x1, y1\] in 0..1"):
        format_answer(np.array(boxes))


def test_a_step_that_misses_1000_is_refused():
    with pytest.raises(ValueError, match="divisor of 1000, got 30"):
        format_answer(np.zeros((0, 4)), step=30)


def test_placeholders_are_expanded_as_in_the_text(tokenizer):
    grids = [(4, 6), (8, 2), (2, 2)]
    ids = prompt_ids(tokenizer, "Which differ?", grids, merge_size=2)
    counts = iter([6, 4, 1])
    content = [{"type": "image"}] * 3 + [{"type": "text", "text": "Which differ?"}]
    text = tokenizer.render([{"role": "user", "content": content}])
    text = re.sub(r"<\|image_pad\|>", lambda found: found[0] * next(counts), text)
    np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert ids.dtype == np.int32
    assert (ids == tokenizer.image_token_id).sum() == 11


def test_text_alone_is_a_prompt_too(tokenizer):
    assert tokenizer.decode(prompt_ids(tokenizer, "Hello.", [], 2)) == "user\nHello.\nassistant\n"


def test_a_question_with_a_placeholder_of_its_own_is_refused(tokenizer):
    with pytest.raises(ValueError, match="2 image placeholders for 1 images"):
        prompt_ids(tokenizer, "What is <|image_pad|>?", [(2, 2)], 2)


def test_the_question_does_not_give_the_number_of_differences_away():
    assert "no difference" in QUESTION and "[]" in QUESTION
    assert not re.search(r"\b(two|three|four|\d) differences", QUESTION)


def test_a_response_is_the_answer_and_the_end_of_turn(tokenizer):
    ids = answer_ids(tokenizer, np.array([[0, 0, 0.5, 0.5]]), step=20)
    assert tokenizer.decode(ids) == "[[0,0,500,500]]"
    assert ids[-1] == tokenizer.eos_ids[0] == tokenizer.encode("<|im_end|>")[0]


def test_a_template_that_opens_thinking_is_noticed_and_closed_in_answers(scratch_folder, tmp_path):
    folder = shutil.copytree(scratch_folder, tmp_path / "model")
    template = folder / "chat_template.jinja"
    instruct = template.read_text()
    opening = "{{- '<|im_start|>assistant\\n' -}}\n"
    assert opening in instruct
    template.write_text(instruct.replace(opening, opening + "{{- '<think>\\n' -}}\n"))
    thinking = load_tokenizer(folder)
    assert thinking.opens_thinking
    assert thinking.decode(answer_ids(thinking, np.zeros((0, 4)))) == "\n</think>\n\n[]"
    template.write_text(instruct.replace(opening, opening + "{{- '<think>\\n\\n</think>\\n\\n' -}}\n"))
    assert not load_tokenizer(folder).opens_thinking


def test_every_token_that_must_not_be_sampled_is_suppressed(tokenizer):
    names = tokenizer.hf.convert_ids_to_tokens(list(tokenizer.suppressed))
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"} <= set(
        names
    )
    assert not set(tokenizer.suppressed) & set(tokenizer.eos_ids)
    assert "</think>" not in names
    assert tokenizer.hf.convert_ids_to_tokens(list(tokenizer.eos_ids)) == ["<|im_end|>", "<|endoftext|>"]


def test_decoding_drops_special_tokens_and_keeps_the_end_of_thinking(tokenizer):
    ids = tokenizer.encode("<|im_start|>so</think>[]<|im_end|>")
    assert tokenizer.decode(ids) == "so</think>[]"


def test_the_template_of_a_hub_repository_is_found(scratch_folder, tokenizer, tmp_path):
    folder = shutil.copytree(scratch_folder, tmp_path / "model")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").unlink()
    grids = [(4, 4), (2, 2)]
    expected = prompt_ids(tokenizer, "What?", grids, 2)
    np.testing.assert_array_equal(prompt_ids(load_tokenizer(folder), "What?", grids, 2), expected)


def test_a_folder_without_tokenizer_or_template_is_refused(scratch_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
    folder = shutil.copytree(scratch_folder, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(folder)


@given(
    st.lists(st.sampled_from(["</think>", "</", "think", ">", "<", "x", "[[1,2,3,4]]", "€", "<|im_end|>"]))
)
def test_an_answer_is_the_text_from_the_last_end_of_thinking_on(tiny_qwen3vl_thinking, pieces):
    tokenizer = load_once(tiny_qwen3vl_thinking)
    ids = [id for piece in pieces for id in tokenizer.encode(piece)]
    ids = ids[:1] + ids[2:]  # so that characters of several bytes may be broken
    text = tokenizer.decode(ids)
    expected = text[text.rindex("</think>") :] if "</think>" in text else ""
    assert tokenizer.decode_answer(ids) == expected


def test_a_thought_is_not_decoded(tiny_qwen3vl_thinking, monkeypatch):
    tokenizer = load_once(tiny_qwen3vl_thinking)
    thought, answer = tokenizer.encode("a long thought"), tokenizer.encode("</think>[]")
    decoded = []
    decode = type(tokenizer).decode
    monkeypatch.setattr(type(tokenizer), "decode", lambda self, ids: decoded.append(ids) or decode(self, ids))
    assert tokenizer.decode_answer(thought) == ""
    assert tokenizer.decode_answer(thought + answer) == "</think>[]"
    assert decoded == [answer]
