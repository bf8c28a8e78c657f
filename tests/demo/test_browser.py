"""The demo's page in a real Chromium: `make test-demo`. Answers are scripted; no model computes."""

import base64
import importlib.util
import io
import os
import pathlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from PIL import Image

from dig_jax.data.records import open_pairs
from dig_jax.demo.house import House
from dig_jax.demo.pictures import png
from dig_jax.demo.records import Records
from dig_jax.demo.samples import differences_task, open_samples
from dig_jax.session import Session
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.scripted_batcher import ScriptedBatcher

CHROMIUM = pathlib.Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("gradio", "playwright"))),
        reason="needs gradio and playwright: `make test-demo`",
    ),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM} (apt-get install chromium)"),
]
PAIR = draw_pair(0, size=(64, 96), num_differences=1)
SEEN = [0.25, 0.25, 0.75, 0.5]  # by the model, in both pictures
RED, GREEN = (239, 68, 68), (34, 197, 94)
WAIT = 300_000  # ms, on a busy machine


@pytest.fixture(scope="module")
def house(tiny_qwen3vl_thinking: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    data = tmp_path_factory.mktemp("pairs") / "data"
    write_pairs(data, {"test": [PAIR, *(draw_pair(k, size=(64, 96)) for k in range(1, 10))]})
    session = Session(epath.Path(tiny_qwen3vl_thinking))
    session.step = 7
    task = differences_task(session)
    samples, _ = open_samples(task, "", str(data), "test", None)
    box = session.desk.boxes.write(np.array([SEEN]), PAIR.size)
    batcher: Any = ScriptedBatcher(
        session, [f"It is <b>there</b>.\n</think>\n\n{box}", "hm</think>[]"], step=7
    )
    records = Records(tmp_path_factory.mktemp("records") / "kept")
    return House(session, batcher, task, samples, records, "tiny")


@pytest.fixture(scope="module")
def address(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patched.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        from dig_jax.demo.page import launch, make_page

        page = make_page(house)
        yield launch(page, "127.0.0.1", 0)
        page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Any]:
    """A fresh tab with the page, which must not have asked anybody else for anything, nor failed."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(WAIT)
        page = context.new_page()
        elsewhere, failed = [], []
        page.on("request", lambda asked: elsewhere.append(asked.url) if is_elsewhere(asked.url) else None)
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#viewer .stage")
        yield page
        assert (elsewhere, failed) == ([], [])


def is_elsewhere(url: str) -> bool:
    return not re.match(r"(https?|ws)://127\.0\.0\.1:|data:|blob:", url)


def upload(tab: Any, *files: bytes, names: tuple[str, str] = ("a.png", "b.png")) -> None:
    for which, name, data in zip(("first", "second"), names, files, strict=False):
        tab.set_input_files(f"#{which} input[type=file]", {"name": name, "mimeType": "", "buffer": data})
        tab.wait_for_selector(f"#{which} img")


def asked(tab: Any) -> None:
    """Presses the button, and waits for the whole answer."""
    tab.click("#go")
    tab.wait_for_function("!document.querySelector('#answers')?.innerText.includes('being written')")
    tab.wait_for_selector("#answers section")


def pixels(tab: Any, shows: str) -> np.ndarray:
    """What a canvas of the viewer has, uint8 [H, W, 3]."""
    tab.wait_for_selector(f"canvas[data-shows={shows}]")
    url = tab.eval_on_selector(f"canvas[data-shows={shows}]", "canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def box_of(image: np.ndarray, color: tuple[int, int, int]) -> list[float]:
    """Where a colour's frame is, in shares."""
    rows, columns = np.nonzero((image == color).all(axis=-1))
    height, width = image.shape[:2]
    ends = [
        columns.min() / width,
        rows.min() / height,
        (columns.max() + 1) / width,
        (rows.max() + 1) / height,
    ]
    return [float(end) for end in ends]


def test_uploaded_pictures_are_answered_and_boxes_lie_on_both_at_the_right_pixels(tab: Any) -> None:
    upload(tab, png(PAIR.image_a), png(PAIR.image_b))
    asked(tab)
    for shows, image in (("before", PAIR.image_a), ("after", PAIR.image_b)):
        seen = pixels(tab, shows)
        scale = seen.shape[0] // 64
        np.testing.assert_allclose(box_of(seen, RED), SEEN, atol=1 / seen.shape[0])
        middle = seen[scale // 2 :: scale, scale // 2 :: scale]
        inside = np.s_[20:28, 30:66]  # of the box, away from its frame
        assert np.array_equal(middle[inside], image[inside])
        assert not (seen == GREEN).all(axis=-1).any()
    told = tab.inner_text("#answers")
    assert "It is <b>there</b>." in told and "1 box" in told and "F1" not in told  # as text, no truth
    tab.uncheck("[data-show=predicted]")
    assert not (pixels(tab, "before") == RED).all(axis=-1).any()


def test_a_sample_shows_its_truth_its_reward_and_the_step_that_answered(tab: Any) -> None:
    assert "checkpoint of step 7" in tab.inner_text(".dig-head")
    tab.locator("#gallery .grid-container button").first.click()
    tab.wait_for_selector("#first img")
    tab.wait_for_selector("#second img")
    asked(tab)
    assert {"reward", "f1", "iou"} <= set(tab.inner_text("#answers dl").split())
    seen = pixels(tab, "after")
    line = 3 / seen.shape[0] + 0.01
    np.testing.assert_allclose(box_of(seen, GREEN), PAIR.boxes[0], atol=line)


def test_the_pictures_blink_and_one_lies_behind_a_slider(tab: Any) -> None:
    upload(tab, png(np.zeros((64, 96, 3), np.uint8)), png(np.full((64, 96, 3), 255, np.uint8)))
    asked(tab)
    tab.click("[data-mode=slider]")
    tab.eval_on_selector(".share", "e => { e.value = 250; e.dispatchEvent(new Event('input')); }")
    row = pixels(tab, "slider")[4, :, 0]  # above the box
    assert row[: len(row) // 4 - 2].max() == 0 and row[len(row) // 4 + 2 :].min() == 255
    tab.click("[data-mode=blink]")
    of_first = "document.querySelector('canvas').getContext('2d').getImageData(1, 1, 1, 1).data[0]"
    for value in (0, 255, 0):
        tab.wait_for_function(f"{of_first} === {value}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "Put in two pictures first"),
        ((png(PAIR.image_a),), "The second picture is missing"),
        ((png(PAIR.image_a), png(PAIR.image_b[:, :-1])), "differ in size, 96x64 and 95x64"),
        ((png(PAIR.image_a), b"%PDF-1.7 no picture"), "The second picture can not be read"),
    ],
)
def test_what_is_wrong_with_the_pictures_is_said_in_words(tab: Any, files: Any, message: str) -> None:
    upload(tab, *files)
    tab.click("#go")
    tab.wait_for_selector("#status .error")
    assert message in tab.inner_text("#status .error")


def test_an_answer_that_fails_leaves_an_error_and_nothing_that_looks_as_if_it_went_on(
    tab: Any, house: House
) -> None:
    batcher: Any = house.batcher
    upload(tab, png(PAIR.image_a), png(PAIR.image_b))
    batcher.error = RuntimeError("a secret of the machine")
    try:
        tab.click("#go")
        tab.wait_for_selector("#status .error")
    finally:
        batcher.error = None
    assert "the log of the demo says why" in tab.inner_text("#status")
    assert "being written" not in tab.inner_text("#answers")


def test_two_tabs_are_answered_at_once_and_one_that_stops_gives_its_rows_back(
    tab: Any, house: House, address: str
) -> None:
    batcher: Any = house.batcher
    other = tab.context.new_page()
    other.goto(address)
    for page in (tab, other):
        page.wait_for_selector("#viewer .stage")
        upload(page, png(PAIR.image_a), png(PAIR.image_b))
    before = len(batcher.tickets)
    batcher.goes_on.clear()
    try:
        for page in (tab, other):
            page.click("#go")
            page.wait_for_function("document.querySelector('#answers').innerText.includes('being written')")
        mine, others = batcher.tickets[before:]
        assert not mine.over and not others.over
        tab.click("#stop")
        tab.wait_for_function("document.querySelector('#status').innerText.includes('Stopped')")
        while not mine.over:
            tab.wait_for_timeout(20)
        assert not others.over
    finally:
        batcher.goes_on.set()
    other.wait_for_function("!document.querySelector('#answers').innerText.includes('being written')")
    other.close()


def test_boxes_are_corrected_and_the_pair_is_saved_as_a_record(tab: Any, house: House) -> None:
    upload(tab, png(PAIR.image_a), png(PAIR.image_b))
    asked(tab)
    tab.click("[data-do=clear]")
    x0, y0, x1, y1 = PAIR.boxes[0].tolist()
    tab.locator("canvas[data-shows=before]").scroll_into_view_if_needed()
    place = tab.locator("canvas[data-shows=before]").bounding_box()
    corners = [
        (place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in ((x0, y0), (x1, y1))
    ]
    tab.mouse.move(*corners[0])
    tab.mouse.down()
    tab.mouse.move(*corners[1], steps=3)
    tab.mouse.up()
    tab.click("[data-do=save]")
    tab.wait_for_function("document.querySelector('#status').innerText.includes('1 box')")
    assert len(read := open_pairs(house.records.dataset, "train")) == 1
    pair = read[0]
    assert np.array_equal(pair.image_b, PAIR.image_b)
    np.testing.assert_allclose(pair.boxes, PAIR.boxes, atol=0.01)


def test_an_earlier_answer_can_be_looked_at_again(tab: Any) -> None:
    for image in (PAIR.image_a, PAIR.image_b):
        upload(tab, image := png(image), image)
        asked(tab)
        for which in ("first", "second"):
            tab.click(f"#{which} button[aria-label='Remove Image'], #{which} button[title='Remove Image']")
    tab.click("text=History")
    tab.locator("#history input[type=radio]").last.check()
    expected = PAIR.image_a[2, 2]
    tab.wait_for_function(
        "wanted => document.querySelector('canvas').getContext('2d').getImageData(16, 16, 1, 1)"
        ".data.slice(0, 3).join() === wanted",
        arg=",".join(map(str, expected)),
    )


def test_on_a_narrow_screen_nothing_sticks_out(tab: Any) -> None:
    tab.set_viewport_size({"width": 360, "height": 740})
    upload(tab, png(PAIR.image_a), png(PAIR.image_b))
    asked(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    widths = tab.eval_on_selector_all("canvas", "all => all.map(e => e.getBoundingClientRect().right)")
    assert len(widths) == 2 and max(widths) <= 360
