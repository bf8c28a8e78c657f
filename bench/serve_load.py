"""The server under 64 clients at once, a third of them with faults: answers, time and memory.

    python -m bench.serve_load [--model=DIR] [--clients=64] [--requests=4] [--rows=8]

It starts `python -m dig_jax.serve` on a small random model (or --model), asks each of a few questions alone,
and then all clients ask at once. Good ones ask the same questions, streamed or not, one or two answers, with
and without pictures; what they get must be what was answered alone. The others cut their connection while
they send or read, take no bytes of a long answer, or send broken JSON, pictures that claim 3.6 gigapixels and
bodies of 100 MB, with and without their length. Afterwards nothing may be left: no row, no byte held.

It ends with code 1 where an answer was lost or differs, a fault got another status than it should, or
something was left.
"""

import argparse
import base64
import collections
import concurrent.futures
import http.client
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MEGABYTE = 2**20
TOKENS = 48
# Of every 16 clients, so many of each kind; the rest are good.
FAULTS = {
    "cut while sending": 1,
    "cut while reading": 1,
    "stalled": 1,
    "broken JSON": 1,
    "bomb": 1,
    "100 MB": 1,
}
EXPECTED = {"broken JSON": {400}, "bomb": {413}, "100 MB": {413}}


def main(argv: list[str] | None = None) -> int:
    """The command; what it returns is the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.serve_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="folder of a model (default: a small random one)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=4, help="of each client")
    parser.add_argument("--rows", type=int, default=8, help="answers decoded at a time")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            from dig_jax.scratch import ScratchConfig, make_scratch_folder

            args.model = f"{folder}/model"
            make_scratch_folder(args.model, ScratchConfig())
        server, port = start(args.model, args.rows, args.clients)
        try:
            return measure(server, port, args)
        finally:
            server.terminate()
            print(f"stopped on SIGTERM with code {server.wait(120)}", flush=True)


def start(model: str, rows: int, clients: int) -> tuple[subprocess.Popen[str], int]:
    """The server's process and its port, when it answers."""
    command = [sys.executable, "-m", "dig_jax.serve", f"--model={model}", "--name=m", "--port=0"]
    command += [f"--rows={rows}", f"--waiting={clients}", "--dtype=float32", "--body_seconds=5"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"http://127.0.0.1:(\d+)", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server, int(found[1])
        print(line, end="", file=sys.stderr)
    raise SystemExit(f"the server ended with code {server.wait()}")


def measure(server: subprocess.Popen[str], port: int, args: argparse.Namespace) -> int:
    """Asks, and prints what came of it."""
    questions = [make_question(number) for number in range(8)]
    alone = [ask(port, question)[1] for question in questions]
    before = memory(server.pid)
    told: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    seconds: list[float] = []
    wrong = 0
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(args.clients) as clients:
        work = []
        for number in range(args.clients):
            kind = kind_of(number)
            for turn in range(args.requests):
                which = (number + turn) % len(questions)
                streamed = bool((number + turn) % 2)
                job = clients.submit(one, port, kind, questions[which], streamed)
                work.append((kind, which, job))
        for kind, which, job in work:
            status, answer, took = job.result()
            told[kind][str(status)] += 1
            if kind == "good":
                seconds.append(took)
                wrong += answer != alone[which]
            elif status not in EXPECTED.get(kind, {status}):
                wrong += 1
    wall = time.monotonic() - start
    left = leftovers(port)
    print(f"{args.clients} clients, {args.requests} requests each, {args.rows} rows: {wall:.1f} s")
    for kind, statuses in told.items():
        print(f"| {kind} | {sum(statuses.values())} | {dict(statuses)} |")
    answers = sum(questions[which]["n"] for kind, which, _ in work if kind == "good")
    print(f"good requests: median {np.median(seconds):.1f} s, slowest {max(seconds):.1f} s,", end=" ")
    print(f"{answers * TOKENS / wall:.0f} tokens a second at most; other than alone or lost: {wrong}")
    print(f"memory of the server: {before[0]:.0f} MB before, {memory(server.pid)[1]:.0f} MB at most")
    print(f"left afterwards: {left}")
    return 1 if wrong or any(left.values()) else 0


def kind_of(number: int) -> str:
    """The kind of a client."""
    kinds = [kind for kind, count in FAULTS.items() for _ in range(count)]
    return (kinds + ["good"] * (16 - len(kinds)))[number % 16]


def make_question(number: int) -> dict[str, Any]:
    """A request: with no pictures or two, one answer or two."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "Find differences." if number % 2 else "Hm."}]
    for which in range(2 * (number % 2)):
        pixels = np.random.default_rng(10 * number + which).integers(0, 255, (128, 128, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        content.insert(0, image(data.getvalue()))
    messages = [{"role": "user", "content": content}]
    how = {"temperature": float(number % 3 > 0), "seed": number, "n": 1 + number % 2}
    return {"model": "m", "messages": messages, "max_tokens": TOKENS, **how}


def image(data: bytes) -> dict[str, Any]:
    """A picture in a message."""
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def bomb() -> bytes:
    """A PNG whose head claims 60,000 x 60,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    parts = [struct.pack(">I", len(x) - 4) + x + struct.pack(">I", zlib.crc32(x)) for x in (head, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def one(port: int, kind: str, question: dict[str, Any], streamed: bool) -> tuple[Any, Any, float]:
    """A request of a client of that kind: status, what was answered, seconds."""
    start = time.monotonic()
    status: int | str
    if kind == "good":
        status, answer = ask(port, question | {"stream": streamed})
        return status, answer, time.monotonic() - start
    if kind.startswith("cut") or kind == "stalled":
        return leave(port, kind, question), None, time.monotonic() - start
    if kind == "broken JSON":
        status = send(port, b'{"model": "m", "messages": [' + b"[" * 1000)
    elif kind == "bomb":
        status = send(port, json.dumps(question | {"messages": message(image(bomb()))}).encode())
    else:
        status = send(port, bytes(100 * MEGABYTE), chunked=streamed)
    return status, None, time.monotonic() - start


def message(*content: dict[str, Any]) -> list[dict[str, Any]]:
    """A turn of the user."""
    return [{"role": "user", "content": list(content)}]


def ask(port: int, question: dict[str, Any]) -> tuple[int, list[str]]:
    """Status and texts of an answer, streamed or not; asks again where the server is full."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(question), headers)
        response = connection.getresponse()
        data = response.read().decode()
        connection.close()
        if response.status != 429:
            break
        time.sleep(0.2)
    if response.status != 200:
        return response.status, [data]
    texts = [""] * question["n"]
    if not question.get("stream"):
        for choice in json.loads(data)["choices"]:
            texts[choice["index"]] = choice["message"]["content"]
        return 200, texts
    lines = [line.removeprefix("data: ") for line in data.split("\n\n") if line]
    if lines.pop() != "[DONE]":
        return 0, [data]
    for line in lines:
        for choice in json.loads(line)["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    return 200, texts


def send(port: int, body: bytes, chunked: bool = False) -> int | str:
    """Sends a body, and returns the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Content-Type": "application/json"}
    try:
        if chunked:
            parts = (body[at : at + MEGABYTE] for at in range(0, len(body), MEGABYTE))
            connection.request("POST", "/v1/chat/completions", parts, headers, encode_chunked=True)
        else:
            connection.request("POST", "/v1/chat/completions", body, headers)
        return connection.getresponse().status
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def leave(port: int, kind: str, question: dict[str, Any]) -> str:
    """A client that does not stay to the end."""
    body = json.dumps(question | {"stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=600) as connection:
        # A small buffer, so that a long answer does not fit into it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        if kind == "cut while sending":
            connection.sendall(body[: len(body) // 2])
            return "left"
        connection.sendall(body)
        if kind == "cut while reading":
            connection.recv(100)
            return "left"
        time.sleep(5)  # and takes nothing
    return "left"


def memory(pid: int) -> tuple[float, float]:
    """Megabytes that a process holds, and held at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert now and most
    return int(now[1]) / 1024, int(most[1]) / 1024


def leftovers(port: int) -> dict[str, float]:
    """What the server still holds, some time after all clients are gone."""
    names = ("dig_jax_waiting_requests", "dig_jax_running_answers", "dig_jax_held_bytes")
    left: dict[str, float] = {}
    for _ in range(60):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            text = response.read().decode()
        left = {name: float(re.search(rf"^{name} (.*)$", text, re.MULTILINE)[1]) for name in names}  # type: ignore[index]
        if not any(left.values()):
            break
        time.sleep(0.5)
    return left


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
