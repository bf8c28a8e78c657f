"""Rewards of several terms, a user's own among them: weights, errors that name the file, normalised apart."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings
from dig_jax.tasks import rewards
from dig_jax.tasks.rewards import RewardMix, make_task, try_out
from dig_jax.update import grpo
from tests.helpers.drawn_pairs import draw_pair
from tests.helpers.paths import ROOT
from tests.helpers.tasks import answerer, asked

OWN = str(ROOT / "examples/own_reward.py")
PAIR = draw_pair(0)
TRUE = json.dumps(np.rint(PAIR.boxes * 1000).astype(int).tolist())


def config_of(weights: tuple[str, ...], file: str = "", **changes) -> ConfigDict:
    config = base.get_config()
    config.rewards.weights, config.rewards.file = weights, file
    config.data.train = ("pairs",)
    config.update_from_flattened_dict(changes)
    return config


def written(tmp_path, body: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(f"def reward(texts, examples):\n    return {body}\n")
    return str(file)


def test_the_reward_is_the_weighted_sum_of_the_tasks_own_and_the_users_terms():
    task = make_task(config_of(("task=1", "brevity=0.5", "spread=0"), OWN), answerer())
    scores = task.score([TRUE, "[]", "x" * 300], [asked(PAIR)] * 3)
    brevity = [1 - len(TRUE) / 200, 1 - 2 / 200, 0]
    np.testing.assert_allclose(scores.terms["brevity"], brevity, rtol=1e-6)
    assert scores.terms["spread"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(scores.reward, scores.terms["task"] + 0.5 * np.float32(brevity), rtol=1e-6)
    assert scores.all_terms.keys() == {"reward", *task.terms} > {"f1", "iou", "task", "brevity", "spread"}
    assert task.summary(scores)["brevity"] == pytest.approx(np.mean(brevity))
    assert task.figures(scores.all_terms)["spread"] == pytest.approx(2 / 3)
    assert task.score([], []).terms["brevity"].shape == (0,)  # a process without answers asks nothing


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*_reward.py")), ids=lambda path: path.name)
def test_every_reward_of_the_examples_takes_any_text_and_is_a_share(file):
    texts = [TRUE, "[[0,0,1000,1000]]", "[]", "", "x" * 300, "[" * 9999, '[[1,2,3,NaN], "a"]', "[[5,5,5,5]]"]
    terms = rewards.load_reward(str(file))(texts, [asked(PAIR)] * len(texts))
    assert terms and all(len(values) == len(texts) for values in terms.values())
    for name, values in terms.items():
        assert np.all(np.isfinite(values)) and 0 <= min(values) <= max(values) <= 1, name


def test_terms_of_the_task_can_be_weighed_without_a_file():
    task = make_task(config_of(("iou=2", "format=-1")), answerer())
    scores = task.score([TRUE, "[]"], [asked(PAIR)] * 2)
    np.testing.assert_allclose(scores.reward, 2 * scores.terms["iou"] - scores.terms["format"])


def test_without_weights_the_task_is_itself():
    assert type(make_task(config_of(()), answerer())).__name__ == "Differences"


def test_a_thinking_models_function_gets_the_answer_alone(tmp_path):
    file = written(tmp_path, '{"size": [len(text) for text in texts]}')
    task = make_task(config_of(("task=1", "size=1"), file), answerer(thinking=True))
    assert task.score(["</think>[]", "cut off"], [asked(PAIR)] * 2).terms["size"].tolist() == [2, 0]
    other = make_task(config_of(("task=1", "size=1"), file), answerer())
    assert other.score(["a</think>b"], [asked(PAIR)]).terms["size"].tolist() == [10]


@pytest.mark.parametrize(
    ("weights", "file", "changes", "message"),
    [
        (("task",), "", {}, "expected terms of different names, each with a number"),
        (("task=1", "task=2"), "", {}, "expected terms of different names"),
        (("task=nan",), "", {}, "each with a number"),
        (("task=0",), "", {}, "all weights are 0"),
        (("brevity=1",), "", {}, "names brevity; without a --reward_file there are accuracy, f1"),
        ((), OWN, {}, "config.rewards.weights is empty"),
        (("task=1",), OWN, {}, "names no term of config.rewards.file"),
        (("task=1", "x=1"), "gone.py", {}, "--reward_file=gone.py: no such Python file"),
        (("task=1",), "", {"rewards.normalize_apart": True}, "needs two terms or more"),
        (
            ("f1=1", "iou=1"),
            "",
            {"rewards.normalize_apart": True, "grpo.normalize_std": False},
            "grpo.normalize_std=False asks for none",
        ),
        (
            ("f1=1", "iou=1"),
            "",
            {"rewards.normalize_apart": True, "grpo.overlong.buffer": 8},
            "make the length a term",
        ),
    ],
)
def test_settings_that_make_no_reward_are_refused_before_anything_compiles(weights, file, changes, message):
    with pytest.raises(ValueError, match=message):
        settings.check(config_of(weights, file, **changes))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"other": [0.0 for _ in texts]}', "returns the terms other, and config.rewards.weights names mine"),
        ('{"mine": [0.0]* 3}', "mine is .*; expected 1 finite numbers"),
        ('{"mine": [float("nan") for _ in texts]}', r"mine is \[nan\]; expected 1 finite numbers"),
        ('{"mine": ["high"]}', "expected 1 finite numbers"),
        ("[0.0]", r"returns the terms \[0.0\]"),
        (
            '{"mine": [1 / len(text) for text in texts]}',
            "fails on an empty answer.*ZeroDivisionError",
        ),
    ],
)
def test_a_function_that_does_not_work_is_refused_when_it_is_tried(tmp_path, body, message):
    task = make_task(config_of(("task=1", "mine=1"), written(tmp_path, body)), answerer())
    with pytest.raises(ValueError, match=rf"--reward_file=.*mine.py.*{message}"):
        try_out(task, asked(PAIR))


def test_a_file_without_the_function_is_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("x = 1")
    with pytest.raises(ValueError, match=r"mine.py defines no function reward\(texts, examples\)"):
        RewardMix.from_config(config_of(("task=1", "mine=1"), str(file)))
    assert rewards.load_reward(written(tmp_path, "{}"))([], []) == {}  # the file as it is now


def test_rewards_normalised_apart_by_hand():
    # Two groups of two. The first term is a hundred times as large as the second; they disagree in group 0.
    large, small = jnp.array([[100.0, 0.0], [50.0, 50.0]]), jnp.array([[0.0, 1.0], [0.0, 1.0]])
    apart = np.asarray(grpo.advantages_apart([large, small], (1.0, 1.0), eps=0.0))
    # Normalised: [h, -h], 0 and [-h, h], [-h, h] with h = sqrt(1/2): their sum is 0 and [-h, h].
    half = np.sqrt(0.5)
    expected = np.array([[0, 0], [-half, half]])
    np.testing.assert_allclose(apart, expected / expected.std(ddof=1), atol=1e-6)
    together = grpo.group_advantages(large + small, normalize_std=True, eps=0.0)
    assert together[0, 0] > 0  # the sum's normalisation hears the large one alone
    # Weights count, a group that is equal in all terms has no advantage at all, and scales do not matter.
    twice = np.asarray(grpo.advantages_apart([1e3 * large, small], (2.0, 1.0), eps=0.0))
    assert twice[0, 0] > 0 > twice[0, 1]
    flat, other = jnp.full((2, 2), 0.1), jnp.array([[0.3, 0.3], [0.0, 1.0]])
    assert not np.asarray(grpo.advantages_apart([flat, other], (1.0, 1.0), eps=1e-6))[0].any()
