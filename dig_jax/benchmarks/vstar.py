"""V* Bench: small things in large pictures, their attributes and where they lie to each other."""

from dig_jax.benchmarks import asking, marking, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import vstar

BENCHMARK = Benchmark(
    name="vstar",
    title="V* Bench",
    task="choice",
    splits=("test",),
    sizes={"test": 191},
    tables={"VStarBench": ("test",)},
    ask=asking.choice,
    mark=marking.choice,
    aggregate=scores.accuracy,
    headline="Overall",
    release=vstar.rows,
)
