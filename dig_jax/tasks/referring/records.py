"""Phrases and boxes of `dig_pairs` records, whose objects and changes are described in words.

Three kinds of examples come of a pair. An object of either image is asked for by the fewest words that fit it
alone. A phrase for an object of one image that fits none of the other's (it is gone there, or has changed) is
asked of that other image: no box. And the description of a change is asked of both images together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dig_jax.data import images
from dig_jax.data.example import BadRecord, Example, Shape, Size
from dig_jax.data.records import Records
from dig_jax.tasks.referring.phrases import Thing, phrase_for, read_things
from dig_jax.tasks.referring.target import Asked, Target

_OBJECTS = ("objects_a", "objects_b")
_CHANGES = ("descriptions", "bboxes")

Ask = Callable[[str, tuple[Size, ...]], Shape]  # phrase and sizes of the images -> the question


class RecordSource:
    """The phrases of the pairs of one split. Every record is read once, without its images, to find them.

    Args:
      records: of `dig_pairs`, with objects or with descriptions.
      ask: makes the question.
      task: name of the task.

    Attributes:
      asked: all that can be asked.
    """

    def __init__(self, records: Records, ask: Ask, task: str):
        self.name = records.name
        self._records = records
        self._ask = ask
        self._task = task
        self.unusable: list[tuple[int, BadRecord]] = []
        self.asked: list[Asked] = []
        with_objects = records.has(*_OBJECTS)
        for record in range(len(records)):
            try:
                self.asked += list(_phrases(records, record, with_objects))
            except Exception as error:  # damaged bytes can make any of the readers raise anything
                self.unusable.append((record, BadRecord(f"{self.name}, pair {record}: {error}")))

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> Example:
        """Phrase number `index` with its image or images. Raises BadRecord."""
        asked = self.asked[index]
        try:
            record = self._records.read(asked.record, asked.images)
            shown = tuple(self._records.decode(record[key], f"{asked.id}, {key}") for key in asked.images)
        except Exception as error:
            raise BadRecord(f"{self.name}, pair {asked.record}: {error}") from error
        sizes = tuple((image.shape[0], image.shape[1]) for image in shown)
        messages = self._ask(asked.target.phrase, sizes).messages
        return Example(asked.id, messages, shown, asked.target, self._task)

    def shapes(self) -> list[Shape | None]:
        """The shape of every example; None where the images of its record cannot be read."""
        declared = self._records.declared_size("image_a")
        sizes: dict[int, Size | None] = {}
        shapes: list[Shape | None] = []
        for asked in self.asked:
            if asked.record not in sizes:
                sizes[asked.record] = declared or self._size(asked.record)
            size = sizes[asked.record]
            shapes.append(size and self._ask(asked.target.phrase, (size,) * len(asked.images)))
        return shapes

    def _size(self, record: int) -> Size | None:
        try:
            return images.image_size(self._records.read(record, ("image_a",))["image_a"], self.name)
        except Exception:  # as in `__getitem__`, which says what it was
            return None


def _phrases(records: Records, record: int, with_objects: bool) -> Iterator[Asked]:
    """All that can be asked about a pair."""
    read = records.read(record, ("id", *_CHANGES, *(_OBJECTS if with_objects else ())))
    id = read["id"].decode()
    if with_objects:
        things = [read_things(read[key]) for key in _OBJECTS]
        for here, image in enumerate("ab"):
            yield from _of_image(f"{id}/{image}", record, image, things[here], things[1 - here])
    descriptions = [text.decode() for text in read["descriptions"]]
    for number, (text, box) in enumerate(zip(descriptions, read["bboxes"], strict=True)):
        if text and descriptions.count(text) == 1:
            boxes = np.asarray(box, np.float32)[None]
            yield Asked(f"{id}/change{number}", record, ("image_a", "image_b"), Target(text, boxes))


def _of_image(id: str, record: int, image: str, here: list[Thing], there: list[Thing]) -> Iterator[Asked]:
    """What can be asked about one image: its own objects, and those of the other that it has nothing like."""
    for thing in here:
        if thing.shown and (found := phrase_for(thing, here)):
            adjectives, noun = found
            boxes = np.asarray([thing.box], np.float32)
            yield Asked(
                f"{id}{thing.id}", record, (f"image_{image}",), Target(" ".join((*adjectives, noun)), boxes)
            )
    for thing in there:
        if thing.shown and (found := phrase_for(thing, there)):
            adjectives, noun = found
            if not any(other.fits(adjectives, noun) for other in here):
                none = np.zeros((0, 4), np.float32)
                target = Target(" ".join((*adjectives, noun)), none)
                yield Asked(f"{id}-none{thing.id}", record, (f"image_{image}",), target)
