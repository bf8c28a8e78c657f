"""Qwen3-VL models for the parity tests, random and small."""

from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.published import architecture


def small_config(
    *,
    text_layers: int = 4,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    mrope_section: tuple[int, int, int] = (6, 5, 5),
    depth: int = 6,
    vision_width: int = 48,
    vision_heads: int = 4,
    taps: tuple[int, ...] = (1, 2, 4),
    positions: int = 36,
    patch_size: int = 8,
    tied: bool = False,
) -> Qwen3VLConfig:
    """A model of half a million parameters whose dimensions differ, so that a mix-up shows.

    The last four words of the vocabulary stand for images; tests draw text below 300.
    """
    return architecture("2B").resized(
        text={
            "vocab_size": 320,
            "hidden_size": width,
            "intermediate_size": width + 48,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "mrope_section": mrope_section,
            "initializer_range": 0.5 * width**-0.5,
        },
        vision={
            "depth": depth,
            "hidden_size": vision_width,
            "intermediate_size": vision_width + 32,
            "num_heads": vision_heads,
            "patch_size": patch_size,
            "num_position_embeddings": positions,
            "deepstack_visual_indexes": taps,
            "initializer_range": vision_width**-0.5,
        },
        tied=tied,
    )


# Few and many layers and taps, text and vision of different depths, tied and not, several ratios of query to
# key heads, tables of positions larger and smaller than the images, patches of three sizes.
CONFIGS = {
    "three taps": small_config(),
    "one tap, tied": small_config(
        text_layers=2,
        width=80,
        heads=6,
        kv_heads=1,
        head_dim=16,
        mrope_section=(4, 2, 2),
        depth=3,
        vision_width=40,
        vision_heads=5,
        taps=(2,),
        positions=49,
        patch_size=16,
        tied=True,
    ),
}
MORE_CONFIGS = {
    "five taps": small_config(
        text_layers=7,
        width=56,
        heads=3,
        kv_heads=3,
        head_dim=24,
        mrope_section=(4, 4, 4),
        depth=5,
        vision_width=32,
        vision_heads=2,
        taps=(0, 1, 2, 3, 4),
        positions=16,
        patch_size=4,
    ),
    "no taps": small_config(text_layers=3, depth=4, taps=(), kv_heads=4, tied=True),
    "one layer and one block": small_config(text_layers=1, depth=1, taps=(0,), heads=8, kv_heads=2),
    "as many taps as layers": small_config(text_layers=4, depth=9, taps=(0, 3, 4, 8), positions=121),
    "wide heads": small_config(heads=2, kv_heads=1, head_dim=128, mrope_section=(24, 20, 20), vision_heads=1),
}

# 143 million parameters, with the depths, heads and taps of the 2B model.
MID_CONFIG = architecture("2B").resized(
    text={
        "vocab_size": 8192,
        "hidden_size": 512,
        "intermediate_size": 1280,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "initializer_range": 0.5 * 512**-0.5,
    },
    vision={
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_heads": 8,
        "initializer_range": 384**-0.5,
    },
)
