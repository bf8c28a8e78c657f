"""One load in a process of its own, for `bench/load_checkpoint.py`, which watches its memory from outside.

    python -m bench.load_side FOLDER HOW DEVICES

It prints one JSON line when it is ready, waits for a line, loads, prints what it did, waits again and prints
a fingerprint of what it loaded. HOW: "dig_jax"; "load_file" (whole files by the safetensors library, then
every parameter stacked and placed); "read" (the bytes alone, nothing kept); "save" (writes what it has loaded
before it was ready).
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """The command."""
    folder, how, devices = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    load, own_bytes, fingerprint = SIDES[how](folder, devices)
    print(json.dumps({}), flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    loaded = load()
    print(json.dumps({"seconds": time.perf_counter() - start, "own_bytes": own_bytes(loaded)}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"fingerprint": fingerprint(loaded)}), flush=True)


# What loads, the bytes it shall keep, and a fingerprint of them.
Side = tuple[Callable[[], Any], Callable[[Any], int], Callable[[Any], str]]


def _dig_jax(folder: Path, devices: int) -> Side:
    import jax

    from dig_jax.run.fingerprint import fingerprint

    load = _policy(folder, devices)
    jax.block_until_ready(jax.numpy.zeros(8) + 1)  # the backend is up
    return lambda: load()[1], _own_bytes, fingerprint


def _policy(folder: Path, devices: int) -> Callable[[], Any]:
    """What loads structure and parameters as commands do, in the dtype of the files."""
    from etils import epath

    from configs import base
    from dig_jax.machines import parallel
    from dig_jax.run import loading

    config = base.get_config()
    config.mesh.fsdp, config.mesh.tensor = (4, 2) if devices == 8 else (devices, 1)
    config.model.param_dtype = "bfloat16"
    mesh = parallel.make_mesh(config.mesh)
    return functools.partial(loading.load_policy, config, loading.open_weights(epath.Path(folder)), mesh)


def _save(folder: Path, devices: int) -> Side:
    import shutil

    from flax import nnx

    from dig_jax.models.hf import checkpoint

    model = nnx.merge(*_policy(folder, devices)())
    out = folder.with_name("saved")

    def remove(_: None) -> str:
        shutil.rmtree(out)
        return ""

    return lambda: checkpoint.save_model(out, model), lambda _: 0, remove


def _load_file(folder: Path, devices: int) -> Side:
    import jax
    import jax.numpy as jnp
    import ml_dtypes  # noqa: F401  NumPy must know bfloat16
    import numpy as np
    from flax import nnx
    from safetensors.numpy import load_file

    from bench.random_model import param_shapes
    from dig_jax.models import families
    from dig_jax.models.families import layouts
    from dig_jax.run.fingerprint import fingerprint

    config = families.load_config(folder)
    shapes = param_shapes(config)
    plan = layouts(shapes, config)

    def load() -> nnx.State:
        tensors: dict[str, np.ndarray] = {}
        for file in folder.glob("*.safetensors"):
            tensors.update(load_file(file))
        params = []
        for path, variable in nnx.to_flat_state(shapes):
            layout = plan[path]
            layers = [layout.from_file(tensors[name]) for name in layout.names]
            params.append((path, variable.replace(jnp.asarray(np.stack(layers).reshape(variable.shape)))))
        return nnx.from_flat_state(params)

    jax.block_until_ready(jnp.zeros(8) + 1)
    return load, _own_bytes, fingerprint


def _own_bytes(params: Any) -> int:
    """Bytes of the arrays. Devices that hold the same part may share memory: it counts once."""
    import jax

    parts = [shard.data for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards]
    return sum({part.unsafe_buffer_pointer(): part.nbytes for part in parts}.values())


def _read(folder: Path, devices: int) -> Side:
    def load() -> None:
        for path in folder.glob("*.safetensors"):
            with path.open("rb", buffering=0) as file:
                while file.read(8 << 20):
                    pass

    return load, lambda _: 0, lambda _: ""


SIDES: dict[str, Callable[[Path, int], Side]] = {
    "dig_jax": _dig_jax,
    "load_file": _load_file,
    "read": _read,
    "save": _save,
}

if __name__ == "__main__":
    main()
