"""What a model is asked about a row: pictures first, then the question as Qwen3-VL's makers and users ask it.

Choices and yes/no questions are worded as in VLMEvalKit's class for Qwen3-VL, phrases as the makers answered
in issue 1721 of QwenLM/Qwen3-VL; docs/benchmarks.md has the texts.
"""

from __future__ import annotations

from collections.abc import Sequence

from dig_jax.benchmarks.row import Row
from dig_jax.data.example import Size, Turn, marked_parts
from dig_jax.tasks import aligned
from dig_jax.tasks.boxes.text import BoxFormat
from dig_jax.tasks.choice import task as choice_task
from dig_jax.tasks.differences import task as differences_task
from dig_jax.tasks.yes_no import task as yes_no_task

_LOCATE = (
    'Locate every object that matches the description "{phrase}" in the image. Report bbox coordinates in'
    " JSON format."
)
_LOCATE_AS = 'Locate the object that matches the description "{phrase}" in the image. {instruction}'


def choice(row: Row, sizes: Sequence[Size], boxes: BoxFormat) -> Turn:
    """Hint, question, options, and to answer with a letter."""
    del boxes  # no boxes in it
    return choice_task.turn(len(sizes), row.question, row.options, row.hint)


def yes_no(row: Row, sizes: Sequence[Size], boxes: BoxFormat) -> Turn:
    """The question, and to answer with yes or no."""
    del boxes
    return yes_no_task.turn(len(sizes), row.question)


def referring(row: Row, sizes: Sequence[Size], boxes: BoxFormat) -> Turn:
    """The phrase, in the makers' words for models that know JSON boxes; others are told how to write them."""
    if boxes.convention == "unit":
        text = _LOCATE_AS.replace("{instruction}", boxes.instruction(sizes[0]))
    else:
        text = _LOCATE
    return Turn("user", (*range(len(sizes)), text.replace("{phrase}", row.question)))


def with_boxes(row: Row, sizes: Sequence[Size], boxes: BoxFormat) -> Turn:
    """A question that asks for boxes in words of its own, with how to write them."""
    text = f"{row.question} {boxes.instruction(sizes[-1])}"
    return Turn("user", (*range(len(sizes)), text))


def differences(row: Row, sizes: Sequence[Size], boxes: BoxFormat) -> Turn:
    """For a box around every difference between two pictures, as the task differences asks in training."""
    return Turn("user", (*range(len(sizes)), differences_task.question(boxes, sizes[0])))


def marked(row: Row, sizes: Sequence[Size], boxes: BoxFormat) -> Turn:
    """The question of an aligned record, picture and crops in place, boxes as the model writes them."""
    (turn,) = aligned.with_boxes((Turn("user", marked_parts(row.question, 0, 1)),), sizes[0], boxes)
    return turn
