"""The decoder of text, run over a prompt and the G responses that share it.

Shape letters: B prompts, G responses per prompt, P prompt length, R response length, L layers, D width,
H query heads, K key/value heads, E head_dim.

A prompt is computed once. Its responses are a second stream through the same layers: in every layer they
attend to the keys and values of the prompt, of which there is one copy, and to their own. Prefill is the
first stream alone, training both at once, and decoding the second with the keys and values kept in caches.

A family gives the layers' self-attention and says which rotary frequency turns with which axis.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dig_jax.models.architecture import TextConfig
from dig_jax.models.nn.attention import (
    QKV,
    Attention,
    KeyValues,
    Read,
    attend,
    attend_with_readers,
    grouped,
    length_mask,
)
from dig_jax.models.nn.caches import (
    PROMPT_CACHE,
    PromptCache,
    ResponseCache,
    write_routing,
    write_slots,
)
from dig_jax.models.nn.layers import (
    Linear,
    RMSNorm,
    Rotation,
    constrain,
    first_layer,
    look_up,
    make_param,
    map_shards,
    remat,
    rope_frequencies,
    scan_layers,
    stack_layers,
)
from dig_jax.models.nn.ragged_decode import RaggedDecode
from dig_jax.models.nn.readers import Readers
from dig_jax.models.nn.routing import RouterOutput, Routing

# From the queries, keys and values of each stream to what its tokens have read, [...,T,H,E] each.
Mix = Callable[..., Sequence[jax.Array]]

# The axis of the positions, 0 time, 1 row or 2 column, that each of the E/2 rotary frequencies turns with.
AxesOf = Callable[[TextConfig], np.ndarray]

# From the shapes of the streams, without widths, to bool masks: the tokens that are no padding.
Counted = Callable[[Sequence[tuple[int, ...]]], Sequence[jax.Array]]


class SelfAttention(Protocol):
    """What a layer needs of its attention: what is mixed, and the way back to the layer's width."""

    o_proj: Linear

    def project(self, x: jax.Array, rotation: Rotation) -> QKV:
        """Queries, keys and values of x [...,T,D], rotated."""
        ...


# Called with the configuration, `rngs` and `dtype`.
MakeAttention = Callable[..., SelfAttention]


class TextMLP(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs, dtype: jnp.dtype) -> None:
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.gate_proj = Linear((width,), (inner,), ("embed", "mlp"), std=std, rngs=rngs, dtype=dtype)
        self.up_proj = Linear((width,), (inner,), ("embed", "mlp"), std=std, rngs=rngs, dtype=dtype)
        self.down_proj = Linear((inner,), (width,), ("mlp", "embed"), std=std, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class TextLayer(nnx.Module):
    """Pre-norm decoder layer."""

    KEPT: ClassVar[tuple[str, ...]] = ()  # names of what the backward pass must not compute again

    def __init__(
        self,
        config: Any,
        attention: MakeAttention,
        make_mlp: Callable[..., Any] = TextMLP,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
    ) -> None:
        eps = config.rms_norm_eps
        self.input_norm = RMSNorm(config.hidden_size, "embed", eps=eps, dtype=dtype)
        self.attn = attention(config, rngs=rngs, dtype=dtype)
        self.post_norm = RMSNorm(config.hidden_size, "embed", eps=eps, dtype=dtype)
        self.mlp = make_mlp(config, rngs=rngs, dtype=dtype)

    def __call__(
        self,
        streams: Sequence[jax.Array],
        rotations: Sequence[Rotation],
        mix: Mix,
        ids: Sequence[jax.Array] | None = None,
        counted: Counted | None = None,
        among: tuple[Any, jax.Array] | None = None,
    ) -> tuple[list[jax.Array], list[QKV], RouterOutput | None]:
        """Streams [B,...,T,D] that meet in attention only, as `mix` says.

        Returns:
          The streams, the queries, keys and values made of each on the way, and what a router says: of layers
          with experts (`moe.MoELayer`), which `ids`, `counted` and `among` are for: all layers stacked, and
          the number of this one, where nothing is differentiated.
        """
        qkv = self.project(streams, rotations)
        return [self._add(x, mixed) for x, mixed in zip(streams, mix(*qkv), strict=True)], qkv, None

    def project(self, streams: Sequence[jax.Array], rotations: Sequence[Rotation]) -> list[QKV]:
        """Queries, keys and values of each stream."""
        pairs = zip(streams, rotations, strict=True)
        return [self.attn.project(self.input_norm(x), rotation) for x, rotation in pairs]

    def _add(self, x: jax.Array, mixed: jax.Array) -> jax.Array:
        x = x + self.attn.o_proj(mixed)
        x = x + self.mlp(self.post_norm(x))
        return constrain(x, "activation_batch", *[None] * (x.ndim - 2), "activation_embed")


class TextDecoder(nnx.Module):
    """Token embedding, stacked layers and final norm. The output head is `VisionLanguageModel.logits`.

    Args:
      config: the sizes.
      make_attention: makes a layer's self-attention.
      axes_of: which axis turns each rotary frequency.
      make_layer: makes a layer, from the configuration and `make_attention`.
      rngs, dtype, remat, attention, decode_attention: see `VisionLanguageModel`; dtype is that of parameters.
    """

    def __init__(
        self,
        config: TextConfig,
        make_attention: MakeAttention,
        axes_of: AxesOf,
        make_layer: type[TextLayer] = TextLayer,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
        remat: str,
        attention: Attention,
        decode_attention: RaggedDecode | None = None,
    ) -> None:
        self.config = config
        self.axes_of = axes_of
        self.attention = attention
        self.decode_attention = decode_attention
        self.remat = remat
        self.embedding = make_param(
            rngs,
            (config.vocab_size, config.hidden_size),
            ("vocab", "embed"),
            std=config.initializer_range,
            dtype=dtype,
        )
        self.layers = stack_layers(
            lambda r: make_layer(config, make_attention, rngs=r, dtype=dtype),
            config.num_hidden_layers,
            rngs,
        )
        self.norm = RMSNorm(config.hidden_size, "embed", eps=config.rms_norm_eps, dtype=dtype)

    def embed(self, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """int [...] to [...,D]."""
        # Gathering whole rows lets the result be split like the tokens, whatever axis splits D.
        table = constrain(self.embedding[...].astype(dtype), "activation_vocab", None)
        rows = ("activation_batch", *[None] * (tokens.ndim - 1))
        x = map_shards(look_up, [(None, None), rows], (*rows, None), others_auto=True)(table, tokens)
        return constrain(x, *rows, "activation_embed")

    def __call__(
        self,
        prompt: jax.Array,
        positions: jax.Array,
        deepstack: jax.Array,
        routing: Routing | None = None,
        counted: Counted | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array], RouterOutput | None]:
        """The prompts alone.

        Args:
          prompt: [B,P,D] embeddings with the image features in place.
          positions: int32 [B,P,3].
          deepstack: [taps,B,P,D], zero off the image tokens; entry j is added after layer j.
          routing, counted: see `multimodal.VisionLanguageModel`, and `moe.MoELayer`.

        Returns:
          Final-normed hidden states [B,P,D], their keys and values [L,B,K,P,E], and what routers say.
        """
        rotation = self.rotation(positions)
        ids = None if routing is None else (routing.prompts,)

        def run(
            layer: TextLayer, x: jax.Array, ids: Sequence[jax.Array] | None
        ) -> tuple[jax.Array, QKV, RouterOutput | None]:
            mix = lambda prompt: [self.attention.causal(prompt)]  # noqa: E731
            (x,), (own,), said = layer([x], [rotation], mix, ids, counted)
            return x, own, said

        run = remat(run, self.remat, first_layer(self.layers).KEPT)

        def step(x: jax.Array, xs: tuple) -> tuple[jax.Array, tuple]:
            index, layer, ids = xs
            x, own, said = run(layer, x, ids)
            kept = KeyValues.of(own, None)
            return add_deepstack(x, index, deepstack), (kept.k, kept.v, said)

        x, (k, v, said) = scan_layers(self.layers, step, prompt, ids)
        return self.norm(x), (constrain(k, *PROMPT_CACHE), constrain(v, *PROMPT_CACHE)), said

    def with_responses(
        self,
        prompt: jax.Array,
        positions: jax.Array,
        deepstack: jax.Array,
        length: jax.Array,
        responses: jax.Array,
        response_positions: jax.Array,
        routing: Routing | None = None,
        counted: Counted | None = None,
    ) -> tuple[jax.Array, jax.Array, RouterOutput | None]:
        """The prompts and their responses, layer by layer together.

        Args:
          prompt, positions, deepstack: as above.
          length: int32 [B], tokens of each prompt that responses see.
          responses: [B,G,R,D] embeddings.
          response_positions: int32 [B,R,3].
          routing, counted: as above.

        Returns:
          Final-normed hidden states [B,P,D] and [B,G,R,D], and what routers say.
        """
        rotations = self.rotation(positions), self.rotation(response_positions[:, None])
        ids = None if routing is None else (routing.prompts, routing.responses)

        def run(
            layer: TextLayer, x: jax.Array, y: jax.Array, ids: Sequence[jax.Array] | None
        ) -> tuple[list[jax.Array], RouterOutput | None]:
            mix = lambda prompt, own: self.attention.tree(prompt, own, length)  # noqa: E731
            streams, _, said = layer([x, y], rotations, mix, ids, counted)
            return streams, said

        run = remat(run, self.remat, first_layer(self.layers).KEPT)

        def step(
            streams: tuple[jax.Array, jax.Array], xs: tuple
        ) -> tuple[tuple[jax.Array, jax.Array], RouterOutput | None]:
            index, layer, ids = xs
            (x, y), said = run(layer, *streams, ids)
            return (add_deepstack(x, index, deepstack), y), said

        (x, y), said = scan_layers(self.layers, step, (prompt, responses), ids)
        return self.norm(x), self.norm(y), said

    def decode(
        self,
        x: jax.Array,
        step: jax.Array,
        prompt_cache: PromptCache,
        cache: ResponseCache,
        window: int | None = None,
        readers: Readers | None = None,
    ) -> tuple[jax.Array, ResponseCache]:
        """One more token per response.

        Args:
          x: [B,G,D] embeddings of token number `step` of each response.
          step: int32 scalar, or [B,G] when responses have got to different lengths.
          window: how many slots of `cache` to read, where none from there on is filled; None: all. With a
            `cache_block` only the blocks that hold a token are read, and no window is needed.
          readers: which prompt each of B responses reads, where G is 1 and there are others than B prompts;
            None: the one it lies beside.

        Returns:
          Final-normed hidden states [B,G,D] and the cache with slot `step` filled.
        """
        batch, group, _ = x.shape
        first = (
            prompt_cache.next_position if readers is None else readers.prompts_of(prompt_cache.next_position)
        )
        position = first[:, None] + jnp.broadcast_to(step, (batch, group))
        rotation = self.rotation(jnp.broadcast_to(position[:, :, None, None], (batch, group, 1, 3)))
        visible = length_mask(prompt_cache.length, prompt_cache.k.shape[3])
        before = self._before(cache, jnp.broadcast_to(step, (batch, group)), window)

        # The new token attends to the cache as it was and to itself, and the cache is written once after
        # the scan: written inside, it would be copied in every layer.
        def run(x: jax.Array, xs: tuple) -> tuple[jax.Array, tuple]:
            index, layer, prompt_k, prompt_v = xs
            prompts = KeyValues(prompt_k, prompt_v, visible)

            def mix(new: QKV) -> list[jax.Array]:
                own, reads = before(index, new.q)
                own = [*own, KeyValues.of(new, None)]
                if readers is None:
                    return [attend(new.q, [prompts, *own], reads)]
                return [attend_with_readers(new.q, prompts, own, readers, reads)]

            among = None if isinstance(self.layers, nnx.List) else (self.layers, index)
            (x,), (new,), said = layer([x], [rotation], mix, among=among)
            kept = KeyValues.of(new, None)
            return x, (kept.k, kept.v, said)

        x, (k, v, said) = scan_layers(self.layers, run, x[:, :, None], prompt_cache.k, prompt_cache.v)
        hidden, written = self.norm(x[:, :, 0]), write_slots(cache, k, v, step)
        return hidden, ResponseCache(written.k, written.v, write_routing(cache.routing, said, step))

    def cache_block(self, longest: int, dtype: jnp.dtype) -> int | None:
        """See `api.Model`; `dtype` is that of the cache."""
        if self.decode_attention is None:
            return None
        heads, head_dim = self.config.num_key_value_heads, self.config.head_dim
        return self.decode_attention.block(longest, heads, head_dim, dtype)

    def _before(
        self, cache: ResponseCache, filled: jax.Array, window: int | None
    ) -> Callable[[jax.Array, jax.Array], tuple[list[KeyValues], list[Read]]]:
        """What the tokens fed before are to the queries of a layer: to attend to, or read by the kernel.

        Args:
          cache: of the responses.
          filled: int32 [B,G], slots of it that are.
          window: see `decode`.

        Returns:
          A function of the layer's number and of queries [B,G,1,H,E].
        """
        longest = cache.k.shape[4]
        window = longest if window is None else window
        kernel, block = self.decode_attention, self.cache_block(longest, cache.k.dtype)
        if kernel is not None and block is not None:
            work = kernel.plan(filled, block, longest)

            def by_kernel(index: jax.Array, q: jax.Array) -> tuple[list[KeyValues], list[Read]]:
                queries = grouped(q, cache.k.shape[3])
                return [], [kernel(queries, (cache.k, cache.v), index, work, block)]

            return by_kernel
        visible = (jnp.arange(window) < filled[..., None])[:, :, None]  # [B,G,1,window]

        def cut(stacked: jax.Array, index: jax.Array) -> jax.Array:
            """The window of one layer, [B,G,K,window,E], cut out at once."""
            size = (1, *stacked.shape[1:4], window, stacked.shape[5])
            return jax.lax.dynamic_slice(stacked, (index, 0, 0, 0, 0, 0), size)[0]

        return lambda index, q: ([KeyValues(cut(cache.k, index), cut(cache.v, index), visible)], [])

    def rotation(self, positions: jax.Array) -> Rotation:
        """Multimodal rotary embedding of int positions [...,T,3] (time, row, column): angles [...,T,E/2]."""
        frequencies = rope_frequencies(self.config.rope_theta, self.config.head_dim)
        axes = self.axes_of(self.config)
        return Rotation.from_angles(positions.astype(jnp.float32)[..., axes] * frequencies)


def add_deepstack(x: jax.Array, layer: jax.Array, deepstack: jax.Array) -> jax.Array:
    """Adds DeepStack features to the prompt stream [B,P,D] after layer number `layer`.

    A choice by number inside one scan over all layers; a scan of its own for the first layers would cut
    the stacked weights in two and copy them.
    """
    taps = deepstack.shape[0]
    if taps == 0:
        return x
    features = jax.lax.dynamic_index_in_dim(deepstack, jnp.minimum(layer, taps - 1), keepdims=False)
    return x + jnp.where(layer < taps, features, 0)
