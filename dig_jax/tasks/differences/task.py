"""Differential grounding (arXiv 2512.12633): box every difference between two images of one scene."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import BadRecord, Demonstration, Example, Shape, Size, Turn
from dig_jax.data.records import Pair, PairSource, open_pairs
from dig_jax.data.settings import DataConfig
from dig_jax.tasks.boxes import privilege
from dig_jax.tasks.boxes.found import found_boxes
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.boxes.text import REASONS, BoxFormat
from dig_jax.tasks.differences.augment import Augment
from dig_jax.tasks.differences.noise import CountNoise
from dig_jax.tasks.differences.reward import METRICS, RewardConfig, score_texts
from dig_jax.tasks.registry import register
from dig_jax.tasks.supervision import box_format
from dig_jax.tasks.task import Answerer, Metric, Scores, Task, Terms

# It never tells how many differences there are: finding that out is the task.
_QUESTION = (
    "The two images show almost the same scene. There may be no difference between them, one, or several: "
    "an object may have been added or removed, or its color, material, shape, size, position, orientation "
    "or texture may have changed. Ignore noise. Find every difference and give a bounding box for each. "
    "Boxes are relative to the image: if a changed object looks different or lies elsewhere in the other "
    "image, the box must enclose it in both. {boxes} Answer [] if there is no difference."
)


def question(boxes: BoxFormat, size: Size) -> str:
    """The text after two images of this size, for models that write boxes so."""
    return _QUESTION.replace("{boxes}", boxes.instruction(size))


@register
class Differences(Task):
    """The two images first, then the question; the target is the `Pair`."""

    name = "differences"
    terms = tuple(name for name in METRICS if name != "reward")
    metrics = (
        Metric("format", "right form"),
        Metric("f1", "F1"),
        Metric("iou", "mean IoU"),
        Metric("reward", "mean reward"),
    )
    main = "f1"
    notes = REASONS
    privileges = privilege.KINDS
    charts = (
        (
            "Share of answers",
            (
                ("right form", "reward/format"),
                ("no difference", "reward/no_difference"),
                ("cut", "rollout/truncated"),
            ),
        ),
        ("Boxes per answer", (("predicted", "reward/num_predicted"), ("true", "reward/num_true"))),
    )

    def __init__(self, config: ConfigDict, answerer: Answerer):
        super().__init__(config, answerer)
        self.boxes = box_format(config, answerer)
        self._counts = DataConfig.from_config(config).num_differences
        self._reward = RewardConfig.from_config(config)
        self._augment = Augment(**config.data.augment.to_dict())
        self._noise = CountNoise(config.sft.count_noise, config.sft.count_noise_boxes)

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses wrong settings of the reward and of the answers to learn."""
        RewardConfig.from_config(config)
        CountNoise(config.sft.count_noise, config.sft.count_noise_boxes)

    @property
    def unit(self) -> str:
        """What its examples are called, with what narrows them down."""
        return f"pairs with {sorted(self._counts)} differences" if self._counts else "pairs"

    def open(self, folder: epath.PathLike, split: str) -> DifferencesSource:
        """The pairs of a `dig_pairs` dataset with the wanted numbers of differences."""
        return DifferencesSource(open_pairs(folder, split), self, self._counts)

    def question(self, sizes: Sequence[Size]) -> str:
        """The text after two images."""
        if len(sizes) != 2:
            raise ValueError(f"no text: the model's own question is about two images, not {len(sizes)}")
        asked = self.config.data.question
        if asked:
            return self.boxes.fill(asked, sizes[0])
        return question(self.boxes, sizes[0])

    def messages(self, size: Size) -> tuple[Turn, ...]:
        """The question about two images of this size."""
        return (Turn("user", (0, 1, self.question((size, size)))),)

    def example(self, pair: Pair) -> Example:
        """The question about a pair."""
        images = (pair.image_a, pair.image_b)
        return Example(pair.id, self.messages(pair.size), images, pair, self.name)

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """The pair with a random subset of the enabled changes."""
        image_a, image_b = example.images
        shown = dataclasses.replace(example.target, image_a=image_a, image_b=image_b)
        return self.example(self._augment(shown, rng))

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The true boxes, or with `sft.count_noise` another number of boxes, the false ones as context."""
        pair = example.target
        named = self._noise(pair.boxes, rng)
        text = self.boxes.write(named.boxes, pair.size)
        unlearned = []
        for box in named.boxes[~named.true]:
            coordinates = self.boxes.write(box[None], pair.size)[2:-2]
            first = text.index(f"[{coordinates}]") + 1
            unlearned.append((first, first + len(coordinates)))
        return Demonstration(text, tuple(unlearned), {1: pair.boxes})

    def privileged(self, example: Example, kind: str) -> Example:
        """The pair with the boxes of its differences given away in both images."""
        images = privilege.shown(example.images, example.target.boxes, kind)
        return dataclasses.replace(example, images=images)

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """The DiG reward of each answer."""
        most = self._reward.max_boxes
        counts = np.array([len(example.target.boxes) for example in examples], np.int32)
        true = np.zeros((len(texts), most, 4), np.float32)  # of one shape, so that nothing compiles anew
        for row, example in enumerate(examples):
            true[row, : counts[row]] = example.target.boxes
        scales = [self.boxes.scale(example.sizes[0]) for example in examples]
        thinking = self.answerer.thinking
        scores = score_texts(texts, true, counts, thinking=thinking, config=self._reward, scales=scales)
        terms = {name: getattr(scores, name) for name in self.terms}
        read = tuple({"boxes": boxes.tolist()} for boxes in scores.boxes)
        return Scores(scores.reward, terms, scores.reasons, read)

    def summary(self, scores: Scores) -> dict[str, float]:
        """As of any task, and `no_difference`: the share of answers of a valid form that name none.

        Where it falls to 0, identical pairs teach nothing any more: all their completions earn alike.
        """
        none = (scores.terms["format"] == 1) & (scores.terms["num_predicted"] == 0)
        return super().summary(scores) | {"no_difference": float(np.mean(none))}

    def figures(self, terms: Terms) -> dict[str, float]:
        """What an evaluation says.

        Returns:
            Means of `format`, `f1`, `iou`, `precision`, `recall`, `reward`; `count_accuracy`, the share with
            as many boxes as there are differences; `f1_at_<M>` over the pairs with M differences.
        """
        num_true = terms["num_true"]
        names = ("format", "f1", "iou", "precision", "recall", "reward")
        figures = {name: terms[name].mean() for name in names}
        # Text that is no list names no number, not even the 0 of an identical pair.
        right = (terms["num_predicted"] == num_true) & (terms["format"] == 1)
        figures["count_accuracy"] = right.mean()
        for count in np.unique(num_true):
            figures[f"f1_at_{count}"] = terms["f1"][num_true == count].mean()
        return {name: float(value) for name, value in figures.items()}

    def truth(self, example: Example) -> dict[str, Any]:
        """The true boxes, and what changed in each."""
        return {"boxes": example.target.boxes.tolist(), "kinds": list(example.target.kinds)}

    def found(self, read: Mapping[str, Any], truth: Mapping[str, Any]) -> list[bool]:
        """The differences that are boxed, as the reward counts them."""
        reward = self._reward
        costs = (reward.iou_threshold, reward.l1_weight, reward.giou_weight)
        return found_boxes(read["boxes"], truth["boxes"], *costs).tolist()

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """Both images with true and predicted boxes."""
        predicted = np.asarray(read["boxes"], np.float32).reshape(-1, 4)
        return draw_boxes(example.images, example.target.boxes, predicted, caption)


class DifferencesSource:
    """The pairs of one split as examples.

    Args:
      pairs: all of the split.
      task: makes the examples.
      num_differences: only pairs with these numbers of differences; empty for all.
    """

    def __init__(self, pairs: PairSource, task: Differences, num_differences: Sequence[int]):
        self.name = pairs.name
        self._pairs = pairs
        self._task = task
        self._most = task.config.reward.max_boxes
        self._wanted = np.arange(len(pairs))
        self.unusable: list[tuple[int, BadRecord]] = []
        if num_differences:
            counts = pairs.num_differences()
            self._wanted = np.flatnonzero(np.isin(counts, list(num_differences)))
            self.unusable = [(int(i), self._why_unreadable(int(i))) for i in np.flatnonzero(counts < 0)]

    def __len__(self) -> int:
        return len(self._wanted)

    def __getitem__(self, index: int) -> Example:
        """The question about pair number `index` of the wanted ones. Raises BadRecord."""
        pair = self._pairs[int(self._wanted[index])]
        if len(pair.boxes) > self._most:
            raise ValueError(f"{pair.id}: has {len(pair.boxes)} differences, max_boxes is {self._most}.")
        return self._task.example(pair)

    def shapes(self) -> list[Shape | None]:
        """The shape of every pair; None where it cannot be read."""
        sizes = [(int(height), int(width)) for height, width in self._pairs.image_sizes()[self._wanted]]
        known = {size: self._shape(size) for size in set(sizes)}
        return [known[size] for size in sizes]

    def _shape(self, size: Size) -> Shape | None:
        try:
            return Shape(self._task.messages(size), (size, size)) if min(size) else None
        except ValueError:  # no model takes images of this shape: whoever plans for them says so
            return Shape((Turn("user", (0, 1)),), (size, size))

    def _why_unreadable(self, index: int) -> BadRecord:
        try:
            self._pairs[index]
        except BadRecord as error:
            return error
        return BadRecord(f"{self.name}, pair {index}: it could not be read a moment ago")
