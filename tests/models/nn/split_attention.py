"""Attention on four simulated devices, for test_attention: prints the largest relative error of each kernel.

A program of its own, since the number of devices is fixed when JAX starts.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dig_jax.machines import parallel
from dig_jax.models.nn.attention import PLAIN
from tests.models.nn.test_attention import KERNELS, draw_qkv, relative_error, results


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
    print(json.dumps({name: float(error) for name, error in errors.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
