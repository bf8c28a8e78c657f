"""A graded reward: partial credit for every box, also where none overlaps a difference enough to count.

    python -m dig_jax.main --config=configs/quickstart.py --workdir=runs/graded \
      --reward_file=examples/graded_reward.py --config.rewards.weights='("task=1", "graded=0.5")'

F1 is 0 until a box reaches the threshold. `graded` rises from the first overlap on, and on the way to it as
well: a true and a predicted box that are matched count (1 + GIoU) / 2, and each box without a partner counts
0. The price: as many boxes over the whole image as there are differences earn about 0.5. So it is a help for
a first stage, beside the task's own reward, and no measure.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from dig_jax.data.example import Example
from dig_jax.tasks.boxes.text import read_boxes

MAX_BOXES = 16  # of an answer; one with more has not the right form


def reward(texts: list[str], examples: list[Example]) -> dict[str, list[float]]:
    """Terms by name, a number for each text."""
    pairs = zip(texts, examples, strict=True)
    return {"graded": [graded(text, np.asarray(example.target.boxes)) for text, example in pairs]}


def graded(text: str, true: np.ndarray) -> float:
    """In 0..1; only the right form earns anything, and an empty list where nothing differs earns 1."""
    answer = read_boxes(text, thinking=False, max_boxes=MAX_BOXES)
    count = max(len(answer.boxes), len(true))
    if not answer.valid or not count:
        return float(answer.valid)
    closeness = (1 + giou(answer.boxes, true)) / 2
    return float(closeness[linear_sum_assignment(-closeness)].sum()) / count


def giou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Generalised IoU of every pair, in -1..1: [N, 4], [M, 4] -> [N, M]."""
    a, b = a[:, None], b[None]
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    hull = (np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])).prod(-1)
    return shared / union - (hull - union) / hull
