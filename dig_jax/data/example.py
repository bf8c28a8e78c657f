"""What a model is shown, asked and taught: what data sets give, and loaders and tasks pass on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Size = tuple[int, int]  # (height, width) of an image in pixels


class BadRecord(ValueError):
    """An example that cannot be used: its bytes are damaged, or its file is gone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """An image of the example shown as an object: a crop, in the fewer tokens that some models have for it.

    Attributes:
      number: of the image.
    """

    number: int


@dataclasses.dataclass(frozen=True, slots=True)  # files of conversations have millions
class Turn:
    """One turn of a conversation.

    Attributes:
      role: "system", "user" or "assistant".
      parts: in the order shown: text, the number k of an image of the example, or an `Object`.
    """

    role: str
    parts: tuple[str | int | Object, ...]

    @property
    def shown(self) -> tuple[int | Object, ...]:
        """The images among the parts."""
        return tuple(part for part in self.parts if not isinstance(part, str))


def marked_parts(text: str, images: int = 0, objects: int = 0) -> tuple[str | int | Object, ...]:
    """The parts of a turn from a text in which `<image>` and `<object>` say where images stand.

    Marks count on from those of earlier turns; objects are the images of an example after its whole images.

    Args:
      text: what stands between the marks stays as it is.
      images: number of the image at the first `<image>`.
      objects: number of the image at the first `<object>`.
    """
    counters = {"<image>": images, "<object>": objects}
    parts: list[str | int | Object] = []
    for piece in re.split("(<image>|<object>)", text):
        if piece in counters:
            number, counters[piece] = counters[piece], counters[piece] + 1
            parts.append(number if piece == "<image>" else Object(number))
        elif piece:
            parts.append(piece)
    return tuple(parts)


@dataclasses.dataclass(frozen=True)
class Shape:
    """All of an example that decides how long its prompt is, known without decoding its images.

    Attributes:
      messages: the conversation, up to the turn that the model answers.
      sizes: of the images, in the order of their numbers.
    """

    messages: tuple[Turn, ...]
    sizes: tuple[Size, ...]

    def shown(self) -> tuple[int, ...]:
        """Numbers of the images, as often and in the order that the turns show them."""
        return tuple(part.number if isinstance(part, Object) else part for part in self.parts_shown())

    def parts_shown(self) -> tuple[int | Object, ...]:
        """The same, each as an image or as an object."""
        return tuple(part for turn in self.messages for part in turn.shown)


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One question of one task.

    Attributes:
      id: unique within its data set, and stable.
      messages: the conversation, up to the turn that the model answers.
      images: uint8 [H, W, 3] each; the turns refer to them by number.
      target: what is right. Only the task that made the example looks inside.
      task: name of that task.
      part: of a mixture, that it is shown as; "" where what a model trains on has no parts.
    """

    id: str
    messages: tuple[Turn, ...]
    images: tuple[np.ndarray, ...]
    target: Any
    task: str
    part: str = ""

    @property
    def sizes(self) -> tuple[Size, ...]:
        """(height, width) of every image."""
        return tuple((image.shape[0], image.shape[1]) for image in self.images)

    @property
    def shape(self) -> Shape:
        """What its prompt's length depends on."""
        return Shape(self.messages, self.sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class Demonstration:
    """An answer to learn from.

    Attributes:
      text: the whole answer, without the end-of-turn token.
      unlearned: (first, end) characters of the text that are context only: the loss leaves out the tokens
        that end inside.
      regions: number of an image -> float [M, 4], boxes in 0..1 of it: the auxiliary loss (`sft.aux_weight`)
        asks at every cell of the image whether it overlaps one of them.
      earlier: numbers of turns of the conversation before it, the assistant's, that are learnt with it: a
        conversation of several rounds is one sequence, and the loss covers all of its answers.
    """

    text: str
    unlearned: tuple[tuple[int, int], ...] = ()
    regions: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    earlier: tuple[int, ...] = ()


class Source(Protocol):
    """Random access to the examples of one split of one data set. Safe to read from several threads.

    Attributes:
      name: of data set and split, for errors.
      unusable: records that were left out because they could not be read, and why.
    """

    @property
    def name(self) -> str:
        """Of data set and split."""

    @property
    def unusable(self) -> Sequence[tuple[int, BadRecord]]:
        """Records that were left out, and why."""

    def __len__(self) -> int:
        """How many examples there are."""

    def __getitem__(self, index: int) -> Example:
        """Example number `index`, its images decoded. Raises BadRecord."""

    def shapes(self) -> Sequence[Shape | None]:
        """The shape of every example, without decoding images; None where it cannot be read."""
