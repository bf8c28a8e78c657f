"""What a GRPO step costs against G, response length, image size and depth, with the exponent of growth.

    make bench BENCH=growth
    python -m bench.growth [--axis=group] [--rounds=5] [--threads=2]

One quantity at a time is doubled from the setting below; the others stay. A step is the training step itself,
on random weights (float32) and drawn pairs: images to patches, prefill, decoding, reward, reference
log-probs, update. The exponent is the slope of a straight line through log(seconds) against log(quantity), by
least squares: 1 is proportional, 0 is independent. Small sizes are all overhead, which flattens it, so the
exponent between the last two sizes is printed as well.

What to expect: rollout grows with response length, and on an accelerator hardly with G, as long as the batch
fits it; the update works on all tokens, so it grows with G and length together, both below 1 because a prompt
is computed once for its group; the vision tower's attention is between all patches of a prompt, so images of
twice the side cost between 4 and 16 times as much once they are most of the work; depth is proportional, in
time though not in compile time (`bench/compile_time.py`).
"""

import argparse
import functools
import math
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import results, timing
from bench.results import Result

PHASES = ("step", "rollout", "rest", "CPU time")  # the last is the step's, of all threads
# The base of each quantity is its first value, and all are doubled from there.
AXES = {
    "group": (4, 8, 16, 32),  # G, completions per prompt
    "response": (32, 64, 128, 256),  # tokens of each completion
    "image": (128, 256, 512),  # pixels of each side of both images
    "depth": (2, 4, 8, 16),  # layers of the decoder, and of the vision tower
}


class Setting(NamedTuple):
    """What a step is measured at: one size of each of `AXES`."""

    group: int
    response: int
    image: int
    depth: int


BASE = Setting(*(sizes[0] for sizes in AXES.values()))

Row = dict[str, float]  # seconds of `PHASES`


def main(argv: list[str] | None = None) -> None:
    """The command."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    timing.bind(args.threads)
    found: list[Result] = []
    for axis in args.axis or AXES:
        sizes = AXES[axis][: args.points]
        rows = [measure(BASE._replace(**{axis: size}), args.rounds, args.profile) for size in sizes]
        print_axis(axis, sizes, rows)
        found.append(summary(axis, sizes, rows))
    print("\n" + results.table(found))
    results.save(found, args.json)


@functools.cache  # all quantities start from the same setting
def measure(at: Setting, rounds: int, profile: str) -> Row:
    """Median seconds of a step."""
    from bench import grpo_step, setting
    from bench.dig_jax_side import DigJaxSide

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        setting.write_model(folder, depth=at.depth)
        config = grpo_step.make_config(str(folder))
        config.rollout.group_size = at.group
        config.rollout.max_new_tokens = at.response
        side = DigJaxSide(config, folder, setting.make_pairs(4, at.image), setting.QUESTION)
        side.step(0)  # compiles
        steps = [_phases(side.step(1 + step)) for step in range(rounds)]
        name = "_".join(f"{axis}{size}" for axis, size in at._asdict().items())
        timing.profile(profile and f"{profile}/{name}", lambda: side.step(1 + rounds))
    return {name: statistics.median(step[name] for step in steps) for name in PHASES}


def _phases(step: dict[str, float]) -> Row:
    whole, rollout = step["step_s"], step["rollout_s"]
    return dict(zip(PHASES, (whole, rollout, whole - rollout, step["cpu_s"]), strict=True))


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of log(seconds) against log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def print_axis(axis: str, sizes: tuple[int, ...], rows: list[Row]) -> None:
    """Milliseconds of every size, and the exponents, as a table in Markdown."""
    print("\n" + _line(axis, (f"{name}, ms" for name in PHASES)) + "\n" + "|---" * (1 + len(PHASES)) + "|")
    for size, row in zip(sizes, rows, strict=True):
        print(_line(size, (f"{1e3 * row[name]:.0f}" for name in PHASES)))
    for what, first in (("exponent", 0), ("at the end", -2)):
        slopes = (exponent(sizes[first:], [row[name] for row in rows[first:]]) for name in PHASES)
        print(_line(what, (f"{slope:.2f}" for slope in slopes)), flush=True)


def _line(head: object, cells: Iterable[str]) -> str:
    return f"| {head} | " + " | ".join(cells) + " |"


def summary(axis: str, sizes: tuple[int, ...], rows: list[Row]) -> Result:
    """One line for the table of all benchmarks."""
    slopes = {name: exponent(sizes, [row[name] for row in rows]) for name in PHASES}
    assert all(math.isfinite(slope) for slope in slopes.values())
    text = ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items())
    return Result(f"exponent of cost against {axis}, {sizes[0]} to {sizes[-1]}", text)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = results.make_parser("growth", __doc__)
    parser.add_argument("--axis", action="append", choices=tuple(AXES), help="repeat for several (all)")
    parser.add_argument(
        "--points", type=results.at_least(2), default=4, help="sizes of each axis, at most (default 4)"
    )
    parser.add_argument(
        "--rounds", type=results.at_least(1), default=5, help="steps of each size that count (default 5)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
