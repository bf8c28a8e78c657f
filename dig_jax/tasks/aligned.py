"""Aligned records (`python -m data_gen.align`): questions about a rendered picture and crops of its objects.

A record has a picture, all crops of its items, and the items: kind, rounds of question and answer as texts
with `<image>` and `<object>` in place, and which crops are its own. Each task opens the kinds that it can
score: `referring` those that are answered by a box, `choice` by a letter, `yes_no` by a word, and
`conversation` all or some of them (`config.conversation.kinds`), so that the parts of a mixture can be kinds
of one data set.

Boxes in those texts are shares of the square that the picture is centred in; they are shown and learnt as the
model writes boxes, so that all tasks of a run, and the questions among them, speak alike.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from etils import epath

from dig_jax.data import images
from dig_jax.data.example import BadRecord, Example, Object, Shape, Size, Turn, marked_parts
from dig_jax.data.records import Records, open_records
from dig_jax.tasks.boxes.text import BoxFormat

FEATURES = ("image", "items", "crops")
WRITTEN = BoxFormat("unit", 1, lambda size: size)  # how records write boxes
_IMAGE = re.compile(r"<image>\n|\n<image>")
_NO_WORD = re.compile(r"<\w+>|\d+(?:\.\d+)?")
_BOX = re.compile(r"\[\d\.\d{3}(?:,\d\.\d{3}){3}\]")

MakeTarget = Callable[[tuple[Turn, ...], Size], Any]  # turns as recorded, size of the picture -> target


@dataclasses.dataclass(frozen=True)
class _Item:
    """Rounds about one picture, the numbers of their crops, and the objects that answers are about."""

    id: str
    rounds: tuple[dict[str, Any], ...]
    crops: tuple[int, ...]
    targets: frozenset[int]

    @classmethod
    def read(cls, id: bytes, item: bytes, first: int, count: int) -> _Item:
        """An item as it is recorded. Raises KeyError."""
        values = json.loads(item)
        crops = tuple(range(int(first), int(first) + int(count)))
        return cls(id.decode(), tuple(values["rounds"]), crops, frozenset(values["targets"]))


@dataclasses.dataclass(frozen=True)
class Asked:
    """One item of a record, or several that are asked one after another.

    Attributes:
      id: of the example.
      record: number of the record.
      turns: from the first question to the last answer.
      crops: numbers of its crops among those of the record.
    """

    id: str
    record: int
    turns: tuple[Turn, ...]
    crops: tuple[int, ...]


class AlignedSource:
    """The items of aligned records as examples.

    Args:
      records: with `FEATURES`.
      kinds: of items that are wanted; all where there are none.
      task: name of the task.
      target: makes what is right.
      boxes: how the model writes them.
      every: whether each of the kinds must be there, and not one of them alone.
      joined: up to so many items of a picture are one example, see `_joined`; 0 = each is one.

    Raises:
      ValueError: a kind, or all of them, are of no item; names those there are.
    """

    def __init__(
        self,
        records: Records,
        kinds: Collection[str],
        task: str,
        target: MakeTarget,
        boxes: BoxFormat,
        every: bool = False,
        joined: int = 0,
    ):
        self.name = records.name
        self.unusable: list[tuple[int, BadRecord]] = []
        self._records = records
        self._task = task
        self._target = target
        self._boxes = boxes
        self._asked: list[Asked] = []
        self._sizes: dict[int, tuple[Size, tuple[Size, ...]] | None] = {}
        seen: set[str] = set()
        for record in range(len(records)):
            try:
                items = records.read(record, ("items",))["items"]
                columns = (items[key] for key in ("kind", "id", "item", "first_crop", "crops"))
                own: list[_Item] = []
                for kind, *written in zip(*columns, strict=True):
                    seen.add(kind.decode())
                    if not kinds or kind.decode() in kinds:
                        own.append(_Item.read(*written))
                for asked in _joined(own, joined) if joined else own:
                    turns = turns_of(asked.rounds)
                    self._asked.append(Asked(asked.id, record, turns, asked.crops))
            except Exception as error:  # damaged bytes can make any of the readers raise anything
                self.unusable.append((record, BadRecord(f"{self.name}, record {record}: {error!r}")))
        if (unknown := sorted(set(kinds) - seen)) and (every or not self._asked):
            raise ValueError(
                f"{self.name} has no items of the kinds {', '.join(unknown)} that the task {task}"
                f" takes; it has {', '.join(sorted(seen)) or 'none'}"
            )

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, index: int) -> Example:
        """Item number `index` with its picture and its crops. Raises BadRecord."""
        asked = self._asked[index]
        try:
            picture, crops = self._files(asked.record)
            shown = (picture, *(crops[number] for number in asked.crops))
            decoded = tuple(self._records.decode(data, asked.id) for data in shown)
            size = decoded[0].shape[0], decoded[0].shape[1]
            messages = with_boxes(asked.turns[:-1], size, self._boxes)
            target = self._target(asked.turns, size)
        except Exception as error:
            raise BadRecord(f"{self.name}, {asked.id}: {error}") from error
        return Example(asked.id, messages, decoded, target, self._task)

    def shapes(self) -> Sequence[Shape | None]:
        """The shape of every item; None where its record cannot be read."""
        return [self._shape(asked) for asked in self._asked]

    def _shape(self, asked: Asked) -> Shape | None:
        if asked.record not in self._sizes:
            self._sizes[asked.record] = self._sizes_of(asked.record)
        if (sizes := self._sizes[asked.record]) is None:
            return None
        picture, crops = sizes
        messages = with_boxes(asked.turns[:-1], picture, self._boxes)
        return Shape(messages, (picture, *(crops[number] for number in asked.crops)))

    def _sizes_of(self, record: int) -> tuple[Size, tuple[Size, ...]] | None:
        try:
            picture, crops = self._files(record)
            sizes = [images.image_size(data, self.name) for data in (picture, *crops)]
            return sizes[0], tuple(sizes[1:])
        except Exception:  # as in `__getitem__`, which says what it was
            return None

    def _files(self, record: int) -> tuple[bytes, Sequence[bytes]]:
        read = self._records.read(record, ("image", "crops"))
        return read["image"], read["crops"]


def _joined(items: Sequence[_Item], most: int) -> Iterator[_Item]:
    """Up to `most` items of a picture as rounds of one conversation, which shows the picture once.

    All rounds but the first cost their own words and crops alone. No two of them are about the same object:
    the later one could be answered from what was said, and not from the picture. Items are shuffled, each
    picture in an order of its own, so that every kind is asked first as often as its share.
    """
    order = list(items)
    random.Random(items[0].id if items else "").shuffle(order)
    groups: list[list[_Item]] = []
    for item in order:
        for group in groups:
            if len(group) < most and not any(item.targets & other.targets for other in group):
                group.append(item)
                break
        else:
            groups.append([item])
    for group in groups:
        first, *later = itertools.chain.from_iterable(item.rounds for item in group)
        shown = [said | {"user": _IMAGE.sub("", said["user"])} for said in later]
        yield _Item(
            "+".join(item.id for item in group),
            (first, *shown),
            tuple(itertools.chain.from_iterable(item.crops for item in group)),
            frozenset().union(*(item.targets for item in group)),
        )


def is_aligned(records: Records) -> bool:
    """Whether records are aligned ones."""
    return records.has(*FEATURES)


def texts(folder: epath.PathLike) -> list[str]:
    """What questions and answers of the split `train` say, each once, without marks and numbers.

    Raises:
      ValueError: the folder holds other records.
    """
    records = open_records(folder, "train")
    if not is_aligned(records):
        raise ValueError(f"{folder} has no items: its records are not of data_gen.align")
    found: dict[str, None] = {}
    for record in range(len(records)):
        for item in records.read(record, ("items",))["items"]["item"]:
            for each in json.loads(item)["rounds"]:
                found |= dict.fromkeys(_NO_WORD.sub(" ", each[who]) for who in ("user", "assistant"))
    return list(found)


def text_of(turn: Turn) -> str:
    """What a turn says, without its images."""
    return "".join(part for part in turn.parts if isinstance(part, str)).strip()


def with_boxes(turns: Sequence[Turn], size: Size, boxes: BoxFormat) -> tuple[Turn, ...]:
    """Turns of a record, with their boxes as `boxes` writes them in a picture of that size."""
    if (boxes.convention, boxes.step) == (WRITTEN.convention, WRITTEN.step):
        return tuple(turns)

    def other(match: re.Match[str]) -> str:
        read = WRITTEN.read(f"[{match[0]}]", size, thinking=False, max_boxes=1)
        return boxes.write(read.boxes, size)[1:-1] if read.valid else match[0]

    def rewritten(part: str | int | Object) -> str | int | Object:
        return _BOX.sub(other, part) if isinstance(part, str) else part

    return tuple(Turn(turn.role, tuple(map(rewritten, turn.parts))) for turn in turns)


def turns_of(rounds: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    """The turns of rounds as recorded; the picture is image 0, and its crops follow. Raises KeyError."""
    turns: list[Turn] = []
    pictures, objects = 0, 1
    for each in rounds:
        turns.append(Turn("user", marked_parts(each["user"], pictures, objects)))
        turns.append(Turn("assistant", (each["assistant"],)))
        pictures += each["user"].count("<image>")
        objects += each["user"].count("<object>")
    return tuple(turns)
