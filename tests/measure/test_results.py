"""What stands in a folder of results, and what one model gained over another."""

import csv
import io
import json

import numpy as np
import pytest
from etils import epath

from dig_jax.benchmarks import registry
from dig_jax.benchmarks.row import Reader
from dig_jax.measure import compare, folder, page, results
from dig_jax.measure.saved import Answer
from tests.helpers import made_benchmark
from tests.helpers.made_benchmark import BENCHMARK, rows_of

MODEL = {"family": "qwen3_vl", "weights": "ab"}


@pytest.fixture(autouse=True)
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made benchmark has a name."""
    monkeypatch.setitem(registry.MODULES, "squares", made_benchmark.__name__)


def result(texts: list[str], count: int = 12) -> results.Result:
    rows = rows_of(count)
    said = zip(rows, texts, strict=True)
    answers = {row.index: Answer(row.index, text, len(text), text != "cut") for row, text in said}
    return results.result_of(BENCHMARK, rows, answers, Reader())


def right(count: int, total: int = 12) -> list[str]:
    """The first `count` answers right, the others wrong."""
    said = [("No", "Yes"), ("Yes", "No")]
    return [said[number % 2][number >= count] for number in range(total)]


def summary(of: results.Result) -> dict:
    return {
        **{"title": "Squares", "task": "yes_no", "headline": "acc", "scores": of.scores},
        **{"intervals": {name: list(ends) for name, ends in of.intervals.items()}, **of.figures()},
        **{
            "complete": "12/12",
            "warnings": [],
            "baselines": {"majority": {"acc": 50.0}},
            "how": {"prompt": "a\n|b"},
        },
        "quoted": [{"paper": "a paper", "model": "a model", "metric": "acc", "value": 50.0}],
    }


def test_scores_have_intervals_and_say_how_answers_came_out():
    found = result([*right(6)[:10], "cut", "?"])
    assert found.scores == {"acc": 50.0, "both": 50.0}
    assert found.intervals["acc"] == (pytest.approx(0, abs=17), pytest.approx(100, abs=17))
    figures = found.figures()
    assert figures == {"unparsed": 2 / 12, "cut_off": 0, "truncated": 1 / 12, "median_tokens": 2.5}


def test_a_part_of_a_benchmark_has_whole_groups_and_is_the_same_for_a_seed():
    rows = rows_of(40)
    for seed in range(5):
        part = results.chosen(BENCHMARK, rows, 7, seed)
        assert len(part) == 8 and [rows.index(row) for row in part] == sorted(rows.index(row) for row in part)
        assert {row.images[0].key for row in part[::2]} == {row.images[0].key for row in part[1::2]}
        again = results.chosen(BENCHMARK, rows[::-1], 7, seed)
        assert {row.index for row in again} == {row.index for row in part}
    assert results.chosen(BENCHMARK, rows, 7, 0) != results.chosen(BENCHMARK, rows, 7, 1)
    assert results.chosen(BENCHMARK, rows, 0, 0) == results.chosen(BENCHMARK, rows, 99, 0) == rows


def test_a_folder_is_read_as_it_was_written(tmp_path):
    out, found = epath.Path(tmp_path), result(right(7))
    folder.write(out, "tiny", MODEL, found, summary(found))
    name, marked = folder.read(out)
    benchmark, rows, marks = marked["squares"]
    assert (name, benchmark, marks) == ("tiny", BENCHMARK, tuple(found.marks))
    assert benchmark.aggregate(rows, marks) == found.scores
    assert [benchmark.group(row) for row in rows] == [BENCHMARK.group(row) for row in found.rows]
    table = list(csv.DictReader(io.StringIO((out / "tiny_Squares.tsv").read_text()), delimiter="\t"))
    assert table[1] == {"index": "row1", "question": "Question 1?", "answer": "Yes", "prediction": "Yes"}
    line = (out / "results.md").read_text().splitlines()[4]
    assert "| Squares | 12/12 | acc 58.3 |" in line and "50 (a model, a paper) |" in line
    folder.check_model(out, MODEL)
    with pytest.raises(ValueError, match='results of another model: weights "ab" and now "cd"'):
        folder.check_model(out, MODEL | {"weights": "cd"})


def test_gains_are_paired(tmp_path):
    before, after = epath.Path(tmp_path) / "a", epath.Path(tmp_path) / "b"
    for out, count in ((before, 7), (after, 11)):
        out.mkdir()
        found = result(right(count))
        folder.write(out, "tiny", MODEL, found, summary(found))
    (gain,) = folder.write_differences(after, before)
    assert (gain.metric, gain.rows) == ("acc", 12)
    assert (gain.before, gain.after) == pytest.approx((700 / 12, 1100 / 12))
    assert (gain.test.first, gain.test.second, gain.test.p) == (0, 4, 0.125)
    low, high = gain.ends
    assert 0 <= low < 400 / 12 < high
    record = json.loads((after / "differences.json").read_text())["differences"][0]
    assert record["difference"] == gain.gain and record["test"] == {"first": 0, "second": 4, "p": 0.125}
    assert "| squares | 12 | acc | 58.3 | 91.7 | +33.333 |" in (after / "differences.md").read_text()
    with pytest.raises(FileNotFoundError, match="no finished results of pope"):
        folder.read(after, ["pope"])


def test_what_two_models_do_alike_does_not_blur_their_difference():
    """Half of the pictures are hard for both: single scores are unsure, their difference is not."""
    rows = rows_of(400)
    hard = np.repeat(np.random.default_rng(0).random(200) < 0.5, 2)
    both = {}
    for name, gained in (("before", 0), ("after", 1)):
        hits = ~hard | (gained * (np.arange(400) % 20 == 0) > 0)
        texts = [row.answer if hit else "" for row, hit in zip(rows, hits, strict=True)]
        marks = [made_benchmark.mark(row, text, Reader()) for row, text in zip(rows, texts, strict=True)]
        both[name] = {"squares": (BENCHMARK, rows, marks), "again": (BENCHMARK, rows, marks)}
    one, _, overall = compare.differences(both["before"], both["after"])
    assert one.ends is not None and 0.5 < one.ends[0] < one.gain < one.ends[1] < 5
    assert overall.gain == pytest.approx(one.gain / 100) and overall.rows == 800
    assert overall.test.second == 2 * one.test.second and overall.test.p < one.test.p < 0.01


def test_rows_of_other_questions_are_not_compared():
    rows = rows_of(4)
    marks = [made_benchmark.mark(row, "Yes", Reader()) for row in rows]
    other = [type(row)(row.index, row.images, "Another?", answer=row.answer) for row in rows]
    with pytest.raises(ValueError, match="squares: 4 rows, row0 the first, have another question"):
        compare.differences({"squares": (BENCHMARK, rows, marks)}, {"squares": (BENCHMARK, other, marks)})
    (some,) = compare.differences(
        {"squares": (BENCHMARK, rows, marks)}, {"squares": (BENCHMARK, rows[:2], marks[:2])}
    )
    assert some.rows == 2 and some.notes == ("2 rows that one of both lacks are left out",)


def test_a_table_of_the_toolkit_has_option_texts_as_they_are():
    row = rows_of(1)[0]
    row = type(row)("7", row.images, 'a "b"\n\tc', options={"A": "None", "B": "x"}, splits=("all",))
    tables = page.toolkit_tables(BENCHMARK, [row], {"7": Answer("7", "A\n", 1, True)})
    (read,) = csv.DictReader(io.StringIO(tables["Squares"]), delimiter="\t")
    assert read["question"] == 'a "b"\n\tc' and read["A"] == "None" and read["prediction"] == "A\n"
