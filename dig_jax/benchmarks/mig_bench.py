"""MIG-Bench, its two tasks about a change between two pictures: diff and view_diff.

IoU@0.7, @0.5 and @0.3 are shares of items whose first box overlaps the true one by at least that much,
AVE_IOU is the mean IoU; all in percent, as the official program gives them. Its reader differs from ours: it
divides a decimal 1.0 by 1000, misses reversed corners, and takes boxes out of thoughts.
"""

from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import mig
from dig_jax.benchmarks.row import Mark, Row

_THRESHOLDS = (0.7, 0.5, 0.3)
_SLACK = 1e-9  # for an IoU at a threshold exactly, in floats


def ious(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """Shares above each threshold and the mean IoU, by task: "diff/IOU@0.5"."""
    found = {}
    for task, own in scores.by(rows, marks, scores.category).items():
        values = [mark.values["iou"] for mark in own]
        for threshold in _THRESHOLDS:
            share = scores.mean(float(value >= threshold - _SLACK) for value in values)
            found[f"{task}/IOU@{threshold}"] = 100 * share
        found[f"{task}/AVE_IOU"] = 100 * scores.mean(values)
    return found


BENCHMARK = Benchmark(
    name="mig_bench",
    title="MIG-Bench diff",
    task="referring",
    splits=mig.SPLITS,
    sizes={"diff": 528, "view_diff": 94},
    tables={},
    ask=asking.with_boxes,
    mark=marking.referring,
    aggregate=ious,
    headline="diff/IOU@0.5",
    top=100.0,
    release=mig.rows,
)
