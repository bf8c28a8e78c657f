"""Orbax checkpoints of a run.

A checkpoint holds everything the next step depends on: parameters, optimizer state, the step (which fixes the
data position and all randomness), the stage, the best score so far, and the fingerprint of the reference.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from dig_jax import parallel
from dig_jax.fingerprint import fingerprint
from dig_jax.folder import is_local

logger = logging.getLogger("dig_jax")


class Damaged(ValueError):
    """A checkpoint can not be read back as it was written."""


@dataclasses.dataclass
class _NewestAndMarked(PreservationPolicy):
    """Which checkpoints stay: the newest `count`, and those of the steps `marked`."""

    count: int
    marked: frozenset[int] = frozenset()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        kept = self.kept([info.step for info in checkpoints])
        return [info.step in kept for info in checkpoints]

    def kept(self, steps: list[int]) -> set[int]:
        """Those of `steps`, in order, that stay."""
        return {*steps[-self.count :], *(step for step in steps if step in self.marked)}


class Checkpoints:
    """Asynchronous checkpoints under `workdir/checkpoints`: the newest `keep` and the marked ones stay.

    A checkpoint gets its name when all of it is written, and older ones go only after that, so at whatever
    moment a run is killed, the newest named one is whole. Each holds checksums of its tensors and of its
    metadata: what a disk has changed is noticed, and the one before it is used.

    Args:
        workdir: of the run.
        keep: how many of the newest to keep.
        read_only: nothing is made or removed: a run may be writing there meanwhile.
    """

    def __init__(self, workdir: epath.Path, keep: int = 1, read_only: bool = False):
        # Orbax wants an absolute path. That of a bucket is, and `resolve` would look for it on the disk.
        self._workdir = workdir.resolve() if is_local(workdir) else workdir
        self._policy = _NewestAndMarked(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            enable_async_checkpointing=True,
            read_only=read_only,
            create=not read_only,
        )
        self._manager = ocp.CheckpointManager(
            self._workdir / "checkpoints", options=options, item_names=("state", "meta")
        )

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, meta: dict[str, Any], marked: Iterable[int] = ()) -> None:
        """Starts writing a checkpoint; returns before the write is done.

        Args:
            step: its name.
            state: a pytree of arrays, with an attribute `params`.
            meta: JSON.
            marked: steps of the checkpoints to keep beside the newest ones.

        Raises:
            OSError: this checkpoint or the one before it could not be written.
        """
        self._policy.marked = frozenset(marked)
        checksums = {"state": fingerprint(state), "params": fingerprint(state.params)}
        written = {
            "meta": meta,
            "marked": sorted(self._policy.marked),
            "checksums": checksums,
            "dtypes": _dtypes(state.params),
        }
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(_sealed(written))
        )
        with self._write_errors():
            self._manager.save(step, args=items)

    def restore_newest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that is undamaged, and its metadata; None where there are no checkpoints.

        Damaged ones newer than it are moved to `workdir/damaged`, with a message.

        Args:
            like: structure, shapes, dtypes and shardings of the state (`jax.ShapeDtypeStruct`).

        Raises:
            Damaged: there are checkpoints, and none of them can be used. They are left where they are.
        """
        problems: dict[int, str] = {}
        for step in reversed(self.steps):
            problem, restored = "another process could not read it", None
            try:
                restored = self._restore(step, like)
            except Exception as error:  # a damaged file can make the readers raise anything
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
            # Damage may lie in the part of one process; all must take the same checkpoint.
            everywhere = parallel.gather_rows(np.array([restored is not None])).all()
            if restored is not None and everywhere:
                state, written = restored
                self._set_aside(problems)
                self._prune(written["marked"])
                return state, written["meta"]
            problems[step] = problem
        if problems:
            raise Damaged(
                f"no checkpoint in {self._manager.directory} can be used; nothing was changed there. Start"
                " over in a new workdir, or repair one:\n  "
                + "\n  ".join(f"step {step}: {problem}" for step, problem in problems.items())
            )
        return None

    def restore_params(self, step: int, like: nnx.State) -> nnx.State:
        """Reads only the parameters of a checkpoint, cast to the dtypes of `like`.

        Raises:
            Damaged: they are not what was written. Only noticed where nothing is cast.
        """
        restore_args = ocp.checkpoint_utils.construct_restore_args(like)
        items = ocp.args.PyTreeRestore(
            item={"params": like}, restore_args={"params": restore_args}, partial_restore=True
        )
        written = self._written(step)
        directory = self._manager.directory / str(step) / "state"
        try:
            with ocp.PyTreeCheckpointer() as reader:
                params = reader.restore(directory, args=items)["params"]
        except Exception as error:  # a damaged file can make the reader raise anything
            raise Damaged(f"checkpoint {step} can not be read: {error}") from error
        if _dtypes(like) == written["dtypes"]:
            self._compare(step, "params", params, written["checksums"])
        return params

    def close(self) -> None:
        """Completes the write under way and stops the background threads.

        Raises:
            OSError: the last checkpoint could not be written.
        """
        with self._write_errors():
            self._manager.wait_until_finished()
        self._manager.close()

    def _restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        written = self._written(step)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        state = self._manager.restore(step, args=items)["state"]
        self._compare(step, "state", state, written["checksums"])
        return state, written

    def _written(self, step: int) -> dict[str, Any]:
        """What `save` wrote beside the arrays."""
        items = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return _unsealed(self._manager.restore(step, args=items)["meta"])

    def _compare(self, step: int, part: str, tree: Any, checksums: dict[str, str]) -> None:
        if fingerprint(tree) != checksums[part]:
            raise Damaged(f"checkpoint {step}: the {part} read back are not those that were written")

    def _set_aside(self, problems: dict[int, str]) -> None:
        if not problems:
            return
        target = self._workdir / "damaged"
        for step, problem in problems.items():
            logger.error("CHECKPOINT OF STEP %d IS DAMAGED (%s): moved to %s", step, problem, target)
            if jax.process_index() == 0:
                target.mkdir(exist_ok=True)
                (self._manager.directory / str(step)).rename(_unused(target / f"step{step}"))
        parallel.gather_rows(np.zeros(1))  # nobody looks before the first process has moved them
        self._manager.reload()

    def _prune(self, marked: Iterable[int]) -> None:
        """Removes what a killed run had no time to."""
        self._policy.marked = frozenset(marked)
        for step in set(self.steps) - self._policy.kept(self.steps):
            self._manager.delete(step)

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Says what a failed write means; it may be one that went on in the background until now."""
        try:
            yield
        except Exception as error:  # the writers raise many kinds
            raise OSError(
                f"a checkpoint could not be written to {self._manager.directory}: {error}. Those before it"
                " are whole. Make room or give write access, and run the same command again"
            ) from error


def _dtypes(params: nnx.State) -> list[str]:
    return sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})


def _sealed(content: dict[str, Any]) -> dict[str, Any]:
    return {"content": content, "sha256": _digest(content)}


def _unsealed(sealed: dict[str, Any]) -> dict[str, Any]:
    if sealed["sha256"] != _digest(sealed["content"]):
        raise Damaged("the metadata read back are not those that were written")
    return sealed["content"]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _unused(path: epath.Path) -> epath.Path:
    """The path, or where it is taken, the first free one of path.1, path.2, ..."""
    if not path.exists():
        return path
    return next(p for i in itertools.count(1) if not (p := path.with_name(f"{path.name}.{i}")).exists())
