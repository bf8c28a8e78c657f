"""The architectures of the paper's models, for work that needs no weights.

The paper (arXiv 2411.09691, 4.1 and 7.3) names the parts; their sizes are those of the published checkpoints.
Qwen2.5's tokenizer has words for images and objects that its text never uses: an image stands between
`<|vision_start|>` and `<|vision_end|>`, an object between `<|object_ref_start|>` and `<|object_ref_end|>`.
"""

from dig_jax.models.architecture import QWEN_TOKENS
from dig_jax.models.clip_dino_qwen.config import (
    ClipDinoQwenConfig,
    DinoConfig,
    VisionConfig,
    one_dimensional,
)
from dig_jax.models.qwen2_5_decoders import decoder

SIZES = ("1.5B", "3B", "7B")

OBJECT_TOKENS = {
    "object_start_token_id": 151646,
    "object_pad_token_id": 151654,
    "object_end_token_id": 151647,
}


def architecture(size: str) -> ClipDinoQwenConfig:
    """The architecture of TinyGroundingGPT-`size`: 576 tokens for an image, 144 for an object.

    Raises:
      ValueError: there is none of that size.
    """
    if size not in SIZES:
        raise ValueError(f"no TinyGroundingGPT architecture is called {size!r}: give {', '.join(SIZES)}")
    text, tied = decoder(size, mrope_section=one_dimensional(128), max_position_embeddings=32768)
    vision = VisionConfig(
        depth=23,
        hidden_size=1024,
        intermediate_size=4096,
        num_heads=16,
        in_channels=3,
        patch_size=14,
        temporal_patch_size=1,
        spatial_merge_size=1,
        out_hidden_size=text.hidden_size,
        initializer_range=0.02,
        image_size=336,
        object_side=2,
        dino=DinoConfig(
            depth=23,
            hidden_size=1024,
            intermediate_size=4096,
            num_heads=16,
            positions_per_side=37,
            final_norm=False,
            interpolate_offset=0.0,
        ),
    )
    return ClipDinoQwenConfig(
        text=text, vision=vision, tie_word_embeddings=tied, **QWEN_TOKENS, **OBJECT_TOKENS
    )
