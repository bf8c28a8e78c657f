"""Makes many pairs at once, on threads that each drive a render worker and restart it when it fails."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_gen.files.staging import Job, Staging
from data_gen.plan.stage import PairFailed, Planned
from data_gen.render.build import FinishedPair
from data_gen.render.controller import Worker, WorkerError
from data_gen.render.threads import WorkerThreads

MAX_WORKER_FAILURES = 3  # at one pair, before it is given up
MAX_FAILURES_IN_A_ROW = 5  # pairs given up with none finished between, before the rest is not tried

MakePair = Callable[[Worker, Planned, Path], FinishedPair]


class Crew:
    """Threads that work through planned pairs.

    Args:
      start_worker: a new render worker; called once per thread.
      make: makes one pair, with a folder for its files; gives the same pair when called again.
      staging: where finished pairs go.
      on_pair: called with every finished record, by one thread at a time.
      on_failure: called with a pair's failure to render or to be accepted, and whether it was given up.
    """

    def __init__(
        self,
        start_worker: Callable[[], Worker],
        make: MakePair,
        staging: Staging,
        on_pair: Callable[[Mapping[str, Any]], None],
        on_failure: Callable[[Job, str, bool], None],
    ) -> None:
        self._start_worker = start_worker
        self._make = make
        self._staging = staging
        self._on_pair = on_pair
        self._on_failure = on_failure
        self._threads = WorkerThreads()
        self._lock = self._threads.lock
        self._failures: dict[Job, str] = {}
        self._in_a_row = 0

    def run(self, pairs: Iterator[Planned], threads: int) -> dict[Job, str]:
        """Makes and stages every pair; called once.

        Returns the reason for each pair given up: the renderer failed MAX_WORKER_FAILURES times on it, or
        every attempt was rejected. When too many fail in a row, the rest is not tried. Raises what a thread
        raised otherwise (a bug, a full disk), and KeyboardInterrupt, after all threads have stopped.
        """
        self._threads.run(functools.partial(self._work, pairs), threads)
        return self._failures

    def _work(self, pairs: Iterator[Planned]) -> None:
        """The body of a thread."""
        with (
            self._start_worker() as worker,
            tempfile.TemporaryDirectory(dir=self._staging.scratch) as folder,
        ):
            self._threads.kill_at_the_end(worker)
            while not self._threads.stopping.is_set() and (planned := self._next(pairs)):
                self._do(worker, planned, Path(folder))

    def _next(self, pairs: Iterator[Planned]) -> Planned | None:
        with self._lock:
            return next(pairs, None)

    def _do(self, worker: Worker, planned: Planned, folder: Path) -> None:
        """Makes and stages one pair, trying again when the renderer fails."""
        for failure in range(1, MAX_WORKER_FAILURES + 1):
            try:
                pair = self._make(worker, planned, folder)
            except PairFailed as error:
                return self._note_failure(planned.job, str(error), given_up=True)
            except WorkerError as error:
                if self._threads.stopping.is_set():
                    return None
                self._note_failure(planned.job, str(error), given_up=failure == MAX_WORKER_FAILURES)
            else:
                self._staging.write(planned.job, pair.pictures, pair.record)
                with self._lock:
                    self._in_a_row = 0
                    self._on_pair(pair.record)
                return None
        return None

    def _note_failure(self, job: Job, reason: str, given_up: bool) -> None:
        with self._lock:
            self._on_failure(job, reason, given_up)
            if given_up:
                self._failures[job] = reason
                self._in_a_row += 1
                if self._in_a_row >= MAX_FAILURES_IN_A_ROW:
                    self._threads.stopping.set()  # nothing works: thousands of pairs would not either
