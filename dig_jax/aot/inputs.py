"""Arguments of a run's programs as shapes with shardings: what a compiler needs, and nothing to hold.

Shape letters: B prompts, G completions per prompt, R response tokens, P prompt tokens, N patches.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dig_jax.data.buckets import Bucket
from dig_jax.machines import parallel
from dig_jax.models.architecture import Architecture
from dig_jax.models.inputs import Prompts
from dig_jax.update.policy import Experience


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a prompt and its completions look like.

    Attributes:
        bucket: what prompts are padded to.
        images: per prompt.
        group: G.
        response: R, the longest completion, which training pads to.
    """

    bucket: Bucket
    images: int
    group: int
    response: int


def pair_bucket(architecture: Architecture, height: int, width: int, text_tokens: int) -> Bucket:
    """What the prompts of pairs of images are padded to.

    Args:
        architecture: of the model.
        height: of each image, in pixels.
        width: of each image, in pixels.
        text_tokens: of the prompt, without the images and the two markers around each.

    Raises:
        ValueError: the sides are not multiples of a merged patch, or not those that all images get.
    """
    vision = architecture.vision
    fixed = vision.fixed_side
    if fixed and (height, width) != (fixed, fixed):
        raise ValueError(
            f"an image of {height}x{width} pixels: this model sees every image at {fixed}x{fixed}"
            f" (--image_size={fixed}x{fixed})"
        )
    side = vision.patch_size * vision.spatial_merge_size
    if height % side or width % side or min(height, width) < side:
        raise ValueError(f"an image of {height}x{width} pixels: the sides must be multiples of {side}")
    patches = (height // vision.patch_size) * (width // vision.patch_size)
    return Bucket(text_tokens + 2 * (patches // vision.merge_unit + 2), 2 * patches).rounded()


def prompts(architecture: Architecture, bucket: Bucket, batch: int, mesh: Mesh) -> Prompts:
    """B prompts of the bucket's size, split over the data axes."""
    length, patches = bucket.prompt_length, bucket.num_patches

    def rows(dtype: Any, *shape: int) -> Any:  # stands in for an array
        return batch_array(mesh, dtype, batch, *shape)

    return Prompts(
        tokens=rows(jnp.int32, length),
        length=rows(jnp.int32),
        positions=rows(jnp.int32, 3, length),
        next_position=rows(jnp.int32),
        patches=rows(jnp.float32, patches, architecture.vision.patch_dim),
        patch_image=rows(jnp.int32, patches),
        patch_coords=rows(jnp.int32, patches, 2),
        patch_grid=rows(jnp.int32, patches, 2),
    )


def experience(
    prompts: Prompts, group: int, length: int, mesh: Mesh, *, reference: bool, old: bool
) -> Experience:
    """Experience [B,G,R] of `prompts`, with the reference's and the old policy's log-probs where wanted."""
    batch = prompts.tokens.shape[0]
    values = batch_array(mesh, jnp.float32, batch, group, length)
    return Experience(
        prompts=prompts,
        tokens=batch_array(mesh, jnp.int32, batch, group, length),
        mask=values,
        behaviour_logprobs=values,
        advantages=batch_array(mesh, jnp.float32, batch, group),
        ref_logprobs=values if reference else None,
        old_logprobs=values if old else None,
    )


def keys(batch: int, group: int, mesh: Mesh) -> Any:
    """Typed PRNG keys [B,G]."""
    dtype = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return batch_array(mesh, dtype, batch, group)


def batch_array(mesh: Mesh, dtype: Any, *shape: int) -> Any:
    """An array [B, ...], split over the data axes."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=parallel.batch_sharding(mesh))
