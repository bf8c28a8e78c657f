"""What a GRPO step costs against G, response length, image size and depth, with the exponent of growth.

    make bench BENCH=growth
    python -m bench.growth [--axis=group] [--rounds=5] [--threads=2]

One quantity at a time is doubled from the setting below; the others stay. A step is the training step itself,
on random weights (float32) and drawn pairs: images to patches, prefill, decoding, reward, reference
log-probs, update. The exponent is the slope of a straight line through log(seconds) against log(quantity), by
least squares: 1 is proportional, 0 is independent. Small sizes are all overhead, which flattens it, so the
exponent between the last two sizes is printed as well.

What to expect: decoding is bound by its steps, so rollout grows with response length and hardly with G, as
long as the batch fits the processor; the update works on all tokens, so it grows with G and length together;
the vision tower's attention is between all patches of a prompt, so images of twice the side cost between 4
and 16 times as much; depth is proportional, in time though not in compile time (`bench/compile_time.py`).
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import results, timing
from bench.results import Result

PHASES = ("step", "rollout", "rest")
# The base of each quantity is its first value, and all are doubled from there.
AXES = {
    "group": (4, 8, 16, 32),  # G, completions per prompt
    "response": (32, 64, 128, 256),  # tokens of each completion
    "image": (128, 256, 512),  # pixels of each side of both images
    "depth": (2, 4, 8, 16),  # layers of the decoder, and of the vision tower
}

Row = dict[str, float]  # seconds of `PHASES`


def main(argv: list[str] | None = None) -> None:
    """The command."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    timing.bind(args.threads)
    found: list[Result] = []
    for axis in args.axis or AXES:
        sizes = AXES[axis][: args.points]
        rows = [measure(axis, size, args.rounds, args.profile) for size in sizes]
        print_axis(axis, sizes, rows)
        found.append(summary(axis, sizes, rows))
    print("\n" + results.table(found))
    results.save(found, args.json)


def measure(axis: str, size: int, rounds: int, profile: str) -> Row:
    """Median seconds of a step with one quantity at `size` and the others at their first values."""
    from bench import grpo_step, setting
    from bench.dig_jax_side import DigJaxSide

    at = {name: values[0] for name, values in AXES.items()} | {axis: size}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        setting.write_model(folder, depth=at["depth"])
        config = grpo_step.make_config(str(folder))
        config.rollout.group_size = at["group"]
        config.rollout.max_new_tokens = at["response"]
        side = DigJaxSide(config, folder, setting.make_pairs(4, at["image"]), setting.QUESTION)
        side.step(0)  # compiles
        steps = [side.step(1 + step) for step in range(rounds)]
        timing.profile(profile and f"{profile}/{axis}_{size}", lambda: side.step(1 + rounds))
    row = {name: statistics.median(step[f"{name}_s"] for step in steps) for name in ("step", "rollout")}
    return row | {"rest": statistics.median(step["step_s"] - step["rollout_s"] for step in steps)}


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The slope of log(seconds) against log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def print_axis(axis: str, sizes: tuple[int, ...], rows: list[Row]) -> None:
    """Seconds of every size, and the exponents."""
    print(f"\n| {axis} | " + " | ".join(f"{name}, ms" for name in PHASES) + " |\n|---" + "|---" * 3 + "|")
    for size, row in zip(sizes, rows, strict=True):
        print(f"| {size} | " + " | ".join(f"{1e3 * row[name]:.0f}" for name in PHASES) + " |")
    for what, first in (("exponent", 0), ("at the end", -2)):
        slopes = (exponent(sizes[first:], [row[name] for row in rows[first:]]) for name in PHASES)
        print(f"| {what} | " + " | ".join(f"{slope:.2f}" for slope in slopes) + " |", flush=True)


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
