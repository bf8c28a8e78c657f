"""Writes a record in the layout of TFDS's `ref_coco`."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from tests.helpers.drawn_pairs import png


def write_ref_coco(folder: pathlib.Path, objects: dict) -> None:
    """One record of a black image in the layout of TFDS's `ref_coco`.

    Nested sequences are serialised by TensorFlow alone: the record is written in their wire format, and
    described as what it is.
    """
    ragged = {"ragged_row_lengths_0": tfds.features.Sequence(np.int64)}
    wire = {
        "raw": {"ragged_flat_values": tfds.features.Sequence(tfds.features.Text()), **ragged},
        "refexp_id": {"ragged_flat_values": tfds.features.Sequence(np.int64), **ragged},
    }
    box = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
    image = {"image": tfds.features.Image(encoding_format="png")}
    masks = {"mask": tfds.features.Sequence(tfds.features.Image(encoding_format="png"))}
    features = tfds.features.FeaturesDict({**image, "objects": {"bbox": box, "refexp": wire, **masks}})
    identity = tfds.core.DatasetIdentity(
        name="ref_coco", version=tfds.core.Version("1.1.0"), data_dir=str(folder), module_name=""
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    folder.mkdir(parents=True, exist_ok=True)
    writer = tfds.core.SequentialWriter(info, 100, file_format="array_record")
    writer.initialize_splits(["val"])
    writer.add_examples({"val": [{"image": png(np.zeros((32, 64, 3), np.uint8)), "objects": objects}]})
    writer.close_all()
    expression = {"raw": tfds.features.Text(), "refexp_id": np.int64}
    thing = {"bbox": tfds.features.BBoxFeature(), "refexp": tfds.features.Sequence(expression)}
    thing |= {"mask": tfds.features.Image(encoding_format="png")}
    tfds.features.FeaturesDict({**image, "objects": tfds.features.Sequence(thing)}).save_config(str(folder))
