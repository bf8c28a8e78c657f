"""Multiple choice: which of the lettered options is right?

    reward = 0.9 * hit + 0.1 * format

`hit`: the option that the answer chooses is the right one, in whatever dress it is written (`reading`).
`format`: the answer is the letter alone, as asked for, so that a model which guesses well in long prose still
has something to learn. `config.rewards.weights` weighs them otherwise. Own questions are lines of

    {"image": "a.jpg", "question": "...", "options": ["red", "blue"], "answer": "B"}

where options may also be an object of letters, and the answer one of the texts.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import Demonstration, Example, Size, Source, Turn
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.choice.reading import LETTER, REASONS, read_choice
from dig_jax.tasks.questions import Ask, open_lines
from dig_jax.tasks.registry import register
from dig_jax.tasks.task import Metric, Scores, Task

_INSTRUCTION = "Answer with the option letter only."
_FORMAT_WEIGHT = 0.1
_NO_BOXES = np.zeros((0, 4), np.float32)
_FORM = '{"image": ..., "question": ..., "options": [...], "answer": letter or text}'


@dataclasses.dataclass(frozen=True)
class Target:
    """What is right.

    Attributes:
      options: letter -> text.
      answer: the right letter.
    """

    options: Mapping[str, str]
    answer: str


def question(text: str, options: Mapping[str, str], hint: str = "") -> str:
    """A question with its options, without an instruction."""
    lines = [f"Hint: {hint}"] if hint else []
    lines.append(f"Question: {text}")
    if options:
        lines += ["Options:", *(f"{letter}. {option}" for letter, option in options.items())]
    return "\n".join(lines)


def turn(pictures: int, text: str, options: Mapping[str, str], hint: str = "") -> Turn:
    """What is asked: the pictures, the question with its options, and to answer with a letter."""
    return Turn("user", (*range(pictures), f"{question(text, options, hint)}\n{_INSTRUCTION}"))


@register
class Choice(Task):
    """Pictures first, then the question; the target is a `Target`."""

    name = "choice"
    terms = ("hit", "format", "parsed")
    metrics = (
        Metric("hit", "right option"),
        Metric("parsed", "an option found"),
        Metric("reward", "mean reward"),
    )
    main = "hit"
    notes = REASONS

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses a question without its text, and changes that would make answers wrong."""
        if config.data.question and "{question}" not in config.data.question:
            raise ValueError(
                f"config.data.question={config.data.question!r} does not say where the question and its"
                " options go: write {question} there"
            )
        for name, value in config.data.augment.items():
            if value:
                raise ValueError(
                    f"config.data.augment.{name}=True: options name places, colors and counts, so pictures"
                    " stay as they are for the task choice; set it to False"
                )
        if config.sft.count_noise:
            raise ValueError(
                f"config.sft.count_noise={config.sft.count_noise}: a letter has no number of boxes"
            )

    @property
    def unit(self) -> str:
        """What its examples are called."""
        return "questions"

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """Own questions in JSON-lines files."""
        return open_lines(folder, split, self.config.data.images, self._parse, self.name, _FORM)

    def _parse(self, line: Mapping[str, Any], text: str) -> tuple[Ask, Target]:
        options, answer = _options(line["options"]), line["answer"]
        if answer not in options:
            same = [letter for letter, option in options.items() if option == answer]
            if len(same) != 1:
                raise ValueError(f"the answer {answer!r} is none of the options, or several")
            answer = same[0]

        def ask(sizes: Sequence[Size]) -> Turn:
            template = self.config.data.question
            if not template:
                return turn(len(sizes), text, options)
            return Turn("user", (*range(len(sizes)), template.replace("{question}", question(text, options))))

        return ask, Target(options, answer)

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The right letter."""
        return Demonstration(example.target.answer)

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """Which option each answer chooses, and whether it is right."""
        thinking = self.answerer.thinking
        readings = [
            read_choice(text, example.target.options, thinking)
            for text, example in zip(texts, examples, strict=True)
        ]
        right = [example.target.answer for example in examples]
        hit = np.array(
            [letter == answer for (letter, _), answer in zip(readings, right, strict=True)], np.float32
        )
        form = np.array([reason == LETTER for _, reason in readings], np.float32)
        parsed = np.array([bool(letter) for letter, _ in readings], np.float32)
        reward = ((1 - _FORMAT_WEIGHT) * hit + _FORMAT_WEIGHT * form).astype(np.float32)
        return Scores(
            reward,
            {"hit": hit, "format": form, "parsed": parsed},
            tuple(reason for _, reason in readings),
            tuple({"answer": letter} for letter, _ in readings),
        )

    def truth(self, example: Example) -> dict[str, Any]:
        """The options and the right letter."""
        return {"options": dict(example.target.options), "answer": example.target.answer}

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """The pictures above the question, the right letter and the one read."""
        asked = [part for part in example.messages[-1].parts if isinstance(part, str)]
        said = f"right: {example.target.answer}, read: {read['answer'] or 'none'}"
        return draw_boxes(example.images, _NO_BOXES, _NO_BOXES, [*asked, said, *caption])


def _options(value: Any) -> dict[str, str]:
    """Letter -> text. Raises ValueError."""
    if isinstance(value, list):
        value = dict(zip(string.ascii_uppercase, value, strict=False)) if len(value) <= 26 else {}
    if not isinstance(value, dict) or len(value) < 2:
        raise ValueError("options must be a list of 2 to 26 texts, or an object of letters and texts")
    for letter, text in value.items():
        if letter not in string.ascii_uppercase or len(letter) != 1 or not isinstance(text, str) or not text:
            raise ValueError(f"option {letter!r} is {text!r}; expected a capital letter with a text")
    return value
