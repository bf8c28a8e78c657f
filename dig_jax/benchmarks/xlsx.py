"""Reads the first sheet of an Excel file (.xlsx), all cells as text.

VLMEvalKit writes its result tables so by default. A cell holds at most 32,767 characters: long thoughts are
cut there, which a TSV file is not.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from xml.etree import ElementTree

from etils import epath

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_STRINGS, _SHEET = "xl/sharedStrings.xml", re.compile(r"xl/worksheets/sheet\d*\.xml")
_MAX_BYTES = 1 << 30  # unpacked; a few kilobytes can claim to be more than any machine holds
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")  # how characters are written that XML has no room for
_LETTERS = re.compile(r"[A-Z]+")


def read_cells(path: epath.Path) -> Iterator[dict[str, str]]:
    """The rows of the first sheet by the names in its first row; cells that are not there are "".

    Raises:
      ValueError: it is no such file, or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            sheets = sorted(filter(_SHEET.fullmatch, archive.namelist()), key=lambda name: (len(name), name))
            if not sheets:
                raise ValueError(f"{path} has no sheet")
            strings = []
            if _STRINGS in archive.namelist():
                strings = [_text(entry) for entry in _parse(archive, _STRINGS, path)]
            rows = [_row(row, strings) for row in _parse(archive, sheets[0], path).iter(f"{_MAIN}row")]
    except (zipfile.BadZipFile, ElementTree.ParseError, IndexError, KeyError) as error:
        raise ValueError(f"{path} is no .xlsx file that can be read ({error})") from error
    header = rows[0] if rows else {}
    for row in rows[1:]:
        yield {name: row.get(column, "") for column, name in header.items()}


def _parse(archive: zipfile.ZipFile, name: str, path: epath.Path) -> ElementTree.Element:
    if archive.getinfo(name).file_size > _MAX_BYTES:
        raise ValueError(f"{path}: {name} is larger than 1 GiB unpacked; save the table as TSV")
    data = archive.read(name)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # no program writes them, and entities can explode
        raise ValueError(f"{path}: {name} declares a document type; save the table as TSV")
    return ElementTree.fromstring(data)


def _row(row: ElementTree.Element, strings: list[str]) -> dict[str, str]:
    """Column -> text; a cell without a place follows the one before."""
    cells: dict[str, str] = {}
    for number, cell in enumerate(row.iter(f"{_MAIN}c")):
        place = _LETTERS.match(cell.get("r", ""))
        cells[place[0] if place else f"#{number}"] = _cell(cell, strings)
    return cells


def _cell(cell: ElementTree.Element, strings: list[str]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return _text(cell)
    value = cell.findtext(f"{_MAIN}v") or ""
    if kind == "s":
        return strings[int(value)]
    if kind == "b":
        return "True" if value == "1" else "False"
    return _ESCAPED.sub(_unescaped, value) if kind == "str" else value


def _text(entry: ElementTree.Element) -> str:
    """The text of a string with its runs, readings for East Asian characters left out."""
    skipped = {part for reading in entry.iter(f"{_MAIN}rPh") for part in reading.iter()}
    parts = [part.text or "" for part in entry.iter(f"{_MAIN}t") if part not in skipped]
    return _ESCAPED.sub(_unescaped, "".join(parts))


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))
