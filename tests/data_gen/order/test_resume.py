"""A run that is killed or stopped at any moment goes on where it was: no pair is lost, none is made twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from data_gen.__main__ import main
from tests.data_gen.conftest import SMALL, assert_same_datasets, read
from tests.helpers.paths import ROOT

WORKERS = 2


@pytest.fixture
def order(fake_blender):
    """A small order without an --out."""
    return [*SMALL, f"--blender_python={fake_blender}", f"--workers={WORKERS}", "--num_pairs=8"]


@pytest.fixture(scope="module")
def whole_run(fake_blender, tmp_path_factory):
    """What the order gives in one go, and the number of pictures that it renders for that."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        log = behave(patch, folder)
        flags = [*SMALL, f"--blender_python={fake_blender}", "--num_pairs=8", f"--out={folder / 'set'}"]
        assert main(flags) == 0
    return folder / "set", log.read_text().count("picture")


@pytest.fixture
def uninterrupted(whole_run):
    return whole_run[0]


def behave(monkeypatch, tmp_path, **behaviour):
    """Tells fake workers what to do (see fake_worker.py); returns their log."""
    log = tmp_path / "workers.log"
    log.touch()
    monkeypatch.setenv("FAKE_WORKER", json.dumps({"log": str(log), **behaviour}))
    return log


def start(order, out):
    return subprocess.Popen(
        [sys.executable, "-m", "data_gen", *order, f"--out={out}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        # A shell's background jobs, such as these tests may be one of, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


# When a run is killed: as soon as this is on disk.
MOMENTS = {
    "while planning": "set.staging/shard-*/plan.jsonl",
    "while the first pairs render": "set.staging/shard-*/renderer.json",
    "after a few pairs": "set.staging/shard-*/t*/000002.json",
    "in the middle of a pair": "set.staging/shard-*/train/000005.image_a.png",
    "while packing": "set.packing",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_at_this_moment_goes_on(moment, order, whole_run, tmp_path, monkeypatch):
    uninterrupted, pictures = whole_run
    log = behave(monkeypatch, tmp_path, delay=0.02)
    process = start(order, tmp_path / "set")
    wait_for(process, tmp_path, MOMENTS[moment])
    process.kill()  # SIGKILL: nothing can be tidied up
    process.wait()
    if moment != "while packing":  # it may have ended between the look and the kill
        assert not (tmp_path / "set").exists()
    assert main([*order, f"--out={tmp_path / 'set'}"]) == 0
    assert_same_datasets(uninterrupted, tmp_path / "set")
    assert not list(tmp_path.glob("set.*"))
    # A finished pair is never rendered again: at most those under way at the kill were.
    under_way = 2 * 5 * WORKERS  # a pair's two pictures, of up to five attempts
    assert pictures <= log.read_text().count("picture") <= pictures + under_way


def wait_for(process, folder, pattern):
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_run_killed_three_times_at_random_moments_gives_the_same(
    seed, order, uninterrupted, tmp_path, monkeypatch
):
    behave(monkeypatch, tmp_path, delay=0.05)
    rng = random.Random(seed)
    for _ in range(3):
        process = start(order, tmp_path / "set")
        time.sleep(rng.uniform(0.2, 3.0))
        process.kill()
        process.wait()
    assert main([*order, f"--out={tmp_path / 'set'}"]) == 0
    assert_same_datasets(uninterrupted, tmp_path / "set")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_leaves_no_workers(
    number, order, uninterrupted, tmp_path, monkeypatch
):
    log = behave(monkeypatch, tmp_path, delay=0.05)
    process = start(order, tmp_path / "set")
    wait_for(process, tmp_path, "set.staging/shard-*/t*/000001.json")
    process.send_signal(number)
    assert process.wait(timeout=300) == 1
    assert "the same command goes on" in process.stderr.read()
    before = log.read_text()
    time.sleep(0.3)
    assert log.read_text() == before  # nobody draws on
    assert main([*order, f"--out={tmp_path / 'set'}"]) == 0
    assert_same_datasets(uninterrupted, tmp_path / "set")


@pytest.mark.parametrize("how", ["die_once", "hang_once"])
def test_a_pair_whose_worker_fails_once_is_made_all_the_same(
    how, order, uninterrupted, tmp_path, monkeypatch, capsys
):
    behave(monkeypatch, tmp_path, **{how: "train-000003"})
    flags = ["--workers=1", "--time_limit=5", f"--out={tmp_path / 'set'}"]
    assert main([*order, *flags]) == 0
    assert "train pair 3 is tried again: render worker" in capsys.readouterr().err
    assert_same_datasets(uninterrupted, tmp_path / "set")


def test_a_pair_that_kills_every_worker_is_skipped_and_reported_with_its_seed(
    order, uninterrupted, tmp_path, monkeypatch, capsys
):
    behave(monkeypatch, tmp_path, die="train-000003")
    assert main([*order, f"--out={tmp_path / 'set'}"]) == 0
    message = capsys.readouterr().err
    assert "train pair 3 is skipped" in message and "tiny-11-train-000003" in message
    ids = [record["id"] for record in read(tmp_path / "set", "train")]
    assert ids == [record["id"] for record in read(uninterrupted, "train") if record["id"][-1:] != b"3"]
    metadata = json.loads((tmp_path / "set" / "metadata.json").read_text())
    assert list(metadata["skipped_pairs"]) == ["tiny-11-train-000003"]
    assert "out of luck" in metadata["skipped_pairs"]["tiny-11-train-000003"]


def test_more_failures_than_allowed_keep_the_dataset_from_being_packed(
    order, uninterrupted, tmp_path, monkeypatch, capsys
):
    behave(monkeypatch, tmp_path, die="train-000003")
    assert main([*order, f"--out={tmp_path / 'set'}", "--max_skipped=0"]) == 1
    assert "1 of 10 pairs are missing" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    (skipped,) = tmp_path.glob("set.staging/shard-*/skipped.jsonl")
    line = json.loads(skipped.read_text())
    assert (line["seed"], line["split"], line["index"]) == (11, "train", 3)
    behave(monkeypatch, tmp_path)  # whatever killed the workers is mended
    assert main([*order, f"--out={tmp_path / 'set'}", "--max_skipped=0"]) == 0
    assert_same_datasets(uninterrupted, tmp_path / "set")


def test_a_renderer_that_never_works_is_given_up_soon(order, tmp_path, monkeypatch, capsys):
    log = behave(monkeypatch, tmp_path, die="tiny")
    assert main([*order, f"--out={tmp_path / 'set'}", "--num_pairs=40", "--max_skipped=42"]) == 1
    assert log.read_text().count("start") < 30
    assert "out of luck" in capsys.readouterr().err and not (tmp_path / "set").exists()


@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_a_plan_cut_off_in_the_middle_of_a_line_is_planned_on(order, uninterrupted, tmp_path):
    out = tmp_path / "set"
    assert main([*order, f"--out={out}", "--stage=plan"]) == 0
    (plan,) = tmp_path.glob("set.staging/shard-*/plan.jsonl")
    whole = plan.read_bytes()
    plan.write_bytes(whole[: len(whole) // 2])
    assert main([*order, f"--out={out}", "--stage=plan"]) == 0
    assert plan.read_bytes() == whole
