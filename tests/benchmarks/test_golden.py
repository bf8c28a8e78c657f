"""The golden tables: made questions and answers in VLMEvalKit's format, scored by VLMEvalKit itself.

`expected/NAME.json` has, for each row, the toolkit's answer and that of a careful reader ("ours"), and the
toolkit's score table of either. Pictures, questions and answers are of no real benchmark.
"""

import dataclasses
import functools
import json

import pytest
from etils import epath

from dig_jax.benchmarks import marking, opening, registry, results, tables
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.mmbench import question
from dig_jax.benchmarks.row import Mark, Reader, Row, pixels
from dig_jax.benchmarks.scores import by
from tests.helpers.paths import ROOT

GOLDEN = epath.Path(ROOT / "tests/benchmarks/golden/vlmevalkit")
TABLES = sorted(path.stem for path in (GOLDEN / "expected").iterdir())


@dataclasses.dataclass(frozen=True)
class Golden:
    """One table with its answers and what is right of them."""

    benchmark: Benchmark
    table: str
    rows: list[Row]  # as the question table has them
    answered: list[Row]  # as the result table has them
    texts: list[str]
    expected: dict


@functools.cache
def golden(name: str) -> Golden:
    benchmark, table = registry.of_table(name.lower())
    found = tables.read_questions(GOLDEN / "LMUData" / f"{name}.tsv", table)
    predictions = results.read(GOLDEN / "predictions" / f"golden_{name}.tsv")
    return Golden(
        benchmark,
        table,
        [opening.from_cells(benchmark, table, row) for row in found],
        [opening.from_cells(benchmark, table, tables.row_of(each.cells)) for each in predictions],
        [each.text for each in predictions],
        json.loads((GOLDEN / "expected" / f"{name}.json").read_text()),
    )


def score_table(rows: list[dict]) -> dict[str, float]:
    """The toolkit's score table by the names that scores have here."""
    found = {}
    for row in rows:
        row = dict(row)
        if "cycle" in row:
            found[f"{row['cycle']}/{row['type']}"] = row["accuracy"]
            continue
        split = row.pop("split", row.pop("Split", ""))
        found |= {name if len(rows) == 1 else f"{split}/{name}": value for name, value in row.items()}
    return found


def judged(one: Golden, whose: str) -> list[Mark]:
    """Marks of the answers that the toolkit, or a careful reader, found."""
    judge = marking.judge_box if one.benchmark.task == "referring" else marking.judge_word
    answers = [case[whose].replace("Unknown", "") for case in one.expected["cases"]]
    return [judge(row, answer, "") for row, answer in zip(one.answered, answers, strict=True)]


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_hold_the_same_questions_and_their_pictures(name):
    one = golden(name)
    assert len(one.rows) == one.expected["rows"] and one.table == name
    for row, answered in zip(one.rows, one.answered, strict=True):
        shown = dataclasses.replace(row, images=(), fields={})
        assert shown == dataclasses.replace(answered, fields={})
        assert row.splits and len(row.images) == 1
    assert {pixels(row.images[0]).shape for row in one.rows} == {(12, 12, 3)}
    assert one.benchmark.faults(one.rows) == []
    assert not any(part.complete for part in one.benchmark.completeness(one.rows, one.rows[0].splits))


@pytest.mark.parametrize("whose", ["toolkit", "ours"])
@pytest.mark.parametrize("name", TABLES)
def test_answers_add_up_to_the_toolkits_scores(name, whose):
    one = golden(name)
    marks = judged(one, whose)
    assert [mark.hit for mark in marks] == [case[f"{whose}_hit"] for case in one.expected["cases"]]
    scores = one.benchmark.aggregate(one.answered, marks)
    right = score_table(one.expected["our_scores" if whose == "ours" else "toolkit_scores"])
    assert {name: scores[name] for name in right} == pytest.approx(right, abs=1e-6)
    assert one.benchmark.headline in scores and scores[one.benchmark.headline] <= one.benchmark.top


@pytest.mark.parametrize("whose", ["ours", "toolkit"])
@pytest.mark.parametrize("name", TABLES)
def test_answers_are_read_as_a_careful_reader_does_or_as_the_toolkit_does(name, whose):
    one = golden(name)
    reader = Reader(compat=whose == "toolkit")
    marks = [one.benchmark.mark(*each, reader) for each in zip(one.answered, one.texts, strict=True)]
    for case, mark in zip(one.expected["cases"], marks, strict=True):
        assert (mark.index, mark.answer) == (case["index"], case[whose]), case
        assert mark.hit == case[f"{whose}_hit"] and mark.cut_off == (case["case"] == "unclosed_think")
        if "ours_iou" in case:
            assert mark.values["iou"] == pytest.approx(case[f"{whose}_iou"], abs=1e-4)
    assert sum(mark.unparsed for mark in marks) == one.expected[f"unparsed_{whose}"]


@pytest.mark.parametrize("whose", ["toolkit", "ours"])
def test_a_question_of_mmbench_is_right_if_all_its_rotations_are(whose):
    one = golden("MMBench_DEV_EN")
    groups = by(one.answered, judged(one, whose), question)
    hits = {group: int(all(mark.hit for mark in own)) for group, own in groups.items()}
    assert hits == one.expected["group_hits"][whose]


@pytest.mark.parametrize("name", ["MMBench_DEV_EN", "RefCOCO"])
def test_excel_tables_hold_what_the_others_do(name):
    read = [results.read(GOLDEN / "predictions" / f"golden_{name}.{end}") for end in ("xlsx", "tsv")]
    assert read[0] == read[1]


def test_a_cell_may_hold_several_pictures():
    rows = tables.read_questions(GOLDEN / "LMUData" / "TwoImages.tsv", "TwoImages")
    assert [len(row.images) for row in rows] == [2, 2, 2]
    assert all(pixels(picture).ndim == 3 for row in rows for picture in row.images)


@pytest.mark.parametrize("name", ["MMBench_DEV_EN", "RefCOCO", "POPE"])
def test_a_result_table_that_is_written_is_read_back(name, tmp_path):
    one = golden(name)
    path = epath.Path(tmp_path) / f"model_{name}.tsv"
    path.write_text(results.to_tsv(one.rows, one.texts))
    again = results.read(path)
    assert [each.text for each in again] == one.texts
    rows = [opening.from_cells(one.benchmark, name, tables.row_of(each.cells)) for each in again]
    assert [dataclasses.replace(row, fields={}) for row in rows] == [
        dataclasses.replace(row, images=(), fields={}, boxes=again_row.boxes)
        for row, again_row in zip(one.rows, rows, strict=True)
    ]
