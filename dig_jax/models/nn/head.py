"""The output head: logits, and log-probabilities of given tokens without ever holding logits for all of them.

At 151,936 words the float32 logits of 2,048 tokens take 1.24 GB; here they exist for a slice of the
tokens at a time, in the forward and in the backward pass.

Shape letters: T tokens, D width, V vocabulary.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.models.nn.layers import constrain, map_shards, precision_for

# A word that can not be sampled. Finite, so that a masked-out token can not turn a sum into NaN.
FORBIDDEN = -1e30


def logits(table: jax.Array, hidden: jax.Array) -> jax.Array:
    """float32 logits [...,V] of hidden states [...,D] under the rows of `table` [V,D]."""
    return jnp.einsum(
        "...d,vd->...v",
        hidden,
        table.astype(hidden.dtype),
        precision=precision_for(hidden),
        preferred_element_type=jnp.float32,
    )


def token_logprobs(
    table: jax.Array,
    hidden: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 1.0,
    allowed: jax.Array | np.ndarray | None = None,
    chunk: int = 64,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each target under softmax(logits / temperature), and the entropy.

    On a mesh the table is gathered once and its gradient summed once, not for every slice.

    Args:
      table: [V,D], the output head.
      hidden: [...,T,D], the states the targets are predicted from.
      targets: int [...,T].
      temperature: greater than 0.
      allowed: bool [V]; words that are False have probability 0, and -1e30 for a log-probability.
      chunk: how many of the T tokens are done at a time. Only T is cut, so leading dimensions may be sharded.

    Returns:
      float32 log-probabilities [...,T] and entropies [...,T] in nats.

    Raises:
      ValueError: if temperature or chunk is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}, expected more than 0")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")

    def of_scores(scores: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = scores / temperature
        if allowed is not None:
            scores = jnp.where(allowed, scores, FORBIDDEN)
        logprobs = jax.nn.log_softmax(scores, axis=-1)
        chosen = jnp.take_along_axis(logprobs, words[..., None], axis=-1)[..., 0]
        return chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)

    axis = targets.ndim - 1
    chunk = min(chunk, targets.shape[-1])
    split = functools.partial(_split, axis=axis, chunk=chunk)
    join = functools.partial(_join, axis=axis, length=targets.shape[-1])

    @jax.custom_vjp
    def run(table: jax.Array, hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        chunks = (split(hidden), split(targets))
        results = jax.lax.map(lambda chunk: of_scores(logits(table, chunk[0]), chunk[1]), chunks)
        return jax.tree.map(join, results)

    def forward(*args: jax.Array) -> tuple[Any, tuple[jax.Array, ...]]:
        return run(*args), args

    def backward(args: tuple[jax.Array, ...], cotangents: Any) -> tuple[Any, ...]:
        table, hidden, targets = args

        def step(total: jax.Array, chunk: Any) -> tuple[jax.Array, jax.Array]:
            states, words, cotangent = chunk
            _, pull = jax.vjp(lambda scores: of_scores(scores, words), logits(table, states))
            # Both products take the gradient in the dtype of the states, as the forward product takes its
            # operands: float32 next to bfloat16 would convert the table for every slice and multiply at a
            # fraction of the speed.
            (for_scores,) = (x.astype(states.dtype) for x in pull(cotangent))
            product = functools.partial(
                jnp.einsum, precision=precision_for(states), preferred_element_type=jnp.float32
            )
            for_states = product("...v,vd->...d", for_scores, table).astype(states.dtype)
            return total + product("...v,...d->vd", for_scores, states), for_states

        # Many small terms: their sum is kept in float32 whatever the table is in.
        chunks = (split(hidden), split(targets), jax.tree.map(split, cotangents))
        total, for_states = jax.lax.scan(step, jnp.zeros(table.shape, jnp.float32), chunks)
        return total.astype(table.dtype), join(for_states), None

    run.defvjp(forward, backward)
    rows = ("activation_batch", *[None] * axis)
    on_shards = map_shards(run, [(None, None), (*rows, None), rows], (rows, rows), others_auto=True)
    return on_shards(constrain(table.astype(hidden.dtype), "activation_vocab", None), hidden, targets)


def _split(x: jax.Array, axis: int, chunk: int) -> jax.Array:
    """Pads `axis` to a multiple of `chunk` and moves the chunks to the front."""
    num_chunks = -(-x.shape[axis] // chunk)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, num_chunks * chunk - x.shape[axis])
    x = jnp.pad(x, pad)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], num_chunks, chunk, *x.shape[axis + 1 :]), axis, 0)


def _join(chunks: jax.Array, axis: int, length: int) -> jax.Array:
    """The inverse of `_split`: the first `length` along `axis`."""
    x = jnp.moveaxis(chunks, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)
