"""Where the last layer of a decoder looks, as a pass of its own: no program that trains or answers has it.

Shape letters: B prompts, P prompt length, R answer length, H heads, K key heads, E head_dim.
"""

import jax
import jax.numpy as jnp

from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.attention import MASKED
from dig_jax.models.nn.decoder import TextLayer, add_deepstack
from dig_jax.models.nn.layers import scan_layers, split_last
from dig_jax.models.nn.multimodal import VisionLanguageModel


def last_layer(model: VisionLanguageModel, prompts: Prompts, answers: jax.Array) -> jax.Array:
    """How much each token of prompts and answers attends to each of them, summed over heads.

    Args:
      model: of any family.
      prompts: see `inputs.Prompts`.
      answers: int32 [B,R], padded on the right.

    Returns:
      float32 [B,P+R,P+R], whose rows sum to H; rows and columns of padding mean nothing.
    """
    text, attention = model.text, model.text.attention
    x = text.embed(jnp.asarray(prompts.tokens), model.dtype)
    y = text.embed(jnp.asarray(answers), model.dtype)[:, None]
    x, positions, deepstack = model.with_images(prompts, x)
    length, rows = jnp.asarray(prompts.length), y.shape[2]
    later = jnp.asarray(prompts.next_position)[:, None] + jnp.arange(rows)
    places = jnp.broadcast_to(later[:, None, :, None], (len(later), 1, rows, 3))
    rotations = text.rotation(positions), text.rotation(places)

    def step(
        streams: tuple[jax.Array, jax.Array], numbered: tuple[jax.Array, TextLayer]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        number, layer = numbered
        mix = lambda prompt, own: attention.tree(prompt, own, length)  # noqa: E731
        (x, y), _, _ = layer(streams, rotations, mix)
        return (add_deepstack(x, number, deepstack), y), None

    before, layer = split_last(text.layers)
    (x, y), _ = scan_layers(before, step, (x, y))
    prompt, own = layer.project((x, y), rotations)
    q, k = (
        jnp.concatenate([whole, part[:, 0]], axis=1) for whole, part in ((prompt.q, own.q), (prompt.k, own.k))
    )
    return _weights(q, k, _mask(length, x.shape[1], rows))


def _mask(length: jax.Array, padded: int, rows: int) -> jax.Array:
    """bool [B,P+R,P+R]: which token sees which; answers see their prompt without its padding."""
    places = jnp.arange(padded + rows)
    seen = places[None, :] <= places[:, None]
    filled = (places < length[:, None]) | (places >= padded)
    return seen & filled[:, None]


def _weights(q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax of q [B,T,H,E] over k [B,T,K,E], summed over the heads: float32 [B,T,T]."""
    k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
    scores = jnp.einsum("bqhe,bkhe->bhqk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    return jax.nn.softmax(jnp.where(mask[:, None], scores, MASKED), axis=-1).sum(axis=1)
