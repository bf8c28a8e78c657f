"""Files a run writes as it goes: metrics.jsonl, evals.jsonl, samples/, skipped.jsonl (updates with a loss or
gradient that was not finite), TensorBoard events; wandb if asked.

Every line of a `.jsonl` file is one JSON object with its `step`. When a run continues from a checkpoint, the
lines of later steps are dropped first: those steps are about to be computed, and written, again. Metrics in
evals.jsonl are named evaluation/metric; lines of older versions, whose main evaluation had no name, get one.
"""

import io
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from dig_jax.run.evaluations import UNNAMED, named

if TYPE_CHECKING:  # an annotation alone must not make the report depend on the model and its rollout
    from PIL import Image

    from dig_jax.evaluate import Answer

METRICS_FILE = "metrics.jsonl"
EVALS_FILE = "evals.jsonl"
SAMPLES_FILE = "samples/samples.jsonl"
SKIPPED_FILE = "skipped.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
WANDB_FILE = "wandb_id"


class MetricsWriter:
    """Writes everything of a run but its checkpoints and its report.

    Args:
      workdir: of the run; created if missing.
      first_step: the last step that is done and kept; 0 for a new run.
      evaluated: the last step whose evaluation is done and kept; -1 for none.
      main: the name of the main evaluation.
      formerly: what it was called when the run stopped, "" for that or for no name.
      tensorboard: whether to write TensorBoard events under workdir/tensorboard.
      wandb_project: Weights & Biases project to log to as well, "" for none.

    Raises:
      ModuleNotFoundError: a wandb project is named, but wandb is not installed.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        first_step: int,
        evaluated: int,
        main: str = UNNAMED,
        formerly: str = "",
        tensorboard: bool,
        wandb_project: str,
    ) -> None:
        workdir = epath.Path(workdir)
        self._wandb = _start_wandb(wandb_project, workdir, first_step > 0) if wandb_project else None
        (workdir / SAMPLES_FILE).parent.mkdir(parents=True, exist_ok=True)
        self._workdir = workdir
        self._metrics = JsonLines(workdir / METRICS_FILE, first_step)
        self._evals = JsonLines(workdir / EVALS_FILE, evaluated, lambda line: named(line, main, formerly))
        self._samples = JsonLines(workdir / SAMPLES_FILE, evaluated)
        self._skipped = JsonLines(workdir / SKIPPED_FILE, first_step)
        self._tensorboard = _start_tensorboard(workdir, first_step) if tensorboard else None

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes the metrics of training step number `step`, counted from 1."""
        self._write(self._metrics, step, metrics, prefix="")

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes held-out metrics of the model after `step` steps, by their whole names."""
        self._write(self._evals, step, metrics, prefix="eval/")

    def sample(
        self, step: int, number: int, answer: "Answer", truth: Mapping[str, Any], picture: "Image.Image"
    ) -> None:
        """Keeps one answer in samples/: its picture, and its text and terms, what is true and what was read.

        Args:
          step: training steps done.
          number: of the answer, from 0.
          answer: to one example.
          truth: values that JSON takes; "x" becomes "true_x", as what was read becomes "predicted_x".
          picture: of it.
        """
        name = f"step{step:06d}_{number:02d}.png"
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        (self._workdir / SAMPLES_FILE).parent.joinpath(name).write_bytes(buffer.getvalue())
        self._samples.append(
            {
                "step": step,
                "id": answer.id,
                "picture": name,
                "text": answer.text,
                **{f"true_{key}": value for key, value in truth.items()},
                **{f"predicted_{key}": value for key, value in answer.read.items()},
                **_finite(answer.terms),
            }
        )
        if self._tensorboard:
            self._tensorboard.add_image(f"samples/{number:02d}", np.asarray(picture), step, dataformats="HWC")

    def skipped_update(
        self, step: int, update: int, ids: Sequence[str], figures: Mapping[str, float]
    ) -> None:
        """Notes an update that was skipped: its loss or gradient on these examples was not finite."""
        self._skipped.append({"step": step, "update": update, "ids": list(ids), **_finite(figures)})

    def sync(self) -> None:
        """Returns when all lines are on the disk."""
        for lines in self._files():
            lines.sync()

    def close(self) -> None:
        """Flushes and closes what is open."""
        for lines in self._files():
            lines.close()
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()

    def _files(self) -> tuple["JsonLines", ...]:
        return self._metrics, self._evals, self._samples, self._skipped

    def _write(self, lines: "JsonLines", step: int, metrics: Mapping[str, float], prefix: str) -> None:
        lines.append({"step": step} | _finite(metrics))
        named = {prefix + name: float(value) for name, value in metrics.items()}
        if self._tensorboard:
            for name, value in named.items():
                self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()
        if self._wandb:
            self._wandb.log(named, step=step)


class JsonLines:
    """A file of one JSON object per line that survives being killed at any moment.

    Opening it keeps the lines up to `last_step` and replaces the file in one rename, so that a crash leaves
    either the old lines or the kept ones. A last line that was cut off by a crash is dropped.

    Args:
      path: of the file.
      last_step: the last one whose lines are kept.
      as_now: makes a kept line one of this version.
    """

    def __init__(
        self,
        path: epath.Path,
        last_step: int,
        as_now: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        self._path = path
        kept = [as_now(line) for line in read_lines(path) if line["step"] <= last_step]
        self._text = "".join(_encode(line) for line in kept)
        _replace_text(path, self._text)
        # Object stores cannot append to a file; there the whole text is written again.
        self._file = None if _is_remote(path) else open(path, "a", encoding="utf-8")  # noqa: SIM115

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line and hands it to the operating system."""
        line = _encode(record)
        if self._file is None:
            self._text += line
            self._path.write_text(self._text)
            return
        self._file.write(line)
        self._file.flush()

    def sync(self) -> None:
        """Makes sure the lines are on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Syncs and closes the file."""
        self.sync()
        if self._file is not None:
            self._file.close()


def read_lines(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads a `.jsonl` file; empty if there is none.

    Raises:
      ValueError: a line other than an unfinished last one is not a JSON object with a `step`.
    """
    path = epath.Path(path)
    if not path.exists():
        return []
    records = []
    # Split at "\n" alone: `splitlines` would also cut at separators inside a string, such as U+2028.
    *lines, _unfinished = path.read_text().split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not (isinstance(record, dict) and isinstance(record.get("step"), int)):
            raise ValueError(
                f"{path}, line {number}: expected a JSON object with a `step`, got {line[:80]!r}"
            )
        records.append(record)
    return records


def read_evals(workdir: epath.PathLike, main: str) -> list[dict[str, Any]]:
    """Reads a run's evals.jsonl, of this version or an older one: metrics are named evaluation/metric.

    Args:
      workdir: of the run.
      main: what the main evaluation is called where the file gives it no name.
    """
    return [named(line, main) for line in read_lines(epath.Path(workdir) / EVALS_FILE)]


def _encode(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN or infinity: they become null."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _is_remote(path: epath.Path) -> bool:
    return "://" in str(path)


def _replace_text(path: epath.Path, text: str) -> None:
    if _is_remote(path):
        path.write_text(text)  # an object appears whole or not at all
        return
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def _start_tensorboard(workdir: epath.Path, first_step: int) -> Any:
    from tensorboardX import (
        SummaryWriter,
    )  # on use: it imports PyTorch, which takes seconds, where there is one

    # purge_step hides the events that a stopped run wrote for steps that will be done again.
    return SummaryWriter(str(workdir / TENSORBOARD_FOLDER), purge_step=first_step + 1 if first_step else 0)


def _start_wandb(project: str, workdir: epath.Path, begun: bool) -> Any:
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"config.log.wandb_project={project!r} but wandb is not installed: `pip install wandb`, "
            'or set it to "" to log to files only'
        ) from error
    return wandb.init(project=project, id=_wandb_id(workdir, begun), name=workdir.name, resume="allow")


def _wandb_id(workdir: epath.Path, begun: bool) -> str:
    """The run's identity, kept in the workdir: a continued run goes on in the same curves, wherever it lies.

    Its name is none: others are called so, too. Runs that began before it was kept used that, and go on so.
    """
    file = workdir / WANDB_FILE
    if not file.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        _replace_text(file, workdir.name if begun else secrets.token_hex(8))
    return file.read_text().strip()
