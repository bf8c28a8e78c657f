"""COCO-Inpainted: objects of photographs that were painted over ("The Change You Want to See")."""

from dig_jax.benchmarks import asking, boxed, change
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import cyws

BENCHMARK = Benchmark(
    name="coco_inpainted",
    title="COCO-Inpainted",
    task="differences",
    splits=cyws.SIZES,
    sizes={},
    tables={},
    ask=asking.differences,
    mark=boxed.mark,
    aggregate=change.scores,
    headline=change.HEADLINE,
    release=cyws.inpainted_rows,
    faults=cyws.faults,
)
