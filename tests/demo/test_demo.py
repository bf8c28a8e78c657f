"""The demo without its page: pictures, answers as they come, samples, and pairs saved as records."""

import asyncio
import base64
import contextlib
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from PIL import Image

from data_gen import import_pairs
from dig_jax.data.records import open_pairs
from dig_jax.demo import looks, pictures, records
from dig_jax.demo.__main__ import main
from dig_jax.demo.answers import Progress, Told, growing_boxes
from dig_jax.demo.house import Chosen, House, ask, report
from dig_jax.demo.looks import Entry
from dig_jax.demo.pictures import png, read_two, shown_url
from dig_jax.demo.records import Records
from dig_jax.demo.samples import Samples, differences_task, open_samples
from dig_jax.rollout.tickets import Closed, Full
from dig_jax.session import Session
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.scripted_batcher import ScriptedBatcher

PAIR = draw_pair(0, size=(64, 96), num_differences=2)
GREEDY: dict[str, Any] = {
    "greedy": True,
    "temperature": 1.0,
    "top_p": 0.9,
    "count": 3,
    "seed": 0,
    "most": None,
    "budget": 0,
    "question": None,
}
SAMPLED = GREEDY | {"greedy": False, "count": 2, "temperature": 0.7}


def saved(folder: Path, *images: np.ndarray | bytes) -> list[str]:
    """Files of pictures, as they were uploaded."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, image in enumerate(images):
        path = folder / f"{number}.png"
        path.write_bytes(image if isinstance(image, bytes) else png(image))
        paths.append(str(path))
    return paths


@pytest.fixture(scope="module")
def session(tiny_qwen3vl: Path) -> Session:
    return Session(epath.Path(tiny_qwen3vl), dtype="float32")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "data"
    write_pairs(folder, {"test": [PAIR, *(draw_pair(k, size=(64, 96)) for k in range(1, 10))]})
    return folder


@pytest.fixture
def house(session: Session, dataset: Path, tmp_path: Path) -> House:
    task = differences_task(session)
    samples, _ = open_samples(task, "", str(dataset), "test", None)
    text = session.desk.boxes.write(PAIR.boxes, PAIR.size)
    batcher: Any = ScriptedBatcher(session, [text, "[]"], step=7)
    return House(session, batcher, task, samples, Records(tmp_path / "records"), "tiny")


def entries(house: House, paths: list[str | None], known: Any = None, **how: Any) -> list[Entry]:
    """All that the page is told of a question."""

    async def collect() -> list[Entry]:
        return [one async for one in ask(house, (paths[0], paths[1]), known, Chosen(**how or GREEDY), 1)]

    return asyncio.run(collect())


# Pictures


def test_pictures_arrive_pixel_by_pixel_and_upright(tmp_path: Path) -> None:
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(PAIR.image_a).save(turned, exif=exif)
    first, second = read_two(saved(tmp_path / "two", PAIR.image_a, PAIR.image_b))
    assert np.array_equal(first, PAIR.image_a) and np.array_equal(second, PAIR.image_b)
    assert read_two([str(turned)] * 2)[0].shape == (96, 64, 3)


def test_a_large_picture_is_shrunk_on_its_way_to_the_screen_and_a_small_one_is_not() -> None:
    def of(url: str) -> tuple[int, int]:
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size

    assert of(shown_url(np.zeros((50, 3200, 3), np.uint8))) == (1600, 25)
    assert of(shown_url(PAIR.image_a)) == (96, 64)


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 3.6 gigapixels."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    empty = b"IDAT" + zlib.compress(b"")
    return data + struct.pack(">I", len(empty) - 4) + empty + struct.pack(">I", zlib.crc32(empty))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b"%PDF-1.7 no picture", "The second picture can not be read: it is no PNG, JPEG, WEBP"),
        (png(PAIR.image_a)[:-400], "The second picture can not be read: "),
        (bomb(), "The second picture has more than 33 million pixels"),
        (np.zeros((64, 95, 3), np.uint8), "differ in size, 96x64 and 95x64 pixels"),
    ],
)
def test_a_picture_that_is_of_no_use_is_refused_in_words(
    second: bytes | np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_two(saved(tmp_path / "two", PAIR.image_a, second))


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_MEGABYTES", 0)
    with pytest.raises(ValueError, match="The first picture is a file of more than 0 MB"):
        read_two(saved(tmp_path / "two", PAIR.image_a, PAIR.image_b))


def test_two_pictures_are_needed(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", PAIR.image_a)[0]
    with pytest.raises(ValueError, match="The second picture is missing"):
        read_two([one, None])
    with pytest.raises(ValueError, match="Put in two pictures first"):
        read_two([None, None])


# Answers


def test_boxes_show_up_one_by_one_while_their_list_is_written(session: Session) -> None:
    text = "[[0,0,500,500],[500,500,1000,1000]]"
    counts = [len(growing_boxes(text[:end], session.desk, (64, 96))) for end in range(len(text) + 1)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 2 and 1 in counts
    native = '[{"bbox_2d": [0,0,500,500], "label": "a cube"}, {"bbox_2d": [5'
    assert growing_boxes(native, session.desk, (64, 96)).tolist() == [[0, 0, 0.5, 0.5]]


def test_a_sample_is_scored_and_says_which_checkpoint_answered(house: House, tmp_path: Path) -> None:
    sample = house.samples.pair("data, test", 0)
    told = entries(house, saved(tmp_path / "two", PAIR.image_a, PAIR.image_b), sample, **SAMPLED)
    assert len(told) >= 2  # first the pictures
    assert told[0].progress.answers[0].boxes.shape == (0, 4) and not told[0].progress.complete
    last = told[-1]
    right, none = last.progress.answers
    assert right.terms and none.terms and last.progress.complete and last.progress.step == 7
    assert (right.terms["f1"], none.terms["f1"], none.terms["num_true"]) == (1, 0, 2)
    np.testing.assert_allclose(np.sort(right.boxes, axis=0), np.sort(PAIR.boxes, axis=0), atol=1e-3)
    assert last.truth == PAIR.boxes.tolist()
    words = (
        "1 \u00b7 drawn-0-00000 \u00b7 temperature 0.7 \u00b7 step 7 \u00b7 2, 0 boxes \u00b7 F1 1.00, 0.00"
    )
    assert last.label == words


def test_of_other_pictures_than_the_samples_no_truth_is_known(house: House, tmp_path: Path) -> None:
    sample = house.samples.pair("data, test", 0)
    last = entries(house, saved(tmp_path / "two", PAIR.image_b, PAIR.image_a), sample)[-1]
    assert last.truth is None and last.progress.answers[0].terms is None
    assert "own pictures" in last.label and looks.viewed(last)["truth"] is None


def test_greedy_answers_are_one_and_the_settings_reach_the_request(house: House, tmp_path: Path) -> None:
    paths = saved(tmp_path / "two", PAIR.image_a, PAIR.image_b)
    batcher: Any = house.batcher
    assert len(entries(house, paths)[-1].progress.answers) == 1
    entries(house, paths, **SAMPLED | {"seed": 5, "most": 9, "question": " What? "})
    entries(house, paths, **SAMPLED | {"seed": None})
    greedy, sampled, free = (request.settings for request in batcher.asked)
    assert (greedy.temperature, greedy.top_p, greedy.max_new_tokens) == (0, 1, None)
    assert (sampled.temperature, sampled.top_p, sampled.seed, sampled.max_new_tokens) == (0.7, 0.9, 5, 9)
    assert free.seed != sampled.seed
    text = house.session.opened.tokenizer.decode(batcher.asked[1].ids.tolist())
    assert "What?" in text and "Find every difference" not in text


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Full("8 requests"), "Too many questions are being answered"),
        (Closed("over"), "The demo is stopping"),
        (ValueError("the prompt has 9 tokens"), "The prompt has 9 tokens"),
        (RuntimeError("a secret of the machine"), "^The answer failed: the log of the demo says why"),
    ],
)
def test_what_goes_wrong_is_said_in_words(
    error: Exception, message: str, house: House, tmp_path: Path
) -> None:
    batcher: Any = house.batcher
    batcher.error = error
    with pytest.raises(ValueError, match=message):
        entries(house, saved(tmp_path / "two", PAIR.image_a, PAIR.image_b))


def test_who_leaves_early_gives_the_rows_back_and_holds_up_nobody(house: House, tmp_path: Path) -> None:
    batcher: Any = house.batcher
    paths = saved(tmp_path / "two", PAIR.image_a, PAIR.image_b)
    batcher.goes_on.clear()

    async def two() -> None:
        stuck = ask(house, (paths[0], paths[1]), None, Chosen(**GREEDY), 1)
        async with contextlib.aclosing(stuck):
            await anext(stuck)  # the pictures
            await anext(stuck)  # the first tokens
            assert not batcher.tickets[0].over
            batcher.goes_on.set()
            other = [one async for one in ask(house, (paths[0], paths[1]), None, Chosen(**GREEDY), 1)]
            assert other[-1].progress.complete
            batcher.goes_on.clear()
        assert batcher.tickets[0].over

    asyncio.run(two())


def test_texts_of_a_model_are_text_on_the_page() -> None:
    told = Told(thought="<b>bold</b>", content="</pre><script>alert(1)</script>")
    page = looks.answers_page(
        Entry(1, (PAIR.image_a, PAIR.image_b), ("", ""), None, Progress((told,), None), "greedy")
    )
    assert "<script>" not in page and "<b>bold" not in page and "&lt;script&gt;" in page
    assert "<i>" not in looks.status("no <i>picture</i>", "error")


# Samples


def test_samples_are_shown_by_pages_with_how_many_differences_they_have(house: House) -> None:
    shown = house.samples.page("data, test", 0)
    assert house.samples.pages("data, test") == 2 and len(shown) == 8
    assert [text for _, text in shown[:2]] == ["1: 2 differences", "2: 1 difference"]
    assert [text for _, text in house.samples.page("data, test", 1)] == [
        "9: 1 difference",
        "10: 1 difference",
    ]


def test_a_runs_own_pairs_may_be_gone_and_what_is_asked_for_may_not(house: House) -> None:
    samples, notes = open_samples(house.task, "no/such/data", None, "test", None)
    assert samples == Samples({}) and "no held-out pairs to try" in notes[0]
    with pytest.raises(FileNotFoundError, match="no/such/data"):
        open_samples(house.task, "", "no/such/data", "test", None)
    with pytest.raises(FileNotFoundError, match="--puzzles=no"):
        open_samples(house.task, "", None, "test", Path("no"))


# Records


def in_this_process(pairs: Path, out: Path) -> None:
    """The command, without a process of its own."""
    assert import_pairs.main([f"--pairs={pairs}", f"--out={out}"]) == 0


def test_a_reported_pair_is_a_record_that_is_read_back_and_scored(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "import_pairs", in_this_process)
    paths = saved(tmp_path / "two", PAIR.image_a, PAIR.image_b)
    entry = entries(house, paths)[-1]
    said = report(house, entry, {"id": 1, "boxes": [PAIR.boxes[0].tolist()]})
    assert "is saved, with 1 box. 1 in" in said
    said = report(house, entry, {"id": 1, "boxes": PAIR.boxes.tolist()})
    folder = house.records.dataset
    assert "replaces what was saved of it before, with 2 boxes. 1 in" in said and str(folder) in said

    assert len(read := open_pairs(folder, "train")) == 1
    pair = read[0]
    assert np.array_equal(pair.image_a, PAIR.image_a) and np.array_equal(pair.image_b, PAIR.image_b)
    np.testing.assert_allclose(pair.boxes, PAIR.boxes, atol=1e-5)
    example = house.task.open(folder, "train")[0]
    text = house.session.desk.boxes.write(PAIR.boxes, PAIR.size)
    assert house.task.score([text], [example]).terms["f1"].tolist() == [1]


@pytest.mark.parametrize(
    "data", [{"id": 2, "boxes": []}, {"id": 1, "boxes": [[0, 1]]}, {"id": 1, "boxes": [["x"] * 4]}, {"id": 1}]
)
def test_a_report_that_makes_no_sense_is_refused_and_nothing_is_written(
    data: dict[str, Any], house: House, tmp_path: Path
) -> None:
    entry = entries(house, saved(tmp_path / "two", PAIR.image_a, PAIR.image_b))[-1]
    assert 'role="alert"' in report(house, entry, data)
    assert 'role="alert"' in report(house, None, data)
    assert not house.records.folder.exists()


@pytest.mark.slow
def test_a_box_in_which_nothing_changed_is_refused_by_the_command_and_the_others_stay(tmp_path: Path) -> None:
    """By the real command, in a process of its own."""
    kept = Records(tmp_path / "records")
    assert kept.add((PAIR.image_a, PAIR.image_b), PAIR.boxes).pairs == 1
    with pytest.raises(ValueError, match="box 0"):
        kept.add((PAIR.image_a, PAIR.image_a), PAIR.boxes)
    assert kept.add((PAIR.image_b, PAIR.image_a), PAIR.boxes).pairs == 2
    assert len(open_pairs(kept.dataset, "train")) == 2
    assert len([json.loads(line) for line in (kept.folder / "pairs.jsonl").open()]) == 2


# The command


def test_without_gradio_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main([f"--model={tmp_path}"])
    assert "pip install 'dig_jax[demo]'" in capsys.readouterr().err
