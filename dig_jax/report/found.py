"""What held-out answers found, by kind and size of what was to be found, and by how many there were."""

from __future__ import annotations

import html
from collections.abc import Sequence

from dig_jax.report.curves import line_chart
from dig_jax.report.series import Records


def found_tables(lines: Records, main: str) -> str:
    """Tables of the first and of the newest evaluation.

    Args:
      lines: of slices.jsonl, one at least.
      main: what the mean by number is of.
    """
    titles = {
        "kind": ("Kind", "found"),
        "size": ("Size of box", "found"),
        "number": ("Boxes to find", main),
    }
    tables = "".join(_table(lines, name, *words) for name, words in titles.items())
    return f'<div class="slices">{tables}</div>' if tables else ""


def _table(lines: Records, name: str, title: str, what: str) -> str:
    rows = ""
    for value, (_, count) in lines[-1].get(name, {}).items():
        now = _share(lines[-1], name, value)
        before = _share(lines[0], name, value)
        cells = f"<td></td><td><b>{now:.2f}</b></td><td></td>"
        if before is not None and now is not None:
            change = f'<td class="{direction(now - before)}">{now - before:+.2f}</td>'
            cells = f"<td>{before:.2f}</td><td><b>{now:.2f}</b></td>{change}"
        rows += f"<tr><th>{html.escape(value)}</th><td>{count}</td>{cells}</tr>"
    if not rows:
        return ""
    first, last = lines[0]["step"], lines[-1]["step"]
    return (
        f"<table><thead><tr><th>{title}</th><td>number</td><td>{html.escape(what)}, step {first}</td>"
        f"<td>step {last}</td><td>change</td></tr></thead><tbody>{rows}</tbody></table>"
    )


def found_charts(lines: Records, marks: Sequence[tuple[float, str]]) -> str:
    """A line for each kind and size; nothing of a single evaluation."""
    charts = ""
    for name in ("kind", "size") if len(lines) > 1 else ():
        values = dict.fromkeys(value for line in lines for value in line.get(name, {}))
        shares = {value: [(line["step"], _share(line, name, value)) for line in lines] for value in values}
        series = [(value, [(step, y) for step, y in of if y is not None]) for value, of in shares.items()]
        charts += line_chart(f"Held out: share found, by {name}", series, x_label="step", marks=marks)
    return f'<div class="charts">{charts}</div>' if charts else ""


def direction(change: float) -> str:
    """The class of a change in the style sheet."""
    return "better" if change > 0 else "worse" if change < 0 else "same"


def _share(line: dict, name: str, value: str) -> float | None:
    total, count = line.get(name, {}).get(value, (0, 0))
    return total / count if count else None
