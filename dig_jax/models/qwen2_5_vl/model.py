"""Qwen2.5-VL as a model of the house: its tower, its attention, its rotary axes."""

from typing import Any

from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.models.nn.text_attention import BiasedAttention
from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig
from dig_jax.models.qwen2_5_vl.text import rotary_axes
from dig_jax.models.qwen2_5_vl.vision import VisionTower


class Qwen2_5VL(VisionLanguageModel):
    """A Qwen2.5-VL model; keywords as those of `VisionLanguageModel`."""

    config: Qwen2_5VLConfig
    vision: VisionTower

    def __init__(self, config: Qwen2_5VLConfig, **options: Any) -> None:
        super().__init__(config, VisionTower, BiasedAttention, rotary_axes, **options)
