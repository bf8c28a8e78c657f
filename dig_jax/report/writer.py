"""Files a run writes as it goes; TensorBoard events and Weights & Biases if asked (trackers.py).

metrics.jsonl has the metrics of every step, evals.jsonl those of evaluations, slices.jsonl what was found
there by kind and size, groups.jsonl a group of completions with what it taught, samples/ answers with
pictures (the first ones of every evaluation, the worst of the newest), skipped.jsonl updates with a loss or
gradient that was not finite.

Every line of a `.jsonl` file is one JSON object with its `step`. When a run continues from a checkpoint, the
lines of later steps are dropped first: those steps are about to be computed, and written, again. Metrics in
evals.jsonl are named evaluation/metric; lines of older versions, whose main evaluation had no name, get one.
"""

import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from dig_jax.report.thumbnails import keep_thumbnails
from dig_jax.report.trackers import Boxes, Trackers, start_tensorboard, start_wandb
from dig_jax.run.evaluations import UNNAMED, named

if TYPE_CHECKING:  # an annotation alone must not make the report depend on the model and its rollout
    from PIL import Image

    from dig_jax.evaluate import Answer
    from dig_jax.update.group import Group

METRICS_FILE = "metrics.jsonl"
EVALS_FILE = "evals.jsonl"
SAMPLES_FILE = "samples/samples.jsonl"
WORST_FILE = "samples/worst.jsonl"
SLICES_FILE = "slices.jsonl"
GROUPS_FILE = "groups.jsonl"
SKIPPED_FILE = "skipped.jsonl"


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
        wandb = start_wandb(wandb_project, workdir, first_step > 0) if wandb_project else None
        (workdir / SAMPLES_FILE).parent.mkdir(parents=True, exist_ok=True)
        self._workdir = workdir
        self._metrics = JsonLines(workdir / METRICS_FILE, first_step)
        self._evals = JsonLines(workdir / EVALS_FILE, evaluated, lambda line: named(line, main, formerly))
        self._samples = JsonLines(workdir / SAMPLES_FILE, evaluated)
        self._worst = JsonLines(workdir / WORST_FILE, evaluated)
        self._slices = JsonLines(workdir / SLICES_FILE, evaluated)
        self._groups = JsonLines(workdir / GROUPS_FILE, first_step)
        self._skipped = JsonLines(workdir / SKIPPED_FILE, first_step)
        events = start_tensorboard(workdir, first_step) if tensorboard else None
        self._trackers = Trackers(events, wandb)

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
        line = self._kept(step, f"step{step:06d}_{number:02d}.png", answer, truth, picture)
        self._samples.append(line)
        images = answer.example.images if answer.example and "boxes" in truth else ()
        boxes = Boxes(truth.get("boxes", ()), answer.read.get("boxes", ()), truth.get("kinds", ()))
        self._trackers.sample(step, number, picture, images, boxes)

    def worst(self, step: int, answers: Sequence[tuple["Answer", Mapping[str, Any], "Image.Image"]]) -> None:
        """Keeps the worst answers of the newest evaluation, instead of those before; see `sample`."""
        kept = [self._kept(step, f"worst_{n:02d}.png", *answer) for n, answer in enumerate(answers)]
        self._worst.replace(kept)

    def slices(self, step: int, slices: Mapping[str, Any]) -> None:
        """Keeps what an evaluation found by kind, size and number, from `slices.slices_of`."""
        self._slices.append({"step": step, **slices})

    def group(self, step: int, group: "Group", texts: Sequence[str]) -> None:
        """Keeps a group of completions of training step number `step`, whose texts these are."""
        answers = [
            {
                "text": text,
                "tokens": len(group.tokens[row]),
                "finished": bool(group.finished[row]),
                "learnt": bool(group.learnt[row]),
                "compared": float(group.compared[row]),
                "advantage": float(group.advantages[row]),
                **{f"predicted_{key}": value for key, value in group.read[row].items()},
                **_finite({name: values[row] for name, values in group.terms.items()}),
            }
            for row, text in enumerate(texts)
        ]
        self._groups.append(
            {
                "step": step,
                "id": group.example.id,
                "images": keep_thumbnails(self._workdir / "samples", group.example.images),
                **{f"true_{key}": value for key, value in group.truth.items()},
                "answers": answers,
            }
        )

    def _kept(
        self, step: int, name: str, answer: "Answer", truth: Mapping[str, Any], picture: "Image.Image"
    ) -> dict[str, Any]:
        """The line of an answer whose picture is now in samples/ under this name."""
        folder = self._workdir / "samples"
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        (folder / name).write_bytes(buffer.getvalue())
        images = answer.example.images if answer.example and "boxes" in truth else ()
        return {
            "step": step,
            "id": answer.id,
            "picture": name,
            "images": keep_thumbnails(folder, images),
            "text": answer.text,
            **{f"true_{key}": value for key, value in truth.items()},
            **{f"predicted_{key}": value for key, value in answer.read.items()},
            **_finite(answer.terms),
        }

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
        self._trackers.close()

    def _files(self) -> tuple["JsonLines", ...]:
        lines = (self._metrics, self._evals, self._samples, self._worst)
        return *lines, self._slices, self._groups, self._skipped

    def _write(self, lines: "JsonLines", step: int, metrics: Mapping[str, float], prefix: str) -> None:
        lines.append({"step": step} | _finite(metrics))
        self._trackers.metrics(step, {prefix + name: float(value) for name, value in metrics.items()})


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

    def replace(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Has these lines instead of all that were there, from one moment to the next."""
        self.close()
        self._text = "".join(map(_encode, records))
        _replace_text(self._path, self._text)
        self._file = None if _is_remote(self._path) else open(self._path, "a", encoding="utf-8")  # noqa: SIM115

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
