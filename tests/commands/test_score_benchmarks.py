"""`python -m dig_jax.score --benchmark=...`: result tables of VLMEvalKit, without a model."""

import json
import shutil

import pytest

from dig_jax import score
from tests.helpers.paths import ROOT

GOLDEN = ROOT / "tests/benchmarks/golden/vlmevalkit"


def predictions(name: str) -> str:
    return str(GOLDEN / "predictions" / f"golden_{name}.tsv")


def scored(tmp_path, name: str, *flags: str, of: str = "") -> dict:
    out = tmp_path / "score.json"
    score.main([f"--benchmark={name}", f"--predictions={of or predictions(name)}", f"--out={out}", *flags])
    return json.loads(out.read_text())


def refused(capsys, *flags: str) -> str:
    with pytest.raises(SystemExit) as exit:
        score.main([*flags])
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_a_result_table_is_scored_in_our_way_or_in_the_toolkits(tmp_path, capsys):
    expected = json.loads((GOLDEN / "expected" / "MMBench_DEV_EN.json").read_text())
    for flags, whose in (((), "ours"), (("--compat=vlmevalkit",), "toolkit")):
        found = scored(tmp_path, "mmbench_dev_en", *flags, of=predictions("MMBench_DEV_EN"))
        right = expected["our_scores" if whose == "ours" else "toolkit_scores"][0]
        assert found["scores"]["AR"] == pytest.approx(right["AR"], abs=1e-6)
        assert found["headline"]["value"] == found["scores"]["Overall"]
        assert [row["answer"] for row in found["rows"]] == [case[whose] for case in expected["cases"]]
        assert [row["hit"] for row in found["rows"]] == [case[f"{whose}_hit"] for case in expected["cases"]]
        assert found["unparsed"] == expected[f"unparsed_{whose}"]
    assert found["completeness"] == {"dev": "partial 78/4329"}
    assert list(found["baselines"]) == ["majority answer (A)", "random choice"]
    shown = capsys.readouterr()
    assert "partial 78/4329" in shown.err and "rows" not in json.loads(shown.out.split("\n")[0])


def test_there_is_no_headline_where_a_rotation_is_missing(tmp_path, capsys):
    path = tmp_path / "golden_MMBench_DEV_EN.tsv"
    lines = (GOLDEN / "predictions/golden_MMBench_DEV_EN.tsv").read_text().split("\n")
    path.write_text("\n".join(line for line in lines if not line.startswith('"1000001"')))
    found = scored(tmp_path, "MMBench_DEV_EN", of=str(path))
    assert found["headline"]["value"] is None and list(found["scores"]) == ["vanilla"]
    assert "1 of 26 questions lack all its rotations, the first is question 1" in capsys.readouterr().err
    assert scored(tmp_path, "MMBench_DEV_EN", "--compat=vlmevalkit", of=str(path))["headline"]["value"] > 0


def test_scoring_again_after_an_answer_changed_gives_another_score(tmp_path):
    path = tmp_path / "golden_MMStar.tsv"
    shutil.copyfile(predictions("MMStar"), path)
    first = scored(tmp_path, "MMStar", of=str(path))
    lines = path.read_text().split("\n")
    row = next(number for number, line in enumerate(lines) if line.endswith('"d"'))
    lines[row] = lines[row].removesuffix('"d"') + '"a"'
    path.write_text("\n".join(lines))
    second = scored(tmp_path, "MMStar", of=str(path))
    assert second["scores"]["Overall"] == pytest.approx(first["scores"]["Overall"] - 1 / 60)


def test_index_and_prediction_are_enough_beside_the_question_table(tmp_path):
    cells = [json.dumps({"index": f"RefCOCO_val_{n}", "prediction": "[0, 0, 1, 1]"}) for n in range(15)]
    rows = (GOLDEN / "LMUData/RefCOCO.tsv").read_text().split("\n")
    questions, own = tmp_path / "RefCOCO.tsv", tmp_path / "own.jsonl"
    questions.write_text("\n".join([rows[0], *(row for row in rows[1:] if '"RefCOCO val"' in row)]) + "\n")
    indices = [row.split("\t")[0].strip('"') for row in questions.read_text().split("\n")[1:] if row]
    own.write_text("\n".join(json.dumps({"index": n, "prediction": "[0, 0, 1, 1]"}) for n in indices))
    found = scored(tmp_path, "RefCOCO", f"--questions={questions}", of=str(own))
    assert found["scores"]["RefCOCO_val/Precision@1"] == 0 and len(found["rows"]) == len(indices) == len(
        cells
    )
    own.write_text("\n".join(own.read_text().split("\n")[:-1]))
    with pytest.raises(SystemExit):
        scored(tmp_path, "RefCOCO", f"--questions={questions}", of=str(own))


def test_a_model_that_opens_its_thoughts_is_told_of(tmp_path, capsys):
    path = tmp_path / "own.jsonl"
    base = {"question": "?", "A": "red", "B": "blue", "answer": "B"}
    texts = ["so B</think>B", "B or A, let me see. B"]
    lines = [{"index": n, **base, "prediction": text} for n, text in enumerate(texts)]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = scored(tmp_path, "MMStar", of=str(path))
    assert found["cut_off"] == 0 and "say --thinking=yes" in capsys.readouterr().err
    assert scored(tmp_path, "MMStar", "--thinking=yes", of=str(path))["cut_off"] == 1


def test_labels_known_to_be_wrong_are_put_right_on_demand_and_named(tmp_path, capsys):
    path = tmp_path / "own.jsonl"
    base = {"question": "?", "A": "red", "B": "blue"}
    lines = [{"index": n, **base, "answer": "AB"[n == 100], "prediction": "BA"[n == 100]} for n in (99, 100)]
    write(path, lines)
    assert scored(tmp_path, "MMVP", of=str(path))["scores"] == {"Overall": 0, "Average": 0}
    found = scored(tmp_path, "MMVP", "--repair_labels", of=str(path))
    assert found["scores"] == {"Overall": 1, "Average": 1} and len(found["warnings"]) == 2
    assert "MMVP 99: the published label A is wrong" in capsys.readouterr().err
    own = f"--predictions={predictions('MMStar')}"
    assert "no label of MMStar is known" in refused(capsys, "--benchmark=MMStar", own, "--repair_labels")


def write(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)))
    return f"--predictions={path}"


ROW = {"index": 1, "A": "red", "B": "blue", "answer": "B", "prediction": "B"}


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("MMStar", [], "holds no predictions"),
        ("MMStar", [{"prediction": "B"}], "no column index"),
        ("MMStar", [{"index": 1}], "no column prediction"),
        ("MMStar", [ROW, ROW], "index 1 is there twice"),
        ("MMStar", [{**ROW, "index": ""}], "has no index"),
        ("MMStar", [{"index": 1, "prediction": "B"}], "lacks the columns answer, A, B"),
        ("MMStar", [{**ROW, "answer": "C"}], "expected the letter of an option"),
        ("POPE", [ROW], "answer is 'B'; expected Yes or No"),
        ("POPE", [{**ROW, "answer": "yes"}], "nothing in the column category"),
        ("POPE", [{**ROW, "answer": "yes", "category": "OCR"}], "OCR is none of random, popular"),
        ("MME", [{**ROW, "answer": "yes", "category": "math"}], "category is 'math'"),
        ("MMBench_DEV_EN", [{**ROW, "index": "x"}], "expected a whole number"),
        ("RefCOCO", [ROW], "lacks the columns category, width, height"),
        ("HallusionBench", [{**ROW, "answer": "No"}], "expected CATEGORY_SUBCATEGORY"),
        ("CV-Bench-2D", [ROW], "nothing in the column source"),
        ("MMBench", [ROW], "has the tables MMBench_DEV_EN, MMBench_DEV_EN_V11"),
        ("MMSter", [ROW], "no benchmark 'MMSter'; tables are RefCOCO"),
    ],
)
def test_predictions_that_cannot_be_of_the_benchmark_are_refused(tmp_path, capsys, name, lines, message):
    flags = f"--benchmark={name}", write(tmp_path / "own.jsonl", lines), f"--out={tmp_path / 'score.json'}"
    assert message in refused(capsys, *flags)
    assert not (tmp_path / "score.json").exists()


def test_predictions_of_other_questions_are_refused(tmp_path, capsys):
    other = f"--predictions={predictions('AI2D_TEST')}"
    assert "is a result table of AI2D_TEST by its name" in refused(capsys, "--benchmark=MMStar", other)
    flags = "--benchmark=MMStar", f"--questions={GOLDEN / 'LMUData/MMStar.tsv'}"
    shutil.copyfile(predictions("AI2D_TEST"), tmp_path / "own.tsv")
    assert "they are not of the same table" in refused(
        capsys, *flags, f"--predictions={tmp_path / 'own.tsv'}"
    )
    lines = write(tmp_path / "own.jsonl", [{**ROW, "index": 999}])
    assert "1 of 1 predictions have an index that" in refused(capsys, *flags, lines)
    lines = write(tmp_path / "own.jsonl", [{"index": 1, "prediction": "B"}])
    assert "59 of 60 questions have no prediction; the first is '2'" in refused(capsys, *flags, lines)


def test_flags_that_do_not_belong_together_are_refused(capsys):
    own = f"--predictions={predictions('MMStar')}"
    assert "--data is for" in refused(capsys, "--benchmark=MMStar", own, "--data=x")
    assert "--compat is for" in refused(capsys, own, "--data=x", "--compat=vlmevalkit")
    flags = "--benchmark=MMStar", own, "--compat=vlmevalkit", "--thinking=yes"
    assert "--compat reads answers as the toolkit does" in refused(capsys, *flags)
    assert "name the data set with --data" in refused(capsys, own)
