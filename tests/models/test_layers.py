"""Rotation, and the naming of axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import logical_axis_rules
from jax.sharding import AxisType

from dig_jax.models import layers


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
