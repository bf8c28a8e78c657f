"""Grouped products by JAX's megablox kernels for TPUs. Shape letters as in `grouped`.

`jax.lax.ragged_dot` computes the gradient of the kernels on a TPU as if every row belonged to every expert;
`tgmm` multiplies what there is.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

from dig_jax.models.nn.grouped import Kernel, OfStack

ONE_LAYER_OF = "one_layer_of_"  # scope of a kernel that is given all layers and reads one
LANES = 128
LEAST_ROWS = 16  # of a bfloat16 register
MOST_ROWS = 512
WIDEST = 2048  # summed columns of a block: all that there are in the published models' experts, or a half
BLOCK = (
    2048 * 512
)  # entries of a block of a kernel: two of them, of rows and results take 8 of the 16 MiB of VMEM


@dataclasses.dataclass(frozen=True)
class MegabloxGrouped:
    """A `grouped.Grouped`. Rows need no padding between experts: a block that two share is masked.

    Attributes:
      interpret: emulate the kernels: for tests where there is no TPU.
    """

    name: ClassVar[str] = "megablox"
    reads_stacks: ClassVar[bool] = True
    interpret: bool = False

    @staticmethod
    def obstacle(device: jax.Device, dtype: jnp.dtype) -> str | None:
        """What keeps it from running there, as the end of a sentence, or None."""
        if device.platform != "tpu":
            return f"needs a TPU, but the model runs on {device.platform} devices"
        if dtype != jnp.bfloat16:
            return f"needs model.dtype=bfloat16, not {jnp.dtype(dtype).name}"
        return None

    def tile_of(self, num_choices: int, num_experts: int) -> int:
        return 1

    def block_of(self, num_choices: int) -> int:
        return _row_block(num_choices, 1)

    def product(self, rows: jax.Array, kernel: Kernel, sizes: jax.Array, tile: int) -> jax.Array:
        if not isinstance(kernel, OfStack):
            return self._rows(rows, kernel, sizes, kernel.shape[2], transposed=False)
        layers, experts, inner, width = kernel.stack.shape
        # Experts of the layer follow those of all layers before it: the first group is so many before 0.
        with jax.named_scope(f"{ONE_LAYER_OF}{layers}"):
            return gmm(
                rows,
                kernel.stack.reshape(layers * experts, inner, width),
                sizes,
                rows.dtype,
                _tiling(rows.shape[0], experts, inner, width),
                group_offset=-experts * kernel.layer,
                interpret=self.interpret,
            )

    def transposed(self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        return self._rows(rows, kernel, sizes, kernel.shape[1], transposed=True)

    def _rows(
        self, rows: jax.Array, kernel: jax.Array, sizes: jax.Array, width: int, *, transposed: bool
    ) -> jax.Array:
        tiling = _tiling(rows.shape[0], sizes.shape[0], rows.shape[1], width)
        return gmm(
            rows, kernel, sizes, rows.dtype, tiling, transpose_rhs=transposed, interpret=self.interpret
        )

    def outer(self, rows: jax.Array, others: jax.Array, sizes: jax.Array, tile: int) -> jax.Array:
        tiling = _tiling(rows.shape[0], sizes.shape[0], rows.shape[1], others.shape[1])
        return tgmm(rows.swapaxes(0, 1), others, sizes, rows.dtype, tiling, interpret=self.interpret)


def _tiling(num_rows: int, num_experts: int, inner: int, width: int) -> tuple[int, int, int]:
    """Rows, columns of the rows and columns of the others of a block.

    A block of rows that several experts share is computed once for each of them, about one more per expert
    than the rows fill: so it is a quarter of what an expert has on average. Kernels keep their block while
    the rows of an expert pass, where all columns of the rows are in one block.
    """
    inner = min(inner, WIDEST)
    return _row_block(num_rows, 4 * num_experts), inner, min(width, BLOCK // inner // LANES * LANES)


def _row_block(num_rows: int, share: int) -> int:
    """The smallest power of two above a `share`-th of the rows, within bounds."""
    block = LEAST_ROWS
    while block < MOST_ROWS and block * share < num_rows:
        block *= 2
    return block
