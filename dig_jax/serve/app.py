"""The application: routes, and the way of a request from its body to the last byte of its answer.

A request is admitted or refused before its body is read; the body is read with limits; a thread of a few
reads pictures and tokenizes; the batcher's thread decodes, and tells this one, the event loop's, what came.
Whatever ends a request (its answer, an error, a client that leaves, the time that is over) frees its rows and
the bytes that it held.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dig_jax.rollout.batcher import Batcher
from dig_jax.rollout.tickets import Closed, Failure, Full, Piece, Ticket
from dig_jax.serve import errors, protocol
from dig_jax.serve.body import ClientDisconnect, Held, Share, read_body
from dig_jax.serve.errors import Refused
from dig_jax.serve.metrics import LEFT, Metrics
from dig_jax.serve.protocol import Asked
from dig_jax.serve.replies import Wording
from dig_jax.serve.settings import MEGABYTE, ServeSettings
from dig_jax.session import Session

logger = logging.getLogger("dig_jax")

READERS = 2  # threads that read pictures: each may have a large one in memory
DRAIN_SECONDS = 5.0
STUCK_SECONDS = 10.0  # after the time is over, for a client that takes no bytes

Events = asyncio.Queue[Piece | Failure]


class House:
    """What the requests of one server share.

    Args:
      session: the model.
      batcher: its rows.
      settings: what is allowed.

    Attributes:
      session, batcher, settings: those.
      held: bytes of all requests.
      metrics: of the server.
      inside: completions that were admitted and are not over.
    """

    def __init__(self, session: Session, batcher: Batcher, settings: ServeSettings):
        self.session = session
        self.batcher = batcher
        self.settings = settings
        self.held = Held(settings.max_held_mb * MEGABYTE)
        self.metrics = Metrics(batcher, self.held)
        self.inside = 0
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request in, and out again; raises Refused where too many are inside."""
        most = self.settings.waiting + self.batcher.room.rows
        if self.inside >= most:
            raise Refused(429, f"{most} requests are under way; try again later", "server_is_busy")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def read(self, request: Request, share: Share) -> Asked:
        """The body of a request, read; its pictures are held in `share` in place of it."""
        body = await read_body(request, self.settings, share)
        loop = asyncio.get_running_loop()
        asked = await loop.run_in_executor(self.readers, protocol.read, body, self.session, self.settings)
        share.change(sum(image.pixels.nbytes for image in asked.request.shown))
        return asked

    def submit(self, asked: Asked) -> tuple[Ticket, Events]:
        """Hands a request to the batcher: its ticket, and where what comes is put."""
        events: Events = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def listen(event: Piece | Failure) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(events.put_nowait, event)

        try:
            return self.batcher.submit(asked.request, listen, n=asked.count, top=asked.top), events
        except ValueError as error:  # longer than a row
            raise protocol.as_asked(error) from None
        except Full as error:
            raise Refused(429, f"{error}; try again later", "server_is_busy") from None
        except Closed:
            raise Refused(503, "the server is stopping", "server_is_stopping") from None


async def completion(house: House, request: Request) -> Response:
    """Answers a request for a chat completion; raises Refused where it can not."""
    start = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(house.admitted())
        share = stack.enter_context(Share(house.held))
        asked = await house.read(request, share)
        ticket, events = house.submit(asked)
        stack.callback(ticket.cancel)
        stack.callback(lambda: house.metrics.seconds.observe(time.monotonic() - start))
        answer = Answer(house, asked, ticket, events, start)
        if asked.streamed:
            return EventStream(answer, stack.pop_all())
        return await _unless_gone(request, answer.whole())
    raise AssertionError("a response was returned")


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """What comes of the work, or nothing, and the work is cancelled, when the client leaves before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        leaving.cancel()


class Answer:
    """An answer under way.

    Args:
      house: whose it is.
      asked: the request.
      ticket: of the request.
      events: what comes of it.
      start: when it came, in `time.monotonic`.
    """

    def __init__(self, house: House, asked: Asked, ticket: Ticket, events: Events, start: float):
        self.seconds_left = house.settings.timeout_seconds - (time.monotonic() - start)
        self._house = house
        self._ticket = ticket
        self._events = events
        self._start = start
        self._wording = Wording(asked, house.settings.name, house.session.opened.tokenizer)

    async def whole(self) -> Response:
        """The answer, when it is complete."""
        async for piece in self._pieces():
            self._wording.add(piece)
        return JSONResponse(self._wording.whole())

    async def events(self) -> AsyncIterator[bytes]:
        """The answer as server-sent events, while it comes; an error that comes later is the last of them."""
        wording = self._wording
        for chunk in wording.first():
            yield _event(chunk)
        try:
            async for piece in self._pieces():
                for chunk in wording.chunks(piece):
                    yield _event(chunk)
        except Refused as refused:
            yield _event(errors.as_json(refused))
            return
        for chunk in wording.last():
            yield _event(chunk)
        yield b"data: [DONE]\n\n"

    async def _pieces(self) -> AsyncIterator[Piece]:
        deadline = asyncio.get_running_loop().time() + self.seconds_left
        first = True
        while not self._wording.complete:
            try:
                async with asyncio.timeout_at(deadline):
                    event = await self._events.get()
            except TimeoutError:
                seconds = self._house.settings.timeout_seconds
                raise Refused(504, f"no whole answer within {seconds:g} s", "timeout") from None
            if isinstance(event, Failure):
                if isinstance(event.error, Closed):
                    raise Refused(503, "the server is stopping", "server_is_stopping")
                raise Refused(500, "the answer failed; the server's log says why", "server_error")
            if first:
                self._wording.step = self._ticket.step
                self._house.metrics.first_token_seconds.observe(time.monotonic() - self._start)
                first = False
            yield event


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(StreamingResponse):
    """A streamed answer; what it holds is given back however it ends."""

    def __init__(self, answer: Answer, stack: contextlib.AsyncExitStack):
        super().__init__(
            answer.events(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},  # proxies pass on what comes
        )
        self._stack = stack
        self._seconds = answer.seconds_left + STUCK_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it; gives up on a client that takes no bytes."""
        async with self._stack:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)


class Door:
    """Lets in who may come in, turns what is refused into responses, and counts.

    Args:
      app: what is behind the door.
      house: whose it is.
    """

    def __init__(self, app: ASGIApp, house: House):
        self._app = app
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, body_ended = LEFT, False

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        async def watched() -> Message:
            nonlocal body_ended
            message = await receive()
            body_ended = not message.get("more_body", False)
            return message

        try:
            self._check(scope)
            await self._app(scope, watched, counted)
        except Refused as refused:
            if refused.status != 408:
                await _drain(scope, watched, lambda: body_ended)
            await errors.response(refused)(scope, receive, counted)
        except ClientDisconnect:
            pass
        except Exception:
            if status != LEFT:  # the response has begun
                raise
            logger.exception("a request failed")
            await errors.response(Refused(500, "the request failed", "server_error"))(scope, receive, counted)
        finally:
            known = scope["path"] if scope["path"] in PATHS else "other"
            self._house.metrics.requests.labels(known, status).inc()

    def _check(self, scope: Scope) -> None:
        headers, settings = Headers(scope=scope), self._house.settings
        name = headers.get("host", "")
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if settings.host_names and name not in settings.host_names:
            raise Refused(403, f"this server is not {name!r}", "wrong_host")
        if not settings.api_key or scope["path"] == "/healthz":
            return
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {settings.api_key}".encode()):
            raise Refused(401, "the API key is wrong or missing", "invalid_api_key")


async def _drain(scope: Scope, receive: Receive, ended: Callable[[], bool]) -> None:
    """Takes what a refused client is still sending, for a while, and drops it.

    Most clients send all of a request before they read the response: closed at once, they would not see it.
    """
    headers = Headers(scope=scope)
    sends = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    if not sends or "expect" in headers:  # the latter asks before it sends
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while not ended():
                await receive()


PATHS = ("/v1/chat/completions", "/v1/models", "/healthz", "/metrics")


def make_app(session: Session, batcher: Batcher, settings: ServeSettings) -> FastAPI:
    """The application; when it shuts down, so does the batcher."""
    house = House(session, batcher, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close, 0)  # whose answers had their time
        house.readers.shutdown(cancel_futures=True)

    app = FastAPI(title="dig_jax", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Door, house=house)
    app.state.house = house
    model = {"id": settings.name, "object": "model", "created": int(time.time()), "owned_by": "dig_jax"}

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        return await completion(house, request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        if name != settings.name:
            raise Refused(404, f"there is no model {name!r} here", "model_not_found", "model")
        return model

    @app.get("/healthz")
    async def health() -> Response:
        alive = batcher.stats().alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(house.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return errors.response(Refused(error.status_code, str(error.detail), code))

    return app
