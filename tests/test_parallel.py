"""The same GRPO step on one device, on meshes of eight simulated devices, and in two real processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.data.drawn_pairs import draw_pair, write_pairs

STEP = pathlib.Path(__file__).parent / "distributed_step.py"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("inputs")
    sizes = {"vision_depth": 2, "vision_inner": 64, "text_depth": 2, "text_inner": 64, "image_size": 64}
    # Head counts that divide over two tensor-parallel devices.
    heads = {"vision_heads": 4, "vision_width": 128, "text_heads": 4, "text_kv_heads": 2}
    make_scratch_folder(folder / "model", ScratchConfig(**sizes, **heads))
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3) for i in range(16)]
    write_pairs(folder / "pairs", {"train": pairs, "test": pairs[:4]})
    return folder


def run_step(inputs: pathlib.Path, mesh: str, devices: int, processes: int = 1) -> dict:
    """One step under `mesh` ("data,fsdp,tensor"), the devices shared equally by the processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices // processes),
        "PYTHONPATH": str(STEP.parents[1]),
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(STEP), str(inputs), mesh, str(port), str(processes), str(process)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return json.loads(outputs[0][0].splitlines()[-1])


@pytest.fixture(scope="module")
def one_device(inputs: pathlib.Path) -> dict:
    return run_step(inputs, "1,1,1", devices=1)


@pytest.mark.parametrize(
    ("mesh", "devices", "processes"),
    [
        pytest.param("2,2,2", 8, 1, id="all-axes"),
        pytest.param("2,2,1", 4, 2, id="two-processes"),
        pytest.param("8,1,1", 8, 1, id="data", marks=pytest.mark.slow),
        pytest.param("1,4,2", 8, 1, id="fsdp-tensor", marks=pytest.mark.slow),
    ],
)
def test_a_mesh_gives_what_one_device_gives(
    mesh: str, devices: int, processes: int, inputs: pathlib.Path, one_device: dict
) -> None:
    step = run_step(inputs, mesh, devices, processes)
    rows = len(step["tokens"])
    assert rows == len(one_device["tokens"]) // processes  # each process has its own prompts
    assert step["tokens"] == one_device["tokens"][:rows]
    for name in ("response_length", "loss", "grad_norm", "kl", "entropy"):
        assert step[name] == pytest.approx(one_device[name], rel=1e-4, abs=1e-6)
    sharded = {"8,1,1": 1, "2,2,2": 4, "1,4,2": 8, "2,2,1": 2}[mesh]
    # Shapes of the real shards on the first device, not only the intention.
    assert step["shard_sizes"]["gate_proj"] * sharded == one_device["shard_sizes"]["gate_proj"]
