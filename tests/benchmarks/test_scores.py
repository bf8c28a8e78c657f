"""What marks add up to where names of tables meet, and which rows the toolkit counts."""

import pytest

from dig_jax.benchmarks import registry, scores
from dig_jax.benchmarks.mmbench import circular
from dig_jax.benchmarks.opening import from_cells
from dig_jax.benchmarks.row import Mark, Row


def marked(rows: list[Row], hits: list[int]) -> tuple[list[Row], list[Mark]]:
    return rows, [Mark(row.index, "A", hit, "") for row, hit in zip(rows, hits, strict=True)]


def test_a_name_of_both_columns_is_the_categorys_and_abilities_have_short_names():
    rows = [
        Row("1", (), "", category="OCR", fields={"l2-category": "logic_reasoning"}),
        Row("2", (), "", category="logic_reasoning", fields={"l2-category": "OCR"}),
    ]
    assert scores.accuracy(*marked(rows, [1, 0])) == {"Overall": 0.5, "OCR": 1, "LR": 0}


def test_a_question_of_mmbench_without_its_first_rotation_does_not_count():
    rows = [Row(index, (), "") for index in ("1", "1000001", "1000002", "3")]
    found = circular(*marked(rows, [1, 1, 0, 0]))
    assert found == {"Overall": 0.5, "vanilla": 0.5}


@pytest.mark.parametrize("name", ["RefCOCO+ testA", "RefCOCO+_testA", "refcoco+ test_a"])
def test_a_split_of_refcoco_is_known_however_it_is_written(name):
    row = Row("7", (), "", answer="[1, 2, 3, 4]", category=name, fields={"width": "10", "height": "10"})
    assert from_cells(registry.benchmark("refcoco"), "RefCOCO", row).splits == ("RefCOCO+ testA",)
