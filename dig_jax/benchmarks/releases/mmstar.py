"""MMStar as published on the hub (Lin-Chen/MMStar): parquet, options inside the text of the question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files, parquet
from dig_jax.benchmarks.row import Row

_HEAD = re.compile(r"\s*(?:Options|Choices)\s*:\s*(?=\(?A[:.)])")
_PLACES = ("mmstar.parquet", "val-00000-of-00001.parquet", "val.parquet")


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """All questions, the options taken out of their text.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: a question has no options that can be told apart; names it.
    """
    path = files.find(root, "parquet file", *(f"MMStar/{name}" for name in _PLACES), *_PLACES)
    found = []
    for record, picture in parquet.rows(path):
        question, options = split_options(record.text("question"), record.place)
        found.append(
            Row(
                index=record.text("index"),
                images=(picture,),
                question=question,
                options=options,
                answer=files.right_letter(record.text("answer"), options, record.place),
                category=record.text("category"),
                splits=(split,),
                fields={
                    "category": record.text("category"),
                    "l2-category": record.text("l2_category", default=""),
                },
            )
        )
    return found


def split_options(text: str, place: str) -> tuple[str, dict[str, str]]:
    """The question and the options of "... Options: A: red, B: dark red, C: blue, D: none".

    Raises:
      ValueError: there is no such list, from A on without a gap.
    """
    head = _HEAD.search(text)
    if head is None:
        raise ValueError(
            f"{place}: no list 'Options: A: ..., B: ...' in {text[-80:]!r}; VLMEvalKit's table MMStar.tsv has"
            " a column for each option"
        )
    rest, found = text[head.end() :], []
    for letter, following in ("AB", "BC", "CD", "DE"):
        mark = re.match(rf"\(?{letter}[:.)]\s*", rest)
        if mark is None:
            break
        rest = rest[mark.end() :]
        end = re.search(rf"\s*[,;\n]\s*(?=\(?{following}[:.)])", rest)
        found.append(rest[: end.start()] if end else rest)
        rest = rest[end.end() :] if end else ""
    return text[: head.start()].strip(), files.lettered([option.strip() for option in found], place)
