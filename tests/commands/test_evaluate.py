"""Figures of an evaluation, by hand, and how held-out answers are drawn."""

import types
from typing import Any

import numpy as np

from configs import base
from dig_jax import evaluate
from dig_jax.evaluate import Draws
from dig_jax.measure.figures import figures_of
from tests.helpers.tasks import pairs_task


def terms_of(count: int, **values: Any) -> dict[str, np.ndarray]:
    names = ("f1", "iou", "precision", "recall", "reward", "format", "num_true", "num_predicted", "length")
    return {name: np.ones(count) for name in names} | {name: np.array(x) for name, x in values.items()}


def test_text_that_is_no_list_has_no_number_of_boxes() -> None:
    terms = terms_of(4, num_true=[0, 0, 1, 2], num_predicted=[0, 0, 1, 1], format=[1.0, 0.0, 1.0, 1.0])
    assert figures_of(pairs_task(), terms)["count_accuracy"] == 0.5


def test_lengths_are_given_as_quantiles_and_the_share_that_was_cut() -> None:
    lengths = np.arange(1, 101)  # 1 to 100 tokens, the last five of them cut
    terms = terms_of(100, length=lengths, truncated=lengths > 95, thought_closed=lengths > 80)
    figures = figures_of(pairs_task(), terms)
    assert figures["length_mean"] == 50.5
    # Lengths that there are, with at least so many of a hundred below.
    assert [figures[f"length_p{percent}"] for percent in (50, 90, 99)] == [51, 91, 100]
    assert (figures["truncated"], figures["thought_closed"]) == (0.05, 0.2)


def test_a_model_of_a_run_is_drawn_from_as_its_run_did_in_its_workdir_or_exported() -> None:
    config = base.get_config()
    config.rollout.temperature, config.rollout.max_new_tokens = 0.6, 36
    args = evaluate.parse_arguments(["--model=DIR", "--data=DIR"])
    opened: Any = types.SimpleNamespace(run={"rollout": {}}, tokenizer=None)
    assert evaluate._draws(args, config, opened) == Draws.from_config(config)


def test_held_out_answers_are_drawn_as_the_rollout_draws() -> None:
    config = base.get_config()
    config.rollout.temperature, config.rollout.top_p, config.rollout.top_k = 0.6, 0.95, 20
    sampler: Any = types.SimpleNamespace(sampling=lambda *how: how)
    assert Draws.from_config(config).ways(sampler) == {"_sampled": (8, (0.6, 0.95, 20))}
    config.eval.greedy = True
    assert Draws.from_config(config).ways(sampler) == {"": (1, (0.0,)), "_sampled": (8, (0.6, 0.95, 20))}
    config.eval.greedy, config.eval.group_size = False, 0
    assert Draws.from_config(config).ways(sampler) == {"": (1, (0.0,))}
