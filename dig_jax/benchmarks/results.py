"""Result tables as VLMEvalKit writes and reads them: the questions' columns, and the predictions.

Read are .tsv, .csv, .jsonl, .json and .xlsx; written is TSV, in which no answer is cut off.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from dig_jax.benchmarks import tables, xlsx
from dig_jax.benchmarks.marking import box_text
from dig_jax.benchmarks.row import Row
from dig_jax.machines import textfile

_DELIMITERS = {".tsv": "\t", ".csv": ","}
SUFFIXES = (*_DELIMITERS, ".jsonl", ".json", ".xlsx")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One row of a result table.

    Attributes:
      index: of the question.
      text: of the answer, as the model gave it.
      cells: all columns, those two among them.
    """

    index: str
    text: str
    cells: Mapping[str, str]


def read(path: epath.Path) -> list[Prediction]:
    """Reads a result table.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is of another kind, lacks the column index or prediction, has an index twice, or no rows.
    """
    if not path.exists():
        raise FileNotFoundError(f"no predictions at {path}: there is no such file")
    found = list(_cells(path))
    if not found:
        raise ValueError(f"{path} holds no predictions")
    for column in ("index", "prediction"):
        if column not in found[0]:
            raise ValueError(f"{path}: no column {column}; it has {', '.join(found[0])}")
    indices = tables.whole_numbers([cells["index"] for cells in found])
    seen: set[str] = set()
    for number, index in enumerate(indices, start=1):
        if not index:
            raise ValueError(f"{path}: prediction {number} has no index")
        if index in seen:
            raise ValueError(f"{path}: index {index} is there twice")
        seen.add(index)
    return [
        Prediction(index, cells["prediction"], {**cells, "index": index})
        for index, cells in zip(indices, found, strict=True)
    ]


def _cells(path: epath.Path) -> Sequence[dict[str, str]]:
    suffix = path.suffix.lower()
    if suffix in _DELIMITERS:
        return list(tables.read_cells(path, _DELIMITERS[suffix]))
    if suffix == ".xlsx":
        return list(xlsx.read_cells(path))
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends with {', '.join(SUFFIXES)}")
    text = textfile.read_text(path)
    if suffix == ".json":
        entries = textfile.parse_json(text, str(path))
    else:
        lines = enumerate(text.split("\n"), start=1)
        entries = [textfile.parse_json(line, f"{path}, line {n}") for n, line in lines if line.strip()]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: expected a list of objects, one for each prediction")
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    return [{name: _text(entry.get(name)) for name in names} for entry in entries]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def to_tsv(rows: Sequence[Row], texts: Sequence[str]) -> str:
    """A result table for `NAME.tsv`: all columns of the questions but pictures, and the predictions."""
    options = sorted({letter for row in rows for letter in row.options})
    others = list(dict.fromkeys(name for row in rows for name in row.fields))
    fixed = [name for name in ("hint", "category") if any(getattr(row, name) for row in rows)]
    others = [name for name in others if name not in ("index", "question", "answer", "prediction", *fixed)]
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(["index", "question", *options, "answer", *fixed, *others, "prediction"])
    for row, text in zip(rows, texts, strict=True):
        table.writerow(
            [row.index, row.question]
            + [row.options.get(letter, "") for letter in options]
            + [row.answer or box_text(row)]
            + [getattr(row, name) for name in fixed]
            + [row.fields.get(name, "") for name in others]
            + [text]
        )
    return out.getvalue()
