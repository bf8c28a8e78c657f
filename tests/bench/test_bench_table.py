"""What the benchmarks have in common: clocks, results, the command that runs all, and their arithmetic."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import accelerator, accelerator_sides, growth, results, reward, reward_peer, timing
from bench import all as bench_all
from bench.accelerator import Work
from bench.accelerator_sides import Figures
from bench.results import Result
from bench.timing import Seconds
from configs import base
from dig_jax.models.qwen3_vl import published
from dig_jax.tasks.differences.reward import RewardConfig, score_texts


def test_a_table_has_a_line_per_result_and_no_ratio_where_there_is_no_peer():
    table = results.table([Result("decode", "8 t/s", "2 t/s", 4.0, aim=4.0), Result("depth", "0.9")])
    assert table.splitlines()[2:] == ["| decode | 8 t/s | 2 t/s | 4 | 4 |", "| depth | 0.9 |  |  |  |"]


def test_results_are_read_back_as_they_were_saved(tmp_path: Path):
    found = [Result("a", "1 ms", "2 ms", 2.0), Result("b", "3")]
    results.save(found, str(tmp_path / "found.json"))
    assert results.load(tmp_path / "found.json") == found
    assert results.load(tmp_path / "missing.json") == []


def test_a_file_for_the_figures_is_made_ready_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = results.make_parser("x", "")
    args = parser.parse_args(["--json=~/new/found.json", "--profile=~/traces"])
    assert (args.json, args.profile) == (str(tmp_path / "new" / "found.json"), str(tmp_path / "traces"))
    assert (tmp_path / "new").is_dir()
    with pytest.raises(SystemExit):
        parser.parse_args(["--json=/dev/null/found.json"])
    assert "nothing can be written in /dev/null" in capsys.readouterr().err


def test_the_ratio_is_the_median_of_the_ratios_of_the_turns():
    ours = [Seconds(1, 1), Seconds(2, 1), Seconds(4, 1)]
    peer = [Seconds(2, 3), Seconds(6, 3), Seconds(4, 4)]
    assert timing.ratio(ours, peer) == Seconds(2.0, 3.0)


def test_sides_take_turns_and_the_first_round_does_not_count():
    order: list[str] = []
    taken = timing.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert [len(side) for side in taken.values()] == [2, 2]


def test_profiles_are_left_where_asked_for(tmp_path: Path):
    ran = []
    timing.profile("", lambda: ran.append("untraced"))
    timing.profile(str(tmp_path), lambda: ran.append("traced"))
    assert ran == ["traced"] and list(tmp_path.rglob("*.xplane.pb"))


def test_all_runs_what_was_asked_for_and_names_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    def run(command: list[str]) -> subprocess.CompletedProcess:
        (file,) = (word.removeprefix("--json=") for word in command if word.startswith("--json="))
        if "bench.reward" in command:
            results.save([Result("reward", "1 ms", "60 ms", 60.0, 50.0)], file)
        return subprocess.CompletedProcess(command, int("bench.rollout" in command))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match="rollout failed"):
        bench_all.main(["--only=reward", "--only=rollout", f"--json={tmp_path / 'all.json'}"])
    assert "| reward | 1 ms | 60 ms | 60 | 50 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "all.json").read_text())[0]["ratio"] == 60


def test_all_needs_the_environment_of_trl_for_the_step(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        bench_all.main([])
    assert "--trl-python" in capsys.readouterr().err


@pytest.mark.parametrize("name", bench_all.SET)
def test_every_benchmark_of_the_set_can_say_what_it_does(name: str):
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--help"], capture_output=True, text=True, check=True
    )
    assert "--json" in done.stdout and "--profile" in done.stdout


# The reward


def test_the_peer_of_the_reward_computes_the_same_terms():
    config = RewardConfig.from_config(base.get_config())
    texts, true, num_true = reward.make_completions(200, seed=1)
    texts += ["no list", "[]"]
    true, num_true = np.concatenate([true, true[:2]]), np.append(num_true, [2, 0])
    scores = score_texts(texts, true, num_true, thinking=False, config=config)
    for row in range(len(texts)):
        terms = reward_peer.score(
            scores.boxes[row], scores.reasons[row] == "valid", true[row, : num_true[row]], config
        )
        for name, value in terms.items():
            assert value == pytest.approx(getattr(scores, name)[row], abs=1e-5), (row, name)


# Growth


def test_the_exponent_is_the_slope_in_logarithms():
    assert growth.exponent((1, 2, 4), [3.0, 12.0, 48.0]) == pytest.approx(2)
    assert growth.exponent((1, 2, 4), [3.0, 3.0, 3.0]) == pytest.approx(0)


# Accelerators


def test_without_an_accelerator_nothing_is_measured_and_that_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(timing, "bind", lambda threads: [])
    accelerator.main([f"--json={tmp_path / 'none.json'}"])
    assert "no GPU or TPU here: nothing is measured" in capsys.readouterr().out
    assert results.load(tmp_path / "none.json") == []


@pytest.mark.parametrize(("gib", "name"), [(24, "2B"), (40, "4B"), (80, "8B"), (141, "32B")])
def test_the_widest_layers_that_fit_the_memory_are_taken_and_as_many_as_fit(gib: int, name: str):
    taken, layers = accelerator.widest(gib << 30, ("32B", "8B", "4B", "2B"))
    assert taken == name and layers >= 4
    config = published.architecture(name)
    budget = 0.7 * (gib << 30)
    few, many = (
        18 * accelerator.count_parameters(accelerator.with_layers(config, n)) for n in (layers, layers + 1)
    )
    assert few <= budget < many


def test_too_little_memory_is_named():
    with pytest.raises(ValueError, match="8.0 GiB of memory do not hold 4 layers of 8B"):
        accelerator.widest(8 << 30, ("8B",))


def test_shares_are_work_over_time_over_peak():
    work = Work(flops=98.9e12, step_bytes=3.35e9, peer_bytes=6.7e9)
    kind = "NVIDIA H100 80GB HBM3"
    update, decode = accelerator.lines(work, Figures(0.2, 2e-3), Figures(0.4, 10e-3), kind)
    assert (update.ours, update.peer, update.ratio) == ("50.0%, 200 ms", "25.0%, 400 ms", 2)
    assert (decode.ours, decode.peer, decode.ratio) == ("50.0%, 2 ms", "20.0%, 10 ms", 5)
    unknown = accelerator.lines(work, Figures(0.1, 1e-3), Figures(0.1, 1e-3), "NVIDIA New")
    assert [line.ours for line in unknown] == ["989 TFLOP/s, 100 ms", "3.35 TB/s, 1 ms"]
    (alone,) = accelerator.lines(work, Figures(0.0, 2e-3), None, kind)
    assert alone.what.startswith("decode")


def test_the_work_of_an_update_grows_with_the_completions_and_not_with_copies_of_the_prompt():
    job = accelerator.tiny_job(repeats=1, threads=1)
    two = accelerator.useful_work(job)
    four = accelerator.useful_work(dataclasses.replace(job, group=4))
    assert two.flops < four.flops < 2 * two.flops


@pytest.mark.slow
def test_both_sides_of_the_accelerator_run_in_small():
    pytest.importorskip("torch")
    job = accelerator.tiny_job(repeats=1, threads=1)
    for side in (accelerator_sides.dig_jax, accelerator_sides.transformers):
        figures = side(job)
        assert figures.update_s > 0 and figures.step_s > 0
