"""What is particular to the Qwen3-VL decoder: normed query and key heads, and interleaved M-RoPE.

Shape letters: D width, T tokens, E head_dim.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dig_jax.models.architecture import TextConfig
from dig_jax.models.nn.attention import QKV
from dig_jax.models.nn.layers import Linear, RMSNorm, Rotation


class TextAttention(nnx.Module):
    """Grouped-query attention with a norm on every query and key head."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, head_dim, std = config.hidden_size, config.head_dim, config.initializer_range
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads

        def project_in(count: int, axis: str) -> Linear:
            axes = ("embed", axis, "head_dim")
            return Linear((width,), (count, head_dim), axes, std=std, rngs=rngs, dtype=dtype)

        self.q_proj = project_in(heads, "heads")
        self.k_proj = project_in(kv_heads, "kv_heads")
        self.v_proj = project_in(kv_heads, "kv_heads")
        self.o_proj = Linear(
            (heads, head_dim), (width,), ("heads", "head_dim", "embed"), std=std, rngs=rngs, dtype=dtype
        )
        self.q_norm = RMSNorm(head_dim, "head_dim", eps=config.rms_norm_eps, dtype=dtype)
        self.k_norm = RMSNorm(head_dim, "head_dim", eps=config.rms_norm_eps, dtype=dtype)

    def project(self, x: jax.Array, rotation: Rotation) -> QKV:
        """Queries, keys and values of x [...,T,D]."""
        return QKV(
            q=rotation(self.q_norm(self.q_proj(x))),
            k=rotation(self.k_norm(self.k_proj(x))),
            v=self.v_proj(x),
        )


def rotary_axes(config: TextConfig) -> np.ndarray:
    """Which axis turns each frequency, int32 [E/2]: 0 time, 1 row, 2 column.

    Frequencies go T H W T H W ... until the sections for H and W are used up, and the rest to T.
    """
    axis = np.zeros(config.head_dim // 2, np.int32)
    for which in (1, 2):
        axis[which : 3 * config.mrope_section[which] : 3] = which
    return axis
