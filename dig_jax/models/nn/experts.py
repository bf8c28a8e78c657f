"""The experts of a layer: every token through the K of its choice.

Shape letters: N tokens, D width, E experts, K experts per token, I inner width of an expert.
"""

import jax
import jax.numpy as jnp

from dig_jax.models.nn.layers import precision_for


def experts_mlp(
    x: jax.Array, ids: jax.Array, weights: jax.Array, gate_up: jax.Array, down: jax.Array
) -> jax.Array:
    """The sum of what its experts make of each token, weighted; no choice is ever left out.

    Args:
      x: [N,D], in the dtype that is computed in.
      ids: int32 [N,K].
      weights: float32 [N,K].
      gate_up: [E,D,2I]; the first half of 2I is the gate.
      down: [E,I,D].

    Returns:
      [N,D] in the dtype of x. The sum over experts is float32.
    """
    return _every_expert(x, ids, weights, gate_up, down)


def _every_expert(
    x: jax.Array, ids: jax.Array, weights: jax.Array, gate_up: jax.Array, down: jax.Array
) -> jax.Array:
    """All tokens through all experts, one expert after another: E / K times the work, and plainly right."""

    def add(total: jax.Array, expert: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        number, gate_up, down = expert
        weight = jnp.sum(jnp.where(ids == number, weights, 0.0), axis=-1)  # [N]
        gate, up = jnp.split(_product(x, gate_up), 2, axis=-1)
        y = _product(jax.nn.silu(gate) * up, down)
        return total + weight[:, None] * y.astype(jnp.float32), None

    numbers = jnp.arange(gate_up.shape[0])
    total, _ = jax.lax.scan(add, jnp.zeros(x.shape, jnp.float32), (numbers, gate_up, down))
    return total.astype(x.dtype)


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel.astype(x.dtype), precision=precision_for(x))
