"""A cloud for tests of the launch scripts: programs that note their calls and play cloud, host and cluster.

All of it is in one folder; the scripts are the real ones.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.paths import ROOT

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
    with (cloud / "told").open("a") as told:
        told.write(now + "\\n")
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

# The training run: what becomes of it, and of the slice under it, is the next line of `plan`. A slice that is
# taken away is seen to be gone before the run ends, or who looks at both might see the end alone.
FAKE_PYTHON = """#!/bin/bash
printf '%s\\n' "$@"
read -r code state <"$FAKE_CLOUD/plan"
sed -i 1d "$FAKE_CLOUD/plan"
before=$(cat "$FAKE_CLOUD/state")
printf %s "$state" >"$FAKE_CLOUD/state"
while [ "$state" != "$before" ] && ! grep -qx "$state" "$FAKE_CLOUD/told"; do sleep 0.05; done
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


def wait_for(path: Path, seconds: float = 300) -> None:
    """Waits until there is such a file."""
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()
