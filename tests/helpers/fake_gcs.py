"""Google Cloud Storage as a small HTTP server on this machine, with objects in memory.

As much of its JSON API as the clients of a run use: gcsfs (files), TensorStore (checkpoints), Google's C++
client in array_record (datasets) and google-cloud-storage (what kind of bucket it is). They find it through
`environment()`. https://cloud.google.com/storage/docs/json_api
"""

import base64
import email
import hashlib
import http.server
import itertools
import json
import re
import threading
import urllib.parse
from typing import Any

BUCKET = "bucket"


class FakeGCS(http.server.ThreadingHTTPServer):
    """Serves one bucket; `objects` holds name -> (content, generation)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[str, bytes]] = {}  # resumable ones: name, and content so far
        self.generations = itertools.count(1000)
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *args: object) -> None:
        """Clients hang up as they please."""

    def environment(self) -> dict[str, str]:
        """Variables that send every client here."""
        address = f"http://127.0.0.1:{self.server_port}"
        return {
            "STORAGE_EMULATOR_HOST": address,  # gcsfs, google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": address,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": address,  # google-cloud-cpp
            "GOOGLE_CLOUD_PROJECT": "test",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def put(self, name: str, content: bytes) -> dict[str, str]:
        """Stores an object; returns its metadata."""
        self.objects[name] = (content, next(self.generations))
        return self.metadata(name)

    def metadata(self, name: str) -> dict[str, str]:
        """What the service says of an object."""
        content, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "id": f"{BUCKET}/{name}/{generation}",
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(content)),
            "contentType": "application/octet-stream",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
            "storageClass": "STANDARD",
        }


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FakeGCS

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._target()
        if name := self._object(path):
            with self.server.lock:
                found = self.server.objects.get(name)
                metadata = self.server.metadata(name) if found else None
            if found is None:
                self._send(404, {"error": {"code": 404, "message": f"no object {name}"}})
            elif query.get("alt") == "media":
                self._send_content(*found)
            else:
                self._send(200, metadata)
        elif path.endswith("/o"):
            self._send(200, self._listing(query))
        else:
            self._send(200, {"kind": "storage#bucket", "name": BUCKET, "id": BUCKET, "location": "HERE"})

    def do_POST(self) -> None:
        path, query = self._target()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            if path.startswith("/batch"):
                self._batch(body)
            elif "upload_id" in query:
                self._resume_upload(query["upload_id"], body)
            elif path.startswith("/upload"):
                self._upload(query, body)
            else:  # copyTo, rewriteTo, moveTo
                self._copy(path)

    do_PUT = do_POST

    def do_DELETE(self) -> None:
        with self.server.lock:
            found = self.server.objects.pop(self._object(self._target()[0]), None)
        self._send(204 if found else 404, None)

    def _target(self) -> tuple[str, dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        return url.path, dict(urllib.parse.parse_qsl(url.query))

    @staticmethod
    def _object(path: str) -> str:
        """The name of the object that a path is of, "" for none."""
        match = re.fullmatch(r"(?:/download)?/storage/v1/b/[^/]+/o/([^/]+)", path)
        return urllib.parse.unquote(match[1]) if match else ""

    def _send(self, code: int, answer: Any, **headers: str) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self._respond(code, content, {"Content-Type": "application/json", **headers})

    def _respond(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_content(self, content: bytes, generation: int) -> None:
        headers = {"x-goog-generation": str(generation), "x-goog-metageneration": "1"}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._respond(200, content, headers)
        size = len(content)
        first = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
        last = min(size - 1, int(wanted[2])) if wanted[1] and wanted[2] else size - 1
        if first >= size:
            return self._respond(416, b"", headers | {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return self._respond(206, content[first : last + 1], headers)

    def _listing(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        with self.server.lock:
            for name in sorted(self.server.objects):
                if not name.startswith(prefix) or name < query.get("startOffset", ""):
                    continue
                if query.get("endOffset") and name >= query["endOffset"]:
                    continue
                head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                if found:
                    prefixes.add(prefix + head + delimiter)
                else:
                    items.append(self.server.metadata(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        expected = query.get("ifGenerationMatch")
        if query["uploadType"] == "multipart":
            header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            metadata, content = email.message_from_bytes(header + body).get_payload()
            name, body = json.loads(metadata.get_payload())["name"], content.get_payload(decode=True)
        else:
            name = query.get("name") or json.loads(body)["name"]
        _, generation = self.server.objects.get(name, (b"", 0))
        if expected is not None and int(expected) != generation:
            return self._send(412, {"error": {"code": 412, "message": "another generation"}})
        if query["uploadType"] == "resumable":
            key = str(next(self.server.generations))
            self.server.uploads[key] = name, b""
            where = f"http://127.0.0.1:{self.server.server_port}/upload/resumable?upload_id={key}"
            return self._send(200, {}, Location=where)
        return self._send(200, self.server.put(name, body))

    def _resume_upload(self, key: str, body: bytes) -> None:
        """A part of a resumable upload; the last one says how large the whole is."""
        name, content = self.server.uploads[key]
        self.server.uploads[key] = name, content + body
        if self.headers.get("Content-Range", "").endswith("/*"):
            self._send(308, None, Range=f"bytes=0-{len(content + body) - 1}")
        else:
            self._send(200, self.server.put(name, content + body))

    def _copy(self, path: str) -> None:
        source, how, target = re.fullmatch(
            r"/storage/v1/b/[^/]+/o/([^/]+)/(copyTo|rewriteTo|moveTo)/(?:b/[^/]+/)?o/([^/]+)", path
        ).groups()
        source, target = urllib.parse.unquote(source), urllib.parse.unquote(target)
        if source not in self.server.objects:
            return self._send(404, {"error": {"code": 404, "message": f"no object {source}"}})
        metadata = self.server.put(target, self.server.objects[source][0])
        if how == "moveTo":
            del self.server.objects[source]
        return self._send(200, {"done": True, "resource": metadata} if how == "rewriteTo" else metadata)

    def _batch(self, body: bytes) -> None:
        """Many deletions in one request."""
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = []
        for part in email.message_from_bytes(header + body).get_payload():
            path = re.search(r"DELETE (?:https?://[^/]+)?(/storage\S+)", part.get_payload())[1]
            found = self.server.objects.pop(self._object(path.partition("?")[0]), None)
            status = "204 No Content" if found else "404 Not Found"
            reply = f"Content-Type: application/http\r\nContent-ID: <response-{part['Content-ID']}>\r\n\r\n"
            parts.append(f"--batch\r\n{reply}HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n")
        content = ("".join(parts) + "--batch--\r\n").encode()
        self._respond(200, content, {"Content-Type": "multipart/mixed; boundary=batch"})
