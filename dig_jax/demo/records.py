"""Pairs that were reported on the page, as a data set that training reads.

What is reported is kept as `data_gen.import_pairs` takes it, `pairs.jsonl` and PNG files, and after each
report that command makes the data set anew, in a process of its own: there is one writer of records, and what
it refuses (a box in which nothing changed, pictures that differ in size) is refused here.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from dig_jax.demo.pictures import png

SECONDS = 600  # for the command: a thousand pairs take about one of them


@dataclasses.dataclass(frozen=True)
class Saved:
    """What became of a report.

    Attributes:
      id: of the pair.
      pairs: how many there are now.
      dataset: the folder to train on.
      replaced: whether the pair had been reported before, with other boxes.
    """

    id: str
    pairs: int
    dataset: pathlib.Path
    replaced: bool


class Records:
    """The reported pairs of one folder; it is made with the first of them.

    Args:
      folder: for `pairs.jsonl`, `images` and `dataset`.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.absolute()
        self.dataset = self.folder / "dataset"
        self._lines = self.folder / "pairs.jsonl"
        self._one = threading.Lock()

    def add(self, pictures: Sequence[np.ndarray], boxes: np.ndarray) -> Saved:
        """Saves a pair; one that has been reported gets these boxes instead of its old ones.

        Args:
          pictures: both, uint8 [H, W, 3] of one size.
          boxes: [M, 4], x0, y0, x1, y1 in 0..1, of every difference in both pictures; none where they show
            the same.

        Raises:
          ValueError: it is no right pair, in the words of the command. The data set stays as it was.
          OSError: the disk is full, or can not be written to.
        """
        files = [png(picture) for picture in pictures]
        digests = [hashlib.sha256(file).hexdigest()[:16] for file in files]
        line = {
            "id": f"demo-{digests[0][:8]}-{digests[1][:8]}",
            "image_a": f"images/{digests[0]}.png",
            "image_b": f"images/{digests[1]}.png",
            "boxes": np.asarray(boxes, float).reshape(-1, 4).round(6).tolist(),
            "box_units": "unit",
        }
        with self._one:
            (self.folder / "images").mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another demo may save into the same folder
                for name, data in zip((line["image_a"], line["image_b"]), files, strict=True):
                    (self.folder / str(name)).write_bytes(data)
                return self._add(line)

    def _add(self, line: dict[str, Any]) -> Saved:
        old = self._lines.read_text().splitlines() if self._lines.exists() else []
        others = [text for text in old if json.loads(text)["id"] != line["id"]]
        lines = [*others, json.dumps(line)]
        tried = self.folder / "pairs.new.jsonl"
        tried.write_text("".join(f"{text}\n" for text in lines))
        new = self.folder / "dataset.new"
        shutil.rmtree(new, ignore_errors=True)
        import_pairs(tried, new)
        gone = self.folder / "dataset.old"
        shutil.rmtree(gone, ignore_errors=True)
        if self.dataset.exists():
            os.replace(self.dataset, gone)
        os.replace(new, self.dataset)
        os.replace(tried, self._lines)
        shutil.rmtree(gone, ignore_errors=True)
        return Saved(line["id"], len(lines), self.dataset, len(others) < len(old))


def import_pairs(pairs: pathlib.Path, out: pathlib.Path) -> None:
    """Makes a data set of a user's pairs, by the command that does (docs/own_pairs.md).

    Args:
      pairs: JSON lines, or COCO JSON.
      out: a new folder.

    Raises:
      ValueError: what the command said is wrong.
    """
    command = [sys.executable, "-m", "data_gen.import_pairs", f"--pairs={pairs}", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(" ".join(said) or f"data_gen.import_pairs ended with code {done.returncode}")
