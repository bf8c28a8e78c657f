"""The score command: from a predictions file and a dataset to figures, without a model."""

import json
import sys

import pytest
from etils import epath

from dig_jax import score
from dig_jax.run.model_folder import copy_model_files
from tests.helpers.drawn_pairs import draw_pair, write_pairs


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
    file.write_text(predictions, encoding="utf-8")
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


THOUGHT = "assumed a model that thinks, as 1 of 2 answers do: the 1 without </think>"


@pytest.mark.parametrize(
    ("flag", "reward", "told"), [("auto", 0.5, THOUGHT), ("yes", 0.5, ""), ("no", 0.95, "")]
)
def test_answers_follow_the_thought_if_any_text_has_one(
    monkeypatch, tmp_path, capsys, data, flag, reward, told
):
    # The second answer was cut off before </think>; without thinking, the first is a list after prose.
    answers = [perfect(data[1][1], thought="I see.</think>"), perfect(data[1][2])]
    assert run(monkeypatch, tmp_path, data, answers, f"--thinking={flag}") == 0
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert summary["reward"] == pytest.approx(reward, abs=1e-4)
    assert told in err and ("assumed" in err) == bool(told)


CUT_OFF = "Maybe [100, 200, 300, 400]? Or [500, 500, 600, 700]? Let me look ag"


def test_prose_without_a_thought_is_scored_with_a_warning_and_plain_lists_without(
    monkeypatch, tmp_path, capsys, data
):
    answers = [perfect(data[1][1]), {"id": data[1][2].id, "text": CUT_OFF}]
    assert run(monkeypatch, tmp_path, data, answers) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["summary"]["thinking"] is False
    assert "assumed a model that does not think" in err and ": 1 of 2 are more or less than a plain" in err
    assert run(monkeypatch, tmp_path, data, answers[:1]) == 0
    assert "assumed" not in capsys.readouterr().err


def test_a_thought_that_was_begun_and_cut_off_earns_nothing(monkeypatch, tmp_path, capsys, data):
    answers = [{"id": data[1][2].id, "text": f"<think>{CUT_OFF}"}]
    assert run(monkeypatch, tmp_path, data, answers) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (line["reason"], line["reward"], line["num_predicted"]) == ("truncated", 0, 0)


def test_the_model_tells_whether_it_thinks(monkeypatch, tmp_path, capsys, data):
    model = tmp_path / "model"
    copy_model_files(epath.Path("assets/quickstart_warmup"), epath.Path(model))
    answers = [{"id": data[1][2].id, "text": CUT_OFF}]
    for thinks in (False, True):
        if thinks:
            template = model / "chat_template.jinja"
            opening = "<|im_start|>assistant\\n"
            assert opening in template.read_text()
            template.write_text(template.read_text().replace(opening, opening + "<think>\\n"))
        assert run(monkeypatch, tmp_path, data, answers, f"--model={model}") == 0
        out, err = capsys.readouterr()
        assert json.loads(out.splitlines()[0])["num_predicted"] == (0 if thinks else 2)
        assert "assumed" not in err
    with pytest.raises(SystemExit):
        score.main(["--predictions=x", "--data=x", f"--model={model}", "--thinking=no"])


def test_a_file_as_windows_writes_it_is_read(monkeypatch, tmp_path, capsys, data):
    file = tmp_path / "windows.jsonl"
    lines = [json.dumps(perfect(pair) | {"seed": 0}) for pair in data[1]]
    lines[1] = lines[1].replace('"seed": 0', '"seed": ' + "9" * 5000).replace("]]", "]]\u2028")
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert run(monkeypatch, tmp_path, data, lines[:1], f"--predictions={file}") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]["reward"] == pytest.approx(1)


@pytest.mark.parametrize(("encoding", "line"), [("utf-16", 1), ("latin-1", 2)])
def test_a_file_in_another_encoding_is_named_with_the_line(
    monkeypatch, tmp_path, capsys, data, encoding, line
):
    file = tmp_path / "other.jsonl"
    file.write_bytes('{"id": "a", "text": "[]"}\n{"id": "a", "text": "caf\u00e9"}\n'.encode(encoding))
    assert run(monkeypatch, tmp_path, data, "x", f"--predictions={file}") == 2
    assert f"{file}, line {line}: expected UTF-8" in capsys.readouterr().err


def test_the_figures_are_printed_whatever_becomes_of_the_file(monkeypatch, tmp_path, capsys, data):
    answers = [perfect(data[1][1])]
    out = tmp_path / "new" / "folder" / "scores.jsonl"
    assert run(monkeypatch, tmp_path, data, answers, f"--out={out}") == 0
    assert len(out.read_text().splitlines()) == 2
    capsys.readouterr()

    def full(*_):
        out.unlink()
        out.mkdir()  # as if it had come up meanwhile
        return 0

    monkeypatch.setattr(score, "_print_table", full)
    assert run(monkeypatch, tmp_path, data, answers, f"--out={out}") == 1
    printed, err = capsys.readouterr()
    assert "reward" in json.loads(printed)["summary"] and str(out) in err


@pytest.mark.parametrize("flag", ["out", "predictions"])
def test_a_folder_in_place_of_a_file_is_named_at_once(monkeypatch, tmp_path, capsys, data, flag):
    assert run(monkeypatch, tmp_path, data, [perfect(data[1][1])], f"--{flag}={tmp_path}") == 2
    out, err = capsys.readouterr()
    assert f"--{flag}={tmp_path} is a folder" in err and not out


def test_brackets_in_the_path_of_a_dataset_are_no_pattern(monkeypatch, tmp_path, capsys):
    pair = draw_pair(1)
    folder = tmp_path / "a[1]" / "d*"
    write_pairs(folder / "inner", {"test": [pair], "train": [pair]})
    assert run(monkeypatch, tmp_path, (folder,), [perfect(pair)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["reward"] == pytest.approx(1)


def test_a_tilde_behind_the_equals_sign_is_the_home_folder(monkeypatch, tmp_path, capsys, data):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").symlink_to(data[0])
    (tmp_path / "strict.py").write_text("from configs.base import get_config as get_config\n")
    answers = [perfect(data[1][1])]
    flags = ("--predictions=~/predictions.jsonl", "--data=~/data", "--out=~/s.jsonl", "--config=~/strict.py")
    assert run(monkeypatch, tmp_path, data, answers, *flags) == 0
    assert (tmp_path / "s.jsonl").exists()


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


def test_boxes_are_read_as_a_flag_says_they_are_written(monkeypatch, tmp_path, capsys, data):
    box, answer = data[1][1].boxes[0], {"id": data[1][1].id}
    answer["text"] = json.dumps([[round(float(x), 3) for x in box]])
    for flags, f1 in ((["--box_convention=unit"], 1), ([], 0)):
        assert run(monkeypatch, tmp_path, data, [answer], *flags) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]["f1"] == f1
    assert run(monkeypatch, tmp_path, data, [answer], "--box_convention=pixels") == 2
    assert "name the model with --model=DIR" in capsys.readouterr().err


def test_answers_to_phrases_are_scored_as_phrases_whatever_the_run_trains_on(
    monkeypatch, tmp_path, capsys, data
):
    id = f"{data[1][1].id}/change0"  # the one difference of pair 1, asked for by its description
    config = tmp_path / "config.py"
    config.write_text(
        "from configs import small\nget_config = small.get_config\n"
    )  # colors are permuted there
    flags = ("--task=referring", f"--config={config}")
    box = (data[1][1].boxes[0] * 1000).tolist()
    assert run(monkeypatch, tmp_path, data, [{"id": id, "text": json.dumps([box])}], *flags) == 0
    line, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["hit"], line["reason"], line["id"]) == (1, "valid", id)
    assert last["summary"]["hit"] == 1 and "f1" not in last["summary"]
