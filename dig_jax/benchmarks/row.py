"""One question of a benchmark, its pictures, and how an answer to it was marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from dig_jax.data.example import Size
from dig_jax.tasks.questions import Picture, PictureFile, pixels

__all__ = ["TOOLKIT_NONE", "Box", "Mark", "Picture", "PictureFile", "Reader", "Row", "pixels"]

TOOLKIT_NONE = "vlmevalkit_none"  # of answers that VLMEvalKit cannot read; it calls some Z, some Unknown

Box = tuple[float, float, float, float]  # x0, y0, x1, y1, shares of width and height, 0..1


@dataclasses.dataclass(frozen=True)
class Row:
    """A question with its right answer.

    Attributes:
      index: unique within the benchmark: what VLMEvalKit calls it where it has a table, else the release.
      images: in the order shown.
      question: as stored, without options, hint and instruction.
      options: letter -> text, in order; empty where none are given.
      answer: the right letter, "Yes" or "No"; "" where boxes are asked for, or the label is kept secret.
      boxes: what is right where boxes are asked for, shares of width and height.
      size: (height, width) of the picture that boxes lie in, where the set tells it.
      hint: what is said before the question, or "".
      category: the set's own word for the kind of question, or "".
      splits: those it counts in: one, but for POPE, where one question stands in up to three.
      fields: all other columns of a table, or keys of a release, as text.
    """

    index: str
    images: tuple[Picture, ...]
    question: str
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    answer: str = ""
    boxes: tuple[Box, ...] = ()
    size: Size | None = None
    hint: str = ""
    category: str = ""
    splits: tuple[str, ...] = ()
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Reader:
    """How the answers of one model are to be read.

    Attributes:
      opens_thought: prompts opened `<think>`, so that a text without `</think>` was cut off. Where it is not
        known (saved predictions), False: then only a `<think>` in the text tells of a thought.
      box_convention: how the model writes boxes, one of `boxes.text.CONVENTIONS`. Decimals of at most 1 are
        read as shares by all but "pixels".
      resized: (height, width) of a picture as stored -> as the model sees it, for "pixels".
      compat: read as VLMEvalKit does instead.
    """

    opens_thought: bool = False
    box_convention: str = "thousandths"
    resized: Callable[[Size], Size] = lambda size: size
    compat: bool = False


@dataclasses.dataclass(frozen=True)
class Mark:
    """What an answer was taken for, and whether that is right.

    Attributes:
      index: of the row.
      answer: the letter, "Yes" or "No"; of boxes their list, in pixels of the stored picture where its size
        is known; "" where nothing could be read.
      hit: 1 or 0; of several boxes the F1 score.
      reason: how the answer was found, or why none was.
      cut_off: the thought had no end.
      values: what else is known of it, such as {"iou": 0.7}.
    """

    index: str
    answer: str
    hit: float
    reason: str
    cut_off: bool = False
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def unparsed(self) -> bool:
        """Nothing could be read from the text."""
        return not self.answer or self.reason == TOOLKIT_NONE
