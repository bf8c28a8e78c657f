"""Attention by cuDNN's flash kernels, through `jax.nn.dot_product_attention`.

Shape letters as in `attention`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from dig_jax.models.nn.attention import LENGTHS, QKV, RESPONSES, SEGMENTS, TOKENS
from dig_jax.models.nn.layers import map_shards

# Sequences with padding are made multiples of this. On Hopper the gradient of masked queries is NaN where the
# length is 64 more than a multiple of 128 (pytorch/pytorch#196678).
TILE = 128


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
        """See `Attention.packed`. The two images of a pair are rows of their own, without a mask.

        That holds for one or two images of at most half of the patches each; which images there are is data,
        so the program chooses. All else takes a mask, which is a bias [B,1,N,N] in bfloat16, has a gradient
        that nobody wants, and costs attention between images. (cuDNN's own packing of sequences is not in
        JAX's public interface, and needs a Hopper GPU.)
        """
        return map_shards(self._packed, [TOKENS, SEGMENTS], TOKENS)(x, segment)

    def _packed(self, x: QKV, segment: jax.Array) -> jax.Array:
        num_patches = segment.shape[1]
        half = _padded(-(-num_patches // 2))
        lengths = jnp.stack([jnp.sum(segment == image, axis=1) for image in (1, 2)], axis=1)  # [B,2]
        position, end = jnp.arange(num_patches), jnp.cumsum(lengths, axis=1)[..., None]
        in_order = jnp.where(position < end[:, 0], 1, jnp.where(position < end[:, 1], 2, 0))
        apart = jnp.all(segment == in_order) & jnp.all(lengths <= half)
        each_image = functools.partial(self._each_image, lengths=lengths, half=half)
        return jax.lax.cond(apart, lambda x, _: each_image(x), self._masked, x, segment)

    def _each_image(self, x: QKV, lengths: jax.Array, half: int) -> jax.Array:
        """`packed` for two images of `lengths` [B,2], at most `half`, one behind the other."""
        num_patches = x.q.shape[1]
        real = (jnp.arange(half) < lengths[..., None])[..., None, None]  # [B,2,half,1,1]
        room = [(0, 0), (0, 2 * half - num_patches), (0, 0), (0, 0)]
        read = jax.vmap(functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=half))
        write = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))

        def cut(tokens: jax.Array) -> jax.Array:
            """[B*2,half,heads,E]: zeros behind each image, so that nothing from there has a gradient."""
            row = jnp.pad(tokens, room)
            images = jnp.stack([row[:, :half], read(row, lengths[:, 0])], axis=1)
            return jnp.where(real, images, 0).reshape(-1, *images.shape[2:])

        at_least_one = jnp.maximum(lengths.reshape(-1), 1).astype(jnp.int32)  # a softmax over nothing is NaN
        mixed = self._attend(QKV(*map(cut, x)), lengths=at_least_one)
        mixed = jnp.where(real, mixed.reshape(-1, 2, *mixed.shape[1:]), 0)
        # Zeros behind the first image take the second by addition.
        second = write(
            jnp.zeros((len(mixed), 2 * half, *mixed.shape[3:]), mixed.dtype), mixed[:, 1], lengths[:, 0]
        )
        return second.at[:, :half].add(mixed[:, 0])[:, :num_patches]

    def _masked(self, x: QKV, segment: jax.Array) -> jax.Array:
        """`packed` for any segments."""
        num_patches = segment.shape[1]
        pad = (0, _padded(num_patches) - num_patches)
        x = QKV(*(jnp.pad(tokens, [(0, 0), pad, (0, 0), (0, 0)]) for tokens in x))
        segment = jnp.pad(segment, [(0, 0), pad])
        same = segment[:, None, :, None] == segment[:, None, None, :]  # [B,1,N,N]
        return self._attend(x, mask=same)[:, :num_patches]

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

    def _attend(
        self,
        x: QKV,
        *,
        mask: jax.Array | None = None,
        lengths: jax.Array | None = None,
        is_causal: bool = False,
    ) -> jax.Array:
        return jax.nn.dot_product_attention(
            *x,
            mask=mask,
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            is_causal=is_causal,
            implementation=self.implementation,
        )


def _padded(length: int) -> int:
    return -(-length // TILE) * TILE
