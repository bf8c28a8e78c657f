"""Visual Genome and Flickr30K Entities: phrases, boxes, what is left out, errors by file and line."""

import json
import logging
import pathlib

import numpy as np
import pytest

from configs import base
from dig_jax.tasks import published
from dig_jax.tasks.referring import flickr30k, visual_genome
from dig_jax.tasks.referring.task import Referring
from dig_jax.tasks.task import Answerer
from tests.helpers.drawn_pairs import png

XML = """<annotation><filename>36.jpg</filename>
<size><width>10</width><height>8</height><depth>3</depth></size>
<object><name>5</name><name>6</name>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax><ymax>4</ymax></bndbox></object>
<object><name>6</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>5</xmax><ymax>8</ymax></bndbox></object>
<object><name>7</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""
LINES = """[/EN#5/people A man] holds [/EN#0/notvisual each other] near [/EN#6/bodyparts/people two hands] .
[/EN#5/people a man] in [/EN#7/scene a park] with [/EN#5/people The guy] .
"""


def opened(path: pathlib.Path, split: str = "train"):
    config = base.get_config()
    config.data.question = "Output the coordinate of {phrase}"
    return Referring(config, Answerer(False, "unit", lambda size: size)).open(path, split)


@pytest.fixture
def flickr(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, text in {
        "Sentences/36.txt": LINES,
        "Annotations/36.xml": XML,
        "train.txt": "36\n",
        "mine.txt": "36\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "flickr30k-images").mkdir()
    (tmp_path / "flickr30k-images/36.jpg").write_bytes(png(np.zeros((8, 10, 3), np.uint8)))
    return tmp_path


def test_phrases_of_flickr30k_with_one_box_are_asked_for_once(flickr, caplog):
    with caplog.at_level(logging.WARNING, "dig_jax"):
        source = opened(flickr)
    assert "train.txt: partial, 1 of 29,783 images" in caplog.text
    assert [source[n].target.phrase for n in range(len(source))] == ["A man", "The guy"]
    np.testing.assert_allclose(source[1].target.boxes, [[0, 0.125, 0.6, 0.5]])  # pixels 1 to 6, 2 to 4
    assert source[0].messages[0].parts == (0, "Output the coordinate of A man")
    assert source.shapes()[0] == source[0].shape and source[0].id == "36-1-0"
    assert len(opened(flickr, "train[1:]")) == 1


def test_a_caption_has_the_boxes_of_each_of_its_phrases(flickr):
    first, second = flickr30k.sentences(flickr, "mine", None)
    assert first.text == "A man holds each other near two hands ."
    assert (first.id, second.id) == ("36-1", "36-2")
    said = {first.text[phrase.first : phrase.end]: len(phrase.boxes) for phrase in first.phrases}
    assert said == {"A man": 1, "each other": 0, "two hands": 2}
    assert second.phrases[1].boxes == () and second.size == (8, 10)


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("Sentences/36.txt", "fine\n[/EN#5/people A man", "36.txt, line 2: a mark is not closed"),
        ("Annotations/36.xml", "<annotation>", "36.xml: no element found|36.xml: unclosed"),
        ("Annotations/36.xml", XML.replace("<height>8", "<height>x"), "36.xml: size/height is 'x'; expected"),
        (
            "Annotations/36.xml",
            XML.replace("<xmax>6", "<xmax>-1"),
            "36.xml: bndbox/xmax|36.xml: xmax is '-1'",
        ),
    ],
)
def test_a_damaged_file_of_flickr30k_is_named(flickr, file, text, why):
    (flickr / file).write_text(text)
    with pytest.raises(ValueError, match=why):
        opened(flickr)


@pytest.mark.parametrize(
    ("box", "left"),
    [
        (("<xmax>6", "<xmax>0"), []),  # the box of 5 and 6: nothing is known of either
        (("<xmin>0", "<xmin>11"), ["A man", "The guy"]),  # one of the boxes of 6, beside the image
        (("<xmax>6", "<xmax>1"), ["A man", "The guy"]),  # one pixel wide, as the last one is included
    ],
)
def test_an_entity_of_flickr30k_with_a_box_of_no_area_has_none_and_that_is_said(flickr, caplog, box, left):
    (flickr / "Annotations/36.xml").write_text(XML.replace(*box))
    with caplog.at_level(logging.WARNING, "dig_jax"):
        assert [entry.phrase for entry in flickr30k.read(flickr, "mine", None)] == left
        (first, _) = flickr30k.sentences(flickr, "mine", None)
    wrong = box[1] != "<xmax>1"
    assert len(first.phrases[2].boxes) == (0 if wrong else 2)  # never one box of an entity with two
    assert ("1 of " in caplog.text and "36.xml: bbox" in caplog.text) == wrong


def test_a_box_of_refcoco_with_no_area_leaves_its_phrases_out_and_that_is_said(tmp_path, caplog):
    (tmp_path / "instances.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "1.jpg", "width": 10, "height": 8}],
                "annotations": [{"id": n, "bbox": [2, 2, width, 3]} for n, width in ((1, 4), (2, 0))],
            }
        )
    )
    said = [{"sent_id": 1, "sent": "a man"}, {"sent_id": 2, "sent": "the man"}]
    refs = [{"ref_id": n, "ann_id": n, "image_id": 1, "split": "val", "sentences": said} for n in (1, 2)]
    (tmp_path / "refs(unc).json").write_text(json.dumps(refs))
    with caplog.at_level(logging.WARNING, "dig_jax"):
        source = opened(tmp_path, "val")
    assert len(source) == 2 and "1 of 2 boxes have no area" in caplog.text and "ref 2: bbox" in caplog.text


def test_an_unknown_split_of_flickr30k_is_refused(flickr):
    with pytest.raises(ValueError, match="no list val.txt of images; it has mine, train"):
        opened(flickr, "val")


def region(id: int, phrase: str, x: int = 1) -> dict:
    return {"region_id": id, "x": x, "y": 2, "width": 5, "height": 4, "phrase": phrase}


@pytest.fixture
def genome(tmp_path: pathlib.Path) -> pathlib.Path:
    image = {"image_id": 9, "url": "https://x/VG_100K_2/77.jpg", "width": 10, "height": 8}
    said = [region(n, text) for n, text in enumerate(("the red car.", "sky", "Sky", "  "), start=1)]
    said.append(region(5, "far", x=30))
    things = [
        {"object_id": n, "x": 0, "y": 0, "w": 5, "h": 8, "names": [name]}
        for n, name in enumerate(("tree", "dog", "dog"))
    ]
    files = {
        "image_data.json": [image],
        "region_descriptions.json": [{"id": 9, "regions": said}],
        "objects.json": [{"image_id": 9, "objects": things}],
    }
    for name, entries in files.items():
        (tmp_path / name).write_text(json.dumps(entries))
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2/77.jpg").write_bytes(png(np.zeros((8, 10, 3), np.uint8)))
    return tmp_path


def test_regions_of_visual_genome_are_those_whose_words_an_image_has_once(genome, caplog):
    with caplog.at_level(logging.WARNING, "dig_jax"):
        source = opened(genome)
    assert "partial, 1 of 108,077 images" in caplog.text and "1 of 2 boxes have no area" in caplog.text
    assert len(source) == 1 and source[0].target.phrase == "the red car" and source[0].id == "9-1"
    np.testing.assert_allclose(source[0].target.boxes, [[0.1, 0.25, 0.6, 0.75]])


def test_objects_of_visual_genome_are_asked_for_by_names_that_fit_one(genome):
    source = opened(genome / "objects.json")
    assert [entry.phrase for entry in visual_genome.read(genome / "objects.json", None)] == ["tree"]
    np.testing.assert_allclose(source[0].target.boxes, [[0, 0, 0.5, 1]])
    assert source[0].images[0].shape == (8, 10, 3)


def test_wrong_entries_of_visual_genome_are_named(genome, monkeypatch):
    (genome / "region_descriptions.json").write_text('[{"id": 8, "regions": []}]')
    with pytest.raises(ValueError, match=r"region_descriptions.json, entry 1: KeyError\(8\)"):
        opened(genome)
    (genome / "image_data.json").write_text('[{"image_id": 8}]')
    with pytest.raises(ValueError, match="image_data.json, entry 1: it has no url"):
        opened(genome)
    monkeypatch.setitem(published.SIZES, "visual_genome", (0, "images"))
    (genome / "image_data.json").write_text("[]")
    with pytest.raises(ValueError, match="holds 1 images, and visual_genome has 0"):
        opened(genome)


def test_phrases_of_refcoco_are_counted_where_splits_are_those_that_papers_report(
    tmp_path, monkeypatch, caplog
):
    unc, google = ("train", "val", "testA", "testB"), ("train", "val", "test")
    assert published.phrases_of("refcoco+", "testA", unc) == "refcoco+_testA"
    assert published.phrases_of("refcoco", "val", google) == "" == published.phrases_of("mine", "val", unc)
    assert published.phrases_of("refcocog", "val", google) == "refcocog_val"
    line = {"image": "36.jpg", "sent": "a man", "bbox": [0, 0, 4, 4], "height": 8, "width": 10}
    (tmp_path / "refcoco_val.jsonl").write_text(f"{json.dumps(line)}\n" * 2)
    with caplog.at_level(logging.WARNING, "dig_jax"):
        assert len(opened(tmp_path, "val")) == 2
    assert "refcoco_val.jsonl: partial, 2 of 10,834 phrases" in caplog.text
    monkeypatch.setitem(published.SIZES, "refcoco_val", (1, "phrases"))
    with pytest.raises(ValueError, match="holds 2 phrases, and refcoco_val has 1: these are other data"):
        opened(tmp_path, "val")
