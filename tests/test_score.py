"""The score command: from a predictions file and a dataset to figures, without a model."""

import json
import sys

import pytest

from dig_jax import score
from tests.data.drawn_pairs import draw_pair, write_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pairs = [draw_pair(index, num_differences=index % 3) for index in range(6)]  # M = 0, 1, 2, 0, 1, 2
    write_pairs(folder, {"test": pairs, "train": pairs[:1]})
    return folder, pairs


def perfect(pair, thought: str = "") -> dict:
    # Boxes of 128-pixel images are not whole thousandths; decimals are allowed.
    return {"id": pair.id, "text": thought + json.dumps((pair.boxes.astype(float) * 1000).tolist())}


def run(monkeypatch, tmp_path, data, predictions, *flags: str) -> int:
    """Runs the command; returns its exit code."""
    file = tmp_path / "predictions.jsonl"
    if isinstance(predictions, list):
        predictions = "".join(json.dumps(line) + "\n" for line in predictions)
    file.write_text(predictions)
    monkeypatch.setattr(sys, "argv", ["score", f"--predictions={file}", f"--data={data[0]}", *flags])
    try:
        score.main()
    except SystemExit as end:
        return end.code
    return 0


def test_it_prints_a_line_per_answer_and_a_summary(monkeypatch, tmp_path, capsys, data):
    pairs = data[1]
    answers = [*map(perfect, pairs[:3]), {"id": pairs[4].id, "text": "no idea"}, perfect(pairs[2])]
    assert run(monkeypatch, tmp_path, data, answers) == 0
    *lines, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["id"] for line in lines] == [answer["id"] for answer in answers]
    assert [round(line["reward"], 3) for line in lines] == [1, 1, 1, 0, 1]
    assert [line["reason"] for line in lines] == ["valid"] * 3 + ["no_box", "valid"]
    assert lines[1]["boxes"][0] == pytest.approx(pairs[1].boxes[0].tolist())
    summary = last["summary"]
    assert (summary["num_answers"], summary["num_pairs"], summary["num_pairs_without_answer"]) == (5, 6, 2)
    assert summary["f1"] == pytest.approx(0.8) and summary["answer/no_box"] == pytest.approx(0.2)


def test_out_receives_every_line_and_the_terminal_the_summary(monkeypatch, tmp_path, capsys, data):
    out = tmp_path / "scores.jsonl"
    assert run(monkeypatch, tmp_path, data, [perfect(pair) for pair in data[1]], f"--out={out}") == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 7
    assert [lines[-1]] == [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(("flag", "reward"), [("auto", 0.5), ("yes", 0.5), ("no", 0.95)])
def test_answers_follow_the_thought_if_any_text_has_one(monkeypatch, tmp_path, capsys, data, flag, reward):
    # The second answer was cut off before </think>; without thinking, the first is a list after prose.
    answers = [perfect(data[1][1], thought="I see.</think>"), perfect(data[1][2])]
    assert run(monkeypatch, tmp_path, data, answers, f"--thinking={flag}") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert summary["reward"] == pytest.approx(reward, abs=1e-4)


def test_a_config_file_changes_the_reward(monkeypatch, tmp_path, capsys, data):
    config = tmp_path / "strict.py"
    config.write_text(
        "from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n"
        "    config.reward.format_weight = 1.0\n    return config\n"
    )
    answers = [{"id": data[1][1].id, "text": "[]"}]
    assert run(monkeypatch, tmp_path, data, answers, f"--config={config}") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["reward"] == 1


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ("", "holds no predictions"),
        ('{"id": "a", "text": "[]"}\n\n[1]\n', "line 3: expected"),
        ('{"id": "a"}\n', "line 1: expected"),
        ('{"id": 3, "text": "[]"}\n', "line 1: expected"),
        ("{broken\n", "line 1: expected"),
        ('{"id": "nowhere", "text": "[]"}\n', "1 of 1 predictions; the first is 'nowhere'"),
    ],
)
def test_a_wrong_predictions_file_is_named(monkeypatch, tmp_path, capsys, data, predictions, message):
    assert run(monkeypatch, tmp_path, data, predictions) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_or_split_is_named(monkeypatch, tmp_path, capsys, data):
    assert run(monkeypatch, tmp_path, data, [perfect(data[1][0])], "--predictions=nowhere.jsonl") == 2
    assert "no predictions at nowhere.jsonl" in capsys.readouterr().err
    assert run(monkeypatch, tmp_path, data, [perfect(data[1][0])], "--split=validation") == 2
    assert "validation" in capsys.readouterr().err
