"""How fast the generator makes pairs, against the plain way with Blender, on one machine in one run.

    python -m bench.generator            # about ten minutes on four cores
    python -m bench.generator --quick    # three minutes: small pictures only

The plain way renders the same scenes as a simple script would: each picture's scene built from nothing,
Blender's default denoiser, light tree and bounces, two full renders per pair, no identity masks first. Both
ways take turns, pair by pair; costs are CPU seconds of the render process, which neighbours on the machine
disturb less than wall time. Quality is PSNR to the plain way with 512 samples and no denoiser, for both.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from data_gen.__main__ import main as generate
from data_gen.plan.pair import PairPlan, Rejected, plan_pair
from data_gen.plan.stage import PlanAttempt, plan_next
from data_gen.render.controller import Worker
from data_gen.render.interpreter import Blender, find_blender
from data_gen.render.pair import decode, render_pair
from data_gen.scenes import scene as scenes
from data_gen.scenes.presets import CLEVR, Preset

PLAIN_WORKER = Path(__file__).with_name("plain_worker.py")
REFERENCE_SAMPLES = 512
SAMPLES = (8, 16)
SEED = 20
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
WANTED_SPEEDUP = 2.0


class TimedWorker(Worker):
    """A worker that adds up the CPU seconds of its process by kind of request.

    Pictures narrower than `full_width` count as drafts.
    """

    full_width = 0

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        before = self.cpu_seconds()
        reply = super().ask(request)
        scene = request.get("scene", {})
        draft = request["op"] == "picture" and scene["width"] < self.full_width
        self.seconds["draft" if draft else request["op"]] += self.cpu_seconds() - before
        return reply

    def total(self) -> float:
        """CPU seconds of all requests so far."""
        return sum(self.seconds.values())

    def cpu_seconds(self) -> float:
        """User and system time of the process so far; see proc_pid_stat(5)."""
        if self._process is None:
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@dataclasses.dataclass(frozen=True)
class Case:
    """CPU seconds of some pairs, rendered both ways.

    Attributes:
      ours, plain: of every accepted pair, by the attempt that was accepted.
      ours_rejected, plain_rejected: of all attempts before those, by all pairs together.
      attempts: how many those were.
    """

    side: int
    samples: int
    ours: list[float]
    plain: list[float]
    ours_rejected: float
    plain_rejected: float
    attempts: int

    @property
    def speedup(self) -> float:
        """Median over the pairs of the ratio of their costs, rejected attempts left out."""
        return statistics.median(b / a for a, b in zip(self.ours, self.plain, strict=True))

    def per_minute(self, way: str) -> float:
        """Pairs that a core finishes in a minute, rejected attempts included."""
        seconds = sum(getattr(self, way)) + getattr(self, f"{way}_rejected")
        return 60 * len(self.ours) / seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns 0, or 1 when a case is not WANTED_SPEEDUP times as fast as plain."""
    parser = argparse.ArgumentParser(prog="python -m bench.generator", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="256 pixels and two pairs per case")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 448], help="pixels (default: 256 448)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs per case (default: 4)")
    parser.add_argument("--threads", type=int, default=2, help="render threads of a process (default: 2)")
    parser.add_argument("--out", type=results.output_file, help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    blender = find_blender()
    sides, pairs = ([256], 2) if args.quick else (args.sides, args.pairs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with start(blender, args.threads) as ours, start(blender, args.threads, plain=True) as plain:
            cases = [
                measure(ours, plain, side, samples, pairs, folder) for side in sides for samples in SAMPLES
            ]
            budget = measure_budget(ours, folder)
        quality = {side: measure_quality(blender, args.threads, side, folder) for side in sides}
        scaling = measure_scaling(6 if args.quick else 12, folder)
    report(cases, budget, quality, scaling, blender)
    if args.out:
        figures: dict[str, Any] = {"cases": [dataclasses.asdict(case) for case in cases]}
        figures |= {
            "budget_ms": budget,
            "psnr_db": quality,
            "pairs_per_second": scaling,
            "blender": blender.version,
        }
        Path(args.out).write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(case.speedup >= WANTED_SPEEDUP for case in cases) else 1


def start(blender: Blender, threads: int, plain: bool = False) -> TimedWorker:
    """A worker that renders our way, or the plain way."""
    command = [blender.executable, str(PLAIN_WORKER), f"--threads={threads}"]
    worker = TimedWorker(command if plain else blender.command(threads), timeout=900.0)
    worker.ask({"op": "hello"})
    return worker


def clevr(side: int, samples: int) -> Preset:
    """The preset `clevr` with pictures of `side` pixels squared and so many samples per pixel."""
    return dataclasses.replace(CLEVR, width=side, height=side, samples=samples)


def measure(ours: TimedWorker, plain: TimedWorker, side: int, samples: int, pairs: int, folder: Path) -> Case:
    """Makes pairs both ways, in turns: every attempt that planning lets through is rendered by both."""
    preset = clevr(side, samples)
    accepted: list[tuple[float, float]] = []
    rejected: list[tuple[float, float]] = []
    for index in range(pairs + 1):  # the first one warms both up
        reasons: tuple[str, ...] = ()
        while True:
            planned = plan_next(planner(preset), ("train", index), reasons)
            ours_seconds, reason = make_ours(ours, planned.plan, preset, folder)
            seconds = (ours_seconds, make_plain(plain, planned.plan, folder))
            if index:
                (rejected if reason else accepted).append(seconds)
            if not reason:
                break
            reasons = (*planned.rejected, reason)
        print(f"{side} px, {samples} samples, pair {index}: {seconds[0]:.2f} s, plain {seconds[1]:.2f} s")
    return Case(
        side,
        samples,
        [pair[0] for pair in accepted],
        [pair[1] for pair in accepted],
        sum(pair[0] for pair in rejected),
        sum(pair[1] for pair in rejected),
        len(rejected),
    )


def planner(preset: Preset) -> PlanAttempt:
    """Plans the attempts at a pair as the generator does, from this benchmark's seed."""
    return lambda job, attempt: plan_pair(preset, SEED, *job, attempt)


def make_ours(worker: TimedWorker, plan: PairPlan, preset: Preset, folder: Path) -> tuple[float, str]:
    """CPU seconds of an attempt, those of the checks included, and why it was rejected, if it was."""
    before, own = worker.total(), time.process_time()
    reason = ""
    try:
        render_pair(worker, plan, preset.accept, folder)
    except Rejected as error:
        reason = str(error)
    return worker.total() - before + time.process_time() - own, reason


def make_plain(worker: TimedWorker, plan: PairPlan, folder: Path) -> float:
    """CPU seconds of two full renders, without any check."""
    before = worker.total()
    for scene in (plan.scene_a, plan.scene_b):
        render(worker, scene, folder)
    return worker.total() - before


def render(worker: Worker, scene: scenes.Scene, folder: Path) -> np.ndarray:
    """The picture of a scene, uint8 [height, width, 3]."""
    path = folder / "bench.png"
    worker.ask({"op": "picture", "id": "bench", "scene": scenes.to_dict(scene), "path": str(path)})
    return decode(path.read_bytes())


def measure_budget(worker: TimedWorker, folder: Path, pairs: int = 3) -> dict[str, float]:
    """Milliseconds per pair of `clevr` at 448 pixels and 16 samples, by what they are spent on."""
    preset = clevr(448, 16)
    worker.full_width = preset.width
    spent: collections.defaultdict[str, float] = collections.defaultdict(float)
    for index in range(pairs):
        clock = time.process_time()
        planned = plan_next(planner(preset), ("test", index))
        spent["plan"] += time.process_time() - clock
        reason = "first"
        while reason:
            worker.seconds.clear()
            clock = time.process_time()
            seconds, reason = make_ours(worker, planned.plan, preset, folder)
            if reason:
                planned = plan_next(planner(preset), planned.job, (*planned.rejected, reason))
        for op, seconds in worker.seconds.items():
            spent[op] += seconds
        spent["decoding and checks"] += time.process_time() - clock
    return {name: 1000 * seconds / pairs for name, seconds in spent.items()}


def measure_quality(
    blender: Blender, threads: int, side: int, folder: Path
) -> dict[int, tuple[float, float]]:
    """PSNR in dB to the reference, by number of samples: (ours, plain)."""
    preset = clevr(side, 16)
    scene = plan_next(planner(preset), ("train", 1)).plan.scene_a
    with start(blender, threads) as ours, start(blender, threads, plain=True) as plain:
        best = dataclasses.replace(scene, samples=REFERENCE_SAMPLES, denoise=False)
        reference = render(plain, best, folder)
        return {
            samples: (
                psnr(render(ours, dataclasses.replace(scene, samples=samples), folder), reference),
                psnr(render(plain, dataclasses.replace(scene, samples=samples), folder), reference),
            )
            for samples in SAMPLES
        }


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures, in dB."""
    error = np.mean((picture.astype(float) - reference.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def measure_scaling(pairs: int, folder: Path) -> dict[int, float]:
    """Pairs per second of `clevr` at 256 pixels and 8 samples, wall time, by number of workers."""
    rates = {}
    for workers in (1, 2, 4):
        out = folder / f"workers{workers}"
        order = ["--preset=clevr", "--resolution=256", "--samples=8", f"--num_pairs={pairs}", f"--out={out}"]
        order += [f"--workers={workers}", f"--seed={SEED}"]
        if generate([*order, "--stage=plan"]):
            raise RuntimeError("planning failed")
        clock = time.monotonic()
        if generate([*order, "--stage=render"]):
            raise RuntimeError("rendering failed")
        rates[workers] = pairs / (time.monotonic() - clock)
    return rates


def report(
    cases: Sequence[Case],
    budget: dict[str, float],
    quality: dict[int, dict[int, tuple[float, float]]],
    scaling: dict[int, float],
    blender: Blender,
) -> None:
    """Prints the figures as Markdown tables."""
    print(f"\nBlender {blender.version}, {os.cpu_count()} cores, preset clevr, CPU seconds\n")
    print("| pixels | samples | pairs/min/core | plain | times as fast | PSNR | plain |")
    print("|---|---|---|---|---|---|---|")
    for case in cases:
        psnrs = quality[case.side][case.samples]
        print(
            f"| {case.side} | {case.samples} "
            f"| {case.per_minute('ours'):.1f} | {case.per_minute('plain'):.1f} "
            f"| {case.speedup:.2f} | {psnrs[0]:.1f} dB | {psnrs[1]:.1f} dB |"
        )
    rejected = sum(case.attempts for case in cases)
    made = sum(len(case.ours) for case in cases)
    print(f"\nPairs per minute include {rejected} rejected attempts for {made} pairs; how many times as")
    print("fast is the median over pairs, without those.")
    print("\nMilliseconds of CPU per pair at 448 pixels and 16 samples:\n")
    for name, value in budget.items():
        print(f"  {name:20} {value:8.0f}")
    print("\nWorkers, pairs per second (256 pixels, 8 samples, wall time, start included):\n")
    for workers, rate in scaling.items():
        print(f"  {workers}  {rate:.3f}  {rate / scaling[1]:.2f} times one worker")


if __name__ == "__main__":
    sys.exit(main())
