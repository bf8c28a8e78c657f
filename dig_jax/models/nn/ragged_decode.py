"""Attention of decoding by a kernel for TPUs that reads of every response's cache only what is filled.

XLA reads an array whole: a response of 100 tokens beside one of 2,000 costs as much to read. Here the keys
and values of responses are cut into blocks, the blocks that hold a token are listed (`Work`), and the list is
the grid of the kernel: what is not on it is neither fetched nor computed. The grid finds a block by the list
alone, so that caches in pages, which lie anywhere, would be one more array on it.

The caches of all layers are one argument, of which the kernel reads a layer: cut out before, it would be
copied. The result comes with the logarithm of the weights' sum, by which `attention.attend` joins it with
what is read of prompts and of the new token as if all were one softmax.

Shape letters: L layers, B prompts, G responses per prompt, N = B * G, K key/value heads, M query heads of
each, R response length, E head_dim.
"""

import dataclasses
import math
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from dig_jax.models.nn.attention import MASKED, Read
from dig_jax.models.nn.caches import RESPONSE_CACHE, Caches
from dig_jax.models.nn.layers import map_shards, precision_for, shard_size

NAME = "ragged_decode"  # of the kernel in compiled programs
LANES = 128
MOST_POSITIONS = 512  # of a block
# Of keys and values in a block. A step of a kernel's grid costs a third of a microsecond, in which v5e reads
# 0.3 MB: smaller blocks would wait for that, larger ones read more that is not filled.
BLOCK_BYTES = 512 * 1024

# Logical axes of queries and results [B,G,K,M,E], and of the list.
GROUPED = ("activation_batch", None, "activation_kv_heads", None, None)
LISTED = ("activation_batch",)


class Work(NamedTuple):
    """The blocks that hold anything, response by response; every shard has a list of its own.

    Where all caches are empty a block is listed all the same: a grid has at least one step.

    Attributes:
      response: int32 [N*blocks], whose block it is.
      block: int32 [N*blocks], which of its blocks.
      entries: int32 [shards], how many the list has; what is behind means nothing.
      length: int32 [N], filled positions.
    """

    response: jax.Array
    block: jax.Array
    entries: jax.Array
    length: jax.Array


@dataclasses.dataclass(frozen=True)
class RaggedDecode:
    """The kernel.

    Attributes:
      cores: of a chip, that share the key/value heads.
      interpret: emulate the kernel: for tests where there is no TPU.
    """

    name: ClassVar[str] = "ragged"
    cores: int = 1
    interpret: bool = False

    @staticmethod
    def obstacle(device: jax.Device, head_dim: int) -> str | None:
        """What keeps it from running there, as the end of a sentence, or None."""
        if device.platform != "tpu":
            return f"needs a TPU, but the model runs on {device.platform} devices"
        if head_dim % LANES:
            # Rows of 64 would be padded to 128 in memory: all of the cache is then as long to read as half.
            return f"needs heads of a multiple of {LANES} elements, not {head_dim}"
        return None

    @classmethod
    def on(cls, device: jax.Device) -> Self:
        """For the chips that `device` is one of."""
        return cls(cores=getattr(device, "num_cores", None) or 1)

    def block(self, longest: int, kv_heads: int, head_dim: int, dtype: jnp.dtype) -> int:
        """Positions that are read at a time, of caches as the rules in force split them.

        Args:
          longest: R.
          kv_heads: K, of all shards.
          head_dim: E.
          dtype: of the cache.
        """
        own = shard_size("activation_kv_heads", kv_heads)
        fitting = BLOCK_BYTES // (2 * own * head_dim * jnp.dtype(dtype).itemsize)
        most = min(max(fitting // LANES * LANES, LANES), MOST_POSITIONS)
        if longest <= most:
            return longest
        blocks = -(-longest // most)
        return -(-longest // (blocks * LANES)) * LANES  # as even as whole registers allow

    def plan(self, length: jax.Array, block: int, longest: int) -> Work:
        """The list of one token's reading, the same for all layers.

        Args:
          length: int32 [B,G], filled positions of each response.
          block: from `block`.
          longest: R.
        """
        blocks = -(-longest // block)

        def listed(length: jax.Array) -> tuple[jax.Array, ...]:
            length = jnp.clip(length.reshape(-1), 0, longest)
            ends = jnp.cumsum(-(-length // block))
            number = jnp.arange(length.shape[0] * blocks)
            # As many responses end before an entry as the number of its own.
            response = jnp.sum(ends[None, :] <= number[:, None], axis=1, dtype=jnp.int32)
            response = jnp.minimum(response, length.shape[0] - 1)
            begins = jnp.where(response > 0, ends[response - 1], 0)
            return response, number - begins, jnp.maximum(ends[-1:], 1), length

        return Work(*map_shards(listed, [("activation_batch", None)], [LISTED] * 4)(length))

    def __call__(self, q: jax.Array, caches: Caches, layer: jax.Array, work: Work, block: int) -> Read:
        """What one query of each response reads of its own cache.

        Args:
          q: [B,G,K,M,1,E].
          caches: keys and values [L,B,G,K,R,E].
          layer: int32 scalar, the one to read.
          work: from `plan` for these responses.
          block: as there.
        """
        run = map_shards(
            partial(_read, block=block, cores=self.cores, interpret=self.interpret),
            [GROUPED, RESPONSE_CACHE, (None,), LISTED],
            [GROUPED, GROUPED],
        )
        mixed, log_total = run(q[..., 0, :], caches, layer[None], work)
        return Read(mixed[..., None, :], log_total[..., None, :])


def _read(
    q: jax.Array, caches: Caches, layer: jax.Array, work: Work, *, block: int, cores: int, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    """Of one shard: float32 [B,G,K,M,E] and [B,G,K,M,1]."""
    batch, group, kv_heads, heads, head_dim = q.shape
    k, v = (x.reshape(x.shape[0], batch * group, *x.shape[3:]) for x in caches)  # [L,N,K,R,E]
    longest = k.shape[3]
    # Rows of a register; the zeros that are added read as well, and are cut off again.
    rows = -(-heads // 16) * 16
    q = jnp.pad(q, [(0, 0)] * 3 + [(0, rows - heads), (0, 0)])
    q = q.reshape(batch * group, kv_heads, rows, head_dim)
    parts = math.gcd(cores, kv_heads)
    own = kv_heads // parts

    def of_response(part: Any, entry: Any, layer: Any, response: Any, *_: Any) -> tuple[Any, ...]:
        return response[entry], part, 0, 0

    def of_cache(part: Any, entry: Any, layer: Any, response: Any, number: Any, *_: Any) -> tuple[Any, ...]:
        return layer[0], response[entry], part, number[entry], 0

    cached = pl.BlockSpec((None, None, own, block, head_dim), of_cache)
    mixed, log_total = pl.pallas_call(
        partial(_kernel, block=block, longest=longest),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(parts, work.entries[0]),
            in_specs=[pl.BlockSpec((None, own, rows, head_dim), of_response), cached, cached],
            out_specs=[
                pl.BlockSpec((None, own, rows, head_dim), of_response),
                pl.BlockSpec((None, own, rows, LANES), of_response),
            ],
            scratch_shapes=[
                pltpu.VMEM((own, rows, 1), jnp.float32),
                pltpu.VMEM((own, rows, 1), jnp.float32),
                pltpu.VMEM((own, rows, head_dim), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, jnp.float32),
            jax.ShapeDtypeStruct((*q.shape[:3], LANES), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=_cost(q, k, heads, block),
        interpret=interpret,
        name=NAME,
    )(layer, work.response, work.block, work.length, q, k, v)
    mixed, log_total = (
        x.reshape(batch, group, kv_heads, rows, -1)[..., :heads, :] for x in (mixed, log_total)
    )
    empty = (work.length == 0).reshape(batch, group, 1, 1, 1)  # what the kernel has not written may be NaN
    return jnp.where(empty, 0, mixed), jnp.where(empty, MASKED, log_total[..., :1])


def _kernel(
    layer: Any,
    response: Any,
    number: Any,
    length: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    mixed_ref: Any,
    log_total_ref: Any,
    peak_ref: Any,
    total_ref: Any,
    sum_ref: Any,
    *,
    block: int,
    longest: int,
) -> None:
    """One block of the cache of one response: a step of a softmax that goes on from block to block."""
    entry = pl.program_id(1)
    filled = length[response[entry]] - number[entry] * block  # positions, from the start of the block

    @pl.when(number[entry] == 0)
    def _begin() -> None:
        peak_ref[...] = jnp.full(peak_ref.shape, MASKED, jnp.float32)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)
        sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)

    q, k, v = q_ref[...], k_ref[...], v_ref[...]  # [K,M,E], [K,block,E] twice
    product = partial(jax.lax.dot_general, precision=precision_for(q), preferred_element_type=jnp.float32)
    if longest % block:  # what lies behind the end of the array may be NaN
        v = jnp.where(jax.lax.broadcasted_iota(jnp.int32, v.shape, 1) < filled, v, 0)
    scores = q.shape[-1] ** -0.5 * product(q, k, (((2,), (2,)), ((0,), (0,))))  # [K,M,block]
    visible = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 2) < filled
    scores = jnp.where(visible, scores, MASKED)
    peak = jnp.maximum(peak_ref[...], jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.where(visible, jnp.exp(scores - peak), 0)  # where nothing is filled the peak is MASKED, too
    rescale = jnp.exp(peak_ref[...] - peak)
    peak_ref[...] = peak
    total_ref[...] = rescale * total_ref[...] + jnp.sum(weights, axis=-1, keepdims=True)
    mixed = product(weights.astype(v.dtype), v, (((2,), (1,)), ((0,), (0,))))
    sum_ref[...] = rescale * sum_ref[...] + mixed

    @pl.when(filled <= block)
    def _end() -> None:
        total = total_ref[...]
        mixed_ref[...] = sum_ref[...] / jnp.where(total > 0, total, 1)
        log_total = jnp.where(total > 0, peak_ref[...] + jnp.log(total), MASKED)
        log_total_ref[...] = jnp.broadcast_to(log_total, log_total_ref.shape)


def _cost(q: jax.Array, k: jax.Array, heads: int, block: int) -> pl.CostEstimate:
    """Of caches from empty to full, any as likely: over the tokens of responses of full length."""
    responses, kv_heads, _, head_dim = q.shape
    read = responses * kv_heads * (k.shape[3] + block) // 2
    return pl.CostEstimate(
        flops=4 * read * heads * head_dim,
        bytes_accessed=2 * read * head_dim * k.dtype.itemsize + 3 * q.size * 4,
        transcendentals=read * heads,
    )
