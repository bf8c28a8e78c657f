"""Items of aligned records as rows: asked in their own words, crops as pictures, the paper's columns."""

import numpy as np
import pytest

from dig_jax.benchmarks import asking, opening, registry
from dig_jax.benchmarks.row import Reader, Row
from dig_jax.data.example import Object
from dig_jax.tasks.boxes.text import BoxFormat
from dig_jax.tasks.questions import pixels
from tests.helpers import aligned_records
from tests.helpers.aligned_records import item

READER = Reader(box_convention="unit")
UNIT = BoxFormat("unit", 1, lambda size: size)
WHERE = "<image>\nOutput the coordinate of "
WHICH = "<image>\nWhich crop shows it? A: <object> B: <object>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned") / "data"
    items = [
        item("T-C", 0, 0, (f"{WHERE}the cube", "[0.000,0.250,0.500,0.750]"), style="ref", part="val"),
        item("T-C", 0, 0, (f"{WHERE}a cone", "[0.500,0.000,1.000,0.500]"), style="refg", part="testB"),
        item("I-C", 1, 1, (f"{WHERE}this object: <object>", "[0.000,0.000,0.500,0.500]"), part="testA"),
        item("T-I", 1, 2, (WHICH, "B"), style="ref+", part="val"),
        item("exist", 0, 0, ("<image>\nIs there a cone in the image?", "No"), part="val"),
    ]
    for number, each in enumerate(items):
        each["id"] = f"s/{number}"
    aligned_records.write(folder, ["test"], items, [])
    return folder


def opened(name, folder):
    benchmark = registry.benchmark(name)
    return benchmark, opening.open_rows(benchmark, folder).rows


def test_phrases_stand_in_the_columns_of_the_papers_table(folder):
    benchmark, rows = opened("align_phrases", folder)
    assert [row.splits for row in rows] == [("ref_val",), ("refg_test",)]  # RefCOCOg has one test set
    marks = [benchmark.mark(row, "[0.000,0.250,0.500,0.750]", READER) for row in rows]
    scores = benchmark.scores(rows, marks)
    assert (scores["ref_val/Precision@1"], scores["refg_test/Precision@1"]) == (100, 0)
    assert scores["Average/Precision@1"] == 50


def test_a_crop_is_a_picture_of_its_own_and_stands_where_the_question_says(folder):
    benchmark, (row,) = opened("align_crops", folder)
    turn = benchmark.ask(row, [(8, 8), (4, 4)], UNIT)
    assert turn.parts == (0, "\nOutput the coordinate of this object: ", Object(1))
    assert [int(pixels(picture)[0, 0, 0]) for picture in row.images] == [0, 20]
    assert len({picture.key for picture in row.images}) == 2 and row.splits == ("testA",)


def test_boxes_of_a_question_stand_as_the_model_writes_them():
    row = Row("0", (), "<image>\nWhich crop shows [0.000,0.251,0.499,0.752]? A: <object>", size=(8, 8))
    turn = asking.marked(row, [(8, 8), (4, 4)], BoxFormat("unit", 20, lambda size: size))
    assert turn.parts == (0, "\nWhich crop shows [0.000,0.260,0.500,0.760]? A: ", Object(1))


def test_letters_and_words_are_marked_and_chance_stands_beside(folder):
    for name, right, wrong in (("align_choices", "B", "A"), ("align_objects", "No", "Yes")):
        benchmark, rows = opened(name, folder)
        assert [benchmark.mark(rows[0], text, READER).hit for text in (right, wrong)] == [1, 0]
    benchmark, (row,) = opened("align_choices", folder)
    assert row.options == {"A": "crop A", "B": "crop B"} and row.category == "T-I"
    assert benchmark.scores([row], [benchmark.mark(row, "B", READER)]) == {"Overall": 1, "T-I": 1}


def test_boxes_are_shares_of_the_picture_and_not_of_its_square(folder):
    from dig_jax.benchmarks.releases.aligned import _box

    np.testing.assert_allclose(_box("[0.000,0.250,0.500,0.750]", (4, 8)), [0, 0, 0.5, 1])
    with pytest.raises(ValueError, match="and no box"):
        _box("left", (8, 8))


def test_other_records_are_refused(folder, monkeypatch):
    from dig_jax.benchmarks.releases import aligned

    monkeypatch.setattr(aligned, "is_aligned", lambda records: False)
    with pytest.raises(ValueError, match=r"it is not of data_gen\.align"):
        aligned.rows(folder, ("T-C",))
