"""TinyGroundingGPT: CLIP ViT-L/14-336 and DINOv2-L/14 with Qwen2.5 1.5B, 3B and 7B."""

import dataclasses

from dig_jax.models import architecture
from dig_jax.models.api import Family
from dig_jax.models.clip_dino_qwen import published
from dig_jax.models.clip_dino_qwen.assembly import PARTS, assemble
from dig_jax.models.clip_dino_qwen.config import ClipDinoQwenConfig, DinoConfig, VisionConfig
from dig_jax.models.clip_dino_qwen.model import ClipDinoQwen
from dig_jax.models.clip_dino_qwen.vision import CLIP_MEAN, CLIP_STD
from dig_jax.models.clip_dino_qwen.weights import weights


def vision_products(vision: VisionConfig, patches: int, images: int) -> float:
    """See `Family.vision_products`: whole images alone, of which each patch is a token."""
    each = vision.side**2 + 1  # with the class token
    products = 0.0
    for width, inner, depth in (
        (vision.hidden_size, vision.intermediate_size, vision.depth),
        (vision.dino.hidden_size, vision.dino.intermediate_size, vision.dino.depth),
    ):
        token = 4 * width * width + 2 * width * inner + 2 * width * each
        products += patches * vision.patch_dim * width + images * each * depth * token
    joined, out = vision.hidden_size + vision.dino.hidden_size, vision.out_hidden_size
    return products + patches * (joined + out) * out


def small_tower(tower: architecture.VisionConfig, image_size: int) -> VisionConfig:
    """See `Family.small_tower`. The other tower has the same sizes; an object's token has 2 by 2 patches."""
    like = dataclasses.asdict(tower) | {"temporal_patch_size": 1, "spatial_merge_size": 1}
    return VisionConfig(
        **like,
        image_size=image_size,
        object_side=2,
        dino=DinoConfig(
            depth=tower.depth,
            hidden_size=tower.hidden_size,
            intermediate_size=tower.intermediate_size,
            num_heads=tower.num_heads,
            positions_per_side=image_size // tower.patch_size,
            final_norm=False,
            interpolate_offset=0.0,
        ),
    )


FAMILY = Family(
    model_type="clip_dino_qwen",
    title="TinyGroundingGPT",
    config=ClipDinoQwenConfig,
    model=ClipDinoQwen,
    weights=weights,
    sizes=published.SIZES,
    published=published.architecture,
    vision_products=vision_products,
    processor="LlavaProcessor",
    box_convention="unit",
    # Those of Qwen2.5's generation_config.json, which a folder has.
    sampling={"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    thinking_sampling={"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    # The mean gives the colour of the square; both towers normalise for themselves.
    pixel_mean=CLIP_MEAN,
    pixel_std=CLIP_STD,
    small_tower=small_tower,
    object_marks={
        "object_start": "<|object_ref_start|>",
        "object_pad": "<|vision_pad|>",
        "object_end": "<|object_ref_end|>",
    },
    parts=PARTS,
    assemble=assemble,
)
