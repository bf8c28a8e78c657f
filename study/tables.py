"""The study's tables: Markdown for a reader, CSV and JSON for a program."""

import csv
import io
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from study.arms import ARMS, WARMUPS
from study.measure import Record

# Figures of a run's end: words, key in what `dig_jax.evaluate` wrote about the final pairs.
ENDS = (
    ("mean IoU", "iou"),
    ("reward, greedy", "reward_greedy"),
    ("reward, sampled", "reward_sampled"),
    ("right number of boxes", "count_accuracy"),
)
# Held-out figures shown by stage: words, metric of evals.jsonl.
FIGURES = (
    ("mixed F1", "mixed/f1"),
    ("mixed mean IoU", "mixed/iou"),
    ("mixed reward, greedy", "mixed/reward_greedy"),
    ("mixed reward, sampled", "mixed/reward_sampled"),
    ("single F1", "single/f1"),
    ("single reward, sampled", "single/reward_sampled"),
)
COMPARED = ("warmup", "full", "control")  # runs that the finer tables and plots show


def words_of(name: str) -> str:
    """What a run is, for a reader."""
    if name in ARMS:
        return ARMS[name].words
    return {"warmup": "warm-up"}.get(name, name.replace("_", " ").replace("warmup", "warm-up:"))


def of(records: Sequence[Record], name: str) -> list[Record]:
    """The records of one arm or warm-up, by seed."""
    return sorted((record for record in records if record["name"] == name), key=lambda record: record["seed"])


def spread(values: Iterable[float | None], sign: bool = False) -> str:
    """Mean and standard deviation over seeds, such as "0.412 ± 0.013"; "" for no values."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    deviation = f" ± {stdev(known):.3f}" if len(known) > 1 else ""
    return f"{fmean(known):{'+' if sign else ''}.3f}{deviation}"


def markdown(records: Sequence[Record]) -> str:
    """All tables, of mean and standard deviation over seeds."""
    seeds = sorted({record["seed"] for record in records})
    names = list(dict.fromkeys(record["name"] for record in records))
    arms = [name for name in names if name not in WARMUPS]
    compared = [name for name in COMPARED if name in names]
    parts = [
        "# Results of the study",
        f"Mean ± standard deviation over {len(seeds)} seeds ({', '.join(map(str, seeds))}). F1 is of greedy"
        " answers, with boxes found at IoU 0.5; rewards are the default one, whatever an arm trains with."
        " Final pairs are mixed ones that no choice of settings was made on; the tables by stage are of other"
        " held-out pairs, on which the settings were chosen.",
        *_arm_tables(records, arms),
        *(_stage_table(records, name) for name in arms if len(of(records, name)[0]["stages"]) > 2),
        _table_by(records, compared, "numbers", "F1 by number of differences, final pairs"),
        _table_by(records, compared, "kinds", "Share of differences found, by kind, final pairs"),
        _answers_table(records, names),
        _mismatched_table(records, compared),
        _cost_table(records, names),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _arm_tables(records: Sequence[Record], arms: Sequence[str]) -> list[str]:
    """Each arm before and after, and against its base, seed by seed."""
    rows = []
    for name in arms:
        runs, base = of(records, name), ARMS[name].base
        gains = _differences(records, name, ARMS[name].warmup)
        against = _differences(records, name, base)
        rows.append(
            [
                f"{words_of(name)} (`{name}`)",
                spread(run["metrics"]["f1"] for run in of(records, ARMS[name].warmup)),
                spread(run["metrics"]["f1"] for run in runs),
                spread(gains, sign=True),
                f"`{base}`" if against else "",
                spread(against, sign=True),
                *(spread(run["metrics"].get(key) for run in runs) for _, key in ENDS),
            ]
        )
    header = ["", "F1 before", "after", "change", "base", "against it", *(words for words, _ in ENDS)]
    return ["## Arms, on final pairs", _headline(records), _table(header, rows)] if rows else []


def _differences(records: Sequence[Record], name: str, base: str) -> list[float]:
    """F1 on final pairs above that of another run, of the seeds that both have."""
    other = {run["seed"]: run["metrics"]["f1"] for run in of(records, base)}
    return [run["metrics"]["f1"] - other[run["seed"]] for run in of(records, name) if run["seed"] in other]


def _headline(records: Sequence[Record]) -> str:
    """The primary figure: what the reward teaches above what as much further supervision does."""
    above = _differences(records, "full", "control")
    if not above:
        return ""
    by_seed = ", ".join(f"{value:+.3f}" for value in above)
    return f"F1 of `full` above that of `control`: **{spread(above, sign=True)}** (by seed: {by_seed})."


def _stage_table(records: Sequence[Record], name: str) -> str:
    runs = of(records, name)
    stages = [stage["name"] for stage in runs[0]["stages"]]
    rows = [
        [words, *(spread(run["stages"][number].get(key) for run in runs) for number in range(len(stages)))]
        for words, key in FIGURES
    ]
    return f"## By stage: {words_of(name)}\n\n" + _table(["", *stages], rows)


def _table_by(records: Sequence[Record], names: Sequence[str], group: str, title: str) -> str:
    runs = [run for name in names for run in of(records, name)]
    keys = sorted({key for run in runs for key in run[group]})
    if not keys:
        return ""
    rows = [
        [words_of(name), *(spread(run[group].get(key) for run in of(records, name)) for key in keys)]
        for name in names
    ]
    header = ["", *(f"{key} ({runs[0]['counts'].get(key, 0)})" for key in keys)]
    return f"## {title}\n\n" + _table(header, rows)


def _answers_table(records: Sequence[Record], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        runs = of(records, name)
        rows.append(
            [
                words_of(name),
                spread(run["metrics"]["count_accuracy"] for run in runs),
                spread(run["metrics"]["precision"] for run in runs),
                spread(run["metrics"]["recall"] for run in runs),
                spread(run["identical"]["right"] for run in runs),
                spread(run["identical"]["false_boxes"] for run in runs),
            ]
        )
    header = [
        "",
        "right number of boxes",
        "precision",
        "recall",
        "identical pairs right",
        "false boxes on them",
    ]
    return "## Answers to final pairs\n\n" + _table(header, rows)


def _mismatched_table(records: Sequence[Record], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        runs = [run for run in of(records, name) if run["mismatched"]]
        if runs:
            differing = [[r["f1"] for r in (run["metrics"], run["mismatched"])] for run in runs]
            rows.append([words_of(name), *(spread(column) for column in zip(*differing, strict=True))])
    if not rows:
        return ""
    title = "## Does it compare? F1 on final pairs when image A is that of another pair"
    return f"{title}\n\n" + _table(["", "true pairs", "image A of another pair"], rows)


def _cost_table(records: Sequence[Record], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        runs = of(records, name)
        steps = [run["stages"][-1]["step"] for run in runs]
        rows.append(
            [words_of(name), str(round(fmean(steps))), f"{fmean(run['minutes'] for run in runs):.1f}"]
        )
    return "## Cost of a run\n\n" + _table(["", "steps", "minutes of steps"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_csv(records: Sequence[Record]) -> str:
    """Every held-out figure of every stage end: one line per run, stage and figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "seed", "stage", "step", "figure", "value"])
    for record in records:
        for stage in record["stages"]:
            for figure, value in stage.items():
                if figure not in ("name", "step", "stage", "seconds"):
                    writer.writerow(
                        [record["name"], record["seed"], stage["name"], stage["step"], figure, value]
                    )
    return text.getvalue()
