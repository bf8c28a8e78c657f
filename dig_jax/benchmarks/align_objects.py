"""Is there such an object in a rendered scene? What is not there is one word off: POPE, adversarial."""

from dig_jax.benchmarks import asking, marking, pope
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import aligned

BENCHMARK = Benchmark(
    name="align_objects",
    title="scenes, is there (exist)",
    task="yes_no",
    splits=("adversarial",),
    sizes={},
    tables={},
    ask=asking.marked,
    mark=marking.yes_no,
    aggregate=pope.f1,
    headline="Overall/Overall",
    top=100.0,
    release=aligned.object_rows,
)
