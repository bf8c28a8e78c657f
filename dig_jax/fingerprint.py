"""The identity of a pytree of arrays, from every bit of it, without bringing it to the host."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fingerprint(tree: Any) -> str:
    """A hash of every tensor's bits, summed on the devices that hold them.

    Each element's bits are multiplied by an odd number that depends on its position, so that permuted or
    changed elements change the sum; only one number per tensor travels to the host.
    """
    digest = hashlib.sha256()
    for value in _checksums(jax.tree.leaves(tree)):
        digest.update(np.asarray(value).tobytes())
    return digest.hexdigest()[:16]


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(array: jax.Array) -> jax.Array:
    array = jax.device_put(array, jax.memory.Space.Device)  # moments may be in the memory of the host
    unsigned = {2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    position = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    return jnp.sum(bits * (2 * position + 1) * jnp.uint32(2654435761), dtype=jnp.uint32)
