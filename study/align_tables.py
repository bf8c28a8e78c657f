"""The tables of the study of object crops, and the verdict by the rule that was fixed before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from scipy import stats

from dig_jax.benchmarks.releases.aligned import PHRASES
from study.align_arms import ARMS, IMAGE
from study.align_measure import Record

COLUMNS = {"rec": "Acc@0.5", "iou": "mean IoU", "pointing": "pointing", "unread": "unread"}
OTHERS = ("I-C", "C-I", "T-I", "exist")


def markdown(records: Sequence[Record]) -> str:
    """All tables, of what there is so far."""
    arms = [arm for arm in ARMS if _of(records, arm)]
    if not arms:
        return "No run is done yet.\n"
    phrases = {record["phrases"] for record in records if "phrases" in record}
    parts = [
        f"{sum(len(_of(records, arm)) for arm in arms)} runs, {', '.join(map(str, sorted(phrases)))} held-out"
        " phrases. Percent: mean ± standard deviation over seeds; differences of the same seeds, with 95 %"
        " t-intervals.",
        verdict(records),
        _main_table(records, arms),
        _columns_table(records, arms),
        _kinds_table(records),
        _pairs_table(records),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict(records: Sequence[Record]) -> str:
    """By the rule of docs/align_study.md; "" while the runs that it needs are not there."""
    against = _paired(records, "A1", "A0", lambda run: run["rec"])
    noise = _paired(records, "A1", "E3", lambda run: run["rec"])
    if min(len(against), len(noise)) < 5:
        return "**Verdict: none yet.** The rule asks for five seeds of A0, A1 and E3."
    low, high = interval(against)
    if low > 0:
        above = fmean(noise) > 0
        words = "the image kinds help" if above else "the format or the further boxes help, not the crops"
    else:
        words = "they harm" if high < 0 else "not shown"
    return f"**Verdict: {words}.** A1 - A0: {_difference(against)}; A1 - E3: {_difference(noise)}."


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The two-sided 95 % t-interval of the mean; without bounds where there are fewer than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def _of(records: Sequence[Record], arm: str) -> list[Record]:
    return sorted((record for record in records if record["arm"] == arm), key=lambda record: record["seed"])


def _paired(records: Sequence[Record], arm: str, base: str, figure: Callable[[Record], float]) -> list[float]:
    """The figure of an arm above that of another one, of the seeds that both have."""
    other = {run["seed"]: figure(run) for run in _of(records, base)}
    return [figure(run) - other[run["seed"]] for run in _of(records, arm) if run["seed"] in other]


def _main_table(records: Sequence[Record], arms: Sequence[str]) -> str:
    rows = []
    for arm in arms:
        runs = _of(records, arm)
        cells = [_spread([run[key] for run in runs]) for key in COLUMNS]
        against = _paired(records, arm, "A0", lambda run: run["rec"]) if arm != "A0" else []
        spent = f"{fmean(run['minutes'] for run in runs):.0f}"
        rows.append([f"{arm}: {ARMS[arm].words}", str(len(runs)), *cells, _difference(against), spent])
    return _table(["arm", "seeds", *COLUMNS.values(), "Acc@0.5 against A0", "minutes of steps"], rows)


def _columns_table(records: Sequence[Record], arms: Sequence[str]) -> str:
    """The shape of the paper's Table 1: RefCOCO's eight columns, and their plain mean."""
    rows = []
    for arm in arms:
        means = [
            fmean(run["columns"].get(column, math.nan) for run in _of(records, arm)) for column in PHRASES
        ]
        rows.append([arm, *(_percent(value) for value in [*means, fmean(means)])])
    return _table(["", *(column.replace("_", " ") for column in PHRASES), "Avg"], rows)


def _kinds_table(records: Sequence[Record]) -> str:
    """Arms and kinds: what is trained on, and what becomes of every kind."""
    rows = []
    for arm in ARMS:
        if runs := _of(records, arm):
            taught = ["x" if kind in ARMS[arm].kinds else "" for kind in IMAGE]
            rows.append([arm, *taught, *(_spread([run[kind] for run in runs]) for kind in OTHERS)])
    heads = [f"{kind} taught" for kind in IMAGE] + [f"{kind}, right" for kind in OTHERS]
    return (
        _table(["arm", *heads], rows) + "\n\nChance is 25 % of C-I and T-I, and 50 % of exist (not taught)."
    )


def _pairs_table(records: Sequence[Record]) -> str:
    """DiG on this backbone."""
    rows = []
    for arm in ("dig_A0", "dig_A1"):
        if runs := _of(records, arm):
            gains = [run["after"] - run["before"] for run in runs]
            cells = [_spread([run[when] for run in runs]) for when in ("before", "after")]
            rows.append([f"from {arm.removeprefix('dig_')}", str(len(runs)), *cells, _difference(gains)])
    if not rows:
        return ""
    carried = _paired(records, "dig_A1", "dig_A0", lambda run: run["after"])
    words = f"\n\nFrom A1 above from A0, after GRPO: {_difference(carried)}." if carried else ""
    return _table(["F1 of mixed pairs", "seeds", "before GRPO", "after", "gain"], rows) + words


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def _spread(values: Sequence[float]) -> str:
    return _percent(fmean(values)) + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def _difference(values: Sequence[float]) -> str:
    """The mean in points, with its interval: "+1.2 (0.3 to 2.1)"."""
    if not values:
        return ""
    low, high = (100 * end for end in interval(values))
    ends = f" ({low:+.1f} to {high:+.1f})" if math.isfinite(low) else ""
    return f"{100 * fmean(values):+.1f}{ends}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
