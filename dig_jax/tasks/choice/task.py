"""Multiple choice: which of the lettered options is right? The reward is that of `short_answer`.

Own questions are lines of

    {"image": "a.jpg", "question": "...", "options": ["red", "blue"], "answer": "B"}

where options may also be an object of letters, and the answer one of the texts. Aligned records
(`python -m data_gen.align`) are read as well: their items whose options are crops of objects.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from dig_jax.data.example import Example, Size, Turn
from dig_jax.tasks.aligned import text_of
from dig_jax.tasks.choice.reading import LETTER, REASONS, read_choice
from dig_jax.tasks.questions import Ask
from dig_jax.tasks.registry import register
from dig_jax.tasks.short_answer import ShortAnswer
from dig_jax.tasks.task import Metric

_INSTRUCTION = "Answer with the option letter only."


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
class Choice(ShortAnswer):
    """Pictures first, then the question with its options; the target is a `Target`."""

    name = "choice"
    metrics = (
        Metric("hit", "right option"),
        Metric("parsed", "an option found"),
        Metric("reward", "mean reward"),
    )
    notes = REASONS
    form = '{"image": ..., "question": ..., "options": [...], "answer": letter or text}'
    bare = LETTER
    aligned = ("C-I", "T-I")

    def parse(self, line: Mapping[str, Any], text: str) -> tuple[Ask, Target]:
        """The question with its options; the right one by letter or by text."""
        options, answer = _options(line["options"]), line["answer"]
        if answer not in options:
            same = [letter for letter, option in options.items() if option == answer]
            if len(same) != 1:
                raise ValueError(f"the answer {answer!r} is none of the options, or several")
            answer = same[0]

        def ask(sizes: Sequence[Size]) -> Turn:
            return self.asked(len(sizes), question(text, options), turn(len(sizes), text, options))

        return ask, Target(options, answer)

    def item(self, turns: Sequence[Turn], size: Size) -> Target:
        """The letters before crops, and the one that an item is answered by."""
        letters = re.findall(r"\b([A-Z]):", text_of(turns[0]))
        if (answer := text_of(turns[-1])) not in letters:
            raise ValueError(f"its answer is {answer!r}, and none of the options {', '.join(letters)}")
        return Target({letter: f"crop {letter}" for letter in letters}, answer)

    def right(self, target: Target) -> str:
        """The right letter."""
        return target.answer

    def read(self, text: str, target: Target) -> tuple[str, str]:
        """The letter of the option that an answer chooses."""
        return read_choice(text, target.options, self.answerer.thinking)

    def truth(self, example: Example) -> dict[str, Any]:
        """The options and the right letter."""
        return {"options": dict(example.target.options), **super().truth(example)}


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
