"""A dataset of pairs in another form and back: `python -m data_gen.convert --data=DIR --to=FORM --out=DIR`.

FORM is `coco` (COCO JSON with PNG files), `datasets` (Parquet files, for Hugging Face's `datasets`) or
`records` (what `python -m data_gen` writes and dig_jax reads). DIR may be of any of the three. Nothing is
lost: what was written is read back, and every record compared, before the folder appears.

    python -m data_gen.convert --data=data/quickstart --to=datasets --out=data/quickstart_hf
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from data_gen.exports import coco, parquet, rows
from data_gen.exports.rows import FEATURES, Rows
from data_gen.files.stopping import sigterm_as_interrupt
from data_gen.files.userfiles import require_disk, user_path
from data_gen.records.dataset import METADATA

FORMS = ("coco", "datasets", "records")


class Lost(RuntimeError):
    """What was written is not what was read."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (disk full, stopped) or 2 (wrong folder)."""
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=user_path, required=True, help="dataset of pairs, in any of the forms")
    parser.add_argument("--to", choices=FORMS, required=True, help="form of what is written")
    parser.add_argument("--out", type=user_path, required=True, help="folder; must not exist yet")
    args = parser.parse_args(argv)
    with sigterm_as_interrupt():
        try:
            require_disk(args.out, "--out", "files are written to a disk here; copy the folder then")
            counts = convert(args.data, args.to, args.out)
        except ValueError as error:
            print(f"data_gen.convert: {error}", file=sys.stderr)
            return 2
        except (OSError, Lost) as error:
            print(f"data_gen.convert: {error}\nNothing was written.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped. Nothing was written.", file=sys.stderr)
            return 1
    said = " and ".join(f"{count} {split} pairs" for split, count in counts.items())
    print(f"Wrote {args.out}: {said}, every one read back and the same.")
    return 0


def convert(data: Path, form: str, out: Path) -> dict[str, int]:
    """Writes the dataset `data` in this form to the new folder `out`; returns the number of pairs by split.

    Raises:
      NoDataset: `data` is none, in any form.
      ValueError: `out` is there already.
      Lost: a pair came back as another one.
    """
    if out.exists() or out.is_symlink():
        raise ValueError(f"--out={out} exists already: name a new folder, or delete it")
    source = open_any(data)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".converting")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        write(source, form, temporary)
        check(source, open_any(temporary))
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return dict(source.splits)


def open_any(folder: Path) -> Rows:
    """A dataset in the form that its files tell. Raises NoDataset."""
    if (folder / coco.FILE).exists():
        return coco.read(folder)
    if (folder / parquet.FOLDER).is_dir():
        return parquet.read(folder)
    return rows.open_records(folder)


def write(source: Rows, form: str, out: Path) -> None:
    """Writes it into the folder `out`."""
    if form == "records":
        from data_gen.exports import records  # imports TFDS, which is slow: not for --help

        records.write(source, out)
    else:
        {"coco": coco, "datasets": parquet}[form].write(source, out)
        shutil.copyfile(source.folder / FEATURES, out / FEATURES)
    if metadata := source.metadata():
        (out / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")


def check(source: Rows, written: Rows) -> None:
    """Raises Lost where they are not the same pairs in the same order."""
    before, after = source.digests(), written.digests()
    for split, digests in before.items():
        same = after.get(split, [])
        if len(same) != len(digests):
            raise Lost(f"split {split}: {len(digests)} pairs were read, and {len(same)} are written")
        for index, (one, other) in enumerate(zip(digests, same, strict=True)):
            if one != other:
                raise Lost(f"split {split}, pair {index}: what was written is not what was read")


if __name__ == "__main__":
    sys.exit(main())
