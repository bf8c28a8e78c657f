"""Folders on a local disk or in a bucket (`gs://`): made whole or not at all, and brought to the disk."""

import contextlib
import fcntl
import fnmatch
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Self, TypeVar

from etils import epath
from etils.epath.gpath import PosixGPath

LAST_FILE = "config.json"  # without it nothing takes a folder for a model
AnyPath = TypeVar("AnyPath", bound=epath.Path)
_MOVING = ".moving"  # lists the files that are on their way


@contextlib.contextmanager
def whole_folder(out: epath.Path) -> Iterator[epath.Path]:
    """A folder to write files into, which becomes `out` when the block ends without an error.

    Until then it has a hidden name beside `out`. On an error it is removed; what a killed process left under
    that name is removed by the next one that writes `out`. On a local disk it becomes `out` in one step. A
    bucket cannot do that: there the files move one by one, config.json last.

    Raises:
      FileExistsError: `out` has something in it, or another process is writing it.
    """
    local = is_local(out)
    staging = out.parent / f".{out.name}.incomplete"
    if not local:
        _remove_half_moved(staging, out)
    check_free(out)  # before anything is made beside it
    with _locked(out) if local else contextlib.nullcontext():
        check_free(out)  # again: another process may just have finished it
        try:
            _clear(staging)
            yield staging
            _move(staging, out, local)
        except BaseException:
            if not local:
                _remove_half_moved(staging, out)
            staging.rmtree(missing_ok=True)
            raise


def to_path(name: epath.PathLike) -> epath.Path:
    """The path that a user gave, in a flag or a setting, `~` and buckets included.

    Raises:
      ValueError: it is in a bucket, and what reads that is not installed.
    """
    # Shells leave the ~ of --model=~/folder to us. One that names no home folder stays as it is.
    path = epath.Path(os.path.expanduser(os.fspath(name)))
    try:
        path.exists()
    except ImportError as error:
        raise ValueError(f"{name}: {error} (for gs://: pip install 'dig_jax[gcs]')") from error
    return path


def is_local(path: epath.Path) -> bool:
    """Whether `path` is on a disk of this machine, and not in a bucket."""
    return "://" not in str(path)


class LiteralPath(PosixGPath):
    """A path, local or in a bucket, whose own brackets and stars are no pattern to `glob`.

    For libraries that call it: Orbax looks so for what it has written, and would lose the checkpoints of a
    run in a[1]/run.
    """

    def glob(self, pattern: str) -> Iterator[Self]:
        """What is below this folder and matches the pattern, which may have several parts."""
        first, _, rest = pattern.partition("/")
        for path in matching(self, first):
            if rest:
                yield from path.glob(rest)
            else:
                yield path


def matching(folder: AnyPath, *patterns: str) -> list[AnyPath]:
    """What `folder` holds under names that match one of the patterns, sorted; nothing if it is none.

    Unlike `folder.glob` it takes the brackets and stars in the folder's own path for what they are.
    """
    files = folder.iterdir() if folder.is_dir() else ()
    wanted = (path for path in files if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns))
    return sorted(wanted)


@contextlib.contextmanager
def local_copy(folder: epath.Path, patterns: Sequence[str]) -> Iterator[epath.Path]:
    """`folder`, or for one in a bucket a temporary folder with its files that match `patterns`.

    For libraries that read local files alone.
    """
    if is_local(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        for path in matching(folder, *patterns):
            (folder / path.name).copy(epath.Path(temporary) / path.name)
        yield epath.Path(temporary)


def writable_file(name: epath.PathLike, flag: str) -> epath.Path:
    """The path of a file to be written later, with its folder made: to be asked before the work is done.

    Args:
      name: as the user gave it.
      flag: what the user gave it as, for the error: "--out".

    Raises:
      ValueError: it is a folder, or nothing can be written there.
    """
    path = to_path(name)
    if path.is_dir():
        raise ValueError(f"{flag}={name} is a folder: name a file in it")
    if _is_device(path):
        if not os.access(path, os.W_OK):
            raise ValueError(f"{flag}={name}: nothing can be written there")
        return path
    target = epath.Path(os.path.realpath(path)) if is_local(path) else path  # of a link
    _try_to_write(target.parent, f"{flag}={name}", target.name)
    return path


def write_result(path: epath.Path, text: str) -> None:
    """Writes the file that `writable_file` gave: a reader sees the old file or the new one, never a part.

    Links and devices (/dev/stdout, /dev/null) stay what they are, and what they lead to is written.

    Raises:
      OSError: it cannot be written; names the file.
    """
    try:
        if _is_device(path) or (is_local(path) and os.path.islink(path)):
            path.write_text(text)
        else:
            _replace(path, text)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def _is_device(path: epath.Path) -> bool:
    """Whether it is there and no file of a disk or bucket: a terminal, a pipe, /dev/null."""
    return is_local(path) and os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def writable_folder(out: epath.Path, flag: str) -> None:
    """Makes the folder that `out` is to be made in; raises ValueError where nothing can be written there."""
    _try_to_write(out.parent, f"{flag}={out}")


def _try_to_write(folder: epath.Path, what: str, name: str = "") -> None:
    """Makes the folder, and in it a file of about this name, which it removes. Raises ValueError."""
    probe = folder / f".{name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{what}: nothing can be written in {folder} ({error.strerror or error})") from error


def write_json(path: epath.Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    _replace(path, json.dumps(value, indent=2) + "\n")


def _replace(path: epath.Path, text: str) -> None:
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_text(text)
    temporary.replace(path)


def move_folder(source: epath.Path, target: epath.Path) -> None:
    """Moves a folder with all that is in it: in one step on a disk, file by file in a bucket.

    Args:
        source: the folder.
        target: what it is called afterwards; there is nothing of that name.
    """
    if is_local(source):
        source.rename(target)
        return
    for path in sorted(source.iterdir(), key=lambda path: path.is_dir()):
        # Files first: among them may be the one that makes others take the folder for complete.
        move_folder(path, target / path.name) if path.is_dir() else _move_file(path, target / path.name)


def _move_file(source: epath.Path, target: epath.Path) -> None:
    """Moves an object of a bucket, which copies it there. (`rename` wants a folder; buckets have none.)"""
    from fsspec.core import url_to_fs  # comes with the gcs extra

    url_to_fs(str(source))[0].mv(str(source), str(target))


def check_free(out: epath.Path) -> None:
    """Raises FileExistsError if `out` is there, unless it is an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty; remove it or choose another name")


def _clear(folder: epath.Path) -> None:
    """Makes `folder`, or empties it."""
    folder.rmtree(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _move(staging: epath.Path, out: epath.Path, local: bool) -> None:
    if local:
        os.rename(staging, out)  # over an empty folder, too
        return
    out.mkdir(parents=True, exist_ok=True)
    names = sorted((path.name for path in staging.iterdir()), key=lambda name: name == LAST_FILE)
    (staging / _MOVING).write_text("\n".join(names))
    for name in names:
        _move_file(staging / name, out / name)
    staging.rmtree(missing_ok=True)


def _remove_half_moved(staging: epath.Path, out: epath.Path) -> None:
    """Removes what a move that was cut short had put into `out`, and nothing else."""
    if (staging / _MOVING).exists() and not (out / LAST_FILE).exists():
        for name in (staging / _MOVING).read_text().splitlines():
            (out / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(out: epath.Path) -> Iterator[None]:
    """Holds `out` against other processes. The system lets go when this one dies."""
    path = out.parent / f".{out.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file between our opening and locking it.
            held = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise FileExistsError(f"another process is writing {out}; wait for it or choose another name")
        try:
            yield
        finally:
            path.unlink()
