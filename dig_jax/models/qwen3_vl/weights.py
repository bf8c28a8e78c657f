"""How the parameters of the model lie in a checkpoint. `WEIGHTS` is the whole mapping.

A checkpoint holds one tensor per layer, with kernels as [outputs, inputs]; the model stacks the layers and
keeps kernels as [inputs, outputs], with the heads as a dimension of their own.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from dig_jax.models.qwen3_vl.config import Qwen3VLConfig


class Weight(NamedTuple):
    """How one parameter is called in the model and in a checkpoint.

    path: in the model. name: in the checkpoint; "{}" stands for the number of the layer.
    inputs: leading dimensions of a kernel that are inputs; 0 if it is no kernel and is not transposed.
    """

    path: str
    name: str
    inputs: int = 0


def _linear(path: str, name: str, inputs: int = 1) -> tuple[Weight, ...]:
    """A linear layer with bias."""
    return Weight(f"{path}.kernel", f"{name}.weight", inputs), Weight(f"{path}.bias", f"{name}.bias")


def _norm(path: str, name: str) -> tuple[Weight, ...]:
    """A layer norm."""
    return Weight(f"{path}.scale", f"{name}.weight"), Weight(f"{path}.bias", f"{name}.bias")


_LAYER = "model.language_model.layers.{}"
_BLOCK = "model.visual.blocks.{}"
_DEEPSTACK = "model.visual.deepstack_merger_list.{}"

WEIGHTS: tuple[Weight, ...] = (
    Weight("head", "lm_head.weight"),
    Weight("text.embedding", "model.language_model.embed_tokens.weight"),
    Weight("text.norm.scale", "model.language_model.norm.weight"),
    Weight("text.layers.input_norm.scale", f"{_LAYER}.input_layernorm.weight"),
    Weight("text.layers.post_norm.scale", f"{_LAYER}.post_attention_layernorm.weight"),
    Weight("text.layers.attn.q_proj.kernel", f"{_LAYER}.self_attn.q_proj.weight", 1),
    Weight("text.layers.attn.k_proj.kernel", f"{_LAYER}.self_attn.k_proj.weight", 1),
    Weight("text.layers.attn.v_proj.kernel", f"{_LAYER}.self_attn.v_proj.weight", 1),
    Weight("text.layers.attn.o_proj.kernel", f"{_LAYER}.self_attn.o_proj.weight", 2),
    Weight("text.layers.attn.q_norm.scale", f"{_LAYER}.self_attn.q_norm.weight"),
    Weight("text.layers.attn.k_norm.scale", f"{_LAYER}.self_attn.k_norm.weight"),
    Weight("text.layers.mlp.gate_proj.kernel", f"{_LAYER}.mlp.gate_proj.weight", 1),
    Weight("text.layers.mlp.up_proj.kernel", f"{_LAYER}.mlp.up_proj.weight", 1),
    Weight("text.layers.mlp.down_proj.kernel", f"{_LAYER}.mlp.down_proj.weight", 1),
    Weight("vision.pos_embed", "model.visual.pos_embed.weight"),
    *_linear("vision.patch_embed", "model.visual.patch_embed.proj"),
    *_norm("vision.blocks.norm1", f"{_BLOCK}.norm1"),
    *_linear("vision.blocks.attn.qkv", f"{_BLOCK}.attn.qkv"),
    *_linear("vision.blocks.attn.proj", f"{_BLOCK}.attn.proj", 2),
    *_norm("vision.blocks.norm2", f"{_BLOCK}.norm2"),
    *_linear("vision.blocks.mlp.fc1", f"{_BLOCK}.mlp.linear_fc1"),
    *_linear("vision.blocks.mlp.fc2", f"{_BLOCK}.mlp.linear_fc2"),
    *_norm("vision.merger.norm", "model.visual.merger.norm"),
    *_linear("vision.merger.fc1", "model.visual.merger.linear_fc1"),
    *_linear("vision.merger.fc2", "model.visual.merger.linear_fc2"),
    *_norm("vision.deepstack_mergers.norm", f"{_DEEPSTACK}.norm"),
    *_linear("vision.deepstack_mergers.fc1", f"{_DEEPSTACK}.linear_fc1"),
    *_linear("vision.deepstack_mergers.fc2", f"{_DEEPSTACK}.linear_fc2"),
)


class Layout(NamedTuple):
    """A parameter on both sides.

    Attributes:
      names: in the checkpoint, one per layer if the parameter is stacked.
      stacked: it has a leading dimension for the layers.
      shape: in the model, of one layer.
      file_shape: of each tensor of the checkpoint.
      inputs: see `Weight`.
    """

    names: tuple[str, ...]
    stacked: bool
    shape: tuple[int, ...]
    file_shape: tuple[int, ...]
    inputs: int

    @property
    def file_order(self) -> tuple[int, ...]:
        """`shape` in the order of the file, outputs before inputs; a reshape of `file_shape`."""
        return self.shape[self.inputs :] + self.shape[: self.inputs]

    def from_file(self, rows: np.ndarray) -> np.ndarray:
        """Whole rows of a tensor in the model's order: [*inputs, rows, *the other outputs]."""
        inputs, outputs = self.shape[: self.inputs], self.shape[self.inputs :]
        if inputs:
            rows = transposed(rows.reshape(-1, math.prod(inputs)))
        return rows.reshape(*inputs, -1, *outputs[1:])

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """The tensor of the checkpoint from one layer of the parameter, [*shape]."""
        if self.inputs:
            array = transposed(array.reshape(math.prod(self.shape[: self.inputs]), -1))
        return array.reshape(self.file_shape)


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


def layouts(params: nnx.State, config: Qwen3VLConfig) -> dict[tuple[Any, ...], Layout]:
    """The layout of every parameter of a model, by its path in `params` (arrays or shapes)."""
    weights = {weight.path: weight for weight in WEIGHTS}
    return {
        path: _layout(weights[".".join(map(str, path))], variable.shape, config)
        for path, variable in nnx.to_flat_state(params)
    }


def _layout(weight: Weight, shape: tuple[int, ...], config: Qwen3VLConfig) -> Layout:
    stacked = "{}" in weight.name
    names = tuple(weight.name.format(i) for i in range(shape[0])) if stacked else (weight.name,)
    shape = shape[1:] if stacked else shape
    vision = config.vision
    file_shape: tuple[int, ...]
    if weight.path == "vision.patch_embed.kernel":  # a 3-D convolution in the checkpoint
        sides = (vision.temporal_patch_size, vision.patch_size, vision.patch_size)
        file_shape = (vision.hidden_size, vision.in_channels, *sides)
    elif weight.inputs:
        file_shape = (math.prod(shape[weight.inputs :]), math.prod(shape[: weight.inputs]))
    else:
        file_shape = (math.prod(shape),) if weight.path.endswith(".bias") else shape
    return Layout(names, stacked, shape, file_shape, weight.inputs)
