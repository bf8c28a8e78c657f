"""Render workers that die, hang or fail are replaced, and one bad pair does not cost the others."""

import dataclasses
import os
import sys
import threading
from pathlib import Path

import pytest

from data_gen.files.staging import Shard, Staging, StagingError
from data_gen.plan.stage import PairFailed
from data_gen.render.build import FinishedPair
from data_gen.render.controller import Worker, WorkerError
from data_gen.render.crew import Crew
from data_gen.render.interpreter import Blender
from tests.data_gen.conftest import FAKE


@pytest.fixture
def worker(tmp_path):
    with Worker([sys.executable, str(FAKE)], timeout=60.0, scratch=tmp_path) as worker:
        yield worker


def test_a_worker_that_dies_is_replaced_and_its_last_words_are_quoted(worker):
    first = worker.ask({"op": "echo"})["process"]
    with pytest.raises(WorkerError, match=r"died.*\n.*out of luck"):
        worker.ask({"op": "die"})
    assert worker.ask({"op": "echo"})["process"] != first
    assert worker.starts == 2


def test_a_worker_that_hangs_is_killed_after_the_timeout(worker):
    worker.timeout = 0.5
    with pytest.raises(WorkerError, match=r"no reply for 0\.5 s"):
        worker.ask({"op": "hang"})
    worker.timeout = 60.0
    assert worker.ask({"op": "echo"})["ok"]


def test_a_request_that_fails_reports_the_workers_error(worker):
    with pytest.raises(WorkerError, match="could not serve 'fail':\nno such shape"):
        worker.ask({"op": "fail"})


def test_a_worker_is_replaced_after_its_share_of_requests(worker):
    worker.requests_per_process = 2
    processes = [worker.ask({"op": "echo"})["process"] for _ in range(5)]
    assert [process == processes[0] for process in processes] == [True, True, False, False, False]
    assert processes[2] == processes[3] != processes[4] and worker.starts == 3


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_worker_that_takes_too_much_memory_is_replaced(worker):
    worker.memory_limit = 200 << 20
    first = worker.ask({"op": "leak", "bytes": 10 << 20})["process"]
    assert worker.ask({"op": "leak", "bytes": 300 << 20})["process"] == first
    assert worker.ask({"op": "echo"})["process"] != first
    assert worker.memory() < worker.memory_limit


def test_what_is_no_worker_is_an_error():
    command = [sys.executable, "-c", "print('hello')"]
    with Worker(command, timeout=60.0) as worker, pytest.raises(WorkerError, match="died"):
        worker.ask({"op": "echo"})
    command = [sys.executable, "-c", "print('{hello}')"]
    with Worker(command, timeout=60.0) as worker, pytest.raises(WorkerError, match="broke the connection"):
        worker.ask({"op": "echo"})


def test_an_installed_blender_runs_the_worker_and_may_print_a_banner_first(fake_blender):
    command = Blender(str(fake_blender), "4.5.15 LTS", installed=True).command(2, "--device=cuda")
    assert command[1:6] == ["--background", "--factory-startup", "--threads", "2", "--python"]
    assert command[7:] == ["--", "--threads=2", "--device=cuda"]
    with Worker(command, timeout=60.0) as worker:
        assert worker.ask({"op": "echo"})["ok"]


def test_a_worker_can_be_killed_from_another_thread(worker):
    worker.ask({"op": "echo"})
    threading.Timer(0.5, worker.kill).start()
    with pytest.raises(WorkerError, match=r"died|broke the connection"):
        worker.ask({"op": "hang"})


@dataclasses.dataclass(frozen=True)
class Numbered:
    """As much of a planned pair as a crew looks at."""

    index: int

    @property
    def job(self):
        return "train", self.index


def run_crew(tmp_path, make, pairs, threads=2):
    """The indices of the pairs that a crew stages, the failures it reports, and those it mentions."""
    staging, records, mentioned = Staging(tmp_path / "staging", {}), [], []
    crew = Crew(
        start_worker=lambda: Worker([sys.executable, str(FAKE)], timeout=60.0, scratch=staging.scratch),
        make=make,
        staging=staging,
        on_pair=records.append,
        on_failure=lambda job, reason, given_up: mentioned.append((job[1], given_up)),
    )
    with staging.locked():
        failures = crew.run(map(Numbered, range(pairs)), threads)
    assert all(staging.is_done(("train", record["index"])) for record in records)
    return sorted(record["index"] for record in records), failures, mentioned


def finished(pair):
    return FinishedPair({"image_a": b"a", "image_b": b"b"}, {"index": pair.index, "rejected": []})


def test_a_pair_is_made_again_when_its_worker_dies(tmp_path):
    def make(worker, pair, folder):
        worker.ask({"op": "die" if worker.starts < 2 else "echo"})
        return finished(pair)

    assert run_crew(tmp_path, make, 2, threads=1) == ([0, 1], {}, [(0, False), (0, False)])


def test_a_pair_that_kills_every_worker_is_given_up_alone(tmp_path):
    def make(worker, pair, folder):
        worker.ask({"op": "die" if pair.index == 2 else "echo"})
        return finished(pair)

    done, failures, mentioned = run_crew(tmp_path, make, 5)
    assert done == [0, 1, 3, 4] and failures.keys() == {("train", 2)}
    assert mentioned == [(2, False), (2, False), (2, True)]


def test_a_pair_that_hangs_every_worker_is_given_up_alone(tmp_path):
    def make(worker, pair, folder):
        worker.timeout = 0.3 if pair.index == 0 else 60.0
        worker.ask({"op": "hang" if pair.index == 0 else "echo"})
        return finished(pair)

    done, failures, _ = run_crew(tmp_path, make, 3)
    assert done == [1, 2] and "gave no reply for 0.3 s" in failures["train", 0]


def test_when_nothing_works_the_rest_is_not_tried(tmp_path):
    tried = []

    def make(worker, pair, folder):
        tried.append(pair)
        raise PairFailed("no")

    done, failures, _ = run_crew(tmp_path, make, 1000)
    assert done == [] and len(tried) < 10 and set(failures.values()) == {"no"}


def test_a_bug_in_a_thread_is_raised_and_stops_the_others(tmp_path):
    def make(worker, pair, folder):
        if pair.index == 3:
            raise ZeroDivisionError("a bug")
        worker.ask({"op": "echo"})
        return finished(pair)

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_crew(tmp_path, make, 100_000)


def test_staging_refuses_pairs_of_another_spec_and_names_the_difference(tmp_path):
    spec = {"seed": 1, "preset": {"width": 128}}
    with Staging(tmp_path / "s", spec).locked():
        pass
    Staging(tmp_path / "s", spec)
    with pytest.raises(StagingError, match="width: 128 there, 64 here"):
        Staging(tmp_path / "s", {"seed": 1, "preset": {"width": 64}})


def test_a_staged_pair_is_done_only_with_its_record(tmp_path):
    staging = Staging(tmp_path / "s", {})
    with staging.locked():
        staging.write(("train", 3), {"image_a": b"a", "image_b": b"b"}, {"id": "x"})
    assert staging.is_done(("train", 3)) and not staging.is_done(("train", 4))
    assert staging.record(("train", 3)) == {"id": "x"}
    assert staging.picture(("train", 3), "image_b") == b"b"
    staging.discard(("train", 3))
    assert not Staging(tmp_path / "s", {}).is_done(("train", 3))


def test_every_pair_belongs_to_one_shard_whatever_the_number_of_pairs():
    shards = [Shard(index, 3) for index in range(3)]
    for index in range(20):
        assert sum(shard.holds(("train", index)) for shard in shards) == 1


def test_shards_work_beside_each_other_but_no_shard_twice(tmp_path):
    def staging(*shard):
        return Staging(tmp_path / "s", {}, Shard(*shard))

    with staging(0, 2).locked(), staging(1, 2).locked():
        for taken in (staging(0, 2), staging(0, 1)):
            with pytest.raises(StagingError, match="is in use"), taken.locked():
                pass


def test_what_a_killed_run_left_in_scratch_is_removed(tmp_path):
    staging = Staging(tmp_path / "s", {})
    with staging.locked():
        (staging.scratch / "picture.png").write_bytes(b"x")
        os.rename(staging.scratch, tmp_path / "left")
    os.rename(tmp_path / "left", staging.scratch)
    with staging.locked():
        assert list(staging.scratch.iterdir()) == []
    assert not staging.scratch.exists()
