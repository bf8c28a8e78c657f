"""Writes staged pairs as the TFDS dataset `dig_pairs` (ArrayRecord), without TensorFlow.

The features are the contract with whoever reads the pairs; boxes are [x0, y0, x1, y1] divided by the
picture's width and height. Records are in index order. Compare decoded records, never file bytes: protobuf
maps have no fixed order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_gen.record import features
from data_gen.staging import Staging

NAME = "dig_pairs"
VERSION = "1.0.0"
PAIRS_PER_FILE = 2000
PAIRS_IN_MEMORY = 100

DESCRIPTION = "Pairs of nearly identical rendered pictures with a box for every difference."


def pack(staging: Staging, splits: dict[str, int], width: int, height: int, out: Path) -> None:
    """Writes the first `splits[name]` staged pairs of every split to the folder `out`."""
    identity = tfds.core.DatasetIdentity(
        name=NAME, version=tfds.core.Version(VERSION), data_dir=str(out), module_name="data_gen"
    )
    info = tfds.core.DatasetInfo(builder=identity, description=DESCRIPTION, features=features(width, height))
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=PAIRS_PER_FILE, overwrite=False, file_format="array_record"
    )
    writer.initialize_splits(list(splits))
    for split, count in splits.items():
        for first in range(0, count, PAIRS_IN_MEMORY):
            indices = range(first, min(first + PAIRS_IN_MEMORY, count))
            writer.add_examples({split: [example(staging, split, index) for index in indices]})
    writer.close_all()


def example(staging: Staging, split: str, index: int) -> dict[str, Any]:
    """A staged pair as TFDS takes it; pictures stay PNG bytes, which need no TensorFlow to encode."""
    record = staging.read_record(split, index)
    del record["rejected"]  # bookkeeping, not part of the record
    for key in ("bboxes", "bboxes_a", "bboxes_b"):
        record[key] = np.array(record[key], np.float32).reshape(-1, 4)
    for which in "ab":
        record[f"image_{which}"] = staging.picture_path(split, index, which).read_bytes()
    return record
