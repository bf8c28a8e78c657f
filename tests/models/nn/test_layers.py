"""Rotation, gradients of biases, and the naming of axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.linen import logical_axis_rules
from jax.sharding import AxisType

from dig_jax.models.nn import layers


def test_rotation_turns_each_pair_by_its_angle():
    """A quarter turn of (1, 0) is (0, 1); element 0 is paired with element 2, element 1 with 3."""
    rotation = layers.Rotation.from_angles(jnp.array([jnp.pi / 2, 0.0]).reshape(1, 1, 1, 2))
    turned = rotation(jnp.array([1.0, 2.0, 0.0, 3.0]).reshape(1, 1, 1, 1, 4))
    np.testing.assert_allclose(turned.ravel(), [0, 2, 1, 3], atol=1e-6)


def test_the_gradient_of_a_bias_is_summed_in_float32():
    """10,000 bfloat16 tokens; summed in bfloat16 it would be off by a hundredth."""
    linear = layers.Linear((2,), (8,), (None, None), std=1.0, bias=True, rngs=nnx.Rngs(0), dtype=jnp.float32)
    pull = 0.3 + np.random.default_rng(0).standard_normal((1, 10_000, 8))
    pull = jnp.asarray(pull, jnp.bfloat16)

    @jax.jit
    @jax.grad
    def gradient(linear):
        return jnp.sum((linear(jnp.zeros((1, 10_000, 2), jnp.bfloat16)) * pull).astype(jnp.float32))

    exact = np.asarray(pull, np.float64).sum(axis=(0, 1))
    np.testing.assert_allclose(gradient(linear).bias[...], exact, rtol=2**-8)  # one rounding at the end


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


def test_the_gradient_of_a_word_is_summed_in_float32():
    """A word that comes 1,000 times: in bfloat16 the sum of ones would stop at 256."""
    table = jnp.zeros((3, 2), jnp.bfloat16)
    tokens = jnp.full(1000, 1)
    gradient = jax.grad(lambda table: jnp.sum(layers.look_up(table, tokens).astype(jnp.float32)))(table)
    np.testing.assert_array_equal(gradient, [[0, 0], [1000, 1000], [0, 0]])
