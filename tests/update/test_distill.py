"""Self-distillation: its loss, what it is refused with, and one update against a plain formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import base
from dig_jax import settings
from dig_jax.machines import parallel
from dig_jax.rollout.sampler import sampling_of
from dig_jax.run import loading
from dig_jax.update.distill import Taught, distill_loss
from dig_jax.update.experience import Collector
from dig_jax.update.grpo import GRPOConfig, step_totals
from dig_jax.update.policy import forward
from tests.commands.test_train import inputs, lines, run, small_config, without_times  # noqa: F401
from tests.helpers.base_config import assert_refused, base_config


def loss_of(divergences, advantages, **changes):
    """Loss and metrics of completions [1, G] with these divergences of tokens; None is padding."""
    config = base.get_config()
    config.grpo.update(changes)
    values = np.array([[[np.nan if x is None else x for x in row] for row in divergences]], np.float32)
    mask = np.isfinite(values).astype(np.float32)
    taught = Taught(values, values + 1, np.zeros_like(values))
    given = (taught, np.array([advantages], np.float32), mask, GRPOConfig.from_config(config))
    return distill_loss(*given, step_totals(mask))


def test_the_loss_is_the_mean_over_tokens_or_over_completions_and_padding_is_left_out():
    divergences = [[0.1, 0.3], [0.8, None]]
    loss, metrics = loss_of(divergences, [1.0, -1.0])
    np.testing.assert_allclose(loss, 0.4, rtol=1e-6)
    np.testing.assert_allclose(metrics["distill/kl"], 1.4, rtol=1e-6)
    loss, _ = loss_of(divergences, [1.0, -1.0], loss_mean="sequence")
    np.testing.assert_allclose(loss, 0.5, rtol=1e-6)


def test_completions_that_earn_alike_are_counted_and_those_of_them_that_a_teacher_tells_something():
    _, metrics = loss_of([[0.5, 0.5], [1e-6, 1e-6], [0.5, None], [None, None]], [0.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(metrics["distill/zero_advantage"], 2 / 3, rtol=1e-6)  # of three with tokens
    np.testing.assert_allclose(metrics["distill/zero_advantage_signal"], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "distill"}, "config.distill.weight=0"),
        ({"algorithm": "sft", "distill.weight": 1.0}, "draws no samples"),
        ({"distill.weight": 1.0, "task": "choice"}, "the task choice has nothing to show a teacher"),
        ({"distill.weight": -1.0}, "config.distill.weight=-1.0"),
        ({"distill.privilege": "answers"}, "expected one of boxes, crops"),
        ({"distill.teacher": "larger"}, "expected one of policy, reference"),
        ({"distill.beta": 2.0}, "config.distill.beta=2.0"),
        (
            {"algorithm": "distill", "distill.weight": 1.0, "grpo.dynamic_sampling": 1},
            "config.grpo.dynamic_sampling=1 replaces groups",
        ),
        (
            {"algorithm": "distill", "distill.weight": 1.0, "grpo.overlong.buffer": 8},
            "config.grpo.overlong.buffer=8 changes rewards",
        ),
        ({"rollout.group_size": 1, "distill.weight": 1.0}, "GRPO compares at least 2"),
    ],
)
def test_settings_that_contradict_are_refused(changes, message):
    assert_refused(changes, message)


def test_one_completion_is_enough_where_a_teacher_alone_is_learnt_from():
    settings.check(base_config({"algorithm": "distill", "distill.weight": 1.0, "rollout.group_size": 1}))


def plain_gradient(config, folder, experience):
    """Mean KL(student || teacher) and the norm of its gradient, without slices or micro-batches."""
    opened = loading.open_model(folder)
    graphdef, params = loading.load_policy(config, opened, parallel.make_mesh(config.mesh))
    allowed = sampling_of(opened.tokenizer, 1.0).allowed(opened.architecture.text.vocab_size)

    def logprobs(params, prompts):
        model = nnx.merge(graphdef, params)
        _, hidden, _ = forward(model, prompts, experience.tokens, experience.mask)
        return jax.nn.log_softmax(jnp.where(allowed, model.logits(hidden), -1e30))

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        ours = logprobs(params, experience.prompts)
        theirs = jax.lax.stop_gradient(logprobs(params, experience.teacher))
        kl = jnp.sum(jnp.exp(ours) * (ours - theirs), axis=-1)
        return jnp.sum(kl * experience.mask) / experience.mask.sum()

    value, gradient = loss(params)
    return float(value), float(optax.global_norm(gradient))


@pytest.mark.slow
def test_one_update_of_a_run_has_the_gradient_of_the_plain_formula(inputs, tmp_path, monkeypatch):  # noqa: F811
    """Two micro-batches, responses in slices; the teacher's prompts differ in what their pictures show."""
    collected = []
    collect = Collector.collect

    def note(self, *given):
        collected.append(collect(self, *given))
        return collected[-1]

    monkeypatch.setattr(Collector, "collect", note)
    changes = {"batch.prompts": 4, "grpo.kl_coef": 0.0, "distill.weight": 1.0, "model.head_chunk": 5}
    config = small_config(inputs, "distill", num_steps=1, **changes)
    (metrics,) = lines(run(config, tmp_path / "run"), "metrics.jsonl")
    experience = collected[0].experience
    assert not experience.advantages.any()
    for field in dataclasses.fields(experience.prompts):
        shown, told = (getattr(x, field.name) for x in (experience.prompts, experience.teacher))
        assert np.array_equal(shown, told) == (field.name != "patches"), field.name
    value, norm = plain_gradient(config, inputs / "model", experience)
    assert value > 1e-4
    assert metrics["distill/loss"] == metrics["distill/kl"] == pytest.approx(value, rel=1e-4)
    assert metrics["grpo/loss"] == pytest.approx(value, rel=1e-4)
    assert metrics["grpo/grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["distill/zero_advantage"] == 1 and metrics["grpo/policy_loss"] == 0


@pytest.mark.slow
def test_a_run_beside_rewards_stops_and_goes_on_exactly_with_the_reference_as_its_teacher(inputs, tmp_path):  # noqa: F811
    """With adapters, pieces of groups, and prompts that took the places of others."""
    changes = {"distill.weight": 0.5, "distill.teacher": "reference", "distill.beta": 0.5}
    changes |= {"grpo.kl_coef": 0.0, "grpo.dynamic_sampling": 1, "model.lora.rank": 2}
    changes |= {"batch.micro_completions": 1, "rollout.slots": 2, "distill.privilege": "boxes"}
    whole = small_config(inputs, "grpo", **changes)
    straight = run(whole, tmp_path / "straight")
    run(small_config(inputs, "grpo", num_steps=1, **changes), tmp_path / "stopped")
    stopped = run(whole, tmp_path / "stopped")
    expected, actual = (
        [without_times(line) for line in lines(workdir, "metrics.jsonl")] for workdir in (straight, stopped)
    )
    assert actual == expected
    assert expected[1]["distill/loss"] > 0 and "grpo/kl" not in expected[1]
