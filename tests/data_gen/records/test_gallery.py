"""The HTML gallery and the contact sheet: what they show, that texts stay texts, that the filters work."""

import dataclasses
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from data_gen import preview, verify
from data_gen.__main__ import main
from data_gen.records import gallery
from data_gen.records.dataset import Dataset
from tests.data_gen.conftest import SMALL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# A browser that neither draws on a screen nor talks to anyone.
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
CHROMIUM_FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
CHROMIUM_FLAGS += ["--virtual-time-budget=4000", "--window-size=1400,1600"]


@pytest.fixture(scope="module")
def dataset(fake_blender, tmp_path_factory):
    """Twelve pairs with one to three differences and a gallery."""
    out = tmp_path_factory.mktemp("gallery") / "set"
    flags = ["--num_pairs=12", "--differences=0-3", f"--blender_python={fake_blender}", "--preview"]
    assert main([*SMALL, *flags, f"--out={out}"]) == 0
    return out


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_the_gallery_shows_every_pair_with_its_boxes_and_counts_all(dataset):
    data = data_of((dataset / "preview.html").read_text())
    pairs = list(Dataset(dataset).pairs(["train", "test"]))
    assert [pair["id"] for pair in data["pairs"]] == [pair.id for pair in pairs]
    for shown, pair in zip(data["pairs"], pairs, strict=True):
        assert [item["kind"] for item in shown["differences"]] == list(pair.kinds)
        for item, box in zip(shown["differences"], pair.boxes, strict=True):
            np.testing.assert_allclose(item["boxes"][0], box, atol=1e-5)
        assert all(uri.startswith("data:image/webp;base64,") for uri in shown["images"])
    stats = data["stats"]
    assert sum(number for _, number in stats["kinds"]) == sum(len(pair.kinds) for pair in pairs)
    assert sum(map(sum, stats["positions"])) == sum(stats["sides"]) == sum(stats["distances"])
    assert sum(number for _, number in stats["objects"]) == len(pairs)


def test_the_gallery_needs_nothing_but_itself(dataset):
    page = (dataset / "preview.html").read_text()
    assert not re.search(r'(src|href)="', page) and "@import" not in page and "fetch(" not in page


def test_a_text_cannot_become_markup(dataset):
    pair = Dataset(dataset).pair("train", 0)
    evil = dataclasses.replace(pair, id="</script><script>alert(1)</script>&<img src=x onerror=alert(1)>")
    text = gallery.script_json(gallery.describe_pairs([evil]))
    assert "<" not in text and ">" not in text and json.loads(text)[0]["id"] == evil.id


def test_a_gallery_of_a_large_dataset_shows_pairs_from_all_of_it(dataset, tmp_path):
    gallery.write_gallery(Dataset(dataset), tmp_path / "few.html", max_pairs=3)
    data = data_of((tmp_path / "few.html").read_text())
    assert len(data["pairs"]) == 3 and data["pairs"][0]["id"].endswith("train-000000")
    assert data["pairs"][-1]["id"].endswith("test-000001")
    assert sum(number for _, number in data["stats"]["objects"]) == 14


def test_difficulty_is_relative_to_the_pairs_shown():
    levels = gallery.difficulty_levels([10.0, np.inf, 500.0, 100.0])
    assert levels == ["hard", "", "easy", "medium"]


DRIVE = """
<script>
const seen = {};
const count = () => document.querySelectorAll("#pairs .pair").length;
const press = (group, name) =>
  [...document.querySelectorAll(`#${group} button`)].find(button => button.dataset.value == name).click();
seen.all = count();
press("kinds", "KIND"); seen.kind = count(); press("kinds", "KIND");
press("counts", "2"); seen.two = count(); press("counts", "2");
press("levels", "hard"); seen.hard = count(); press("levels", "hard");
byId("order").value = "small"; show();
seen.smallest = document.querySelector("#pairs .name-of-pair span").textContent;
byId("blink").click(); seen.blinking = getComputedStyle(document.querySelector(".view.b")).animationName;
document.querySelector("#pairs .pair").click();
seen.open = byId("dialog").open; seen.first = byId("stage").querySelector("b").textContent;
setTimeout(() => {
  seen.later = byId("stage").querySelector("b").textContent;
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  seen.next = document.querySelector("#story .name-of-pair span").textContent;
  document.title = JSON.stringify(seen);
}, 700);
</script>
"""


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_filters_order_and_blinking_work_in_a_browser(dataset, tmp_path):
    page = (dataset / "preview.html").read_text()
    pairs = data_of(page)["pairs"]
    kind = pairs[-1]["differences"][0]["kind"] if pairs[-1]["differences"] else "add"
    (tmp_path / "driven.html").write_text(page + DRIVE.replace("KIND", kind))
    result = subprocess.run(
        [
            CHROMIUM,
            *CHROMIUM_FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"file://{tmp_path / 'driven.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    seen = json.loads(re.search(r"<title>(\{.*?\})</title>", result.stdout)[1])
    kinds = [{item["kind"] for item in pair["differences"]} for pair in pairs]
    assert seen["all"] == 14
    assert seen["kind"] == sum(kind in present for present in kinds)
    assert seen["two"] == sum(len(pair["differences"]) == 2 for pair in pairs)
    assert seen["hard"] == sum(pair["level"] == "hard" for pair in pairs)
    sides = {pair["id"]: min((item["side"] for item in pair["differences"]), default=2.0) for pair in pairs}
    assert sides[seen["smallest"]] == min(sides.values())
    assert seen["blinking"] == "blink" and seen["open"]
    assert {seen["first"], seen["later"]} == {"A", "B"}
    assert seen["next"] != seen["smallest"]


def test_a_contact_sheet_shows_every_pair_with_its_boxes(dataset, tmp_path):
    out = tmp_path / "pairs.png"
    assert preview.main([str(dataset), f"--out={out}", "--count=5", "--columns=1"]) == 0
    image = np.asarray(Image.open(out))
    assert image.shape[1] == 2 * 64 + 3 * preview.GAP
    shown = Dataset(dataset)
    for kind in {kind for index in range(5) for kind in shown.pair("train", index).kinds}:
        color = tuple(bytes.fromhex(gallery.color_of(kind)[1:]))
        assert (image == color).all(axis=-1).any(), kind


def test_differences_that_nobody_described_are_counted_by_kind(dataset):
    pair = next(pair for pair in Dataset(dataset).pairs(["train"]) if not len(pair.boxes))
    assert preview.sentences(pair) == [("no difference", "black")]
    box = np.array([[0.1, 0.1, 0.4, 0.4]] * 3)
    untold = dataclasses.replace(
        pair, kinds=("add", "change", "change"), descriptions=("a cube came", "", ""), boxes=box
    )
    assert [text for text, _ in preview.sentences(untold)] == ["a cube came", "2 x change"]


def test_large_pictures_are_shrunk_and_boxes_go_with_them(dataset):
    pair = Dataset(dataset).pair("train", 0)
    file = io.BytesIO()
    Image.new("RGB", (1600, 800)).save(file, "PNG")
    large = dataclasses.replace(
        pair,
        pictures=(file.getvalue(),) * 2,
        boxes=np.array([[0.5, 0.5, 1, 1], [0.1, 0.1, 0.1 + 1 / 1600, 0.1 + 1 / 800]]),
        kinds=("add", "add"),
        descriptions=("", "a speck came"),
    )
    drawn = np.asarray(preview.draw_pair(large))
    assert drawn.shape[1] == 2 * 640 + 3 * preview.GAP
    corner = preview.GAP + 160, preview.GAP + 320  # the box's, in A
    assert tuple(drawn[corner]) == (0x2B, 0x9A, 0x66) and tuple(drawn[corner[0] - 1, corner[1]]) == (
        255,
        255,
        255,
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split=val"], "has no split 'val'; it has train, test"),
        (["--first=99"], "has pairs 0 to 11 in split 'train'"),
    ],
)
def test_a_preview_of_what_is_not_there_is_an_error(flags, message, dataset, tmp_path, capsys):
    assert preview.main([str(dataset), f"--out={tmp_path / 'x.png'}", *flags]) == 2
    assert message in capsys.readouterr().err
    assert preview.main([str(tmp_path), f"--out={tmp_path / 'x.html'}"]) == 2
    assert "is not a dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("/dev/null/x.html", "nothing can be written in /dev/null"),
        ("/tmp/x.txt", "expected a file that ends in one of .html, .png"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_drawn(out, message, dataset, capsys):
    assert preview.main([str(dataset / "nowhere"), f"--out={out}"]) == 2
    assert f"--out={out}" in (error := capsys.readouterr().err) and message in error


def test_dataset_and_picture_are_found_in_the_home_folder(dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pairs").symlink_to(dataset)
    assert preview.main(["~/pairs", "--out=~/new/x.png", "--count=1"]) == 0
    assert (tmp_path / "new" / "x.png").exists()
    assert verify.main(["--data=~/pairs"]) == 0


def test_a_preview_can_be_added_to_a_complete_dataset(dataset, fake_blender):
    (dataset / "preview.html").unlink()
    flags = ["--num_pairs=12", "--differences=0-3", f"--blender_python={fake_blender}", "--preview"]
    assert main([*SMALL, *flags, f"--out={dataset}"]) == 0
    assert (dataset / "preview.html").exists()
