"""Attention on four simulated devices, for test_attention: prints the largest relative error of each kernel.

Beside the kernels of training that of decoding, which has a list of work for every group of devices.

A program of its own, since the number of devices is fixed when JAX starts.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.machines import parallel
from dig_jax.models.nn.attention import PLAIN
from dig_jax.models.nn.ragged_decode import RaggedDecode
from tests.models.nn.test_attention import KERNELS, draw_qkv, relative_error, results
from tests.models.nn.test_ragged_decode import normal, read


def decoded(mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Of 8 responses with very different caches, what the kernel reads on the mesh and on one device."""
    rng = np.random.default_rng(0)
    q, length = normal(rng, 4, 2, 1, 4, 8), jnp.array([[0, 24], [1, 2], [9, 8], [24, 23]])
    caches = [normal(rng, 2, 4, 2, 2, 24, 8) for _ in "kv"]

    def run(q: jax.Array, caches: list[jax.Array], length: jax.Array) -> jax.Array:
        return read(RaggedDecode(interpret=True), q, caches, length, 8).mixed

    split = parallel.jit(run, mesh)(q, caches, length)
    assert len(split.sharding.device_set) == 4
    return split, jax.jit(run)(q, caches, length)


def main(tensor: int) -> None:
    """Batch split over `4 / tensor` devices, heads over `tensor`."""
    mesh = parallel.make_mesh(ConfigDict(dict(zip(parallel.AXES, (4 // tensor, 1, 1, tensor), strict=True))))
    rng = np.random.default_rng(0)
    prompt, responses = draw_qkv(rng, 4, 20), draw_qkv(rng, 4, 2, 7)
    length = jnp.array([13, 20, 1, 7])
    args = (prompt, responses, length, jnp.ones((4, 20), jnp.int32))
    expected = results(PLAIN, *args)
    errors = {}
    for name, kernel in KERNELS.items():
        split = parallel.jit(lambda *args, kernel=kernel: results(kernel, *args), mesh)(*args)
        errors[name] = max(jax.tree.leaves(jax.tree.map(relative_error, split, expected)))
        assert len(split[0][-1].sharding.device_set) == 4
    errors["ragged"] = relative_error(*decoded(mesh))
    print(json.dumps({name: float(error) for name, error in errors.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
