"""One-to-one assignment of predicted to true boxes, on the host: exact, whatever the numbers of boxes.

The problems are tiny and different in size, which suits the host better than a compiled program. Most have so
few assignments that all of them can be tried, for every completion with as many boxes at once, in less time
than it takes to call a solver for each; the rest go to scipy one by one.
"""

from functools import cache
from itertools import permutations
from math import perm

import numpy as np
from scipy.optimize import linear_sum_assignment

# Assignments of one problem up to which all are tried: 5 boxes with 5, or 6 with 4.
_TRIED = 360


def assign(costs: np.ndarray, num_predicted: np.ndarray, num_true: np.ndarray) -> np.ndarray:
    """Finds, for each completion, the assignment of least total cost.

    Every predicted box gets a true box or the reverse, whichever are fewer: min(num_predicted, num_true)
    pairs.

    Args:
      costs: [n, N, M], finite where both boxes exist.
      num_predicted: int [n].
      num_true: int [n].

    Returns:
      int32 [n, N]: the index of the true box matched to each predicted box, -1 for unmatched and padding.
    """
    matches = np.full(costs.shape[:2], -1, np.int32)
    size = num_predicted * (costs.shape[2] + 1) + num_true  # one number per pair of numbers
    size = size.astype(np.min_scalar_type(size.max(initial=0)))  # short integers are sorted much faster
    by_size = np.argsort(size, kind="stable")
    for rows in np.split(by_size, np.flatnonzero(np.diff(size[by_size])) + 1):
        if not rows.size:
            continue
        predicted, true = int(num_predicted[rows[0]]), int(num_true[rows[0]])
        if not predicted or not true:
            continue
        if perm(max(predicted, true), min(predicted, true)) <= _TRIED:
            matches[rows, :predicted] = _try_all(costs[rows, :predicted, :true])
        else:
            for row in rows:
                chosen = linear_sum_assignment(costs[row, :predicted, :true])
                matches[row, chosen[0]] = chosen[1]
    return matches


def _try_all(costs: np.ndarray) -> np.ndarray:
    """Solves problems of one size [n, N, M] by the total of every assignment; matches [n, N]."""
    count, predicted, true = costs.shape
    by_pair = np.ascontiguousarray(costs.reshape(count, predicted * true).T, np.float64)  # [N * M, n]
    pairs, matches = _assignments(predicted, true)
    totals = by_pair.take(pairs[0], axis=0)  # in float64 a sum of a few float32 costs is as good as exact
    for pair in pairs[1:]:
        totals += by_pair.take(pair, axis=0)
    return matches[totals.argmin(axis=0)]  # the first of the best


@cache
def _assignments(predicted: int, true: int) -> tuple[np.ndarray, np.ndarray]:
    """All A assignments: their pairs as indices into N * M, [min(N, M), A]; and as matches, int32 [A, N]."""
    if predicted <= true:
        matches = np.array(list(permutations(range(true), predicted)), np.int32)
        return (np.arange(predicted) * true + matches).T.copy(), matches
    chosen = np.array(list(permutations(range(predicted), true)), np.int32)  # [A, M]
    matches = np.full((len(chosen), predicted), -1, np.int32)
    np.put_along_axis(matches, chosen, np.arange(true, dtype=np.int32)[None], axis=1)
    return (chosen * true + np.arange(true)).T.copy(), matches
