"""A pool of slots that decode completions of many prompts, refilled as completions end.

The keys and values of some prompts are at hand in rows, once each. Any slot decodes a completion of any of
them (`schedule`), and takes the next one, of whichever prompt, as soon as it is free; a prompt whose
completions are done makes room for the next. So neither slots nor rows wait for the longest completion of a
group, and the caches are as large as the pool, however many prompts there are. All of it is one compiled loop
without the host. What a completion is depends on its prompt and key alone, not on when and where it was
decoded.

How a slot reads its prompt (`models.nn.readers`): its query goes to the prompt's row and what it read comes
back, a few kilobytes; one product serves all slots at a row, and the prompt's keys and values are read once.
A slot with keys and values of its own copy of the prompt would read 4 to 8 times as many, and hold them; to
gather them from the rows for every token would write them besides. Slots that are bound to a row, as they
once were, read as little and stand idle while others of their prompt go on: `bench.schedule` counts it.

Where the model has a kernel that reads what is filled (`Model.cache_block`), a slot reads the blocks that its
own completion fills. Else attention reads a window of the response cache: the first of a few lengths that
holds all running completions, so that short ones do not pay for the longest there could be.

Shape letters: D data shards; of each: B prompts, A rows, N slots; G completions per prompt, R
`max_new_tokens`. A completion's number is prompt * G + its place in the group.
"""

import dataclasses
from functools import partial
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.models.api import Model, PromptCache, ResponseCache, positions_read
from dig_jax.models.inputs import Prompts
from dig_jax.rollout import routing as experts
from dig_jax.rollout.engine import Rollout, is_end
from dig_jax.rollout.sampling import Sampling, sample
from dig_jax.rollout.schedule import Schedule
from dig_jax.rollout.thinking import Budget

SHORTEST_WINDOW = 256  # of the response cache; each next one is twice as long


@flax.struct.dataclass
class Pool:
    """A rollout under way, from `fill`; `drain` completes it.

    Attributes:
      drawn: the completions as far as they are; [D,B*G,...] where a finished rollout has [B,G,...], and
        [D,B,...] for what it has of prompts.
      schedule: what is in the slots and rows.
      token: int32 [D,N], the last one of the completion in each slot.
      prompts: caches of all D * B prompts; None when each has a row of its own.
      rows: caches of the prompts in the D * A rows.
      cache: of the completions in the D * N slots.
      budget: of thought, [D,B*G]; None for as much as there is.
    """

    drawn: Rollout
    schedule: Schedule
    token: jax.Array
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
      slots: N / A, completions that are decoded at a time, of a prompt on average.
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

    schedule = Schedule.begin(shards, total // shards, group, rows // shards, rows // shards * slots)
    waiting = rows < total
    return Pool(
        drawn=Rollout(
            tokens=results(first[0], sampling.pad_id),
            mask=results(jnp.ones_like(first[1]), 0),
            logprobs=results(first[1], 0),
            model_logprobs=results(first[2], 0),
            finished=is_end(first[0], sampling),
            steps=jnp.int32(1),
            cache_reads=jnp.float32(0),
            routing=experts.begin(cache, shards, first[0].shape[1], max_new_tokens) if routing else None,
        ),
        schedule=schedule,
        token=_pick(first[0], schedule.completion),
        prompts=cache if waiting else None,
        rows=_take_prompts(cache, schedule.prompt) if waiting else cache,
        cache=model.init_response_cache(rows * slots, 1, max_new_tokens),
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
    block = model.cache_block(longest)
    windows = windows_of(longest) if block is None else [longest]
    shard_keys = keys.reshape(shards, completions)

    def window_number(pool: Pool) -> jax.Array:
        return jnp.searchsorted(jnp.array(windows), jnp.max(pool.schedule.fed))

    def decode(pool: Pool, number: int) -> Pool:
        def goes_on(pool: Pool) -> jax.Array:
            schedule = pool.schedule
            wanted = schedule.is_running() & ~schedule.wants_prompts()
            return wanted & (window_number(pool) == number)

        step = partial(_step, model, shard_keys, sampling, windows[number], block)
        return jax.lax.while_loop(goes_on, step, pool)

    def go_on(pool: Pool) -> Pool:
        pool = _refill_rows(pool)
        # One loop after another, of which those with another window end at once. A switch between them would
        # have the TPU compiler copy the caches for every token.
        for number in range(len(windows)):
            pool = decode(pool, number)
        return pool

    return jax.lax.while_loop(lambda pool: pool.schedule.is_running(), go_on, pool)


def windows_of(longest: int) -> list[int]:
    """How many positions of a response cache may be read, ascending; the last is all of them."""
    windows = [longest]
    while windows[0] > SHORTEST_WINDOW:
        windows.insert(0, -(-windows[0] // 2))
    return windows


def to_rollout(pool: Pool, group: int) -> Rollout:
    """What was drawn so far, [D*B,G,...] for G = `group`."""
    drawn = dataclasses.replace(pool.drawn, routing=None)
    # All but the counters, which are one for all.
    drawn = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[2:]) if x.ndim else x, drawn)
    return dataclasses.replace(drawn, routing=experts.join_shards(pool.drawn.routing, group))


def _step(
    model: Model, keys: jax.Array, sampling: Sampling, window: int, block: int | None, pool: Pool
) -> Pool:
    """One more token in every slot."""
    schedule, drawn = pool.schedule, pool.drawn
    longest = drawn.tokens.shape[2]
    flat = (-1, 1)  # [D*N,1]
    hidden, cache = model.decode(
        pool.token.reshape(flat),
        schedule.fed.reshape(flat),
        pool.rows,
        pool.cache,
        window=window,
        readers=schedule.readers(),
    )
    sampled = sample(
        model.logits(hidden),
        _pick(keys, schedule.completion).reshape(flat),
        schedule.length.reshape(flat),
        sampling,
        _forced(pool, flat),
    )
    tokens, logprobs, model_logprobs = (x.reshape(pool.token.shape) for x in sampled)
    # A completion whose first token ended it, or is all it may have, was put into a slot for nothing.
    running = ~_pick(drawn.finished, schedule.completion) & (schedule.length < longest)
    ends = is_end(tokens, sampling)
    read = window if block is None else jnp.mean(positions_read(schedule.fed, block, longest))
    # Nowhere for idle slots: writing to completion B * G is dropped.
    target = jnp.where(running, schedule.completion, schedule.completions)

    def write(buffer: jax.Array, values: jax.Array, at: jax.Array = schedule.length) -> jax.Array:
        def one_shard(buffer: jax.Array, which: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
            return buffer.at[which, at].set(values, mode="drop")

        return jax.vmap(one_shard)(buffer, target, at, values)

    routing = drawn.routing
    if routing is not None:  # of the token that was fed, which is the one before
        fed = schedule.fed
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
            cache_reads=drawn.cache_reads + read / longest,
            routing=routing,
        ),
        cache=cache,
        token=tokens,
        schedule=dataclasses.replace(schedule, length=schedule.length + 1),
    )
    free = ~running | ends | (schedule.length + 1 == longest)
    return _begin(pool, pool.schedule.take_completions(free))


def _forced(pool: Pool, flat: tuple[int, int]) -> jax.Array | None:
    """Tokens [D*N,1] that the budget of thought asks for, -1 for none; None where there is no budget."""
    if pool.budget is None:
        return None
    completion = pool.schedule.completion
    budget = jax.tree.map(lambda tokens: _pick(tokens, completion), pool.budget)
    return budget.forced(_pick(pool.drawn.tokens, completion), pool.schedule.length).reshape(flat)


def _begin(pool: Pool, schedule: Schedule) -> Pool:
    """The pool with another schedule, in which some completions begin: their first tokens are drawn."""
    first = _pick(pool.drawn.tokens[..., 0], schedule.completion)
    return dataclasses.replace(
        pool, schedule=schedule, token=jnp.where(schedule.length == 1, first, pool.token)
    )


def _refill_rows(pool: Pool) -> Pool:
    """Gives the next prompts to the rows that are done with theirs, and their completions to idle slots."""
    if pool.prompts is None:
        return pool
    schedule, fresh = pool.schedule.take_prompts()
    rows = jax.tree.map(
        lambda new, old, axis: jnp.where(_along(fresh.reshape(-1), new.ndim, axis), new, old),
        _take_prompts(pool.prompts, schedule.prompt),
        pool.rows,
        _batch_axes(pool.rows),
    )
    return _begin(dataclasses.replace(pool, rows=rows), schedule)


def _pick(values: jax.Array, completion: jax.Array) -> jax.Array:
    """values [D,B*G] of the completions [D,N]; those that do not exist get some other's."""
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
