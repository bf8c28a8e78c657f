"""The choice of kernels, for attention and for experts: which of those there are serves on a device."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dig_jax.models.architecture import Architecture, MoETextConfig
from dig_jax.models.nn.attention import PLAIN, Attention
from dig_jax.models.nn.cudnn_attention import CudnnAttention
from dig_jax.models.nn.experts import Experts
from dig_jax.models.nn.grouped import LoopGrouped
from dig_jax.models.nn.megablox import MegabloxGrouped
from dig_jax.models.nn.ragged_decode import RaggedDecode
from dig_jax.models.nn.splash_attention import SplashAttention
from dig_jax.models.nn.triton_grouped import TritonGrouped

NAMES = ("auto", "plain", "cudnn", "splash")
DECODE = ("auto", "plain", "ragged")
EXPERTS = ("auto", "plain", "loop", "triton", "megablox")

_KERNELS: tuple[type[CudnnAttention] | type[SplashAttention], ...] = (CudnnAttention, SplashAttention)
_GROUPED: tuple[type[TritonGrouped] | type[MegabloxGrouped], ...] = (TritonGrouped, MegabloxGrouped)


def options(
    architecture: Architecture,
    mesh: Mesh,
    dtype: jnp.dtype,
    attention: str,
    experts: str,
    room: float,
    decode_attention: str = "auto",
) -> dict[str, Any]:
    """The options of `families.make` that say how a model computes on the devices of a mesh.

    Args:
      architecture: of the model.
      mesh: devices that may not be there.
      dtype: of activations.
      attention: see `choose`.
      experts, room: see `choose_experts`.
      decode_attention: see `choose_decode`.

    Raises:
      ValueError: as those do; or the mesh splits experts that the model does not have.
    """
    device = mesh.devices.flat[0]
    head_dims = [*architecture.vision.head_dims, architecture.text.head_dim]
    chosen: dict[str, Any] = {
        "attention": choose(attention, device, dtype, head_dims),
        "decode_attention": choose_decode(decode_attention, device, architecture.text.head_dim),
    }
    if isinstance(architecture.text, MoETextConfig):
        return chosen | {"experts": choose_experts(experts, device, dtype, room)}
    if "expert" in mesh.shape:
        raise ValueError(
            f"mesh.expert={mesh.shape['expert']}: this model has no experts to split; set it to 1, and"
            " mesh.fsdp (or rollout.mesh.data) so much larger"
        )
    return chosen


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


def choose_decode(name: str, device: jax.Device, head_dim: int) -> RaggedDecode | None:
    """The kernel called `name` that decoding on `device` reads responses' caches with; None: plain XLA.

    Args:
      name: one of `DECODE`. "auto" takes the kernel on TPUs, where it serves; else plain.
      device: one of those the model will run on, or will be compiled for.
      head_dim: of the decoder's attention.

    Raises:
      ValueError: an unknown name, or a kernel that can not run there.
    """
    if name not in DECODE:
        raise ValueError(f"model.decode_attention={name!r}: expected one of {', '.join(DECODE)}")
    obstacle = RaggedDecode.obstacle(device, head_dim)
    if name == RaggedDecode.name and obstacle:
        raise ValueError(f"model.decode_attention={name!r} {obstacle}; use 'auto' or 'plain'")
    return None if name == "plain" or obstacle else RaggedDecode.on(device)


def choose_experts(name: str, device: jax.Device, dtype: jnp.dtype, room: float) -> Experts:
    """How the experts of models on `device` are computed.

    Args:
      name: one of `EXPERTS`. "auto" takes the kernels of the platform where they serve: bfloat16 on TPUs
        (megablox) and on GPUs from Ampere on (triton); else a loop over tiles of rows.
      device: one of those the model will run on, or will be compiled for.
      dtype: of activations.
      room: see `experts.Experts`.

    Raises:
      ValueError: an unknown name, or kernels that can not run there.
    """
    if name not in EXPERTS:
        raise ValueError(f"model.experts={name!r}: expected one of {', '.join(EXPERTS)}")
    for kernels in _GROUPED:
        obstacle = kernels.obstacle(device, dtype)
        if name == kernels.name and obstacle:
            raise ValueError(f"model.experts={name!r} {obstacle}; use 'auto', 'loop' or 'plain'")
        if name in ("auto", kernels.name) and not obstacle:
            return Experts(kernels(), room)
    return Experts(None if name == "plain" else LoopGrouped(), room)
