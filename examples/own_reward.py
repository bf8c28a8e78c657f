"""A reward of your own: short answers, and boxes that are not all alike.

    python -m dig_jax.main --config=configs/quickstart.py --workdir=runs/own_reward \
      --reward_file=examples/own_reward.py --config.rewards.weights='("task=1", "brevity=0.1", "spread=0.1")'

docs/add_a_reward.md explains it.
"""

import json

from dig_jax.data.example import Example

LONG = 200  # characters: an answer of this length or more is not brief at all


def reward(texts: list[str], examples: list[Example]) -> dict[str, list[float]]:
    """Terms by name, a number for each text."""
    return {
        "brevity": [max(0.0, 1 - len(text) / LONG) for text in texts],
        "spread": [spread(text) for text in texts],
    }


def spread(text: str) -> float:
    """The share of boxes that no other box of the answer equals; 1 for none, 0 for text that is no list."""
    try:
        boxes = [tuple(box) for box in json.loads(text)]
        return len(set(boxes)) / len(boxes) if boxes else 1.0
    except (ValueError, TypeError, RecursionError):  # whatever a policy says, a reward must not raise
        return 0.0
