"""What a mixture of experts says besides hidden states: which experts it chose, how evenly, and its loss.

Shape letters: L layers, B prompts, G responses per prompt, P prompt length, R response length, E experts,
K experts per token.
"""

from typing import TypedDict

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Routing:
    """The experts of every token, in the smallest unsigned integers that can name them (`id_dtype`)."""

    prompts: jax.Array  # [L,B,P,K]
    responses: jax.Array | None = None  # [L,B,G,R,K]


@flax.struct.dataclass
class RouterStatistics:
    """Sums over tokens, padding left out: those of micro-batches, and of devices, add up."""

    chosen: jax.Array  # float32 [...,E]: how many tokens chose each expert
    probability: jax.Array  # float32 [...,E]: the probabilities that the router gave to each
    tokens: jax.Array  # float32 [...]: how many there were


@flax.struct.dataclass
class RouterOutput:
    """Of a layer, or of all of them with a leading dimension.

    Attributes:
      ids: of each stream of tokens, [...,K].
      statistics: of all streams; None where nobody asked.
    """

    ids: tuple[jax.Array, ...]
    statistics: RouterStatistics | None


class Extras(TypedDict, total=False):
    """What a model returns besides hidden states, by name; a model without experts has none of these.

    Keys:
      router_loss: float32 scalar, see `router_loss`.
      router: sums over the tokens, a row per layer, [L,E] and [L].
      routing: the experts that were taken.
    """

    router_loss: jax.Array
    router: RouterStatistics
    routing: Routing


def id_dtype(num_experts: int) -> np.dtype:
    """The smallest unsigned integer that holds the numbers of all experts and one more: a byte for up to 255.

    What is no expert stands for a choice that nobody has made: `unknown`.
    """
    return np.min_scalar_type(num_experts)


def unknown(dtype: np.typing.DTypeLike) -> int:
    """Stands for the experts of a token that nobody has chosen: the router chooses them."""
    return int(np.iinfo(dtype).max)


def router_loss(statistics: RouterStatistics) -> jax.Array:
    """The load-balancing loss of Switch Transformer (arXiv 2101.03961), as transformers has it.

    E * sum over experts of (share of tokens that chose it) * (mean probability), over the tokens of all
    layers together. With K choices per token it is K where experts are used evenly, and not 1. Only
    probabilities have a gradient.
    """
    tokens = jnp.maximum(jnp.sum(statistics.tokens), 1.0)
    chosen, probability = (
        jnp.sum(x.reshape(-1, x.shape[-1]), axis=0) / tokens
        for x in (statistics.chosen, statistics.probability)
    )
    return chosen.size * jnp.sum(jax.lax.stop_gradient(chosen) * probability)


def load_figures(statistics: RouterStatistics) -> dict[str, jax.Array]:
    """How evenly experts are used, from sums [L,E] over all tokens of a step.

    Returns:
      `expert_share_max`: the largest share of a layer's choices that one expert has, over all layers (1 / E
      where all are used alike, 1 / K where the same K are always chosen). `expert_entropy`: of those shares,
      as a part of log E, averaged over layers: 1 is even. `experts_unused`: share of experts that no token
      chose.
    """
    chosen = statistics.chosen
    share = chosen / jnp.maximum(jnp.sum(chosen, axis=-1, keepdims=True), 1.0)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0), axis=-1)
    return {
        "expert_share_max": jnp.max(share),
        "expert_entropy": jnp.mean(entropy) / np.log(chosen.shape[-1]),
        "experts_unused": jnp.mean(chosen == 0, dtype=jnp.float32),
    }
