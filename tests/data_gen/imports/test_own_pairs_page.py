"""docs/own_pairs.md: its examples are read, and it names every field and flag there is."""

import json
import re

import pytest

from data_gen.import_pairs import parse_arguments
from data_gen.imports.entry import Source
from data_gen.imports.lines import KEYS
from data_gen.imports.pairsfile import read
from data_gen.imports.report import Report
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "own_pairs.md").read_text()
LINES, COCO = re.findall(r"```json\n(.*?)```", PAGE, re.S)


def test_the_json_lines_of_the_page_are_read(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(re.sub(r"\n (?=\")", " ", LINES))  # the third is broken over lines
    report = Report()
    entries = read(path, Source(tmp_path), report)
    assert [len(entry.boxes) for entry in entries] == [1, 0, 2]
    assert entries[2].kinds == ("move", "add") and entries[2].boxes[1][0] is None
    assert not report.problems and not report.notes


def test_the_coco_file_of_the_page_is_read(tmp_path):
    (tmp_path / "pairs.json").write_text(json.dumps(json.loads(COCO)))
    report = Report()
    entries = read(tmp_path / "pairs.json", Source(tmp_path, folders=("A", "B")), report)
    names = [[str(path.relative_to(tmp_path)) for path in entry.paths] for entry in entries]
    assert names == [[f"A/{number}.png", f"B/{number}.png"] for number in (7, 8, 9)]
    assert [entry.kinds for entry in entries] == [("building",), ("change",), ()] and not report.problems


def test_every_field_and_flag_is_on_the_page(capsys):
    assert {key for key in KEYS if f"`{key}`" not in PAGE} == set()
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    flags = set(re.findall(r"--[a-z_]+", capsys.readouterr().out)) - {"--help"}
    assert {flag for flag in flags if flag not in PAGE} == set()
