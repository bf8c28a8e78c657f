"""The launch scripts: what holds for all of them, and TPU slices, against the programs of `fake_cloud.py`."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.fake_cloud import COMMANDS, HOST, ROOT, RUN, SCRIPTS, SLICE, Cloud, wait_for


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def test_every_script_has_a_valid_call_here():
    assert set(COMMANDS) | {"common.sh"} == {path.name for path in SCRIPTS.glob("*.sh")}


@pytest.mark.parametrize("script", COMMANDS)
def test_help_names_every_option_the_script_reads(cloud: Cloud, script: str):
    result = cloud.run(script, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    options = re.search(r"^read_options '([^']+)'", (SCRIPTS / script).read_text(), re.MULTILINE)
    for option in (*options[1].split(), "dry_run"):
        assert f"--{option.removeprefix('--').rstrip('=')}" in result.stdout, option


@pytest.mark.parametrize("argument", ["--wrokers=3", "--wrokers", "wrokers", "--yes=1", "--name", "--"])
def test_an_unknown_argument_is_refused_before_anything_is_called(cloud: Cloud, argument: str):
    result = cloud.run("delete_tpu_vm.sh", *HOST, argument)
    assert (result.returncode, cloud.calls()) == (2, [])
    assert f"unknown argument '{argument}'" in result.stderr


@pytest.mark.parametrize("script", COMMANDS)
def test_a_missing_option_is_named(cloud: Cloud, script: str):
    result = cloud.run(script)
    assert (result.returncode, cloud.calls(), cloud.programs()) == (2, [], [])
    assert re.search(r"error: --[a-z]+ is required; see --help", result.stderr)


@pytest.mark.parametrize("script", COMMANDS)
def test_a_dry_run_prints_commands_and_runs_none(cloud: Cloud, script: str):
    before = sorted(path.name for path in ROOT.iterdir())
    result = cloud.run(script, *COMMANDS[script], "--dry_run")
    assert result.returncode == 0, result.stderr
    assert (cloud.calls(), cloud.programs()) == ([], [])
    assert re.search(r"^(slice: |# )?(gcloud compute tpus|sbatch|srun|kubectl) ", result.stdout, re.MULTILINE)
    assert sorted(path.name for path in ROOT.iterdir()) == before


def test_what_a_dry_run_prints_is_what_a_run_calls(cloud: Cloud):
    printed = cloud.run("delete_tpu_vm.sh", *HOST, "--project=a b", "--dry_run").stdout
    cloud.make_slice()
    subprocess.run(["bash", "-c", printed], env=cloud.env, check=True)
    assert cloud.calls() == [["compute", "tpus", "tpu-vm", "delete", "pod", "--zone=here-a", "--project=a b"]]


# a slice, step by step


def test_create_chooses_the_runtime_that_belongs_to_the_type(cloud: Cloud):
    assert cloud.run("create_tpu_vm.sh", *SLICE, "--spot").returncode == 0
    (call,) = cloud.calls()
    assert call[:5] == ["compute", "tpus", "tpu-vm", "create", "pod"]
    assert {"--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite", "--spot"} <= set(call)


def test_create_asks_for_the_runtime_of_an_unknown_type(cloud: Cloud):
    result = cloud.run("create_tpu_vm.sh", *HOST, "--type=v9-8")
    assert (result.returncode, cloud.calls()) == (2, [])
    assert "--type=v9-8" in result.stderr


def test_a_queued_slice_is_asked_for_and_deleted_with_its_request(cloud: Cloud):
    assert cloud.run("create_tpu_vm.sh", *SLICE, "--queued", "--valid_for=6h").returncode == 0
    assert "slice: WAITING_FOR_RESOURCES" in cloud.run("status.sh", *HOST, "--queued").stdout
    assert cloud.run("delete_tpu_vm.sh", *HOST, "--queued", "--yes").returncode == 0
    create, _, delete = cloud.calls()
    assert create[:5] == ["compute", "tpus", "queued-resources", "create", "pod"]
    assert {"--node-id=pod", "--runtime-version=v2-alpha-tpuv5-lite", "--valid-until-duration=6h"} <= set(
        create
    )
    assert delete[2:5] == ["queued-resources", "delete", "pod"]
    assert {"--force", "--quiet"} <= set(delete)


def test_setup_copies_to_every_host_then_installs_there(cloud: Cloud):
    cloud.make_slice()
    assert cloud.run("setup.sh", *HOST, "--project=mine").returncode == 0
    copy, install, check = cloud.calls()
    assert copy[3] == "scp" and install[3] == check[3] == "ssh"
    for call in (copy, install, check):
        assert {"--worker=all", "--zone=here-a", "--project=mine"} <= set(call)


def test_setup_names_a_folder_that_does_not_exist(cloud: Cloud):
    result = cloud.run("setup.sh", *HOST, "--copy=configs,data/nowhere")
    assert (result.returncode, cloud.calls()) == (2, [])
    assert "--copy=data/nowhere" in result.stderr


def test_launch_passes_flags_on_unchanged_and_the_exit_code_is_kept(cloud: Cloud):
    cloud.make_slice()
    folder = cloud.host / "dig_jax"
    python = folder / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n')
    python.chmod(0o755)
    flags = ('--config.data.train=("data/a", "data/b")', "--config.data.question=what's new?")
    assert cloud.run("launch_all_hosts.sh", *HOST, *RUN, "--detach", "--", *flags).returncode == 0
    wait_for(folder / "run.exit")
    expected = ["-m", "dig_jax.main", "--distributed", *RUN, *flags]
    assert (folder / "run.log").read_text().splitlines() == expected
    assert "run: exit 3" in cloud.run("status.sh", *HOST).stdout
    log = cloud.run("tail_logs.sh", *HOST, "--no_follow", "--lines=2").stdout
    assert log.splitlines() == list(flags)


def test_a_second_launch_is_refused_and_a_signal_lets_the_first_one_save(cloud: Cloud):
    cloud.make_slice()
    folder = cloud.host / "dig_jax"
    python = folder / ".venv" / "bin" / "python"
    python.write_text(
        "#!/bin/bash\ntrap 'sleep 0.3; exit 75' TERM\ntouch started\nwhile true; do sleep 0.05; done\n"
    )
    python.chmod(0o755)
    launch = ("launch_all_hosts.sh", *HOST, *RUN, "--detach")
    assert cloud.run(*launch).returncode == 0
    wait_for(folder / "started")
    try:
        again = cloud.run(*launch)
        assert again.returncode != 0
        assert "a run is under way" in again.stderr
        assert "run: running" in cloud.run("status.sh", *HOST).stdout
    finally:
        os.killpg(int((folder / "run.pid").read_text()), signal.SIGTERM)
    wait_for(folder / "run.exit")
    assert (folder / "run.exit").read_text() == "75\n"


@pytest.mark.parametrize(
    "hosts, state",
    [
        ("none none", "none"),
        ("exit:0 exit:0", "exit 0"),
        ("exit:0 running", "running"),
        ("exit:76 exit:1", "exit 1"),
        ("exit:75 exit:76", "exit 75"),
        ("exit:0 exit:76", "exit 76"),
        ("exit:1 lost", "lost"),
        ("exit:0 none", "lost"),
    ],
)
def test_the_state_of_a_run_is_that_of_all_its_hosts(cloud: Cloud, hosts: str, state: str):
    answers = " ".join(shlex.quote(answer.replace(":", " ")) for answer in hosts.split())
    script = f"""source {SCRIPTS}/common.sh
        on_workers() {{ printf '%s\\n' {answers}; }}
        run_state"""
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == (state, "")


@pytest.mark.parametrize("flags, checkpoints", [((), False), (("--checkpoints",), True)])
def test_fetch_copies_a_run_from_host_0(cloud: Cloud, tmp_path: Path, flags: tuple, checkpoints: bool):
    cloud.make_slice()
    run = cloud.host / "dig_jax" / "runs" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "weights").write_text("w")
    (run / "report.html").write_text("r")
    (run / "compile_cache").mkdir()
    result = cloud.run("fetch_results.sh", "--workdir=runs/a", f"--out={tmp_path / 'out'}", *HOST, *flags)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "report.html").read_text() == "r"
    assert (tmp_path / "out" / "checkpoints").exists() == checkpoints
    assert not (tmp_path / "out" / "compile_cache").exists()  # programs for a TPU


def test_fetch_reads_a_bucket_without_naming_a_host(cloud: Cloud, tmp_path: Path):
    assert cloud.run("fetch_results.sh", "--workdir=gs://b/run", f"--out={tmp_path / 'out'}").returncode == 0
    (call,) = cloud.calls()
    assert call[:2] == ["storage", "rsync"] and "--exclude=^checkpoints/.*|^compile_cache/.*" in call


# a slice that is taken away


def _keep_running(cloud: Cloud, plan: list[str], *options: str) -> subprocess.CompletedProcess:
    """Runs it to its end; each line of the plan is a launch: its exit code, and the slice's state after."""
    (cloud.folder / "plan").write_text("".join(f"{line}\n" for line in plan))
    return cloud.run("keep_running.sh", *COMMANDS["keep_running.sh"], *options, "--", "--config.seed=3")


def test_a_preempted_slice_is_made_anew_and_the_same_run_goes_on(cloud: Cloud):
    result = _keep_running(cloud, ["75 PREEMPTED", "0 READY"], "--spot", "--project=mine")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["create", "scp", "delete", "create", "scp"]
    creations = [call for call in cloud.calls() if call[3] == "create"]
    assert creations[0] == creations[1] and "--spot" in creations[0]
    launches = [call[-1] for call in cloud.calls() if "setsid" in call[-1]]
    assert len(launches) == 2 and launches[0] == launches[1]
    assert r"--workdir=gs://bucket/run\ 1 --config.seed=3" in launches[0]
    assert all("--project=mine" in call for call in cloud.calls())


def test_a_suspended_request_is_queued_anew(cloud: Cloud):
    result = _keep_running(cloud, ["75 SUSPENDED", "0 ACTIVE"], "--spot", "--queued", "--delete_when_done")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["create", "scp", "delete", "create", "scp", "delete"]
    assert {call[2] for call in cloud.calls() if call[3] in ("create", "delete", "describe")} == {
        "queued-resources"
    }


def test_a_run_that_failed_because_its_slice_went_away_goes_on(cloud: Cloud):
    assert _keep_running(cloud, ["1 PREEMPTED", "0 READY"]).returncode == 0
    assert cloud.verbs().count("create") == 2


@pytest.mark.parametrize("end", ["75 READY", "76 READY", "killed READY"])
def test_a_run_that_stopped_on_a_slice_that_stays_is_launched_again_there(cloud: Cloud, end: str):
    assert _keep_running(cloud, [end, "0 READY"]).returncode == 0
    assert cloud.verbs() == ["create", "scp"]


def test_a_failed_run_ends_it_with_the_log_and_leaves_the_slice(cloud: Cloud):
    result = _keep_running(cloud, ["2 READY"])
    assert result.returncode == 1
    assert "the run failed (exit 2)" in result.stderr and "delete_tpu_vm.sh" in result.stderr
    assert "--config.seed=3" in result.stdout  # what the run printed
    assert cloud.verbs() == ["create", "scp"]


def test_without_capacity_it_gives_up_after_the_attempts(cloud: Cloud):
    (cloud.folder / "refusals").write_text("9")
    result = _keep_running(cloud, [], "--attempts=3")
    assert result.returncode == 1
    assert "--attempts=3 are used up" in result.stderr
    assert cloud.verbs() == ["create"] * 3


def test_a_cloud_that_does_not_answer_is_not_taken_for_a_missing_slice(cloud: Cloud):
    (cloud.folder / "down").touch()
    result = _keep_running(cloud, [])
    assert result.returncode == 1
    assert "permission denied" in result.stderr and "gcloud did not answer 10 times" in result.stderr
    assert cloud.verbs() == []


def test_a_workdir_that_would_go_away_with_the_slice_is_refused(cloud: Cloud):
    result = cloud.run("keep_running.sh", *SLICE, "--config=configs/stage1.py", "--workdir=runs/a")
    assert (result.returncode, cloud.calls()) == (2, [])
    assert "--workdir=runs/a" in result.stderr
