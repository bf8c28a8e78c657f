"""`python -m data_gen` end to end with real renders: determinism, resuming, refusals, and reading back."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_gen import preview, scene
from data_gen.__main__ import main
from data_gen.build import make_pair
from data_gen.interpreter import NoBlender, find_blender_python
from data_gen.presets import PRESETS, parse_differences
from tests.data_gen.conftest import SMALL


def read(folder, split):
    return list(tfds.builder_from_directory(folder).as_data_source(split=split))


def assert_same_records(a, b):
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        assert first.keys() == second.keys()
        for key in first:
            for one, other in zip(*(flatten(record[key]) for record in (first, second)), strict=True):
                np.testing.assert_array_equal(one, other, err_msg=key)


def flatten(value):
    return list(value.values()) if isinstance(value, dict) else [value]


def test_three_workers_with_two_threads_give_the_same_records_as_one(small_dataset, blender_python, tmp_path):
    assert main([*SMALL, f"--out={tmp_path / 'three'}", "--workers=3", "--threads=2"]) == 0
    for split in ("train", "test"):
        assert_same_records(read(small_dataset, split), read(tmp_path / "three", split))


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


def test_boxes_are_those_of_the_changed_objects(small_dataset):
    for record in read(small_dataset, "train"):
        a, b = (record[f"bboxes_{which}"] for which in "ab")
        for kind, box, box_a, box_b in zip(record["kinds"], record["bboxes"], a, b, strict=True):
            shown = [part for part in (box_a, box_b) if part.any()]
            assert len(shown) == (1 if kind in (b"add", b"remove") else 2)
            np.testing.assert_array_equal(box[:2], np.min([part[:2] for part in shown], axis=0))
            np.testing.assert_array_equal(box[2:], np.max([part[2:] for part in shown], axis=0))


def test_a_complete_dataset_is_not_made_again(small_dataset, capsys):
    assert main([*SMALL, f"--out={small_dataset}"]) == 0
    assert "is complete: 3 train and 2 test pairs" in capsys.readouterr().out


def test_another_dataset_is_never_overwritten(small_dataset, capsys):
    assert main([*SMALL, "--seed=12", f"--out={small_dataset}"]) == 2
    assert "holds another dataset (seed: 11 there, 12 here)" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*SMALL, f"--out={tmp_path}"]) == 2
    assert "is not a dataset made by data_gen" in capsys.readouterr().err


def test_a_stopped_run_goes_on_with_what_is_there(
    small_dataset, blender_python, tmp_path, monkeypatch, capsys
):
    out, made = tmp_path / "set", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_gen.__main__.make_pair", interrupted_after(2, made))
        assert main([*SMALL, f"--out={out}", "--workers=1"]) == 1
    assert not out.exists() and "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr("data_gen.__main__.make_pair", interrupted_after(None, made))
    assert main([*SMALL, f"--out={out}", "--workers=1"]) == 0
    assert sorted(made) == sorted({("test", 0), ("test", 1), ("train", 0), ("train", 1), ("train", 2)})
    assert_same_records(read(small_dataset, "train"), read(out, "train"))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def interrupted_after(number, made):
    """`make_pair` that notes its jobs and acts as if Ctrl-C came after `number` pairs."""

    def make(worker, preset, seed, job, folder):
        if number is not None and len(made) >= number:
            raise KeyboardInterrupt
        made.append(job)
        return make_pair(worker, preset, seed, job, folder)

    return make


def test_a_dataset_says_how_it_was_made(small_dataset):
    summary = json.loads((small_dataset / "generation.json").read_text())
    assert summary["counts"] == {"train": 3, "test": 2}
    assert summary["preset"]["width"] == 64 and summary["seed"] == 11
    assert summary["blender"] and isinstance(summary["rejected_attempts"], dict)


def test_neither_blender_nor_tensorflow_nor_jax_is_imported_here():
    code = (
        "import sys, data_gen.__main__, data_gen.pack, data_gen.crew\n"
        "print([name for name in ('bpy', 'tensorflow', 'jax', 'dig_jax') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("ModuleNotFoundError: No module named 'bpy'", "make setup-render"),
        ("ImportError: libSM.so.6: cannot open shared object file", "apt-get install .*libsm6"),
    ],
)
def test_an_interpreter_without_blender_is_an_error_that_says_what_to_do(error, advice, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "{error}" >&2\nexit 1\n')
    python.chmod(0o755)
    with pytest.raises(NoBlender, match=f"(?s){error}.*{advice}"):
        find_blender_python(str(python))


def test_a_missing_interpreter_is_named():
    with pytest.raises(NoBlender, match="/no/python: no such file"):
        find_blender_python("/no/python")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--differences=5"], "--differences=5: expected counts up to 4"),
        (["--differences=1:x"], "--differences=1:x"),
        (["--resolution=big"], "--resolution=big: expected pixels"),
    ],
)
def test_a_bad_value_is_named(flags, message, tmp_path, capsys):
    assert main(["--preset=tiny", "--num_pairs=1", f"--out={tmp_path / 'x'}", *flags]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_preset_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--preset=huge", "--num_pairs=1", "--out=x"])
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert all(name in message for name in PRESETS)


def test_numbers_of_differences_are_weights():
    assert parse_differences("2") == (0.0, 0.0, 1.0)
    assert parse_differences("0-3") == (1.0, 1.0, 1.0, 1.0)
    assert parse_differences("0:0.1,2:0.9") == (0.1, 0.0, 0.9)


def test_pictures_are_png_files_that_any_reader_opens(small_dataset):
    source = tfds.builder_from_directory(small_dataset).as_data_source(
        split="test", decoders={"image_a": tfds.decode.SkipDecoding()}
    )
    assert Image.open(io.BytesIO(source[0]["image_a"])).format == "PNG"


def test_a_preview_shows_every_pair_with_its_boxes(small_dataset, tmp_path):
    out = tmp_path / "pairs.png"
    assert preview.main([str(small_dataset), f"--out={out}", "--count=2", "--columns=1"]) == 0
    image = np.asarray(Image.open(out))
    assert image.shape[1] == 2 * 64 + 3 * preview.GAP
    records = read(small_dataset, "train")[:2]
    kinds = {kind.decode() for record in records for kind in record["kinds"]}
    for kind in kinds:
        color = tuple(bytes.fromhex(preview.KIND_COLORS[kind][1:]))
        assert (image == color).all(axis=-1).any(), kind


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split=val"], "has no split 'val'; it has train, test"),
        (["--first=9"], "has pairs 0 to 2 in split 'train'"),
    ],
)
def test_a_preview_of_what_is_not_there_is_an_error(flags, message, small_dataset, tmp_path, capsys):
    assert preview.main([str(small_dataset), f"--out={tmp_path / 'x.png'}", *flags]) == 2
    assert message in capsys.readouterr().err
    assert preview.main([str(tmp_path), f"--out={tmp_path / 'x.png'}"]) == 2
    assert "is not a dataset" in capsys.readouterr().err
