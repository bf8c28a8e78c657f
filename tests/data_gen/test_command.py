"""`python -m data_gen` end to end with real renders: determinism, resuming, refusals, and reading back."""

import io
import subprocess
import sys

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data_gen import verify
from data_gen.__main__ import main
from data_gen.scenes import scene
from dig_jax.data.records import open_pairs
from tests.data_gen.conftest import SMALL, assert_same_datasets, read


def test_three_workers_with_two_threads_give_the_same_records_as_one(small_dataset, blender, tmp_path):
    assert main([*SMALL, f"--out={tmp_path / 'three'}", "--workers=3", "--threads=2"]) == 0
    assert_same_datasets(small_dataset, tmp_path / "three")


# Runs a Python with bpy the way Blender runs a script: bpy is loaded, sys.argv holds Blender's own flags.
AS_BLENDER = """
import runpy, sys
if sys.argv[1:] == ["--version"]:
    print("Blender VERSION")
else:
    print("Blender VERSION (hash built from nothing)", flush=True)
    import bpy
    runpy.run_path(sys.argv[sys.argv.index("--python") + 1], run_name="__main__")
"""


def test_an_installed_blender_gives_the_same_records(small_dataset, blender, tmp_path):
    script, program = tmp_path / "as_blender.py", tmp_path / "blender"
    script.write_text(AS_BLENDER.replace("VERSION", blender.version))
    program.write_text(f'#!/bin/sh\nexec "{blender.executable}" "{script}" "$@"\n')
    program.chmod(0o755)
    assert main([*SMALL, f"--out={tmp_path / 'set'}", "--workers=1", f"--blender={program}"]) == 0
    assert_same_datasets(small_dataset, tmp_path / "set")


def test_records_have_the_documented_features(small_dataset):
    train, test = read(small_dataset, "train"), read(small_dataset, "test")
    assert [record["id"] for record in train] == [f"tiny-11-train-{index:06d}".encode() for index in range(3)]
    assert len(test) == 2
    for record in [*train, *test]:
        number = record["num_differences"]
        assert record["image_a"].shape == record["image_b"].shape == (64, 64, 3)
        assert record["image_a"].dtype == np.uint8
        for key in ("bboxes", "bboxes_a", "bboxes_b"):
            assert record[key].shape == (number, 4) and record[key].dtype == np.float32
        assert len(record["kinds"]) == len(record["descriptions"]) == number
        for which in "ab":
            objects = record[f"objects_{which}"]
            described = scene.from_json(record[f"scene_{which}"].decode())
            assert [name.decode() for name in objects["name"]] == [item.name for item in described.objects]


def test_brackets_and_braces_in_the_path_are_neither_patterns_nor_variables(small_dataset, capsys):
    """Of Blender's render, of the globs of whoever looks for the dataset, and of TFDS."""
    assert "[1] {run} {blend_name}}" in str(small_dataset)
    assert verify.main([f"--data={small_dataset.parent}"]) == 0
    assert "all 5 pairs pass" in capsys.readouterr().out
    assert len(open_pairs(small_dataset.parent, "test")) == 2


def test_boxes_are_those_of_the_changed_objects(small_dataset):
    for record in read(small_dataset, "train"):
        a, b = (record[f"bboxes_{which}"] for which in "ab")
        for kind, box, box_a, box_b in zip(record["kinds"], record["bboxes"], a, b, strict=True):
            shown = [part for part in (box_a, box_b) if part.any()]
            assert len(shown) == (1 if kind in (b"add", b"remove") else 2)
            np.testing.assert_array_equal(box[:2], np.min([part[:2] for part in shown], axis=0))
            np.testing.assert_array_equal(box[2:], np.max([part[2:] for part in shown], axis=0))


def test_neither_blender_nor_tensorflow_nor_jax_is_imported_here():
    code = (
        "import sys, data_gen.__main__, data_gen.records.pack, data_gen.render.crew\n"
        "print([name for name in ('bpy', 'tensorflow', 'jax', 'dig_jax') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_pictures_are_png_files_that_any_reader_opens(small_dataset):
    source = tfds.builder_from_directory(small_dataset).as_data_source(
        split="test", decoders={"image_a": tfds.decode.SkipDecoding()}
    )
    assert Image.open(io.BytesIO(source[0]["image_a"])).format == "PNG"
