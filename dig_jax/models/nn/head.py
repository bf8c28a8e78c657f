"""The output head: logits, and log-probabilities of given tokens without ever holding logits for all of them.

At 151,936 words the float32 logits of 2,048 tokens take 1.24 GB; here they exist for a slice of the
tokens at a time, in the forward and in the backward pass.

Shape letters: T tokens, D width, V vocabulary.
"""

import functools
from collections.abc import Callable
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
    _check_sizes(temperature, chunk)

    def of_scores(scores: jax.Array, words: jax.Array) -> tuple[jax.Array, ...]:
        logprobs = _log_softmax(scores, temperature, allowed)
        return _chosen(logprobs, words), _entropy(logprobs)

    logprobs, entropies = _by_slices(of_scores, table, hidden, (targets,), (), results=2, chunk=chunk)
    return logprobs, entropies


def token_divergences(
    table: jax.Array,
    hidden: jax.Array,
    targets: jax.Array,
    teacher_table: jax.Array,
    teacher_hidden: jax.Array,
    *,
    beta: float,
    temperature: float = 1.0,
    allowed: jax.Array | np.ndarray | None = None,
    chunk: int = 64,
) -> tuple[jax.Array, ...]:
    """As `token_logprobs`, and how far the whole distribution at each token is from a teacher's.

    The generalized Jensen-Shannon divergence of GKD (arXiv 2306.13649), over all words: with M = beta *
    teacher + (1 - beta) * student it is beta * KL(teacher || M) + (1 - beta) * KL(student || M). At 0 and 1,
    where that is 0, it is what it tends to, over beta and over 1 - beta: KL(teacher || student), "forward",
    and KL(student || teacher), "reverse".

    Args:
      table, hidden, targets, temperature, allowed, chunk: of the student, see `token_logprobs`.
      teacher_table: [V,D], the teacher's output head; no gradient flows to it.
      teacher_hidden: [...,T,D], its states; nor to these.
      beta: in 0..1.

    Returns:
      float32 [...,T] each: log-probabilities and entropies of the student; divergences, in nats; and, with no
      gradient, KL(student || teacher), and 1 where both find the same word most probable, else 0.
    """

    def of_scores(
        scores: jax.Array, words: jax.Array, states: jax.Array, teacher_table: jax.Array
    ) -> tuple[jax.Array, ...]:
        ours = _log_softmax(scores, temperature, allowed)
        theirs = _log_softmax(logits(teacher_table, states), temperature, allowed)
        reverse = jax.lax.stop_gradient(_kl(ours, theirs))
        agree = jnp.argmax(ours, axis=-1) == jnp.argmax(theirs, axis=-1)
        divergence = _divergence(ours, theirs, beta)
        return _chosen(ours, words), _entropy(ours), divergence, reverse, agree.astype(jnp.float32)

    _check_sizes(temperature, chunk)
    teacher_table, teacher_hidden = jax.lax.stop_gradient((teacher_table, teacher_hidden))
    return _by_slices(
        of_scores, table, hidden, (targets, teacher_hidden), (teacher_table,), results=5, chunk=chunk
    )


def _divergence(ours: jax.Array, theirs: jax.Array, beta: float) -> jax.Array:
    """The generalized Jensen-Shannon divergence [...] of log-probs [...,V]: see `token_divergences`."""
    if beta == 0:
        return _kl(theirs, ours)
    if beta == 1:
        return _kl(ours, theirs)
    middle = jnp.logaddexp(theirs + np.log(beta), ours + np.log1p(-beta))
    return beta * _kl(theirs, middle) + (1 - beta) * _kl(ours, middle)


def _kl(logprobs: jax.Array, others: jax.Array) -> jax.Array:
    return jnp.sum(jnp.exp(logprobs) * (logprobs - others), axis=-1)


def _log_softmax(scores: jax.Array, temperature: float, allowed: jax.Array | np.ndarray | None) -> jax.Array:
    scores = scores / temperature
    if allowed is not None:
        scores = jnp.where(allowed, scores, FORBIDDEN)
    return jax.nn.log_softmax(scores, axis=-1)


def _chosen(logprobs: jax.Array, words: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logprobs, words[..., None], axis=-1)[..., 0]


def _entropy(logprobs: jax.Array) -> jax.Array:
    return -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)


def _check_sizes(temperature: float, chunk: int) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}, expected more than 0")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")


def _by_slices(
    of_scores: Callable[..., tuple[jax.Array, ...]],
    table: jax.Array,
    hidden: jax.Array,
    of_tokens: tuple[jax.Array, ...],
    tables: tuple[jax.Array, ...],
    *,
    results: int,
    chunk: int,
) -> tuple[jax.Array, ...]:
    """What is computed of the logits at each token, a slice of the tokens at a time.

    Args:
      of_scores: float32 logits [...,t,V], the slices of `of_tokens`, and `tables` -> results [...,t].
      table: [V,D], the output head.
      hidden: [...,T,D].
      of_tokens: further arrays, [...,T] or [...,T,D], that no gradient flows to.
      tables: [V,D] that no gradient flows to.
      results: how many of them there are.
      chunk: t, how many tokens there are in a slice.

    Returns:
      The results, [...,T] each.
    """
    axis, length = hidden.ndim - 2, hidden.shape[-2]
    chunk = min(chunk, length)
    split = functools.partial(_split, axis=axis, chunk=chunk)
    join = functools.partial(_join, axis=axis, length=length)

    @jax.custom_vjp
    def run(table: jax.Array, hidden: jax.Array, of_tokens: Any, tables: Any) -> tuple[jax.Array, ...]:
        chunks = (split(hidden), jax.tree.map(split, of_tokens))
        results = jax.lax.map(lambda chunk: of_scores(logits(table, chunk[0]), *chunk[1], *tables), chunks)
        return jax.tree.map(join, results)

    def forward(*args: Any) -> tuple[Any, tuple[Any, ...]]:
        return run(*args), args

    def backward(args: tuple[Any, ...], cotangents: Any) -> tuple[Any, ...]:
        table, hidden, of_tokens, tables = args

        def step(total: jax.Array, chunk: Any) -> tuple[jax.Array, jax.Array]:
            states, others, cotangent = chunk
            _, pull = jax.vjp(lambda scores: of_scores(scores, *others, *tables), logits(table, states))
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
        chunks = (split(hidden), jax.tree.map(split, of_tokens), jax.tree.map(split, cotangents))
        total, for_states = jax.lax.scan(step, jnp.zeros(table.shape, jnp.float32), chunks)
        return total.astype(table.dtype), join(for_states), None, None

    run.defvjp(forward, backward)
    rows = ("activation_batch", *[None] * axis)

    def on_shards(*args: Any) -> tuple[jax.Array, ...]:
        """`run`, with the tuples of arrays as arguments one by one: each has its own dimensions."""
        return run(*args[:2], args[2 : 2 + len(of_tokens)], args[2 + len(of_tokens) :])

    def whole(table: jax.Array) -> jax.Array:
        return constrain(table.astype(hidden.dtype), "activation_vocab", None)

    given = (whole(table), hidden, *of_tokens, *map(whole, tables))
    axes = [(*rows, *[None] * (x.ndim - len(rows))) for x in (hidden, *of_tokens)]
    return map_shards(
        on_shards,
        [(None, None), *axes, *[(None, None)] * len(tables)],
        (rows,) * results,
        others_auto=True,
    )(*given)


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
