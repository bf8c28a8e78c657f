"""Pairs of your own, rendered or imported, identical ones among them: every difference is asked for."""

from dig_jax.benchmarks import asking, boxed, change
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import own_pairs

BENCHMARK = Benchmark(
    name="own_pairs",
    title="own pairs",
    task="differences",
    splits=("test",),
    sizes={"test": None, "train": None},
    tables={},
    ask=asking.differences,
    mark=boxed.mark,
    aggregate=change.scores,
    headline=change.HEADLINE,
    release=own_pairs.rows,
)
