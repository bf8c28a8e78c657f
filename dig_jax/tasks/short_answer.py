"""Questions whose answer is a letter or a word: what the tasks `choice` and `yes_no` have in common.

    reward = 0.9 * hit + 0.1 * format

`hit`: the answer is right, in whatever dress. `format`: it is the letter or word alone, as asked for, so that
a model which guesses well in long prose still has something to learn. `config.rewards.weights` weighs them
otherwise.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import Demonstration, Example, Size, Source, Turn
from dig_jax.data.records import open_records
from dig_jax.machines.folder import to_path
from dig_jax.tasks.aligned import AlignedSource, is_aligned
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.questions import Ask, open_lines
from dig_jax.tasks.supervision import box_format, check_words
from dig_jax.tasks.task import Scores, Task

_FORMAT_WEIGHT = 0.1
_NO_BOXES = np.zeros((0, 4), np.float32)


class ShortAnswer(Task):
    """Pictures first, then the question; subclasses say how questions, answers and targets look.

    Attributes:
      form: of a line of own questions, for errors.
      bare: the note of an answer that is nothing but what was asked for.
      aligned: kinds of items of aligned records that are answered so.
    """

    terms: tuple[str, ...] = ("hit", "format", "parsed")
    main = "hit"
    form: str
    bare: str
    aligned: tuple[str, ...]

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses a question without its text, and changes that would make answers wrong."""
        if config.data.question and "{question}" not in config.data.question:
            raise ValueError(
                f"config.data.question={config.data.question!r} does not say where the question, with its"
                " options, goes: write {question} there"
            )
        check_words(config, cls.name, "questions name places, colors and counts")

    @property
    def unit(self) -> str:
        """What its examples are called."""
        return "questions"

    @abc.abstractmethod
    def parse(self, line: Mapping[str, Any], text: str) -> tuple[Ask, Any]:
        """Values of a line and its question -> what is asked, the target. Raises ValueError, KeyError."""

    @abc.abstractmethod
    def item(self, turns: Sequence[Turn], size: Size) -> Any:
        """All turns of an aligned item, size of its picture -> the target. Raises ValueError."""

    @abc.abstractmethod
    def right(self, target: Any) -> str:
        """The right letter or word."""

    @abc.abstractmethod
    def read(self, text: str, target: Any) -> tuple[str, str]:
        """The letter or word that an answer comes to, "" for none, and one of `notes`."""

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """Own questions in JSON-lines files, or the items of aligned records that are answered so."""
        path = to_path(folder)
        if path.is_dir() and (path / "dataset_info.json").exists():
            records = open_records(path, split)
            if not is_aligned(records):
                raise ValueError(
                    f"{path} asks nothing of the task {self.name}: its records are not of data_gen.align"
                )
            boxes = box_format(self.config, self.answerer)
            return AlignedSource(records, self.aligned, self.name, self.item, boxes)
        return open_lines(folder, split, self.config.data.images, self.parse, self.name, self.form)

    def asked(self, pictures: int, text: str, default: Turn) -> Turn:
        """The question `text` as `config.data.question` puts it, else the `default`."""
        template = self.config.data.question
        return Turn("user", (*range(pictures), template.replace("{question}", text))) if template else default

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The right letter or word."""
        return Demonstration(self.right(example.target))

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """What each answer comes to, and whether that is right."""
        readings = [self.read(text, example.target) for text, example in zip(texts, examples, strict=True)]
        said, notes = [answer for answer, _ in readings], [note for _, note in readings]
        right = [self.right(example.target) for example in examples]
        terms = {
            "hit": [answer == other for answer, other in zip(said, right, strict=True)],
            "format": [note == self.bare for note in notes],
            "parsed": [bool(answer) for answer in said],
        } | self.more_terms(said)
        arrays = {name: np.array(values, np.float32) for name, values in terms.items()}
        reward = (1 - _FORMAT_WEIGHT) * arrays["hit"] + _FORMAT_WEIGHT * arrays["format"]
        read = tuple({"answer": answer} for answer in said)
        return Scores(reward.astype(np.float32), arrays, tuple(notes), read)

    def more_terms(self, said: Sequence[str]) -> dict[str, list[bool]]:
        """Further terms of the scores, from what answers come to."""
        return {}

    def truth(self, example: Example) -> dict[str, Any]:
        """The right letter or word."""
        return {"answer": self.right(example.target)}

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """The pictures above the question, what is right and what was read."""
        asked = [part for part in example.messages[-1].parts if isinstance(part, str)]
        said = f"right: {self.right(example.target)}, read: {read['answer'] or 'none'}"
        return draw_boxes(example.images, _NO_BOXES, _NO_BOXES, [*asked, said, *caption])
