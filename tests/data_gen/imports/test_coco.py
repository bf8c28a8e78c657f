"""COCO JSON with two pictures per entry."""

import json

import numpy as np
import pytest
from PIL import Image

from data_gen.import_pairs import main
from data_gen.imports.entry import Source
from data_gen.imports.pairsfile import read
from data_gen.imports.report import Report
from data_gen.records.dataset import Dataset
from tests.data_gen.imports.conftest import BOX, HEIGHT, WIDTH

XYWH = [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]
IMAGE = {
    "id": 7,
    "file_name_a": "a.png",
    "file_name_b": "b.png",
    "width": WIDTH,
    "height": HEIGHT,
    "license": 1,
}
ANNOTATION = {
    "id": 1,
    "image_id": 7,
    "bbox": XYWH,
    "category_id": 3,
    "area": 80,
    "iscrowd": 0,
    "segmentation": [],
}
CATEGORIES = [{"id": 3, "name": "building", "supercategory": "none"}]


def coco(images=(IMAGE,), annotations=(ANNOTATION,), categories=CATEGORIES, **others):
    return {
        "images": list(images),
        "annotations": list(annotations),
        "categories": list(categories),
        **others,
    }


def entries_of(folder, data, **source):
    (folder / "pairs.json").write_text(json.dumps(data, indent=1))
    report = Report()
    return read(folder / "pairs.json", Source(folder, **source), report), report


def test_a_coco_file_becomes_a_dataset(folder):
    second = {"id": "b", "file_name": ["a.png", "a.png"], "split": "test"}
    moved = ANNOTATION | {"id": 2, "bbox": None, "bbox_b": XYWH, "description": "a house was\nbuilt"}
    data = coco([IMAGE, second], [ANNOTATION, moved | {"bbox_b": [30, 2, 5, 6]}], info={"year": 2024})
    rows = np.asarray(BOX, np.float32) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
    picture = np.array([30, 2, 35, 8], np.float32) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
    # Something differs in the second box, too.
    b = np.array(Image.open(folder / "b.png"))
    b[2:8, 30:35] = 0
    Image.fromarray(b).save(folder / "b.png")
    (folder / "pairs.json").write_text(json.dumps(data))
    assert main([f"--pairs={folder / 'pairs.json'}", f"--out={folder / 'set'}"]) == 0
    dataset = Dataset(folder / "set")
    (pair,), (same,) = dataset.pairs(["train"]), dataset.pairs(["test"])
    assert (pair.id, same.id) == ("7", "b") and not len(same.boxes)
    np.testing.assert_allclose(pair.boxes, [rows, picture], atol=1e-6)
    np.testing.assert_allclose(pair.boxes_a, [rows, [0, 0, 0, 0]], atol=1e-6)
    assert pair.kinds == ("building", "building") and pair.descriptions == ("", "a house was built")


def test_one_name_stands_for_a_file_in_two_folders(folder):
    image = {"id": 7, "file_name": "7.png"}
    (entry,), report = entries_of(folder, coco([image]), folders=("A", "B"))
    assert not report.problems and entry.paths == (folder / "A/7.png", folder / "B/7.png")
    _, report = entries_of(folder, coco([image]))
    assert "expected two pictures: file_name_a and file_name_b" in report.problem_lines()[0]


def test_a_file_of_one_line_is_told_from_json_lines(folder):
    (folder / "pairs.txt").write_text(json.dumps(coco()))
    assert read(folder / "pairs.txt", Source(folder), Report())[0].id == "7"


MISTAKES = [
    (coco([IMAGE, IMAGE]), "images[1] (id 7): id '7' is that of"),
    (coco([IMAGE | {"id": None}]), "images[0]: id is missing"),
    (coco([IMAGE | {"id": [1]}]), "images[0] (id [1]): id: expected a text"),
    (coco([IMAGE | {"file_name_b": None}]), "images[0] (id 7): file_name_b is missing"),
    (coco([IMAGE | {"width": "40"}]), "width: expected a number of pixels, got '40'"),
    (coco([IMAGE, 5]), "images[1]: expected an object, got 5"),
    (coco(annotations=[5]), "annotations[0]: expected an object, got 5"),
    (
        coco(annotations=[ANNOTATION | {"image_id": 8}]),
        "annotations[0] (id 1): image_id: no image has the id 8",
    ),
    (coco(annotations=[ANNOTATION | {"image_id": "7"}]), "image_id: no image has the id '7'"),
    (coco(annotations=[ANNOTATION | {"image_id": None}]), "image_id is missing"),
    (coco(annotations=[ANNOTATION | {"category_id": 9}]), "category_id: no category has the id 9"),
    (coco(annotations=[ANNOTATION | {"bbox": None}]), "expected bbox, or bbox_a and bbox_b"),
    (coco(annotations=[ANNOTATION | {"bbox_a": XYWH}]), "got bbox and bbox_a"),
    (
        coco(annotations=[ANNOTATION | {"bbox": [1, 2, 3]}]),
        "bbox: expected [x, y, width, height], four finite",
    ),
    (
        coco(annotations=[ANNOTATION | {"bbox": [1, 2, float("nan"), 4]}]),
        "bbox: expected [x, y, width, height]",
    ),
    (coco(annotations=[ANNOTATION | {"bbox": [9, 9, -3, 4]}]), "bbox: width and height must be above 0"),
    (coco(annotations=[ANNOTATION | {"iscrowd": 1}]), "iscrowd: a crowd is no single difference"),
    (coco(categories=CATEGORIES + [{"id": 3, "name": "road"}]), "id 3 is that of another category, too"),
    (coco(categories=[{"id": 3, "name": 5}]), "categories[0] (id 3): name: expected a text, got 5"),
]


@pytest.mark.parametrize(("data", "message"), MISTAKES, ids=[message[:50] for _, message in MISTAKES])
def test_a_mistake_is_named_with_its_place(data, message, folder, capsys):
    (folder / "pairs.json").write_text(json.dumps(data))
    assert main([f"--pairs={folder / 'pairs.json'}", "--check"]) == 1
    assert message in capsys.readouterr().err


def test_a_size_of_the_picture_before_it_was_turned_is_told(folder, capsys):
    turned = IMAGE | {"width": HEIGHT, "height": WIDTH}
    (folder / "pairs.json").write_text(json.dumps(coco([turned])))
    assert main([f"--pairs={folder / 'pairs.json'}", "--check"]) == 1
    told = capsys.readouterr().err
    assert (
        "width and height say 20x40 pixels, the pictures have 40x20; boxes are of the picture turned" in told
    )


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_file_whose_parts_are_no_lists_is_refused(key, folder):
    for odd in ({}, 5, "x", None):
        with pytest.raises(ValueError, match=rf"pairs\.json.*{key}"):
            entries_of(folder, coco() | {key: odd})
