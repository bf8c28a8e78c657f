"""Attention: the three patterns the model needs, and the plain form of them.

Shape letters: B prompts, G responses that share a prompt, P prompt length, R response length, N patches,
T queries, S keys, H query heads, K key/value heads (H is a multiple of K), E head_dim.

Whatever can be trained on many tokens goes through an `Attention`:

- `packed`: the patches of several images in one row, each image on its own (vision);
- `causal`: a prompt with itself (prefill);
- `tree`: a prompt and the G responses that continue it (training).

`PlainAttention` runs anywhere and says what is right; `cudnn_attention` and `splash_attention` are the
same on a GPU and on a TPU without a matrix of scores in memory. Decoding uses `attend` on every platform: one
query per response is bound by reading the caches, and the plain form reads each of them once, in place and
without copies. What it can not do is read a part of an array that is as long as data say: `ragged_decode`
does on TPUs, for the responses' own caches, and `attend` joins what it read with the rest (`Read`).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dig_jax.models.nn.layers import precision_for
from dig_jax.models.nn.readers import Readers

# Scores are materialised for this many queries at a time, so attention memory grows with S and not with
# T * S. 256 rows still fill a matrix unit.
QUERY_CHUNK = 256

# Finite, so that a row with no visible key (padding) gives uniform weights rather than NaN.
MASKED = -1e30

# Logical axes of the arguments, for `map_shards`.
TOKENS = ("activation_batch", None, "activation_heads", None)  # [B,T,heads,E]
RESPONSES = ("activation_batch", None, None, "activation_heads", None)  # [B,G,R,heads,E]
SEGMENTS = ("activation_batch", None)
LENGTHS = ("activation_batch",)


class QKV(NamedTuple):
    """Queries, keys and values of the same tokens; query head h reads key/value head h // (H / K)."""

    q: jax.Array  # [...,T,H,E]
    k: jax.Array  # [...,T,K,E]
    v: jax.Array  # [...,T,K,E]


class Attention(Protocol):
    """The patterns of attention, softmax(q k / sqrt(E)) v, in the dtype of q.

    All forms agree on tokens that are not padding; rows of padding are finite and mean nothing.
    """

    def packed(self, x: QKV, segment: jax.Array) -> jax.Array:
        """Every token sees all tokens of its segment. x: [B,N,...]; segment: int32 [B,N]; gives [B,N,H,E]."""
        ...

    def causal(self, prompt: QKV) -> jax.Array:
        """Every token sees itself and those before it. prompt: [B,P,...]; gives [B,P,H,E]."""
        ...

    def tree(self, prompt: QKV, responses: QKV, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Prompts see themselves, and each response its prompt and itself, all causally.

        Args:
          prompt: [B,P,...], padded on the right.
          responses: [B,G,R,...], padded on the right.
          length: int32 [B], tokens of each prompt that are not padding.

        Returns:
          [B,P,H,E] and [B,G,R,H,E].
        """
        ...


@dataclasses.dataclass(frozen=True)
class PlainAttention:
    """Matrix products and a float32 softmax, scores for `QUERY_CHUNK` queries at a time."""

    def packed(self, x: QKV, segment: jax.Array) -> jax.Array:
        same = segment[:, None, :, None] == segment[:, None, None, :]  # [B,1,N,N]
        return attend(x.q[:, None], [KeyValues.of(x, same)])[:, 0]

    def causal(self, prompt: QKV) -> jax.Array:
        mask = _causal_mask(prompt.q.shape[1])
        return attend(prompt.q[:, None], [KeyValues.of(prompt, mask)])[:, 0]

    def tree(self, prompt: QKV, responses: QKV, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        shared = KeyValues.of(prompt, length_mask(length, prompt.k.shape[1]))
        own = KeyValues.of(responses, _causal_mask(responses.q.shape[2]))
        return self.causal(prompt), attend(responses.q, [shared, own])


PLAIN = PlainAttention()


def length_mask(length: jax.Array, padded: int) -> jax.Array:
    """bool [B,1,1,P]: the tokens of each prompt that are not padding."""
    return (jnp.arange(padded) < length[:, None])[:, None, None]


def _causal_mask(length: int) -> jax.Array:
    """bool [1,1,T,T]. Padding is on the right, so no real token ever sees it."""
    return jnp.tril(jnp.ones((1, 1, length, length), bool))


class KeyValues(NamedTuple):
    """Keys and values that queries may attend to.

    k, v: [B,K,S,E] when the G sequences share them, else [B,G,K,S,E]: with the heads first, products over S
      and E need no transpose.
    mask: bool, broadcastable to [B,G,T,S]; True where the query may look. None: everywhere.
    """

    k: jax.Array
    v: jax.Array
    mask: jax.Array | None

    @classmethod
    def of(cls, tokens: QKV, mask: jax.Array | None) -> "KeyValues":
        """Those of `tokens`, [B,S,...] or [B,G,S,...]."""
        return cls(tokens.k.swapaxes(-3, -2), tokens.v.swapaxes(-3, -2), mask)


class Read(NamedTuple):
    """What queries have read of keys elsewhere, by a softmax over those alone.

    Attributes:
      mixed: float32 [B,G,K,H/K,T,E], the values under its weights.
      log_total: float32 [B,G,K,H/K,T,1], logarithm of the sum of exp(score); `MASKED` where there was no key.
    """

    mixed: jax.Array
    log_total: jax.Array


def attend(q: jax.Array, segments: Sequence[KeyValues], reads: Sequence[Read] = ()) -> jax.Array:
    """Grouped-query attention with one softmax over the keys of all `segments` together.

    Keeping the segments apart is what lets G sequences read one copy of their prompt: its keys are
    neither repeated nor concatenated. Scale is E^-0.5; scores and softmax are float32.

    Args:
      q: [B,G,T,H,E].
      segments: at least one; see `KeyValues`.
      reads: what these queries, one per sequence, have read of other keys, which belong to the softmax too.

    Returns:
      [B,G,T,H,E] in the dtype of q.
    """
    mixed = _attend_chunks(grouped(q, segments[0].k.shape[-3]), segments, reads)  # [B,G,K,H/K,T,E]
    return jnp.moveaxis(mixed, 4, 2).reshape(q.shape)


def attend_with_readers(
    q: jax.Array,
    prompts: KeyValues,
    own: Sequence[KeyValues],
    readers: Readers,
    reads: Sequence[Read] = (),
) -> jax.Array:
    """`attend` of one query of each of B responses, to the prompt that it reads and to its own.

    One softmax over both, as there: the arithmetic is the same, number by number.

    Args:
      q: [B,1,1,H,E].
      prompts: k, v [A,K,P,E]; mask [A,1,1,P].
      own: of the responses, k, v [B,1,K,S,E].
      readers: who reads which prompt.
      reads: see `attend`.

    Returns:
      [B,1,1,H,E] in the dtype of q.
    """
    queries = grouped(q, prompts.k.shape[-3])  # [B,1,K,H/K,1,E]
    count = prompts.k.shape[0]
    shared = _scores(readers.to_prompts(queries, count), prompts)  # [A,C,K,H/K,1,P]
    scores = [_scores(queries, segment) for segment in own]
    highest = jnp.max(shared, axis=-1, keepdims=True)
    peaks = [readers.to_responses(highest), *(jnp.max(s, axis=-1, keepdims=True) for s in scores)]
    peak = jnp.stack([*peaks, *(read.log_total for read in reads)]).max(axis=0)
    # A place with no response has a peak of its own, so that nothing there is infinite.
    shared = jnp.exp(shared - readers.to_prompts(peak, count, empty=highest))
    weights = [jnp.exp(s - peak) for s in scores]
    elsewhere = [jnp.exp(read.log_total - peak) for read in reads]
    totals = [readers.to_responses(jnp.sum(shared, axis=-1, keepdims=True))]
    totals += [jnp.sum(w, axis=-1, keepdims=True) for w in weights] + elsewhere
    parts = [readers.to_responses(_mix(shared, prompts))]
    parts += [_mix(w, segment) for w, segment in zip(weights, own, strict=True)]
    parts += [weight * read.mixed for weight, read in zip(elsewhere, reads, strict=True)]
    mixed = jnp.divide(sum(parts), sum(totals)).astype(q.dtype)
    return jnp.moveaxis(mixed, 4, 2).reshape(q.shape)


def grouped(q: jax.Array, kv_heads: int) -> jax.Array:
    """Queries [B,G,T,H,E] in the order of the scores: the products then need no transpose of anything large.

    Returns:
      [B,G,K,H/K,T,E].
    """
    return jnp.moveaxis(q.reshape(*q.shape[:3], kv_heads, -1, q.shape[-1]), 2, 4)


def _attend_chunks(q: jax.Array, segments: Sequence[KeyValues], reads: Sequence[Read]) -> jax.Array:
    """`_attend` for at most `QUERY_CHUNK` queries at a time. q and the result: [B,G,K,H/K,T,E]."""
    num_queries = q.shape[4]
    num_chunks = -(-num_queries // QUERY_CHUNK)
    if num_chunks == 1:
        return _attend(q, segments, reads)
    # Chunks of one size, with as little padding as whole vector registers allow.
    size = 8 * -(-num_queries // (8 * num_chunks))

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
        _split_queries(s.mask, -2, num_chunks, size)
        for s, f in zip(segments, follows_queries, strict=True)
        if f and s.mask is not None
    ]
    out = jax.lax.map(attend_chunk, (_split_queries(q, 4, num_chunks, size), chunked_masks))
    out = jnp.moveaxis(out, 0, 4)  # [B,G,K,H/K,chunks,size,E]
    return out.reshape(*q.shape[:4], -1, q.shape[5])[..., :num_queries, :]


def _split_queries(x: jax.Array, axis: int, num_chunks: int, size: int) -> jax.Array:
    """Pads `axis` to `num_chunks` * `size` and moves the chunks to the front."""
    axis %= x.ndim
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, num_chunks * size - x.shape[axis])
    x = jnp.pad(x, pad)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], num_chunks, size, *x.shape[axis + 1 :]), axis, 0)


def _attend(q: jax.Array, segments: Sequence[KeyValues], reads: Sequence[Read] = ()) -> jax.Array:
    """Attention of queries [B,G,K,H/K,T,E], to the same shape."""
    scores = [_scores(q, segment) for segment in segments]
    # The shift cancels in the quotient, so it carries no gradient.
    peaks = [*(jnp.max(s, axis=-1, keepdims=True) for s in scores), *(read.log_total for read in reads)]
    peak = jax.lax.stop_gradient(jnp.stack(peaks).max(axis=0))
    weights = [jnp.exp(s - peak) for s in scores]
    elsewhere = [jnp.exp(read.log_total - peak) for read in reads]
    totals = [*(jnp.sum(w, axis=-1, keepdims=True) for w in weights), *elsewhere]  # [B,G,K,H/K,T,1]
    parts = [_mix(w, segment) for w, segment in zip(weights, segments, strict=True)]
    parts += [weight * read.mixed for weight, read in zip(elsewhere, reads, strict=True)]
    return jnp.divide(sum(parts), sum(totals)).astype(q.dtype)


def _scores(q: jax.Array, segment: KeyValues) -> jax.Array:
    """Scaled and masked scores, float32 [B,G,K,H/K,T,S]."""
    # Not q is scaled: in bfloat16 that would round it once more.
    scores = q.shape[-1] ** -0.5 * _product(q, "qe,se->qs", segment.k)
    if segment.mask is None:
        return scores
    return jnp.where(segment.mask[:, :, None, None], scores, MASKED)


def _mix(weights: jax.Array, segment: KeyValues) -> jax.Array:
    """Sum of values under unnormalised weights [B,G,K,H/K,T,S]: float32 [B,G,K,H/K,T,E]."""
    return _product(weights.astype(segment.v.dtype), "qs,se->qe", segment.v)


def _product(x: jax.Array, rows: str, y: jax.Array) -> jax.Array:
    """float32 einsum of x [B,G,K,H/K,T,...] with keys or values y, for all rows of a key head at once.

    Stated as one plain batched matrix product: other orders of the same einsum take XLA's CPU backend two
    to three times as long, which transposes the scores for them.

    Args:
      rows: subscripts of the last two dimensions, such as "qe,se->qs", where q counts the rows.
    """
    batch, group, kv_heads, per_head, num_queries, size = x.shape
    left, right, out = rows.replace("->", ",").split(",")
    if y.ndim == 4:  # shared by the group, whose queries then are rows like the others
        x, head = x.swapaxes(1, 2).reshape(batch, kv_heads, -1, size), "bk"
    else:
        x, head = x.reshape(batch, group, kv_heads, -1, size), "bgk"
    product = jnp.einsum(
        f"{head}{left},{head}{right}->{head}{out}",
        x,
        y,
        precision=precision_for(x),
        preferred_element_type=jnp.float32,
    )
    if y.ndim == 4:
        return product.reshape(batch, kv_heads, group, per_head, num_queries, -1).swapaxes(1, 2)
    return product.reshape(batch, group, kv_heads, per_head, num_queries, -1)
