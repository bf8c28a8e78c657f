"""Where records are written: ArrayRecord files that TFDS reads, without TensorFlow."""

from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds


def open_writer(
    out: Path,
    *,
    name: str,
    version: str,
    description: str,
    features: Any,
    metadata: Any,
    examples_per_file: int,
) -> Any:
    """A `tfds.core.SequentialWriter` of a new dataset in the folder `out`."""
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version(version), data_dir=str(out), module_name="data_gen"
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=description,
        features=features,
        metadata=tfds.core.MetadataDict(metadata),
    )
    return tfds.core.SequentialWriter(
        info, max_examples_per_shard=examples_per_file, overwrite=False, file_format="array_record"
    )
