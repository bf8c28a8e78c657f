"""Own questions about pictures: read from lines, their sizes known before their pictures are decoded."""

import json
import pathlib

import numpy as np
import pytest

from dig_jax.data.example import BadRecord, Turn
from dig_jax.tasks.questions import open_lines
from tests.helpers.drawn_pairs import png


def parse(line, text):
    answer = line["answer"]
    return lambda sizes: Turn("user", (*range(len(sizes)), f"{text} {[*sizes]}")), answer


def opened(path: pathlib.Path, split: str = "test", root: str = ""):
    return open_lines(path, split, root, parse, "numbers", "a question with an answer")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two questions, one of them about two pictures of different sizes."""
    for name, size in (("a", (4, 6)), ("b", (8, 2))):
        (tmp_path / f"{name}.png").write_bytes(png(np.zeros((*size, 3), np.uint8)))
    lines = [
        {"image": "a.png", "question": "How many?", "answer": 1, "id": "first"},
        {"images": ["a.png", "b.png"], "question": "Both?", "answer": 2},
    ]
    (tmp_path / "my_test.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return tmp_path


def test_shapes_are_known_before_pictures_are_decoded_and_are_those_of_the_examples(folder):
    source = opened(folder)
    assert len(source) == 2 and source.unusable == ()
    assert source.shapes() == [source[0].shape, source[1].shape]
    assert source[1].sizes == ((4, 6), (8, 2))
    assert source[1].messages[0].parts == (0, 1, "Both? [(4, 6), (8, 2)]")
    assert (source[0].id, source[1].id, source[1].target) == ("first", "my_test-2", 2)
    assert len(opened(folder, "test[:1]")) == 1 and len(opened(folder / "my_test.jsonl", "any")) == 2


def test_a_picture_that_is_gone_or_damaged_is_a_bad_record(folder):
    (folder / "b.png").write_bytes(b"no picture")
    source = opened(folder)
    assert source.shapes() == [source[0].shape, None]
    with pytest.raises(BadRecord, match="my_test-2.*b.png"):
        source[1]


def test_wrong_files_and_lines_are_refused_by_name(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no questions at"):
        opened(folder / "none")
    with pytest.raises(ValueError, match="has 0 files NAME_val.jsonl"):
        opened(folder, "val")
    (folder / "bad.jsonl").write_text(
        '{"image": "a.png", "question": ""}\n{"image": 3, "question": "x"}\n[]\n'
    )
    with pytest.raises(ValueError, match=r"3 lines are not a question with an answer; the first is line 1"):
        opened(folder / "bad.jsonl")
    twice = '{"image": "a.png", "question": "x", "answer": 1, "id": 7}\n'
    (folder / "twice.jsonl").write_text(twice * 2)
    with pytest.raises(ValueError, match="2 questions have 1 different ids"):
        opened(folder / "twice.jsonl")
