"""Describe: the object in a box, in words that fit it alone; or a whole image, with the box of each object.

    reward = 0.9 * f1 + 0.1 * format,   f1 of precision and recall

Of one object in a known scene, the words are executed (`meaning`): precision is the share of the things they
are true of that was asked for, recall whether they are true of it; `hit`, denotation accuracy, is 1 where
they are true of it and false of all others. Where no scene is known, hit = precision = recall = the same
words.

Of a whole image, precision is the share of mentions that name a thing rightly and have IoU >= 0.5 with its
box, each thing once; recall is the share of the things asked for that are mentioned so. Where only boxes are
known, they decide alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import Demonstration, Example, Size, Source, Turn
from dig_jax.machines.folder import to_path
from dig_jax.tasks.answers import final_answer
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.describe import mentions
from dig_jax.tasks.describe.meaning import NO, YES, denotes
from dig_jax.tasks.describe.sources import Target, open_descriptions
from dig_jax.tasks.registry import register
from dig_jax.tasks.supervision import box_format, check_words
from dig_jax.tasks.task import Answerer, Metric, Scores, Task, Terms

# With a line end behind the image, as conversations and aligned records have it.
_OF_ONE = "\nDescribe the object at {box}."
_OF_ALL = "\nDescribe the image and give the coordinate of each object."
_FORMAT_WEIGHT = 0.1
_MOST_WORDS = 40  # of a phrase


@register
class Describe(Task):
    """The image first, then the question; the target is a `Target`."""

    name = "describe"
    terms = ("hit", "precision", "recall", "f1", "format", "of_one")
    metrics = (
        Metric("hit", "all right"),
        Metric("precision", "object precision"),
        Metric("recall", "object recall"),
        Metric("reward", "mean reward"),
    )
    main = "f1"

    def __init__(self, config: ConfigDict, answerer: Answerer):
        super().__init__(config, answerer)
        self.boxes = box_format(config, answerer)

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses a question of the run's, and changes that would make answers wrong."""
        if config.data.question:
            raise ValueError(
                f"config.data.question={config.data.question!r}: the task describe asks for one object or for"
                " all, each in its own words; set it to ''"
            )
        check_words(config, cls.name, "descriptions name places and colors")

    @property
    def unit(self) -> str:
        """What its examples are called."""
        return "descriptions"

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """Scenes, regions or captions: see `sources`."""
        root = self.config.data.images
        return open_descriptions(to_path(folder), split, root, self.ask, self.boxes, self.name)

    def ask(self, box: np.ndarray | None, size: Size) -> Turn:
        """The question about the object in a box (float [1, 4] in 0..1), or about the whole image."""
        text = _OF_ALL if box is None else _OF_ONE.replace("{box}", self._written(box, size))
        return Turn("user", (0, text))

    def _written(self, boxes: Any, size: Size) -> str:
        """Boxes as they stand in a text, one right behind another: "[..][..]"."""
        rows = np.asarray(boxes, np.float32).reshape(-1, 1, 4)
        return "".join(self.boxes.write(box, size)[1:-1] for box in rows)

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """A right answer."""
        size = example.sizes[0]
        pieces = (
            f"{words} {self._written(boxes, size)}" if boxes else words
            for words, boxes in example.target.said
        )
        return Demonstration("".join(pieces))

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """Precision and recall of each answer."""
        rows, read = [], []
        for text, example in zip(texts, examples, strict=True):
            answer = final_answer(text, self.answerer.thinking).text
            row, boxes = self._row(answer, example)
            rows.append(row)
            read.append({"answer": answer, "boxes": boxes})
        precision, recall, form = np.array(rows, np.float32).reshape(-1, 3).T
        both = precision + recall
        f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
        terms = {
            "hit": (f1 == 1).astype(np.float32),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "format": form,
            "of_one": np.array([example.target.is_phrase for example in examples], np.float32),
        }
        reward = ((1 - _FORMAT_WEIGHT) * f1 + _FORMAT_WEIGHT * form).astype(np.float32)
        return Scores(reward, terms, ("",) * len(texts), tuple(read))

    def _row(self, answer: str, example: Example) -> tuple[tuple[float, float, float], list[list[float]]]:
        """Precision, recall and form of an answer, and the boxes that it has."""
        target: Target = example.target
        size = example.sizes[0]
        said = mentions.read(
            answer, lambda text: self.boxes.read(f"[{text}]", size, thinking=False, max_boxes=1).boxes
        )
        boxes = [mention.box.tolist() for mention in said]
        if not target.is_phrase:
            found = mentions.found(said, target.things, target.by_name)
            recall = len(found & set(target.asked)) / len(target.asked)
            return (len(found) / max(1, len(said)), recall, float(bool(said))), boxes
        form = float(bool(answer) and not boxes and len(answer.split()) <= _MOST_WORDS)
        if target.wanted is None:
            same = float(_plain(answer) == _plain(target.said[0][0]))
            return (same, same, form), boxes
        values = denotes(answer, target.things) if form else None
        if values is None or values[target.wanted] != YES:
            return (0.0, 0.0, form), boxes
        return (1 / sum(value != NO for value in values), 1.0, form), boxes

    def figures(self, terms: Terms) -> dict[str, float]:
        """Means of `metrics`; `denotation`, hits of single objects; those of whole images with `_of_all`."""
        figures = super().figures(terms)
        one = terms["of_one"] > 0
        if one.any():
            figures["denotation"] = float(terms["hit"][one].mean())
        if not one.all():
            figures |= {f"{name}_of_all": float(terms[name][~one].mean()) for name in ("precision", "recall")}
        return figures

    def truth(self, example: Example) -> dict[str, Any]:
        """A right answer."""
        return {"answer": self.demonstrate(example, np.random.default_rng(0)).text}

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """The image with the boxes of its things and those of the answer, above both texts."""
        target: Target = example.target
        chosen = target.things if target.wanted is None else (target.things[target.wanted],)
        true = np.asarray([thing.box for thing in chosen], np.float32).reshape(-1, 4)
        said = [f"true: {self.truth(example)['answer']}", f"read: {read['answer'] or 'none'}"]
        asked = [part for part in example.messages[-1].parts if isinstance(part, str)]
        return draw_boxes(
            example.images,
            true,
            np.asarray(read["boxes"], np.float32).reshape(-1, 4),
            [*asked, *said, *caption],
        )


def _plain(text: str) -> list[str]:
    """Words of a phrase without articles and punctuation."""
    words = "".join(char if char.isalnum() else " " for char in text.lower()).split()
    return [word for word in words if word not in ("a", "an", "the")]
