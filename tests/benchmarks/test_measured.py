"""A benchmark as an evaluation of a run: a sample by the seed, scored as the whole is."""

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings
from dig_jax.benchmarks import measured, registry
from dig_jax.run import evaluations
from tests.benchmarks.test_golden import GOLDEN
from tests.helpers.tasks import answerer

TABLES = str(GOLDEN / "LMUData")


def opened(name: str, folder=TABLES, split: str = "", seed: int = 0):
    config = base.get_config()
    config.seed = seed
    task = measured.MeasuredBenchmark(registry.benchmark(name), config, answerer())
    return task, task.open(folder, split)


def test_examples_are_asked_as_the_benchmark_asks_in_an_order_of_the_seed():
    task, source = opened("mmstar")
    example = source[0]
    assert example.messages[0].parts[0] == 0
    assert example.messages[0].parts[1].endswith("Answer with the option letter only.")
    ids = [[opened("mmstar", seed=seed)[1][n].id for n in range(60)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2] and sorted(ids[0]) == sorted(ids[2])
    assert source.shapes()[0] == example.shape
    assert task.draw(example, {"answer": ""}, []).width > 100 and task.truth(example)["answer"]


def test_rotations_of_a_question_come_together_and_a_question_that_is_cut_is_left_out():
    task, source = opened("mmbench")
    examples = [source[number] for number in range(6)]  # two questions of two rotations, and two of three
    assert len({int(example.id) % 10**6 for example in examples}) == 3
    answers = [task.truth(example)["answer"] for example in examples]
    wrong = "B" if answers[0] == "A" else "A"
    terms = task.score([wrong, *answers[1:]], examples).all_terms
    figures = task.figures(terms)
    assert figures["score"] == figures["Overall"] == 0.5 and figures["hit"] == pytest.approx(5 / 6)


def test_scores_are_those_of_the_benchmark_and_of_several_answers_the_mean():
    task, source = opened("pope")
    examples = [source[number] for number in range(40)]
    texts = ["Yes", "No", "maybe", "no."] * 10
    terms = task.score(texts, examples).all_terms
    assert terms.keys() == {"reward", *task.terms}
    rows = [next(row for row in task._rows if row.index == example.id) for example in examples]
    marks = [task.benchmark.mark(row, text, task._reader) for row, text in zip(rows, texts, strict=True)]
    right = task.benchmark.aggregate(rows, marks)
    figures = task.figures(terms)
    assert {name.replace("/", "."): value for name, value in right.items()}.items() <= figures.items()
    assert figures["parsed"] == 0.75 and figures["score"] == right["Overall/Overall"]
    other = task.score(texts[::-1], examples).all_terms
    both = {name: np.stack([terms[name], other[name]], axis=1).reshape(-1) for name in terms}
    mean = (figures["score"] + task.figures(other)["score"]) / 2
    assert task.figures(both)["score"] == pytest.approx(mean)


def test_boxes_are_scored_by_iou_too():
    task, source = opened("refcoco")
    example = source[0]
    box = np.rint(np.multiply(task.truth(example)["boxes"][0], 1000)).astype(int).tolist()
    figures = task.figures(task.score([str(box)], [example]).all_terms)
    assert figures["score"] == 100 and figures["Average.Average IoU"] == pytest.approx(1, abs=0.02)


def config_of(entry: dict) -> ConfigDict:
    config = base.get_config()
    config.data.train, config.data.eval = ("pairs",), "pairs"
    config.evals = ConfigDict({"own": entry})
    return config


def test_an_entry_names_a_benchmark_in_place_of_a_task():
    config = config_of({"benchmark": "pope", "data": TABLES, "num_examples": 30})
    settings.check(config)
    entry = evaluations.entries(config)[1]
    assert (entry.task, entry.split, entry.benchmark) == ("yes_no", "", "pope")
    assert entry.config(config).task == "yes_no"
    assert measured.identity("pope", TABLES, "") != measured.identity("pope", TABLES, "random")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"benchmark": "popes", "data": "x"}, "config.evals.own.benchmark: there is no benchmark 'popes'"),
        ({"benchmark": "pope", "task": "choice", "data": "x"}, "the benchmark pope asks yes_no"),
        ({"benchmark": 3, "data": "x"}, "benchmark=3: expected a str"),
    ],
)
def test_entries_that_contradict_the_benchmark_are_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        settings.check(config_of(entry))


def test_the_files_of_a_benchmark_are_known_by_what_they_hold(tmp_path):
    text = epath.Path(TABLES, "MMStar.tsv").read_text()
    for name, of in (("a", text), ("b", text), ("c", text.replace('"left"', '"Left"'))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "MMStar.tsv").write_text(of)
    found = [measured.identity("mmstar", tmp_path / name, "") for name in "abc"]
    assert found[0] == found[1] != found[2]
