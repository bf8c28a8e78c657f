"""Profiles of training steps: what the devices and the host did when, for TensorBoard or Perfetto."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
from etils import epath


@contextmanager
def step(workdir: epath.Path, steps: Sequence[int], number: int) -> Iterator[None]:
    """Traces what happens inside, if `number` is one of `steps`, to workdir/profile/step_NUMBER.

    Each process writes its own trace, plugins/profile/TIME/HOST.xplane.pb there. See them with
    `tensorboard --logdir=WORKDIR/profile` (pip install xprof).
    """
    if number not in steps:
        yield
        return
    with trace(workdir / "profile" / f"step_{number:06}"):
        yield


@contextmanager
def trace(folder: epath.Path) -> Iterator[None]:
    """Traces what happens inside to `folder`, local or in a bucket; the profiler itself knows disks only."""
    with tempfile.TemporaryDirectory() as temporary:
        with jax.profiler.trace(temporary):
            yield
        for file in Path(temporary).rglob("*"):
            if file.is_file():
                target = folder / file.relative_to(temporary).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open("rb") as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
