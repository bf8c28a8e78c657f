"""HR-Bench: questions about pictures of 4K and 8K pixels, each asked with its options in four orders.

A score is the mean of the four orders ("cycles"), not the share of questions right in all of them.
"""

from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, scores, together
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import hr_bench
from dig_jax.benchmarks.row import Mark, Row


def cycles(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """ "Average/all", "Average/single", "Average/cross", and the same of each cycle, as "0/all"."""
    found = {}
    for cycle, (asked, own) in scores.parts(
        rows, marks, lambda row: row.fields.get(together.CYCLE, "")
    ).items():
        kinds = scores.by(asked, own, scores.category)
        found[cycle] = {"all": scores.hits(own)} | {kind: scores.hits(each) for kind, each in kinds.items()}
    names = dict.fromkeys(kind for shares in found.values() for kind in shares)
    average = {
        f"Average/{kind}": scores.mean(shares[kind] for shares in found.values() if kind in shares)
        for kind in names
    }
    return average | {f"{cycle}/{kind}": share for cycle, of in found.items() for kind, share in of.items()}


def _from_table(row: Row, table: str) -> Row:
    for name in ("category", together.CYCLE):
        scores.column(row, table, name)
    return scores.whole_number(row, table)


def benchmark(pixels: str) -> Benchmark:
    """HR-Bench at "4k" or "8k" pixels."""
    return Benchmark(
        name=f"hrbench{pixels}",
        title=f"HR-Bench {pixels.upper()}",
        task="choice",
        splits=(pixels,),
        sizes={pixels: 800},
        tables={f"HRBench{pixels.upper()}": (pixels,), f"hr_bench_{pixels}": (pixels,)},
        ask=asking.choice,
        mark=marking.choice,
        aggregate=cycles,
        headline="Average/all",
        from_table=_from_table,
        release=hr_bench.rows,
        groups=together.asked,
        faults=together.cycles,
    )
