"""Scores saved predictions of a benchmark, from VLMEvalKit's result tables or others of that form.

Nothing is kept between two scorings: the toolkit reuses files that lie beside its predictions and returns the
old score for new answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath

from dig_jax.benchmarks import registry, results, tables, vlmevalkit
from dig_jax.benchmarks.baselines import baselines
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.opening import from_cells
from dig_jax.benchmarks.results import Prediction
from dig_jax.benchmarks.row import Mark, Reader, Row
from dig_jax.data.tokenizer import THINK_END
from dig_jax.tasks.answers import THINK_START


def rescore(
    name: str, predictions: epath.Path, questions: epath.Path | None, reader: Reader, *, repair: bool = False
) -> dict[str, Any]:
    """Scores of a result table, its answers as they were read, and what is to be said of them.

    Args:
      name: of the question table, such as "MMBench_DEV_EN", in upper or lower case.
      predictions: the result table; index and prediction are enough where there are `questions`.
      questions: the question table; None where the result table has its columns, as VLMEvalKit's do.
      reader: how answers are to be read.
      repair: whether labels that are known to be wrong are put right; each is then among the warnings.

    Returns:
      Values that JSON takes: `scores`, `rows` (index, answer, hit, reason, and iou of boxes), the numbers of
      `unparsed` and `cut_off` answers, `headline` (its value None where rows that count together are
      missing), `baselines` (that score of answers without a model),
      `completeness` by split, and `warnings`.

    Raises:
      FileNotFoundError, ValueError: a file is missing, is of another benchmark, lacks columns, or its indices
        are not those of the questions; names file and index.
    """
    benchmark, table = registry.of_table(name)
    _refuse_other(predictions, table)
    found = results.read(predictions)
    if questions is None:
        rows = _from_predictions(benchmark, table, predictions, found)
    else:
        rows = _from_questions(benchmark, table, questions, predictions, found)
    repaired: list[str] = []
    if repair:
        if benchmark.repair is None:
            raise ValueError(f"--repair_labels: no label of {benchmark.title} is known to be wrong")
        rows, repaired = benchmark.repair(rows)
    asked = vlmevalkit.as_loaded(rows) if reader.compat else rows
    marks = [benchmark.mark(row, each.text, reader) for row, each in zip(asked, found, strict=True)]
    # The toolkit scores whatever rows there are, and --compat is for comparison with it.
    scores = (benchmark.aggregate if reader.compat else benchmark.scores)(rows, marks)
    parts = benchmark.completeness(rows, benchmark.tables[table])
    return {
        "benchmark": benchmark.name,
        "table": table,
        "predictions": str(predictions),
        "compat": "vlmevalkit" if reader.compat else "",
        "answers": len(marks),
        "headline": {
            "name": benchmark.headline,
            "value": scores.get(benchmark.headline),
            "of": benchmark.top,
        },
        "scores": scores,
        "baselines": {name: found[benchmark.headline] for name, found in baselines(benchmark, rows).items()},
        "unparsed": sum(mark.unparsed for mark in marks),
        "cut_off": sum(mark.cut_off for mark in marks),
        "completeness": {part.split: str(part) for part in parts},
        "warnings": [*benchmark.faults(rows), *repaired, *_assumed(found, reader)],
        "rows": [_row(mark) for mark in marks],
    }


def _row(mark: Mark) -> dict[str, Any]:
    return {
        "index": mark.index,
        "answer": mark.answer,
        "hit": int(mark.hit) if mark.hit in (0, 1) else mark.hit,
        "reason": mark.reason,
        "cut_off": mark.cut_off,
        **mark.values,
    }


def _refuse_other(path: epath.Path, table: str) -> None:
    """Refuses a file that VLMEvalKit's naming, MODEL_TABLE, says to be of another benchmark."""
    known = [each for name in registry.names() for each in registry.benchmark(name).tables]
    ends = [each for each in known if path.stem.lower().endswith(f"_{each.lower()}")]
    named = max(ends, key=len, default=table)
    if named != table:
        raise ValueError(f"{path} is a result table of {named} by its name, and {table} is to be scored")


def _from_predictions(
    benchmark: Benchmark, table: str, path: epath.Path, found: Sequence[Prediction]
) -> list[Row]:
    """The questions, from the columns of the result table."""
    needed = ("answer", "A", "B") if benchmark.task == "choice" else ("answer",)
    if benchmark.task == "referring":
        needed = ("category", "width", "height")
    if missing := [name for name in needed if name not in found[0].cells]:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)} of {table}; it has {', '.join(found[0].cells)}."
            " Give the question table with --questions, or another --benchmark"
        )
    return _unique([from_cells(benchmark, table, tables.row_of(each.cells)) for each in found], path)


def _from_questions(
    benchmark: Benchmark, table: str, questions: epath.Path, path: epath.Path, found: Sequence[Prediction]
) -> list[Row]:
    """The questions from their own table, in the order of the predictions, which are one for each."""
    raw = tables.read_questions(questions, table)
    rows = [from_cells(benchmark, table, row) for row in raw]
    by_index = {row.index: row for row in rows} | {own.index: row for own, row in zip(raw, rows, strict=True)}
    if unknown := [each.index for each in found if each.index not in by_index]:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(found)} predictions have an index that {questions} does not; the"
            f" first is {unknown[0]!r}. Are they of another benchmark?"
        )
    chosen = _unique([by_index[each.index] for each in found], path)
    if len(chosen) < len(rows):
        given = {row.index for row in chosen}
        missing = next(row.index for row in rows if row.index not in given)
        raise ValueError(
            f"{path}: {len(rows) - len(chosen)} of {len(rows)} questions have no prediction; the first is"
            f" {missing!r}"
        )
    for row, each in zip(chosen, found, strict=True):
        asked = each.cells.get("question", row.question)
        if asked.strip() != row.question.strip():
            raise ValueError(
                f"{path}, index {each.index}: the question is {asked[:60]!r}, and in {questions} it is"
                f" {row.question[:60]!r}: they are not of the same table"
            )
    return chosen


def _unique(rows: list[Row], path: epath.Path) -> list[Row]:
    seen: set[str] = set()
    for row in rows:
        if row.index in seen:
            raise ValueError(f"{path}: index {row.index} is there twice")
        seen.add(row.index)
    return rows


def _assumed(found: Sequence[Prediction], reader: Reader) -> list[str]:
    """A warning where answers end thoughts that they do not begin, so that others may have been cut off."""
    ended = sum(THINK_END in each.text and THINK_START not in each.text for each in found)
    if reader.opens_thought or reader.compat or not ended:
        return []
    without = sum(THINK_END not in each.text and THINK_START not in each.text for each in found)
    if not without:
        return []
    return [
        f"{ended} answers end a thought that they do not begin: the model's template seems to open it. If so,"
        f" the {without} without {THINK_END} were cut off: say --thinking=yes"
    ]
