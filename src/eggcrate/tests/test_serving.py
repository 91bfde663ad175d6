"""A site under load, on the real Circus, gunicorn and nginx: no answer is cut."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator

from eggcrate.tests import layers, test_circusd
from eggcrate.tests.test_circusd import FIRST_PROCESS, TOP

APPLICATION = """\
import hashlib, os, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/pid":
        body = str(os.getppid()).encode()
    elif path == "/upload":
        digest, stream = hashlib.sha256(), environ["wsgi.input"]
        while data := stream.read(65536):
            digest.update(data)
        body = digest.hexdigest().encode()
    else:
        time.sleep(float(path.strip("/") or 0))
        body = b"x" * 100_000
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

NGINX = """\
daemon off;
worker_processes 1;
worker_shutdown_timeout 7s;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 20m;
    client_body_temp_path {directory}/t1;
    proxy_temp_path {directory}/t2;
    fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4;
    scgi_temp_path {directory}/t5;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://unix:{directory}/web.sock:;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
        }}
    }}
}}
"""

CIRCUS = """\
[circus]
check_delay = 1
endpoint = ipc://{directory}/ctl
pubsub_endpoint = ipc://{directory}/pub
multicast_endpoint =
[socket:web]
path = {directory}/web.sock
umask = 0
replace = True
[watcher:web]
cmd = {gunicorn} --chdir {directory} --workers 1 --threads 24 --worker-class gthread
args = --graceful-timeout 7 --no-control-socket --bind fd://$(circus.sockets.web) application
use_sockets = True
singleton = True
copy_env = True
{reload}
graceful_timeout = 8
priority = 10
essential = True
[watcher:nginx]
cmd = {nginx} -e stderr -c {directory}/nginx.conf
singleton = True
stop_signal = QUIT
send_hup = True
graceful_timeout = 8
priority = 1
essential = True
"""


class Site:
    """nginx, gunicorn and Circus as the first process of a PID namespace."""

    def __init__(self, directory: pathlib.Path, reload: str = "") -> None:
        self.directory = directory
        self.port = layers.free_port()
        (directory / "application.py").write_text(APPLICATION)
        values = {
            "directory": directory,
            "port": self.port,
            "gunicorn": TOP / "bin" / "gunicorn",
            "nginx": layers.NGINX.program,
            "reload": reload,
        }
        (directory / "nginx.conf").write_text(NGINX.format(**values))
        (directory / "circus.ini").write_text(CIRCUS.format(**values))
        (directory / "main.py").write_text(
            test_circusd.MAIN.format(package=test_circusd.PACKAGE, directory=str(directory))
        )
        directory.chmod(0o755)
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"),
                    *(sys.executable, "-I", directory / "main.py"),
                    *(TOP / "bin" / "circusd", directory / "circus.ini"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(600):
            with contextlib.suppress(OSError):
                if self.ask("/0") == "ok":
                    return
            time.sleep(0.1)
        raise AssertionError(self.log())

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def signal(self, number: int) -> None:
        """Send a signal to the first process."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), number)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def ask(self, path: str, data: bytes = b"") -> str:
        """What becomes of a request: ok, a status, ``refused``, or how it was cut."""
        method = "POST" if data else "GET"
        try:
            connection = socket.create_connection(("127.0.0.1", self.port), 20)
        except ConnectionRefusedError:
            return "refused"
        with connection:
            try:
                head = f"{method} {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n"
                connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode())
                # as slowly as somebody far away
                for start in range(0, len(data), 1 << 18):
                    connection.sendall(data[start : start + (1 << 18)])
                    time.sleep(0.05)
                answer = b""
                while more := connection.recv(1 << 16):
                    answer += more
            except OSError as error:
                return f"cut: {error}"
        status, _, body = answer.partition(b"\r\n\r\n")
        lines = status.decode("latin-1").split("\r\n")
        if " 200 " not in lines[0]:
            return lines[0] or "cut: no answer"
        length = next(
            int(line.split(":")[1]) for line in lines if line.lower().startswith("content-len")
        )
        if len(body) != length:
            return f"cut: {len(body)} bytes of {length}"
        if data and body.decode() != hashlib.sha256(data).hexdigest():
            return "cut: other data"
        return "ok"


class Serving(layers.Layer):
    """What a site needs: nginx, and a first process of its own."""

    # these are set up first
    __bases__ = (layers.NGINX, FIRST_PROCESS)

    def __init__(self) -> None:
        super().__init__("SERVING", "nginx-light")


SERVING = Serving()


class ServingTest(unittest.TestCase):
    layer = SERVING

    def setUp(self) -> None:
        layers.NGINX.require(self)
        FIRST_PROCESS.require(self)

    def site(self, reload: str = "") -> Site:
        directory = tempfile.TemporaryDirectory(prefix="eggcrate-")
        self.addCleanup(directory.cleanup)
        site = Site(pathlib.Path(directory.name).resolve(), reload)
        self.addCleanup(site.end)
        return site

    @contextlib.contextmanager
    def load(
        self, site: Site, *requests: Callable[[], str]
    ) -> Iterator[list[concurrent.futures.Future[list[str]]]]:
        """Each of these requests again and again, until the block has ended."""
        ended = threading.Event()

        def again(request: Callable[[], str]) -> list[str]:
            answers = []
            while not ended.is_set():
                answers.append(request())
                if answers[-1] == "refused":
                    break
            return answers

        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            futures = [pool.submit(again, request) for request in requests]
            try:
                yield futures
            finally:
                ended.set()

    def master(self, site: Site) -> int:
        """gunicorn's first process, once there is one again."""
        for _ in range(600):
            found = subprocess.run(
                ["pgrep", "-o", "-f", f"gunicorn --chdir {site.directory}"],
                capture_output=True,
                text=True,
                check=False,
            )
            if found.stdout:
                return int(found.stdout)
            time.sleep(0.1)
        raise AssertionError(site.log())

    def one_stop(self, number: int) -> tuple[int, float, list[str]]:
        site = self.site()
        data = os.urandom(4 << 20)
        requests = [
            *(lambda: site.ask("/5"),) * 4,
            *(lambda: site.ask("/0.3"),) * 4,
            *(lambda: site.ask("/upload", data),) * 2,
        ]
        with self.load(site, *requests) as futures:
            time.sleep(0.5 + number * 0.13)
            begun = time.monotonic()
            site.signal(signal.SIGTERM)
            code = site.process.wait(20)
            took = time.monotonic() - begun
        answers = [answer for future in futures for answer in future.result()]
        return code, took, answers

    def test_a_stop_cuts_no_answer(self) -> None:
        """Twenty stops, each with requests of five seconds and uploads under way."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            rounds = list(pool.map(self.one_stop, range(20)))
        answers = [answer for _, _, found in rounds for answer in found]
        self.assertEqual({code for code, _, _ in rounds}, {0})
        self.assertLess(max(took for _, took, _ in rounds), 10)
        self.assertEqual(set(answers), {"ok", "refused"})
        self.assertGreater(answers.count("ok"), 20 * 6)

    def test_a_killed_application_is_no_error(self) -> None:
        site = self.site()
        with self.load(site, *(lambda: site.ask("/0"),) * 2) as futures:
            for _ in range(3):
                time.sleep(1.5)
                # and with it its workers
                os.kill(self.master(site), signal.SIGKILL)
        answers = [answer for future in futures for answer in future.result()]
        self.assertFalse([answer for answer in answers if "502" in answer], site.log())
        self.assertGreater(answers.count("ok"), 20)
        site.signal(signal.SIGTERM)
        self.assertEqual(site.process.wait(60), 0)

    def test_an_application_that_ends_is_no_error(self) -> None:
        """gunicorn removes the file of its socket then, which isn't its own."""
        site = self.site()
        for _ in range(3):
            os.kill(self.master(site), signal.SIGTERM)
            time.sleep(2)
            self.assertEqual(site.ask("/0"), "ok", site.log())
        site.signal(signal.SIGTERM)
        self.assertEqual(site.process.wait(60), 0)
        self.assertEqual(sorted(site.directory.glob("*.sock")), [])

    def test_a_reload_is_no_error(self) -> None:
        for how in ("", "send_hup = True"):
            with self.subTest(how):
                self.reloaded(self.site(how))

    def reloaded(self, site: Site) -> None:
        data = os.urandom(1 << 20)
        requests = [
            *(lambda: site.ask("/0"),) * 2,
            lambda: site.ask("/0.5"),
            lambda: site.ask("/upload", data),
        ]
        with self.load(site, *requests) as futures:
            for _ in range(4):
                time.sleep(1.5)
                site.signal(signal.SIGHUP)
            time.sleep(1.5)
        answers = [answer for future in futures for answer in future.result()]
        self.assertEqual(set(answers), {"ok"}, site.log())
        self.assertGreater(len(answers), 40)
        site.signal(signal.SIGTERM)
        self.assertEqual(site.process.wait(60), 0)
        self.assertNotIn("Traceback", site.log())


if __name__ == "__main__":
    unittest.main()
