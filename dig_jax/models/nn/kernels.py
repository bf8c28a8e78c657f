"""The choice of an attention kernel: which of those there are serves on a device."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dig_jax.models.nn.attention import PLAIN, Attention
from dig_jax.models.nn.cudnn_attention import CudnnAttention
from dig_jax.models.nn.splash_attention import SplashAttention

NAMES = ("auto", "plain", "cudnn", "splash")

_KERNELS: tuple[type[CudnnAttention] | type[SplashAttention], ...] = (CudnnAttention, SplashAttention)


def choose(name: str, device: jax.Device, dtype: jnp.dtype, head_dims: Sequence[int]) -> Attention:
    """The attention called `name` for models on `device`.

    Args:
      name: one of `NAMES`. "auto" takes the kernel of the platform where it serves: bfloat16 on TPUs (splash)
        and on GPUs that have cuDNN's flash attention (Ampere and later); else the plain form.
      device: one of those the model will run on, or will be compiled for.
      dtype: of activations. head_dims: of all attention layers.

    Raises:
      ValueError: an unknown name, or a kernel that can not run there.
    """
    if name not in NAMES:
        raise ValueError(f"model.attention={name!r}: expected one of {', '.join(NAMES)}")
    for kernel in _KERNELS:
        obstacle = kernel.obstacle(device, dtype, head_dims)
        if name == kernel.name and obstacle:
            raise ValueError(f"model.attention={name!r} {obstacle}; use 'auto' or 'plain'")
        if name in ("auto", kernel.name) and not obstacle:
            return kernel()
    return PLAIN
