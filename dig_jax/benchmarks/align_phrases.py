"""Phrases for objects of rendered scenes, as RefCOCO asks of photographs, in its eight columns."""

from dig_jax.benchmarks import asking, marking, refcoco
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import aligned

BENCHMARK = Benchmark(
    name="align_phrases",
    title="scenes, phrases to boxes (T-C)",
    task="referring",
    splits=aligned.PHRASES,
    sizes={},
    tables={},
    ask=asking.marked,
    mark=marking.referring,
    aggregate=refcoco.precision,
    headline="Average/Precision@1",
    top=100.0,
    release=aligned.phrase_rows,
)
