"""Conversations in LLaVA's form: turns, marks, errors by entry, counts, and scores of last answers."""

import json
import logging
import pathlib
from typing import Any

import numpy as np
import pytest

from configs import base
from dig_jax.data.example import BadRecord, Object, Turn
from dig_jax.tasks import published
from dig_jax.tasks.conversation.answer import Answer
from dig_jax.tasks.conversation.task import Conversation, word_f1
from dig_jax.tasks.task import Answerer
from tests.helpers.drawn_pairs import png


def task(**changes: Any) -> Conversation:
    config = base.get_config()
    config.conversation.update(changes)
    Conversation.check(config)
    return Conversation(config, Answerer(False, "unit", lambda size: size))


def said(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(turns)]


TALKS = [
    {"id": "bus", "image": "a.png", "conversations": said("Color?\n<image>", "Red.", "Bus?", "Yes.")},
    {
        "image": ["a.png"],
        "objects": ["b.png", "b.png"],
        "conversations": said("<image>\nIs <object> left of", "No.", "And <object> here?", "It is."),
    },
    {"id": 7, "conversations": [{"from": "gpt", "value": "Hi"}, *said("Say <image>.", "<image>", "More?")]},
]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, size in (("a", (4, 6)), ("b", (2, 2))):
        (tmp_path / f"{name}.png").write_bytes(png(np.zeros((*size, 3), np.uint8)))
    (tmp_path / "talks.json").write_text(json.dumps(TALKS))
    return tmp_path


def test_images_go_before_the_text_of_their_turn_and_objects_stay(folder):
    source = task().open(folder, "train")
    assert [source[n].id for n in range(3)] == ["talks-entry 1:bus", "talks-entry 2", "talks-entry 3:7"]
    assert source[0].messages == (
        Turn("user", (0, "\nColor?")),
        Turn("assistant", ("Red.",)),
        Turn("user", ("Bus?",)),
    )
    assert source[0].target == Answer("Yes.")
    assert source[1].messages[0].parts == (0, "\nIs ", Object(1), " left of")
    assert source[1].messages[2].parts == ("And ", Object(2), " here?")
    assert source[1].sizes == ((4, 6), (2, 2), (2, 2))
    assert source.shapes() == [source[n].shape for n in range(3)]


def test_text_alone_keeps_what_looks_like_a_mark_and_ends_with_an_answer(folder):
    last = task().open(folder / "talks.json", "train[2:]")[0]
    assert last.messages == (Turn("user", ("Say <image>.",)),) and last.target == Answer("<image>")


def test_all_answers_of_a_conversation_are_demonstrated(folder):
    first = task().open(folder, "train")[0]
    shown = task().demonstrate(first, np.random.default_rng(0))
    assert (shown.text, shown.earlier) == ("Yes.", (1,))


def test_rounds_are_shown_as_long_as_they_are_short_enough(folder):
    source = task(max_characters=20).open(folder, "train")  # "Color?\n<image>" and "Red." have 18
    assert [turn.parts for turn in source[0].messages] == [(0, "\nColor?")]
    assert source[0].target == Answer("Red.") and len(source) == 2
    assert "entry 2: its first question has 27 characters, more than 20" in str(source.unusable[0][1])
    assert len(task(max_characters=14).open(folder, "train")[0].messages) == 1  # its answer goes beyond
    objects = {"image": "a.png", "objects": ["b.png"] * 2, "conversations": TALKS[1]["conversations"]}
    (folder / "talks.json").write_text(json.dumps([objects]))
    assert len(task(max_characters=30).open(folder, "train")[0].images) == 2  # the later object is not shown


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"conversations": said("Hello")}, "its turns are of user, not in turn"),
        ({"conversations": said("a", "b") + said("c")[:1] + said("d", "e")}, "not in turn"),
        ({"conversations": said("a", " ")}, "an answer is empty"),
        ({"conversations": [{"from": "cat", "value": "miau"}]}, "from .'cat'"),
        (
            {"image": "a.png", "conversations": said("a", "b")},
            "1 images and 0 objects, and marks for 0 and 0",
        ),
        ({"image": 3, "conversations": said("a", "b")}, "image is 3, and neither a path nor a list"),
        ({"conversations": [{"from": "human", "value": 5}]}, "says 5, which is no text"),
        ({"image": "a.png"}, "'conversations' is missing"),
        ([], "it is .."),
    ],
)
def test_a_conversation_of_another_form_is_a_bad_record_that_says_where(folder, entry, why):
    (folder / "talks.json").write_text(json.dumps([TALKS[0], entry]))
    source = task().open(folder, "train")
    ((number, error),) = source.unusable
    assert len(source) == 1 and number == 1 and isinstance(error, BadRecord)
    with pytest.raises(BadRecord, match=rf"talks.json, entry 2: .*{why}"):
        raise error


def test_files_that_are_none_are_refused_by_name(folder):
    with pytest.raises(FileNotFoundError, match="no conversations at"):
        task().open(folder / "none", "train")
    (folder / "more.jsonl").write_text('{"conversations": []}\nno json\n')
    with pytest.raises(ValueError, match="found more.jsonl, talks.json|found talks.json, more.jsonl"):
        task().open(folder, "train")
    with pytest.raises(ValueError, match="more.jsonl, line 2 is not JSON"):
        task().open(folder / "more.jsonl", "train")
    (folder / "talks.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="expected a JSON list"):
        task().open(folder / "talks.json", "train")
    (folder / "a.png").write_bytes(b"no picture")
    (folder / "talks.json").write_text(json.dumps(TALKS[:1]))
    source = task().open(folder / "talks.json", "train")
    assert source.shapes() == [None]
    with pytest.raises(BadRecord, match="bus: .*a.png"):
        source[0]


def test_a_copy_of_a_release_that_is_cut_off_is_called_partial_and_a_longer_one_refused(
    folder, monkeypatch, caplog
):
    monkeypatch.setitem(published.SIZES, "llava_v1_5_mix665k", (4, "conversations"))
    release = folder / "llava_v1_5_mix665k.json"
    release.write_text(json.dumps(TALKS))
    with caplog.at_level(logging.WARNING, "dig_jax"):
        assert "(partial, 3 of 4 conversations)" in task().open(release, "train[:1]").name
    assert "partial, 3 of 4" in caplog.text
    own = folder / "visual_genome"  # a name that says nothing of conversations
    own.mkdir()
    (own / "talks.json").write_text(json.dumps(TALKS))
    assert "partial" not in task().open(own, "train").name
    release.write_text(json.dumps(TALKS + TALKS[:1]))
    assert "partial" not in task().open(release, "train").name
    release.write_text(json.dumps(TALKS + TALKS))
    with pytest.raises(ValueError, match="holds 6 conversations, and llava_v1_5_mix665k has 4"):
        task().open(release, "train")


def test_scores_count_words_that_are_shared(folder):
    example = task().open(folder, "train")[0]
    scores = task().score(["Yes", "It is red, yes!", "", "<answer>YES.</answer>"], [example] * 4)
    np.testing.assert_allclose(scores.terms["f1"], [1, 2 / 5, 0, 1])
    assert scores.terms["exact"].tolist() == [1, 0, 0, 1] and scores.terms["words"].tolist() == [1, 4, 0, 1]
    assert word_f1([], []) == 1
    assert task().draw(example, scores.read[1], ["step 1"]).size[0] > 0


def test_settings_that_have_no_meaning_for_conversations_are_refused():
    config = base.get_config()
    config.data.question = "What?"
    with pytest.raises(ValueError, match="questions of their own"):
        Conversation.check(config)
    with pytest.raises(ValueError, match="conversation.max_characters=-1"):
        task(max_characters=-1)
