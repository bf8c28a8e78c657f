"""Padding is planned from the lengths of prompts, which are read many at a time and kept between starts."""

import dataclasses
import logging

import numpy as np
import pytest
from etils import epath

from dig_jax.data import encode, planning, prompts
from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.example import Shape, Turn
from dig_jax.data.images import ImageConfig
from dig_jax.data.planning import digest, plan_padding
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.models.families import load_config


@dataclasses.dataclass(frozen=True)
class Questions:
    """Shapes without examples."""

    shapes: list[Shape]

    def __getitem__(self, index: int):
        return dataclasses.make_dataclass("Named", ["id"])(f"question {index}")


def question(number: int, words: int = 1) -> Shape:
    said = (
        Turn("user", (0, f"{number}" + " Where is it?" * words)),
        Turn("assistant", ("Tönt it\n\n here.",)),
    )
    return Shape((*said, Turn("user", ("And ", 1, "now?"))), ((64, 64), (64 + 32 * (number % 3), 64)))


@pytest.fixture(scope="module")
def encoder(scratch_folder, tokenizer) -> ExampleEncoder:
    images = ImageConfig.from_folder(scratch_folder)
    return ExampleEncoder(tokenizer, images, load_config(scratch_folder), max_answer_length=0)


@pytest.fixture
def reading(monkeypatch) -> list[int]:
    """How many questions were read into tokens, a number for each time."""
    counts: list[int] = []
    plain = Tokenizer.encode_all

    def counted(self, texts):
        counts.append(len(texts))
        return plain(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_all", counted)
    return counts


def test_lengths_are_those_of_the_prompts_themselves(encoder, monkeypatch):
    monkeypatch.setattr(encode, "_TOGETHER", 4)
    shapes = [question(n, n % 4) for n in range(9)]
    needs = encoder.needs(shapes)
    for shape, (tokens, patches, text, images, objects) in zip(shapes, needs.tolist(), strict=True):
        grids = encoder._grids(shape)
        placeholders = encoder._config.placeholders
        ids = prompts.conversation_ids(encoder._tokenizer, shape.messages, grids, placeholders)
        assert tokens == len(ids) and text == sum(id not in placeholders for id in ids.tolist())
        assert (patches, images, objects) == (sum(h * w for h, w in grids), 2, 0)


def test_each_question_is_read_into_tokens_once_however_often_it_is_asked(encoder, reading):
    plan_padding(Questions([question(n) for n in (0, 1, 0, 1, 2)]), encoder, (64 * 64, 128 * 128))
    assert reading == [3]


@pytest.fixture
def kept(tmp_path, monkeypatch) -> epath.Path:
    monkeypatch.setattr(planning, "WORTH_KEEPING", 2)
    return epath.Path(tmp_path / "lengths")


def same(first, second) -> bool:
    arrays = all(np.array_equal(getattr(first, x), getattr(second, x)) for x in ("needs", "smallest"))
    return arrays and first.buckets == second.buckets


def test_a_run_started_again_plans_the_same_and_reads_nothing_into_tokens(encoder, kept, reading):
    asked = Questions([question(n, n % 5) for n in (*range(7), 3)])
    plain = plan_padding(asked, encoder, (), (64, 128))
    reading.clear()
    first = plan_padding(asked, encoder, (), (64, 128), kept)
    again = plan_padding(asked, encoder, (), (64, 128), kept)
    assert reading == [7] and same(first, plain) and same(again, plain)
    assert [path.suffix for path in kept.iterdir()] == [".npy"]  # nothing half written is left


@pytest.mark.parametrize("other", ["question", "order", "size", "template", "preprocessing"])
def test_lengths_of_other_questions_are_not_taken(other, encoder, kept, reading):
    shapes = [question(n) for n in range(4)]
    plan_padding(Questions(shapes), encoder, (), (), kept)
    changed = encoder
    match other:
        case "question":
            shapes = [*shapes[:3], question(4)]
        case "order":
            shapes = shapes[::-1]
        case "size":
            shapes = [*shapes[:3], dataclasses.replace(shapes[3], sizes=((64, 64), (128, 64)))]
        case "template":
            hf = dataclasses.make_dataclass("HF", [])()
            hf.__dict__.update(get_vocab=dict, chat_template="other", special_tokens_map={})
            changed = ExampleEncoder(
                dataclasses.replace(encoder._tokenizer, hf=hf),
                encoder.image_config,
                encoder._config,
                max_answer_length=0,
            )
        case "preprocessing":
            larger = dataclasses.replace(encoder.image_config, max_pixels=encoder.image_config.max_pixels * 4)
            changed = ExampleEncoder(encoder._tokenizer, larger, encoder._config, max_answer_length=0)
    assert not (kept / f"{digest(shapes, changed)}.npy").exists()


@pytest.mark.parametrize("damage", [b"", b"half of a file", "other"])
def test_damaged_lengths_are_told_of_and_read_again(damage, encoder, kept, reading, caplog):
    asked = Questions([question(n) for n in range(4)])
    plain = plan_padding(asked, encoder, (), (), kept)
    (path,) = kept.iterdir()
    if damage == "other":
        with path.open("wb") as file:
            np.save(file, np.zeros((3, 5), np.int64))
    else:
        path.write_bytes(damage)
    with caplog.at_level(logging.WARNING, "dig_jax"):
        assert same(plan_padding(asked, encoder, (), (), kept), plain)
    assert "is damaged" in caplog.text and reading == [4, 4]
    assert same(plan_padding(asked, encoder, (), (), kept), plain) and reading == [4, 4]


def test_a_folder_that_cannot_be_written_costs_the_next_start_alone(encoder, kept, caplog):
    kept.write_text("a file in its place")
    with caplog.at_level(logging.WARNING, "dig_jax"):
        plan_padding(Questions([question(n) for n in range(4)]), encoder, (), (), kept)
    assert "cannot be written" in caplog.text


def test_a_question_with_a_placeholder_of_its_own_is_named(encoder):
    wrong = Shape((Turn("user", ("<|image_pad|>",)),), ())
    with pytest.raises(ValueError, match="question 2, .*the question must not contain"):
        plan_padding(Questions([question(0), question(1), wrong]), encoder, ())
