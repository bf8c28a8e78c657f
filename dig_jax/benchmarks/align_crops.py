"""Crops of objects of rendered scenes: where is it? Scored as RefCOCO."""

from dig_jax.benchmarks import asking, marking, refcoco
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import aligned

BENCHMARK = Benchmark(
    name="align_crops",
    title="scenes, crops to boxes (I-C)",
    task="referring",
    splits=aligned.PARTS,
    sizes={},
    tables={},
    ask=asking.marked,
    mark=marking.referring,
    aggregate=refcoco.precision,
    headline="Average/Precision@1",
    top=100.0,
    release=aligned.crop_rows,
)
