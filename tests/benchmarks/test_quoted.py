"""Quoted numbers stand beside scores that there are, on their scale."""

import dataclasses

import pytest

from dig_jax.benchmarks import registry
from dig_jax.benchmarks.row import Mark
from tests.helpers import made_benchmark


def test_every_quoted_number_has_a_score_of_its_name_and_scale():
    rows = made_benchmark.rows_of(2)
    for name in registry.names():
        benchmark = registry.benchmark(name)
        if not benchmark.quoted or name == "mme":  # whose rows have subtasks
            continue
        splits = [
            dataclasses.replace(
                row, index=f"VD_illusion_1_0_{place}_{number}", category="VD", splits=(split,)
            )
            for place, split in enumerate(benchmark.splits)
            for number, row in enumerate(rows)
        ]
        if name == "mmbench":
            splits = [dataclasses.replace(row, index=str(n)) for n, row in enumerate(splits)]
        marks = [Mark(row.index, row.answer or "[]", 1.0, "", values={"iou": 1.0}) for row in splits]
        scores = benchmark.aggregate(splits, marks)
        for number in benchmark.quoted:
            assert number.metric in scores, (name, number.metric)
            assert benchmark.top / 10 < number.value < benchmark.top


def test_the_mean_of_the_eight_splits_is_the_average_that_is_printed():
    quoted = registry.benchmark("refcoco").quoted
    for model in ("TinyGroundingGPT 3B", "TinyGroundingGPT 1.5B", "TinyGroundingGPT 7B"):
        *splits, average = (number.value for number in quoted if number.model == model)
        assert len(splits) == 8 and sum(splits) / 8 == pytest.approx(average, abs=0.006)
    assert [number.value for number in quoted if number.paper == "DiG"] == [88.6]
