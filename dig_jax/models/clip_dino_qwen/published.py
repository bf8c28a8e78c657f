"""The architectures of the paper's models, for work that needs no weights.

The paper (arXiv 2411.09691, 4.1 and 7.3) names the parts; their sizes are those of the published checkpoints.
Qwen2.5's tokenizer has words for images and objects that its text never uses: an image stands between
`<|vision_start|>` and `<|vision_end|>`, an object between `<|object_ref_start|>` and `<|object_ref_end|>`.
"""

from dig_jax.models.architecture import QWEN_TOKENS, TextConfig
from dig_jax.models.clip_dino_qwen.config import (
    ClipDinoQwenConfig,
    DinoConfig,
    VisionConfig,
    one_dimensional,
)

# Width, MLP width, layers, query and key/value heads, vocabulary, tied head.
_SIZES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
}
SIZES = tuple(_SIZES)

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
    if size not in _SIZES:
        raise ValueError(f"no TinyGroundingGPT architecture is called {size!r}: give {', '.join(_SIZES)}")
    width, inner, layers, heads, kv_heads, vocab, tied = _SIZES[size]
    text = TextConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        mrope_section=one_dimensional(128),
        max_position_embeddings=32768,
        initializer_range=0.02,
    )
    vision = VisionConfig(
        depth=23,
        hidden_size=1024,
        intermediate_size=4096,
        num_heads=16,
        in_channels=3,
        patch_size=14,
        temporal_patch_size=1,
        spatial_merge_size=1,
        out_hidden_size=width,
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
