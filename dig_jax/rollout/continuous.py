"""Continuous batching: rows decode together, and each takes a new prompt whenever it is free.

The host says which prompt goes where, and gets the tokens every few steps; `batcher` is that host. Rows, room
for prompts and room for answers are fixed when the programs are made, so one program decodes whatever is in
the rows: each row has its own key, length, temperature, filters and budget of thought, in arrays. What a
completion is depends on its prompt, its key and its settings, not on what is decoded beside it.

`pool` serves training, where all prompts are known before the first token: there the host is not asked.

Shape letters: A rows, P room for a prompt, R room for an answer, K tokens at a time, T alternatives, V
vocabulary.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from dig_jax.machines import parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.api import Model, PromptCache, ResponseCache
from dig_jax.models.inputs import Prompts
from dig_jax.rollout.engine import is_end
from dig_jax.rollout.programs import pool_shardings
from dig_jax.rollout.sampling import Sampling, SamplingOfEach, sample_each
from dig_jax.rollout.thinking import NO_BUDGET, Budget

ALTERNATIVES = 20  # T: the most that OpenAI's interface gives of a token
NO_TOKEN = -1  # behind the end of a completion


@dataclasses.dataclass(frozen=True)
class Room:
    """What the rows hold.

    Attributes:
      rows: A, completions decoded at a time.
      prompt: P, tokens of the longest prompt, those of its images included.
      answer: R, tokens of the longest answer.
      every: K, tokens that are decoded between two looks of the host.
    """

    rows: int
    prompt: int
    answer: int
    every: int


@flax.struct.dataclass
class Row:
    """What a completion is drawn from, besides its prompt: one row of `Rows`.

    Attributes:
      key: uint32, data of its PRNG key.
      sampling: its distribution; every array of no dimension.
      most: int32, tokens it may have.
      thought: int32, its budget of thought.
    """

    key: Any
    sampling: SamplingOfEach
    most: Any
    thought: Any


@flax.struct.dataclass
class Rows:
    """The rows, free ones too.

    Attributes:
      prompts: caches of their prompts.
      cache: of their completions, one each.
      tokens: int32 [A,R], the completions so far.
      length: int32 [A], tokens they have; at least 1.
      of: what each is drawn from, arrays [A,...].
    """

    prompts: PromptCache
    cache: ResponseCache
    tokens: jax.Array
    length: jax.Array
    of: Row


@flax.struct.dataclass
class Drawn:
    """Tokens that came in one call, [A,K] each; of a row, those before its `count`.

    Attributes:
      tokens: int32.
      logprobs: float32, under the model itself: no temperature, filter or mask.
      top_tokens: int32 [A,K,T], the most probable ones, the first first; zeros where nobody asked.
      top_logprobs: float32 [A,K,T].
      count: int32 [A].
    """

    tokens: Any
    logprobs: Any
    top_tokens: Any
    top_logprobs: Any
    count: Any


@dataclasses.dataclass(frozen=True)
class ContinuousPrograms:
    """What is compiled: `advance` once, `read` and `place` for each size that prompts are padded to.

    Attributes:
      mesh: the devices.
      room: what the rows hold.
      empty: weights -> Rows, all of them free.
      read: weights, Prompts of one -> last hidden state [1,1,D], PromptCache.
      place: weights, Rows, number of a row, what `read` gave (2), Row, whether alternatives are wanted ->
        Rows, Drawn [1,1] with the first token; the Rows it was are donated.
      advance: weights, Rows, bool [A] which go on, whether alternatives are wanted -> Rows, Drawn; the Rows
        it was are donated.
    """

    mesh: Mesh
    room: Room
    empty: MeshJit
    read: MeshJit
    place: MeshJit
    advance: MeshJit


def continuous_programs(
    graphdef: nnx.GraphDef,
    params: nnx.State,
    mesh: Mesh,
    room: Room,
    common: Sampling,
    closing: Budget | None,
) -> ContinuousPrograms:
    """Programs on `mesh` for parameters like `params`.

    Args:
      graphdef, params: of a model in the dtype of computation.
      mesh: its devices.
      room: what the rows hold; `rows` is a multiple of the groups of devices (`parallel.data_shards`).
      common: which tokens can be drawn and which end a completion; its temperature and filters do not matter.
      closing: of `thinking.endless_budget`; None for a model that does not think.

    Raises:
      ValueError: the rows do not divide over the groups of devices.
    """
    if room.rows % parallel.data_shards(mesh):
        raise ValueError(
            f"{room.rows} rows do not divide over {parallel.data_shards(mesh)} groups of devices"
        )

    def placed(rows: Rows) -> Rows:
        return jax.lax.with_sharding_constraint(rows, pool_shardings(rows, mesh))

    def empty(weights: nnx.State) -> Rows:
        return placed(_empty(nnx.merge(graphdef, weights), room))

    def read(weights: nnx.State, prompts: Prompts) -> tuple[jax.Array, PromptCache]:
        hidden, cache = nnx.merge(graphdef, weights).prefill(prompts)
        return jnp.take_along_axis(hidden, prompts.length[:, None, None] - 1, axis=1), cache

    def place(
        weights: nnx.State,
        rows: Rows,
        number: jax.Array,
        last: jax.Array,
        prompt: PromptCache,
        row: Row,
        wants_top: jax.Array,
    ) -> tuple[Rows, Drawn]:
        model = nnx.merge(graphdef, weights)
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], row)
        logits = model.logits(last)[:, 0]  # [1,V]
        token, logprob = _sample(logits, one, jnp.zeros(1, jnp.int32), common, None)
        top = _alternatives(logits, wants_top)
        drawn = Drawn(
            token[:, None], logprob[:, None], top[0][:, None], top[1][:, None], jnp.ones(1, jnp.int32)
        )
        return placed(_put(rows, number, prompt, row, token[0])), drawn

    def advance(
        weights: nnx.State, rows: Rows, goes_on: jax.Array, wants_top: jax.Array
    ) -> tuple[Rows, Drawn]:
        model = nnx.merge(graphdef, weights)
        rows, drawn = _advance(model, rows, goes_on, wants_top, room.every, common, closing)
        return placed(rows), drawn

    return ContinuousPrograms(
        mesh=mesh,
        room=room,
        empty=parallel.jit(empty, mesh),
        read=parallel.jit(read, mesh),
        place=parallel.jit(place, mesh, donate_argnums=1),
        advance=parallel.jit(advance, mesh, donate_argnums=1),
    )


def _empty(model: Model, room: Room) -> Rows:
    count, text = room.rows, model.config.text
    shape = (text.num_hidden_layers, count, text.num_key_value_heads, room.prompt, text.head_dim)
    ones, zeros = jnp.ones(count, jnp.int32), jnp.zeros(count, jnp.int32)
    key_shape = jax.random.key_data(jax.random.key(0)).shape
    return Rows(
        # Two arrays: one that is donated twice could not be.
        prompts=PromptCache(jnp.zeros(shape, model.dtype), jnp.zeros(shape, model.dtype), ones, ones),
        cache=model.init_response_cache(count, 1, room.answer),
        tokens=jnp.full((count, room.answer), NO_TOKEN, jnp.int32),
        length=ones,
        of=Row(
            key=jnp.zeros((count, *key_shape), jnp.uint32),
            sampling=SamplingOfEach(jnp.zeros(count), jnp.zeros(count), zeros),
            most=ones,
            thought=ones * NO_BUDGET,
        ),
    )


def _put(rows: Rows, number: jax.Array, prompt: PromptCache, row: Row, token: jax.Array) -> Rows:
    """The rows with a prompt and its first token in row `number`; what lies behind the prompt is not read."""

    def cache(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(old, new, (0, number, 0, 0, 0))

    old = rows.prompts
    return Rows(
        prompts=PromptCache(
            cache(old.k, prompt.k),
            cache(old.v, prompt.v),
            old.length.at[number].set(prompt.length[0]),
            old.next_position.at[number].set(prompt.next_position[0]),
        ),
        cache=rows.cache,
        # Those of an earlier answer could end a thought.
        tokens=rows.tokens.at[number].set(jnp.full_like(rows.tokens[0], NO_TOKEN).at[0].set(token)),
        length=rows.length.at[number].set(1),
        of=jax.tree.map(lambda all, one: all.at[number].set(jnp.asarray(one, all.dtype)), rows.of, row),
    )


def _advance(
    model: Model,
    rows: Rows,
    goes_on: jax.Array,
    wants_top: jax.Array,
    every: int,
    common: Sampling,
    closing: Budget | None,
) -> tuple[Rows, Drawn]:
    """Up to `every` more tokens in the rows that go on, less where they end."""
    count = rows.length.shape[0]
    all_rows = jnp.arange(count)
    blank = Drawn(
        tokens=jnp.zeros((count, every), jnp.int32),
        logprobs=jnp.zeros((count, every), jnp.float32),
        top_tokens=jnp.zeros((count, every, ALTERNATIVES), jnp.int32),
        top_logprobs=jnp.zeros((count, every, ALTERNATIVES), jnp.float32),
        count=jnp.zeros(count, jnp.int32),
    )

    def step(carry: tuple[jax.Array, jax.Array, Rows, Drawn]) -> tuple[jax.Array, jax.Array, Rows, Drawn]:
        number, running, rows, drawn = carry
        fed = rows.tokens[all_rows, rows.length - 1]
        at = rows.length - 1
        hidden, cache = model.decode(fed[:, None], at[:, None], rows.prompts, rows.cache)
        forced = None
        if closing is not None:
            forced = dataclasses.replace(closing, tokens=rows.of.thought).forced(rows.tokens, rows.length)
        logits = model.logits(hidden)[:, 0]  # [A,V]
        tokens, logprobs = _sample(logits, rows.of, rows.length, common, forced)
        top_tokens, top_logprobs = _alternatives(logits, wants_top)
        # Rows that do not go on write nowhere.
        target = jnp.where(running, rows.length, rows.tokens.shape[1])
        length = rows.length + running
        rows = dataclasses.replace(
            rows, cache=cache, tokens=rows.tokens.at[all_rows, target].set(tokens, mode="drop"), length=length
        )
        drawn = Drawn(
            drawn.tokens.at[:, number].set(tokens),
            drawn.logprobs.at[:, number].set(logprobs),
            drawn.top_tokens.at[:, number].set(top_tokens),
            drawn.top_logprobs.at[:, number].set(top_logprobs),
            drawn.count + running,
        )
        return number + 1, running & ~is_end(tokens, common) & (length < rows.of.most), rows, drawn

    def goes(carry: tuple[jax.Array, jax.Array, Rows, Drawn]) -> jax.Array:
        return (carry[0] < every) & jnp.any(carry[1])

    _, _, rows, drawn = jax.lax.while_loop(goes, step, (jnp.int32(0), goes_on, rows, blank))
    return rows, drawn


def _sample(
    logits: jax.Array, of: Row, step: jax.Array, common: Sampling, forced: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    return sample_each(logits, jax.random.wrap_key_data(of.key), step, of.sampling, common, forced)


def _alternatives(logits: jax.Array, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The most probable tokens of logits [A,V] and their log-probs, [A,T]; zeros where none are wanted."""
    most = min(ALTERNATIVES, logits.shape[-1])

    def look(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, tokens = jax.lax.top_k(jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1), most)
        padding = ((0, 0), (0, ALTERNATIVES - most))
        return jnp.pad(tokens, padding), jnp.pad(values, padding, constant_values=-np.inf)

    def leave(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = (logits.shape[0], ALTERNATIVES)
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)

    return jax.lax.cond(wanted, look, leave, logits)
