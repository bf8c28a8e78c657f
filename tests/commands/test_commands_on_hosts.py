"""`evaluate` and `generate` in two real processes: the answers of one, told once."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.paths import ROOT
from tests.helpers.small_model import FOR_TWO_DEVICES, make_small_model
from tests.machines.test_distributed import free_port

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with `model`, whose heads two devices can share, `pairs`, and two images."""
    folder = tmp_path_factory.mktemp("hosts")
    make_small_model(folder / "model", **FOR_TWO_DEVICES)
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3) for i in range(5)]
    write_pairs(folder / "pairs", {"train": pairs[:1], "test": pairs})
    return folder


def lines_of(command: list[str], processes: int = 1) -> list[list[dict[str, Any]]]:
    """What each process of a command, of one device each, prints as JSON."""
    places: list[list[str]] = [[]]
    if processes > 1:
        join = ["--distributed", f"--coordinator_address=127.0.0.1:{free_port()}"]
        places = [[*join, f"--num_processes={processes}", f"--process_id={n}"] for n in range(processes)]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *command, *place],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]
    try:
        outputs = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()  # does nothing to one that has ended
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [[json.loads(line) for line in text.splitlines() if line[:1] == "{"] for text, _ in outputs]


def test_evaluate_in_two_processes_says_what_one_says(model: pathlib.Path) -> None:
    """Both have all prompts, for their devices decode together; each scores half of the answers."""
    config = model / "config.py"
    config.write_text(
        "from configs import quickstart\n"
        "def get_config():\n"
        "    config = quickstart.get_config()\n"
        "    config.eval.batch_prompts = 4\n"  # two batches, of which the last is cut
        "    config.rollout.mesh.data, config.rollout.mesh.tensor = 1, -1\n"
        "    config.rollout.max_new_tokens = 6\n"
        "    config.model.dtype = 'float32'\n"
        "    return config\n"
    )
    told, answers = {}, {}
    for processes in (1, 2):
        out = model / f"{processes}.json"
        flags = [f"--model={model / 'model'}", f"--data={model / 'pairs'}", f"--config={config}"]
        flags += ["--group_size=2", f"--out={out}"]
        printed = lines_of(["dig_jax.evaluate", *flags], processes)
        assert [len(lines) for lines in printed] == [1, 0][:processes]  # the first process alone prints
        told[processes], answers[processes] = printed[0][0], json.loads(out.read_text())["answers"]
    assert told[2] == pytest.approx(told[1])
    assert answers[2] == answers[1] and len(answers[1]) == 5


@pytest.mark.slow
def test_generate_in_two_processes_shares_the_model_and_answers_once(model: pathlib.Path) -> None:
    prompt = ["--prompt=Find the differences.", "--max_new_tokens=6", "--temperature=1", "--json"]
    command = ["dig_jax.generate", f"--model={model / 'model'}", "--dtype=float32", *prompt]
    ((alone,),) = lines_of(command)
    (together,), nothing = lines_of(command, processes=2)
    assert nothing == []
    assert together["tokens"] == alone["tokens"] and len(alone["tokens"]) == 6
    assert together["logprobs"] == pytest.approx(alone["logprobs"], abs=1e-5)
