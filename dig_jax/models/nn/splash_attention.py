"""Attention by the splash kernel of `jax.experimental.pallas` for TPUs: blocks that a mask hides are skipped.

The package tokamax carries the same kernel; taken from JAX itself it needs no further packages. Shape letters
as in `attention`.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from dig_jax.models.nn.attention import LENGTHS, QKV, RESPONSES, SEGMENTS, TOKENS
from dig_jax.models.nn.layers import map_shards

# Queries and keys per block: 512 by 512 scores keep the matrix unit busy and fit the fast memory of every
# TPU. Sequences shorter than that take one block.
BLOCK = 512
LANES = 128  # a block is a multiple of the vector registers' width


@dataclasses.dataclass(frozen=True)
class TreeMask(splash.Mask):
    """Prompt, response 1, ..., response G (each as long as the next) in one sequence of `size` tokens.

    Tokens see themselves and the earlier ones of the prompt and of their own response.
    """

    size: int
    prompt: int
    response: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.size, self.size

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        query, key = np.ogrid[index]
        own = (query - self.prompt) // self.response == (key - self.prompt) // self.response
        return (query >= key) & ((key < self.prompt) | own)


@dataclasses.dataclass(frozen=True)
class SplashAttention:
    """An `attention.Attention`.

    Attributes:
      interpret: emulate the kernel: for tests where there is no TPU.
    """

    name: ClassVar[str] = "splash"
    interpret: bool = False

    @staticmethod
    def obstacle(device: jax.Device, dtype: jnp.dtype, head_dims: Sequence[int]) -> str | None:
        """What keeps it from running there, as the end of a sentence, or None."""
        if device.platform != "tpu":
            return f"needs a TPU, but the model runs on {device.platform} devices"
        if dtype != jnp.bfloat16:
            return f"needs model.dtype=bfloat16, not {jnp.dtype(dtype).name}"
        return None

    def packed(self, x: QKV, segment: jax.Array) -> jax.Array:
        def run(x: QKV, segment: jax.Array) -> jax.Array:
            size = _padded(x.q.shape[1])
            return self._attend(x, splash.FullMask((size, size)), segment)

        return map_shards(run, [TOKENS, SEGMENTS], TOKENS)(x, segment)

    def causal(self, prompt: QKV) -> jax.Array:
        def run(prompt: QKV) -> jax.Array:
            size = _padded(prompt.q.shape[1])
            return self._attend(prompt, splash.CausalMask((size, size)), None)

        return map_shards(run, [TOKENS], TOKENS)(prompt)

    def tree(self, prompt: QKV, responses: QKV, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Attention.tree`. One sequence [prompt, response 1, ..., response G] per prompt."""
        run = map_shards(self._tree, [TOKENS, RESPONSES, LENGTHS], (TOKENS, RESPONSES))
        return run(prompt, responses, length)

    def _tree(self, prompt: QKV, responses: QKV, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch, group, num_response = responses.q.shape[:3]
        num_prompt = prompt.q.shape[1]

        def join(prompt: jax.Array, responses: jax.Array) -> jax.Array:
            return jnp.concatenate([prompt, responses.reshape(batch, -1, *prompt.shape[2:])], axis=1)

        joined = QKV(*map(join, prompt, responses))
        size = joined.q.shape[1]
        # The prompt's padding is a segment of its own, which no real token sees.
        position = jnp.arange(size)
        segment = (position < length[:, None]) | (position >= num_prompt)
        mask = TreeMask(_padded(size), num_prompt, num_response)
        mixed = self._attend(joined, mask, segment.astype(jnp.int32))
        return mixed[:, :num_prompt], mixed[:, num_prompt:].reshape(responses.q.shape)

    def _attend(self, x: QKV, mask: splash.Mask, segment: jax.Array | None) -> jax.Array:
        """[B,T,H,E] under `mask`, which has the padded size, and within segments [B,T] if given."""
        length, num_heads, head_dim = x.q.shape[1:]
        pad = mask.shape[0] - length
        # The kernel does not scale. In float32: in bfloat16 the factor itself is rounded (1.5 in 1,000 too
        # small at head size 72), and every score with it. Padded head sizes (72 to 128) change no score.
        x = x._replace(q=(x.q.astype(jnp.float32) * head_dim**-0.5).astype(x.q.dtype))
        pad_head = -head_dim % (LANES // 2)
        q, k, v = (
            jnp.pad(a, [(0, 0), (0, pad), (0, 0), (0, pad_head)]).swapaxes(1, 2) for a in x
        )  # [B,heads,T,E]
        # A negative segment for the padding at the end: it sees itself, so no row is empty.
        ids = None if segment is None else jnp.pad(segment, [(0, 0), (0, pad)], constant_values=-1)
        kernel = splash.make_splash_mha(
            splash.MultiHeadMask([mask] * num_heads),
            block_sizes=_blocks(min(BLOCK, mask.shape[0])),
            head_shards=1,
            q_seq_shards=1,
            interpret=self.interpret,
        )
        mixed = jax.vmap(kernel)(q, k, v, None if ids is None else splash.SegmentIds(ids, ids))
        return mixed.swapaxes(1, 2)[:, :length, :, :head_dim]


def _padded(length: int) -> int:
    """Length in whole blocks."""
    block = BLOCK if length > BLOCK else LANES
    return -(-length // block) * block


def _blocks(size: int) -> splash.BlockSizes:
    """Square blocks of one size, in the forward and in both backward kernels."""
    return splash.BlockSizes(
        block_q=size,
        block_kv=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
