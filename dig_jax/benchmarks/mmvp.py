"""MMVP: pairs of pictures that CLIP takes for the same; a pair is right if both of its questions are."""

from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, scores, together
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import mmvp
from dig_jax.benchmarks.row import Mark, Row


def pair(row: Row) -> str:
    """The number of the pair: rows 2k - 1 and 2k."""
    return str((int(row.index) + 1) // 2)


def pairs(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """ "Overall", the share of pairs with both right, and "Average", the share of rows."""
    both = [scores.all_right(own) for own in scores.by(rows, marks, pair).values()]
    return {"Overall": scores.mean(both), "Average": scores.hits(marks)}


BENCHMARK = Benchmark(
    name="mmvp",
    title="MMVP",
    task="choice",
    splits=("test",),
    sizes={"test": 300},
    tables={"MMVP": ("test",)},
    ask=asking.choice,
    mark=marking.choice,
    aggregate=pairs,
    headline="Overall",
    from_table=scores.whole_number,
    release=mmvp.rows,
    groups=pair,
    faults=together.pairs,
    alone=("Average",),
    repair=mmvp.repaired,
)
