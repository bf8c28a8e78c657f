"""The command line of `python -m data_gen`, and the order that it stands for."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from data_gen.changes import CHANGES
from data_gen.files.staging import Job, Shard
from data_gen.files.userfiles import home_expanded, user_path
from data_gen.order.inputs import Inputs
from data_gen.scenes.presets import PRESETS, Preset, parse_differences, with_identical

STAGES = ("plan", "render", "verify", "pack")
DEVICES = ("cpu", "cuda", "optix")
PRESET_FLAGS = ("samples", "camera_jitter", "light_jitter")  # flags that are fields of Preset
ACCEPT_FLAGS = (
    "min_delta_e",
    "max_delta_e",
    "min_changed_pixels",
    "max_occlusion",
    "max_outside",
)  # Acceptance
MAX_PIXELS = 8192  # per side: no typing error may ask for a picture that fills the memory

DESCRIPTION = """\
Renders pairs of nearly identical scenes, with a box for every difference, as a TFDS dataset.

Four stages, each of which can be run alone with --stage and the same other flags:
  plan    scenes and changes as JSON lines, from the seed alone
  render  Blender worker processes turn plans into pictures and boxes; bad pairs are planned again
  verify  an independent look at the pictures: change in every box, nothing large outside
  pack    the TFDS dataset `dig_pairs` (ArrayRecord), visible only when it is complete

A seed gives the same records whatever the number of workers and shards. A run that was stopped, even killed,
goes on when the command is repeated; repeated with fewer pairs, it packs what is there."""

EPILOG = """\
On many machines that share a folder, run one command per shard (Slurm array, Kubernetes indexed job, Batch)
  python -m data_gen ... --out=DIR --num_shards=8 --shard_index=$SLURM_ARRAY_TASK_ID
and when all have ended, once:
  python -m data_gen ... --out=DIR --stage=pack
Without a shared folder, copy the shards' folders DIR.staging/shard-* together before packing."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What to make and how.

    Attributes:
      preset: with the command line's changes.
      counts: pairs of each split.
      out: folder of the dataset.
      stages: which of STAGES to run.
      shard: which part of the pairs to plan, render and verify.
      max_skipped: so many pairs may fail without keeping the dataset from being packed.
      flags: the command line as given, for the dataset's metadata.
    """

    preset: Preset
    seed: int
    counts: dict[str, int]
    out: Path
    stages: tuple[str, ...]
    shard: Shard
    workers: int
    threads: int
    max_skipped: int
    time_limit: float | None
    blender: str | None
    blender_python: str | None
    device: str
    masks: bool
    depth: bool
    inputs: Inputs
    dry_run: bool
    preview: bool
    flags: dict[str, Any]

    @property
    def staging_root(self) -> Path:
        return self.out.with_name(self.out.name + ".staging")

    def jobs(self, shard: Shard | None = None) -> list[Job]:
        """The pairs of a shard, or all of them."""
        jobs: list[Job] = [
            (split, index) for split in ("test", "train") for index in range(self.counts[split])
        ]
        return [job for job in jobs if shard is None or shard.holds(job)]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line's values; exits with code 2 and a message for values of the wrong form."""
    return argument_parser("data_gen").parse_args(argv)


def argument_parser(module: str) -> argparse.ArgumentParser:
    """The parser of `python -m MODULE`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("what to make").add_argument
    add("--preset", required=True, choices=sorted(PRESETS), help="what the pairs look like")
    add("--num_pairs", type=count, required=True, help="pairs in the split `train`")
    add("--test_pairs", type=count, default=0, help="pairs in the split `test` (default: 0)")
    add("--seed", type=int, default=0, help="other seeds give unrelated pairs (default: 0)")
    add("--out", type=user_path, required=True, help="folder of the dataset; must not exist yet")

    add = parser.add_argument_group("instead of the preset's").add_argument
    add(
        "--differences",
        help="differences per pair: 2, or 0-3 (equally often), or 0:0.1,1:0.6,2:0.3 (relative shares)",
    )
    add("--identical", type=float, help="share of pairs without a difference, 0 to 1")
    add("--kinds", help=f"kinds of difference, comma-separated, of: {', '.join(CHANGES)}")
    add("--objects", help="objects of a pair: 8, or 5-20")
    add("--resolution", help="pixels: 256, or 480x320 (width x height)")
    add("--samples", type=positive, help="render samples per pixel")
    add("--camera_jitter", type=float, help="metres by which B's camera moves: a distractor, no difference")
    add("--light_jitter", type=float, help="the same of B's lights")
    add("--min_delta_e", type=float, help="smallest mean colour distance (CIELAB) of a difference")
    add("--max_delta_e", type=float, help="largest one: a low value makes a set of faint differences")
    add("--min_changed_pixels", type=count, help="smallest number of changed pixels of a difference")
    add("--max_occlusion", type=float, help="largest share of a changed object that is hidden, 0 to 1")
    add("--max_outside", type=float, help="largest share of a picture changed by shadows and reflections")

    add = parser.add_argument_group("your own").add_argument
    add("--scenes", type=user_path, help="scenes as JSON lines, with or without changes (docs/scene.md)")
    add("--assets", type=user_path, help="folder of meshes, textures and skies (docs/scene.md)")
    add("--kind_file", type=user_path, help="Python file that registers a kind of change (docs/changes.md)")

    add = parser.add_argument_group("what else a record has").add_argument
    add("--masks", action="store_true", help="object masks of both pictures: mask_a, mask_b")
    add("--depth", action="store_true", help="depth of both pictures in millimetres: depth_a, depth_b")

    add = parser.add_argument_group("how to make it").add_argument
    add("--stage", choices=[*STAGES, "all"], default="all", help="run one stage alone (default: all)")
    add("--workers", type=positive, help="Blender processes (default: one per core)")
    add("--threads", type=positive, default=1, help="threads per Blender process (default: 1)")
    add("--shard_index", type=count, help="make this part of the pairs alone: 0 to num_shards - 1")
    add("--num_shards", type=positive, default=1, help="parts to divide the pairs into (default: 1)")
    add(
        "--blender_python",
        type=home_expanded,
        help="interpreter that can import bpy (default: .venv-bpy/bin/python)",
    )
    add(
        "--blender",
        type=home_expanded,
        help="an installed Blender to render with, instead of the Python module bpy",
    )
    add("--device", choices=DEVICES, default="cpu", help="what Cycles renders on (default: cpu)")
    add(
        "--time_limit",
        type=seconds,
        help="seconds that one picture may take before its worker is restarted (default: by its size)",
    )
    add(
        "--max_skipped",
        type=count,
        help="pairs that may be missing because they cannot be made (default: 1%%, at least 1)",
    )
    add("--dry_run", action="store_true", help="plan only, and estimate the time and the disk it would take")
    add("--preview", action="store_true", help="write an HTML gallery, preview.html, into the dataset")
    return parser


def read_order(args: argparse.Namespace) -> Order:
    """The order that the arguments stand for. Raises ValueError naming the flag."""
    pairs = args.num_pairs + args.test_pairs
    if not pairs:
        raise ValueError("--num_pairs=0 and --test_pairs=0: there is nothing to make")
    if args.blender and args.blender_python:
        raise ValueError("--blender and --blender_python: name one of them")
    inputs = Inputs(args.scenes, args.assets, args.kind_file)
    inputs.load_kinds()  # before --kinds names one of them
    flags = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    return Order(
        preset=resolve_preset(args, inputs),
        seed=args.seed,
        counts={"train": args.num_pairs, "test": args.test_pairs},
        out=args.out.absolute(),
        stages=STAGES if args.stage == "all" else (args.stage,),
        shard=resolve_shard(args),
        workers=args.workers or usable_cpus(),
        threads=args.threads,
        max_skipped=max(1, pairs // 100) if args.max_skipped is None else args.max_skipped,
        time_limit=args.time_limit,
        blender=args.blender,
        blender_python=args.blender_python,
        device=args.device,
        masks=args.masks,
        depth=args.depth,
        inputs=inputs,
        dry_run=args.dry_run,
        preview=args.preview,
        flags=flags,
    )


def resolve_shard(args: argparse.Namespace) -> Shard:
    """The part to work on. Raises ValueError."""
    if args.shard_index is None:
        if args.num_shards > 1 and args.stage not in ("pack", "all"):
            raise ValueError(f"--num_shards={args.num_shards} needs --shard_index to say which shard this is")
        if args.num_shards > 1 and args.stage == "all" and not args.dry_run:
            raise ValueError(
                f"--num_shards={args.num_shards} needs --shard_index to say which shard this is; "
                "when all are rendered, --stage=pack makes the dataset"
            )
        return Shard()
    if args.shard_index >= args.num_shards:
        raise ValueError(
            f"--shard_index={args.shard_index}: shards count from 0 to num_shards - 1 = {args.num_shards - 1}"
        )
    return Shard(args.shard_index, args.num_shards)


def resolve_preset(args: argparse.Namespace, inputs: Inputs) -> Preset:
    """The named preset with the command line's changes. Raises ValueError naming the flag."""
    preset = inputs.extend(PRESETS[args.preset])
    if args.differences:
        preset = dataclasses.replace(preset, weights=parse_differences(args.differences))
    if args.identical is not None:
        preset = with_identical(preset, args.identical)
    if args.objects:
        preset = dataclasses.replace(preset, objects=parse_range("objects", args.objects))
    if args.kinds:
        preset = dataclasses.replace(preset, kinds=parse_kinds(args.kinds))
    if args.resolution:
        width, height = parse_resolution(args.resolution)
        preset = dataclasses.replace(preset, width=width, height=height)
    changed = {name: value for name in PRESET_FLAGS if (value := getattr(args, name)) is not None}
    accept = {name: value for name in ACCEPT_FLAGS if (value := getattr(args, name)) is not None}
    return dataclasses.replace(preset, accept=dataclasses.replace(preset.accept, **accept), **changed)


def parse_kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.split(","))
    for kind in kinds:
        if kind not in CHANGES:
            raise ValueError(f"--kinds={text}: unknown kind of change {kind!r}; known: {', '.join(CHANGES)}")
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"--kinds={text}: a kind is named twice")
    return kinds


def parse_range(flag: str, text: str) -> tuple[int, int]:
    """ "8" -> (8, 8), "5-20" -> (5, 20)."""
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first)):
        raise ValueError(f"--{flag}={text}: expected a number or a range, like 8 or 5-20")
    return int(first), int(last or first)


def parse_resolution(text: str) -> tuple[int, int]:
    """ "256" -> (256, 256), "480x320" -> (480, 320)."""
    width, _, height = text.partition("x")
    sides = (width, height or width)
    if not all(side.isdecimal() and 0 < int(side) <= MAX_PIXELS for side in sides):
        raise ValueError(
            f"--resolution={text}: expected pixels, like 256 or 480x320, of at most {MAX_PIXELS} a side"
        )
    return int(sides[0]), int(sides[1])


def usable_cpus() -> int:
    """CPUs this process may use, which in a container are often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_json_values(preset: Preset) -> dict[str, Any]:
    """The preset as JSON would return it, so that it can be compared with one read from a file."""
    return json.loads(json.dumps(dataclasses.asdict(preset)))


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    if count(text) == 0:
        raise argparse.ArgumentTypeError("expected at least 1")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, not {text!r}")
    return value
