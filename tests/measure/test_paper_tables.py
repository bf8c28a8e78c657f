"""The shapes of the paper's tables: columns, means of whole rows alone, differences of ablations."""

import json

from dig_jax.measure import paper_tables
from dig_jax.measure.paper_tables import TABLES, table

EIGHT = [89.16, 92.24, 85.38, 81.70, 87.16, 75.09, 83.27, 84.08]  # of the paper's 3B
NAMES = [name for name in TABLES[1] if name != "Avg"]
THREE_B = {
    "refcoco": {
        f"{name.replace(' ', '_')}/Precision@1": value for name, value in zip(NAMES, EIGHT, strict=True)
    }
}


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_table_1_has_eight_columns_and_the_papers_mean():
    heads, _, row = cells(table(1, {"3B": THREE_B}))
    assert heads[1:4] == ["RefCOCO val", "RefCOCO testA", "RefCOCO testB"] and len(heads) == 10
    assert row == ["3B", *(f"{value:.2f}" for value in EIGHT), "84.76"]


def test_a_mean_with_a_hole_is_none():
    part = {"refcoco": {"RefCOCO_val/Precision@1": 80.0}}
    assert cells(table(1, {"part": part}))[2] == ["part", "80.00", *["-"] * 8]


def test_scenes_stand_in_the_same_columns_where_there_are_no_photographs():
    scenes = {"align_phrases": {"ref_val/Precision@1": 10.0, "refg_test/Precision@1": 30.0}}
    row = cells(table(8, {"scenes": scenes}))[2]
    assert (row[1], row[8], row[9]) == ("10.00", "30.00", "-")


def test_ablations_show_differences_to_the_first():
    heads, _, without, with_them = cells(table(4, {"without": THREE_B, "with": THREE_B}))
    assert heads == ["model", "RefCOCO", "RefCOCO+", "RefCOCOg"]
    assert without[1:] == ["88.93", "81.32", "83.67"] and with_them[1] == "88.93 (+0.00)"


def test_pope_and_understanding_have_the_papers_scale():
    scores = {
        "pope": {"random/acc": 89.9, "random/Overall": 89.5, "random/yes_ratio": 43.1, "mean_f1": 87.9},
        "mmbench": {"Overall": 0.664},
    }
    assert cells(table(3, {"3B": scores}))[2][:5] == ["3B", "89.90", "89.50", "43.10", "-"]
    heads, _, row = cells(table(2, {"3B": scores}))
    assert dict(zip(heads, row, strict=True)) == {
        **{"model": "3B", "VQAv2": "-", "GQA": "-", "SQA-I": "-", "POPE": "87.90", "MME-P": "-"},
        **{"MMB": "66.40", "LLaVA-W": "-"},
    }


def test_the_command_prints_tables_of_folders_and_says_what_is_none(tmp_path, capsys):
    (tmp_path / "results.json").write_text(
        json.dumps({"benchmarks": {"refcoco": {"scores": THREE_B["refcoco"]}}})
    )
    out = tmp_path / "tables.md"
    assert paper_tables.main(["--table=1", f"--out={out}", f"3B={tmp_path}"]) == 0
    assert "84.76" in capsys.readouterr().out and "84.76" in out.read_text()
    assert paper_tables.main([f"3B={tmp_path / 'nowhere'}"]) == 2
    assert "holds no results.json" in capsys.readouterr().err
