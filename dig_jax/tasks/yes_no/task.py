"""Yes or no?

    reward = 0.9 * hit + 0.1 * format

`hit`: the answer says what is right, in whatever dress (`reading`). `format`: it is the one word, as asked
for. `config.rewards.weights` weighs them otherwise. Own questions are lines of

    {"image": "a.jpg", "question": "Is there a dog?", "answer": "yes"}

where the answer may also be true or false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import Demonstration, Example, Size, Source, Turn
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.questions import Ask, open_lines
from dig_jax.tasks.registry import register
from dig_jax.tasks.task import Metric, Scores, Task
from dig_jax.tasks.yes_no.reading import NO, REASONS, WORD, YES, read_yes_no

_INSTRUCTION = "Please answer yes or no."
_FORMAT_WEIGHT = 0.1
_NO_BOXES = np.zeros((0, 4), np.float32)
_FORM = '{"image": ..., "question": ..., "answer": "yes" or "no"}'
_ANSWERS = {"yes": YES, "no": NO, "true": YES, "false": NO}


def turn(pictures: int, text: str) -> Turn:
    """What is asked: the pictures, the question, and to answer with yes or no, unless it says so already."""
    asked = text if text.rstrip().endswith(_INSTRUCTION) else f"{text} {_INSTRUCTION}"
    return Turn("user", (*range(pictures), asked))


@register
class YesNo(Task):
    """Pictures first, then the question; the target is "Yes" or "No"."""

    name = "yes_no"
    terms = ("hit", "format", "parsed", "says_yes")
    metrics = (
        Metric("hit", "right answer"),
        Metric("parsed", "yes or no found"),
        Metric("says_yes", "says yes"),
        Metric("reward", "mean reward"),
    )
    main = "hit"
    notes = REASONS

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses a question without its text, and changes that would make answers wrong."""
        if config.data.question and "{question}" not in config.data.question:
            raise ValueError(
                f"config.data.question={config.data.question!r} does not say where the question goes: write"
                " {question} there"
            )
        for name, value in config.data.augment.items():
            if value:
                raise ValueError(
                    f"config.data.augment.{name}=True: questions name places and colors, so pictures stay as"
                    " they are for the task yes_no; set it to False"
                )
        if config.sft.count_noise:
            raise ValueError(
                f"config.sft.count_noise={config.sft.count_noise}: a word has no number of boxes"
            )

    @property
    def unit(self) -> str:
        """What its examples are called."""
        return "questions"

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """Own questions in JSON-lines files."""
        return open_lines(folder, split, self.config.data.images, self._parse, self.name, _FORM)

    def _parse(self, line: Mapping[str, Any], text: str) -> tuple[Ask, str]:
        answer = _ANSWERS.get(str(line["answer"]).strip().lower())
        if answer is None:
            raise ValueError(f"the answer is {line['answer']!r}; expected yes or no")

        def ask(sizes: Sequence[Size]) -> Turn:
            template = self.config.data.question
            if not template:
                return turn(len(sizes), text)
            return Turn("user", (*range(len(sizes)), template.replace("{question}", text)))

        return ask, answer

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The right word."""
        return Demonstration(example.target)

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """What each answer says, and whether it is right."""
        readings = [read_yes_no(text, self.answerer.thinking) for text in texts]
        right = [example.target for example in examples]
        hit = np.array(
            [said == answer for (said, _), answer in zip(readings, right, strict=True)], np.float32
        )
        form = np.array([reason == WORD for _, reason in readings], np.float32)
        parsed = np.array([bool(said) for said, _ in readings], np.float32)
        says_yes = np.array([said == YES for said, _ in readings], np.float32)
        reward = ((1 - _FORMAT_WEIGHT) * hit + _FORMAT_WEIGHT * form).astype(np.float32)
        return Scores(
            reward,
            {"hit": hit, "format": form, "parsed": parsed, "says_yes": says_yes},
            tuple(reason for _, reason in readings),
            tuple({"answer": said} for said, _ in readings),
        )

    def truth(self, example: Example) -> dict[str, Any]:
        """The right word."""
        return {"answer": example.target}

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """The pictures above the question, the right word and the one read."""
        asked = [part for part in example.messages[-1].parts if isinstance(part, str)]
        said = f"right: {example.target}, read: {read['answer'] or 'none'}"
        return draw_boxes(example.images, _NO_BOXES, _NO_BOXES, [*asked, said, *caption])
