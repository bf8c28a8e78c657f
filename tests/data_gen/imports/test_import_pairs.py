"""The command: what it writes is read by everybody, and what is wrong is told before anything is written."""

import errno
import shutil

import numpy as np
import pytest
from PIL import Image

from configs import base
from data_gen import import_pairs, preview, verify
from data_gen.files.staging import Staging
from data_gen.import_pairs import main
from data_gen.imports.splits import drawn
from data_gen.records.dataset import Dataset
from dig_jax.data.records import open_pairs
from tests.data_gen.conftest import read
from tests.data_gen.imports.conftest import BOX, HEIGHT, WIDTH, line, write_lines

SHARES = np.array([[10 / WIDTH, 4 / HEIGHT, 20 / WIDTH, 12 / HEIGHT]], np.float32)


def run(*flags):
    return main([str(flag) for flag in flags])


def test_pairs_are_trained_on_verified_and_shown(folder, capsys):
    named = line(kinds=["color"], descriptions=["the patch\nbecame red"], split="test")
    in_b = line(id="two", boxes=..., boxes_a=[None], boxes_b=[BOX])
    same = line(id=3, image_b="a.png", boxes=[])
    out = folder / "set"
    assert run(f"--pairs={write_lines(folder, named, in_b, same)}", f"--out={out}", "--preview") == 0
    assert "3 pairs with 2 differences: 2 train and 1 test pairs." in capsys.readouterr().out

    train, test = open_pairs(out, "train"), open_pairs(out, "test")
    assert [train[0].id, train[1].id, test[0].id] == ["two", "3", "one"]
    np.testing.assert_array_equal(test[0].image_b, np.asarray(Image.open(folder / "b.png")))
    np.testing.assert_array_equal(test[0].boxes, SHARES)
    np.testing.assert_array_equal(test[0].boxes_a, SHARES)
    assert test[0].kinds == ("color",) and test[0].descriptions == ("the patch became red",)
    assert train[0].kinds == ("change",) and train[0].descriptions == ("",)
    np.testing.assert_array_equal(train[0].boxes, SHARES)
    assert not train[0].boxes_a.any() and (train[0].boxes_b == SHARES).all()
    assert train.num_differences().tolist() == [1, 0]
    assert train.image_sizes().tolist() == [[HEIGHT, WIDTH]] * 2

    assert verify.main([f"--data={out}"]) == 0
    assert preview.main([str(out), f"--out={out}.png"]) == 0
    page = (out / "preview.html").read_text()
    assert '"text":"change"' in page and "pairs.jsonl" in page
    assert "| kinds of difference | change: 1, color: 1 |" in (out / "README.md").read_text()


def test_a_record_has_what_others_have_or_measures_it(folder):
    out = folder / "set"
    assert run(f"--pairs={write_lines(folder, line())}", f"--out={out}") == 0
    (record,) = read(out, "train")
    assert record["changed_pixels"].tolist() == [80] and record["mean_delta_e"] > 30
    assert record["outside_changed"] == record["outside_largest"] == 0
    assert record["scene_a"] == record["scene_b"] == b"{}" and not len(record["objects_a"]["id"])
    assert not {"occlusion", "visible_pixels_a", "visible_pixels_b"} & set(record)
    assert Dataset(out).pair("train", 0).num_objects == 0


def test_all_problems_are_told_at_once_by_line_and_nothing_is_written(folder, capsys):
    (folder / "cut.png").write_bytes((folder / "b.png").read_bytes()[:-400])
    pairs = write_lines(
        folder,
        line(),
        line(id="two", image_a="gone.png", boxes=[[1, 2, 3]]),
        "",
        line(image_b="cut.png"),
        line(id="four", image_b="other.png"),
        "{",
        line(id="five", boxes=[[30, 4, 20, 12], [0, 0, 50, 20], [0, 0, 4, 4], [10, 4, 20, 4]]),
        line(id="six", boxes=[BOX, [10.01, 4, 20, 12]]),
    )
    before = set(folder.iterdir())
    assert run(f"--pairs={pairs}", f"--out={folder / 'set'}") == 1
    assert set(folder.iterdir()) == before
    told = capsys.readouterr().err
    found = [text.removeprefix(f"{pairs}:") for text in told.splitlines() if text.startswith(f"{pairs}:")]
    assert [text.split(":")[0] for text in found] == ["2", "2", "4", "4", "5", "6", "7", "7", "7", "7", "8"]
    wanted = [
        ("2", "boxes[0]: expected [x0, y0, x1, y1], four finite numbers, got [1, 2, 3]"),
        ("2", "gone.png: no such file"),
        ("4", f"id 'one' is that of {pairs}:1, too"),
        ("4", "cut.png: the picture is damaged"),
        ("5", "the pictures differ in size, 40x20 and 30x20 pixels"),
        ("6", "not JSON"),
        ("7", "box 0: [30, 4, 20, 12] in pixels is inverted"),
        ("7", "box 1: [0, 0, 50, 20] in pixels leaves the picture of 40x20 pixels"),
        ("7", "box 3: [10, 4, 20, 4] in pixels is empty"),
        ("8", "boxes 0 and 1 are the same to a thousandth of the picture"),
    ]
    for number, text in wanted:
        assert any(item.startswith(f"{number}: ") and text in item for item in found), text
    assert "11 problems. Nothing was written." in told
    assert run(f"--pairs={pairs}", "--check") == 1
    assert capsys.readouterr().err.splitlines()[1:] == told.splitlines()[1:]  # the first tells the pace


def test_check_writes_nothing_and_needs_no_out(folder, capsys):
    pairs = write_lines(folder, line(), line(id="two", boxes=[[-0.5, 4, 20, 12]]))
    before = set(folder.iterdir())
    assert run(f"--pairs={pairs}", "--check") == 0
    assert set(folder.iterdir()) == before
    told = capsys.readouterr().out
    assert "2 pairs with 2 differences: 2 train and 0 test pairs." in told
    assert (
        f"boxes that stick out by up to a pixel were cut at the picture's edge: 1 time, first {pairs}:2"
        in told
    )


@pytest.mark.parametrize(
    "flags",
    [
        ["--pairs=gone.jsonl", "--check"],
        ["--pairs=.", "--check"],
        ["--pairs=pairs.jsonl", "--out=."],
        ["--pairs=pairs.jsonl", "--out=gs://bucket/set"],
        ["--pairs=pairs.jsonl", "--check", "--test_ids=gone.txt"],
        ["--pairs=pairs.jsonl", "--check", "--folders=A,B"],
        ["--pairs=empty.jsonl", "--check"],
        ["--pairs=pairs.jsonl", "--check", "--images=gone"],
    ],
)
def test_what_the_command_line_cannot_mean_is_refused(flags, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    write_lines(folder, line())
    (folder / "empty.jsonl").touch()
    assert run(*flags) == 2
    assert capsys.readouterr().err.startswith("data_gen.import_pairs: ")
    assert not (folder / "gs:").exists()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--pairs=x"],
        ["--pairs=x", "--check", "--test_share=1.5"],
        ["--pairs=x", "--check", "--test_share=nan"],
    ]
    + [["--pairs=x", "--check", "--folders=A"], ["--pairs=x", "--check", "--test_share=0.5", "--test_ids=y"]]
    + [["--pairs=x", "--check", "--box_units=px"], ["--pairs=x", "--check", "--threads=0"]],
)
def test_flags_of_the_wrong_form_end_with_code_2(flags):
    with pytest.raises(SystemExit) as error:
        run(*flags)
    assert error.value.code == 2


def test_a_share_goes_to_test_by_the_hash_of_the_id_and_stays_there(folder, capsys):
    few = [line(id=f"pair-{number}") for number in range(8)]
    more = [line(id=f"new-{number}") for number in range(4)] + few[::-1]
    splits = []
    for name, lines in (("few", few), ("more", more)):
        out = folder / name
        assert run(f"--pairs={write_lines(folder, *lines)}", f"--out={out}", "--test_share=0.4") == 0
        splits.append({pair.id: split for split in ("train", "test") for pair in Dataset(out).pairs([split])})
    assert set(splits[0].values()) == {"train", "test"}
    assert splits[0].items() <= splits[1].items()
    assert "2 pictures are in train and in test pairs" in capsys.readouterr().out


def test_the_draw_is_the_same_on_every_machine_and_in_every_version():
    assert drawn("kitchen-1") == pytest.approx(0.800091, abs=1e-6)


def test_pairs_of_a_group_stay_together(folder):
    pairs = write_lines(folder, *(line(id=f"pair-{number}", group="street") for number in range(6)))
    assert run(f"--pairs={pairs}", f"--out={folder / 'set'}", "--test_share=0.5") == 0
    assert list(Dataset(folder / "set").splits.values()) == [6]


def test_ids_name_the_test_pairs(folder, capsys):
    pairs = write_lines(folder, line(), line(id="two"), line(id="three", split="train"))
    (folder / "ids.txt").write_text("\ufefftwo\r\n\n", encoding="utf-8")
    assert run(f"--pairs={pairs}", f"--out={folder / 'set'}", f"--test_ids={folder / 'ids.txt'}") == 0
    assert [pair.id for pair in Dataset(folder / "set").pairs(["test"])] == ["two"]
    (folder / "ids.txt").write_text("three\nfour\n")
    assert run(f"--pairs={pairs}", "--check", f"--test_ids={folder / 'ids.txt'}") == 1
    told = capsys.readouterr().err
    assert "ids.txt:1: 'three' says itself that it is a train pair" in told
    assert "ids.txt:2: no pair has the id 'four'" in told


def test_pictures_of_several_sizes_are_one_dataset(folder):
    for name in ("c.png", "d.png"):
        Image.open(folder / ("a.png" if name == "c.png" else "b.png")).resize((80, 40)).save(folder / name)
    large = line(id="two", image_a="c.png", image_b="d.png", boxes=[[16, 6, 44, 28]])
    out = folder / "set"
    assert run(f"--pairs={write_lines(folder, line(), large)}", f"--out={out}") == 0
    assert open_pairs(out, "train").image_sizes().tolist() == [[20, 40], [40, 80]]
    assert verify.main([f"--data={out}"]) == 0


def test_more_boxes_than_training_takes_by_default_are_noted(folder, capsys):
    assert base.get_config().reward.max_boxes == import_pairs.TRAINED_BOXES
    strips = [[10, 4, 20, 5 + number / 3] for number in range(17)]
    assert run(f"--pairs={write_lines(folder, line(boxes=strips), line(id='two'))}", "--check") == 0
    told = capsys.readouterr().out
    assert "1 pair with more than 16 differences, 17 at most: train with --config.reward.max_boxes=17" in told


def test_large_pictures_are_shrunk_on_demand_and_boxes_go_with_them(folder, capsys):
    flags = [f"--pairs={write_lines(folder, line())}", "--max_side=20"]
    assert run(*flags, f"--out={folder / 'set'}") == 0
    pair = open_pairs(folder / "set", "train")[0]
    assert pair.size == (10, 20)
    np.testing.assert_array_equal(pair.boxes, SHARES)
    assert "pictures were shrunk to 20 pixels a side: 1 time" in capsys.readouterr().out
    assert verify.main([f"--data={folder / 'set'}"]) == 0
    assert run(flags[0], "--check", "--max_side=3") == 1
    assert "box 0 is smaller than a pixel of the picture shrunk to 3x2" in capsys.readouterr().err


def test_the_rest_of_a_run_that_was_killed_is_swept_away(folder):
    out = folder / "set"
    with import_pairs.staging_folder(folder / "set.staging") as staging:
        staging.write(("train", 7), {"image_a": b"half"}, {"id": "old"})
        shutil.copytree(folder / "set.staging", folder / "copy")
    (folder / "copy").rename(folder / "set.staging")
    (folder / "set.packing").mkdir()
    (folder / "set.packing" / "old").touch()
    assert run(f"--pairs={write_lines(folder, line())}", f"--out={out}") == 0
    assert [pair.id for pair in Dataset(out).pairs(["train"])] == ["one"]
    assert not list(folder.glob("set.*ing")) and not (out / "old").exists()


def test_another_run_and_rendered_pairs_are_left_alone(folder, capsys):
    out = folder / "set"
    flags = [f"--pairs={write_lines(folder, line())}", f"--out={out}"]
    with import_pairs.staging_folder(folder / "set.staging"):
        assert run(*flags) == 2
    assert "is in use" in capsys.readouterr().err
    with Staging(folder / "set.staging", {"preset": "tiny"}).locked():
        pass
    assert run(*flags) == 2
    assert "holds pairs of another dataset" in capsys.readouterr().err
    assert (folder / "set.staging").exists() and not out.exists()


@pytest.mark.parametrize("place", ["data_gen.import_pairs.describe", "data_gen.records.card.write_card"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_run_that_stops_leaves_nothing(error, place, folder, capsys, monkeypatch):
    def stop(*_):
        raise error

    monkeypatch.setattr(place, stop)
    pairs = write_lines(folder, line())
    before = set(folder.iterdir())
    assert run(f"--pairs={pairs}", f"--out={folder / 'set'}") == 1
    assert set(folder.iterdir()) == before
    assert "Nothing was written" in capsys.readouterr().err


def test_names_of_kinds_cannot_break_the_card(folder):
    odd = line(kinds=["car|truck <b>$x"], descriptions=["<script>alert(1)</script>"])
    out = folder / "set"
    assert run(f"--pairs={write_lines(folder, odd)}", f"--out={out}", "--preview") == 0
    assert "| kinds of difference | car\\|truck <b>$x: 1 |" in (out / "README.md").read_text()
    assert "<script>alert" not in (out / "preview.html").read_text()
