"""Model folders of real sizes with random weights, written one tensor at a time."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from etils import epath
from flax import nnx

from dig_jax.models.qwen3_vl.config import Qwen3VLConfig, TextConfig, VisionConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.weights import layouts
from dig_jax.models.safetensors_io import DTYPES, Spec, write_checkpoint

# Decoder: vocabulary, hidden, intermediate, layers, heads, tied. Vision: hidden, intermediate, depth, heads,
# taps. 2B and 4B are the released models; 190M has their proportions.
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, int, int, int, tuple[int, ...]]]] = {
    "190M": ((32_768, 768, 2304, 12, 8, 1), (512, 2048, 12, 8, (2, 5, 8))),
    "2B": ((151_936, 2048, 6144, 28, 16, 1), (1024, 4096, 24, 16, (5, 11, 17))),
    "4B": ((151_936, 2560, 9728, 36, 32, 1), (1024, 4096, 24, 16, (5, 11, 17))),
}

_DRAWN = 1 << 22


def config_of(size: str) -> Qwen3VLConfig:
    """The configuration of a size in `SIZES`."""
    (vocabulary, hidden, intermediate, layers, heads, tied), vision = SIZES[size]
    text = TextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_theta=5e6,
        mrope_section=(24, 20, 20),
        max_position_embeddings=262_144,
        initializer_range=0.02,
    )
    tower = VisionConfig(
        depth=vision[2],
        hidden_size=vision[0],
        intermediate_size=vision[1],
        num_heads=vision[3],
        in_channels=3,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=hidden,
        num_position_embeddings=2304,
        deepstack_visual_indexes=vision[4],
        initializer_range=0.02,
    )
    return Qwen3VLConfig(
        text=text,
        vision=tower,
        tie_word_embeddings=bool(tied),
        image_token_id=vocabulary - 1,  # any four will do
        video_token_id=vocabulary - 2,
        vision_start_token_id=vocabulary - 3,
        vision_end_token_id=vocabulary - 4,
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
