"""Yes or no? The reward is that of `short_answer`. Own questions are lines of

    {"image": "a.jpg", "question": "Is there a dog?", "answer": "yes"}

where the answer may also be true or false. Aligned records (`python -m data_gen.align`) are read as well:
their items that ask whether something is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dig_jax.data.example import Size, Turn
from dig_jax.tasks.aligned import text_of
from dig_jax.tasks.questions import Ask
from dig_jax.tasks.registry import register
from dig_jax.tasks.short_answer import ShortAnswer
from dig_jax.tasks.task import Metric
from dig_jax.tasks.yes_no.reading import NO, REASONS, WORD, YES, read_yes_no

_INSTRUCTION = "Please answer yes or no."
_ANSWERS = {"yes": YES, "no": NO, "true": YES, "false": NO}


def turn(pictures: int, text: str) -> Turn:
    """What is asked: the pictures, the question, and to answer with yes or no, unless it says so already."""
    asked = text if text.rstrip().endswith(_INSTRUCTION) else f"{text} {_INSTRUCTION}"
    return Turn("user", (*range(pictures), asked))


@register
class YesNo(ShortAnswer):
    """Pictures first, then the question; the target is "Yes" or "No"."""

    name = "yes_no"
    terms = (*ShortAnswer.terms, "says_yes")
    metrics = (
        Metric("hit", "right answer"),
        Metric("parsed", "yes or no found"),
        Metric("says_yes", "says yes"),
        Metric("reward", "mean reward"),
    )
    notes = REASONS
    form = '{"image": ..., "question": ..., "answer": "yes" or "no"}'
    bare = WORD
    aligned = ("exist",)

    def parse(self, line: Mapping[str, Any], text: str) -> tuple[Ask, str]:
        """The question and its answer."""
        answer = _ANSWERS.get(str(line["answer"]).strip().lower())
        if answer is None:
            raise ValueError(f"the answer is {line['answer']!r}; expected yes or no")

        def ask(sizes: Sequence[Size]) -> Turn:
            return self.asked(len(sizes), text, turn(len(sizes), text))

        return ask, answer

    def item(self, turns: Sequence[Turn], size: Size) -> str:
        """The word that an item is answered by."""
        if (answer := text_of(turns[-1])) not in (YES, NO):
            raise ValueError(f"its answer is {answer!r}, and neither {YES} nor {NO}")
        return answer

    def right(self, target: str) -> str:
        """The right word."""
        return target

    def read(self, text: str, target: str) -> tuple[str, str]:
        """What an answer says."""
        return read_yes_no(text, self.answerer.thinking)

    def more_terms(self, said: Sequence[str]) -> dict[str, list[bool]]:
        """How often "Yes" is said."""
        return {"says_yes": [answer == YES for answer in said]}
