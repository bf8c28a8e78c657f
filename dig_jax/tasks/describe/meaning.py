"""What a phrase means in a scene that is known: which of its objects it is true of.

A phrase is words of a name, perhaps with a place: "the small red cube", "the leftmost ball", "the cube
closest to the camera", "the ball left of the striped cube behind the cone". Words are true of an object whose
name has them. Places are true, false or too near to tell, so that nobody is right or wrong by a hair; a place
relative to something is told only where the words for that are true of one object alone. What a scene does
not say, such as depth in a photograph, is too near to tell.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence

from dig_jax.tasks.referring.phrases import Thing

YES, MAYBE, NO = 2, 1, 0
_APART = (0.06, 0.02)  # between centers, of the picture's square: from the first on yes, up to the second no
_DEEP = (0.5, 0.2)  # the same between depths, in mean radii of both
_FACTOR = 1.25  # by which the largest surpasses the next, and the nearest is nearer
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_ARTICLES = {"a", "an", "the", "this", "one"}
_FILLING = {"that", "which", "is", "to", "on", "side"}
_OBJECT = "object"  # a word that is true of everything
_RELATIONS = {
    ("left", "of"): "left",
    ("right", "of"): "right",
    ("in", "front", "of"): "front",
    ("behind",): "behind",
    ("nearest", "to"): "nearest",
}
_LATE: dict[tuple[str, ...], str] = {
    ("closest", "to", "camera"): "front",
    ("farthest", "from", "camera"): "behind",
}
EXTREMES = {"leftmost": "left", "rightmost": "right", "largest": "largest", "smallest": "smallest"}
_DEEPEST = 3


@dataclasses.dataclass(frozen=True)
class Placed(Thing):
    """A thing of a rendered scene.

    Attributes:
      center: of its box, in shares of the square that the picture is centred in.
      depth: of the ground under it, from the camera.
      radius, extent: of its footprint, and of all of it.
      pixels: of it that the picture shows.
      place: of it in the scene.
    """

    center: tuple[float, float]
    depth: float
    radius: float
    extent: float
    pixels: float
    place: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """A phrase taken apart.

    Attributes:
      words: of the name; none for an object of any.
      extreme: what it is the most of among those that the words fit: a value of `EXTREMES`, "front" or
      "behind".
      relation: to the landmark: a value of `_RELATIONS`; "" where there is none.
      landmark: what it stands to so.
    """

    words: frozenset[str]
    extreme: str = ""
    relation: str = ""
    landmark: Program | None = None


def parse(phrase: str, deepest: int = _DEEPEST) -> Program | None:
    """A phrase as a program; None where it says no words of a name, or nests too deep. It never raises."""
    words = [word.lower() for word in _WORD.findall(phrase)]
    return _parse([word for word in words if word not in _ARTICLES], deepest)


def _parse(words: list[str], deepest: int) -> Program | None:
    for first in range(len(words)):
        for pattern, relation in _RELATIONS.items():
            if tuple(words[first : first + len(pattern)]) == pattern:
                name = _name(words[:first])
                landmark = _parse(words[first + len(pattern) :], deepest - 1) if deepest > 1 else None
                if name is None or landmark is None:
                    return None
                return dataclasses.replace(name, relation=relation, landmark=landmark)
    return _name(words)


def _name(words: list[str]) -> Program | None:
    extreme = ""
    if late := _LATE.get(tuple(words[-3:])):
        extreme, words = late, words[:-3]
    for word in words:
        extreme = EXTREMES.get(word, extreme)
    left = frozenset(word for word in words if word not in EXTREMES and word not in _FILLING)
    return Program(left - {_OBJECT}, extreme) if left else None


def execute(program: Program, things: Sequence[Thing]) -> list[int]:
    """Of each thing, whether a phrase is true of it: `YES`, `MAYBE` or `NO`."""
    values = [YES if program.words <= name_words(thing) else NO for thing in things]
    if program.extreme:
        values = _most(values, things, lambda one, other: _surpasses(program.extreme, one, other))
    if program.landmark is None:
        return values
    marks = execute(program.landmark, things)
    if marks.count(YES) != 1 or MAYBE in marks:
        return [min(value, MAYBE) for value in values]
    mark = things[place := marks.index(YES)]
    values = [NO if number == place else value for number, value in enumerate(values)]
    if program.relation == "nearest":
        return _most(values, things, lambda one, other: _nearer(mark, one, other))
    return [
        min(value, _related(program.relation, thing, mark))
        for value, thing in zip(values, things, strict=True)
    ]


def denotes(phrase: str, things: Sequence[Thing]) -> list[int] | None:
    """Of each thing, whether a phrase is true of it; None where it is no phrase."""
    program = parse(phrase)
    return None if program is None else execute(program, things)


def name_words(thing: Thing) -> set[str]:
    """The words of a name."""
    return {word.lower() for text in (*thing.adjectives, thing.noun) for word in _WORD.findall(text)}


def _related(relation: str, one: Thing, other: Thing) -> int:
    """Whether a thing is left or right of another as the viewer sees it, or nearer to or farther from
    them."""
    if relation in ("left", "right"):
        gap, (clear, least) = _center(other)[0] - _center(one)[0], _APART
    elif isinstance(one, Placed) and isinstance(other, Placed):
        gap, (clear, least) = (other.depth - one.depth) / ((one.radius + other.radius) / 2), _DEEP
    else:
        return MAYBE
    gap = round(-gap if relation in ("right", "behind") else gap, 9)  # a threshold is on its right side
    return YES if gap >= clear else MAYBE if gap > least else NO


def _surpasses(extreme: str, one: Thing, other: Thing) -> bool:
    """Whether a thing is clearly more so than another."""
    if extreme not in ("largest", "smallest"):
        return _related(extreme, one, other) == YES
    if not (isinstance(one, Placed) and isinstance(other, Placed)):
        return False
    large, small = (one, other) if extreme == "largest" else (other, one)
    return large.extent >= _FACTOR * small.extent and large.pixels >= _FACTOR * small.pixels


def _nearer(mark: Thing, one: Thing, other: Thing) -> bool:
    """Whether a thing is clearly nearer to a landmark than another, in the scene and in the picture."""
    if not (isinstance(mark, Placed) and isinstance(one, Placed) and isinstance(other, Placed)):
        return False
    near, far = (math.dist(each.place, mark.place) for each in (one, other))
    shown_near, shown_far = (math.dist(each.center, mark.center) for each in (one, other))
    return far >= _FACTOR * near and shown_far >= _FACTOR * shown_near


def _most(values: Sequence[int], things: Sequence[Thing], more: Callable[[Thing, Thing], bool]) -> list[int]:
    """Of those that may be among them: whether one surpasses all others, or another one surpasses it."""
    rivals = [number for number, value in enumerate(values) if value != NO]
    found = [NO] * len(values)
    for number in rivals:
        others = [other for other in rivals if other != number]
        if any(values[other] == YES and more(things[other], things[number]) for other in others):
            continue
        clear = values[number] == YES and all(more(things[number], things[other]) for other in others)
        found[number] = YES if clear else MAYBE
    return found


def _center(thing: Thing) -> tuple[float, float]:
    if isinstance(thing, Placed):
        return thing.center
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
