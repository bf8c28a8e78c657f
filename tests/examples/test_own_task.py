"""The examples of an own task and an own reward, trained together by the main job."""

import json
import pathlib
import shutil

import pytest
from etils import epath

from configs import base
from dig_jax import settings, train
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.paths import ROOT
from tests.helpers.small_model import make_small_model

pytestmark = pytest.mark.usefixtures("quick_compiling")


def lines(workdir: pathlib.Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def test_a_run_trains_a_users_task_by_a_users_reward_and_reports_what_they_declare(tmp_path: pathlib.Path):
    make_small_model(tmp_path / "model")
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3) for i in range(8)]
    write_pairs(tmp_path / "pairs", {"train": pairs, "test": pairs[:4]})
    for name in ("own_task.py", "own_reward.py"):
        shutil.copy(ROOT / "examples" / name, tmp_path / name)
    text = (tmp_path / "own_task.py").read_text().replace('"count"', '"count_here"')
    (tmp_path / "own_task.py").write_text(text)
    config = base.get_config()
    config.task, config.task_file = "count_here", str(tmp_path / "own_task.py")
    config.rewards.file = str(tmp_path / "own_reward.py")
    config.rewards.weights = ("task=1", "brevity=0.5", "spread=0")
    config.rewards.normalize_apart = True
    config.model_path, config.num_steps, config.model.dtype = str(tmp_path / "model"), 1, "float32"
    config.data.train, config.data.eval = (str(tmp_path / "pairs"),), str(tmp_path / "pairs")
    config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = 4
    config.batch.micro_prompts, config.rollout.group_size, config.rollout.max_new_tokens = 4, 3, 8
    # Held-out answers are drawn by the programs of training, and there is no reference: less to compile.
    config.eval.batch_prompts, config.eval.group_size, config.grpo.kl_coef = 4, 3, 0.0
    config.log.tensorboard = False
    config.evals.pairs = {"task": "differences", "data": str(tmp_path / "pairs"), "num_examples": 2}
    workdir = tmp_path / "run"
    train.run(config, epath.Path(workdir))

    (step,) = lines(workdir, "metrics.jsonl")
    assert {f"reward/{name}" for name in ("right", "off_by", "task", "brevity", "spread")} <= step.keys()
    assert "reward/f1" not in step and step["reward/answer/no number"] + step["reward/answer/number"] == 1
    total = step["reward/task"] + 0.5 * step["reward/brevity"]
    assert step["reward/reward"] == pytest.approx(total, abs=1e-5)
    evaluated = lines(workdir, "evals.jsonl")[-1]
    own = ("right_sampled", "brevity_sampled", "reward_sampled", "task_sampled")
    assert {f"main/{name}" for name in own} <= evaluated.keys()
    # Another task beside it, with its own question, metrics and reward.
    assert {
        "pairs/f1_sampled",
        "pairs/iou_sampled",
    } <= evaluated.keys() and "main/f1_sampled" not in evaluated
    assert "pairs/brevity_sampled" not in evaluated and 0 <= evaluated["pairs/reward_sampled"] <= 1
    assert lines(workdir, "samples/samples.jsonl")[0]["predicted_number"] >= 0
    page = (workdir / "report.html").read_text()
    assert "right number, sampled answers" in page and "pairs: F1, sampled answers" in page

    # The same command goes on; a file with another text does not, wherever it lies.
    data = settings.data_fingerprints(config)
    assert settings.check_resume(config, epath.Path(workdir / "config.json"), data) == []
    (tmp_path / "moved.py").write_text((tmp_path / "own_reward.py").read_text())
    config.rewards.file = str(tmp_path / "moved.py")
    moved = settings.check_resume(
        config, epath.Path(workdir / "config.json"), settings.data_fingerprints(config)
    )
    assert len(moved) == 1 and moved[0].startswith("rewards.file: ")
    (tmp_path / "moved.py").write_text((tmp_path / "own_reward.py").read_text() + "\n")
    with pytest.raises(ValueError, match="rewards.file: "):
        settings.check_resume(config, epath.Path(workdir / "config.json"), settings.data_fingerprints(config))
