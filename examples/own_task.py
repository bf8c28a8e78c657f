"""A task of your own: how many differences are there?

    python -m dig_jax.main --config=configs/quickstart.py --workdir=runs/count \
      --task_file=examples/own_task.py --config.task=count

docs/add_a_task.md explains each part.
"""

from typing import Any

import numpy as np

from dig_jax.data.example import Demonstration, Example, Shape, Turn
from dig_jax.data.records import PairSource, open_pairs
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.registry import register
from dig_jax.tasks.task import Metric, Scores, Task

MESSAGES = (Turn("user", ("Here are two images.", 0, 1, "How many differences? Answer with a number.")),)
NONE = np.zeros((0, 4))


@register
class Count(Task):
    name = "count"
    terms = ("right", "off_by")
    metrics = (Metric("right", "right number"), Metric("reward", "mean reward"))
    main = "right"
    notes = ("number", "no number")

    def open(self, folder: Any, split: str) -> Any:
        return Pairs(open_pairs(folder, split))

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        return Demonstration(str(example.target))

    def score(self, texts: Any, examples: Any) -> Scores:
        said = [text.rpartition("</think>")[2].strip() for text in texts]
        notes = tuple("number" if text.isdecimal() and len(text) < 4 else "no number" for text in said)
        numbers = [int(text) if note == "number" else 99 for text, note in zip(said, notes, strict=True)]
        off_by = np.abs(np.array(numbers, float) - [example.target for example in examples])
        terms = {"right": (off_by == 0).astype(float), "off_by": off_by}
        reward = np.float32(0.5) ** np.minimum(off_by, 20).astype(np.float32)
        return Scores(reward, terms, notes, tuple({"number": number} for number in numbers))

    def draw(self, example: Example, read: Any, caption: Any) -> Any:
        return draw_boxes(example.images, NONE, NONE, [f"{example.target} differences", *caption])


class Pairs:
    """What `Count.open` gives: examples by number, and their shapes before any image is decoded."""

    unusable = ()

    def __init__(self, pairs: PairSource):
        self.pairs, self.name = pairs, pairs.name

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        pair = self.pairs[index]
        return Example(pair.id, MESSAGES, (pair.image_a, pair.image_b), len(pair.boxes), "count")

    def shapes(self) -> list[Shape]:
        return [Shape(MESSAGES, ((int(h), int(w)),) * 2) for h, w in self.pairs.image_sizes()]
