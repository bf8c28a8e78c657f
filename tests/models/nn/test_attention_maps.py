"""The weights of the last layer are those that its outputs are mixed by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models import families
from dig_jax.models.nn.attention_maps import last_layer
from tests.models.clip_dino_qwen.configs import small_config
from tests.models.conftest import PromptMaker

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def pass_of():
    """A model with one head: weights and usual hidden states of two prompts of different lengths."""
    config = small_config(text_layers=2, heads=1, kv_heads=1, depth=1)
    model = families.make(config, rngs=nnx.Rngs(0))
    maker = PromptMaker(config)
    examples = [maker.example([(4, 4)] * count, seed=count) for count in (1, 2)]
    prompts = maker.pad(*examples)
    answers = jnp.asarray([[5, 6, 7], [8, 9, 10]], jnp.int32)
    weights = jax.jit(lambda: last_layer(model, prompts, answers))()
    prompt_states, answer_states, _ = jax.jit(lambda: model(prompts, answers[:, None]))()
    return model, prompts, answers, np.asarray(weights), np.asarray(prompt_states), np.asarray(answer_states)


def test_rows_are_shares_and_nobody_looks_ahead_or_at_padding(pass_of):
    _, prompts, _, weights, *_ = pass_of
    padded = prompts.tokens.shape[1]
    for row, length in enumerate(prompts.length):
        for rows in (weights[row, :length], weights[row, padded:]):
            np.testing.assert_allclose(rows.sum(axis=-1), 1, atol=1e-5)
            assert (rows[:, length:padded] == 0).all()
        assert (np.triu(weights[row], 1) == 0)[:length].all()


def test_the_weights_give_the_hidden_states_that_the_model_gives(pass_of):
    model, prompts, answers, weights, states, answer_states = pass_of
    text = model.text
    x, positions, deepstack = model.with_images(prompts, text.embed(jnp.asarray(prompts.tokens), model.dtype))
    y = text.embed(answers, model.dtype)[:, None]
    places = (jnp.asarray(prompts.next_position)[:, None] + jnp.arange(3))[:, None, :, None]
    rotations = text.rotation(positions), text.rotation(jnp.broadcast_to(places, (2, 1, 3, 3)))
    first, last = (jax.tree.map(lambda stacked, n=n: stacked[n], text.layers) for n in (0, 1))
    (x, y), *_ = first([x, y], rotations, lambda *own: text.attention.tree(*own, jnp.asarray(prompts.length)))
    own = last.project((x, y), rotations)
    values = jnp.concatenate([own[0].v[:, :, 0], own[1].v[:, 0, :, 0]], axis=1)  # of the one head
    mixed = jnp.einsum("bqk,bke->bqe", weights, values)[:, :, None]
    whole = jnp.concatenate([x, y[:, 0]], axis=1)
    mine = np.asarray(text.norm(last._add(whole, mixed)))
    np.testing.assert_allclose(mine[:, x.shape[1] :], answer_states[:, 0], atol=2e-5)
    for row, length in enumerate(prompts.length):
        np.testing.assert_allclose(mine[row, :length], states[row, :length], atol=2e-5)
