"""The stage *pack*: writes staged pairs as the TFDS dataset `dig_pairs` (ArrayRecord), without TensorFlow.

Records are in index order. Compare decoded records, never file bytes: protobuf maps have no fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_gen.files.png import decode
from data_gen.files.staging import Job, Staging
from data_gen.records.record import DEPTHS
from data_gen.records.writer import open_writer

NAME = "dig_pairs"
VERSION = "1.0.0"
PAIRS_PER_FILE = 2000
PAIRS_IN_MEMORY = 100

DESCRIPTION = "Pairs of nearly identical pictures with a box for every difference."


def pack(
    staging: Staging, jobs: Mapping[str, Sequence[Job]], features: Any, metadata: Any, out: Path
) -> None:
    """Writes the staged pairs of every split to the folder `out`; `features` are those of record.py."""
    writer = open_writer(
        out,
        name=NAME,
        version=VERSION,
        description=DESCRIPTION,
        features=features,
        metadata=metadata,
        examples_per_file=PAIRS_PER_FILE,
    )
    writer.initialize_splits(list(jobs))
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    pictures = [*images, *(key for key in DEPTHS if key in features)]
    for split, pairs in jobs.items():
        for first in range(0, len(pairs), PAIRS_IN_MEMORY):
            some = pairs[first : first + PAIRS_IN_MEMORY]
            writer.add_examples({split: [example(staging, job, pictures) for job in some]})
    writer.close_all()


def example(staging: Staging, job: Job, pictures: Sequence[str]) -> dict[str, Any]:
    """A staged pair as TFDS takes it; pictures stay PNG bytes, which need no TensorFlow to encode."""
    record = staging.record(job)
    del record["rejected"]  # bookkeeping, not part of the record
    for key in ("bboxes", "bboxes_a", "bboxes_b"):
        record[key] = np.array(record[key], np.float32).reshape(-1, 4)
    record |= {name: staging.picture(job, name) for name in pictures}
    return record | {name: decode(record[name])[..., None] for name in pictures if name in DEPTHS}
