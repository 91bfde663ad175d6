"""Waitress's launcher; Waitress itself is played by a module of ours."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from eggcrate.runtime import serve_waitress

APPLICATION = """\
class Site:
    @staticmethod
    def application():
        return "the application"

application = Site.application
"""
WAITRESS = """\
import time

def serve(application, sockets, threads):
    try:
        print(application(), sockets[0].getsockname()[1], threads, flush=True)
        time.sleep(60)
    except SystemExit:
        print("in order", flush=True)
"""


class Launcher(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)
        (self.directory / "shop.py").write_text(APPLICATION)

    def started(self, *arguments: str, fd: int = 0) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", serve_waitress.__file__, "--fd", str(fd), *arguments],
            cwd=self.directory,
            pass_fds=[fd] if fd else [],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        return process

    def test_it_serves_on_the_socket_and_ends_in_order(self) -> None:
        (self.directory / "waitress.py").write_text(WAITRESS)
        for app in ("shop", "shop:Site.application"):
            with self.subTest(app), socket.socket() as server:
                server.bind(("127.0.0.1", 0))
                process = self.started("--threads", "7", app, fd=server.fileno())
                assert process.stdout is not None
                port = server.getsockname()[1]
                self.assertEqual(process.stdout.readline(), f"the application {port} 7\n")
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(50), 0)
                self.assertEqual(process.stdout.read(), "in order\n")

    def test_a_python_without_waitress_says_so(self) -> None:
        process = self.started("shop")
        assert process.stdout is not None
        output = process.stdout.read()
        if process.wait(50) != 78:
            self.skipTest("this Python has Waitress")
        self.assertEqual(
            output, f"serve-waitress: {sys.executable} has no waitress; install it\n"
        )

    def test_what_can_t_be_loaded_is_a_traceback(self) -> None:
        with self.assertRaises(ModuleNotFoundError):
            serve_waitress.load("no_such_module:app")
        self.assertIs(serve_waitress.load("os:path.join"), os.path.join)
