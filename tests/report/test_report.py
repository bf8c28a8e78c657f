"""What a run writes for its reader; and that a run which is killed leaves the same as one that was not."""

import json
import re
import subprocess
import sys
import types
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dig_jax.evaluate import Answer
from dig_jax.report import MetricsWriter, print_before_after, read_lines, write_report
from dig_jax.report.curves import line_chart
from tests.helpers.drawn_pairs import draw_pair as drawn_pair
from tests.helpers.tasks import asked, pairs_task

TERMS = {"reward": 0.55, "f1": 0.5, "iou": 0.5, "format": 1.0}


def writer(workdir, first_step: int = 0) -> MetricsWriter:
    return MetricsWriter(
        workdir, first_step=first_step, evaluated=first_step, tensorboard=False, wandb_project=""
    )


def answer(index: int = 0, text: str = "[]") -> Answer:
    example = asked(drawn_pair(index))
    return Answer(example.id, text, {"boxes": []}, TERMS, example)


def sample(run: MetricsWriter, step: int, number: int, answer: Answer) -> None:
    """Keeps an answer as the log of a run does."""
    task, example = pairs_task(), answer.example
    run.sample(step, number, answer, task.truth(example), task.draw(example, answer.read, [answer.text]))


def write_steps(workdir, first: int, last: int) -> None:
    """Steps first + 1 .. last of a run that evaluates after every second one."""
    run = writer(workdir, first)
    for step in range(first + 1, last + 1):
        run.step(step, {"reward/reward": step / 10, "grpo/kl": 0.0})
        if step % 2 == 0:
            run.evaluation(step, {"main/f1": step / 10, "main/format": 1.0})
            sample(run, step, 0, answer())
    run.close()


def contents(workdir) -> dict[str, bytes]:
    return {
        str(path.relative_to(workdir)): path.read_bytes() for path in workdir.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("killed_at", [4, 5, 6])
def test_a_run_killed_after_its_checkpoint_at_step_4_ends_with_the_same_files(tmp_path, killed_at):
    write_steps(tmp_path / "whole", 0, 8)
    write_steps(tmp_path / "killed", 0, killed_at)
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "rewa')  # killed in the middle of a line
    write_steps(tmp_path / "killed", 4, 8)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_new_run_drops_what_a_run_killed_before_its_first_checkpoint_left(tmp_path):
    write_steps(tmp_path, 0, 3)
    write_steps(tmp_path, 0, 1)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1]
    assert read_lines(tmp_path / "evals.jsonl") == []


def test_a_store_that_cannot_append_receives_the_same_files(tmp_path, monkeypatch):
    write_steps(tmp_path / "local", 0, 6)
    monkeypatch.setattr("dig_jax.report.writer._is_remote", lambda path: True)
    write_steps(tmp_path / "store", 0, 5)
    write_steps(tmp_path / "store", 4, 6)
    assert contents(tmp_path / "store") == contents(tmp_path / "local")


def test_each_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    run = writer(tmp_path)
    run.step(1, {"loss": 0.5})
    assert read_lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]
    run.close()


def test_non_finite_metrics_become_null_so_that_every_line_is_json(tmp_path):
    run = writer(tmp_path)
    run.step(1, {"loss": float("nan"), "kl": float("inf"), "reward": np.float32(0.5)})
    run.close()
    assert (
        tmp_path / "metrics.jsonl"
    ).read_text() == '{"step": 1, "loss": null, "kl": null, "reward": 0.5}\n'


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nbroken\n{"step": 3}\n')
    with pytest.raises(ValueError, match="metrics.jsonl, line 2"):
        read_lines(tmp_path / "metrics.jsonl")


def test_a_sample_keeps_its_picture_text_boxes_and_terms(tmp_path):
    run = writer(tmp_path)
    text = 'unsure\u2028[[1,2,3,4]] "\ud800"'  # a line separator and a lone surrogate
    sample(run, 5, 2, answer(index=7, text=text))
    run.close()
    [line] = read_lines(tmp_path / "samples" / "samples.jsonl")
    assert line["text"] == text and line["picture"] == "step000005_02.png" and line["f1"] == 0.5
    np.testing.assert_allclose(line["true_boxes"], drawn_pair(7).boxes)
    assert Image.open(tmp_path / "samples" / line["picture"]).width > 700


def test_tensorboard_events_are_written_when_asked_for(tmp_path):
    run = MetricsWriter(tmp_path, first_step=0, evaluated=-1, tensorboard=True, wandb_project="")
    run.step(1, {"loss": 0.5})
    run.evaluation(1, {"f1": 0.25})
    sample(run, 1, 0, answer())
    run.close()
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"loss" in events and b"eval/f1" in events and b"samples/00" in events


def test_importing_the_report_imports_neither_torch_nor_tensorboard():
    code = (
        "import sys, dig_jax.report; print(sorted({'torch', 'tensorboardX', 'wandb'} & sys.modules.keys()))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_wandb_asked_for_but_not_installed_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match="config.log.wandb_project='dig'.*pip install wandb"):
        MetricsWriter(tmp_path, first_step=0, evaluated=-1, tensorboard=False, wandb_project="dig")


def test_a_wandb_run_is_known_by_an_id_of_its_own_and_goes_on_under_it_where_the_workdir_is_moved(
    tmp_path, monkeypatch
):
    asked = []
    wandb = types.SimpleNamespace(init=lambda **options: asked.append(options), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)

    def begin(workdir, first_step):
        options = {"evaluated": -1, "tensorboard": False, "wandb_project": "dig"}
        MetricsWriter(workdir, first_step=first_step, **options).close()
        return asked[-1]["id"]

    one, other = begin(tmp_path / "a/run", 0), begin(tmp_path / "b/run", 0)
    assert one != other and asked[-1]["name"] == "run"
    (tmp_path / "a/run").rename(tmp_path / "a/moved")
    assert begin(tmp_path / "a/moved", 3) == one
    assert begin(tmp_path / "begun_before_there_was_an_id", 3) == "begun_before_there_was_an_id"


class Outline(HTMLParser):
    """Tags of a page, its text, and the links it would load."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_page_with_table_charts_pictures_and_settings(tmp_path):
    write_steps(tmp_path, 0, 8)
    (tmp_path / "config.json").write_text(json.dumps({"algorithm": "grpo", "num_steps": 8}))
    page = Outline(write_report(tmp_path).read_text())
    assert "8 of 8 steps" in page.text
    assert re.search(r"F1, greedy answers\s*0.200\s*0.800\s*\+0.600", page.text)
    assert page.tags.count("use") == 4 * 2  # both pictures of the pair, at all four evaluations
    assert page.tags.count("image") == 2  # and each of them is on the page once
    assert page.tags.count("svg") == 3 + 8 + 1  # held-out accuracy, training reward, KL; pictures
    assert '"num_steps": 8' in page.text
    assert all(link.startswith(("data:", "#")) for link in page.links)


def test_of_a_model_with_experts_the_report_shows_their_load_and_what_replay_changes(tmp_path):
    run = writer(tmp_path)
    for step in (1, 2):
        run.step(step, {"grpo/expert_share_max": 0.2, "grpo/expert_entropy": 0.9, "moe/gap_live_mean": 0.1})
    run.step(3, {"moe/gap_replayed_mean": 0.05, "moe/flipped_responses": 0.01})
    run.close()
    page = Outline(write_report(tmp_path).read_text())
    for title in ("largest share", "evenness", "gap of log-probs", "flipped choices"):
        assert title in page.text, title
    assert page.tags.count("svg") == 4  # and none in "All other metrics"
    assert "unused" not in page.text


def write_stages(workdir) -> None:
    """Two steps of `a`, then two of `b`, evaluated on a second held-out set as well."""
    (workdir / "config.json").write_text(json.dumps({"curriculum": {"order": ["a", "b"]}}))
    run = writer(workdir)
    run.evaluation(0, {"f1": 0.1, "other/f1": 0.2, "stage": 1})
    for step in range(1, 5):
        run.step(step, {"reward/reward": step / 10, "stage": 1 + (step > 2)})
    run.evaluation(2, {"f1": 0.3, "other/f1": 0.4, "stage": 1})
    run.evaluation(3, {"f1": 0.9, "other/f1": 0.9, "stage": 2})
    run.evaluation(4, {"f1": 0.7, "other/f1": 0.6, "stage": 2})
    run.close()


def test_the_report_of_several_stages_has_a_column_for_each_and_marks_where_they_begin(tmp_path):
    write_stages(tmp_path)
    text = write_report(tmp_path).read_text()
    page = Outline(text)
    assert "stages a, b" in page.text and "4 steps, the last in b" in page.text
    assert re.search(r"start\s*a\s*b\s*change\s*F1, greedy answers\s*0.100\s*0.300\s*0.700", page.text)
    assert re.search(r"other: F1, greedy answers\s*0.200\s*0.400\s*0.600", page.text)
    assert page.tags.count("svg") == 3  # held-out accuracy, that of the other set, training reward
    assert text.count('class="mark"') == 3  # where b begins


def test_a_chart_marks_what_its_lines_reach_and_escapes_the_labels():
    points = [(step, 0.0) for step in range(10, 20)]
    marks = [(0, "gone"), (5, "<first>"), (15, "second"), (30, "to come")]
    chart = line_chart("metric", [("metric", points)], x_label="step", marks=marks)
    assert "&lt;first&gt;" in chart and "second" in chart
    assert "gone" not in chart and "to come" not in chart
    assert chart.count('class="mark"') == 1  # the first begins before the chart does


def test_text_of_the_model_cannot_break_the_page(tmp_path):
    run = writer(tmp_path)
    sample(run, 1, 0, answer(text="</pre><script>alert(1)</script>\ud800"))
    run.close()
    page = Outline(write_report(tmp_path).read_text())
    assert "script" not in page.tags and "<script>alert(1)</script>" in page.text


def test_the_report_of_an_empty_workdir_is_a_page(tmp_path):
    assert "0 steps" in Outline(write_report(tmp_path).read_text()).text


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.floats(-1e30, 1e30, allow_subnormal=False)),
        min_size=1,
        max_size=50,
    )
)
def test_a_chart_keeps_every_line_inside_its_frame(points):
    chart = line_chart("metric", [("metric", sorted(points))], x_label="step")
    [path] = re.findall(r'points="([^"]*)"', chart)
    for place in path.split():
        x, y = map(float, place.split(","))
        assert 52 <= x <= 448 and 17.9 <= y <= 200.1


def test_a_chart_of_a_long_run_has_a_bounded_size():
    chart = line_chart("metric", [("metric", [(step, step % 7) for step in range(100_000)])], x_label="step")
    assert len(chart) < 20_000


def test_before_and_after_are_printed_as_a_table(tmp_path, capsys):
    write_steps(tmp_path, 0, 8)
    print_before_after(tmp_path)
    printed = capsys.readouterr().out
    assert re.search(r"F1, greedy answers\W+0.200\W+0.800\W+\+0.600", printed)


def test_nothing_is_printed_for_a_run_without_evaluations(tmp_path, capsys):
    print_before_after(tmp_path)
    assert capsys.readouterr().out == ""
