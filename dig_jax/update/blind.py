"""How much each token of a response owes to the first image, and weights of advantages that follow it.

A token's visual dependency is |log p(token | images) - log p(token | first image blanked)|: small where form
or guessing decides, large where the token was read off the picture. PAPO (arXiv 2507.06448) compares these
two policies in its loss, VPPO (arXiv 2510.09285) weighs tokens by such a measure; the weights here are a
share of 1 and a share of the dependency, with a mean of 1 in every completion, so that none of them weighs
more than another.

Shapes: B prompts, G completions per prompt, R response tokens, N patches.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dig_jax.models.inputs import Prompts

# Nats per token on average, below which a completion owes nothing to the image but what rounds differently.
LEAST_DEPENDENCY = 1e-4


def without_first_image(prompts: Prompts) -> Prompts:
    """The prompts with a first image of one color, the mean that patches are normalised by; others stay."""
    first = (prompts.patch_image == 1)[..., None]
    patches: Any = jnp.where(first, 0.0, prompts.patches)  # a JAX array, as those of the batch are
    return dataclasses.replace(prompts, patches=patches)


def visual_weights(dependency: jax.Array, mask: jax.Array, share: float) -> jax.Array:
    """Weights `[B, G, R]` of tokens, with a mean of 1 over each completion.

    Args:
      dependency: `[B, G, R]`, at least 0.
      mask: `[B, G, R]`, 1 on response tokens.
      share: of the weight that is in proportion to the dependency; the rest is alike for all.
    """
    lengths = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1.0)
    mean = jnp.sum(jnp.where(mask > 0, dependency, 0.0), axis=-1, keepdims=True) / lengths
    relative = jnp.where(mean > LEAST_DEPENDENCY, dependency / jnp.maximum(mean, LEAST_DEPENDENCY), 1.0)
    return 1 - share + share * relative
