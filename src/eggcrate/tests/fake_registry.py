"""A registry in this process that does what a test tells it to do wrong."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import secrets
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Fault = Callable[["Handler"], bool]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """The distribution-spec, as far as a client can tell."""

    protocol_version = "HTTP/1.1"
    server: FakeRegistry

    def _serve(self) -> None:
        registry = self.server
        with registry.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            registry.requests.append((self.command, self.path, headers))
        with contextlib.suppress(OSError):
            for fault in registry.faults(self.command, self.path):
                if fault(self):
                    return
            self.right()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer, after whatever body the request has."""
        self.body()
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        """What comes with the request; once."""
        length = int(self.headers.get("content-length") or 0)
        del self.headers["content-length"]
        return self.rfile.read(length)

    def hang_up(self) -> None:
        """End the connection here."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def error(self, status: int, code: str) -> None:
        self.answer(status, json.dumps({"errors": [{"code": code, "message": "so"}]}).encode())

    def right(self) -> None:
        """What a registry does."""
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        match = re.fullmatch(r"/v2/(.+?)/(manifests|blobs|referrers)/(.+)", url.path)
        match = match or re.fullmatch(r"/v2/(.+?)/(blobs)/(uploads/)", url.path)
        if match is None:
            self.answer(404)
            return
        path, kind, name = match.groups()
        if name.startswith("uploads/"):
            self.upload(path, name.removeprefix("uploads/"), query)
        elif kind == "manifests":
            self.manifest(path, name)
        elif kind == "blobs":
            self.blob(path, name)
        else:
            self.answer(404)

    def manifest(self, path: str, name: str) -> None:
        registry = self.server
        if self.command == "PUT":
            data, media_type = (self.headers.get("content-type", ""), self.body())[::-1]
            value = json.loads(data)
            for item in (*value.get("layers", ()), value.get("config")):
                if item and item["digest"] not in registry.blobs.get(path, {}):
                    self.error(404, "MANIFEST_BLOB_UNKNOWN")
                    return
            for reference in {name, digest_of(data)}:
                registry.manifests[path, reference] = (media_type, data)
            headers = {"Docker-Content-Digest": digest_of(data)}
            if "subject" in value and registry.knows_subjects:
                headers["OCI-Subject"] = value["subject"]["digest"]
            self.send_response(201)
            for header in headers.items():
                self.send_header(*header)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = registry.manifests.get((path, name))
        if found is None:
            self.error(404, "MANIFEST_UNKNOWN")
            return
        self.answer(
            200, found[1], Content_Type=found[0], Docker_Content_Digest=digest_of(found[1])
        )

    def blob(self, path: str, name: str) -> None:
        data = self.server.blobs.get(path, {}).get(name)
        if data is None:
            self.error(404, "BLOB_UNKNOWN")
            return
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        if ranged:
            start, size = int(ranged[1]), len(data)
            self.answer(206, data[start:], Content_Range=f"bytes {start}-{size - 1}/{size}")
            return
        self.answer(200, data)

    def upload(self, path: str, name: str, query: dict[str, str]) -> None:
        registry = self.server
        if self.command == "POST":
            if "mount" in query:
                data = registry.blobs.get(query["from"], {}).get(query["mount"])
                if data is not None:
                    registry.blobs.setdefault(path, {})[query["mount"]] = data
                    self.answer(201)
                    return
            name = secrets.token_hex(8)
            registry.uploads[name] = bytearray()
            self.answer(202, Location=f"/v2/{path}/blobs/uploads/{name}?state=0")
            return
        if name not in registry.uploads:
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return
        got = registry.uploads[name]
        if self.command == "GET":
            self.answer(
                204,
                Location=f"/v2/{path}/blobs/uploads/{name}?state={len(got)}",
                Range=f"0-{max(len(got) - 1, 0)}",
            )
            return
        ranged = re.fullmatch(r"(\d+)-\d+", self.headers.get("content-range", "0-0"))
        if ranged is None or (self.command == "PATCH" and int(ranged[1]) != len(got)):
            self.error(416, "RANGE_INVALID")
            return
        got += self.body()
        if self.command == "PATCH":
            self.answer(
                202,
                Location=f"/v2/{path}/blobs/uploads/{name}?state={len(got)}",
                Range=f"0-{max(len(got) - 1, 0)}",
            )
        elif self.command == "PUT":
            data = bytes(registry.uploads.pop(name))
            if digest_of(data) != query["digest"]:
                self.error(400, "DIGEST_INVALID")
                return
            registry.blobs.setdefault(path, {})[digest_of(data)] = data
            self.answer(201, Docker_Content_Digest=digest_of(data))
        else:
            del registry.uploads[name]
            self.answer(204)

    def log_message(self, *arguments: Any) -> None:
        pass


class FakeRegistry(http.server.ThreadingHTTPServer):
    """``host`` is where it is; close it after use.

    With ``certificate`` and ``key`` it has HTTPS.
    """

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._open: list[socket.socket] = []
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.knows_subjects = False
        self._faults: list[list[Any]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away are what is tested

    def put(self, path: str, data: bytes) -> str:
        self.blobs.setdefault(path, {})[digest_of(data)] = data
        return digest_of(data)

    def fault(
        self,
        method: str,
        pattern: str,
        what: Fault,
        times: int = 1 << 30,
        *,
        first: bool = False,
    ) -> None:
        """Let ``what`` answer the next so many of these requests; False leaves it to others."""
        fault = [method, re.compile(pattern), what, times]
        self._faults.insert(0 if first else len(self._faults), fault)

    def forget_faults(self) -> None:
        """Be a good registry again."""
        self._faults.clear()

    def faults(self, method: str, path: str) -> Iterator[Fault]:
        for fault in list(self._faults):
            if fault[0] in (method, "*") and fault[1].search(path):
                with self.lock:
                    fault[3] -= 1
                if fault[3] >= 0:
                    yield fault[2]

    def asked(self, method: str, pattern: str) -> list[dict[str, str]]:
        """The headers of such requests."""
        return [h for m, p, h in self.requests if m == method and re.search(pattern, p)]


def says(status: int, body: bytes = b"", **headers: str) -> Fault:
    """A fault that is an answer."""

    def fault(handler: Handler) -> bool:
        handler.answer(status, body, **headers)
        return True

    return fault


def hangs_up(handler: Handler) -> bool:
    handler.hang_up()
    return True


def cuts(size: int) -> Fault:
    """A blob that ends after ``size`` bytes, whatever was announced."""

    def fault(handler: Handler) -> bool:
        name = handler.path.rpartition("/")[2]
        data = next(blobs[name] for blobs in handler.server.blobs.values() if name in blobs)
        ranged = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("range", ""))
        start = int(ranged[1]) if ranged else 0
        handler.send_response(206 if ranged else 200)
        if ranged:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + size])
        handler.hang_up()
        return True

    return fault
