"""Attention by cuDNN's flash kernels, through `jax.nn.dot_product_attention`.

Shape letters as in `attention`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from dig_jax.models.attention import LENGTHS, QKV, RESPONSES, SEGMENTS, TOKENS
from dig_jax.models.layers import map_shards


@dataclasses.dataclass(frozen=True)
class CudnnAttention:
    """An `attention.Attention`.

    Attributes:
      implementation: "xla" runs the same calls by plain matrix products: for tests where there is no GPU.
    """

    name: ClassVar[str] = "cudnn"
    implementation: Literal["cudnn", "xla"] = "cudnn"

    @staticmethod
    def obstacle(device: jax.Device, dtype: jnp.dtype, head_dims: Sequence[int]) -> str | None:
        """What keeps it from running there, as the end of a sentence, or None."""
        if device.platform not in ("gpu", "cuda"):
            return f"needs an NVIDIA GPU, but the model runs on {device.platform} devices"
        if tuple(map(int, str(device.compute_capability).split("."))) < (8, 0):
            return f"needs compute capability 8.0 or more, but {device.device_kind} has less"
        if dtype != jnp.bfloat16:
            return f"needs model.dtype=bfloat16, not {jnp.dtype(dtype).name}"
        if any(size % 8 or size > 128 for size in head_dims):
            return f"needs head sizes that are multiples of 8 up to 128, but the model has {list(head_dims)}"
        return None

    def packed(self, x: QKV, segment: jax.Array) -> jax.Array:
        """See `Attention.packed`. The mask is kept as a bias [B,1,N,N] in bfloat16: 5 MB for two images of
        448x448 pixels. cuDNN's own packing of sequences is not in JAX's public interface.
        """

        def run(x: QKV, segment: jax.Array) -> jax.Array:
            same = segment[:, None, :, None] == segment[:, None, None, :]  # [B,1,N,N]
            return self._attend(x, mask=same)

        return map_shards(run, [TOKENS, SEGMENTS], TOKENS)(x, segment)

    def causal(self, prompt: QKV) -> jax.Array:
        return map_shards(self._causal, [TOKENS], TOKENS)(prompt)

    def tree(self, prompt: QKV, responses: QKV, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Attention.tree`. Runs G rows [prompt, response, padding] per prompt, all plainly causal.

        So the prompt's own attention is repeated G times, a few percent of the whole where responses are the
        longer part. The alternative, two calls merged by their log-sum-exp, is neither differentiable (the
        gradient of `return_residual` is dropped) nor exact (it is rounded to bfloat16).
        """
        run = map_shards(self._tree, [TOKENS, RESPONSES, LENGTHS], (TOKENS, RESPONSES))
        return run(prompt, responses, length)

    def _tree(self, prompt: QKV, responses: QKV, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch, group, num_response = responses.q.shape[:3]
        num_prompt = prompt.q.shape[1]

        write = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=1)
        read = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=num_response, axis=1)

        def join(prompt: jax.Array, responses: jax.Array) -> jax.Array:
            """[B*G,P+R,heads,E]: each response right behind the last token of its prompt."""
            rows = jnp.pad(prompt, [(0, 0), (0, num_response), (0, 0), (0, 0)])
            rows = jnp.broadcast_to(rows[:, None], (batch, group, *rows.shape[1:]))
            return jax.vmap(write)(rows, responses, length).reshape(-1, *rows.shape[2:])

        mixed = self._causal(QKV(*map(join, prompt, responses)))
        mixed = mixed.reshape(batch, group, *mixed.shape[1:])
        return mixed[:, 0, :num_prompt], jax.vmap(read)(mixed, length)

    def _causal(self, x: QKV) -> jax.Array:
        return self._attend(x, is_causal=True)

    def _attend(self, x: QKV, *, mask: jax.Array | None = None, is_causal: bool = False) -> jax.Array:
        return jax.nn.dot_product_attention(
            *x, mask=mask, is_causal=is_causal, implementation=self.implementation
        )
