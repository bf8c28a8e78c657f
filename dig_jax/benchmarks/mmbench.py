"""MMBench: every question once for each rotation of its options, and right only if all of them are.

Rotation k of question i has the index i + k * 1,000,000. With one rotation missing the score is another one:
`together.rotations` says so. "vanilla" is the share of rows. V1.0 and V1.1 are not comparable.
"""

from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, quoted, scores, together
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.row import Mark, Row


def question(row: Row) -> str:
    """The number of the question that a row is a rotation of."""
    return str(int(row.index) % together.ROTATION)


def circular(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """Shares of questions all of whose rotations are right, and "vanilla", the share of rows.

    Questions without their first rotation are left out, as the toolkit does.
    """
    first = {question(row): row for row in rows if int(row.index) < together.ROTATION}
    right = {name: scores.all_right(own) for name, own in scores.by(rows, marks, question).items()}
    whole = [Mark(name, "", right[name], "") for name in first]
    return scores.accuracy(list(first.values()), whole) | {"vanilla": scores.hits(marks)}


BENCHMARK = Benchmark(
    name="mmbench",
    title="MMBench (circular)",
    task="choice",
    splits=("dev",),
    sizes={"dev": 4329, "dev_v11": 4876},
    tables={
        "MMBench_DEV_EN": ("dev",),
        "MMBench_DEV_EN_V11": ("dev_v11",),
        "mmbench_dev_20230712": ("dev",),
    },
    ask=asking.choice,
    mark=marking.choice,
    aggregate=circular,
    headline="Overall",
    from_table=scores.whole_number,
    groups=question,
    faults=together.rotations,
    alone=("vanilla",),
    quoted=quoted.MMBENCH,
)
