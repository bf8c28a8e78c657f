"""What vision towers share: blocks, attention among patches, and where a patch sits in its image.

Shape letters: B prompts, N padded patches per prompt.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from dig_jax.models.architecture import VisionConfig
from dig_jax.models.nn.attention import QKV
from dig_jax.models.nn.layers import LayerNorm, Linear, RMSNorm, Rotation, constrain, rope_frequencies

# From the queries, keys and values of all patches to what each has read, [B,N,heads,head_dim].
Mix = Callable[[QKV], jax.Array]

ROPE_THETA = 10_000.0
NORM_EPS = 1e-6  # fixed in the originals, as is the base of the rotary embedding


class VisionAttention(nnx.Module):
    """Attention among patches, as `mix` says; queries, keys and values come from one kernel."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, heads, head_dim = config.hidden_size, config.num_heads, config.head_dim
        std = config.initializer_range
        self.qkv = Linear(
            (width,),
            (3, heads, head_dim),
            ("vision_embed", None, "vision_heads", "head_dim"),
            std=std,
            bias=True,
            rngs=rngs,
            dtype=dtype,
        )
        self.proj = Linear(
            (heads, head_dim),
            (width,),
            ("vision_heads", "head_dim", "vision_embed"),
            std=std,
            bias=True,
            rngs=rngs,
            dtype=dtype,
        )

    def __call__(self, x: jax.Array, rotation: Rotation, mix: Mix) -> jax.Array:
        q, k, v = jnp.moveaxis(self.qkv(x), -3, 0)  # [B,N,heads,head_dim] each
        return self.proj(mix(QKV(rotation(q), rotation(k), v)))


class VisionBlock(nnx.Module):
    """Pre-norm transformer block, with the norm and the MLP of a family."""

    def __init__(
        self,
        config: VisionConfig,
        norm: type[LayerNorm] | type[RMSNorm],
        mlp: Callable[..., nnx.Module],
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ) -> None:
        self.norm1 = norm(config.hidden_size, "vision_embed", eps=NORM_EPS, dtype=dtype)
        self.attn = VisionAttention(config, rngs=rngs, dtype=dtype)
        self.norm2 = norm(config.hidden_size, "vision_embed", eps=NORM_EPS, dtype=dtype)
        self.mlp = mlp(config, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array, rotation: Rotation, mix: Mix) -> jax.Array:
        """x [B,N,width], its patches mixed by `mix`."""
        x = x + self.attn(self.norm1(x), rotation, mix)
        x = x + self.mlp(self.norm2(x))
        return constrain(x, "activation_batch", None, "activation_embed")


def rope(coords: jax.Array, head_dim: int) -> Rotation:
    """2-D rotary embedding, [B,N,head_dim/2]: half the angles turn with the row, half with the column."""
    frequencies = rope_frequencies(ROPE_THETA, head_dim // 2)
    angles = coords.astype(jnp.float32)[..., None] * frequencies  # [B,N,2,head_dim/4]
    return Rotation.from_angles(angles.reshape(*coords.shape[:2], -1))
