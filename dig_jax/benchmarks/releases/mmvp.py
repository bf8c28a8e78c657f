"""MMVP as published: Questions.csv, and "MMVP Images", whose files have the numbers of the questions.

The two questions of pair 50, and those of pair 140, have each other's label (issues 14 and 30 of
github.com/tsb0601/MMVP). Rows keep the published labels; `repaired` changes them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row

_OPTIONS = re.compile(r"\s*\(a\)(.*?)\s*\(b\)(.*)", re.DOTALL | re.IGNORECASE)

# Index of a row, as published (from 1) -> its published label and the right one.
REPAIRS = {"99": ("A", "B"), "100": ("B", "A"), "279": ("A", "B"), "280": ("B", "A")}


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions with their published labels.

    Raises:
      FileNotFoundError: the table is missing.
      ValueError: a row is of another form; names file and line.
    """
    path = files.find(root, "Questions.csv", "MMVP/Questions.csv")
    pictures = files.find(path.parent, "folder of pictures", "MMVP Images", "MMVP_Images", "images")
    return [_row(record, pictures, split) for record in files.csv_rows(path)]


def _row(record: files.Record, pictures: epath.Path, split: str) -> Row:
    match = _OPTIONS.fullmatch(record.text("Options"))
    if match is None:
        raise ValueError(f"{record.place}: Options is {record.text('Options')!r}; expected '(a) ... (b) ...'")
    options = files.lettered([text.strip() for text in match.groups()], record.place)
    number = record.number("Index")
    return Row(
        index=str(number),
        images=(PictureFile(pictures / f"{number}.jpg"),),
        question=record.text("Question"),
        options=options,
        answer=files.right_letter(record.text("Correct Answer"), options, record.place),
        splits=(split,),
    )


def repaired(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows with right labels, and what was changed, in words; labels that are right already stay.

    Args:
      rows: with the index that the release gives them, 1 to 300.
    """
    found, words = [], []
    for row in rows:
        published, right = REPAIRS.get(row.index, ("", ""))
        if published and row.answer == published:
            row = dataclasses.replace(row, answer=right)
            words.append(f"MMVP {row.index}: the published label {published} is wrong, {right} counts")
        found.append(row)
    return found, words
