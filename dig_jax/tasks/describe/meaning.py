"""What a phrase means in a scene that is known: which of its objects it is true of.

A phrase is words of a name, perhaps with a place: "the small red cube", "the leftmost ball", "the ball left
of the striped cube behind the cone". Words are true of an object whose name has them. Places are true, false
or too near to tell, so that nobody is right or wrong by a hair; a place relative to something is told only
where the words for that are true of one object alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from dig_jax.tasks.referring.phrases import Thing

YES, MAYBE, NO = 2, 1, 0
_SIDE = (
    0.06,
    0.02,
)  # how far apart centers are, in widths of the image: from the first on yes, to the second no
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_ARTICLES = {"a", "an", "the", "this", "one"}
_FILLING = {"that", "which", "is", "to", "on", "side", "object"}
_RELATIONS = {("left", "of"): -1, ("right", "of"): 1}  # sign of the difference of the centers
_EXTREMES = {"leftmost": -1, "rightmost": 1}
_DEEPEST = 3


@dataclasses.dataclass(frozen=True)
class Program:
    """A phrase taken apart.

    Attributes:
      words: of the name, the noun among them.
      extreme: -1 for the leftmost, 1 for the rightmost of those that the words fit, 0 for neither.
      side: -1 for left of the landmark, 1 for right of it, 0 where there is none.
      landmark: what it is beside.
    """

    words: frozenset[str]
    extreme: int = 0
    side: int = 0
    landmark: Program | None = None


def parse(phrase: str, deepest: int = _DEEPEST) -> Program | None:
    """A phrase as a program; None where it says no words of a name, or nests too deep. It never raises."""
    words = [word.lower() for word in _WORD.findall(phrase)]
    words = [word for word in words if word not in _ARTICLES]
    for place, pair in enumerate(zip(words, words[1:], strict=False)):
        if side := _RELATIONS.get(pair, 0):
            landmark = parse(" ".join(words[place + 2 :]), deepest - 1) if deepest > 1 else None
            name = _name(words[:place])
            return (
                None
                if landmark is None or name is None
                else dataclasses.replace(name, side=side, landmark=landmark)
            )
    return _name(words)


def _name(words: Sequence[str]) -> Program | None:
    extreme = next((_EXTREMES[word] for word in words if word in _EXTREMES), 0)
    left = frozenset(word for word in words if word not in _EXTREMES and word not in _FILLING)
    return Program(left, extreme) if left else None


def execute(program: Program, things: Sequence[Thing]) -> list[int]:
    """Of each thing, whether a phrase is true of it: `YES`, `MAYBE` or `NO`."""
    values = [YES if program.words <= name_words(thing) else NO for thing in things]
    if program.extreme:
        values = _extreme(program.extreme, values, things)
    if program.landmark is None:
        return values
    marks = execute(program.landmark, things)
    if marks.count(YES) != 1 or MAYBE in marks:
        return [min(value, MAYBE) for value in values]
    mark = marks.index(YES)
    beside = [
        NO if number == mark else _apart(program.side * (_center(thing) - _center(things[mark])))
        for number, thing in enumerate(things)
    ]
    return [min(pair) for pair in zip(values, beside, strict=True)]


def denotes(phrase: str, things: Sequence[Thing]) -> list[int] | None:
    """Of each thing, whether a phrase is true of it; None where it is no phrase."""
    program = parse(phrase)
    return None if program is None else execute(program, things)


def name_words(thing: Thing) -> set[str]:
    """The words of a name."""
    return {word.lower() for text in (*thing.adjectives, thing.noun) for word in _WORD.findall(text)}


def _extreme(side: int, values: Sequence[int], things: Sequence[Thing]) -> list[int]:
    """Those that no other of the same words is beyond."""
    found = []
    for number, (value, thing) in enumerate(zip(values, things, strict=True)):
        others = [
            _apart(side * (_center(thing) - _center(other)))
            for place, (fits, other) in enumerate(zip(values, things, strict=True))
            if place != number and fits
        ]
        found.append(min([value, *others]))
    return found


def _apart(difference: float) -> int:
    least, most = _SIDE
    return YES if difference >= least else MAYBE if difference > most else NO


def _center(thing: Thing) -> float:
    return (thing.box[0] + thing.box[2]) / 2
