"""Sets about changes, from their files to their scores."""

import json

import pytest
from etils import epath

from dig_jax.benchmarks import registry
from dig_jax.benchmarks.opening import open_rows
from dig_jax.benchmarks.row import Reader
from dig_jax.tasks.boxes.text import BoxFormat
from tests.helpers.paths import ASSETS

SPLITS = {"test": (), "train": ("train",)}  # as named, the first by default
BOXES = BoxFormat("thousandths", 1, lambda size: size)


def test_mig_bench_scores_as_the_golden_answers_do(release, expected):
    mig = registry.benchmark("mig_bench")
    rows = open_rows(mig, epath.Path(release), ["diff"]).rows
    cases = expected["MIG-Bench"]["cases"]
    texts = [
        json.loads(line)["answer"]
        for line in (release / "MIG-Bench" / "predictions.jsonl").read_text().splitlines()
    ]
    marks = [mig.mark(row, text, Reader()) for row, text in zip(rows, texts, strict=True)]
    assert [mark.values["iou"] for mark in marks] == pytest.approx(
        [case["ours_iou"] for case in cases], abs=1e-6
    )
    assert [mark.unparsed for mark in marks] == [case["ours"] is None for case in cases]
    ours = expected["MIG-Bench"]["scores"]["ours"]
    assert mig.aggregate(rows, marks) == {
        f"diff/{name}": pytest.approx(value, abs=1e-6) for name, value in ours.items()
    }
    assert str(mig.completeness(rows, ["diff"])[0]) == "partial 60/528"


def test_mig_bench_asks_its_own_question_and_how_boxes_are_written(release):
    mig = registry.benchmark("mig_bench")
    row = open_rows(mig, epath.Path(release), ["diff"]).rows[0]
    first, second, text = mig.ask(row, ((12, 12), (12, 12)), BOXES).parts
    assert (first, second) == (0, 1) and text.startswith(row.question) and "0 to 1000" in text


def test_pairs_are_asked_as_in_training_and_scored_by_found_boxes(release):
    virat = registry.benchmark("virat_std")
    rows = open_rows(virat, epath.Path(release)).rows
    assert "Find every difference" in virat.ask(rows[0], ((12, 12), (12, 12)), BOXES).parts[2]
    assert len(rows) == 4 and "outside their pictures" in virat.faults(rows)[0]
    assert [str(found) for found in virat.completeness(rows)] == ["4"]  # nobody says how many there are
    marks = [virat.mark(row, "[]", Reader()) for row in rows]
    assert virat.aggregate(rows, marks)[virat.headline] == 0


def test_own_pairs_are_of_the_split_that_is_named():
    own = registry.benchmark("own_pairs")
    found = {split: open_rows(own, ASSETS / "sample_pairs", splits).rows for split, splits in SPLITS.items()}
    assert len(found["test"]) == 4 and len(found["train"]) == 12
    with pytest.raises(ValueError, match="own_pairs has no split val; it has test, train"):
        open_rows(own, ASSETS / "sample_pairs", ["val"])
