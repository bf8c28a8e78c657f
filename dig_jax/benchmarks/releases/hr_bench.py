"""HR-Bench as published on the hub: hr_bench_4k and hr_bench_8k, as parquet.

The release's .tsv files are question tables as VLMEvalKit has them, and read as such.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files, parquet
from dig_jax.benchmarks.row import Row

_LETTERS = "ABCD"


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions of one size of pictures, "4k" or "8k", four rows each.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: a row is of another form; names it.
    """
    name = f"hr_bench_{files.split_of(split.lower(), ('4k', '8k'), 'HR-Bench')}.parquet"
    path = files.find(root, name, f"HR-Bench/{name}", f"HRBench/{name}")
    found = []
    for record, picture in parquet.rows(path):
        options = {letter: record.text(letter) for letter in _LETTERS}
        found.append(
            Row(
                index=record.text("index"),
                images=(picture,),
                question=record.text("question"),
                options=options,
                answer=files.right_letter(record.text("answer"), options, record.place),
                category=record.text("category"),
                splits=(split,),
                fields={key: record.text(key) for key in ("category", "cycle_category")},
            )
        )
    return found
