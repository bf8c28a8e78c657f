"""An item: one question, or a conversation, about one picture, with the programs its answers follow from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.alignment import crops
from data_gen.alignment.answers import answer
from data_gen.alignment.crops import Cut
from data_gen.alignment.logic import Program
from data_gen.alignment.things import View

SIX = ("T-C", "C-T", "I-C", "C-I", "T-I", "I-T")
KINDS = (*SIX, "exist", "conversation", "description")
PARTS = ("train", "val", "testA", "testB")
OPTIONS = 4


@dataclasses.dataclass(frozen=True)
class Round:
    """What the user says, what the assistant answers, and the question as a program (see answers)."""

    user: str
    assistant: str
    ask: Program


@dataclasses.dataclass(frozen=True)
class Item:
    """One item, without pixels.

    Attributes:
      kind: one of KINDS.
      style: of its phrase, one of refer.STYLES; what is asked of I-T; "" of others.
      rounds: one, or several of a conversation. The first begins with `<image>` and a new line, or ends with
        a new line and `<image>`.
      cuts: the crop at each `<object>`, in the order of the text.
      targets: ids of the objects that are right.
      things: ids of all objects that it shows or names, targets included.
      facts: what the balance sheet counts of it, as JSON values.
      part: one of PARTS.
    """

    kind: str
    style: str
    rounds: tuple[Round, ...]
    cuts: tuple[Cut, ...]
    targets: tuple[int, ...]
    things: tuple[int, ...]
    facts: Mapping[str, Any]
    part: str = "train"


def one_round(view: View, user: str, ask: Program, cuts: Sequence[Cut] = ()) -> Round:
    """A round whose answer is executed. Raises Undecided."""
    return Round(user, answer(ask, view, [cut.box for cut in cuts]), ask)


def to_json_values(item: Item) -> dict[str, Any]:
    """The item as JSON values."""
    return dataclasses.asdict(item) | {"cuts": [crops.to_json_values(one) for one in item.cuts]}


def from_json(text: str) -> Item:
    """The item whose JSON values these are."""
    values = json.loads(text)
    return Item(
        **{
            **values,
            "rounds": tuple(Round(**each) for each in values["rounds"]),
            "cuts": tuple(crops.from_json_values(each) for each in values["cuts"]),
            "targets": tuple(values["targets"]),
            "things": tuple(values["things"]),
        }
    )
