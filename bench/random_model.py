"""Model folders of real sizes with random weights, written one tensor at a time."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from etils import epath
from flax import nnx

from dig_jax.models.architecture import Architecture
from dig_jax.models.families import abstract_model, layouts
from dig_jax.models.hf.safetensors_io import DTYPES, Spec, write_checkpoint
from dig_jax.models.qwen3_vl.published import architecture

Draw = Callable[[Sequence[Spec]], Iterator[np.ndarray]]  # makes the tensors of a checkpoint, one by one

_DRAWN = 1 << 22  # numbers at a time


def config_of(size: str) -> Architecture:
    """The configuration of a published size, or of "215M": the 2B model with everything smaller."""
    if size != "215M":
        return architecture(size)
    return architecture("2B").resized(
        text={
            "vocab_size": 65_536,
            "hidden_size": 768,
            "intermediate_size": 2304,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
        },
        vision={
            "depth": 12,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_heads": 8,
            "deepstack_visual_indexes": (2, 5, 8),
        },
    )


def param_shapes(config: Architecture) -> nnx.State:
    """The parameters of a model as shapes."""
    return nnx.state(abstract_model(config), nnx.Param)


def _checkpoint_specs(config: Architecture) -> list[Spec]:
    """The tensors of a checkpoint in bfloat16."""
    plan = layouts(param_shapes(config), config)
    return [
        Spec(name, DTYPES["BF16"], layout.file_shape) for layout in plan.values() for name in layout.names
    ]


def uniform(specs: Sequence[Spec]) -> Iterator[np.ndarray]:
    """Numbers between -0.05 and 0.05, drawn a few million at a time."""
    rng = np.random.default_rng(0)
    for spec in specs:
        array = np.empty(math.prod(spec.shape), spec.dtype)
        for start in range(0, array.size, _DRAWN):
            part = array[start : start + _DRAWN]
            part[:] = rng.random(part.size, np.float32) * 0.1 - 0.05
        yield array.reshape(spec.shape)


def scaled(specs: Sequence[Spec]) -> Iterator[np.ndarray]:
    """Kernels scaled by their inputs, so that activations keep their size; norms near 1, biases near 0."""
    rng = np.random.default_rng(0)
    for spec in specs:
        noise = rng.standard_normal(spec.shape, np.float32)
        if len(spec.shape) > 1:
            noise *= math.prod(spec.shape[1:]) ** -0.5
        else:
            noise = 0.1 * noise + spec.name.endswith(".weight")
        yield noise.astype(spec.dtype)


def write_random_model(
    folder: Path, config: Architecture, draw: Draw = uniform, max_shard_bytes: int = 10**9
) -> list[Spec]:
    """Writes config.json and bfloat16 safetensors, one tensor in memory at a time. Returns the tensors."""
    folder.mkdir(parents=True)
    specs = _checkpoint_specs(config)
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2))
    write_checkpoint(epath.Path(folder), specs, draw(specs), max_shard_bytes)
    return specs
