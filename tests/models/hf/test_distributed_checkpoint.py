"""Two processes load their own parts of a checkpoint and write it back together."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

SCRIPT = Path(__file__).parent / "distributed_checkpoint.py"


def tensors(folder: Path) -> dict:
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def load_and_save(folder: Path, out: Path, mesh: str) -> list[dict]:
    """What the two processes, of one device each, print."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "JAX_PLATFORMS": "cpu",
    }
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(out), mesh, str(port), "2", str(process)],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        for process in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in printed]


@pytest.mark.parametrize(
    ("mesh", "gate_proj"),
    [
        pytest.param("1,1,2", [4, 64, 56], id="tensor"),
        pytest.param("1,2,1", [4, 32, 112], id="fsdp", marks=pytest.mark.slow),
    ],
)
def test_each_process_reads_its_part_and_the_first_writes_all(tiny_qwen3vl, tmp_path, mesh, gate_proj):
    printed = load_and_save(tiny_qwen3vl, tmp_path / "out", mesh)
    before, after = tensors(tiny_qwen3vl), tensors(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(after[name].tobytes() == array.tobytes() for name, array in before.items())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [process["gate_proj"] for process in printed] == [gate_proj] * 2
    for process in printed:
        # Nothing twice; and what is split by rows, as the embedding is over `tensor`, half by each process.
        assert all(count <= math.prod(before[name].shape) for name, count in process["read"].items())
        embedding = process["read"]["model.language_model.embed_tokens.weight"]
        assert embedding == 384 * 64 // (2 if mesh == "1,1,2" else 1)
