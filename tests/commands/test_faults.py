"""A disk that may not be written to, then fills up, then has room; and training data that goes away."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from dig_jax.data.records import BadRecord
from dig_jax.run import loading
from dig_jax.run.checkpoint import Checkpoints
from tests.commands.test_train import inputs, lines, run, small_config, without_times  # noqa: F401  (inputs: a fixture)
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("quick_compiling")

# A disk of our own, in a namespace of our own: it is gone with the last command.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=13m,mode=777 none "$DISK"
mount -o remount,ro "$DISK"; "$@" 2>"$LOG.read_only"; echo read_only $?
mount -o remount,rw "$DISK"; "$@" 2>"$LOG.full"; echo full $?
ls "$DISK/run/checkpoints" | grep -v tmp
mount -o remount,size=100m "$DISK"; "$@" 2>"$LOG.room"; echo room $?
wc -l < "$DISK/run/metrics.jsonl"
"""


def can_mount() -> bool:
    """Whether this system lets a user mount something in a namespace of their own."""
    try:
        command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp"]
        return subprocess.run(command, capture_output=True, timeout=100).returncode == 0
    except OSError:
        return False


def _errors(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("error: ")]


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs user namespaces")
def test_a_run_on_a_disk_that_is_read_only_or_full_says_so_and_goes_on_when_there_is_room(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    changes = {"checkpoint.keep": 1, "batch.update_prompts": 8, "batch.micro_prompts": 8}
    settings = small_config(inputs, "sft", num_steps=3, **changes)
    (tmp_path / "config.py").write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({settings.to_json()!r}))\n"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [
        sys.executable,
        "-m",
        "dig_jax.main",
        f"--config={tmp_path}/config.py",
        f"--workdir={disk}/run",
    ]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", *command],
        env=os.environ | {"DISK": str(disk), "LOG": str(tmp_path / "log"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    messages = {name: (tmp_path / f"log.{name}").read_text() for name in ("read_only", "full", "room")}
    said = done.stdout.split("\n")
    said = [line for line in said if line and not line.startswith("report: ")]
    assert said == ["read_only 1", "full 1", "1", "room 0", "3"], (said, messages)
    # Orbax's own threads log a failed write as well, before or after.
    read_only, full = (_errors(messages[name]) for name in ("read_only", "full"))
    assert len(read_only) == 1 and "Read-only file system" in read_only[0]
    assert len(full) == 1 and full[0].startswith("error: a checkpoint could not be written to")
    assert "No space left on device" in full[0] and "Make room" in full[0]
    assert "resumed at step 1 of 3" in messages["room"]


def test_a_shard_that_vanishes_under_a_run_ends_it_and_the_run_goes_on_when_it_is_back(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = shutil.copytree(inputs / "pairs", tmp_path / "pairs")
    settings = {"data.train": (str(pairs),), "num_steps": 6, "data.max_bad_records": 4}
    config = small_config(inputs, "sft", **settings)
    whole = run(config, tmp_path / "whole")

    monkeypatch.setattr(loading, "CACHE_BYTES", 0)
    (shard,) = pairs.rglob("*train*.array_record*")
    save, away = Checkpoints.save, tmp_path / "away"

    def save_and_lose(self: Checkpoints, step: int, *rest: object) -> None:
        save(self, step, *rest)
        if step == 2:
            shutil.copy(shard, away)
            os.truncate(shard, 0)  # what is open would go on being readable
            shard.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_lose)
        with pytest.raises(BadRecord, match=r"pairs, split 'train', pair \d+"):
            run(config, tmp_path / "run")
    shutil.move(away, shard)
    resumed = run(config, tmp_path / "run")
    expected, actual = ([without_times(line) for line in lines(w, "metrics.jsonl")] for w in (whole, resumed))
    assert actual == expected
