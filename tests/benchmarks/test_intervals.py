"""Intervals of scores against what is known of them, and the test of paired answers against a table."""

import numpy as np
import pytest

from dig_jax.benchmarks import intervals


def accuracy(hits: np.ndarray):
    return lambda rows: {"acc": float(hits[rows].mean())}


def test_a_resample_is_half_of_the_groups_with_all_of_their_rows():
    groups = ["a", "b", "a", "c", "d", "c"]
    drawn = [tuple(groups[row] for row in rows) for rows in intervals.halves(groups, 200, seed=0)]
    assert {len(set(of_draw)) for of_draw in drawn} == {2}
    assert all(of_draw.count("a") in (0, 2) and of_draw.count("c") in (0, 2) for of_draw in drawn)
    assert len({frozenset(of_draw) for of_draw in drawn}) == 6  # all pairs of four groups
    odd = [len(set(rows)) for rows in intervals.halves(["a", "b", "c"], 4, seed=0)]
    assert odd == [1, 2, 1, 2]


def test_an_interval_of_independent_rows_is_that_of_the_binomial():
    hits = np.arange(1000) < 700
    low, high = intervals.intervals(accuracy(hits), [str(i) for i in range(1000)], draws=2000)["acc"]
    error = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == pytest.approx((0.7 - error, 0.7 + error), abs=0.003)


def test_rows_that_share_a_group_count_as_one():
    hits = np.repeat(np.arange(100) < 70, 10)  # ten rows of each of a hundred pictures, all right or none
    groups = [str(i // 10) for i in range(1000)]
    low, high = intervals.intervals(accuracy(hits), groups, draws=2000)["acc"]
    error = 1.96 * np.sqrt(0.7 * 0.3 / 100)
    assert (low, high) == pytest.approx((0.7 - error, 0.7 + error), abs=0.015)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), 0
    groups = [str(i // 2) for i in range(160)]
    for trial in range(200):
        easy = np.repeat(rng.random(80), 2)  # of each picture; both of its rows share it
        hits = rng.random(160) < easy
        low, high = intervals.intervals(accuracy(hits), groups, draws=200, seed=trial)["acc"]
        inside += low <= 0.5 <= high
    assert 180 <= inside <= 198  # of 200; 190 are expected


def test_a_score_without_enough_resamples_or_groups_has_no_interval():
    def scores(rows: np.ndarray) -> dict[str, float]:
        return {"all": 1.0} | ({"rare": 1.0} if 0 in rows and 1 in rows else {})

    groups = [str(i) for i in range(10)]
    assert intervals.intervals(scores, groups, draws=100) == {"all": (1.0, 1.0)}
    assert intervals.intervals(scores, ["a"] * 10) == {}


def test_the_same_seed_gives_the_same_interval():
    hits = np.random.default_rng(0).random(50) < 0.5
    groups = [str(i) for i in range(50)]
    one, again, other = (intervals.intervals(accuracy(hits), groups, draws=50, seed=s) for s in (1, 1, 2))
    assert one == again != other


def test_mcnemar_weighs_the_rows_that_one_model_alone_has_right():
    first = np.array([1] * 10 + [0] * 2 + [1] * 50, bool)
    second = np.array([0] * 10 + [1] * 2 + [1] * 50, bool)
    test = intervals.mcnemar(first, second)
    # 2 (1 + 12 + 66) / 2^12: twelve throws of a coin with at most two heads, or at most two tails.
    assert (test.first, test.second, test.p) == (10, 2, pytest.approx(158 / 4096))
    assert intervals.mcnemar(first, first).p == 1.0
