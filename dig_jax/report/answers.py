"""Answers on the report's page: the same examples over training, the worst ones, and a group side by side."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

from etils import epath

from dig_jax.report.overlay import Pictures

Line = dict[str, Any]  # of samples.jsonl, worst.jsonl or groups.jsonl

_TEXT_SHOWN = 2000  # characters of an answer on the page; the file has all of it
_STEPS_SHOWN = 6  # answers to one example, the first and the last among them


def over_training(
    samples: Sequence[Line], folder: epath.Path, pictures: Pictures, terms: Sequence[str]
) -> str:
    """Every example in a row, as it was answered at steps spread over the run.

    Args:
      samples: of samples.jsonl.
      folder: of their pictures.
      pictures: the page's.
      terms: of the score, shown where an answer has them.
    """
    by_example: dict[str, list[Line]] = {}
    for sample in samples:
        by_example.setdefault(sample["id"], []).append(sample)
    rows = []
    for answers in by_example.values():
        last, most = len(answers) - 1, min(_STEPS_SHOWN, len(answers))
        chosen = [answers[round(number * last / max(most - 1, 1))] for number in range(most)]
        rows.append(_row([figure(answer, folder, pictures, terms) for answer in chosen]))
    return "".join(rows)


def worst_of(lines: Sequence[Line], folder: epath.Path, pictures: Pictures, terms: Sequence[str]) -> str:
    """The worst answers of the newest evaluation: arguments as of `over_training`."""
    return _row([figure(line, folder, pictures, terms, with_id=True) for line in lines])


def _row(figures: Sequence[str]) -> str:
    return f'<div class="samples">{"".join(figures)}</div>' if any(figures) else ""


def figure(
    line: Line, folder: epath.Path, pictures: Pictures, terms: Sequence[str], with_id: bool = False
) -> str:
    """One answer; "" where its picture is gone. Runs of older versions have pictures with boxes in them."""
    shown = _boxed(line, line, pictures)
    if not shown and (folder / line["picture"]).exists():
        data = base64.b64encode((folder / line["picture"]).read_bytes()).decode()
        shown = (
            '<img alt="What was asked; true boxes in green, predicted boxes in red" loading="lazy"'
            f' src="data:image/png;base64,{data}">'
        )
    if not shown:
        return ""
    said = " &middot; ".join(f"{name} {line[name]:.2f}" for name in terms if line.get(name) is not None)
    name = f"{html.escape(line['id'])}<br>" if with_id else ""
    return (
        f"<figure>{shown}<figcaption>{name}<b>step {line['step']}</b> {said}"
        f"{_text(line['text'])}</figcaption></figure>"
    )


def group_table(group: Line, pictures: Pictures, terms: Sequence[str]) -> str:
    """The completions of one prompt, the best first: what each found, earned and teaches.

    Args:
      group: of groups.jsonl.
      pictures: the page's.
      terms: of the score, shown where answers have them.
    """
    answers = sorted(group["answers"], key=lambda answer: -answer["advantage"])
    names = [name for name in terms if any(answer.get(name) is not None for answer in answers)]
    head = "".join(f"<td>{html.escape(name)}</td>" for name in ("advantage", *names, "tokens"))
    rows = "".join(_group_row(group, answer, names, pictures) for answer in answers)
    return (
        f"<p>{len(answers)} completions of {html.escape(group['id'])}, which training step {group['step']}"
        " learnt from. Those with an advantage above 0 become likelier, the others less likely.</p>"
        f'<div class="wide"><table class="group"><thead><tr><th></th><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _group_row(group: Line, answer: Line, names: Sequence[str], pictures: Pictures) -> str:
    advantage = answer["advantage"]
    kind = "better" if advantage > 0 else "worse" if advantage < 0 else "same"
    values = "".join(
        f"<td>{'' if answer.get(name) is None else format(answer[name], '.2f')}</td>" for name in names
    )
    notes = [*([] if answer["finished"] else ["cut"]), *([] if answer["learnt"] else ["not learnt"])]
    tokens = "<br>".join([str(answer["tokens"]), *notes])
    return (
        f'<tr><td class="shown">{_boxed(group, answer, pictures)}</td>'
        f'<td class="said">{_text(answer["text"])}</td>'
        f'<td class="{kind}"><b>{advantage:+.2f}</b></td>{values}<td>{tokens}</td></tr>'
    )


def _boxed(example: Line, answer: Line, pictures: Pictures) -> str:
    boxes = (example.get("true_boxes", ()), answer.get("predicted_boxes", ()))
    return pictures.with_boxes(example.get("images", ()), *boxes)


def _text(text: str) -> str:
    cut = text if len(text) <= _TEXT_SHOWN else text[:_TEXT_SHOWN] + " ..."
    return f"<pre>{html.escape(cut)}</pre>"
