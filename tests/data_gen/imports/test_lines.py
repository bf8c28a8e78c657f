"""JSON lines: what a line may hold, and what is said of one that holds something else."""

import json

import pytest

from data_gen.import_pairs import main
from data_gen.imports.entry import Source
from data_gen.imports.lines import KEYS
from data_gen.imports.pairsfile import read
from data_gen.imports.report import Report
from tests.data_gen.imports.conftest import BOX, line, write_lines


def report_of(folder, *lines, units="pixels"):
    report = Report()
    entries = read(write_lines(folder, *lines), Source(folder, units), report)
    return entries, report


MISTAKES = [
    (line(id=...), "id is missing"),
    (line(id=""), "id: expected a text, got ''"),
    (line(id=True), "id: expected a text, got True"),
    (line(id=1.5), "id: expected a text, got 1.5"),
    (line(id="x" * 300), "id: expected at most 200 characters"),
    (line(id="a\nb"), "no control characters"),
    (line(image_b=...), "image_b is missing"),
    (line(image_a=7), "image_a: expected a text, got 7"),
    (line(image_a="a\0.png"), "no control characters"),
    (
        line(boxes=...),
        "expected boxes, or boxes_a and boxes_b (both [] for equal pictures), got none of them",
    ),
    (line(boxes=None), "got none of them"),
    (line(boxes_a=[BOX]), "got boxes and boxes_a"),
    (line(boxes=..., boxes_b=[BOX]), "got boxes_b"),
    (
        line(boxes=BOX),
        "boxes: expected a list of boxes [x0, y0, x1, y1], got one box without its own brackets",
    ),
    (line(boxes="[]"), "boxes: expected a list of boxes"),
    (line(boxes={"0": BOX}), "boxes: expected a list of boxes"),
    (line(boxes=[None]), "boxes[0]: expected"),
    (line(boxes=[[1, 2, 3, "4"]]), "boxes[0]: expected"),
    (line(boxes=[[1, 2, 3, True]]), "boxes[0]: expected"),
    (line(boxes=[[1, 2, 3, float("nan")]]), "boxes[0]: expected"),
    (
        '{"id": "one", "image_a": "a.png", "image_b": "b.png", "boxes": [[1, 2, 3, 1e999]]}',
        "boxes[0]: expected",
    ),
    (line(boxes=[[1, 2, 3, 10**400]]), "boxes[0]: expected"),
    (line(boxes=..., boxes_a=[BOX], boxes_b=[]), "boxes_a has 1 boxes and boxes_b 0"),
    (line(boxes=..., boxes_a=[None], boxes_b=[None]), "boxes_a[0] and boxes_b[0] are both null"),
    (line(kinds=["a", "b"]), "kinds: expected one for each of the 1 boxes, got 2"),
    (line(kinds="add"), "kinds: expected a list of texts"),
    (line(kinds=[3]), "kinds[0]: expected a text, got 3"),
    (line(descriptions=["\ud800"]), "descriptions[0]: expected at most 2000 characters and no control"),
    (line(split="val"), "split: expected train or test, got 'val'"),
    (line(box_units="px"), "box_units: expected pixels or unit or thousandths, got 'px'"),
    (line(box_units=[]), "box_units: expected"),
    (line(group={}), "group: expected a text, got {}"),
    (line(width=40), "height: expected a number of pixels, got None"),
    (line(width=-1, height=20), "width: expected a number of pixels, got -1"),
    (line(boxs=[]), "unknown field 'boxs': is it boxes?"),
    (line(Kinds=["add"]), "unknown field 'Kinds': is it kinds?"),
    (line(box=BOX), "unknown field 'box': is it boxes?"),
    (line(descripton=[]), "unknown field 'descripton': is it descriptions?"),
    ("[]", 'expected an object {"id": ..., ...} on every line, got []'),
    ("null", "expected an object"),
    ("{'id': 1}", "not JSON"),
    ('{"id": 1, "id": 2}', "the key 'id' is given twice"),
    ("[" * 5000, "nested too deep"),
    ('{"id": ' + "9" * 5000 + "}", "a number has more than 4300 digits"),
]


@pytest.mark.parametrize(("bad", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_a_mistake_is_named_with_file_and_line(bad, message, folder):
    _, report = report_of(folder, line(id="first"), "", bad)
    lines = report.problem_lines()
    assert all(text.startswith(f"{folder / 'pairs.jsonl'}:3: ") for text in lines)
    assert any(message in text for text in lines) and max(map(len, lines)) < 400


ODD = (None, True, 1.0, -1, 10**400, "", "1", [], [[1]], {"a": 1}, "\ud800", float("nan"))


@pytest.mark.parametrize("key", KEYS)
def test_an_odd_value_of_any_field_is_taken_or_named(key, folder, capsys):
    for odd in ODD:
        pairs = write_lines(folder, line(**{key: odd}))
        assert main([f"--pairs={pairs}", "--check"]) in (0, 1)
        assert "Traceback" not in capsys.readouterr().err


def test_a_file_as_windows_writes_it_is_read(folder):
    text = json.dumps(line(image_a="b\u00e4r.png"), ensure_ascii=False)
    (folder / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + f"\r\n{text}\r\n\r\n".encode())
    report = Report()
    (entry,) = read(folder / "pairs.jsonl", Source(folder), report)
    assert entry.paths[0].name == "b\u00e4r.png" and not report.problems
    assert entry.place.name.endswith("pairs.jsonl:2")


def test_fields_that_nobody_knows_are_noted_once_for_all_lines(folder):
    _, report = report_of(folder, line(weight=1), line(id="two", weight=3))
    where = folder / "pairs.jsonl"
    assert report.note_lines() == [f"field 'weight' is not used: 2 times, first {where}:1"]


def test_ids_have_no_blanks_around_them(folder):
    (entry,), _ = report_of(folder, line(id=" a b "))
    assert entry.id == "a b"


def test_a_line_with_a_mistake_is_still_looked_at(folder):
    """Its pictures may be missing, too, and the user shall hear of it now."""
    (entry,), report = report_of(folder, line(kinds=7))
    assert entry.boxes == () and len(report.problems) == 1


def test_what_a_file_holds_counts_and_not_how_it_is_called(folder):
    one = {"id": 5, "image_a": "a.png", "image_b": "b.png"}
    (folder / "x.jsonl").write_text(json.dumps({"images": [one], "annotations": []}, indent=1))
    (folder / "y.json").write_text(json.dumps(line()))
    found = [read(folder / name, Source(folder), Report()) for name in ("x.jsonl", "y.json")]
    assert [entry.id for (entry,) in found] == ["5", "one"]


@pytest.mark.parametrize("text", ["", "\n\n", "[1, 2]", "{\n", '{"images": []}', '{"images": 5}', "nonsense"])
def test_a_file_that_holds_no_pairs_is_refused(text, folder):
    (folder / "pairs.json").write_text(text)
    with pytest.raises(ValueError, match=r"pairs\.json"):
        read(folder / "pairs.json", Source(folder), Report())
