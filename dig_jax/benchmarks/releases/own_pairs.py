"""Pairs of a `dig_pairs` dataset, rendered or imported (docs/own_pairs.md), as rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import Row
from dig_jax.data import images
from dig_jax.data.records import Records, open_records


@dataclasses.dataclass(frozen=True, eq=False)
class RecordPicture:
    """A picture in a record.

    Attributes:
      records: the split.
      record: number of the record.
      feature: "image_a" or "image_b".
      id: of the pair.
    """

    records: Records
    record: int
    feature: str
    id: str

    @property
    def name(self) -> str:
        """Split, pair and feature."""
        return f"{self.records.name}, {self.id}, {self.feature}"

    @property
    def key(self) -> str:
        """Pair and feature."""
        return f"{self.id}/{self.feature}"

    def read(self) -> bytes:
        """The bytes of its file. Raises ValueError."""
        try:
            data: bytes = self.records.read(self.record, (self.feature,))[self.feature]
        except Exception as error:  # damaged bytes can make any of the readers raise anything
            raise ValueError(f"{self.name}: {error}") from error
        return data


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """All pairs of a split.

    Raises:
      FileNotFoundError: there is no dataset.
      ValueError: it is of another kind, or a record cannot be read; names it.
    """
    folder = files.find(root, "folder own_pairs, a dig_pairs dataset,", "own_pairs", "own_pairs/.")
    records = open_records(folder, split)
    if not records.has("id", "image_a", "image_b", "bboxes", "kinds"):
        raise ValueError(f"{folder} is not a dataset of pairs")
    return [_row(records, number, split) for number in range(len(records))]


def _row(records: Records, number: int, split: str) -> Row:
    place = f"{records.name}, pair {number}"
    try:
        read = records.read(number, ("id", "image_a", "bboxes", "kinds"))
        id = read["id"].decode()
        boxes = np.asarray(read["bboxes"], np.float32).reshape(-1, 4).tolist()
        kinds = ",".join(kind.decode() for kind in read["kinds"])
        size = images.image_size(read["image_a"], place)
    except Exception as error:  # damaged bytes can make any of the readers raise anything
        raise ValueError(f"{place}: {error}") from error
    return Row(
        index=id,
        images=tuple(RecordPicture(records, number, feature, id) for feature in ("image_a", "image_b")),
        question="",
        boxes=tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in boxes),
        size=size,
        category=kinds,
        splits=(split,),
        fields={"kinds": kinds},
    )
