"""Reads yes or no out of an answer.

The first of these that finds something decides:

1. what a box of LaTeX holds;
2. what follows "the answer is", "Answer:" and the like, the last time that yes or no follows;
3. the words yes and no, where the answer has only one of them, however often;
4. where it has both, the word that it begins with, if punctuation follows on that line: "Yes, no doubt".

Words count in upper and lower case, whatever quotes, emphasis, brackets or punctuation stand around them.
"Yes or no" repeats the question and is neither. Mere contradictions (a line "Yes" and a line "No") are no
answer, nor are "none", "not" and "cannot": they are other words.
"""

from __future__ import annotations

import re

from dig_jax.tasks.answers import CUT_OFF, EMPTY, FAILED, boxed, final_answer, plain

YES, NO = "Yes", "No"

WORD = "word"  # the whole answer is the word
BOXED = "boxed"
STATED = "stated"  # "the answer is yes"
ONLY = "only_word"  # the answer has one of the two words
LEADING = "leading_word"  # it has both, and begins with this one
BOTH = "both"  # it has both, and nothing says which
NEITHER = "neither"
REASONS = (WORD, BOXED, STATED, ONLY, LEADING, CUT_OFF, EMPTY, FAILED, BOTH, NEITHER)

Reading = tuple[str, str]  # "Yes", "No" or ""; one of REASONS

_WORD = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])(?!'[a-z])", re.IGNORECASE)
_WHOLE = re.compile(r"[\W_]*(yes|no)[\W_]*", re.IGNORECASE)
_EITHER = re.compile(r"(?<![^\W_])(?:yes ?(?:or|/|\|) ?no|no ?(?:or|/|\|) ?yes)(?![^\W_])", re.IGNORECASE)
_ANSWER = re.compile(
    r"(?:(?<![^\W_])(?:answers?|ans\.?)(?: to (?:the|this|that|your) question)?|答案|回答|答え)"
    r"(?: (?:is|would be|should be|must be|therefore|thus|definitely|clearly|likely|most|probably)){0,4}"
    r"[ \n:=>({\[]{0,4}(?:是|为|は)?[ :]{0,2}(yes|no)(?![^\W_])",
    re.IGNORECASE,
)
# A dash between two words joins them, one before a space does not.
_PUNCTUATED = re.compile(r"[\W_]*?(yes|no)[)\]}>]? ?(?:[.,;:!(\[…—。，、；：！)]|[-–] |- )", re.IGNORECASE)


def read_yes_no(text: str, opens_thought: bool = False) -> Reading:
    """What a completion answers, and how that was found or why nothing was.

    Args:
      text: the completion, without special tokens.
      opens_thought: the prompt opened the thought, so that a text without `</think>` was cut off.
    """
    final = final_answer(text, opens_thought)
    if final.reason:
        return "", final.reason
    if (inside := boxed(final.text)) is not None and (found := _words(plain(inside))):
        return (found.pop(), BOXED) if len(found) == 1 else ("", BOTH)
    said = plain(final.text)
    if whole := _WHOLE.fullmatch(said):
        return whole[1].capitalize(), WORD
    said = _EITHER.sub(" ", said)
    if stated := _ANSWER.findall(said):
        return stated[-1].capitalize(), STATED
    found = _words(said)
    if len(found) == 1:
        return found.pop(), ONLY
    if not found:
        return "", NEITHER
    leading = _PUNCTUATED.match(said)
    says_more = re.search(r"[^\W_]", _WORD.sub("", said))
    return (leading[1].capitalize(), LEADING) if leading and says_more else ("", BOTH)


def _words(said: str) -> set[str]:
    return {word.capitalize() for word in _WORD.findall(said)}
