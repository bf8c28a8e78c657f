"""The quickstart's model before and after GRPO, on the same questions, in one table.

    make before-after
    python -m study.before_after --pairs=data/quickstart --out=runs/before_after [--puzzles=data/puzzles]

asks both models, greedily: the held-out pairs of --pairs (the task they were trained on), phrases for the
objects of the same pictures (as RefCOCO), whether there is such an object (as POPE), and where --puzzles is
given, foreign pairs of pictures. Neither of the models has learnt phrases or yes/no questions. Answers and
scores are kept below --out, and a run that was stopped goes on. before_after.md has the table: paired
differences with intervals and McNemar's test.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from etils import epath

from dig_jax.machines.folder import to_path, write_json, write_result
from dig_jax.measure import command, compare, folder, page

PAIRS = {"own_pairs": "held-out pairs", "scene_phrases": "phrases", "scene_objects": "yes/no questions"}
PUZZLES = {"own_pairs": "foreign pairs"}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = _arguments(argv)
    out = to_path(args.out)
    sets = {"pairs": (args.pairs, PAIRS)}
    if args.puzzles:
        sets["puzzles"] = (args.puzzles, PUZZLES)
    models = {"before": args.before, "after": args.after}
    marked = {when: _measure(model, out / when, sets, args.config) for when, model in models.items()}
    found = compare.differences(marked["before"], marked["after"])
    summaries = {
        f"{when}, {name}": _summary(out / when / where, benchmark)
        for where, (_, names) in sets.items()
        for benchmark, name in names.items()
        for when in models
    }
    lines = [*page.differences_table(found), "", *_how_answers_came_out(summaries)]
    write_result(out / "before_after.md", "\n".join(lines) + "\n")
    write_json(out / "before_after.json", {"differences": [one.record() for one in found]})
    print("\n".join(lines))


def _measure(
    model: str, out: epath.Path, sets: dict[str, tuple[str, dict[str, str]]], config: str
) -> dict[str, compare.Marked]:
    """Asks a model all that is asked, and returns what came of it by the names of the table."""
    marked: dict[str, compare.Marked] = {}
    for where, (data, names) in sets.items():
        flags = [f"--model={model}", f"--config={config}", f"--data_root={data}", "--greedy"]
        command.main([*flags, f"--benchmarks={','.join(names)}", f"--out={out / where}"])
        _, found = folder.read(out / where, list(names))
        marked |= {name: found[benchmark] for benchmark, name in names.items()}
    return marked


def _summary(out: epath.Path, benchmark: str) -> dict[str, float]:
    return json.loads((out / f"{benchmark}.json").read_text())


def _how_answers_came_out(summaries: dict[str, dict]) -> list[str]:
    """A table of what the differences do not say: baselines, unread answers, answers without an end."""
    lines = ["| | baselines | unread | cut at the most tokens | median tokens |", "|---|---|---|---|---|"]
    for name, summary in summaries.items():
        head = summary["headline"]
        known = [f"{what} {page.number(of[head])}" for what, of in summary["baselines"].items() if head in of]
        shares = [f"{summary[key]:.1%}" for key in ("unparsed", "truncated")]
        lines.append(f"| {name} | {', '.join(known)} | {' | '.join(shares)} | {summary['median_tokens']:g} |")
    return lines


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m study.before_after",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--before", default="assets/quickstart_warmup", help="the model that GRPO starts from")
    add("--after", default="runs/quickstart", help="the workdir of the run")
    add("--config", default="configs/quickstart.py", help="how both are asked")
    add("--pairs", required=True, help="rendered pairs, with a split `test`")
    add("--puzzles", default="", help="pairs of another origin, with a split `test`")
    add("--out", required=True, help="folder for answers, scores and the table")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
