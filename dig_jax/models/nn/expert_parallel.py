"""Experts that are split over devices: choices travel to the device of their expert, and results back.

Shape letters: N tokens of a device, K choices of each, E experts, S devices that exchange, C places for each
of them, D width.

Two ways of splitting meet here. Devices that have different tokens (mesh axis `expert`) send each other the
rows of their choices, by all-to-all. Devices that have the same tokens (`tensor`) each take the choices of
their own experts, and what comes of them is summed. Buffers are bounded: each device has C places for every
other. Where more choices fall on one device, the next ones go in a second round, and so on, as many as are
needed, in the backward pass as well. Nothing is dropped, and where choices are spread evenly there is one
round.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dig_jax.models.nn import expert_rows
from dig_jax.models.nn.grouped import Grouped, Kernel, num_experts

FURTHER = "further_rounds"  # scope of the loop over rounds after the first; with even use it never turns
LEAST_PLACES = 64  # for each device: few choices, those of decoding, rarely spread evenly

Operands = tuple[jax.Array, jax.Array, Kernel, Kernel]  # x [N,D], weights [N,K], gate_up, down


@dataclasses.dataclass(frozen=True)
class Split:
    """Over which mesh axes experts are split, inside `shard_map`.

    Attributes:
        exchange: axes whose devices have different tokens. Experts are split over these first.
        shared: axes whose devices have the same tokens.
        everywhere: all axes of the mesh, which take the same number of rounds.
        room: places for a device's choices, as a multiple of an even share.
    """

    exchange: tuple[str, ...]
    shared: tuple[str, ...]
    everywhere: tuple[str, ...]
    room: float

    def places(self, num_choices: int) -> int:
        """C for so many choices of one device."""
        even = num_choices / math.prod(jax.lax.axis_size(a) for a in (*self.exchange, *self.shared))
        return min(num_choices, max(LEAST_PLACES, math.ceil(self.room * even)))


class Routes(NamedTuple):
    """Where the choices of a device go.

    target: int32 [N,K], which of the devices that exchange has the expert; S: another one takes this choice.
    expert: int32 [N,K], the number of the expert there.
    rank: int32 [N,K], how many earlier choices have the same target.
    """

    target: jax.Array
    expert: jax.Array
    rank: jax.Array


def split_mlp(
    form: Grouped,
    split: Split,
    x: jax.Array,
    ids: jax.Array,
    weights: jax.Array,
    gate_up: Kernel,
    down: Kernel,
) -> jax.Array:
    """`experts.experts_mlp` of a device's tokens, with its own part of the experts; inside `shard_map`."""
    routes = find_routes(ids, num_experts(gate_up), split)
    places = split.places(ids.size)
    # The same number everywhere: in each round all devices meet.
    longest = jnp.max(jnp.where(routes.target < _size(split.exchange), routes.rank, -1)) + 1
    rounds = -(-longest // places)
    rounds = jax.lax.pmax(rounds, split.everywhere) if split.everywhere else rounds
    run = functools.partial(_round, form, split, places)
    y = in_rounds(run, routes, rounds, (x, weights, gate_up, down))
    return (jax.lax.psum(y, split.shared) if split.shared else y).astype(x.dtype)


def find_routes(ids: jax.Array, num_local: int, split: Split) -> Routes:
    """The routes of choices int32 [N,K], where each device has `num_local` experts."""
    shared, others = _size(split.shared), _size(split.exchange)
    device = ids // num_local
    target = jnp.where(device % shared == _index(split.shared), device // shared, others)
    flat = target.reshape(-1)
    order = jnp.argsort(flat, stable=True)
    counts = jnp.zeros(others + 1, jnp.int32).at[flat].add(1)
    first = jnp.cumsum(counts) - counts
    ranks = jnp.arange(flat.size, dtype=jnp.int32) - first[flat[order]]
    rank = jnp.zeros(flat.size, jnp.int32).at[order].set(ranks, unique_indices=True)
    return Routes(target, ids % num_local, rank.reshape(ids.shape))


def _round(
    form: Grouped, split: Split, places: int, operands: Operands, routes: Routes, number: jax.Array
) -> jax.Array:
    """What the choices of one round add to each token: float32 [N,D]."""
    x, weights, gate_up, down = operands
    others, num_local = _size(split.exchange), num_experts(gate_up)
    rank = routes.rank - number * places
    now = (routes.target < others) & (rank >= 0) & (rank < places)
    slot = jnp.where(now, routes.target * places + rank, others * places)  # [N,K]; past the end: not now
    # Of each place its choice, N * K where it is empty, and the expert, num_local where it is empty.
    flat = slot.reshape(-1)
    number_of = jnp.arange(flat.size, dtype=jnp.int32)
    source = jnp.full(others * places, flat.size, jnp.int32).at[flat].set(number_of, mode="drop")
    expert = (
        jnp.full(others * places, num_local, jnp.int32).at[flat].set(routes.expert.reshape(-1), mode="drop")
    )
    sent = expert_rows.Sorted(source, slot, jnp.zeros(0, jnp.int32))
    rows = _exchange(expert_rows.spread(x, sent), split)
    y = _exchange(_local(form, rows, _exchange(expert, split), gate_up, down), split)
    return expert_rows.collect(y, weights, sent)


def _local(form: Grouped, rows: jax.Array, expert: jax.Array, gate_up: Kernel, down: Kernel) -> jax.Array:
    """Rows [M,D] through their experts [M] of this device, zero for those of number `num_local`."""
    num_local = num_experts(gate_up)
    tile, block = form.tile_of(expert.size, num_local), form.block_of(expert.size)
    # Those without an expert come last, past the sum of the sizes, where no form computes.
    sort = expert_rows.sort_choices(expert[:, None], num_local + 1, tile, block)
    sort = sort._replace(place=jnp.where(expert[:, None] < num_local, sort.place, sort.source.size))
    y = expert_rows.swiglu(form, expert_rows.spread(rows, sort), gate_up, down, sort.sizes[:num_local], tile)
    return expert_rows.unsort(y, sort)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def in_rounds(
    run: Callable[..., jax.Array], routes: Routes, rounds: jax.Array, operands: Operands
) -> jax.Array:
    """The sum of `run(operands, routes, number)` over so many rounds, one at least."""
    return _more(run, routes, rounds, operands, run(operands, routes, jnp.int32(0)))


def _more(
    run: Callable[..., jax.Array], routes: Routes, rounds: jax.Array, operands: Operands, y: jax.Array
) -> jax.Array:
    with jax.named_scope(FURTHER):
        return jax.lax.fori_loop(1, rounds, lambda number, y: y + run(operands, routes, number), y)


def _forward(
    run: Callable[..., jax.Array], routes: Routes, rounds: jax.Array, operands: Operands
) -> tuple[jax.Array, Any]:
    # What the backward pass needs of the first round is kept, as it is of any layer.
    y, pull = jax.vjp(lambda operands: run(operands, routes, jnp.int32(0)), operands)
    return _more(run, routes, rounds, operands, y), (pull, routes, rounds, operands)


def _backward(run: Callable[..., jax.Array], kept: Any, cotangent: jax.Array) -> tuple[None, None, Operands]:
    pull, routes, rounds, operands = kept

    def add(number: jax.Array, total: Operands) -> Operands:
        again = jax.vjp(lambda operands: run(operands, routes, number), operands)[1]
        return jax.tree.map(jnp.add, total, again(cotangent)[0])

    first = pull(cotangent)[0]
    with jax.named_scope(FURTHER):
        return None, None, jax.lax.fori_loop(1, rounds, add, first)


in_rounds.defvjp(_forward, _backward)


def _exchange(x: jax.Array, split: Split) -> jax.Array:
    """Parts [S * C, ...], one for each device, become those that each has for this one."""
    if not split.exchange:
        return x
    return jax.lax.all_to_all(x, split.exchange, split_axis=0, concat_axis=0, tiled=True)


def _size(axes: tuple[str, ...]) -> int:
    return math.prod(jax.lax.axis_size(axis) for axis in axes)


def _index(axes: tuple[str, ...]) -> jax.Array | int:
    return jax.lax.axis_index(axes) if axes else 0
