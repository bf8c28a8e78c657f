"""The launch scripts of clusters, Slurm and GKE, against the programs of `fake_cloud.py`."""

import shlex
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers.fake_cloud import COMMANDS, GKE, ROOT, RUN, SCRIPTS, TPU_NODES, Cloud, wait_for


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


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
    wait_for(cloud.folder / "started")
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=300) == 75


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
