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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_gen.alignment.audit import Balance, lines
from data_gen.alignment.check import problems_of
from data_gen.alignment.gallery import write_gallery
from data_gen.alignment.items import KINDS
from data_gen.alignment.make import DEFAULT_SHARES, Recipe
from data_gen.alignment.records import PICTURES, AlignedDataset, Maker, aligned_of, features, write_records
from data_gen.alignment.rules import rules_for
from data_gen.alignment.words import vocabulary_of
from data_gen.files.staging import StagingError, lock, write_json
from data_gen.files.stopping import sigterm_as_interrupt
from data_gen.files.userfiles import require_disk, user_path
from data_gen.order.progress import Progress
from data_gen.records.dataset import METADATA, Dataset, NoDataset
from data_gen.records.provenance import git_revision

SHOWN = 20  # problems printed


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The flags of the command. Exits with 2 for wrong ones."""
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.align",
        description="Turns the pictures of a dig_pairs dataset into the six kinds of TinyGroundingGPT (T-C, "
        "C-T, I-C, C-I, T-I, I-T: text, coordinate, object image), questions of yes and no, conversations and "
        "grounded descriptions, whose every label follows from the scene.",
    )
    parser.add_argument("--data", type=user_path, help="folder that `python -m data_gen` wrote")
    parser.add_argument("--out", type=user_path, help="folder to write, which does not exist yet")
    parser.add_argument(
        "--check", type=user_path, metavar="DIR", help="check a dataset that this command wrote"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides, with a picture's id, all that is drawn")
    shares = ",".join(f"{kind}:{share:g}" for kind, share in DEFAULT_SHARES.items())
    parser.add_argument(
        "--items",
        default=shares,
        help=f"items of each kind per picture, such as T-C:4,I-C:0.2 (default {shares})",
    )
    parser.add_argument(
        "--held_out",
        type=float,
        default=0.05,
        help="share of the pairs of shape and colour that training never asks for (default 0.05)",
    )
    parser.add_argument(
        "--model_side",
        type=int,
        default=336,
        help="pixels of the square as the model sees it, which says what is too small (default 336)",
    )
    parser.add_argument(
        "--crop_side",
        type=int,
        default=0,
        help="pixels of a crop (default: half of the picture's shorter side)",
    )
    parser.add_argument(
        "--pictures", choices=("both", *PICTURES), default="both", help="of every pair (default both)"
    )
    parser.add_argument(
        "--max_pairs", type=int, default=0, help="of every split, from the first (default all)"
    )
    parser.add_argument("--preview", action="store_true", help="write a page to look at into the folder")
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
        except (ValueError, StagingError) as error:  # NoDataset is a ValueError
            print(f"data_gen.align: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"\ndata_gen.align: {error}\nNothing was written.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped. Nothing was written.", file=sys.stderr)
            return 1


def read_items(text: str) -> dict[str, float]:
    """ "T-C:4,I-C:0.2" -> shares. Raises ValueError, naming the part."""
    shares = {}
    for part in text.split(","):
        kind, _, share = part.strip().partition(":")
        try:
            shares[kind] = float(share)
        except ValueError:
            raise ValueError(
                f"--items: {part!r}: expected KIND:NUMBER, with a kind of {', '.join(KINDS)}"
            ) from None
    return shares


def maker_of(args: argparse.Namespace, metadata: dict[str, Any]) -> Maker:
    """What turns pairs into records. Raises ValueError for settings out of bounds."""
    if args.crop_side < 0 or 0 < args.crop_side < 16 or args.crop_side > 1024:
        raise ValueError(f"--crop_side={args.crop_side}: expected 16 to 1024 pixels, or 0")
    recipe = Recipe(args.seed, read_items(args.items), args.held_out)
    pictures = PICTURES if args.pictures == "both" else (args.pictures,)
    return Maker(recipe, rules_for(args.model_side), vocabulary_of(metadata), pictures, args.crop_side)


def build(args: argparse.Namespace) -> int:
    """Writes the dataset. Raises ValueError and OSError."""
    require_disk(args.out, "--out", "records are written to a disk of this machine; copy the folder then")
    if args.out.exists() or args.out.is_symlink():
        raise ValueError(f"--out={args.out} exists already: name a new folder, or delete it")
    source = Dataset(args.data)
    metadata = source.metadata()
    maker = maker_of(args, metadata)
    out = args.out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    counts = {name: min(number, args.max_pairs or number) for name, number in source.splits.items()}
    with packing_folder(out) as temporary:
        progress = Progress(sum(counts.values()), 0, io.StringIO(), attempts=False)
        balance = Balance()
        size = picture_size(source, counts)
        side = args.crop_side or min(size) // 2
        maker = dataclasses.replace(maker, crop_side=side)
        examples = {
            split: made(source, split, count, maker, balance, progress)
            for split, count in counts.items()
            if count
        }
        facts = describe(args, maker, metadata)
        write_records(examples, features(*size, side), facts, temporary)
        found = balance.to_json_values()
        if not sum(found["pictures"].values()):
            raise NoDataset(
                f"{args.data}: no picture has {maker.rules.min_objects} objects that can be asked for"
            )
        write_json(temporary / METADATA, facts | found)
        if args.preview:
            write_gallery(AlignedDataset(temporary), temporary / "gallery.html")
        (temporary / "lock").unlink()
        os.replace(temporary, out)
    print("\n".join(lines(found)))
    print(f"Wrote {out}.\n  python -m data_gen.align --check={args.out}")
    print(f"  python -m data_gen.preview {args.out} --out=items.html")
    return 0


def picture_size(source: Dataset, counts: dict[str, int]) -> tuple[int, int]:
    """Width and height of the pictures, which are those of the first one. Raises NoDataset without any."""
    for split, count in counts.items():
        if count:
            height, width = source.pair(split, 0).decoded()[0].shape[:2]
            return width, height
    raise NoDataset(f"{source.folder} holds no pairs")


def made(
    source: Dataset, split: str, count: int, maker: Maker, balance: Balance, progress: Progress
) -> Iterator[dict[str, Any]]:
    """The examples of a split; each is read back and checked before it is written."""
    for index in range(count):
        for example in maker.examples(source.record(split, index), split):
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
    if far := [kind for kind, result in found["audits"].items() if not result["at_chance"]]:
        print(f"not at chance without the picture: {', '.join(far)}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
