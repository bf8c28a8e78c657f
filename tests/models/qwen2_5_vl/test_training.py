"""A small Qwen2.5-VL goes through a whole run: supervised, then GRPO with adapters, pool and evaluation."""

import pytest

from tests.commands.test_train import lines, run, small_config
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.small_model import make_small_model

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2_5_vl")
    make_small_model(folder / "model", family="qwen2_5_vl")
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3, seed=0) for i in range(16)]
    write_pairs(folder / "pairs", {"train": pairs[:12], "test": pairs[12:]})
    return folder


@pytest.mark.slow
def test_grpo_with_adapters_samples_what_it_trains(inputs, tmp_path):
    """One step: boxes in pixels, the pool, adapters beside a frozen tower, a checkpoint."""
    adapters = {"model.lora.rank": 2, "model.freeze_vision": True, "num_steps": 1, "sft.answer_step": 1}
    workdir = run(small_config(inputs, "grpo", **adapters), tmp_path / "grpo")
    (step,) = lines(workdir, "metrics.jsonl")
    assert step["grpo/sampler_trainer_gap_max"] < 1e-4
    assert step["rollout/response_length_max"] > 0


@pytest.mark.slow
def test_it_learns_the_form_of_an_answer_in_pixels(inputs, tmp_path):
    settings = {"data.eval": str(inputs / "pairs"), "eval.num_pairs": 4, "eval.every": 12, "num_steps": 12}
    workdir = run(small_config(inputs, "sft", **settings, **{"sft.answer_step": 1}), tmp_path / "sft")
    first, last = lines(workdir, "evals.jsonl")
    assert first["main/format"] == 0 and last["main/format"] == 1
