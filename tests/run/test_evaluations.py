"""Evaluations as entries: what each is, and what is refused."""

import json

import pytest
from etils import epath
from ml_collections import ConfigDict

from configs import base
from dig_jax import report, settings
from dig_jax.run.evaluations import Entry, entries


def config_of(evals: dict, **changes) -> ConfigDict:
    config = base.get_config()
    config.data.train, config.data.eval = ("pairs",), "pairs"
    config.evals = ConfigDict(evals)
    config.update_from_flattened_dict(changes)
    return config


def test_an_entry_takes_what_it_does_not_say_from_the_run():
    phrases = {"task": "referring", "data": "other", "every": 20, "num_examples": 3}
    config = config_of({"phrases": phrases}, **{"data.eval_extra": ("single=one",), "eval.every": 10})
    settings.check(config)
    assert entries(config) == (
        Entry("main", "differences", "pairs", "test", 10, 128),
        Entry("single", "differences", "one", "test", 10, 128),
        Entry("phrases", "referring", "other", "test", 20, 3),
    )


def test_nothing_is_augmented_and_another_task_has_its_own_question_and_reward():
    changes = {
        "data.augment.permute_channels": True,
        "data.question": "Differences?",
        "rewards.weights": ("f1=1",),
    }
    config = config_of({"phrases": {"task": "referring", "data": "x"}}, **changes)
    settings.check(config)  # which would refuse to train on phrases under these settings
    main, phrases = (entry.config(config) for entry in entries(config))
    assert main.data.question == "Differences?" and main.rewards.weights == ("f1=1",)
    assert phrases.data.question == "" and phrases.rewards.weights == () and phrases.task == "referring"
    assert not any((main.data.augment.permute_channels, phrases.data.augment.permute_channels))
    assert config.data.augment.permute_channels


@pytest.mark.parametrize(
    ("evals", "changes", "message"),
    [
        (
            {"a": {"data": "x", "tusk": "y"}},
            {},
            "config.evals.a.tusk: an evaluation can set task",
        ),
        ({"a": {"task": "referring"}}, {}, "config.evals.a.data is missing"),
        ({"a/b": {"data": "x"}}, {}, "a name is letters, digits and _"),
        ({"a": {"data": "x", "every": 7}}, {}, "every=7: expected a multiple of config.eval.every=5"),
        ({"a": {"data": "x", "every": "7"}}, {}, "every='7': expected a int"),
        ({"a": {"data": "x", "num_examples": -1}}, {}, "num_examples=-1: must be at least 0"),
        ({"a": {"data": "x", "task": "nonsense"}}, {}, "evaluation a: there is no task 'nonsense'"),
        ({"a": {"data": "x"}}, {"data.eval": ""}, "config.evals is set, but config.data.eval"),
        ({"a": {"data": "x"}}, {"data.eval_extra": ("a=y",)}, "a name that config.data.eval_extra has, too"),
        (
            {"main": {"data": "x"}},
            {},
            "config.data.eval='pairs' is the data of .* 'main', and config.evals.main",
        ),
        (
            {},
            {"data.eval_extra": ("main=y",)},
            "config.data.eval='pairs' .* and config.data.eval_extra is, too",
        ),
        ({"main": {"every": 10}}, {}, "the main evaluation is that of every config.eval.every=5 steps"),
        ({}, {"eval.main": "a/b"}, "config.eval.main='a/b': a name is letters, digits and _"),
        (
            {"a": {"data": "x"}},
            {"advance.metric": "b/f1_sampled", "advance.at": 0.5},
            "config.advance.metric='b/f1_sampled' is of no evaluation; there are main, a",
        ),
        (
            {"a": {"data": "x", "every": 10}},
            {"advance.metric": "a/reward_sampled", "advance.at": 0.5},
            "is waited for at every evaluation, but config.evals.a.every=10",
        ),
    ],
)
def test_wrong_entries_are_named(evals, changes, message):
    with pytest.raises(ValueError, match=message):
        settings.check(config_of(evals, **changes))


def test_the_main_evaluation_is_an_entry_and_data_eval_is_short_for_its_data():
    config = base.get_config()
    config.data.train, config.eval.main = ("pairs",), "mixed"
    config.evals = ConfigDict({"single": {"data": "one"}, "mixed": {"data": "all", "num_examples": 3}})
    settings.check(config)
    mixed = Entry("mixed", "differences", "all", "test", 5, 3)
    assert entries(config) == (mixed, Entry("single", "differences", "one", "test", 5, 128))
    del config.evals.mixed.data
    config.data.eval, config.data.eval_extra = "all", ("single=one",)
    del config.evals.single
    assert entries(config)[0] == mixed and [entry.name for entry in entries(config)] == ["mixed", "single"]


def older(config: ConfigDict) -> dict:
    """What config.json of a version was that had `data.eval` and no entries."""
    written = json.loads(config.to_json())
    for key in ("evals", "task", "task_file", "rewards", "referring"):
        del written[key]
    del written["eval"]["main"]
    return written


def test_a_run_goes_on_with_other_entries_and_from_before_there_were_any(tmp_path):
    saved = epath.Path(tmp_path / "config.json")
    saved.write_text(json.dumps(older(config_of({}))))
    changed = settings.check_resume(config_of({"phrases": {"data": "x"}}), saved)
    assert changed == ["evals.phrases.data: None -> 'x'"]
    waiting = {"advance.at": 0.5}
    saved.write_text(json.dumps(older(config_of({}, **waiting))))
    with pytest.raises(ValueError, match="evals.phrases.data: None -> 'x'"):
        settings.check_resume(config_of({"phrases": {"data": "x"}}, **waiting), saved)


def test_the_same_evaluations_said_as_entries_are_no_other_run(tmp_path):
    """A run that waits for evaluations goes on where its config file has changed to entries, and back."""
    before = config_of({}, **{"data.eval_extra": ("single=one",), "advance.at": 0.5})
    stages = {"a": {"advance": {"metric": "single/f1_sampled"}}, "b": {"advance": {"metric": "f1_sampled"}}}
    before.curriculum.stages, before.curriculum.order = ConfigDict(stages), ("a", "b")
    now = before.copy_and_resolve_references()
    now.data.eval, now.data.eval_extra, now.eval.main = "", (), "mixed"
    now.evals = ConfigDict({"mixed": {"data": "pairs"}, "single": {"data": "one"}})
    now.curriculum.stages.b.advance.metric = "mixed/f1_sampled"
    settings.check(now)
    saved, noted = epath.Path(tmp_path / "config.json"), epath.Path(tmp_path / settings.DATA_FILE)
    saved.write_text(json.dumps(older(before)))
    noted.write_text(json.dumps({"data.eval": "1f", "data.eval_extra": ["single=2f"]}))
    found = {"evals.mixed.data": "1f", "evals.single.data": "2f"}
    assert settings.check_resume(now, saved, found) == []
    with pytest.raises(ValueError, match="evals.single.data: 'one' does not hold what it held"):
        settings.check_resume(now, saved, found | {"evals.single.data": "3f"})
    now.evals.mixed.data = "moved"  # the folder has another name and holds the same
    assert settings.check_resume(now, saved, found) == ["evals.mixed.data: 'pairs' -> 'moved'"]
    now.evals.mixed.data, now.eval.main = "pairs", "single"  # another one is the main one
    with pytest.raises(ValueError, match="eval.main: 'main' -> 'single'"):
        settings.check_resume(now, saved, found)


def test_lines_of_older_versions_get_the_name_of_the_main_evaluation(tmp_path):
    """Whether a run goes on, which writes them anew, or is only read."""
    old = {"step": 2, "f1": 0.5, "single/f1": 0.25, "stage": 1.0, "seconds": 3.0}
    new = {"step": 2, "mixed/f1": 0.5, "single/f1": 0.25, "stage": 1.0, "seconds": 3.0}
    (tmp_path / "evals.jsonl").write_text(json.dumps(old) + "\n")
    assert report.read_evals(tmp_path, "mixed") == [new]
    options = {"first_step": 2, "evaluated": 2, "tensorboard": False, "wandb_project": ""}
    report.MetricsWriter(tmp_path, main="mixed", **options).close()
    assert report.read_lines(tmp_path / "evals.jsonl") == [new]


def test_a_workdir_whose_main_evaluation_had_no_name_is_read_as_if_it_were_called_main(tmp_path, capsys):
    """tasks.json, evals.jsonl and config.json as a version before wrote them."""
    workdir = epath.Path(tmp_path)
    declared = {"metrics": {"reward": "mean reward", "hit": "found"}, "main": "hit", "charts": []}
    noted = {"training": {"referring": declared}, "held_out": {"": declared, "single": declared}}
    (workdir / "tasks.json").write_text(json.dumps(noted))
    (workdir / "config.json").write_text(json.dumps(older(config_of({}))))
    lines = [{"step": step, "hit": step / 10, "single/hit": 0.5, "seconds": 1.0} for step in (0, 5)]
    (workdir / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = report.Shown.read(workdir)
    assert shown.main == "main" and shown.held_out.keys() == {"main", "single"}
    report.print_before_after(workdir)
    printed = capsys.readouterr().out
    assert "found, greedy answers" in printed and "+0.500" in printed and "Held-out examples" in printed
    page = report.write_report(workdir).read_text()
    assert "single: found, greedy answers" in page and "main: " not in page


def test_lines_follow_where_the_main_evaluation_is_renamed(tmp_path):
    """Not where another one, which is there beside it, becomes the main one."""
    main, single = (
        report.Shown({}, {"main": None}, "main"),
        report.Shown({}, {"main": 1, "single": 2}, "single"),
    )
    renamed = report.Shown({}, {"mixed": None}, "mixed")
    assert (main.renamed(renamed), main.renamed(main), main.renamed(single)) == ("main", "", "")
    (tmp_path / "evals.jsonl").write_text('{"step": 0, "main/f1": 0.5, "single/f1": 0.25}\n')
    options = {"first_step": 0, "evaluated": 0, "tensorboard": False, "wandb_project": ""}
    report.MetricsWriter(tmp_path, main="mixed", formerly="main", **options).close()
    assert report.read_evals(tmp_path, "mixed") == [{"step": 0, "mixed/f1": 0.5, "single/f1": 0.25}]
