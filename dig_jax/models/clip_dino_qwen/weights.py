"""How the parameters of TinyGroundingGPT are called in a checkpoint. `weights` is the whole mapping.

The parts keep the names that they have on the hub, those of the towers after `clip.` and `dino.`; the
decoder's are those of a Qwen2 model.
"""

from dig_jax.models.clip_dino_qwen.config import ClipDinoQwenConfig
from dig_jax.models.hf.layout import Weight, decoder, linear, norm

_LAYER = "model.layers.{}"
_CLIP = "clip.encoder.layers.{}"
_DINO = "dino.encoder.layer.{}"


def weights(config: ClipDinoQwenConfig) -> tuple[Weight, ...]:
    """The table of a model's weights."""
    vision = config.vision
    patch = (vision.in_channels, vision.patch_size, vision.patch_size)
    return (
        Weight("head", "lm_head.weight"),
        *decoder("model"),
        *(Weight(f"text.layers.attn.{x}_proj.bias", f"{_LAYER}.self_attn.{x}_proj.bias") for x in "qkv"),
        Weight("vision.clip.patch_embed.kernel", "clip.embeddings.patch_embedding.weight", 1, patch),
        Weight("vision.clip.class_embed", "clip.embeddings.class_embedding"),
        Weight("vision.clip.pos_embed", "clip.embeddings.position_embedding.weight"),
        *norm("vision.clip.pre_norm", "clip.pre_layrnorm"),
        *norm("vision.clip.blocks.norm1", f"{_CLIP}.layer_norm1"),
        *(
            w
            for x in "qkv"
            for w in linear(f"vision.clip.blocks.attn.{x}_proj", f"{_CLIP}.self_attn.{x}_proj")
        ),
        *linear("vision.clip.blocks.attn.out_proj", f"{_CLIP}.self_attn.out_proj", 2),
        *norm("vision.clip.blocks.norm2", f"{_CLIP}.layer_norm2"),
        *linear("vision.clip.blocks.mlp.fc1", f"{_CLIP}.mlp.fc1"),
        *linear("vision.clip.blocks.mlp.fc2", f"{_CLIP}.mlp.fc2"),
        *linear("vision.dino.patch_embed", "dino.embeddings.patch_embeddings.projection", sides=patch),
        Weight("vision.dino.class_embed", "dino.embeddings.cls_token"),
        Weight("vision.dino.pos_embed", "dino.embeddings.position_embeddings"),
        *norm("vision.dino.blocks.norm1", f"{_DINO}.norm1"),
        *linear("vision.dino.blocks.attn.q_proj", f"{_DINO}.attention.attention.query"),
        *linear("vision.dino.blocks.attn.k_proj", f"{_DINO}.attention.attention.key"),
        *linear("vision.dino.blocks.attn.v_proj", f"{_DINO}.attention.attention.value"),
        *linear("vision.dino.blocks.attn.out_proj", f"{_DINO}.attention.output.dense", 2),
        Weight("vision.dino.blocks.layer_scale1.scale", f"{_DINO}.layer_scale1.lambda1"),
        *norm("vision.dino.blocks.norm2", f"{_DINO}.norm2"),
        *linear("vision.dino.blocks.mlp.fc1", f"{_DINO}.mlp.fc1"),
        *linear("vision.dino.blocks.mlp.fc2", f"{_DINO}.mlp.fc2"),
        Weight("vision.dino.blocks.layer_scale2.scale", f"{_DINO}.layer_scale2.lambda1"),
        *norm("vision.dino.final_norm", "dino.layernorm"),
        *linear("vision.merger.fc1", "projector.fc1"),
        *linear("vision.merger.fc2", "projector.fc2"),
    )
