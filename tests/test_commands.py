"""The commands around training: answers as JSON, evaluation of a model folder, and their errors."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from dig_jax import evaluate, export, generate, score
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.data.drawn_pairs import draw_pair, write_pairs


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{name}.png") for name in "ab"]
    for path, size in zip(paths, [(64, 96, 3), (100, 70, 3)], strict=True):
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(path)
    return paths


def answer(capsys: pytest.CaptureFixture, model: pathlib.Path, images: list[str], *more: str) -> dict:
    shown = [f"--image={path}" for path in images]
    generate.main([f"--model={model}", *shown, "--prompt=Describe.", "--max_new_tokens=8", "--json", *more])
    return json.loads(capsys.readouterr().out)


def test_generate_prints_tokens_their_logprobs_and_the_text(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    printed = answer(capsys, tiny_qwen3vl, images)
    assert set(printed) == {"tokens", "logprobs", "text"}
    assert len(printed["tokens"]) == len(printed["logprobs"]) == 8
    assert max(printed["logprobs"]) < 0
    assert printed["text"] == load_tokenizer(tiny_qwen3vl).decode(printed["tokens"])


def test_generate_reads_the_images_in_the_order_given(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    there = answer(capsys, tiny_qwen3vl, images)
    back = answer(capsys, tiny_qwen3vl, images[::-1])
    assert there["logprobs"] != back["logprobs"]


def test_sampling_depends_on_the_seed_alone(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    one, again, other = (
        answer(capsys, tiny_qwen3vl, images, "--temperature=1.0", f"--seed={seed}") for seed in (1, 1, 2)
    )
    assert one == again
    assert one["tokens"] != other["tokens"]


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
    out = tmp_path / "figures.json"
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


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (generate.main, ["--model=nowhere"], "hf download"),
        (evaluate.main, ["--model=nowhere", "--data=nowhere"], "hf download"),
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


def test_generate_names_a_file_that_is_no_image(
    tiny_qwen3vl: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image")
    with pytest.raises(SystemExit) as ended:
        generate.main([f"--model={tiny_qwen3vl}", f"--image={broken}"])
    assert ended.value.code == 2
    assert "broken.png" in capsys.readouterr().err
