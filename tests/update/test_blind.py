"""Weights of advantages by how much a token owes to the first image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import base
from dig_jax.machines import parallel
from dig_jax.models.inputs import Prompts
from dig_jax.update import grpo
from dig_jax.update.blind import visual_weights, without_first_image
from dig_jax.update.learner import TrainState
from dig_jax.update.optimizer import OptimizerConfig
from dig_jax.update.policy import Experience
from dig_jax.update.steps import grpo_step
from tests.commands.test_train import inputs, lines, run, small_config  # noqa: F401
from tests.helpers.base_config import assert_refused
from tests.update.test_grpo import CONFIG
from tests.update.test_steps import FixedCollector, Programs


def test_weights_follow_the_dependency_by_their_share_and_have_a_mean_of_one_in_each_completion():
    dependency = np.array([[[0.0, 1.0, 2.0], [3.0, 1.0, 99.0], [1e-5, 0.0, 0.0]]])
    mask = np.array([[[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]])
    weights = visual_weights(dependency, mask, 0.5)
    np.testing.assert_allclose(weights[0, 0], [0.5, 1.0, 1.5])
    np.testing.assert_allclose(weights[0, 1, :2], [1.25, 0.75])
    np.testing.assert_allclose(weights[0, 2], 1)  # it owes nothing to the image: what rounds is no weight
    np.testing.assert_allclose(visual_weights(dependency, mask, 0.0), 1)


def test_the_first_image_alone_is_blanked():
    fields = {field.name: np.zeros(1) for field in dataclasses.fields(Prompts)}
    patches, image = np.ones((2, 4, 3), np.float32), np.array([[1, 1, 2, 0], [1, 2, 2, 3]])
    blind = without_first_image(Prompts(**{**fields, "patches": patches, "patch_image": image}))
    np.testing.assert_array_equal(blind.patches[..., 0], [[0, 0, 1, 1], [0, 1, 1, 1]])


def test_the_loss_weighs_each_token_by_what_it_owes_to_the_image():
    """Ratios are 1: the loss is minus the weighted advantages over all tokens."""
    seen = np.full((1, 2, 2), -2.0, np.float32)
    blind = np.array([[[-2.0, -5.0], [-3.0, -1.0]]], np.float32)  # they owe 0 and 3, 1 and 1
    advantages, mask = np.array([[1.0, -1.0]], np.float32), np.ones((1, 2, 2), np.float32)
    loss, metrics = grpo.policy_loss(
        *(seen, seen, None, advantages, mask),
        dataclasses.replace(CONFIG, visual_dependency=1.0, loss_mean="sequence"),
        grpo.step_totals(mask),
        entropy=jnp.ones_like(seen),
        blind_logprobs=blind,
    )
    np.testing.assert_allclose(loss, 0, atol=1e-6)  # every completion weighs what it did: -(1 - 1) / 2
    np.testing.assert_allclose(metrics["visual_dependency"], 5 / 4)
    np.testing.assert_allclose(metrics["visual_weight_max"], 2)
    with pytest.raises(ValueError, match="there are no blind log-probs"):
        given = (seen, seen, None, advantages, mask, dataclasses.replace(CONFIG, visual_dependency=1.0))
        grpo.policy_loss(*given, grpo.step_totals(mask), entropy=seen)


def test_its_gradient_goes_to_the_tokens_that_owe_to_the_image():
    seen = np.full((1, 1, 2), -2.0, np.float32)
    blind = np.array([[[-2.0, -5.0]]], np.float32)
    mask = np.ones((1, 1, 2), np.float32)

    def loss(logprobs):
        config = dataclasses.replace(CONFIG, visual_dependency=1.0)
        given = (logprobs, seen, None, np.ones((1, 1), np.float32), mask, config, grpo.step_totals(mask))
        return grpo.policy_loss(*given, entropy=seen, blind_logprobs=blind)[0]

    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(seen)), [[[0, -1]]], atol=1e-6)


class BlindPrograms(Programs):
    """Notes the log-probs that updates are given."""

    def __init__(self) -> None:
        super().__init__()
        self.known: list[tuple[float, float]] = []

    def blind_logprobs(self, params: object, batch: Experience) -> jnp.ndarray:
        return jnp.full(batch.tokens.shape, -5.0 - self.made)

    def update_grpo(self, state: TrainState, batch: Experience) -> tuple[TrainState, dict]:
        self.known.append((float(batch.old_logprobs[0, 0, 0]), float(batch.blind_logprobs[0, 0, 0])))
        return super().update_grpo(state, batch)


def test_all_updates_of_a_step_have_the_logprobs_with_and_without_the_image_from_before_the_first():
    config = base.get_config()
    config.batch.prompts, config.batch.update_prompts, config.batch.micro_prompts = 4, 2, 2
    config.grpo.visual_dependency, config.grpo.kl_coef = 0.5, 0.0
    programs, optimizer = BlindPrograms(), OptimizerConfig.from_config(config).make()
    params = nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Param)
    state = TrainState(params, optimizer.init(params), jnp.int32(0))
    mesh = parallel.make_mesh(config.mesh)
    grpo_step(config, programs, FixedCollector(), None, mesh, lambda update: 0.1)(state, 0)
    assert programs.known == [(-1.0, -5.0), (-1.0, -5.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grpo.visual_dependency": 1.5}, "expected 0 .off. to 1"),
        ({"grpo.loss": "gspo", "grpo.visual_dependency": 0.5}, "which weighs tokens; GSPO has one ratio"),
        (
            {"algorithm": "distill", "distill.weight": 1.0, "grpo.visual_dependency": 0.5},
            "config.algorithm='distill' has none",
        ),
    ],
)
def test_settings_that_contradict_are_refused(changes, message):
    assert_refused(changes, message)


@pytest.mark.slow
def test_a_run_with_weights_stops_and_goes_on_exactly(inputs, tmp_path):  # noqa: F811
    """Two updates per step, whose log-probs are those of before the first of them."""
    changes = {"grpo.visual_dependency": 1.0, "grpo.kl_coef": 0.0, "optimizer.learning_rate": 1e-4}
    whole = small_config(inputs, "grpo", **changes)
    run(small_config(inputs, "grpo", num_steps=1, **changes), tmp_path / "stopped")
    straight, stopped = run(whole, tmp_path / "straight"), run(whole, tmp_path / "stopped")
    names = ("grpo/loss", "grpo/grad_norm", "grpo/visual_dependency", "grpo/visual_weight_max")
    expected, actual = (
        [[line[name] for name in names] for line in lines(workdir, "metrics.jsonl")]
        for workdir in (straight, stopped)
    )
    assert actual == expected
    assert all(line[2] > 1e-4 and line[3] > 1 for line in expected)
