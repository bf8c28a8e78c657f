"""ScienceQA-IMG: the questions of school science that have a picture, with their hints."""

from dig_jax.benchmarks import asking, marking, quoted, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import science_qa

BENCHMARK = Benchmark(
    name="scienceqa",
    title="ScienceQA-IMG",
    task="choice",
    splits=("test",),
    sizes={"test": 2017, "val": 2097},
    tables={"ScienceQA_TEST": ("test",), "ScienceQA_VAL": ("val",)},
    ask=asking.choice,
    mark=marking.choice,
    aggregate=scores.accuracy,
    headline="Overall",
    release=science_qa.rows,
    quoted=quoted.SCIENCEQA,
)
