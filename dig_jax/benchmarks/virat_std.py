"""VIRAT-STD: what changed between two frames of a surveillance camera ("The Change You Want to See")."""

from dig_jax.benchmarks import asking, boxed, change
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import cyws

BENCHMARK = Benchmark(
    name="virat_std",
    title="VIRAT-STD",
    task="differences",
    splits=("test",),
    sizes={},
    tables={},
    ask=asking.differences,
    mark=boxed.mark,
    aggregate=change.scores,
    headline=change.HEADLINE,
    release=cyws.virat_rows,
    faults=cyws.faults,
)
