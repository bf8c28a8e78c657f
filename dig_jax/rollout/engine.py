"""Rollout: a group of completions for every prompt, all decoded in step.

Images and prompts are encoded once per prompt; its key/value cache is shared, not copied, by the G
completions. Decoding is one `lax.while_loop` that ends as soon as every completion has. It can be taken on in
parts, as streaming wants; `pool` decodes more completions than fit at a time, of very different lengths.

Shapes: B prompts, G completions per prompt, P padded prompt length, R `max_new_tokens`, D width.
"""

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.models.api import Model, PromptCache, ResponseCache, positions_read
from dig_jax.models.inputs import Prompts
from dig_jax.rollout.routing import KeptRouting
from dig_jax.rollout.sampling import Sampling, sample
from dig_jax.rollout.thinking import Budget


@flax.struct.dataclass
class Rollout:
    """Completions. Everything is zero (tokens: the pad id) after the end of a completion.

    Attributes:
      tokens: int32 `[B, G, R]`.
      mask: float32 `[B, G, R]`, 1 on the tokens of the completion, its end token included.
      logprobs: float32 `[B, G, R]`, under the distribution that was sampled from (the behaviour policy).
      model_logprobs: float32 `[B, G, R]`, under the model itself: no temperature, filter or mask.
      finished: bool `[B, G]`, whether the end token came; False means truncated at R tokens.
      steps: int32 scalar, decoding steps until all had ended, the first token included.
      cache_reads: float32 scalar, how often attention has read the response caches, all R positions of all
        slots; less than `steps` where it read a part of them.
      routing: of prompts and completions; None where it was not asked for.
    """

    tokens: jax.Array
    mask: jax.Array
    logprobs: jax.Array
    model_logprobs: jax.Array
    finished: jax.Array
    steps: jax.Array
    cache_reads: jax.Array
    routing: KeptRouting | None = None


@flax.struct.dataclass
class Decoding:
    """A rollout under way, from `start`; `advance` takes it on.

    Attributes:
      rollout: the completions as far as they are.
      prompt_cache: of the prompts.
      cache: of the completions.
    """

    rollout: Rollout
    prompt_cache: PromptCache
    cache: ResponseCache


def sample_keys(
    seed_key: jax.Array, step: jax.Array | int, sample_indices: jax.typing.ArrayLike
) -> jax.Array:
    """One key per sample, a function of the seed, the training step and the sample's own index only.

    Args:
      seed_key: the run's typed PRNG key.
      step: training step.
      sample_indices: int `[...]`, unique within the step (such as prompt number * G + completion number).
    """
    fold = jax.random.fold_in(seed_key, step)
    indices = jnp.asarray(sample_indices)
    keys = jax.vmap(lambda index: jax.random.fold_in(fold, index))(indices.reshape(-1))
    return keys.reshape(indices.shape)


def rollout(
    model: Model,
    prompts: Prompts,
    keys: jax.Array,
    *,
    sampling: Sampling,
    max_new_tokens: int,
    budget: Budget | None = None,
) -> Rollout:
    """Samples G completions of every prompt.

    Traceable, and meant to be compiled: `jax.jit(rollout, static_argnames=("sampling", "max_new_tokens"))`.
    A completion depends on its prompt and its key alone, whatever else is in the batch.

    Args:
      model: the policy.
      prompts: B right-padded prompts.
      keys: typed PRNG keys `[B, G]` (see `sample_keys`); their shape says how many completions to draw.
      sampling: the distribution to draw from.
      max_new_tokens: R, the most tokens a completion may have.
      budget: of thought, `[B, G]`; None for as much as there is.
    """
    decoding = start(model, prompts, keys, sampling=sampling, max_new_tokens=max_new_tokens)
    return advance(model, decoding, keys, max_new_tokens, sampling=sampling, budget=budget).rollout


def start(
    model: Model,
    prompts: Prompts,
    keys: jax.Array,
    *,
    sampling: Sampling,
    max_new_tokens: int,
) -> Decoding:
    """Reads the prompts and draws the first token of every completion; arguments as for `rollout`."""
    batch, group = keys.shape
    prompt_hidden, prompt_cache = model.prefill(prompts)
    last = jnp.take_along_axis(prompt_hidden, prompts.length[:, None, None] - 1, axis=1)  # [B, 1, D]
    state = _record(
        _empty(batch, group, max_new_tokens, sampling.pad_id),
        jnp.int32(0),
        sample(model.logits(last), keys, 0, sampling),  # the head runs once per prompt, not per completion
        sampling,
        read=jnp.float32(0),
    )
    return Decoding(state, prompt_cache, model.init_response_cache(batch, group, max_new_tokens))


def advance(
    model: Model,
    decoding: Decoding,
    keys: jax.Array,
    until: jax.Array | int,
    *,
    sampling: Sampling,
    budget: Budget | None = None,
) -> Decoding:
    """Decodes all completions in step, until they have `until` tokens or all have ended.

    The tokens are those of one `rollout`, however many calls they are spread over. Traceable; donate
    `decoding` to update its caches in place.

    Args:
      model: as at the `start`.
      decoding: from `start` or `advance`.
      keys: as at the `start`.
      until: int32 scalar; beyond `max_new_tokens` it means that.
      sampling: as at the `start`.
      budget: of thought, the same in all calls; the first token is never past it.
    """
    longest = decoding.rollout.tokens.shape[-1]
    until, block = jnp.minimum(until, longest), model.cache_block(longest)

    def read(filled: jax.Array) -> jax.Array:
        """The share of a cache that is read where so many tokens are filled."""
        return jnp.float32(1) if block is None else positions_read(filled, block, longest) / longest

    def unfinished(carry: tuple[Rollout, ResponseCache]) -> jax.Array:
        state, _ = carry
        return (state.steps < until) & ~jnp.all(state.finished)

    def decode(carry: tuple[Rollout, ResponseCache]) -> tuple[Rollout, ResponseCache]:
        state, cache = carry
        fed = jax.lax.dynamic_index_in_dim(state.tokens, state.steps - 1, axis=2, keepdims=False)
        hidden, cache = model.decode(fed, state.steps - 1, decoding.prompt_cache, cache)
        forced = budget.forced(state.tokens, state.steps) if budget else None
        drawn = sample(model.logits(hidden), keys, state.steps, sampling, forced)
        return _record(state, state.steps, drawn, sampling, read(state.steps - 1)), cache

    state, cache = jax.lax.while_loop(unfinished, decode, (decoding.rollout, decoding.cache))
    return Decoding(state, decoding.prompt_cache, cache)


def is_end(tokens: jax.Array, sampling: Sampling) -> jax.Array:
    """Bool, in the shape of `tokens`: those that end a completion."""
    return jnp.isin(tokens, jnp.array(sampling.eos_ids, jnp.int32))


def _empty(batch: int, group: int, length: int, pad_id: int) -> Rollout:
    zeros = jnp.zeros((batch, group, length), jnp.float32)
    return Rollout(
        tokens=jnp.full((batch, group, length), pad_id, jnp.int32),
        mask=zeros,
        logprobs=zeros,
        model_logprobs=zeros,
        finished=jnp.zeros((batch, group), bool),
        steps=jnp.int32(0),
        cache_reads=jnp.float32(0),
    )


def _record(
    state: Rollout,
    step: jax.Array,
    drawn: tuple[jax.Array, jax.Array, jax.Array],
    sampling: Sampling,
    read: jax.Array,
) -> Rollout:
    """Writes token number `step` of the completions that are still running, and notes which end with it.

    `read` is the share of the response caches that it took.
    """
    tokens, logprobs, model_logprobs = drawn
    running = ~state.finished

    def write(buffer: jax.Array, values: jax.Array, blank: float) -> jax.Array:
        values = jnp.where(running, values, blank).astype(buffer.dtype)
        return jax.lax.dynamic_update_index_in_dim(buffer, values, step, axis=2)

    return Rollout(
        tokens=write(state.tokens, tokens, sampling.pad_id),
        mask=write(state.mask, running, 0),
        logprobs=write(state.logprobs, logprobs, 0),
        model_logprobs=write(state.model_logprobs, model_logprobs, 0),
        finished=state.finished | is_end(tokens, sampling),
        steps=step + 1,
        cache_reads=state.cache_reads + read,
    )
