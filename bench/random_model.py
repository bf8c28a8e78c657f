"""Model folders of real sizes with random weights, written one tensor at a time."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from etils import epath
from flax import nnx

from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.published import architecture
from dig_jax.models.qwen3_vl.weights import layouts
from dig_jax.models.safetensors_io import DTYPES, Spec, write_checkpoint

_DRAWN = 1 << 22  # numbers at a time


def config_of(size: str) -> Qwen3VLConfig:
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


def abstract_model(config: Qwen3VLConfig) -> Qwen3VL:
    """A model with shapes for parameters."""
    return nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)))


def param_shapes(config: Qwen3VLConfig) -> nnx.State:
    """The parameters of a model as shapes."""
    return nnx.state(abstract_model(config), nnx.Param)


def checkpoint_specs(config: Qwen3VLConfig, dtype: np.dtype) -> list[Spec]:
    """The tensors of a checkpoint."""
    plan = layouts(param_shapes(config), config)
    return [Spec(name, dtype, layout.file_shape) for layout in plan.values() for name in layout.names]


def write_random_model(
    folder: Path, config: Qwen3VLConfig, *, dtype: str = "BF16", max_shard_bytes: int = 10**9
) -> list[Spec]:
    """Writes config.json and safetensors; the process holds one tensor at a time. Returns the tensors."""
    folder.mkdir(parents=True)
    specs = checkpoint_specs(config, DTYPES[dtype])
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2))
    write_checkpoint(epath.Path(folder), specs, _random_arrays(specs), max_shard_bytes)
    return specs


def _random_arrays(specs: list[Spec]) -> Iterator[np.ndarray]:
    """Uniform numbers between -0.05 and 0.05, drawn a few million at a time."""
    rng = np.random.default_rng(0)
    for spec in specs:
        array = np.empty(math.prod(spec.shape), spec.dtype)
        for start in range(0, array.size, _DRAWN):
            part = array[start : start + _DRAWN]
            part[:] = rng.random(part.size, np.float32) * 0.1 - 0.05
        yield array.reshape(spec.shape)
