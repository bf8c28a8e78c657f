"""GRPO against numbers worked out by hand."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.update import grpo

CONFIG = grpo.GRPOConfig(
    loss="grpo",
    kl="k3",
    kl_coef=0.0,
    clip_low=0.2,
    clip_high=0.3,
    dual_clip=3.0,
    loss_mean="token",
    normalize_std=True,
    advantage_eps=1e-6,
    importance_cap=None,
    visual_dependency=0.0,
)
GSPO = {"loss": "gspo", "loss_mean": "sequence", "clip_low": 0.05, "clip_high": 0.05}


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def loss_of(ratios, advantages, lengths=None, *, cfg=CONFIG, behaviour=None, old=None, ref=None, totals=None):
    """Loss and metrics of responses [1, G, R] given by the ratio of each token to `old` (or behaviour)."""
    ratios = np.asarray(ratios, np.float32)[None]
    lengths = lengths or [ratios.shape[-1]] * ratios.shape[1]
    mask = (np.arange(ratios.shape[-1]) < np.asarray(lengths)[:, None]).astype(np.float32)[None]
    behaviour = np.full(ratios.shape, -2.0, np.float32) if behaviour is None else behaviour
    logprobs = np.log(ratios) + (behaviour if old is None else old)
    totals = totals or grpo.step_totals(mask)
    return grpo.policy_loss(
        logprobs,
        behaviour,
        ref,
        np.asarray([advantages], np.float32),
        mask,
        cfg,
        totals,
        entropy=jnp.ones_like(logprobs),
        old_logprobs=old,
    )


# Advantages


def test_advantages_use_the_unbiased_standard_deviation():
    rewards = np.array([[0.0, 1.0, 2.0, 5.0]])  # mean 2, squares 4 + 1 + 0 + 9 = 14, variance 14 / 3
    expected = np.array([[-2.0, -1.0, 0.0, 3.0]]) / (math.sqrt(14 / 3) + 1e-6)
    np.testing.assert_allclose(
        grpo.group_advantages(rewards, normalize_std=True, eps=1e-6), expected, rtol=1e-6
    )


def test_advantages_without_std_are_centred_rewards():
    rewards = np.array([[0.0, 1.0], [0.25, 0.75]])
    expected = [[-0.5, 0.5], [-0.25, 0.25]]
    np.testing.assert_allclose(grpo.group_advantages(rewards, normalize_std=False, eps=1e-6), expected)


def test_groups_are_independent():
    rewards = np.array([[0.0, 1.0, 0.5], [0.2, 0.9, 0.1]], np.float32)
    both = grpo.group_advantages(rewards, normalize_std=True, eps=1e-6)
    alone = [grpo.group_advantages(row[None], normalize_std=True, eps=1e-6)[0] for row in rewards]
    np.testing.assert_array_equal(both, alone)


def test_a_group_of_equal_rewards_has_advantage_exactly_zero():
    rewards = np.full((1, 7), 0.1, np.float32)  # the float32 mean of these is not exactly 0.1
    assert np.all(np.asarray(grpo.group_advantages(rewards, normalize_std=True, eps=1e-12)) == 0)


def test_a_group_of_one_is_an_error():
    with pytest.raises(ValueError, match="at least 2 completions"):
        grpo.group_advantages(np.zeros((3, 1)), normalize_std=True, eps=1e-6)


def test_informative_groups_are_those_with_different_rewards():
    rewards = np.array([[1.0, 1.0], [0.0, 0.5], [0.0, 0.0]])
    assert grpo.informative_groups(rewards).tolist() == [False, True, False]


# Clipping: the loss of a token is -min(r A, clip(r) A), and at most 3 |A| for negative A.


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "clip"),
    [
        (1.0, 1.0, -1.0, None),
        (1.2, 1.0, -1.2, None),
        (1.5, 1.0, -1.3, "high"),
        (0.5, 1.0, -0.5, None),  # good token that became less likely: pull it back, no clip
        (0.9, -1.0, 0.9, None),
        (0.5, -1.0, 0.8, "low"),
        (2.0, -1.0, 2.0, None),  # bad token that became more likely: no upper clip
        (4.0, -1.0, 3.0, "dual"),
        (4.0, -0.5, 1.5, "dual"),
    ],
)
def test_clip(ratio, advantage, expected, clip):
    loss, metrics = loss_of([[ratio]], [advantage])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for side in ("low", "high", "dual"):
        assert metrics[f"clip_fraction_{side}"] == (side == clip)


@pytest.mark.parametrize("off", [0, None])
def test_dual_clip_can_be_turned_off(off):
    loss, metrics = loss_of([[4.0]], [-1.0], cfg=config(dual_clip=off))
    np.testing.assert_allclose(loss, 4.0, rtol=1e-6)
    assert "clip_fraction_dual" not in metrics


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    # d(-r A)/d(logprob) = -r A where no clip is active, 0 where one is.
    [
        (1.0, 1.0, -1.0),
        (1.2, 1.0, -1.2),
        (1.5, 1.0, 0.0),
        (0.5, -1.0, 0.0),
        (2.0, -1.0, 2.0),
        (4.0, -1.0, 0.0),
    ],
)
def test_gradient_is_zero_exactly_where_a_clip_is_active(ratio, advantage, expected):
    def loss(logprob):
        mask = jnp.ones((1, 1, 1))
        behaviour = jnp.full((1, 1, 1), -2.0)
        return grpo.policy_loss(
            jnp.full((1, 1, 1), logprob),
            behaviour,
            None,
            jnp.full((1, 1), advantage),
            mask,
            CONFIG,
            grpo.step_totals(mask),
            entropy=mask,
        )[0]

    np.testing.assert_allclose(jax.grad(loss)(-2.0 + math.log(ratio)), expected, rtol=1e-5, atol=1e-7)


# Means. Two responses, lengths 1 and 3, ratios 1: a token's loss is -A.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss_mean": "token"}, -(2.0 * 1 + -1.0 * 3) / 4),
        ({"loss_mean": "sequence"}, -(2.0 + -1.0) / 2),
        ({"loss": "dr_grpo", "normalize_std": False}, -(2.0 * 1 + -1.0 * 3) / (2 * 4)),  # R = 4
        (GSPO, -(2.0 + -1.0) / 2),
    ],
)
def test_loss_mean(changes, expected):
    loss, _ = loss_of(np.ones((2, 4)), [2.0, -1.0], lengths=[1, 3], cfg=config(**changes))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_gspo_uses_the_geometric_mean_of_the_token_ratios():
    # Token ratios 2 and 0.5 cancel: the sequence ratio is 1, and no token is clipped.
    gspo = config(**GSPO)
    loss, metrics = loss_of([[2.0, 0.5]], [1.0], cfg=gspo)
    np.testing.assert_allclose(loss, -1.0, rtol=1e-6)
    assert metrics["clip_fraction_high"] == 0
    # Ratios 4 and 1 have geometric mean 2, clipped to 1.05.
    loss, metrics = loss_of([[4.0, 1.0]], [1.0], cfg=gspo)
    np.testing.assert_allclose(loss, -1.05, rtol=1e-6)
    assert metrics["clip_fraction_high"] == 1


# KL


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("k1", math.log(2)),
        ("k2", 0.5 * math.log(2) ** 2),
        ("k3", 0.5 - 1 + math.log(2)),  # exp(d) - d - 1 with d = -log 2
    ],
)
def test_kl_of_a_token_twice_as_likely_as_under_the_reference(kind, expected):
    logprobs = jnp.array([-1.0])
    np.testing.assert_allclose(
        grpo.kl_estimate(logprobs, logprobs - math.log(2), kind), [expected], rtol=1e-6
    )


def test_k3_is_bounded_and_its_gradient_finite():
    far = jnp.array([-200.0, 0.0])
    kl = lambda logprobs: jnp.sum(grpo.kl_estimate(logprobs, jnp.array([0.0, -200.0]), "k3"))  # noqa: E731
    assert grpo.kl_estimate(far, jnp.array([0.0, -200.0]), "k3").tolist() == [10.0, 10.0]
    assert jax.grad(kl)(far).tolist() == [0.0, 0.0]


def test_kl_penalty_is_added_with_its_coefficient():
    ref = np.full((1, 1, 2), -2.0 - math.log(2), np.float32)
    loss, metrics = loss_of([[1.0, 1.0]], [1.0], cfg=config(kl="k1", kl_coef=0.1), ref=ref)
    np.testing.assert_allclose(metrics["kl"], math.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["policy_loss"], -1.0, rtol=1e-6)
    np.testing.assert_allclose(loss, -1.0 + 0.1 * math.log(2), rtol=1e-6)


def test_kl_needs_a_reference():
    with pytest.raises(ValueError, match="no reference log-probs"):
        loss_of([[1.0]], [1.0], cfg=config(kl_coef=0.1))


def test_without_a_reference_no_kl_is_reported():
    assert "kl" not in loss_of([[1.0]], [1.0])[1]


# Sampler and trainer


def test_ratio_is_against_the_sampler_and_the_gap_is_reported():
    behaviour = np.array([[[-1.0, -2.0]]], np.float32)
    old = behaviour + np.array([0.1, -0.3], np.float32)
    _, metrics = loss_of([[1.0, 1.0]], [1.0], behaviour=behaviour, old=old)
    np.testing.assert_allclose(metrics["sampler_trainer_gap_mean"], 0.2, rtol=1e-5)
    np.testing.assert_allclose(metrics["sampler_trainer_gap_max"], 0.3, rtol=1e-5)
    np.testing.assert_allclose(metrics["ratio_mean"], (math.exp(0.1) + math.exp(-0.3)) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["ratio_max"], math.exp(0.1), rtol=1e-5)


@pytest.mark.parametrize("loss", grpo.LOSSES)
def test_without_importance_weights_old_logprobs_change_no_bit_of_loss_and_gradient(loss):
    logprobs, behaviour, old, ref = np.random.default_rng(0).normal(-2, 0.3, (4, 3, 2, 5)).astype(np.float32)
    advantages = np.array([[1.0, -1.0], [0.5, -0.5], [2.0, -2.0]], np.float32)
    mask = np.ones_like(old)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def value(logprobs, old):
        of_loss = GSPO if loss == "gspo" else {"loss": loss}
        cfg = config(**of_loss, normalize_std=False, kl_coef=0.1)
        arrays = (behaviour, ref, advantages, mask)
        totals = grpo.step_totals(mask)
        return grpo.policy_loss(logprobs, *arrays, cfg, totals, entropy=logprobs, old_logprobs=old)

    (with_old, metrics), its_gradient = value(logprobs, old)
    (without, others), gradient = value(logprobs, None)
    assert with_old == without
    np.testing.assert_array_equal(its_gradient, gradient)
    assert np.any(gradient != 0)
    assert {name for name in metrics if metrics[name] != others[name]} == set(grpo.GAPS)


def test_truncated_importance_weights():
    # old / behaviour = 0.5 and 4, the latter capped at 2; ratios to old 1.1 and 1.
    behaviour = np.full((1, 1, 2), -2.0, np.float32)
    old = behaviour + np.log(np.array([0.5, 4.0], np.float32))
    loss, metrics = loss_of([[1.1, 1.0]], [1.0], cfg=config(importance_cap=2.0), behaviour=behaviour, old=old)
    np.testing.assert_allclose(loss, -(0.5 * 1.1 + 2.0 * 1.0) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["importance_weight_mean"], 1.25, rtol=1e-5)


def test_without_old_logprobs_importance_weights_use_the_current_ones():
    behaviour = np.full((1, 1, 1), -2.0, np.float32)
    loss, _ = loss_of([[1.5]], [1.0], cfg=config(importance_cap=2.0), behaviour=behaviour)
    np.testing.assert_allclose(loss, -1.5, rtol=1e-5)  # ratio 1, weight 1.5: no clip


# Robustness


@pytest.mark.parametrize("loss", grpo.LOSSES)
def test_collapsed_probabilities_and_rubbish_padding_stay_finite(loss):
    of_loss = GSPO if loss == "gspo" else {"loss": loss, "importance_cap": 2.0}
    cfg = config(normalize_std=False, kl_coef=0.1, **of_loss)
    mask = jnp.array([[[1.0, 1.0, 0.0]]])
    logprobs = jnp.array([[[-500.0, -1e-3, jnp.nan]]])
    behaviour = jnp.array([[[-1e-3, -500.0, -jnp.inf]]])

    def value(logprobs):
        return grpo.policy_loss(
            logprobs,
            behaviour,
            behaviour,
            jnp.array([[-1.0]]),
            mask,
            cfg,
            grpo.step_totals(mask),
            entropy=logprobs,
        )

    (loss, metrics), gradient = jax.value_and_grad(value, has_aux=True)(logprobs)
    assert np.isfinite(loss) and np.all(np.isfinite(gradient)), (loss, gradient)
    assert all(np.isfinite(x) for x in metrics.values()), metrics


@pytest.mark.parametrize(
    "of_loss",
    [
        *(
            {"loss": loss, "loss_mean": mean, "importance_cap": 1.1}
            for loss in ("grpo", "dr_grpo")
            for mean in grpo.LOSS_MEANS
        ),
        GSPO,
    ],
)
def test_micro_batches_add_up_to_the_full_batch(of_loss):
    cfg = config(normalize_std=False, kl_coef=0.1, **of_loss)
    rng = np.random.default_rng(0)
    shape = (4, 3, 5)
    mask = (np.arange(5) < rng.integers(1, 6, (4, 3, 1))).astype(np.float32)
    logprobs, behaviour, old, ref = (rng.normal(-1, 0.3, shape).astype(np.float32) for _ in range(4))
    advantages = rng.normal(size=(4, 3)).astype(np.float32)
    totals = grpo.step_totals(mask)

    def value(logprobs, rows):
        return grpo.policy_loss(
            logprobs,
            behaviour[rows],
            ref[rows],
            advantages[rows],
            mask[rows],
            cfg,
            totals,
            entropy=-logprobs,
            old_logprobs=old[rows],
        )

    run = jax.value_and_grad(value, has_aux=True)
    (full, metrics), gradient = run(logprobs, slice(None))
    # Micro-batches of 1, 2 and 1 prompts: their shares of tokens differ.
    parts = [run(logprobs[rows], rows) for rows in (slice(0, 1), slice(1, 3), slice(3, 4))]
    np.testing.assert_allclose(sum(part[0][0] for part in parts), full, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([part[1] for part in parts]), gradient, rtol=1e-5, atol=1e-8)
    combined = grpo.combine_metrics(jax.tree.map(lambda *x: jnp.stack(x), *(part[0][1] for part in parts)))
    assert combined.keys() == metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(combined[name], metrics[name], rtol=1e-5, err_msg=name)


def test_rollout_metrics():
    mask = np.array([[[1, 0, 0], [1, 1, 1]], [[1, 1, 0], [1, 1, 0]]], np.float32)
    metrics = grpo.rollout_metrics(
        np.array([[0.0, 0.0], [0.0, 1.0]]), mask, np.array([[True, False], [True, True]])
    )
    expected = {
        "zero_std_groups": 0.5,
        "response_length_mean": 2.0,
        "response_length_max": 3.0,
        "truncated": 0.25,
    }
    assert {name: float(value) for name, value in metrics.items()} == expected


def test_rows_without_tokens_are_padding():
    mask = np.array([[[1, 1], [0, 0]]], np.float32)
    totals = grpo.step_totals(mask)
    assert (float(totals.tokens), float(totals.sequences), totals.length) == (2.0, 1.0, 2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"loss": "ppo"}, "grpo.loss is 'ppo'; expected one of grpo, dr_grpo, gspo"),
        ({"kl": "k4"}, "grpo.kl is 'k4'"),
        ({"loss_mean": "batch"}, "grpo.loss_mean"),
        ({"kl_coef": -1.0}, "grpo.kl_coef"),
        ({"kl_coef": math.nan}, "grpo.kl_coef"),
        ({"clip_low": 1.0}, "grpo.clip_low"),
        ({"clip_high": -0.1}, "grpo.clip_high"),
        ({"dual_clip": 1.0}, "grpo.dual_clip"),
        ({"advantage_eps": -1e-6}, "grpo.advantage_eps"),
        ({"importance_cap": 0.0}, "grpo.importance_cap"),
        ({"loss": "dr_grpo"}, "set grpo.normalize_std=False"),
        (GSPO | {"loss_mean": "token"}, "grpo.loss is 'gspo', and grpo.loss_mean is 'token'"),
        (GSPO | {"clip_low": 0.2}, "grpo.clip_low is 0.2, a range for tokens"),
        (GSPO | {"clip_high": 0.3}, "grpo.clip_high is 0.3"),
        (GSPO | {"importance_cap": 2.0}, "grpo.importance_cap is 2.0, which weighs every token"),
        ({"loss": "gspo"}, "set grpo.loss_mean=sequence; grpo.clip_low is 0.2"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(changes, named):
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        config(**changes)
