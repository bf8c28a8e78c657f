"""`python -m dig_jax.evaluate --benchmarks`: its flags, and the whole of it in real processes."""

import base64
import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from dig_jax import evaluate
from tests.commands.test_commands_on_hosts import lines_of
from tests.helpers.paths import ROOT
from tests.helpers.small_model import FOR_TWO_DEVICES, make_small_model

ROWS = 14  # of two sizes of pictures


def write_table(folder: pathlib.Path) -> None:
    """POPE as VLMEvalKit's table, a few rows of it."""
    rng = np.random.default_rng(0)
    with open(folder / "POPE.tsv", "w", newline="") as file:
        table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL)
        table.writerow(["index", "image", "question", "answer", "category"])
        for number in range(ROWS):
            picture = io.BytesIO()
            pixels = rng.integers(0, 256, (32 if number % 3 else 64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(picture, "PNG")
            image = base64.b64encode(picture.getvalue()).decode()
            answer = ("yes", "no")[number % 2]
            table.writerow([number, image, "Is there a dog?", answer, "random,popular,adversarial"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--benchmarks=pope", "--out=x"], "--model and --benchmarks go together"),
        (["--model=m", "--benchmarks=pope", "--out=x"], "--data_root is missing"),
        (["--benchmarks=", "--out=x"], "nothing to do"),
        (["--benchmarks=pop", "--model=m", "--data_root=d", "--out=x"], "there is no benchmark 'pop'"),
        (["--benchmarks=pope,pope:random", "--model=m", "--data_root=d", "--out=x"], "pope is there twice"),
        (["--benchmarks=pope", "--model=m", "--data_root=d", "--out=x", "--batch_rows=0"], "at least 1"),
        (["--compare=nowhere", "--out=x"], "nowhere holds no results.json"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        evaluate.main(flags)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiling")
def test_a_killed_command_goes_on_on_other_devices_and_hosts(tmp_path):
    """One device, whole; two devices, killed; then two hosts, to the end: the same answers and scores."""
    make_small_model(tmp_path / "model", **FOR_TWO_DEVICES)
    write_table(tmp_path)
    config = tmp_path / "config.py"
    config.write_text(
        "from configs import small\n"
        "def get_config():\n"
        "    config = small.get_config()\n"
        "    config.rollout.max_new_tokens = 5\n"
        "    config.model.dtype = 'float32'\n"
        "    return config\n"
    )
    command = ["dig_jax.evaluate", f"--model={tmp_path / 'model'}", f"--config={config}"]
    command += ["--benchmarks=pope", f"--data_root={tmp_path}", "--temperature=1", "--batch_rows=2"]

    ((whole,),) = lines_of([*command, f"--out={tmp_path / 'one'}"])
    answers = tmp_path / "two" / "pope.jsonl"
    killed = subprocess.Popen(
        [sys.executable, "-m", *command, f"--out={tmp_path / 'two'}"],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while killed.poll() is None and not (answers.exists() and answers.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    lines = answers.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    answers.write_bytes(
        b"".join(lines[:3]) + lines[-1][:20]
    )  # so that something is left, however fast it was
    printed = lines_of([*command, f"--out={tmp_path / 'two'}"], processes=2)
    assert printed == [[whole], []]  # the first process alone prints

    def said(out: str) -> dict[str, str]:
        kept = (tmp_path / out / "pope.jsonl").read_text().split("\n")[1:-1]
        return {answer["index"]: answer["prediction"] for answer in map(json.loads, kept)}

    assert said("two") == said("one") and len(said("one")) == ROWS
    results = [json.loads((tmp_path / out / "results.json").read_text()) for out in ("one", "two")]
    one, two = (found["benchmarks"]["pope"] for found in results)
    assert one["scores"] == two["scores"] and one["intervals"] == two["intervals"]
    assert one["complete"].startswith(f"random partial {ROWS}/3000")
    assert (tmp_path / "two" / "model_POPE.tsv").read_text() == (
        tmp_path / "one" / "model_POPE.tsv"
    ).read_text()
    refused = subprocess.run(
        [sys.executable, "-m", *command, f"--out={tmp_path / 'two'}", "--seed=1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert refused.returncode == 2 and "sampling.seed 0 and now 1" in refused.stderr
