"""Threads that have a render worker each, and stop together."""

from __future__ import annotations

import threading
from collections.abc import Callable

from data_gen.render.controller import Worker


class WorkerThreads:
    """Runs one body in several threads; where one of them fails, or Ctrl-C comes, all stop.

    Attributes:
      lock: for what the threads share.
      stopping: set when every thread is to return soon.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._workers: list[Worker] = []
        self._error: BaseException | None = None

    def run(self, body: Callable[[], None], count: int) -> None:
        """Runs `body` in `count` threads; called once.

        Raises what one of them raised, and KeyboardInterrupt, after all have stopped.
        """

        def work() -> None:
            try:
                body()
            except BaseException as error:
                self._error = self._error or error
                self._stop()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # a join without a limit would not let Ctrl-C through
        finally:
            self._stop()
            for thread in threads:
                thread.join()
        if self._error:
            raise self._error

    def kill_at_the_end(self, worker: Worker) -> None:
        """A thread's worker, which is killed when all stop, so that no thread waits for it."""
        with self.lock:
            self._workers.append(worker)

    def _stop(self) -> None:
        self.stopping.set()
        with self.lock:
            for worker in self._workers:
                worker.kill()
