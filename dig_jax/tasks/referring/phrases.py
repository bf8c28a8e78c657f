"""Phrases for the objects of a rendered scene, each of which fits exactly one of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object as a record describes it.

    Attributes:
      id: within its scene.
      adjectives: what stands before the noun of its name, such as "small", "red", "rubber".
      noun: what it is.
      box: x0, y0, x1, y1 in 0..1; all zeros where the image does not show it.
    """

    id: int
    adjectives: tuple[str, ...]
    noun: str
    box: tuple[float, ...]

    @property
    def shown(self) -> bool:
        """Whether the image shows any of it."""
        return any(self.box)

    def fits(self, adjectives: Sequence[str], noun: str) -> bool:
        """Whether a phrase of these words is true of it: it says nothing of what it leaves out."""
        return noun == self.noun and set(adjectives) <= set(self.adjectives)


def read_things(objects: Mapping[str, Sequence[Any]]) -> list[Thing]:
    """The objects of a record's `objects_a` or `objects_b`."""
    columns = (objects[key] for key in ("id", "name", "size", "color", "texture", "material", "bbox"))
    things = []
    for id, name, *attributes, box in zip(*columns, strict=True):
        words = name.decode().split()
        # Names are built as size, color, texture if there is one, material, noun (data_gen's `Object.name`).
        count = sum(bool(text) for text in attributes)
        known = [text.decode() for text in (attributes[0], attributes[1], attributes[3])]
        if len(words) <= count or not set(known) <= {*words[:count], ""}:
            count = 0  # a name of another make is taken whole
        corners = tuple(float(side) for side in np.asarray(box))
        things.append(Thing(int(id), tuple(words[:count]), " ".join(words[count:]), corners))
    return things


def phrase_for(thing: Thing, things: Sequence[Thing]) -> tuple[tuple[str, ...], str] | None:
    """The fewest words that fit this one of the things and no other: adjectives and noun.

    None where even its whole name fits another one too.
    """
    for count in range(len(thing.adjectives) + 1):
        for adjectives in itertools.combinations(thing.adjectives, count):
            if sum(other.fits(adjectives, thing.noun) for other in things) == 1:
                return adjectives, thing.noun
    return None
