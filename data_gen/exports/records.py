"""Rows of any form as records again: the TFDS dataset that training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_gen.exports.rows import Row, Rows
from data_gen.files.png import decode
from data_gen.records.pack import DESCRIPTION, NAME, PAIRS_IN_MEMORY, PAIRS_PER_FILE, VERSION
from data_gen.records.record import DEPTHS
from data_gen.records.writer import open_writer


def write(rows: Rows, out: Path) -> None:
    """Writes all but metadata into the folder `out`."""
    writer = open_writer(
        out,
        name=NAME,
        version=VERSION,
        description=DESCRIPTION,
        features=rows.features,
        metadata=rows.metadata(),
        examples_per_file=PAIRS_PER_FILE,
    )
    writer.initialize_splits(list(rows.splits))
    for split in rows.splits:
        some: list[Row] = []
        for row in rows.rows(split):
            some.append(_example(row))
            if len(some) == PAIRS_IN_MEMORY:
                writer.add_examples({split: some})
                some = []
        if some:
            writer.add_examples({split: some})
    writer.close_all()


def _example(row: Row) -> Row:
    """A row as TFDS takes it: sequences of objects are written object by object."""
    made = dict(row)
    for key, value in row.items():
        if isinstance(value, dict):
            made[key] = [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]
    for key in ("bboxes", "bboxes_a", "bboxes_b"):
        made[key] = np.asarray(row[key], np.float32).reshape(-1, 4)
    return made | {name: decode(row[name])[..., None] for name in DEPTHS if name in row}
