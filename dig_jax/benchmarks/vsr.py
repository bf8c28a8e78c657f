"""Visual Spatial Reasoning: is this statement about where things lie true?

Scores are in percent but "f1_score", which is 0 to 1, as in VLMEvalKit's table.
"""

from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import vsr
from dig_jax.benchmarks.row import Mark, Row


def percent(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """ "acc", "precision", "recall", "f1_score", and the share of yes, "yes_ratio"."""
    values = scores.binary(rows, marks)
    found = {name: 100 * values[name] for name in ("acc", "precision", "recall")}
    return found | {"f1_score": values["f1"], "yes_ratio": 100 * values["yes"]}


BENCHMARK = Benchmark(
    name="vsr",
    title="VSR (zero-shot)",
    task="yes_no",
    splits=("zeroshot",),
    sizes={
        **{"zeroshot": 1222, "zeroshot_dev": 340, "zeroshot_train": 3489},
        **{"random": 2195, "random_dev": None, "random_train": None},
    },
    tables={"VSR-zeroshot": ("zeroshot",)},
    ask=asking.yes_no,
    mark=marking.yes_no,
    aggregate=percent,
    headline="acc",
    top=100.0,
    release=vsr.rows,
)
