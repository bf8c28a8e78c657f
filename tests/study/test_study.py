"""The study command: arms are valid, jobs run in order and once, tables and plots say what was measured."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dig_jax import settings
from dig_jax.run import curriculum
from study import __main__ as command
from study import measure, plots, tables
from study.arms import ARMS, DATA, WARMUPS
from study.config import get_config
from study.jobs import Job, Place, plan
from study.run import Failed, Runner
from tests.helpers.drawn_pairs import draw_pair, write_pairs


@pytest.mark.parametrize("name", [*ARMS, *WARMUPS])
def test_every_arm_and_warm_up_is_a_valid_config(name):
    config = get_config(name)
    settings.check(config)
    settings.check(get_config(f"{name},quick"))
    assert config.init_from == ""  # given on the command line


def test_arms_train_as_long_as_the_full_one_and_change_what_they_say():
    def steps(name: str) -> int:
        return sum(stage.config.num_steps for stage in curriculum.stages(get_config(name)))

    for name in set(ARMS) - {"control"}:  # cheaper steps, more of them
        assert steps(name) == steps("full")
    (stage,) = curriculum.stages(get_config("control"))
    assert (stage.config.algorithm, stage.config.sft.count_noise) == ("sft", 0.0)
    rewards = [stage.config.reward for stage in curriculum.stages(get_config("f1_only"))]
    assert [(reward.f1_weight, reward.iou_weight) for reward in rewards] == [(1.0, 0.0)] * len(rewards)
    assert get_config("f1_only").reward.iou_weight == 0.5  # that of the evaluations


def test_an_unknown_arm_is_named():
    with pytest.raises(ValueError, match="no arm 'best'; it has warmup, .*full"):
        get_config("best")


def test_jobs_need_what_comes_before_them(tmp_path):
    jobs = {job.name: job for job in plan(Place(tmp_path, tmp_path), ["full", "no_aux"], [3], quick=False)}
    assert [name for name in jobs if name.startswith("data_")] == [f"data_{folder}" for folder in DATA]
    assert jobs["full_3"].needs == ("warmup_3",)
    assert jobs["no_aux_3"].needs == ("warmup_no_aux_3",)
    assert f"--config.init_from={tmp_path}/runs/warmup_no_aux_3" in jobs["no_aux_3"].command
    assert "answers_warmup_3_mismatched" in jobs and "answers_no_aux_3_mismatched" not in jobs


def noting(path: Path, name: str, needs: tuple[str, ...] = (), code: int = 0) -> Job:
    """A job that adds its name to a file, and ends with a code."""
    text = f"open({str(path)!r}, 'a').write({name + ' '!r}); raise SystemExit({code})"
    return Job(name, (sys.executable, "-c", text), needs)


def test_jobs_run_after_what_they_need_and_only_once(tmp_path):
    done = tmp_path / "done"
    jobs = [noting(done, "c", ("a", "b")), noting(done, "b", ("a",)), noting(done, "a")]
    Runner(tmp_path, 2).run(jobs)
    Runner(tmp_path, 2).run([*jobs, noting(done, "d", ("c",))])
    assert done.read_text() == "a b c d "


def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--out=/dev/null/study"])
    assert ended.value.code == 2 and "nothing can be written in /dev/null" in capsys.readouterr().err


def test_out_and_data_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    places = []
    monkeypatch.setattr(command, "plan", lambda place, *_: places.append(place) or [])
    monkeypatch.setattr(command, "measure", lambda *_: [])
    monkeypatch.setattr(command, "write", lambda *_: None)
    assert command.main(["--out=~/study", "--data=~/pairs"]) == 0
    assert places == [Place(tmp_path / "study", tmp_path / "pairs")]


def test_a_failed_job_stops_the_others_and_is_tried_again(tmp_path):
    done = tmp_path / "done"
    with pytest.raises(Failed, match="logs/a.log"):
        Runner(tmp_path, 1).run([noting(done, "a", code=3), noting(done, "b", ("a",))])
    Runner(tmp_path, 1).run([noting(done, "a"), noting(done, "b", ("a",))])
    assert done.read_text() == "a a b "


def test_a_true_box_is_found_from_half_overlap_on():
    true_boxes = np.array([[0, 0, 0.4, 0.4], [0.5, 0.5, 1, 1]])
    boxes = np.array([[0, 0, 0.2, 0.4], [0.6, 0.6, 0.9, 0.9]])  # IoU 0.5 and 0.36
    assert measure.is_found(true_boxes, boxes).tolist() == [True, False]
    assert measure.is_found(true_boxes, np.zeros((0,))).tolist() == [False, False]


def test_answers_are_counted_by_number_and_kind_of_difference():
    box, other = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]
    truth = {
        "p": (("color", "add"), np.array([box, other])),
        "q": (("color",), np.array([box])),
        "r": ((), np.zeros((0, 4))),
    }
    answers = [
        {"id": "p", "boxes": [box], "num_true": 2, "num_predicted": 1, "f1": 2 / 3},
        {"id": "q", "boxes": [other], "num_true": 1, "num_predicted": 1, "f1": 0.0},
        {"id": "r", "boxes": [box, other], "num_true": 0, "num_predicted": 2, "f1": 0.0},
    ]
    figures = measure.answer_figures({"metrics": {}, "answers": answers}, truth)
    assert figures["numbers"] == {"0": 0.0, "1": 0.0, "2": pytest.approx(2 / 3)}
    assert figures["kinds"] == {"add": 0.0, "color": 0.5}
    assert figures["identical"] == {"right": 0.0, "false_boxes": 2.0}


def record(name: str, seed: int, *f1: float) -> measure.Record:
    """A run whose held-out F1 at the start and after each stage is given."""
    names = ("start", "single", "double", "mixed")
    stages = [
        {
            "name": stage,
            "step": 10 * n,
            "stage": max(n, 1),
            "mixed/f1": x,
            "mixed/iou": x,
            "mixed/reward_sampled": x,
            "single/f1": x,
        }
        for n, (stage, x) in enumerate(zip(names, f1, strict=False))
    ]
    return {
        "name": name,
        "seed": seed,
        "minutes": 2.0,
        "stages": stages,
        "curve": stages,
        "metrics": {"f1": f1[-1], "count_accuracy": 0.5, "precision": 0.5, "recall": 0.5},
        "numbers": {"0": f1[-1], "1": f1[-1]},
        "kinds": {"color": f1[-1]},
        "counts": {"0": 3, "1": 4, "color": 4},
        "identical": {"right": 0.5, "false_boxes": 0.25},
        "mismatched": None if name == "kl" else {"f1": 0.0},
    }


RECORDS = [
    *(record("warmup", seed, 0.0, 0.2) for seed in (0, 1)),
    record("full", 0, 0.2, 0.3, 0.4, 0.5),
    record("full", 1, 0.2, 0.3, 0.4, 0.7),
    record("control", 0, 0.2, 0.3),
    record("control", 1, 0.2, 0.4),
    record("kl", 0, 0.2, 0.3, 0.4, 0.6),
    record("kl", 1, 0.2, 0.3, 0.4, 0.6),
]


def test_tables_show_mean_and_spread_over_seeds_and_changes_seed_by_seed():
    text = tables.markdown(RECORDS)
    assert "2 seeds (0, 1)" in text
    full, kl = (
        next(line for line in text.splitlines() if line.startswith(f"| {tables.words_of(name)}"))
        for name in ("full", "kl")
    )
    assert "(`full`) | 0.200 ± 0.000 | 0.600 ± 0.141 | +0.400 ± 0.141 |  |" in full  # before, after, change
    assert "F1 of `full` above that of `control`: **+0.250 ± 0.071** (by seed: +0.200, +0.300)" in text
    assert "| `full` | +0.000 ± 0.141 |" in kl  # +0.1 and -0.1 against the full run of the same seed
    assert "| warm-up | 0.200 ± 0.000 | 0.000 ± 0.000 |" in text  # does it compare?
    assert "| color (4) |" in text


def test_results_are_written_as_tables_and_plots_that_can_be_read_back(tmp_path):
    command.write(RECORDS, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == RECORDS
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    (end,) = (
        row
        for row in rows
        if (row["name"], row["seed"], row["stage"], row["figure"]) == ("full", "1", "mixed", "mixed/f1")
    )
    assert (end["step"], end["value"]) == ("30", "0.7")
    for name in ("stages", "arms", "numbers", "kinds"):
        assert Image.open(tmp_path / f"{name}.png").width > 500


def test_plots_of_one_arm_alone_are_drawn(tmp_path):
    assert {path.stem for path in plots.draw([record("kl", 0, 0.1, 0.2)], tmp_path)} == {"arms"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiling")
def test_the_command_runs_a_study_of_two_steps_from_pairs_to_plots(tmp_path):
    numbers = {"single": (1,), "double": (2,), "mixed": (0, 1, 2), "final": (0, 1, 2)}
    for seed, (folder, counts) in enumerate(numbers.items()):
        splits = {
            split: [
                draw_pair(i, size=(64, 64), num_differences=counts[i % len(counts)], seed=10 * seed + part)
                for i in range(8)
            ]
            for part, split in enumerate(("train", "test"))
        }
        write_pairs(tmp_path / "data" / folder, splits)
    arguments = ["--quick", "--arms=full", "--seeds=0", "--jobs=2"]
    paths = [f"--out={tmp_path / 'out'}", f"--data={tmp_path / 'data'}"]
    assert command.main([*arguments, *paths]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(run["name"], len(run["stages"])) for run in results] == [("warmup", 2), ("full", 4)]
    assert results[0]["mismatched"] is not None
    assert (tmp_path / "out" / "stages.png").exists()


def test_the_minutes_of_a_run_are_those_of_its_steps_without_compilation(tmp_path):
    lines = [
        {"step": 1, "time/step": 100.0, "time/compile": 70.0},
        {"step": 2, "time/step": 30.0, "time/compile": 0.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert measure.minutes(tmp_path) == 1.0
