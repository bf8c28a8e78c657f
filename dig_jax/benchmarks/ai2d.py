"""AI2D: questions about diagrams of school books, some texts of which are replaced by option letters.

The table AI2D_TEST_NO_MASK holds the same questions about diagrams with their texts; it is another number.
"""

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks import asking, marking, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import ai2d
from dig_jax.benchmarks.row import Row


def _release(root: epath.Path, split: str) -> Sequence[Row]:
    if split != "test":
        raise FileNotFoundError(
            f"{root}: of AI2D's split {split} there is a table AI2D_TEST_NO_MASK.tsv only"
        )
    return ai2d.rows(root, split)


BENCHMARK = Benchmark(
    name="ai2d",
    title="AI2D",
    task="choice",
    splits=("test",),
    sizes={"test": 3088, "test_no_mask": 3088},
    tables={"AI2D_TEST": ("test",), "AI2D_TEST_NO_MASK": ("test_no_mask",)},
    ask=asking.choice,
    mark=marking.choice,
    aggregate=scores.accuracy,
    headline="Overall",
    release=_release,
)
