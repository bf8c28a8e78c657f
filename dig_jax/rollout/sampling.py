"""Drawing the next token from logits: temperature, top-k, top-p, and the tokens that are never drawn.

Shapes: `...` any batch shape, V rows of the output head (at least the tokenizer's vocabulary).
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dig_jax.machines import checks
from dig_jax.models.nn.sampling_copy import LAYERS, WEIGHT_DTYPES


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How many completions are drawn, how long, and from what. Defaults live in `configs/base.py`.

    Attributes:
      group_size: G, completions per prompt.
      slots: completions decoded at a time, for each of the `rows`; 0 = G. Any slot takes any completion.
      rows: prompts decoded at a time, over all devices; 0 = all that are sampled together.
      layers, weight_dtype: of the copy of the weights, see `sampling_copy.Form`.
      max_new_tokens: R, of a completion.
      temperature, top_p, top_k: as in `Sampling`.
    """

    group_size: int
    slots: int
    rows: int
    layers: str
    weight_dtype: str
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "RolloutConfig":
        """The checked settings of a run or stage; `rollout.mesh` is checked where devices are known."""
        settings = config.rollout.to_dict()
        del settings["mesh"]
        return cls(**settings)

    def __post_init__(self) -> None:
        checks.at_least("rollout.group_size", self.group_size, 1)
        checks.at_least("rollout.max_new_tokens", self.max_new_tokens, 1)
        checks.within("rollout.slots", self.slots, 0, self.group_size, "rollout.group_size", "all")
        checks.at_least("rollout.rows", self.rows, 0, "all")
        checks.one_of("rollout.layers", self.layers, LAYERS)
        checks.one_of("rollout.weight_dtype", self.weight_dtype, WEIGHT_DTYPES)
        checks.at_least("rollout.temperature", self.temperature, 0, "greedy")
        checks.above("rollout.top_p", self.top_p, 0)
        checks.within("rollout.top_p", self.top_p, 0, 1)
        checks.at_least("rollout.top_k", self.top_k, 0, "off")

    def check_weighed(self, importance_cap: float) -> None:
        """Refuses rounded weights to sample with where no importance weights correct for them."""
        if self.weight_dtype and not importance_cap:
            raise ValueError(
                f"config.rollout.weight_dtype={self.weight_dtype!r} samples from another policy than the"
                " trainer's: weigh its tokens (config.grpo.importance_cap=2.0; GSPO has no such weights), or"
                " set it to ''"
            )


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Hashable: it is a static argument of the compiled rollout.

    The filters are those of `transformers` and run in its order: temperature, then top-k, then top-p.

    Attributes:
      temperature: divides the logits; 0 means greedy (the most probable token, the first one on a tie).
      top_p: keep the smallest set of most probable tokens whose mass reaches `top_p`; 1.0 turns it off.
      top_k: keep the `top_k` most probable tokens; 0 turns it off.
      eos_ids: tokens that end a completion. They belong to it: they are scored and trained on.
      suppressed: tokens that are never drawn (image, video, vision and padding tokens). A sampled image
        token would have no image behind it.
      vocab_size: number of tokens the tokenizer knows; rows of the head beyond it are never drawn.
      pad_id: written after the end of a completion.
    """

    temperature: float
    top_p: float
    top_k: int
    eos_ids: tuple[int, ...]
    suppressed: tuple[int, ...]
    vocab_size: int
    pad_id: int

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"sampling.temperature is {self.temperature}; expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p is {self.top_p}; expected 0 < top_p <= 1 (1 turns it off)")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k is {self.top_k}; expected 0 (off) or more")
        if not self.eos_ids:
            raise ValueError("sampling.eos_ids is empty: no completion could ever end")
        for key in ("eos_ids", "suppressed"):
            outside = [token for token in getattr(self, key) if not 0 <= token < self.vocab_size]
            if outside:
                raise ValueError(f"sampling.{key} has {outside}, outside the vocabulary of {self.vocab_size}")
        if clash := sorted(set(self.eos_ids) & set(self.suppressed)):
            raise ValueError(f"sampling.suppressed contains the end tokens {clash}: no completion could end")

    def allowed(self, num_logits: int) -> np.ndarray:
        """Bool `[V]`: the tokens that can be drawn. The trainer's log-probs must use this same mask.

        Raises:
          ValueError: the head has fewer rows than the tokenizer has tokens.
        """
        if num_logits < self.vocab_size:
            raise ValueError(
                f"the model's head has {num_logits} rows but sampling.vocab_size is {self.vocab_size}: "
                "this tokenizer does not belong to this model"
            )
        allowed = np.arange(num_logits) < self.vocab_size
        allowed[list(self.suppressed)] = False
        return allowed


def filter_top_k(logits: jax.Array, k: int) -> jax.Array:
    """Sets all but the `k` highest of `[..., V]` logits to -inf; ties with the k-th are kept."""
    kth = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits < kth, -jnp.inf, logits)


def filter_top_p(logits: jax.Array, p: float, *, candidates: int = 0) -> jax.Array:
    """Keeps the smallest set of most probable tokens with mass >= `p`; the others become -inf.

    As in `transformers`: in ascending order, tokens with cumulative probability <= 1 - p are dropped and the
    last is always kept. Unlike there, tokens tied with the least probable one kept are all kept.

    Args:
      logits: `[..., V]`.
      p: 0 < p <= 1.
      candidates: how many of the highest logits hold all the mass, where known (after top-k), so that only
        those need sorting; 0 sorts the whole vocabulary.
    """
    if candidates:
        ascending = jax.lax.top_k(logits, min(candidates, logits.shape[-1]))[0][..., ::-1]
    else:
        ascending = jnp.sort(logits, axis=-1)
    dropped = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1) <= 1 - p
    dropped = dropped.at[..., -1].set(False)
    threshold = jnp.min(jnp.where(dropped, jnp.inf, ascending), axis=-1, keepdims=True)
    return jnp.where(logits < threshold, -jnp.inf, logits)


def warp(logits: jax.Array, sampling: Sampling) -> jax.Array:
    """The float32 `[..., V]` logits of the distribution that is sampled from (temperature > 0)."""
    logits = jnp.where(sampling.allowed(logits.shape[-1]), logits, -jnp.inf) / sampling.temperature
    if sampling.top_k:
        logits = filter_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = filter_top_p(logits, sampling.top_p, candidates=sampling.top_k)
    return logits


def sample(
    logits: jax.Array,
    keys: jax.Array,
    step: jax.Array | int,
    sampling: Sampling,
    forced: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws one token per row; the noise depends on the row's own key and `step` alone.

    Args:
      logits: `[..., V]`, as the model gave them; float32 inside. May have size 1 where `keys` has more.
      keys: typed PRNG keys `[...]`, one per completion.
      step: index of the token in its completion, scalar or `[...]`.
      sampling: the distribution.
      forced: int32 `[...]`, tokens to take instead of drawing; -1 where to draw.

    Returns:
      tokens int32 `[...]`; their log-probs float32 `[...]` under the distribution sampled from (0 when
      greedy or forced: all its mass is on one token); their log-probs under the untempered, unmasked model.
    """
    logits = logits.astype(jnp.float32)
    if sampling.temperature == 0:
        masked = jnp.where(sampling.allowed(logits.shape[-1]), logits, -jnp.inf)
        tokens = jnp.broadcast_to(jnp.argmax(masked, axis=-1), keys.shape).astype(jnp.int32)
        logprobs = jnp.zeros(keys.shape, jnp.float32)
    else:
        warped = warp(logits, sampling)
        noise = _gumbel(keys, step, logits.shape[-1])
        tokens = jnp.argmax(warped + noise, axis=-1).astype(jnp.int32)
        logprobs = _log_prob(warped, tokens)
    if forced is not None:
        tokens = jnp.where(forced < 0, tokens, forced)
        logprobs = jnp.where(forced < 0, logprobs, 0.0)
    return tokens, logprobs, _log_prob(logits, tokens)


@flax.struct.dataclass
class SamplingOfEach:
    """Distributions of completions that are decoded together, each its own; a program serves all values.

    Attributes:
      temperature: float32 `[...]`; 0 is greedy.
      tail: float32 `[...]`, 1 - top_p: the mass that may be left out; 0 turns the filter off.
      top_k: int32 `[...]`; 0 turns it off.
    """

    temperature: Any
    tail: Any
    top_k: Any

    @classmethod
    def of(cls, sampling: Sampling) -> "SamplingOfEach":
        """Temperature and filters of one, arrays of no dimension."""
        return cls(np.float32(sampling.temperature), np.float32(1 - sampling.top_p), np.int32(sampling.top_k))


def sample_each(
    logits: jax.Array,
    keys: jax.Array,
    step: jax.Array,
    each: SamplingOfEach,
    common: Sampling,
    forced: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row from the row's own distribution: what `sample` draws with its settings.

    Args:
      logits: `[A, V]`, as the model gave them; float32 inside.
      keys: typed PRNG keys `[A]`.
      step: int32 `[A]`, index of the token in its completion.
      each: the distributions, `[A]`.
      common: which tokens can be drawn.
      forced: as for `sample`.

    Returns:
      tokens int32 `[A]`, and their log-probs float32 `[A]` under the untempered, unmasked model.
    """
    logits = logits.astype(jnp.float32)
    masked = jnp.where(common.allowed(logits.shape[-1]), logits, -jnp.inf)
    greedy = jnp.argmax(masked, axis=-1).astype(jnp.int32)
    draws = each.temperature > 0

    def draw() -> jax.Array:
        warped = masked / jnp.where(draws, each.temperature, 1)[:, None]
        filters = draws & ((each.top_k > 0) | (each.tail > 0))
        # Sorting a vocabulary costs more than the rest of a draw: only where a row asks for it.
        warped = jax.lax.cond(jnp.any(filters), _filter_each, lambda x, _: x, warped, each)
        drawn = jnp.argmax(warped + _gumbel(keys, step, logits.shape[-1]), axis=-1)
        return jnp.where(draws, drawn.astype(jnp.int32), greedy)

    tokens = jax.lax.cond(jnp.any(draws), draw, lambda: greedy)
    if forced is not None:
        tokens = jnp.where(forced < 0, tokens, forced)
    return tokens, _log_prob(logits, tokens)


def _filter_each(logits: jax.Array, each: SamplingOfEach) -> jax.Array:
    """Top-k and then top-p of every row of `[A, V]` as it asks, as `filter_top_k` and `filter_top_p` do."""
    size = logits.shape[-1]
    ascending = jnp.sort(logits, axis=-1)
    k = jnp.where(each.top_k > 0, jnp.minimum(each.top_k, size), size)[:, None]
    kth = jnp.take_along_axis(ascending, size - k, axis=-1)
    logits = jnp.where(logits < kth, -jnp.inf, logits)
    ascending = jnp.where(jnp.arange(size) < size - k, -jnp.inf, ascending)
    tail = each.tail[:, None]
    dropped = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1) <= tail
    dropped = dropped.at[:, -1].set(False)
    threshold = jnp.min(jnp.where(dropped, jnp.inf, ascending), axis=-1, keepdims=True)
    return jnp.where((tail > 0) & (logits < threshold), -jnp.inf, logits)


def _gumbel(keys: jax.Array, step: jax.Array | int, size: int) -> jax.Array:
    """Standard Gumbel noise `[..., size]`, a function of each key and its step (the Gumbel-max trick)."""
    steps = jnp.broadcast_to(step, keys.shape).reshape(-1)
    noise = jax.vmap(lambda key, t: jax.random.gumbel(jax.random.fold_in(key, t), (size,)))
    return noise(keys.reshape(-1), steps).reshape(*keys.shape, size)


def _log_prob(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    logits = jnp.broadcast_to(logits, (*tokens.shape, logits.shape[-1]))
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
