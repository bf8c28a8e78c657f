"""What is particular to the Qwen2.5-VL decoder: M-RoPE in chunks. Its attention is `nn.text_attention`'s."""

import numpy as np

from dig_jax.models.architecture import TextConfig


def rotary_axes(config: TextConfig) -> np.ndarray:
    """Which axis turns each frequency, int [E/2]: first those for 0, time, then for 1, row, and 2, column."""
    return np.repeat(np.arange(3), config.mrope_section)
