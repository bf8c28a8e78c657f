"""Results for readers: markdown tables, and result tables as VLMEvalKit writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.intervals import Interval
from dig_jax.benchmarks.results import to_tsv
from dig_jax.benchmarks.row import Row
from dig_jax.measure.compare import Difference
from dig_jax.measure.saved import Answer

Summary = Mapping[str, Any]  # of one benchmark, as results.json has it


def results_page(model: str, summaries: Mapping[str, Summary]) -> str:
    """The page of a model: a line for each benchmark, then all of its scores and how they came about.

    Args:
      model: what it is called.
      summaries: by name of the benchmark.
    """
    lines = [f"# {model}", ""]
    lines += _table(
        ("benchmark", "rows", "score", "95 % interval", "baselines", "unparsed", "cut off", "truncated")
        + ("median tokens", "quoted from papers"),
        [_line(summary) for summary in summaries.values()],
    )
    lines += [
        "",
        "Cut off: thoughts that had no end. Truncated: answers cut at the most tokens allowed. Quoted:",
        "numbers that papers give, of other models, prompts and samplings.",
    ]
    for summary in summaries.values():
        lines += ["", f"## {summary['title']}", ""]
        lines += [f"- {warning}" for warning in summary["warnings"]]
        lines += [f"- {key}: {_said(value)}" for key, value in summary["how"].items()]
        lines += [""] + _table(
            ("score", "value", "95 % interval", "quoted from papers"),
            [
                (name, number(x), ends(summary["intervals"].get(name)), _quoted(summary, name))
                for name, x in summary["scores"].items()
            ],
        )
    return "\n".join(lines) + "\n"


def differences_page(before: str, after: str, found: Sequence[Difference]) -> str:
    """The page of a comparison."""
    lines = [f"# From {before} to {after}", ""]
    lines += differences_table(found)
    lines += [
        "",
        "Intervals resample whole groups of rows, the same ones of both models. McNemar: rows that one model",
        "alone has right altogether, before and after, and the probability of counts so unequal if neither",
        "were better.",
    ]
    lines += [f"- {one.name}: {note}" for one in found for note in one.notes]
    return "\n".join(lines) + "\n"


def differences_table(found: Sequence[Difference]) -> list[str]:
    """Its lines."""
    return _table(
        ("benchmark", "rows", "score", "before", "after", "difference", "95 % interval", "McNemar"),
        [
            (
                *(one.name, str(one.rows), one.metric, number(one.before), number(one.after)),
                *(f"{one.gain:+.3f}", ends(one.ends)),
                f"{one.test.first} : {one.test.second}, p = {one.test.p:.2g}",
            )
            for one in found
        ],
    )


def number(value: float) -> str:
    """A score to show: three decimals below ten, one from there on."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def ends(found: Interval | Sequence[float] | None) -> str:
    """An interval to show."""
    return f"{number(found[0])} to {number(found[1])}" if found else ""


def _line(summary: Summary) -> tuple[str, ...]:
    head = summary["headline"]
    score = summary["scores"].get(head)
    known = {name: found[head] for name, found in summary["baselines"].items() if head in found}
    return (
        summary["title"],
        summary["complete"],
        f"{head}: none, see the warnings" if score is None else f"{head} {number(score)}",
        ends(summary["intervals"].get(head)),
        ", ".join(f"{name} {number(value)}" for name, value in known.items()),
        *(f"{summary[name]:.1%}" for name in ("unparsed", "cut_off", "truncated")),
        f"{summary['median_tokens']:g}",
        _quoted(summary, head),
    )


def _quoted(summary: Summary, metric: str) -> str:
    """What papers give for a score, with the model and the paper."""
    found = [one for one in summary["quoted"] if one["metric"] == metric]
    return ", ".join(f"{one['value']:g} ({one['model']}, {one['paper']})" for one in found)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(x)}" for key, x in value.items())
    return f"`{value!r}`" if isinstance(value, str) and "\n" in value else str(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    return [line(heads), line("---" for _ in heads), *map(line, rows)]


def toolkit_tables(
    benchmark: Benchmark, rows: Sequence[Row], answers: Mapping[str, Answer]
) -> dict[str, str]:
    """VLMEvalKit's result tables of a benchmark: its name of the table -> the TSV, question and prediction.

    A table has the rows of its splits; none is made of which no row is there.
    """
    tables = {}
    for table, splits in benchmark.tables.items():
        own = [row for row in rows if set(row.splits) & set(splits)]
        if own:
            tables[table] = to_tsv(own, [answers[row.index].prediction for row in own])
    return tables
