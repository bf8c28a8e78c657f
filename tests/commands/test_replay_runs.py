"""Runs that replay experts: with all that cuts, moves and refills, stopped, and in two processes."""

import pathlib

import pytest

from tests.commands.test_multihost import Run, assert_same_metrics, sampled
from tests.commands.test_train import inputs, lines, run, small_config, without_times  # noqa: F401  (a fixture)
from tests.helpers.small_model import make_small_model

pytestmark = pytest.mark.usefixtures("quick_compiling")

SIZES = {"family": "qwen3_vl_moe", "text_depth": 2, "experts": 4}


def config_of(inputs: pathlib.Path, **changes: object):  # noqa: F811
    """Two updates of pieces of groups, cut by length; slots are refilled, and prompts replaced."""
    model = inputs / "experts"
    if not model.exists():
        make_small_model(model, **SIZES)
    return small_config(
        inputs,
        "grpo",
        **{
            "model_path": str(model),
            "rollout.slots": 1,
            "rollout.rows": 2,
            "rollout.group_size": 2,
            "batch.micro_completions": 1,
            "batch.response_buckets": (6,),
            "grpo.dynamic_sampling": 1,
            "moe.measure_every": 1,
            "optimizer.learning_rate": 1e-3,
            **changes,
        },
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replay", "changes"),
    [("rollout", {"model.lora.rank": 2, "grpo.importance_cap": 2.0, "model.remat": "full"}), ("old", {})],
)
def test_a_stopped_run_that_replays_continues_exactly_and_in_float32_nothing_flips(
    replay,
    changes,
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
):
    changes = {"moe.replay": replay, "grpo.kl_coef": 0.1 if replay == "old" else 0.0, **changes}
    straight = lines(run(config_of(inputs, **changes), tmp_path / "straight"), "metrics.jsonl")
    run(config_of(inputs, num_steps=1, **changes), tmp_path / "stopped")
    stopped = lines(run(config_of(inputs, **changes), tmp_path / "stopped"), "metrics.jsonl")
    assert [without_times(line) for line in stopped] == [without_times(line) for line in straight]
    for line in straight:
        flipped = {name: value for name, value in line.items() if name.startswith("moe/flipped")}
        assert set(flipped.values()) == {0.0} and len(flipped) == 3
        for gap in ("moe/gap_live_max", "moe/gap_replayed_max", "grpo/sampler_trainer_gap_max"):
            assert line[gap] < 1e-4, gap
        assert 0 < line["grpo/expert_entropy"] <= 1


@pytest.mark.slow
def test_two_processes_that_share_the_experts_replay_what_one_does(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
):
    """In sampling and in training tokens travel between the processes."""
    settings = config_of(inputs, **{"moe.replay": "rollout", "num_steps": 2, "grpo.kl_coef": 0.0})
    file = tmp_path / "config.py"
    file.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({settings.to_json()!r}))\n"
    )
    one = Run(file, tmp_path / "one").succeeds().workdir
    split = ("--config.mesh.expert=2", "--config.rollout.mesh.expert=2")
    two = Run(file, tmp_path / "two", *split, processes=2).succeeds().workdir
    assert sampled(two, 2) == sampled(one)
    assert_same_metrics(two, one)
