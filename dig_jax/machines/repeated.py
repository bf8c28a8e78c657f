"""Something that is done from time to time in a thread."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("dig_jax")


class Repeated:
    """Calls a function every few seconds until it is stopped. After an error, told once in a row, it goes on.

    Args:
      call: what is done.
      seconds: from the end of one call to the next.
      name: of the thread, and of what is done, for errors.
    """

    def __init__(self, call: Callable[[], object], seconds: float, name: str):
        if not seconds > 0:
            raise ValueError(f"{name}: every {seconds} seconds; expected more than 0")
        self._call = call
        self._seconds = seconds
        self._name = name
        self._told = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Waits for a call under way; none follows."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._call()
                self._told = ""
            except Exception as error:  # of a disk, or of what lies on it: the next time it may be there
                if str(error) != self._told:
                    logger.warning("%s: %s (tried again every %g s)", self._name, error, self._seconds)
                self._told = str(error)
