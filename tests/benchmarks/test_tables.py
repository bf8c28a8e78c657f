"""VLMEvalKit's tables: every cell as text, pictures wherever the format lets them be."""

import base64
import csv
import json
import zipfile

import numpy as np
import pytest
from etils import epath

from dig_jax.benchmarks import opening, registry, results, tables, xlsx
from dig_jax.benchmarks.row import pixels
from tests.helpers.drawn_pairs import png


def picture(shade: int, size: int = 4) -> str:
    return base64.b64encode(png(np.full((size, size, 3), shade, np.uint8))).decode()


def noise(seed: int) -> str:
    """A picture that no format makes small: its cell is longer than Python's csv module allows."""
    image = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    return base64.b64encode(png(image)).decode()


def write(path, rows: list[dict]) -> epath.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0], delimiter="\t", quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(rows)
    return epath.Path(path)


def shades(rows) -> list[list[int]]:
    return [[int(pixels(each)[0, 0, 0]) for each in row.images] for row in rows]


def test_option_texts_that_pandas_takes_for_missing_are_options(tmp_path):
    texts = {"A": "None", "B": "NA", "C": "N/A", "D": "null", "E": "1", "F": ""}
    row = {
        "index": "1",
        "image": picture(1),
        "question": 'a "b"\nc\td',
        **texts,
        "answer": "A",
        "split": "dev",
    }
    (found,) = tables.read_questions(write(tmp_path / "T.tsv", [row]), "T")
    assert found.options == {letter: text for letter, text in texts.items() if text}
    assert found.question == row["question"] and found.fields == {"split": "dev"}


def test_pictures_stay_in_the_file_however_large_and_are_read_as_they_are(tmp_path):
    rows = [{"index": str(n), "image": noise(n), "question": "?\nand?"} for n in range(3)]
    assert len(rows[0]["image"]) > 131_072
    found = tables.read_questions(write(tmp_path / "T.tsv", rows), "T")
    for row, own in zip(rows, found, strict=True):
        assert own.images[0].read() == base64.b64decode(row["image"])
    assert len({own.images[0].key for own in found}) == 3
    assert pixels(found[2].images[0]).shape == (256, 256, 3)


def test_a_picture_may_be_in_another_row_in_a_list_or_a_file(tmp_path):
    rows = [
        {"index": "5", "image": "7", "image_path": ""},
        {"index": "7", "image": picture(1), "image_path": "x.png"},
        {"index": "8", "image": str([picture(2), picture(3)]), "image_path": ""},
        {"index": "9", "image": "", "image_path": "a.png"},
        {"index": "10", "image": "", "image_path": "['a.png', 'b.png']"},
        {"index": "11", "image": "", "image_path": ""},  # a question without a picture is left out
        {"index": "12", "image": picture(1), "image_path": ""},
    ]
    path = write(tmp_path / "T.tsv", rows)
    for shade, name in enumerate("ab", start=4):
        (tmp_path / "images" / "T").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "T" / f"{name}.png").write_bytes(base64.b64decode(picture(shade)))
    found = tables.read_questions(path, "T")
    assert [row.index for row in found] == ["5", "7", "8", "9", "10", "12"]
    assert shades(found) == [[1], [1], [2, 3], [4], [4, 5], [1]]
    assert found[0].images[0].key == found[1].images[0].key == found[5].images[0].key


def test_without_columns_of_pictures_no_row_is_left_out(tmp_path):
    path = write(tmp_path / "T.tsv", [{"index": "1", "question": "?"}, {"index": "2", "question": "!"}])
    assert [row.images for row in tables.read_questions(path, "T")] == [(), ()]


def test_a_row_that_holds_the_picture_is_found_by_its_number(tmp_path):
    table = write(tmp_path / "T.tsv", [{"index": "1.0", "image": picture(5)}, {"index": "7.0", "image": "1"}])
    rows = tables.read_questions(table, "T")
    assert [row.index for row in rows] == ["1", "7"] and shades(rows) == [[5], [5]]


def test_indices_are_whole_numbers_only_where_all_are():
    assert tables.whole_numbers(["1", "07", "8.0"]) == ["1", "7", "8"]
    assert tables.whole_numbers(["1", "07", "x"]) == ["1", "07", "x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("question\n?\n", "no column index"),
        ("index\tindex\n1\t2\n", "a column is there twice"),
        ("index\tquestion\n1\t?\n1\t?\n", "line 3: index 1 is there already"),
        ("index\tquestion\n1\n", "line 2: 1 cells, and the first line names 2"),
        ("index\timage\n1\t9\n", "line 2: image is '9', neither a picture nor a row that has one"),
        ("index\timage\n1\t2\n2\t1\n", "neither a picture nor a row"),
        ("index\timage\n1\t[" + "x" * 80 + "\n", "line 2: expected a list of texts"),
        ("index\timage_path\n1\t[3]\n", "line 2: expected a list of texts"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_tables_of_another_form_are_refused_by_line(tmp_path, text, message):
    (tmp_path / "T.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        tables.read_questions(epath.Path(tmp_path / "T.tsv"), "T")


def test_damaged_pictures_name_table_and_row(tmp_path):
    rows = [{"index": "a1", "image": "!" * 99 + "A"}, {"index": "a2", "image": noise(0)[:2000]}]
    found = tables.read_questions(write(tmp_path / "T.tsv", rows), "T")
    with pytest.raises(ValueError, match="T.tsv, picture of index a1"):
        pixels(found[0].images[0])
    with pytest.raises(ValueError, match="T.tsv, picture of index a2"):
        pixels(found[1].images[0])


@pytest.mark.parametrize("end", ["tsv", "csv", "jsonl", "json"])
def test_predictions_are_read_from_all_kinds_of_files(tmp_path, end):
    path = epath.Path(tmp_path / f"p.{end}")
    rows = [{"index": "1", "prediction": ""}, {"index": "2", "prediction": 'None, "x"\n\t<think>'}]
    if end in ("tsv", "csv"):
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, rows[0], delimiter="\t" if end == "tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text(json.dumps(rows) if end == "json" else "\n".join(map(json.dumps, rows)))
    assert [(each.index, each.text) for each in results.read(path)] == [
        (row["index"], row["prediction"]) for row in rows
    ]


def test_files_of_another_kind_are_refused(tmp_path):
    for name, message in (("p.pkl", "expected a file that ends with"), ("p.xlsx", "no .xlsx file")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ValueError, match=message):
            results.read(epath.Path(tmp_path / name))
    with pytest.raises(FileNotFoundError, match="no predictions at"):
        results.read(epath.Path(tmp_path / "none.tsv"))
    (tmp_path / "p.json").write_text('{"index": {"0": 1}}')
    with pytest.raises(ValueError, match="expected a list of objects"):
        results.read(epath.Path(tmp_path / "p.json"))


SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    '<row><c r="A1" t="inlineStr"><is><t>index</t></is></c><c r="B1" t="s"><v>0</v></c></row>'
    '<row><c r="A2"><v>7</v></c>'
    '<c r="B2" t="inlineStr"><is><r><t>a_x000A_</t></r><r><t>b</t></r></is></c></row>'
    '<row><c r="A3"><v>8</v></c></row></sheetData></worksheet>'
)
STRINGS = (
    '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>prediction</t></si></sst>'
)


def test_excel_cells_may_be_shared_rich_missing_or_escaped_and_entities_are_refused(tmp_path):
    path = epath.Path(tmp_path / "p.xlsx")
    for sheet in (SHEET, "<!DOCTYPE x [<!ENTITY a 'b'>]>" + SHEET):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("xl/worksheets/sheet1.xml", sheet)
            file.writestr("xl/sharedStrings.xml", STRINGS)
        if sheet is SHEET:
            read = list(xlsx.read_cells(path))
            assert read == [{"index": "7", "prediction": "a\nb"}, {"index": "8", "prediction": ""}]
    with pytest.raises(ValueError, match="declares a document type"):
        list(xlsx.read_cells(path))


def test_a_benchmark_is_opened_from_its_table_or_its_release_and_says_what_is_missing(tmp_path):
    row = {"index": "1", "image": picture(1), "question": "?", "A": "x", "B": "y", "answer": "b"}
    write(tmp_path / "LMUData" / "MMStar.tsv", [row])
    found = opening.open_rows(registry.benchmark("mmstar"), tmp_path)
    assert found.rows[0].answer == "B" and found.rows[0].splits == ("val",)
    assert found.places == {"val": str(tmp_path / "LMUData" / "MMStar.tsv")}
    parts = registry.benchmark("mmstar").completeness(found.rows, found.splits)
    assert [str(part) for part in parts] == ["partial 1/1500"]
    with pytest.raises(FileNotFoundError, match=r"CV-Bench.*nor is there a table CV-Bench-2D.tsv"):
        opening.open_rows(registry.benchmark("cvbench"), tmp_path)
    with pytest.raises(FileNotFoundError, match="MMBench.*MMBench_DEV_EN.tsv"):
        opening.open_rows(registry.benchmark("mmbench"), tmp_path)
    with pytest.raises(ValueError, match="has no split test; it has val"):
        opening.open_rows(registry.benchmark("mmstar"), tmp_path, ("test",))


def test_rows_of_two_tables_that_are_numbered_alike_are_told_apart(tmp_path):
    cells = {"index": "1", "image": picture(1), "question": "?", "A": "x", "B": "y", "answer": "B"}
    for half in ("2D", "3D"):
        row = {**cells, "source": "COCO", "category": "Count", "split": half}
        write(tmp_path / f"CV-Bench-{half}.tsv", [row])
    found = opening.open_rows(registry.benchmark("cvbench"), tmp_path)
    assert [row.index for row in found.rows] == ["2D-1", "3D-1"]
    only = opening.open_rows(registry.benchmark("cvbench"), tmp_path, ("3D",))
    assert [row.index for row in only.rows] == ["1"]


def test_a_release_is_opened_where_there_is_no_table(release):
    found = opening.open_rows(registry.benchmark("pope"), release)
    assert len(found.rows) == 72 and set(found.places.values()) == {str(release)}
    only = opening.open_rows(registry.benchmark("hallusionbench"), release)
    assert all(row.images for row in only.rows) and len(only.rows) == 44
    texts = opening.open_rows(registry.benchmark("hallusionbench"), release, ("text",))
    assert not any(row.images for row in texts.rows) and len(texts.rows) == 12
