"""The architectures of the published Qwen2.5-VL models, for work that needs no weights.

A checkpoint's own config.json is what counts wherever there is one.
"""

from dig_jax.models.architecture import QWEN_TOKENS, TextConfig
from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig, VisionConfig

# Width, MLP width, layers, query and key/value heads, vocabulary, tied head; MLP width of the tower.
_SIZES: dict[str, tuple[int, int, int, int, int, int, bool, int]] = {
    "3B": (2048, 11008, 36, 16, 2, 151936, True, 3420),
    "7B": (3584, 18944, 28, 28, 4, 152064, False, 3420),
    "32B": (5120, 27648, 64, 40, 8, 152064, False, 3456),
    "72B": (8192, 29568, 80, 64, 8, 152064, False, 3456),
}
SIZES = tuple(_SIZES)


def architecture(size: str) -> Qwen2_5VLConfig:
    """The architecture of Qwen2.5-VL-`size`.

    Raises:
      ValueError: there is no published model of that size.
    """
    if size not in _SIZES:
        raise ValueError(f"no published Qwen2.5-VL architecture is called {size!r}: give {', '.join(_SIZES)}")
    width, inner, layers, heads, kv_heads, vocab, tied, vision_inner = _SIZES[size]
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
        mrope_section=(16, 24, 24),
        max_position_embeddings=128000,
        initializer_range=0.02,
    )
    vision = VisionConfig(
        depth=32,
        hidden_size=1280,
        intermediate_size=vision_inner,
        num_heads=16,
        in_channels=3,
        patch_size=14,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=width,
        initializer_range=0.02,
        window_size=112,
        fullatt_block_indexes=(7, 15, 23, 31),
        tokens_per_second=2,
    )
    return Qwen2_5VLConfig(
        text=text,
        vision=vision,
        tie_word_embeddings=tied,
        **QWEN_TOKENS,
    )
