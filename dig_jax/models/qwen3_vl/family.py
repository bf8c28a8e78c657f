"""Qwen3-VL, dense: 2B, 4B, 8B and 32B, Instruct and Thinking."""

import dataclasses

from dig_jax.models import architecture
from dig_jax.models.api import Family
from dig_jax.models.qwen3_vl import published
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.weights import weights


def vision_products(vision: VisionConfig, patches: int, images: int) -> float:
    """See `Family.vision_products`."""
    width, joined = vision.hidden_size, vision.hidden_size * vision.merge_unit
    block = 4 * width * width + 2 * width * vision.intermediate_size
    merger = joined * joined + joined * vision.out_hidden_size
    products: float = patches * (vision.patch_dim * width + vision.depth * block)
    products += patches / vision.merge_unit * (1 + len(vision.deepstack_visual_indexes)) * merger
    return products + vision.depth * 2 * width * patches * (patches / images)


def small_tower(
    tower: architecture.VisionConfig, image_size: int, *, deepstack: tuple[int, ...] = (0,)
) -> VisionConfig:
    """See `Family.small_tower`."""
    return VisionConfig(
        **dataclasses.asdict(tower),
        num_position_embeddings=(image_size // tower.patch_size) ** 2,
        deepstack_visual_indexes=deepstack,
    )


FAMILY = Family(
    model_type="qwen3_vl",
    title="Qwen3-VL",
    config=Qwen3VLConfig,
    model=Qwen3VL,
    weights=weights,
    sizes=published.SIZES,
    published=published.architecture,
    vision_products=vision_products,
    processor="Qwen3VLProcessor",
    box_convention="thousandths",
    # Those that the Qwen3-VL README gives for its evaluations. Its presence penalty (1.5 for Instruct models)
    # is not implemented.
    sampling={"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    thinking_sampling={"temperature": 0.6, "top_p": 0.95, "top_k": 20},
    pixel_mean=(0.5, 0.5, 0.5),
    pixel_std=(0.5, 0.5, 0.5),
    small_tower=small_tower,
)
