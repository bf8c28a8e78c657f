"""The command itself, as a process: many clients, faults, and SIGTERM."""

import os
import pathlib
import subprocess
import sys

import pytest

from bench import serve_load
from tests.helpers.paths import ROOT


@pytest.mark.slow
def test_nothing_is_lost_or_left_under_clients_with_faults(capsys: pytest.CaptureFixture[str]) -> None:
    code = serve_load.main(["--clients=16", "--requests=2", "--rows=4"])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "other than alone or lost: 0" in told and "stopped on SIGTERM with code 0" in told


@pytest.mark.slow
def test_answers_are_the_same_on_four_devices_and_in_bfloat16_whoever_else_asks(
    tiny_qwen3vl: pathlib.Path,
) -> None:
    script = [sys.executable, str(ROOT / "tests" / "helpers" / "batcher_answers.py"), str(tiny_qwen3vl)]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr
