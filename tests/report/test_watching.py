"""What one sees of a run while it trains: a group, the same pairs over steps, what is found, the worst pairs;
and several runs on one page.
"""

import json
import re
import types

import numpy as np
import pytest

from dig_jax.evaluate import Answer
from dig_jax.report import MetricsWriter, read_lines, write_report
from dig_jax.report.__main__ import main
from dig_jax.report.curves import line_chart
from dig_jax.report.series import band
from dig_jax.report.slices import size_name, slices_of, worst
from dig_jax.report.trackers import Boxes, Trackers
from dig_jax.update.group import most_told
from tests.helpers.drawn_pairs import draw_pair
from tests.helpers.tasks import asked, pairs_task
from tests.report.test_report import Outline

TASK = pairs_task()


def writer(workdir) -> MetricsWriter:
    return MetricsWriter(workdir, first_step=0, evaluated=-1, tensorboard=False, wandb_project="")


def answer(index: int, differences: int, found: int, reward: float) -> Answer:
    """An answer to a drawn pair that boxes the first `found` of its differences."""
    example = asked(draw_pair(index, num_differences=differences))
    boxes = example.target.boxes[:found].tolist()
    terms = {"reward": reward, "f1": reward, "format": 1.0}
    return Answer(example.id, str(boxes), {"boxes": boxes}, terms, example, TASK.truth(example))


def group_of(rewards: list[list[float]]):
    """The group that is chosen of prompts whose completions earned this."""
    count, size = len(rewards), len(rewards[0])
    examples = [asked(draw_pair(index)) for index in range(count)]
    tokens = np.arange(count * size * 3).reshape(count, size, 3)
    mask = np.ones(tokens.shape)
    mask[:, 0, 2] = 0  # the first completion of every prompt has two tokens
    rollout = types.SimpleNamespace(tokens=tokens, mask=mask, finished=np.ones((count, size), bool))
    reads = tuple({"boxes": []} for _ in range(count * size))
    terms = {"reward": np.ravel(rewards), "f1": np.zeros(count * size)}
    scores = types.SimpleNamespace(read=reads, all_terms=terms)
    completions = types.SimpleNamespace(rollout=rollout, scores=scores)
    batch = types.SimpleNamespace(rows=np.arange(count), examples=examples)
    earned = np.array(rewards)
    return most_told(TASK, batch, completions, earned, earned - 0.5, earned > 0)


def test_the_group_shown_is_the_one_whose_completions_differ_the_most():
    group = group_of([[0.5, 0.5], [0.0, 1.0], [0.4, 0.5]])
    assert group.example.id == draw_pair(1).id and group.truth == TASK.truth(group.example)
    assert group.tokens == [[6, 7], [9, 10, 11]]
    assert group.terms["reward"].tolist() == [0.0, 1.0] and group.advantages.tolist() == [-0.5, 0.5]
    assert group.learnt.tolist() == [False, True]


def test_a_group_is_a_table_with_the_best_completion_first(tmp_path):
    run = writer(tmp_path)
    run.group(5, group_of([[0.0, 1.0]]), ["<bad>", "good"])
    run.close()
    page = Outline(write_report(tmp_path).read_text())
    assert "2 completions of drawn-0-00000, which training step 5 learnt from" in page.text
    assert page.text.index("good") < page.text.index("<bad>")
    assert re.search(r"good\+0.50.*<bad>-0.50.*not learnt", page.text)
    assert page.tags.count("use") == 2 * 2 and page.tags.count("image") == 2


def test_a_pair_is_shown_at_steps_spread_over_the_run_with_the_boxes_of_each(tmp_path):
    run = writer(tmp_path)
    for step in range(0, 90, 10):
        one = answer(0, 1, found=int(step >= 40), reward=0.5)
        run.sample(step, 0, one, one.truth, TASK.draw(one.example, one.read, []))
    run.close()
    text = write_report(tmp_path).read_text()
    assert re.findall(r"<b>step (\d+)</b>", text) == ["0", "20", "30", "50", "60", "80"]
    assert text.count('class="predicted"') == 3 * 2  # from step 40 on, on both pictures
    assert text.count('class="true"') == 6 * 2
    assert len(list((tmp_path / "samples").glob("*.webp"))) == 2


def test_found_boxes_are_counted_by_kind_size_and_number():
    answers = [answer(0, 2, found=1, reward=0.5), answer(1, 2, found=2, reward=1.0)]
    answers.append(answer(2, 0, found=0, reward=1.0))
    slices = slices_of(TASK, answers)
    assert slices["kind"] == {"color": [3, 4]}
    assert slices["number"] == {"0": [1.0, 1], "2": [1.5, 2]}
    assert sum(count for _, count in slices["size"].values()) == 4
    assert [size_name([0, 0, side, side]) for side in (0.04, 0.05, 0.1, 0.5)] == [
        *("below 5 % of a side", "5 to 10 %", "10 to 20 %", "20 % and more")
    ]


def test_the_page_compares_what_was_found_first_with_what_is_found_now(tmp_path):
    run = writer(tmp_path)
    run.slices(0, {"kind": {"color": [1, 4], "gone": [0, 1]}, "number": {"1": [0.5, 5]}})
    run.slices(9, {"kind": {"color": [3, 4], "new": [1, 1]}, "number": {"1": [2.5, 5]}})
    run.close()
    page = Outline(write_report(tmp_path).read_text())
    assert "color40.250.75+0.50" in page.text and "new11.00" in page.text
    assert "f1, step 0" in page.text and "150.100.50+0.40" in page.text


def test_the_worst_answers_are_those_of_the_newest_evaluation_alone(tmp_path):
    answers = [answer(index, 1, 0, reward) for index, reward in enumerate([0.5, 0.1, 0.9, 0.1])]
    elsewhere = Answer("far", "", {"boxes": []}, {"reward": 0.0, "f1": 0.0}, None)
    chosen = worst(TASK, [*answers, elsewhere], 2)
    assert [one.id for one in chosen] == [draw_pair(1).id, draw_pair(3).id]
    run = writer(tmp_path)
    for step, shown in ((0, answers[:1]), (5, chosen)):
        run.worst(step, [(one, one.truth, TASK.draw(one.example, one.read, [])) for one in shown])
    run.close()
    folder = tmp_path / "samples"
    assert [line["id"] for line in read_lines(folder / "worst.jsonl")] == [one.id for one in chosen]
    assert sorted(path.name for path in folder.glob("*.png")) == ["worst_00.png", "worst_01.png"]
    assert "worst answers" in write_report(tmp_path).read_text()


def test_the_spread_of_a_reward_is_that_in_its_groups_and_of_a_mean_how_sure_it_is():
    line = {"step": 3, "reward/reward": 0.5, "reward/std_in_group": 0.2, "main/f1": 0.9, "main/f1_se": 0.1}
    assert band([line], "reward/reward") == [(3, 0.3, 0.7)]
    assert band([line], "main/f1") == [(3, pytest.approx(0.704), 1.0)]  # what is a share stays one
    assert band([line | {"main/f1": 9.0}], "main/f1") == [(3, pytest.approx(8.804), pytest.approx(9.196))]
    assert band([line], "grpo/kl") == []


def test_a_chart_keeps_the_colour_of_a_line_and_its_band_where_another_line_is_empty():
    chart = line_chart("t", [("a", []), ("b", [(0, 1.0), (1, 2.0)])], "step", bands={"b": [(0, 0.0, 2.0)]})
    assert 'polyline class="line1"' in chart and 'polygon class="line1"' in chart


def write_run(workdir, rate: float, f1: float) -> None:
    run = writer(workdir)
    for step in (1, 2):
        run.step(step, {"reward/reward": f1 / 2, "grpo/kl": 0.0})
    run.evaluation(2, {"main/f1": f1, "main/f1_se": 0.05})
    run.close()
    (workdir / "config.json").write_text(json.dumps({"seed": 0, "optimizer": {"learning_rate": rate}}))


def test_several_runs_are_compared_on_one_page(tmp_path, capsys):
    for name, rate, f1 in (("slow", 0.1, 0.25), ("<fast>", 0.2, 0.5)):
        write_run(tmp_path / name, rate, f1)
    out = tmp_path / "both.html"
    main([str(tmp_path / "slow"), str(tmp_path / "<fast>"), f"--out={out}"])
    assert capsys.readouterr().out == f"{out}\n"
    page = Outline(out.read_text())
    assert "main: F1, greedy answers0.250 \u00b1 0.0980.500 \u00b1 0.098" in page.text
    assert "optimizer.learning_rate0.10.2" in page.text and "seed" not in page.text
    assert page.tags.count("svg") == 3  # F1, reward, KL, with a line of each run
    assert page.tags.count("polyline") == 6 and "fast" not in page.tags


def test_runs_of_one_name_are_told_apart_and_what_is_no_run_is_refused(tmp_path, capsys):
    for name in ("a/run", "b/run"):
        write_run(tmp_path / name, 0.1, 0.5)
    main([str(tmp_path / "a/run"), str(tmp_path / "b/run"), f"--out={tmp_path / 'both.html'}"])
    assert "a/run: 2 steps" in (tmp_path / "both.html").read_text()
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a")])
    assert "a is no workdir of a run: it has no metrics.jsonl" in capsys.readouterr().err


def test_the_page_of_one_run_is_written_anew_beside_it(tmp_path):
    write_run(tmp_path / "run", 0.1, 0.5)
    main([str(tmp_path / "run")])
    assert "2 steps" in (tmp_path / "run/report.html").read_text()


def test_wandb_gets_the_images_as_they_are_with_boxes_as_overlays(monkeypatch):
    logged = []
    wandb = types.SimpleNamespace(Image=lambda image, boxes=None: (image, boxes))
    monkeypatch.setitem(__import__("sys").modules, "wandb", wandb)
    run = types.SimpleNamespace(log=lambda values, step: logged.append((step, values)))
    image = np.zeros((4, 8, 3), np.uint8)
    boxes = Boxes([[0, 0, 0.5, 1]], [[0.5, 0, 1, 1]], ["color"])
    Trackers(None, run).sample(7, 1, None, [image], boxes)
    [(step, values)] = logged
    [(shown, overlays)] = values["samples/01"]
    assert step == 7 and shown is image
    assert overlays["ground_truth"]["box_data"] == [
        {
            "position": {"minX": 0.0, "minY": 0.0, "maxX": 0.5, "maxY": 1.0},
            "class_id": 1,
            "box_caption": "color",
        }
    ]
    assert overlays["predictions"]["box_data"][0]["box_caption"] == "predicted"
