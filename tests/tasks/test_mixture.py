"""Several tasks asked in one batch: each example is changed, answered and scored by its own."""

import types
from typing import Any

import numpy as np
import pytest

from configs import base
from dig_jax.data.example import Example
from dig_jax.rollout.engine import Rollout
from dig_jax.tasks.differences.task import Differences
from dig_jax.tasks.mixture import Mixture, summary
from dig_jax.tasks.referring.target import Target
from dig_jax.tasks.referring.task import Referring
from dig_jax.tasks.rewards import Rewarded, RewardMix
from dig_jax.tasks.task import Scores
from dig_jax.update import grpo
from dig_jax.update.experience import Collector, _replace_uninformative
from dig_jax.update.grpo import GRPOConfig
from tests.helpers.drawn_pairs import draw_pair
from tests.helpers.tasks import answerer

LEFT = np.array([[0, 0, 0.5, 1]], np.float32)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    config = base.get_config()
    flipped = base.get_config()
    flipped.data.augment.flip_horizontal = True
    return {"pairs": Differences(config, answerer()), "phrases": Referring(flipped, answerer())}


@pytest.fixture(scope="module")
def examples(tasks: dict[str, Any]) -> list[Example]:
    """A phrase, a pair without differences, and the phrase again."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16] = 255
    messages = tasks["phrases"].ask("the white half", ((32, 32),)).messages
    phrase = Example("p", messages, (image,), Target("the white half", LEFT), "referring", "phrases")
    pair = tasks["pairs"].example(draw_pair(0, size=(32, 32), num_differences=0))
    return [phrase, type(pair)(**{**vars(pair), "part": "pairs"}), phrase]


TEXTS = ["[[0,0,500,1000]]", "[]", "[[0,0,10,10]]"]


def test_each_answer_is_scored_by_the_task_of_its_example(tasks, examples):
    scores = Mixture(tasks).score(TEXTS, examples)
    alone = [
        tasks[example.part].score([text], [example]) for text, example in zip(TEXTS, examples, strict=True)
    ]
    np.testing.assert_array_equal(scores.reward, [one.reward[0] for one in alone])
    assert scores.notes == tuple(one.notes[0] for one in alone)
    assert scores.read == tuple(one.read[0] for one in alone)
    assert scores.terms.keys() == {*Differences.terms, *Referring.terms}
    np.testing.assert_array_equal(scores.terms["hit"], [1, np.nan, 0])
    np.testing.assert_array_equal(scores.terms["f1"], [np.nan, 1, np.nan])
    np.testing.assert_array_equal(scores.terms["iou"], [one.terms["iou"][0] for one in alone])


def test_no_answers_have_no_scores_but_all_terms(tasks):
    scores = Mixture(tasks).score([], [])
    assert len(scores.reward) == 0 and set(scores.terms) == {*Differences.terms, *Referring.terms}


def test_a_summary_has_every_part_for_itself_and_in_all_what_all_parts_have(tasks, examples):
    mixture = Mixture(tasks)
    found = summary(mixture, mixture.score(TEXTS, examples), np.array([1, 0, 1]))
    of_phrases = tasks["phrases"].summary(tasks["phrases"].score(TEXTS[::2], examples[::2]))
    of_pairs = tasks["pairs"].summary(tasks["pairs"].score(TEXTS[1:2], examples[1:2]))
    for part, expected in (("phrases", of_phrases), ("pairs", of_pairs)):
        own = {key: value for key, value in found.items() if key.startswith(f"{part}/")}
        assert own == {f"{part}/reward/{name}": value for name, value in expected.items()}
    of_all = {key for key in found if key.startswith("reward/")}
    common = {name for name in Differences.terms if name in Referring.terms}
    assert of_all == {"reward/reward", *(f"reward/{name}" for name in common)} and "iou" in common
    assert found["reward/iou"] == pytest.approx((2 * of_phrases["iou"] + of_pairs["iou"]) / 3)
    assert not any(np.isnan(value) for value in found.values())
    absent = summary(mixture, mixture.score(TEXTS[1:2], examples[1:2]), np.array([0]))
    assert not any(key.startswith("phrases/") for key in absent)


def test_an_example_is_changed_and_answered_by_its_own_task_and_stays_of_its_part(tasks, examples):
    mixture, phrase, pair = Mixture(tasks), examples[0], examples[1]
    changed = [mixture.augment(phrase, np.random.default_rng(seed)) for seed in range(8)]
    assert {example.part for example in changed} == {"phrases"}
    assert {example.images[0][0, 0, 0] for example in changed} == {0, 255}  # mirrored or not
    same = mixture.augment(pair, np.random.default_rng(0))
    assert same.part == "pairs" and (same.images[0] == pair.images[0]).all()
    rng = np.random.default_rng(0)
    assert mixture.demonstrate(phrase, rng).text == "[[0,0,500,1000]]"
    assert mixture.demonstrate(pair, rng).text == "[]"


def test_a_part_with_terms_normalised_apart_leaves_the_other_parts_alone(tasks):
    """Groups 0 and 2 are of pairs, whose two terms are normalised apart over both; group 1 is as ever."""
    mix = RewardMix("", {"f1": 1.0, "format": 1.0}, True)
    asked = Mixture({"pairs": Rewarded(tasks["pairs"], mix), "phrases": tasks["phrases"]})
    config = base.get_config()
    sampler: Any = types.SimpleNamespace(sampling=lambda *_: None, task=asked)
    loader: Any = None
    reward = np.array([[0, 1], [0, 0.5], [1, 0]], np.float32)
    terms = {"f1": np.array([0, 1, np.nan, np.nan, 0.5, 0.5]), "format": np.array([0, 1, 1, 0, 1, 0])}
    ones = np.ones((3, 2, 1), np.float32)
    completions: Any = types.SimpleNamespace(
        rollout=Rollout(
            ones.astype(np.int32), ones, ones, ones, np.ones((3, 2), bool), np.int32(1), np.float32(0)
        ),
        scores=Scores(reward.ravel(), terms, (), ()),
    )
    collector = Collector(config, sampler, loader, GRPOConfig.from_config(config))
    drawn = collector._compare(np.arange(3), np.array([0, 1, 0]), np.zeros(3, int), completions)
    eps = config.grpo.advantage_eps
    of_pairs = np.stack([values.reshape(3, 2)[[0, 2]] for values in terms.values()])
    apart = grpo.advantages_apart(of_pairs, (1.0, 1.0), eps=eps)
    plain = grpo.group_advantages(reward, normalize_std=True, eps=eps)
    np.testing.assert_array_equal(drawn.advantages[[0, 2]], apart)
    np.testing.assert_array_equal(drawn.advantages[1], plain[1])

    # Another attempt: group 0 has nothing to tell now. The prompt that takes its place is of its own part.
    kept = type(drawn)(**{**vars(drawn), "advantages": drawn.advantages * np.array([[0], [1], [1]])})
    fresh = type(drawn)(**{**vars(drawn), "positions": np.arange(3, 6), "parts": np.array([1, 0, 0])})
    assert _replace_uninformative(kept, fresh).positions.tolist() == [4, 1, 2]
    of_others = type(drawn)(**{**vars(fresh), "parts": np.array([1, 1, 1])})
    assert _replace_uninformative(kept, of_others).positions.tolist() == [0, 1, 2]
