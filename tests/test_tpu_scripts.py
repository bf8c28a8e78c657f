"""The launch scripts, against programs that note their calls and play cloud, host and cluster in a folder."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "tpu_scripts"
HOST = ("--name=pod", "--zone=here-a")
RUN = ("--config=configs/stage1.py", "--workdir=gs://bucket/run 1")
SLICE = (*HOST, "--type=v5litepod-16")
GKE = ("--name=pod", "--image=registry/image:1", *RUN)
TPU_NODES = ("--accelerator=tpu-v6e-slice", "--topology=4x4")

# A valid call of each command.
COMMANDS = {
    "create_tpu_vm.sh": SLICE,
    "setup.sh": HOST,
    "launch_all_hosts.sh": (*HOST, *RUN),
    "tail_logs.sh": HOST,
    "status.sh": HOST,
    "fetch_results.sh": (*HOST, "--workdir=runs/a", "--out=there"),
    "delete_tpu_vm.sh": HOST,
    "keep_running.sh": (*SLICE, *RUN, "--poll=0"),
    "submit_slurm.sh": RUN,
    "slurm_job.sh": (*RUN, "--requeues=2"),
    "submit_gke.sh": (*GKE, *TPU_NODES),
}

# One slice whose only host is the folder `host`, which goes away with the slice. Installing is only noted.
FAKE_GCLOUD = (
    f"#!{sys.executable} -SE"
    """
import json, os, shutil, subprocess, sys
from pathlib import Path
cloud, args = Path(os.environ["FAKE_CLOUD"]), sys.argv[1:]
state, host, refusals = cloud / "state", cloud / "host", cloud / "refusals"
with (cloud / "log").open("a") as log:
    log.write(json.dumps(args) + "\\n")
kind, verb = args[2:4]
if (cloud / "down").exists():
    sys.exit("ERROR: permission denied")
if verb == "create":
    left = int(refusals.read_text()) if refusals.exists() else 0
    if left:
        refusals.write_text(str(left - 1))
        sys.exit("ERROR: there is no more capacity")
    state.write_text("WAITING_FOR_RESOURCES" if kind == "queued-resources" else "READY")
    (host / "dig_jax").mkdir(parents=True)
elif verb == "delete":
    state.unlink()
    shutil.rmtree(host)
elif verb == "describe":
    if not state.exists():
        sys.exit("ERROR: (gcloud) NOT_FOUND: Resource was not found")
    now = state.read_text()
    print(now)
    if now == "WAITING_FOR_RESOURCES":
        state.write_text("ACTIVE")
elif verb == "scp":
    bin = host / "dig_jax" / ".venv" / "bin"
    bin.mkdir(parents=True, exist_ok=True)
    shutil.copy(cloud / "python", bin / "python")
elif verb == "ssh":
    command = args[-1].removeprefix("--command=")
    if "apt-get" not in command and "import jax" not in command and " -F " not in command:
        sys.exit(subprocess.run(["bash", "-c", command], cwd=host).returncode)
"""
)

# The training run: what becomes of it, and of the slice under it, is the next line of `plan`.
FAKE_PYTHON = """#!/bin/bash
printf '%s\\n' "$@"
read -r code state <"$FAKE_CLOUD/plan"
sed -i 1d "$FAKE_CLOUD/plan"
printf %s "$state" >"$FAKE_CLOUD/state"
if [ "$code" = killed ]; then kill -9 $PPID; fi
exit "$code"
"""

# srun, sbatch, kubectl ...: the arguments, and what comes in, are noted; the exit code is in a file.
FAKE_PROGRAM = """#!/bin/bash
printf '%s\\n' "$(basename "$0") $*" >>"$FAKE_CLOUD/programs"
if [ "$*" = "apply -f -" ]; then cat >"$FAKE_CLOUD/manifest"; fi
if [ -e "$FAKE_CLOUD/until_told" ]; then
  trap 'exit 75' TERM
  touch "$FAKE_CLOUD/started"
  while true; do sleep 0.05; done
fi
exit "$(cat "$FAKE_CLOUD/$(basename "$0").exit" 2>/dev/null || echo 0)"
"""


class Cloud:
    """Runs scripts where the programs they call are the fakes above."""

    def __init__(self, folder: Path):
        self.folder, self.host = folder, folder / "host"
        (folder / "bin").mkdir()
        self._program("bin/gcloud", FAKE_GCLOUD)
        self._program("python", FAKE_PYTHON)
        for name in ("sbatch", "srun", "scontrol", "kubectl", "xpk"):
            self._program(f"bin/{name}", FAKE_PROGRAM)
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.env = os.environ | {"PATH": path, "FAKE_CLOUD": str(folder)}

    def _program(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text)
        (self.folder / path).chmod(0o755)

    def run(self, script: str, *args: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(SCRIPTS / script), *args],
            env=self.env | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def make_slice(self) -> None:
        """A slice that is there and set up."""
        (self.folder / "state").write_text("READY")
        (self.host / "dig_jax" / ".venv" / "bin").mkdir(parents=True)

    def calls(self) -> list[list[str]]:
        """Arguments of every call of gcloud."""
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def verbs(self) -> list[str]:
        """What was done to the slice, in order."""
        return [call[3] for call in self.calls() if call[3] in ("create", "scp", "delete")]

    def programs(self) -> list[str]:
        """Every call of another program."""
        log = self.folder / "programs"
        return log.read_text().splitlines() if log.exists() else []


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


def _wait_for(path: Path, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def test_launch_passes_flags_on_unchanged_and_the_exit_code_is_kept(cloud: Cloud):
    cloud.make_slice()
    folder = cloud.host / "dig_jax"
    python = folder / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 3\n')
    python.chmod(0o755)
    flags = ('--config.data.train=("data/a", "data/b")', "--config.data.question=what's new?")
    assert cloud.run("launch_all_hosts.sh", *HOST, *RUN, "--detach", "--", *flags).returncode == 0
    _wait_for(folder / "run.exit")
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
    _wait_for(folder / "started")
    try:
        again = cloud.run(*launch)
        assert again.returncode != 0
        assert "a run is under way" in again.stderr
        assert "run: running" in cloud.run("status.sh", *HOST).stdout
    finally:
        os.killpg(int((folder / "run.pid").read_text()), signal.SIGTERM)
    _wait_for(folder / "run.exit")
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
    result = cloud.run("fetch_results.sh", "--workdir=runs/a", f"--out={tmp_path / 'out'}", *HOST, *flags)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "report.html").read_text() == "r"
    assert (tmp_path / "out" / "checkpoints").exists() == checkpoints


def test_fetch_reads_a_bucket_without_naming_a_host(cloud: Cloud, tmp_path: Path):
    assert cloud.run("fetch_results.sh", "--workdir=gs://b/run", f"--out={tmp_path / 'out'}").returncode == 0
    (call,) = cloud.calls()
    assert call[:2] == ["storage", "rsync"] and "--exclude=^checkpoints/.*" in call


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


# Slurm


def test_slurm_queues_one_process_per_gpu_and_signals_the_run_before_its_time_is_over(cloud: Cloud):
    result = cloud.run(
        "submit_slurm.sh", *RUN, "--nodes=2", "--gpus_per_node=4", "--time=1:00:00", "--", "--x=1"
    )
    assert result.returncode == 0, result.stderr
    (call,) = cloud.programs()
    assert "--nodes=2 --gpus-per-node=4 --ntasks-per-node=4" in call
    assert "--time=1:00:00 --signal=TERM@600 --requeue" in call
    assert call.endswith(
        "slurm_job.sh --requeues=100 --config=configs/stage1.py --workdir=gs://bucket/run 1 -- --x=1"
    )


@pytest.mark.parametrize(
    "code, turn, requeued",
    [(0, 0, False), (75, 0, True), (75, 1, True), (75, 2, False), (76, 0, True), (1, 0, False)],
)
def test_slurm_runs_again_what_saved_and_stopped(cloud: Cloud, code: int, turn: int, requeued: bool):
    (cloud.folder / "srun.exit").write_text(str(code))
    job = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": str(turn)}
    result = cloud.run("slurm_job.sh", *COMMANDS["slurm_job.sh"], "--", "--config.seed=3", **job)
    assert result.returncode == code, result.stderr
    srun, *others = cloud.programs()
    assert srun.endswith(f"dig_jax.main --distributed {' '.join(RUN)} --config.seed=3")
    assert others == (["scontrol requeue 17"] if requeued else [])


def test_a_failure_of_one_task_counts_for_more_than_the_76_of_the_others(cloud: Cloud):
    shown = cloud.run("slurm_job.sh", *COMMANDS["slurm_job.sh"], "--dry_run").stdout.splitlines()[0]
    *_, task = shlex.split(shown.split(" task ")[0])
    codes = {}
    for code in (0, 1, 2, 75, 76, 137):
        codes[code] = subprocess.run(["bash", "-c", task, "task", "bash", "-c", f"exit {code}"]).returncode
    assert codes == {0: 0, 1: 101, 2: 102, 75: 75, 76: 76, 137: 137}
    (cloud.folder / "srun.exit").write_text("101")
    result = cloud.run("slurm_job.sh", *COMMANDS["slurm_job.sh"], SLURM_JOB_ID="17")
    assert result.returncode == 1
    assert len(cloud.programs()) == 1  # not queued again


def test_a_signal_to_the_job_reaches_the_run_and_its_exit_code_counts(cloud: Cloud):
    (cloud.folder / "until_told").touch()
    command = ["bash", str(SCRIPTS / "slurm_job.sh"), *RUN, "--requeues=0"]
    job = subprocess.Popen(command, env=cloud.env | {"SLURM_JOB_ID": "17"}, cwd=ROOT)
    _wait_for(cloud.folder / "started")
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=10) == 75


# GKE


def _manifest(cloud: Cloud, *args: str) -> dict:
    result = cloud.run("submit_gke.sh", *GKE, *args)
    assert result.returncode == 0, result.stderr
    assert cloud.programs() == ["kubectl apply -f -"]
    (manifest,) = yaml.safe_load_all((cloud.folder / "manifest").read_text())
    return manifest


def test_the_jobset_asks_for_all_hosts_of_the_slice_and_passes_the_command_on(cloud: Cloud):
    flags = ('--config.data.question=say "a\\b" & ${NAME}', "--config.seed=3")
    manifest = _manifest(cloud, *TPU_NODES, "--spot", "--", *flags)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["name"] == "pod"
    (job,) = manifest["spec"]["replicatedJobs"]
    assert (job["replicas"], job["template"]["spec"]["parallelism"]) == (1, 4)
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["image"] == "registry/image:1"
    assert container["command"] == ["python", "-m", "dig_jax.main", "--distributed", *RUN, *flags]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}


def test_the_jobset_restarts_a_preempted_run_without_counting_and_a_failed_one_counting(cloud: Cloud):
    manifest = _manifest(cloud, *TPU_NODES, "--restarts=5")
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 5
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    saved, disrupted = job["podFailurePolicy"]["rules"]
    assert saved["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [75, 76]}
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # A pod failure policy is for pods that are never restarted in place.
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")


@pytest.mark.parametrize("topology, hosts, chips", [("1x1", 1, 1), ("2x2", 1, 4), ("2x2x4", 4, 4)])
def test_hosts_follow_from_the_topology(cloud: Cloud, topology: str, hosts: int, chips: int):
    manifest = _manifest(cloud, "--accelerator=tpu-v5p-slice", f"--topology={topology}")
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert (job["completions"], container["resources"]["limits"]["google.com/tpu"]) == (hosts, chips)


def test_xpk_gets_the_same_run(cloud: Cloud):
    args = (*GKE, "--xpk_cluster=mine", "--zone=here-a", "--type=v6e-16", "--", "--config.seed=3")
    assert cloud.run("submit_gke.sh", *args).returncode == 0
    (call,) = cloud.programs()
    assert call.startswith(
        "xpk workload create --cluster=mine --workload=pod --zone=here-a --tpu-type=v6e-16"
    )
    assert "--restart-on-exit-codes=75,76" in call
    assert r"--workdir=gs://bucket/run\ 1 --config.seed=3" in call
