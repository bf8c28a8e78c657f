"""Saved answers: gone on with after a kill, never mixed with those of other settings or another writer."""

import json

import pytest
from etils import epath

from dig_jax.measure import saved
from dig_jax.measure.saved import Answer

HOW = {"model": {"weights": "ab"}, "sampling": {"temperature": 0.7, "eos": (1, 2)}, "versions": {"jax": "1"}}
FIRST, SECOND = Answer("1", "yes\n\u2028é", 3, True), Answer("2", "", 8, False)


def written(path: epath.Path) -> None:
    with saved.opened(path, HOW) as file:
        assert file.answers == {}
        file.add([FIRST])
        assert saved.read(path)[1] == [FIRST]  # on the disk before the next batch
        file.add([SECOND])


def test_a_line_that_a_kill_cut_off_is_dropped_and_the_rest_is_gone_on_with(tmp_path):
    path = epath.Path(tmp_path) / "out" / "x.jsonl"
    written(path)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        with saved.opened(path, HOW) as file:
            left = whole[:cut].count(b"\n") - 1
            assert list(file.answers.values()) == [FIRST, SECOND][: max(left, 0)]
            file.add([answer for answer in (FIRST, SECOND) if answer.index not in file.answers])
        assert path.read_bytes() == whole


def test_answers_of_other_settings_are_refused_by_the_name_of_the_setting(tmp_path):
    path = epath.Path(tmp_path) / "x.jsonl"
    written(path)
    other = HOW | {"model": {"weights": "cd"}, "seed": 1}
    with (
        pytest.raises(ValueError, match='model.weights "ab" and now "cd"; seed null and now 1. Name another'),
        saved.opened(path, other),
    ):
        pass
    with saved.opened(path, HOW | {"versions": {"jax": "2"}, "device": {"count": 8}}) as file:
        assert len(file.answers) == 2  # written down, and may differ
    assert saved.read(path)[0]["versions"] == {"jax": "1"}


def test_a_file_has_one_writer_and_is_no_other_file(tmp_path):
    path = epath.Path(tmp_path) / "x.jsonl"
    with (
        saved.opened(path, HOW),
        pytest.raises(ValueError, match="another process is writing it"),
        saved.opened(path, HOW),
    ):
        pass
    for text, line in (('{"id": 1}\n', 1), (json.dumps({"how": HOW}) + '\n{"index": "1"}\n', 2)):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"x.jsonl, line {line}: expected saved answers"):
            saved.read(path)
    with (
        pytest.raises(ValueError, match="name a folder on a disk"),
        saved.opened(epath.Path("gs://b/x"), HOW),
    ):
        pass
