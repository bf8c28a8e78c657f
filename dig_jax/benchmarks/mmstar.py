"""MMStar: 1,500 questions that need the picture, 250 for each of six abilities."""

from dig_jax.benchmarks import asking, marking, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import mmstar

BENCHMARK = Benchmark(
    name="mmstar",
    title="MMStar",
    task="choice",
    splits=("val",),
    sizes={"val": 1500},
    tables={"MMStar": ("val",)},
    ask=asking.choice,
    mark=marking.choice,
    aggregate=scores.accuracy,
    headline="Overall",
    release=mmstar.rows,
)
