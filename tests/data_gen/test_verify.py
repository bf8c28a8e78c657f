"""The independent check: what it finds in two pictures, and how the command tells."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_gen.__main__ import main
from data_gen.records import dataset as datasets
from data_gen.records.dataset import Dataset, NoDataset
from data_gen.verify import Limits, Report, check_pair, examine, limits_for
from data_gen.verify import main as verify
from tests.data_gen.conftest import SMALL

GRAY = np.full((20, 40, 3), 128, np.uint8)
BOX = np.array([[0.25, 0.5, 0.5, 1.0]])  # columns 10 to 19, rows 10 to 19
LIMITS = Limits()


def painted(*areas, color=(200, 20, 20)):
    """A gray picture with areas (rows, columns) in another colour."""
    picture = GRAY.copy()
    for rows, columns in areas:
        picture[rows, columns] = color
    return picture


INSIDE = (slice(12, 18), slice(12, 18))


def test_change_in_the_box_and_none_outside_passes():
    finding = examine(GRAY, painted(INSIDE), BOX, LIMITS)
    assert finding.problems == () and finding.changed == (36,) and finding.shares == (0.36,)
    assert finding.outside == 0 and finding.largest == 0 and finding.distances[0] > 50


def test_a_box_without_change_fails():
    finding = examine(GRAY, GRAY, BOX, LIMITS)
    assert finding.problems == ("box 0: 0.0% of it is changed",)


def test_change_below_the_colour_distance_does_not_count():
    finding = examine(GRAY, painted(INSIDE, color=(132, 128, 128)), BOX, LIMITS)
    assert finding.changed == (0,)


def test_a_large_patch_outside_fails_and_a_small_one_passes():
    patch = (slice(0, 4), slice(30, 38))
    limits = dataclasses.replace(LIMITS, max_outside=0.1)
    (problem,) = examine(GRAY, painted(INSIDE, patch), BOX, limits).problems
    assert problem == "a patch of 32 changed pixels outside; the smallest box has 36"
    assert examine(GRAY, painted(INSIDE, (slice(0, 3), slice(30, 33))), BOX, limits).problems == ()


def test_many_small_patches_outside_fail():
    dots = [(slice(row, row + 1), slice(column, column + 1)) for row in (0, 4) for column in range(0, 40, 3)]
    (problem,) = examine(GRAY, painted(INSIDE, *dots), BOX, LIMITS).problems
    assert problem == "3.5% of the picture is changed outside the boxes"


def test_two_pixels_around_a_box_belong_to_it():
    assert examine(GRAY, painted((slice(8, 18), slice(8, 18))), BOX, LIMITS).outside == 0


def test_pairs_with_another_camera_are_judged_by_their_boxes_alone():
    everywhere = painted((slice(None), slice(None)))
    assert examine(GRAY, everywhere, BOX, LIMITS, moving=True).problems == ()
    assert examine(GRAY, GRAY, BOX, LIMITS, moving=True).problems


def test_of_photographs_the_boxes_alone_can_be_checked():
    everywhere = painted((slice(None), slice(None)))
    limits = limits_for({}, boxes_only=True)
    assert examine(GRAY, everywhere, BOX, limits).problems == ()
    assert examine(GRAY, GRAY, BOX, limits).problems
    assert examine(GRAY, everywhere, BOX, limits_for({})).problems


def test_a_box_between_two_pixels_is_looked_at_in_both():
    thin = np.array([[0.265, 0.5, 0.285, 1.0]])  # columns 10.6 to 11.4
    for column in (10, 11):
        painted_one = painted((slice(12, 18), slice(column, column + 1)))
        assert examine(GRAY, painted_one, thin, LIMITS).changed == (6,)


@pytest.mark.parametrize(
    "box", [[0.5, 0.5, 0.5, 1.0], [np.nan, 0.5, 0.6, 1.0], [0.6, 0.5, 0.5, 1.0], [0.0, 0.0, 1.2, 1.0]]
)
def test_a_box_that_is_none_fails(box):
    (problem,) = examine(
        GRAY, painted(INSIDE), np.array([box]), dataclasses.replace(LIMITS, max_outside=1)
    ).problems
    assert "is empty or leaves the picture" in problem


def test_a_pair_without_differences_must_not_change():
    none = np.zeros((0, 4))
    assert examine(GRAY, GRAY, none, LIMITS).problems == ()
    assert examine(GRAY, painted(INSIDE), none, LIMITS).problems


def test_limits_are_those_the_dataset_was_made_with_unless_told_otherwise():
    made = {"preset": {"accept": {"changed_delta_e": 7.0, "max_outside": 0.04, "max_outside_ratio": 0.9}}}
    assert limits_for(made) == Limits(delta_e=7.0, max_outside=0.04, max_outside_ratio=0.9)
    assert limits_for(made, delta_e=5.0, max_outside=0.02) == Limits(5.0, 0.03, 0.02, 0.9)
    assert limits_for({"preset": {"accept": {"max_outside": "lots"}}}) == Limits()


@pytest.fixture(scope="module")
def dataset(fake_blender, tmp_path_factory):
    out = tmp_path_factory.mktemp("verify") / "set"
    assert main([*SMALL, "--differences=1-3", f"--blender_python={fake_blender}", f"--out={out}"]) == 0
    return out


def test_the_command_prints_statistics_and_ends_with_0(dataset, capsys):
    assert verify([f"--data={dataset}"]) == 0
    text = capsys.readouterr().out
    for part in ("pairs               5", "differences a pair", "box centres", "changed outside the boxes"):
        assert part in text
    assert text.endswith("all 5 pairs pass: change in every box, nothing large outside\n")


def test_the_command_ends_with_1_and_the_ids_of_pairs_that_fail(dataset, capsys):
    assert verify([f"--data={dataset}", "--delta_e=200", "--split=test"]) == 1
    message = capsys.readouterr().err
    assert "2 of 2 pairs fail" in message and "tiny-11-test-000001: box 0: 0.0%" in message


def test_the_command_ends_with_2_where_there_is_no_dataset(dataset, tmp_path, capsys):
    assert verify([f"--data={tmp_path}"]) == 2
    assert "is not a dataset: it has no dataset_info.json" in capsys.readouterr().err
    assert verify([f"--data={dataset}", "--split=val"]) == 2
    assert "has no split 'val'; it has" in capsys.readouterr().err


def test_a_dataset_whose_description_is_damaged_is_named(tmp_path, capsys):
    (tmp_path / "dataset_info.json").write_text("version https://git-lfs.github.com/spec/v1")
    assert verify([f"--data={tmp_path}"]) == 2
    assert f"{tmp_path}: dataset_info.json or features.json does not describe" in capsys.readouterr().err


def test_a_truncated_dataset_is_an_error_and_not_a_traceback(dataset, tmp_path, capsys):
    import shutil

    copy = tmp_path / "set"
    shutil.copytree(dataset, copy)
    (records,) = copy.glob("*train.array_record*")
    records.write_bytes(records.read_bytes()[: records.stat().st_size // 3])
    assert verify([f"--data={copy}"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_picture_that_is_no_png_is_a_problem_of_its_pair(dataset):
    pair = Dataset(dataset).pair("train", 0)
    finding = check_pair(dataclasses.replace(pair, pictures=(pair.pictures[0], b"GIF89a")), LIMITS)
    assert finding.damaged and "image_b: not a PNG file" in finding.problems[0]
    report = Report()
    report.add(pair, finding)
    assert list(report.failed) == [pair.id]


def test_a_decompression_bomb_is_refused_by_its_header():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(NoDataset, match="x: (60000x60000 pixels are too many|not a PNG file)"):
        datasets.decode_png(png, "x")


def test_a_picture_that_is_stored_turned_is_upright():
    """Pairs that somebody else put into a dataset may be photos."""
    picture = np.arange(12 * 20 * 3, dtype=np.uint8).reshape(12, 20, 3)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(picture).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(datasets.decode_png(file.getvalue(), "x"), np.rot90(picture, -1))


def test_only_png_is_decoded():
    file = io.BytesIO()
    Image.fromarray(GRAY).save(file, "BMP")
    with pytest.raises(NoDataset, match="not a PNG file"):
        datasets.decode_png(file.getvalue(), "x")
