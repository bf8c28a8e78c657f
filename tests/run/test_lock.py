"""One run per workdir, on a disk and in a bucket; what a dead run left behind does not stop the next."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import fsspec
import pytest
from etils import epath
from etils.epath import backend

from dig_jax.run import lock
from tests.helpers.fake_gcs import FakeGCS


@pytest.fixture(params=["disk", "bucket", "real client"])
def workdir(request, tmp_path, monkeypatch) -> epath.Path:
    """On a disk; in a bucket that is a folder; in one behind Google's API."""
    if request.param == "disk":
        return epath.Path(tmp_path / "run")
    if request.param == "bucket":
        return epath.Path(request.getfixturevalue("bucket")) / "run"
    gcsfs = pytest.importorskip("gcsfs", reason="needs the gcs extra")
    for name, value in FakeGCS().environment().items():
        monkeypatch.setenv(name, value)
    for protocol in ("gcs", "gs"):
        fsspec.register_implementation(protocol, gcsfs.GCSFileSystem, clobber=True)
    gcsfs.GCSFileSystem.clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    return epath.Path("gs://bucket/run")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What takes seconds takes less. A run that lives is never silent for so long that it counts as dead."""
    for name, seconds in (("BEAT", 0.1), ("STALE", 1e9), ("SETTLE", 0.05)):
        monkeypatch.setattr(lock, f"{name}_SECONDS", seconds)


@pytest.fixture
def silence(monkeypatch) -> float:
    """The seconds after which a silent run counts as dead, where a dead one is waited for."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.6)
    return 0.6


def left_behind(workdir: epath.Path, **changes: object) -> None:
    """A file as a killed run leaves it; `changes` say who that was."""
    workdir.mkdir(parents=True, exist_ok=True)
    holder = dataclasses.replace(lock.Holder.this(), host="elsewhere", pid=2**22 + 1, **changes)
    (workdir / lock.FILE).write_text(json.dumps(dataclasses.asdict(holder) | {"beats": 3}))


def test_a_second_run_is_refused_with_the_host_and_process_of_the_first(workdir):
    with lock.held(workdir):
        expected = rf"in use by the run of process {os.getpid()} on host .*, since 20.*remove .*/running.json"
        with pytest.raises(ValueError, match=expected), lock.held(workdir):
            pass
        assert (workdir / lock.FILE).exists()
    with lock.held(workdir):  # and the first one gave it up
        pass


def test_of_many_at_once_one_gets_it(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    start, answered, got = threading.Barrier(8), threading.Barrier(8), []

    def ask():
        start.wait()
        try:
            with lock.held(workdir):
                got.append(True)
                answered.wait(300)  # all others have asked by then
        except ValueError:
            got.append(False)
            answered.wait(300)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(got) == [False] * 7 + [True]


def test_a_run_of_this_machine_that_was_killed_does_not_hold_for_a_moment(workdir):
    left_behind(workdir)
    with lock.held(workdir):
        pass


def test_a_process_of_the_same_id_that_began_later_is_another(workdir):
    me = lock.Holder.this()
    workdir.mkdir(parents=True, exist_ok=True)
    file = json.dumps(dataclasses.asdict(dataclasses.replace(me, started=me.started - 1)))
    (workdir / lock.FILE).write_text(file)
    with lock.held(workdir):
        pass


def test_a_process_that_ended_but_is_not_waited_for_is_gone():
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 60
    while lock._started(zombie.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert zombie.returncode is None and lock._started(zombie.pid) is None
    zombie.wait()


def test_a_dead_run_of_another_machine_is_told_by_its_silence(workdir, silence):
    left_behind(workdir, place="another machine")
    before = time.monotonic()
    with lock.held(workdir):
        assert time.monotonic() - before >= silence


def test_a_run_of_another_machine_that_lives_holds_the_workdir(workdir, monkeypatch):
    with lock.held(workdir):
        monkeypatch.setattr(lock, "_place", lambda: "another machine")
        with (
            pytest.raises(ValueError, match=rf"in use by the run of process {os.getpid()} on"),
            lock.held(workdir),
        ):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}'])
def test_a_damaged_file_is_one_of_a_dead_run(workdir, content, silence):
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / lock.FILE).write_text(content)
    with lock.held(workdir):
        pass


def test_who_was_silent_for_so_long_that_another_took_over_ends_at_once(workdir, monkeypatch, capfd):
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    with lock.held(workdir):
        deadline = time.monotonic() + 30
        while not ended.wait(0.5) and time.monotonic() < deadline:
            left_behind(workdir)  # again where the holder touched it at the same moment
        assert ended.is_set()
    assert "running.json is gone, or another run's" in capfd.readouterr().err
    assert (workdir / lock.FILE).exists()  # it is not this one's to remove


def test_who_made_the_file_of_a_bucket_but_was_not_told_so_holds_it(bucket, monkeypatch):
    workdir = epath.Path(bucket) / "run"
    filesystem = type(lock._bucket(workdir))
    create = filesystem.pipe_file

    def answer_gets_lost(self, *args, **options):
        create(self, *args, **options)
        create(self, *args, **options)  # the client asks again

    monkeypatch.setattr(filesystem, "pipe_file", answer_gets_lost)
    with lock.held(workdir):
        assert (workdir / lock.FILE).exists()


def test_a_workdir_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(ValueError, match=r"--workdir=.*/run is a file: name a folder"),
        lock.held(epath.Path(tmp_path / "run")),
    ):
        pass


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path):
    with pytest.raises(KeyError), lock.held(epath.Path(tmp_path / "run")):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_disk_without_links_will_do(tmp_path, monkeypatch):
    def link(*args):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with (
        lock.held(epath.Path(tmp_path)),
        pytest.raises(ValueError, match="in use"),
        lock.held(epath.Path(tmp_path)),
    ):
        pass
