"""How the parameters of Qwen2.5-VL are called in a checkpoint. `weights` is the whole mapping.

Names are those of the hub, which transformers 5 writes, too. Its modules have others (`family.FAMILY`).
"""

from dig_jax.models.hf.layout import Weight, decoder, linear
from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig

_LAYER = "model.layers.{}"
_BLOCK = "visual.blocks.{}"


def weights(config: Qwen2_5VLConfig) -> tuple[Weight, ...]:
    """The table of a model's weights."""
    vision = config.vision
    patch = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    return (
        Weight("head", "lm_head.weight"),
        *decoder("model"),
        *(Weight(f"text.layers.attn.{x}_proj.bias", f"{_LAYER}.self_attn.{x}_proj.bias") for x in "qkv"),
        Weight("vision.patch_embed.kernel", "visual.patch_embed.proj.weight", 1, patch),
        Weight("vision.blocks.norm1.scale", f"{_BLOCK}.norm1.weight"),
        *linear("vision.blocks.attn.qkv", f"{_BLOCK}.attn.qkv"),
        *linear("vision.blocks.attn.proj", f"{_BLOCK}.attn.proj", 2),
        Weight("vision.blocks.norm2.scale", f"{_BLOCK}.norm2.weight"),
        *linear("vision.blocks.mlp.gate_proj", f"{_BLOCK}.mlp.gate_proj"),
        *linear("vision.blocks.mlp.up_proj", f"{_BLOCK}.mlp.up_proj"),
        *linear("vision.blocks.mlp.down_proj", f"{_BLOCK}.mlp.down_proj"),
        Weight("vision.merger.norm.scale", "visual.merger.ln_q.weight"),
        *linear("vision.merger.fc1", "visual.merger.mlp.0"),
        *linear("vision.merger.fc2", "visual.merger.mlp.2"),
    )
