"""What is particular to the Qwen3-VL decoder: normed query and key heads, and interleaved M-RoPE.

Shape letters: D width, T tokens, E head_dim.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dig_jax.models.architecture import TextConfig
from dig_jax.models.nn.attention import QKV
from dig_jax.models.nn.layers import RMSNorm, Rotation
from dig_jax.models.nn.text_attention import GroupedAttention


class TextAttention(GroupedAttention):
    """Grouped-query attention with a norm on every query and key head."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        super().__init__(config, bias=False, rngs=rngs, dtype=dtype)
        head_dim = config.head_dim
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
