"""The architectures of the published Qwen2.5-VL models, for work that needs no weights.

A checkpoint's own config.json is what counts wherever there is one.
"""

from dig_jax.models.architecture import QWEN_TOKENS
from dig_jax.models.qwen2_5_decoders import decoder
from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig, VisionConfig

# MLP width of the tower.
_SIZES: dict[str, int] = {"3B": 3420, "7B": 3420, "32B": 3456, "72B": 3456}
SIZES = tuple(_SIZES)


def architecture(size: str) -> Qwen2_5VLConfig:
    """The architecture of Qwen2.5-VL-`size`.

    Raises:
      ValueError: there is no published model of that size.
    """
    if size not in _SIZES:
        raise ValueError(f"no published Qwen2.5-VL architecture is called {size!r}: give {', '.join(_SIZES)}")
    text, tied = decoder(size, mrope_section=(16, 24, 24), max_position_embeddings=128000)
    vision = VisionConfig(
        depth=32,
        hidden_size=1280,
        intermediate_size=_SIZES[size],
        num_heads=16,
        in_channels=3,
        patch_size=14,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=text.hidden_size,
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
