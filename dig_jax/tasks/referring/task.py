"""Referring expressions: box the one object that a phrase describes, or say that there is none.

    hit      = 1 if the box has IoU >= iou_threshold with the true one, else 0
    accuracy = hit_weight * hit + iou_weight * IoU
    reward   = (1 - format_weight) * accuracy + format_weight * format

The answer is a JSON list of one box, or `[]` where nothing fits: then hit = IoU = 1 for a valid `[]` alone.
Of several boxes the first counts, and the form is wrong, so more boxes never earn more. With `referring.bare`
the answer is the box alone, `[x0,y0,x1,y1]`, as in texts of other tasks, and the question says no more.
Accuracy at IoU 0.5, as published for RefCOCO, is the mean of `hit` over phrases that fit something:
`hit_on_some`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import Demonstration, Example, Shape, Size, Source, Turn
from dig_jax.data.records import open_records
from dig_jax.data.tokenizer import THINK_END
from dig_jax.machines.folder import to_path
from dig_jax.tasks.aligned import WRITTEN, AlignedSource, is_aligned, text_of
from dig_jax.tasks.boxes import privilege
from dig_jax.tasks.boxes.found import found_boxes
from dig_jax.tasks.boxes.iou import IOU_SLACK, paired_iou
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.boxes.text import REASONS
from dig_jax.tasks.referring.files import RefCocoSource, open_file
from dig_jax.tasks.referring.records import RecordSource
from dig_jax.tasks.referring.target import Target
from dig_jax.tasks.registry import register
from dig_jax.tasks.supervision import box_format
from dig_jax.tasks.task import Answerer, Metric, Scores, Task, Terms

_OF_ONE = 'Find the one object that this phrase describes: "{phrase}". '
_OF_TWO = (
    'The two images show almost the same scene, and this happened from the first to the second: "{phrase}".'
    " Find the object. The box must enclose it in both images. "
)
_BARE = "\nOutput the coordinate of {phrase}"  # TinyGroundingGPT's prompt, section 4.2
_ANSWER = "{boxes} Answer [] if the phrase fits nothing."

_ALIGNED = ("T-C", "I-C")  # kinds of items that are answered by a box

# A phrase with one of these words is not true any more when its image is mirrored.
_SIDEWAYS = {"left", "right", "leftmost", "rightmost", "clockwise", "counterclockwise", "west", "east"}
_UPRIGHT = {
    *("top", "bottom", "upper", "lower", "above", "below", "under", "over", "up", "down", "on", "beneath"),
    *(
        "front",
        "back",
        "behind",
        "nearest",
        "farthest",
        "closest",
        "near",
        "far",
        "north",
        "south",
        "standing",
    ),
    *("clockwise", "counterclockwise", "upside", "highest", "lowest"),
}


@dataclasses.dataclass(frozen=True)
class ReferringConfig:
    """Settings of the reward; the formula is in the module's docstring.

    Attributes:
      hit_weight: of a box that overlaps enough. With `iou_weight` at most 1.
      iou_weight: of the IoU.
      format_weight: share of the format reward, in 0..1.
      iou_threshold: IoU from which a box is a hit, above 0, at most 1.
      bare: the answer is the box alone, in no list.
    """

    hit_weight: float
    iou_weight: float
    format_weight: float
    iou_threshold: float
    bare: bool

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"referring.{name} is {value}; expected a number from 0 to 1")
        if not 0 < self.hit_weight + self.iou_weight <= 1 + 1e-9:
            raise ValueError(
                f"referring.hit_weight + referring.iou_weight is {self.hit_weight + self.iou_weight};"
                " expected more than 0 and at most 1, so that the reward stays within 0..1"
            )
        if not self.iou_threshold:
            raise ValueError("referring.iou_threshold is 0; a box that lies anywhere would be a hit")


@register
class Referring(Task):
    """The image or images first, then the question; the target is a `Target`."""

    name = "referring"
    terms = ("accuracy", "format", "hit", "iou", "num_predicted", "num_true")
    metrics = (
        Metric("format", "right form"),
        Metric("hit", "box found"),
        Metric("iou", "mean IoU"),
        Metric("reward", "mean reward"),
    )
    main = "hit"
    notes = REASONS
    privileges = privilege.KINDS
    charts = (("Boxes per answer", (("predicted", "reward/num_predicted"), ("true", "reward/num_true"))),)

    def __init__(self, config: ConfigDict, answerer: Answerer):
        super().__init__(config, answerer)
        self.boxes = box_format(config, answerer)
        self._reward = ReferringConfig(**config.referring.to_dict())

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses wrong settings of the reward, a question without its phrase, and changes of colors."""
        ReferringConfig(**config.referring.to_dict())
        if config.data.question and "{phrase}" not in config.data.question:
            raise ValueError(
                f"config.data.question={config.data.question!r} does not say where the phrase goes: write"
                " {phrase} there"
            )
        if config.sft.count_noise:
            raise ValueError(
                f"config.sft.count_noise={config.sft.count_noise}: an answer to a phrase has one box or none;"
                " set it to 0"
            )
        for name in ("transpose", "swap_pair", "permute_channels"):
            if config.data.augment[name]:
                raise ValueError(
                    f"config.data.augment.{name}=True: phrases name colors, places and changes, so images can"
                    " only be mirrored for the task referring; set it to False"
                )

    @property
    def unit(self) -> str:
        """What its examples are called."""
        return "phrases"

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """The phrases of `dig_pairs`, aligned records, TFDS's `ref_coco`, or files (`files`)."""
        path = to_path(folder)
        if path.exists():
            found = open_file(path, split, self.config.data.images, self.ask, self.name)
            if found is not None:
                return found
        records = open_records(path, split)
        if records.has("id", "image_a", "image_b", "descriptions", "bboxes"):
            return RecordSource(records, self.ask, self.name)
        if is_aligned(records):
            return AlignedSource(records, _ALIGNED, self.name, self._aligned, self.boxes)
        if records.has("image", "objects"):
            return RefCocoSource(records, self.ask, self.name)
        raise ValueError(f"{folder} has no phrases: it is neither of dig_pairs, data_gen.align nor ref_coco")

    def _aligned(self, turns: Sequence[Turn], size: Size) -> Target:
        """The box that an item is answered by, as exact as it is written there."""
        read = WRITTEN.read(f"[{text_of(turns[-1])}]", size, thinking=False, max_boxes=1)
        if not read.valid:
            raise ValueError(f"its answer is {text_of(turns[-1])!r}, and no box")
        return Target(text_of(turns[0]), read.boxes)

    def ask(self, phrase: str, sizes: tuple[Size, ...]) -> Shape:
        """The question about a phrase and one image, or two."""
        question = self.config.data.question
        if question:
            question = self.boxes.fill(question, sizes[0])
        elif self._bare(sizes):
            question = _BARE
        else:
            question = (_OF_ONE if len(sizes) == 1 else _OF_TWO) + _ANSWER
            question = question.replace("{boxes}", self.boxes.instruction(sizes[0]))
        text = question.replace("{phrase}", phrase)
        return Shape((Turn("user", (*range(len(sizes)), text)),), sizes)

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """Mirrored as `data.augment` says, where the phrase stays true."""
        settings = self.config.data.augment
        words = set(example.target.phrase.lower().replace(",", " ").replace(".", " ").split())
        sideways, upright = rng.random(2) < 0.5
        images, boxes = example.images, example.target.boxes.copy()
        if settings.flip_horizontal and sideways and not words & _SIDEWAYS:
            images = tuple(image[:, ::-1] for image in images)
            boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
        if settings.flip_vertical and upright and not words & _UPRIGHT:
            images = tuple(image[::-1] for image in images)
            boxes[:, [1, 3]] = 1 - boxes[:, [3, 1]]
        target = dataclasses.replace(example.target, boxes=boxes)
        return dataclasses.replace(example, images=images, target=target)

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The true box, or []."""
        boxes, last = example.target.boxes, _whole(example)[-1]
        text = self.boxes.write(boxes, example.sizes[0])
        if self._bare(_whole(example)) and len(boxes):
            text = text[1:-1]
        return Demonstration(text, regions={last: boxes})

    def privileged(self, example: Example, kind: str) -> Example:
        """The images that are shown whole, with the box of the phrase given away."""
        images = list(example.images)
        for number in set(_whole(example)):
            (images[number],) = privilege.shown([images[number]], example.target.boxes, kind)
        return dataclasses.replace(example, images=tuple(images))

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """IoU, hit and form of each answer."""
        thinking, reward = self.answerer.thinking, self._reward
        readings = [
            self.boxes.read(self._as_list(text, example), example.sizes[0], thinking=thinking, max_boxes=1)
            for text, example in zip(texts, examples, strict=True)
        ]
        predicted = [reading.boxes for reading in readings]
        true = [example.target.boxes for example in examples]
        valid = np.array([reading.valid for reading in readings], bool)
        num_predicted, num_true = (np.array([*map(len, boxes)], np.int32) for boxes in (predicted, true))
        ious = paired_iou(_first_or_zeros(predicted), _first_or_zeros(true))
        rightly_none = valid & (num_predicted == 0) & (num_true == 0)
        iou = np.where(rightly_none, 1.0, np.where((num_predicted > 0) & (num_true > 0), ious, 0.0))
        hit = iou >= reward.iou_threshold - IOU_SLACK
        accuracy = np.clip(reward.hit_weight * hit + reward.iou_weight * iou, 0, 1)
        total = (1 - reward.format_weight) * accuracy + reward.format_weight * valid
        return Scores(
            np.clip(total, 0, 1).astype(np.float32),
            {
                "accuracy": accuracy.astype(np.float32),
                "format": valid.astype(np.float32),
                "hit": hit.astype(np.float32),
                "iou": iou.astype(np.float32),
                "num_predicted": num_predicted,
                "num_true": num_true,
            },
            tuple(reading.reason for reading in readings),
            tuple({"boxes": boxes.tolist()} for boxes in predicted),
        )

    def _bare(self, images: Sequence[object]) -> bool:
        return self._reward.bare and len(images) == 1

    def _as_list(self, text: str, example: Example) -> str:
        """An answer as the list that is read: a box alone stands in none."""
        thought, end, answer = text.rpartition(THINK_END)
        if not self._bare(_whole(example)) or answer.strip() in ("", "[]"):
            return text
        return f"{thought}{end}[{answer}]"

    def figures(self, terms: Terms) -> dict[str, float]:
        """Means of `metrics`; `hit_on_some` over phrases that fit something, `hit_on_none` over the rest."""
        figures = super().figures(terms)
        for name, chosen in (("some", terms["num_true"] > 0), ("none", terms["num_true"] == 0)):
            if chosen.any():
                figures[f"hit_on_{name}"] = float(terms["hit"][chosen].mean())
        return figures

    def truth(self, example: Example) -> dict[str, Any]:
        """The phrase and its box."""
        return {"phrase": example.target.phrase, "boxes": example.target.boxes.tolist()}

    def found(self, read: Mapping[str, Any], truth: Mapping[str, Any]) -> list[bool]:
        """Whether the phrase's box is hit."""
        return found_boxes(read["boxes"], truth["boxes"], self._reward.iou_threshold, 1, 1).tolist()

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """The image or images with the true and the predicted box, and the phrase."""
        predicted = np.asarray(read["boxes"], np.float32).reshape(-1, 4)
        caption = [example.target.phrase, *caption]
        return draw_boxes(example.images, example.target.boxes, predicted, caption)


def _whole(example: Example) -> list[int]:
    """Numbers of the images that are shown whole, and not as objects."""
    return [part for turn in example.messages for part in turn.shown if isinstance(part, int)]


def _first_or_zeros(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """The first box of each, float32 [n, 4]; zeros where there is none."""
    first = [own[0] if len(own) else np.zeros(4) for own in boxes]
    return np.asarray(first, np.float32).reshape(-1, 4)
