"""Rendered scenes, asked as RefCOCO asks of photographs: box what a phrase describes. Scored as RefCOCO."""

from dig_jax.benchmarks import asking, marking, refcoco
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import scenes

BENCHMARK = Benchmark(
    name="scene_phrases",
    title="scenes, phrases",
    task="referring",
    splits=("test",),
    sizes={},
    tables={},
    ask=asking.referring,
    mark=marking.referring,
    aggregate=refcoco.precision,
    headline="Average/Precision@1",
    top=100.0,
    release=scenes.phrase_rows,
)
