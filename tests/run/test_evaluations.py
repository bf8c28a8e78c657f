"""Evaluations as entries: what each is, and what is refused."""

import json

import pytest
from etils import epath
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings
from dig_jax.run.evaluations import Entry, entries


def config_of(evals: dict, **changes) -> ConfigDict:
    config = base.get_config()
    config.data.train, config.data.eval = ("pairs",), "pairs"
    config.evals = ConfigDict(evals)
    config.update_from_flattened_dict(changes)
    return config


def test_an_entry_takes_what_it_does_not_say_from_the_main_evaluation():
    phrases = {"task": "referring", "data": "other", "every": 20, "num_examples": 3}
    config = config_of({"phrases": phrases}, **{"data.eval_extra": ("single=one",), "eval.every": 10})
    settings.check(config)
    assert entries(config) == (
        Entry("", "differences", "pairs", "test", 10, 128),
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
            {"a": {"data": "x", "every": 10}},
            {"advance.metric": "a/reward_sampled", "advance.at": 0.5},
            "is waited for at every evaluation, but config.evals.a.every=10",
        ),
    ],
)
def test_wrong_entries_are_named(evals, changes, message):
    with pytest.raises(ValueError, match=message):
        settings.check(config_of(evals, **changes))


def test_a_run_goes_on_with_other_entries_and_from_before_there_were_any(tmp_path):
    saved = epath.Path(tmp_path / "config.json")
    older = json.loads(config_of({}).to_json())
    for key in ("evals", "task", "task_file", "rewards", "referring"):
        del older[key]
    saved.write_text(json.dumps(older))
    changed = settings.check_resume(config_of({"phrases": {"data": "x"}}), saved)
    assert changed == ["evals.phrases.data: None -> 'x'"]
    waiting = config_of({"phrases": {"data": "x"}}, **{"advance.at": 0.5})
    older["advance"]["at"] = 0.5
    saved.write_text(json.dumps(older))
    with pytest.raises(ValueError, match="evals.phrases.data: None -> 'x'"):
        settings.check_resume(waiting, saved)
