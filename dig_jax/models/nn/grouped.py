"""Products of rows with the kernel of the expert that each row belongs to: the forms for CPUs and any device.

Shape letters: M rows, E experts, D width in, F width out.

Rows lie together by expert, expert 0 first. The rows of an expert begin at a multiple of the form's `tile`,
and the gap up to there is filled with rows of zeros, which change no product and no gradient. How many rows
each expert has is data, never a shape: nothing is dropped and nothing compiles again.
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dig_jax.models.nn.layers import precision_for


class OfStack(NamedTuple):
    """The kernels of one layer's experts where they lie, among those of all layers.

    A Pallas kernel takes whole arrays. Before it is given those of one layer, XLA copies them out of the
    stack, which moves three times as much as reading them; the kernel itself can as well begin there.
    """

    stack: jax.Array  # [L,E,D,F]
    layer: jax.Array  # int32, which of L


Kernel = jax.Array | OfStack  # [E,D,F], where no more is said


def num_experts(kernel: Kernel) -> int:
    """E of a layer's kernels."""
    return kernel.stack.shape[1] if isinstance(kernel, OfStack) else kernel.shape[0]


class Grouped(Protocol):
    """The three products that a layer of experts and its gradient are made of.

    All take `sizes`, int32 [E], how many rows each expert has, multiples of `tile`. Rows past their sum are
    read by nobody, and what stands there in a result is undefined.
    """

    name: ClassVar[str]
    reads_stacks: ClassVar[bool]  # whether `product` takes an `OfStack`

    def tile_of(self, num_choices: int, num_experts: int) -> int:
        """What the rows of an expert are padded to, where so many choices fall on so many experts."""
        ...

    def block_of(self, num_choices: int) -> int:
        """What the number of rows M must be a multiple of."""
        ...

    def product(self, rows: jax.Array, kernel: Any, sizes: jax.Array, tile: int) -> jax.Array:
        """rows [M,D], kernel [E,D,F] to [M,F]."""
        ...

    def transposed(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        """rows [M,F], kernel [E,D,F] to [M,D]."""
        ...

    def outer(self, rows: jax.Array, others: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        """Of each expert the sum of rows [M,D] times others [M,F]: [E,D,F], zero where it has no rows."""
        ...


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def dot(form: Grouped, rows: jax.Array, kernel: Kernel, sizes: jax.Array, tile: int) -> jax.Array:
    """`form.product`, with the form's own products for its gradients; an `OfStack` has none."""
    return form.product(rows, kernel, sizes, tile)


def _dot_forward(
    form: Grouped, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return form.product(rows, kernel, sizes, tile), (rows, kernel, sizes)


def _dot_backward(
    form: Grouped, tile: int, kept: tuple[jax.Array, jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    rows, kernel, sizes = kept
    return (
        form.transposed(cotangent, kernel, sizes, tile),
        form.outer(rows, cotangent, sizes, tile),
        None,
    )


dot.defvjp(_dot_forward, _dot_backward)


@dataclasses.dataclass(frozen=True)
class LoopGrouped:
    """A loop over tiles of rows, each one product with one expert's kernel: any device, any dtype.

    The loop ends with the last tile that is in use, so that the work is that of the rows there are.
    """

    name: ClassVar[str] = "loop"
    reads_stacks: ClassVar[bool] = False
    largest: int = 64  # rows of a tile; more pay for themselves where experts have many rows each

    def tile_of(self, num_choices: int, num_experts: int) -> int:
        return tile_for(num_choices, num_experts, 8, self.largest)

    def block_of(self, num_choices: int) -> int:
        return 1

    def product(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        return self._rows(rows, kernel, sizes, tile, kernel.shape[2], (((1,), (0,)), ((), ())))

    def transposed(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        return self._rows(rows, kernel, sizes, tile, kernel.shape[1], (((1,), (1,)), ((), ())))

    def _rows(
        self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int, width: int, dims: Any
    ) -> jax.Array:
        expert, used = expert_of_tiles(sizes, tile, rows.shape[0] // tile)

        def step(number: jax.Array, out: jax.Array) -> jax.Array:
            part = jax.lax.dynamic_slice_in_dim(rows, number * tile, tile)
            own = jax.lax.dynamic_index_in_dim(kernel, expert[number], keepdims=False)
            made = _dot(part, own, dims).astype(rows.dtype)
            return jax.lax.dynamic_update_slice_in_dim(out, made, number * tile, axis=0)

        return jax.lax.fori_loop(0, used, step, jnp.zeros((rows.shape[0], width), rows.dtype))

    def outer(self, rows: jax.Array, others: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        expert, used = expert_of_tiles(sizes, tile, rows.shape[0] // tile)

        def step(number: jax.Array, out: jax.Array) -> jax.Array:
            x, y = (jax.lax.dynamic_slice_in_dim(a, number * tile, tile) for a in (rows, others))
            before = jax.lax.dynamic_index_in_dim(out, expert[number], keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(
                out, before + _dot(x, y, (((0,), (0,)), ((), ()))), expert[number], axis=0
            )

        zeros = jnp.zeros((sizes.shape[0], rows.shape[1], others.shape[1]), jnp.float32)
        return jax.lax.fori_loop(0, used, step, zeros).astype(rows.dtype)


@dataclasses.dataclass(frozen=True)
class RaggedGrouped:
    """`jax.lax.ragged_dot`, as XLA makes of it what it can on a device."""

    name: ClassVar[str] = "ragged"
    reads_stacks: ClassVar[bool] = False

    def tile_of(self, num_choices: int, num_experts: int) -> int:
        return 1

    def block_of(self, num_choices: int) -> int:
        return 1

    def product(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        return jax.lax.ragged_dot(rows, kernel, sizes, precision=precision_for(rows))

    def transposed(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        return jax.lax.ragged_dot(rows, kernel.swapaxes(1, 2), sizes, precision=precision_for(rows))

    def outer(self, rows: jax.Array, others: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        kernel = jnp.zeros((sizes.shape[0], rows.shape[1], others.shape[1]), rows.dtype)
        pull = jax.vjp(lambda kernel: self.product(rows, kernel, sizes, tile), kernel)[1]
        return pull(others)[0]


def tile_for(num_choices: int, num_experts: int, least: int, most: int) -> int:
    """A power of two near half of the rows that an expert has on average, within bounds."""
    tile = least
    while tile < most and tile * 2 * num_experts <= num_choices:
        tile *= 2
    return tile


def expert_of_tiles(sizes: jax.Array, tile: int, num_tiles: int) -> tuple[jax.Array, jax.Array]:
    """Whose rows each tile has, int32 [num_tiles] (any expert if none), and how many tiles are in use."""
    ends = jnp.cumsum(sizes) // tile
    expert = jnp.searchsorted(ends, jnp.arange(num_tiles, dtype=ends.dtype), side="right")
    return jnp.minimum(expert, sizes.shape[0] - 1).astype(jnp.int32), ends[-1]


def _dot(x: jax.Array, y: jax.Array, dims: Any) -> jax.Array:
    return jax.lax.dot_general(x, y, dims, precision=precision_for(x), preferred_element_type=jnp.float32)
