"""Renders a `dig_pairs` dataset: `python -m data_gen --preset=tiny --num_pairs=4000 --seed=0 --out=DIR`."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from data_gen.build import Job, make_pair
from data_gen.crew import Crew
from data_gen.interpreter import NoBlender, find_blender_python
from data_gen.presets import PRESETS, Preset, parse_differences
from data_gen.progress import Progress
from data_gen.render import WORKER, Worker
from data_gen.staging import Staging, differing_keys

# How long a request may take before its worker counts as hung. A core needs about 2 s per million samples;
# the rest is for machines where many processes share a core.
TIMEOUT = 60.0
TIMEOUT_PER_MEGASAMPLE = 40.0

SUMMARY = "generation.json"  # in the dataset's folder: how it was made


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (pairs are missing) or 2 (bad arguments, no Blender)."""
    args = parse_arguments(argv)
    try:
        preset = resolve_preset(args)
        spec = {"preset": to_json_values(preset), "seed": args.seed}
        counts = {"train": args.num_pairs, "test": args.test_pairs}
        if is_complete(args.out, {**spec, "counts": counts}):
            print(f"{args.out} is complete: {args.num_pairs} train and {args.test_pairs} test pairs.")
            return 0
        python, blender = find_blender_python(args.blender_python)
        staging = Staging(args.out.with_name(args.out.name + ".staging"), {**spec, "blender": blender})
    except (ValueError, NoBlender) as error:
        print(f"data_gen: {error}", file=sys.stderr)
        return 2
    try:
        failures = render_missing(
            args, preset, counts, [python, str(WORKER), f"--threads={args.threads}"], staging
        )
    except KeyboardInterrupt:
        print(f"\nStopped. Finished pairs are in {staging.root}; the same command goes on.", file=sys.stderr)
        return 1
    if failures:
        print("\n".join(["", *failures]), file=sys.stderr)
        print(
            f"{len(failures)} pairs failed, nothing was packed. The same command tries again.",
            file=sys.stderr,
        )
        return 1
    write_dataset(args.out, preset, {**spec, "counts": counts, "blender": blender}, staging)
    print(f"Wrote {args.out}: {args.num_pairs} train and {args.test_pairs} test pairs.")
    return 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_gen",
        description="Renders pairs of nearly identical scenes, with a box for every difference, as a TFDS "
        "dataset. A seed gives the same records whatever the number of workers. A stopped run goes on when "
        "the command is repeated; repeated with fewer pairs, it packs what is there.",
    )
    parser.add_argument("--preset", required=True, choices=sorted(PRESETS), help="what the pairs look like")
    parser.add_argument("--num_pairs", type=count, required=True, help="pairs in the split `train`")
    parser.add_argument("--test_pairs", type=count, default=0, help="pairs in the split `test` (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give unrelated pairs (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the dataset; must not exist yet")
    parser.add_argument("--workers", type=positive, help="Blender processes (default: one per core)")
    parser.add_argument(
        "--threads", type=positive, default=1, help="threads per Blender process (default: 1)"
    )
    parser.add_argument(
        "--differences",
        help="differences per pair, instead of the preset's: 2, or 0-3 (equally often), or 0:0.1,1:0.6,2:0.3",
    )
    parser.add_argument(
        "--resolution", help="pixels, instead of the preset's: 256, or 480x320 (width x height)"
    )
    parser.add_argument("--samples", type=positive, help="render samples per pixel, instead of the preset's")
    parser.add_argument(
        "--blender_python", help="interpreter that can import bpy (default: .venv-bpy/bin/python)"
    )
    args = parser.parse_args(argv)
    args.workers = args.workers or usable_cpus()
    args.out = args.out.absolute()
    return args


def usable_cpus() -> int:
    """CPUs this process may use, which in a container are often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_preset(args: argparse.Namespace) -> Preset:
    """The named preset with the command line's changes. Raises ValueError naming the flag."""
    preset = PRESETS[args.preset]
    if args.differences:
        preset = dataclasses.replace(preset, weights=parse_differences(args.differences))
    if args.resolution:
        width, _, height = args.resolution.partition("x")
        if not (width.isdigit() and (height or width).isdigit() and int(width) and int(height or width)):
            raise ValueError(f"--resolution={args.resolution}: expected pixels, like 256 or 480x320")
        preset = dataclasses.replace(preset, width=int(width), height=int(height or width))
    if args.samples:
        preset = dataclasses.replace(preset, samples=args.samples)
    return preset


def to_json_values(preset: Preset) -> dict[str, Any]:
    """The preset as JSON would return it, so that it can be compared with one read from a file."""
    return json.loads(json.dumps(dataclasses.asdict(preset)))


def is_complete(out: Path, wanted: dict[str, Any]) -> bool:
    """Whether `out` holds the wanted dataset. Raises ValueError when it holds anything else."""
    if not out.exists():
        return False
    try:
        found = json.loads((out / SUMMARY).read_text())
    except (OSError, ValueError):
        raise ValueError(
            f"--out={out} exists and is not a dataset made by data_gen; name a new folder"
        ) from None
    differences = differing_keys({key: found.get(key) for key in wanted}, wanted)
    if differences:
        raise ValueError(f"--out={out} holds another dataset ({differences}); name a new folder")
    return True


def render_missing(
    args: argparse.Namespace, preset: Preset, counts: dict[str, int], command: list[str], staging: Staging
) -> list[str]:
    """Renders the pairs that are not staged yet; returns a message for each that failed."""
    jobs: list[Job] = [(split, index) for split in ("test", "train") for index in range(counts[split])]
    missing = [job for job in jobs if not staging.is_done(*job)]
    megasamples = preset.width * preset.height * preset.samples / 1e6
    print(
        f"{len(jobs)} pairs of preset {preset.name}, {preset.width}x{preset.height}, {preset.samples} "
        f"samples; {len(jobs) - len(missing)} are rendered already; {args.workers} workers",
        file=sys.stderr,
    )
    crew = Crew(
        start_worker=lambda: Worker(command, timeout=TIMEOUT + TIMEOUT_PER_MEGASAMPLE * megasamples),
        make=lambda worker, job, folder: make_pair(worker, preset, args.seed, job, folder),
        staging=staging,
        on_pair=Progress(total=len(jobs), done=len(jobs) - len(missing)).add,
    )
    return crew.run(missing, threads=min(args.workers, len(missing)))


def write_dataset(out: Path, preset: Preset, spec: dict[str, Any], staging: Staging) -> None:
    """Packs the staged pairs beside `out`, renames the folder to `out`, then removes the staging folder."""
    from data_gen.pack import pack  # imports TFDS: too slow for --help and for errors

    splits = {split: number for split, number in spec["counts"].items() if number}
    kinds: collections.Counter[str] = collections.Counter()
    rejected: collections.Counter[str] = collections.Counter()
    for split, number in splits.items():
        for index in range(number):
            record = staging.read_record(split, index)
            kinds.update(record["kinds"])
            rejected.update(record["rejected"])
    temporary = out.with_name(out.name + ".packing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    pack(staging, splits, preset.width, preset.height, temporary)
    summary = {**spec, "kinds": dict(kinds), "rejected_attempts": dict(rejected)}
    (temporary / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    os.replace(temporary, out)
    shutil.rmtree(staging.root)


def count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    if count(text) == 0:
        raise argparse.ArgumentTypeError("expected at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
