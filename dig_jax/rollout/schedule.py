"""Which slot decodes which completion, and which prompts are at hand: the pool's bookkeeping.

Prompts come into rows in their order, and stay until their completions are done. A slot that is free takes
the next completion of any prompt in a row of its shard; so none is idle while a completion waits whose prompt
is there, and where none is, the next prompts take the rows that are done. Every data shard has slots, rows
and a queue of its own, and decides nothing by those of another; the loop ends when all have.

Nothing here depends on tokens but when completions end, so `bench.schedule` runs it alone, at any size.

Shape letters: D data shards; of each: B prompts, A rows, N slots; G completions per prompt. A completion's
number is prompt * G + its place in the group.
"""

import dataclasses
from typing import Self

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.models.api import Readers


@flax.struct.dataclass
class Schedule:
    """What slots and rows hold.

    Attributes:
      completion: int32 [D,N], the completion in each slot; B * G when there is none.
      row: int32 [D,N], where its prompt is.
      length: int32 [D,N], tokens it has.
      prompt: int32 [D,A], the prompt in each row; B before there is one.
      taken: int32 [D,A], how many completions of it have been given to slots; G before there is one.
      next_prompt: int32 [D], the first prompt that no row has taken.
      prompts: B.
      group: G.
    """

    completion: jax.Array
    row: jax.Array
    length: jax.Array
    prompt: jax.Array
    taken: jax.Array
    next_prompt: jax.Array
    prompts: int = flax.struct.field(pytree_node=False)
    group: int = flax.struct.field(pytree_node=False)

    @classmethod
    def begin(cls, shards: int, prompts: int, group: int, rows: int, slots: int) -> Self:
        """The first prompts in the rows, and their first completions in the slots; sizes are per shard."""
        none = jnp.full((shards, slots), prompts * group, jnp.int32)
        empty = cls(
            completion=none,
            row=jnp.zeros_like(none),
            length=jnp.ones_like(none),
            prompt=jnp.full((shards, rows), prompts, jnp.int32),
            taken=jnp.full((shards, rows), group, jnp.int32),
            next_prompt=jnp.zeros(shards, jnp.int32),
            prompts=prompts,
            group=group,
        )
        return empty.take_prompts()[0]

    @property
    def completions(self) -> int:
        """B * G, those of a shard; the number that stands for none."""
        return self.prompts * self.group

    @property
    def busy(self) -> jax.Array:
        """bool [D,N]: slots that hold a completion."""
        return self.completion < self.completions

    @property
    def fed(self) -> jax.Array:
        """int32 [D,N]: tokens of the completion in each slot before the last one, whose caches are filled."""
        return jnp.where(self.busy, self.length - 1, 0)

    def is_running(self) -> jax.Array:
        """Whether a completion is left, of any shard."""
        return jnp.any(self.busy) | self.wants_prompts()

    def wants_prompts(self) -> jax.Array:
        """Whether slots are idle in a shard where a prompt waits and a row is free for it."""
        waits = self.next_prompt < self.prompts
        idle = jnp.any(~self.busy, axis=-1)
        return jnp.any(waits & idle & jnp.any(self._free_rows(), axis=-1))

    def take_prompts(self) -> tuple[Self, jax.Array]:
        """The next prompts in the rows that are done, and their completions in idle slots.

        Returns:
          The schedule, and bool [D,A]: the rows whose prompt is another than before.
        """
        free = self._free_rows()
        prompt = self.next_prompt[:, None] + jnp.cumsum(free, axis=-1) - 1
        free &= prompt < self.prompts
        taken = dataclasses.replace(
            self,
            prompt=jnp.where(free, prompt, self.prompt),
            taken=jnp.where(free, 0, self.taken),
            next_prompt=self.next_prompt + jnp.sum(free, axis=-1, dtype=jnp.int32),
        )
        return taken.take_completions(~self.busy), free

    def take_completions(self, free: jax.Array) -> Self:
        """The next completions of the prompts in rows in the slots that are `free`, bool [D,N]."""

        def one_shard(
            free: jax.Array, completion: jax.Array, row: jax.Array, prompt: jax.Array, taken: jax.Array
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            until = jnp.cumsum(self.group - taken)  # what is left in the rows up to each
            number = jnp.cumsum(free) - 1  # 0 for the first free slot, 1 for the second, ...
            found = free & (number < until[-1])
            at = jnp.sum(until[None, :] <= number[:, None], axis=-1)  # the row that has the completion
            at = jnp.minimum(at, len(until) - 1)
            place = self.group - until[at] + number  # G - left behind it in this row
            fresh = prompt[at] * self.group + place
            none = jnp.where(free, self.completions, completion)
            given = jnp.zeros_like(taken).at[jnp.where(found, at, len(until))].add(1, mode="drop")
            return jnp.where(found, fresh, none), jnp.where(found, at, row), taken + given

        completion, row, taken = jax.vmap(one_shard)(free, self.completion, self.row, self.prompt, self.taken)
        return dataclasses.replace(
            self, completion=completion, row=row, taken=taken, length=jnp.where(free, 1, self.length)
        )

    def readers(self) -> Readers:
        """Which prompt's row each slot reads: at each there is a place for every completion of the group."""
        rows, place = self.prompt.shape[1], self.completion % self.group
        return Readers.of(self.row, place, self.busy, rows, self.group)

    def _free_rows(self) -> jax.Array:
        """bool [D,A]: rows with no prompt, or whose completions have all ended."""
        # By comparing: of a scatter whose indices it knows XLA's TPU compiler dies.
        in_row = self.row[..., None] == jnp.arange(self.taken.shape[-1])
        return (self.taken == self.group) & ~jnp.any(self.busy[..., None] & in_row, axis=1)
