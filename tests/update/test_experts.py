"""What routers say in an update: the loss by its weight, and figures of the load over all micro-batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from dig_jax.models import families
from dig_jax.models.nn.routing import RouterStatistics, router_loss
from dig_jax.update import experts, grpo


def said(chosen, probability, tokens):
    statistics = RouterStatistics(*(jnp.array(x, jnp.float32) for x in (chosen, probability, tokens)))
    return {"router_loss": router_loss(statistics), "router": statistics}


# Of one layer with two experts and one choice: all four tokens to the first, and two tokens to each.
UNEVEN = said([[4, 0]], [[3, 1]], [4])  # 2 * (1 * 3/4) = 1.5
EVEN = said([[2, 2]], [[2, 2]], [4])  # 2 * (1/2 * 1/2 + 1/2 * 1/2) = 1


def with_router(extras, mask, weight):
    metrics = {"loss": jnp.float32(10), "ratio_max": jnp.float32(1)}
    return experts.with_router(jnp.float32(10), metrics, extras, jnp.array(mask), jnp.float32(4), weight)


def test_the_loss_of_a_micro_batch_counts_by_its_share_of_response_tokens():
    loss, metrics = with_router(UNEVEN, [1, 1, 1, 0, 0], weight=0.1)  # three of the step's four
    assert loss == metrics["loss"] == pytest.approx(10 + 0.1 * 0.75 * 1.5)
    assert metrics["router_loss"] == pytest.approx(0.75 * 1.5)


def test_a_weight_of_zero_leaves_the_loss_and_still_says_what_it_would_have_been():
    loss, metrics = with_router(UNEVEN, [1, 1, 1, 1], weight=0.0)
    assert loss == metrics["loss"] == 10 and metrics["router_loss"] == 1.5


def test_a_model_without_experts_has_its_loss_and_metrics_as_they_are():
    metrics = {"loss": jnp.float32(10)}
    assert experts.with_router(metrics["loss"], metrics, {}, None, None, 0.5) == (metrics["loss"], metrics)
    assert experts.finished(metrics) is metrics


def test_the_load_is_that_of_all_micro_batches_together():
    """6 of 8 choices fell to the first expert, though all of them did in one of the two."""
    parts = [with_router(extras, [1, 1], 0.0)[1] for extras in (UNEVEN, EVEN)]
    figures = experts.finished(grpo.combine_metrics(jax.tree.map(lambda *x: jnp.stack(x), *parts)))
    assert figures["router_loss"] == pytest.approx((1.5 + 1) / 2)
    assert figures["expert_share_max"] == 0.75 and figures["experts_unused"] == 0
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2)
    assert figures["expert_entropy"] == pytest.approx(entropy)
    assert figures["ratio_max"] == 1 and experts.SUMS not in figures
    assert all(jnp.ndim(value) == 0 for value in figures.values())


def test_the_weight_scales_the_gradient_of_the_routers():
    def loss(probability, weight):
        statistics = dataclasses.replace(UNEVEN["router"], probability=probability)
        extras = {"router_loss": router_loss(statistics), "router": statistics}
        return with_router(extras, [1, 1, 1, 1], weight)[0]

    gradient = jax.grad(loss)(UNEVEN["router"].probability, 0.5)
    np.testing.assert_allclose(gradient, [[0.5 * 2 * 1 / 4, 0]])


@pytest.mark.parametrize("change", [{"moe.router_loss_weight": 0.1}, {"model.freeze_router": True}])
def test_settings_of_experts_are_refused_for_a_model_without(change):
    config = base.get_config()
    config.update_from_flattened_dict(change)
    experts.check_model(config, families.published("30B-A3B"))
    experts.check_model(base.get_config(), families.published("4B"))
    (key,) = change
    with pytest.raises(
        ValueError, match=f"config.{key}=.* is for models with experts, and this model has none"
    ):
        experts.check_model(config, families.published("4B"))


def test_a_negative_weight_is_refused():
    config = base.get_config()
    config.moe.router_loss_weight = -0.1
    with pytest.raises(ValueError, match="moe.router_loss_weight=-0.1"):
        experts.MoEConfig.from_config(config)
