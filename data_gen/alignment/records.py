"""The record of a picture and its items: its features, how it is made, written and read back."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.alignment.closeups import Studio
from data_gen.alignment.crops import cut
from data_gen.alignment.items import Item, from_json, to_json_values
from data_gen.alignment.make import Recipe, make_items
from data_gen.alignment.rules import Rules
from data_gen.alignment.things import View, from_json_values, view_of
from data_gen.alignment.things import to_json_values as view_values
from data_gen.alignment.words import Vocabulary
from data_gen.files import png
from data_gen.records.dataset import METADATA, NoDataset, decode_png

NAME = "dig_align"
VERSION = "1.0.0"
PICTURES = ("a", "b")
UNSEEN = "unseen"  # of an example that is not packed yet, see closeups.py
SPEC = "spec.json"  # of staged records: what they were made from
PICTURES_PER_FILE = 2000
DESCRIPTION = "Rendered pictures with questions that align texts, coordinates and object crops."


def features(width: int | None, height: int | None, crop_side: int) -> Any:
    """The TFDS features of a record; docs/alignment.md says what each is.

    Args:
      width, height: of all pictures, in pixels; None where they vary.
      crop_side: of all crops.
    """
    import tensorflow_datasets as tfds  # slow to import: not for --help

    text = tfds.features.Text()
    crop = tfds.features.Image(shape=(crop_side, crop_side, 3), dtype=np.uint8, encoding_format="png")
    item = {name: text for name in ("id", "kind", "style", "part", "item")}
    return tfds.features.FeaturesDict(
        {
            "id": text,
            "image": tfds.features.Image(shape=(height, width, 3), dtype=np.uint8, encoding_format="png"),
            "scene": text,
            "things": text,
            "items": tfds.features.Sequence({**item, "first_crop": np.int64, "crops": np.int64}),
            "crops": tfds.features.Sequence(crop),
        }
    )


@dataclasses.dataclass(frozen=True)
class Maker:
    """All that turns a pair into records: the same on one machine and on many.

    Attributes:
      recipe, rules, vocabulary: see there.
      pictures: which pictures of a pair, of PICTURES.
      crop_side: pixels of a crop.
      rendered: what renders the crops (closeups.Rendering.facts); None where they are cut from the pictures.
    """

    recipe: Recipe
    rules: Rules
    vocabulary: Vocabulary
    pictures: tuple[str, ...]
    crop_side: int
    rendered: Mapping[str, Any] | None = None

    def spec(self, source: str, counts: Mapping[str, int]) -> dict[str, Any]:
        """What decides the records, as JSON values: staged records of another one are not taken."""
        values = {
            "recipe": dataclasses.asdict(self.recipe),
            "rules": dataclasses.asdict(self.rules),
            "vocabulary": self.vocabulary.words,
            "pictures": self.pictures,
            "crop_side": self.crop_side,
            **({"rendered": self.rendered} if self.rendered else {}),
        }
        spec: dict[str, Any] = json.loads(_json({"source": source, "pairs": counts, **values}))
        return spec

    def examples(
        self, record: Mapping[str, Any], split: str, studio: Studio | None = None
    ) -> list[dict[str, Any]]:
        """Of a `dig_pairs` record of plain values, as TFDS takes them: a picture with no items has none.

        Args:
          record: the pair.
          split: of it.
          studio: renders the crops, where they are `rendered`.

        Raises:
          NoDataset: the record has no scene, or one that cannot be rebuilt, or a picture is damaged.
          WorkerError: the renderer failed.
        """
        return [made for which in self.pictures if (made := self.example(record, split, which, studio))]

    def example(
        self, record: Mapping[str, Any], split: str, which: str, studio: Studio | None = None
    ) -> dict[str, Any] | None:
        """The same of one picture, "a" or "b"; with rendered crops it says how many items are UNSEEN."""
        view = view_of(record, which, self.rules)
        items = dict(enumerate(make_items(view, split, self.recipe, self.vocabulary)))
        if not items:
            return None
        example = {
            "id": view.id,
            "image": record[f"image_{which}"],
            "scene": record[f"scene_{which}"],
            "things": _json(view_values(view)),
        }
        if self.rendered is None:
            picture = decode_png(record[f"image_{which}"], f"{record['id']}, image_{which}")
            crops = [cut(picture, one, self.crop_side) for item in items.values() for one in item.cuts]
        else:
            assert studio
            shots, planned = studio.of_picture(view, record[f"scene_{which}"]), len(items)
            items = {number: shown for number, item in items.items() if (shown := shots.rendered(item))}
            example[UNSEEN] = planned - len(items)
            crops = [shots.crop(one, self.crop_side) for item in items.values() for one in item.cuts]
        return {
            **example,
            "items": list(_rows(view, items)),
            "crops": [png.encode(crop) for crop in crops],
        }


def to_staged(examples: list[dict[str, Any]]) -> bytes:
    """The examples of a pair as a JSON file, pictures in base64."""
    packed = [
        {**one, "image": _base64(one["image"]), "crops": [_base64(crop) for crop in one["crops"]]}
        for one in examples
    ]
    return _json(packed).encode()


def from_staged(data: bytes) -> list[dict[str, Any]]:
    """The examples written by `to_staged`. Raises ValueError, KeyError or TypeError for anything else."""
    return [
        {
            **one,
            "image": base64.b64decode(one["image"]),
            "crops": [base64.b64decode(crop) for crop in one["crops"]],
        }
        for one in json.loads(data)
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _rows(view: View, items: Mapping[int, Item]) -> Iterator[dict[str, Any]]:
    first = 0
    for number, item in items.items():
        yield {
            "id": f"{view.id}/{item.kind}-{number}",
            "kind": item.kind,
            "style": item.style,
            "part": item.part,
            "item": _json(to_json_values(item)),
            "first_crop": first,
            "crops": len(item.cuts),
        }
        first += len(item.cuts)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class Aligned:
    """A record as read back.

    Attributes:
      view: of the picture.
      scene: JSON that renders to it.
      picture: PNG file.
      items: with their ids.
      crops: PNG files, of each item as many as it has cuts.
    """

    view: View
    scene: str
    picture: bytes
    items: tuple[tuple[str, Item], ...]
    crops: tuple[tuple[bytes, ...], ...]


def aligned_of(record: Mapping[str, Any], rules: Rules) -> Aligned:
    """The record of values as TFDS reads them, or as `Maker` makes them."""
    rows = record["items"]
    if isinstance(rows, list):  # made row by row, read column by column
        rows = {key: [row[key] for row in rows] for key in ("id", "item", "first_crop", "crops")}
    ids, items = ([_text(each) for each in rows[key]] for key in ("id", "item"))
    counts = zip(rows["first_crop"], rows["crops"], strict=True)
    return Aligned(
        view=from_json_values(json.loads(_text(record["things"])), rules),
        scene=_text(record["scene"]),
        picture=record["image"],
        items=tuple((id, from_json(item)) for id, item in zip(ids, items, strict=True)),
        crops=tuple(tuple(record["crops"][int(first) : int(first + count)]) for first, count in counts),
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def is_aligned(folder: Path) -> bool:
    """Whether a folder holds a dataset of `data_gen.align`; what is damaged is for its reader to say."""
    try:
        return bool(json.loads((folder / "dataset_info.json").read_text())["name"] == NAME)
    except (OSError, ValueError, KeyError, TypeError):
        return False


class AlignedDataset:
    """A folder that `python -m data_gen.align` wrote. Raises NoDataset when it is none."""

    def __init__(self, folder: Path) -> None:
        import tensorflow_datasets as tfds

        if not (folder / "dataset_info.json").exists():
            raise NoDataset(f"{folder} is not a dataset: it has no dataset_info.json")
        self.folder = folder
        try:
            self._builder = tfds.builder_from_directory(folder)
            self.metadata = json.loads((folder / METADATA).read_text())
            self.rules = Rules(**{k: _tuple(v) for k, v in self.metadata["rules"].items()})
            words = self.metadata["vocabulary"]
            self.vocabulary = Vocabulary({name: tuple(values) for name, values in words.items()})
        except Exception as error:  # a damaged file raises whatever its reader raises
            raise NoDataset(f"{folder} is not a dataset of data_gen.align ({error!r})") from error
        # Pictures are decoded by us, where they are needed: their size is checked first.
        png_bytes = tfds.features.Text()
        read = dict(self._builder.info.features.items())
        self._features = tfds.features.FeaturesDict(
            {**read, "image": png_bytes, "crops": tfds.features.Sequence(png_bytes)}
        )
        self._raw = tfds.decode.DeserializeMethod.RAW_BYTES

    @property
    def splits(self) -> dict[str, int]:
        """The number of pictures of every split."""
        return {name: split.num_examples for name, split in self._builder.info.splits.items()}

    def records(self, split: str) -> Iterator[Aligned]:
        """The pictures of a split, in order. Raises NoDataset for one that cannot be read."""
        if not self.splits[split]:
            return  # TFDS opens no split of nothing
        source = self._builder.as_data_source(split=split, deserialize_method=self._raw)
        for index in range(len(source)):
            try:
                yield aligned_of(self._features.deserialize_example_np(source[index]), self.rules)
            except (ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
                raise NoDataset(
                    f"{self.folder}, {split} record {index}: cannot be read ({error!r})"
                ) from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write_records(
    examples: Mapping[str, Iterator[dict[str, Any]]], features: Any, metadata: Any, out: Path
) -> None:
    """Writes the examples of every split to the folder `out`, as ArrayRecord files, without TensorFlow."""
    from data_gen.records.writer import open_writer  # TFDS is slow to import: not for --help

    writer = open_writer(
        out,
        name=NAME,
        version=VERSION,
        description=DESCRIPTION,
        features=features,
        metadata=metadata,
        examples_per_file=PICTURES_PER_FILE,
    )
    writer.initialize_splits(list(examples))
    for split, some in examples.items():
        for example in some:
            writer.add_examples({split: [example]})
    writer.close_all()
