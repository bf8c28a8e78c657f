"""The held-out figures of a run, before, between and after its stages, as a table on the terminal."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from rich.console import Console
from rich.table import Table

from dig_jax.report.shown import Shown
from dig_jax.report.writer import read_evals

Row = tuple[str, str, list[Any]]  # held-out set, words, and a figure per column


def stage_names(config: Mapping[str, Any]) -> list[str]:
    """The names of a run's stages in order; empty for a run of one stage, or without a config."""
    return list(config.get("curriculum", {}).get("order", ()))


def before_and_after(
    evals: Sequence[dict[str, Any]], stages: Sequence[str], shown: Shown
) -> tuple[list[str], list[Row]]:
    """The first evaluation and the last, or the last of every stage.

    Args:
      evals: of `read_evals`.
      stages: names of the stages, in order; empty for a run of one.
      shown: which figures, with their words.

    Returns:
      Headings of the columns ("start" and the stages' names, or the two steps), and a row for every figure
      that all of these evaluations have.
    """
    if not evals:
        return [], []
    ends = {line["stage"]: line for line in evals if stages}
    if ends:
        after = [(stages[int(number) - 1], line) for number, line in ends.items()]
        columns = [("start", evals[0]), *after]
    else:
        columns = [(f"step {line['step']}", line) for line in (evals[0], evals[-1])]
    rows = []
    for held_out in shown.sets(evals):
        for name, words in shown.of_set(held_out).held_out.items():
            values = [line.get(f"{held_out}/{name}") for _, line in columns]
            if None not in values:
                rows.append((held_out, words, values))
    return [heading for heading, _ in columns], rows


def print_before_after(workdir: epath.PathLike) -> None:
    """Prints the main set's figures before, between and after the stages; nothing if there are none."""
    workdir = epath.Path(workdir)
    stages, shown = stage_names(read_config(workdir)), Shown.read(workdir)
    headings, rows = before_and_after(read_evals(workdir, shown.main), stages, shown)
    if not rows:
        return
    table = Table(title=f"Held-out {shown.examples}, before and after")
    table.add_column("")
    for heading in headings[:-1]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(headings[-1], justify="right", no_wrap=True, style="bold")
    table.add_column("change", justify="right", no_wrap=True)
    for held_out, words, values in rows:
        if held_out != shown.main:  # on the page, and in the log
            continue
        change = values[-1] - values[0]
        color = "green" if change > 0 else "red" if change < 0 else "dim"
        table.add_row(words, *(f"{value:.3f}" for value in values), f"[{color}]{change:+.3f}[/]")
    Console().print(table)


def read_config(workdir: epath.Path) -> dict[str, Any]:
    """The settings of a run as written in its workdir; empty if there are none."""
    path = workdir / "config.json"
    return json.loads(path.read_text()) if path.exists() else {}
