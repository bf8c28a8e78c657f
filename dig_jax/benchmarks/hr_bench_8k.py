"""HR-Bench 8K: see `hr_bench`."""

from dig_jax.benchmarks import hr_bench

BENCHMARK = hr_bench.benchmark("8k")
