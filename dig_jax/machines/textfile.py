"""Text files that a user hands over: UTF-8, with or without a byte-order mark; errors name file and line.

And values of settings files: errors name file, key, value and what was expected.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

_LFS_POINTER = b"version https://git-lfs"  # how the files begin that Git LFS leaves in place of large ones
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # also how UTF-32 begins; both are refused alike


def read_text(path: epath.PathLike) -> str:
    """The text of a UTF-8 file, whatever the locale, without the mark that Windows puts before it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is in another encoding; the message names the line.
    """
    data = epath.Path(path).read_bytes()
    refuse_pointer(data, path)
    return decode(data, str(path))


@contextlib.contextmanager
def without_marks(folder: epath.Path, names: Sequence[str]) -> Iterator[epath.Path]:
    """A local `folder`, or where files of it begin with a byte-order mark, a copy of its `names` without.

    For libraries that take the mark for a part of the text.
    """
    found = [name for name in names if (folder / name).exists()]
    if not any(_has_mark(folder / name) for name in found):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        for name in found:
            (epath.Path(temporary) / name).write_bytes(read_text(folder / name).encode())
        yield epath.Path(temporary)


def _has_mark(path: epath.Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)).startswith((codecs.BOM_UTF8, *_UTF16))


def check_fetched(path: epath.Path) -> None:
    """Raises ValueError if the file is what Git LFS leaves in its place until it is fetched."""
    with path.open("rb") as file:
        refuse_pointer(file.read(len(_LFS_POINTER)), path)


def refuse_pointer(data: bytes, path: epath.PathLike) -> None:
    """Raises ValueError if the bytes of the file are what Git LFS leaves in its place."""
    if data.startswith(_LFS_POINTER):
        raise ValueError(f"{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")


def decode(data: bytes, name: str) -> str:
    """The text of the file `name` with these bytes; raises ValueError as `read_text`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        if data.startswith(_UTF16):
            found = "it is UTF-16, which PowerShell's > writes"
        else:
            found = f"byte 0x{data[error.start]:02x} is not; Latin-1 or another code page of Windows?"
        raise ValueError(f"{name}, line {line}: expected UTF-8 text, but {found}: save it as UTF-8") from None


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not UTF-8, not JSON, or another JSON value than an object; the message names the file.
    """
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object {{...}}, got {str(value)[:80]}")
    return value


def parse_json(text: str, name: str) -> Any:
    """The JSON value of a text; `name` is what errors call it. Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{name} is not JSON: nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ValueError(f"{name}: {error}") from None


KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "an object {...}",
    list: "a list of numbers",
    tuple: "a list of whole numbers",
}


def is_a(value: Any, kind: type) -> bool:
    """Whether a JSON value is a bool, int, float (any finite number), str, dict, or list (of numbers).

    A tuple stands for a list of whole numbers.
    """
    if kind is float:
        return is_a(value, int) or (isinstance(value, float) and math.isfinite(value))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind in (list, tuple):
        item_kind = float if kind is list else int
        return isinstance(value, list | tuple) and all(is_a(item, item_kind) for item in value)
    return isinstance(value, kind)


def field(settings: dict[str, Any], key: str, kind: type, path: epath.PathLike) -> Any:
    """The value of a settings file under `key`; None where there is none, or null.

    Args:
      settings: of the file, or an object in it.
      key: `a.b` is called so in errors and is the key `b` of `settings`, the object under `a`.
      kind: see `is_a`.
      path: of the file.

    Raises:
      ValueError: it is of another kind; names file, key, value and what was expected.
    """
    value = settings.get(key.rpartition(".")[2])
    if value is not None and not is_a(value, kind):
        raise ValueError(f"{path}: {key} is {json.dumps(value)[:80]}; expected {KINDS[kind]}")
    return value
