"""Rendered scenes, asked as POPE asks of photographs: is there a red cube? Scored as POPE."""

from dig_jax.benchmarks import asking, marking, pope
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import scenes

BENCHMARK = Benchmark(
    name="scene_objects",
    title="scenes, objects",
    task="yes_no",
    splits=("test",),
    sizes={},
    tables={},
    ask=asking.yes_no,
    mark=marking.yes_no,
    aggregate=pope.f1,
    headline="Overall/Overall",
    top=100.0,
    release=scenes.object_rows,
)
