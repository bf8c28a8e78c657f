"""Parquet files as the hub gives them: a table with the files of its pictures in one column.

Pictures are read one row group at a time and only when they are asked for: HR-Bench 8K holds gigabytes.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from etils import epath

from dig_jax.benchmarks.releases import files

_PICTURES = "image"


@dataclasses.dataclass(frozen=True)
class PictureCell:
    """A picture in a column of a parquet file: its bytes, as {"bytes": ...}, or in base64.

    Attributes:
      path: of the file.
      group: number of the row group.
      row: in the group.
      number: of the row in the file, for errors.
    """

    path: epath.Path
    group: int
    row: int
    number: int

    @property
    def name(self) -> str:
        """File and row."""
        return f"{self.path}, row {self.number}"

    @property
    def key(self) -> str:
        """File and row: what is equal in other rows is not compared."""
        return self.name

    def read(self) -> bytes:
        """The bytes of the picture's file. Raises ValueError."""
        return _bytes(_pictures(self.path, self.group)[self.row].as_py(), self.name)


def rows(path: epath.Path) -> Iterator[tuple[files.Record, PictureCell]]:
    """The cells of every row but that of its picture, and the picture, which is not read yet.

    Raises:
      ValueError: it is no parquet file, or has no column of pictures; names it.
    """
    table = _opened(path)
    names = table.schema_arrow.names
    if _PICTURES not in names:
        raise ValueError(f"{path}: no column {_PICTURES!r}; it has {', '.join(names)}")
    others = [name for name in names if name != _PICTURES]
    number = 0
    for group in range(table.num_row_groups):
        for row, values in enumerate(table.read_row_group(group, columns=others).to_pylist()):
            number += 1
            yield files.Record(values, f"{path}, row {number}"), PictureCell(path, group, row, number)


def _opened(path: epath.Path) -> Any:
    import pyarrow.parquet  # tensorflow-datasets brings it; 0.3 s on use, not on import

    try:
        return pyarrow.parquet.ParquetFile(path.open("rb"))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({error})") from error


@functools.lru_cache(maxsize=1)
def _pictures(path: epath.Path, group: int) -> Any:
    return _opened(path).read_row_group(group, columns=[_PICTURES]).column(_PICTURES)


def _bytes(value: Any, name: str) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name}: not base64 ({error})") from error
    if not isinstance(value, bytes):
        raise ValueError(f"{name}: has no picture")
    return value
