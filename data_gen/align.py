"""Turns rendered pairs into questions that align texts, coordinates and object crops (docs/alignment.md).

    python -m data_gen.align --data=data/stage1 --out=data/align
    python -m data_gen.align --check=data/align       # executes every label again

The dataset is written beside --out and renamed when it is complete: a command that is killed leaves none.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_gen.alignment.audit import Balance, lines
from data_gen.alignment.check import problems_of
from data_gen.alignment.gallery import write_gallery
from data_gen.alignment.options import argument_parser, counts_of, maker_of, picture_size
from data_gen.alignment.records import (
    SPEC,
    AlignedDataset,
    Maker,
    aligned_of,
    features,
    from_staged,
    write_records,
)
from data_gen.files.staging import lock, require_same, write_json
from data_gen.files.stopping import sigterm_as_interrupt
from data_gen.files.userfiles import require_disk, user_path
from data_gen.order.progress import Progress
from data_gen.records.dataset import METADATA, Dataset, NoDataset
from data_gen.records.provenance import git_revision

SHOWN = 20  # problems printed


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The flags of the command. Exits with 2 for wrong ones."""
    parser = argument_parser("data_gen.align")
    parser.add_argument("--check", type=user_path, metavar="DIR", help="check a dataset of this command")
    text = "take the records that data_gen.align_beam made there"
    parser.add_argument("--staged", type=user_path, metavar="DIR", help=text)
    text = "write a page to look at, gallery.html, into the folder"
    parser.add_argument("--preview", action="store_true", help=text)
    args = parser.parse_args(argv)
    if bool(args.check) == bool(args.data or args.out) or bool(args.data) != bool(args.out):
        parser.error("expected --data and --out, or --check alone")
    return args


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (labels are wrong, or it was stopped) or 2 (bad flags, no dataset)."""
    args = parse_arguments(argv)
    with sigterm_as_interrupt():
        try:
            return check(args.check) if args.check else build(args)
        except ValueError as error:  # NoDataset and StagingError are such
            print(f"data_gen.align: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"\ndata_gen.align: {error}\nNothing was written.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped. Nothing was written.", file=sys.stderr)
            return 1


def build(args: argparse.Namespace) -> int:
    """Writes the dataset. Raises ValueError and OSError."""
    require_disk(args.out, "--out", "records are written to a disk of this machine; copy the folder then")
    if args.out.exists() or args.out.is_symlink():
        raise ValueError(f"--out={args.out} exists already: name a new folder, or delete it")
    source = Dataset(args.data)
    metadata, counts = source.metadata(), counts_of(args, source)
    size = picture_size(source, counts)
    maker = maker_of(args, metadata, size)
    if args.staged:
        require_staged(args.staged, maker.spec(args.data.name, counts))
    out = args.out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with packing_folder(out) as temporary:
        progress = Progress(sum(counts.values()), 0, io.StringIO(), attempts=False)
        balance, examples = Balance(), {}
        for split, count in counts.items():
            found = staged(args.staged, split, count) if args.staged else made(source, split, count, maker)
            examples[split] = checked(found, split, maker, balance, progress)
        facts = describe(args, maker, metadata)
        write_records(examples, features(*size, maker.crop_side), facts, temporary)
        sheet = balance.to_json_values()
        if not sheet["pictures"]:
            least = maker.rules.min_objects
            raise NoDataset(f"{args.data}: no picture has {least} objects that can be asked for")
        write_json(temporary / METADATA, facts | sheet)
        if args.preview:
            write_gallery(AlignedDataset(temporary), temporary / "gallery.html")
        (temporary / "lock").unlink()
        os.replace(temporary, out)
    print("\n".join(lines(sheet)))
    print(f"Wrote {out}.\n  python -m data_gen.align --check={args.out}")
    print(f"  python -m data_gen.preview {args.out} --out=items.html")
    return 0


def made(source: Dataset, split: str, count: int, maker: Maker) -> Iterator[list[dict[str, Any]]]:
    """The examples of every pair of a split."""
    for index in range(count):
        yield maker.examples(source.record(split, index), split)


def staged(folder: Path, split: str, count: int) -> Iterator[list[dict[str, Any]]]:
    """The same as the pipeline left them. Raises NoDataset for a pair that is not there."""
    for index in range(count):
        path = folder / split / f"{index:06d}.json"
        try:
            yield from_staged(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"{path}: cannot be read ({error!r}); run data_gen.align_beam again"
            raise NoDataset(text) from error


def require_staged(folder: Path, spec: dict[str, Any]) -> None:
    """Raises ValueError where staged records are not there, or were made by other settings."""
    if not (folder / SPEC).exists():
        raise ValueError(f"--staged={folder} has no {SPEC}: data_gen.align_beam did not write it")
    require_same(folder / SPEC, spec)


def checked(
    found: Iterable[list[dict[str, Any]]], split: str, maker: Maker, balance: Balance, progress: Progress
) -> Iterator[dict[str, Any]]:
    """The examples of the pairs of a split; each is read back and its labels executed before writing."""
    for of_pair in found:
        for example in of_pair:
            record = aligned_of(example, maker.rules)
            if problems := problems_of(record, maker.vocabulary, pixels=False):
                raise AssertionError(f"a label does not follow from its scene: {problems}")
            balance.add(record, split)
            yield example
        progress.add({"rejected": []})


@contextlib.contextmanager
def packing_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that is gone when the block ends, unless it was renamed. Raises StagingError."""
    temporary = out.with_name(out.name + ".packing")
    temporary.mkdir(exist_ok=True)
    with lock(temporary / "lock"):
        try:
            for path in temporary.iterdir():  # of a run that was killed
                if path.name != "lock":
                    path.unlink()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def describe(args: argparse.Namespace, maker: Maker, source: dict[str, Any]) -> dict[str, Any]:
    """How the records were made, for the metadata."""
    kept = ("counts", "seed", "git_revision", "renderer")
    return {
        "source": {
            "folder": args.data.name,
            "preset": (source.get("preset") or {}).get("name"),
            **{key: source[key] for key in kept if key in source},
        },
        "recipe": dataclasses.asdict(maker.recipe),
        "rules": dataclasses.asdict(maker.rules),
        "vocabulary": {name: list(words) for name, words in maker.vocabulary.words.items()},
        "crop_side": maker.crop_side,
        "git_revision": git_revision(),
        "flags": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
    }


def check(folder: Path) -> int:
    """Executes every label of a dataset again, cuts every crop again, and prints what it holds."""
    dataset, balance, problems, items = AlignedDataset(folder), Balance(), [], 0
    for split in dataset.splits:
        for record in dataset.records(split):
            problems += problems_of(record, dataset.vocabulary)
            balance.add(record, split)
            items += len(record.items)
    found = balance.to_json_values()
    print("\n".join(lines(found)))
    for text in problems[:SHOWN]:
        print(f"  {text}", file=sys.stderr)
    print(f"\n{items} items executed again: {len(problems)} disagreements")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
