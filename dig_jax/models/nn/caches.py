"""The caches of decoding: keys and values of prompts and of the responses that share them.

Shape letters: L layers, B prompts, G responses per prompt, P prompt length, R response length, K key/value
heads, E head_dim.
"""

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.models.nn.layers import constrain, map_shards
from dig_jax.models.nn.routing import RouterOutput

Caches = tuple[jax.Array, jax.Array]  # keys and values

# Logical axes of keys and values in `PromptCache` and `ResponseCache`.
PROMPT_CACHE = (None, "activation_batch", "activation_kv_heads", None, None)
RESPONSE_CACHE = (None, "activation_batch", None, "activation_kv_heads", None, None)
# ... and of the experts in them.
PROMPT_ROUTING = (None, "activation_batch", None, None)
RESPONSE_ROUTING = (None, "activation_batch", None, None, None)


@flax.struct.dataclass
class PromptCache:
    """Keys and values of the prompts, shared by all responses to them."""

    k: jax.Array  # [L,B,K,P,E]
    v: jax.Array  # [L,B,K,P,E]
    length: jax.Array  # int32 [B]
    next_position: jax.Array  # int32 [B]: M-RoPE position of the first response token
    routing: jax.Array | None = None  # [L,B,P,experts per token], see `routing.Routing`; None: no experts


@flax.struct.dataclass
class ResponseCache:
    """Keys and values of the response tokens fed so far."""

    k: jax.Array  # [L,B,G,K,R,E]
    v: jax.Array  # [L,B,G,K,R,E]
    routing: jax.Array | None = None  # [L,B,G,R,experts per token]; None: no experts


def positions_read(length: jax.Array, block: int, longest: int) -> jax.Array:
    """Positions in the blocks that hold anything, of caches of `longest` with `length`, int [...], filled."""
    return jnp.minimum(-(-length // block) * block, longest)


def write_slots(cache: ResponseCache, k: jax.Array, v: jax.Array, step: jax.Array) -> ResponseCache:
    """Puts keys and values [L,B,G,K,1,E] into slot `step`, int32 scalar or [B,G], of the cache."""
    if jnp.ndim(step) == 0:
        caches = [
            jax.lax.dynamic_update_slice_in_dim(old, new, step, axis=4)
            for old, new in ((cache.k, k), (cache.v, v))
        ]
        return ResponseCache(*(constrain(x, *RESPONSE_CACHE) for x in caches))

    # One update per response, where its slots are, in a loop, so that a program is as long for 512 responses
    # as for one. A scatter of all of them wants the cache in another order in memory than attention does, and
    # a TPU would copy the whole cache there and back for every token. From the last to the first: a loop that
    # counts up XLA's TPU compiler may take for one that writes all of the cache, and then it fails.
    def write_all(caches: Caches, new: Caches, step: jax.Array) -> Caches:
        def write_one(turn: jax.Array, caches: Caches) -> Caches:
            number = step.size - 1 - turn
            row, column = number // step.shape[1], number % step.shape[1]
            where = (0, row, column, 0, step[row, column], 0)
            k, v = (
                jax.lax.dynamic_update_slice(cache, _one_response(x, row, column), where)
                for cache, x in zip(caches, new, strict=True)
            )
            return k, v

        return jax.lax.fori_loop(0, step.size, write_one, caches)

    names, steps = RESPONSE_CACHE, ("activation_batch", None)
    write = map_shards(write_all, [names, names, steps], [names, names])
    return ResponseCache(*write((cache.k, cache.v), (k, v), step))


def write_routing(routing: jax.Array | None, said: RouterOutput | None, step: jax.Array) -> jax.Array | None:
    """Puts the experts of a token, [L,B,G,1,K], into slot `step`, int32 scalar or [B,G], if there are any."""
    if routing is None or said is None:
        return None
    slots = jnp.arange(routing.shape[3]) == jnp.broadcast_to(step, routing.shape[1:3])[..., None]
    return jnp.where(slots[..., None], said.ids[0].astype(routing.dtype), routing)


def _one_response(x: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """The response in a row and column of x [L,B,G,K,1,E]: [L,1,1,K,1,E]."""
    return jax.lax.dynamic_slice(x, (0, row, column, 0, 0, 0), (x.shape[0], 1, 1, *x.shape[3:]))
