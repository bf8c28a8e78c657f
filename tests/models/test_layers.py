"""Attention over segments, rotation, and the naming of axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import logical_axis_rules
from jax.sharding import AxisType

from dig_jax.models import layers


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_chunks_equals_attention_at_once(monkeypatch, masked):
    """Eleven queries by chunks of four, on a shared and an own segment; values and gradients."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    q = draw(2, 3, 11, 2, 2, 8)
    prefix = layers.KeyValues(
        draw(2, 5, 2, 8), draw(2, 5, 2, 8), jnp.arange(5) < jnp.array([3, 5]).reshape(2, 1, 1, 1)
    )
    causal = jnp.tril(jnp.ones((1, 1, 11, 11), bool)) if masked else None
    own = layers.KeyValues(draw(2, 3, 11, 2, 8), draw(2, 3, 11, 2, 8), causal)

    def run(q):
        return jnp.sum(jnp.sin(layers.attention(q, [prefix, own])))

    whole = jax.jit(jax.value_and_grad(run))(q)
    monkeypatch.setattr(layers, "QUERY_CHUNK", 4)
    chunked = jax.jit(jax.value_and_grad(lambda q: run(q)))(q)  # a new function, or jit would not trace it
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, chunked)


def test_attention_over_segments_is_one_softmax():
    """All keys are equal: one in each segment shares the weight, a hidden third gets none."""
    query = jnp.ones((1, 1, 1, 1, 1, 1))
    values = jnp.array([10.0, 99.0]).reshape(1, 2, 1, 1)
    prefix = layers.KeyValues(jnp.ones((1, 2, 1, 1)), values, jnp.array([True, False]).reshape(1, 1, 1, 2))
    own = layers.KeyValues(jnp.ones((1, 1, 1, 1, 1)), jnp.full((1, 1, 1, 1, 1), 20.0), None)
    assert layers.attention(query, [prefix, own]).item() == pytest.approx(15.0)


def test_rotation_turns_each_pair_by_its_angle():
    """A quarter turn of (1, 0) is (0, 1); element 0 is paired with element 2, element 1 with 3."""
    rotation = layers.Rotation.from_angles(jnp.array([jnp.pi / 2, 0.0]).reshape(1, 1, 1, 2))
    turned = rotation(jnp.array([1.0, 2.0, 0.0, 3.0]).reshape(1, 1, 1, 1, 4))
    np.testing.assert_allclose(turned.ravel(), [0, 2, 1, 3], atol=1e-6)


def test_activations_are_constrained_only_under_rules():
    x = jnp.zeros((4, 2))
    assert layers.constrain(x, "activation_batch", None) is x
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh), logical_axis_rules([("activation_batch", "data")]):
        lowered = jax.jit(lambda x: layers.constrain(x, "activation_batch", "unknown")).lower(x)
    assert "data" in lowered.as_text()


def test_a_parameter_needs_a_name_for_every_dimension():
    with pytest.raises(
        ValueError, match=r"shape \(2, 3\) needs one axis name per dimension, got \('embed',\)"
    ):
        layers.make_constant((2, 3), ("embed",), 0.0, jnp.float32)
