"""The examples of a benchmark on a page: pictures, boxes, questions, and what a model answered."""

import json

import pytest
from etils import epath

from dig_jax.benchmarks import opening, registry
from dig_jax.benchmarks.row import Mark
from dig_jax.measure.results import to_record
from dig_jax.measure.saved import Answer
from dig_jax.report.examples import boxes_of, main, write_examples
from tests.helpers.made_benchmark import BENCHMARK, rows_of
from tests.helpers.paths import ASSETS
from tests.report.test_report import Outline

PAIRS = ["--benchmark=own_pairs", f"--data_root={ASSETS / 'sample_pairs'}"]


def test_every_example_has_its_picture_its_question_and_what_is_right(tmp_path):
    rows = rows_of(4)
    page = Outline(write_examples(BENCHMARK, rows, 12, {}, epath.Path(tmp_path / "page.html")).read_text())
    assert "4 of 12 examples" in page.text and "Question 3?right: Yes" in page.text
    assert page.tags.count("figure") == page.tags.count("use") == 4
    assert page.tags.count("image") == 2  # two questions of each picture, which is there once


def test_wrong_answers_come_first(tmp_path):
    rows = rows_of(3)
    hits = {"row0": 1.0, "row1": 0.0, "row2": 1.0}
    marks = {index: Mark(index, "<Yes>", hit, "found") for index, hit in hits.items()}
    page = Outline(write_examples(BENCHMARK, rows, 3, marks, epath.Path(tmp_path / "page.html")).read_text())
    assert "mean hit 0.667" in page.text and "answered: <Yes> (found), hit 0" in page.text
    assert page.text.index("row1") < page.text.index("row0") < page.text.index("row2")


def test_boxes_are_shares_where_the_size_of_the_picture_is_known_and_as_they_are_where_not():
    boxes = Mark("a", "[[10.0, 20.0, 20.0, 40.0]]", 1.0, "valid")
    assert boxes_of(boxes, (40, 20)) == [(0.5, 0.5, 1.0, 1.0)]
    assert boxes_of(Mark("a", "[[0.5, 0.5, 1.0, 1.0]]", 1.0, "valid"), None) == [(0.5, 0.5, 1.0, 1.0)]
    assert boxes_of(Mark("a", "B", 1.0, "valid"), (40, 20)) == boxes_of(None, None) == []


def test_the_command_shows_pairs_with_the_boxes_of_a_models_answers(tmp_path, capsys):
    out = tmp_path / "pairs.html"
    main([*PAIRS, f"--out={out}"])
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text().count('class="true"') == 2 * 11  # differences of four pairs, in both pictures

    benchmark = registry.benchmark("own_pairs")
    rows = opening.open_rows(benchmark, ASSETS / "sample_pairs").rows
    box = [[1.0, 2.0, 30.0, 40.0]]
    mark = Mark(rows[0].index, json.dumps(box), 0.5, "valid")
    record = to_record(rows[0], mark, Answer(rows[0].index, str(box), 9, True))
    (tmp_path / "own_pairs.json").write_text(json.dumps({"rows": [record]}))
    main([*PAIRS, f"--answers={tmp_path}", f"--out={out}"])
    text = out.read_text()
    assert "1 of 1 examples" in text and text.count('class="predicted"') == 2


def test_a_benchmark_that_was_not_measured_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*PAIRS, f"--answers={tmp_path}", f"--out={tmp_path / 'page.html'}"])
    assert "own_pairs.json is missing: own_pairs was not measured there" in capsys.readouterr().err
