"""The commands around training: evaluation of a model folder, scores of saved answers, and their errors."""

import json
import pathlib

import pytest
from etils import epath

from dig_jax import evaluate, export, score
from dig_jax.run import cli
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.paths import ROOT
from tests.helpers.small_model import make_small_model

pytestmark = pytest.mark.usefixtures("quick_compiling")

WARMED_UP = f"--model={ROOT / 'assets' / 'quickstart_warmup'}"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a small Thinking `model`, 5 `pairs` to test with, and a `config.py` that samples."""
    folder = tmp_path_factory.mktemp("given")
    make_small_model(folder / "model", thinking=True)
    published = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}
    (folder / "model" / "generation_config.json").write_text(json.dumps(published))
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3) for i in range(5)]
    write_pairs(folder / "pairs", {"train": pairs[:1], "test": pairs})
    (folder / "config.py").write_text(
        "from configs import quickstart\n"
        "def get_config():\n"
        "    config = quickstart.get_config()\n"
        "    config.eval.batch_prompts = 4\n"
        "    config.rollout.max_new_tokens = 8\n"
        "    config.rollout.temperature, config.rollout.top_k = 0.9, 400\n"
        "    return config\n"
    )
    return folder


def flags_for(given: pathlib.Path, *more: str) -> list[str]:
    return [f"--model={given / 'model'}", f"--data={given / 'pairs'}", *more]


def test_evaluate_scores_a_folder_and_score_agrees_on_its_answers(
    given: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "new" / "folder" / "figures.json"
    evaluate.main(flags_for(given, f"--config={given / 'config.py'}", "--group_size=2", f"--out={out}"))
    streams = capsys.readouterr()
    printed = json.loads(streams.out)
    written = json.loads(out.read_text())
    assert written["metrics"] == printed
    greedy = {"format", "f1", "iou", "reward_greedy", "f1_at_0", "f1_at_2", "length_p90", "truncated"}
    assert greedy <= printed.keys()
    assert {"reward_sampled", "f1_sampled", "f1_at_2_sampled", "length_p90_sampled"} <= printed.keys()
    assert "2 completions per pair of at most 8 tokens, temperature 0.9, top_p 1, top_k 400" in streams.err
    assert (written["draws"]["temperature"], written["draws"]["top_k"]) == (0.9, 400)
    assert "of the completions were cut at rollout.max_new_tokens" in streams.err  # an untrained model
    assert printed["truncated_sampled"] > 0.5
    assert len(written["answers"]) == 5
    assert [answer["length"] == 8 for answer in written["answers"]] == [
        not answer["finished"] for answer in written["answers"]
    ]

    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text("".join(json.dumps(line) + "\n" for line in written["answers"]))
    score.main([f"--predictions={predictions}", f"--data={given / 'pairs'}", "--thinking=yes"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert summary["reward"] == pytest.approx(printed["reward_greedy"])


def test_evaluate_closes_thoughts_and_says_where(
    given: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    """A folder without --config samples as published; a flag says otherwise."""
    drawn = []
    for budget in ("0", "5"):
        out = tmp_path / f"{budget}.json"
        more = ("--group_size=2", "--max_new_tokens=16", "--temperature=1", f"--thinking_budget={budget}")
        evaluate.main(flags_for(given, "--num_pairs=4", *more, f"--out={out}"))
        assert "temperature 1, top_p 0.95, top_k 20" in capsys.readouterr().err
        drawn.append(json.loads(out.read_text()))
    free, closed = drawn
    assert "thought_closed_sampled" not in free["metrics"]
    assert "f1" not in closed["metrics"] and "f1_sampled" in closed["metrics"]  # not greedily, unless asked
    assert closed["metrics"]["thought_closed_sampled"] > 0
    places = [answer["thinking_closed_at"] for answer in closed["answers"]]
    assert set(places) <= {5, None} and 5 in places
    for before, after in zip(free["answers"], closed["answers"], strict=True):
        if after["thinking_closed_at"] is None:
            assert after["text"] == before["text"]
        else:  # the same noise: nothing differs up to there
            assert "\n</think>\n\n" in after["text"]
            assert before["text"].startswith(after["text"].partition("\n</think>\n\n")[0])


def test_a_config_file_of_the_flags_library_may_be_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    given = ["main", "--config=~/a.py:full", "--config.model_path=~/m", "--workdir=~/w", "~"]
    assert cli.expand_home(given, "config") == [given[0], "--config=/home/ada/a.py:full", *given[2:]]


@pytest.mark.parametrize("data", ["x = 1".encode("utf-16"), "x = '\u00e9'".encode("latin-1"), b"x = 1"])
def test_a_config_file_that_cannot_be_read_or_configures_nothing_is_named(
    tmp_path: pathlib.Path, data: bytes
) -> None:
    path = tmp_path / "config.py"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"--config=.*config\.py: "):
        cli.config_of(epath.Path("nowhere"), str(path))


def test_evaluate_prints_its_figures_whatever_becomes_of_the_file(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ROOT / "assets" / "sample_pairs"
    flags = [WARMED_UP, f"--data={pairs}", "--num_pairs=1"]
    flags += [f"--config={ROOT / 'configs' / 'quickstart.py'}", "--group_size=0"]

    def full(path: pathlib.Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(evaluate, "write_result", full)
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
        (evaluate.main, [WARMED_UP, "--data=nowhere", "--out=/dev/null/a.json"], "--out=/dev/null/a.json: "),
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


def test_a_config_file_takes_what_comes_after_a_colon() -> None:
    lengths = [
        cli.config_of(
            epath.Path("nowhere"), f"{ROOT}/configs/stage1_long.py{argument}"
        ).rollout.max_new_tokens
        for argument in ("", ":4k", ":8k")
    ]
    assert lengths == [4096, 4096, 8192]
    with pytest.raises(FileNotFoundError, match="no such Python file"):
        cli.config_of(epath.Path("nowhere"), "nowhere.py:8k")
