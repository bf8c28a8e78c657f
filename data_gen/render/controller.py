"""Render workers from the controller's side: start, ask, watch, kill. Nothing here imports `bpy`."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START_TIMEOUT = 120.0  # seconds; importing bpy takes about one, more from a cold disk
MEMORY_LIMIT = 4 << 30  # bytes; a worker takes 0.3 GB, and stays there for as long as it was watched


class WorkerError(RuntimeError):
    """The worker died, hung or could not serve a request. It was stopped; the next request starts another."""


class Worker:
    """One Blender process, started by its first request; used by one thread, except for `kill`.

    Args:
      command: starts the process: interpreter, worker.py and its flags.
      timeout: seconds one request may take before the process counts as hung.
      scratch: where to make the folder for what Blender leaves behind; by default the system's.
      requests_per_process: after so many the process is replaced, as a guard against slow leaks.
      memory_limit: bytes of memory after which the process is replaced (where /proc tells them).
    """

    def __init__(
        self,
        command: list[str],
        timeout: float,
        scratch: Path | None = None,
        requests_per_process: int = 4000,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self.command = command
        self.timeout = timeout
        self.requests_per_process = requests_per_process
        self.memory_limit = memory_limit
        self.starts = 0  # processes so far
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._unread = b""
        # Both are closed by __exit__: the worker's stderr, and the folder for what Blender leaves behind.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._scratch = tempfile.TemporaryDirectory(
            prefix="data_gen_blender_", dir=scratch, ignore_cleanup_errors=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._log.close()
        self._scratch.cleanup()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one request and returns the reply. Raises WorkerError; the next request may still succeed."""
        if self._served >= self.requests_per_process or self.memory() > self.memory_limit:
            self._stop()
        if self._process is None:
            self._start()
        self._served += 1
        return self._exchange(request, self.timeout)

    def memory(self) -> int:
        """Bytes of memory that the process has now; 0 when there is none, or where /proc does not tell."""
        try:
            assert self._process
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (AssertionError, OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGESIZE")

    def kill(self) -> None:
        """Ends the process from any thread: a request under way fails with WorkerError."""
        if (process := self._process) is not None:
            process.kill()

    def _start(self) -> None:
        self._log.seek(0)
        self._log.truncate()
        self._served, self._unread = 0, b""
        self.starts += 1
        # PYTHONPATH and the like are meant for our own interpreter, not for Blender's.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment["TMPDIR"] = self._scratch.name
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment
        )
        self._exchange({"op": "hello"}, START_TIMEOUT)

    def _stop(self) -> None:
        """Ends the process, if any, at once: it has no state worth saving."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process = None

    def _exchange(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            reply = self._read_reply(timeout)
        except (OSError, ValueError) as error:
            raise self._failure(f"broke the connection ({error})") from error
        if not reply["ok"]:
            raise self._failure(f"could not serve {request['op']!r}:\n{reply['error']}")
        return reply

    def _read_reply(self, timeout: float) -> dict[str, Any]:
        """The next line that is a JSON object: an installed Blender prints its banner before that."""
        deadline = time.monotonic() + timeout
        while not (line := self._read_line(deadline, timeout)).startswith(b"{"):
            pass
        return json.loads(line)

    def _read_line(self, deadline: float, timeout: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
                raise self._failure(f"gave no reply for {timeout:g} s")
            data = os.read(descriptor, 65536)
            if not data:
                raise self._failure("died")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _failure(self, what: str) -> WorkerError:
        """Stops the process and says what happened, with the end of its log."""
        self._stop()
        self._log.seek(0)
        log = self._log.read().decode(errors="replace").strip()[-2000:]
        return WorkerError(f"render worker {what}" + (f"; it said:\n{log}" if log else ""))
