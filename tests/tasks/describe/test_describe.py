"""Descriptions: what phrases denote in a scene, mentions with boxes, and where examples come from."""

import json

import numpy as np
import pytest

from configs import base
from dig_jax.data.example import Example, Turn
from dig_jax.tasks.describe.meaning import MAYBE, NO, YES, Placed, denotes
from dig_jax.tasks.describe.sources import Target
from dig_jax.tasks.describe.task import Describe
from dig_jax.tasks.referring.phrases import Thing
from dig_jax.tasks.task import Answerer
from tests.helpers.drawn_pairs import png
from tests.helpers.paths import ROOT


def thing(id: int, name: str, left: float) -> Thing:
    *adjectives, noun = name.split()
    return Thing(id, tuple(adjectives), noun, (left, 0.5, left + 0.1, 0.6))


# Centers at 0.15, 0.25, 0.55 and 0.58 of the width.
SCENE = (
    thing(0, "small red rubber cube", 0.1),
    thing(1, "large red metal cube", 0.2),
    thing(2, "small blue cylinder", 0.5),
    thing(3, "large green ball", 0.53),
)


@pytest.fixture
def task() -> Describe:
    config = base.get_config()
    Describe.check(config)
    return Describe(config, Answerer(False, "unit", lambda size: size))


def example(wanted: int | None, **changes) -> Example:
    target = Target(**({"things": SCENE, "wanted": wanted, "said": (("the words", ()),)} | changes))
    return Example("one", (Turn("user", (0, "?")),), (np.zeros((8, 8, 3), np.uint8),), target, "describe")


@pytest.mark.parametrize(
    ("phrase", "values"),
    [
        ("The red cube.", [YES, YES, NO, NO]),
        ("a small RED cube", [YES, NO, NO, NO]),
        ("the purple cube", [NO, NO, NO, NO]),
        ("the leftmost cube", [YES, NO, NO, NO]),
        ("the cube to the left of the large red cube", [YES, NO, NO, NO]),
        ("the large ball right of the cylinder", [NO, NO, NO, MAYBE]),  # by 0.03 of the width
        ("the cylinder that is right of the metal cube", [NO, NO, YES, NO]),
        ("the ball right of the cube", [NO, NO, NO, MAYBE]),  # which of two cubes?
        ("the cube left of the cube left of the cylinder", [MAYBE, MAYBE, NO, NO]),
    ],
)
def test_a_phrase_is_true_of_what_its_words_and_places_fit(phrase, values):
    assert denotes(phrase, SCENE) == values


def placed(id: int, name: str, across: float, depth: float, size: float = 1.0) -> Placed:
    *adjectives, noun = name.split()
    box = (across - 0.05, 0.5, across + 0.05, 0.6)
    place = (10 * across, depth, 0.0)
    return Placed(id, tuple(adjectives), noun, box, (across, 0.55), depth, 1.0, size, 100 * size, place)


# From left to right, with depths of 5, 5.6, 5.3 and 9; the cone is the largest by far.
DEEP = (
    placed(0, "red cube", 0.1, 5.0),
    placed(1, "blue cube", 0.3, 5.6),
    placed(2, "green cube", 0.5, 5.3),
    placed(3, "red cone", 0.9, 9.0, size=3.0),
)


@pytest.mark.parametrize(
    ("phrase", "values"),
    [
        ("the cube behind the red cube", [NO, YES, MAYBE, NO]),  # by 0.6 and 0.3 of a radius
        ("the object that is in front of the blue cube", [YES, NO, MAYBE, NO]),
        ("the cube closest to the camera", [MAYBE, NO, MAYBE, NO]),
        ("the object farthest from the camera", [NO, NO, NO, YES]),
        ("the largest object", [NO, NO, NO, YES]),
        ("the smallest cube", [MAYBE, MAYBE, MAYBE, NO]),
        ("the cube nearest to the red cone", [NO, NO, YES, NO]),
        ("the cube that is left of the cube that is left of the red cone", [MAYBE, MAYBE, MAYBE, NO]),
    ],
)
def test_depth_and_size_are_told_where_a_scene_says_them(phrase, values):
    assert denotes(phrase, DEEP) == values
    if "left" not in phrase:  # of a photograph nothing is known of these
        assert YES not in denotes(phrase, [Thing(one.id, one.adjectives, one.noun, one.box) for one in DEEP])


def test_what_is_no_phrase_denotes_nothing_and_never_raises():
    assert denotes("", SCENE) is None and denotes("the", SCENE) is None
    assert denotes("left of the cube", SCENE) is None
    assert denotes("a left of b left of c left of d left of e", SCENE) is None
    assert denotes("cube " * 10_000, SCENE) == [YES, YES, NO, NO]


def test_an_object_is_described_rightly_by_any_words_that_fit_it_alone(task):
    texts = [
        "the rubber cube",
        "the leftmost red cube",
        "the red cube",
        "the ball",
        "",
        "a [0.1,0.1,0.2,0.2]",
    ]
    scores = task.score(texts, [example(0)] * len(texts))
    assert scores.terms["hit"].tolist() == [1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(scores.terms["precision"], [1, 1, 0.5, 0, 0, 0])
    np.testing.assert_allclose(scores.terms["recall"], [1, 1, 1, 0, 0, 0])
    assert scores.terms["format"].tolist() == [1, 1, 1, 1, 0, 0]
    np.testing.assert_allclose(scores.reward, [1, 1, 0.9 * 2 / 3 + 0.1, 0.1, 0, 0], rtol=1e-6)
    assert task.figures(scores.all_terms)["denotation"] == pytest.approx(2 / 6)


def test_without_a_scene_the_words_themselves_are_right(task):
    unknown = example(None, things=(), said=(("man in a hat", ()),))
    scores = task.score(["The man in a hat.", "a man"], [unknown] * 2)
    assert scores.terms["hit"].tolist() == [1, 0] and task.truth(unknown) == {"answer": "man in a hat"}


def test_a_description_names_things_with_their_boxes(task):
    boxes = ["[0.100,0.500,0.200,0.600]", "[0.200,0.500,0.300,0.600]", "[0.700,0.700,0.800,0.800]"]
    texts = [
        f"There is a small red cube {boxes[0]}, and the metal cube {boxes[1]}.",
        f"A purple cube {boxes[0]} and a cube {boxes[2]}.",  # no such words; no such place
        f"The red cubes {boxes[0]}{boxes[1]}, and the cube {boxes[0]} once more.",
        "Nothing.",
    ]
    scores = task.score(texts, [example(None)] * 4)
    np.testing.assert_allclose(scores.terms["precision"], [1, 0, 1 / 3, 0])  # "cubes" is no word of a name
    np.testing.assert_allclose(scores.terms["recall"], [2 / 4, 0, 1 / 4, 0])
    assert scores.terms["format"].tolist() == [1, 1, 1, 0]
    placed = f"Left of it is a small cube {boxes[0]}. The leftmost cube that is left of the ball {boxes[0]}."
    assert task.score([placed], [example(None)]).terms["precision"][0] == 0.5  # each thing once
    assert task.score([placed], [example(None, named=(0,))]).terms["recall"][0] == 1
    by_box = task.score(texts, [example(None, by_name=False)] * 4)
    np.testing.assert_allclose(by_box.terms["precision"], [1, 1 / 2, 2 / 3, 0])
    assert task.draw(example(None), scores.read[0], ["step 1"]).size[0] > 0
    assert task.figures(scores.all_terms)["recall_of_all"] == pytest.approx(3 / 16)


def test_scenes_of_records_ask_for_each_object_and_for_all_and_learn_right_answers(task):
    source = task.open(ROOT / "assets" / "sample_pairs", "train[:1]")
    examples = [source[number] for number in range(len(source))]
    assert source.shapes() == [one.shape for one in examples]
    assert sum(one.target.wanted is None for one in examples) == 2  # of both images
    assert examples[0].messages[0].parts[1].startswith("\nDescribe the object at [0.")
    answers = [task.demonstrate(one, np.random.default_rng(0)).text for one in examples]
    scores = task.score(answers, examples)
    assert scores.terms["hit"].tolist() == [1] * len(examples), list(
        zip(answers, scores.terms["f1"], strict=True)
    )


def test_regions_of_files_are_described_by_their_phrases(task, tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 8, 3), np.uint8)))
    lines = [
        {"image": "a.png", "sent": "left dog", "bbox": [0, 0, 4, 4]},
        {"image": "a.png", "sent": "cat", "bbox": []},
    ]
    (tmp_path / "my_train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = task.open(tmp_path, "train")
    assert len(source) == 1
    assert source[0].messages[0].parts[1] == "\nDescribe the object at [0.000,0.250,0.500,0.750]."
    assert task.demonstrate(source[0], np.random.default_rng(0)).text == "left dog"


def test_captions_are_learnt_with_the_boxes_of_their_phrases(task, tmp_path):
    from tests.tasks.referring.test_published import LINES, XML

    for name, text in {"Sentences/36.txt": LINES, "Annotations/36.xml": XML, "mine.txt": "36"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "flickr30k-images").mkdir()
    (tmp_path / "flickr30k-images/36.jpg").write_bytes(png(np.zeros((8, 10, 3), np.uint8)))
    source = task.open(tmp_path, "mine")
    first = source[0]
    assert first.messages[0].parts[1] == "\nDescribe the image and give the coordinate of each object."
    answer = task.demonstrate(first, np.random.default_rng(0)).text
    assert answer == (
        "A man [0.000,0.200,0.600,0.500] holds each other near two hands"
        " [0.000,0.200,0.600,0.500][0.000,0.100,0.500,0.900] ."
    )
    assert task.score([answer], [first]).terms["hit"].tolist() == [1]


def test_settings_that_have_no_meaning_here_are_refused():
    config = base.get_config()
    config.data.question = "What?"
    with pytest.raises(ValueError, match="each in its own words"):
        Describe.check(config)
