"""Qwen3-VL models with experts for the parity tests, random and small."""

import dataclasses

from transformers import Qwen2Tokenizer

from dig_jax.models.architecture import MoETextConfig
from dig_jax.models.qwen3_vl_moe.config import Qwen3VLMoeConfig
from dig_jax.models.qwen3_vl_moe.published import architecture
from tests.helpers.make_tiny_model import make_config
from tests.models.qwen3_vl import configs as dense


def small_config(
    *, experts: int = 8, per_token: int = 2, inner: int = 24, layers: int = 3, tied: bool = False
) -> Qwen3VLMoeConfig:
    """The small dense model with experts whose dimensions differ from all others."""
    like = dense.small_config(text_layers=layers, depth=4, taps=(1, 2))
    sizes = {"num_experts": experts, "num_experts_per_tok": per_token, "moe_intermediate_size": inner}
    return architecture("30B-A3B").resized(
        text=dataclasses.asdict(like.text) | sizes, vision=dataclasses.asdict(like.vision), tied=tied
    )


CONFIGS = {"experts": small_config()}
MORE_CONFIGS = {
    "three of five experts, tied": small_config(experts=5, per_token=3, inner=40, layers=2, tied=True),
    "every expert": small_config(experts=4, per_token=4, inner=16, layers=2),
    "one of many experts": small_config(experts=32, per_token=1, inner=8, layers=2),
}


def tiny_config(tokenizer: Qwen2Tokenizer, *, tied: bool = False) -> Qwen3VLMoeConfig:
    """That of `tests.helpers.make_tiny_model`, with experts."""
    dense_config = make_config(tokenizer, tied=tied)
    parts = {field.name: getattr(dense_config, field.name) for field in dataclasses.fields(dense_config)}
    sizes = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    return Qwen3VLMoeConfig(**parts | {"text": MoETextConfig(**dataclasses.asdict(parts["text"]) | sizes)})
