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
from data_gen.alignment.closeups import Studio
from data_gen.alignment.crops import CLOSEUP, IMAGE, RERENDER
from data_gen.alignment.gallery import write_gallery
from data_gen.alignment.options import argument_parser, counts_of, maker_of, picture_size, rendering_of
from data_gen.alignment.records import (
    SPEC,
    UNSEEN,
    AlignedDataset,
    Maker,
    aligned_of,
    features,
    from_staged,
    write_records,
)
from data_gen.alignment.staged import render_records, staged_file
from data_gen.files.staging import differing_keys, lock, require_same, write_json
from data_gen.files.stopping import sigterm_as_interrupt
from data_gen.files.userfiles import require_disk, user_path
from data_gen.order.progress import Progress
from data_gen.records.dataset import METADATA, Dataset, NoDataset
from data_gen.records.provenance import git_revision
from data_gen.render.controller import WorkerError
from data_gen.render.interpreter import NoBlender

SHOWN = 20  # problems printed


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The flags of the command. Exits with 2 for wrong ones."""
    parser = argument_parser("data_gen.align")
    parser.add_argument("--check", type=user_path, metavar="DIR", help="check a dataset of this command")
    text = "take the records that data_gen.align_beam made there"
    parser.add_argument("--staged", type=user_path, metavar="DIR", help=text)
    text = "Blender processes for crops that are rendered (default: one per core)"
    parser.add_argument("--workers", type=int, default=0, help=text)
    text = "write a page to look at, gallery.html, into the folder"
    parser.add_argument("--preview", action="store_true", help=text)
    args = parser.parse_args(argv)
    if bool(args.check) == bool(args.data or args.out) or bool(args.data) != bool(args.out):
        parser.error("expected --data and --out, or --check alone")
    unused = [f"--{name}" for name in ("blender_python", "blender", "assets") if getattr(args, name)]
    unused += ["--workers"] * bool(args.workers) + ["--device"] * (args.device != "cpu")
    if args.crop == IMAGE and args.data and unused:
        parser.error(f"{unused[0]} is for crops that are rendered: give --crop={CLOSEUP} or {RERENDER} too")
    if args.crop != IMAGE and args.check:
        parser.error("--check looks itself how crops were made: leave --crop out")
    if args.workers < 0:
        parser.error(f"--workers={args.workers}: expected a number from 1, or 0 for one per core")
    return args


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (labels are wrong, or it was stopped) or 2 (bad flags, no dataset)."""
    args = parse_arguments(argv)
    with sigterm_as_interrupt():
        try:
            return check(args) if args.check else build(args)
        except (ValueError, NoBlender) as error:  # NoDataset and StagingError are ValueErrors
            print(f"data_gen.align: {error}", file=sys.stderr)
            return 2
        except (OSError, WorkerError) as error:
            print(f"\ndata_gen.align: {error}\n{left(args)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"\nStopped. {left(args)}", file=sys.stderr)
            return 1


def left(args: argparse.Namespace) -> str:
    """What a run that ended too early leaves."""
    if args.out and args.crop != IMAGE and staging_of(args).exists():
        return f"What is rendered is in {staging_of(args)}; the same command goes on with it."
    return "Nothing was written."


def staging_of(args: argparse.Namespace) -> Path:
    """The folder of records whose crops are rendered, until they are packed."""
    out = args.out.absolute()
    return args.staged or out.with_name(out.name + ".staging")


def build(args: argparse.Namespace) -> int:
    """Writes the dataset. Raises ValueError and OSError."""
    require_disk(args.out, "--out", "records are written to a disk of this machine; copy the folder then")
    if args.out.exists() or args.out.is_symlink():
        raise ValueError(f"--out={args.out} exists already: name a new folder, or delete it")
    source = Dataset(args.data)
    metadata, counts = source.metadata(), counts_of(args, source)
    size = picture_size(source, counts)
    rendering = rendering_of(args)
    maker = maker_of(args, metadata, size, rendering)
    folder = args.staged
    if folder:
        require_staged(folder, maker.spec(args.data.name, counts))
    out = args.out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    if rendering and not folder:
        folder = staging_of(args)
        rendered = Progress(sum(counts.values()), 0, io.StringIO(), noun="pairs with crops", attempts=False)
        render_records(
            source,
            counts,
            maker,
            rendering,
            folder,
            args.workers or cores(),
            lambda: rendered.add({"rejected": []}),
        )
    with packing_folder(out) as temporary:
        progress = Progress(sum(counts.values()), 0, io.StringIO(), attempts=False)
        balance, examples, unseen = Balance(), {}, [0]
        for split, count in counts.items():
            found = staged(folder, split, count) if folder else made(source, split, count, maker)
            examples[split] = checked(found, split, maker, balance, progress, unseen)
        facts = describe(args, maker, metadata)
        write_records(examples, features(*size, maker.crop_side), facts, temporary)
        sheet = balance.to_json_values()
        if not sheet["pictures"]:
            least = maker.rules.min_objects
            raise NoDataset(f"{args.data}: no picture has {least} objects that can be asked for")
        if rendering:
            sheet["items_left_out"] = unseen[0]
        write_json(temporary / METADATA, facts | sheet)
        if args.preview:
            write_gallery(AlignedDataset(temporary), temporary / "gallery.html")
        (temporary / "lock").unlink()
        os.replace(temporary, out)
    if rendering and not args.staged:
        shutil.rmtree(folder)
    print("\n".join(lines(sheet)))
    if rendering:
        print(f"{unseen[0]} items are left out: from no side tried their objects are well seen")
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
        path = folder / staged_file(split, index)
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
    found: Iterable[list[dict[str, Any]]],
    split: str,
    maker: Maker,
    balance: Balance,
    progress: Progress,
    unseen: list[int],
) -> Iterator[dict[str, Any]]:
    """The examples of the pairs of a split; each is read back and its labels executed before writing.

    Items that were left out, as their crops could not be rendered, are added to `unseen`.
    """
    for of_pair in found:
        for example in of_pair:
            unseen[0] += example.pop(UNSEEN, 0)
            if not example["items"]:
                continue  # all were left out
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
        "crop": maker.rendered or {"view": IMAGE},
        "git_revision": git_revision(),
        "flags": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
    }


def check(args: argparse.Namespace) -> int:
    """Executes every label of a dataset again, makes every crop again, and prints what it holds."""
    dataset, balance, problems, items = AlignedDataset(args.check), Balance(), [], 0
    with rendering_again(args, dataset) as studio:
        for split in dataset.splits:
            for record in dataset.records(split):
                problems += problems_of(record, dataset.vocabulary, studio=studio)
                balance.add(record, split)
                items += len(record.items)
    found = balance.to_json_values()
    print("\n".join(lines(found)))
    for text in problems[:SHOWN]:
        print(f"  {text}", file=sys.stderr)
    print(f"\n{items} items executed again: {len(problems)} disagreements")
    return 1 if problems else 0


@contextlib.contextmanager
def rendering_again(args: argparse.Namespace, dataset: AlignedDataset) -> Iterator[Studio | None]:
    """What renders the crops of a dataset again; None, having said why, where that shows nothing."""
    made = dataset.metadata.get("crop", {"view": IMAGE})
    if made["view"] == IMAGE:
        yield None
        return
    args.crop, args.seed = made["view"], dataset.metadata["recipe"]["seed"]
    try:
        rendering = rendering_of(args)
    except NoBlender as error:
        print(f"Crops are not rendered again, labels are executed: {error}")
        yield None
        return
    assert rendering
    if rendering.facts() != made:
        print(f"Crops are not rendered again, labels are executed: {differing_keys(made, rendering.facts())}")
        yield None
        return
    with rendering.studio() as studio:
        yield studio


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
