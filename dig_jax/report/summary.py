"""The held-out figures of a run, before and after training, as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

from etils import epath
from rich.console import Console
from rich.table import Table

from dig_jax.report.writer import EVALS_FILE, read_lines

# The figures that say whether training worked, in the order shown, with the words for a reader.
HELD_OUT = {
    "format": "answers in the right form",
    "f1": "F1, greedy answers",
    "iou": "mean IoU, greedy answers",
    "reward_greedy": "mean reward, greedy answers",
    "reward_sampled": "mean reward, sampled answers",
}


def before_and_after(evals: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(words, first value, last value) of every held-out figure that both evaluations have."""
    if not evals:
        return []
    first, last = evals[0], evals[-1]
    return [
        (words, first[name], last[name])
        for name, words in HELD_OUT.items()
        if _has(first, name) and _has(last, name)
    ]


def print_before_after(workdir: epath.PathLike) -> None:
    """Prints the first and the last evaluation of a run; nothing if it was never evaluated."""
    evals = read_lines(epath.Path(workdir) / EVALS_FILE)
    rows = before_and_after(evals)
    if not rows:
        return
    table = Table(title="Held-out pairs, before and after")
    table.add_column("")
    table.add_column(f"step {evals[0]['step']}", justify="right")
    table.add_column(f"step {evals[-1]['step']}", justify="right", style="bold")
    table.add_column("change", justify="right")
    for words, before, after in rows:
        change = after - before
        color = "green" if change > 0 else "red" if change < 0 else "dim"
        table.add_row(words, f"{before:.3f}", f"{after:.3f}", f"[{color}]{change:+.3f}[/]")
    Console().print(table)


def _has(figures: Mapping[str, Any], name: str) -> bool:
    return figures.get(name) is not None
