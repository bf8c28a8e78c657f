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
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
START_TIMEOUT = 120.0  # seconds; importing bpy takes about one, more from a cold disk


class WorkerError(RuntimeError):
    """The worker died, hung or could not serve a request. It was stopped; the next request starts another."""


class Worker:
    """One Blender process, started by its first request; used by one thread, except for `kill`.

    Args:
      command: starts the process: interpreter, worker.py and its flags.
      timeout: seconds one request may take before the process counts as hung.
      requests_per_process: after so many the process is replaced, as a guard against slow leaks.
    """

    def __init__(self, command: list[str], timeout: float, requests_per_process: int = 4000) -> None:
        self.command = command
        self.timeout = timeout
        self.requests_per_process = requests_per_process
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._unread = b""
        # Both are closed by __exit__: the worker's stderr, and the folder for what Blender leaves behind.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._scratch = tempfile.TemporaryDirectory(prefix="data_gen_blender_")

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._log.close()
        self._scratch.cleanup()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one request and returns the reply. Raises WorkerError; the next request may still succeed."""
        if self._served >= self.requests_per_process:
            self._stop()
        if self._process is None:
            self._start()
        self._served += 1
        return self._exchange(request, self.timeout)

    def kill(self) -> None:
        """Ends the process from any thread: a request under way fails with WorkerError."""
        if (process := self._process) is not None:
            process.kill()

    def _start(self) -> None:
        self._log.seek(0)
        self._log.truncate()
        self._served, self._unread = 0, b""
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
            reply = json.loads(self._read_line(timeout))
        except (OSError, ValueError) as error:
            raise self._failure(f"broke the connection ({error})") from error
        if not reply["ok"]:
            raise self._failure(f"could not serve {request['op']!r}:\n{reply['error']}")
        return reply

    def _read_line(self, timeout: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
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
