"""Render workers that die, hang or fail are replaced, and one bad pair does not cost the others."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from data_gen.build import FinishedPair, PairFailed
from data_gen.crew import Crew
from data_gen.render import Worker, WorkerError
from data_gen.staging import Staging

FAKE = Path(__file__).with_name("fake_worker.py")


@pytest.fixture
def worker(tmp_path):
    with Worker([sys.executable, str(FAKE), str(tmp_path / "starts")], timeout=2.0) as worker:
        yield worker


def test_a_worker_that_dies_is_replaced_and_its_last_words_are_quoted(worker):
    assert worker.ask({"op": "echo"})["process"] == 1
    with pytest.raises(WorkerError, match=r"died.*\n.*out of luck"):
        worker.ask({"op": "die"})
    assert worker.ask({"op": "echo"})["process"] == 2


def test_a_worker_that_hangs_is_killed_after_the_timeout(worker):
    start = time.monotonic()
    with pytest.raises(WorkerError, match="no reply for 2 s"):
        worker.ask({"op": "hang"})
    assert time.monotonic() - start < 10
    assert worker.ask({"op": "echo"})["ok"]


def test_a_request_that_fails_reports_the_workers_error(worker):
    with pytest.raises(WorkerError, match="could not serve 'fail':\nno such shape"):
        worker.ask({"op": "fail"})


def test_a_worker_is_replaced_after_its_share_of_requests(worker):
    worker.requests_per_process = 2
    assert [worker.ask({"op": "echo"})["process"] for _ in range(5)] == [1, 1, 2, 2, 3]


def test_a_command_that_is_no_worker_is_an_error():
    command = [sys.executable, "-c", "print('hello')"]
    with Worker(command, timeout=2.0) as worker, pytest.raises(WorkerError, match="broke the connection"):
        worker.ask({"op": "echo"})


def test_a_worker_can_be_killed_from_another_thread(worker):
    worker.timeout = 30.0
    threading.Timer(0.5, worker.kill).start()
    with pytest.raises(WorkerError, match="died"):
        worker.ask({"op": "hang"})


def run_crew(tmp_path, make, jobs, threads=2):
    """The records a crew stages and the failures it reports."""
    staging, records = Staging(tmp_path / "staging", {}), []
    crew = Crew(
        start_worker=lambda: Worker([sys.executable, str(FAKE), str(tmp_path / "starts")], timeout=2.0),
        make=make,
        staging=staging,
        on_pair=records.append,
    )
    failures = crew.run(jobs, threads)
    assert all(staging.is_done("train", record["index"]) for record in records)
    return sorted(record["index"] for record in records), failures


def finished(index):
    return FinishedPair((b"a", b"b"), {"index": index, "rejected": []})


def test_a_pair_is_made_again_when_its_worker_dies(tmp_path):
    def make(worker, job, folder):
        worker.ask({"op": "die in first process"})
        return finished(job[1])

    assert run_crew(tmp_path, make, [("train", 0), ("train", 1)], threads=1) == ([0, 1], [])


def test_a_pair_that_kills_every_worker_is_given_up_alone(tmp_path):
    def make(worker, job, folder):
        worker.ask({"op": "die" if job[1] == 2 else "echo"})
        return finished(job[1])

    done, failures = run_crew(tmp_path, make, [("train", index) for index in range(5)])
    assert done == [0, 1, 3, 4]
    assert len(failures) == 1 and failures[0].startswith("train pair 2: given up after 3 failures")


def test_when_nothing_works_the_rest_is_not_tried(tmp_path):
    tried = []

    def make(worker, job, folder):
        tried.append(job)
        raise PairFailed("no")

    done, failures = run_crew(tmp_path, make, [("train", index) for index in range(1000)])
    assert done == [] and len(tried) < 10 and set(failures) == {"no"}


def test_a_bug_in_a_thread_is_raised_and_stops_the_others(tmp_path):
    def make(worker, job, folder):
        if job[1] == 3:
            raise ZeroDivisionError("a bug")
        worker.ask({"op": "echo"})
        return finished(job[1])

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_crew(tmp_path, make, [("train", index) for index in range(100_000)])


def test_staging_refuses_pairs_of_another_spec_and_names_the_difference(tmp_path):
    Staging(tmp_path / "s", {"seed": 1, "preset": {"width": 128}})
    Staging(tmp_path / "s", {"seed": 1, "preset": {"width": 128}})
    with pytest.raises(ValueError, match="width: 128 there, 64 here"):
        Staging(tmp_path / "s", {"seed": 1, "preset": {"width": 64}})


def test_a_staged_pair_is_done_only_with_its_record(tmp_path):
    staging = Staging(tmp_path / "s", {})
    staging.write("train", 3, (b"a", b"b"), {"id": "x"})
    assert staging.is_done("train", 3) and not staging.is_done("train", 4)
    assert staging.read_record("train", 3) == {"id": "x"}
    staging.record_path("train", 3).unlink()
    assert not staging.is_done("train", 3)
    assert json.loads((tmp_path / "s" / "spec.json").read_text()) == {}
