"""What a server refuses before a model is asked: bodies, keys, hosts, pictures. No model is needed."""

import http.server
import importlib.util
import io
import json
import pathlib
import socket
import struct
import threading
import types
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from PIL import Image

from dig_jax.rollout.tickets import Stats
from dig_jax.serve import pictures
from dig_jax.serve.__main__ import _settings, main, parse_arguments
from dig_jax.serve.app import make_app
from dig_jax.serve.errors import Refused
from dig_jax.serve.settings import ServeSettings
from tests.serve.conftest import data_url, picture, png

SETTINGS = ServeSettings("tiny")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server without a model, for bodies of at most 0.01 MB that come within a second."""
    stats = Stats(0, 0, 1, 0, 0, 0, 0, alive=True)
    batcher: Any = types.SimpleNamespace(
        stats=lambda: stats, close=lambda _: True, room=types.SimpleNamespace(rows=1)
    )
    session: Any = None
    settings = ServeSettings("tiny", max_body_mb=0.01, max_held_mb=0.015, body_seconds=1, api_key="key")
    app = make_app(session, batcher, settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def answer_to(port: int, body: bytes = b"{}", method: str = "POST", path: str = "", **fields: str) -> Any:
    """Status and JSON of a response. Fields are those of the head, "" to leave one out."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        head = {
            "Host": "localhost",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Authorization": "Bearer key",
        } | {name.replace("_", "-"): value for name, value in fields.items()}
        lines = [f"{name}: {value}" for name, value in head.items() if value]
        start = f"{method} {path or '/v1/chat/completions'} HTTP/1.1"
        connection.sendall("\r\n".join([start, *lines, "", ""]).encode() + body)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"body": b"{nonsense"}, 400, "invalid_json"),
        ({"body": b"[" * 9000}, 400, "invalid_json"),
        ({"body": b'{"model": "tiny", "messages": []}'}, 400, "invalid_value"),
        ({"body": b" " * 20_000}, 413, "request_too_large"),
        ({"Content_Length": "100000000", "Expect": "100-continue", "body": b""}, 413, "request_too_large"),
        (
            {
                "Content_Length": "",
                "Transfer_Encoding": "chunked",
                "body": b"4000\r\n" + b" " * 0x4000 + b"\r\n0\r\n\r\n",
            },
            413,
            "request_too_large",
        ),
        ({"Content_Length": "3"}, 408, "request_timeout"),
        ({"Content_Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"Authorization": "Bearer guess"}, 401, "invalid_api_key"),
        ({"Authorization": ""}, 401, "invalid_api_key"),
        ({"Host": "evil.example"}, 403, "wrong_host"),
        ({"method": "GET"}, 405, "method_not_allowed"),
        ({"path": "/v1/completions"}, 404, "not_found"),
        ({"path": "/v1/models/other", "method": "GET"}, 404, "model_not_found"),
    ],
)
def test_a_bad_request_gets_the_right_status_in_the_form_of_openai(
    asked: dict[str, Any], status: int, code: str, port: int
) -> None:
    found, body = answer_to(port, **asked)
    assert (found, body["error"]["code"]) == (status, code)
    assert body["error"]["message"] and "type" in body["error"] and "param" in body["error"]


def test_health_needs_no_key_and_an_address_of_ipv6_is_a_host(port: int) -> None:
    for host in ("localhost:80", "127.0.0.1", "[::1]:8000", "[::1]"):
        found = answer_to(port, path="/healthz", method="GET", Authorization="", Host=host)
        assert found == (200, {"status": "ok"})


def test_bytes_of_all_requests_together_are_bounded(port: int) -> None:
    body = b" " * 9_000
    with socket.create_connection(("127.0.0.1", port), timeout=300) as slow:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n"
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 9001\r\n\r\n".encode() + body)
        statuses = {answer_to(port, body)[0] for _ in range(20)}
        response = http.client.HTTPResponse(slow)
        response.begin()
        assert response.status == 408
    assert statuses <= {400, 429} and 429 in statuses  # blanks are no JSON
    assert answer_to(port, body)[0] == 400  # the bytes were given back


# Pictures


def bomb() -> bytes:
    """A PNG whose head claims 60,000 x 60,000 pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    parts = [struct.pack(">I", len(x) - 4) + x + struct.pack(">I", zlib.crc32(x)) for x in (chunk, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        (data_url(bomb()), 413, "more than 33554432 pixels"),
        (data_url(b"no picture"), 400, "no readable picture"),
        (data_url(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 400, "no readable picture"),
        ("data:image/png;base64,@@", 400, "not base64"),
        ("data:image/png,abc", 400, "expected data:image/png;base64"),
        ("gopher://a", 400, "expected a URL that begins with"),
        ("/etc/passwd", 400, "expected a URL that begins with"),
        ("file:///etc/passwd", 400, "started with --image_root"),
        ("https://example.com/a.png", 400, "without --remote_images"),
    ],
)
def test_a_picture_that_is_not_allowed_is_refused(url: str, status: int, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        pictures.load(url, "messages[0]", SETTINGS)
    assert refused.value.status == status and refused.value.param == "messages[0]"


def test_a_picture_of_a_few_pixels_too_many_is_refused_and_one_less_is_not() -> None:
    data = io.BytesIO()
    Image.new("RGB", (10, 11)).save(data, "JPEG")
    assert pictures.load(data_url(data.getvalue()), "", ServeSettings("tiny", max_image_pixels=110))
    with pytest.raises(Refused, match="more than 109 pixels"):
        pictures.load(data_url(data.getvalue()), "", ServeSettings("tiny", max_image_pixels=109))


def test_files_are_read_below_one_folder_whatever_leads_elsewhere(tmp_path: pathlib.Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "root_beside.png"
    (root / "a b").mkdir(parents=True)
    good = png(picture(1))
    for file in (root / "a b" / "ä.png", outside):
        file.write_bytes(good)
    (root / "link.png").symlink_to(outside)
    (root / "inner.png").symlink_to(root / "a b" / "ä.png")
    settings = ServeSettings("tiny", image_root=root)
    for name in ("a%20b/%C3%A4.png", "inner.png", "a%20b/../inner.png"):
        assert pictures.load(f"file://{root}/{name}", "", settings) == good
    for path in (outside, f"{root}/../root_beside.png", f"{root}/link.png", f"{root}/%2e%2e/root_beside.png"):
        with pytest.raises(Refused, match="not below the folder"):
            pictures.load(f"file://{path}", "", settings)
    for path, words in [(f"{root}/none.png", "No such file"), (f"{root}/a%20b", "not a file|directory")]:
        with pytest.raises(Refused, match=words):
            pictures.load(f"file://{path}", "", settings)
    with pytest.raises(Refused, match="expected file:///"):
        pictures.load(f"file://elsewhere{root}/inner.png", "", settings)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "100.64.0.1", "::1"]
    + ["fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "::"],
)
def test_addresses_in_this_machine_or_its_network_are_not_public(address: str) -> None:
    assert not pictures.is_public(address)
    assert pictures.is_public("8.8.8.8") and pictures.is_public("2606:4700::1111")


def test_a_remote_picture_is_fetched_from_a_public_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    good = png(picture(2))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/a%20b.png?x=1" else 302)
            self.send_header("Location", "http://127.0.0.1/secret")
            self.end_headers()
            self.wfile.write(good)

        def log_message(self, *_: object) -> None: ...

    settings = ServeSettings("tiny", remote_images=True)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        place = f"localhost:{server.server_port}"
        with pytest.raises(Refused, match="localhost is no public address"):
            pictures.load(f"http://{place}/a.png", "", settings)
        monkeypatch.setattr(pictures, "is_public", lambda _: True)
        assert pictures.load(f"http://{place}/a b.png?x=1", "", settings) == good
        with pytest.raises(Refused, match="localhost answered with status 302"):
            pictures.load(f"http://{place}/moved.png", "", settings)
        with pytest.raises(Refused, match="not an address"):
            pictures.load(f"http://me@{place}/a.png", "", settings)
        server.shutdown()


# The command


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(SystemExit, match="2"):
        main(["--model=nowhere"])
    assert "uvicorn: not installed; pip install 'dig_jax[serve]'" in capsys.readouterr().err


def test_the_flags_are_the_settings(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("secret\n")
    flags = [f"--api_key_file={tmp_path / 'key'}", f"--image_root={tmp_path}", "--max_body_mb=2"]
    settings = _settings(parse_arguments(["--model=m", *flags]), "folder")
    assert (settings.name, settings.api_key, settings.max_body_mb) == ("folder", "secret", 2)
    monkeypatch.setenv("DIG_JAX_API_KEY", "other")
    assert _settings(parse_arguments(["--model=m", "--name=n"]), "folder") == ServeSettings(
        "n", api_key="other"
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max_body_mb=0"], "--max_body_mb=0.0: expected more than 0"),
        (["--max_held_mb=1"], "is less than --max_body_mb=32"),
        (["--image_root=/no/such/folder"], "no such folder"),
    ],
)
def test_a_wrong_flag_is_refused(flags: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _settings(parse_arguments(["--model=m", *flags]), "folder")
