"""What a completion says in the end: the thought removed, the answer unwrapped, its dress taken off.

Tasks whose answer is a word (a letter, yes or no) read it from here. All of it takes time linear in the text
and never raises, whatever a model samples.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata

from dig_jax.data.tokenizer import THINK_END

THINK_START = "<think>"
FAILURE = "Failed to obtain answer via API"  # what VLMEvalKit writes where a model gave no answer

CUT_OFF = "cut_off"  # a thought without an end
EMPTY = "empty"  # nothing, or nothing but white space
FAILED = "failed"  # the text says that no answer was obtained

_TAGS = re.compile(r"<(/?)answer>", re.IGNORECASE)

# Scripts written without spaces between words: a Latin letter beside one of their characters stands alone.
CJK = "\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_SEAM = re.compile(f"(?<=[{CJK}])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[{CJK}])")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufe0f\ufeff]")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathbf|mathrm|mathsf|mathit|bm) ?\{([^{}]{0,80})\}")
_DEGREES = re.compile(r" ?\^ ?(?:\\circ(?![a-z])|\{ ?\\circ ?\})")
_LATEX = re.compile(r"\\(?:text|textbf|textit|mathbf|mathrm|mathsf|mathit|bm|displaystyle)(?![a-z])|\\[,;! ]")
_FRACTION = re.compile(r"\\[dt]?frac ?\{([^{}]{1,24})\} ?\{([^{}]{1,24})\}")
_THOUSANDS = re.compile(r"(?<![\d.,(\[])\d{1,3}(?:,\d{3})+(?![\d,)\]])")
_HTML = re.compile(r"</?[a-z][a-z0-9]{0,11} ?/?>")
_STRUCK = re.compile(r"~~[^~\n]{1,80}~~")
_SIGNS = str.maketrans({"\u2019": "'", "\u2018": "'", "\u2212": "-", "\u2044": "/"})
_DRESS = re.compile('[*_`"$#|~^\u00ab\u00bb\u2039\u203a\u201c\u201d\u201e\u2033\u300c-\u300f]')
_QUOTE = re.compile(r"(?<![^\W_])'|'(?![^\W_])")
_ENDS = 4000  # characters at the beginning and at the end of an answer that are read
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n[ \n]*")


@dataclasses.dataclass(frozen=True)
class Final:
    """The end of a completion.

    Attributes:
      text: the answer, stripped; "" where there is none.
      reason: why there is none, `CUT_OFF`, `EMPTY` or `FAILED`; "" where there is one.
    """

    text: str
    reason: str = ""


def final_answer(text: str, opens_thought: bool = False) -> Final:
    """The answer of a completion: what follows the thought, and of that the last <answer>...</answer>.

    A thought ends at the last `</think>`, whether or not the text has its beginning. One that is open at the
    end of the text was cut off, and there is no answer. An <answer> that is not closed goes to the end.

    Args:
      text: without special tokens.
      opens_thought: the prompt opened the thought, so that a text without `</think>` was cut off.
    """
    _, end, answer = text.rpartition(THINK_END)
    if THINK_START in answer or (opens_thought and not end):
        return Final("", CUT_OFF)
    answer = _unwrapped(answer).strip()
    if not answer:
        return Final("", EMPTY)
    return Final("", FAILED) if FAILURE in answer else Final(answer)


def _unwrapped(text: str) -> str:
    """What the last pair of <answer> tags holds; the text itself where there is none."""
    start, inside = None, None
    for tag in _TAGS.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            inside, start = text[start : tag.start()], None
    if inside is not None:
        return inside
    return text if start is None else text[start:]


def plain(text: str) -> str:
    """The text without dress: quotes, emphasis, code marks and LaTeX commands become spaces.

    What is struck out is left out, fractions of LaTeX are "1/2", and 1,000 is 1000. Full-width letters become
    plain ones, Latin words beside CJK characters get a space between, runs of spaces become one, runs of line
    ends one line end. Brackets and punctuation stay. Of a text of more than 8,000 characters the first and
    the last 4,000 are left: what one word answers is not said in between.
    """
    if len(text) > 2 * _ENDS:
        text = f"{text[:_ENDS]}\n{text[-_ENDS:]}"
    text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    text = _STRUCK.sub(" ", _INVISIBLE.sub("", text))
    if "</" in text:
        text = _HTML.sub(" ", text)
    if "\\" in text:
        text = _FRACTION.sub(r"\1/\2", _LATEX_TEXT.sub(r"\1", _DEGREES.sub("°", text)))
    text = _DRESS.sub(" ", _LATEX.sub(" ", text))
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _SEAM.sub(" ", _QUOTE.sub(" ", text))
    return _LINES.sub("\n", _SPACES.sub(" ", text)).strip()


def boxed(text: str) -> str | None:
    r"""What the last \boxed{...} of a text holds; None where there is none, or it is not closed."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return text[start : start + brace.start()]
    return None
