"""Reading TFDS datasets, those of the `dig_pairs` format above all: by random access, without TensorFlow."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
from etils import epath

from dig_jax.data import images
from dig_jax.data.example import BadRecord, Size
from dig_jax.machines import textfile
from dig_jax.machines.folder import to_path

logger = logging.getLogger("dig_jax")

_TEXTS = ("kinds", "descriptions")
_BOXES = ("bboxes", "bboxes_a", "bboxes_b")
_IMAGES = ("image_a", "image_b")
_DESCRIPTION = ("dataset_info.json", "features.json")
_OWN = "Pictures and boxes of your own become one by `python -m data_gen.import_pairs` (docs/own_pairs.md)."
_FEATURES = ("id", *_IMAGES, *_BOXES, *_TEXTS)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two renderings of a scene and the differences between them. M, their number, may be 0.

    Attributes:
      id: unique and stable name of the pair.
      image_a: uint8 [H, W, 3].
      image_b: uint8 [H, W, 3], the same size.
      boxes: float32 [M, 4], x0, y0, x1, y1 in 0..1 of width and height: the union over both images of the
        changed object's visible pixels. This is what the model is asked for.
      boxes_a: float32 [M, 4], the same in the first image alone; zeros where the object is not visible there.
      boxes_b: float32 [M, 4], the same in the second image.
      kinds: what changed ("color", "add", ...), one word per difference.
      descriptions: one sentence per difference; empty after an augmentation, which could make them wrong.
    """

    id: str
    image_a: np.ndarray
    image_b: np.ndarray
    boxes: np.ndarray
    boxes_a: np.ndarray
    boxes_b: np.ndarray
    kinds: tuple[str, ...]
    descriptions: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of both images, in pixels."""
        height, width = self.image_a.shape[:2]
        return height, width


class Records:
    """Random access to the records of one split of one TFDS dataset. Safe to read from several threads.

    Attributes:
      name: of dataset and split, for errors.
    """

    def __init__(self, builder: Any, split: str):
        import tensorflow_datasets as tfds

        self.name = f"{builder.data_path}, split {split!r}"
        self._records = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        self._features = builder.info.features
        self._skip = tfds.decode.SkipDecoding()
        self._parsers: dict[tuple[str, ...], Any] = {}
        self._warned = False

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int, features: tuple[str, ...]) -> dict[str, Any]:
        """These features of record number `index`; images as bytes of their files, none inside of sequences.

        Only what is asked for is parsed: the scenes and objects of a record are larger than its boxes.

        Damaged bytes can make any of the readers raise anything.
        """
        import tensorflow_datasets as tfds

        if features not in self._parsers:
            self._parsers[features] = tfds.features.FeaturesDict(
                {key: _without_inner_images(self._features[key]) for key in features}
            )
        # PNG bytes are left to us: their size is checked before they are decoded.
        pictures = {key for key in features if isinstance(self._features[key], tfds.features.Image)}
        return self._parsers[features].deserialize_example_np(
            self._records[index], decoders=dict.fromkeys(pictures, self._skip)
        )

    def decode(self, data: bytes, what: str) -> np.ndarray:
        """An image, uint8 [H, W, 3], from the bytes of its file; `what` names it in errors."""
        return images.decode_image(data, f"{self.name}, {what}", warn=self._warn)

    def declared_size(self, feature: str) -> Size | None:
        """(height, width) of all images of this feature, where the dataset declares one."""
        height, width = self._features[feature].shape[:2]
        return None if height is None or width is None else (height, width)

    def has(self, *features: str) -> bool:
        """Whether the records have these features."""
        return all(key in self._features for key in features)

    def _warn(self, note: str) -> None:
        """Tells once per split what becomes of its images: the others are made the same way, every epoch."""
        if not self._warned:
            self._warned = True
            logger.warning("%s (the first such image of this split; others are not named)", note)


def _without_inner_images(feature: Any) -> Any:
    """A feature without images inside of a sequence of objects, such as their masks: nobody asks for them.

    A sequence of images themselves is one of the bytes of their files.
    """
    import tensorflow_datasets as tfds

    inner = getattr(feature, "feature", None)
    if isinstance(feature, tfds.features.Sequence) and isinstance(inner, tfds.features.Image):
        return tfds.features.Sequence(tfds.features.Text())
    if not isinstance(feature, tfds.features.Sequence) or not isinstance(inner, tfds.features.FeaturesDict):
        return feature
    kept = {key: part for key, part in inner.items() if not isinstance(part, tfds.features.Image)}
    return tfds.features.Sequence(kept)


class PairSource:
    """Random access to the pairs of one split of one dataset. Safe to read from several threads."""

    def __init__(self, records: Records):
        self.name = records.name
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Pair:
        """Pair number `index`, decoded.

        Raises:
          BadRecord: it cannot be read, an image is damaged or too large, or the two differ in size.
        """
        try:
            return self._read(index)
        except Exception as error:  # damaged bytes can make any of the readers raise anything
            raise BadRecord(f"{self.name}, pair {index}: {error}") from error

    def _read(self, index: int) -> Pair:
        record = self._records.read(index, _FEATURES)
        id = record["id"].decode()
        image_a, image_b = (self._records.decode(record[key], f"{id}, {key}") for key in _IMAGES)
        if image_a.shape != image_b.shape:
            raise ValueError(
                f"{self.name}, {id}: the images differ in size, {image_a.shape} and {image_b.shape}."
            )
        boxes, boxes_a, boxes_b = (np.asarray(record[key], np.float32).reshape(-1, 4) for key in _BOXES)
        kinds, descriptions = (tuple(text.decode() for text in record[key]) for key in _TEXTS)
        return Pair(id, image_a, image_b, boxes, boxes_a, boxes_b, kinds, descriptions)

    def image_sizes(self) -> np.ndarray:
        """int [len, 2]: (height, width) in pixels of every pair; zeros where it cannot be read.

        A dataset that declares one size for all its images, as the generator's do, says it at once. Otherwise
        every record is read once and the header of its first image is looked at (0.3 ms per pair on a disk).
        """
        if declared := self._records.declared_size(_IMAGES[0]):
            return np.tile(declared, (len(self), 1))
        return np.array([self._image_size(index) for index in range(len(self))]).reshape(-1, 2)

    def _image_size(self, index: int) -> Size:
        try:
            record = self._records.read(index, ("image_a",))
            return images.image_size(record["image_a"], f"{self.name}, pair {index}")
        except Exception:  # as in `__getitem__`, which says what it was
            return 0, 0

    def num_differences(self) -> np.ndarray:
        """int [len]: how many differences each pair has; -1 where it cannot be read.

        Reads every record once, without decoding images.
        """
        return np.array([self._num_differences(index) for index in range(len(self))], int)

    def _num_differences(self, index: int) -> int:
        try:
            return self._records.read(index, ("num_differences",))["num_differences"]
        except Exception:  # as in `__getitem__`, which says what it was
            return -1


def open_pairs(folder: epath.PathLike, split: str) -> PairSource:
    """Opens one split of a folder of pairs; arguments and errors are those of `open_records`."""
    records = open_records(folder, split)
    if missing := [key for key in (*_FEATURES, "num_differences") if not records.has(key)]:
        raise ValueError(f"{folder} is not a dataset of pairs: it has no feature {', '.join(missing)}.")
    return PairSource(records)


def open_records(folder: epath.PathLike, split: str) -> Records:
    """Opens one split of a TFDS dataset folder.

    Args:
      folder: the folder that holds dataset_info.json, or one above it with a single dataset inside
        (folder/VERSION or folder/dig_pairs/VERSION).
      split: "train", "test", or a TFDS slice such as "train[:256]".

    Raises:
      FileNotFoundError: no such folder, or no dataset in it.
      ValueError: several datasets, a missing split, or a damaged one.
    """
    builder = _described(dataset_folder(to_path(folder)))
    name = split.split("[")[0]
    if name not in builder.info.splits:
        raise ValueError(f"{folder} has no split {name!r}; it has {', '.join(sorted(builder.info.splits))}.")
    first = epath.Path(builder.info.splits[name].filepaths[0])  # Git LFS fetches all files or none
    if first.exists():  # else the loader tells what is gone
        textfile.check_fetched(first)
    return Records(builder, split)


def _described(dataset: epath.Path) -> Any:
    """The dataset as its two JSON files describe it. Raises ValueError where they are damaged."""
    import tensorflow_datasets as tfds  # 0.7 s: on use, not on import

    for name in _DESCRIPTION:
        if not (dataset / name).exists():
            raise ValueError(f"{dataset} is not complete: it has no {name}")
        textfile.read_json(dataset / name)
    try:
        return tfds.builder_from_directory(str(dataset))
    except Exception as error:  # what a reader does with JSON of another kind
        files = " or ".join(_DESCRIPTION)
        raise ValueError(f"{dataset}: {files} does not describe a dataset ({error})") from error


def dataset_folder(folder: epath.Path) -> epath.Path:
    """The folder that holds dataset_info.json: this one, or a single one up to two levels below.

    Raises:
      FileNotFoundError: there is no such folder, or no dataset in it.
      ValueError: there are several datasets.
    """
    if not folder.exists():
        raise FileNotFoundError(
            f"no dataset at {folder}: there is no such folder. Render one with `python -m data_gen"
            f" --preset=NAME --num_pairs=N --out={folder}`; a config file's first lines give its command."
            f" {_OWN}"
        )
    found = _folders_with(folder, "dataset_info.json", levels=2)
    if len(found) > 1:
        raise ValueError(f"{folder} holds several datasets, name one of them: {', '.join(map(str, found))}.")
    if found:
        return found[0]
    raise FileNotFoundError(
        f"{folder} holds no TFDS dataset (no dataset_info.json in it, or up to two levels below). {_OWN}"
    )


def _folders_with(folder: epath.Path, name: str, levels: int) -> list[epath.Path]:
    """The folders that hold a file `name`: `folder`, else the first level below it, of so many, that has any.

    No `glob`: it would take the brackets of a path like runs[1]/data for a pattern.
    """
    level = [folder] if folder.is_dir() else []
    for _ in range(levels + 1):
        found = sorted(path for path in level if (path / name).exists())
        if found:
            return found
        level = [inner for path in level for inner in path.iterdir() if inner.is_dir()]
    return []
