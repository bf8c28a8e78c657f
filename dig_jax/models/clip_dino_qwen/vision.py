"""The two towers of TinyGroundingGPT, CLIP and DINOv2, and what makes image tokens of both.

Shape letters: B prompts, K images per prompt, I images in all, n patches of an image, T tokens of a tower
(its class token and n), D decoder width.

All images are squares of one size, so the images of a prompt are a dimension, and each attends to itself.
Both towers get the same pixels, 0 to 1, each in its own normalisation; features of a patch are those of the
second-to-last layer of both, CLIP's first. An object's are averages over squares of patches.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dig_jax.models.clip_dino_qwen.config import DinoConfig, VisionConfig
from dig_jax.models.nn.attention import QKV, Attention
from dig_jax.models.nn.layers import (
    LayerNorm,
    Linear,
    constrain,
    make_constant,
    make_param,
    precision_for,
    remat,
    stack_layers,
)

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINO_MEAN, DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_EPS, DINO_EPS = 1e-5, 1e-6
BICUBIC = -0.75  # of PyTorch's kernel; that of PIL, JAX and others is -0.5


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the layers of a tower are made from: `layer_scale` where branches are scaled, as in DINOv2."""

    width: int
    inner: int
    heads: int
    std: float
    eps: float
    activation: Callable[[jax.Array], jax.Array]
    layer_scale: bool


class Scale(nnx.Module):
    """A learned factor per channel."""

    def __init__(self, size: int, *, dtype: jnp.dtype) -> None:
        self.scale = make_constant((size,), ("vision_embed",), 1.0, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        # In float32: the gradient of the factor sums over all tokens in the dtype of the product.
        factor = self.scale[...].astype(x.dtype).astype(jnp.float32)
        return (x.astype(jnp.float32) * factor).astype(x.dtype)


class SelfAttention(nnx.Module):
    """Attention among the tokens of an image; all four layers have biases."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, heads, head_dim = sizes.width, sizes.heads, sizes.width // sizes.heads
        into, out = ("vision_embed", "vision_heads", "head_dim"), ("vision_heads", "head_dim", "vision_embed")

        def project_in() -> Linear:
            return Linear((width,), (heads, head_dim), into, std=sizes.std, bias=True, rngs=rngs, dtype=dtype)

        self.q_proj, self.k_proj, self.v_proj = project_in(), project_in(), project_in()
        self.out_proj = Linear(
            (heads, head_dim), (width,), out, std=sizes.std, bias=True, rngs=rngs, dtype=dtype
        )

    def __call__(self, x: jax.Array, attention: Attention) -> jax.Array:
        """x [I,T,width]."""
        qkv = QKV(self.q_proj(x), self.k_proj(x), self.v_proj(x))
        return self.out_proj(attention.packed(qkv, jnp.ones(x.shape[:2], jnp.int32)))


class MLP(nnx.Module):
    """Two biased layers with the tower's activation between them."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, inner, std = sizes.width, sizes.inner, sizes.std
        into, out = ("vision_embed", "vision_mlp"), ("vision_mlp", "vision_embed")
        self.activation = sizes.activation
        self.fc1 = Linear((width,), (inner,), into, std=std, bias=True, rngs=rngs, dtype=dtype)
        self.fc2 = Linear((inner,), (width,), out, std=std, bias=True, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(self.activation(self.fc1(x)))


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        self.norm1 = LayerNorm(sizes.width, "vision_embed", eps=sizes.eps, dtype=dtype)
        self.attn = SelfAttention(sizes, rngs=rngs, dtype=dtype)
        self.norm2 = LayerNorm(sizes.width, "vision_embed", eps=sizes.eps, dtype=dtype)
        self.mlp = MLP(sizes, rngs=rngs, dtype=dtype)
        self.layer_scale1 = Scale(sizes.width, dtype=dtype) if sizes.layer_scale else None
        self.layer_scale2 = Scale(sizes.width, dtype=dtype) if sizes.layer_scale else None

    def __call__(self, x: jax.Array, attention: Attention) -> jax.Array:
        """x [I,T,width]."""
        mixed = self.attn(self.norm1(x), attention)
        x = x + (mixed if self.layer_scale1 is None else self.layer_scale1(mixed))
        changed = self.mlp(self.norm2(x))
        x = x + (changed if self.layer_scale2 is None else self.layer_scale2(changed))
        return constrain(x, "activation_batch", None, "activation_embed")


class Tower(nnx.Module):
    """What both have: patches and a class token with their places, and blocks."""

    def __init__(
        self,
        sizes: Sizes,
        depth: int,
        patch_dim: int,
        positions: int,
        *,
        patch_bias: bool,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
        remat: str,
        attention: Attention,
    ) -> None:
        self.attention, self.remat = attention, remat
        width, std = sizes.width, sizes.std
        # The original is a convolution whose kernel equals its stride: a matrix product.
        axes = (None, "vision_embed")
        self.patch_embed = Linear(
            (patch_dim,), (width,), axes, std=std, bias=patch_bias, rngs=rngs, dtype=dtype
        )
        self.class_embed = make_param(rngs, (width,), ("vision_embed",), std=std, dtype=dtype)
        self.pos_embed = make_param(
            rngs, (1 + positions, width), (None, "vision_embed"), std=std, dtype=dtype
        )
        self.blocks = stack_layers(lambda r: Block(sizes, rngs=r, dtype=dtype), depth, rngs)

    def embed(self, patches: jax.Array, positions: jax.Array) -> jax.Array:
        """patches [I,n,patch_dim], normalised, and positions [1+n,width]: tokens [I,1+n,width]."""
        x = self.patch_embed(patches)
        first = jnp.broadcast_to(self.class_embed[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
        return jnp.concatenate([first, x], axis=1) + positions.astype(x.dtype)

    def run(self, x: jax.Array) -> jax.Array:
        """All blocks."""

        def run(block: Block, x: jax.Array) -> jax.Array:
            return block(x, self.attention)

        run = remat(run, self.remat)
        x, _ = jax.lax.scan(lambda x, block: (run(block, x), None), x, self.blocks)
        return x


class ClipTower(Tower):
    """CLIP's ViT, whose first norm comes before its blocks."""

    def __init__(self, config: VisionConfig, *, dtype: jnp.dtype, **options: Any) -> None:
        sizes = Sizes(
            width=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_heads,
            std=config.initializer_range,
            eps=CLIP_EPS,
            activation=quick_gelu,
            layer_scale=False,
        )
        super().__init__(
            sizes, config.depth, config.patch_dim, config.side**2, patch_bias=False, dtype=dtype, **options
        )
        self.pre_norm = LayerNorm(config.hidden_size, "vision_embed", eps=CLIP_EPS, dtype=dtype)

    def __call__(self, patches: jax.Array) -> jax.Array:
        """Normalised patches [I,n,patch_dim] to features [I,n,width]."""
        return self.run(self.pre_norm(self.embed(patches, self.pos_embed[...])))[:, 1:]


class DinoTower(Tower):
    """DINOv2's ViT, whose table of positions is stretched over the patches."""

    def __init__(self, config: VisionConfig, *, dtype: jnp.dtype, **options: Any) -> None:
        self.side, self.dino = config.side, config.dino
        sizes = Sizes(
            width=self.dino.hidden_size,
            inner=self.dino.intermediate_size,
            heads=self.dino.num_heads,
            std=config.initializer_range,
            eps=DINO_EPS,
            activation=exact_gelu,
            layer_scale=True,
        )
        positions = self.dino.positions_per_side**2
        super().__init__(
            sizes, self.dino.depth, config.patch_dim, positions, patch_bias=True, dtype=dtype, **options
        )
        final = LayerNorm(self.dino.hidden_size, "vision_embed", eps=DINO_EPS, dtype=dtype)
        self.final_norm = final if self.dino.final_norm else None

    def __call__(self, patches: jax.Array) -> jax.Array:
        """Normalised patches [I,n,patch_dim] to features [I,n,width]."""
        x = self.run(self.embed(patches, self.positions()))
        return (x if self.final_norm is None else self.final_norm(x))[:, 1:]

    def positions(self) -> jax.Array:
        """The table for the patches of an image, float32 [1+n,width]; the class token's place stays."""
        table = self.pos_embed[...].astype(jnp.float32)
        per_side = self.dino.positions_per_side
        if per_side == self.side:
            return table
        stretch = stretching(self.dino, self.side)
        square = table[1:].reshape(per_side, per_side, -1)
        precision = precision_for(square)
        rows = jnp.einsum("as,stw->atw", stretch, square, precision=precision)
        places = jnp.einsum("bt,atw->abw", stretch, rows, precision=precision)
        return jnp.concatenate([table[:1], places.reshape(self.side**2, -1)])


def stretching(dino: DinoConfig, side: int) -> np.ndarray:
    """PyTorch's bicubic interpolation along one side of the table, as a matrix [side, positions_per_side].

    Half-pixel centres, four taps, indices clamped at the edges, no antialiasing. Places are float32 as there:
    exact ones would differ in the fifth digit.
    """
    given = dino.positions_per_side
    scale, half = np.float32(given / (side + dino.interpolate_offset)), np.float32(0.5)
    matrix = np.zeros((side, given))
    for place in range(side):
        source = float((np.float32(place) + half) * scale - half)
        low = int(np.floor(source))
        for tap in range(low - 1, low + 3):
            matrix[place, np.clip(tap, 0, given - 1)] += _cubic(abs(source - tap))
    return matrix.astype(np.float32)


def _cubic(x: float) -> float:
    """Keys' kernel at a distance x of 0 to 2."""
    if x <= 1:
        return ((BICUBIC + 2) * x - (BICUBIC + 3)) * x * x + 1
    return BICUBIC * (((x - 5) * x + 8) * x - 4)


def quick_gelu(x: jax.Array) -> jax.Array:
    """CLIP's approximation of GELU, up to 0.02 off it."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function."""
    return jax.nn.gelu(x, approximate=False)


def normalised(pixels: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """float32 pixels [...,patch_dim], 0 to 1, channels first, in a tower's normalisation."""
    per_channel = pixels.shape[-1] // len(mean)
    shift, scale = (np.repeat(np.array(value, np.float32), per_channel) for value in (mean, std))
    return (pixels - shift) / scale


class Projector(nnx.Module):
    """From the joined features to the decoder's width: two layers with the exact GELU between them."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        joined, out, std = (
            config.hidden_size + config.dino.hidden_size,
            config.out_hidden_size,
            config.initializer_range,
        )
        into, onto = ("vision_embed", "vision_mlp"), ("vision_mlp", "embed")
        self.fc1 = Linear((joined,), (out,), into, std=std, bias=True, rngs=rngs, dtype=dtype)
        self.fc2 = Linear((out,), (out,), onto, std=std, bias=True, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(exact_gelu(self.fc1(x)))


class Towers(nnx.Module):
    """Both towers, and the projector to the decoder, which all families call `merger`."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype, **options: Any) -> None:
        self.config = config
        self.clip = ClipTower(config, rngs=rngs, dtype=dtype, **options)
        self.dino = DinoTower(config, rngs=rngs, dtype=dtype, **options)
        self.merger = Projector(config, rngs=rngs, dtype=dtype)

    def __call__(self, pixels: jax.Array, is_object: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Features of the tokens of every image, [B,K,n,D]; behind those of an object is filler.

        Args:
          pixels: float32 [B,K,n,patch_dim], 0 to 1.
          is_object: bool [B,K].
          dtype: to compute in.
        """
        images = pixels.reshape(-1, *pixels.shape[2:])
        clip = self.clip(normalised(images, CLIP_MEAN, CLIP_STD).astype(dtype))
        dino = self.dino(normalised(images, DINO_MEAN, DINO_STD).astype(dtype))
        joined = jnp.concatenate([clip, dino], axis=-1)
        averaged = _average(joined, self.config.side, self.config.object_side)
        tokens = jnp.where(is_object.reshape(-1)[:, None, None], averaged, joined)
        return self.merger(tokens).reshape(*pixels.shape[:3], -1)


def _average(x: jax.Array, side: int, by: int) -> jax.Array:
    """Means of x [I,side*side,C] over squares of `by` patches, row by row, with zeros after them."""
    images, count, width = x.shape
    squares = x.reshape(images, side // by, by, side // by, by, width)
    means = squares.mean(axis=(2, 4)).reshape(images, -1, width)
    return jnp.pad(means, ((0, 0), (0, count - means.shape[1]), (0, 0)))
