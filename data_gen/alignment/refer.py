"""Phrases that mean one object of a picture, found by the incremental algorithm (Dale and Reiter 1995).

Attributes are tried in a fixed order and kept when they rule something out, until nothing else is left. Three
styles mirror RefCOCO, RefCOCO+ and RefCOCOg:

    ref    attributes, then a superlative of place or size
    ref+   attributes alone, no word of place
    refg   attributes and a relation to a landmark, which has a phrase of its own
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from data_gen.alignment.logic import (
    NO,
    RELATIONS,
    SUPERLATIVES,
    YES,
    Program,
    Undecided,
    means,
    related,
    truth,
)
from data_gen.alignment.things import ATTRIBUTES, Thing, View
from data_gen.alignment.words import all_of

STYLES = ("ref", "ref+", "refg")


@dataclasses.dataclass(frozen=True)
class Expression:
    """A program that means one object.

    Attributes:
      program: see logic.
      style: one of STYLES.
      hard: another object fits all of it but one part, so that no single word finds the object.
      landmarks: ids of the objects it names beside its own.
      redundant: one attribute more than needed is in it.
    """

    program: Program
    style: str
    hard: bool
    landmarks: tuple[int, ...] = ()
    redundant: bool = False


def by_attributes(view: View, thing: Thing) -> dict[str, str] | None:
    """The attributes that mean a thing alone, found in their order; None where all of them do not."""
    chosen: dict[str, str] = {}
    left = {other.id for other in view.things if other.id != thing.id}
    for name in ATTRIBUTES:
        values = truth(["is", name, getattr(thing, name)], view)
        ruled_out = {id for id in left if values[id] == NO}
        # The kind of thing is said even where it rules nothing out, as people do.
        if ruled_out or name == "shape":
            chosen[name] = getattr(thing, name)
            left -= ruled_out
        if not left:
            break
    return chosen if means(all_of(chosen), view, thing) else None


def expression(view: View, thing: Thing, style: str, rng: random.Random) -> Expression | None:
    """An expression of that style that means the thing; None where there is none."""
    if style == "refg":
        return _relational(view, thing, rng)
    chosen = by_attributes(view, thing)
    superlatives = _superlatives(view, thing, rng) if style == "ref" else []
    if chosen and not (superlatives and rng.random() < 0.5):
        chosen, redundant = _with_one_more(view, thing, chosen, rng)
        program = all_of(chosen)
        return Expression(program, style, is_hard(program, view, thing), redundant=redundant)
    if superlatives:
        program = superlatives[0]
        return Expression(program, style, is_hard(program, view, thing))
    return None


def _with_one_more(
    view: View, thing: Thing, chosen: dict[str, str], rng: random.Random
) -> tuple[dict[str, str], bool]:
    """Adds a true attribute to a share of phrases, as people do: "plain" is said only where it is needed."""
    more = [
        name
        for name in ATTRIBUTES
        if name not in chosen and (name, getattr(thing, name)) != ("texture", "plain")
    ]
    if not more or rng.random() >= view.rules.redundant:
        return chosen, False
    name = rng.choice(more)
    return chosen | {name: getattr(thing, name)}, True


def _superlatives(view: View, thing: Thing, rng: random.Random) -> list[Program]:
    """Superlatives that mean the thing among those of its shape, of its shape and colour, or among all."""
    among = [
        all_of({name: getattr(thing, name) for name in names})
        for names in (("shape",), ("shape", "color"), ())
    ]
    among = [program for program in among if program[1]]
    found = [
        program
        for filter_ in among
        for name in SUPERLATIVES
        # Of one there is no "most": whoever says so expects another.
        if sum(value == YES for value in truth(filter_, view).values()) > 1
        and means(program := ["most", name, filter_], view, thing)
    ]
    rng.shuffle(found)
    return found


def _relational(view: View, thing: Thing, rng: random.Random) -> Expression | None:
    """Shape or colour, and a relation to a landmark that has a phrase, at times with a relation itself."""
    landmarks = [other for other in view.eligible if other.id != thing.id]
    rng.shuffle(landmarks)
    for landmark in landmarks:
        named = by_attributes(view, landmark)
        if named is None:
            continue
        deep = _chain(view, landmark, thing, rng) if rng.random() < 0.25 else None
        other, ids = deep if deep else (all_of(named), (landmark.id,))
        if found := _related_to(view, thing, landmark, other, rng):
            return Expression(found, "refg", is_hard(found, view, thing), ids)
    return None


def _chain(
    view: View, landmark: Thing, thing: Thing, rng: random.Random
) -> tuple[Program, tuple[int, ...]] | None:
    """A landmark's own phrase with a relation in it: "the ball that is behind the cone"."""
    farther = [other for other in view.eligible if other.id not in (landmark.id, thing.id)]
    rng.shuffle(farther)
    for other in farther:
        named = by_attributes(view, other)
        if named and (found := _related_to(view, landmark, other, all_of(named), rng)):
            return found, (landmark.id, other.id)
    return None


def _related_to(
    view: View, thing: Thing, landmark: Thing, named: Program, rng: random.Random
) -> Program | None:
    """A relation of the thing to the landmark that, with few attributes, means the thing."""
    holds = [name for name in RELATIONS if related(view, thing, name, landmark) == YES]
    rng.shuffle(holds)
    candidates: list[Program] = []
    for relation in holds:
        for names in (("shape",), ("color",), ("shape", "color")):
            parts = [["is", name, getattr(thing, name)] for name in names]
            candidates.append(["and", [*parts, ["rel", relation, named]]])
        candidates.append(["nearest", named, all_of({"shape": thing.shape})])
    for program in candidates:
        if means(program, view, thing) and _needs_all(program, view, thing):
            return program
    return None


def _needs_all(program: Program, view: View, thing: Thing) -> bool:
    """Whether no part of the program can be left out: the relation is what finds the object."""
    if program[0] == "nearest":
        return not means(program[2], view, thing)
    parts = program[1]
    return not means(["and", parts[:-1]], view, thing) and not means(parts[-1], view, thing)


def is_hard(program: Program, view: View, thing: Thing) -> bool:
    """Whether it has two parts or more and another object certainly fits all of them but one."""
    parts = _parts(program)
    if len(parts) < 2:
        return False
    try:
        values = [truth(part, view) for part in parts]
    except Undecided:
        return False
    return any(
        sum(value[other.id] == YES for value in values) == len(parts) - 1
        for other in view.things
        if other.id != thing.id
    )


def _parts(program: Program) -> Sequence[Program]:
    """What an object must fit: a superlative is one part, each attribute of its group another."""
    if program[0] in ("most", "nearest"):
        return [*_parts(program[2]), program]
    return program[1] if program[0] == "and" else [program]
