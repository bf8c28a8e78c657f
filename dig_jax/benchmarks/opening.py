"""Finds the files of a benchmark below a folder: VLMEvalKit's tables first, then the official release."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks import tables
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.row import Row
from dig_jax.machines.folder import to_path

_FOLDERS = ("", "LMUData", "HR-Bench", "MMBench")  # the last two publish tables themselves
_ANSWERS = {"yes": "Yes", "no": "No"}


@dataclasses.dataclass(frozen=True)
class Opened:
    """The rows of a benchmark and where they came from.

    Attributes:
      rows: of all splits that were asked for.
      splits: that were asked for.
      places: split -> the table, or the folder of the release.
      repaired: labels that were put right, a line each, for whoever reads the scores.
    """

    rows: tuple[Row, ...]
    splits: tuple[str, ...]
    places: dict[str, str]
    repaired: tuple[str, ...] = ()


def open_rows(
    benchmark: Benchmark, root: epath.PathLike, splits: Sequence[str] = (), *, repair: bool = False
) -> Opened:
    """The rows of a benchmark.

    Args:
      benchmark: which.
      root: folder of the benchmarks' files: tables as NAME.tsv or LMUData/NAME.tsv, releases as their makers
        lay them out.
      splits: some of those with a known size; all of `benchmark.splits` if none is named.
      repair: whether labels that are known to be wrong are put right.

    Raises:
      FileNotFoundError: a split is in no file below the folder; names the files that would do.
      ValueError: there is no such split, a file is of another form, or an index is there twice.
    """
    folder = to_path(root)
    asked = tuple(splits) or benchmark.splits
    if unknown := set(asked) - {*benchmark.sizes, *benchmark.splits}:
        known = ", ".join(dict.fromkeys([*benchmark.splits, *benchmark.sizes]))
        raise ValueError(f"{benchmark.name} has no split {', '.join(sorted(unknown))}; it has {known}")
    rows: list[Row] = []
    places: dict[str, str] = {}
    for table, path in _tables(benchmark, folder):
        wanted = [split for split in benchmark.tables[table] if split in asked and split not in places]
        if wanted:
            found = [from_cells(benchmark, table, row) for row in tables.read_questions(path, table)]
            rows += [row for row in found if set(wanted) & set(row.splits)]
            places |= dict.fromkeys(wanted, str(path))
    for split in asked:
        if split not in places:
            rows += _released(benchmark, folder, split)
            places[split] = str(folder)
    if len(set(places.values())) > 1 and len({row.index for row in rows}) < len(rows):
        # CV-Bench's tables are numbered each for itself.
        rows = [dataclasses.replace(row, index=f"{row.splits[0]}-{row.index}") for row in rows]
    if len({row.index for row in rows}) < len(rows):
        raise ValueError(f"{benchmark.name} in {folder}: the same index is there twice, in {places}")
    said: list[str] = []
    if repair and benchmark.repair is not None:
        rows, said = benchmark.repair(rows)
    return Opened(tuple(rows), asked, places, tuple(said))


def from_cells(benchmark: Benchmark, table: str, row: Row) -> Row:
    """A row of a table with what the benchmark knows of it: splits, boxes, and "Yes" for "yes".

    Raises:
      ValueError: a column is missing or of another form; names table and index.
    """
    if benchmark.task == "choice":
        if not row.answer or row.answer.strip().upper() not in row.options:
            raise ValueError(
                f"{table}, index {row.index}: answer is {row.answer!r}; expected the letter of an option, and"
                f" the options are {', '.join(row.options) or 'missing'}"
            )
        row = dataclasses.replace(row, answer=row.answer.strip().upper())
    elif benchmark.task == "yes_no":
        if row.answer.strip().lower() not in _ANSWERS:
            raise ValueError(f"{table}, index {row.index}: answer is {row.answer!r}; expected Yes or No")
        row = dataclasses.replace(row, answer=_ANSWERS[row.answer.strip().lower()])
    row = benchmark.from_table(row, table)
    return row if row.splits else dataclasses.replace(row, splits=benchmark.tables[table])


def _tables(benchmark: Benchmark, folder: epath.Path) -> list[tuple[str, epath.Path]]:
    places = [(table, folder / inner / f"{table}.tsv") for table in benchmark.tables for inner in _FOLDERS]
    return [(table, path) for table, path in places if path.exists()]


def _released(benchmark: Benchmark, folder: epath.Path, split: str) -> Sequence[Row]:
    tsv = [f"{table}.tsv" for table, of in benchmark.tables.items() if split in of]
    if benchmark.release is None:
        raise FileNotFoundError(f"{folder} has no {benchmark.title}, {split}: looked for {' and '.join(tsv)}")
    try:
        return benchmark.release(folder, split)
    except FileNotFoundError as error:
        also = f"; nor is there a table {' or '.join(tsv)}" if tsv else ""
        raise FileNotFoundError(f"{error}{also}") from error
