"""Benchmarks by name, and what is said of a part of one."""

import pytest

from dig_jax.benchmarks import registry
from dig_jax.benchmarks.benchmark import Completeness


def test_a_part_of_a_benchmark_is_never_taken_for_the_whole():
    assert str(Completeness("val", 1500, 1500)) == "1500/1500"
    assert str(Completeness("val", 30, 1500)) == "partial 30/1500"
    assert str(Completeness("val", 1501, 1500)) == "1501 rows, and 1500 are known"
    assert [Completeness("val", rows, 1500).complete for rows in (1500, 30, 1501)] == [True, False, False]
    assert Completeness("val", 30, None).complete


def test_an_unknown_benchmark_is_refused_by_name():
    with pytest.raises(ValueError, match="no benchmark 'mmstarr'"):
        registry.benchmark("mmstarr")
    with pytest.raises(ValueError, match="no benchmark 'MMStarr'"):
        registry.of_table("MMStarr")
