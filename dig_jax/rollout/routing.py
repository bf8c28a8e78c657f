"""Which experts each token went to: what a sampler keeps, and a trainer may be given.

A layer of experts sends every token to K of them. The ids of those are enough to send it there again: how
much each of them counts is computed anew, from the router's probabilities at these ids.

Known are the ids of every prompt token, from prefill, and of all tokens of a completion but its last, which
is drawn and never fed. For that one, and for padding, there is `unknown`: there the router chooses by itself,
and no log-prob depends on what it chooses.

Shape letters: B prompts, G completions per prompt, P padded prompt length, R response length, L layers,
K experts per token.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.models.api import PromptCache, ResponseCache, Routing
from dig_jax.models.nn.routing import unknown

Array = Any  # a JAX array, or a NumPy array that is on the host


@flax.struct.dataclass
class KeptRouting:
    """A model's `Routing` with the rows of a batch first, as all that is kept of a rollout has them.

    Attributes:
      prompts: unsigned [B,P,L,K].
      responses: unsigned [B,G,R,L,K].
    """

    prompts: Array
    responses: Array

    @classmethod
    def of(cls, routing: Routing) -> "KeptRouting":
        """What a model took."""
        assert routing.responses is not None  # it read some
        return cls(jnp.moveaxis(routing.prompts, 0, 2), jnp.moveaxis(routing.responses, 0, 3))

    def for_model(self) -> Routing:
        """What a model takes."""
        return Routing(jnp.moveaxis(self.prompts, 2, 0), jnp.moveaxis(self.responses, 3, 0))


def begin(cache: PromptCache, shards: int, completions: int, length: int) -> KeptRouting:
    """That of prompts which were read, and of no response token yet.

    Args:
      cache: of all prompts [L,D*B,P,K].
      shards: D.
      completions: B * G, those of a shard.
      length: R.

    Returns:
      [D,B,P,L,K] and [D,B*G,R,L,K].

    Raises:
      ValueError: the model has no experts.
    """
    if cache.routing is None:
        raise ValueError("experts are asked for, but this model has none: its layers are dense")
    prompts = jnp.moveaxis(cache.routing, 0, 2)  # [D*B,P,L,K]
    *_, layers, chosen = prompts.shape
    shape, dtype = (shards, completions, length, layers, chosen), prompts.dtype
    return KeptRouting(
        prompts.reshape(shards, -1, *prompts.shape[1:]), jnp.full(shape, unknown(dtype), dtype)
    )


def join_shards(routing: KeptRouting | None, group: int) -> KeptRouting | None:
    """[D,B,P,L,K] and [D,B*G,R,L,K] to [D*B,P,L,K] and [D*B,G,R,L,K]."""
    if routing is None:
        return None
    prompts, responses = routing.prompts, routing.responses
    return KeptRouting(
        prompts.reshape(-1, *prompts.shape[2:]), responses.reshape(-1, group, *responses.shape[2:])
    )


def of_step(cache: ResponseCache, step: jax.Array) -> jax.Array:
    """Ids [B,G,L,K] of the tokens that were fed as number `step`, int [B,G], of their responses."""
    assert cache.routing is not None  # the prompts had some
    fed = jnp.take_along_axis(cache.routing, step[None, :, :, None, None], axis=3)[:, :, :, 0]
    return jnp.moveaxis(fed, 0, 2)


def take(routing: KeptRouting, rows: np.ndarray, prompt_length: int) -> KeptRouting:
    """Some of the prompts, NumPy, with as much padding as makes P this. What is cut off is padding."""
    prompts = routing.prompts[rows, :prompt_length]
    widths = [(0, 0), (0, prompt_length - prompts.shape[1]), (0, 0), (0, 0)]
    prompts = np.pad(prompts, widths, constant_values=unknown(prompts.dtype))
    return KeptRouting(prompts, routing.responses[rows])


def replace(routing: KeptRouting, into: np.ndarray, other: KeptRouting, taken: np.ndarray) -> KeptRouting:
    """Prompts numbered `taken` of another one in the places `into`, NumPy; each may have a P of its own."""
    length = max(routing.prompts.shape[1], other.prompts.shape[1])
    changed = take(routing, np.arange(len(routing.prompts)), length)
    new = take(other, taken, length)
    changed.prompts[into], changed.responses[into] = new.prompts, new.responses
    return changed
