"""Phrases as programs, and what they are true of: yes, no or maybe.

A program is JSON that a record stores beside each text:

    ["is", attribute, word]          ["is", "color", "red"]
    ["rel", relation, program]       ["rel", "left of", P]: left of the one object that P means
    ["most", superlative, program]   ["most", "leftmost", P]: of those that P is true of
    ["nearest", landmark, program]   of those that the last program is true of, nearest to the landmark
    ["and", [program, ...]]          the lowest value of all
    ["crop", k], ["box", text]       the object of crop number k of the item, and the one with that box

A program means an object when it is "yes" of that one and "no" of every other, hidden and small ones
included: one "maybe" and it means none. Conjunctions take the lowest value, so one clear "no" settles an
object.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Any

from data_gen.alignment.things import ATTRIBUTES, PixelBox, Thing, View

Program = list[Any]

RELATIONS = ("left of", "right of", "in front of", "behind")
MIRRORED = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
SUPERLATIVES = ("leftmost", "rightmost", "closest", "farthest", "largest", "smallest")


class Truth(enum.IntEnum):
    """Three-valued truth (Kleene): conjunction is the minimum."""

    NO = 0
    MAYBE = 1
    YES = 2


NO, MAYBE, YES = Truth


class Undecided(Exception):
    """What is asked has no certain answer in the scene; `str(error)` says why."""


def truth(program: Program, view: View, crops: Sequence[PixelBox] = ()) -> dict[int, Truth]:
    """Of every object of the picture, by id. `crops` are the boxes that crops of the item were cut from.

    Raises:
      Undecided: a landmark is not one certain object.
      ValueError: this is no program.
    """
    match program:
        case ["is", attribute, word] if attribute in ATTRIBUTES:
            return {thing.id: _is(view, thing, attribute, word) for thing in view.things}
        case ["rel", relation, landmark] if relation in RELATIONS:
            other = meant(landmark, view, crops)
            return {thing.id: related(view, thing, relation, other) for thing in view.things}
        case ["most", superlative, among] if superlative in SUPERLATIVES:
            return _most(view, truth(among, view, crops), lambda a, b: surpasses(view, superlative, a, b))
        case ["nearest", landmark, among]:
            other = meant(landmark, view, crops)
            values = truth(among, view, crops)
            values[other.id] = NO
            return _most(view, values, lambda a, b: _nearer(view, other, a, b))
        case ["and", [_, *_] as parts]:
            all_values = [truth(part, view, crops) for part in parts]
            return {thing.id: min(values[thing.id] for values in all_values) for thing in view.things}
        case ["crop", int(number)]:
            return _those(view, [thing.box == tuple(crops[number]) for thing in view.things])
        case ["box", str(text)]:
            return _those(view, [view.box_text(thing.box) == text for thing in view.things])
    raise ValueError(f"not a program: {program!r}")


def meant(program: Program, view: View, crops: Sequence[PixelBox] = ()) -> Thing:
    """The one object that a program means. Raises Undecided."""
    values = truth(program, view, crops)
    if MAYBE in values.values():
        raise Undecided("perhaps another one")
    found = [id for id, value in values.items() if value == YES]
    if len(found) != 1:
        raise Undecided(f"{len(found)} objects")
    return view.by_id[found[0]]


def group(program: Program, view: View, crops: Sequence[PixelBox] = ()) -> list[Thing]:
    """All objects that a program is true of, from left to right. Raises Undecided."""
    values = truth(program, view, crops)
    if MAYBE in values.values():
        raise Undecided("perhaps more")
    return sorted(
        (view.by_id[id] for id, value in values.items() if value == YES), key=lambda thing: thing.box
    )


def means(program: Program, view: View, thing: Thing, crops: Sequence[PixelBox] = ()) -> bool:
    """Whether a program means this object."""
    try:
        return meant(program, view, crops).id == thing.id
    except Undecided:
        return False


def related(view: View, thing: Thing, relation: str, other: Thing) -> Truth:
    """Whether a thing is left of another one, as the viewer sees it, or "behind", farther from the camera."""
    if thing.id == other.id:
        return NO
    rules = view.rules
    if relation in ("left of", "right of"):
        gap = view.centre(other)[0] - view.centre(thing)[0]
        clear, least = rules.apart, rules.near
    else:
        gap = (other.depth - thing.depth) / ((thing.radius + other.radius) / 2)
        clear, least = rules.deep, rules.level
    if relation in ("right of", "behind"):
        gap = -gap
    gap = round(gap, 9)  # so that a distance of exactly the threshold is on its right side
    return YES if gap >= clear else MAYBE if gap > least else NO


def surpasses(view: View, superlative: str, thing: Thing, other: Thing) -> bool:
    """Whether a thing is clearly more so than another one."""
    if superlative in ("leftmost", "rightmost", "closest", "farthest"):
        relation = dict(zip(("leftmost", "rightmost", "closest", "farthest"), RELATIONS, strict=True))[
            superlative
        ]
        return related(view, thing, relation, other) == YES
    large, small = (thing, other) if superlative == "largest" else (other, thing)
    factor = view.rules.factor
    return large.extent >= factor * small.extent and large.pixels >= factor * small.pixels


def _is(view: View, thing: Thing, attribute: str, word: str) -> Truth:
    if getattr(thing, attribute) != word:
        return NO
    return YES if view.well_seen(thing) else MAYBE


def _most(view: View, among: dict[int, Truth], more: Any) -> dict[int, Truth]:
    """Of each object that may be among them: whether it surpasses all others, or one surpasses it."""
    result = dict.fromkeys(among, NO)
    rivals = [view.by_id[id] for id, value in among.items() if value != NO]
    for thing in rivals:
        others = [other for other in rivals if other.id != thing.id]
        if any(among[other.id] == YES and more(other, thing) for other in others):
            continue
        result[thing.id] = MAYBE
        if among[thing.id] == YES and all(more(thing, other) for other in others):
            result[thing.id] = YES
    return result


def _nearer(view: View, landmark: Thing, thing: Thing, other: Thing) -> bool:
    """Whether a thing is clearly nearer to the landmark than another one, in the scene and in the picture."""
    factor = view.rules.factor
    near, far = (math.dist(one.place, landmark.place) for one in (thing, other))
    shown_near, shown_far = (math.dist(view.centre(one), view.centre(landmark)) for one in (thing, other))
    return far >= factor * near and shown_far >= factor * shown_near


def _those(view: View, chosen: Sequence[bool]) -> dict[int, Truth]:
    return {thing.id: YES if here else NO for thing, here in zip(view.things, chosen, strict=True)}
