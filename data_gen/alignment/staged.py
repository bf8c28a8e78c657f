"""Records on their way to a dataset, a file per pair: hours of rendering go on where they were stopped.

`data_gen.align_beam` writes them for any records; `data_gen.align` itself for those whose crops are rendered.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_gen.alignment.closeups import Rendering, Studio
from data_gen.alignment.records import SPEC, Maker, to_staged
from data_gen.files.staging import Job, lock, require_same, write_file, write_json
from data_gen.records.dataset import Dataset
from data_gen.render.controller import WorkerError
from data_gen.render.crew import MAX_WORKER_FAILURES
from data_gen.render.threads import WorkerThreads


def staged_file(split: str, index: int) -> str:
    """The file of a pair's records, below the folder of all."""
    return f"{split}/{index:06d}.json"


def make_staged(
    maker: Maker,
    record: Mapping[str, Any],
    split: str,
    studio: Studio | None,
    stopping: Callable[[], bool] = lambda: False,
) -> bytes:
    """The file of a pair's records; a renderer that dies is started again, unless the run is `stopping`.

    Raises:
      NoDataset: of `Maker.examples`.
      WorkerError: the renderer failed every time.
    """
    for _ in range(MAX_WORKER_FAILURES - 1 if studio else 0):
        try:
            return to_staged(maker.examples(record, split, studio))
        except WorkerError:
            if stopping():
                raise
    return to_staged(maker.examples(record, split, studio))


def render_records(
    source: Dataset,
    counts: Mapping[str, int],
    maker: Maker,
    rendering: Rendering,
    folder: Path,
    workers: int,
    on_pair: Callable[[], None],
) -> None:
    """Leaves the records of every pair in `folder`, on threads that each drive a renderer.

    What is there stays. Raises what a thread raised, and KeyboardInterrupt, after all of them have stopped.

    Raises:
      StagingError: the folder is in use, or holds other records.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / "lock"):
        spec = maker.spec(source.folder.name, counts)
        require_same(folder / SPEC, spec)
        write_json(folder / SPEC, spec)
        jobs = [(split, index) for split, count in counts.items() for index in range(count)]
        missing = [job for job in jobs if not (folder / staged_file(*job)).exists()]
        for _ in range(len(jobs) - len(missing)):
            on_pair()
        for split in counts:
            (folder / split).mkdir(exist_ok=True)
        _Crew(source, maker, rendering, folder, on_pair).run(missing, workers)


class _Crew:
    """Threads that work through pairs."""

    def __init__(
        self, source: Dataset, maker: Maker, rendering: Rendering, folder: Path, on_pair: Callable[[], None]
    ) -> None:
        self.source, self.maker, self.rendering = source, maker, rendering
        self.folder, self.on_pair = folder, on_pair
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.threads = WorkerThreads()
        self.reading = self.threads.lock  # of the source, and of on_pair

    def run(self, jobs: list[Job], workers: int) -> None:
        """Makes the records of all jobs."""
        for job in jobs:
            self.jobs.put(job)
        self.threads.run(self._work, min(workers, len(jobs)))

    def _next(self) -> Job | None:
        try:
            return self.jobs.get_nowait()
        except queue.Empty:
            return None

    def _work(self) -> None:
        """The body of a thread."""
        with self.rendering.studio() as studio:
            self.threads.kill_at_the_end(studio.worker)
            while not self.threads.stopping.is_set() and (job := self._next()):
                with self.reading:
                    record = self.source.record(*job)
                made = make_staged(self.maker, record, job[0], studio, self.threads.stopping.is_set)
                if self.threads.stopping.is_set():
                    return
                write_file(self.folder / staged_file(*job), made)
                with self.reading:
                    self.on_pair()
