"""Checks a dataset from its pictures alone: `python -m data_gen.verify --data=DIR`.

An independent check of the ground truth: no masks, no scenes, nothing that the generator computed but the
boxes. Every box must contain change, and no large change may lie outside all boxes. Pairs whose camera or
light moves on purpose change everywhere: of them only the boxes are checked, and they are counted. So it is
with two photographs: `--boxes_only` checks the boxes of all pairs alone.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from data_gen.files.ahead import ahead
from data_gen.files.userfiles import user_path
from data_gen.records.dataset import Dataset, NoDataset, Pair
from data_gen.records.record import to_pixels
from data_gen.records.statistics import GRID, Statistics
from data_gen.records.truth import NO_BOX, delta_e

SHOWN = 50  # failed pairs that are listed


@dataclasses.dataclass(frozen=True)
class Limits:
    """What passes. Distances are CIELAB delta E (CIE 1976) between the pictures, per pixel.

    Attributes:
      delta_e: from this distance on a pixel counts as changed.
      min_changed_share: share of a box's pixels that must be changed. A changed object fills part of its
        box, and part of it may look alike before and after.
      max_outside: share of the picture that may be changed outside all boxes: shadows, reflections.
      max_outside_ratio: size of the largest connected patch of those, relative to the changed pixels of the
        smallest difference.
      margin: pixels around a box that still belong to it: the renderer's pixel filter, and the denoiser's.
      boxes_only: change outside the boxes is no problem of any pair.
    """

    delta_e: float = 10.0
    min_changed_share: float = 0.03
    max_outside: float = 0.01
    max_outside_ratio: float = 0.6
    margin: int = 2
    boxes_only: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the pictures of a pair show.

    Attributes:
      changed: changed pixels inside each box.
      shares: the same as a share of the box.
      distances: mean colour distance of those pixels.
      outside: share of the picture that is changed outside all boxes.
      largest: pixels of the largest connected patch outside.
      problems: why the pair fails; empty when it passes.
      damaged: whether a picture cannot be decoded.
    """

    changed: tuple[int, ...]
    shares: tuple[float, ...]
    distances: tuple[float, ...]
    outside: float
    largest: int
    problems: tuple[str, ...]
    damaged: bool = False


def examine(
    image_a: np.ndarray, image_b: np.ndarray, boxes: np.ndarray, limits: Limits, moving: bool = False
) -> Finding:
    """Compares two pictures, uint8 [height, width, 3], with normalised boxes [M, 4].

    `moving` says that camera or light differ on purpose, so that change outside the boxes means nothing.
    """
    height, width = image_a.shape[:2]
    distance = delta_e(image_a, image_b)
    changed = distance > limits.delta_e
    problems, numbers, shares, distances = [], [], [], []
    outside = changed.copy()
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = to_pixels(box, width, height) if np.isfinite(box).all() else NO_BOX
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            problems.append(f"box {number} is empty or leaves the picture: {box.tolist()}")
            continue
        inside = changed[y0:y1, x0:x1]
        numbers.append(int(np.count_nonzero(inside)))
        shares.append(float(inside.mean()))
        distances.append(float(distance[y0:y1, x0:x1][inside].mean()) if inside.any() else 0.0)
        if shares[-1] < limits.min_changed_share:
            problems.append(f"box {number}: {shares[-1]:.1%} of it is changed")
        grown = (
            slice(max(0, y0 - limits.margin), y1 + limits.margin),
            slice(max(0, x0 - limits.margin), x1 + limits.margin),
        )
        outside[grown] = False
    share = float(outside.mean())
    labels, patches = ndimage.label(outside)
    largest = int(np.bincount(labels.ravel())[1:].max()) if patches else 0
    if not (moving or limits.boxes_only):
        if share > limits.max_outside:
            problems.append(f"{share:.1%} of the picture is changed outside the boxes")
        if numbers and largest > limits.max_outside_ratio * min(numbers):
            problems.append(
                f"a patch of {largest} changed pixels outside; the smallest box has {min(numbers)}"
            )
    return Finding(tuple(numbers), tuple(shares), tuple(distances), share, largest, tuple(problems))


def check_pair(pair: Pair, limits: Limits) -> Finding:
    """Examines a stored pair; a picture that cannot be decoded is a problem of it."""
    try:
        return examine(*pair.decoded(), pair.boxes, limits, moving=pair.camera_moved)
    except NoDataset as error:
        return Finding((), (), (), 0.0, 0, (str(error),), damaged=True)


def check_pairs(pairs: Iterable[Pair], limits: Limits, threads: int) -> Iterator[tuple[Pair, Finding]]:
    """Examines pairs, in order, a few at a time."""
    yield from ahead(functools.partial(check_pair, limits=limits), pairs, threads)


@dataclasses.dataclass
class Report:
    """Findings counted over pairs."""

    statistics: Statistics = dataclasses.field(default_factory=Statistics)
    failed: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    moving: int = 0
    outside: list[float] = dataclasses.field(default_factory=list)
    largest: list[int] = dataclasses.field(default_factory=list)
    by_kind: dict[str, list[tuple[int, float, float]]] = dataclasses.field(default_factory=dict)

    def add(self, pair: Pair, finding: Finding) -> None:
        """Counts one pair."""
        self.statistics.add(pair)
        if finding.problems:
            self.failed[pair.id] = finding.problems
        if pair.camera_moved:
            self.moving += 1
        else:
            self.outside.append(finding.outside)
            self.largest.append(finding.largest)
        if len(finding.changed) == len(pair.kinds):
            values = zip(finding.changed, finding.shares, finding.distances, strict=True)
            for kind, value in zip(pair.kinds, values, strict=True):
                self.by_kind.setdefault(kind, []).append(value)

    def text(self) -> str:
        """The statistics as a page of text."""
        counted = self.statistics
        lines = [f"pairs               {counted.pairs}"]
        lines.append("differences a pair  " + bars(counted.differences))
        if any(counted.objects):  # of a user's own pairs they are not known
            lines.append("objects a pair      " + bars(counted.objects))
        if self.by_kind:
            lines += ["", "kind        number  box side   changed pixels     of the box   colour distance"]
            lines.append("                    median     least   median     least  median   least  median")
            for kind in sorted(self.by_kind):
                changed, shares, distances = map(np.array, zip(*self.by_kind[kind], strict=True))
                side = np.median(counted.kind_sides[kind])
                lines.append(
                    f"{kind:10} {len(changed):7}  {side:8.3f} {changed.min():9} {np.median(changed):8.0f}"
                    f"   {shares.min():7.1%} {np.median(shares):7.1%}"
                    f" {distances.min():7.1f} {np.median(distances):7.1f}"
                )
            lines += ["", "box centres, percent of all, by thirds of the picture:"]
            third = GRID // 3
            grid = counted.positions.reshape(3, third, 3, third).sum(axis=(1, 3)) / counted.positions.sum()
            lines += ["  " + "  ".join(f"{100 * cell:3.0f}" for cell in row) for row in grid]
        if self.outside:
            shares = 100 * np.array(self.outside)
            lines += ["", "changed outside the boxes, of the picture: " + spread(shares, "%", 2)]
            lines.append(
                "largest patch outside, pixels:             " + spread(np.array(self.largest), "", 0)
            )
        if self.moving:
            lines.append(
                f"{self.moving} pairs with another camera or light on purpose: only their boxes were checked"
            )
        return "\n".join(lines)


def bars(counts: collections.Counter[int]) -> str:
    """ "1: 40, 2: 60"."""
    return ", ".join(f"{number}: {counts[number]}" for number in sorted(counts))


def spread(values: np.ndarray, unit: str, digits: int) -> str:
    median, high, top = np.quantile(values, (0.5, 0.95, 1.0))
    return f"median {median:.{digits}f}{unit}, 95% below {high:.{digits}f}{unit}, most {top:.{digits}f}{unit}"


def limits_for(
    metadata: dict[str, Any],
    delta_e: float | None = None,
    max_outside: float | None = None,
    boxes_only: bool = False,
) -> Limits:
    """The limits a dataset was made to keep, where its metadata says so, and the given ones before those."""
    accept = metadata.get("preset", {}).get("accept", {})
    limits = Limits(boxes_only=boxes_only)
    if isinstance(accept.get("changed_delta_e"), int | float):
        limits = dataclasses.replace(limits, delta_e=accept["changed_delta_e"])
    if isinstance(accept.get("max_outside"), int | float):
        limits = dataclasses.replace(limits, max_outside=accept["max_outside"])
    if isinstance(accept.get("max_outside_ratio"), int | float):
        # Change inside a box is counted in the mask of its object there, in the whole box here.
        limits = dataclasses.replace(limits, max_outside_ratio=accept["max_outside_ratio"])
    if delta_e is not None:
        limits = dataclasses.replace(limits, delta_e=delta_e)
    return dataclasses.replace(limits, max_outside=max_outside) if max_outside is not None else limits


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (pairs fail, their ids are printed) or 2 (no dataset there)."""
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.verify",
        description="Checks every pair of a dig_pairs dataset from its two pictures alone: change in every "
        "box, nothing large outside; prints statistics. Exit code 1, with the ids, when pairs fail.",
    )
    parser.add_argument(
        "--data",
        type=user_path,
        required=True,
        help="folder that `python -m data_gen` or `data_gen.import_pairs` wrote",
    )
    parser.add_argument("--split", help="check this split alone (default: all)")
    parser.add_argument(
        "--delta_e", type=float, help="colour distance that counts as change (default: as made)"
    )
    parser.add_argument(
        "--max_outside", type=float, help="share of a picture that may be changed outside (default: as made)"
    )
    parser.add_argument(
        "--boxes_only",
        action="store_true",
        help="check the boxes alone, whatever changes outside: for photographs taken one after the other",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: one per core")
    args = parser.parse_args(argv)
    try:
        dataset = Dataset(args.data)
        splits = dataset.splits
        if args.split is not None and args.split not in splits:
            raise NoDataset(f"{args.data} has no split {args.split!r}; it has {', '.join(splits)}")
        report = Report()
        limits = limits_for(dataset.metadata(), args.delta_e, args.max_outside, args.boxes_only)
        wanted = [args.split] if args.split else list(splits)
        for pair, finding in check_pairs(dataset.pairs(wanted), limits, max(1, args.threads)):
            report.add(pair, finding)
    except NoDataset as error:
        print(f"data_gen.verify: {error}", file=sys.stderr)
        return 2
    print(report.text())
    return print_verdict(report, "" if limits.boxes_only else ", nothing large outside")


def print_verdict(report: Report, outside: str = ", nothing large outside") -> int:
    """Says which pairs fail; 0 when none does, else 1. `outside` is what passing means beside the boxes."""
    total = report.statistics.pairs
    if not report.failed:
        print(f"\nall {total} pairs pass: change in every box{outside}")
        return 0
    print(f"\n{len(report.failed)} of {total} pairs fail:", file=sys.stderr)
    for name, problems in list(report.failed.items())[:SHOWN]:
        print(f"  {name}: {'; '.join(problems)}", file=sys.stderr)
    if len(report.failed) > SHOWN:
        print(f"  ... and {len(report.failed) - SHOWN} more", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
