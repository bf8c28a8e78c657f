"""Grouped products by Pallas kernels for NVIDIA GPUs, through Triton. Shape letters as in `grouped`.

A program of the grid makes one block of a result. Which expert's kernel a tile of rows needs is read from
memory, and tiles that are not in use are left at once.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from dig_jax.models.nn.grouped import expert_of_tiles, tile_for

LEAST_COMPUTE = 8.0  # Ampere: bfloat16 in the matrix units
DEPTH = 64  # of a block's step along the summed dimension, in bfloat16


@dataclasses.dataclass(frozen=True)
class TritonGrouped:
    """A `grouped.Grouped`.

    Attributes:
      interpret: emulate the kernels: for tests where there is no GPU.
    """

    name: ClassVar[str] = "triton"
    reads_stacks: ClassVar[bool] = False
    interpret: bool = False
    largest: int = 128
    width: int = 128
    depth: int = DEPTH
    warps: int = 8
    stages: int = 3

    @staticmethod
    def obstacle(device: jax.Device, dtype: jnp.dtype) -> str | None:
        """What keeps it from running there, as the end of a sentence, or None."""
        if device.platform not in ("gpu", "cuda"):
            return f"needs an NVIDIA GPU, but the model runs on {device.platform} devices"
        if float(getattr(device, "compute_capability", "0")) < LEAST_COMPUTE:
            return "needs an NVIDIA GPU of compute capability 8.0 or more"
        if dtype != jnp.bfloat16:
            return f"needs model.dtype=bfloat16, not {jnp.dtype(dtype).name}"
        return None

    def tile_of(self, num_choices: int, num_experts: int) -> int:
        return tile_for(num_choices, num_experts, 16, self.largest)

    def block_of(self, num_choices: int) -> int:
        return 1

    def product(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        return self._rows(rows, kernel, sizes, tile, transposed=False)

    def transposed(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        return self._rows(rows, kernel, sizes, tile, transposed=True)

    def _rows(
        self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int, *, transposed: bool
    ) -> jax.Array:
        num_tiles = rows.shape[0] // tile
        expert, used = expert_of_tiles(sizes, tile, num_tiles)
        expert = jnp.where(jnp.arange(num_tiles) < used, expert, -1)
        width = kernel.shape[1] if transposed else kernel.shape[2]
        block, depth = _fits(width, self.width), _fits(rows.shape[1], self.depth)
        body = functools.partial(_rows_kernel, tile=tile, block=block, depth=depth, transposed=transposed)
        return pl.pallas_call(
            body,
            grid=(width // block, num_tiles),
            in_specs=[pl.no_block_spec] * 3,
            out_specs=pl.BlockSpec((tile, block), lambda column, row: (row, column)),
            out_shape=jax.ShapeDtypeStruct((rows.shape[0], width), rows.dtype),
            compiler_params=plgpu.CompilerParams(
                num_warps=self.warps if tile > 32 else 4, num_stages=self.stages
            ),
            interpret=self.interpret,
            name="experts_rows",
        )(expert, rows, kernel)

    def outer(self, rows: jax.Array, others: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        ends = jnp.cumsum(sizes).astype(jnp.int32)
        block, width = _fits(rows.shape[1], 128), _fits(others.shape[1], 128)
        shape = (sizes.shape[0], rows.shape[1], others.shape[1])
        return pl.pallas_call(
            functools.partial(_outer_kernel, step=min(tile, self.depth), block=block, width=width),
            grid=(shape[1] // block, shape[2] // width, shape[0]),
            in_specs=[pl.no_block_spec] * 4,
            out_specs=pl.BlockSpec((None, block, width), lambda row, column, expert: (expert, row, column)),
            out_shape=jax.ShapeDtypeStruct(shape, rows.dtype),
            compiler_params=plgpu.CompilerParams(num_warps=8, num_stages=self.stages),
            interpret=self.interpret,
            name="experts_outer",
        )(ends - sizes, ends, rows, others)


def _fits(size: int, most: int) -> int:
    """The largest power of two up to `most` that divides `size`."""
    while size % most:
        most //= 2
    return most


def _rows_kernel(
    expert_ref: Any,
    rows_ref: Any,
    kernel_ref: Any,
    out_ref: Any,
    *,
    tile: int,
    block: int,
    depth: int,
    transposed: bool,
) -> None:
    column, row = pl.program_id(0), pl.program_id(1)
    expert = expert_ref[row]

    @pl.when(expert >= 0)
    def _() -> None:
        mine, columns = pl.ds(row * tile, tile), pl.ds(column * block, block)

        def step(number: jax.Array, total: jax.Array) -> jax.Array:
            along = pl.ds(number * depth, depth)
            x = rows_ref[mine, along]
            if transposed:
                return total + _dot(x, kernel_ref[expert, columns, along], 1, 1)
            return total + _dot(x, kernel_ref[expert, along, columns], 1, 0)

        zeros = jnp.zeros((tile, block), jnp.float32)
        total = jax.lax.fori_loop(0, rows_ref.shape[1] // depth, step, zeros)
        out_ref[...] = total.astype(out_ref.dtype)


def _outer_kernel(
    starts_ref: Any,
    ends_ref: Any,
    rows_ref: Any,
    others_ref: Any,
    out_ref: Any,
    *,
    step: int,
    block: int,
    width: int,
) -> None:
    expert = pl.program_id(2)
    mine, columns = pl.ds(pl.program_id(0) * block, block), pl.ds(pl.program_id(1) * width, width)
    start = starts_ref[expert]

    def add(number: jax.Array, total: jax.Array) -> jax.Array:
        tokens = pl.ds(start + number * step, step)
        return total + _dot(rows_ref[tokens, mine], others_ref[tokens, columns], 0, 0)

    zeros = jnp.zeros((block, width), jnp.float32)
    total = jax.lax.fori_loop(0, (ends_ref[expert] - start) // step, add, zeros)
    out_ref[...] = total.astype(out_ref.dtype)


def _dot(x: jax.Array, y: jax.Array, of_x: int, of_y: int) -> jax.Array:
    """Product of two blocks, summed in float32 over these dimensions."""
    return jax.lax.dot_general(x, y, (((of_x,), (of_y,)), ((), ())), preferred_element_type=jnp.float32)
