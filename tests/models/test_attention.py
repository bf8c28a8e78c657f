"""Attention over segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models import attention


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_chunks_equals_attention_at_once(monkeypatch, masked):
    """Eleven queries by chunks of four, on a shared and an own segment; values and gradients."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    q = draw(2, 3, 11, 4, 8)
    prefix = attention.KeyValues(
        draw(2, 5, 2, 8), draw(2, 5, 2, 8), jnp.arange(5) < jnp.array([3, 5]).reshape(2, 1, 1, 1)
    )
    causal = jnp.tril(jnp.ones((1, 1, 11, 11), bool)) if masked else None
    own = attention.KeyValues(draw(2, 3, 11, 2, 8), draw(2, 3, 11, 2, 8), causal)

    def run(q):
        return jnp.sum(jnp.sin(attention.attend(q, [prefix, own])))

    whole = jax.jit(jax.value_and_grad(run))(q)
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    chunked = jax.jit(jax.value_and_grad(lambda q: run(q)))(q)  # a new function, or jit would not trace it
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, chunked)


def test_attention_over_segments_is_one_softmax():
    """All keys are equal: one in each segment shares the weight, a hidden third gets none."""
    query = jnp.ones((1, 1, 1, 1, 1))
    values = jnp.array([10.0, 99.0]).reshape(1, 2, 1, 1)
    prefix = attention.KeyValues(jnp.ones((1, 2, 1, 1)), values, jnp.array([True, False]).reshape(1, 1, 1, 2))
    own = attention.KeyValues(jnp.ones((1, 1, 1, 1, 1)), jnp.full((1, 1, 1, 1, 1), 20.0), None)
    assert attention.attend(query, [prefix, own]).item() == pytest.approx(15.0)
