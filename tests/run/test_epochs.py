"""Lengths in epochs become steps, stage by stage."""

import pytest
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings
from dig_jax.run import curriculum, epochs


def config_of(**changes: object) -> ConfigDict:
    config = base.get_config()
    config.data.train = ("pairs",)
    config.batch.prompts = config.batch.update_prompts = 256
    config.update(changes)
    return config


def by_name(stage: ConfigDict) -> int:
    """As many examples as the folder's name says."""
    return int(stage.data.train[0])


def test_steps_are_the_passes_over_the_examples_rounded_up():
    config = config_of(num_epochs=1.0)
    config.data.train = ("595375",)
    settings.check(config)
    assert epochs.resolved(config, by_name).num_steps == 2326  # 595,375 / 256 = 2325.7
    assert config.num_steps == 45  # the settings given stay as they are
    config.num_epochs, config.data.train = 2.0, ("512",)
    assert epochs.resolved(config, by_name).num_steps == 4
    config.num_epochs = 1e-6
    assert epochs.resolved(config, by_name).num_steps == 1


def test_each_stage_has_its_own_length():
    config = config_of()
    config.curriculum.order = ("align", "tune", "align", "plain")
    config.curriculum.stages = ConfigDict(
        {
            "align": {"num_epochs": 1.0, "data": {"train": ("1000",)}},
            "tune": {
                "num_epochs": 2.0,
                "data": {"train": ("1000",)},
                "batch": {"prompts": 128, "update_prompts": 128},
            },
            "plain": {"num_steps": 7},
        }
    )
    settings.check(config)
    found = curriculum.stages(epochs.resolved(config, by_name))
    assert [stage.config.num_steps for stage in found] == [4, 16, 4, 7]
    assert found[0].total_updates == 4 + 16 + 4 + 7


def test_a_stage_with_two_lengths_is_refused():
    config = config_of(num_epochs=1.0)
    config.curriculum.order = ("only",)
    config.curriculum.stages = ConfigDict({"only": {"num_steps": 7}})
    with pytest.raises(ValueError, match="stages.only.num_steps=7 and num_epochs=1 both say"):
        epochs.resolved(config, by_name)
    config.curriculum.stages.only.num_epochs = 0.0
    assert curriculum.stages(epochs.resolved(config, by_name))[0].config.num_steps == 7


def test_without_epochs_nothing_is_opened():
    config = config_of()
    assert epochs.with_steps(config) is config
