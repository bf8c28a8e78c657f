"""The texts of a question's options, and where an answer has them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dig_jax.tasks.answers import CJK, plain
from dig_jax.tasks.choice.mentions import is_ruled_out, is_word

_ARTICLE = re.compile(r"^(?:an?|the) (?=\w)", re.IGNORECASE)
_FRONT = re.compile(r"[\W_]*?(?=[+-]?\.?\d|[^\W_])")  # the sign and the point of a number stay
_BACK = re.compile(r"[\W_]+$")
_SIGN = re.compile(r" ?([=+<>/,]) ?")  # with or without spaces around it
_LONE_LETTER = re.compile(r"(?<![^\W_])[A-Za-z](?![^\W_])")


def key(text: str) -> str:
    """What is the same for texts that differ in dress, case, and punctuation at their ends."""
    shown = _shown(text)
    front = _FRONT.match(shown)
    return _BACK.sub("", shown[front.end() if front else 0 :]) or shown


def _shown(text: str) -> str:
    """What is the same for texts that differ in dress and case."""
    return _SIGN.sub(r"\1", plain(text).casefold().replace("\n", " "))


class Texts:
    """The options of one question.

    Attributes:
      keys: letter -> the text made comparable; options without text are none.
    """

    def __init__(self, options: Mapping[str, str]):
        self.keys = {letter: key(text) for letter, text in options.items() if text.strip()}
        self._whole = {letter: _shown(options[letter]) for letter in self.keys}
        longest_first = sorted(self.keys, key=lambda letter: -len(self.keys[letter]))
        shown = {letter: plain(options[letter]).replace("\n", " ") for letter in longest_first}
        bare = {letter: _without_article(text) for letter, text in shown.items()}
        if len(set(bare.values())) == len(bare):  # else the article is what tells options apart
            shown = bare
        self._patterns = {letter: _pattern(text) for letter, text in shown.items() if text}

    def equal(self, said: str) -> list[str]:
        """Letters of the options that are the whole of what is said, as like it as any are.

        To the sign, but for dress and case; without punctuation at the ends; without an article.
        """
        shown, whole = _shown(said), key(said)
        bare = _ARTICLE.sub("", whole)
        return (
            [letter for letter, text in self._whole.items() if text == shown]
            or [letter for letter, text in self.keys.items() if text == whole]
            or [letter for letter, text in self.keys.items() if _ARTICLE.sub("", text) == bare]
        )

    def at(self, said: str, start: int) -> tuple[str, int] | None:
        """The letter of the longest text that begins here and where it ends. A single letter is no text."""
        for letter, pattern in self._patterns.items():
            if not self._is_letter(letter) and (match := pattern.match(said, start)):
                return letter, match.end()
        return None

    def inside(self, said: str) -> list[str]:
        """Letters of the options whose texts the answer has and does not rule out; the longest text wins."""
        found = []
        for letter, pattern in self._patterns.items():
            if self._is_letter(letter):
                continue
            spans = [match.span() for match in pattern.finditer(said)]
            if any(not is_ruled_out(said, *span) for span in spans):
                found.append(letter)
            if spans:  # so that the next, shorter ones are not found in it
                said = pattern.sub(lambda match: "\0" * len(match[0]), said)
        return found

    def without_letters(self, said: str) -> str:
        """The answer with "_" for letters that belong to options' texts, as in "N/A" or "vitamin C"."""
        for letter, pattern in self._patterns.items():
            if not self._is_letter(letter) and _LONE_LETTER.search(self.keys[letter]):
                said = pattern.sub(lambda match: _LONE_LETTER.sub("_", match[0]), said)
        return said

    def without_list(self, said: str) -> str:
        """The answer without a list of all options that repeats the question: "A. red B. blue ..."."""
        spans = []
        for letter in self.keys:
            marked = re.compile(rf"(?<![^\W_]){letter} ?[).:]+ ?").search(said)
            pattern = self._patterns.get(letter)
            text = marked and pattern and pattern.match(said, marked.end())
            if not marked or not text:
                return said
            spans.append((marked.start(), text.end()))
        if len(spans) < 2:
            return said
        first, last = min(spans)[0], max(end for _, end in spans)
        return f"{said[:first]}\n{said[last:]}".strip()

    def _is_letter(self, letter: str) -> bool:
        """Whether the option's text is the letter of an option, or one that sentences have as a word."""
        text = self.keys[letter]
        return len(text) == 1 and (text.upper() in self.keys or text in "ai")


def _without_article(text: str) -> str:
    """The text without the article it begins with; the A of "A is above B" is none."""
    begins_with_letter = text[:2] == "A " and not is_word(text, 0)
    return text if begins_with_letter else _ARTICLE.sub("", text)


def _pattern(text: str) -> re.Pattern[str]:
    """Finds an option's text as words of their own: not "red" in "reddish" or "red-brown", nor 1 in 1.5.

    Scripts without spaces between words have no such bounds.
    """
    shown = text.strip(" .") or text
    if re.match(r"[.]\d", text):
        shown = text.rstrip(" .")
    before = after = ""
    if re.match(rf"(?![{CJK}])\w|[+-]?\.?\d", shown):
        before = r"(?<![^\W_])(?<![^\W_]-)" + (r"(?<!\d[.,])(?<!-)" if shown[0].isdigit() else "")
    if re.search(rf"(?![{CJK}])\w$", shown):
        after = r"(?![^\W_])(?!-[^\W_])" + (r"(?![.,]\d)" if shown[-1].isdigit() else "")
    parts = _SIGN.split(shown)  # every other one is a sign
    words = "".join(
        rf"[ \n]?{re.escape(part)}[ \n]?" if number % 2 else r"[ \n]".join(map(re.escape, part.split(" ")))
        for number, part in enumerate(parts)
    )
    short_capitals = shown.isupper() and len(shown) <= 4  # US is not us, NA is not a word of Spanish
    return re.compile(f"{before}{words}{after}", 0 if short_capitals else re.IGNORECASE)
