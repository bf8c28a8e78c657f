"""VLMEvalKit's tables: questions with their pictures inside (TSV), and results.

Every cell is read as text, without guessing at missing values: the option texts `None` and `NA` are options,
and `1` does not become `1.0`. Pictures stay in the file until they are asked for, and are then decoded as
they are: the toolkit re-compresses those of tables above 1 GB to JPEG.

Pictures of a question table, in this order:

- column `image`: base64; a list of such texts, ['...', '...'], for several pictures; or, in at most 64
  characters, the index of the row that holds the picture (rotations of MMBench);
- column `image_path`: a path or a list of paths, absolute or below images/NAME beside the table.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import dataclasses
import hashlib
import string
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from dig_jax.benchmarks.row import Picture, PictureFile, Row
from dig_jax.machines import textfile

LONGEST_CELL = 1 << 30  # Python's csv module stops at 131,072 characters: fewer than a picture has
_LONGEST_INDEX = 64  # characters; a longer image cell is a picture
_OWN = ("index", "image", "question", "answer", "hint", "category", "prediction", "thinking")


@dataclasses.dataclass(frozen=True)
class PictureCell:
    """A picture in a cell of a table.

    Attributes:
      table: the file.
      index: of the row whose cell it is, for errors.
      start: of the row, in bytes from the beginning of the file.
      length: of the row, in bytes.
      column: of the cell, from 0.
      item: number of the picture in a list of several; None where the cell is one picture.
      key: hash of the cell and the number: the same for the same picture in another row.
    """

    table: epath.Path
    index: str
    start: int
    length: int
    column: int
    item: int | None
    key: str

    @property
    def name(self) -> str:
        """Table and row."""
        return f"{self.table}, picture of index {self.index}"

    def read(self) -> bytes:
        """The picture's bytes as they are. Raises ValueError; names table and row."""
        with self.table.open("rb") as file:
            file.seek(self.start)
            data = file.read(self.length)
        cells = next(_csv(iter([textfile.decode(data, self.name)])), [])
        if len(cells) <= self.column:
            raise ValueError(f"{self.name}: the table has changed since it was opened")
        texts = _texts(cells[self.column], self.name)
        try:
            return base64.b64decode(texts[self.item or 0], validate=False)
        except (binascii.Error, IndexError) as error:
            raise ValueError(f"{self.name}: not base64 ({error})") from error


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a table before it is known what it means.

    Attributes:
      number: of the line of the file where it begins, from 1.
      start, length: in bytes.
      cells: as they are.
    """

    number: int
    start: int
    length: int
    cells: list[str]


def read_questions(path: epath.Path, name: str) -> list[Row]:
    """The rows of a question table, those without a picture left out where the table has a column of them.

    Args:
      path: of the TSV file.
      name: of the table, such as "MMStar": pictures of `image_path` lie in images/NAME.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: there is no column `index`, an index twice, a row with other cells than the first line
        names, or a picture that is none; names file and line.
    """
    if not path.exists():
        raise FileNotFoundError(f"no table at {path}: there is no such file")
    header, lines = _open(path, "\t")
    places = {column: number for number, column in enumerate(header)}
    if "index" not in places:
        raise ValueError(f"{path}: no column index; it has {', '.join(header)}")
    rows: list[dict[str, str]] = []
    shown: dict[str, tuple[Picture, ...]] = {}
    elsewhere: dict[str, tuple[str, int]] = {}  # index -> the index of the row with its picture, own line
    for line in lines:
        row = dict(zip(header, line.cells, strict=True))
        index, cell = row["index"], row.pop("image", "")
        if index in shown:
            raise ValueError(f"{path}, line {line.number}: index {index} is there already")
        if cell and len(cell) <= _LONGEST_INDEX:
            elsewhere[index], shown[index] = (cell, line.number), ()
        elif cell:
            shown[index] = _in_cell(path, index, line, places["image"], cell)
        else:
            paths = row.get("image_path", "")
            texts = _texts(paths, f"{path}, line {line.number}") if paths else []
            shown[index] = tuple(PictureFile(path.parent / "images" / name / text) for text in texts)
        rows.append(row)
    by_number = dict(zip(whole_numbers(list(shown)), shown, strict=True))  # "7" is the row "7.0" too
    for index, (cell, number) in elsewhere.items():
        other = cell if cell in shown else by_number.get(whole_numbers([cell])[0], cell)
        if other in elsewhere or not shown.get(other):
            raise ValueError(
                f"{path}, line {number}: image is {other!r}, neither a picture nor a row that has one"
            )
        shown[index] = shown[other]
    if {"image", "image_path"} & set(header):
        rows = [row for row in rows if shown[row["index"]]]
    indices = whole_numbers([row["index"] for row in rows])
    return [
        row_of({**row, "index": index}, shown[row["index"]]) for row, index in zip(rows, indices, strict=True)
    ]


def row_of(cells: Mapping[str, str], pictures: tuple[Picture, ...] = ()) -> Row:
    """What the cells of one row say, by the names of their columns. Empty options are none."""
    options = {letter: cells[letter] for letter in string.ascii_uppercase if cells.get(letter)}
    others = {name: text for name, text in cells.items() if name not in (*_OWN, *string.ascii_uppercase)}
    return Row(
        index=cells["index"],
        images=pictures,
        question=cells.get("question", ""),
        options=options,
        answer=cells.get("answer", ""),
        hint=cells.get("hint", ""),
        category=cells.get("category", ""),
        fields=others,
    )


def whole_numbers(indices: Sequence[str]) -> list[str]:
    """The indices as VLMEvalKit has them: whole numbers where all of them are, "7.0" and "07" being 7."""
    numbers = []
    for index in indices:
        whole = index.removesuffix(".0").strip()
        if not whole.removeprefix("-").isdecimal():
            return list(indices)
        numbers.append(str(int(whole)))
    return numbers


def _in_cell(path: epath.Path, index: str, line: Line, column: int, cell: str) -> tuple[Picture, ...]:
    """The picture or pictures that a cell holds."""
    several = cell.startswith("[")
    keys = [
        hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        for text in _texts(cell, f"{path}, line {line.number}")
    ]
    place = (path, index, line.start, line.length, column)
    return tuple(PictureCell(*place, number if several else None, key) for number, key in enumerate(keys))


def _texts(cell: str, place: str) -> list[str]:
    """The texts of a cell that is one or a list of them. Raises ValueError."""
    if not cell.startswith("["):
        return [cell]
    try:
        texts = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{place}: expected a list of texts, got {cell[:40]!r}") from error
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{place}: expected a list of texts, got {cell[:40]!r}")
    return texts


def read_cells(path: epath.Path, delimiter: str) -> Iterator[dict[str, str]]:
    """The rows of a table with a first line of names, by name. Raises ValueError; names file and line."""
    header, lines = _open(path, delimiter)
    return (dict(zip(header, line.cells, strict=True)) for line in lines)


def _open(path: epath.Path, delimiter: str) -> tuple[list[str], Iterator[Line]]:
    """The names of the columns, and the rows, whose cells are as many."""
    lines = _lines(path, delimiter)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{path} is empty: expected a first line with the names of columns")
    header = first.cells
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: a column is there twice: {', '.join(header)}")
    return header, _checked(lines, path, header)


def _checked(lines: Iterator[Line], path: epath.Path, header: list[str]) -> Iterator[Line]:
    for line in lines:
        if len(line.cells) != len(header):
            raise ValueError(
                f"{path}, line {line.number}: {len(line.cells)} cells, and the first line names {len(header)}"
            )
        yield line


def _lines(path: epath.Path, delimiter: str) -> Iterator[Line]:
    """Rows with their place in the file; a cell in quotes may have line ends. Raises ValueError."""
    with path.open("rb") as file:
        begin = file.read(64)
        textfile.refuse_pointer(begin, path)
        file.seek(0)
        position = count = 0

        def texts() -> Iterator[str]:
            nonlocal position, count
            for line in file:
                position += len(line)
                count += 1
                yield textfile.decode(line, f"{path}, byte {position - len(line)}")

        start, number = 0, 1
        rows = _csv(texts(), delimiter)
        while True:
            try:
                cells = next(rows, None)
            except csv.Error as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if cells is None:
                return
            if cells:
                yield Line(number, start, position - start, cells)
            start, number = position, count + 1


def _csv(lines: Iterator[str], delimiter: str = "\t") -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_CELL)
    return csv.reader(lines, delimiter=delimiter)
