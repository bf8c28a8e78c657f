"""Where an answer mentions letters, and what it says of them: chosen, right, or ruled out.

Only a bounded stretch on either side of a letter is looked at, so that all takes time linear in the text.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator

_NEAR = 48  # characters looked at on either side of a letter

# A letter on its own: no part of an abbreviation (U.S.) or a compound (T-shirt), nor of a contraction.
_ALONE = r"(?<![^\W_])(?<![^\W_][.'-])(?<!N/)([A-Z])(?![^\W_])(?!'[A-Za-z])(?!-[A-Za-z])(?!\.[A-Za-z]\.)"
_BRACKETED = r"(?<![^\W_])[(\[{<] ?([A-Za-z]) ?[)\]}>]"
# Small letters stand for options where words around them say so.
_SMALL = (
    r"(?<![^\W_])(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter|选项|选择?) ?[:#]? ?([a-z])(?![^\W_])"
    r"|(?:[Cc]hoose|[Cc]hose|[Pp]ick|[Ss]elect) ([b-hj-z])(?![^\W_])"
    r"|([b-hj-z])(?= (?:is|because|since)(?![^\W_]))|(a)(?= is (?:the )?(?:correct|right|best)(?![^\W_])))"
)
_MENTION = re.compile(f"{_BRACKETED}|{_ALONE}|{_SMALL}")

# A before a lower-case word is an article, but for words that go on with a sentence about the letter.
_GOES_ON = re.compile(
    r" (?:is|was|because|since|as|would|will|can|could|must|should|seems?|looks?|fits?|matche[sd]|shows?"
    r"|appears?|has|makes|best|and|or|nor|but|if)(?![^\W_])"
)
_LOWER_CASE = re.compile(r" [a-z]")
_PRONOUN = re.compile(r"[ ,](?! ?[A-Z](?![^\W_]))|'")

_LABEL = re.compile(  # before a letter that names something in the picture, or in the world
    r"\b(?:vitamin|fig|figure|diagram|image|picture|photo|panel|point|label|part|plan|type|grade|group|class|section"
    r"|region|area|object|line|hepatitis|mr|mrs|dr|arrow|box|person|team|room|stage|step|sample|solution|phase"
    r"|layer|zone|planet|pair|magnet|letter|container|map|graph)s?\.? $",
    re.IGNORECASE,
)

_WORDS = (
    r"(?:be |choose |pick |say |simply |exactly |on |in |at |to |of |the |an? |either |options? |choices? "
    r"|letter |answer ){0,4}[(\[]?$"
)
_OUT_BEFORE = re.compile(
    r"(?:\b(?:not|neither|nor|never|except|than|unlike|without|instead of"
    r"|(?:all|any(?:thing)?|everything) but|excluding|exclude[sd]?|no longer"
    r"|eliminat(?:e[sd]?|ing)|rul(?:e[sd]?|ing) out)|n't|不是|不选) ?" + _WORDS,
    re.IGNORECASE,
)
_NO_BEFORE = re.compile(r"\bno (?:visible |such |other )?$", re.IGNORECASE)
_NONE_BEFORE = re.compile(
    r"\b(?:neither|none) (?:of )?(?:the )?(?:options? |choices? )?[(\[]?$", re.IGNORECASE
)
_ASIDE = r"[)\]]?(?: \([^()\n]{1,32}\))?"  # "B (the red one) is ..."
_WRONG = (
    r"(?:(?:clearly|definitely|also|both|all) )?"
    r"(?:not\b|wrong|incorrect|false|ruled out|excluded|out\b|eliminated)"
)
_OUT_AFTER = re.compile(
    rf"{_ASIDE} (?:(?P<many>are|were|look|seem|do|don't|aren't|cannot both)\b ?)?"
    rf"(?:(?(many)|(?:is|was|looks|seems|would be|can be) ){_WRONG}"
    r"|(?:isn|wasn|can|couldn|doesn|didn|won|wouldn)'t\b|cannot\b|can not\b|(?:does|did) not\b)"
    r"| ?(?:是错|错误|不正确|不对)",
    re.IGNORECASE,
)
_RIGHT_AFTER = re.compile(
    rf"{_ASIDE},? ?(?:(?P<many>are|were)|is|was|would be|must be|should be|seems|looks|appears|has to be)"
    r"(?: (?:to be|the|also|clearly|both|therefore|definitely|most|a|indeed)){0,3}"
    r" (?:correct|right|best|answer|true|accurate|appropriate|one|choice|option|closest|suitable)"
    rf"|{_ASIDE} (?:fits|matches) best| ?(?:是正确|正确|是对的|是答案)",
    re.IGNORECASE,
)

_NAME = r"(?:the )?(?:correct |right |best )?(?:answer |option |choice |letter ){0,2}[(\[]?$"
_CHOSEN = re.compile(
    r"(?:\b(?:i|we)(?:'d|'ll|'m| would| will)?(?: \w{2,9})?"
    r" (?:choose|chose|pick|select|say|answer|go with|go for|opt for|going with|think|believe|guess)"
    r"(?: that)?(?: it| this)?(?:'s| is| must be| would be)?"
    r"|\b(?:it|that|this|which|must|should|has to)(?:'s| is| must be| has to be| would be| should be| be)"
    r"|\b(?:so|thus|hence|therefore|leaves|leaving|choose|pick|select|but|conclusion)"
    r"|选择|選擇|应选|選|选|因此|所以|而是)[,:]? ?" + _NAME,
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"(?:\b(?:option|choice|alternative|answer)s?(?: is| are)? ?[:#]? ?|(?:选项|選項) ?)[(\[]?$",
    re.IGNORECASE,
)
_JOINED = re.compile(
    r"[)\]]? ?(?P<word>(?:,? ?(?:or|and|nor|und|oder|et|ou|vs\.?)|/|&|\+|和|或|与)|[,、])"
    r" ?(?:option |choice )?[(\[]?",
    re.IGNORECASE,
)


@dataclasses.dataclass
class Mention:
    """A letter in an answer.

    Attributes:
      letter: upper case.
      start, end: where it stands, without brackets.
      set_off: in brackets, or with punctuation or the end of a line behind it.
      label: it names something else, as in "point B".
      out: the answer rules it out.
      right: the answer calls it right.
      chosen: the answer says that it chooses it.
      option: "option B".
      none: it is the first of letters that are all ruled out: "none of A, B and C".
    """

    letter: str
    start: int
    end: int
    set_off: bool
    label: bool
    out: bool
    right: bool
    chosen: bool
    option: bool
    none: bool


def is_word(said: str, start: int) -> bool:
    """Whether the letter that stands here is an article or a pronoun."""
    after = said[start + 1 : start + 13]
    if said[start] in "Aa":
        return bool(_LOWER_CASE.match(after)) and not _GOES_ON.match(after)
    return said[start] == "I" and bool(_PRONOUN.match(after)) and not _GOES_ON.match(after)


def mentions(said: str) -> list[Mention]:
    """All letters that stand alone, in order; what is said of "A and B" is said of both."""
    found = list(_find(said))
    for one, other in zip(found, found[1:], strict=False):
        word = _joined(said, one, other)
        if word and one.none:
            other.none = other.out = True
        elif word and word not in ",、":
            other.out |= one.out
            other.chosen |= one.chosen and not other.out
            other.option |= one.option
    # "are wrong" and "are right" speak of all letters joined before, and "B or C?" chooses neither.
    all_out = all_right = False
    for number, one in reversed(list(enumerate(found))):
        if number + 1 == len(found) or not _joined(said, one, found[number + 1]):
            after = said[one.end : one.end + _NEAR]
            out, right = _OUT_AFTER.match(after), _RIGHT_AFTER.match(after)
            asks = after.startswith("?") and number and _joined(said, found[number - 1], one)
            all_out, all_right = bool(asks or out and out["many"]), bool(right and right["many"])
        one.out |= all_out
        one.right |= all_right and not one.out
    return found


def _joined(said: str, one: Mention, other: Mention) -> str:
    """The word or sign that joins two letters, as in "A and B"; "" where none does."""
    if other.start - one.end > _NEAR:
        return ""
    match = _JOINED.fullmatch(said, one.end, other.start)
    return match["word"].strip() if match else ""


def _find(said: str) -> Iterator[Mention]:
    for match in _MENTION.finditer(said):
        group = match.lastindex or 1
        start, end = match.span(group)
        if group > 1 and is_word(said, start):
            continue
        before, after = said[max(0, start - _NEAR) : start], said[end : end + _NEAR]
        set_off = group == 1 or not after or after[0] in ".,:;!?)]}\n"
        yield Mention(match[group].upper(), start, end, set_off, *_said_of(before, after))


@functools.lru_cache(maxsize=4096)  # a policy that repeats itself says the same a thousand times
def _said_of(before: str, after: str) -> tuple[bool, ...]:
    """What is said of the letter between: a mention's `label`, `out`, `right`, `chosen`, `option`, `none`."""
    none = bool(_NONE_BEFORE.search(before))
    out = none or bool(_OUT_BEFORE.search(before) or _OUT_AFTER.match(after))
    return (
        bool(_LABEL.search(before)),
        out,
        not out and bool(_RIGHT_AFTER.match(after)),
        not out and bool(_CHOSEN.search(before)),
        bool(_OPTION.search(before)),
        none,
    )


def is_ruled_out(said: str, start: int, end: int) -> bool:
    """Whether the answer rules out what stands here: "not red", "no dog", "red is wrong"."""
    before, after = said[max(0, start - _NEAR) : start], said[end : end + _NEAR]
    return bool(_OUT_BEFORE.search(before) or _NO_BEFORE.search(before) or _OUT_AFTER.match(after))
