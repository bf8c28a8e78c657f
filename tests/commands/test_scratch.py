"""The from-scratch folder has the format of a released model, and one token per coordinate."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tokenizers
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, GenerationConfig

from dig_jax.data.example import Demonstration
from dig_jax.data.prompts import prompt_ids, response_ids
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.models.families import load_config
from dig_jax.models.hf.checkpoint import load_model
from dig_jax.scratch import ScratchConfig, main, make_scratch_folder
from tests.helpers.tasks import box_format

SMALL = ScratchConfig(vision_depth=1, text_depth=1, vision_inner=64, text_inner=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("scratch") / "model"
    make_scratch_folder(out, SMALL)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def plain(folder):
    """The same file, read without transformers."""
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def names(tokenizer, text: str) -> list[str]:
    return tokenizer.hf.convert_ids_to_tokens(tokenizer.encode(text))


def test_an_answer_costs_one_token_per_number_and_separator(tokenizer):
    assert names(tokenizer, "[[0,20,1000,40],[500,0,520,980]]") == [
        *("[[", "0", ",", "20", ",", "1000", ",", "40", "],["),
        *("500", ",", "0", ",", "520", ",", "980", "]]"),
    ]
    assert names(tokenizer, "[]") == ["[]"]
    four = np.array([[0, 0, 0.1, 0.1]] * 4)
    answer = Demonstration(box_format(step=20).write(four, (128, 128)))
    assert len(response_ids(tokenizer, answer)[0]) == 1 + 4 * 7 + 3 + 1 + 1


def test_a_number_off_the_grid_is_spelled_in_digits(tokenizer):
    assert names(tokenizer, "[21,1020]") == ["[", "2", "1", ",", "1", "0", "2", "0", "]"]


def test_the_prompt_is_short(tokenizer):
    assert (
        len(prompt_ids(tokenizer, SMALL.question, [(8, 8), (8, 8)], {tokenizer.image_token_id: 2}))
        == 2 * 16 + 15
    )


@settings(max_examples=300)
@given(
    text=st.one_of(
        st.text("0123456789[],. -\n", max_size=40), st.text(st.characters(max_codepoint=0x2FF), max_size=20)
    )
)
def test_any_text_survives_and_tokenises_alike_in_every_loader(tokenizer, plain, text):
    ids = tokenizer.encode(text)
    assert plain.encode(text).ids == ids
    # Qwen's tokenizers bring text to NFC. hf.decode keeps special tokens, which hypothesis also thinks of.
    assert tokenizer.hf.decode(ids) == plain.normalizer.normalize_str(text)


def test_special_tokens_stand_in_the_order_of_released_models(tokenizer):
    order = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
    )
    ids = tokenizer.hf.convert_tokens_to_ids(list(order))
    assert ids == sorted(ids)
    assert tokenizer.image_token_id == ids[-1]


def test_transformers_reads_the_settings(folder, tokenizer):
    config = AutoConfig.from_pretrained(folder)
    assert config.text_config.vocab_size == 384 >= tokenizer.vocab_size
    assert config.image_token_id == tokenizer.image_token_id
    assert load_config(folder).to_dict() == load_config(folder).from_dict(config.to_dict()).to_dict()
    assert tuple(GenerationConfig.from_pretrained(folder).eos_token_id) == tokenizer.eos_ids


def test_neighboring_numbers_and_places_start_out_alike(folder, tokenizer):
    model = load_model(folder)
    ids = tokenizer.hf.convert_tokens_to_ids([str(n) for n in range(0, 1001, 20)])
    numbers = np.asarray(model.text.embedding.get_value())[ids]
    places = np.asarray(model.vision.pos_embed.get_value()).reshape(8, 8, -1)
    for table in (numbers, places[3], places[:, 3]):
        distance = np.linalg.norm(table[:, None] - table[None], axis=-1)
        near, far = np.diagonal(distance, 1), np.diagonal(distance, 4)
        assert near.max() < far.min()
    rest = np.asarray(model.text.embedding.get_value())[:256]
    np.testing.assert_allclose(numbers.std(), rest.std(), rtol=0.1)


def test_without_the_smooth_start_all_weights_are_noise(tmp_path):
    make_scratch_folder(tmp_path / "model", dataclasses.replace(SMALL, fourier_init=False))
    table = np.asarray(load_model(tmp_path / "model").vision.pos_embed.get_value())
    np.testing.assert_allclose(table.std(), SMALL.initializer_range, rtol=0.05)


def test_the_same_seed_gives_the_same_weights(folder, tmp_path):
    make_scratch_folder(tmp_path / "again", SMALL)
    left, right = (nnx.state(load_model(path), nnx.Param) for path in (folder, tmp_path / "again"))
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("question", ["Box every difference.", "aaaa aa abab baba banana, user's 12?"])
def test_the_words_of_any_question_become_single_tokens(tmp_path, question):
    make_scratch_folder(tmp_path / "model", dataclasses.replace(SMALL, question=question, fourier_init=False))
    tokenizer = load_tokenizer(tmp_path / "model")
    pieces = tokenizer.hf.backend_tokenizer.pre_tokenizer.pre_tokenize_str(question)
    assert len(tokenizer.encode(question)) <= len(pieces)
    assert tokenizer.decode(tokenizer.encode(question)) == question


def test_the_command_writes_a_folder_and_explains_what_it_cannot(tmp_path, capsys):
    out = tmp_path / "model"
    flags = [f"--out={out}", "--thinking", "--text_depth=1", "--vision_depth=2", "--deepstack", "0", "1"]
    assert main([*flags, "--text_depth=2"]) == 0
    assert load_tokenizer(out).opens_thinking
    assert json.loads((out / "config.json").read_text())["vision_config"]["deepstack_visual_indexes"] == [
        0,
        1,
    ]
    assert main(flags) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert main([f"--out={tmp_path / 'other'}", "--number_step=30"]) == 1
    assert "number_step must be a divisor of 1000, got 30" in capsys.readouterr().err
    for flags, reason in (
        (["--deepstack", "0"], "deepstack: the tower of Qwen2.5-VL has no such setting"),
        (["--number_step=10"], "qwen2_5_vl writes boxes in pixels, which have no step"),
        (
            ["--family=qwen9"],
            "model_type is 'qwen9', but only 'qwen3_vl' (Qwen3-VL) or 'qwen3_vl_moe' (Qwen3-VL-",
        ),
    ):
        assert main([f"--out={tmp_path / 'other'}", "--family=qwen2_5_vl", *flags]) == 1
        assert reason in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_info:
        main(["--no_such_flag"])
    assert exit_info.value.code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
