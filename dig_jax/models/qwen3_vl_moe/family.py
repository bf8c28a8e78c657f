"""Qwen3-VL with experts: 30B-A3B and 235B-A22B, Instruct and Thinking."""

import dataclasses

from dig_jax.models.qwen3_vl.family import FAMILY as DENSE
from dig_jax.models.qwen3_vl_moe import published
from dig_jax.models.qwen3_vl_moe.config import Qwen3VLMoeConfig
from dig_jax.models.qwen3_vl_moe.model import Qwen3VLMoe
from dig_jax.models.qwen3_vl_moe.weights import weights

FAMILY = dataclasses.replace(
    DENSE,  # tower, processor, boxes and sampling
    model_type="qwen3_vl_moe",
    title="Qwen3-VL-MoE",
    series_title="Qwen3-VL",
    config=Qwen3VLMoeConfig,
    model=Qwen3VLMoe,
    weights=weights,
    sizes=published.SIZES,
    published=published.architecture,
)
