"""Reads the chosen option out of an answer.

The first of these that finds something decides:

1. the whole answer is a letter in any dress, or an option's text;
2. what a box of LaTeX holds, read in the same way;
3. what follows "the answer is", "Answer:" and the like, the last time that a choice follows;
4. a letter that the answer calls right, or says that it chooses: "B is correct", "so it must be B";
5. a letter at the beginning, set off by punctuation or brackets;
6. "option B", wherever it stands;
7. a letter that stands alone within the answer, or an option's text. Where both are there and differ, the
   letter counts if it is set off by brackets or punctuation.

A capital A before a lower-case word is an article, an I a pronoun. What the answer rules out ("not B", "B is
wrong") does not count. Several letters with nothing that says which are no answer, nor are letters that no
option has. The longest option text wins: "dark red" is not also "red".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from dig_jax.tasks.answers import CUT_OFF, EMPTY, FAILED, boxed, final_answer, plain
from dig_jax.tasks.choice.mentions import Mention, is_ruled_out, is_word, mentions
from dig_jax.tasks.choice.texts import Texts

LETTER = "letter"  # the whole answer is a letter
TEXT = "option_text"  # the whole answer is an option's text
BOXED = "boxed"
STATED = "stated"  # "the answer is B", "B is correct", "option B"
LEADING = "leading_letter"
NAMED = "named_letter"  # a letter within a sentence
CONTAINED = "contained_text"  # an option's text within a sentence
NO_OPTION = "no_such_option"  # a letter that no option has
SEVERAL = "several"  # several letters or texts, and nothing says which
NOTHING = "no_choice"  # neither a letter nor an option's text
REASONS = (
    *(LETTER, TEXT, BOXED, STATED, LEADING, NAMED, CONTAINED),
    *(CUT_OFF, EMPTY, FAILED, NO_OPTION, SEVERAL, NOTHING),
)

Reading = tuple[str, str]  # the letter, "" for none; one of REASONS

_LETTERS = "ABCDEFGH"  # what may be meant where no options are given

_BARE = re.compile(
    r"(?:(?:the )?(?:option|choice|answer|选项|答案)(?: is)?)?[\W_]*([a-z])[\W_]*", re.IGNORECASE
)
_LEADING = re.compile(
    r"[-•> ]{0,4}[(\[{<]? ?([A-Za-z]) ?"
    r"(?:[)\]}>:,;=\n]|[.](?![A-Za-z]\.)|[-–—] |(?= (?:because|since)(?![^\W_]))|$)"
)
_WITH_TEXT = re.compile(r"\W{0,4}([A-Za-z])\W{1,4}([^\n]{1,400})")
_LISTED = re.compile(r"\W*(?:(?i:both|either) )?[A-Z](?:[^\w?]+(?:(?i:or|and) )?[A-Z]){1,25}\W*")  # "A or B"
_MORE = re.compile(  # another letter, after one: "A or B", "A, (B)"
    r"[)\]}>.]? ?(?:[,/&+、]|,? ?(?:or|and|und|oder|et|ou)(?![^\W_])|[和或与]) ?(?:or |and )?"
    r"(?:option |choice )?[(\[]?([A-Z])(?![^\W_])"
)

_ANSWER = re.compile(
    r"(?:\b(?:answer|ans\.?|respuesta|antwort|réponse|risposta|resposta|ответ)(?![^\W_])"
    r"|答案|答え|回答|正解|정답"
    r"|\b(?:correct|right|best|chosen|selected) (?:option|choice|one|letter|selection|pick)(?![^\W_]))",
    re.IGNORECASE,
)
_NOT = re.compile(r"(?: ?[:=])?(?: \w{1,10})?(?: ?n't| not| never| neither| cannot)\b", re.IGNORECASE)
_FILLER = re.compile(  # between "answer" and the choice
    r"(?:(?:is|are|was|be|would|should|must|will|could|likely|probably|most|definitely|clearly|therefore|thus|to"
    r"|the|this|that|question|here|given|option|choice|letter|answer|correct|best|number|of|it|ist|es|est|è|é)"
    r"(?![^\W_])|[:=>({\[ \n]|[-–—] |应为|应该是|为|是|は|은|는){0,24}",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"an? (?=\w)", re.IGNORECASE)
_LETTER_HERE = re.compile(r"[(\[{<]? ?([A-Za-z])(?![^\W_])(?!'[a-z])(?!-[a-z])(?!/[A-Z])")
_ENDS = re.compile(r" ?(?:[)\]}>.,;:!\n]|$)")
_SO = re.compile(r"\b(?:so|therefore|thus|hence|in total|in conclusion)\b|所以|因此", re.IGNORECASE)
_SENTENCE_ENDS = re.compile(r" ?[.:;!\n]")


def read_choice(text: str, options: Mapping[str, str], opens_thought: bool = False) -> Reading:
    """The option that a completion chooses, and how that was found or why none was.

    Args:
      text: the completion, without special tokens.
      options: letter -> text. Those without text are none; where all are, A to H are letters.
      opens_thought: the prompt opened the thought, so that a text without `</think>` was cut off.
    """
    final = final_answer(text, opens_thought)
    if final.reason:
        return "", final.reason
    texts = Texts(options)
    letters = set(texts.keys) or set(_LETTERS)
    said = plain(final.text)
    reading = _whole(said, texts, letters)
    if reading is None and (inside := boxed(final.text)) is not None:
        reading = _in_box(plain(inside), texts, letters)
    if reading is None:
        reading = _after_answer(said, texts, letters)
    if reading is None:
        reading = _in_sentences(texts.without_list(said), texts, letters)
    return reading or ("", NOTHING)


def _whole(said: str, texts: Texts, letters: set[str]) -> Reading | None:
    """An answer that is nothing but a letter or an option's text."""
    bare = _BARE.fullmatch(said) if len(said) < 40 else None
    if bare and bare[1].upper() in letters:
        return bare[1].upper(), LETTER
    if equal := texts.equal(bare[1] if bare else said):
        return (equal[0], TEXT) if len(equal) == 1 else ("", SEVERAL)
    own = _WITH_TEXT.fullmatch(said)
    if own and own[1].upper() in letters and own[1].upper() in texts.equal(own[2]):
        return own[1].upper(), LEADING  # "D. V" names one option, not two
    return ("", NO_OPTION) if bare else None


def _in_box(inside: str, texts: Texts, letters: set[str]) -> Reading | None:
    """A letter or text in a box; None where it holds something else, such as a result."""
    letter, reason = _whole(inside, texts, letters) or _in_sentences(inside, texts, letters) or ("", NOTHING)
    if not letter and reason in (NO_OPTION, NOTHING):
        return None
    return (letter, BOXED) if letter else (letter, reason)


def _after_answer(said: str, texts: Texts, letters: set[str]) -> Reading | None:
    """What follows the last "the answer is" that a choice follows."""
    found: Reading | None = None
    for match in _ANSWER.finditer(said):
        if not _NOT.match(said, match.end()):
            found = _stated(said, match.end(), texts, letters) or found
    return found


def _stated(said: str, start: int, texts: Texts, letters: set[str]) -> Reading | None:
    """The choice that follows here, after words such as "is most likely the option"."""
    filler = _FILLER.match(said, start)
    end = filler.end() if filler else start
    letter = _LETTER_HERE.match(said, end)
    if letter and (text := texts.at(said, letter.start(1))):
        return text[0], STATED  # which begins with a letter: "A is above B"
    if letter and not is_word(said, letter.start(1)) and not is_ruled_out(said, *letter.span(1)):
        plainly = letter[1].isupper() or letter[1] not in "ai" or _ENDS.match(said, letter.end())
        if plainly and (letter[1].isupper() or letter[1].upper() in letters):
            return _alone(said, letter[1].upper(), letter.end(1), letters, STATED)
    article = _ARTICLE.match(said, end)
    for begin in (start, end, article.end() if article else end):
        if text := texts.at(said, begin):
            return text[0], STATED
    return None


def _alone(said: str, letter: str, end: int, letters: set[str], reason: str) -> Reading:
    """The letter that ends here, unless another one is named with it."""
    more = _MORE.match(said, end)
    if more and more[1] != letter and not is_word(said, more.start(1)):
        return "", SEVERAL
    return (letter, reason) if letter in letters else ("", NO_OPTION)


def _in_sentences(said: str, texts: Texts, letters: set[str]) -> Reading | None:
    """Steps 4 to 7 of the module's order."""
    said, whole = texts.without_letters(said), said
    if _LISTED.fullmatch(said) and len(set(re.findall(r"(?<![^\W_])[A-Z](?![^\W_])", said))) > 1:
        return "", SEVERAL
    every = mentions(said)
    found = [mention for mention in every if not mention.out]
    if right := _distinct(mention for mention in found if mention.right):
        return _one_of(right, letters, STATED)
    if chosen := [mention for mention in found if mention.chosen]:
        last = chosen[-1]
        return _alone(said, last.letter, last.end, letters, STATED)
    leading = _LEADING.match(said)
    if leading and not is_word(said, leading.start(1)) and not _is_out(said, *leading.span(1), every):
        return _alone(said, leading[1].upper(), leading.end(1), letters, LEADING)
    if named := _distinct(mention for mention in found if mention.option):
        return _one_of(named, letters, STATED)
    return _within(whole, [mention for mention in found if mention.letter in letters], texts)


def _within(said: str, found: list[Mention], texts: Texts) -> Reading | None:
    """A letter that stands alone, or an option's text."""
    named = _distinct(mention for mention in found if not mention.label)
    inside = texts.inside(said)
    if named == ["A"] and len(inside) == 1 and texts.at(said, found[0].end + 1):
        return inside[0], CONTAINED  # "A Dog" has an article too
    if len(named) == 1 and (len(inside) != 1 or inside == named or any(each.set_off for each in found)):
        return named[0], NAMED
    if len(inside) == 1 and (not named or inside[0] in named):
        return inside[0], CONTAINED
    if named:
        return "", SEVERAL
    if inside:
        return _first(said, texts) or _last(said, texts) or ("", SEVERAL)
    labels = _distinct(found)
    return (labels[0], NAMED) if len(labels) == 1 else None


def _is_out(said: str, start: int, end: int, every: Sequence[Mention]) -> bool:
    """Whether the letter that stands here is ruled out, alone or with others."""
    return is_ruled_out(said, start, end) or any(each.out and each.start == start for each in every[:1])


def _first(said: str, texts: Texts) -> Reading | None:
    """The text that is the first sentence or line: "Red. Not dark red"; or "Yes, no doubt"."""
    first = texts.at(said, 0)
    if first is None:
        return None
    ends = _SENTENCE_ENDS.match(said, first[1])
    comma = texts.keys[first[0]] in ("yes", "no") and said.startswith(",", first[1])
    return (first[0], CONTAINED) if ends or comma else None


def _last(said: str, texts: Texts) -> Reading | None:
    """The one text after the last "so" or "therefore": "1, 2, 3. So there are 3"."""
    ends = [match.end() for match in _SO.finditer(said)]
    found = texts.inside(said[ends[-1] :]) if ends else []
    return (found[0], CONTAINED) if len(found) == 1 else None


def _one_of(named: list[str], letters: set[str], reason: str) -> Reading:
    if len(named) > 1:
        return "", SEVERAL
    return (named[0], reason) if named[0] in letters else ("", NO_OPTION)


def _distinct(found: Iterable[Mention]) -> list[str]:
    return list(dict.fromkeys(mention.letter for mention in found))
