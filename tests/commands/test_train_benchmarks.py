"""Benchmarks are measured while a run trains, on a sample of theirs, beside its own evaluation."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from dig_jax import settings
from dig_jax.report import read_evals
from tests.commands.test_train import inputs, run, small_config  # noqa: F401  (inputs is a fixture)
from tests.helpers.drawn_pairs import png
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("quick_compiling")

TABLES = str(ROOT / "tests/benchmarks/golden/vlmevalkit/LMUData")


@pytest.mark.slow
def test_a_run_measures_benchmarks_of_all_tasks_as_it_goes_and_goes_on_with_them(inputs, tmp_path):  # noqa: F811
    entries = {
        name: {"benchmark": name, "data": TABLES, "num_examples": 6}
        for name in ("mmbench", "pope", "refcoco")
    }
    pairs = {"data.eval": str(inputs / "pairs"), "evals": ConfigDict(entries)}
    changes = {"eval.greedy": False, "log.samples": 1, "data.max_pixels": 4096}
    config = small_config(inputs, "sft", num_steps=1, **changes)
    config.data.eval, config.evals = pairs["data.eval"], pairs["evals"]
    settings.check(config)
    workdir = run(config, tmp_path / "run")
    config.num_steps = 2
    run(config, tmp_path / "run")
    lines = read_evals(workdir, "main")
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines:
        for name in entries:
            assert 0 <= line[f"{name}/parsed_sampled"] <= 1
            assert line[f"{name}/score_sampled"] >= 0
        assert line["pope/score_sampled"] == line["pope/Overall.Overall_sampled"]
        assert line["main/reward_sampled"] >= 0
    assert "pope" in (workdir / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "task"), [("grpo", "choice"), ("sft", "yes_no")])
def test_own_questions_are_trained_on_and_evaluated(inputs, tmp_path, algorithm, task):  # noqa: F811
    lines = [
        {"image": "a.png", "question": f"Number {n}?", "options": ["x", "y"], "answer": "A"}
        if task == "choice"
        else {"images": ["a.png", "a.png"], "question": f"Number {n}?", "answer": "yes"}
        for n in range(8)
    ]
    (tmp_path / "a.png").write_bytes(png(np.full((64, 64, 3), 9, np.uint8)))
    for split in ("train", "test"):
        (tmp_path / f"own_{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = small_config(inputs, algorithm, num_steps=2)
    config.task, config.data.train, config.data.eval = task, (str(tmp_path),), str(tmp_path)
    config.data.question, config.data.augment.swap_pair = "", False
    settings.check(config)
    workdir = run(config, tmp_path / "run")
    figures = read_evals(workdir, "main")[-1]
    assert {"main/hit", "main/parsed", "main/hit_sampled"} <= figures.keys()
    if algorithm == "sft":
        assert figures["main/hit"] > 0  # all answers are yes, and so is what was learnt
