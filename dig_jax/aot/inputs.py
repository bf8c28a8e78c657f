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
from dig_jax.models.architecture import Architecture, MoETextConfig, TextConfig
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.routing import id_dtype
from dig_jax.rollout.routing import KeptRouting
from dig_jax.update.policy import Experience
from dig_jax.update.sft import Supervised


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a prompt and its completions look like.

    Attributes:
        bucket: what prompts are padded to.
        images: per prompt, objects among them.
        group: G; 1 in supervised training.
        response: R, the longest completion or answer, which training pads to.
        earlier: tokens of earlier answers that supervised training learns of a conversation.
    """

    bucket: Bucket
    images: int
    group: int
    response: int
    earlier: int = 0


def pair_bucket(architecture: Architecture, height: int, width: int, text_tokens: int) -> Bucket:
    """What the prompts of pairs of images are padded to: see `prompt_bucket`."""
    return prompt_bucket(architecture, (height, width), text_tokens, images=2)


def prompt_bucket(
    architecture: Architecture, size: tuple[int, int], text_tokens: int, *, images: int, objects: int = 0
) -> Bucket:
    """What prompts of images of one size are padded to.

    Args:
        architecture: of the model.
        size: (height, width) of each image, in pixels.
        text_tokens: of the prompt, without the images and the two markers around each.
        images: shown whole.
        objects: shown as objects.

    Raises:
        ValueError: the sides are not multiples of a merged patch, or not those that all images get; or the
            model takes no objects.
    """
    height, width = size
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
    tokens = images * (patches // vision.merge_unit + 2)
    if objects:
        if architecture.object_token_id is None:
            raise ValueError(f"--objects={objects}: this model takes whole images alone")
        tokens += objects * (patches // architecture.placeholders[architecture.object_token_id] ** 2 + 2)
    return Bucket(text_tokens + tokens, (images + objects) * patches).rounded()


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
    prompts: Prompts,
    group: int,
    length: int,
    mesh: Mesh,
    *,
    reference: bool,
    old: bool,
    blind: bool = False,
    teacher: bool = False,
    experts: TextConfig | None = None,
) -> Experience:
    """Experience [B,G,R] of `prompts`, with the reference's, the old policy's and blind log-probs where
    wanted, and with prompts of a teacher, which are of the same size.

    With `experts`, of the decoder that they are in, the experts that its tokens go to as well.
    """
    batch = prompts.tokens.shape[0]
    values = batch_array(mesh, jnp.float32, batch, group, length)
    routing = None
    if isinstance(experts, MoETextConfig):
        of_token, dtype = (
            (experts.num_hidden_layers, experts.num_experts_per_tok),
            id_dtype(experts.num_experts),
        )
        routing = KeptRouting(
            batch_array(mesh, dtype, batch, prompts.tokens.shape[1], *of_token),
            batch_array(mesh, dtype, batch, group, length, *of_token),
        )
    return Experience(
        prompts=prompts,
        tokens=batch_array(mesh, jnp.int32, batch, group, length),
        mask=values,
        behaviour_logprobs=values,
        advantages=batch_array(mesh, jnp.float32, batch, group),
        ref_logprobs=values if reference else None,
        old_logprobs=values if old else None,
        blind_logprobs=values if blind else None,
        routing=routing,
        teacher=prompts if teacher else None,
    )


def supervised(prompts: Prompts, length: int, earlier: int, mesh: Mesh, *, parts: bool) -> Supervised:
    """Examples [B,R] of `prompts`, with so many tokens of earlier answers, and of the parts of a mixture."""
    batch, prompt_length = prompts.tokens.shape

    def rows(dtype: Any, *shape: int) -> Any:
        return batch_array(mesh, dtype, batch, *shape)

    return Supervised(
        prompts=prompts,
        tokens=rows(jnp.int32, length),
        mask=rows(jnp.float32, length),
        cell_mask=rows(jnp.float32, prompt_length),
        cell_targets=rows(jnp.float32, prompt_length),
        part=rows(jnp.int32) if parts else None,
        earlier=rows(jnp.int32, earlier) if earlier else None,
        earlier_mask=rows(jnp.float32, earlier) if earlier else None,
    )


def keys(batch: int, group: int, mesh: Mesh) -> Any:
    """Typed PRNG keys [B,G]."""
    dtype = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return batch_array(mesh, dtype, batch, group)


def batch_array(mesh: Mesh, dtype: Any, *shape: int) -> Any:
    """An array [B, ...], split over the data axes."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=parallel.batch_sharding(mesh))
