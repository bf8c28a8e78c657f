"""How sure a score is: bootstrap intervals that resample whole groups of rows, and tests of paired answers.

Rows about one picture, or of one pair or rotation, are no independent draws, so whole groups are drawn. Some
scores count a group once, however many rows it has, and would take a group that is drawn twice for one. So a
resample is a random half of the groups, each once: the bootstrap with weights 0 and 2 instead of counts
(exchangeable weights; Praestgaard and Wellner, Annals of Probability 21, 1993). Half of the groups drawn
without replacement vary as much as all of them drawn with replacement: (1 - 1/2) / (n/2) = 1/n.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

DRAWS = 1000
LEVEL = 0.95

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Two models on the same rows, by the rows that one has right and the other wrong.

    Attributes:
      first: rows that the first alone has right.
      second: rows that the second alone has right.
      p: probability of counts so unequal or more, if both were equally likely (exact binomial test).
    """

    first: int
    second: int
    p: float


def halves(groups: Sequence[str], draws: int, seed: int) -> Iterator[np.ndarray]:
    """Resamples of rows: the rows int [k], ascending, of a random half of the groups, `draws` times.

    Args:
      groups: of each row.
      draws: resamples.
      seed: of the draws; the same groups and seed give the same.
    """
    _, numbers = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    count = int(numbers.max()) + 1
    rng = np.random.default_rng(seed)
    for number in range(draws):
        half = (count + number % 2) // 2  # of an odd number, the smaller and the larger half in turn
        chosen = np.zeros(count, bool)
        chosen[rng.permutation(count)[:half]] = True
        yield np.flatnonzero(chosen[numbers])


def resamples(
    scores: Callable[[np.ndarray], Mapping[str, float]],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Scores of resamples of the rows.

    Args:
      scores: row numbers int [k] -> name -> number: scores of these rows, or what they differ by.
      groups: of each row.
      draws: resamples.
      seed: of the draws.

    Returns:
      name -> float [draws], NaN where a resample has no such score; nothing where there are fewer than two
      groups.
    """
    if len(set(groups)) < 2:
        return {}
    drawn = [scores(rows) for rows in halves(groups, draws, seed)]
    names = dict.fromkeys(name for found in drawn for name in found)
    return {name: np.array([found.get(name, np.nan) for found in drawn], float) for name in names}


def interval(values: np.ndarray, level: float = LEVEL) -> Interval | None:
    """The ends of what lies between the outer percentiles; None if half of the values or more are NaN.

    Args:
      values: float [draws], of one score.
      level: share of the values that lie inside.
    """
    known = values[~np.isnan(values)]
    if len(known) <= len(values) / 2:
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(
    scores: Callable[[np.ndarray], Mapping[str, float]],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of scores that most resamples have; arguments as for `resamples`."""
    found = {
        name: interval(values) for name, values in resamples(scores, groups, draws=draws, seed=seed).items()
    }
    return {name: ends for name, ends in found.items() if ends is not None}


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Compares two models on the same rows.

    Args:
      first: bool [n], whether the first has each row right.
      second: the same of the second.
    """
    first_alone, second_alone = int((first & ~second).sum()), int((second & ~first).sum())
    unequal = first_alone + second_alone
    p = float(stats.binomtest(first_alone, unequal).pvalue) if unequal else 1.0
    return McNemar(first_alone, second_alone, p)
