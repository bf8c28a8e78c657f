"""Requests to stop: signals, the notice of a cloud machine, and the grace period."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from dig_jax.machines import stopping
from dig_jax.machines.stopping import EXIT_INTERRUPTED, EXIT_PREEMPTED, Stop, Stopped
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_PREEMPTED), (signal.SIGINT, EXIT_INTERRUPTED)]
)
def test_a_signal_is_noticed_at_the_next_check(number: int, code: int) -> None:
    with Stop(grace_seconds=60) as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped) as stopped:
            stop.check()
    assert stopped.value.exit_code == code


def test_outside_the_block_signals_do_what_they_did() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop(grace_seconds=60):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


class Metadata(http.server.BaseHTTPRequestHandler):
    """A metadata server that announces what `values` says."""

    values: dict[str, str] = {}

    def do_GET(self) -> None:
        known = self.headers["Metadata-Flavor"] == "Google"
        key = self.path.removeprefix("/computeMetadata/v1/")
        self.send_response(200 if known and key in self.values else 404)
        self.end_headers()
        self.wfile.write(self.values.get(key, "").encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    monkeypatch.setattr(stopping, "POLL_SECONDS", 0.05)
    values = {"instance/preempted": "FALSE", "instance/maintenance-event": "NONE"}
    monkeypatch.setattr(Metadata, "values", values)
    yield values
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("key", "value"),
    [("instance/preempted", "TRUE"), ("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")],
)
def test_the_notice_of_the_cloud_machine_is_noticed(key: str, value: str, metadata: dict[str, str]) -> None:
    with Stop(grace_seconds=60) as stop:
        time.sleep(0.3)
        stop.check()  # nothing is announced
        metadata[key] = value
        deadline = time.monotonic() + 300
        with pytest.raises(Stopped) as stopped:
            while time.monotonic() < deadline:
                stop.check()
                time.sleep(0.02)
    assert stopped.value.exit_code == EXIT_PREEMPTED


DEAF = """
import sys, time
from dig_jax.machines.stopping import Stop
with Stop(grace_seconds=float(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


def deaf_process(grace_seconds: float) -> subprocess.Popen:
    """A run that never comes to a check."""
    command = [sys.executable, "-c", DEAF, str(grace_seconds)]
    folder = ROOT
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_without_a_check_the_process_ends_after_the_grace_period() -> None:
    process = deaf_process(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == EXIT_PREEMPTED
    assert "SIGTERM: saving and stopping, within 0.5 s" in errors and "grace_seconds" in errors


def test_a_second_interrupt_ends_the_process_at_once() -> None:
    process = deaf_process(1000)
    while process.poll() is None:  # two that come at once are one
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == EXIT_INTERRUPTED
    assert "stopping at once" in errors
