"""What marks add up to: shares of hits, by category and over rows that count only together.

Names and scales are those of VLMEvalKit's score tables; where such a table has a row for each split, a score
is called SPLIT/COLUMN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from dig_jax.benchmarks.row import Mark, Row

Scores = dict[str, float]

L2 = "l2-category"

# How the toolkit's tables call the abilities of MMBench.
_SHORT = {
    "attribute_reasoning": "AR",
    "coarse_perception": "CP",
    "finegrained_perception (cross-instance)": "FP-C",
    "finegrained_perception (instance-level)": "FP-S",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
}


def mean(values: Iterable[float]) -> float:
    """The mean, 0 of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def parts(
    rows: Sequence[Row], marks: Sequence[Mark], key: Callable[[Row], str]
) -> dict[str, tuple[list[Row], list[Mark]]]:
    """Rows and marks of each kind, in the order in which kinds appear; "" is no kind."""
    found: dict[str, tuple[list[Row], list[Mark]]] = {}
    for row, mark in zip(rows, marks, strict=True):
        if name := key(row):
            own = found.setdefault(name, ([], []))
            own[0].append(row)
            own[1].append(mark)
    return found


def by(rows: Sequence[Row], marks: Sequence[Mark], key: Callable[[Row], str]) -> dict[str, list[Mark]]:
    """The marks of the rows of each kind, in the order in which kinds appear; "" is no kind."""
    return {name: own for name, (_, own) in parts(rows, marks, key).items()}


def hits(marks: Iterable[Mark]) -> float:
    """The share of hits, 0 to 1."""
    return mean(mark.hit for mark in marks)


def all_right(marks: Iterable[Mark]) -> float:
    """1 if all are hits, else 0."""
    return float(all(mark.hit for mark in marks))


def accuracy(rows: Sequence[Row], marks: Sequence[Mark]) -> Scores:
    """Shares of hits: "Overall", of each category and each l2-category.

    Where rows have several values in a column `split`, also of each of them, as "test/Overall".
    """
    found = _accuracy(rows, marks)
    splits = parts(rows, marks, lambda row: row.fields.get("split", ""))
    if len(splits) > 1:
        for split, own in splits.items():
            found |= {f"{split}/{name}": value for name, value in _accuracy(*own).items()}
    return found


def _accuracy(rows: Sequence[Row], marks: Sequence[Mark]) -> Scores:
    scores = {"Overall": hits(marks)}
    for key in (l2, category):  # a name that both have stands for the category, as in the toolkit's table
        scores |= {_SHORT.get(name, name): hits(own) for name, own in by(rows, marks, key).items()}
    return scores


def category(row: Row) -> str:
    """The kind of a row."""
    return row.category


def l2(row: Row) -> str:
    """Its finer or coarser kind, "" for none."""
    return row.fields.get(L2, "")


def column(row: Row, table: str, name: str) -> str:
    """The text of a column. Raises ValueError where a row has none; names the table and the column."""
    text = row.category if name == "category" else row.fields.get(name, "")
    if not text:
        raise ValueError(
            f"{table}, index {row.index}: nothing in the column {name}, which the score needs. Give the"
            " question table with --questions, or another --benchmark"
        )
    return text


def whole_number(row: Row, table: str) -> Row:
    """The row itself. Raises ValueError where its index, which tells its group, is no whole number."""
    if not row.index.isdecimal():
        raise ValueError(f"{table}, index {row.index!r}: expected a whole number, 0 or more")
    return row


def binary(rows: Sequence[Row], marks: Sequence[Mark]) -> Mapping[str, float]:
    """Of yes/no answers: accuracy, precision, recall and F1 of "Yes", and how often it is said, 0 to 1.

    An answer that could not be read is wrong, and counts as No in precision and recall.
    """
    pairs = [(mark.answer == "Yes", row.answer == "Yes") for row, mark in zip(rows, marks, strict=True)]
    found = sum(said and right for said, right in pairs)
    precision = found / max(sum(said for said, _ in pairs), 1)
    recall = found / max(sum(right for _, right in pairs), 1)
    return {
        "acc": hits(marks),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if found else 0.0,
        "yes": mean(said for said, _ in pairs),
    }
