"""What a dataset holds, and whether its answers can be guessed without looking: balance sheet and audits.

Every audit is a counter, trained on half of the pictures and tried on the other half, in turns: naive Bayes
over what one could see without the picture. Where it beats chance, answers can be had by a shortcut.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_gen.alignment.items import KINDS, OPTIONS, Item
from data_gen.alignment.records import Aligned
from data_gen.alignment.things import OF_SURFACE, View

Z95 = 1.959964  # two-sided 95% of a normal distribution
DECILES = 10
COUNTED = {  # facts of items that are counted as they are
    "C-I": ("letter", "even", "nearest"),
    "T-I": ("letter", "even", "nearest", "hard"),
    "T-C": ("hard", "redundant"),
    "C-T": ("hard",),
    "I-T": ("relation",),
    "exist": ("yes",),
    "conversation": ("rounds", "says_no"),
    "description": ("objects",),
}
AUDITED = ("C-I", "T-I")


@dataclasses.dataclass(frozen=True)
class Guessable:
    """One question as a guesser sees it: what each answer looks like, and which one is right.

    `pair` is of its picture: the two pictures of a pair are nearly the same, and are never told apart.
    """

    pair: str
    answers: tuple[frozenset[str], ...]
    right: int


@dataclasses.dataclass
class Balance:
    """Counted over records by `add`."""

    pictures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    parts: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)
    facts: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)
    sizes: list[float] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)
    guessable: dict[str, list[Guessable]] = dataclasses.field(default_factory=dict)

    def add(self, record: Aligned, split: str) -> None:
        """Counts one picture and its items."""
        self.pictures[split] += 1
        pair = record.view.id.rpartition("/")[0]
        for _, item in record.items:
            self.parts.setdefault(item.kind, collections.Counter())[item.part] += 1
            if item.style:
                self._count(f"{item.kind} style", item.style)
            for name in COUNTED.get(item.kind, ()):
                if name in item.facts:
                    self._count(f"{item.kind} {name}", item.facts[name])
            if item.kind == "description":
                self.lengths.append(int(item.facts["words"]))
            if item.kind in ("T-C", "I-C"):
                (target,) = item.targets
                self.sizes.append(record.view.by_id[target].area / record.view.side**2)
            if item.kind in AUDITED:
                self.guessable.setdefault(item.kind, []).append(_of_options(record.view, item, pair))
            if item.kind == "exist":
                words = frozenset(f"word {word}" for _, name, word in _words(item))
                question = Guessable(
                    pair, (_tagged(words, "yes"), _tagged(words, "no")), 1 - int(item.facts["yes"])
                )
                self.guessable.setdefault("exist", []).append(question)

    def _count(self, name: str, value: Any) -> None:
        text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
        self.facts.setdefault(name, collections.Counter())[text] += 1

    def to_json_values(self) -> dict[str, Any]:
        """The balance sheet and the audits."""
        return {
            "pictures": dict(self.pictures),
            "items": {kind: dict(self.parts[kind]) for kind in KINDS if kind in self.parts},
            "balance": {name: _sorted(counts) for name, counts in sorted(self.facts.items())},
            "target_area_deciles": _deciles(self.sizes),
            "description_words_deciles": _deciles(self.lengths),
            "audits": {kind: audit(questions) for kind, questions in sorted(self.guessable.items())},
        }


def _of_options(view: View, item: Item, pair: str) -> Guessable:
    """What options show without the picture: their place, attributes, likeness to each other, and sizes."""
    things = [view.by_id[cut.thing] for cut in item.cuts]
    windows, areas = [cut.side for cut in item.cuts], [thing.area for thing in things]
    answers = []
    for place, (thing, cut) in enumerate(zip(things, item.cuts, strict=True)):
        seen = {f"place {place}", f"window {_rank(windows, place)}", f"area {_rank(areas, place)}"}
        seen |= {f"blur {cut.blur > 0.5}", f"loss {cut.loss > 0.75}", f"light {cut.brightness > 1}"}
        shared = 0
        for name in OF_SURFACE:
            word = getattr(thing, name)
            seen.add(f"{name} {word}")
            alike = sum(getattr(other, name) == word for other in things) - 1
            seen.add(f"alike in {name} {alike}")
            shared += alike
        answers.append(frozenset(seen | {f"alike {shared}"}))
    return Guessable(pair, tuple(answers), ord(str(item.facts["letter"])) - ord("A"))


def _words(item: Item) -> list[Sequence[str]]:
    return item.rounds[0].ask[1][1]


def _tagged(words: frozenset[str], answer: str) -> frozenset[str]:
    return frozenset(f"{answer} {word}" for word in words)


def _rank(values: Sequence[float], place: int) -> int:
    return sum(value < values[place] for value in values)


def audit(questions: Sequence[Guessable]) -> dict[str, Any]:
    """How often the guesser is right, with a 95% interval, and whether chance lies in it.

    Questions about one pair are alike, so the interval is Wilson's for as many independent ones as vary as
    much as the pairs do (Kish's design effect).
    """
    halves: tuple[list[Guessable], list[Guessable]] = ([], [])
    for question in questions:
        halves[hashlib.sha256(question.pair.encode()).digest()[0] % 2].append(question)
    hits = [*_hits(*halves), *_hits(*halves[::-1])]
    pairs = [question.pair for question in (*halves[1], *halves[0])]
    chance = 1 / len(questions[0].answers) if questions else 1 / OPTIONS
    low, high = wilson(sum(hits), len(hits), design_effect(hits, pairs))
    return {
        "questions": len(questions),
        "right": round(sum(hits) / max(1, len(hits)), 4),
        "interval": [round(low, 4), round(high, 4)],
        "chance": chance,
        "at_chance": low <= chance <= high,
    }


def design_effect(hits: Sequence[float], clusters: Sequence[str]) -> float:
    """By what the variance of a share exceeds that of independent hits; 1 where it does not."""
    if not hits:
        return 1.0
    share = sum(hits) / len(hits)
    sums: collections.defaultdict[str, float] = collections.defaultdict(float)
    for hit, cluster in zip(hits, clusters, strict=True):
        sums[cluster] += hit - share
    if len(sums) < 2 or not 0 < share < 1:
        return 1.0
    clustered = sum(each**2 for each in sums.values()) * len(sums) / (len(sums) - 1)
    return max(1.0, clustered / (share * (1 - share) * len(hits)))


def _hits(learned: Sequence[Guessable], tried: Sequence[Guessable]) -> list[float]:
    """Of each question tried, whether it is guessed; where answers look alike to it, their share of one."""
    good: collections.Counter[str] = collections.Counter()
    bad: collections.Counter[str] = collections.Counter()
    for question in learned:
        for number, answer in enumerate(question.answers):
            (good if number == question.right else bad).update(answer)
    rights = max(1, len(learned))
    wrongs = max(1, sum(len(question.answers) - 1 for question in learned))

    def score(answer: frozenset[str]) -> float:
        # One of each feature is counted before any: what was never seen tells nothing.
        return sum(
            math.log((good[seen] + 1) / (rights + 2)) - math.log((bad[seen] + 1) / (wrongs + 2))
            for seen in sorted(answer)
        )

    hits = []
    for question in tried:
        scores = [score(answer) for answer in question.answers]
        best = [number for number, value in enumerate(scores) if value == max(scores)]
        hits.append((question.right in best) / len(best))
    return hits


def wilson(hits: float, total: float, effect: float = 1.0) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927) of `total / effect` independent ones; 0 to 1 of nothing."""
    if not total:
        return 0.0, 1.0
    share, z2 = hits / total, Z95**2
    total /= effect
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    reach = Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return middle - reach, middle + reach


def _deciles(values: Sequence[float]) -> list[float]:
    """Ten steps from the least to the most, and both ends; [] of nothing."""
    ordered = sorted(values)
    if not ordered:
        return []
    return [round(ordered[round(step / DECILES * (len(ordered) - 1))], 5) for step in range(DECILES + 1)]


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The balance sheet and the audits as text."""
    pictures = ", ".join(f"{number} {split}" for split, number in found["pictures"].items())
    yield f"pictures      {pictures}"
    for kind, parts in found["items"].items():
        yield f"{kind:13} {sum(parts.values()):7}  " + ", ".join(f"{n} {part}" for part, n in parts.items())
    for name, counts in found["balance"].items():
        total = sum(counts.values())
        shown = sorted(counts.items(), key=lambda each: -each[1])[:8]
        yield f"{name:22} " + ", ".join(f"{value} {number / total:.0%}" for value, number in shown)
    for kind, result in found["audits"].items():
        low, high = result["interval"]
        verdict = "at chance" if result["at_chance"] else "NOT AT CHANCE"
        yield (
            f"{kind} without the picture: {result['right']:.1%} right ({low:.1%} to {high:.1%}),"
            f" chance {result['chance']:.0%}: {verdict}"
        )
