"""How the parameters of a model lie in a checkpoint: from a family's table of weights to the layout of each.

A checkpoint holds one tensor per layer, with kernels as [outputs, inputs]; the model stacks the layers and
keeps kernels as [inputs, outputs], with the heads as a dimension of their own.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from flax import nnx


class Weight(NamedTuple):
    """How one parameter is called in the model and in a checkpoint.

    path: in the model. name: in the checkpoint; "{}" stands for the number of the layer.
    inputs: leading dimensions of a kernel that are inputs; 0 if it is no kernel and is not transposed.
    sides: of the checkpoint's kernel where that is a convolution: channels, frames, height, width.
    matrices: a matrix for each expert, as in the model or, `flipped`, with inputs and outputs exchanged.
    """

    path: str
    name: str
    inputs: int = 0
    sides: tuple[int, ...] = ()
    matrices: bool = False
    flipped: bool = False


def linear(path: str, name: str, inputs: int = 1, *, sides: tuple[int, ...] = ()) -> tuple[Weight, ...]:
    """A linear layer with bias."""
    return Weight(f"{path}.kernel", f"{name}.weight", inputs, sides), Weight(f"{path}.bias", f"{name}.bias")


def norm(path: str, name: str) -> tuple[Weight, ...]:
    """A layer norm."""
    return Weight(f"{path}.scale", f"{name}.weight"), Weight(f"{path}.bias", f"{name}.bias")


def swiglu(path: str, name: str) -> tuple[Weight, ...]:
    """The MLP of a decoder's layers (`nn.decoder.TextMLP`)."""
    return tuple(
        Weight(f"{path}.{part}_proj.kernel", f"{name}.{part}_proj.weight", 1)
        for part in ("gate", "up", "down")
    )


def decoder(name: str, *, mlp: bool = True) -> tuple[Weight, ...]:
    """What all decoders have (`nn.decoder.TextDecoder`), under `name` in the checkpoint; without biases.

    Those with experts have no `mlp`.
    """
    layer = f"{name}.layers.{{}}"
    return (
        Weight("text.embedding", f"{name}.embed_tokens.weight"),
        Weight("text.norm.scale", f"{name}.norm.weight"),
        Weight("text.layers.input_norm.scale", f"{layer}.input_layernorm.weight"),
        Weight("text.layers.post_norm.scale", f"{layer}.post_attention_layernorm.weight"),
        Weight("text.layers.attn.q_proj.kernel", f"{layer}.self_attn.q_proj.weight", 1),
        Weight("text.layers.attn.k_proj.kernel", f"{layer}.self_attn.k_proj.weight", 1),
        Weight("text.layers.attn.v_proj.kernel", f"{layer}.self_attn.v_proj.weight", 1),
        Weight("text.layers.attn.o_proj.kernel", f"{layer}.self_attn.o_proj.weight", 2),
        *(swiglu("text.layers.mlp", f"{layer}.mlp") if mlp else ()),
    )


class Layout(NamedTuple):
    """A parameter on both sides.

    Attributes:
      names: in the checkpoint, one per layer if the parameter is stacked.
      stacked: it has a leading dimension for the layers.
      shape: in the model, of one layer.
      file_shape: of each tensor of the checkpoint.
      inputs, matrices, flipped: see `Weight`.
    """

    names: tuple[str, ...]
    stacked: bool
    shape: tuple[int, ...]
    file_shape: tuple[int, ...]
    inputs: int
    matrices: bool = False
    flipped: bool = False

    @property
    def file_order(self) -> tuple[int, ...]:
        """`shape` in the order of the file, outputs before inputs; a reshape of `file_shape`."""
        return self.shape[self.inputs :] + self.shape[: self.inputs]

    def from_file(self, rows: np.ndarray) -> np.ndarray:
        """Whole rows of a tensor in the model's order: [*inputs, rows, *the other outputs]."""
        if self.flipped:  # a row is the matrix of an expert
            return np.stack([transposed(row) for row in rows.reshape(-1, *self.file_shape[1:])])
        inputs, outputs = self.shape[: self.inputs], self.shape[self.inputs :]
        if inputs:
            rows = transposed(rows.reshape(-1, math.prod(inputs)))
        return rows.reshape(*inputs, -1, *outputs[1:])

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """The tensor of the checkpoint from one layer of the parameter, [*shape]."""
        if self.flipped:
            return np.stack([transposed(matrix) for matrix in array])
        if self.inputs:
            array = transposed(array.reshape(math.prod(self.shape[: self.inputs]), -1))
        return array.reshape(self.file_shape)

    def with_experts(self, *, flipped: bool) -> "Layout":
        """The same where a file has the matrices of experts that way; other parameters as they are."""
        if not self.matrices:
            return self
        experts, inputs, outputs = self.shape
        file_shape = (experts, outputs, inputs) if flipped else self.shape
        return self._replace(file_shape=file_shape, flipped=flipped)


def transposed(matrix: np.ndarray) -> np.ndarray:
    """A transposed copy, made in strips of 64 rows.

    Widths are powers of two, so that the elements of a column compete for the same few places of the
    processor's cache. Each strip is copied first with its rows a cache line further apart: up to nine times
    as fast.
    """
    bits = matrix.view(f"u{matrix.itemsize}")  # NumPy moves integers much faster than bfloat16
    rows, columns = bits.shape
    copy = np.empty((columns, rows), bits.dtype)
    strip = np.empty((64, columns + 64 // bits.itemsize), bits.dtype)[:, :columns]
    for start in range(0, rows, 64):
        part = bits[start : start + 64]
        strip[: len(part)] = part
        copy[:, start : start + len(part)] = strip[: len(part)].T
    return copy.view(matrix.dtype)


def layouts(params: nnx.State, weights: Iterable[Weight]) -> dict[tuple[Any, ...], Layout]:
    """The layout of every parameter of a model, by its path in `params` (arrays or shapes)."""
    table = {weight.path: weight for weight in weights}
    return {
        path: _layout(table[".".join(map(str, path))], variable.shape)
        for path, variable in nnx.to_flat_state(params)
    }


def _layout(weight: Weight, shape: tuple[int, ...]) -> Layout:
    stacked = "{}" in weight.name
    names = tuple(weight.name.format(i) for i in range(shape[0])) if stacked else (weight.name,)
    shape = shape[1:] if stacked else shape
    outputs, file_shape = math.prod(shape[weight.inputs :]), shape
    if weight.sides:
        file_shape = (outputs, *weight.sides)
    elif weight.inputs:
        file_shape = (outputs, math.prod(shape[: weight.inputs]))
    elif weight.path.endswith(".bias"):
        file_shape = (outputs,)
    layout = Layout(names, stacked, shape, file_shape, weight.inputs, weight.matrices)
    return layout.with_experts(flipped=weight.flipped)
