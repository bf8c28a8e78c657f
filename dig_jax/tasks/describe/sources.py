"""Where descriptions come from: scenes that are known, regions with phrases, captions with boxes.

- `dig_pairs` records: of each image, the objects that a name fits alone are asked for by their boxes, and the
  whole image once. The scene is known, so an answer is right in any words that are true.
- Aligned records (`data_gen.align`): their kinds C-T and description, with all that their scenes say.
- REC jsonl, refer JSON and Visual Genome, as the task referring reads them: the phrase of a box.
- Flickr30K Entities: whole captions, with the boxes of their phrases.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from dig_jax.data.example import Size, Turn
from dig_jax.data.records import Records, open_records
from dig_jax.tasks.aligned import is_aligned, text_of, turns_of, with_boxes
from dig_jax.tasks.boxes.text import BoxFormat
from dig_jax.tasks.describe.meaning import Placed
from dig_jax.tasks.questions import Picture, PictureFile, Question, QuestionSource
from dig_jax.tasks.referring import flickr30k
from dig_jax.tasks.referring.files import entries
from dig_jax.tasks.referring.phrases import Thing, phrase_for, read_things
from dig_jax.tasks.referring.target import Entry, box_in
from dig_jax.tasks.splits import named_and_part

_ALIGNED = ("C-T", "description")

Piece = tuple[str, tuple[tuple[float, ...], ...]]  # words, and boxes behind them in 0..1
AskBox = Callable[[np.ndarray | None, Size], Turn]


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """What is right.

    Attributes:
      things: that the image shows; () where that is not known.
      wanted: the one of them that is asked for; None for the whole image.
      said: one right answer, to learn.
      named: the things that a description of the whole image has to name; () = all.
      by_name: whether the words of things are known, and not their boxes alone.
    """

    things: tuple[Thing, ...]
    wanted: int | None
    said: tuple[Piece, ...]
    by_name: bool = True
    named: tuple[int, ...] = ()

    @property
    def asked(self) -> tuple[int, ...]:
        """Numbers of the things that recall counts."""
        return self.named or tuple(range(len(self.things)))

    @property
    def is_phrase(self) -> bool:
        """Whether one object is asked for, by its box."""
        return self.wanted is not None or not self.things


@dataclasses.dataclass(frozen=True)
class RecordPicture:
    """A picture of a record."""

    records: Records
    record: int
    feature: str

    @property
    def name(self) -> str:
        """Data set, record and feature."""
        return f"{self.records.name}, record {self.record}, {self.feature}"

    @property
    def key(self) -> str:
        """As `name`."""
        return self.name

    def read(self) -> bytes:
        """The encoded picture. Damaged bytes can make the reader raise anything."""
        data: bytes = self.records.read(self.record, (self.feature,))[self.feature]
        return data


def open_descriptions(
    path: epath.Path, split: str, root: str, ask: AskBox, boxes: BoxFormat, task: str
) -> QuestionSource:
    """Opens descriptions.

    Args:
      path: as listed above.
      split: its name, with a slice for a part.
      root: folder of the images; "" for that of the files.
      ask: what is asked about the object in a box (float [1, 4] in 0..1), or None for the whole image, of an
        image of that size.
      boxes: how the texts of aligned records shall write them.
      task: name of the task.

    Raises:
      FileNotFoundError, ValueError: there is none of them; names the path.
    """
    name, part = named_and_part(split)
    own_root = epath.Path(root) if root else None
    if path.exists() and flickr30k.is_there(path):
        found = [_of_sentence(each, ask) for each in flickr30k.sentences(path, name, own_root)]
        return QuestionSource(f"{path}, split {split!r}", found[part], task)
    if path.exists() and (phrases := entries(path, split, own_root)) is not None:
        regions = [_of_region(entry, ask) for entry in phrases if entry.corners is not None]
        return QuestionSource(f"{path}, split {split!r}", regions, task)
    records = open_records(path, split)
    if is_aligned(records) and records.has("things"):
        items = [each for record in range(len(records)) for each in _of_aligned(records, record, boxes)]
        return QuestionSource(records.name, items, task)
    if not records.has("id", "image_a", "image_b", "objects_a", "objects_b"):
        raise ValueError(f"{path} has no objects to describe: its records list none")
    of_records = [each for record in range(len(records)) for each in _of_record(records, record, ask)]
    return QuestionSource(records.name, of_records, task)


def _of_region(entry: Entry, ask: AskBox) -> Question:
    def asked(sizes: Sequence[Size]) -> Turn:
        return ask(box_in(entry, sizes[0]), sizes[0])

    return Question(entry.id, (PictureFile(entry.image),), asked, Target((), None, ((entry.phrase, ()),)))


def _of_sentence(sentence: flickr30k.Sentence, ask: AskBox) -> Question:
    height, width = sentence.size
    pieces: list[Piece] = []
    things: list[Thing] = []
    end = 0
    for phrase in sentence.phrases:
        scale = np.array([width, height] * 2)
        boxes = tuple(tuple(np.clip(np.divide(box, scale), 0, 1).tolist()) for box in phrase.boxes)
        words = sentence.text[phrase.first : phrase.end]
        pieces += [(sentence.text[end : phrase.first], ()), (words, boxes)]
        things += [Thing(len(things) + number, (), words, box) for number, box in enumerate(boxes)]
        end = phrase.end
    pieces.append((sentence.text[end:], ()))
    target = Target(tuple(things), None, tuple(piece for piece in pieces if piece[0]), by_name=False)
    return Question(sentence.id, (PictureFile(sentence.image),), lambda sizes: ask(None, sizes[0]), target)


def _of_record(records: Records, record: int, ask: AskBox) -> Iterator[Question]:
    read = records.read(record, ("id", "objects_a", "objects_b"))
    for image in "ab":
        things = tuple(thing for thing in read_things(read[f"objects_{image}"]) if thing.shown)
        hidden = tuple(thing for thing in read_things(read[f"objects_{image}"]) if not thing.shown)
        picture: tuple[Picture, ...] = (RecordPicture(records, record, f"image_{image}"),)
        id = f"{read['id'].decode()}/{image}"
        for number, thing in enumerate(things):
            if (words := phrase_for(thing, things + hidden)) is not None:
                target = Target(things, number, ((_the(words), ()),))
                yield Question(f"{id}{thing.id}", picture, _asks(ask, thing), target)
        if things:
            # What is lower in the picture is nearer.
            ordered = sorted(things, key=lambda thing: -thing.box[3])
            said = tuple((_name(thing, things + hidden), (thing.box,)) for thing in ordered)
            target = Target(things, None, _listed(said))
            yield Question(f"{id}-all", picture, lambda sizes: ask(None, sizes[0]), target)


def _of_aligned(records: Records, record: int, boxes: BoxFormat) -> Iterator[Question]:
    read = records.read(record, ("things", "items"))
    view = json.loads(read["things"])
    things = tuple(_placed(thing, view["width"], view["height"]) for thing in view["things"])
    numbers = {thing.id: number for number, thing in enumerate(things)}
    picture: tuple[Picture, ...] = (RecordPicture(records, record, "image"),)
    for id, kind, text in zip(*(read["items"][key] for key in ("id", "kind", "item")), strict=True):
        if kind.decode() not in _ALIGNED:
            continue
        item = json.loads(text)
        question, answer = with_boxes(turns_of(item["rounds"]), (view["height"], view["width"]), boxes)
        wanted = numbers[item["targets"][0]] if kind == b"C-T" else None
        # Others are hardly visible, or no words tell them apart.
        named = tuple(numbers[id] for id in item["targets"])
        target = Target(things, wanted, ((text_of(answer), ()),), named=named)
        yield Question(id.decode(), picture, functools.partial(_said, question), target)


def _said(question: Turn, sizes: Sequence[Size]) -> Turn:
    return question


def _placed(thing: Mapping[str, Any], width: int, height: int) -> Placed:
    side = max(width, height)
    x0, y0, x1, y1 = thing["box"]
    center = (x0 + x1) / 2 + (side - width) / 2, (y0 + y1) / 2 + (side - height) / 2
    texture = () if thing["texture"] == "plain" else (thing["texture"],)
    return Placed(
        id=thing["id"],
        adjectives=(thing["size"], thing["color"], *texture, thing["material"]),
        noun=thing["shape"],
        box=(x0 / width, y0 / height, x1 / width, y1 / height),
        center=(center[0] / side, center[1] / side),
        depth=thing["depth"],
        radius=thing["radius"],
        extent=thing["extent"],
        pixels=thing["pixels"],
        place=tuple(thing["place"]),
    )


def _asks(ask: AskBox, thing: Thing) -> Callable[[Sequence[Size]], Turn]:
    return lambda sizes: ask(np.asarray([thing.box], np.float32), sizes[0])


def _name(thing: Thing, things: Sequence[Thing]) -> str:
    return _the(phrase_for(thing, things) or (thing.adjectives, thing.noun))


def _the(words: tuple[tuple[str, ...], str]) -> str:
    return " ".join(("the", *words[0], words[1]))


def _listed(said: Sequence[Piece]) -> tuple[Piece, ...]:
    """With commas between."""
    pieces: list[Piece] = []
    for number, piece in enumerate(said):
        pieces += [*([(", ", ())] if number else []), piece]
    return tuple(pieces)
