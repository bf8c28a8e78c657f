"""What the page says of answers, in HTML: texts of models and of users are escaped here."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from dig_jax.data.example import Example
from dig_jax.demo.answers import Progress, Told

# Of the terms of a reward, those shown first; the others follow behind a click.
SHOWN_TERMS = ("reward", "f1", "iou", "precision", "recall", "format")
_FORMS = {
    "valid": "a list of boxes",
    "truncated": "cut off before the thought ended",
    "empty": "nothing",
    "no_box": "no list of boxes",
    "not_a_list": "boxes, but not one list",
    "bad_item": "a list with something that is no box",
    "not_finite": "a number that is not finite",
    "out_of_range": "a box outside the picture",
    "not_ordered": "a box without area",
    "repeated": "the same box twice",
    "too_many": "too many boxes",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """An answered question, as the history keeps it.

    Attributes:
      number: from 1.
      pictures: both, uint8 [H, W, 3].
      urls: of what the page shows of them.
      example: the truth, where it is known.
      progress: the answers.
      asked: how, in a few words.
    """

    number: int
    pictures: tuple[np.ndarray, np.ndarray]
    urls: tuple[str, str]
    example: Example | None
    progress: Progress
    asked: str

    @property
    def truth(self) -> list[list[float]] | None:
        """The true boxes, where they are known."""
        return None if self.example is None else self.example.target.boxes.tolist()

    @property
    def label(self) -> str:
        """One line of the history."""
        answers = self.progress.answers
        counts = ", ".join(str(len(told.boxes)) for told in answers)
        parts = [f"{self.number}", self.example.id if self.example else "own pictures", self.asked]
        if self.progress.step is not None:
            parts.append(f"step {self.progress.step}")
        parts.append(f"{counts} box{'es' * (counts != '1')}")
        scored = [told.terms["f1"] for told in answers if told.terms and "f1" in told.terms]
        if scored:
            parts.append(f"F1 {', '.join(f'{value:.2f}' for value in scored)}")
        return " \u00b7 ".join(parts)


def viewed(entry: Entry) -> dict[str, Any]:
    """What the viewer draws of an entry, beside its pictures."""
    answers = [
        {"boxes": told.boxes.tolist(), "complete": told.reply is not None} for told in entry.progress.answers
    ]
    return {"id": entry.number, "truth": entry.truth, "answers": answers}


def status(text: str, kind: str = "note") -> str:
    """A line above the pictures; kind: "note", "busy", "error"."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="dig-status {kind}" role="{role}">{html.escape(text)}</div>' if text else ""


def answers_page(entry: Entry | None) -> str:
    """All answers of an entry."""
    if entry is None:
        return ""
    several = len(entry.progress.answers) > 1
    notes = [note for told in entry.progress.answers[:1] if told.reply for note in told.reply.notes]
    cards = [
        _card(told, f"Answer {number}" if several else "Answer")
        for number, told in enumerate(entry.progress.answers, start=1)
    ]
    said = "".join(f'<p class="dig-note">{html.escape(note)}</p>' for note in notes)
    return f'<div class="dig-answers">{said}{"".join(cards)}</div>'


def _card(told: Told, name: str) -> str:
    head = [f"<b>{name}</b>", _counted(len(told.boxes))]
    if told.reply is None:
        head.append("being written \u2026")
    else:
        head.append(html.escape(_FORMS.get(told.reply.form, told.reply.form)))
        head.append(f"{len(told.reply.tokens)} tokens")
        if not told.reply.finished:
            head.append("cut at the most tokens allowed")
    thought = ""
    if told.thought:
        thought = f"<details open><summary>Thought</summary><pre>{html.escape(told.thought)}</pre></details>"
    content = f"<pre>{html.escape(told.content)}</pre>" if told.content else ""
    return (
        f"<section><header>{' &middot; '.join(head)}</header>{_terms(told.terms)}{thought}{content}</section>"
    )


def _counted(boxes: int) -> str:
    return f"{boxes} box{'es' * (boxes != 1)}"


def _terms(terms: dict[str, float] | None) -> str:
    if terms is None:
        return ""
    first = [name for name in SHOWN_TERMS if name in terms]
    rest = [name for name in terms if name not in first]
    more = f"<details><summary>all terms</summary>{_table(terms, rest)}</details>" if rest else ""
    return _table(terms, first) + more


def _table(terms: dict[str, float], names: Sequence[str]) -> str:
    cells = "".join(
        f"<div><dt>{html.escape(name.replace('_', ' '))}</dt><dd>{terms[name]:.3g}</dd></div>"
        for name in names
    )
    return f"<dl>{cells}</dl>"
