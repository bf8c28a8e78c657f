"""The stages of TinyGroundingGPT say what Table 6 of arXiv 2411.09691 says."""

import importlib
import keyword

import pytest

from dig_jax import settings
from dig_jax.run import curriculum, epochs, mixture

# Examples of a stage, where its length is in epochs.
EXAMPLES = {"align": 595_375, "caption": 595_375, "detail": 665_298 + 40_000 + 32_000}


@pytest.mark.parametrize("size", ["1_5b", "3b", "7b"])
def test_stages_are_those_of_table_6(size):
    config = importlib.import_module(f"configs.tiny_grounding_{size}").get_config()
    assert not any(map(keyword.iskeyword, config.curriculum.order))  # or no flag could name its settings
    config.lock()  # as the command line leaves it
    settings.check(config)
    counts = iter(EXAMPLES.values())
    stages = curriculum.stages(epochs.resolved(config, lambda stage: next(counts)))
    rows = [
        (
            stage.name,
            stage.config.optimizer.learning_rate,
            stage.config.batch.prompts // 8,
            stage.config.num_epochs,
            stage.config.num_steps,
            sorted(stage.freezing.now),
        )
        for stage in stages
    ]
    assert rows == [
        ("align", 1e-3, 32, 1, 2326, ["text", "vision"]),
        ("caption", 2e-5, 32, 1, 2326, ["vision"]),
        ("local", 2e-5, 32, 0, 17_016, ["vision"]),
        ("detail", 2e-5, 16, 2, 11_521, ["vision"]),
    ]
    for stage in stages:
        own = stage.config.optimizer
        assert (own.schedule, own.warmup_ratio, own.weight_decay, own.restart) == ("cosine", 0.03, 0, True)
        assert stage.total_updates == stage.config.num_steps  # a cosine of its own
    assert config.model_path == f"models/tiny-{size.replace('_', '.').upper()}"


def test_kinds_with_crops_have_the_shares_of_the_papers_data():
    config = importlib.import_module("configs.tiny_grounding_3b").get_config()
    (local,) = (stage for stage in curriculum.stages(config) if stage.name == "local")
    shares = {part.name: part.share for part in mixture.parts(local.config)}
    total = sum(shares.values())
    assert shares["located"] / total == pytest.approx(210 / 4356, rel=0.02)
    assert shares["named"] / total == pytest.approx(46 / 4356, rel=0.02)
    assert {part.config.task for part in mixture.parts(local.config)} == {
        "referring",
        "describe",
        "conversation",
    }
