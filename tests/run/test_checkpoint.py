"""Checkpoints: which ones stay, and what happens to one that a disk has damaged."""

import json
import logging
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from configs import base
from dig_jax.machines import parallel
from dig_jax.models.qwen3_vl import published
from dig_jax.run import checkpoint, loading
from dig_jax.run.checkpoint import Checkpoints, Damaged
from dig_jax.run.fingerprint import fingerprint
from dig_jax.update.learner import Learner
from dig_jax.update.sft import SFTConfig
from tests.helpers.paths import ROOT
from tests.machines.test_distributed import free_port


@flax.struct.dataclass
class State:
    params: Any
    moments: Any


def state(seed: int) -> State:
    params = {
        "kernel": jax.random.normal(jax.random.key(seed), (40, 50)),
        "scale": jnp.full(7, seed, jnp.bfloat16),
    }
    return State(params, jax.tree.map(lambda x: x + 1, params))


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))


def write(
    workdir: pathlib.Path, *steps: int, keep: int = 5, marked: tuple[int, ...] = (), resumable: int = 0
) -> None:
    checkpoints = Checkpoints(epath.Path(workdir), keep, resumable=resumable)
    for step in steps:
        checkpoints.save(step, state(step), {"step": step}, marked)
    checkpoints.close()


def write_as_before(workdir: pathlib.Path, step: int) -> None:
    """A checkpoint with parameters and moments in one part, as older versions wrote it."""
    whole = state(step)
    checksums = {"state": fingerprint(whole), "params": fingerprint(whole.params)}
    meta = {"meta": {"step": step}, "marked": [], "checksums": checksums, "dtypes": ["bfloat16", "float32"]}
    manager = ocp.CheckpointManager(workdir / "checkpoints", item_names=("state", "meta"))
    items = {"state": ocp.args.StandardSave(whole), "meta": ocp.args.JsonSave(checkpoint._sealed(meta))}
    manager.save(step, args=ocp.args.Composite(**items))
    manager.close()


def restore(workdir: pathlib.Path) -> tuple[State, dict] | None:
    checkpoints = Checkpoints(epath.Path(workdir), 5)
    try:
        return checkpoints.restore_newest(LIKE)
    finally:
        checkpoints.close()


def steps(workdir: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize("name", ["run", "a[1] {x}*?/run"])  # Orbax globs for what it has written
def test_the_newest_checkpoint_comes_back_bit_for_bit_with_its_metadata(
    tmp_path: pathlib.Path, name: str
) -> None:
    write(tmp_path / name, 1, 2)
    restored = restore(tmp_path / name)
    assert restored is not None and restored[1] == {"step": 2}
    assert fingerprint(restored[0]) == fingerprint(state(2))


def test_a_new_run_has_none(tmp_path: pathlib.Path) -> None:
    assert restore(tmp_path) is None


def test_the_newest_and_the_marked_ones_stay(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5, keep=2, marked=(2,))
    assert steps(tmp_path) == [2, 4, 5]


def test_what_a_killed_run_had_no_time_to_remove_goes_when_it_continues(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 1, 2, 3, 4, keep=4, marked=(1,))
    checkpoints = Checkpoints(epath.Path(tmp_path), 2)
    checkpoints.restore_newest(LIKE)
    checkpoints.close()
    assert steps(tmp_path) == [1, 3, 4]


def test_an_old_checkpoint_stays_until_the_new_one_is_complete(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1, keep=1)
    checkpoints = Checkpoints(epath.Path(tmp_path), 1)
    seen = []
    finish = type(checkpoints._manager)._finalize_checkpoint

    def look(manager: Any, step: int) -> None:
        seen.append(1 in steps_of_names(tmp_path))
        finish(manager, step)

    monkeypatch.setattr(type(checkpoints._manager), "_finalize_checkpoint", look)
    checkpoints.save(2, state(2), {})
    checkpoints.close()
    assert seen == [True] and steps(tmp_path) == [2]


def steps_of_names(workdir: pathlib.Path) -> list[int]:
    return [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]


def flip(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, truncate, pathlib.Path.unlink])
def test_whatever_file_is_damaged_the_state_is_that_of_the_newest_or_the_one_before(
    damage: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="dig_jax")
    write(tmp_path / "whole", 1, 2)
    files = [path for path in (tmp_path / "whole/checkpoints/2").rglob("*") if path.stat().st_size > 0]
    used = []
    for number, file in enumerate(path for path in files if path.is_file()):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", workdir)
        damage(workdir / file.relative_to(tmp_path / "whole"))
        caplog.clear()
        restored = restore(workdir)
        assert restored is not None
        step = restored[1]["step"]
        assert fingerprint(restored[0]) == fingerprint(state(step))
        used.append(step)
        if step == 1:  # loudly, and nothing is thrown away
            assert "CHECKPOINT OF STEP 2 IS DAMAGED" in caplog.text
            assert (workdir / "damaged/step2").is_dir() and steps(workdir) == [1]
    assert 1 in used  # the file with the numbers is among them


def test_when_all_are_damaged_nothing_is_moved_and_nothing_starts_over(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 1, 2)
    for step in (1, 2):
        flip(next((tmp_path / f"checkpoints/{step}/params/d").iterdir()))
    with pytest.raises(Damaged, match=r"nothing was changed there(.|\n)*step 2: (.|\n)*step 1: "):
        restore(tmp_path)
    assert steps(tmp_path) == [1, 2]


def test_changed_metadata_is_damage_too(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 1, 2)
    file = tmp_path / "checkpoints/2/meta/metadata"
    file.write_text(file.read_text().replace('"step": 2', '"step": 3').replace('"step":2', '"step":3'))
    restored = restore(tmp_path)
    assert restored is not None and restored[1] == {"step": 1}


def test_parameters_read_alone_are_checked_as_well(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 1)
    checkpoints = Checkpoints(epath.Path(tmp_path), read_only=True)
    params = checkpoints.restore_params(1, LIKE.params)
    assert fingerprint(params) == fingerprint(state(1).params)
    flip(next((tmp_path / "checkpoints/1/params/d").iterdir()))
    with pytest.raises(Damaged):
        checkpoints.restore_params(1, LIKE.params)
    checkpoints.close()


def test_a_disk_that_takes_no_more_is_a_clear_error_and_the_checkpoint_before_stays(
    tmp_path: pathlib.Path,
) -> None:
    write(tmp_path, 1)
    checkpoints = Checkpoints(epath.Path(tmp_path), 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written to .*Those before it are whole. Make room"):
            checkpoints.save(2, state(2), {})
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    restored = restore(tmp_path)
    assert restored is not None and fingerprint(restored[0]) == fingerprint(state(1))


def parts(workdir: pathlib.Path) -> dict[int, set[str]]:
    """What each checkpoint holds."""
    return {
        step: {path.name for path in (workdir / f"checkpoints/{step}").iterdir()} & {"params", "training"}
        for step in steps(workdir)
    }


def test_older_checkpoints_keep_parameters_alone_where_asked(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 1, 2, 3, 4, 5, keep=3, marked=(1,), resumable=2)
    whole, alone = {"params", "training"}, {"params"}
    assert parts(tmp_path) == {1: alone, 3: alone, 4: whole, 5: whole}
    checkpoints = Checkpoints(epath.Path(tmp_path), read_only=True)
    assert fingerprint(checkpoints.restore_params(1, LIKE.params)) == fingerprint(state(1).params)
    checkpoints.close()
    flip(next((tmp_path / "checkpoints/5/training/d").iterdir()))
    restored = restore(tmp_path)
    assert restored is not None and fingerprint(restored[0]) == fingerprint(state(4))
    # Without a whole one there is nothing to resume, and those with parameters stay where they are.
    flip(next((tmp_path / "checkpoints/4/training/d").iterdir()))
    with pytest.raises(Damaged, match=r"step 4: (.|\n)*step 3: holds parameters alone .checkpoint.resumable"):
        restore(tmp_path)
    assert steps(tmp_path) == [1, 3, 4]


def test_a_run_killed_while_it_leaves_something_out_is_no_damage(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 1, 2)
    (tmp_path / "checkpoints/1" / checkpoint.PARAMETERS_ALONE).write_text("")
    next((tmp_path / "checkpoints/1/training/d").iterdir()).unlink()
    write(tmp_path, 3, resumable=1)
    assert parts(tmp_path) == {1: {"params"}, 2: {"params"}, 3: {"params", "training"}}
    assert not (tmp_path / "damaged").exists()


def test_a_checkpoint_of_an_older_version_comes_back(tmp_path: pathlib.Path) -> None:
    write_as_before(tmp_path, 1)
    restored = restore(tmp_path)
    assert restored is not None and restored[1] == {"step": 1}
    assert fingerprint(restored[0]) == fingerprint(state(1))
    checkpoints = Checkpoints(epath.Path(tmp_path), 2, resumable=1)
    assert fingerprint(checkpoints.restore_params(1, LIKE.params)) == fingerprint(state(1).params)
    checkpoints.save(2, state(2), {"step": 2})
    checkpoints.close()
    assert steps(tmp_path) == [1, 2]  # what is in one part stays in one


def test_sizes_are_those_on_the_disk_within_a_tenth(tmp_path: pathlib.Path) -> None:
    draw = jax.random.normal  # noise: what is written is compressed
    big = State({"kernel": draw(jax.random.key(0), (512, 512))}, draw(jax.random.key(1), (2, 512, 512)))
    checkpoints = Checkpoints(epath.Path(tmp_path))
    checkpoints.save(1, big, {})
    checkpoints.close()
    sizes = checkpoint.sizes(big)
    assert sizes == {"parameters": 4 * 512 * 512, "optimizer": 2 * 4 * 512 * 512}
    for part, name in (("parameters", "params"), ("optimizer", "training")):
        files = (tmp_path / f"checkpoints/1/{name}").rglob("*")
        assert sum(f.stat().st_size for f in files if f.is_file()) == pytest.approx(sizes[part], rel=0.1)
    told = checkpoint.describe_sizes(jax.eval_shape(lambda: big), keep=3, resumable=2, marked=1)
    assert "up to 5 at a time, 3 of them whole" in told


@pytest.mark.parametrize("size", ["4B", "8B"])
def test_the_sizes_in_the_docs_are_those_of_the_states(size: str) -> None:
    row = next(
        line
        for line in (ROOT / "docs/checkpoints.md").read_text().splitlines()
        if line.startswith(f"| {size} ")
    )
    architecture, mesh = published.architecture(size), parallel.make_mesh(base.get_config().mesh)
    for dtype, rank, told in zip(
        ("float32", "bfloat16", "bfloat16"), (0, 0, 64), row.strip("| ").split(" | ")[1:], strict=True
    ):
        config = base.get_config()
        config.model.param_dtype, config.model.lora.rank = dtype, rank
        plain = loading.abstract_model(config, architecture, mesh)
        graphdef, params = loading.with_adapters(config, *plain, mesh)
        allowed = np.ones(architecture.text.vocab_size, bool)
        learner = Learner.from_config(config, graphdef, sft=SFTConfig(0.0, 1, 0), allowed=allowed)
        sizes = checkpoint.sizes(jax.eval_shape(learner.init, params))
        assert told == f"{sum(sizes.values()) / 1e9:.1f} ({sizes['parameters'] / 1e9:.1f})"


def test_what_one_of_two_processes_cannot_read_both_set_aside(tmp_path: pathlib.Path) -> None:
    """The file of the second process is cut: the first one reads its part, and must not go on alone."""
    port = str(free_port())
    script, workdir = ROOT / "tests" / "helpers" / "distributed_restore.py", tmp_path / "run"
    processes = [
        subprocess.Popen(
            [sys.executable, script, workdir, port, str(index)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for index, process in enumerate(processes):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        said = json.loads(output.splitlines()[-1])  # Gloo writes to stdout, too
        # A process's first rows of the kernel begin with step * (0, 1, ...) or step * (1200, 1201, ...).
        assert said["one cut"] == [1, 1 + 1200 * index, [1]]
        assert said["then"] == [3, 3 * (1 + 1200 * index), [1, 3]]
        assert "nothing was changed there" in said["all cut"]
        for text in (said["all cut"], said["parameters"]):
            assert "checkpoint 3 can not be read by process 1 of 2: " in text
    assert steps(workdir) == [1, 3] and (workdir / "damaged/step2/params").is_dir()
