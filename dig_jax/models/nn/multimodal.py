"""The model of all families: images and text in, hidden states and logits out.

Shape letters: B prompts, G responses per prompt, P prompt length, R response length, N patches per prompt,
M image tokens per prompt (N / merge_unit), L layers, D width, K key/value heads, E head_dim, V vocabulary.

Checked against the transformers implementation in tests/models.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from flax import nnx

from dig_jax.models.architecture import Architecture, MoETextConfig
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn import head
from dig_jax.models.nn.attention import PLAIN, Attention
from dig_jax.models.nn.caches import RESPONSE_CACHE, RESPONSE_ROUTING, PromptCache, ResponseCache
from dig_jax.models.nn.decoder import AxesOf, Counted, MakeAttention, TextDecoder, TextLayer
from dig_jax.models.nn.layers import REMAT, constrain, make_param
from dig_jax.models.nn.ragged_decode import RaggedDecode
from dig_jax.models.nn.readers import Readers
from dig_jax.models.nn.routing import Extras, RouterOutput, Routing, id_dtype, router_loss


class Tower(Protocol):
    """A vision tower, as `encode_images` calls it; a family that has its own may have another."""

    def __call__(
        self, patches: jax.Array, patch_image: jax.Array, coords: jax.Array, grid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Features [B,M,D] of the image tokens in order, and DeepStack features [taps,B,M,D] (taps may be 0).

        Args:
          patches: [B,N,C*T*p*p] in the compute dtype.
          patch_image, coords, grid: int32 [B,N], [B,N,2], [B,N,2]; see `inputs.Prompts`.
        """
        ...


class VisionLanguageModel(nnx.Module):
    """The model. Parameters are initialised as transformers does: normal kernels, zero biases, unit norms.

    A family is this class with its own tower, attention and rotary axes given. Its parts have one name in all
    families, which freezing, adapters and the table of weights go by: `vision` with its `merger` (and
    `deepstack_mergers`), `text`, `head`.

    Args:
      config: the architecture.
      make_tower: makes the vision tower from its configuration, with the keywords of `TextDecoder`.
      make_attention, axes_of, make_layer: see `TextDecoder`.
      rngs: with a "params" or default stream.
      dtype: of activations and caches.
      param_dtype: of parameters.
      remat: which activations the backward pass computes again; see `layers.remat`.
      attention: of prefill and training; see `kernels.choose`.
      decode_attention: the kernel that decoding reads the responses' caches with; None: plain XLA. See
        `kernels.choose_decode`.

    Raises:
      ValueError: an unknown `remat`.
    """

    vision: Any  # a `Tower`, as far as the family has no `encode_images` of its own

    def __init__(
        self,
        config: Architecture,
        make_tower: Callable[..., Any],
        make_attention: MakeAttention,
        axes_of: AxesOf,
        make_layer: type[TextLayer] = TextLayer,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        param_dtype: jnp.dtype = jnp.float32,
        remat: str = "none",
        attention: Attention = PLAIN,
        decode_attention: RaggedDecode | None = None,
    ) -> None:
        if remat not in REMAT:
            raise ValueError(f"remat={remat!r}: expected one of {', '.join(REMAT)}")
        self.config = config
        self.dtype = dtype
        options: Any = {"rngs": rngs, "dtype": param_dtype, "remat": remat, "attention": attention}
        self.vision = make_tower(config.vision, **options)
        options["decode_attention"] = decode_attention
        self.text = TextDecoder(config.text, make_attention, axes_of, make_layer, **options)
        self.head = (
            None
            if config.tie_word_embeddings
            else make_param(
                rngs,
                (config.text.vocab_size, config.text.hidden_size),
                ("vocab", "embed"),
                std=config.text.initializer_range,
                dtype=param_dtype,
            )
        )

    def encode_images(self, prompts: Prompts) -> tuple[jax.Array, jax.Array]:
        """Features [B,M,D] of the image tokens (`feature_numbers`), and DeepStack features [taps,B,M,D]."""
        return self.vision(
            jnp.asarray(prompts.patches, self.dtype),
            jnp.asarray(prompts.patch_image),
            jnp.asarray(prompts.patch_coords),
            jnp.asarray(prompts.patch_grid),
        )

    def __call__(
        self,
        prompts: Prompts,
        responses: jax.Array | None = None,
        routing: Routing | None = None,
        response_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None, Extras]:
        """Final-normed hidden states of prompts and responses; each prompt is computed once.

        The result for a response is that of running [prompt, response] as one sequence. Responses are
        padded on the right; the states at padding are finite but mean nothing.

        Args:
          prompts: see `inputs.Prompts`.
          responses: int32 [B,G,R] or None.
          routing: the experts that tokens go through; None: as the routers choose.
          response_mask: [B,G,R], or [B,R] for groups of one; above 0 on the response tokens that routers are
            judged by. None: all.

        Returns:
          [B,P,D] and [B,G,R,D] (None without responses), and what the model says besides.
        """
        tokens = jnp.asarray(prompts.tokens)
        counted = _real_tokens(prompts, response_mask)
        if responses is None:
            x = self.text.embed(tokens, self.dtype)
            hidden, _, said = self.text(*self.with_images(prompts, x), routing, counted)
            return hidden, None, self._extras(said)
        batch, group, length = responses.shape
        # One look-up for both: on a mesh the gradient of the table is summed over the devices for each.
        x = self.text.embed(jnp.concatenate([tokens, responses.reshape(batch, -1)], axis=1), self.dtype)
        x, y = jnp.split(x, [tokens.shape[1]], axis=1)
        offsets = jnp.asarray(prompts.next_position)[:, None] + jnp.arange(length)  # [B,R]
        x, y, said = self.text.with_responses(
            *self.with_images(prompts, x),
            jnp.asarray(prompts.length),
            y.reshape(batch, group, length, -1),
            jnp.broadcast_to(offsets[..., None], (batch, length, 3)),
            routing,
            counted,
        )
        return x, y, self._extras(said)

    def prefill(self, prompts: Prompts) -> tuple[jax.Array, PromptCache]:
        """Hidden states [B,P,D] of the prompts, and what responses need to go on from them."""
        x = self.text.embed(jnp.asarray(prompts.tokens), self.dtype)
        hidden, (k, v), said = self.text(*self.with_images(prompts, x))
        ids = None if said is None else self._narrow(said.ids[0])
        return hidden, PromptCache(k, v, jnp.asarray(prompts.length), jnp.asarray(prompts.next_position), ids)

    def init_response_cache(self, batch: int, group: int, length: int) -> ResponseCache:
        """An empty cache for `group` responses of up to `length` tokens to each of `batch` prompts."""
        text = self.config.text
        shape = (text.num_hidden_layers, batch, group, text.num_key_value_heads, length, text.head_dim)
        empty = constrain(jnp.zeros(shape, self.dtype), *RESPONSE_CACHE)
        if not isinstance(text, MoETextConfig):
            return ResponseCache(empty, empty)
        per_token = (text.num_hidden_layers, batch, group, length, text.num_experts_per_tok)
        chosen = constrain(self._narrow(jnp.zeros(per_token, jnp.int32)), *RESPONSE_ROUTING)
        return ResponseCache(empty, empty, chosen)

    def cache_block(self, longest: int) -> int | None:
        """See `api.Model`."""
        return self.text.cache_block(longest, self.dtype)

    def decode(
        self,
        tokens: jax.Array,
        step: jax.Array | int,
        prompt_cache: PromptCache,
        cache: ResponseCache,
        window: int | None = None,
        readers: Readers | None = None,
    ) -> tuple[jax.Array, ResponseCache]:
        """Feeds token number `step` of every response.

        Args:
          tokens: int32 [B,G].
          step: int32 scalar, or [B,G]. Slots from `step` on are neither read nor assumed empty, so a slot
            may be reused for a new response by starting it again at 0.
          window: how many slots of `cache` to read, at least the largest `step`; None reads all.
          readers: see `TextDecoder.decode`.

        Returns:
          Hidden states [B,G,D] (their logits are for token `step` + 1) and the cache with slot `step` filled.
        """
        x = self.text.embed(tokens, self.dtype)
        return self.text.decode(x, jnp.asarray(step), prompt_cache, cache, window, readers)

    def logits(self, hidden: jax.Array, tokens: jax.Array | None = None) -> jax.Array:
        """float32 logits [...,V] of hidden states [...,D], or [...,n] of only the n given `tokens`."""
        table = self.head_table
        return head.logits(table if tokens is None else jnp.take(table, tokens, axis=0), hidden)

    @property
    def head_table(self) -> jax.Array:
        """The output head [V,D], which is the embedding where they are tied."""
        return (self.text.embedding if self.head is None else self.head)[...]

    def in_compute_dtype(self) -> Self:
        """The same function with kernels and embeddings cast to `dtype` once, instead of at every use.

        Decoding reads all of them for every token, so it should not read float32 ones. Norms, routers, the
        table of patch positions and scales of int8 kernels are used in float32 and stay so: every operation
        gets what it got.
        """
        graphdef, params = nnx.split(self, nnx.Param)

        def cast(path: tuple[Any, ...], param: nnx.Variable) -> nnx.Variable:
            as_is = path[-1] in ("pos_embed", "kernel_scale") or not jnp.issubdtype(param.dtype, jnp.floating)
            if as_is or any(n == "router" or "norm" in str(n) for n in path):
                return param
            return param.replace(param[...].astype(self.dtype))

        return nnx.merge(graphdef, nnx.map_state(cast, params))

    def is_image(self, tokens: jax.Array) -> jax.Array:
        """bool [B,P]: the image tokens among `tokens` int [B,P]."""
        return functools.reduce(operator.or_, [tokens == word for word in self.config.placeholders])

    def feature_numbers(self, is_image: jax.Array) -> jax.Array:
        """Which feature of `encode_images` each image token takes, int [B,P]: one after another."""
        return jnp.cumsum(is_image, axis=1) - 1

    def _narrow(self, ids: jax.Array) -> jax.Array:
        """Numbers of experts in as few bits as there are."""
        assert isinstance(self.config.text, MoETextConfig)  # others have none to be numbered
        return ids.astype(id_dtype(self.config.text.num_experts))

    def _extras(self, said: RouterOutput | None) -> Extras:
        """What routers said, if there are any."""
        if said is None:
            return {}
        assert said.statistics is not None  # they were asked for
        return {
            "router_loss": router_loss(said.statistics),
            "router": said.statistics,
            "routing": Routing(*map(self._narrow, said.ids)),
        }

    def with_images(self, prompts: Prompts, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Embeddings [B,P,D] with image features in place, positions [B,P,3], DeepStack [taps,B,P,D]."""
        tokens = jnp.asarray(prompts.tokens)
        positions = jnp.moveaxis(jnp.asarray(prompts.positions), 1, -1)
        if prompts.patches.shape[1] == 0:  # a batch without room for images
            return x, positions, jnp.zeros((0, *x.shape), x.dtype)
        features, deepstack = self.encode_images(prompts)
        is_image = self.is_image(tokens)
        # A gather, so no shape depends on how many image tokens there are.
        index = jnp.clip(self.feature_numbers(is_image), 0, features.shape[1] - 1)
        x = jnp.where(is_image[..., None], _take_tokens(features, index), x)
        deepstack = jnp.where(is_image[..., None], jax.vmap(_take_tokens, (0, None))(deepstack, index), 0)
        return constrain(x, "activation_batch", None, "activation_embed"), positions, deepstack


def _real_tokens(prompts: Prompts, response_mask: jax.Array | None) -> Counted:
    """Finds the tokens of prompts, and of responses where there are any, that are no padding."""

    def counted(shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
        of_prompts = jnp.arange(shapes[0][1]) < jnp.asarray(prompts.length)[:, None]
        if len(shapes) == 1:
            return [of_prompts]
        everything = jnp.ones(shapes[1], bool)
        return [of_prompts, everything if response_mask is None else (response_mask > 0).reshape(shapes[1])]

    return counted


def _take_tokens(features: jax.Array, index: jax.Array) -> jax.Array:
    """features [B,M,D] at index [B,P]: [B,P,D]."""
    return jnp.take_along_axis(features, index[..., None], axis=1)
