"""Several processes, one run: how they find each other, and how all of them end when one is lost.

When a process dies, the others of its run wait for it in a collective: on a CPU that raises, on TPUs and GPUs
it may last until JAX's own heartbeat aborts them. So each process keeps a connection to process 0 as well. It
closes with its process, whatever that was doing, and is silent when a host is gone. Process 0 tells the
others, and all end with `EXIT_LOST` and a message that names the lost one.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax._src import distributed as jax_distributed  # the coordinator's address has no public name

from dig_jax.machines import gathering
from dig_jax.machines.stopping import Stopped, say

EXIT_LOST = 76  # another process was lost or failed: run the same command on all hosts again
SETTLE_SECONDS = 3.0  # an error may be the echo of another process's end, whose notice is then on its way
_KEY = "dig_jax/links"  # where JAX's key-value store holds the port that process 0 listens on

logger = logging.getLogger("dig_jax")


FLAGS = {
    "distributed": "run with other processes, one per host, as one run",
    "coordinator_address": "HOST:PORT of process 0; like the next two not needed on Cloud TPUs, under Slurm"
    " and Open MPI, and on Kubernetes",
    "num_processes": "number of processes",
    "process_id": "index of this process, from 0",
}  # of the commands that run in several processes, with their help


@contextlib.contextmanager
def joined(
    wanted: bool, coordinator: str | None, count: int | None, index: int | None, silence_seconds: float
) -> Iterator[None]:
    """Joins this process to those of its run, before JAX has looked for devices; leaves them at the end.

    An error inside ends this process (its code is that of a `SystemExit`, else 1) and all others
    (`EXIT_LOST`), without waiting for them.

    Args:
        wanted: False: this process is a run of its own, and nothing happens here.
        coordinator: HOST:PORT of process 0; None: JAX_COORDINATOR_ADDRESS. Like the next two it need not be
            known on Cloud TPUs, under Slurm, Open MPI and on Kubernetes, where JAX finds it.
        count: number of processes; None: JAX_NUM_PROCESSES.
        index: of this process; None: JAX_PROCESS_ID.
        silence_seconds: a process not heard of for this long is lost.

    Raises:
        ValueError: who takes part is neither said nor found out, or it is said and not `wanted`.
    """
    if not wanted:
        if (coordinator, count, index) != (None, None, None):
            raise ValueError("--coordinator_address, --num_processes and --process_id go with --distributed")
        yield
        return
    count = _from_environment("JAX_NUM_PROCESSES") if count is None else count
    index = _from_environment("JAX_PROCESS_ID") if index is None else index
    try:
        jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours: see stopping.py
        # Where the connections below are not possible, JAX's heartbeat has the last word.
        jax.distributed.initialize(
            coordinator, count, index, heartbeat_timeout_seconds=2 * max(5, round(silence_seconds))
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"--distributed: {error} Where there is no Cloud TPU, Slurm, Open MPI or Kubernetes to ask, give"
            " --coordinator_address=HOST:PORT (of process 0, any free port), --num_processes and --process_id"
            " (from 0), or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    links = Links(silence_seconds)
    try:
        yield
    except Stopped:  # all processes agreed on that
        links.close()
        raise
    except BaseException as error:
        links.fail(error)
    links.close()


def _from_environment(name: str) -> int | None:
    value = os.environ.get(name)
    if value is not None and not value.isdecimal():
        raise ValueError(f"{name}={value!r}: expected a number")
    return None if value is None else int(value)


def texts_of_all(text: str, width: int = 400) -> list[str]:
    """A text of each process, in their order. All of them call it together.

    Work that may fail in one process alone is done without a collective and followed by this, with the reason
    or "": the processes then go the same way, where one that raised would leave the others in a collective.

    Args:
        text: of this process.
        width: bytes of UTF-8 that it is cut to.
    """
    row = np.zeros((1, width), np.uint8)
    encoded = text.encode()[:width]
    row[0, : len(encoded)] = np.frombuffer(encoded, np.uint8)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in gathering.gather_rows(row)]


class Links:
    """Connections between process 0 and each of the others, and a thread that listens to each.

    A line on them is `alive`, `bye`, `lost TEXT` or `failed TEXT`.
    """

    def __init__(self, silence_seconds: float):
        self._silence_seconds = silence_seconds
        self._failing = threading.Event()
        self._closed = threading.Event()
        self._ending = threading.Lock()  # who holds it ends this process
        self._sockets: dict[int, socket.socket] = {}
        if jax.process_count() > 1:
            self._sockets = self._accept() if jax.process_index() == 0 else self._connect()
        self._listeners = [
            threading.Thread(target=self._listen, args=item, daemon=True) for item in self._sockets.items()
        ]
        for thread in (*self._listeners, threading.Thread(target=self._keep_alive, daemon=True)):
            thread.start()

    def close(self) -> None:
        """Leaves in good order. From now on nobody is missed."""
        self._send("bye")
        self._closed.set()

    def fail(self, error: BaseException) -> None:
        """Ends this process because of `error`, and all others with it. Does not return."""
        self._failing.set()
        if self._sockets:
            time.sleep(SETTLE_SECONDS)
        with self._ending:
            if isinstance(error, SystemExit):  # whoever raised it has said why
                text, code = f"ended with code {error.code}", error.code if isinstance(error.code, int) else 1
                if error.__context__ is not None:  # what `cli.user_errors` has told the user
                    text = f"{text} ({error.__context__})".splitlines()[0][:1000]
            else:
                traceback.print_exception(error)
                text, code = f"failed ({type(error).__name__}: {error})".splitlines()[0][:1000], 1
            self._send(f"failed {_name(jax.process_index())} {text}; its own log says more")
            self._see_off()
            sys.stdout.flush()
            os._exit(code)

    def _accept(self) -> dict[int, socket.socket]:
        """Process 0: connections of the others."""
        token = secrets.token_hex()  # whoever else finds the port is not one of us
        sockets: dict[int, socket.socket] = {}
        with socket.create_server(("", 0)) as server:
            server.settimeout(self._silence_seconds)
            ocp.multihost.get_jax_distributed_client().key_value_set(
                _KEY, json.dumps([server.getsockname()[1], token])
            )
            while len(sockets) < jax.process_count() - 1:
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = set(range(1, jax.process_count())) - sockets.keys()
                    logger.warning("no connection from processes %s: %s", sorted(missing), _FALLBACK)
                    break
                connection.settimeout(self._silence_seconds)
                with contextlib.suppress(OSError, ValueError):
                    index, word = connection.makefile("r").readline(200).split()
                    if secrets.compare_digest(word, token):
                        sockets[int(index)] = connection
        return sockets

    def _connect(self) -> dict[int, socket.socket]:
        """All others: the connection to process 0."""
        client = ocp.multihost.get_jax_distributed_client()
        port, token = json.loads(client.blocking_key_value_get(_KEY, round(1000 * self._silence_seconds)))
        host = str(jax_distributed.global_state.coordinator_address).rpartition(":")[0].strip("[]")
        try:
            connection = socket.create_connection((host, port), self._silence_seconds)
            connection.sendall(f"{jax.process_index()} {token}\n".encode())
        except OSError as error:
            logger.warning("process 0 is not reached at %s, port %d (%s): %s", host, port, error, _FALLBACK)
            return {}
        return {0: connection}

    def _send(self, line: str) -> None:
        for connection in self._sockets.values():
            with contextlib.suppress(OSError):  # its listener notices
                connection.sendall(f"{line}\n".encode())

    def _keep_alive(self) -> None:
        while not self._closed.wait(self._silence_seconds / 4):
            self._send("alive")

    def _listen(self, process: int, connection: socket.socket) -> None:
        why = "its connection closed"
        try:
            for line in connection.makefile("r", errors="replace"):
                word, _, text = line.strip().partition(" ")
                if word == "bye":
                    return
                if word == "lost" or (word == "failed" and not self._failing.is_set()):
                    self._end(word, text)
                if word == "failed":  # this one was failing before it knew
                    return
        except TimeoutError:
            why = f"silent for {self._silence_seconds:g} s, config.distributed.silence_seconds"
        except OSError as error:
            why = str(error)
        if not self._closed.is_set():
            self._end("lost", f"{_name(process)} is lost ({why})")

    def _end(self, word: str, text: str) -> None:
        """Ends this process because another one has ended. Returns only where another thread ends it."""
        if not self._ending.acquire(blocking=False):
            return
        say(
            f"error: {text}. This process ends with code {EXIT_LOST}; the newest checkpoint stays, and the"
            " same command on all hosts goes on from there"
        )
        self._send(f"{word} {text}")
        self._see_off()
        os._exit(EXIT_LOST)

    def _see_off(self) -> None:
        """Process 0 is the last to leave: JAX aborts the others when its service, which is there, goes."""
        deadline = time.monotonic() + SETTLE_SECONDS
        for thread in self._listeners:
            if jax.process_index() == 0 and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))


_FALLBACK = "the loss of a process will be noticed later, by JAX itself, which aborts (SIGABRT)"


def _name(process: int) -> str:
    return f"process {process} of {jax.process_count()}"
