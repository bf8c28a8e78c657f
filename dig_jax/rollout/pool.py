"""A pool of slots that decode completions of many prompts, refilled as completions end.

A row of the pool holds one prompt, whose keys and values its S slots share. When a completion ends, its slot
takes the next one of the same prompt; when all completions of a prompt are done, its row takes the next
prompt that waits. So neither a slot nor a row waits for the longest completion of a batch, and the caches
are as large as the pool, however many prompts there are. All of it is one compiled loop without the host.

Every data shard has rows, prompts and a queue of its own, so refilling moves nothing between devices. What a
completion is depends on its prompt and key alone, not on when and where it was decoded.

Attention reads a window of the response cache: the first of a few lengths that holds all running completions,
so that short ones do not pay for the longest there could be.

Shape letters: D data shards; of each shard: B prompts, A rows; G completions per prompt, S slots per row,
R `max_new_tokens`. A completion's number is prompt * G + its place in the group.
"""

import dataclasses
from functools import partial
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.models.api import Model, PromptCache, ResponseCache
from dig_jax.models.inputs import Prompts
from dig_jax.rollout import routing as experts
from dig_jax.rollout.engine import Rollout, is_end
from dig_jax.rollout.sampling import Sampling, sample
from dig_jax.rollout.thinking import Budget

SHORTEST_WINDOW = 256  # of the response cache; each next one is twice as long


@flax.struct.dataclass
class Slots:
    """What the slots are doing.

    Attributes:
      prompt: int32 [D,A], the prompt in each row.
      untaken: int32 [D,A], how many completions of it have been given to slots.
      completion: int32 [D,A,S], the completion in each slot; B * G when there is none.
      length: int32 [D,A,S], tokens it has.
      token: int32 [D,A,S], the last of them.
      next_prompt: int32 [D], the first prompt that no row has taken.
    """

    prompt: jax.Array
    untaken: jax.Array
    completion: jax.Array
    length: jax.Array
    token: jax.Array
    next_prompt: jax.Array


@flax.struct.dataclass
class Pool:
    """A rollout under way, from `fill`; `drain` completes it.

    Attributes:
      drawn: the completions as far as they are; [D,B*G,...] where a finished rollout has [B,G,...], and
        [D,B,...] for what it has of prompts.
      slots: see `Slots`.
      prompts: caches of all D * B prompts; None when each has a row of its own.
      rows: caches of the prompts in the D * A rows.
      cache: of the completions in the slots.
      budget: of thought, [D,B*G]; None for as much as there is.
    """

    drawn: Rollout
    slots: Slots
    prompts: PromptCache | None
    rows: PromptCache
    cache: ResponseCache
    budget: Budget | None


def fill(
    model: Model,
    prompts: Prompts,
    keys: jax.Array,
    *,
    sampling: Sampling,
    max_new_tokens: int,
    slots: int,
    rows: int,
    shards: int,
    budget: Budget | None = None,
    routing: bool = False,
) -> Pool:
    """Reads the prompts, draws the first token of every completion and fills the pool.

    Args:
      model: the policy.
      prompts: D * B right-padded prompts, those of a shard together.
      keys: typed PRNG keys [D*B,G], one per completion.
      sampling: the distribution to draw from.
      max_new_tokens: R.
      slots: S, completions of a prompt that are decoded at a time.
      rows: D * A, prompts that are in the pool at a time.
      shards: D.
      budget: of thought, [D*B,G]; None for as much as there is. The first token is never past it.
      routing: keep which experts the tokens went to.

    Raises:
      ValueError: there are more slots than completions, or D does not divide the rows or they the prompts; or
        the model has no experts to keep.
    """
    total, group = keys.shape
    if not 1 <= slots <= group:
        raise ValueError(f"slots is {slots}; expected 1 to the {group} completions per prompt")
    if not 1 <= rows <= total or rows % shards or total % rows:
        raise ValueError(
            f"rows is {rows}; expected a multiple of {shards} shards that divides the {total} prompts"
        )
    last, cache = _prefill(model, prompts, rows, shards)
    # The head runs once per prompt for the first tokens, not once per completion.
    first = [x.reshape(shards, -1) for x in sample(model.logits(last), keys, 0, sampling)]

    def results(values: jax.Array, blank: float) -> jax.Array:
        rest = jnp.full((*values.shape, max_new_tokens - 1), blank, values.dtype)
        return jnp.concatenate([values[..., None], rest], axis=-1)

    per_shard, waiting = rows // shards, rows < total
    own = jnp.broadcast_to(jnp.arange(per_shard), (shards, per_shard))
    completion = own[..., None] * group + jnp.arange(slots)  # [D,A,S]
    return Pool(
        drawn=Rollout(
            tokens=results(first[0], sampling.pad_id),
            mask=results(jnp.ones_like(first[1]), 0),
            logprobs=results(first[1], 0),
            model_logprobs=results(first[2], 0),
            finished=is_end(first[0], sampling),
            steps=jnp.int32(1),
            routing=experts.begin(cache, shards, first[0].shape[1], max_new_tokens) if routing else None,
        ),
        slots=Slots(
            prompt=own,
            untaken=jnp.full_like(own, slots),
            completion=completion,
            length=jnp.ones_like(completion),
            token=_pick(first[0], completion),
            next_prompt=jnp.full(shards, per_shard, jnp.int32),
        ),
        prompts=cache if waiting else None,
        rows=_take_prompts(cache, own) if waiting else cache,
        cache=model.init_response_cache(rows, slots, max_new_tokens),
        budget=jax.tree.map(lambda x: jnp.asarray(x).reshape(shards, -1), budget),
    )


def _prefill(model: Model, prompts: Prompts, rows: int, shards: int) -> tuple[jax.Array, PromptCache]:
    """Reads as many prompts at a time as there are rows: last hidden states [D*B,1,width], and caches."""
    num_parts = prompts.length.shape[0] // rows

    def read(part: Prompts) -> tuple[jax.Array, PromptCache]:
        hidden, cache = model.prefill(part)
        return jnp.take_along_axis(hidden, part.length[:, None, None] - 1, axis=1), cache

    if num_parts == 1:
        return read(prompts)

    def split(x: jax.Array) -> jax.Array:
        """[D*B,...] to [parts,D*A,...], every part with A prompts of each shard."""
        parts = jnp.asarray(x).reshape(shards, num_parts, rows // shards, *x.shape[1:])
        return jnp.moveaxis(parts, 1, 0).reshape(num_parts, rows, *x.shape[1:])

    def join(x: jax.Array, axis: int) -> jax.Array:
        """The inverse, where the prompts are on `axis` of each part."""
        x = jnp.moveaxis(x, 0, axis)  # [...,parts,D*A,...]
        parts = x.reshape(*x.shape[:axis], num_parts, shards, -1, *x.shape[axis + 2 :])
        parts = jnp.moveaxis(parts, axis, axis + 1)
        return parts.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

    last, cache = jax.lax.map(read, jax.tree.map(split, prompts))
    return join(last, 0), jax.tree.map(join, cache, _batch_axes(cache))


def drain(model: Model, pool: Pool, keys: jax.Array, *, sampling: Sampling) -> Rollout:
    """Decodes all completions to their ends: `run`, and `to_rollout` of what it gives."""
    return to_rollout(run(model, pool, keys, sampling=sampling), keys.shape[1])


def run(model: Model, pool: Pool, keys: jax.Array, *, sampling: Sampling) -> Pool:
    """Decodes until all completions have ended. Traceable; a donated `pool` is updated in place.

    Args:
      model: as for `fill`.
      pool: from `fill`.
      keys: as for `fill`.
      sampling: as for `fill`.
    """
    shards, completions, longest = pool.drawn.tokens.shape
    windows = [longest]
    while windows[0] > SHORTEST_WINDOW:
        windows.insert(0, -(-windows[0] // 2))
    shard_keys = keys.reshape(shards, completions)

    def window_number(pool: Pool) -> jax.Array:
        running = pool.slots.completion < completions
        fed = jnp.max(jnp.where(running, pool.slots.length - 1, 0))
        return jnp.searchsorted(jnp.array(windows), fed)

    def decode(pool: Pool, number: int) -> Pool:
        def goes_on(pool: Pool) -> jax.Array:
            return _is_running(pool) & (window_number(pool) == number) & ~jnp.any(_free_rows(pool))

        step = partial(_step, model, shard_keys, sampling, windows[number])
        return jax.lax.while_loop(goes_on, step, pool)

    def go_on(pool: Pool) -> Pool:
        pool = _refill_rows(pool)
        # One loop after another, of which those with another window end at once. A switch between them would
        # have the TPU compiler copy the caches for every token.
        for number in range(len(windows)):
            pool = decode(pool, number)
        return pool

    return jax.lax.while_loop(_is_running, go_on, pool)


def to_rollout(pool: Pool, group: int) -> Rollout:
    """What was drawn so far, [D*B,G,...] for G = `group`."""
    drawn = dataclasses.replace(pool.drawn, routing=None)
    # All but the number of steps, which is one for all.
    drawn = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[2:]) if x.ndim else x, drawn)
    return dataclasses.replace(drawn, routing=experts.join_shards(pool.drawn.routing, group))


def _step(model: Model, keys: jax.Array, sampling: Sampling, window: int, pool: Pool) -> Pool:
    """One more token in every slot."""
    slots, drawn = pool.slots, pool.drawn
    shards, completions, longest = drawn.tokens.shape
    flat = (-1, slots.completion.shape[-1])  # [D*A,S]
    hidden, cache = model.decode(
        slots.token.reshape(flat), slots.length.reshape(flat) - 1, pool.rows, pool.cache, window=window
    )
    sampled = sample(
        model.logits(hidden),
        _pick(keys, slots.completion).reshape(flat),
        slots.length.reshape(flat),
        sampling,
        _forced(pool, flat),
    )
    tokens, logprobs, model_logprobs = (x.reshape(slots.token.shape) for x in sampled)
    # A completion whose first token ended it, or is all it may have, was put into a slot for nothing.
    running = ~_pick(drawn.finished, slots.completion) & (slots.length < longest)
    ends = is_end(tokens, sampling)
    # Nowhere for idle slots: writing to completion B * G is dropped.
    target = jnp.where(running, slots.completion, completions)

    def write(buffer: jax.Array, values: jax.Array, at: jax.Array = slots.length) -> jax.Array:
        def one_shard(buffer: jax.Array, which: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
            return buffer.at[which, at].set(values, mode="drop")

        return jax.vmap(one_shard)(buffer, target, at, values)

    routing = drawn.routing
    if routing is not None:  # of the token that was fed, which is the one before
        fed = slots.length - 1
        chosen = experts.of_step(cache, fed.reshape(flat)).reshape(*fed.shape, *routing.responses.shape[3:])
        routing = dataclasses.replace(routing, responses=write(routing.responses, chosen, fed))
    finish = jax.vmap(lambda finished, which, ends: finished.at[which].set(ends, mode="drop"))
    pool = dataclasses.replace(
        pool,
        drawn=Rollout(
            tokens=write(drawn.tokens, tokens),
            mask=write(drawn.mask, jnp.ones_like(logprobs)),
            logprobs=write(drawn.logprobs, logprobs),
            model_logprobs=write(drawn.model_logprobs, model_logprobs),
            finished=finish(drawn.finished, target, ends),
            steps=drawn.steps + 1,
            routing=routing,
        ),
        cache=cache,
        slots=dataclasses.replace(slots, token=tokens, length=slots.length + 1),
    )
    return _refill_slots(pool, ~running | ends | (slots.length + 1 == longest))


def _forced(pool: Pool, flat: tuple[int, int]) -> jax.Array | None:
    """Tokens [D*A,S] that the budget of thought asks for, -1 for none; None where there is no budget."""
    if pool.budget is None:
        return None
    slots = pool.slots
    budget = jax.tree.map(lambda tokens: _pick(tokens, slots.completion), pool.budget)
    return budget.forced(_pick(pool.drawn.tokens, slots.completion), slots.length).reshape(flat)


def _refill_slots(pool: Pool, free: jax.Array) -> Pool:
    """Gives the next completions of each row's prompt to its `free` slots; their first tokens are drawn."""
    slots = pool.slots
    group = _group(pool)
    order = jnp.cumsum(free, axis=-1)  # 1 for the first free slot of a row, 2 for the second, ...
    place = slots.untaken[..., None] + order - 1
    taken = jnp.where(place < group, slots.prompt[..., None] * group + place, pool.drawn.tokens.shape[1])
    completion = jnp.where(free, taken, slots.completion)
    return dataclasses.replace(
        pool,
        slots=dataclasses.replace(
            slots,
            completion=completion,
            untaken=jnp.minimum(slots.untaken + order[..., -1], group),
            length=jnp.where(free, 1, slots.length),
            token=jnp.where(free, _pick(pool.drawn.tokens[..., 0], completion), slots.token),
        ),
    )


def _refill_rows(pool: Pool) -> Pool:
    """Gives the next prompts to the rows that are done with theirs, and their completions to the slots."""
    if pool.prompts is None:
        return pool
    slots = pool.slots
    free = _free_rows(pool)
    order = jnp.cumsum(free, axis=-1)
    prompt = slots.next_prompt[:, None] + order - 1
    free &= prompt < _prompts_per_shard(pool)
    prompt = jnp.where(free, prompt, slots.prompt)
    rows = jax.tree.map(
        lambda new, old, axis: jnp.where(_along(free.reshape(-1), new.ndim, axis), new, old),
        _take_prompts(pool.prompts, prompt),
        pool.rows,
        _batch_axes(pool.rows),
    )
    slots = dataclasses.replace(
        slots,
        prompt=prompt,
        untaken=jnp.where(free, 0, slots.untaken),
        next_prompt=slots.next_prompt + jnp.sum(free, axis=-1),
    )
    return _refill_slots(
        dataclasses.replace(pool, rows=rows, slots=slots),
        jnp.broadcast_to(free[..., None], slots.token.shape),
    )


def _is_running(pool: Pool) -> jax.Array:
    return jnp.any(pool.slots.completion < pool.drawn.tokens.shape[1]) | jnp.any(_free_rows(pool))


def _free_rows(pool: Pool) -> jax.Array:
    """bool [D,A]: rows that are done with their prompt while another waits in their shard."""
    idle = jnp.all(pool.slots.completion == pool.drawn.tokens.shape[1], axis=-1)
    return idle & (pool.slots.next_prompt < _prompts_per_shard(pool))[:, None]


def _prompts_per_shard(pool: Pool) -> int:
    every = pool.rows if pool.prompts is None else pool.prompts
    return every.length.shape[0] // pool.drawn.tokens.shape[0]


def _group(pool: Pool) -> int:
    return pool.drawn.tokens.shape[1] // _prompts_per_shard(pool)


def _pick(values: jax.Array, completion: jax.Array) -> jax.Array:
    """values [D,B*G] of the completions [D,A,S]; those that do not exist get some other's."""
    return jax.vmap(lambda values, which: values.at[which].get(mode="clip"))(values, completion)


def _batch_axes(cache: PromptCache) -> Any:
    """The axis of the prompts in each array of a cache of prompts."""
    return PromptCache(*cast(Any, (1, 1, 0, 0, None if cache.routing is None else 1)))


def _take_prompts(cache: PromptCache, prompt: jax.Array) -> PromptCache:
    """Caches of the prompts numbered [D,A] within each shard, of caches of D * B."""
    shards = prompt.shape[0]

    def take(x: jax.Array, axis: int) -> jax.Array:
        split = x.reshape(*x.shape[:axis], shards, -1, *x.shape[axis + 1 :])
        pick = jax.vmap(partial(jnp.take, axis=axis), in_axes=(axis, 0), out_axes=axis)
        return pick(split, prompt).reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])

    return jax.tree.map(take, cache, _batch_axes(cache))


def _along(mask: jax.Array, ndim: int, axis: int) -> jax.Array:
    """mask [n] shaped to broadcast along `axis` of an array of `ndim` dimensions."""
    return mask.reshape([-1 if i == axis else 1 for i in range(ndim)])
