"""RefCOCO, RefCOCO+ and RefCOCOg as published: REC jsonl, refer folders, or TFDS's `ref_coco`.

What the files look like is said and read in `tasks/referring/files.py`; this finds them and their pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row
from dig_jax.data import images
from dig_jax.data.example import Shape, Size
from dig_jax.data.records import open_records
from dig_jax.tasks.referring.files import RefCocoSource, entries
from dig_jax.tasks.referring.target import Entry

SPLITS = (
    *("RefCOCO val", "RefCOCO testA", "RefCOCO testB"),
    *("RefCOCO+ val", "RefCOCO+ testA", "RefCOCO+ testB"),
    *("RefCOCOg val", "RefCOCOg test"),
)
_TFDS = {"refcoco": "refcoco_unc", "refcoco+": "refcocoplus_unc", "refcocog": "refcocog_umd"}
_TRAIN2014 = ("coco/train2014", "COCO/train2014", "REC/data/coco/train2014", "images/mscoco/images/train2014")


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The phrases of one of the eight splits, such as "RefCOCO+ testA".

    Raises:
      FileNotFoundError: no file of the split, in none of the three layouts.
      ValueError: a file is of another form, or a box has no area inside its picture; names it.
    """
    name, part = files.split_of(split, SPLITS, "RefCOCO").split()
    name = name.lower()
    listed = (f"REC/data/{name}", f"REC/{name}", f"RefCOCO/{name}", f"refer/data/{name}", f"refer/{name}")
    path = files.find(
        root,
        f"phrases of {split}",
        *(f"{folder}/{name}_{part}.jsonl" for folder in (*listed, "REC", "RefCOCO")),
        *(f"{folder}/instances.json" for folder in listed),
        *(f"ref_coco/{_TFDS[name]}", f"RefCOCO/{_TFDS[name]}"),
    )
    if path.suffix == ".jsonl":
        return list(_rows(entries(path, part, epath.Path()) or [], path.parent, root, split))
    if path.name == "instances.json":
        return list(_rows(entries(path.parent, part, epath.Path()) or [], path.parent, root, split))
    return list(_tfds_rows(path, part, split))


def _rows(found: list[Entry], folder: epath.Path, root: epath.Path, split: str) -> Iterator[Row]:
    where = _pictures(found[0].image, folder, root) if found else folder
    for entry in found:
        picture = _join(where, entry.image)
        size = entry.size or images.image_size(images.read_file(picture), str(picture))
        yield _row(f"{split}/{entry.id}", PictureFile(picture), size, entry, split)


def _row(index: str, picture: PictureFile, size: Size, entry: Entry, split: str) -> Row:
    corners = np.divide(entry.corners or (0, 0, 0, 0), [size[1], size[0]] * 2).clip(0, 1).tolist()
    if not (corners[0] < corners[2] and corners[1] < corners[3]):
        raise ValueError(f"{index}: box {entry.corners} has no area inside {size[1]}x{size[0]} pixels")
    return Row(
        index=index,
        images=(picture,),
        question=entry.phrase,
        boxes=(tuple(corners),),
        size=size,
        category=split,
        splits=(split,),
        fields={"category": split},
    )


def _pictures(image: epath.Path, folder: epath.Path, root: epath.Path) -> epath.Path:
    """The folder that the paths of pictures begin in; see `_join`.

    Releases write them from the folder they were unpacked in (data/coco/train2014/...), so that of the file
    and those above it are tried, then folders of COCO's train2014 by the name of the picture alone.
    """
    above = [folder, *folder.parents]
    tried = [*above[: above.index(root) + 1 if root in above else 1], folder / "images"]
    tried += [place for place in files.candidates(root, *_TRAIN2014)]
    tried += [place for place in files.candidates(root.parent, *_TRAIN2014)]
    return next((place for place in tried if _join(place, image).exists()), folder)


def _join(place: epath.Path, image: epath.Path) -> epath.Path:
    """The picture below a folder: of a folder train2014, whatever folders its path names."""
    return place / image.name if place.name == "train2014" else place / image


@dataclasses.dataclass(frozen=True, eq=False)
class _Stored:
    """A picture in a record of TFDS's `ref_coco`."""

    source: RefCocoSource
    record: int

    @property
    def name(self) -> str:
        """Dataset and record."""
        return f"{self.source.name}, record {self.record}"

    @property
    def key(self) -> str:
        """Dataset and record."""
        return self.name

    def read(self) -> bytes:
        """The bytes of its file."""
        return self.source.image_file(self.record)


def _tfds_rows(folder: epath.Path, part: str, split: str) -> Iterator[Row]:
    source = RefCocoSource(open_records(folder, part), lambda phrase, sizes: Shape((), sizes), "referring")
    if source.unusable:
        number, error = source.unusable[0]
        raise ValueError(
            f"{source.name}: {len(source.unusable)} records cannot be read, the first is {number}: {error}"
        )
    for record, size, id, target in source.phrases():
        yield Row(
            index=f"{split}/{id}",
            images=(_Stored(source, record),),
            question=target.phrase,
            boxes=(tuple(target.boxes[0].tolist()),),
            size=size,
            category=split,
            splits=(split,),
            fields={"category": split},
        )
