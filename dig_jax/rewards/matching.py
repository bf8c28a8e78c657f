"""One-to-one assignment of predicted to true boxes, on the host.

The problems are tiny (at most `max_boxes` by a handful) and different in size, which suits a solver on the
host better than a compiled program.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment


def assign(costs: np.ndarray, num_predicted: np.ndarray, num_true: np.ndarray) -> np.ndarray:
    """Finds, for each completion, the assignment of least total cost (the Hungarian method).

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
    for match, cost, rows, columns in zip(matches, costs, num_predicted, num_true, strict=True):
        predicted, true = linear_sum_assignment(cost[:rows, :columns])
        match[predicted] = true
    return matches
