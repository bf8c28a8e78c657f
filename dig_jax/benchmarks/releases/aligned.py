"""Items of `data_gen.align` as rows: questions about rendered scenes, with crops of objects as pictures.

Every item has its own words, marks and all, and those of held-out scenes are worded in one way per kind.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import Box, Picture, Row
from dig_jax.data import images
from dig_jax.data.example import Size
from dig_jax.data.records import Records, open_records
from dig_jax.tasks.aligned import FEATURES, WRITTEN, is_aligned

HELD_OUT = "test"
PARTS = ("val", "testA", "testB")
# As the columns of the paper's Table 1: RefCOCO's sets, of phrases by style and of scenes by part.
PHRASES = tuple(f"{style}_{part}" for style in ("ref", "ref+") for part in PARTS) + ("refg_val", "refg_test")
LETTERS = ("C-I", "T-I")  # kinds that are answered by a letter


@dataclasses.dataclass(frozen=True, eq=False)
class RecordPicture:
    """The picture of a record, or one of its crops.

    Attributes:
      records: the split.
      record: number of the record.
      crop: number of the crop; None for the picture.
      id: of the record.
    """

    records: Records
    record: int
    crop: int | None
    id: str

    @property
    def name(self) -> str:
        """Split and picture."""
        return f"{self.records.name}, {self.key}"

    @property
    def key(self) -> str:
        """The record, and which crop."""
        return self.id if self.crop is None else f"{self.id}/crop{self.crop}"

    def read(self) -> bytes:
        """The bytes of its file. Raises ValueError."""
        feature = "image" if self.crop is None else "crops"
        try:
            read = self.records.read(self.record, (feature,))[feature]
            data: bytes = read if self.crop is None else read[self.crop]
        except Exception as error:  # damaged bytes can make any of the readers raise anything
            raise ValueError(f"{self.name}: {error}") from error
        return data


def phrase_rows(root: epath.Path, split: str) -> list[Row]:
    """T-C: phrases of a style and a part, "ref_val"; "refg_test" is testA and testB. Raises as `rows`."""
    style, _, part = split.rpartition("_")
    parts = ("testA", "testB") if part == "test" else (part,)
    return [
        dataclasses.replace(row, splits=(split,))
        for row in rows(root, ("T-C",))
        if row.fields["style"] == style and row.fields["part"] in parts
    ]


def crop_rows(root: epath.Path, split: str) -> list[Row]:
    """I-C: where is the object of a crop? Raises as `rows`."""
    return [row for row in rows(root, ("I-C",)) if split in row.splits]


def choice_rows(root: epath.Path, split: str) -> list[Row]:
    """C-I and T-I: which crop? Raises as `rows`."""
    return [row for row in rows(root, LETTERS) if split in row.splits]


def object_rows(root: epath.Path, split: str) -> list[Row]:
    """Is there such an object? All that are not there differ from one that is in one word: adversarial.

    Raises as `rows`.
    """
    return [dataclasses.replace(row, splits=(split,)) for row in rows(root, ("exist",))]


def rows(root: epath.Path, kinds: Collection[str], split: str = HELD_OUT) -> list[Row]:
    """The items of the kinds, of scenes that training does not see unless another split is named.

    Raises:
      FileNotFoundError: there is no dataset.
      ValueError: its records are others, or one cannot be read; names it.
    """
    folder = files.find(root, "folder align, a data_gen.align dataset,", "align", "align/.")
    records = open_records(folder, split)
    if not is_aligned(records) or not records.has("id"):
        raise ValueError(f"{folder} has none of {', '.join(FEATURES)}: it is not of data_gen.align")
    found: list[Row] = []
    for number in range(len(records)):
        try:
            found += _of_record(records, number, kinds)
        except Exception as error:  # damaged bytes can make any of the readers raise anything
            raise ValueError(f"{records.name}, record {number}: {error}") from error
    return found


def _of_record(records: Records, number: int, kinds: Collection[str]) -> Iterator[Row]:
    read = records.read(number, ("id", "image", "items"))
    record, items = read["id"].decode(), read["items"]
    size = images.image_size(read["image"], record)
    names = ("id", "kind", "style", "part", "item")
    texts = ([value.decode() for value in items[name]] for name in names)
    places = (map(int, items[name]) for name in ("first_crop", "crops"))
    for id, kind, style, part, item, first, count in zip(*texts, *places, strict=True):
        if kind in kinds:
            shown = [RecordPicture(records, number, crop, record) for crop in range(first, first + count)]
            pictures = (RecordPicture(records, number, None, record), *shown)
            yield _row(id, kind, style, part, json.loads(item), pictures, size)


def _row(
    id: str,
    kind: str,
    style: str,
    part: str,
    item: Mapping[str, Any],
    pictures: Sequence[Picture],
    size: Size,
) -> Row:
    (said,) = item["rounds"]
    row = Row(
        index=id,
        images=tuple(pictures),
        question=said["user"],
        size=size,
        category=kind,
        splits=(part,),
        fields={"style": style, "part": part},
    )
    if kind in LETTERS:
        letters = re.findall(r"\b([A-Z]):", said["user"])
        options = {letter: f"crop {letter}" for letter in letters}
        return dataclasses.replace(row, options=options, answer=said["assistant"])
    if kind == "exist":
        return dataclasses.replace(row, answer=said["assistant"].rstrip("."))
    return dataclasses.replace(row, boxes=(_box(said["assistant"], size),))


def _box(text: str, size: Size) -> Box:
    """The box of an answer, written in shares of the square around the picture, in shares of the picture."""
    read = WRITTEN.read(f"[{text}]", size, thinking=False, max_boxes=1)
    if not read.valid:
        raise ValueError(f"its answer is {text!r}, and no box")
    x0, y0, x1, y1 = read.boxes[0].tolist()
    return x0, y0, x1, y1
