"""Qwen2.5-VL: 3B, 7B, 32B and 72B, Instruct."""

import dataclasses

from dig_jax.models import architecture
from dig_jax.models.api import Family
from dig_jax.models.qwen2_5_vl import published
from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig, VisionConfig
from dig_jax.models.qwen2_5_vl.model import Qwen2_5VL
from dig_jax.models.qwen2_5_vl.weights import weights


def vision_products(vision: VisionConfig, patches: int, images: int) -> float:
    """See `Family.vision_products`."""
    width, joined = vision.hidden_size, vision.hidden_size * vision.merge_unit
    block = 4 * width * width + 3 * width * vision.intermediate_size
    merger = joined * joined + joined * vision.out_hidden_size
    products: float = patches * (vision.patch_dim * width + vision.depth * block)
    products += patches / vision.merge_unit * merger
    image = patches / images
    whole = len(vision.fullatt_block_indexes)
    seen = whole * image + (vision.depth - whole) * min(image, vision.window**2)  # by a patch, in all blocks
    return products + 2 * width * patches * seen


def small_tower(
    tower: architecture.VisionConfig, image_size: int, *, window_size: int | None = None
) -> VisionConfig:
    """See `Family.small_tower`. The last block attends to the whole image, as in the released ones."""
    return VisionConfig(
        **dataclasses.asdict(tower),
        window_size=window_size or image_size // 2,
        fullatt_block_indexes=(tower.depth - 1,),
        tokens_per_second=2,
    )


_GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}

FAMILY = Family(
    model_type="qwen2_5_vl",
    title="Qwen2.5-VL",
    config=Qwen2_5VLConfig,
    model=Qwen2_5VL,
    weights=weights,
    sizes=published.SIZES,
    published=published.architecture,
    vision_products=vision_products,
    processor="Qwen2_5_VLProcessor",
    # QwenLM/Qwen3-VL#721, #866, #1161: unlike the families before and after it.
    box_convention="pixels",
    # Its generation_config.json samples from the one most probable token (QwenLM/Qwen3-VL#722).
    sampling=_GREEDY,
    thinking_sampling=_GREEDY,
    pixel_mean=(0.48145466, 0.4578275, 0.40821073),  # CLIP's
    pixel_std=(0.26862954, 0.26130258, 0.27577711),
    small_tower=small_tower,
    system="You are a helpful assistant.",
    modules={"visual": "model.visual", "model": "model.language_model"},
)
