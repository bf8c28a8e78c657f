"""Orbax checkpoints of a run.

A checkpoint holds everything the next step depends on: parameters, optimizer state, the step (which fixes the
data position and all randomness), the stage, the best score so far, and the fingerprint of the reference. A
folder each for `params`, for `training` (the rest of the state) and for `meta`; older versions of this file
wrote parameters and the rest into one, `state`, which is still read.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from flax import nnx
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from dig_jax.machines.distributed import texts_of_all
from dig_jax.machines.folder import LiteralPath, is_local, move_folder
from dig_jax.run.fingerprint import fingerprint

LISTING_SECONDS = (
    60.0  # until every host sees what one of them has moved: shared disks keep listings for a while
)

_Read = TypeVar("_Read")

logger = logging.getLogger("dig_jax")


GB = 10**9
PARAMETERS_ALONE = "parameters_alone"  # a file in a checkpoint whose `training` was left out


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

    With several processes all must make the same calls. Each reads its part without waiting for another, they
    tell each other whether they could, and only then do they compute anything together: what one of them can
    not read is an error, or is set aside, in all of them.

    Args:
        workdir: of the run.
        keep: how many of the newest to keep.
        resumable: how many of the newest keep more than their parameters; 0 = all. The others still serve as
            a KL reference, for evaluation and for export.
        read_only: nothing is made or removed: a run may be writing there meanwhile.
    """

    def __init__(self, workdir: epath.Path, keep: int = 1, *, resumable: int = 0, read_only: bool = False):
        # Orbax wants an absolute path. That of a bucket is, and `resolve` would look for it on the disk.
        self._workdir = workdir.resolve() if is_local(workdir) else workdir
        self._policy = _NewestAndMarked(keep)
        self._resumable = 0 if read_only else resumable
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            enable_async_checkpointing=True,
            read_only=read_only,
            create=not read_only,
            save_interval_steps=0 if read_only else 1,  # Orbax warns where it must set that itself
        )
        with _no_warnings() if read_only else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(
                LiteralPath(self._workdir / "checkpoints"),
                options=options,
                item_names=("params", "training", "meta"),
            )

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def common_steps(self) -> list[int]:
        """Those of `steps` that every process sees, in order: a run may be writing more, or removing some."""
        return _common(self.steps)

    def save(self, step: int, state: Any, meta: dict[str, Any], marked: Iterable[int] = ()) -> None:
        """Starts writing a checkpoint; returns before the write is done.

        Args:
            step: its name.
            state: a dataclass of arrays, with an attribute `params`.
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
            params=ocp.args.StandardSave(state.params),
            training=ocp.args.StandardSave(_training(state)),
            meta=ocp.args.JsonSave(_sealed(written)),
        )
        with self._write_errors():
            self._manager.wait_until_finished()
            self._leave_out()
            self._manager.save(step, args=items)

    def restore_newest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that is undamaged, and its metadata; None where there are no checkpoints.

        Damaged ones newer than it are moved to `workdir/damaged`, with a message.

        Args:
            like: structure, shapes, dtypes and shardings of the state (`jax.ShapeDtypeStruct`).

        Raises:
            Damaged: there are checkpoints, and none of them can be used. They are left where they are.
        """
        self._check_shared()
        problems: dict[int, str] = {}
        whole = _common(self._whole_steps())
        for step in reversed(whole):
            try:
                state, written = self._restore(step, like)
            except Damaged as error:
                problems[step] = str(error)
                continue
            self._set_aside(problems)
            self._prune(written["marked"])
            return state, written["meta"]
        problems |= dict.fromkeys(
            set(self.steps) - set(whole), "holds parameters alone (checkpoint.resumable)"
        )
        if problems:
            raise Damaged(
                f"no checkpoint in {self._manager.directory} can be used; nothing was changed there. Start"
                " over in a new workdir, or repair one:\n  "
                + "\n  ".join(
                    f"step {step}: {problem}" for step, problem in sorted(problems.items(), reverse=True)
                )
            )
        return None

    def restore_params(self, step: int, like: nnx.State) -> nnx.State:
        """Reads only the parameters of a checkpoint, cast to the dtypes of `like`.

        Raises:
            Damaged: they are not what was written. Only noticed where nothing is cast.
        """
        how = ocp.checkpoint_utils.construct_restore_args(like)

        def read() -> tuple[nnx.State, dict[str, Any]]:
            with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
                if self._is_of_one_part(step):
                    items = ocp.args.PyTreeRestore({"params": like}, {"params": how}, partial_restore=True)
                    params = reader.restore(self._part(step, "state"), args=items)["params"]
                else:
                    items = ocp.args.PyTreeRestore(like, how)
                    params = reader.restore(self._part(step, "params"), args=items)
            return params, self._written(step)

        params, written = _read_by_all(step, read)
        if _dtypes(like) == written["dtypes"]:
            _compare(step, "params", params, written["checksums"])
        return params

    def close(self) -> None:
        """Completes the write under way and stops the background threads.

        Raises:
            OSError: the last checkpoint could not be written.
        """
        with self._write_errors():
            self._manager.wait_until_finished()
            self._leave_out()
        self._manager.close()

    def _check_shared(self) -> None:
        """Raises Damaged, in all processes, unless they see the same checkpoints."""
        seen = _of_all(self.steps)
        if any(steps != seen[0] for steps in seen):
            raise Damaged(
                f"the processes see different checkpoints in {self._manager.directory} ("
                + "; ".join(f"process {index}: {steps or 'none'}" for index, steps in enumerate(seen))
                + "): the workdir must be on a disk that all hosts share, or in a bucket"
            )

    def _part(self, step: int, name: str) -> epath.Path:
        return self._manager.directory / str(step) / name

    def _is_of_one_part(self, step: int) -> bool:
        """Whether an older version of this file wrote it."""
        return self._part(step, "state").exists()

    def _whole_steps(self) -> list[int]:
        """Those of `steps`, in order, that hold more than parameters."""
        return [step for step in self.steps if not self._part(step, PARAMETERS_ALONE).exists()]

    def _leave_out(self) -> None:
        """Removes what is not needed of all but the newest whole checkpoints. A mark comes first: whenever
        this is killed, what is left says what it is."""
        if not self._resumable or jax.process_index() > 0:
            return
        for step in set(self.steps) - set(self._whole_steps()[-self._resumable :]):
            if self._part(step, "training").exists():
                self._part(step, PARAMETERS_ALONE).write_text("see checkpoint.resumable in configs/base.py\n")
                self._part(step, "training").rmtree()

    def _restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        def read() -> tuple[Any, dict[str, Any]]:
            with contextlib.closing(ocp.StandardCheckpointHandler()) as reader:

                def part(name: str, like: Any) -> Any:
                    return reader.restore(self._part(step, name), args=ocp.args.StandardRestore(like))

                if self._is_of_one_part(step):
                    return part("state", like), self._written(step)
                params, others = part("params", like.params), part("training", _training(like))
            return dataclasses.replace(like, params=params, **others), self._written(step)

        state, written = _read_by_all(step, read)
        _compare(step, "state", state, written["checksums"])
        return state, written

    def _written(self, step: int) -> dict[str, Any]:
        """What `save` wrote beside the arrays."""
        with contextlib.closing(ocp.JsonCheckpointHandler()) as reader:
            return _unsealed(reader.restore(self._part(step, "meta")))

    def _set_aside(self, problems: dict[int, str]) -> None:
        if not problems:
            return
        target = self._workdir / "damaged"
        for step, problem in problems.items():
            logger.error("CHECKPOINT OF STEP %d IS DAMAGED (%s): moved to %s", step, problem, target)
            if jax.process_index() == 0:
                target.mkdir(exist_ok=True)
                move_folder(self._manager.directory / str(step), _unused(target / f"step{step}"))
        texts_of_all("")  # nobody looks before the first process has moved them
        deadline = time.monotonic() + LISTING_SECONDS
        self._manager.reload()
        while problems.keys() & set(self.steps) and time.monotonic() < deadline:
            time.sleep(1.0)
            self._manager.reload()
        self._check_shared()

    def _prune(self, marked: Iterable[int]) -> None:
        """Removes what a killed run had no time to."""
        self._policy.marked = frozenset(marked)
        for step in set(self.steps) - self._policy.kept(self.steps):
            self._manager.delete(step)
        self._leave_out()

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


def sizes(state: Any) -> dict[str, int]:
    """Bytes of a checkpoint of a state, arrays or shapes: of its `parameters`, and of the `optimizer`."""
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
    return {"parameters": size(state.params), "optimizer": size(_training(state))}


def describe_sizes(state: Any, keep: int, resumable: int, marked: int) -> str:
    """One line: how large a checkpoint is, and how much disk those that stay need.

    Args:
        state: arrays or shapes.
        keep, resumable: see `Checkpoints`.
        marked: how many may stay beside the newest ones.
    """
    parts = sizes(state)
    count = keep + marked + 1  # one is being written while all others are there
    whole = min(count, resumable + 1) if resumable else count
    total = count * parts["parameters"] + whole * parts["optimizer"]
    return (
        f"a checkpoint takes {sum(parts.values()) / GB:.1f} GB ("
        + ", ".join(f"{part} {size / GB:.1f}" for part, size in parts.items())
        + f"); up to {count} at a time, {whole} of them whole: {total / GB:.1f} GB (checkpoint.keep={keep},"
        f" checkpoint.resumable={resumable})"
    )


def _training(state: Any) -> dict[str, Any]:
    """The fields of a state, but for its parameters."""
    return {
        field.name: getattr(state, field.name)
        for field in dataclasses.fields(state)
        if field.name != "params"
    }


def _of_all(steps: list[int]) -> list[list[int]]:
    """What each process has for `steps`."""
    return [json.loads(text) for text in texts_of_all(json.dumps(steps), width=10_000)]


def _common(steps: list[int]) -> list[int]:
    """What all processes have among their `steps`, in order."""
    return sorted(set.intersection(*map(set, _of_all(steps))))


def _read_by_all(step: int, read: Callable[[], _Read]) -> _Read:
    """What `read` returns, which waits for no other process, once it has returned in all of them.

    Raises:
        Damaged: in every process, when it failed in any.
    """
    problem, value = "", None
    try:
        value = read()
    except Exception as error:  # a damaged file can make the readers raise anything
        problem = f"{type(error).__name__}: {error}".splitlines()[0].partition(" See full TensorStore")[0]
    problems = texts_of_all(problem)
    if not any(problems):
        return value  # type: ignore[return-value]  # it was read
    readers = ", ".join(f"process {index}" for index, problem in enumerate(problems) if problem)
    by = f" by {readers} of {len(problems)}" if len(problems) > 1 else ""
    raise Damaged(f"checkpoint {step} can not be read{by}: {next(filter(None, problems))}")


def _compare(step: int, part: str, tree: Any, checksums: dict[str, str]) -> None:
    if fingerprint(tree) != checksums[part]:
        raise Damaged(f"checkpoint {step}: the {part} read back are not those that were written")


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Without those of Orbax, which warns of what read-only means."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


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
