"""Pairs of flat rectangles on noise, and a writer of small datasets in the `dig_pairs` format, for tests."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dig_jax.data.records import Pair


def draw_pair(
    index: int, *, size: tuple[int, int] = (128, 128), num_differences: int = 1, seed: int = 0
) -> Pair:
    """A pair whose differences are rectangles that take another color in the second image."""
    rng = np.random.default_rng([seed, index])
    height, width = size
    image_a = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
    image_b = image_a.copy()
    boxes = np.zeros((num_differences, 4), np.float32)
    for m in range(num_differences):
        x0, y0 = rng.integers(0, width // 2), rng.integers(0, height // 2)
        x1, y1 = x0 + rng.integers(width // 8, width // 3), y0 + rng.integers(height // 8, height // 3)
        image_a[y0:y1, x0:x1] = rng.integers(0, 80, 3)
        image_b[y0:y1, x0:x1] = rng.integers(150, 255, 3)
        boxes[m] = [x0 / width, y0 / height, x1 / width, y1 / height]
    kinds = ("color",) * num_differences
    descriptions = tuple(f"rectangle {m} became bright" for m in range(num_differences))
    return Pair(
        f"drawn-{seed}-{index:05d}", image_a, image_b, boxes, boxes.copy(), boxes.copy(), kinds, descriptions
    )


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_pairs(
    folder: pathlib.Path,
    splits: dict[str, list[Pair]],
    image_size: tuple[int | None, int | None] = (None, None),
) -> None:
    """Writes the features that training reads, as the generator declares them.

    `image_size` is the (height, width) to declare for all images; None where it varies.
    """
    box, text = (
        tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
        tfds.features.Sequence(tfds.features.Text()),
    )
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image_a": tfds.features.Image(shape=(*image_size, 3), encoding_format="png"),
            "image_b": tfds.features.Image(shape=(*image_size, 3), encoding_format="png"),
            "num_differences": np.int64,
            "bboxes": box,
            "bboxes_a": box,
            "bboxes_b": box,
            "kinds": text,
            "descriptions": text,
            "scene_a": tfds.features.Text(),
        }
    )

    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name="dig_pairs", version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name=""
        ),
        features=features,
    )
    folder.mkdir(parents=True, exist_ok=True)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=1000, file_format="array_record")
    writer.initialize_splits(list(splits))
    for name, pairs in splits.items():
        writer.add_examples({name: [_example(pair) for pair in pairs]})
    writer.close_all()


def _example(pair: Pair) -> dict:
    return {
        "id": pair.id,
        "image_a": png(pair.image_a),
        "image_b": png(pair.image_b),
        "num_differences": len(pair.boxes),
        "bboxes": pair.boxes,
        "bboxes_a": pair.boxes_a,
        "bboxes_b": pair.boxes_b,
        "kinds": list(pair.kinds),
        "descriptions": list(pair.descriptions),
        "scene_a": "{}",
    }
