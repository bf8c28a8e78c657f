"""The Qwen3-VL vision tower: packed patches of several images to image-token features.

Shape letters: B prompts, N padded patches per prompt, M = N / merge_unit image tokens, D decoder width.

The images of a prompt lie packed in one row. Which image a patch belongs to and where it sits in it are
arrays, so images of any size and number run through one compiled program.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dig_jax.models.nn.attention import Attention
from dig_jax.models.nn.layers import (
    LayerNorm,
    Linear,
    Rotation,
    make_param,
    remat,
    stack_layers,
)
from dig_jax.models.nn.patches import NORM_EPS, VisionBlock, rope
from dig_jax.models.qwen3_vl.config import VisionConfig


class VisionMLP(nnx.Module):
    """Two biased layers with the tanh approximation of GELU between them."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.fc1 = Linear(
            (width,), (inner,), ("vision_embed", "vision_mlp"), std=std, bias=True, rngs=rngs, dtype=dtype
        )
        self.fc2 = Linear(
            (inner,), (width,), ("vision_mlp", "vision_embed"), std=std, bias=True, rngs=rngs, dtype=dtype
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=True))


class PatchMerger(nnx.Module):
    """Joins the patches of an image token and projects them to the decoder's width.

    The main merger normalises each patch, a DeepStack merger the joined vector (`norm_after_merge`).
    """

    def __init__(
        self, config: VisionConfig, *, norm_after_merge: bool, rngs: nnx.Rngs, dtype: jnp.dtype
    ) -> None:
        joined, std = config.hidden_size * config.merge_unit, config.initializer_range
        self.joined = joined
        self.norm_after_merge = norm_after_merge
        self.norm = LayerNorm(
            joined if norm_after_merge else config.hidden_size,
            "vision_embed",
            eps=NORM_EPS,
            dtype=dtype,
        )
        self.fc1 = Linear(
            (joined,), (joined,), ("vision_embed", "vision_mlp"), std=std, bias=True, rngs=rngs, dtype=dtype
        )
        self.fc2 = Linear(
            (joined,),
            (config.out_hidden_size,),
            ("vision_mlp", "embed"),
            std=std,
            bias=True,
            rngs=rngs,
            dtype=dtype,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,N,width] to [B,M,D]."""
        if not self.norm_after_merge:
            x = self.norm(x)
        x = x.reshape(x.shape[0], -1, self.joined)
        if self.norm_after_merge:
            x = self.norm(x)
        # Unlike the blocks, the mergers use the exact GELU.
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class VisionTower(nnx.Module):
    """Patch embedding, blocks, and the mergers to the decoder."""

    def __init__(
        self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype, remat: str, attention: Attention
    ) -> None:
        self.config = config
        self.attention = attention
        self.remat = remat
        std = config.initializer_range
        # The original is a 3-D convolution whose kernel equals its stride: a matrix product.
        self.patch_embed = Linear(
            (config.patch_dim,),
            (config.hidden_size,),
            (None, "vision_embed"),
            std=std,
            bias=True,
            rngs=rngs,
            dtype=dtype,
        )
        self.pos_embed = make_param(
            rngs,
            (config.num_position_embeddings, config.hidden_size),
            (None, "vision_embed"),
            std=std,
            dtype=dtype,
        )
        self.blocks = stack_layers(
            lambda r: VisionBlock(config, LayerNorm, VisionMLP, rngs=r, dtype=dtype), config.depth, rngs
        )
        self.merger = PatchMerger(config, norm_after_merge=False, rngs=rngs, dtype=dtype)
        num_taps = len(config.deepstack_visual_indexes)
        self.deepstack_mergers = (
            stack_layers(
                lambda r: PatchMerger(config, norm_after_merge=True, rngs=r, dtype=dtype), num_taps, rngs
            )
            if num_taps
            else None
        )

    def __call__(
        self, patches: jax.Array, patch_image: jax.Array, coords: jax.Array, grid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `multimodal.Tower`."""
        x = self.patch_embed(patches)
        x = x + self.position_embedding(coords, grid).astype(x.dtype)
        x, taps = self._run_blocks(x, rope(coords, self.config.head_dim), patch_image)
        features = self.merger(x)
        if self.deepstack_mergers is None:
            return features, jnp.zeros((0, *features.shape), features.dtype)
        return features, jax.vmap(lambda merge, tap: merge(tap))(self.deepstack_mergers, taps)

    def position_embedding(self, coords: jax.Array, grid: jax.Array) -> jax.Array:
        """The learned square table stretched bilinearly over each image, corners on corners.

        Returns float32 [B,N,width].
        """
        side = self.config.positions_per_side
        source = coords.astype(jnp.float32) * ((side - 1) / jnp.maximum(grid - 1, 1).astype(jnp.float32))
        low = jnp.clip(jnp.floor(source).astype(jnp.int32), 0, side - 1)
        high = jnp.minimum(low + 1, side - 1)
        fraction = source - low
        rows = jnp.stack([low[..., 0], high[..., 0]], axis=-1)  # [B,N,2]
        columns = jnp.stack([low[..., 1], high[..., 1]], axis=-1)
        row_weights = jnp.stack([1 - fraction[..., 0], fraction[..., 0]], axis=-1)
        column_weights = jnp.stack([1 - fraction[..., 1], fraction[..., 1]], axis=-1)
        taps = self.pos_embed[...].astype(jnp.float32)[rows[..., :, None] * side + columns[..., None, :]]
        weights = row_weights[..., :, None] * column_weights[..., None, :]  # [B,N,2,2]
        return jnp.sum(taps * weights[..., None], axis=(-3, -2))

    def _run_blocks(
        self, x: jax.Array, rotation: Rotation, patch_image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """All blocks, and the hidden states [taps,B,N,width] after the DeepStack ones."""
        indexes = self.config.deepstack_visual_indexes
        tap_now = jnp.arange(self.config.depth)[:, None] == jnp.asarray(indexes, jnp.int32)  # [depth,taps]

        def run(block: VisionBlock, x: jax.Array) -> jax.Array:
            return block(x, rotation, lambda qkv: self.attention.packed(qkv, patch_image))

        run = remat(run, self.remat)

        def step(
            carry: tuple[jax.Array, jax.Array], layer: tuple[VisionBlock, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            (x, taps), (block, now) = carry, layer
            x = run(block, x)
            return (x, jnp.where(now[:, None, None, None], x, taps)), None

        # Collecting in the carry keeps only the tapped states, and one scan keeps the stacked weights whole:
        # cutting them at the taps would copy them.
        taps = jnp.zeros((len(indexes), *x.shape), x.dtype)
        (x, taps), _ = jax.lax.scan(step, (x, taps), (self.blocks, tap_now))
        return x, taps
