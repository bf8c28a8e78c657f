"""A dataset of aligned records, as `python -m data_gen.align` writes them, of pictures of one colour."""

import json
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from tests.helpers.drawn_pairs import png


def thing(id: int, shape: str, box: list[int], depth: float) -> dict:
    words = {"shape": shape, "color": "red", "size": "small", "material": "rubber", "texture": "plain"}
    return {
        "id": id,
        **words,
        "box": box,
        "pixels": 9,
        "depth": depth,
        "radius": 1,
        "extent": 1,
        "place": [0, 0, 0],
    }


def item(
    kind: str,
    first: int,
    crops: int,
    *rounds: tuple[str, str],
    targets: tuple[int, ...] = (),
    style: str = "",
    part: str = "train",
) -> dict:
    """An item whose crops are `crops` of those of its record, from number `first` on."""
    said = [{"user": user, "assistant": assistant, "ask": []} for user, assistant in rounds]
    names = {"id": f"s/{kind}", "kind": kind, "style": style, "part": part}
    return {
        **names,
        "item": json.dumps({"rounds": said, "targets": targets}),
        "first_crop": first,
        "crops": crops,
    }


def square(value: int, side: int) -> bytes:
    return png(np.full((side, side, 3), value, np.uint8))


def write(folder: pathlib.Path, splits: list[str], items: list[dict], things: list[dict]) -> None:
    """In each split one picture of 8x8 pixels with three crops of 4x4."""
    text = tfds.features.Text()
    row = {name: text for name in ("id", "kind", "style", "part", "item")} | {
        "first_crop": np.int64,
        "crops": np.int64,
    }
    features = tfds.features.FeaturesDict(
        {
            "id": text,
            "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
            "things": text,
            "scene": text,
            "items": tfds.features.Sequence(row),
            "crops": tfds.features.Sequence(tfds.features.Image(shape=(4, 4, 3), encoding_format="png")),
        }
    )
    version = tfds.core.Version("1.0.0")
    identity = tfds.core.DatasetIdentity(
        name="dig_align", version=version, data_dir=str(folder), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    folder.mkdir()
    writer = tfds.core.SequentialWriter(info, 100, file_format="array_record")
    writer.initialize_splits(splits)
    view = {"width": 8, "height": 8, "things": things}
    crops = [square(value, 4) for value in (10, 20, 30)]
    example = {"id": "s", "image": square(0, 8), "things": json.dumps(view), "scene": "{}"}
    example |= {"items": items, "crops": crops}
    writer.add_examples({split: [example] for split in splits})
    writer.close_all()
