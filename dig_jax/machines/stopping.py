"""Stopping a run in good order: SIGTERM, SIGINT, and the notice that a cloud machine is about to go away.

A run asks `Stop.check()` wherever nothing is half done; once a stop was requested the check raises `Stopped`,
and the run saves and ends. Who asks twice with SIGINT, or does not get there within the grace period, ends at
once: the newest checkpoint is whole at any moment.
"""

import logging
import os
import signal
import threading
import urllib.request
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import numpy as np

from dig_jax.machines import gathering

# EX_TEMPFAIL of sysexits.h: "try again later". Start the same command again and the run goes on.
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C

# Compute Engine announces maintenance and preemption here; TPU VMs are told the same way.
# https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
METADATA_HOST = "metadata.google.internal"
NOTICES = {
    "instance/preempted": ("FALSE",),
    "instance/maintenance-event": ("NONE", "MIGRATE_ON_HOST_MAINTENANCE"),
}
POLL_SECONDS = 5.0

logger = logging.getLogger("dig_jax")


class Stopped(Exception):
    """The run was asked to stop.

    Attributes:
        exit_code: `EXIT_INTERRUPTED` for SIGINT, `EXIT_PREEMPTED` for everything else.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped on request")
        self.exit_code = exit_code


class Stop:
    """Listens for requests to stop, inside `with`.

    Args:
        grace_seconds: from the request to the end of the process, at most. When a run does not reach a check
            in time, the process ends with the code it would have ended with, without saving.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._exit_code = 0
        self._ended = threading.Event()
        self._deadline: threading.Timer | None = None
        self._handlers: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python handles signals there alone
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._on_signal)
        if host := _metadata_host():
            threading.Thread(target=self._watch, args=(host,), daemon=True, name="notices").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._deadline is not None:
            self._deadline.cancel()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def request(self, why: str, exit_code: int = EXIT_PREEMPTED) -> None:
        """Asks the run to stop at its next check, and starts the clock. Asking again changes nothing."""
        if self._exit_code:
            return
        self._exit_code = exit_code
        say(f"{why}: saving and stopping, within {self._grace_seconds:g} s")
        self._deadline = threading.Timer(self._grace_seconds, self._give_up)
        self._deadline.daemon = True
        self._deadline.start()

    def check(self) -> None:
        """Raises `Stopped` if any process of the run was asked to stop. All processes call it together."""
        exit_code = int(gathering.gather_rows(np.array([self._exit_code], np.int32)).max())
        if exit_code:
            raise Stopped(exit_code)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._exit_code:
            say("interrupted again: stopping at once; the newest checkpoint stays")
            os._exit(EXIT_INTERRUPTED)
        self.request(
            signal.Signals(number).name,
            EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED,
        )

    def _give_up(self) -> None:
        say(
            f"nothing to stop at came within {self._grace_seconds:g} s (config.checkpoint.grace_seconds):"
            " stopping at once; the newest checkpoint stays"
        )
        os._exit(self._exit_code)

    def _watch(self, host: str) -> None:
        """Asks the metadata server every few seconds whether this machine is about to go away."""
        while not self._ended.wait(POLL_SECONDS):
            for key, harmless in NOTICES.items():
                value = _metadata(host, key)
                if value is not None and value not in harmless:
                    self.request(f"notice of the machine's host: {key} is {value}")
                    return


def _metadata_host() -> str | None:
    """The metadata server to ask; None on a machine that is not Google's. GCE_METADATA_HOST names another."""
    if host := os.environ.get("GCE_METADATA_HOST"):
        return host
    product = Path("/sys/class/dmi/id/product_name")
    try:
        return METADATA_HOST if "Google" in product.read_text() else None
    except OSError:
        return None


def _metadata(host: str, key: str) -> str | None:
    """A value of the metadata server; None when it does not answer."""
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/{key}", headers={"Metadata-Flavor": "Google"}
    )
    try:
        with urllib.request.urlopen(request, timeout=POLL_SECONDS) as answer:
            return answer.read().decode().strip()
    except OSError:
        return None


def say(message: str) -> None:
    """Straight to the terminal: a signal may come while the logging module holds its lock."""
    os.write(2, f"{message}\n".encode())
