"""Tables in the shape of those of TinyGroundingGPT (arXiv 2411.09691), of folders of results:

    python -m dig_jax.measure.paper_tables --table=1 3B=results/3b 1.5B=results/1_5b
    python -m dig_jax.measure.paper_tables --table=4 without=results/without with=results/with

A folder is what `python -m dig_jax.evaluate --benchmarks=... --out=DIR` wrote. 1 and 8: boxes of phrases, the
eight columns of RefCOCO, RefCOCO+ and RefCOCOg and their plain mean; of rendered scenes (`align_phrases`)
where a folder has no RefCOCO. 2: image understanding. 3: POPE, accuracy / F1 / share of yes of each set.
4: the mean of each of the three sets of phrases. 5: some of table 2. Tables 4, 5 and 8 are ablations: behind
each number stands its difference to the first folder. What a folder has not measured is "-"; VQAv2, GQA
and LLaVA-W are no benchmarks of this package.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from dig_jax.machines import textfile
from dig_jax.machines.folder import to_path, write_result
from dig_jax.measure.folder import RESULTS

Scores = Mapping[str, Mapping[str, float]]  # benchmark -> score -> value
Cell = Callable[[Scores], float | None]

SETS = ("RefCOCO", "RefCOCO+", "RefCOCOg")
_PARTS = {name: ("val", "test") if name == "RefCOCOg" else ("val", "testA", "testB") for name in SETS}
_STYLES = dict(zip(SETS, ("ref", "ref+", "refg"), strict=True))  # of rendered scenes
ABLATIONS = (4, 5, 8)


def _score(benchmark: str, name: str, scale: float = 1.0) -> Cell:
    def read(scores: Scores) -> float | None:
        value = scores.get(benchmark, {}).get(name)
        return None if value is None else scale * value

    return read


def _phrases(which: str, part: str) -> Cell:
    """Acc@0.5 of a part of a set, of photographs or else of scenes, in percent."""

    def read(scores: Scores) -> float | None:
        if "refcoco" in scores:
            return scores["refcoco"].get(f"{which}_{part}/Precision@1")
        return scores.get("align_phrases", {}).get(f"{_STYLES[which]}_{part}/Precision@1")

    return read


def _mean(cells: Sequence[Cell]) -> Cell:
    """The plain mean; nothing where one is missing: a mean of others is another number."""

    def read(scores: Scores) -> float | None:
        values = [cell(scores) for cell in cells]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    return read


def _nothing(scores: Scores) -> float | None:
    return None


def _pope(which: str) -> dict[str, Cell]:
    """Accuracy, F1 and share of yes of a set of POPE; adversarial of scenes where there is no POPE."""

    def read(score: str) -> Cell:
        def of(scores: Scores) -> float | None:
            benchmark = "pope" if "pope" in scores else "align_objects"
            return scores.get(benchmark, {}).get(f"{which}/{score}")

        return of

    shown = {"Acc": "acc", "F1": "Overall", "Yes": "yes_ratio"}
    return {f"{which.capitalize()} {word}": read(score) for word, score in shown.items()}


_EIGHT = {f"{which} {part}": _phrases(which, part) for which in SETS for part in _PARTS[which]}
_WITH_MEAN = {**_EIGHT, "Avg": _mean([*_EIGHT.values()])}
_POPE_MEAN = _score("pope", "mean_f1")
_UNDERSTANDING: dict[str, Cell] = {
    "VQAv2": _nothing,
    "GQA": _nothing,
    "SQA-I": _score("scienceqa", "Overall", 100),
    "POPE": _POPE_MEAN,
    "MME-P": _score("mme", "perception"),
    "MMB": _score("mmbench", "Overall", 100),
    "LLaVA-W": _nothing,
}
TABLES: Mapping[int, Mapping[str, Cell]] = {
    1: _WITH_MEAN,
    2: _UNDERSTANDING,
    3: {k: v for which in ("random", "popular", "adversarial") for k, v in _pope(which).items()},
    4: {which: _mean([_phrases(which, part) for part in _PARTS[which]]) for which in SETS},
    5: {name: _UNDERSTANDING[name] for name in ("GQA", "VQAv2", "SQA-I", "POPE", "MMB")},
    8: _WITH_MEAN,
}


def table(number: int, models: Mapping[str, Scores]) -> str:
    """A table of the paper as Markdown, a row for each model.

    Args:
      number: of the table, a key of `TABLES`.
      models: name -> what it scored.
    """
    columns = TABLES[number]
    first = next(iter(models.values()))
    lines = [["model", *columns], ["---", *["---:"] * len(columns)]]
    for row, (name, scores) in enumerate(models.items()):
        cells = [cell(scores) for cell in columns.values()]
        base = [cell(first) for cell in columns.values()]
        with_base = number in ABLATIONS and row > 0
        lines.append([name, *(_shown(*both, with_base) for both in zip(cells, base, strict=True))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _shown(value: float | None, base: float | None, with_base: bool) -> str:
    if value is None:
        return "-"
    gain = f" ({value - base:+.2f})" if with_base and base is not None else ""
    return f"{value:.2f}{gain}"


def read_scores(folder: epath.Path) -> Scores:
    """The scores of a folder of results. Raises FileNotFoundError or ValueError."""
    if not (folder / RESULTS).exists():
        raise FileNotFoundError(f"{folder} holds no {RESULTS}: it is no folder of finished benchmarks")
    try:
        found = textfile.read_json(folder / RESULTS)["benchmarks"]
        return {name: dict(summary["scores"]) for name, summary in found.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / RESULTS} is damaged, or of another version: {error!r}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 with a message."""
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.measure.paper_tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table", type=int, action="append", choices=[*TABLES], help="default: all")
    parser.add_argument("--out", help="file to write them to as well")
    parser.add_argument("models", nargs="+", metavar="NAME=DIR", help="in the order of the rows")
    args = parser.parse_args(argv)
    if wrong := [given for given in args.models if not all(given.partition("="))]:
        parser.error(f"{wrong[0]!r}: expected NAME=DIR, what a model is called and its folder of results")
    try:
        places = dict(given.split("=", 1) for given in args.models)
        models = {name: read_scores(to_path(place)) for name, place in places.items()}
    except (FileNotFoundError, ValueError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = "\n".join(f"Table {number}\n\n{table(number, models)}" for number in args.table or TABLES)
    print(text, end="")
    if args.out:
        write_result(to_path(args.out), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
