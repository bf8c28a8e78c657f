"""The study's plots, PNG: every seed, and their mean."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the choice of a backend without a window)

from study.arms import WARMUPS  # noqa: E402
from study.measure import Record  # noqa: E402
from study.tables import COMPARED, of, words_of  # noqa: E402

GRAY = "#71717a"
COLORS = {"full": "#2563eb", "control": "#d97706", "mixed_only": "#059669", "warmup": GRAY}  # others: gray
STYLE = {
    "figure.dpi": 150,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.grid": True,
    "grid.color": "#e4e4e7",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.color": "#18181b",
}
CURVES = ("full", "mixed_only", "control")  # arms of the learning plot


def draw(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draws all plots that there are records for."""
    with plt.rc_context(STYLE):
        figures = {
            "stages": _stages(records),
            "arms": _arms(records),
            "numbers": _groups(records, "numbers", "differences in the pair", "F1, greedy answers"),
            "kinds": _groups(records, "kinds", "", "share of differences found"),
        }
        paths = []
        for name, figure in figures.items():
            if figure is not None:
                paths.append(folder / f"{name}.png")
                figure.savefig(paths[-1], bbox_inches="tight")
                plt.close(figure)
    return paths


def _stages(records: Sequence[Record]) -> Any:
    """Held-out mixed F1 and reward over the run: thin lines are seeds; where stages of `full` begin."""
    names = [name for name in CURVES if of(records, name)]
    if not names:
        return None
    panels = (
        ("mixed F1, greedy answers", "mixed/f1"),
        ("mixed reward, sampled answers", "mixed/reward_sampled"),
    )
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, (title, key) in zip(axes, panels, strict=True):
        for name in names:
            color = COLORS[name]
            runs = [run["curve"] for run in of(records, name)]
            # The control has more and cheaper steps: all are drawn over the share of the run.
            for run in runs:
                places = [point["step"] / run[-1]["step"] for point in run]
                axis.plot(places, [point[key] for point in run], color=color, alpha=0.3, linewidth=1)
            count = min(map(len, runs))
            places = [fmean(run[n]["step"] / run[-1]["step"] for run in runs) for n in range(count)]
            means = [fmean(run[n][key] for run in runs) for n in range(count)]
            axis.plot(places, means, "o-", color=color, linewidth=2, markersize=3, label=words_of(name))
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("share of the run")
        axis.set_ylim(bottom=0)
    full: list[Record] = next((run["stages"] for run in of(records, "full")), [])
    for stage, after in zip(full, full[1:], strict=False):
        for axis in axes:
            axis.axvline(stage["step"] / full[-1]["step"], color=GRAY, linestyle=":", linewidth=1)
            axis.text(
                stage["step"] / full[-1]["step"] + 0.01,
                0.01,
                after["name"],
                color=GRAY,
                fontsize=8,
                transform=axis.get_xaxis_transform(),
            )
    axes[0].legend(loc="best", fontsize=8)
    return figure


def _arms(records: Sequence[Record]) -> Any:
    """F1 of every arm's end on final pairs; the warm-up is the dotted line."""
    names = [name for name in dict.fromkeys(record["name"] for record in records) if name not in WARMUPS]
    if not names:
        return None
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(names) + 1), layout="constrained")
    for row, name in enumerate(names):
        values = [run["metrics"]["f1"] for run in of(records, name)]
        color = COLORS.get(name, GRAY)
        axis.plot(values, [row] * len(values), "o", color=color, alpha=0.4, markersize=5)
        axis.plot(fmean(values), row, "|", color=color, markersize=16, markeredgewidth=2.5)
    start = [run["metrics"]["f1"] for run in of(records, "warmup")]
    if start:
        axis.axvline(fmean(start), color=GRAY, linestyle=":", label="warm-up")
        axis.legend(loc="lower right", fontsize=8)
    axis.set_yticks(range(len(names)), [words_of(name) for name in names])
    axis.invert_yaxis()
    axis.set_xlabel("F1 on final pairs, greedy answers")
    axis.set_xlim(left=0)
    return figure


def _groups(records: Sequence[Record], group: str, x_label: str, y_label: str) -> Any:
    """Bars side by side: a cluster per number or kind of differences, a bar per run that is compared."""
    names = [name for name in COMPARED if of(records, name)]
    keys = sorted({key for name in names for run in of(records, name) for key in run[group]})
    if not keys:
        return None
    figure, axis = plt.subplots(figsize=(max(5, 1.1 * len(keys) + 1), 3.6), layout="constrained")
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        for place, key in enumerate(keys):
            values = [run[group][key] for run in of(records, name) if key in run[group]]
            x = place + (number - (len(names) - 1) / 2) * width
            axis.bar(
                x, fmean(values), 0.9 * width, color=COLORS[name], label=words_of(name) if not place else None
            )
            axis.plot([x] * len(values), values, "o", color="#18181b", markersize=2.5)
    axis.set_xticks(range(len(keys)), keys)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(axis="x", visible=False)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    return figure
