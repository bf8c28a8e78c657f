"""A million strings of the kind that a policy may emit while it learns: all read, all scored."""

import random
import time

import numpy as np
import pytest

from configs import base
from dig_jax.tasks.boxes.text import REASONS, read_boxes
from dig_jax.tasks.differences.reward import RewardConfig, score_texts

TOTAL, BATCH = 1_000_000, 20_000
MILLISECONDS_PER_KILOBYTE = 10

NUMBERS = [
    *"0 1 7.5 -3 999 1000 1001 1e3 1e999 -1e999 NaN Infinity -Infinity 00012 1_000 0x10 -0 +5 .5 5.".split(),  # noqa: SIM905
    *("9" * 400, "0." + "1" * 400, "\u0661\u0662", "\uff11", "\u00b2"),
]
TOKENS = [
    *"[ ] [[ ]] { } , : \" ' \\ ` ``` null true false [] [[]] {} [1,2,3,4] [400,300,200,100]".split(),  # noqa: SIM905
    *(", ", "```json\n", "\n", "\t", " ", "</think>", "<think>", '"</think>"'),
    *("[" * 50, "]" * 50, '{"a":' * 30),
    *('"bbox_2d":', '"label": "a"', '"bbox_2d": "', '{"bbox_2d":[1,2,3,4]}'),
    *("The cube ", "image 1: ", "box "),
    *("\0", "\ud800", "\u2028", "\U0001f600"),
]


def hostile(rng: random.Random) -> str:
    """A list of boxes with a few things wrong, or a heap of tokens, now and then a long one."""
    if rng.random() < 0.5:
        pieces = rng.choices(TOKENS + NUMBERS, k=rng.randrange(25))
        return "".join(pieces) * (rng.randrange(1, 200) if rng.random() < 0.01 else 1)
    boxes = [numbers(rng) for _ in range(rng.choice([1, 2, 3, 20]))] * rng.choice([1, 1, 1, 2])
    pieces = list("[" + ",".join("[" + ",".join(box) + "]" for box in boxes) + "]")
    for _ in range(rng.choice([0, 0, 1, 3])):
        where = rng.randrange(len(pieces))
        pieces[where : where + rng.randrange(3)] = [rng.choice(TOKENS)]
    return "".join(pieces)


def numbers(rng: random.Random) -> list[str]:
    """The numbers of a proper box, some of them replaced."""
    x, y = (sorted((rng.randrange(1001), rng.randrange(1001))) for _ in range(2))
    return [rng.choice(NUMBERS) if rng.random() < 0.02 else str(c) for c in (x[0], y[0], x[1], y[1])]


@pytest.mark.slow
def test_a_million_hostile_strings_are_read_and_scored():
    rng = random.Random(0)
    config = RewardConfig(**base.get_config().reward.to_dict())
    truth = np.broadcast_to(np.float32([[0.1, 0.1, 0.3, 0.3], [0.6, 0.1, 0.8, 0.3]]), (BATCH, 2, 4))
    reasons: set[str] = set()
    for batch in range(TOTAL // BATCH):
        texts = [hostile(rng) for _ in range(BATCH)]
        thinking = batch % 2 == 1
        for text in texts:
            start = time.thread_time()
            answer = read_boxes(text, thinking=thinking, max_boxes=config.max_boxes)
            milliseconds = 1000 * (time.thread_time() - start)
            assert milliseconds <= MILLISECONDS_PER_KILOBYTE * max(1.0, len(text) / 1000), repr(text)
            if len(boxes := answer.boxes):
                assert boxes.min() >= 0 and boxes.max() <= 1, repr(text)
                assert np.all(boxes[:, :2] < boxes[:, 2:]), repr(text)
            reasons.add(answer.reason)
        scores = score_texts(texts, truth, np.arange(BATCH) % 3, thinking=thinking, config=config)
        assert scores.reward.min() >= 0 and scores.reward.max() <= 1
    assert reasons == set(REASONS)  # the strings reach every branch
