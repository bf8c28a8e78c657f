"""What stands in results.json of a benchmark: its scores, and beside them all that a reader must know."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from dig_jax.benchmarks.baselines import baselines
from dig_jax.benchmarks.pixels import shrinking
from dig_jax.measure.drawing import RowSource
from dig_jax.measure.model import Model
from dig_jax.measure.results import Result


def summary_of(
    result: Result,
    source: RowSource,
    one: Model,
    told: dict[str, Any],
    complete: Sequence[str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The summary of a benchmark, as values that JSON takes.

    Args:
      result: of it.
      source: of the rows.
      one: the model.
      told: how the answers were drawn.
      complete: of each split, how many rows of how many are there.
      warnings: what else a reader must know of the rows.
    """
    benchmark = result.benchmark
    prompt = source.shapes()[0].messages[-1].parts
    how = {
        "prompt (first row)": " ".join(part if isinstance(part, str) else "<image>" for part in prompt),
        "answers are read by": f"{benchmark.mark.__module__}.{benchmark.mark.__name__}",
        "sampling": told["sampling"],
        "pictures": str(shrinking(source.sizes.values(), one.images)),
        "min_pixels": one.images.min_pixels,
        **{name: told[name] for name in ("model", "versions", "device")},
    }
    return {
        "title": benchmark.title,
        "task": benchmark.task,
        "complete": ", ".join(complete),
        "headline": benchmark.headline,
        "scores": result.scores,
        "intervals": {name: list(ends) for name, ends in result.intervals.items()},
        "baselines": baselines(benchmark, result.rows),
        **result.figures(),
        "warnings": list(warnings),
        "quoted": [dataclasses.asdict(number) for number in benchmark.quoted],
        "how": how,
    }


def versions() -> dict[str, str]:
    """Of what decides how answers come out."""
    names = ("dig_jax", "jax", "transformers", "pillow", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
