"""CV-Bench as published: test_2d and test_3d, JSON lines beside img/, or parquet with pictures inside."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files, parquet
from dig_jax.benchmarks.row import Picture, PictureFile, Row

SPLITS = ("2D", "3D")


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions of one half, "2D" or "3D".

    JSON lines come first where their pictures are there (build_img.py of the release makes them).

    Raises:
      FileNotFoundError: there is neither file.
      ValueError: a line is of another form; names it.
    """
    stem = f"test_{files.split_of(split, SPLITS, 'CV-Bench').lower()}"
    path = files.find(root, stem, *(f"{at}/{stem}{end}" for end in (".jsonl", ".parquet") for at in _FOLDERS))
    packed = path.with_suffix(".parquet")
    if packed.exists() and not (path.parent / "img").exists():
        found = [_row(record, shown, split) for record, shown in parquet.rows(packed)]
    else:
        found = [
            _row(record, PictureFile(path.parent / record.text("filename")), split)
            for record in files.jsonl(path)
        ]
    return found


_FOLDERS = ("CV-Bench", "CVBench")


def _row(record: files.Record, shown: Picture, split: str) -> Row:
    options = files.lettered(record.texts("choices"), record.place)
    task = record.text("task")
    return Row(
        index=f"{split}-{record.text('idx')}",
        images=(shown,),
        question=record.text("question"),
        options=options,
        answer=files.right_letter(record.text("answer"), options, record.place),
        category=task,
        splits=(split,),
        fields=record.fields() | {"category": task, "split": split},
    )
