"""Your own pairs as a dataset: `python -m data_gen.import_pairs --pairs=FILE --out=DIR`.

FILE is JSON lines or COCO JSON (docs/own_pairs.md). All pairs are checked before anything is written: what is
wrong is told in one report, by line, and the dataset appears only when nothing is.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_gen.files.ahead import ahead
from data_gen.files.staging import Job, Staging, write_json
from data_gen.files.stopping import sigterm_as_interrupt
from data_gen.files.userfiles import require_disk, user_path
from data_gen.imports.entry import SPLITS, UNITS, Entry, Source, report_same_ids
from data_gen.imports.pairsfile import read
from data_gen.imports.prepare import Prepared, prepare
from data_gen.imports.report import Report
from data_gen.imports.splits import Rule, read_ids, shared_pictures
from data_gen.order.options import positive, usable_cpus
from data_gen.order.pipeline import describe_counts, write_preview
from data_gen.order.progress import Progress
from data_gen.records.dataset import METADATA, staged_pair
from data_gen.records.provenance import git_revision
from data_gen.records.record import features
from data_gen.records.statistics import Statistics

SPEC = {"made_by": "data_gen.import_pairs"}  # tells our staging folder from that of rendered pairs

TRAINED_BOXES = (
    16  # of a pair, that dig_jax takes unless it is told otherwise: reward.max_boxes of its configs
)


class Faulty(ValueError):
    """The user's file has problems, which have been printed."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line's values; exits with code 2 and a message for values of the wrong form."""
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.import_pairs",
        description="Turns your own image pairs and boxes into a dig_pairs dataset, which dig_jax trains and "
        "evaluates on. Everything is checked first; what is wrong is told at once, by line, and then nothing "
        "is written (exit code 1). docs/own_pairs.md describes the files.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--pairs", type=user_path, required=True, help="JSON lines, or COCO JSON with two pictures per entry")
    add("--out", type=user_path, help="folder of the dataset; must not exist yet")
    add("--check", action="store_true", help="only report what is wrong; --out is not needed")
    add("--images", type=user_path, help="folder that names of pictures start from (default: that of FILE)")
    add("--folders", type=two_names, help="COCO with one file name per pair: folders of A and B, like A,B")
    add("--box_units", choices=UNITS, default="pixels", help="of boxes, where the file does not say (pixels)")
    add(
        "--max_side", type=positive, help="shrink pictures with a longer side, in pixels, to it (as they are)"
    )
    add("--test_share", type=share, help="share of the pairs that go to split `test`, by their ids (0)")
    add("--test_ids", type=user_path, help="file with the ids of the pairs of split `test`, one per line")
    add("--preview", action="store_true", help="write an HTML gallery, preview.html, into the dataset")
    add("--threads", type=positive, default=usable_cpus(), help="default: one per core")
    args = parser.parse_args(argv)
    if args.out is None and not args.check:
        parser.error("--out=DIR is missing (or --check, to report only)")
    if args.test_share is not None and args.test_ids:
        parser.error("--test_share and --test_ids: name one of them")
    return args


def two_names(text: str) -> tuple[str, str]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise argparse.ArgumentTypeError(f"expected two folders, like A,B, not {text!r}")
    return names[0], names[1]


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share, 0 to 1, not {text!r}")
    return value


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (problems in the pairs, disk full, stopped) or 2 (bad arguments)."""
    args = parse_arguments(argv)
    with sigterm_as_interrupt():
        try:
            run(args)
        except Faulty as error:
            print(f"data_gen.import_pairs: {error}", file=sys.stderr)
            return 1
        except ValueError as error:
            print(f"data_gen.import_pairs: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            advice = "free some of it" if error.errno == errno.ENOSPC else "mend that, or name another --out"
            print(f"\ndata_gen.import_pairs: {error}\nPlease {advice}. Nothing was written.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped. Nothing was written.", file=sys.stderr)
            return 1
    return 0


def run(args: argparse.Namespace) -> None:
    """Reads, checks and writes. Raises Faulty, ValueError and OSError."""
    if not args.check:
        require_disk(args.out, "--out", "pairs are written to a disk of this machine; copy the folder then")
        if args.out.exists() or args.out.is_symlink():
            raise ValueError(f"--out={args.out} exists already: name a new folder, or delete it")
    if args.images and not args.images.is_dir():
        raise ValueError(f"--images={args.images} is not a folder")
    report = Report()
    source = Source(args.images or args.pairs.parent, args.box_units, args.folders)
    rule = Rule(args.test_share or 0.0, read_ids(args.test_ids) if args.test_ids else None)
    entries = read(args.pairs, source, report)
    report_same_ids(entries, report)
    rule.check(entries, report)
    if args.check:
        check(args, rule, entries, report, None)
        return
    out = args.out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(out.with_name(out.name + ".staging")) as staging:
        sizes = check(args, rule, entries, report, staging)
        write_dataset(args, jobs_of(rule, entries), staging, sizes, out)


def check(
    args: argparse.Namespace, rule: Rule, entries: list[Entry], report: Report, staging: Staging | None
) -> set[tuple[int, int]]:
    """Looks at every pair, prints what it finds, and returns the sizes of the pictures.

    Pairs are staged, where there is a staging folder, as long as none has a problem. Raises Faulty then.
    """
    jobs = jobs_of(rule, entries)
    sizes, digests = set(), []
    with (staging.folder / "log.txt").open("w") if staging else io.StringIO() as log:
        progress = Progress(len(entries), 0, log, attempts=False)
        looked_at = ahead(functools.partial(look, args, staging, report), entries, args.threads)
        for job, (entry, found) in zip(jobs, looked_at, strict=True):
            for text in found.problems:
                report.problem(entry.place, text)
            for text in found.notes:
                report.note(entry.place, text)
            if staging and found.pictures:
                staging.write(job, found.pictures, found.record)
            sizes.add(found.size)
            digests.append(found.digests)
            progress.add({"rejected": []})
    for line in report.note_lines():
        print(f"note: {line}")
    if report.problems:
        lines = report.problem_lines()
        print("\n".join(lines), file=sys.stderr)
        raise Faulty(f"{counted(len(lines), 'problem')}. Nothing was written.")
    summarise(rule, entries, jobs, digests)
    return sizes


def look(args: argparse.Namespace, staging: Staging | None, report: Report, entry: Entry) -> Prepared:
    """What is in a pair's files; PNG files only as long as they will be used."""
    return prepare(entry, staging is not None and not report.problems, args.max_side)


def jobs_of(rule: Rule, entries: list[Entry]) -> list[Job]:
    """Split and index of every pair, in the order of the file."""
    counts = dict.fromkeys(SPLITS, 0)
    jobs = []
    for entry in entries:
        split = rule.split(entry)
        jobs.append((split, counts[split]))
        counts[split] += 1
    return jobs


def counts_of(jobs: list[Job]) -> dict[str, int]:
    return {split: sum(job[0] == split for job in jobs) for split in SPLITS}


def summarise(rule: Rule, entries: list[Entry], jobs: list[Job], digests: list[tuple[str, str]]) -> None:
    """Prints what the file holds, and what may be wrong with how it is divided."""
    differences = sum(len(entry.boxes) for entry in entries)
    held = f"{counted(len(entries), 'pair')} with {counted(differences, 'difference')}"
    print(f"{held}: {describe_counts(counts_of(jobs))}.")
    most = max((len(entry.boxes) for entry in entries), default=0)
    if many := sum(len(entry.boxes) > TRAINED_BOXES for entry in entries):
        print(
            f"note: {counted(many, 'pair')} with more than {TRAINED_BOXES} differences, {most} at most: "
            f"train with --config.reward.max_boxes={most}"
        )
    if both := shared_pictures([split for split, _ in jobs], digests):
        print(
            f"note: {both} pictures are in train and in test pairs; pairs with the same `group` stay together"
        )
    if rule.test_share and not counts_of(jobs)["test"]:
        print(f"note: --test_share={rule.test_share:g} drew none of so few pairs: use --test_ids, or `split`")


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


@contextlib.contextmanager
def staging_folder(root: Path) -> Iterator[Staging]:
    """A staging folder that is gone when the block ends, however it ends.

    What a killed run left in it is written over, or not looked at.

    Raises StagingError when somebody else is at work there, or it holds rendered pairs.
    """
    staging = Staging(root, SPEC)
    with staging.locked():
        try:
            yield staging
        finally:
            shutil.rmtree(root, ignore_errors=True)


def write_dataset(
    args: argparse.Namespace, jobs: list[Job], staging: Staging, sizes: set[tuple[int, int]], out: Path
) -> None:
    """Writes records, metadata and card beside `out`, and renames the folder when all are there."""
    from data_gen.records.card import write_card
    from data_gen.records.pack import pack  # imports TFDS: too slow for --help and for errors

    statistics = Statistics()
    for job in jobs:
        statistics.add(staged_pair(staging, job))
    metadata = describe(args, sizes) | {
        "counts": counts_of(jobs),
        "git_revision": git_revision(),
        "statistics": statistics.to_json_values(),
    }
    by_split = {split: some for split in SPLITS if (some := [job for job in jobs if job[0] == split])}
    width, height = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    temporary = out.with_name(out.name + ".packing")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        pack(staging, by_split, features(width, height, rendered=False), metadata, temporary)
        write_json(temporary / METADATA, metadata)
        write_card(temporary, metadata)
        if args.preview:
            write_preview(temporary)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(
        f"Wrote {out}.\n  python -m data_gen.verify --data={args.out}   (--boxes_only for photographs)\n"
        f"  python -m data_gen.preview {args.out} --out=pairs.html"
    )


def describe(args: argparse.Namespace, sizes: set[tuple[int, int]]) -> dict[str, Any]:
    """Where the pairs came from, for the metadata."""
    shown = sorted(sizes)
    pixels = [f"{width}x{height}" for width, height in (shown if len(shown) <= 3 else (shown[0], shown[-1]))]
    return {
        "imported": {
            "file": args.pairs.name,
            "sha256": hashlib.sha256(args.pairs.read_bytes()).hexdigest(),
            "pixels": (", " if len(shown) <= 3 else " to ").join(pixels),
        },
        "flags": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
    }


if __name__ == "__main__":
    sys.exit(main())
