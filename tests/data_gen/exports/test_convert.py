"""A dataset in other forms and back: nothing is lost, and others read it."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_gen import convert
from data_gen.exports import coco, parquet
from data_gen.exports.rows import open_records
from data_gen.imports.entry import Source
from data_gen.imports.pairsfile import read
from data_gen.imports.report import Report
from data_gen.records.dataset import Dataset
from tests.helpers.paths import ROOT

SAMPLE = ROOT / "assets" / "sample_pairs"  # 12 and 4 pairs, rendered


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample pairs as COCO JSON, from that as Parquet files, and from those as records again."""
    place = tmp_path_factory.mktemp("forms")
    found, source = {}, SAMPLE
    for form in convert.FORMS:
        found[form] = place / form
        assert convert.convert(source, form, found[form]) == {"train": 12, "test": 4}
        source = found[form]
    return found


def test_after_all_forms_every_record_is_the_same_pictures_to_the_byte(folders):
    before, after = Dataset(SAMPLE), Dataset(folders["records"])
    assert after.splits == before.splits and after.metadata() == before.metadata()
    assert open_records(folders["records"]).digests() == open_records(SAMPLE).digests()
    one, other = before.pair("test", 3), after.pair("test", 3)
    assert one.pictures == other.pictures and one.scenes == other.scenes and one.measures == other.measures
    np.testing.assert_array_equal(one.boxes_a, other.boxes_a)


def test_coco_has_a_box_in_pixels_for_every_difference(folders):
    values = json.loads((folders["coco"] / coco.FILE).read_text())
    pair = Dataset(SAMPLE).pair("train", 0)
    [image] = [one for one in values["images"] if one["record"]["id"] == pair.id]
    boxes = [one["bbox"] for one in values["annotations"] if one["image_id"] == image["id"]]
    corners = [[x, y, x + width, y + height] for x, y, width, height in boxes]
    np.testing.assert_allclose(np.array(corners) / 176, pair.boxes, atol=1e-5)
    assert Image.open(folders["coco"] / image["file_name"]).size == (image["width"], image["height"])
    assert {one["name"] for one in values["categories"]} >= set(pair.kinds)


def test_our_own_importer_reads_the_coco_file_with_the_boxes_of_each_picture(folders):
    report = Report()
    entries = read(folders["coco"] / coco.FILE, Source(folders["coco"], "pixels"), report)
    pairs = [*Dataset(SAMPLE).pairs(["train", "test"])]
    assert not report.problems and len(entries) == len(pairs)
    for entry, pair in zip(entries, pairs, strict=True):
        assert entry.kinds == pair.kinds and entry.split in ("train", "test")
        for number, (in_a, in_b) in enumerate(entry.boxes):
            for box, known in ((in_a, pair.boxes_a[number]), (in_b, pair.boxes_b[number])):
                np.testing.assert_allclose(
                    np.zeros(4) if box is None else np.array(box) / 176, known, atol=1e-5
                )


def test_parquet_files_say_what_hugging_face_loads_them_as(folders):
    [path] = (folders["datasets"] / parquet.FOLDER).glob("train-*.parquet")
    said = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
    assert said["image_a"] == {"_type": "Image"}
    assert said["num_differences"] == {"dtype": "int64", "_type": "Value"}
    number = {"dtype": "float32", "_type": "Value"}
    assert said["bboxes"] == {"feature": {"feature": number, "_type": "Sequence"}, "_type": "Sequence"}
    assert said["objects_a"]["color"] == {
        "feature": {"dtype": "string", "_type": "Value"},
        "_type": "Sequence",
    }
    first = pq.read_table(path).to_pylist()[0]
    picture = np.asarray(Image.open(io.BytesIO(first["image_b"]["bytes"])))
    np.testing.assert_array_equal(picture, Dataset(SAMPLE).pair("train", 0).decoded()[1])
    assert "path: data/train-*" in (folders["datasets"] / "README.md").read_text()


def test_changed_annotations_are_not_taken_for_the_records(folders, tmp_path):
    values = json.loads((folders["coco"] / coco.FILE).read_text())
    values["annotations"][0]["bbox"][2] += 1
    (tmp_path / coco.FILE).write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match="image 1: its annotations are not those of its record.*import_pairs"
    ):
        convert.open_any(tmp_path)


def test_what_comes_back_as_another_stops_the_command_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    made = coco._image

    def spoilt(*args):
        image = made(*args)
        image["record"]["outside_changed"] += 1e-9
        return image

    monkeypatch.setattr(coco, "_image", spoilt)
    assert convert.main([f"--data={SAMPLE}", "--to=coco", f"--out={tmp_path / 'out'}"]) == 1
    assert "pair 0: what was written is not what was read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_dataset_and_a_folder_that_is_there_are_refused(tmp_path, capsys):
    assert convert.main([f"--data={tmp_path}", "--to=coco", f"--out={tmp_path / 'out'}"]) == 2
    assert "is not a dataset" in capsys.readouterr().err
    assert convert.main([f"--data={SAMPLE}", "--to=coco", f"--out={tmp_path}"]) == 2
    assert "exists already" in capsys.readouterr().err
