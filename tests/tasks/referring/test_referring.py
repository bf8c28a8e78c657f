"""Referring expressions: the reward by hand, and mirroring that keeps phrases true."""

import dataclasses
import json

import numpy as np
import pytest

from configs import base
from dig_jax.data.example import Example
from dig_jax.tasks.referring.target import Target
from dig_jax.tasks.referring.task import Referring
from tests.helpers.tasks import answerer

BOX = [100, 100, 300, 300]


def make_task(convention: str = "thousandths", **changes) -> Referring:
    config = base.get_config()
    config.task = "referring"
    config.update_from_flattened_dict(changes)
    Referring.check(config)
    return Referring(config, answerer(convention))


def example(task: Referring, box: list[int] | None, phrase: str = "red cube", size=(50, 100)) -> Example:
    boxes = np.zeros((0, 4), np.float32) if box is None else np.float32([box]) / 1000
    image = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3)
    return Example("x", task.ask(phrase, (size,)).messages, (image,), Target(phrase, boxes), task.name)


@pytest.mark.parametrize(
    ("answer", "truth", "hit", "iou", "form"),
    [
        ([BOX], BOX, 1, 1, 1),
        ([[100, 100, 300, 200]], BOX, 1, 0.5, 1),  # exactly half of it
        ([[100, 100, 300, 199]], BOX, 0, 0.495, 1),
        ([{"bbox_2d": BOX, "label": "red cube"}], BOX, 1, 1, 1),
        ([], BOX, 0, 0, 1),
        ([], None, 1, 1, 1),
        ([BOX], None, 0, 0, 1),
        ([BOX, [0, 0, 1, 1]], BOX, 1, 1, 0),  # the first counts, and two are malformed
        ([[0, 0, 1, 1], BOX], BOX, 0, 0, 0),
        ("nothing there", None, 0, 0, 0),  # no list is not the answer "none"
    ],
)
def test_the_reward_by_hand(answer, truth, hit, iou, form):
    task = make_task()
    text = answer if isinstance(answer, str) else json.dumps(answer)
    scores = task.score([text], [example(task, truth)])
    assert scores.terms["hit"][0] == hit and scores.terms["format"][0] == form
    assert scores.terms["iou"][0] == pytest.approx(iou, abs=1e-6)
    assert scores.reward[0] == pytest.approx(0.9 * (0.5 * hit + 0.5 * iou) + 0.1 * form, abs=1e-6)
    assert scores.all_terms.keys() == {"reward", *task.terms}


def test_many_answers_are_scored_at_once_and_their_figures_tell_phrases_that_fit_from_others():
    task = make_task()
    asked = [example(task, BOX), example(task, BOX), example(task, None), example(task, None)]
    scores = task.score([json.dumps([BOX]), "[]", "[]", json.dumps([BOX])], asked)
    figures = task.figures(scores.all_terms)
    assert figures["hit"] == 0.5 and figures["hit_on_some"] == 0.5 and figures["hit_on_none"] == 0.5
    assert task.score([], []).reward.shape == (0,)


@pytest.mark.parametrize("convention", ["thousandths", "pixels", "unit"])
def test_the_answer_to_learn_earns_everything_and_lies_on_the_last_image(convention):
    task = make_task(convention)
    for box in (BOX, None):
        asked = example(task, box, size=(500, 1000))
        shown = task.demonstrate(asked, np.random.default_rng(0))
        assert task.score([shown.text], [asked]).reward[0] == pytest.approx(1, abs=1e-5)
        np.testing.assert_array_equal(shown.regions[0], asked.target.boxes)


def test_an_image_is_mirrored_with_its_box_unless_the_phrase_says_a_side():
    task = make_task(**{"data.augment.flip_horizontal": True, "data.augment.flip_vertical": True})

    def seen(phrase: str) -> list[list[float]]:
        asked = example(task, BOX, phrase)
        changed = [task.augment(asked, np.random.default_rng(seed)) for seed in range(40)]
        for other in changed:
            x0, y0, x1, y1 = np.rint(other.target.boxes[0] * [100, 50, 100, 50]).astype(int)
            part = other.images[0][y0:y1, x0:x1]
            original = asked.images[0][5:15, 10:30]
            views = [original[::v, ::h] for v in (1, -1) for h in (1, -1)]
            assert any(np.array_equal(part, view) for view in views)
        return sorted({tuple(np.rint(other.target.boxes[0] * 1000)) for other in changed})

    kept, across, up, both = (100, 100, 300, 300), (700, 100, 900, 300), (100, 700, 300, 900), (700,) * 2
    assert len(seen("red cube")) == 4
    assert seen("the cube on the left") == [kept]
    assert seen("Leftmost cube") == [kept, up]
    assert seen("the nearest cube") == [kept, across]
    assert both


def test_settings_that_contradict_the_task_are_refused():
    with pytest.raises(ValueError, match=r"config.data.augment.permute_channels=True: phrases name colors"):
        make_task(**{"data.augment.permute_channels": True})
    with pytest.raises(ValueError, match=r"write \{phrase\} there"):
        make_task(**{"data.question": "Where is it?"})
    with pytest.raises(ValueError, match="referring.iou_threshold is 0"):
        make_task(**{"referring.iou_threshold": 0.0})
    task = make_task(**{"data.question": "Where is the {phrase} in {width}x{height}?"})
    assert example(task, None).messages[0].parts == (0, "Where is the red cube in 100x50?")


def test_a_sample_shows_the_phrase_and_the_boxes():
    task = make_task()
    asked = example(task, BOX)
    assert task.truth(asked) == {"phrase": "red cube", "boxes": pytest.approx(np.float32([BOX]) / 1000)}
    assert task.draw(asked, {"boxes": []}, ["caption"]).width > 300
    with pytest.raises(ValueError, match="no text: the task referring"):
        task.question(((10, 10),))
    assert dataclasses.is_dataclass(asked.target)


def test_a_bare_answer_is_the_box_alone():
    task = make_task("unit", **{"referring.bare": True})
    asked = example(task, BOX, size=(100, 100))
    assert asked.messages[0].parts == (0, "\nOutput the coordinate of red cube")
    shown = task.demonstrate(asked, np.random.default_rng(0)).text
    assert shown == "[0.100,0.100,0.300,0.300]"
    assert task.demonstrate(example(task, None), np.random.default_rng(0)).text == "[]"
    scores = task.score([shown, f" {shown}\n", f"[{shown}]", f"Here: {shown}", "[]", ""], [asked] * 6)
    assert scores.terms["hit"].tolist() == [1, 1, 1, 1, 0, 0]
    assert scores.terms["format"].tolist() == [1, 1, 0, 0, 1, 0]
    assert task.score(["[]"], [example(task, None)]).reward.tolist() == [1]
