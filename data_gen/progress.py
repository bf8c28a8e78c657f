"""One line that says how far the rendering is: rewritten in place on a terminal, repeated in a log."""

from __future__ import annotations

import collections
import sys
import time
from typing import Any, TextIO


class Progress:
    """Counts finished pairs out of `total`, of which `done` existed before this run."""

    def __init__(self, total: int, done: int, stream: TextIO | None = None) -> None:
        self.total = total
        self.done = done
        self.rejected: collections.Counter[str] = collections.Counter()
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._interval = 0.2 if self._terminal else 15.0  # seconds between lines
        self._start = self._last = time.monotonic()
        self._finished_here = 0

    def add(self, record: dict[str, Any]) -> None:
        """Notes a finished pair."""
        self.done += 1
        self._finished_here += 1
        self.rejected.update(record["rejected"])
        now = time.monotonic()
        if now - self._last >= self._interval or self.done == self.total:
            self._last = now
            end = "" if self._terminal and self.done < self.total else "\n"
            self._stream.write(("\r\x1b[K" if self._terminal else "") + self.line() + end)
            self._stream.flush()

    def line(self) -> str:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self._finished_here / elapsed
        left = (self.total - self.done) / rate if rate else 0.0
        share = 100 * self.done / self.total if self.total else 100.0
        return (
            f"pairs {self.done}/{self.total} ({share:.0f}%)  {rate:.2f} pairs/s  "
            f"{clock(left)} left  {sum(self.rejected.values())} attempts rejected"
        )


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
