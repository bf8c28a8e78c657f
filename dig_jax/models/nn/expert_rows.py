"""Choices of experts sorted by expert: how tokens get to the rows of their experts, and back.

Shape letters: N tokens, K choices of each, M rows, E experts, D width, I inner width of an expert.

The N * K choices are sorted by expert, so that each expert's rows lie together, and multiplied with its
kernels (`grouped`). Rows are brought to their place, and back, by gathers in both directions: a token is read
K times, and its gradient is the sum of K rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dig_jax.models.nn import grouped
from dig_jax.models.nn.grouped import Grouped, Kernel


class Sorted(NamedTuple):
    """Where choices lie once they are sorted by expert.

    source: int32 [M], number n * K + k of the choice in a row; N * K in rows that are padding.
    place: int32 [N,K], the row of each choice.
    sizes: int32 [E], rows of each expert, padding included.
    """

    source: jax.Array
    place: jax.Array
    sizes: jax.Array


def sort_choices(ids: jax.Array, num_experts: int, tile: int, block: int) -> Sorted:
    """Sorts choices int32 [N,K] by expert, whose rows begin at multiples of `tile`; M is one of `block`."""
    flat = ids.reshape(-1)
    count = flat.size
    order = jnp.argsort(flat, stable=True).astype(jnp.int32)
    counts = jnp.zeros(num_experts, jnp.int32).at[flat].add(1)
    sizes = -(-counts // tile) * tile
    shift = (jnp.cumsum(sizes) - sizes) - (jnp.cumsum(counts) - counts)  # of an expert's rows, by padding
    rows = jnp.arange(count, dtype=jnp.int32) + shift[flat[order]]
    num_rows = padded_rows(count, num_experts, tile, block)
    source = jnp.full(num_rows, count, jnp.int32).at[rows].set(order, unique_indices=True)
    place = jnp.zeros(count, jnp.int32).at[order].set(rows, unique_indices=True)
    return Sorted(source, place.reshape(ids.shape), sizes)


def padded_rows(count: int, num_experts: int, tile: int, block: int) -> int:
    """Rows that are enough for any way in which `count` choices fall on the experts."""
    most = count + min(num_experts, count) * (tile - 1)
    step = max(tile, block)
    return -(-most // step) * step


def grouped_mlp(
    form: Grouped, x: jax.Array, ids: jax.Array, weights: jax.Array, gate_up: Kernel, down: Kernel
) -> jax.Array:
    """`experts.experts_mlp` by sorting; kernels in the dtype of x."""
    num_experts = grouped.num_experts(gate_up)
    tile, block = form.tile_of(ids.size, num_experts), form.block_of(ids.size)
    sort = sort_choices(ids, num_experts, tile, block)
    rows = spread(x, sort)
    y = swiglu(form, rows, gate_up, down, sort.sizes, tile)
    return collect(y, weights, sort).astype(x.dtype)


def swiglu(
    form: Grouped, rows: jax.Array, gate_up: Kernel, down: Kernel, sizes: jax.Array, tile: int
) -> jax.Array:
    """The experts' MLPs on rows [M,D] sorted by expert."""
    gate, up = jnp.split(grouped.dot(form, rows, gate_up, sizes, tile), 2, axis=-1)
    return grouped.dot(form, jax.nn.silu(gate) * up, down, sizes, tile)


@jax.custom_vjp
def spread(x: jax.Array, sort: Sorted) -> jax.Array:
    """x [N,D] to rows [M,D], zero where they are padding."""
    return jnp.take(x, sort.source // sort.place.shape[1], axis=0, mode="fill", fill_value=0)


def _spread_backward(sort: Sorted, cotangent: jax.Array) -> tuple[jax.Array, None]:
    of_choice = jnp.take(cotangent, sort.place, axis=0, mode="fill", fill_value=0)
    return jnp.sum(of_choice, axis=1, dtype=jnp.float32).astype(cotangent.dtype), None


spread.defvjp(lambda x, sort: (spread(x, sort), sort), _spread_backward)


@jax.custom_vjp
def collect(y: jax.Array, weights: jax.Array, sort: Sorted) -> jax.Array:
    """The weighted sum [N,D] of each token's rows, y [M,D], under weights float32 [N,K]: float32.

    A place past the last row, or one that stands for nothing, adds nothing.
    """
    rows = jnp.take(y, sort.place, axis=0, mode="fill", fill_value=0)
    return jnp.einsum("nkd,nk->nd", rows.astype(jnp.float32), weights)


def _collect_backward(
    kept: tuple[jax.Array, jax.Array, Sorted], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    y, weights, sort = kept
    of_row = jnp.take(cotangent, sort.source // weights.shape[1], axis=0, mode="fill", fill_value=0)
    weight = jnp.take(weights.reshape(-1), sort.source, mode="fill", fill_value=0)
    # What is undefined in y stands in rows that no choice is in, and `place` names none of these.
    share = jnp.sum(of_row * y.astype(jnp.float32), axis=1)
    return (
        (of_row * weight[:, None]).astype(y.dtype),
        jnp.take(share, sort.place, mode="fill", fill_value=0),
        None,
    )


collect.defvjp(lambda y, weights, sort: (collect(y, weights, sort), (y, weights, sort)), _collect_backward)


@jax.custom_vjp
def unsort(y: jax.Array, sort: Sorted) -> jax.Array:
    """The rows y [M,D] in the order before, [N,D], where there is one choice of each."""
    return jnp.take(y, sort.place[:, 0], axis=0, mode="fill", fill_value=0)


def _unsort_backward(sort: Sorted, cotangent: jax.Array) -> tuple[jax.Array, None]:
    return jnp.take(cotangent, sort.source, axis=0, mode="fill", fill_value=0), None


unsort.defvjp(lambda y, sort: (unsort(y, sort), sort), _unsort_backward)
