"""The same GRPO step on one device, on meshes of eight simulated devices, and in two real processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.data.drawn_pairs import draw_pair, write_pairs

WHOLE: dict[str, Any] = {}  # settings as they are: whole groups, all padded to 8 tokens
PIECES = {"batch.micro_completions": 1, "batch.response_buckets": (4,)}
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


def run_step(
    inputs: pathlib.Path, mesh: str, devices: int, processes: int = 1, changes: Mapping[str, Any] = WHOLE
) -> dict[str, Any]:
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
            [
                sys.executable,
                str(STEP),
                str(inputs),
                mesh,
                json.dumps(changes),
                *map(str, (port, processes, n)),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]
    outputs = [process.communicate(timeout=600) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return json.loads(outputs[0][0].splitlines()[-1])


@pytest.fixture(scope="module")
def one_device(inputs: pathlib.Path) -> dict[str, Any]:
    return run_step(inputs, "1,1,1", devices=1)


@pytest.mark.parametrize(
    ("mesh", "devices", "processes", "changes"),
    [
        pytest.param("2,2,2", 8, 1, WHOLE, id="all-axes"),
        pytest.param("2,2,1", 4, 2, PIECES, id="two-processes-and-pieces"),
        pytest.param("8,1,1", 8, 1, WHOLE, id="data", marks=pytest.mark.slow),
        pytest.param("1,4,2", 8, 1, WHOLE, id="fsdp-tensor", marks=pytest.mark.slow),
    ],
)
def test_a_mesh_gives_what_one_device_gives(
    mesh: str,
    devices: int,
    processes: int,
    changes: Mapping[str, Any],
    inputs: pathlib.Path,
    one_device: dict[str, Any],
) -> None:
    step = run_step(inputs, mesh, devices, processes, changes)
    rows = len(step["tokens"])
    assert rows == len(one_device["tokens"]) // processes  # each process has its own prompts
    assert step["tokens"] == one_device["tokens"][:rows]
    for name in ("response_length", "loss", "grad_norm", "kl", "entropy"):
        assert step[name] == pytest.approx(one_device[name], rel=1e-4, abs=1e-6)
    sharded = {"8,1,1": 1, "2,2,2": 4, "1,4,2": 8, "2,2,1": 2}[mesh]
    # Shapes of the real shards on the first device, not only the intention.
    assert step["shard_size"] * sharded == one_device["shard_size"]
    # Four micro-batches of 8 completions. In the second those of one process are short and those of the
    # other long: the devices of both take the branch for long ones, and that for short ones after it.
    padded_tokens = 8 * (8 + 8 + 4 + 4) if changes else 8 * 2 * (8 + 8)
    assert step["padded_tokens"] == pytest.approx(padded_tokens)
