"""Work in progress of one dataset on disk: what the stages hand to one another, and what makes a rerun go on.

    OUT.staging/
      lock                       held by whoever works here: by shards together, by everybody else alone
      shard-00000-of-00001/      one folder per shard; a run that is not sharded is shard 0 of 1
        lock                     held by the one process that makes this shard
        spec.json                what the pairs are made from; a different spec is refused
        renderer.json            the Blender and the device that rendered
        plan.jsonl               one planned pair per line (see planning.py)
        train/000123.image_a.png the pictures, and masks and depth where asked for
        train/000123.image_b.png
        train/000123.json        the rest of the record; written last, so it marks the pair as done
        skipped.jsonl            pairs given up in the last run, with the reason
        log.txt                  the progress lines of every run
        scratch/                 files of render workers at work

A pair belongs to shard `index % count`, whatever the number of pairs. Readers take the union of all shard
folders, so folders rendered on several machines are merged by copying them into one OUT.staging. Every file
is written under a temporary name and renamed: a file that exists is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Job = tuple[str, int]  # split, index

SHARD_FOLDER = re.compile(r"shard-(\d+)-of-(\d+)")


class StagingError(ValueError):
    """The staging folder is in use or holds other pairs; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count` of a dataset."""

    index: int = 0
    count: int = 1

    @property
    def name(self) -> str:
        return f"shard-{self.index:05d}-of-{self.count:05d}"

    def holds(self, job: Job) -> bool:
        return job[1] % self.count == self.index


class Staging:
    """The staging folder `root`, written to by one shard and read as a whole.

    Raises StagingError when any shard folder holds pairs of another spec.
    """

    def __init__(self, root: Path, spec: Mapping[str, Any], shard: Shard | None = None) -> None:
        self.root = root
        self.shard = shard or Shard()
        self.folder = root / self.shard.name
        self.spec = dict(spec)
        for folder in self.shard_folders():
            require_same(folder / "spec.json", self.spec)
        self._folder_of: dict[Job, Path] = {}
        self.scan()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from working on this shard. Raises StagingError when one does.

        A shard of several shares the folder with the others; an unsharded run and packing have it alone.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock(self.root / "lock", shared=self.shard.count > 1), lock(self.folder / "lock"):
            write_json(self.folder / "spec.json", self.spec)
            shutil.rmtree(self.scratch, ignore_errors=True)  # of a run that was killed
            self.scratch.mkdir()
            self.scan()
            yield
            shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """A folder for temporary files, emptied at the start of every run."""
        return self.folder / "scratch"

    def shard_folders(self) -> list[Path]:
        """The folders of all shards that were begun."""
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if SHARD_FOLDER.fullmatch(path.name))

    def scan(self) -> None:
        """Looks up which pairs are done, in all shard folders."""
        self._folder_of = {
            (split.name, int(path.stem)): folder
            for folder in self.shard_folders()
            for split in (folder / "train", folder / "test")
            if split.is_dir()
            for path in split.glob("*.json")
        }

    def use_renderer(self, renderer: Mapping[str, Any]) -> None:
        """Notes what renders, which must be the same for every pair: pixels differ between Blender versions.

        Raises StagingError when pairs were rendered by something else.
        """
        for folder in self.shard_folders():
            require_same(folder / "renderer.json", renderer)
        write_json(self.folder / "renderer.json", dict(renderer))

    def renderer(self) -> dict[str, Any]:
        """What rendered the pairs; empty before any were."""
        for folder in self.shard_folders():
            if (folder / "renderer.json").exists():
                return json.loads((folder / "renderer.json").read_text())
        return {}

    @property
    def plan_path(self) -> Path:
        return self.folder / "plan.jsonl"

    def is_done(self, job: Job) -> bool:
        return job in self._folder_of

    def write(self, job: Job, pictures: Mapping[str, bytes], record: Mapping[str, Any]) -> None:
        """Stores a finished pair: its PNG files by feature name ("image_a", ...), then its record."""
        split, index = job
        folder = self.folder / split
        folder.mkdir(exist_ok=True)
        for name, data in pictures.items():
            write_file(folder / f"{index:06d}.{name}.png", data)
        write_json(folder / f"{index:06d}.json", dict(record), indent=None)
        self._folder_of[job] = self.folder

    def discard(self, job: Job) -> None:
        """Forgets a pair, which the next run makes again."""
        folder = self._folder_of.pop(job)
        (folder / job[0] / f"{job[1]:06d}.json").unlink()

    def record(self, job: Job) -> dict[str, Any]:
        """The record of a finished pair, without its pictures."""
        split, index = job
        return json.loads((self._folder_of[job] / split / f"{index:06d}.json").read_text())

    def picture(self, job: Job, name: str) -> bytes:
        """The PNG file of one picture of a finished pair."""
        split, index = job
        return (self._folder_of[job] / split / f"{index:06d}.{name}.png").read_bytes()


@contextlib.contextmanager
def lock(path: Path, shared: bool = False) -> Iterator[None]:
    """Holds an advisory lock, which ends with the process however it ends. Raises StagingError if taken."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StagingError(
                f"{path.parent} is in use ({file.read().strip() or 'by another process'}); "
                "wait until that has ended, or name another --out"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}\n")
        file.flush()
        yield


def require_same(path: Path, wanted: Mapping[str, Any]) -> None:
    """Raises StagingError when a JSON file exists and holds something else."""
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise StagingError(f"{path} is not JSON; delete {path.parent}") from None
    if found != dict(wanted):
        raise StagingError(
            f"{path.parent} holds pairs of another dataset ({differing_keys(found, dict(wanted))}); "
            "repeat the command that began it, name another --out, or delete the folder"
        )


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    separators = (",", ":") if indent is None else None
    write_file(path, json.dumps(value, indent=indent, separators=separators).encode() + b"\n")


def write_file(path: Path, data: bytes) -> None:
    """Writes a file that is either absent or whole, whenever the process dies."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def differing_keys(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Names the settings in which two specs differ, with both values, for an error message."""
    lines = []
    for key in sorted({*found, *wanted}):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += [differing_keys(a, b)] if a != b else []
        elif a != b:
            lines.append(f"{key}: {a} there, {b} here")
    return "; ".join(lines)
