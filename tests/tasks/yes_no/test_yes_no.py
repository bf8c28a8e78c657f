"""Yes or no as a task: its own questions, the reward by hand, what is refused."""

import json

import numpy as np
import pytest

from configs import base
from dig_jax.tasks.registry import task_class
from tests.helpers.drawn_pairs import png
from tests.helpers.tasks import answerer


def make_task(thinking: bool = False, **changes):
    config = base.get_config()
    config.task = "yes_no"
    config.update_from_flattened_dict(changes)
    task = task_class("yes_no")
    task.check(config)
    return task(config, answerer(thinking=thinking))


@pytest.fixture
def file(tmp_path):
    """Two questions about one picture."""
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 6, 3), np.uint8)))
    lines = [
        {"image": "a.png", "question": "Is there a dog?", "answer": "yes"},
        {"image": "a.png", "question": "A cat? Please answer yes or no.", "answer": False},
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "test.jsonl"


def test_the_question_asks_for_yes_or_no_once(file):
    source = make_task().open(file, "test")
    assert source[0].messages[0].parts == (0, "Is there a dog? Please answer yes or no.")
    assert source[1].messages[0].parts == (0, "A cat? Please answer yes or no.")
    assert (source[0].target, source[1].target) == ("Yes", "No")


def test_the_reward_by_hand(file):
    task = make_task()
    asked = task.open(file, "test")[0]
    scores = task.score(["Yes", "yes, a dog", "No", "no dog", "maybe"], [asked] * 5)
    np.testing.assert_allclose(scores.reward, [1, 0.9, 0.1, 0, 0], atol=1e-6)
    assert scores.notes == ("word", "only_word", "word", "only_word", "neither")
    figures = task.figures(scores.all_terms)
    assert figures == pytest.approx({"hit": 0.4, "parsed": 0.8, "says_yes": 0.4, "reward": 0.4}, abs=1e-6)
    assert scores.all_terms.keys() == {"reward", *task.terms}
    thinking = make_task(thinking=True).score(["Yes", "</think>Yes"], [asked] * 2)
    assert thinking.terms["hit"].tolist() == [0, 1]


def test_the_answer_to_learn_earns_everything(file):
    task = make_task()
    source = task.open(file, "test")
    examples = [source[0], source[1]]
    texts = [task.demonstrate(example, np.random.default_rng(0)).text for example in examples]
    assert task.score(texts, examples).reward.tolist() == [1, 1]
    assert task.truth(examples[1]) == {"answer": "No"}
    assert task.draw(examples[0], {"answer": ""}, ["caption"]).width > 300


def test_wrong_answers_and_settings_are_refused(file):
    file.write_text('{"image": "a.png", "question": "?", "answer": "maybe"}')
    with pytest.raises(ValueError, match="the answer is 'maybe'; expected yes or no"):
        make_task().open(file, "test")
    with pytest.raises(ValueError, match="config.data.augment.swap_pair=True"):
        make_task(**{"data.augment.swap_pair": True})
    with pytest.raises(ValueError, match=r"write \{question\} there"):
        make_task(**{"data.question": "Is it?"})
