"""Reads pairs back for the commands that check and show them: from a dataset or from a staging folder."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from data_gen.files.staging import Job, Staging

METADATA = "metadata.json"  # in the dataset's folder, by TFDS: how it was made
Made = TypeVar("Made")

MAX_SIDE = 16384  # pixels: a larger picture is a mistake or an attack, and is not decoded

# What record.py measures per difference, where the record has it.
MEASURES = ("visible_pixels_a", "visible_pixels_b", "changed_pixels", "mean_delta_e", "occlusion")


class NoDataset(ValueError):
    """There is no dataset where one was expected, or it is damaged; the message says where."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A pair as stored: PNG files, normalised boxes [M, 4], and what is known of its M differences."""

    id: str
    pictures: tuple[bytes, bytes]
    boxes: np.ndarray
    boxes_a: np.ndarray
    boxes_b: np.ndarray
    kinds: tuple[str, ...]
    descriptions: tuple[str, ...]
    measures: Mapping[str, tuple[float, ...]]
    scenes: tuple[dict[str, Any], dict[str, Any]]
    num_objects: int

    @property
    def camera_moved(self) -> bool:
        """Whether camera or light differ between the scenes: distractors that change pixels everywhere."""
        a, b = ({k: v for k, v in scene.items() if k not in ("objects", "seed")} for scene in self.scenes)
        return a != b

    def decoded(self) -> tuple[np.ndarray, np.ndarray]:
        """Both pictures, uint8 [height, width, 3]. Raises NoDataset naming the pair for a damaged one."""
        a, b = (
            decode_png(png, f"{self.id}, image_{which}")
            for which, png in zip("ab", self.pictures, strict=True)
        )
        if a.shape != b.shape:
            raise NoDataset(f"{self.id}: the pictures differ in size, {a.shape} and {b.shape}")
        return a, b


def decode_png(png: bytes, name: str) -> np.ndarray:
    """uint8 [height, width, 3]. Raises NoDataset, for a picture far too large before it is decoded."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if problem := too_large(image.width, image.height):
                raise NoDataset(f"{name}: {problem}")
            # Pictures that somebody else put there may be stored turned, as EXIF data say; ours never are.
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, NoDataset):
            raise
        raise NoDataset(f"{name}: not a PNG file that can be read ({error})") from error


def too_large(width: int, height: int) -> str:
    """Why a picture of this size, in pixels, is not decoded; "" where it is."""
    if max(width, height) <= MAX_SIDE and width * height <= MAX_SIDE * MAX_SIDE // 4:
        return ""
    return f"{width}x{height} pixels are too many; at most {MAX_SIDE} a side and {MAX_SIDE**2 // 4:,} in all"


class Dataset:
    """A folder that `python -m data_gen` wrote. Raises NoDataset when it is none."""

    def __init__(self, folder: Path) -> None:
        import tensorflow_datasets as tfds  # slow to import: not for --help

        if not (folder / "dataset_info.json").exists():
            found = sorted(path.parent for path in folder.glob("*/dataset_info.json"))
            if len(found) != 1:
                raise NoDataset(f"{folder} is not a dataset: it has no dataset_info.json")
            folder = found[0]
        self.folder = folder
        try:
            self._builder = tfds.builder_from_directory(folder)
        except Exception as error:  # a damaged file raises whatever its reader raises
            files = "dataset_info.json or features.json"
            raise NoDataset(f"{folder}: {files} does not describe a dataset ({error})") from error
        features = self._builder.info.features
        if missing := [key for key in ("image_a", "image_b", "bboxes", "kinds") if key not in features]:
            raise NoDataset(f"{folder} is not a dataset of pairs: it has no feature {', '.join(missing)}")
        self._skip = {
            key: tfds.decode.SkipDecoding()
            for key, feature in features.items()
            if isinstance(feature, tfds.features.Image)
        }
        self._sources: dict[str, Any] = {}

    @property
    def splits(self) -> dict[str, int]:
        """The number of pairs of every split."""
        return {name: split.num_examples for name, split in self._builder.info.splits.items()}

    def metadata(self) -> dict[str, Any]:
        """How the dataset was made; empty when that is not known."""
        try:
            return json.loads((self.folder / METADATA).read_text())
        except (OSError, ValueError):
            return {}

    def record(self, split: str, index: int) -> dict[str, Any]:
        """One record as plain values, pictures as PNG files. Raises NoDataset when it cannot be read."""
        return self._read(split, index, dict)

    def pair(self, split: str, index: int) -> Pair:
        """One pair. Raises NoDataset for a record that cannot be read."""
        return self._read(split, index, pair_of)

    def _read(self, split: str, index: int, made: Callable[[dict[str, Any]], Made]) -> Made:
        if split not in self._sources:
            self._sources[split] = self._builder.as_data_source(split=split, decoders=self._skip)
        try:
            return made(plain(self._sources[split][index]))
        except (ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
            raise NoDataset(f"{self.folder}, {split} record {index}: cannot be read ({error!r})") from error

    def pairs(self, splits: Sequence[str]) -> Iterator[Pair]:
        """Every pair of the splits, in order."""
        for split in splits:
            for index in range(self.splits[split]):
                yield self.pair(split, index)


def staged_pair(staging: Staging, job: Job) -> Pair:
    """A pair that is not packed yet."""
    pictures = {name: staging.picture(job, name) for name in ("image_a", "image_b")}
    record = staging.record(job)
    for which in "ab":  # staged row by row, read from a dataset column by column
        record[f"objects_{which}"] = {"id": [item["id"] for item in record[f"objects_{which}"]]}
    return pair_of(record | pictures)


def pair_of(record: Mapping[str, Any]) -> Pair:
    """The pair of a record of plain values."""
    boxes, boxes_a, boxes_b = (
        np.asarray(record[key], float).reshape(-1, 4) for key in ("bboxes", "bboxes_a", "bboxes_b")
    )
    return Pair(
        id=record["id"],
        pictures=(record["image_a"], record["image_b"]),
        boxes=boxes,
        boxes_a=boxes_a,
        boxes_b=boxes_b,
        kinds=tuple(record["kinds"]),
        descriptions=tuple(record["descriptions"]),
        measures={key: tuple(record[key]) for key in MEASURES if key in record},
        scenes=(json.loads(record["scene_a"]), json.loads(record["scene_b"])),
        num_objects=len({*record["objects_a"]["id"], *record["objects_b"]["id"]}),
    )


def plain(value: Any, key: str = "") -> Any:
    """A TFDS record as text, numbers and lists; the PNG files stay bytes."""
    if isinstance(value, Mapping):
        return {name: plain(item, name) for name, item in value.items()}
    if isinstance(value, bytes):
        return value if key.startswith(("image_", "mask_", "depth_")) else value.decode()
    if isinstance(value, np.ndarray | list):
        items = value.tolist() if isinstance(value, np.ndarray) else value
        return [item.decode() if isinstance(item, bytes) else item for item in items]
    return value.item() if isinstance(value, np.generic) else value
