"""Self-attention of a decoder layer: what the layers of several families are made of.

Shape letters: D width, T tokens.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dig_jax.models.architecture import TextConfig
from dig_jax.models.nn.attention import QKV
from dig_jax.models.nn.layers import Linear, Rotation


class GroupedAttention(nnx.Module):
    """Grouped-query attention: projections of queries, keys, values and of the result."""

    def __init__(self, config: TextConfig, *, bias: bool, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, head_dim, std = config.hidden_size, config.head_dim, config.initializer_range
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads

        def project_in(count: int, axis: str) -> Linear:
            axes = ("embed", axis, "head_dim")
            return Linear((width,), (count, head_dim), axes, std=std, bias=bias, rngs=rngs, dtype=dtype)

        self.q_proj = project_in(heads, "heads")
        self.k_proj = project_in(kv_heads, "kv_heads")
        self.v_proj = project_in(kv_heads, "kv_heads")
        self.o_proj = Linear(
            (heads, head_dim), (width,), ("heads", "head_dim", "embed"), std=std, rngs=rngs, dtype=dtype
        )


class BiasedAttention(GroupedAttention):
    """That of Qwen2 and Qwen2.5: queries, keys and values have biases."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        super().__init__(config, bias=True, rngs=rngs, dtype=dtype)

    def project(self, x: jax.Array, rotation: Rotation) -> QKV:
        """Queries, keys and values of x [...,T,D]."""
        return QKV(q=rotation(self.q_proj(x)), k=rotation(self.k_proj(x)), v=self.v_proj(x))
