"""All items of one picture: a pure function of the picture, the seed and the order."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Mapping, Sequence

from data_gen.alignment.dialogue import conversation, description
from data_gen.alignment.items import KINDS, Item
from data_gen.alignment.kinds import (
    IMAGE,
    Draw,
    box_to_crop,
    box_to_text,
    crop_to_box,
    crops_to_text,
    existence,
    text_to_box,
    text_to_crop,
    try_make,
)
from data_gen.alignment.refer import STYLES
from data_gen.alignment.things import View
from data_gen.alignment.words import Vocabulary

MAKERS = {
    "C-T": box_to_text,
    "I-C": crop_to_box,
    "I-T": crops_to_text,
    "exist": existence,
    "conversation": conversation,
    "description": description,
}
DEFAULT_SHARES = {kind: 2.0 if kind in ("T-C", "I-C", "I-T") else 1.0 for kind in KINDS}
MOST, MOST_OF_A_KIND = 12, 4  # items of one picture
PLACES = ("first", "last")  # of the picture: before the words of the first question, or behind them


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is made of every picture.

    Attributes:
      seed: with the picture's id, decides everything.
      shares: kind -> items of it per picture; 0.2 is one of every fifth picture.
      held_out: share of pairs of shape and colour that training never shows.
      styles: of phrases, of refer.STYLES: equally many of each where the picture allows it.
      picture: where it stands in the first question, of PLACES.
    """

    seed: int
    shares: Mapping[str, float]
    held_out: float
    styles: tuple[str, ...] = STYLES
    picture: str = PLACES[0]

    def __post_init__(self) -> None:
        """Raises ValueError for shares out of bounds, of unknown kinds, or of nothing at all."""
        if unknown := sorted(set(self.shares) - set(KINDS)):
            raise ValueError(f"--items: unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
        for kind, share in self.shares.items():
            if not 0 <= share <= MOST_OF_A_KIND:
                raise ValueError(f"--items: {kind}:{share:g}: expected 0 to {MOST_OF_A_KIND} per picture")
        if not 0 < sum(self.shares.values()) <= MOST:
            raise ValueError(f"--items: {sum(self.shares.values()):g} per picture: expected at most {MOST}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"--held_out={self.held_out}: expected a share from 0, below 1")
        if not self.styles or set(self.styles) - set(STYLES) or len(set(self.styles)) < len(self.styles):
            given, known = ",".join(self.styles), ", ".join(STYLES)
            raise ValueError(f"--styles={given}: expected some of {known}, separated by commas, each once")
        if self.picture not in PLACES:
            raise ValueError(f"--picture={self.picture}: expected one of {', '.join(PLACES)}")


def make_items(view: View, split: str, recipe: Recipe, vocabulary: Vocabulary) -> list[Item]:
    """The items of a picture of a split, in the order of KINDS; none where it has too few objects."""
    if len(view.eligible) < view.rules.min_objects:
        return []
    rng = random.Random(f"{recipe.seed}/{split}/{view.id}")
    training = split == "train"
    apart = held_out_pairs(vocabulary, recipe.held_out)
    kept = frozenset(thing.id for thing in view.things if (thing.shape, thing.color) in apart)
    draw = Draw(
        view=view,
        allowed=tuple(thing for thing in view.eligible if not (training and thing.id in kept)),
        vocabulary=vocabulary,
        rng=rng,
        wording=rng if training else None,
        held_out=apart if training else frozenset(),
    )
    items: list[Item] = []
    for kind in KINDS:
        share = recipe.shares.get(kind, 0.0)
        count = int(share) + (rng.random() < share % 1)
        items += (
            _phrases_to_boxes(draw, count, recipe.styles)
            if kind == "T-C"
            else _several(draw, kind, count, recipe.styles)
        )
    if recipe.picture == "last":
        items = [_picture_last(item) for item in items]
    return [dataclasses.replace(item, part=_part(item, view, split, kept)) for item in items]


def _picture_last(item: Item) -> Item:
    """The item with its picture behind the words of the first question."""
    first, *later = item.rounds
    first = dataclasses.replace(first, user=f"{first.user.removeprefix(IMAGE)}\n{IMAGE.strip()}")
    return dataclasses.replace(item, rounds=(first, *later))


def _several(draw: Draw, kind: str, count: int, styles: Sequence[str]) -> list[Item]:
    """Up to `count` items of a kind, no two with the same question."""
    items: list[Item] = []
    for _ in range(count):
        item = _choices(draw, kind, styles) if kind in ("C-I", "T-I") else try_make(MAKERS[kind], draw)
        if item and not any(same_question(item, other) for other in items):
            items.append(item)
    return items


def _phrases_to_boxes(draw: Draw, count: int, styles: Sequence[str]) -> list[Item]:
    """T-C: of every picture at least as many hard phrases as others, or one word would do for most."""
    items: list[Item] = []
    for _ in range(count):
        need_hard = 2 * sum(bool(item.facts["hard"]) for item in items) < len(items) + 1
        item = None
        for style in draw.rng.sample(styles, len(styles)):  # each is tried in earnest before another one
            item = item or try_make(functools.partial(text_to_box, style=style, hard=need_hard), draw)
        if item and not any(same_question(item, other) for other in items):
            items.append(item)
    return items


def _choices(draw: Draw, kind: str, styles: Sequence[str]) -> Item | None:
    """C-I or T-I: in half of them, where the picture allows it, options as large as each other.

    Or the blur of a small crop that was enlarged would often tell the size of the box in the question.
    """
    even = draw.rng.random() < 0.5
    for wanted in (True, False) if even else (False,):
        if kind == "C-I":
            item = try_make(functools.partial(box_to_crop, even=wanted), draw)
        else:
            item = None
            for style in draw.rng.sample(styles, len(styles)):
                item = item or try_make(functools.partial(text_to_crop, style=style, even=wanted), draw)
        if item:
            return item
    return None


def same_question(item: Item, other: Item) -> bool:
    """Whether two items ask for the same: the same program, or crops of the same objects."""
    asks = [[each.ask for each in one.rounds] for one in (item, other)]
    return asks[0] == asks[1] and item.things == other.things


@functools.lru_cache(maxsize=8)
def held_out_pairs(vocabulary: Vocabulary, share: float) -> frozenset[tuple[str, str]]:
    """Shapes and colours that are kept together from training: the same in every dataset that knows them."""
    pairs = ((shape, color) for shape in vocabulary.words["shape"] for color in vocabulary.words["color"])
    return frozenset(pair for pair in pairs if _draw_of("/".join(pair)) < share)


def _part(item: Item, view: View, split: str, kept: frozenset[int]) -> str:
    """Which part an item is of: testB shows a held-out pair, as its target or among its options."""
    if split == "train":
        return "train"
    shown = item.things if item.kind in ("C-I", "T-I") else item.targets
    if kept.intersection(shown):
        return "testB"
    return "val" if _draw_of(view.id.rpartition("/")[0]) < 0.5 else "testA"


def _draw_of(text: str) -> float:
    """A number in 0..1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
