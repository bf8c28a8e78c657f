"""Processes that lose one of their number: all end soon, and say which one it was."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from dig_jax.machines.distributed import EXIT_LOST
from tests.helpers.paths import HELPERS, ROOT

LOOP = HELPERS / "distributed_loop.py"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Processes:
    """Processes of one run; `scripts` are what each does in its middle, Python code."""

    def __init__(self, *scripts: str, silence: float = 60.0):
        port = free_port()
        self.started = [
            subprocess.Popen(
                [sys.executable, LOOP, str(port), str(len(scripts)), str(index), str(silence), script],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index, script in enumerate(scripts)
        ]

    def ends(self) -> list[tuple[int, str]]:
        """Exit code and stderr of each."""
        errors = [process.communicate(timeout=300)[1] for process in self.started]
        return list(zip([process.returncode for process in self.started], errors, strict=True))


DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_end_when_one_is_killed(victim: int) -> None:
    ends = Processes(*(DIE if index == victim else "" for index in range(3))).ends()
    for index, (code, errors) in enumerate(ends):
        assert code == (-signal.SIGKILL if index == victim else EXIT_LOST)
        if index != victim:
            assert f"error: process {victim} of 3 is lost (its connection closed)" in errors
            assert "Traceback" not in errors


def test_one_that_is_silent_is_lost() -> None:
    stop = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    processes = Processes("", stop, silence=6.0)
    first, stopped = processes.started
    errors = first.communicate(timeout=300)[1]
    stopped.kill()
    stopped.communicate()
    assert first.returncode == EXIT_LOST and "process 1 of 2 is lost (silent for 6 s" in errors


def test_an_error_in_one_is_told_to_all() -> None:
    ends = Processes("", "raise KeyError('a bug')", "").ends()
    assert [code for code, _ in ends] == [EXIT_LOST, 1, EXIT_LOST]
    for _, errors in (ends[0], ends[2]):
        assert "error: process 1 of 3 failed (KeyError: 'a bug'); its own log says more" in errors
        assert "Traceback" not in errors
    assert "Traceback" in ends[1][1]


def test_where_all_make_the_same_mistake_each_keeps_its_exit_code() -> None:
    assert [code for code, _ in Processes("sys.exit(2)", "sys.exit(2)").ends()] == [2, 2]


def test_an_end_in_good_order_is_no_loss() -> None:
    """The first one leaves a second before the others."""
    stop = "from dig_jax.machines.stopping import Stopped; time.sleep({}); raise Stopped(75)"
    ends = Processes(stop.format(0), stop.format(1)).ends()
    for code, errors in ends:
        assert code == 1 and "Stopped: stopped on request" in errors and "is lost" not in errors


def test_who_takes_part_must_be_known(tmp_path: pathlib.Path) -> None:
    flags = ["--distributed", "--num_processes=2", "--config=configs/stage3.py", f"--workdir={tmp_path}"]
    command = [sys.executable, "-m", "dig_jax.main", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: --distributed: " in done.stderr and "--coordinator_address=HOST:PORT" in done.stderr
