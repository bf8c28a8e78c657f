"""The experts of a layer: every token through the K of its choice.

Shape letters: N tokens, D width, E experts, K experts per token, I inner width of an expert.
"""

import dataclasses
import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax.core import spmd
from jax.sharding import PartitionSpec

from dig_jax.models.nn.expert_parallel import Split, split_mlp
from dig_jax.models.nn.expert_rows import grouped_mlp
from dig_jax.models.nn.grouped import Grouped, Kernel, OfStack
from dig_jax.models.nn.layers import precision_for


@dataclasses.dataclass(frozen=True)
class Experts:
    """How experts are computed.

    Attributes:
      form: of the products of rows that lie together by expert; None: every expert takes every token.
      room: of a buffer where experts are split over devices, as a multiple of an even share (`Split.room`).
    """

    form: Grouped | None
    room: float = 1.5

    @property
    def reads_stacks(self) -> bool:
        """Whether kernels may be given as `OfStack`, in the dtype that is computed in."""
        return self.form is not None and self.form.reads_stacks


PLAIN = Experts(None)


def experts_mlp(
    x: jax.Array,
    ids: jax.Array,
    weights: jax.Array,
    gate_up: Kernel,
    down: Kernel,
    how: Experts = PLAIN,
) -> jax.Array:
    """The sum of what its experts make of each token, weighted; no choice is ever left out.

    Args:
      x: [N,D], in the dtype that is computed in.
      ids: int32 [N,K].
      weights: float32 [N,K].
      gate_up: [E,D,2I]; the first half of 2I is the gate. It and `down` may be of a stack (`reads_stacks`).
      down: [E,I,D].
      how: which of the forms, that all agree.

    Returns:
      [N,D] in the dtype of x. The sum over experts is float32.
    """
    if not isinstance(gate_up, OfStack) and not isinstance(down, OfStack):
        if how.form is None:
            return _every_expert(x, ids, weights, gate_up, down)
        gate_up, down = gate_up.astype(x.dtype), down.astype(x.dtype)
    assert how.form is not None  # `reads_stacks`
    return _grouped(how.form, how.room, x, ids, weights, gate_up, down)


def _every_expert(
    x: jax.Array, ids: jax.Array, weights: jax.Array, gate_up: jax.Array, down: jax.Array
) -> jax.Array:
    """All tokens through all experts, one expert after another: E / K times the work, and plainly right."""

    def add(total: jax.Array, expert: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        number, gate_up, down = expert
        weight = jnp.sum(jnp.where(ids == number, weights, 0.0), axis=-1)  # [N]
        gate, up = jnp.split(_product(x, gate_up), 2, axis=-1)
        y = _product(jax.nn.silu(gate) * up, down)
        return total + weight[:, None] * y.astype(jnp.float32), None

    numbers = jnp.arange(gate_up.shape[0])
    total, _ = jax.lax.scan(add, jnp.zeros(x.shape, jnp.float32), (numbers, gate_up, down))
    return total.astype(x.dtype)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel.astype(x.dtype), precision=precision_for(x))


def _grouped(
    form: Grouped,
    room: float,
    x: jax.Array,
    ids: jax.Array,
    weights: jax.Array,
    gate_up: Kernel,
    down: Kernel,
) -> jax.Array:
    """Each device's tokens, under the rules in force (`layers.constrain`), by its experts or by others'."""
    rules: Any = dict(spmd.get_logical_axis_rules())
    mesh = jax.sharding.get_abstract_mesh()
    if not rules or mesh.size == 1:
        return grouped_mlp(form, x, ids, weights, gate_up, down)
    # Tokens that do not divide, of a short batch, are whole on all devices.
    whole = x.shape[0] % _parts(mesh, rules["activation_batch"])
    of_tokens = () if whole else _split(mesh, rules["activation_batch"])
    of_experts = _split(mesh, rules["experts"])
    exchange = tuple(axis for axis in of_experts if axis in of_tokens)
    shared = tuple(axis for axis in of_experts if axis not in of_tokens)
    run = functools.partial(grouped_mlp, form)
    if of_experts:
        run = functools.partial(split_mlp, form, Split(exchange, shared, tuple(mesh.axis_names), room))
    tokens, split = PartitionSpec(of_tokens or None), (exchange + shared) or None
    experts: Any = PartitionSpec(split)
    if isinstance(gate_up, OfStack):
        experts = OfStack(*cast(Any, (PartitionSpec(None, split), PartitionSpec())))
    return jax.shard_map(
        run,
        in_specs=(tokens, tokens, tokens, experts, experts),
        out_specs=tokens,
        check_vma=False,
    )(x, ids, weights, gate_up, down)


def _split(mesh: jax.sharding.AbstractMesh, axes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(axis for axis in axes if mesh.shape[axis] > 1)


def _parts(mesh: jax.sharding.AbstractMesh, axes: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)
