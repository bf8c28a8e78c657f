"""Mixtures in a config: what a part has other than the run, what a stage changes, and what is refused."""

import json

import pytest
from etils import epath
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings
from dig_jax.run import curriculum
from dig_jax.run.mixture import parts

PHRASES = {"weight": 1.0, "task": "referring", "data": {"train": ("phrases",), "train_split": "val"}}


def config_of(mixture: dict, **changes) -> ConfigDict:
    config = base.get_config()
    config.data.train = ("pairs",)
    config.mixture = ConfigDict(mixture)
    config.update_from_flattened_dict(changes)
    return config


def test_a_run_without_a_mixture_has_one_part_without_a_name():
    config = config_of({})
    (part,) = parts(config)
    assert (part.name, part.share) == ("", 1) and part.config is config


def test_a_part_has_what_it_does_not_say_from_the_run_and_of_its_task_alone():
    changes = {
        "data.question": "Differences?",
        "data.augment.permute_channels": True,
        "sft.count_noise": 0.5,
        "rewards.weights": ("f1=1",),
    }
    config = config_of({"phrases": PHRASES, "all": {"weight": 3.0}}, **changes)
    settings.check(config)  # which would refuse to ask for phrases under these settings
    every, phrases = parts(config)  # in the order of their names
    assert (every.name, every.share, phrases.name, phrases.share) == ("all", 3, "phrases", 1)
    assert every.config.data.train == ("pairs",) and every.config.data.question == "Differences?"
    assert every.config.sft.count_noise == 0.5 and every.config.data.augment.permute_channels
    assert phrases.config.data.train == ("phrases",) and phrases.config.data.train_split == "val"
    assert phrases.config.data.question == "" and phrases.config.rewards.weights == ()
    assert not phrases.config.sft.count_noise and not phrases.config.data.augment.permute_channels
    assert config.data.train == ("pairs",) and config.task == "differences"  # as they were


def test_a_stage_changes_weights_and_adds_and_drops_parts():
    config = config_of({"few": {"weight": 1, "data": {"num_differences": (1,)}}, "phrases": PHRASES})
    config.curriculum.order = ("one", "two")
    added = {"weight": 2.5, "data": {"train": ("more",)}}
    config.curriculum.stages = ConfigDict(
        {"one": {}, "two": {"mixture": {"few": {"weight": 0}, "new": added}}}
    )
    settings.check(config)
    one, two = (parts(stage.config) for stage in curriculum.stages(config))
    assert [(part.name, part.share) for part in one] == [("few", 1), ("phrases", 1)]
    assert [(part.name, part.share) for part in two] == [("new", 5), ("phrases", 2)]
    assert curriculum.stages(config)[1].config.mixture.few.data.num_differences == (1,)


def test_data_that_no_part_reads_need_not_be_there(monkeypatch):
    monkeypatch.setattr(settings, "fingerprint_of_data", lambda folder, split: f"{split} of {folder}")
    config = config_of({"a": {"weight": 1, "data": {"train": ("one",)}}, "phrases": PHRASES})
    found = settings.data_fingerprints(config)
    assert found["mixture.a.data.train"] == ["train of one"]
    assert found["mixture.phrases.data.train"] == ["val of phrases"] and "data.train" not in found
    config.curriculum.order = ("s",)
    changed = {"mixture": {"a": {"data": {"train": ("two",)}}, "phrases": {"weight": 2}}}
    config.curriculum.stages = ConfigDict({"s": changed})
    found = settings.data_fingerprints(config)
    assert found["curriculum.stages.s.mixture.a.data.train"] == ["train of two"]
    assert found["mixture.phrases.data.train"] == ["val of phrases"]
    config.mixture = ConfigDict({"b": {"weight": 1}})
    config.curriculum.order = ()
    assert settings.data_fingerprints(config)["data.train"] == ["train of pairs"]


@pytest.mark.parametrize(
    ("mixture", "changes", "message"),
    [
        ({"a": {}}, {}, "config.mixture.a.weight is missing"),
        ({"a": {"weight": -1}}, {}, "config.mixture.a.weight=-1: expected a number from 0"),
        ({"a": {"weight": "1"}}, {}, "config.mixture.a.weight='1': expected a number"),
        ({"a": {"weight": 0}}, {}, "config.mixture: the weights of a are all 0"),
        ({"a": {"weight": 1.0}, "b": {"weight": 0.3333}}, {}, r"config.mixture \(a, b\): weights 1, 0.3333"),
        ({"a/b": {"weight": 1}}, {}, "config.mixture.a/b: a name is letters, digits and _"),
        (
            {"a": {"weight": 1, "tusk": "x"}},
            {},
            "config.mixture.a.tusk: a part can not set this; it can set weight",
        ),
        ({"a": {"weight": 1, "data": {"buckets": (1,)}}}, {}, "a.data.buckets: a part can not set this"),
        ({"a": {"weight": 1, "task": "nonsense"}}, {}, "config.mixture.a: there is no task 'nonsense'"),
        ({"a": {"weight": 1, "data": {"train": 3}}}, {}, "config.mixture.a.data.train=3"),
        (
            {"a": {"weight": 1}},
            {"data.train": ("",)},
            "config.mixture.a: config.data.train is empty",
        ),
        ({"a": {"weight": 1, "reward": {"f2": 1.0}}}, {}, "config.mixture.a.reward.f2=1.0"),
        (
            {"a": {"weight": 1, "task": "referring", "data": {"augment": {"swap_pair": True}}}},
            {},
            "config.mixture.a: config.data.augment.swap_pair=True: phrases name",
        ),
        (
            {"a": {"weight": 1}},
            {"data.group_sizes": True},
            "config.data.group_sizes=True makes batches of one part",
        ),
    ],
)
def test_wrong_parts_are_named(mixture, changes, message):
    with pytest.raises(ValueError, match=message):
        settings.check(config_of(mixture, **changes))


def test_a_wrong_part_of_a_stage_is_named_with_its_stage():
    config = config_of({"a": {"weight": 1}})
    config.curriculum.order, config.curriculum.stages = ("s",), ConfigDict({"s": {"mixture": {"b": {}}}})
    with pytest.raises(ValueError, match="stage s: config.mixture.b.weight is missing"):
        settings.check(config)


def test_a_mixture_is_part_of_the_run_and_one_from_before_there_were_any_goes_on(tmp_path):
    saved = epath.Path(tmp_path / "config.json")
    older = json.loads(config_of({}).to_json())
    del older["mixture"]
    saved.write_text(json.dumps(older))
    assert settings.check_resume(config_of({}), saved) == []
    with pytest.raises(ValueError, match="mixture.a.weight: None -> 1"):
        settings.check_resume(config_of({"a": {"weight": 1}}), saved)
