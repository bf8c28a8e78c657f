"""Text files that a user hands over: UTF-8, with or without a byte-order mark; errors name file and line."""

from __future__ import annotations

import codecs
import json
from typing import Any

from etils import epath

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # also how UTF-32 begins; both are refused alike


def read_text(path: epath.PathLike) -> str:
    """The text of a UTF-8 file, whatever the locale, without the mark that Windows puts before it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is in another encoding; the message names the line.
    """
    return decode(epath.Path(path).read_bytes(), str(path))


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
