"""The folder of one model's results: what is written there, and reading it again.

NAME.jsonl        answers as they come (`saved`)
NAME.json         of a finished benchmark: its summary, and every row with its answer
MODEL_TABLE.tsv   the same as VLMEvalKit's result table
results.json      the summaries of all benchmarks
results.md        the same for readers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from dig_jax.benchmarks import registry
from dig_jax.machines import textfile
from dig_jax.machines.folder import write_json, write_result
from dig_jax.measure import compare, page
from dig_jax.measure.results import Result, from_record, to_record
from dig_jax.measure.saved import differing

RESULTS = "results.json"


def answers_file(out: epath.Path, name: str) -> epath.Path:
    """Where answers to a benchmark are saved as they come."""
    return out / f"{name}.jsonl"


def check_model(out: epath.Path, model: Mapping[str, Any]) -> None:
    """Refuses a folder that has results of another model.

    Raises:
      ValueError: says how the two differ.
    """
    if not (out / RESULTS).exists():
        return
    before = textfile.read_json(out / RESULTS).get("model", {})
    if changed := differing(before, model):
        raise ValueError(
            f"{out / RESULTS} holds results of another model: {'; '.join(changed)}. Name another --out"
        )


def write(
    out: epath.Path, name: str, model: Mapping[str, Any], result: Result, summary: Mapping[str, Any]
) -> None:
    """Adds the results of a benchmark.

    Args:
      out: the folder.
      name: of the model.
      model: its facts.
      result: of the benchmark.
      summary: of it.
    """
    benchmark, answers = result.benchmark, {answer.index: answer for answer in result.answers}
    rows = [to_record(*of_row) for of_row in zip(result.rows, result.marks, result.answers, strict=True)]
    write_json(out / f"{benchmark.name}.json", {**summary, "rows": rows})
    for table, text in page.toolkit_tables(benchmark, result.rows, answers).items():
        write_result(out / f"{name}_{table}.tsv", text)
    earlier = textfile.read_json(out / RESULTS)["benchmarks"] if (out / RESULTS).exists() else {}
    summaries = earlier | {benchmark.name: summary}
    summaries = {key: summaries[key] for key in registry.names() if key in summaries}
    write_json(out / RESULTS, {"name": name, "model": dict(model), "benchmarks": summaries})
    write_result(out / "results.md", page.results_page(name, summaries))


def read(out: epath.Path, names: Sequence[str] = ()) -> tuple[str, dict[str, compare.Marked]]:
    """The model's name, and its finished benchmarks with rows and marks.

    Args:
      out: the folder.
      names: of the benchmarks wanted; all that are there if none is named.

    Raises:
      FileNotFoundError: it holds no results, or none of a benchmark that was named.
      ValueError: a file there is damaged.
    """
    if not (out / RESULTS).exists():
        raise FileNotFoundError(f"{out} holds no {RESULTS}: it is no folder of finished benchmarks")
    results = textfile.read_json(out / RESULTS)
    if missing := sorted(set(names) - set(results["benchmarks"])):
        raise FileNotFoundError(f"{out} has no finished results of {', '.join(missing)}")
    found: dict[str, compare.Marked] = {}
    for name in names or results["benchmarks"]:
        path = out / f"{name}.json"
        try:
            pairs = [from_record(record) for record in textfile.read_json(path)["rows"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged, or of another version: {error!r}") from None
        rows, marks = zip(*pairs, strict=True)
        found[name] = (registry.benchmark(name), rows, marks)
    return str(results["name"]), found


def write_differences(
    out: epath.Path, before: epath.Path, names: Sequence[str] = ()
) -> list[compare.Difference]:
    """Compares the results in `before` with those in `out`, and writes differences.md and .json to `out`."""
    (first, old), (second, new) = read(before), read(out, names)
    found = compare.differences(old, new)
    write_json(
        out / "differences.json",
        {"before": str(before), "after": str(out), "differences": [one.record() for one in found]},
    )
    write_result(
        out / "differences.md", page.differences_page(f"{first} ({before})", f"{second} ({out})", found)
    )
    return found
