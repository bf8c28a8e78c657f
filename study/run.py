"""Runs jobs side by side, each once: what is done stays done when the study is started again."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from study.jobs import Job

ROOT = Path(__file__).resolve().parent.parent


class Failed(RuntimeError):
    """Jobs failed, or were stopped."""


class Runner:
    """Runs jobs, each on its share of the cores.

    A job that ends well leaves a note in OUT/jobs with its command; it is not run again while that stays the
    same. A training run that was stopped continues where it was.

    Args:
        out: folder of the study.
        count: jobs side by side.
    """

    def __init__(self, out: Path, count: int):
        self._out = out
        self._count = count
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._running: dict[str, subprocess.Popen] = {}
        self._done: set[str] = set()
        self._failed: list[str] = []

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs all jobs, in their order where they need not wait.

        Raises:
            Failed: names those that failed, and their logs. None is started after that.
        """
        for folder in ("jobs", "logs", "answers"):
            (self._out / folder).mkdir(parents=True, exist_ok=True)
        self._done = {job.name for job in jobs if is_done(self._out, job)}
        self._waiting = [job for job in jobs if job.name not in self._done]
        print(f"{len(jobs)} jobs, {len(self._done)} of them done; logs in {self._out / 'logs'}", flush=True)
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        with self._killed_on_the_way_out():
            for job in [job for job in self._waiting if job.alone]:
                self._waiting.remove(job)
                self._run(job, cores)
            shares = [cores[number % max(len(cores), 1) :: self._count] for number in range(self._count)]
            threads = [threading.Thread(target=self._work, args=(share,), daemon=True) for share in shares]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if self._failed:
            logs = ", ".join(str(self._out / "logs" / f"{name}.log") for name in self._failed)
            raise Failed(f"failed: {logs}; when that is mended, the same command goes on from there")

    def _work(self, cores: list[int]) -> None:
        while job := self._next():
            self._run(job, cores)

    def _next(self) -> Job | None:
        """The first job that need not wait, when there is one; None when none is left to start."""
        with self._changed:
            while self._waiting and not self._failed:
                for job in self._waiting:
                    if self._done.issuperset(job.needs):
                        self._waiting.remove(job)
                        return job
                self._changed.wait()
        return None

    def _run(self, job: Job, cores: list[int]) -> None:
        started = time.monotonic()
        with open(self._out / "logs" / f"{job.name}.log", "a") as log, self._changed:
            process = subprocess.Popen(
                job.command, cwd=ROOT, env=self._environment(len(cores)), stdout=log, stderr=subprocess.STDOUT
            )
            if cores:
                os.sched_setaffinity(process.pid, cores)  # before it makes any threads
            self._running[job.name] = process
        code = process.wait()
        seconds = time.monotonic() - started
        with self._changed:
            del self._running[job.name]
            if code:
                self._failed.append(job.name)
            else:
                self._done.add(job.name)
                _note_path(self._out, job).write_text(json.dumps({"command": job.command}))
            left = len(self._waiting) + len(self._running)
            how = f"failed with code {code}" if code else "done"
            print(
                f"{time.strftime('%H:%M:%S')}  {job.name} {how}, {seconds:.0f} s; {left} jobs left",
                flush=True,
            )
            self._changed.notify_all()

    def _environment(self, cores: int) -> dict[str, str]:
        """Compiled programs are shared: arms differ little."""
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(self._out / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        }
        return os.environ | cache | ({"OMP_NUM_THREADS": str(cores)} if cores else {})

    @contextlib.contextmanager
    def _killed_on_the_way_out(self) -> Iterator[None]:
        """Jobs are asked to stop when the study is; training runs save what they have."""
        try:
            yield
        finally:
            running = list(self._running.values())
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def is_done(out: Path, job: Job) -> bool:
    """Whether the job has ended well, with the command that it has now."""
    path = _note_path(out, job)
    return path.exists() and json.loads(path.read_text())["command"] == list(job.command)


def _note_path(out: Path, job: Job) -> Path:
    return out / "jobs" / f"{job.name}.json"
