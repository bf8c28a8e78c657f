"""How an update is cut into micro-batches, so that short answers do not pay for long ones.

The completions of each prompt are sorted by length and cut into pieces of equally many. A micro-batch has
pieces of about the same length, padded to the smallest bucket that holds them. The compiled program has a
branch for each bucket and chooses while it runs: lengths are data, so none of them compiles anything, and all
devices and processes choose alike. Each piece computes its prompt once more; what pieces smaller than the
group cost in that they save in padding, and in memory.

Shape letters: B prompts of an update, G completions per prompt, R padded response length; L lanes of B / L
prompts each, g completions per piece, N = B / L * G / g micro-batches. A micro-batch has one piece of every
lane; lanes never leave their devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from dig_jax.rollout.routing import KeptRouting
from dig_jax.update import grpo
from dig_jax.update.policy import Experience

Change = Callable[[jax.Array], jax.Array]
Metrics = dict[str, jax.Array]

# Below this many tokens of a response, its prompt is most of the work.
SHORTEST_BUCKET = 128


@dataclasses.dataclass(frozen=True)
class Cut:
    """Sizes of micro-batches.

    Attributes:
        prompts: pieces of a micro-batch, over all devices; divides B.
        completions: of one prompt in a piece; divides G; 0 for all.
        buckets: lengths that responses are padded to; R always is one.
    """

    prompts: int
    completions: int = 0
    buckets: tuple[int, ...] = ()

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Cut":
        """The sizes that `config.batch` gives; no buckets there are a half and a quarter of R."""
        longest = config.rollout.max_new_tokens
        buckets = tuple(config.batch.response_buckets) or (longest // 2, longest // 4)
        return cls(
            config.batch.micro_prompts,
            config.batch.micro_completions,
            tuple(length for length in buckets if config.batch.response_buckets or length >= SHORTEST_BUCKET),
        )

    def lengths(self, longest: int) -> tuple[int, ...]:
        """The buckets for responses of up to `longest` tokens, in order."""
        return (*sorted(length for length in set(self.buckets) if length < longest), longest)


@flax.struct.dataclass
class Pieces:
    """The micro-batches of an update, or one of them without the first dimension.

    Attributes:
        completions: int32 [N, L, g], which completions, counted through a lane: prompt * G + completion.
        bucket: int32 [N], which of `Cut.lengths` holds them.
    """

    completions: jax.Array
    bucket: jax.Array


def lanes() -> Any:
    """Which dimension of the arrays of all `Pieces` has the lanes, for `data_axis.apart`."""
    numbers: Any = Pieces
    return numbers(completions=1, bucket=None)


def cut_up(mask: jax.Array, cut: Cut) -> Pieces:
    """The micro-batches of responses with this mask [B, G, R], the longest first.

    Completions of equal length, and pieces whose longest are equal, stay in their order.
    """
    num_prompts, group, longest = mask.shape
    size = cut.completions or group
    lengths = jnp.sum(mask > 0, axis=-1).reshape(cut.prompts, -1, group)  # [L, B / L, G]
    in_group = jnp.argsort(-lengths, axis=-1, stable=True)
    of_pieces = jnp.take_along_axis(lengths, in_group, axis=-1)[..., ::size].reshape(cut.prompts, -1)
    in_lane = in_group + group * jnp.arange(num_prompts // cut.prompts)[:, None]
    pieces = in_lane.reshape(cut.prompts, -1, size)  # [L, N, g]
    order = jnp.argsort(-of_pieces, axis=-1, stable=True)  # [L, N]
    pieces = jnp.take_along_axis(pieces, order[..., None], axis=1)
    of_micro_batches = jnp.max(jnp.take_along_axis(of_pieces, order, axis=1), axis=0)  # [N]
    bucket = jnp.searchsorted(jnp.array(cut.lengths(longest)), of_micro_batches)
    return Pieces(pieces.swapaxes(0, 1), bucket)


def take(batch: Experience, piece: Pieces) -> Experience:
    """One micro-batch: prompts [L, ...] and their responses [L, g, R]."""
    lanes, group = piece.completions.shape[0], batch.mask.shape[1]

    def rows(x: jax.Array, index: jax.Array) -> jax.Array:
        in_lanes = x.reshape(lanes, x.shape[0] // lanes, *x.shape[1:])  # there may be no patches at all
        return jax.vmap(lambda lane, i: lane.at[i].get(mode="promise_in_bounds"))(in_lanes, index)

    def responses(x: jax.Array) -> jax.Array:
        return rows(x.reshape(-1, *x.shape[2:]), piece.completions)

    def prompts(x: jax.Array) -> jax.Array:
        return rows(x, piece.completions[:, 0] // group)

    return _change(batch, prompts, responses)


def trim(batch: Experience, length: int) -> Experience:
    """Responses cut to [B, G, length, ...]; none may be longer."""
    return _change(batch, lambda x: x, lambda x: x[:, :, :length] if x.ndim > 2 else x)


def pad(values: jax.Array, length: int, blank: int = 0) -> jax.Array:
    """Values [B, g, R, ...] with `blank` after them, up to `length` in place of R."""
    widths = [(0, 0), (0, 0), (0, length - values.shape[2]), *[(0, 0)] * (values.ndim - 3)]
    return jnp.pad(values, widths, constant_values=blank)


def put_back(values: jax.Array, pieces: Pieces, group: int) -> jax.Array:
    """Values [N, L, g, R, ...] of all micro-batches, where they belong: [B, G, R, ...]."""
    lanes = values.shape[1]
    numbers = pieces.completions.swapaxes(0, 1).reshape(lanes, -1)
    in_lanes = values.swapaxes(0, 1).reshape(*numbers.shape, *values.shape[3:])
    where = jnp.argsort(numbers, axis=-1)
    index = jnp.expand_dims(where, range(2, in_lanes.ndim))
    return jnp.take_along_axis(in_lanes, index, axis=1).reshape(-1, group, *values.shape[3:])


def put_back_prompts(values: jax.Array, pieces: Pieces, group: int) -> jax.Array:
    """Values [N, L, ...] of the prompts of all micro-batches, each from one of its pieces: [B, ...]."""
    size = pieces.completions.shape[-1]
    prompts = pieces.completions[..., 0].swapaxes(0, 1) // group  # [L, N]
    where = jnp.argsort(prompts, axis=-1)[:, :: group // size]
    chosen = jax.vmap(lambda lane, index: lane[index])(values.swapaxes(0, 1), where)
    return chosen.reshape(-1, *values.shape[2:])


def padded_tokens(pieces: Pieces, lengths: tuple[int, ...]) -> jax.Array:
    """Response tokens computed for these micro-batches, float32: real ones and padding."""
    _, lanes, size = pieces.completions.shape
    return jnp.sum(jnp.array(lengths, jnp.float32)[pieces.bucket]) * lanes * size


def accumulate(
    gradient: Callable[[Any], tuple[nnx.State, Metrics]], micro_batches: Any, zeros_like: nnx.State
) -> tuple[nnx.State, Metrics]:
    """Sums gradients, in float32, and metrics over micro-batches: leaves [number of micro-batches, ...].

    Metrics named `*_max` are combined by maximum. One micro-batch is alive at a time.
    """
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), zeros_like)

    def body(total: nnx.State, micro: Any) -> tuple[nnx.State, Metrics]:
        grads, metrics = gradient(micro)
        return jax.tree.map(jnp.add, total, grads), metrics

    if jax.tree.leaves(micro_batches)[0].shape[0] == 1:
        grads, metrics = gradient(jax.tree.map(lambda x: x[0], micro_batches))
        return jax.tree.map(lambda x: x.astype(jnp.float32), grads), metrics
    grads, stacked = jax.lax.scan(body, zeros, micro_batches)
    return grads, grpo.combine_metrics(stacked)


def split(batch: Any, size: int) -> Any:
    """Cuts leaves [B, ...] into [B / size, size, ...], strided: every micro-batch lies on every device."""
    cut = lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731
    return jax.tree.map(cut, batch)


def _change(batch: Experience, prompts: Change, responses: Change) -> Experience:
    """Every array changed: those of prompts [B, ...], and those of responses [B, G, ...]."""
    names = {field.name for field in dataclasses.fields(batch)} - {"prompts", "teacher", "routing"}
    routing = batch.routing
    return Experience(
        prompts=jax.tree.map(prompts, batch.prompts),
        teacher=jax.tree.map(prompts, batch.teacher),
        routing=routing and KeptRouting(prompts(routing.prompts), responses(routing.responses)),
        **jax.tree.map(responses, {name: getattr(batch, name) for name in names}),
    )
