"""Four crops of a rendered scene: which is at this place, which is the one described?"""

from dig_jax.benchmarks import asking, marking, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import aligned

BENCHMARK = Benchmark(
    name="align_choices",
    title="scenes, which crop (C-I, T-I)",
    task="choice",
    splits=aligned.PARTS,
    sizes={},
    tables={},
    ask=asking.marked,
    mark=marking.choice,
    aggregate=scores.accuracy,
    headline="Overall",
    top=1.0,
    release=aligned.choice_rows,
)
