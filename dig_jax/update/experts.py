"""Mixtures of experts in training (`config.moe`): the router loss beside the others, and the experts' load.

The router loss is that of `routing.router_loss` for the tokens of a micro-batch, as when transformers
accumulates gradients: its share of experts is that of the micro-batch, over all devices. Those of a step are
averaged, each with the weight of its response tokens.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dig_jax.machines import checks
from dig_jax.models.api import Architecture, Extras
from dig_jax.models.architecture import MoETextConfig
from dig_jax.models.nn import routing

SUMS = "router"  # among the metrics of micro-batches: sums that the metrics of an update are made of

Metrics = dict[str, Any]  # arrays, and `SUMS` among them


@dataclasses.dataclass(frozen=True)
class MoEConfig:
    """Defaults live in `configs/base.py`.

    Attributes:
      router_loss_weight: of the load-balancing loss; 0 turns it off.
    """

    router_loss_weight: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> "MoEConfig":
        """The checked settings of a run."""
        return cls(config.moe.router_loss_weight)

    def __post_init__(self) -> None:
        checks.at_least("moe.router_loss_weight", self.router_loss_weight, 0, "off")


def check_model(config: ConfigDict, architecture: Architecture) -> None:
    """Refuses settings of experts for a model that has none, where they do nothing, and the other way round.

    Raises:
      ValueError: names the setting.
    """
    if isinstance(architecture.text, MoETextConfig):
        if config.batch.sum_gradients == "update":
            raise ValueError(
                "config.batch.sum_gradients='update' is for models without experts: the router loss is of all"
                " rows of a micro-batch, on all devices; set it to 'auto'"
            )
        return
    set_here = {
        "moe.router_loss_weight": config.moe.router_loss_weight,
        "model.freeze_router": config.model.freeze_router,
    }
    for key, value in set_here.items():
        if value:
            raise ValueError(f"config.{key}={value!r} is for models with experts, and this model has none")


def with_router(
    loss: jax.Array, metrics: Metrics, extras: Extras, mask: jax.Array, tokens: jax.Array, weight: float
) -> tuple[jax.Array, Metrics]:
    """A loss of a micro-batch and its metrics, with those of the routers; as they are where there are none.

    Args:
      loss, metrics: without them.
      extras: what the model said.
      mask: above 0 on the response tokens of the micro-batch.
      tokens: float32 scalar, how many of them the step has.
      weight: of the router loss.
    """
    if "router_loss" not in extras:
        return loss, metrics
    own = jnp.sum(mask > 0, dtype=jnp.float32) / tokens * extras["router_loss"]
    if weight:
        loss = loss + weight * own
    more = {"loss": loss, "router_loss": own, SUMS: extras["router"]}
    return loss, jax.lax.stop_gradient(metrics | more)


def finished(metrics: Metrics) -> Metrics:
    """Metrics of an update from those of its micro-batches together: the load in place of its sums."""
    sums = metrics.get(SUMS)
    if sums is None:
        return metrics
    others = {name: value for name, value in metrics.items() if name != SUMS}
    return others | routing.load_figures(sums)
