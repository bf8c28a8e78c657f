"""One tiny model and its compiled programs for all servers of these tests; a server costs milliseconds."""

import base64
import contextlib
import dataclasses
import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from openai import OpenAI
from PIL import Image

import dig_jax
from dig_jax.rollout.batcher import Batcher
from dig_jax.rollout.continuous import ContinuousPrograms
from dig_jax.serve.app import House, make_app
from dig_jax.serve.settings import ServeSettings
from dig_jax.session import Session

ROWS, WAITING = 3, 2


def picture(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def message(text: str, *urls: str) -> list[dict[str, Any]]:
    """A turn of the user: pictures, and then the text."""
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


@dataclasses.dataclass
class Served:
    """A server that runs."""

    port: int
    house: House
    server: uvicorn.Server
    thread: threading.Thread
    client: OpenAI

    def ask(self, text: str = "Describe.", *urls: str, **options: Any) -> Any:
        """A chat completion of OpenAI's client."""
        return self.client.chat.completions.create(model="tiny", messages=message(text, *urls), **options)


@pytest.fixture(scope="session")
def session(tiny_qwen3vl_thinking: Path) -> Session:
    return dig_jax.load_model(tiny_qwen3vl_thinking, dtype="float32")


@pytest.fixture(scope="session")
def programs(session: Session) -> ContinuousPrograms:
    batcher = session.batcher(rows=ROWS, max_prompt_tokens=256, max_answer_tokens=60)
    batcher.close()
    return batcher.programs


Serving = Callable[..., contextlib.AbstractContextManager[Served]]


@pytest.fixture(scope="session")
def serving(session: Session, programs: ContinuousPrograms) -> Serving:
    """Starts servers: `with serving(api_key="k") as served`; other programs with `programs=`."""

    @contextlib.contextmanager
    def start(programs: ContinuousPrograms = programs, **changes: Any) -> Iterator[Served]:
        settings = ServeSettings(**{"name": "tiny", "waiting": WAITING} | changes)
        batcher = Batcher(programs, session.policy[1], session.desk, settings.waiting)
        app = make_app(session, batcher, settings)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=300))
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        client = OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1",
            api_key=settings.api_key or "-",
            max_retries=0,
            timeout=300,
        )
        try:
            yield Served(port, app.state.house, server, thread, client)
        finally:
            client.close()
            server.should_exit = True
            thread.join()

    return start


@pytest.fixture(scope="session")
def served(serving: Serving) -> Iterator[Served]:
    """A server for tests that leave it as it was."""
    with serving() as running:
        yield running


class Gate:
    """Programs that decode only while the gate is open."""

    def __init__(self, programs: ContinuousPrograms):
        self.opened = threading.Event()
        self.asked = threading.Event()  # somebody wants to decode

        def advance(*args: Any) -> Any:
            self.asked.set()
            assert self.opened.wait(300)
            return programs.advance(*args)

        self.programs = dataclasses.replace(programs, advance=advance)


@pytest.fixture
def gate(programs: ContinuousPrograms) -> Iterator[Gate]:
    gate = Gate(programs)
    yield gate
    gate.opened.set()
