"""POPE: is there such a thing in the picture? Of random, popular, or often joined (adversarial) things.

A question may stand in up to three of the sets: VLMEvalKit's table holds 5,127 rows that count 9,000 times.
"""

import dataclasses
from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, quoted, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import pope
from dig_jax.benchmarks.row import Mark, Row


def f1(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """In percent and by set: "random/Overall" is F1, with acc, precision, recall and the share of yes.

    "Overall/..." counts a question as often as it stands in a set; "mean_f1" is the mean of the sets' F1.
    """
    found: scores.Scores = {}
    counted: list[tuple[Row, Mark]] = []
    names = list(dict.fromkeys(split for row in rows for split in row.splits))
    for split in names:
        own = [(row, mark) for row, mark in zip(rows, marks, strict=True) if split in row.splits]
        counted += own
        found |= _percent(split, own)
    mean = scores.mean(found[f"{split}/Overall"] for split in names)
    return _percent("Overall", counted) | found | {"mean_f1": mean}


def _percent(name: str, pairs: Sequence[tuple[Row, Mark]]) -> scores.Scores:
    values = scores.binary([row for row, _ in pairs], [mark for _, mark in pairs])
    shown = {"f1": "Overall", "acc": "acc", "precision": "precision", "recall": "recall", "yes": "yes_ratio"}
    return {f"{name}/{column}": 100 * values[value] for value, column in shown.items()}


def _from_table(row: Row, table: str) -> Row:
    named = scores.column(row, table, "category")
    splits = tuple(split.strip() for split in named.split(",") if split.strip())
    if unknown := set(splits) - set(pope.SPLITS):
        raise ValueError(
            f"{table}, index {row.index}: category is {named!r}, and {', '.join(sorted(unknown))} is none of"
            f" {', '.join(pope.SPLITS)}"
        )
    return dataclasses.replace(row, splits=splits)


BENCHMARK = Benchmark(
    name="pope",
    title="POPE",
    task="yes_no",
    splits=pope.SPLITS,
    sizes=dict.fromkeys(pope.SPLITS, 3000),
    tables={"POPE": pope.SPLITS},
    ask=asking.yes_no,
    mark=marking.yes_no,
    aggregate=f1,
    headline="Overall/Overall",
    top=100.0,
    from_table=_from_table,
    release=pope.rows,
    quoted=quoted.POPE,
)
