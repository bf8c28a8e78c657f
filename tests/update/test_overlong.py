"""Completions that are too long: the soft penalty, their part in the loss, and what the log says."""

import itertools
import logging
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import base
from dig_jax import settings
from dig_jax.report.runlog import RunLog
from dig_jax.report.shown import Shown
from dig_jax.rollout.engine import Rollout
from dig_jax.update import grpo
from dig_jax.update.experience import Collector, Drawn
from dig_jax.update.grpo import GRPOConfig
from tests.helpers.tasks import pairs_task

LONGEST = 8
PLAIN = {"grpo.normalize_std": False, "grpo.kl_coef": 0.0}


def config_of(**changes: object) -> Any:
    config = base.get_config()
    config.rollout.max_new_tokens = LONGEST
    config.update_from_flattened_dict(changes)
    return config


def compare(drawn: Any, **changes: object) -> Drawn:
    """What a step would learn from one group of completions."""
    config = config_of(**changes)
    sampler: Any = types.SimpleNamespace(sampling=lambda *_: None, task=pairs_task())
    loader: Any = None
    return Collector(config, sampler, loader, GRPOConfig.from_config(config))._compare(
        *np.zeros((3, 1), int), drawn
    )


def completions(lengths: list[int], rewards: list[float]) -> Any:
    """One group of completions; those of 8 tokens were truncated."""
    mask = (np.arange(LONGEST) < np.array(lengths)[:, None])[None].astype(np.float32)
    finished = np.array([lengths]) < LONGEST
    rollout = Rollout(mask.astype(np.int32), mask, -mask, -mask, finished, np.int32(LONGEST), np.float32(0))
    return types.SimpleNamespace(rollout=rollout, scores=types.SimpleNamespace(reward=np.array(rewards)))


def policy_loss(experience: Drawn, logprobs: Any, **changes: object) -> tuple[jax.Array, dict]:
    config = GRPOConfig.from_config(config_of(**changes))
    return grpo.policy_loss(
        logprobs,
        experience.behaviour_logprobs,
        jnp.full(experience.mask.shape, -1.5),
        experience.advantages,
        experience.mask,
        config,
        grpo.step_totals(experience.mask),
        entropy=jnp.ones(experience.mask.shape),
    )


def test_the_penalty_falls_linearly_over_the_last_tokens() -> None:
    lengths = np.array([[1, 4, 5, 6], [7, 8, 0, 3]])
    penalty = grpo.overlong_penalty(lengths, max_new_tokens=8, buffer=4, penalty=0.5)
    np.testing.assert_allclose(penalty, [[0, 0, -0.125, -0.25], [-0.375, -0.5, 0, 0]])


def test_groups_are_compared_by_reward_and_length() -> None:
    drawn = completions([4, 6, 8], [0.5, 0.75, 0.5])
    shaped = compare(drawn, **PLAIN, **{"grpo.overlong.buffer": 4, "grpo.overlong.penalty": 1.0})
    # Penalties 0, -0.5, -1: what is compared is 0.5, 0.25, -0.5, of mean 1/12.
    np.testing.assert_allclose(shaped.advantages, [[5 / 12, 2 / 12, -7 / 12]], rtol=1e-6)
    np.testing.assert_array_equal(drawn.scores.reward, [0.5, 0.75, 0.5])  # what is logged as the reward


def test_masked_truncated_completions_are_compared_with_but_not_learnt_from() -> None:
    drawn = completions([2, 8, 3, 8], [1.0, 0.0, 0.0, 0.0])
    plain, masked = (compare(drawn, **PLAIN, **{"grpo.mask_truncated": mask}) for mask in (False, True))
    np.testing.assert_array_equal(plain.mask.sum(-1), [[2, 8, 3, 8]])
    np.testing.assert_array_equal(masked.mask.sum(-1), [[2, 0, 3, 0]])
    np.testing.assert_array_equal(masked.tokens, plain.tokens)
    # The mean is that of all four, the loss that of two: on-policy, a token's is minus its advantage.
    np.testing.assert_allclose(masked.advantages, [[0.75, -0.25, -0.25, -0.25]])
    for loss_mean, expected in (("token", -(2 * 0.75 - 3 * 0.25) / 5), ("sequence", -(0.75 - 0.25) / 2)):
        loss, _ = policy_loss(masked, masked.behaviour_logprobs, **PLAIN, **{"grpo.loss_mean": loss_mean})
        assert loss == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "loss_mean"), [*itertools.product(("grpo", "dr_grpo"), grpo.LOSS_MEANS), ("gspo", "sequence")]
)
def test_truncated_completions_alone_have_loss_and_gradient_zero(loss: str, loss_mean: str) -> None:
    masked = compare(completions([8, 8, 8], [0.1, 0.0, 0.0]), **{"grpo.mask_truncated": True})
    changes = {
        "grpo.loss": loss,
        "grpo.loss_mean": loss_mean,
        "grpo.normalize_std": False,
        "grpo.kl_coef": 0.1,
        "grpo.clip_low": 0.05,
        "grpo.clip_high": 0.05,
    }
    logprobs = jnp.full(masked.mask.shape, -1.0)
    gradient, metrics = jax.grad(lambda x: policy_loss(masked, x, **changes), has_aux=True)(logprobs)
    np.testing.assert_array_equal(gradient, 0)
    assert metrics["loss"] == 0
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_group_is_informative_by_the_tokens_that_are_left() -> None:
    cut = completions([8, 8, 3], [0.5, 0.0, 0.25])  # the mean is 0.25: only truncated ones have advantages
    assert compare(cut, **PLAIN).informative == [True]
    assert compare(cut, **PLAIN, **{"grpo.mask_truncated": True}).informative == [False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grpo.overlong.buffer": 9}, r"overlong.buffer=9: expected 0 \(off\) to .*max_new_tokens=8"),
        ({"grpo.overlong.buffer": -1}, "overlong.buffer=-1"),
        ({"grpo.overlong.penalty": 0.0}, "overlong.penalty=0.0: expected a finite number above 0"),
    ],
)
def test_a_wrong_setting_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings.check(config_of(**{"data.train": ("pairs",)}, **change))


def test_a_step_of_mostly_truncated_completions_is_warned_of(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = base.get_config().log
    config.tensorboard, config.every = False, 3
    shown = Shown.read(epath.Path(tmp_path))
    log = RunLog(epath.Path(tmp_path), config, shown, first_step=0, evaluated=-1)
    with caplog.at_level(logging.WARNING, "dig_jax"):
        for step, share in enumerate((0.5, 0.6, 0.9, 0.9, 0.4, 1.0), start=1):
            log.step(step, 6, {"rollout/truncated": share})
    log.close()
    # When it begins, and with the lines that are shown: steps 3 and 6.
    assert [record.message[:21] for record in caplog.records] == [
        "step 2: 60% of the co",
        "step 3: 90% of the co",
        "step 6: 100% of the c",
    ]
    assert "rollout.max_new_tokens" in caplog.messages[0] and "docs/thinking.md" in caplog.messages[0]


def test_a_run_begun_before_a_setting_existed_goes_on(tmp_path: pathlib.Path) -> None:
    saved = epath.Path(tmp_path / "config.json")
    older = config_of()
    with older.unlocked():
        del older.grpo.overlong, older.grpo.mask_truncated
    saved.write_text(older.to_json())
    assert settings.check_resume(config_of(), saved) == []
    with pytest.raises(ValueError, match="grpo.mask_truncated: False -> True"):
        settings.check_resume(config_of(**{"grpo.mask_truncated": True}), saved)
