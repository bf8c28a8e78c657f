"""Pairs to try whose differences are known: held-out ones of a data set, and puzzles."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np
from etils import epath
from PIL import Image

from dig_jax.data.example import BadRecord, Example, Source
from dig_jax.demo.records import import_pairs
from dig_jax.run import loading
from dig_jax.session import Session
from dig_jax.tasks.task import Task

PAGE = 8  # samples shown at a time
_THUMB = 140  # pixels of a side


def differences_task(session: Session) -> Task:
    """What pairs are read and scored by: the task of the model's run, with its reward, or the project's."""
    config = session.opened.config
    if config.task != "differences":
        config.task, config.task_file = "differences", ""
        config.rewards.weights = ()
    return loading.make_task(config, session.opened.folder, session.opened.tokenizer)


@dataclasses.dataclass(frozen=True)
class Samples:
    """Sets of pairs by their names.

    Attributes:
      sets: name -> its pairs.
    """

    sets: Mapping[str, Source]

    def pages(self, name: str) -> int:
        """How many pages the pairs of a set fill."""
        return -(-len(self.sets[name]) // PAGE)

    def page(self, name: str, number: int) -> list[tuple[np.ndarray, str]]:
        """Thumbnails of a page's pairs, both pictures side by side, and how many differences each has."""
        first = number * PAGE
        found = []
        for index in range(first, min(first + PAGE, len(self.sets[name]))):
            try:
                example = self.sets[name][index]
            except BadRecord:
                found.append((np.full((_THUMB, 2 * _THUMB, 3), 200, np.uint8), f"{index + 1}: damaged"))
                continue
            count = len(example.target.boxes)
            found.append((_thumb(example), f"{index + 1}: {count} difference{'s' * (count != 1)}"))
        return found

    def pair(self, name: str, index: int) -> Example:
        """Pair number `index` of a set. Raises BadRecord where it can not be read."""
        return self.sets[name][index]


def _thumb(example: Example) -> np.ndarray:
    small = []
    for pixels in example.images:
        image = Image.fromarray(pixels)
        image.thumbnail((_THUMB, _THUMB), Image.Resampling.BICUBIC)
        small.append(np.asarray(image))
    gap = np.full((small[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([small[0], gap, small[1]], axis=1)


def open_samples(
    task: Task, config_data: str, data: str | None, split: str, puzzles: pathlib.Path | None
) -> tuple[Samples, list[str]]:
    """The samples of a page, and what is to be said of those that are not there.

    Args:
      task: from `differences_task`.
      config_data: the data set that the model's run is evaluated on; "" for none. It may be gone.
      data: a data set that was asked for; None: that of the run.
      split: of the data set.
      puzzles: pairs as `data_gen.import_pairs` takes them, or a folder with pairs.jsonl.

    Raises:
      FileNotFoundError, ValueError: what was asked for is not there, or is no such data.
    """
    sets: dict[str, Source] = {}
    notes: list[str] = []
    if data:
        sets[f"{epath.Path(data).name}, {split}"] = task.open(data, split)
    elif config_data:
        try:
            sets["held-out pairs"] = task.open(config_data, split)
        except (FileNotFoundError, ValueError) as error:
            notes.append(f"no held-out pairs to try (--data=DIR names some): {error}")
    if puzzles is not None:
        file = puzzles / "pairs.jsonl" if puzzles.is_dir() else puzzles
        if not file.exists():
            raise FileNotFoundError(f"--puzzles={puzzles}: there is no {file}")
        out = pathlib.Path(tempfile.mkdtemp(prefix="dig_jax_puzzles_")) / "dataset"
        try:
            import_pairs(file, out)
        except ValueError as error:
            raise ValueError(f"--puzzles={puzzles}: {error}") from error
        sets["puzzles"] = task.open(out, "train")
    return Samples({name: source for name, source in sets.items() if len(source)}), notes
