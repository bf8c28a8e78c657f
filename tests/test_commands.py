"""The commands around training: evaluation of a model folder, scores of saved answers, and their errors."""

import json
import pathlib

import pytest

from dig_jax import evaluate, export, score
from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.data.drawn_pairs import draw_pair, write_pairs

ROOT = pathlib.Path(__file__).parents[1]


def test_evaluate_scores_a_folder_and_score_agrees_on_its_answers(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    sizes = {"vision_depth": 1, "vision_inner": 64, "text_depth": 1, "text_inner": 64, "image_size": 64}
    make_scratch_folder(tmp_path / "model", ScratchConfig(**sizes))
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3) for i in range(5)]
    write_pairs(tmp_path / "pairs", {"train": pairs[:1], "test": pairs})
    config = tmp_path / "config.py"
    config.write_text(
        "from configs import quickstart\n"
        "def get_config():\n"
        "    config = quickstart.get_config()\n"
        "    config.eval.batch_prompts = 4\n"
        "    config.rollout.max_new_tokens = 8\n"
        "    return config\n"
    )
    out = tmp_path / "new" / "folder" / "figures.json"
    flags = [f"--model={tmp_path / 'model'}", f"--data={tmp_path / 'pairs'}", f"--config={config}"]
    evaluate.main([*flags, "--group_size=2", f"--out={out}"])
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(out.read_text())
    assert written["metrics"] == printed
    assert {"format", "f1", "iou", "reward_greedy", "reward_sampled", "f1_at_0", "f1_at_2"} <= printed.keys()
    assert len(written["answers"]) == 5

    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text("".join(json.dumps(line) + "\n" for line in written["answers"]))
    score.main([f"--predictions={predictions}", f"--data={tmp_path / 'pairs'}"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert summary["reward"] == pytest.approx(printed["reward_greedy"])


def test_evaluate_prints_its_figures_whatever_becomes_of_the_file(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ROOT / "assets" / "sample_pairs"
    flags = [f"--model={ROOT / 'assets' / 'quickstart_warmup'}", f"--data={pairs}", "--num_pairs=1"]
    flags += [f"--config={ROOT / 'configs' / 'quickstart.py'}", "--group_size=0"]

    def full(path: pathlib.Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(evaluate, "write_json", full)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: evaluate.Evaluation({"f1": 0.5}, []))
    with pytest.raises(SystemExit) as ended:
        evaluate.main([*flags, f"--out={tmp_path / 'r.json'}"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    assert json.loads(out) == {"f1": 0.5} and "No space left" in err


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (evaluate.main, ["--model=nowhere", "--data=nowhere"], "hf download"),
        (evaluate.main, ["--model=nowhere", "--data=nowhere", "--out=/dev/null/a.json"], "--out=/dev/null/"),
        (export.main, ["--workdir=nowhere", "--out=out"], "not the workdir of a run"),
    ],
)
def test_a_missing_input_is_named_and_ends_with_code_2(
    command: object, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        command(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
