"""How the parameters of Qwen3-VL are called in a checkpoint. `weights` is the whole mapping."""

from dig_jax.models.hf.layout import Weight, decoder, linear, norm, swiglu
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig

_LAYER = "model.language_model.layers.{}"
_BLOCK = "model.visual.blocks.{}"
_DEEPSTACK = "model.visual.deepstack_merger_list.{}"


def weights(config: Qwen3VLConfig) -> tuple[Weight, ...]:
    """The table of a model's weights."""
    return (*all_but_mlps(config), *swiglu("text.layers.mlp", f"{_LAYER}.mlp"))


def all_but_mlps(config: Qwen3VLConfig) -> tuple[Weight, ...]:
    """The same without the MLPs of the decoder."""
    vision = config.vision
    patch = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    return (
        Weight("head", "lm_head.weight"),
        *decoder("model.language_model", mlp=False),
        Weight("text.layers.attn.q_norm.scale", f"{_LAYER}.self_attn.q_norm.weight"),
        Weight("text.layers.attn.k_norm.scale", f"{_LAYER}.self_attn.k_norm.weight"),
        Weight("vision.pos_embed", "model.visual.pos_embed.weight"),
        *linear("vision.patch_embed", "model.visual.patch_embed.proj", sides=patch),
        *norm("vision.blocks.norm1", f"{_BLOCK}.norm1"),
        *linear("vision.blocks.attn.qkv", f"{_BLOCK}.attn.qkv"),
        *linear("vision.blocks.attn.proj", f"{_BLOCK}.attn.proj", 2),
        *norm("vision.blocks.norm2", f"{_BLOCK}.norm2"),
        *linear("vision.blocks.mlp.fc1", f"{_BLOCK}.mlp.linear_fc1"),
        *linear("vision.blocks.mlp.fc2", f"{_BLOCK}.mlp.linear_fc2"),
        *norm("vision.merger.norm", "model.visual.merger.norm"),
        *linear("vision.merger.fc1", "model.visual.merger.linear_fc1"),
        *linear("vision.merger.fc2", "model.visual.merger.linear_fc2"),
        *norm("vision.deepstack_mergers.norm", f"{_DEEPSTACK}.norm"),
        *linear("vision.deepstack_mergers.fc1", f"{_DEEPSTACK}.linear_fc1"),
        *linear("vision.deepstack_mergers.fc2", f"{_DEEPSTACK}.linear_fc2"),
    )
