"""The health check: a status below 400 in time, or not."""

from __future__ import annotations

import contextlib
import http.server
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator

from eggcrate.runtime import health
from eggcrate.runtime.health import healthy


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked.append(self.path)
        status = int(self.path.strip("/").split("?")[0] or 200)
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


asked: list[str] = []


@contextlib.contextmanager
def serving() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Healthy(unittest.TestCase):
    def setUp(self) -> None:
        asked.clear()

    def test_the_status_decides(self) -> None:
        with serving() as url:
            for status, expected in ((200, True), (204, True), (302, True), (399, True)):
                self.assertIs(healthy(f"{url}/{status}"), expected, status)
            for status, expected in ((400, False), (404, False), (500, False), (503, False)):
                self.assertIs(healthy(f"{url}/{status}"), expected, status)

    def test_without_a_path_the_root_is_asked(self) -> None:
        with serving() as url:
            self.assertTrue(healthy(url))
        self.assertEqual(asked, ["/"])

    def test_a_query_is_sent(self) -> None:
        with serving() as url:
            self.assertTrue(healthy(f"{url}/200?full=1#x"))
            self.assertTrue(healthy(f"{url}?a=b"))
        self.assertEqual(asked, ["/200?full=1", "/?a=b"])

    def test_nobody_listens(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            port = silent.getsockname()[1]
            self.assertFalse(healthy(f"http://127.0.0.1:{port}/"))

    def test_somebody_listens_and_says_nothing(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            started = time.monotonic()
            port = silent.getsockname()[1]
            self.assertFalse(healthy(f"http://127.0.0.1:{port}/", timeout=0.2))
            # less than the four seconds that it has else
            self.assertLess(time.monotonic() - started, 3.5)

    def test_somebody_answers_something_else(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-test\r\n\r\n")
                connection.close()

            thread = threading.Thread(target=answer)
            thread.start()
            port = server.getsockname()[1]
            self.assertFalse(healthy(f"http://127.0.0.1:{port}/"))
            thread.join()

    def test_as_a_program(self) -> None:
        # as in an image: the file alone, and isolated
        program = os.fspath(pathlib.Path(health.__file__))
        with serving() as url:
            codes = [
                subprocess.run([sys.executable, "-I", program, f"{url}/{status}"]).returncode
                for status in (200, 500)
            ]
        self.assertEqual(codes, [0, 1])
