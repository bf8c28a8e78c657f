"""TinyGroundingGPT models for the parity tests, random and small, and the model of transformers for them."""

import dataclasses
from typing import Any

import numpy as np

from dig_jax.models.clip_dino_qwen.config import ClipDinoQwenConfig, DinoConfig, one_dimensional
from dig_jax.models.clip_dino_qwen.published import architecture
from tests.models.clip_dino_qwen.reference import make_reference

__all__ = ["CONFIGS", "MORE_CONFIGS", "make_reference", "small_config", "tiny_config"]


def small_config(
    *,
    text_layers: int = 3,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    depth: int = 2,
    vision_width: int = 48,
    vision_heads: int = 4,
    side: int = 4,
    object_side: int = 2,
    tied: bool = False,
    **dino: Any,
) -> ClipDinoQwenConfig:
    """A model whose dimensions differ, so that a mix-up shows.

    The last seven words of the vocabulary stand for images and objects; tests draw text below 300.
    """
    other = DinoConfig(
        depth=3,
        hidden_size=40,
        intermediate_size=80,
        num_heads=5,
        positions_per_side=7,
        final_norm=False,
        interpolate_offset=0.0,
    )
    return architecture("7B").resized(
        text={
            "vocab_size": 320,
            "hidden_size": width,
            "intermediate_size": width + 48,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": width // heads,
            "mrope_section": one_dimensional(width // heads),
            "initializer_range": 0.5 * width**-0.5,
        },
        vision={
            "depth": depth,
            "hidden_size": vision_width,
            "intermediate_size": vision_width + 36,
            "num_heads": vision_heads,
            "patch_size": 8,
            "image_size": 8 * side,
            "object_side": object_side,
            "initializer_range": 1.4 * vision_width**-0.5,
            "dino": dataclasses.replace(other, **dino),
        },
        tied=tied,
    )


CONFIGS = {"two towers": small_config()}
MORE_CONFIGS = {
    "last layer of DINOv2, tied": small_config(
        text_layers=2, heads=2, kv_heads=1, depth=1, tied=True, final_norm=True, positions_per_side=4
    ),
    "objects like images": small_config(side=3, object_side=1, positions_per_side=5, depth=3),
    "an object is one token": small_config(side=3, object_side=3, positions_per_side=6, width=96, heads=6),
}


def tiny_config(tokenizer: Any, *, tied: bool = False) -> ClipDinoQwenConfig:
    """For a whole folder (`make_tiny_model`), with the ids of its tokenizer."""
    config = small_config(tied=tied)
    words = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "object_start_token_id": "<|object_ref_start|>",
        "object_pad_token_id": "<|vision_pad|>",
        "object_end_token_id": "<|object_ref_end|>",
    }
    rows = int(np.ceil(len(tokenizer) / 64)) * 64
    return dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, vocab_size=rows, max_position_embeddings=4096),
        **{name: tokenizer.convert_tokens_to_ids(word) for name, word in words.items()},
    )
