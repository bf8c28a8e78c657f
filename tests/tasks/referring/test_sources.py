"""Where phrases come from: our own records, REC jsonl, refer JSON and TFDS's ref_coco."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from dig_jax.data.example import BadRecord
from dig_jax.tasks.referring.phrases import Thing, phrase_for, read_things
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.paths import ROOT
from tests.helpers.ref_coco import write_ref_coco
from tests.tasks.referring.test_referring import make_task


def thing(id: int, name: str, shown: bool = True) -> Thing:
    *adjectives, noun = name.split()
    return Thing(id, tuple(adjectives), noun, (0.1, 0.1, 0.2, 0.2) if shown else (0.0,) * 4)


def test_a_phrase_has_the_fewest_words_that_fit_one_object_alone():
    names = ("small red rubber cube", "large red rubber cube", "small red glass vase")
    things = [thing(id, name) for id, name in enumerate(names)]
    assert phrase_for(things[0], things) == (("small",), "cube")
    assert phrase_for(things[2], things) == ((), "vase")
    twins = [thing(0, "small red rubber cube"), thing(1, "small red rubber cube")]
    assert phrase_for(twins[0], twins) is None
    # "cube" fits a striped one as well: a phrase says nothing of what it leaves out.
    assert phrase_for(thing(0, "red cube"), [thing(0, "red cube"), thing(1, "red striped cube")]) is None


def test_names_are_taken_apart_as_the_generator_builds_them_and_others_are_taken_whole():
    texts = {"size": [b"small", b""], "color": [b"red", b""], "texture": [b"stripes", b""]}
    objects = {
        **texts,
        "material": [b"rubber", b""],
        "name": [b"small red striped rubber monkey head", b"my old teapot"],
        "id": [1, 2],
        "bbox": [np.ones(4), np.zeros(4)],
    }
    own, other = read_things(objects)
    assert own.adjectives == ("small", "red", "striped", "rubber") and own.noun == "monkey head"
    assert other.adjectives == () and other.noun == "my old teapot" and not other.shown


def test_every_phrase_of_the_sample_pairs_fits_its_object_alone_and_has_its_box():
    source = make_task().open(ROOT / "assets/sample_pairs", "train")
    ids = [asked.id for asked in source.asked]
    assert len(set(ids)) == len(ids) == len(source) > 200
    kinds = {kind: [i for i, id in enumerate(ids) if kind in id] for kind in ("/a", "/b", "none", "change")}
    assert all(kinds.values())
    two = source[kinds["change"][0]]
    assert len(two.images) == 2 and two.messages[0].parts[:2] == (0, 1)
    assert two.target.phrase in two.messages[0].parts[2] and two.target.boxes.shape == (1, 4)
    assert source[kinds["none"][0]].target.boxes.shape == (0, 4)
    shapes = source.shapes()
    assert [shapes[i] for i in (0, kinds["change"][0])] == [source[0].shape, two.shape]


def test_pairs_without_objects_are_asked_by_their_descriptions_where_those_are_unique(tmp_path):
    same = dataclasses.replace(draw_pair(1, num_differences=2), descriptions=("a", "a"))
    write_pairs(tmp_path, {"train": [draw_pair(0, num_differences=2), same]})
    source = make_task().open(tmp_path, "train")
    assert [source[i].target.phrase for i in range(len(source))] == [
        "rectangle 0 became bright",
        "rectangle 1 became bright",
    ]


@pytest.fixture
def rec(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two images, and a file of three phrases about them."""
    for name, size in (("one.png", (64, 32)), ("two.jpg", (32, 32))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    lines = [
        {"image": "one.png", "sent": "the car", "bbox": [16, 8, 32, 24], "height": 32, "width": 64},
        {"image": "two.jpg", "sent": "no such thing", "bbox": [], "height": 32, "width": 32},
        {"image": "two.jpg", "sent": "sky", "bbox": [-4, 0, 40, 16]},
    ]
    (tmp_path / "refcoco_val.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path


def test_rec_lines_become_phrases_with_boxes_in_shares_of_the_image(rec):
    source = make_task().open(rec, "val")
    assert [source[i].target.boxes.tolist() for i in range(3)] == [
        [[0.25, 0.25, 0.5, 0.75]],
        [],
        [[0, 0, 1, 0.5]],  # clipped
    ]
    assert [shape.sizes for shape in source.shapes()] == [((32, 64),), ((32, 32),), ((32, 32),)]
    assert source[0].id == "refcoco_val-1" and len(make_task().open(rec, "val[1:]")) == 2
    assert len(make_task().open(rec / "refcoco_val.jsonl", "test")) == 3  # a file is one split


def test_lines_and_files_of_another_form_are_named(rec):
    file = rec / "refcoco_val.jsonl"
    with pytest.raises(ValueError, match=r"has 0 files NAME_testA.jsonl; it has refcoco_val.jsonl"):
        make_task().open(rec, "testA")
    more = [{"image": "one.png"}, {"image": "one.png", "sent": "x", "bbox": [1]}]
    file.write_text(file.read_text() + "".join(json.dumps(line) + "\n" for line in more))
    with pytest.raises(ValueError, match=r"2 lines are not .* the first is line 4: KeyError\('sent'\)"):
        make_task().open(rec, "val")


def test_an_image_that_is_gone_or_of_another_size_than_its_line_says_is_a_bad_record(rec):
    line = {"image": "one.png", "sent": "x", "bbox": [0, 0, 8, 8], "height": 64, "width": 64}
    lines = [line, {**line, "image": "gone.png", "height": 32}]
    (rec / "refcoco_val.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = make_task().open(rec, "val")
    with pytest.raises(BadRecord, match=r"refcoco_val-1: .* the file says \(64, 64\)"):
        source[0]
    with pytest.raises(BadRecord, match="refcoco_val-2"):
        source[1]


def test_refer_json_gives_every_sentence_of_a_split(rec):
    image = {"id": 7, "file_name": "one.png", "height": 32, "width": 64}
    instances = {"images": [image], "annotations": [{"id": 3, "bbox": [16, 8, 16, 16]}]}
    sentences = [{"sent_id": 1, "sent": "car"}, {"sent_id": 2, "sent": "left car"}]
    refs = [{"ref_id": 5, "ann_id": 3, "image_id": 7, "split": "val", "sentences": sentences}]
    folder = rec / "refcoco"
    folder.mkdir()
    (folder / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(ValueError, match="run code when they are read"):
        make_task(**{"data.images": str(rec)}).open(folder, "val")
    (folder / "refs(unc).json").write_text(json.dumps(refs))
    source = make_task(**{"data.images": str(rec)}).open(folder, "val")
    assert [source[i].id for i in range(2)] == ["5-1", "5-2"]
    assert source[1].target.boxes.tolist() == [[0.25, 0.25, 0.5, 0.75]]
    with pytest.raises(ValueError, match="no split 'test'; it has val"):
        make_task().open(folder, "test")


def test_ref_coco_of_tfds_gives_every_expression_of_every_object(tmp_path):
    counts = {"ragged_row_lengths_0": [2, 1]}
    expressions = {
        "raw": {"ragged_flat_values": ["a", "b", "c"], **counts},
        "refexp_id": {"ragged_flat_values": [1, 2, 3], **counts},
    }
    boxes = np.float32([[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 0.5]])  # y0, x0, y1, x1
    write_ref_coco(tmp_path, {"bbox": boxes, "refexp": expressions, "mask": [b"not to be decoded"] * 2})
    source = make_task().open(tmp_path, "val")
    assert not source.unusable, source.unusable
    asked = [source[i] for i in range(3)]
    assert [(one.id, one.target.phrase) for one in asked] == [
        ("refexp-1", "a"),
        ("refexp-2", "b"),
        ("refexp-3", "c"),
    ]
    assert [one.target.boxes.tolist() for one in asked] == [[[0.5, 0.25, 1.0, 0.75]]] * 2 + [[[0, 0, 0.5, 1]]]
    assert source.shapes() == [one.shape for one in asked]


def test_a_record_of_ref_coco_that_breaks_off_gives_nothing_and_is_said_to_be_unusable(tmp_path):
    counts = {"ragged_row_lengths_0": [1]}
    expressions = {
        "raw": {"ragged_flat_values": ["a"], **counts},
        "refexp_id": {"ragged_flat_values": [1], **counts},
    }
    boxes = np.float32([[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 0.5]])  # of the second nothing is said
    write_ref_coco(tmp_path, {"bbox": boxes, "refexp": expressions, "mask": [b"not to be decoded"] * 2})
    source = make_task().open(tmp_path, "val")
    assert len(source) == 0
    assert "record 0" in str(source.unusable[0][1])
