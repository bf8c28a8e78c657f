"""Makes many pairs at once, on threads that each drive a render worker and restart it when it fails."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_gen.build import FinishedPair, Job, PairFailed
from data_gen.render import Worker, WorkerError
from data_gen.staging import Staging

MAX_WORKER_FAILURES = 3  # at one pair, before it is given up

MakePair = Callable[[Worker, Job, Path], FinishedPair]


class Crew:
    """Threads that work through a list of pairs.

    Args:
      start_worker: a new render worker; called once per thread.
      make: makes one pair, with a folder for its files; gives the same pair when called again.
      staging: where finished pairs go.
      on_pair: called with every finished record, by one thread at a time.
    """

    def __init__(
        self,
        start_worker: Callable[[], Worker],
        make: MakePair,
        staging: Staging,
        on_pair: Callable[[dict[str, Any]], None],
    ) -> None:
        self._start_worker = start_worker
        self._make = make
        self._staging = staging
        self._on_pair = on_pair
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._workers: list[Worker] = []
        self._failures: list[str] = []
        self._finished = 0
        self._error: BaseException | None = None

    def run(self, jobs: Iterable[Job], threads: int) -> list[str]:
        """Makes and stages every job's pair; called once.

        Returns one message per pair given up: the renderer failed MAX_WORKER_FAILURES times on it, or every
        attempt was rejected. When the first pairs all fail, the rest is not tried. Raises what a thread
        raised otherwise (a bug, a full disk), and KeyboardInterrupt, after all threads have stopped.
        """
        queue = iter(jobs)
        crew = [threading.Thread(target=self._work, args=(queue,), daemon=True) for _ in range(threads)]
        for thread in crew:
            thread.start()
        try:
            for thread in crew:
                while thread.is_alive():
                    thread.join(0.2)  # a join without a limit would not let Ctrl-C through
        finally:
            self._stop()
            for thread in crew:
                thread.join()
        if self._error:
            raise self._error
        return self._failures

    def _stop(self) -> None:
        """Makes every thread return soon; pairs under way are dropped."""
        self._stopping.set()
        with self._lock:
            for worker in self._workers:
                worker.kill()

    def _work(self, queue: Iterable[Job]) -> None:
        """The body of a thread."""
        try:
            with self._start_worker() as worker, tempfile.TemporaryDirectory(prefix="data_gen_") as folder:
                with self._lock:
                    self._workers.append(worker)
                while not self._stopping.is_set() and (job := self._next(queue)):
                    self._do(worker, job, Path(folder))
        except BaseException as error:
            self._error = error
            self._stop()

    def _next(self, queue: Any) -> Job | None:
        with self._lock:
            return next(queue, None)

    def _do(self, worker: Worker, job: Job, folder: Path) -> None:
        """Makes and stages one pair, trying again when the renderer fails."""
        for failure in range(1, MAX_WORKER_FAILURES + 1):
            try:
                pair = self._make(worker, job, folder)
            except PairFailed as error:
                return self._give_up(str(error))
            except WorkerError as error:
                if self._stopping.is_set():
                    return None
                if failure == MAX_WORKER_FAILURES:
                    split, index = job
                    return self._give_up(f"{split} pair {index}: given up after {failure} failures: {error}")
            else:
                self._staging.write(*job, pair.pictures, pair.record)
                with self._lock:
                    self._finished += 1
                    self._on_pair(pair.record)
                return None
        return None

    def _give_up(self, message: str) -> None:
        with self._lock:
            self._failures.append(message)
            if not self._finished and len(self._failures) >= MAX_WORKER_FAILURES:
                self._stopping.set()  # nothing works: do not go through thousands of pairs to find out
