"""Which host holds which rows of a batch, on real TPU slices that are not there."""

import importlib.util

import numpy as np
import pytest
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import stage3
from dig_jax.aot import hosts
from dig_jax.aot.inputs import Workload, pair_bucket
from dig_jax.aot.phases import make_plan
from dig_jax.compile import topology
from dig_jax.machines import parallel
from dig_jax.models.qwen3_vl import published

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu (the TPU compiler) exists for Linux x86-64 only",
)
ROWS = 128

# The slices of docs/scale.md and larger ones: mesh, and `tensor` of the mesh for sampling.
SLICES = [
    ("v5e:4x4", 1, (1, 4, 4), 4),
    ("v5e:2x4", 1, (1, 1, 8), 8),
    ("v6e:2x2", 1, (1, 1, 4), 4),
    ("v5p:2x2x1", 1, (1, 4, 1), 4),
    ("v5e:4x4", 1, (1, 2, 8), 8),
    ("v6e:2x4", 1, (1, 1, 8), 8),
    ("v5p:2x2x4", 1, (1, 4, 4), 4),
    ("v5p:2x2x4", 1, (1, 2, 8), 8),
    ("v5e:4x4", 2, (2, 4, 4), 4),
    ("v6e:4x4", 1, (1, 16, 1), 4),
    ("v6e:4x4", 1, (2, 4, 2), 1),
    ("v5e:4x8", 1, (1, 8, 4), 4),
    ("v5e:8x8", 1, (1, 16, 4), 8),
    ("v5p:2x4x4", 1, (2, 4, 4), 8),
]


def sizes(data: int, fsdp: int, tensor: int) -> ConfigDict:
    return ConfigDict({"data": data, "fsdp": fsdp, "tensor": tensor})


def check_rows(mesh: Mesh) -> None:
    """Every device's host has the rows of its shard, as the mesh numbers the shards, and no others."""
    layout = parallel.row_layout(mesh, ROWS, ROWS // 2)
    shards = mesh.devices.reshape(-1, mesh.shape["tensor"])
    size = ROWS // 2 // len(shards)
    needed: dict[int, set[int]] = {}
    for number, group in enumerate(shards):
        for device in group:
            for half in (0, ROWS // 2):
                first = half + number * size
                needed.setdefault(device.process_index, set()).update(range(first, first + size))
    for process, rows in needed.items():
        assert layout.of(process).tolist() == sorted(rows)
    assert all(owner in holders for owner, holders in zip(layout.owners, layout.holders, strict=True))
    shares = np.bincount(layout.owners)
    assert (
        shares.max() <= 2 * shares.min()
    )  # of what is done once; it is the same where all have as many rows


@needs_compiler
@pytest.mark.parametrize(("name", "num_slices", "mesh_sizes", "sampling_tensor"), SLICES)
def test_every_row_is_on_all_hosts_of_its_shard_and_a_tensor_group_on_as_few_as_can_be(
    name: str, num_slices: int, mesh_sizes: tuple[int, int, int], sampling_tensor: int
) -> None:
    _, devices = topology(name, num_slices)
    mesh = parallel.make_mesh(sizes(*mesh_sizes), devices)
    slices = mesh.devices.reshape(num_slices, -1)
    assert all(len({getattr(device, "slice_index", 0) for device in own}) == 1 for own in slices)
    sampling_mesh = parallel.rollout_mesh(sizes(num_slices, -1, sampling_tensor), mesh)
    for sampled in (mesh, sampling_mesh):
        check_rows(sampled)
    on_a_host = len(devices) // len({device.process_index for device in devices})
    for group in mesh.devices.reshape(-1, mesh.shape["tensor"]):
        assert len({device.process_index for device in group}) == max(1, len(group) // on_a_host)
        sides = np.ptp([device.coords for device in group], axis=0) + 1
        assert np.prod(sides) == len(group)  # a box of neighbours


def test_rows_are_told_by_their_holders() -> None:
    layout = parallel.RowLayout(((0,), (0,), (1, 2), (0,), (1, 2), (1, 2)))
    assert hosts.by_host(layout) == "0: 0-1,3; 1+2: 2,4-5"
    assert layout.of(2).tolist() == [2, 4, 5]
    assert layout.owners.tolist() == [0, 0, 1, 0, 1, 2]


@needs_compiler
def test_compile_tells_the_rows_of_updates_and_of_rollouts() -> None:
    config = stage3.get_config()
    config.mesh.tensor = 8
    bucket = pair_bucket(published.architecture("8B"), 448, 448, 150)
    work = Workload(bucket, 2, config.rollout.group_size, config.rollout.max_new_tokens)
    plan = make_plan(config, published.architecture("8B"), work, topology("v5e:4x4", 1)[1])
    update, rollout = hosts.describe(plan).splitlines()
    assert update == "rows of an update by host: 0+1: 0-63; 2+3: 64-127"
    assert rollout == "rows sampled together by host: 0: 0-31; 1: 32-63; 2: 64-95; 3: 96-127"  # tensor is 4
