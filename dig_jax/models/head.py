"""Log-probabilities of given tokens without ever holding logits for all of them.

At 151,936 words the float32 logits of 2,048 tokens take 1.24 GB; here they exist for a slice of the
tokens at a time, in the forward and in the backward pass.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# A word that can not be sampled. Finite, so that a masked-out token can not turn a sum into NaN.
FORBIDDEN = -1e30


def token_logprobs(
    logits_fn: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 1.0,
    allowed: jax.Array | np.ndarray | None = None,
    chunk: int = 64,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each target under softmax(logits / temperature), and the entropy.

    Args:
      logits_fn: hidden states [...,D] to float32 logits [...,V]; it may close over parameters.
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

    @jax.checkpoint
    def one_chunk(args: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        states, words = args
        logits = logits_fn(states).astype(jnp.float32) / temperature
        if allowed is not None:
            logits = jnp.where(allowed, logits, FORBIDDEN)
        logprobs = jax.nn.log_softmax(logits, axis=-1)
        chosen = jnp.take_along_axis(logprobs, words[..., None], axis=-1)[..., 0]
        return chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)

    length = targets.shape[-1]
    if length <= chunk:
        return one_chunk((hidden, targets))
    num_chunks = -(-length // chunk)

    def split(x: jax.Array, axis: int) -> jax.Array:
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, num_chunks * chunk - length)
        x = jnp.pad(x, pad)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], num_chunks, chunk, *x.shape[axis + 1 :]), axis, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, -2).reshape(*targets.shape[:-1], -1)[..., :length]

    axis = targets.ndim - 1
    logprobs, entropy = jax.lax.map(one_chunk, (split(hidden, axis), split(targets, axis)))
    return join(logprobs), join(entropy)
