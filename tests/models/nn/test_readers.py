"""Responses that read prompts of their choice read what they would with the prompt beside them."""

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.models.nn.attention import KeyValues, attend, attend_with_readers, length_mask
from dig_jax.models.nn.readers import Readers

# Two shards of three responses and two prompts with two places each: the last response of the first shard
# is none, and both of a prompt's readers may be anywhere.
PROMPT = np.array([[1, 0, 0], [1, 1, 0]])
PLACE = np.array([[0, 1, 0], [1, 0, 1]])
COUNTS = np.array([[True, True, False], [True, True, True]])


def readers() -> Readers:
    return Readers.of(jnp.array(PROMPT), jnp.array(PLACE), jnp.array(COUNTS), prompts=2, places=2)


def test_what_moves_to_the_prompts_and_back():
    there = readers()
    assert there.response.tolist() == [[3, 1, 0, 3], [3, 2, 1, 0]]  # 3: nobody
    x = jnp.arange(6.0).reshape(6, 1, 1, 1, 1, 1)
    empty = jnp.full((4, 2, 1, 1, 1, 1), -1.0)
    at_prompts = there.to_prompts(x, 4, empty)
    assert at_prompts.reshape(4, 2).tolist() == [[-1, 1], [0, -1], [-1, 5], [4, 3]]
    back = there.to_responses(at_prompts).reshape(2, 3)
    np.testing.assert_array_equal(back[COUNTS], x.reshape(2, 3)[COUNTS])
    assert there.prompts_of(jnp.array([10, 11, 20, 21]))[np.flatnonzero(COUNTS)].tolist() == [
        11,
        10,
        21,
        21,
        20,
    ]


def test_attention_is_that_of_prompts_beside_their_responses():
    heads, kv_heads, size, room, own_room = 4, 2, 8, 5, 3
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.array(rng.normal(size=shape), jnp.float32)  # noqa: E731
    q = normal(6, 1, 1, heads, size)
    prompts = KeyValues(
        normal(4, kv_heads, room, size),
        normal(4, kv_heads, room, size),
        length_mask(jnp.array([5, 2, 3, 4]), room),
    )
    own = KeyValues(
        normal(6, 1, kv_heads, own_room, size),
        normal(6, 1, kv_heads, own_room, size),
        jnp.array(rng.random((6, 1, 1, own_room)) < 0.5),
    )
    read = jax.jit(attend_with_readers)(q, prompts, [own], readers())
    which = (PROMPT + np.array([[0], [2]])).reshape(-1)
    beside = KeyValues(*(x[which] for x in prompts))
    counts = COUNTS.reshape(-1)
    np.testing.assert_allclose(read[counts], jax.jit(attend)(q, [beside, own])[counts], atol=1e-6)
    assert np.all(np.isfinite(read))
