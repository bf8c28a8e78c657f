"""The real command in two processes and in one: the same run, whoever goes on with it, and whoever dies."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dig_jax.machines.distributed import EXIT_LOST
from dig_jax.machines.stopping import EXIT_PREEMPTED
from tests.commands.test_mixture_runs import two_parts
from tests.commands.test_train import inputs, small_config, without_times  # noqa: F401  (inputs is a fixture)
from tests.helpers.paths import ROOT
from tests.helpers.small_model import FOR_TWO_DEVICES, make_small_model
from tests.machines.test_distributed import free_port

pytestmark = pytest.mark.usefixtures("quick_compiling")

STEPS = 5
SILENCE = 60.0


@pytest.fixture(scope="module")
def config(inputs: pathlib.Path) -> pathlib.Path:  # noqa: F811
    """A config file: GRPO on a small model, whose heads two devices can share, and on a mixture of tasks."""
    make_small_model(inputs / "shared", **FOR_TWO_DEVICES)
    changes = {
        "model_path": str(inputs / "shared"),
        "data.eval": str(inputs / "pairs"),
        "eval.every": 1,  # or a run that is to end earlier evaluates where the whole one does not
        "eval.group_size": 0,
        "checkpoint.every": 1,
        # Two updates per step, and prompts that take the places of others: which, all processes agree.
        "batch.update_prompts": 4,
        "grpo.dynamic_sampling": 1,
        # Of one size: fewer programs to compile.
        "batch.micro_prompts": 4,
        "batch.response_buckets": (12,),
        "optimizer.learning_rate": 1e-3,
        "distributed.silence_seconds": SILENCE,
    }
    settings = small_config(inputs, "grpo", num_steps=STEPS, **changes)
    settings.mixture = two_parts()
    file = inputs / "config.py"
    file.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({settings.to_json()!r}))\n"
    )
    return file


@pytest.fixture(scope="module")
def whole(config: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of a run on one device that nothing interrupted."""
    return Run(config, tmp_path_factory.mktemp("whole") / "run").succeeds().workdir


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Ends what a failed test has left running."""
    yield
    for process in itertools.chain.from_iterable(run.processes for run in Run.all):
        process.kill()
        process.communicate()


class Run:
    """The command in one or several processes, started at once."""

    all: list["Run"] = []

    def __init__(
        self, config: pathlib.Path, workdir: pathlib.Path, *flags: str, processes: int = 1, devices: int = 1
    ):
        self.workdir = workdir
        command = [f"--config={config}", f"--workdir={workdir}", *flags]
        places: list[list[str]] = [[]]
        if processes > 1:
            join = ["--distributed", f"--coordinator_address=127.0.0.1:{free_port()}"]
            places = [
                [*join, f"--num_processes={processes}", f"--process_id={index}"] for index in range(processes)
            ]
        self.processes: list[subprocess.Popen[str]] = []
        self.all.append(self)
        for index, place in enumerate(places):
            notes = workdir.with_name(f"{workdir.name}.{index}")
            notes.unlink(missing_ok=True)
            self.processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        ROOT / "tests" / "helpers" / "distributed_run.py",
                        notes,
                        *place,
                        *command,
                    ],
                    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(devices)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def wait_for_step(self, step: int) -> None:
        """Returns when the metrics of `step` are written."""
        deadline = time.monotonic() + 600
        while not any(line["step"] >= step for line in written(self.workdir, "metrics.jsonl")):
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.processes), self.ends()
            time.sleep(0.05)

    def ends(self) -> list[tuple[int, str]]:
        """Exit code and stderr of each process."""
        outputs = [process.communicate(timeout=600) for process in self.processes]
        codes = [process.returncode for process in self.processes]
        return list(zip(codes, [errors for _, errors in outputs], strict=True))

    def succeeds(self) -> "Run":
        for code, errors in self.ends():
            assert code == 0, errors[-3000:]
        return self


def written(workdir: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """The lines of a file; an unfinished last one is left out."""
    if not (workdir / name).exists():
        return []
    *whole, _ = (workdir / name).read_text().split("\n")
    return [json.loads(line) for line in whole]


def notes(workdir: pathlib.Path, kind: str, processes: int = 1) -> list[list[dict[str, Any]]]:
    """What each process noted of one kind, in order."""
    found = []
    for index in range(processes):
        text = workdir.with_name(f"{workdir.name}.{index}").read_text()
        found.append([line for line in map(json.loads, text.splitlines()) if kind in line])
    return found


def sampled(workdir: pathlib.Path, processes: int = 1) -> list[dict[str, Any]]:
    """The answers of every rollout and evaluation, by the pair: those of all processes together.

    Processes that share a device group have the same pairs, and the same answers to them.
    """
    together = []
    for parts in zip(*notes(workdir, "sampled", processes), strict=True):
        answers: dict[str, Any] = {}
        for id, answer in itertools.chain.from_iterable(part["sampled"].items() for part in parts):
            assert answers.setdefault(id, answer) == answer
        together.append(answers)
    return together


def assert_same_metrics(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    """Every figure of every step and evaluation, to float rounding: sums are taken in another order.

    What is expected may have gone on for longer.
    """
    last = written(workdir, "metrics.jsonl")[-1]["step"]
    for name in ("metrics.jsonl", "evals.jsonl"):
        ours, theirs = written(workdir, name), written(expected, name)
        theirs = [line for line in theirs if line["step"] <= last]
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for line, other in zip(ours, theirs, strict=True):
            line, other = without_times(line), without_times(other)
            assert line.keys() == other.keys()
            for key in line.keys() - {"rollout/reshard_gb"}:  # what sampling moves between devices
                assert line[key] == pytest.approx(other[key], rel=2e-3, abs=1e-5), (key, line["step"])


@pytest.mark.slow
def test_whoever_goes_on_with_a_run_it_is_the_same_run(
    config: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Two processes, stopped at one of them; one; two, one of them killed; two that split the weights."""
    alone = sampled(whole)
    assert any(answer for answers in alone for answer in answers.values())
    workdir = tmp_path / "run"

    two = Run(config, workdir, processes=2)
    two.wait_for_step(1)
    two.processes[1].send_signal(signal.SIGTERM)
    for code, errors in two.ends():
        assert code == EXIT_PREEMPTED and "stopped after step" in errors, errors[-3000:]
    stopped_at = written(workdir, "metrics.jsonl")[-1]["step"]
    assert stopped_at < 3 and (workdir / "checkpoints" / str(stopped_at)).exists()
    # Process 0 alone writes logs. Each scores its own answers, half of them.
    assert [len(found) for found in notes(workdir, "writer", 2)] == [1, 0]
    shares = [[line["scored"] for line in found] for found in notes(workdir, "scored", 2)]
    scored = [line["scored"] for line in notes(whole, "scored")[0]]
    assert shares[0] == shares[1] == [count // 2 for count in scored[: len(shares[0])]]
    # The same pairs in the same order, none in both, and the same tokens.
    both = sampled(workdir, 2)
    assert both == alone[: len(both)]

    Run(config, workdir, "--config.num_steps=3").succeeds()

    two = Run(config, workdir, processes=2)
    while not list((workdir / "checkpoints").glob("*tmp*")):  # the first one that it writes
        assert two.processes[0].poll() is None, two.ends()
        time.sleep(0.005)
    two.processes[1].kill()
    (code, errors), (killed, _) = two.ends()
    assert (code, killed) == (EXIT_LOST, -signal.SIGKILL), errors[-3000:]
    assert "error: process 1 of 2 is lost (its connection closed)" in errors

    # As Slurm starts it: a process per device, and a group of `tensor` across them.
    across = [f"--config.{mesh}.tensor=2" for mesh in ("mesh", "rollout.mesh")]
    rest = sampled(Run(config, workdir, *across, processes=2).succeeds().workdir, 2)
    assert rest == alone[-len(rest) :]
    assert_same_metrics(workdir, whole)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(
    config: pathlib.Path, whole: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One device; four, which share the weights; two."""
    workdir = tmp_path / "run"
    answers = []
    for steps, devices in ((1, 1), (2, 4), (3, 2)):
        answers += sampled(
            Run(config, workdir, f"--config.num_steps={steps}", devices=devices).succeeds().workdir
        )
    assert answers == sampled(whole)[: len(answers)]
    assert_same_metrics(workdir, whole)
