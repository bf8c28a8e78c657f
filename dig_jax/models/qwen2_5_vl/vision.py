"""The Qwen2.5-VL vision tower: packed patches of several images to image-token features.

Shape letters: B prompts, N padded patches per prompt, M = N / merge_unit image tokens, D decoder width.

Most blocks attend inside windows. The original reorders the patches window by window for that; here a window
is a segment, known by a number that follows from the place of a patch, and the patches stay in the order of
all families. Numbers are data, so images of any size run through one compiled program.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dig_jax.models.nn.attention import Attention
from dig_jax.models.nn.layers import Linear, RMSNorm, remat, stack_layers
from dig_jax.models.nn.patches import NORM_EPS, VisionBlock, rope
from dig_jax.models.qwen2_5_vl.config import VisionConfig


class VisionMLP(nnx.Module):
    """SwiGLU with biases."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        into, out = ("vision_embed", "vision_mlp"), ("vision_mlp", "vision_embed")
        self.gate_proj = Linear((width,), (inner,), into, std=std, bias=True, rngs=rngs, dtype=dtype)
        self.up_proj = Linear((width,), (inner,), into, std=std, bias=True, rngs=rngs, dtype=dtype)
        self.down_proj = Linear((inner,), (width,), out, std=std, bias=True, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class PatchMerger(nnx.Module):
    """Norms each patch, joins those of an image token and projects them to the decoder's width."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        self.joined = config.hidden_size * config.merge_unit
        joined, out, std = self.joined, config.out_hidden_size, config.initializer_range
        self.norm = RMSNorm(config.hidden_size, "vision_embed", eps=NORM_EPS, dtype=dtype)
        axes = ("vision_embed", "vision_mlp")
        self.fc1 = Linear((joined,), (joined,), axes, std=std, bias=True, rngs=rngs, dtype=dtype)
        axes = ("vision_mlp", "embed")
        self.fc2 = Linear((joined,), (out,), axes, std=std, bias=True, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,N,width] to [B,M,D]."""
        x = self.norm(x).reshape(x.shape[0], -1, self.joined)
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class VisionTower(nnx.Module):
    """Patch embedding, blocks, and the merger to the decoder."""

    def __init__(
        self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype, remat: str, attention: Attention
    ) -> None:
        self.config = config
        self.attention = attention
        self.remat = remat
        # The original is a 3-D convolution whose kernel equals its stride: a matrix product.
        self.patch_embed = Linear(
            (config.patch_dim,),
            (config.hidden_size,),
            (None, "vision_embed"),
            std=config.initializer_range,
            rngs=rngs,
            dtype=dtype,
        )
        self.blocks = stack_layers(
            lambda r: VisionBlock(config, RMSNorm, VisionMLP, rngs=r, dtype=dtype), config.depth, rngs
        )
        self.merger = PatchMerger(config, rngs=rngs, dtype=dtype)

    def __call__(
        self, patches: jax.Array, patch_image: jax.Array, coords: jax.Array, grid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """See `multimodal.Tower`; there are no DeepStack features."""
        rotation = rope(coords, self.config.head_dim)
        window = windows(patch_image, coords, grid, self.config.window)
        whole = jnp.isin(jnp.arange(self.config.depth), jnp.asarray(self.config.fullatt_block_indexes, int))

        def run(block: VisionBlock, x: jax.Array, segment: jax.Array) -> jax.Array:
            return block(x, rotation, lambda qkv: self.attention.packed(qkv, segment))

        run = remat(run, self.remat)

        def step(x: jax.Array, layer: tuple[VisionBlock, jax.Array]) -> tuple[jax.Array, None]:
            block, is_whole = layer
            return run(block, x, jnp.where(is_whole, patch_image, window)), None

        x, _ = jax.lax.scan(step, self.patch_embed(patches), (self.blocks, whole))
        features = self.merger(x)
        return features, jnp.zeros((0, *features.shape), features.dtype)


def windows(patch_image: jax.Array, coords: jax.Array, grid: jax.Array, side: int) -> jax.Array:
    """The window of every patch as a number that no other window of its prompt has, int32 [B,N]; padding: 0.

    Windows are cut from the top left corner of each image; those at its right and bottom may be smaller.

    Args:
      patch_image, coords, grid: see `inputs.Prompts`.
      side: of a window, in patches.
    """
    across = -(-grid[..., 1] // side)
    number = coords[..., 0] // side * across + coords[..., 1] // side
    return patch_image * patch_image.shape[1] + number  # an image has fewer windows than N, its patches
