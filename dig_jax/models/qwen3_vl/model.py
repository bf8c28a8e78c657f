"""Qwen3-VL as a model of the house: its tower, its attention, its rotary axes."""

from typing import Any

from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.text import TextAttention, rotary_axes
from dig_jax.models.qwen3_vl.vision import VisionTower


class Qwen3VL(VisionLanguageModel):
    """A dense Qwen3-VL model; keywords as those of `VisionLanguageModel`."""

    config: Qwen3VLConfig
    vision: VisionTower

    def __init__(self, config: Qwen3VLConfig, **options: Any) -> None:
        super().__init__(config, VisionTower, TextAttention, rotary_axes, **options)
