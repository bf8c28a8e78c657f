"""A tiny Qwen3-VL with experts goes through a whole run, supervised with the router loss."""

import pytest

from tests.commands.test_train import lines, run, small_config
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.make_tiny_model import make_tiny

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3_vl_moe_runs")
    make_tiny(folder / "model", family="qwen3_vl_moe")
    pairs = [draw_pair(i, size=(64, 64), num_differences=i % 3, seed=0) for i in range(16)]
    write_pairs(folder / "pairs", {"train": pairs[:12], "test": pairs[12:]})
    return folder


@pytest.mark.slow
def test_the_router_loss_is_in_the_loss_and_makes_the_load_more_even(inputs, tmp_path):
    """Six steps with a weight far above any in use; 2 is the loss of an even load."""
    settings = {
        "num_steps": 6,
        "sft.max_answer_tokens": 40,
        "sft.aux_weight": 0.0,
        "optimizer.learning_rate": 1e-2,
        "moe.router_loss_weight": 10.0,
    }
    steps = lines(run(small_config(inputs, "sft", **settings), tmp_path / "run"), "metrics.jsonl")
    for step in steps:
        both = step["sft/answer_loss"] + 10 * step["sft/router_loss"]
        assert step["sft/loss"] == pytest.approx(both, rel=1e-5)
        assert 1 / 8 <= step["sft/expert_share_max"] <= 1 / 2 and 0 < step["sft/expert_entropy"] <= 1
        assert 0 <= step["sft/experts_unused"] < 1
    assert steps[-1]["sft/router_loss"] - 2 < 0.7 * (steps[0]["sft/router_loss"] - 2)
