"""Qwen3-VL with experts as a model of the house: all but the MLPs of its decoder is Qwen3-VL's."""

from typing import Any

from dig_jax.models.nn.experts import PLAIN, Experts
from dig_jax.models.nn.moe import MoELayer
from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.models.qwen3_vl.text import TextAttention, rotary_axes
from dig_jax.models.qwen3_vl.vision import VisionTower
from dig_jax.models.qwen3_vl_moe.config import Qwen3VLMoeConfig


class Qwen3VLMoe(VisionLanguageModel):
    """A Qwen3-VL model with experts; keywords of `VisionLanguageModel`, and how experts are computed."""

    config: Qwen3VLMoeConfig
    vision: VisionTower

    def __init__(self, config: Qwen3VLMoeConfig, *, experts: Experts = PLAIN, **options: Any) -> None:
        super().__init__(config, VisionTower, TextAttention, rotary_axes, MoELayer, **options)
        self.text.layers.mlp.how = experts
