"""Benchmarks by name: a line for each."""

from __future__ import annotations

import importlib

from dig_jax.benchmarks.benchmark import Benchmark

# Name -> the module that holds it as BENCHMARK.
MODULES = {
    "refcoco": "dig_jax.benchmarks.refcoco",
    "pope": "dig_jax.benchmarks.pope",
    "hallusionbench": "dig_jax.benchmarks.hallusion",
    "mme": "dig_jax.benchmarks.mme",
    "vsr": "dig_jax.benchmarks.vsr",
    "hrbench4k": "dig_jax.benchmarks.hr_bench_4k",
    "hrbench8k": "dig_jax.benchmarks.hr_bench_8k",
    "vstar": "dig_jax.benchmarks.vstar",
    "cvbench": "dig_jax.benchmarks.cv_bench",
    "mmvp": "dig_jax.benchmarks.mmvp",
    "mmbench": "dig_jax.benchmarks.mmbench",
    "mmstar": "dig_jax.benchmarks.mmstar",
    "ai2d": "dig_jax.benchmarks.ai2d",
    "scienceqa": "dig_jax.benchmarks.scienceqa",
    "mig_bench": "dig_jax.benchmarks.mig_bench",
    "virat_std": "dig_jax.benchmarks.virat_std",
    "coco_inpainted": "dig_jax.benchmarks.coco_inpainted",
    "own_pairs": "dig_jax.benchmarks.own_pairs",
    "scene_objects": "dig_jax.benchmarks.scene_objects",
    "scene_phrases": "dig_jax.benchmarks.scene_phrases",
    "align_phrases": "dig_jax.benchmarks.align_phrases",
    "align_crops": "dig_jax.benchmarks.align_crops",
    "align_choices": "dig_jax.benchmarks.align_choices",
    "align_objects": "dig_jax.benchmarks.align_objects",
}


def names() -> tuple[str, ...]:
    """The names that commands take."""
    return tuple(MODULES)


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name, upper or lower case.

    Raises:
      ValueError: there is none; lists those there are.
    """
    module = MODULES.get(name.lower())
    if module is None:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(MODULES)}")
    return importlib.import_module(module).BENCHMARK


def of_table(table: str) -> tuple[Benchmark, str]:
    """The benchmark that a question table of VLMEvalKit belongs to, and the table's name as written there.

    Args:
      table: such as "MMBench_DEV_EN", upper or lower case; or the name of a benchmark with one table.

    Raises:
      ValueError: there is none, or the benchmark has several tables; lists those there are.
    """
    found = [benchmark(name) for name in MODULES]
    tables = {known.lower(): (each, known) for each in found for known in each.tables}
    if table.lower() in tables:
        return tables[table.lower()]
    if table.lower() not in MODULES:
        known = ", ".join(known for _, known in tables.values())
        raise ValueError(f"there is no benchmark {table!r}; tables are {known}")
    one = benchmark(table)
    if len(one.tables) != 1:
        what = ", ".join(one.tables) or "none that VLMEvalKit names"
        raise ValueError(f"the benchmark {one.name} has the tables {what}: name one of them")
    return one, next(iter(one.tables))
