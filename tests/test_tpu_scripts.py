"""The TPU scripts, against a `gcloud` that notes how it was called and plays host 0 in a local folder."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "tpu_scripts"
COMMANDS = ("create_tpu_vm.sh", "setup.sh", "launch_all_hosts.sh", "fetch_results.sh")
HOST = ("--name=pod", "--zone=here-a")

# What launching and fetching ask of a host is run; installing and following a log are only noted.
FAKE_GCLOUD = """#!/usr/bin/env python3
import json, os, subprocess, sys
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
for argument in sys.argv:
    if argument.startswith("--command=cd dig_jax\\n") or argument.startswith("--command=cd dig_jax && tar"):
        sys.exit(subprocess.run(["bash", "-c", argument[10:]], cwd=os.environ["FAKE_HOST"]).returncode)
"""


class Cloud:
    """Runs scripts against the fake gcloud."""

    def __init__(self, folder: Path):
        self.host = folder / "host"
        self._log = folder / "log"
        self._log.touch()
        (folder / "bin").mkdir()
        (self.host / "dig_jax").mkdir(parents=True)
        gcloud = folder / "bin" / "gcloud"
        gcloud.write_text(FAKE_GCLOUD)
        gcloud.chmod(0o755)
        path = f"{gcloud.parent}{os.pathsep}{os.environ['PATH']}"
        self._env = os.environ | {"PATH": path, "FAKE_LOG": str(self._log), "FAKE_HOST": str(self.host)}

    def run(self, script: str, *args: str) -> subprocess.CompletedProcess:
        command = ["bash", str(SCRIPTS / script), *args]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


@pytest.mark.parametrize("script", [*COMMANDS, "common.sh"])
def test_bash_can_parse_it(script: str):
    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)


@pytest.mark.parametrize("script", COMMANDS)
def test_help_names_every_option_the_script_reads(cloud: Cloud, script: str):
    result = cloud.run(script, "--help")
    assert result.returncode == 0
    options = re.findall(r"^ +(--[a-z]+)(?:=\*)?\)", (SCRIPTS / script).read_text(), re.MULTILINE)
    assert "--zone" in options
    for option in options:
        assert option in result.stdout, option


@pytest.mark.parametrize("script", COMMANDS)
def test_an_unknown_argument_is_refused_before_anything_is_called(cloud: Cloud, script: str):
    result = cloud.run(script, *HOST, "--wrokers=3")
    assert (result.returncode, cloud.calls()) == (2, [])
    assert "--wrokers=3" in result.stderr


@pytest.mark.parametrize("script", COMMANDS)
def test_a_missing_option_is_named(cloud: Cloud, script: str):
    result = cloud.run(script)
    assert (result.returncode, cloud.calls()) == (2, [])
    assert "is required; see --help" in result.stderr


def test_create_chooses_the_runtime_that_belongs_to_the_type(cloud: Cloud):
    assert cloud.run("create_tpu_vm.sh", *HOST, "--type=v5litepod-16", "--spot").returncode == 0
    (call,) = cloud.calls()
    assert call[:5] == ["compute", "tpus", "tpu-vm", "create", "pod"]
    assert {"--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite", "--spot"} <= set(call)


def test_create_asks_for_the_runtime_of_an_unknown_type(cloud: Cloud):
    result = cloud.run("create_tpu_vm.sh", *HOST, "--type=v9-8")
    assert (result.returncode, cloud.calls()) == (2, [])
    assert "--type=v9-8" in result.stderr


def test_setup_copies_to_every_host_then_installs_there(cloud: Cloud):
    assert cloud.run("setup.sh", *HOST, "--project=mine").returncode == 0
    copy, install, check = cloud.calls()
    assert copy[3] == "scp" and install[3] == check[3] == "ssh"
    for call in (copy, install, check):
        assert {"--worker=all", "--zone=here-a", "--project=mine"} <= set(call)


def test_setup_names_a_folder_that_does_not_exist(cloud: Cloud):
    result = cloud.run("setup.sh", *HOST, "--copy=data/nowhere")
    assert (result.returncode, cloud.calls()) == (2, [])
    assert "--copy=data/nowhere" in result.stderr


def _launch(cloud: Cloud, *flags: str) -> subprocess.CompletedProcess:
    python = cloud.host / "dig_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexec sleep 30\n')
    python.chmod(0o755)
    args = ("--config=configs/stage1.py", "--workdir=gs://bucket/run 1", "--", *flags)
    return cloud.run("launch_all_hosts.sh", *HOST, *args)


def test_launch_passes_flags_on_unchanged_and_refuses_a_second_run(cloud: Cloud):
    flag = '--config.data.train=("data/a", "data/b")'
    folder = cloud.host / "dig_jax"
    assert _launch(cloud, flag).returncode == 0
    try:
        deadline = time.monotonic() + 10
        while flag not in (log := (folder / "run.log").read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert log.splitlines() == [
            "-m",
            "dig_jax.main",
            "--distributed",
            "--config=configs/stage1.py",
            "--workdir=gs://bucket/run 1",
            flag,
        ]
        again = _launch(cloud)
        assert again.returncode != 0
        assert "a run is under way" in again.stderr
    finally:
        os.kill(int((folder / "run.pid").read_text()), 9)


@pytest.mark.parametrize("flags, checkpoints", [((), False), (("--checkpoints",), True)])
def test_fetch_copies_a_run_from_host_0(cloud: Cloud, tmp_path: Path, flags: tuple, checkpoints: bool):
    run = cloud.host / "dig_jax" / "runs" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "weights").write_text("w")
    (run / "report.html").write_text("r")
    result = cloud.run("fetch_results.sh", "--workdir=runs/a", f"--out={tmp_path / 'out'}", *HOST, *flags)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "report.html").read_text() == "r"
    assert (tmp_path / "out" / "checkpoints").exists() == checkpoints


def test_fetch_reads_a_bucket_without_naming_a_host(cloud: Cloud, tmp_path: Path):
    assert cloud.run("fetch_results.sh", "--workdir=gs://b/run", f"--out={tmp_path / 'out'}").returncode == 0
    (call,) = cloud.calls()
    assert call[:2] == ["storage", "rsync"] and "--exclude=^checkpoints/.*" in call
