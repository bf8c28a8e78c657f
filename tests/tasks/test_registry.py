"""Tasks by name, and those of a user's file."""

import pytest

from configs import base
from dig_jax import settings
from dig_jax.tasks import registry
from dig_jax.tasks.task import Answerer
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.paths import ROOT

OWN = str(ROOT / "examples/own_task.py")
TEXT = (ROOT / "examples/own_task.py").read_text()


def test_the_tasks_of_this_package_are_found_by_name_and_others_are_refused_with_a_list():
    assert [registry.task_class(name).name for name in registry.MODULES] == list(registry.MODULES)
    with pytest.raises(ValueError, match=r"no task 'refering'; there are differences, referring"):
        registry.task_class("refering")


def test_the_task_of_a_file_is_found_and_the_file_is_run_once(tmp_path):
    first = registry.task_class("count", OWN)
    assert registry.task_class("count", OWN) is first
    config = base.get_config()
    config.task, config.task_file, config.data.train = "count", OWN, ("x",)
    settings.check(config)
    file = tmp_path / "mine.py"
    file.write_text(TEXT.replace('"count"', '"mine"'))
    assert registry.task_class("mine", str(file)).main == "right"
    file.write_text(file.read_text().replace('main = "right"', 'main = "reward"'))
    assert registry.task_class("mine", str(file)).main == "reward"  # the file as it is now


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers no task; see docs/add_a_task.md"),
        ("import nonsense", "ModuleNotFoundError: No module named 'nonsense'"),
        ("def f(:", "SyntaxError"),
        (None, "no such Python file"),
    ],
)
def test_a_file_that_is_no_good_is_named(tmp_path, text, message):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=rf"mine.py.*{message}"):
        registry.task_class("mine", str(file))


def test_a_task_needs_a_name_of_its_own_and_metrics_that_are_terms(tmp_path):
    registry.task_class("count", OWN)
    file = tmp_path / "other.py"
    file.write_text(TEXT)
    with pytest.raises(ValueError, match="'count' is none or taken"):
        registry.load_file(str(file))
    file.write_text(TEXT.replace('"count"', '"other"').replace('main = "right"', 'main = "wrong"'))
    with pytest.raises(ValueError, match="task other: wrong is a metric, but no term"):
        registry.load_file(str(file))


def test_the_task_of_the_example_scores_numbers(tmp_path):
    write_pairs(tmp_path, {"train": [draw_pair(0, num_differences=2)]})
    task = registry.task_class("count", OWN)(base.get_config(), Answerer(False, "thousandths", lambda s: s))
    source = task.open(tmp_path, "train")
    assert source.shapes()[0] == source[0].shape
    scores = task.score(["2", "3", "two", "</think> 2"], [source[0]] * 4)
    assert scores.reward[[0, 1, 3]].tolist() == [1, 0.5, 1] and scores.reward[2] < 1e-5
    assert task.summary(scores)["answer/no number"] == 0.25 and task.figures(scores.all_terms)["right"] == 0.5
    assert task.draw(source[0], scores.read[0], []).width > 700
