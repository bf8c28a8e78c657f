"""The generate command: transformers' tokens, streaming, sampling, few programs, and errors to act on."""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dig_jax import generate
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.run import loading
from tests.helpers.paths import ROOT
from tests.models.conftest import load_reference

SIZES = [(64, 96), (100, 70), (64, 64)]  # height, width; 70 is no multiple of 32


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{name}.png") for name in "abc"]
    for path, size in zip(paths, SIZES, strict=True):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return paths


def flags(model: pathlib.Path, images: list[str], *more: str) -> list[str]:
    shown = [f"--image={path}" for path in images]
    return [f"--model={model}", *shown, "--prompt=Describe.", "--max_new_tokens=8", "--dtype=float32", *more]


def ask(capsys: pytest.CaptureFixture, model: pathlib.Path, images: list[str], *more: str) -> dict[str, Any]:
    generate.main(flags(model, images, "--json", *more))
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    """The message of a command that ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        generate.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


# What it answers


def their_answer(folder: pathlib.Path, paths: list[str], new_tokens: int) -> tuple[list[int], list[float]]:
    """Greedy tokens of transformers and their log-probs, with its own template and image processor."""
    reference = load_reference(folder)
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    theirs = AutoTokenizer.from_pretrained(folder)
    content = [*({"type": "image"} for _ in paths), {"type": "text", "text": "Describe."}]
    text = theirs.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs: dict[str, Any] = {}
    if paths:
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        inputs = dict(processor([Image.open(path) for path in paths], return_tensors="pt"))
    for grid in inputs.get("image_grid_thw", []):
        text = text.replace("<|image_pad|>", "<|image|>" * (int(grid.prod()) // 4), 1)
    ids = theirs(text.replace("<|image|>", "<|image_pad|>"), return_tensors="pt").input_ids
    if paths:
        inputs["mm_token_type_ids"] = (ids == reference.model.config.image_token_id).long()
    tokenizer = load_tokenizer(folder)
    beyond = range(tokenizer.vocab_size, reference.model.config.text_config.vocab_size)
    generated = reference.model.generate(
        input_ids=ids,
        attention_mask=reference.torch.ones_like(ids),
        **inputs,
        max_new_tokens=new_tokens,
        do_sample=False,
        suppress_tokens=[*tokenizer.suppressed, *beyond],
        eos_token_id=list(tokenizer.eos_ids),
        pad_token_id=tokenizer.pad_id,
        output_logits=True,  # before any token is suppressed
        return_dict_in_generate=True,
    )
    tokens = generated.sequences[0, ids.shape[1] :]
    logprobs = reference.torch.cat(generated.logits).log_softmax(-1)
    return tokens.tolist(), logprobs.gather(1, tokens[:, None])[:, 0].tolist()


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("instruct", 2),
        ("thinking", 3),
        *(
            pytest.param(kind, count, marks=pytest.mark.slow)
            for kind, count in [
                *(("instruct", count) for count in (0, 1, 3)),
                *(("thinking", count) for count in (0, 1, 2)),
            ]
        ),
    ],
)
def test_greedy_answers_are_those_of_transformers(
    kind: str,
    count: int,
    images: list[str],
    capsys: pytest.CaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    folder = request.getfixturevalue({"instruct": "tiny_qwen3vl", "thinking": "tiny_qwen3vl_thinking"}[kind])
    ours = ask(capsys, folder, images[:count], "--max_new_tokens=64")
    tokens, logprobs = their_answer(folder, images[:count], new_tokens=64)
    assert ours["tokens"] == tokens
    assert ours["logprobs"] == pytest.approx(logprobs, abs=1e-5)


def test_json_has_tokens_their_logprobs_and_the_text(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    printed = ask(capsys, tiny_qwen3vl, images[:2])
    assert set(printed) == {"tokens", "logprobs", "text"}
    assert len(printed["tokens"]) == len(printed["logprobs"]) == 8
    assert max(printed["logprobs"]) < 0
    assert printed["text"] == load_tokenizer(tiny_qwen3vl).decode(printed["tokens"])


def test_the_end_token_is_counted_and_ends_the_answer(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    free = ask(capsys, tiny_qwen3vl, images[:2])["tokens"]
    end = free[4]
    ending = dataclasses.replace(load_tokenizer(tiny_qwen3vl), eos_ids=(end,))
    monkeypatch.setattr(loading, "load_tokenizer", lambda folder: ending)
    printed = ask(capsys, tiny_qwen3vl, images[:2])
    assert printed["tokens"] == free[: free.index(end) + 1]
    assert len(printed["logprobs"]) == len(printed["tokens"])


@pytest.mark.slow
def test_a_model_spread_over_more_devices_than_it_has_key_value_heads_gives_the_same_answer(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    alone = ask(capsys, tiny_qwen3vl, images[:2])
    command = [sys.executable, "-m", "dig_jax.generate", *flags(tiny_qwen3vl, images[:2]), "--json"]
    spread = subprocess.run(
        [*command, "--devices=4"],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = json.loads(spread.stdout)
    assert printed["tokens"] == alone["tokens"]
    assert printed["logprobs"] == pytest.approx(alone["logprobs"], abs=1e-5)


def test_images_are_read_in_the_order_given(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    there, back = (ask(capsys, tiny_qwen3vl, shown)["logprobs"] for shown in (images[:2], images[1::-1]))
    assert there != back


# Streaming


class Terminal(io.StringIO):
    """Standard output that says it is a terminal and remembers what was flushed, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = [""]

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.pieces.append(self.getvalue())


def test_a_terminal_sees_the_answer_grow_to_what_a_file_gets(
    tiny_qwen3vl: pathlib.Path,
    images: list[str],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate.main(flags(tiny_qwen3vl, images[:2], "--temperature=1", "--max_new_tokens=30"))
    whole = capsys.readouterr().out
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    generate.main(flags(tiny_qwen3vl, images[:2], "--temperature=1", "--max_new_tokens=30"))
    assert terminal.getvalue() == whole
    assert len(set(terminal.pieces)) > 4  # 30 tokens, a few at a time
    assert all(whole.startswith(piece) for piece in terminal.pieces)


def test_json_on_a_terminal_is_one_line(
    tiny_qwen3vl: pathlib.Path, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    generate.main(flags(tiny_qwen3vl, images[:2], "--json"))
    assert len(terminal.getvalue().splitlines()) == 1
    json.loads(terminal.getvalue())


# Sampling


def test_sampling_depends_on_the_seed_alone(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    one, again, other = (
        ask(capsys, tiny_qwen3vl, images[:2], "--temperature=1.0", f"--seed={seed}") for seed in (1, 1, 2)
    )
    assert one == again
    assert one["tokens"] != other["tokens"]


def test_a_flag_overrides_the_models_sampling(
    tiny_qwen3vl: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    greedy = ask(capsys, tiny_qwen3vl, images[:2])
    assert ask(capsys, tiny_qwen3vl, images[:2], "--sampling=model", "--temperature=0", "--top_k=0") == greedy


# Thought


def test_a_thinking_budget_closes_the_thought_and_the_answer_goes_on(
    tiny_qwen3vl_thinking: pathlib.Path, images: list[str], capsys: pytest.CaptureFixture
) -> None:
    sampled = ("--temperature=1", "--max_new_tokens=24")
    free = ask(capsys, tiny_qwen3vl_thinking, images[:1], *sampled)
    assert "thinking_closed_at" not in free
    closed = ask(capsys, tiny_qwen3vl_thinking, images[:1], *sampled, "--thinking_budget=5")
    closing = load_tokenizer(tiny_qwen3vl_thinking).encode("\n</think>\n\n")
    assert closed["thinking_closed_at"] == 5
    assert closed["tokens"][:5] == free["tokens"][:5]  # the same noise: up to there nothing differs
    assert closed["tokens"][5 : 5 + len(closing)] == closing
    assert len(closed["tokens"]) > 5 + len(closing)
    assert closed["text"].count("</think>") == 1 and len(closed["logprobs"]) == len(closed["tokens"])

    generate.main(flags(tiny_qwen3vl_thinking, images[:1], *sampled, "--thinking_budget=5"))
    shown = capsys.readouterr()
    assert shown.out == closed["text"] + "\n"
    assert "thought closed after 5 tokens" in shown.err and "note:" not in shown.err


def test_a_thinking_budget_is_for_models_that_think_and_leaves_room_to_answer(
    tiny_qwen3vl: pathlib.Path, tiny_qwen3vl_thinking: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    error = refusal(capsys, flags(tiny_qwen3vl, [], "--thinking_budget=5"))
    assert "--thinking_budget=5: this model does not think" in error
    error = refusal(capsys, flags(tiny_qwen3vl_thinking, [], "--thinking_budget=9", "--max_new_tokens=9"))
    assert "--thinking_budget=9: expected 1 to" in error and "note: greedy decoding" in error


# Errors


def test_a_missing_image_is_named(tiny_qwen3vl: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    assert "nowhere.png: no such image file" in refusal(capsys, flags(tiny_qwen3vl, ["nowhere.png"]))


def test_a_file_or_folder_that_is_no_image_is_named(
    tiny_qwen3vl: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image")
    assert "broken.png: not a readable image" in refusal(capsys, flags(tiny_qwen3vl, [str(broken)]))
    assert f"{tmp_path}: cannot be read" in refusal(capsys, flags(tiny_qwen3vl, [str(tmp_path)]))


def test_an_error_says_which_of_the_images_it_is_about(
    tiny_qwen3vl: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    good, wide = tmp_path / "good.png", tmp_path / "wide.png"
    Image.new("RGB", (64, 64)).save(good)
    Image.new("RGB", (201, 1)).save(wide)
    error = refusal(capsys, flags(tiny_qwen3vl, [str(good), str(wide)]))
    assert f"--image={wide} (number 2 of 2): " in error and "201x1 pixels" in error


def test_images_and_model_are_found_in_the_home_folder(
    tiny_qwen3vl: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").symlink_to(tiny_qwen3vl)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    error = refusal(capsys, ["--model=~/model", "--image=~/a.png"])  # got as far as the question
    assert "--prompt is missing" in error


def test_a_missing_model_says_how_to_get_one(capsys: pytest.CaptureFixture) -> None:
    assert "hf download" in refusal(capsys, ["--model=nowhere", "--prompt=Hello"])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "qwen2_5_vl"}, "qwen2_5_vl"),
        ("config.json", "{broken", "config.json is not JSON"),
        ("processor_config.json", "{broken", "processor_config.json is not JSON"),
        ("tokenizer.json", "{broken", "its tokenizer cannot be loaded"),
        ("generation_config.json", "{broken", "generation_config.json is not JSON"),
    ],
)
def test_a_damaged_or_foreign_model_is_named(
    file: str,
    change: Any,
    message: str,
    tiny_qwen3vl: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_qwen3vl, folder)
    path = folder / file
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    error = refusal(capsys, flags(folder, [], "--sampling=model"))
    assert message in error and str(folder) in error


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--temperature=-1", "--temperature is -1.0; expected 0 (greedy) or more"),
        ("--top_p=0", "--top_p is 0.0; expected 0 < top_p <= 1"),
        ("--top_k=-2", "--top_k is -2"),
        ("--max_new_tokens=0", "--max_new_tokens=0: expected 1 to"),
        ("--max_new_tokens=5000", "leaves of the model's context of 4096"),
        ("--prompt=" + "word " * 5000, "the model's context is 4096 tokens"),
        ("--prompt=<|image_pad|>", "must not contain <|image_pad|>"),
        ("--devices=99", "--devices=99: there are"),
        ("--sampling=hot", "invalid choice: 'hot'"),
    ],
)
def test_a_flag_out_of_range_is_named(
    flag: str, message: str, tiny_qwen3vl: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    assert message in refusal(capsys, flags(tiny_qwen3vl, [], flag))


def test_the_default_question_needs_two_images(
    tiny_qwen3vl: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    assert "--prompt is missing" in refusal(capsys, [f"--model={tiny_qwen3vl}"])
