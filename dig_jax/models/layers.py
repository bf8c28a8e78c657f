"""Layers shared by the vision tower and the text decoder.

Shape letters: B prompts, G sequences that share a prompt, T queries, S keys, D width, H query heads,
K key/value heads, E head_dim.

Every weight is declared once, with its shape, logical axis names and initial value. The names are
metadata (`out_sharding`) for whoever places the parameters; nothing here knows of a mesh. Compute
runs in the dtype of the activations: kernels are cast on use, while norms, softmax and rotary embedding
work in float32 inside.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import spmd

Axes = tuple[str | None, ...]
M = TypeVar("M", bound=nnx.Module)

# Scores are materialised for this many queries at a time, so attention memory grows with S and not with
# T * S. 256 rows still fill a matrix unit.
QUERY_CHUNK = 256

# Finite, so that a row with no visible key (padding) gives uniform weights rather than NaN.
MASKED = -1e30


def make_param(
    rngs: nnx.Rngs, shape: Sequence[int], axes: Axes, *, std: float, dtype: jnp.dtype
) -> nnx.Param:
    """A parameter drawn from a normal distribution, with a logical axis name (or None) per dimension."""
    return _annotate(std * jax.random.normal(rngs.params(), tuple(shape), dtype), axes)


def make_constant(shape: Sequence[int], axes: Axes, value: float, dtype: jnp.dtype) -> nnx.Param:
    """A parameter that starts at `value`: norm scales and biases. Drawing no key keeps compilation short."""
    return _annotate(jnp.full(tuple(shape), value, dtype), axes)


def _annotate(value: jax.Array, axes: Axes) -> nnx.Param:
    if value.ndim != len(axes):
        raise ValueError(f"a parameter of shape {value.shape} needs one axis name per dimension, got {axes}")
    # Placement is the caller's business (jit with out_shardings), hence no eager sharding.
    return nnx.Param(value, out_sharding=axes, eager_sharding=False)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Shards an activation by logical names under the rules in force (`flax.linen.logical_axis_rules`).

    Without rules this does nothing. Under rules, a dimension whose name they do not mention is left whole.
    """
    rules: dict[str | None, Any] = dict(spmd.get_logical_axis_rules())
    if not rules:
        return x
    return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec(*(rules.get(a) for a in axes)))


def precision_for(x: jax.Array) -> jax.lax.Precision | None:
    """float32 means float32: without this GPUs would use TF32 and TPUs one bfloat16 pass."""
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


class Linear(nnx.Module):
    """`y = x @ kernel + bias` over one or more trailing input dimensions.

    `kernel` is [*in_shape, *out_shape] with `axes` naming all of them; `bias`, if any, is [*out_shape].
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        axes: Axes,
        *,
        std: float,
        bias: bool = False,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ) -> None:
        self.num_in = len(in_shape)
        self.kernel = make_param(rngs, (*in_shape, *out_shape), axes, std=std, dtype=dtype)
        self.bias = make_constant(out_shape, axes[self.num_in :], 0.0, dtype) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=self.num_in, precision=precision_for(x))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, size: int, axis: str | None, *, eps: float, dtype: jnp.dtype) -> None:
        self.eps = eps
        self.scale = make_constant((size,), (axis,), 1.0, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale[...].astype(jnp.float32)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias over the last axis, computed in float32."""

    def __init__(self, size: int, axis: str | None, *, eps: float, dtype: jnp.dtype) -> None:
        self.eps = eps
        self.scale = make_constant((size,), (axis,), 1.0, dtype)
        self.bias = make_constant((size,), (axis,), 0.0, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        x32 -= jnp.mean(x32, axis=-1, keepdims=True)
        x32 *= jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)).astype(
            x.dtype
        )


class Rotation(NamedTuple):
    """cos and sin of the rotary angles, float32, [B, 1 or G, T, E/2] each (the two halves share them)."""

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def from_angles(cls, angles: jax.Array) -> "Rotation":
        return cls(jnp.cos(angles), jnp.sin(angles))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Rotates x [B,G,T,heads,E]; element i is paired with element i + E/2."""
        cos, sin = self.cos[..., None, :], self.sin[..., None, :]
        first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return rotated.astype(x.dtype)


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


def stack_layers(make: Callable[[nnx.Rngs], M], count: int, rngs: nnx.Rngs) -> M:
    """One module whose every parameter has a leading axis named "layers" of length `count`."""

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=(0,), out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
    def create(rngs: nnx.Rngs) -> M:
        return make(rngs)

    return create(rngs)
