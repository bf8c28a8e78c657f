"""Loads a model over two processes and saves it again, run by test_distributed_checkpoint.py; prints JSON.

Process i prints how many elements it read of every tensor, and the shape of its part of one parameter.
"""

import collections
import json
import sys

import jax

folder, out, mesh_sizes, port, processes, process = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))

from etils import epath  # noqa: E402  after the devices are set up
from flax import nnx  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from dig_jax.machines import parallel  # noqa: E402
from dig_jax.models import families  # noqa: E402
from dig_jax.models.hf import checkpoint  # noqa: E402
from dig_jax.models.hf.safetensors_io import Entry, find_tensors  # noqa: E402
from dig_jax.models.qwen3_vl.model import Qwen3VL  # noqa: E402


def main() -> None:
    names = {(entry.file, entry.start): name for name, entry in find_tensors(epath.Path(folder)).items()}
    elements_read: collections.Counter[str] = collections.Counter()
    read = Entry.read

    def counting(entry: Entry, first: int, count: int) -> object:
        elements_read[names[entry.file, entry.start]] += count
        return read(entry, first, count)

    Entry.read = counting  # type: ignore[method-assign,assignment]
    config = families.load_config(folder)
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))), nnx.Param)
    data, fsdp, tensor = map(int, mesh_sizes.split(","))
    mesh = parallel.make_mesh(ConfigDict({"data": data, "fsdp": fsdp, "tensor": tensor}))
    params = checkpoint.load_params(folder, config, shardings=parallel.shardings(shapes, mesh))
    checkpoint.save_model(out, nnx.merge(graphdef, params), max_shard_bytes=100_000)
    assert epath.Path(out, "config.json").exists()  # for every process, when the call returns
    gate = params["text"]["layers"]["mlp"]["gate_proj"]["kernel"].get_value()
    print(json.dumps({"read": elements_read, "gate_proj": gate.addressable_shards[0].data.shape}))


if __name__ == "__main__":
    main()
