"""The same GRPO step on one device, on meshes of eight simulated devices, and in two real processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.small_model import FOR_FOUR_DEVICES, make_small_model

pytestmark = pytest.mark.usefixtures("quick_compiling")

STEP = HELPERS / "distributed_step.py"
WHOLE: dict[str, Any] = {}  # settings as they are: one update, whole groups, all padded to 8 tokens
PIECES = {"batch.micro_completions": 1, "batch.response_buckets": (4,)}
PIECES_ONCE = PIECES | {"batch.sum_gradients": "update"}
# Two updates and four slices of prompts in a step.
PARTS = {"batch.update_prompts": 8, "batch.rollout_prompts": 4, "batch.micro_prompts": 4}
PARTS_ONCE = PARTS | {"batch.sum_gradients": "update"}

# Mesh, `tensor` of rollouts, devices in order (of two processes the second has 4 to 7), and settings.
Layout = tuple[tuple[int, int, int], int, list[int], dict[str, Any]]
HOSTS: dict[str, Layout] = {
    "no groups in updates, hosts in turn; across both in rollouts": (
        (2, 2, 1),
        2,
        [5, 1, 4, 0],
        PIECES_ONCE,
    ),
    "a group on each host, the second host first": ((2, 1, 2), 2, [5, 4, 0, 1], PARTS_ONCE),
    "across both in updates, on one host in rollouts": ((1, 1, 4), 2, [0, 1, 4, 5], PARTS),
    "on one host in updates, across both in rollouts": ((1, 2, 2), 4, [4, 5, 1, 0], PARTS),
    "a group on each host and two across both": ((1, 4, 2), 2, [0, 1, 2, 4, 5, 3, 6, 7], PIECES),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_small_model(folder / "model", vision_depth=2, text_depth=2, **FOR_FOUR_DEVICES)
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3) for i in range(16)]
    write_pairs(folder / "pairs", {"train": pairs, "test": pairs[:4]})
    return folder


def run_steps(
    inputs: pathlib.Path, layouts: Iterable[Layout], devices: int, processes: int = 1
) -> list[list[dict[str, Any]]]:
    """A step with each layout, the devices shared equally by the processes: what each process says of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices // processes),
        "PYTHONPATH": str(ROOT),
    }
    given = [str(inputs), json.dumps(list(layouts)), str(port), str(processes)]
    started = [
        subprocess.Popen(
            [sys.executable, str(STEP), *given, str(number)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=900) for process in started]
    finally:
        for process in started:
            process.kill()  # does nothing to one that has ended
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    steps = [[json.loads(line) for line in text.splitlines() if line.startswith("{")] for text, _ in outputs]
    return [list(of_all) for of_all in zip(*steps, strict=True)]


@pytest.fixture(scope="module")
def one_device(inputs: pathlib.Path) -> dict[str, Any]:
    """The step on one device, with one update."""
    ((step,),) = run_steps(inputs, [((1, 1, 1), 1, [0], WHOLE)], devices=1)
    return step


def assert_same(steps: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """The processes have all rows together, and those of one device; figures are those of one device."""
    assert set().union(*(step["tokens"] for step in steps)) == set(expected["tokens"])
    for step in steps:
        for name in ("tokens", "ids"):
            assert step[name] == {row: expected[name][row] for row in step[name]}
        for name in ("response_length", "loss", "grad_norm", "kl", "entropy", "taught_kl"):
            assert step[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param((2, 2, 2), id="all-axes"),
        pytest.param((8, 1, 1), id="data", marks=pytest.mark.slow),
    ],
)
def test_a_mesh_gives_what_one_device_gives(
    mesh: tuple[int, int, int], inputs: pathlib.Path, one_device: dict[str, Any]
) -> None:
    ((step,),) = run_steps(inputs, [(mesh, mesh[2], list(range(8)), WHOLE)], devices=8)
    assert_same([step], one_device)
    # Shapes of the real shards on the first device, not only the intention.
    assert step["shard_size"] * mesh[1] * mesh[2] == one_device["shard_size"]
    assert step["padded_tokens"] == pytest.approx(8 * 2 * (8 + 8))


@pytest.fixture(scope="module")
def two_updates(inputs: pathlib.Path) -> dict[str, Any]:
    """The step on one device, with two updates."""
    ((step,),) = run_steps(inputs, [((1, 1, 1), 1, [0], PARTS)], devices=1)
    return step


@pytest.mark.slow
@pytest.mark.parametrize("half", [slice(0, 3), slice(3, None)], ids=["first", "second"])
def test_two_processes_give_what_one_device_gives_however_their_devices_are_grouped(
    half: slice, inputs: pathlib.Path, one_device: dict[str, Any], two_updates: dict[str, Any]
) -> None:
    layouts = list(HOSTS.values())[half]
    for layout, steps in zip(layouts, run_steps(inputs, layouts, devices=8, processes=2), strict=True):
        in_parts = "batch.update_prompts" in layout[3]
        assert_same(steps, two_updates if in_parts else one_device)
        if not in_parts:
            # Four micro-batches of 8 completions, of 8, 8, 4 and 4 tokens. In the second those of one half of
            # the prompts are short and those of the other long: all devices take the branch for long ones.
            assert steps[0]["padded_tokens"] == pytest.approx(8 * (8 + 8 + 4 + 4))
