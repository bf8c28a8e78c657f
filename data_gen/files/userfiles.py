"""Files that a user names: `~` in their paths, the encoding of their text, whether they can be written."""

from __future__ import annotations

import codecs
import os
import re
import tempfile
from pathlib import Path

_LFS_POINTER = b"version https://git-lfs"  # how the files begin that Git LFS leaves in place of large ones


def home_expanded(text: str) -> str:
    """A path with its `~` expanded: shells leave the one of --out=~/folder to us."""
    return os.path.expanduser(text)  # unlike Path.expanduser it leaves a ~ that names no home as it is


def user_path(text: str) -> Path:
    """The type of a flag that is a path."""
    return Path(home_expanded(text))


def read_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file, with or without a byte-order mark, split at "\n" alone.

    Raises ValueError, naming the file, and the line where the text is in another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    if is_lfs_pointer(data):
        raise ValueError(f"{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    try:
        return data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        found = "UTF-16" if utf16 else f"byte 0x{data[error.start]:02x}, perhaps Latin-1"
        raise ValueError(f"{path}:{line}: expected UTF-8 text, got {found}: save it as UTF-8") from None


def is_lfs_pointer(data: bytes) -> bool:
    """Whether a file's bytes are what Git LFS leaves in its place until it is fetched."""
    return data.startswith(_LFS_POINTER)


def require_disk(path: Path, flag: str, advice: str) -> None:
    """Raises ValueError for the address of a bucket, where a folder of this machine is needed."""
    if re.match(r"\w+:/", str(path)):  # Path keeps one slash of an address
        raise ValueError(f"{flag}={str(path).replace(':/', '://', 1)}: {advice}")


def check_writable(path: Path, flag: str) -> None:
    """Makes the folder of a file to be written later. Raises ValueError, naming the flag, if it fails."""
    if path.is_dir():
        raise ValueError(f"{flag}={path} is a folder: name a file in it")
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{flag}={path}: the file that is there cannot be written")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(
            f"{flag}={path}: nothing can be written in {path.parent} ({error.strerror})"
        ) from None
