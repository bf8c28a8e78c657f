"""The learning rate of every update: the schedule, and a warm-up that is a number or a share of updates."""

import math

import pytest

from configs import base
from dig_jax.update.optimizer import OptimizerConfig


def optimizer(**changes: object) -> OptimizerConfig:
    config = base.get_config()
    config.optimizer.update(changes)
    return OptimizerConfig.from_config(config)


def test_a_warm_up_of_a_share_is_one_of_as_many_updates_rounded_up():
    cosine = {"learning_rate": 2e-5, "schedule": "cosine"}
    share = optimizer(warmup_ratio=0.03, **cosine)
    assert share.warmup(2324) == 70 and share.warmup(1) == 1  # 69.72, and a run too short for a share
    rates, same = share.learning_rates(2324), optimizer(warmup_updates=70, **cosine).learning_rates(2324)
    assert all(float(rates(update)) == float(same(update)) for update in (0, 1, 69, 70, 71, 1200, 2323))
    assert float(rates(70)) == pytest.approx(2e-5)
    middle = 2e-5 * (1 + math.cos(math.pi / 2)) / 2
    assert float(rates(70 + (2324 - 70) // 2)) == pytest.approx(middle) and float(rates(2324)) < 1e-12


def test_a_length_is_free_only_where_no_rate_depends_on_it():
    assert not optimizer(warmup_updates=5).depends_on_length
    assert optimizer(warmup_ratio=0.1).depends_on_length and optimizer(schedule="cosine").depends_on_length


@pytest.mark.parametrize(
    "changes", [{"warmup_ratio": 1.0}, {"warmup_ratio": -0.1}, {"warmup_ratio": math.nan}]
)
def test_a_warm_up_of_everything_is_refused(changes):
    with pytest.raises(ValueError, match="warmup_ratio=.*less than 1"):
        optimizer(**changes)


def test_two_lengths_of_the_warm_up_are_refused():
    with pytest.raises(ValueError, match="both say how long"):
        optimizer(warmup_ratio=0.1, warmup_updates=3)
