"""Multiple choice as a task: its own questions, the reward by hand, what is refused."""

import json

import numpy as np
import pytest

from configs import base
from dig_jax.tasks.registry import task_class
from tests.helpers.drawn_pairs import png
from tests.helpers.tasks import answerer


def make_task(thinking: bool = False, **changes):
    config = base.get_config()
    config.task = "choice"
    config.update_from_flattened_dict(changes)
    task = task_class("choice")
    task.check(config)
    return task(config, answerer(thinking=thinking))


@pytest.fixture
def file(tmp_path):
    """Three questions about one picture: options as list and object, answers as letter and text."""
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 6, 3), np.uint8)))
    ask = {"image": "a.png", "question": "Which color?"}
    lines = [
        {**ask, "options": ["red", "blue"], "answer": "B"},
        {**ask, "options": ["red", "blue"], "answer": "red"},
        {**ask, "options": {"A": "1", "C": "None"}, "answer": "C"},
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "test.jsonl"


def test_the_pictures_come_first_then_the_question_with_its_options(file):
    source = make_task().open(file, "test")
    text = "Question: Which color?\nOptions:\nA. red\nB. blue\nAnswer with the option letter only."
    assert source[0].messages[0].parts == (0, text)
    assert [source[index].target.answer for index in range(3)] == ["B", "A", "C"]
    own = make_task(**{"data.question": "{question}\nThink first."}).open(file, "test")
    assert own[0].messages[0].parts[1].endswith("B. blue\nThink first.")


def test_the_reward_by_hand(file):
    task = make_task()
    asked = task.open(file, "test")[0]
    texts = ["B", "It is blue.", "A", "It is red.", "A or B"]
    scores = task.score(texts, [asked] * 5)
    np.testing.assert_allclose(scores.reward, [1, 0.9, 0.1, 0, 0], atol=1e-6)
    assert scores.terms["hit"].tolist() == [1, 1, 0, 0, 0]
    assert scores.notes == ("letter", "contained_text", "letter", "contained_text", "several")
    assert scores.all_terms.keys() == {"reward", *task.terms}
    assert task.figures(scores.all_terms) == pytest.approx(
        {"hit": 0.4, "parsed": 0.8, "reward": 0.4}, abs=1e-6
    )
    assert task.score([], []).reward.shape == (0,)


def test_a_thought_is_no_answer(file):
    task = make_task(thinking=True)
    asked = task.open(file, "test")[0]
    assert task.score(["It is B", "</think>B"], [asked] * 2).terms["hit"].tolist() == [0, 1]


def test_the_answer_to_learn_earns_everything(file):
    task = make_task()
    source = task.open(file, "test")
    examples = [source[index] for index in range(3)]
    texts = [task.demonstrate(example, np.random.default_rng(0)).text for example in examples]
    assert task.score(texts, examples).reward.tolist() == [1, 1, 1]
    assert task.truth(examples[2]) == {"options": {"A": "1", "C": "None"}, "answer": "C"}
    assert task.draw(examples[0], {"answer": ""}, ["caption"]).width > 300


@pytest.mark.parametrize(
    "line",
    [
        {"options": ["red"], "answer": "A"},
        {"options": ["red", ""], "answer": "A"},
        {"options": ["red", "red"], "answer": "red"},
        {"options": {"a": "red", "b": "blue"}, "answer": "a"},
        {"options": ["red", "blue"], "answer": ["A"]},
        {"options": ["red", "blue"]},
    ],
)
def test_a_line_whose_options_or_answer_are_wrong_is_named(file, line):
    file.write_text(json.dumps({"image": "a.png", "question": "?", **line}))
    with pytest.raises(ValueError, match="1 lines are not .* the first is line 1"):
        make_task().open(file, "test")


def test_settings_that_contradict_the_task_are_refused():
    with pytest.raises(ValueError, match="config.data.augment.flip_horizontal=True"):
        make_task(**{"data.augment.flip_horizontal": True})
    with pytest.raises(ValueError, match=r"write \{question\} there"):
        make_task(**{"data.question": "Which?"})
    with pytest.raises(ValueError, match="config.sft.count_noise=0.5"):
        make_task(**{"sft.count_noise": 0.5})
