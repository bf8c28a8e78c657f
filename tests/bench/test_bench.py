"""The benchmark's own side still runs: TRL's needs an environment that the tests do not have."""

from pathlib import Path

import pytest

from bench import grpo_step, setting
from bench.dig_jax_side import DigJaxSide


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiling")
def test_a_step_of_the_benchmark_runs_on_the_prompts_it_promises(tmp_path: Path):
    setting.write_model(tmp_path / "model")
    config = grpo_step.make_config(str(tmp_path / "model"))
    side = DigJaxSide(config, tmp_path / "model", setting.make_pairs(4), setting.QUESTION)
    assert side.prompt_tokens == 212
    measured = side.step(0)
    assert 0 < measured["rollout_s"] < measured["step_s"]
    assert measured["decoded"] <= grpo_step.NEW_TOKENS


def test_a_missing_trl_environment_is_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        grpo_step._parse(["--trl-python=nowhere/python"])
    assert "--trl-python=nowhere/python does not exist" in capsys.readouterr().err


def test_the_ratio_of_steps_is_the_median_of_the_turns_and_not_the_ratio_of_the_medians():
    def row(seconds: float) -> grpo_step.Row:
        return {"step_s": seconds, "rollout_s": seconds / 2, "cpu_s": seconds}

    turns = [(row(1.0), row(3.0)), (row(2.0), row(2.0)), (row(3.0), row(12.0))]
    (result,) = grpo_step._print_table(turns, steps=3)
    assert (result.ours, result.peer, result.ratio) == ("2000 ms", "3000 ms", 3.0)
