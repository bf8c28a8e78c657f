"""The two global kinds: conversations of several rounds about one picture, and grounded descriptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from data_gen.alignment.answers import answer, relations_of
from data_gen.alignment.crops import Cut
from data_gen.alignment.items import Item, Round, one_round
from data_gen.alignment.kinds import IMAGE, Draw, decided, existence, name_of
from data_gen.alignment.logic import RELATIONS, YES, Program, Undecided, group, means, related
from data_gen.alignment.prompts import prompt
from data_gen.alignment.refer import expression
from data_gen.alignment.things import ATTRIBUTES, OF_SURFACE, Thing
from data_gen.alignment.words import all_of, phrase, plural

ROUNDS = (3, 6)
NO_SHARE = 0.6  # of conversations whose question of yes and no has the answer No
CLAUSES = (1, 3)  # relations told in a description


@dataclasses.dataclass
class Dialogue:
    """A conversation under way.

    Attributes:
      draw: what it is about.
      rounds, cuts: so far.
      given: objects whose box was told, the last one last.
      asked: programs of questions so far, which are not asked again.
      back: rounds that refer to a box or crop of an earlier one.
    """

    draw: Draw
    rounds: list[Round] = dataclasses.field(default_factory=list)
    cuts: list[Cut] = dataclasses.field(default_factory=list)
    given: list[Thing] = dataclasses.field(default_factory=list)
    asked: list[Program] = dataclasses.field(default_factory=list)
    back: int = 0

    def show(self, thing: Thing) -> Program:
        """A new crop of a thing, as a program; its `<object>` must stand in the text of this round."""
        self.cuts.append(self.draw.cut(thing))
        return ["crop", len(self.cuts) - 1]

    def box(self, thing: Thing) -> str:
        return self.draw.view.box_text(thing.box)

    def add(self, user: str, ask: Program, told: list[Thing]) -> None:
        """One more round; `told` are the objects whose boxes its answer gives. Raises Undecided."""
        done = one_round(self.draw.view, user, ask, self.cuts)
        self.rounds.append(done)
        self.asked.append(ask)
        self.given += [thing for thing in told if thing not in self.given]


def conversation(draw: Draw) -> Item | None:
    """3 to 6 rounds, each a point question; later ones refer to boxes and crops of earlier ones."""
    talk = Dialogue(draw)
    length = draw.rng.randint(*ROUNDS)
    yes_or_no = draw.rng.randrange(1, length)  # the round that asks whether something is there
    _opening(talk)
    for _ in range(40):  # tries, over all rounds
        if len(talk.rounds) == length:
            break
        kept = len(talk.cuts)
        make = _exist if len(talk.rounds) == yes_or_no else draw.rng.choice(LATER)
        try:
            make(talk)
        except Undecided:
            del talk.cuts[kept:]
    if len(talk.rounds) < length or not talk.back:
        return None
    first = talk.rounds[0]
    rounds = (dataclasses.replace(first, user=IMAGE + first.user), *talk.rounds[1:])
    ids = tuple(dict.fromkeys([*(thing.id for thing in talk.given), *(cut.thing for cut in talk.cuts)]))
    says_no = any(each.assistant == "No" for each in rounds)
    return Item(
        "conversation", "", rounds, tuple(talk.cuts), ids, ids, {"rounds": length, "says_no": says_no}
    )


def _opening(talk: Dialogue) -> None:
    """How many there are, with their boxes, or where one is. Raises Undecided."""
    draw = talk.draw
    thing = draw.one(draw.allowed)
    if thing is None:
        raise Undecided("nothing to ask for")
    name = draw.rng.choice(["shape", "color"])
    program = all_of({name: getattr(thing, name)})
    try:
        things = group(program, draw.view)
        if all(one in draw.allowed for one in things):
            talk.add(prompt("count", draw.wording, exp=plural(program)), ["count", program], things)
            return
    except Undecided:
        pass
    _where(talk)


def _where(talk: Dialogue) -> None:
    """T-C."""
    draw = talk.draw
    thing = draw.one([one for one in draw.allowed if one not in talk.given])
    found = thing and expression(draw.view, thing, draw.rng.choice(("ref", "ref+", "refg")), draw.rng)
    if not thing or not found or not draw.may_name(found):
        raise Undecided("no phrase")
    user = prompt("T-C", draw.wording, exp=phrase(found.program))
    talk.add(user, ["coordinate", found.program], [thing])


def _exist(talk: Dialogue) -> None:
    """Yes or no."""
    found = existence(talk.draw, talk.draw.rng.random() >= NO_SHARE)
    if found is None:
        raise Undecided("nothing to ask")
    (only,) = found.rounds
    talk.add(only.user.removeprefix(IMAGE), only.ask, [])


def _attribute_of_box(talk: Dialogue) -> None:
    """An attribute of an object whose box was given."""
    thing = _back(talk)
    words = talk.draw.vocabulary.words
    name = talk.draw.rng.choice([each for each in OF_SURFACE if len(words[each]) > 1])
    box = talk.box(thing)
    ask = ["attribute", ["box", box], name]
    if ask in talk.asked:
        raise Undecided("asked before")
    talk.add(prompt(name, talk.draw.wording).replace("<object>", f"the object at {box}"), ask, [])
    talk.back += 1


def _name_of_box(talk: Dialogue) -> None:
    """C-T of a box that was given."""
    thing = _back(talk)
    named, box = name_of(talk.draw, thing), talk.box(thing)
    if named is None or any(ask[:2] == ["describe", ["box", box]] for ask in talk.asked):
        raise Undecided("asked before, or without a name")
    user = prompt("C-T", talk.draw.wording, box=box)
    talk.add(user, ["describe", ["box", box], named.program], [])
    talk.back += 1


def _where_is_crop(talk: Dialogue) -> None:
    """I-C."""
    thing = talk.draw.one([one for one in decided(talk.draw) if one not in talk.given])
    if thing is None:
        raise Undecided("all were given")
    talk.add(prompt("I-C", talk.draw.wording), ["coordinate", talk.show(thing)], [thing])


def _relation_to_box(talk: Dialogue) -> None:
    """I-T: a crop beside an object whose box was given."""
    other = _back(talk)
    thing = talk.draw.one([one for one in decided(talk.draw) if one.id != other.id])
    if thing is None:
        raise Undecided("no other object")
    box = talk.box(other)
    if any(ask[0] == "relate" and ask[2] == ["box", box] for ask in talk.asked):
        raise Undecided("asked before")
    text = prompt("I-T", talk.draw.wording)  # two crops, of which the later one becomes a box
    crop, _, rest = text.partition("<object>")
    user = f"{crop}<object>{rest.replace('<object>', f'the object at {box}')}"
    talk.add(user, ["relate", talk.show(thing), ["box", box]], [])
    talk.back += 1


def _related_to_box(talk: Dialogue) -> None:
    """T-C by a relation to an object whose box was given: "the cube that is behind the object at [...]"."""
    other, draw = _back(talk), talk.draw
    for relation in draw.rng.sample(RELATIONS, len(RELATIONS)):
        for thing in draw.rng.sample(draw.allowed, len(draw.allowed)):
            if thing in talk.given or related(draw.view, thing, relation, other) != YES:
                continue
            place = ["rel", relation, ["box", talk.box(other)]]
            program: Program = ["and", [["is", "shape", thing.shape], place]]
            if means(program, draw.view, thing):
                user = prompt("T-C", draw.wording, exp=phrase(program))
                talk.add(user, ["coordinate", program], [thing])
                talk.back += 1
                return
    raise Undecided("no relation means one object")


def _back(talk: Dialogue) -> Thing:
    thing = talk.draw.one(talk.given)
    if thing is None:
        raise Undecided("no box was given yet")
    return thing


LATER: tuple[Callable[[Dialogue], None], ...] = (
    _where,
    _where_is_crop,
    _attribute_of_box,
    _name_of_box,
    _relation_to_box,
    _related_to_box,
)


def description(draw: Draw) -> Item | None:
    """All objects that can be asked for, front to back, each with its box, and 1 to 3 relations.

    None where one of them has no phrase of its own or may not be shown, or where no relation is certain.
    """
    view = draw.view
    if len(draw.allowed) < len(view.eligible):
        return None
    things = sorted(view.eligible, key=lambda thing: thing.depth)
    named = [_in_full(draw, thing) for thing in things]
    pairs = [
        (number, found)
        for number in range(1, len(things))
        if (found := _certain(draw, things[number], things[number - 1]))
    ]
    if not pairs or any(each is None for each in named):
        return None
    clauses = dict(draw.rng.sample(pairs, min(len(pairs), draw.rng.randint(*CLAUSES))))
    told = [[each, clauses.get(number)] for number, each in enumerate(named)]
    user, ask = IMAGE + prompt("description", draw.wording), ["narrate", told]
    ids = tuple(thing.id for thing in things)
    text = answer(ask, view)
    facts = {"objects": len(things), "words": len(text.split())}
    return Item("description", "", (Round(user, text, ask),), (), ids, ids, facts)


def _in_full(draw: Draw, thing: Thing) -> Program | None:
    """All that can be said of a thing, where that means it alone; else the name that answers use."""
    words = {name: getattr(thing, name) for name in ATTRIBUTES}
    if words["texture"] == "plain":
        del words["texture"]
    if means(program := all_of(words), draw.view, thing):
        return program
    named = name_of(draw, thing)
    return named.program if named else None


def _certain(draw: Draw, thing: Thing, before: Thing) -> str | None:
    try:
        holds = relations_of(draw.view, thing, before)
    except Undecided:
        return None
    return draw.rng.choice(holds) if holds else None
