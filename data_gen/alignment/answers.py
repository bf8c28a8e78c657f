"""Questions as programs, and their answers: what a record's answers are made from, and checked against.

["coordinate", P]        "[0.402,0.610,0.481,0.689]"
["describe", P, Q]       the phrase of Q, which means the object that P means
["choose", P, [k, ...]]  the letter of the one crop that is of that object
["relate", P, Q]         "It is left of it and behind it."
["attribute", P, name]   "red"
["exist", P]             "Yes" or "No"
["count", P]             "Two, at [...] and [...]."
["narrate", [[P, relation or None], ...]]  a description with a box after every object
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from data_gen.alignment.logic import (
    MAYBE,
    RELATIONS,
    YES,
    Program,
    Undecided,
    group,
    means,
    meant,
    related,
    truth,
)
from data_gen.alignment.things import ATTRIBUTES, PixelBox, Thing, View
from data_gen.alignment.words import attributes, indefinite, phrase

LETTERS = string.ascii_uppercase
NUMBERS = ("None", "One", "Two", "Three", "Four", "Five")


def answer(ask: Program, view: View, crops: Sequence[PixelBox] = ()) -> str:
    """The one right answer.

    Args:
      ask: the question.
      view: of the picture.
      crops: boxes that the item's crops were cut from.

    Raises:
      Undecided: there is no certain one.
      ValueError: this is no question.
    """
    match ask:
        case ["coordinate", program]:
            return view.box_text(meant(program, view, crops).box)
        case ["describe", program, named]:
            if not means(named, view, meant(program, view, crops)):
                raise Undecided("the phrase means another object")
            return phrase(named)
        case ["choose", program, [_, *_] as options]:
            return _letter(meant(program, view, crops), [tuple(crops[number]) for number in options])
        case ["relate", program, other]:
            return relation_text(view, meant(program, view, crops), meant(other, view, crops))
        case ["attribute", program, name] if name in ATTRIBUTES:
            thing = meant(program, view, crops)
            if not view.well_seen(thing):
                raise Undecided("hardly visible")
            return str(getattr(thing, name))
        case ["exist", program]:
            values = truth(program, view, crops).values()
            if YES not in values and MAYBE in values:
                raise Undecided("perhaps one")
            return "Yes" if YES in values else "No"
        case ["count", program]:
            return count_text(view, group(program, view, crops))
        case ["narrate", [_, *_] as told]:
            return narration(view, told)
    raise ValueError(f"not a question: {ask!r}")


def _letter(thing: Thing, options: Sequence[PixelBox]) -> str:
    fitting = [LETTERS[place] for place, box in enumerate(options) if box == thing.box]
    if len(fitting) != 1:
        raise Undecided(f"{len(fitting)} options fit")
    return fitting[0]


def relations_of(view: View, thing: Thing, other: Thing) -> list[str]:
    """What certainly holds, of each pair of directions at most one. Raises Undecided for a "maybe"."""
    values = {name: related(view, thing, name, other) for name in RELATIONS}
    if MAYBE in values.values():
        raise Undecided("perhaps related")
    return [name for name, value in values.items() if value == YES]


def relation_text(view: View, thing: Thing, other: Thing) -> str:
    """ "It is left of it and behind it." Raises Undecided where nothing is certain."""
    holds = relations_of(view, thing, other)
    if not holds:
        raise Undecided("no relation")
    return f"It is {' and '.join(f'{name} it' for name in holds)}."


def count_text(view: View, things: Sequence[Thing]) -> str:
    """ "Two, at [...] and [...]." Raises Undecided for more objects than one phrase may mean."""
    if len(things) > view.rules.max_group:
        raise Undecided("too many boxes")
    if not things:
        return "None."
    boxes = [view.box_text(thing.box) for thing in things]
    listed = boxes[0] if len(boxes) == 1 else f"{', '.join(boxes[:-1])} and {boxes[-1]}"
    return f"{NUMBERS[len(things)]}, at {listed}."


def narration(view: View, told: Sequence[Program]) -> str:
    """Sentences that name objects in order, each with its box, and where it stands to the one before.

    Raises:
      Undecided: a phrase means no one object, or a relation does not certainly hold.
    """
    sentences, before = [], None
    for program, relation in told:
        thing = meant(program, view)
        name = f"{_said(program)} {view.box_text(thing.box)}"
        if relation is None:
            sentences.append(f"There is {name}.")
        elif before is not None and related(view, thing, relation, before) == YES:
            where = relation[0].upper() + relation[1:]
            sentences.append(f"{where} it is {name}.")
        else:
            raise Undecided("the relation does not hold")
        before = thing
    return " ".join(sentences)


def _said(program: Program) -> str:
    try:
        attributes(program)
    except ValueError:
        return phrase(program)
    return indefinite(program)
