"""Prompts tokenise as transformers does it, answers are canonical, and special tokens are known."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.data.example import Demonstration, Object, Shape, Turn, marked_parts
from dig_jax.data.prompts import conversation_ids, prompt_ids, response_ids
from dig_jax.data.tokenizer import load_tokenizer

load_once = functools.cache(load_tokenizer)


def test_placeholders_are_expanded_as_in_the_text(tokenizer):
    grids = [(4, 6), (8, 2), (2, 2)]
    ids = prompt_ids(tokenizer, "Which differ?", grids, {tokenizer.image_token_id: 2})
    counts = iter([6, 4, 1])
    content = [{"type": "image"}] * 3 + [{"type": "text", "text": "Which differ?"}]
    text = tokenizer.render([{"role": "user", "content": content}])
    text = re.sub(r"<\|image_pad\|>", lambda found: found[0] * next(counts), text)
    np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert ids.dtype == np.int32
    assert (ids == tokenizer.image_token_id).sum() == 11


def test_text_alone_is_a_prompt_too(tokenizer):
    assert tokenizer.decode(prompt_ids(tokenizer, "Hello.", [], {})) == "user\nHello.\nassistant\n"


def test_a_question_with_a_placeholder_of_its_own_is_refused(tokenizer):
    with pytest.raises(ValueError, match="2 image placeholders for 1 images"):
        prompt_ids(tokenizer, "What is <|image_pad|>?", [(2, 2)], {tokenizer.image_token_id: 2})


def test_a_response_is_the_answer_and_the_end_of_turn(tokenizer):
    ids, mask = response_ids(tokenizer, Demonstration("[[0,0,500,500]]"))
    assert tokenizer.decode(ids) == "[[0,0,500,500]]" and mask.tolist() == [1] * len(ids)
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
    assert thinking.decode(response_ids(thinking, Demonstration("[]"))[0]) == "\n</think>\n\n[]"
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
    expected = prompt_ids(tokenizer, "What?", grids, {tokenizer.image_token_id: 2})
    placeholders = {tokenizer.image_token_id: 2}
    np.testing.assert_array_equal(prompt_ids(load_tokenizer(folder), "What?", grids, placeholders), expected)


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


def test_marks_in_a_text_say_where_images_and_objects_stand():
    parts = marked_parts("<image>\nWhich is red? A: <object> B: <object>", objects=1)
    assert parts == (0, "\nWhich is red? A: ", Object(1), " B: ", Object(2))
    later = marked_parts("And <object>, left of <object>?", objects=3)
    assert later == ("And ", Object(3), ", left of ", Object(4), "?")
    turns = (Turn("user", parts), Turn("assistant", ("A",)), Turn("user", later))
    assert Shape(turns, ((4, 4),) * 5).shown() == (0, 1, 2, 3, 4)


def test_a_model_of_whole_images_refuses_an_object(tokenizer):
    with pytest.raises(ValueError, match="shown as an object, but this model takes whole images alone"):
        conversation_ids(tokenizer, [Turn("user", (Object(0),))], [(2, 2)], {tokenizer.image_token_id: 2})
