"""CV-Bench: counting and relations in photographs (2D), depth and distance in scenes (3D).

2D is the mean of its two sources, ADE20K and COCO; 3D has one, Omni3D. Overall is the mean of both halves.
"""

from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import cv_bench
from dig_jax.benchmarks.row import Mark, Row


def halves(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """The scores of one half by the names of its table; of both, "2D/COCO" and so on, and their mean."""
    own = scores.parts(rows, marks, lambda row: row.splits[0] if row.splits else "")
    found = {split: half(split, *of) for split, of in own.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    both = {f"{split}/{name}": value for split, of in found.items() for name, value in of.items()}
    return {"Overall": scores.mean(of["Overall"] for of in found.values())} | both


def half(split: str, rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """Of 2D each source and their mean; of 3D each category and the share of all rows."""
    if split == "2D":
        sources = scores.by(rows, marks, lambda row: row.fields.get("source", ""))
        shares = {source: scores.hits(own) for source, own in sources.items()}
        return {"Overall": scores.mean(shares.values())} | shares
    return scores.accuracy(rows, marks)


def _from_table(row: Row, table: str) -> Row:
    scores.column(row, table, "source" if table.endswith("2D") else "category")
    return row


BENCHMARK = Benchmark(
    name="cvbench",
    title="CV-Bench",
    task="choice",
    splits=("2D", "3D"),
    sizes={"2D": 1438, "3D": 1200},
    tables={"CV-Bench-2D": ("2D",), "CV-Bench-3D": ("3D",)},
    ask=asking.choice,
    mark=marking.choice,
    aggregate=halves,
    headline="Overall",
    from_table=_from_table,
    release=cv_bench.rows,
)
