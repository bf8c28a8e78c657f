"""Reading the bodies of requests: no larger, no slower and no more of them at a time than is allowed."""

import asyncio
import contextlib

from starlette.requests import ClientDisconnect, Request

from dig_jax.serve.errors import Refused
from dig_jax.serve.settings import MEGABYTE, ServeSettings


class Held:
    """Bytes that the requests in the house hold in memory, together at most so many.

    Attributes:
      bytes: held now.
    """

    def __init__(self, most: float):
        self.bytes = 0
        self._most = most

    def take(self, count: int) -> None:
        """Takes `count` more; raises Refused, and takes none, where that is too many."""
        if self.bytes + count > self._most:
            raise Refused(
                429, "the server holds as many bytes of requests as it may; try again", "server_is_full"
            )
        self.bytes += count

    def give_back(self, count: int) -> None:
        """Gives back what was taken."""
        self.bytes -= count


class Share:
    """What one request holds, given back when it is over."""

    def __init__(self, held: Held):
        self._held = held
        self._count = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self.change(0)

    def grow(self, count: int) -> None:
        """Holds `count` bytes more; raises as `Held.take`."""
        self._held.take(count)
        self._count += count

    def change(self, count: int) -> None:
        """Holds `count` bytes in all; raises as `Held.take`."""
        if count > self._count:
            return self.grow(count - self._count)
        self._held.give_back(self._count - count)
        self._count = count


async def read_body(request: Request, settings: ServeSettings, share: Share) -> bytes:
    """The body of a request, its bytes held in `share`.

    Raises:
      Refused: it is not said to be JSON (415), too large (413), too slow (408), or there is no room (429).
      ClientDisconnect: the client left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a page of another origin may not send without asking first
        raise Refused(415, f"Content-Type is {kind!r}; expected application/json", "unsupported_media_type")
    most = int(settings.max_body_mb * MEGABYTE)
    too_large = Refused(
        413, f"the request is larger than {settings.max_body_mb:g} MB (--max_body_mb)", "request_too_large"
    )
    with contextlib.suppress(ValueError):
        if int(request.headers.get("content-length", "0")) > most:
            raise too_large  # before a byte of it is read
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                share.grow(len(part))
                parts.append(part)
    except TimeoutError:
        raise Refused(
            408, f"the request did not come in within {settings.body_seconds:g} s", "request_timeout"
        ) from None
    return b"".join(parts)


__all__ = ["ClientDisconnect", "Held", "Share", "read_body"]
