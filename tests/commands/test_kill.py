"""A run killed with SIGKILL again and again, at random moments, ends as one that was never interrupted."""

import json
import multiprocessing
import os
import pathlib
import random
import time

import jax
import pytest
from etils import epath
from ml_collections import ConfigDict

from dig_jax import train
from tests.commands.test_train import inputs, lines, without_times  # noqa: F401  (inputs is a fixture)
from tests.run.test_curriculum import three_stages

KILLS = 3  # at least
TRIES = 4  # to kill one run before it may end: it may have ended before


def live(config: ConfigDict, workdir: pathlib.Path, cache: pathlib.Path) -> None:
    """One life of a run, in a process of its own."""
    jax.config.update("jax_compilation_cache_dir", str(cache))  # or every life would compile for seconds
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.dup2(os.open(workdir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    train.run(config, epath.Path(workdir))


def start(config: ConfigDict, workdir: pathlib.Path) -> multiprocessing.process.BaseProcess:
    """The server has imported everything, and each life is a fork of it: starting takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dig_jax.train", "tests.commands.test_kill"])
    process = context.Process(target=live, args=(config, workdir, workdir.parent / "cache"))
    process.start()
    return process


def finish(config: ConfigDict, workdir: pathlib.Path) -> float:
    """Lets a run end. Returns the seconds this life took."""
    before = time.monotonic()
    process = start(config, workdir)
    process.join()
    assert process.exitcode == 0, workdir.with_suffix(".log").read_text()
    return time.monotonic() - before


def outcome(workdir: pathlib.Path) -> dict[str, object]:
    """All that a run leaves behind and that may be compared: times are not."""
    checkpoint = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    written = json.loads((checkpoint / "meta" / "metadata").read_text())["content"]
    return {
        "checkpoints": sorted(path.name for path in (workdir / "checkpoints").iterdir()),
        "progress and checksums of the whole state": written,
        "pictures": {path.name: path.read_bytes() for path in (workdir / "samples").glob("*.png")},
        "report": (workdir / "report.html").exists(),
        **{
            name: [without_times(line) for line in lines(epath.Path(workdir), name)]
            for name in ("metrics.jsonl", "evals.jsonl", "samples/samples.jsonl", "skipped.jsonl")
        },
    }


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    """Supervised, then GRPO in two stages; compiled as a real run is."""
    config = three_stages(inputs)
    config.checkpoint.every = 1  # so that many kills hit one that is being written
    finish(config, tmp_path / "compiled")  # fills the cache
    seconds = finish(config, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")

    rng = random.Random(2)
    while_writing = done = run = 0
    while done < KILLS:
        workdir = tmp_path / f"run{run}"
        for _ in range(TRIES):
            process = start(config, workdir)
            process.join(timeout=rng.uniform(0.1, 0.9) * seconds)
            process.kill()
            process.join()
            done += process.exitcode == -9
            while_writing += any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
        finish(config, workdir)
        assert outcome(workdir) == expected
        run += 1
    print(f"{done} kills in {run} runs, {while_writing} of them while a checkpoint was written")
