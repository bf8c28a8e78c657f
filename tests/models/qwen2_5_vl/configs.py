"""Qwen2.5-VL models for the parity tests, random and small.

The tower's weights are larger than elsewhere: with weak ones attention is flat, and windows that are cut
wrongly hardly show.
"""

from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig
from dig_jax.models.qwen2_5_vl.published import architecture


def small_config(
    *,
    text_layers: int = 3,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    mrope_section: tuple[int, int, int] = (2, 3, 3),
    depth: int = 4,
    vision_width: int = 48,
    vision_heads: int = 4,
    full: tuple[int, ...] = (1, 3),
    window_size: int = 32,
    patch_size: int = 8,
    tied: bool = False,
) -> Qwen2_5VLConfig:
    """A model whose dimensions differ, so that a mix-up shows; windows have 4 by 4 patches.

    The last four words of the vocabulary stand for images; tests draw text below 300.
    """
    return architecture("7B").resized(
        text={
            "vocab_size": 320,
            "hidden_size": width,
            "intermediate_size": width + 48,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": width // heads,
            "mrope_section": mrope_section,
            "initializer_range": 0.5 * width**-0.5,
        },
        vision={
            "depth": depth,
            "hidden_size": vision_width,
            "intermediate_size": vision_width + 36,
            "num_heads": vision_heads,
            "patch_size": patch_size,
            "window_size": window_size,
            "fullatt_block_indexes": full,
            "initializer_range": 1.4 * vision_width**-0.5,
        },
        tied=tied,
    )


CONFIGS = {"windows": small_config()}
MORE_CONFIGS = {
    "windows of one token, tied": small_config(
        text_layers=2,
        width=96,
        heads=6,
        kv_heads=1,
        depth=3,
        vision_width=40,
        vision_heads=5,
        full=(0,),
        window_size=32,
        patch_size=16,
        tied=True,
    ),
    "large windows": small_config(width=72, heads=3, kv_heads=3, mrope_section=(4, 4, 4), window_size=64),
}
