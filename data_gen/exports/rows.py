"""What all forms of a dataset of pairs have in common: splits of rows, and what they are made by.

A row is a record as plain values: text, numbers and lists; pictures, masks and depth are the bytes of PNG
files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.files.png import encode
from data_gen.records.dataset import METADATA, Dataset
from data_gen.records.record import DEPTHS

FEATURES = "features.json"  # of TFDS: which features the records have
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rows:
    """A dataset, whatever its form.

    Attributes:
      folder: where it is.
      splits: number of rows by split.
      rows: split -> its rows, in order.
    """

    folder: Path
    splits: Mapping[str, int]
    rows: Callable[[str], Iterator[Row]]

    @property
    def features(self) -> Any:
        """Of its records, as TFDS has them."""
        import tensorflow_datasets as tfds  # slow to import: not for --help

        return tfds.features.FeaturesDict.from_config(str(self.folder))

    def metadata(self) -> dict[str, Any]:
        """How the dataset was made; empty when that is not known."""
        path = self.folder / METADATA
        return json.loads(path.read_text()) if path.exists() else {}

    def digests(self) -> dict[str, list[str]]:
        """A hash of every row, split by split: two datasets with the same ones are the same."""
        return {split: [digest(row) for row in self.rows(split)] for split in self.splits}


def open_records(folder: Path) -> Rows:
    """The pairs of a TFDS dataset. Raises NoDataset."""
    dataset = Dataset(folder)

    def rows(split: str) -> Iterator[Row]:
        for index in range(dataset.splits[split]):
            row = {key: _listed(value) for key, value in dataset.record(split, index).items()}
            for name in DEPTHS:
                if name in row:
                    row[name] = encode(np.asarray(row[name], np.uint16)[..., 0])
            yield row

    return Rows(dataset.folder, dataset.splits, rows)


def _listed(value: Any) -> Any:
    """Arrays inside of lists, such as the boxes of objects, as lists."""
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_listed(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def digest(row: Row) -> str:
    """A hash of all values of a row, the bytes of its pictures among them."""
    values = {
        key: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value
        for key, value in row.items()
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def picture_names(features: Any) -> list[str]:
    """The features whose values are PNG files."""
    import tensorflow_datasets as tfds

    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    return [*images, *(key for key in DEPTHS if key in features)]
