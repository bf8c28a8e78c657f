"""One line that says how far the rendering is: rewritten in place on a terminal, repeated in a log."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from data_gen.files.staging import Job

LOG_INTERVAL = 15.0  # seconds between lines of a log
TERMINAL_INTERVAL = 0.2
SHOWN_REASONS = 3


class Progress:
    """Counts finished pairs, called `noun`, out of `total`, of which `done` existed before this run.

    Lines go to `stream` and, as in any log, to the file `log`. `attempts`: whether a pair may take several.
    """

    def __init__(
        self,
        total: int,
        done: int,
        log: TextIO,
        stream: TextIO | None = None,
        noun: str = "pairs",
        attempts: bool = True,
    ) -> None:
        self.total = total
        self.done = done
        self.noun = noun
        self.attempts = attempts
        self.rejected: collections.Counter[str] = collections.Counter()
        self.retries = 0
        self.skipped = 0
        self._stream = stream or sys.stderr
        self._log = log
        self._terminal = self._stream.isatty()
        self._start = self._last = self._last_logged = time.monotonic()
        self._finished_here = 0

    def say(self, text: str) -> None:
        """A line of its own, on the terminal and in the log."""
        self._write(self._stream, ("\r\x1b[K" if self._terminal else "") + text + "\n")
        self._write(self._log, f"{time.strftime('%F %T')} {text}\n")

    def add(self, record: Mapping[str, Any]) -> None:
        """Notes a finished pair."""
        self.done += 1
        self._finished_here += 1
        self.rejected.update(record["rejected"])
        now = time.monotonic()
        last = self.done == self.total
        if now - self._last_logged >= LOG_INTERVAL or last:
            self._last_logged = now
            self._write(self._log, f"{time.strftime('%F %T')} {self.line()}\n")
        if now - self._last >= (TERMINAL_INTERVAL if self._terminal else LOG_INTERVAL) or last:
            self._last = now
            end = "" if self._terminal and not last else "\n"
            self._write(self._stream, ("\r\x1b[K" if self._terminal else "") + self.line() + end)

    def fail(self, job: Job, reason: str, given_up: bool) -> None:
        """Notes that a pair failed, to be tried again or skipped."""
        self.skipped += given_up
        self.retries += not given_up
        self.say(f"{job[0]} pair {job[1]} {'is skipped' if given_up else 'is tried again'}: {reason}")

    def line(self) -> str:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self._finished_here / elapsed
        left = (self.total - self.done - self.skipped) / rate if rate else 0.0
        share = 100 * self.done / self.total if self.total else 100.0
        parts = [
            f"{self.noun} {self.done}/{self.total} ({share:.0f}%)",
            f"{rate:.2f} {self.noun}/s",
            f"{clock(left)} left",
        ]
        if self.attempts:
            parts.append(f"{self.rejected.total()} attempts rejected" + self._reasons())
        if self.retries:
            parts.append(f"{self.retries} retries")
        if self.skipped:
            parts.append(f"{self.skipped} skipped")
        return "  ".join(parts)

    def _reasons(self) -> str:
        shown = [f"{reason} {count}" for reason, count in self.rejected.most_common(SHOWN_REASONS)]
        if len(self.rejected) > SHOWN_REASONS:
            shown.append("...")
        return f" ({', '.join(shown)})" if shown else ""

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        stream.write(text)
        stream.flush()


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
