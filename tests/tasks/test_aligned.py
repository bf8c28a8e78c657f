"""Aligned records: rounds, crops in their places, kinds, damage, and the tasks that score them."""

import pathlib

import numpy as np
import pytest

from configs import base
from dig_jax.data.example import BadRecord, Object, Turn
from dig_jax.tasks.aligned import texts, with_boxes
from dig_jax.tasks.boxes.text import CONVENTIONS, BoxFormat
from dig_jax.tasks.choice.task import Target as ChoiceTarget
from dig_jax.tasks.conversation.answer import Answer
from dig_jax.tasks.conversation.task import Conversation
from dig_jax.tasks.registry import task_class
from dig_jax.tasks.task import Answerer
from tests.helpers import aligned_records
from tests.helpers.aligned_records import item, square, thing

ANSWERER = Answerer(False, "unit", lambda size: size)


def opened(folder: pathlib.Path, *kinds: str, joined: int = 0):
    return task(kinds, joined).open(folder, "train")


def task(kinds: tuple[str, ...] = (), joined: int = 0) -> Conversation:
    config = base.get_config()
    config.conversation.kinds, config.conversation.joined = kinds, joined
    return Conversation(config, ANSWERER)


THINGS = [
    thing(1, "cube", [0, 2, 4, 6], 5.0),
    thing(2, "cube", [5, 2, 8, 4], 9.0),
    thing(3, "cone", [0, 0, 8, 1], 7.0),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """One picture of 8x8 pixels with three crops of 4x4 and six items."""
    folder = tmp_path_factory.mktemp("aligned") / "data"
    items = [
        item("I-C", 0, 1, ("<image>\nWhere is <object>?", "[0.1,0.2,0.3,0.4]")),
        item("T-I", 0, 2, ("<image>\nWhich crop shows it? A: <object> B: <object>", "B")),
        item("exist", 0, 0, ("<image>\nIs there a cone?", "No")),
        item("C-T", 0, 0, ("<image>\nDescribe the object at B.", "the cube behind the cone"), targets=(2,)),
        item("description", 0, 0, ("<image>\nDescribe.", "A cone [0.000,0.000,1.000,0.125]."), targets=(3,)),
        item("conversation", 1, 2, ("<image>\nHow many?", "Two."), ("Is <object> left of <object>?", "No.")),
    ]
    aligned_records.write(folder, ["train"], items, THINGS)
    return folder


def test_items_are_conversations_with_their_own_crops(folder):
    source = opened(folder)
    first, second = source[0], source[len(source) - 1]
    assert first.messages == (Turn("user", (0, "\nWhere is ", Object(1), "?")),)
    assert first.target == Answer("[0.1,0.2,0.3,0.4]") and first.sizes == ((8, 8), (4, 4))
    assert second.messages[1:] == (
        Turn("assistant", ("Two.",)),
        Turn("user", ("Is ", Object(1), " left of ", Object(2), "?")),
    )
    assert [int(image[0, 0, 0]) for image in second.images] == [0, 20, 30]
    assert source.shapes() == [each.shape for each in source] and not source.unusable


def test_kinds_are_chosen_and_unknown_ones_refused(folder):
    assert [source.id for source in opened(folder, "conversation")] == ["s/conversation"]
    with pytest.raises(ValueError, match="no items of the kinds T-C .*it has C-T, I-C, T-I, conversation"):
        opened(folder, "I-C", "T-C")


def test_joined_items_are_rounds_about_one_picture_with_the_crops_of_each(folder):
    apart = {example.id: example for example in opened(folder, "I-C", "T-I", "exist", "conversation")}
    source = opened(folder, "I-C", "T-I", "exist", "conversation", joined=3)
    assert [len(example.id.split("+")) for example in source] == [3, 1] and not source.unusable
    assert source.shapes() == [example.shape for example in source]
    for example in source:
        own = [apart[id] for id in example.id.split("+")]
        asked = [turn for each in own for turn in each.messages if turn.role == "user"]
        assert len(example.messages) == 2 * len(asked) - 1 and example.target == own[-1].target
        assert example.messages[0].parts[0] == 0 and example.messages[0].parts[1].startswith("\n")
        assert not any(0 in turn.parts or "\n" in turn.parts[0] for turn in example.messages[1:])
        # Crops stand in the order in which the turns show them, each as it is where its item is asked alone.
        shown = [int(image[0, 0, 0]) for image in example.images]
        assert shown == [0, *(int(crop[0, 0, 0]) for each in own for crop in each.images[1:])]
        marks = [part.number for turn in example.messages for part in turn.shown if part != 0]
        assert marks == [*range(1, len(shown))]


def test_rounds_of_one_conversation_are_about_different_objects(tmp_path):
    about = {"T-C": (1,), "C-T": (2,), "I-C": (1, 3), "exist": ()}
    items = [item(kind, 0, 0, ("<image>\nWhat?", "That."), targets=ids) for kind, ids in about.items()]
    aligned_records.write(tmp_path / "data", ["train"], items, THINGS)
    kinds = [set(asked.id.replace("s/", "").split("+")) for asked in opened(tmp_path / "data", joined=4)]
    assert set.union(*kinds) == set(about) and len(kinds) == 2
    assert not any({"T-C", "I-C"} <= each for each in kinds)


def test_joined_items_are_learnt_all_or_refused():
    config = base.get_config()
    config.algorithm, config.conversation.joined = "sft", 3
    with pytest.raises(ValueError, match="max_earlier_tokens=0 would learn the last of"):
        Conversation.check(config)
    config.sft.max_earlier_tokens = 80
    Conversation.check(config)


def test_texts_have_words_alone_and_each_once(folder):
    found = texts(folder)
    assert "Two." in found and "B" in found and len(set(found)) == len(found)
    assert not any(mark in text for text in found for mark in ("<image>", "<object>", "0.1", "1.000"))


def test_a_damaged_crop_is_a_bad_record(folder, monkeypatch):
    source = opened(folder)
    monkeypatch.setattr(source, "_files", lambda record: (square(0, 8), [b"no picture"] * 3))
    with pytest.raises(BadRecord, match="s/I-C"):
        source[0]
    assert source.shapes() == [None] * len(source)


def test_each_task_opens_the_kinds_that_it_scores(folder):
    config = base.get_config()
    config.referring.bare = True
    found = {}
    for name in ("choice", "yes_no"):
        task = task_class(name)(config, ANSWERER)
        (found[name],) = task.open(folder, "train")
        right = task.demonstrate(found[name], np.random.default_rng(0)).text
        assert task.score([right], [found[name]]).reward.tolist() == [1]
    task = task_class("referring")(config, ANSWERER)
    (crop,) = task.open(folder, "train")
    right = task.demonstrate(crop, np.random.default_rng(0))
    assert right.text == "[0.100,0.200,0.300,0.400]" and [*right.regions] == [
        0
    ]  # of the picture, not the crop
    assert task.score([right.text], [crop]).reward[0] == pytest.approx(1)
    assert found["choice"].target == ChoiceTarget({"A": "crop A", "B": "crop B"}, "B")
    assert found["choice"].messages[0].parts[-1] == Object(2) and found["yes_no"].target == "No"


def test_boxes_of_items_are_those_of_the_square_that_the_picture_is_centred_in(folder):
    config = base.get_config()
    config.referring.bare = True
    task = task_class("referring")(config, ANSWERER)
    turns = (Turn("user", (0, "Where?")), Turn("assistant", ("[0.000,0.250,0.500,0.750]",)))
    np.testing.assert_allclose(task._aligned(turns, (4, 8)).boxes, [[0, 0, 0.5, 1]])
    with pytest.raises(ValueError, match="its answer is 'left', and no box"):
        task._aligned((turns[0], Turn("assistant", ("left",))), (4, 8))


def test_descriptions_are_executed_on_the_scene_of_their_record(folder):
    task = task_class("describe")(base.get_config(), ANSWERER)
    phrase, whole = task.open(folder, "train")
    assert phrase.messages[0].parts == (0, "\nDescribe the object at B.") and phrase.sizes == ((8, 8),)
    texts = [
        task.demonstrate(phrase, np.random.default_rng(0)).text,
        "the rightmost cube",
        "the cube",
        "the cone",
    ]
    scores = task.score(texts, [phrase] * 4)
    assert scores.terms["hit"].tolist() == [1, 1, 0, 0]
    assert task.score([task.truth(whole)["answer"]], [whole]).terms["hit"].tolist() == [1]


@pytest.mark.parametrize(
    ("convention", "step", "written"),
    [
        ("unit", 1, "[0.100,0.300,0.500,0.700]"),
        ("thousandths", 20, "[100,100,500,900]"),
        ("pixels", 1, "[1,0,4,4]"),
    ],
)
def test_boxes_in_words_are_written_as_the_model_writes_them(folder, convention, step, written):
    """Of a picture 8 wide and 4 high, half of the square that it is centred in is beside it."""
    turns = (
        Turn("user", (0, "\nWhat is at [0.100,0.300,0.500,0.700]? ", Object(1))),
        Turn("assistant", ("1.5",)),
    )
    boxes = BoxFormat(convention, step, lambda size: size)
    asked, answer = with_boxes(turns, (4, 8), boxes)
    assert asked.parts == (0, f"\nWhat is at {written}? ", Object(1)) and answer == turns[1]


@pytest.mark.parametrize("name", ["referring", "describe", "conversation"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_what_is_learnt_of_records_is_right_in_every_way_to_write_boxes(folder, name, convention):
    config = base.get_config()
    task = task_class(name)(config, Answerer(False, convention, lambda size: (size[0] * 32, size[1] * 32)))
    for example in task.open(folder, "train"):
        learnt = task.demonstrate(example, np.random.default_rng(0)).text
        assert task.score([learnt], [example]).reward[0] == pytest.approx(1, abs=0.02), learnt
