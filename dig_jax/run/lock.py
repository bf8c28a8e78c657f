"""One run per workdir: a file there says who writes in it, and who else comes is refused.

The file is made in one step that fails where there is one. A run that was killed leaves its own behind, so
who finds one asks whether its holder lives. On the same machine the system knows. On another one, or in
another container, the holder shows that it lives by touching the file every few seconds: one that stays as
it is, by the clock of who asks, is stale. A holder that finds the file another's, because its own machine
had stood still for so long, ends at once.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from dig_jax.machines.distributed import texts_of_all
from dig_jax.machines.folder import is_local
from dig_jax.machines.stopping import say

FILE = "running.json"
BEAT_SECONDS = 10.0  # between two signs of life
STALE_SECONDS = 60.0  # a file of another machine that did not change for so long is one of a dead run
SETTLE_SECONDS = 1.0  # after taking over: another may have found the same file stale at the same moment

logger = logging.getLogger("dig_jax")


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process that writes in a workdir.

    Attributes:
        host: name of its machine.
        place: where its process id means something: the machine since it was started, and the container.
        pid: its process id.
        started: when it began, in the clock ticks of its machine; tells it from a later one of the same id.
        since: the date, for people.
        token: of this file.
    """

    host: str
    place: str
    pid: int
    started: int
    since: str
    token: str

    @classmethod
    def this(cls) -> "Holder":
        """The process that asks."""
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        return cls(_host(), _place(), os.getpid(), _started(os.getpid()) or 0, since, secrets.token_hex(8))

    def lives(self) -> bool | None:
        """Whether it lives; None: this machine cannot know."""
        if self.place != _place():
            return None
        return _started(self.pid) == self.started


@contextlib.contextmanager
def held(workdir: epath.Path) -> Iterator[None]:
    """Holds the workdir for this run; with several processes process 0 does, and all call it together.

    Raises:
        ValueError: another run that lives holds it; names its host and process.
        OSError: nothing can be written there.
    """
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir={workdir} is a file: name a folder")
    lock = _Lock(workdir / FILE) if jax.process_index() == 0 else None
    problem = "" if lock is None else lock.acquire()
    if refused := next(filter(None, texts_of_all(problem, width=2000)), ""):
        raise ValueError(refused)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


class _Lock:
    """The file, and a thread that touches it."""

    def __init__(self, path: epath.Path):
        self._path = path
        self._me = Holder.this()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lock")
        self._beats = 0
        self._took_over = False

    def acquire(self) -> str:
        """Takes the file; returns why that is not possible, "" where it was."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while not self._created():
            found, holder = _read(self._path)
            if found is None:  # it was given up this moment
                continue
            if holder is not None and holder.token == self._me.token:
                break  # a bucket's answer that it was created got lost, and the client asked again
            if holder is not None and self._lives(holder, found):
                return (
                    f"{self._path.parent} is in use by the run of process {holder.pid} on host {holder.host},"
                    f" since {holder.since}: wait for it, stop it, or choose another --workdir. Where it is"
                    f" certain that it is gone, remove {self._path}"
                )
            if holder is None and not self._stays(found):
                continue
            self._take_over(holder)
        self._thread.start()
        return ""

    def release(self) -> None:
        """Gives the workdir up."""
        self._released.set()
        self._thread.join(BEAT_SECONDS)
        with contextlib.suppress(OSError):
            if self._is_mine():
                self._path.unlink()
            if is_local(self._path):
                os.rmdir(self._path.parent)  # where nothing came of the run; else it is not empty

    def _content(self) -> str:
        return json.dumps(dataclasses.asdict(self._me) | {"beats": self._beats})

    def _created(self) -> bool:
        """Makes the file with its content; False where there is one of another."""
        try:
            if is_local(self._path):
                _create_local(pathlib.Path(self._path), self._content())
            else:
                # Google's storage is asked that there be no such object ("generation 0").
                _bucket(self._path).pipe_file(str(self._path), self._content().encode(), mode="create")
        except FileExistsError:
            return False
        if is_local(self._path) or not self._took_over:
            return True
        # Nothing here removes an object of a bucket only if it is a certain one: another process may have
        # removed this one for the stale one.
        time.sleep(SETTLE_SECONDS)
        return self._is_mine()

    def _lives(self, holder: Holder, found: Any) -> bool:
        lives = holder.lives()
        if lives is not None:
            return lives
        logger.info(
            "%s is held by process %d on host %s: watching for up to %.0f s whether that lives",
            *(self._path.parent, holder.pid, holder.host, STALE_SECONDS),
        )
        return not self._stays(found)

    def _stays(self, found: Any) -> bool:
        """Whether the file stays as it was found for as long as a dead run's does."""
        deadline = time.monotonic() + STALE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(min(1.0, STALE_SECONDS / 10))
            if _read(self._path)[0] != found:
                return False
        return True

    def _take_over(self, stale: Holder | None) -> None:
        """Removes a stale file, unless another process has just done so."""
        who = "a damaged one" if stale is None else f"process {stale.pid} on host {stale.host}, which is gone"
        logger.info("%s was held by %s: taken over", self._path.parent, who)
        self._took_over = True
        with contextlib.suppress(FileNotFoundError):
            if is_local(self._path):
                _remove_local(pathlib.Path(self._path), stale)
            elif _read(self._path)[1] == stale:
                self._path.unlink()

    def _is_mine(self) -> bool:
        holder = _read(self._path)[1]
        return holder is not None and holder.token == self._me.token

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                mine = self._is_mine()
                if mine:
                    self._touch()
            except Exception:  # a disk or network that fails now may be back for the next one
                continue
            if not mine and not self._released.is_set():
                say(
                    f"error: {self._path} is gone, or another run's, who found this one silent for"
                    f" {STALE_SECONDS:.0f} s; this one ends, so that one writes there alone"
                )
                os._exit(1)

    def _touch(self) -> None:
        if is_local(self._path):
            os.utime(self._path)  # needs no room on the disk
            return
        self._beats += 1
        self._path.write_text(self._content())


def _create_local(path: pathlib.Path, content: str) -> None:
    """Makes a file with its content in one step; raises FileExistsError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(content)
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without links: the content comes a moment later
            with open(path, "x", encoding="utf-8") as file:
                file.write(content)
    finally:
        draft.unlink(missing_ok=True)


def _remove_local(path: pathlib.Path, stale: Holder | None) -> None:
    """Removes the file of `stale`; puts back what is another's by now. Raises FileNotFoundError."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    path.rename(aside)
    if _read(epath.Path(aside))[1] != stale:
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink()


def _read(path: epath.Path) -> tuple[Any, Holder | None]:
    """What changes with every sign of life, None where there is no file; its holder, None where damaged."""
    try:
        if is_local(path):
            with open(path, "rb") as file:  # opening asks a shared disk anew
                content, touched = file.read(), os.fstat(file.fileno()).st_mtime_ns
        else:
            content, touched = _bucket(path).cat_file(str(path)), 0
    except FileNotFoundError:
        return None, None
    try:
        values = json.loads(content)
        values.pop("beats", None)
        holder = Holder(**values)
    except (ValueError, TypeError, AttributeError):
        holder = None
    return (content, touched), holder


def _bucket(path: epath.Path) -> Any:
    """The client of the bucket: epath has no creation that fails where there is a file."""
    from fsspec.core import url_to_fs  # comes with the gcs extra

    return url_to_fs(str(path))[0]


def _host() -> str:
    return socket.gethostname()


def _place() -> str:
    """The machine since its start, and the container in it; without /proc the name of the machine."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return _host()


def _started(pid: int) -> int | None:
    """When a process of this machine began, in clock ticks, 0 where that is not told; None: it is gone."""
    try:
        # After the name in brackets, which may hold anything. proc(5): field 3 is the state, 22 the start.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        if pathlib.Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0
