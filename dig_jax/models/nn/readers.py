"""Responses that read prompts of their own choice, of which there is one copy each.

Where the G responses of a prompt lie beside it, an array [B,G,...] says who reads what. Here any of N
responses may read any of A prompts, and change it from one token to the next. Only what is small moves for
that: queries go to the prompts and what they read comes back, a few numbers per head; keys and values stay
where they are, and each prompt's are read once, whoever asks.

Shape letters: S shards; of each: N responses, A prompts, C places at every prompt for the queries that read
it; K key/value heads.
"""

from typing import Self

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.models.nn.layers import map_shards

# Logical axes of what moves, [S*N,1,K,...] and [S*A,C,K,...], and of the indices.
MOVED = ("activation_batch", None, "activation_kv_heads", None, None, None)
INDICES = ("activation_batch", None)


@flax.struct.dataclass
class Readers:
    """Who reads which prompt. Responses and prompts of different shards never meet.

    Attributes:
      place: int32 [S,N], prompt * C + place at it of each response; of those that do not count, anything.
      response: int32 [S,A*C], the response at every place; N where there is none.
    """

    place: jax.Array
    response: jax.Array

    @classmethod
    def of(cls, prompt: jax.Array, place: jax.Array, counts: jax.Array, prompts: int, places: int) -> Self:
        """Those of responses [S,N].

        Args:
          prompt: int32, the one it reads.
          place: int32 below C, where its query goes; no two that count have the same one at the same prompt.
          counts: bool, whether the response is one: no one asks what others read.
          prompts: A.
          places: C.
        """
        shards, responses = prompt.shape
        where = prompt * places + place
        nobody = jnp.full((shards, prompts * places), responses, jnp.int32)

        def one_shard(response: jax.Array, where: jax.Array) -> jax.Array:
            return response.at[where].set(jnp.arange(responses, dtype=jnp.int32), mode="drop")

        return cls(where, jax.vmap(one_shard)(nobody, jnp.where(counts, where, prompts * places)))

    def prompts_of(self, values: jax.Array) -> jax.Array:
        """Of values [S*A] of the prompts, those of the prompt of every response: [S*N]."""
        shards, places = self.response.shape
        per_shard = values.reshape(shards, -1)
        prompt = self.place // (places // per_shard.shape[1])
        return jnp.take_along_axis(per_shard, prompt, axis=1, mode="clip").reshape(-1)

    def to_prompts(self, x: jax.Array, prompts: int, empty: jax.Array | None = None) -> jax.Array:
        """x [S*N,1,K,...] of responses, at the places of S*A `prompts`: [S*A,C,K,...].

        Args:
          x: of the responses.
          prompts: S*A.
          empty: what stands where there is no response, like the result; None: anything finite.
        """
        moved = _move(x, self.response, self.response.size // prompts)
        if empty is None:
            return moved
        taken = (self.response < self.place.shape[1]).reshape(*moved.shape[:2], 1, 1, 1, 1)
        return jnp.where(taken, moved, empty)

    def to_responses(self, x: jax.Array) -> jax.Array:
        """x [S*A,C,K,...] of the places at prompts, where their responses are: [S*N,1,K,...]."""
        return _move(x, self.place, 1)


def _move(x: jax.Array, index: jax.Array, columns: int) -> jax.Array:
    """The entries of x [S*n,c,K,...] at `index` [S,m] among the n * c of their shard.

    Returns:
      [S*m/columns,columns,K,...].
    """

    def own(x: jax.Array, index: jax.Array) -> jax.Array:
        entries = x.reshape(index.shape[0], -1, *x.shape[2:])
        moved = jax.vmap(lambda entries, which: jnp.take(entries, which, axis=0, mode="clip"))(entries, index)
        return moved.reshape(-1, columns, *x.shape[2:])

    return map_shards(own, [MOVED, INDICES], MOVED)(x, index)
