"""python -m data_gen.align: from pairs to a dataset that opens, checks and can be looked at."""

import dataclasses
import json
import re
import subprocess

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_gen.align import main
from data_gen.alignment.check import problems_of
from data_gen.alignment.items import KINDS
from data_gen.alignment.records import AlignedDataset
from data_gen.files.staging import lock
from data_gen.preview import main as preview
from tests.data_gen.alignment.scenes import SAMPLE
from tests.data_gen.test_beam import BEAM_PYTHON, ROOT


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    out = tmp_path_factory.mktemp("aligned") / "a[1] {run}" / "set"
    assert main([f"--data={SAMPLE}", f"--out={out}", "--max_pairs=4", "--preview"]) == 0
    return out


def records(folder):
    dataset = AlignedDataset(folder)
    return {split: list(dataset.records(split)) for split in dataset.splits}


def test_tensorflow_datasets_opens_it(aligned):
    source = tfds.builder_from_directory(aligned).as_data_source(split="train")
    record = source[0]
    assert record["image"].shape == (176, 176, 3)
    item = json.loads(record["items"]["item"][0])
    assert item["kind"] == record["items"]["kind"][0].decode() == "T-C"
    assert item["rounds"][0]["user"].startswith("<image>\n")
    crops = [record["crops"][number] for number in range(sum(map(int, record["items"]["crops"])))]
    assert {np.asarray(crop).shape for crop in crops} == {(88, 88, 3)}


def test_every_label_executes_again_and_every_crop_is_cut_again(aligned, capsys):
    assert main([f"--check={aligned}"]) == 0
    assert re.search(r"\n\d+ items executed again: 0 disagreements\n", capsys.readouterr().out)


@pytest.mark.parametrize("fault", ["answer", "scene", "crop", "words", "options"])
def test_the_check_finds_what_is_wrong(aligned, fault):
    dataset = AlignedDataset(aligned)
    record = next(dataset.records("train"))
    place = next(n for n, (_, item) in enumerate(record.items) if item.kind == "T-I")
    id, item = record.items[place]
    (one,) = item.rounds
    match fault:
        case "answer":
            wrong = dataclasses.replace(one, assistant="ABCD".replace(one.assistant, "")[0])
        case "words":
            wrong = dataclasses.replace(one, user=one.user.replace(" the ", " the purple "))
        case _:
            wrong = one
    item = dataclasses.replace(item, rounds=(wrong,))
    if fault == "options":
        item = dataclasses.replace(item, cuts=(item.cuts[0],) * 4)
    items = [*record.items]
    items[place] = (id, item)
    changed = dataclasses.replace(record, items=tuple(items))
    if fault == "scene":
        scene = json.loads(record.scene)
        scene["objects"][0]["color"] = "orange"
        changed = dataclasses.replace(record, scene=json.dumps(scene))
    if fault == "crop":
        crops = [*record.crops]
        crops[place] = crops[place][::-1]
        changed = dataclasses.replace(record, crops=tuple(crops))
    assert not problems_of(record, dataset.vocabulary)
    assert problems_of(changed, dataset.vocabulary)


def test_the_same_command_makes_the_same_records(aligned, tmp_path):
    assert main([f"--data={SAMPLE}", f"--out={tmp_path / 'again'}", "--max_pairs=4"]) == 0
    assert records(tmp_path / "again") == records(aligned)


def test_the_balance_sheet_is_in_the_metadata(aligned):
    metadata = json.loads((aligned / "metadata.json").read_text())
    assert set(metadata["items"]) == set(KINDS)
    assert set(metadata["audits"]) == {"C-I", "T-I", "exist"}
    assert set(metadata["balance"]["C-I letter"]) <= set("ABCD")


def test_the_page_shows_every_kind_and_all_crops(aligned, tmp_path):
    page = tmp_path / "items.html"
    assert preview([str(aligned), f"--out={page}", "--count=2"]) == 0
    data = json.loads(re.search(r"const data = (.*);\n", page.read_text())[1])
    assert {item["kind"] for item in data["items"]} == set(KINDS)
    for item in data["items"]:
        assert len(item["crops"]) == sum(one["user"].count("<object>") for one in item["rounds"])
    assert (aligned / "gallery.html").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--items=T-C"], "expected KIND:NUMBER"),
        (["--items=T-C:1,X:1"], "unknown kind 'X'"),
        (["--crop_side=4"], "--crop_side=4"),
        (["--model_side=1"], "model_side=1"),
        (["--max_pairs=-1"], "--max_pairs=-1"),
        (["--staged=/nowhere"], "spec.json"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(flags, message, tmp_path, capsys):
    assert main([f"--data={SAMPLE}", f"--out={tmp_path / 'set'}", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_kept_and_a_busy_one_is_refused(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    assert main([f"--data={SAMPLE}", f"--out={tmp_path / 'set'}"]) == 2
    (tmp_path / "other.packing").mkdir()
    with lock(tmp_path / "other.packing" / "lock"):
        assert main([f"--data={SAMPLE}", f"--out={tmp_path / 'other'}", "--max_pairs=1"]) == 2
    assert "in use" in capsys.readouterr().err


def test_what_a_killed_run_left_is_cleared_and_a_failed_one_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "set.packing").mkdir()
    (tmp_path / "set.packing" / "dig_align-train.array_record-00000").write_bytes(b"half")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_gen.align.write_json", stop)
        assert main([f"--data={SAMPLE}", f"--out={tmp_path / 'set'}", "--max_pairs=1"]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not BEAM_PYTHON.exists(), reason="needs `make setup-beam`")
def test_beam_makes_the_records_of_a_plain_run(aligned, tmp_path, capsys):
    out = tmp_path / "set"
    flags = [f"--data={SAMPLE}", f"--out={out}", "--max_pairs=4"]
    command = [str(BEAM_PYTHON), "-m", "data_gen.align_beam", *flags, "--runner=DirectRunner"]
    for _ in range(2):  # the second time all is there
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert "the records of 8 pairs" in result.stdout
    assert main([*flags, "--seed=1", f"--staged={out}.staging"]) == 2
    assert "seed: 0 there, 1 here" in capsys.readouterr().err
    assert main([*flags, f"--staged={out}.staging"]) == 0
    assert records(out) == records(aligned)
