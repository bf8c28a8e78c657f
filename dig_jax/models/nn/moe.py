"""A mixture of experts in place of the MLP of a decoder layer.

Shape letters: B prompts, T tokens, D width, E experts, K experts per token, I inner width of an expert.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from dig_jax.models.architecture import MoETextConfig
from dig_jax.models.nn.attention import QKV
from dig_jax.models.nn.decoder import Counted, MakeAttention, Mix, TextLayer
from dig_jax.models.nn.experts import PLAIN, experts_mlp
from dig_jax.models.nn.grouped import OfStack
from dig_jax.models.nn.layers import Rotation, constrain, make_param, precision_for
from dig_jax.models.nn.routing import RouterOutput, RouterStatistics

# Name of the chosen experts, which the backward pass never chooses again (`layers.remat`): computed anew,
# rounded otherwise, a close choice may fall to another expert than the one whose result the loss has seen.
CHOICE = "routing"


class Router(nnx.Module):
    """Probabilities of the experts, always in float32: rounded to bfloat16, 4% of tokens choose others."""

    def __init__(self, config: MoETextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        shape = (config.hidden_size, config.num_experts)
        self.kernel = make_param(rngs, shape, ("embed", None), std=config.initializer_range, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[...,D] to float32 [...,E]."""
        x, kernel = x.astype(jnp.float32), self.kernel[...].astype(jnp.float32)
        return jax.nn.softmax(jnp.matmul(x, kernel, precision=precision_for(x)), axis=-1)


class MoE(nnx.Module):
    """The router and its experts.

    Each token goes through the K most probable experts, weighted by their probabilities, which are made to
    sum to 1. No choice is dropped. Of equal probabilities the lower number wins.
    """

    def __init__(self, config: MoETextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, inner, count = config.hidden_size, config.moe_intermediate_size, config.num_experts
        self.num_experts_per_tok = config.num_experts_per_tok
        self.how = PLAIN
        std = config.initializer_range
        self.router = Router(config, rngs=rngs, dtype=dtype)
        self.gate_up = make_param(
            rngs, (count, width, 2 * inner), ("experts", "expert_embed", "expert_mlp"), std=std, dtype=dtype
        )
        self.down = make_param(
            rngs, (count, inner, width), ("experts", "expert_mlp", "expert_embed"), std=std, dtype=dtype
        )

    def __call__(
        self,
        x: jax.Array,
        ids: jax.Array | None = None,
        counted: jax.Array | None = None,
        among: tuple["MoE", jax.Array] | None = None,
    ) -> tuple[jax.Array, jax.Array, RouterStatistics | None]:
        """Args:
          x: [...,D].
          ids: int [...,K], the experts to take instead of choosing (replay). Their weights are made of the
            probabilities that the router gives them now, so it is trained all the same. Of tokens where
            they are no expert's numbers (`routing.unknown`) the router chooses.
          counted: bool [...], the tokens of the statistics; None: nobody wants any.
          among: the stack that this one was cut out of, and its number there: where experts can be read from
            it, they are. Without gradients.

        Returns:
          [...,D] in the dtype of x, the experts int32 [...,K], and sums over the tokens.
        """
        probabilities = self.router(x)
        chosen = jax.lax.top_k(jax.lax.stop_gradient(probabilities), self.num_experts_per_tok)[1]
        if ids is not None:
            chosen = jnp.where(ids < probabilities.shape[-1], ids.astype(jnp.int32), chosen)
        ids = checkpoint_name(chosen.astype(jnp.int32), CHOICE)
        weights = jnp.take_along_axis(probabilities, ids, axis=-1)
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        rows, chosen, shares = (array.reshape(-1, array.shape[-1]) for array in (x, ids, weights))
        y = experts_mlp(rows, chosen, shares, *self._kernels(x.dtype, among), self.how)
        return y.reshape(x.shape), ids, None if counted is None else _statistics(probabilities, ids, counted)

    def _kernels(self, dtype: jnp.dtype, among: tuple["MoE", jax.Array] | None) -> tuple[Any, Any]:
        own = self.gate_up[...], self.down[...]
        if among is None or not self.how.reads_stacks or any(kernel.dtype != dtype for kernel in own):
            return own
        stacked, number = among
        return OfStack(stacked.gate_up[...], number), OfStack(stacked.down[...], number)


def _statistics(probabilities: jax.Array, ids: jax.Array, counted: jax.Array) -> RouterStatistics:
    """Sums over the counted tokens of probabilities [...,E] and experts [...,K]."""
    count, one = probabilities.shape[-1], counted.astype(jnp.float32)
    chosen = jnp.zeros(count, jnp.float32).at[ids].add(jnp.broadcast_to(one[..., None], ids.shape))
    probability = jnp.where(counted[..., None], probabilities, 0.0)
    return RouterStatistics(chosen, jnp.sum(probability.reshape(-1, count), axis=0), jnp.sum(one))


class MoELayer(TextLayer):
    """A decoder layer whose MLP is a mixture of experts."""

    KEPT: ClassVar[tuple[str, ...]] = (CHOICE,)
    mlp: MoE

    def __init__(
        self, config: MoETextConfig, attention: MakeAttention, *, rngs: nnx.Rngs, dtype: jnp.dtype
    ) -> None:
        super().__init__(config, attention, MoE, rngs=rngs, dtype=dtype)

    def __call__(
        self,
        streams: Sequence[jax.Array],
        rotations: Sequence[Rotation],
        mix: Mix,
        ids: Sequence[jax.Array] | None = None,
        counted: Counted | None = None,
        among: tuple[Any, jax.Array] | None = None,
    ) -> tuple[list[jax.Array], list[QKV], RouterOutput]:
        """See `TextLayer`. The experts take the tokens of all streams at once.

        Args:
          streams, rotations, mix: see `TextLayer`.
          ids: experts of the tokens of each stream, int [B,...,T,K]; None: they choose.
          counted: finds the tokens that statistics are of; None: there are none.
          among: see `TextLayer`.
        """
        qkv = self.project(streams, rotations)
        streams = [x + self.attn.o_proj(mixed) for x, mixed in zip(streams, mix(*qkv), strict=True)]
        shapes = [x.shape[:-1] for x in streams]
        masks = None if counted is None else _joined([mask[..., None] for mask in counted(shapes)])[..., 0]
        y, chosen, statistics = self.mlp(
            _joined([self.post_norm(x) for x in streams]),
            None if ids is None else _joined(ids),
            masks,
            None if among is None else (among[0].mlp, among[1]),
        )
        streams = [x + part for x, part in zip(streams, _parted(y, shapes), strict=True)]
        rows = [("activation_batch", *[None] * (x.ndim - 2), "activation_embed") for x in streams]
        streams = [constrain(x, *axes) for x, axes in zip(streams, rows, strict=True)]
        return streams, qkv, RouterOutput(tuple(_parted(chosen, shapes)), statistics)


def _joined(streams: Sequence[jax.Array]) -> jax.Array:
    """Streams [B,...,n] as one of B rows of tokens, [B,T,n]: each row stays where its prompt is."""
    return jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in streams], axis=1)


def _parted(x: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """The streams of x [B,T,n], of these shapes less n."""
    sizes = [math.prod(rest) for _, *rest in shapes]
    parts = jnp.split(x, list(itertools.accumulate(sizes[:-1])), axis=1)
    return [part.reshape(*shape, x.shape[-1]) for part, shape in zip(parts, shapes, strict=True)]
