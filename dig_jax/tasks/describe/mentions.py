"""The objects that a description names: words, and the box or boxes behind them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from dig_jax.tasks.boxes.iou import IOU_SLACK, paired_iou
from dig_jax.tasks.describe.meaning import EXTREMES, name_words
from dig_jax.tasks.referring.phrases import Thing

HIT_IOU = 0.5
_MOST = 32  # mentions of one answer that are read
_NUMBER = r"\s*+-?\d++(?:\.\d++)?+\s*+"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]", re.ASCII)
_CLAUSE = re.compile(r"[.,;:!?\])]")
# A name begins behind the last of these, and ends where a place begins.
_BEFORE = re.compile(r"\b(?:an?|the|and|one|its?|this)\b", re.IGNORECASE)
_PLACE = re.compile(
    r"\s(?:that is|which is|closest to|farthest from|nearest to|left of|right of|behind|in front of)\b.*",
    re.DOTALL,
)
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")


@dataclasses.dataclass(frozen=True, eq=False)
class Mention:
    """Words with a box.

    Attributes:
      words: of the name, in lower case.
      box: float32 [4] in 0..1 of the image.
    """

    words: frozenset[str]
    box: np.ndarray


def read(text: str, boxes: Callable[[str], np.ndarray]) -> list[Mention]:
    """The mentions of a description, in its order; a box right behind another is of the same words.

    Args:
      text: of the answer; whatever it says, nothing is raised.
      boxes: text of one box -> float32 [n, 4] in 0..1, none where it is no box of the image.
    """
    mentions: list[Mention] = []
    words: frozenset[str] = frozenset()
    end = 0
    for match in _BOX.finditer(text):
        if len(mentions) == _MOST:
            break
        between = text[max(end, match.start() - 200) : match.start()]
        if _WORD.search(between):
            name = _name(between)
            words = frozenset(word.lower() for word in _WORD.findall(name)) - set(EXTREMES)
        end = match.end()
        mentions += [Mention(words, box) for box in boxes(match[0])]
    return mentions


def _name(text: str) -> str:
    """The words of a name at the end of a text, without what says where it is."""
    clause = _PLACE.sub("", text[max((mark.end() for mark in _CLAUSE.finditer(text)), default=0) :].strip())
    return clause[max((mark.end() for mark in _BEFORE.finditer(clause)), default=0) :]


def found(mentions: Sequence[Mention], things: Sequence[Thing], by_name: bool) -> set[int]:
    """Numbers of the things that are mentioned rightly, each by one mention: the largest overlaps first.

    Args:
      mentions: of an answer.
      things: of the image.
      by_name: whether the words must be true of the thing; else the box alone decides.
    """
    pairs = []
    for row, mention in enumerate(mentions):
        for column, thing in enumerate(things):
            if by_name and not (mention.words and mention.words <= name_words(thing)):
                continue
            iou = float(paired_iou(mention.box[None], np.asarray([thing.box], np.float32))[0])
            if iou >= HIT_IOU - IOU_SLACK:
                pairs.append((-iou, row, column))
    rows: set[int] = set()
    columns: set[int] = set()
    for _, row, column in sorted(pairs):
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
    return columns
