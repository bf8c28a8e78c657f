"""Attention over segments of keys and values, in plain JAX.

Shape letters: B prompts, G sequences that share a prompt, T queries, S keys, K key/value heads, H query
heads, E head_dim.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dig_jax.models.layers import precision_for

# Scores are materialised for this many queries at a time, so attention memory grows with S and not with
# T * S. 256 rows still fill a matrix unit.
QUERY_CHUNK = 256

# Finite, so that a row with no visible key (padding) gives uniform weights rather than NaN.
MASKED = -1e30


class KeyValues(NamedTuple):
    """Keys and values that queries may attend to.

    k, v: [B,S,K,E] when the G sequences share them, else [B,G,S,K,E].
    mask: bool, broadcastable to [B,G,T,S]; True where the query may look. None: everywhere.
    """

    k: jax.Array
    v: jax.Array
    mask: jax.Array | None


def attention(q: jax.Array, segments: Sequence[KeyValues]) -> jax.Array:
    """Grouped-query attention with one softmax over the keys of all `segments` together.

    Keeping the segments apart is what lets G sequences read one copy of their prompt: its keys are
    neither repeated nor concatenated. Scale is E^-0.5; scores and softmax are float32.

    Args:
      q: [B,G,T,K,H/K,E].
      segments: at least one; see `KeyValues`.

    Returns:
      [B,G,T,K,H/K,E] in the dtype of q.
    """
    num_queries = q.shape[2]
    if num_queries <= QUERY_CHUNK:
        return _attend(q, segments)
    num_chunks = -(-num_queries // QUERY_CHUNK)

    # A mask with a query axis is cut along it with the queries; any other is the same for every chunk.
    follows_queries = [s.mask is not None and s.mask.shape[-2] == num_queries for s in segments]

    @jax.checkpoint
    def attend_chunk(args: tuple[jax.Array, list[jax.Array]]) -> jax.Array:
        q_chunk, masks = args
        cut = iter(masks)
        return _attend(
            q_chunk,
            [s._replace(mask=next(cut)) if f else s for s, f in zip(segments, follows_queries, strict=True)],
        )

    chunked_masks = [
        _split_queries(s.mask, -2, num_chunks)
        for s, f in zip(segments, follows_queries, strict=True)
        if f and s.mask is not None
    ]
    out = jax.lax.map(attend_chunk, (_split_queries(q, 2, num_chunks), chunked_masks))
    out = jnp.moveaxis(out, 0, 2)  # [B,G,chunks,QUERY_CHUNK,K,H/K,E]
    return out.reshape(*q.shape[:2], -1, *q.shape[3:])[:, :, :num_queries]


def _split_queries(x: jax.Array, axis: int, num_chunks: int) -> jax.Array:
    """Pads `axis` to a multiple of QUERY_CHUNK and moves the chunks to the front."""
    axis %= x.ndim
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, num_chunks * QUERY_CHUNK - x.shape[axis])
    x = jnp.pad(x, pad)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], num_chunks, QUERY_CHUNK, *x.shape[axis + 1 :]), axis, 0)


def _attend(q: jax.Array, segments: Sequence[KeyValues]) -> jax.Array:
    scores = [_scores(q, segment) for segment in segments]
    # The shift cancels in the quotient, so it carries no gradient.
    peak = jax.lax.stop_gradient(jnp.stack([jnp.max(s, axis=-1, keepdims=True) for s in scores]).max(axis=0))
    weights = [jnp.exp(s - peak) for s in scores]
    total = sum(jnp.sum(w, axis=-1) for w in weights)  # [B,G,K,H/K,T]
    mixed = sum(_mix(w, segment) for w, segment in zip(weights, segments, strict=True))
    return (mixed / jnp.moveaxis(total, -1, 2)[..., None]).astype(q.dtype)


def _scores(q: jax.Array, segment: KeyValues) -> jax.Array:
    """Scaled and masked scores, float32 [B,G,K,H/K,T,S]."""
    keys = "bske" if segment.k.ndim == 4 else "bgske"
    scores = jnp.einsum(
        f"bgtkhe,{keys}->bgkhts",
        q,
        segment.k,
        precision=precision_for(q),
        preferred_element_type=jnp.float32,
    )
    scores *= q.shape[-1] ** -0.5
    if segment.mask is None:
        return scores
    return jnp.where(segment.mask[:, :, None, None], scores, MASKED)


def _mix(weights: jax.Array, segment: KeyValues) -> jax.Array:
    """Sum of values under unnormalised weights [B,G,K,H/K,T,S]: float32 [B,G,T,K,H/K,E]."""
    values = "bske" if segment.v.ndim == 4 else "bgske"
    return jnp.einsum(
        f"bgkhts,{values}->bgtkhe",
        weights.astype(segment.v.dtype),
        segment.v,
        precision=precision_for(segment.v),
        preferred_element_type=jnp.float32,
    )
