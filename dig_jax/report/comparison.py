"""Several runs on one page: what they reached, how they got there, and in which settings they differ."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from dig_jax.report.curves import COLORS, line_chart
from dig_jax.report.page import TRAINING_CHARTS, section, write_page
from dig_jax.report.series import Records, band, points
from dig_jax.report.shown import Shown
from dig_jax.report.summary import read_config
from dig_jax.report.writer import METRICS_FILE, read_evals, read_lines
from dig_jax.run import keys


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What is compared of a run.

    Attributes:
      name: for a reader, of this run alone.
      config: settings by their whole names.
      shown: which metrics.
      metrics, evals: lines of the files.
    """

    name: str
    config: dict[str, Any]
    shown: Shown
    metrics: Records
    evals: Records


def write_comparison(workdirs: Sequence[epath.Path], path: epath.Path) -> epath.Path:
    """Writes the page of two runs or more."""
    runs = [_read(workdir, name) for workdir, name in zip(workdirs, _names(workdirs), strict=True)]
    names = "".join(
        f'<span class="key line{number % COLORS}">{html.escape(run.name)}: {_steps(run)} steps</span>'
        for number, run in enumerate(runs)
    )
    body = [
        f'<header><h1>{len(runs)} runs</h1><p class="legend">{names}</p></header>\n',
        section("Held out, at the last evaluation", _final(runs)),
        section("Settings that differ", _differing(runs)),
        section("Held out", _held_out_charts(runs)),
        section("Training", _training_charts(runs)),
    ]
    return write_page(path, "dig_jax: " + ", ".join(run.name for run in runs), body)


def _read(workdir: epath.Path, name: str) -> RunFiles:
    shown = Shown.read(workdir)
    config, metrics = keys.flat(read_config(workdir)), read_lines(workdir / METRICS_FILE)
    return RunFiles(name, config, shown, metrics, read_evals(workdir, shown.main))


def _names(workdirs: Sequence[epath.Path]) -> list[str]:
    """Last parts of the paths, as many as it takes to tell them apart; the same run twice is numbered."""
    paths = [path.parts for path in workdirs]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def _steps(run: RunFiles) -> int:
    return run.metrics[-1]["step"] if run.metrics else 0


def _final(runs: Sequence[RunFiles]) -> str:
    """A row for every figure that a run has, with the 95 % interval of its mean where it is known."""
    rows = ""
    for held_out in dict.fromkeys(name for run in runs for name in run.shown.sets(run.evals)):
        figures = {key: words for run in runs for key, words in run.shown.of_set(held_out).held_out.items()}
        for key, words in figures.items():
            values = [_last(run, f"{held_out}/{key}") for run in runs]
            known = [value for value, _ in values if value is not None]
            if known:
                label, best = f"{held_out}: {words}", max(known) if len(set(known)) > 1 else None
                cells = "".join(_value(*value, best) for value in values)
                rows += f"<tr><th>{html.escape(label)}</th>{cells}</tr>"
    heads = "".join(f"<td>{html.escape(run.name)}</td>" for run in runs)
    if not rows:
        return ""
    note = "<p>With 95 % intervals of the mean over examples, where the run noted how sure it is.</p>"
    table = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{note}<div class="wide">{table}</div>'


def _last(run: RunFiles, key: str) -> tuple[float | None, float | None]:
    """A figure of the last evaluation that has it, and its standard error."""
    line = next((line for line in reversed(run.evals) if line.get(key) is not None), {})
    return line.get(key), line.get(f"{key}_se")


def _value(value: float | None, error: float | None, best: float | None) -> str:
    if value is None:
        return "<td></td>"
    shown = f"<b>{value:.3f}</b>" if value == best else f"{value:.3f}"
    around = "" if error is None else f' <span class="same">&plusmn; {1.96 * error:.3f}</span>'
    return f"<td>{shown}{around}</td>"


def _held_out_charts(runs: Sequence[RunFiles]) -> str:
    charts = ""
    for held_out in dict.fromkeys(name for run in runs for name in run.shown.sets(run.evals)):
        figures = {key: words for run in runs for key, words in run.shown.of_set(held_out).held_out.items()}
        for key, words in figures.items():
            charts += _chart(f"{held_out}: {words}", f"{held_out}/{key}", [(run, run.evals) for run in runs])
    return f'<div class="charts">{charts}</div>' if charts else ""


def _training_charts(runs: Sequence[RunFiles]) -> str:
    """The charts of a run's own page, one for each of their lines."""
    titles: dict[str, str] = {}
    for run in runs:
        own = [chart for declared in run.shown.training.values() for chart in declared.training_charts()]
        for title, lines in (*own, *TRAINING_CHARTS):
            for label, key in lines:
                titles.setdefault(key, f"{title}: {label}" if len(lines) > 1 else title)
    charts = "".join(
        _chart(title, key, [(run, run.metrics) for run in runs]) for key, title in titles.items()
    )
    return f'<div class="charts">{charts}</div>' if charts else ""


def _chart(title: str, key: str, records: Sequence[tuple[RunFiles, Records]]) -> str:
    """One metric, a line for each run, in its colour even where others have no such metric."""
    series = [(run.name, points(lines, key)) for run, lines in records]
    bands = {run.name: around for run, lines in records if (around := band(lines, key))}
    return line_chart(title, series, x_label="step", bands=bands)


def _differing(runs: Sequence[RunFiles]) -> str:
    rows = ""
    for key in sorted({key for run in runs for key in run.config}):
        values = [json.dumps(run.config[key]) if key in run.config else "" for run in runs]
        if len(set(values)) > 1:
            cells = "".join(f"<td>{html.escape(value)}</td>" for value in values)
            rows += f"<tr><th>{html.escape(key)}</th>{cells}</tr>"
    heads = "".join(f"<td>{html.escape(run.name)}</td>" for run in runs)
    if not rows:
        return "<p>None.</p>"
    table = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'
