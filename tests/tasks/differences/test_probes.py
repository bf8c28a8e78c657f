"""Known ways to cheat a box reward, against honest half-right answers: the table of docs/reward.md."""

import json
from collections.abc import Callable

import numpy as np

from configs import base
from dig_jax.tasks.differences.reward import RewardConfig, score_texts
from tests.helpers.paths import DOCS

Boxes = list[list[int]]
PAGE = DOCS / "reward.md"
SCENES = 500  # per number of differences
MISSES = [[0, 480, 15, 495], [480, 0, 495, 15]]  # between the quarters that `true_boxes` draws in


def true_boxes(rng: np.random.Generator, count: int) -> Boxes:
    """Boxes of 80 to 240 thousandths, each in a quarter of the image of its own."""
    quarters = rng.permutation(4)[:count]
    corners = 20 + 500 * np.stack([quarters % 2, quarters // 2], axis=1) + rng.integers(0, 200, (count, 2))
    return np.concatenate([corners, corners + rng.integers(80, 240, (count, 2))], axis=1).tolist()


def half_overlapping(box: list[int]) -> list[int]:
    """A box whose IoU with this one is 1/2: its left half."""
    x0, y0, x1, y1 = box
    return [x0, y0, (x0 + x1) // 2 + (x1 - x0) % 2, y1]


def grid(per_side: int) -> Boxes:
    step = 1000 // per_side
    return [[x, y, x + step, y + step] for y in range(0, 1000, step) for x in range(0, 1000, step)]


PROBES: dict[str, Callable[[Boxes], Boxes]] = {
    "always 3 boxes": lambda truth: [[100, 100, 300, 300], [400, 400, 600, 600], [700, 700, 900, 900]],
    "the whole image": lambda truth: [[0, 0, 1000, 1000]],
    "a grid of 100 boxes": lambda truth: grid(10),
    "a grid of 16 boxes": lambda truth: grid(4),
    "one true box, twice": lambda truth: [truth[0]] * 2,
    "one true box, 16 times": lambda truth: [truth[0]] * 16,
    "every true box, twice": lambda truth: truth * 2,
    "the empty list": lambda truth: [],
}
HONEST: dict[str, Callable[[Boxes], Boxes]] = {
    "half of the differences": lambda truth: truth[: -(-len(truth) // 2)],
    "half of them, and as many wrong": lambda truth: (
        truth[: (len(truth) + 1) // 2] + MISSES[: len(truth) // 2]
    ),
    "every difference, at IoU 1/2": lambda truth: [half_overlapping(box) for box in truth],
}
COUNTS = (1, 2, 3, 4)


def mean_rewards(answer: Callable[[Boxes], Boxes]) -> list[float]:
    """The default reward of a strategy for 1, 2, 3 and 4 differences."""
    config = RewardConfig(**base.get_config().reward.to_dict())
    rng = np.random.default_rng(0)
    means = []
    for count in COUNTS:
        truths = [true_boxes(rng, count) for _ in range(SCENES)]
        scores = score_texts(
            [json.dumps(answer(truth)) for truth in truths],
            np.float32(truths) / 1000,
            np.full(SCENES, count),
            thinking=False,
            config=config,
        )
        means.append(float(scores.reward.mean()))
    return means


def test_no_probe_earns_what_an_honest_half_right_answer_earns():
    # The half of one difference is all of it: there the imprecise box is the half-right answer.
    honest = np.min([mean_rewards(answer) for answer in HONEST.values()], axis=0)
    for name, answer in PROBES.items():
        assert np.all(np.array(mean_rewards(answer)) < honest), name


def test_the_table_in_the_docs_holds_these_figures():
    rows = {**HONEST, **PROBES}
    table = "\n".join(
        f"| {name} | " + " | ".join(f"{reward:.3f}" for reward in mean_rewards(answer)) + " |"
        for name, answer in rows.items()
    )
    assert table in PAGE.read_text(), f"docs/reward.md should say\n{table}"
