"""Runs that train on a mixture of tasks: they learn all of them, and go on exactly."""

import json
import pathlib

import pytest
from etils import epath
from ml_collections import ConfigDict

from dig_jax.run.fingerprint import fingerprint
from tests.commands.test_train import (  # noqa: F401  (inputs is a fixture)
    final_params,
    inputs,
    lines,
    run,
    small_config,
    without_times,
)

pytestmark = pytest.mark.usefixtures("quick_compiling")


def two_parts() -> ConfigDict:
    """All pairs, and for every two of them a phrase of theirs: "rectangle 0 became bright"."""
    phrases = {"weight": 0.5, "task": "referring", "data": {"augment": {"flip_vertical": True}}}
    return ConfigDict({"pairs": {"weight": 1}, "phrases": phrases})


def of_mixture(inputs: pathlib.Path, **changes: object) -> ConfigDict:  # noqa: F811
    """Batches of 8 end in the middle of the mixture's blocks of 3; with a second stage of more phrases."""
    config = small_config(inputs, "grpo", **changes)
    config.mixture = two_parts()
    config.curriculum.order = ("first", "second")
    more = {"mixture": {"phrases": {"weight": 2}}}
    config.curriculum.stages = ConfigDict({"first": {"num_steps": 2}, "second": {"num_steps": 1, **more}})
    return config


@pytest.mark.slow
def test_a_run_of_a_mixture_that_is_stopped_in_its_middle_continues_exactly(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    """By GRPO; supervised ones: tests/run/test_tiny_grounding_resume.py."""
    changes = {"grpo.dynamic_sampling": 1}
    whole = of_mixture(inputs, **changes)
    straight = run(whole, tmp_path / "straight")
    stopped = of_mixture(inputs, **changes)
    stopped.curriculum.stages.first.num_steps = 1
    stopped.curriculum.order = ("first",)
    run(stopped, tmp_path / "stopped")
    (tmp_path / "stopped" / "config.json").write_text(whole.to_json())  # as if a signal had stopped it
    run(whole, tmp_path / "stopped")
    expected, actual = (
        [without_times(line) for line in lines(epath.Path(workdir), "metrics.jsonl")]
        for workdir in (straight, tmp_path / "stopped")
    )
    assert actual == expected and len(actual) == 3
    assert fingerprint(final_params(whole, epath.Path(tmp_path / "stopped"))) == fingerprint(
        final_params(whole, straight)
    )
    # Of 8 positions in blocks of 3, and then of 3 with other shares; each attempt has its own 8.
    assert all(line["pairs/rollout/prompts"] + line["phrases/rollout/prompts"] == 8 for line in expected)
    assert expected[0]["pairs/rollout/prompts"] > expected[2]["pairs/rollout/prompts"]
    assert {"pairs/reward/f1", "phrases/reward/hit", "reward/iou", "reward/reward"} <= expected[0].keys()
    shown = json.loads((straight / "tasks.json").read_text())["training"]
    assert {name: declared["part"] for name, declared in shown.items()} == {
        "pairs/differences": "pairs",
        "phrases/referring": "phrases",
    }
    assert "phrases: Training reward" in (straight / "report.html").read_text()


@pytest.mark.slow
def test_supervised_training_on_a_mixture_fits_both_of_its_tasks(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    rare = {"eval.every": 100, "checkpoint.every": 100}
    sizes = {"batch.prompts": 6, "batch.update_prompts": 6, "batch.micro_prompts": 6}
    config = small_config(inputs, "sft", num_steps=40, **rare, **sizes, **{"optimizer.learning_rate": 3e-3})
    config.mixture = two_parts()
    metrics = lines(run(config, tmp_path / "run"), "metrics.jsonl")
    for part in ("pairs", "phrases"):
        losses = [line[f"{part}/sft/answer_loss"] for line in metrics]
        assert sum(losses[-5:]) < 0.5 * sum(losses[:5]), part
