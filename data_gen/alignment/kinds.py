"""The six kinds "X-Y" of TinyGroundingGPT, input X and output Y: T text, C coordinate, I object crop.

Each maker draws one item about a picture, or None where this draw finds nothing certain to ask.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from data_gen.alignment.answers import LETTERS
from data_gen.alignment.crops import Cut, overlap, plan_cut
from data_gen.alignment.items import OPTIONS, Item, one_round
from data_gen.alignment.logic import NO, Program, Undecided, truth
from data_gen.alignment.prompts import prompt
from data_gen.alignment.refer import Expression, by_attributes, expression, is_hard
from data_gen.alignment.things import OF_SURFACE, Thing, View
from data_gen.alignment.words import Vocabulary, all_of, indefinite, phrase

IMAGE = "<image>\n"
DRAWS = 12  # objects or phrases drawn until one suits


@dataclasses.dataclass(frozen=True)
class Draw:
    """What items of a picture are drawn from.

    Attributes:
      view: the picture.
      allowed: the objects that may be asked for or shown.
      vocabulary: the words of the dataset.
      rng: decides everything that is drawn.
      wording: as `rng` for prompts; None for those of evaluation.
      held_out: shapes and colours that no phrase may name together.
    """

    view: View
    allowed: tuple[Thing, ...]
    vocabulary: Vocabulary
    rng: random.Random
    wording: random.Random | None
    held_out: frozenset[tuple[str, str]] = frozenset()

    def cut(self, thing: Thing) -> Cut:
        return plan_cut(thing, self.view.width, self.view.height, self.rng)

    def one(self, things: tuple[Thing, ...] | list[Thing]) -> Thing | None:
        return self.rng.choice(things) if things else None

    def may_name(self, expression: Expression | None) -> bool:
        """Whether there is one, whose landmarks may all be named."""
        ids = {thing.id for thing in self.allowed}
        return expression is not None and ids.issuperset(expression.landmarks)


def text_to_box(draw: Draw, style: str, hard: bool = False) -> Item | None:
    """T-C, referring expression comprehension; `hard` takes phrases alone of which no single word will do."""
    for _ in range(DRAWS):
        thing = draw.one(draw.allowed)
        found = thing and expression(draw.view, thing, style, draw.rng)
        if not thing or not found or not draw.may_name(found) or (hard and not found.hard):
            continue
        user = IMAGE + prompt("T-C", draw.wording, exp=phrase(found.program))
        done = one_round(draw.view, user, ["coordinate", found.program])
        return Item("T-C", style, (done,), (), (thing.id,), (thing.id, *found.landmarks), of_phrase(found))
    return None


def box_to_text(draw: Draw) -> Item | None:
    """C-T: one canonical phrase of attributes, or with a superlative where those are not enough."""
    for _ in range(DRAWS):
        thing = draw.one(draw.allowed)
        named = thing and name_of(draw, thing)
        if thing and named:
            box = draw.view.box_text(thing.box)
            user = IMAGE + prompt("C-T", draw.wording, box=box)
            done = one_round(draw.view, user, ["describe", ["box", box], named.program])
            return Item("C-T", named.style, (done,), (), (thing.id,), (thing.id,), of_phrase(named))
    return None


def crop_to_box(draw: Draw) -> Item | None:
    """I-C: where in the picture is the object of this crop?"""
    thing = draw.one(decided(draw))
    if thing is None:
        return None
    cuts = (draw.cut(thing),)
    done = one_round(draw.view, IMAGE + prompt("I-C", draw.wording), ["coordinate", ["crop", 0]], cuts)
    return Item("I-C", "", (done,), cuts, (thing.id,), (thing.id,), {})


def box_to_crop(draw: Draw, even: bool) -> Item | None:
    """C-I: which of four crops is of this region? `even` takes options alone whose boxes are as large."""
    options = option_set(draw, even)
    if options is None:
        return None
    target = draw.rng.choice(options.things)
    box = draw.view.box_text(target.box)
    return _choice(draw, "C-I", "", prompt("C-I", draw.wording, box=box), ["box", box], options, target, {})


def text_to_crop(draw: Draw, style: str, even: bool) -> Item | None:
    """T-I: which of four crops does this phrase mean? `even` as of `box_to_crop`.

    Every option has a phrase of the style, so that which of them is asked for says nothing of the options.
    """
    options = option_set(draw, even)
    if options is None:
        return None
    found = [expression(draw.view, thing, style, draw.rng) for thing in options.things]
    if not all(draw.may_name(each) for each in found):
        return None
    number = draw.rng.randrange(OPTIONS)
    asked, target = found[number], options.things[number]
    assert asked is not None
    question = prompt("T-I", draw.wording, exp=phrase(asked.program))
    return _choice(draw, "T-I", style, question, asked.program, options, target, of_phrase(asked))


def crops_to_text(draw: Draw) -> Item | None:
    """I-T: how two crops stand to each other in the picture, or what one of them is."""
    if draw.rng.random() < 0.5:
        return _attribute(draw)
    things = decided(draw)
    if len(things) < 2:
        return None
    first, second = draw.rng.sample(things, 2)
    cuts = (draw.cut(first), draw.cut(second))
    user = IMAGE + prompt("I-T", draw.wording)
    done = one_round(draw.view, user, ["relate", ["crop", 0], ["crop", 1]], cuts)
    ids = (first.id, second.id)
    return Item("I-T", "relation", (done,), cuts, ids, ids, {"relation": done.assistant})


def _attribute(draw: Draw) -> Item | None:
    thing, words = draw.one(decided(draw)), draw.vocabulary.words
    if thing is None:
        return None
    # Of an attribute with one word there is nothing to ask.
    name = draw.rng.choice([each for each in ("size", *OF_SURFACE) if len(words[each]) > 1])
    cuts = (draw.cut(thing),)
    done = one_round(draw.view, IMAGE + prompt(name, draw.wording), ["attribute", ["crop", 0], name], cuts)
    return Item("I-T", name, (done,), cuts, (thing.id,), (thing.id,), {"attribute": done.assistant})


def existence(draw: Draw, wanted: bool | None = None) -> Item | None:
    """Yes or no, in halves: some attributes of an object, or these with one swapped for another object's.

    Either object may be the one, and with the other's word must fit none: so every word is as frequent in
    questions that are answered Yes as in those answered No, and no word tells the answer.
    """
    wanted = draw.rng.random() < 0.5 if wanted is None else wanted
    known = [
        name for name in ("color", "size", "material", "texture") if len(draw.vocabulary.words[name]) > 1
    ]
    for _ in range(DRAWS if len(draw.allowed) > 1 else 0):
        one, other = draw.rng.sample(draw.allowed, 2)
        names = ["shape", *draw.rng.sample(known, min(len(known), draw.rng.randint(1, 2)))]
        swapped = draw.rng.choice(names)
        own, others = ({name: str(getattr(each, name)) for name in names} for each in (one, other))
        crossed = [own | {swapped: others[swapped]}, others | {swapped: own[swapped]}]
        if any((each["shape"], each.get("color")) in draw.held_out for each in (own, others, *crossed)):
            continue  # or training would say that there never is one
        if any(value != NO for each in crossed for value in truth(all_of(each), draw.view).values()):
            continue
        program = all_of(own if wanted else crossed[0])
        user = IMAGE + prompt("exist", draw.wording, exp=indefinite(program))
        targets = (one.id,) if wanted else ()
        done = one_round(draw.view, user, ["exist", program])
        return Item("exist", "", (done,), (), targets, targets, {"yes": wanted})
    return None


@dataclasses.dataclass(frozen=True)
class OptionSet:
    """Four objects to choose from, in the order of their ids; `even`: the areas of their boxes are alike."""

    things: tuple[Thing, ...]
    even: bool


def option_set(draw: Draw, even: bool) -> OptionSet | None:
    """Two objects and of each the one most like it, none overlapping, each the only one of its looks.

    So every option has a hard negative among the others, whichever is asked for; and as the one asked for is
    drawn from the finished set, the options alone say nothing of it.
    """
    pool = [thing for thing in decided(draw) if thing.seen >= draw.view.rules.option_seen]
    for _ in range(DRAWS):
        if len(pool) < OPTIONS:
            return None
        chosen = [draw.rng.choice(pool)]
        for number in range(1, OPTIONS):
            fitting = [thing for thing in pool if _suits(draw, thing, chosen, even)]
            if not fitting:
                break
            draw.rng.shuffle(fitting)  # ties are broken by chance
            last = chosen[-1]
            if number == 2:  # the second pair starts near the first one
                x, y = draw.view.centre(chosen[0])
                fitting.sort(
                    key=lambda one: abs(draw.view.centre(one)[0] - x) + abs(draw.view.centre(one)[1] - y)
                )
            else:
                fitting.sort(key=lambda one: attribute_distance(one, last))
            chosen.append(fitting[0])
        if len(chosen) == OPTIONS:
            areas = [thing.area for thing in chosen]
            alike = max(areas) <= draw.view.rules.even_factor * min(areas)
            return OptionSet(tuple(sorted(chosen, key=lambda thing: thing.id)), alike)
    return None


def _suits(draw: Draw, thing: Thing, chosen: list[Thing], even: bool) -> bool:
    rules = draw.view.rules
    for other in chosen:
        union, smaller = overlap(thing.box, other.box)
        if thing.id == other.id or union > rules.option_iou or smaller > rules.option_inside:
            return False
    areas = [each.area for each in (thing, *chosen)]
    return not even or max(areas) <= rules.even_factor * min(areas)


def attribute_distance(thing: Thing, other: Thing) -> int:
    """Attributes of the surface that differ."""
    return sum(a != b for a, b in zip(thing.surface, other.surface, strict=True))


def _choice(
    draw: Draw,
    kind: str,
    style: str,
    question: str,
    program: Program,
    options: OptionSet,
    target: Thing,
    facts: dict[str, bool],
) -> Item:
    shown = list(options.things)
    draw.rng.shuffle(shown)
    cuts = tuple(draw.cut(thing) for thing in shown)
    listed = " ".join(f"{LETTERS[place]}: <object>" for place in range(OPTIONS))
    done = one_round(
        draw.view, f"{IMAGE}{question} {listed}", ["choose", program, list(range(OPTIONS))], cuts
    )
    nearest = min(attribute_distance(target, thing) for thing in shown if thing.id != target.id)
    more = {"letter": done.assistant, "even": options.even, "nearest": nearest, **facts}
    ids = tuple(thing.id for thing in shown)
    return Item(kind, style, (done,), cuts, (target.id,), ids, more)


def decided(draw: Draw) -> list[Thing]:
    """The objects whose crop can be of no other one."""
    return [thing for thing in draw.allowed if draw.view.decided(thing)]


def name_of(draw: Draw, thing: Thing) -> Expression | None:
    """The phrase that answers use: its attributes, as few as mean it; else with a superlative."""
    if words := by_attributes(draw.view, thing):
        program = all_of(words)
        return Expression(program, "ref+", is_hard(program, draw.view, thing))
    return expression(draw.view, thing, "ref", draw.rng)


def of_phrase(found: Expression) -> dict[str, bool]:
    """What the balance sheet counts of a phrase."""
    return {"hard": found.hard, "redundant": found.redundant}


def try_make(make: Callable[[Draw], Item | None], draw: Draw) -> Item | None:
    """A few draws of one kind; None where none of them is certain."""
    for _ in range(DRAWS):
        try:
            if item := make(draw):
                return item
        except Undecided:
            continue
    return None
