"""One image for many customers, in real engines: read-only, one tmpfs, any user.

What can go wrong between an environment variable and a site that serves, and the tests of it.
Those of ``test_`` alone are here.

F1  a value that would be more directives: ``test_what_is_wrong``, ``test_runtime_fuzz``
F2  ``#``, ``$host``, ``~regex``, ``}``, control characters: ``test_runtime_fuzz``
F3  a newline: ``test_what_is_wrong``; in a secret it arrives: ``test_two_customers``
F4  ``;`` after a blank, for Circus: ``test_runtime_settings.Rendering``
F5  ``$(circus.env.X)``, ``((``, ``%``, CR, U+2028: ``test_runtime_fuzz``, ``test_circusd``
F6  what is required is missing: ``test_runtime_settings.Reading``
F7  set, but empty: ``test_two_customers``
F8  of a wrong type: ``test_what_is_wrong``
F9  both X and X_FILE: ``test_what_is_wrong``
F10 X_FILE can't be read, is a directory, too long: ``test_runtime_settings.Reading``
F11 a name with a slip: ``test_two_customers``
F12 the directory can't be written: ``test_nowhere_to_write``
F13 a read-only root: ``test_two_customers``
F14 any user, group 0, no passwd entry: ``test_two_customers``
F15 killed while it renders: ``test_runtime_settings.Writing``
F16 one of several files can't be rendered: ``test_runtime_settings.Writing``
F17 rendered again: ``test_two_customers``, with five restarts
F18 nginx refuses what was rendered: ``test_runtime_start.Nginx``
F19 a port in use: ``test_a_port_that_is_taken``; below 1024: ``test_runtime_start.Nginx``
F20 SIGTERM while it renders: ``test_runtime_start.Stop``; before there is a child, or twice:
    ``test_circusd.StopTest``
F21 SIGTERM under load: ``test_serving``
F22 what stops first: ``test_circusd.StopTest``
F23 an application that ignores SIGTERM: ``test_circusd.StopTest``
F24 PID 1 is no shell: ``test_start``
F25 a thousand orphans: ``test_circusd.OrphanTest``
F26 an application that ends at once, again and again: ``test_circusd.CodeTest``
F27 a worker of nginx is killed: ``test_two_customers``
F28 a reload with a bad configuration: ``test_nginxctl``
F29 a reload under load: ``test_serving``
F30 nobody reads the log: ``test_runtime_start.Log``
F31 no network and no DNS: ``test_without_a_network``; an application that is down:
    ``test_nginx_serving``
F32 long values: ``test_runtime_start.Long``, ``test_runtime_settings``
F33 who sees a secret: ``test_two_customers``
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator

from eggcrate.tests import layers
from eggcrate.tests.test_engines import DEMO_IMAGE, ON_DOCKER, ON_PODMAN

# the canary begins with what a shell, Circus and nginx would take for something else
SECRET = (
    "canary $HOME ${PATH} $(id) `id` \"double\" 'single' \\n %(x)s ((circus.env.HOME))\n  ü\n\n"
)
PYTHON = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
HEALTH = [
    *(PYTHON, "-I", "/usr/lib/eggcrate/eggcrate/runtime/health.py"),
    "/run/eggcrate/settings/usr/lib/eggcrate/healthcheck",
]
GREETING = "Say \"hi\" & 'bye'; \\ # {}"


def ask(port: int, host: str, path: str = "/") -> tuple[int, str]:
    """The status and the text of an answer to a request for a host."""
    answer = layers.get(f"http://127.0.0.1:{port}{path}", {"Host": host})
    return answer.status, answer.text


def processes(container: layers.Container) -> dict[int, tuple[str, ...]]:
    """The command lines of a container's processes, by their numbers on this machine."""
    left = [int(container.inspect()["State"]["Pid"])]
    found: dict[int, tuple[str, ...]] = {}
    while left:
        pid = left.pop()
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found[pid] = tuple(word.decode() for word in words)
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
    return found


def environment(pid: int) -> dict[bytes, bytes]:
    lines = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(line.split(b"=", 1) for line in lines if line)


class InAnEngine:
    """What holds in every engine."""

    engine: layers.Engine

    def setUp(self) -> None:
        assert isinstance(self, unittest.TestCase)
        DEMO_IMAGE.require(self)
        self.engine.require(self)
        self.image = self.engine.load(DEMO_IMAGE.archive)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)

    @contextlib.contextmanager
    def customer(
        self, *options: str, user: str = "123456:0", **env: str
    ) -> Iterator[layers.Container]:
        container = self.engine.run(
            self.image, env=env, user=user, read_only=True, tmpfs=["/run"], options=options
        )
        try:
            yield container
        finally:
            container.remove()

    def site(self, container: layers.Container, port: int, host: str) -> str:
        """The first page, once there is one."""
        container.wait_http(port, "/nginx-health")
        deadline = time.monotonic() + 120
        while (found := ask(port, host))[0] == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found[0] == 200, (found, container.logs())
        return found[1]

    def gunicorns(self, container: layers.Container, count: int) -> list[int]:
        """The processes of gunicorn, once there are as many as there should be."""
        deadline = time.monotonic() + 120
        while True:
            running = processes(container)
            found = [pid for pid, words in running.items() if "gunicorn" in " ".join(words)]
            if len(found) == count:
                return found
            assert time.monotonic() < deadline, running
            time.sleep(0.05)

    def check_customer(self, container: layers.Container, port: int) -> None:
        """What ``test_two_customers`` has set for the first one is so everywhere."""
        assert isinstance(self, unittest.TestCase)
        page = self.site(container, port, "shop.acme.example")
        self.assertIn("Say &quot;hi&quot; &amp; &#x27;bye&#x27;; \\ # {}", page)
        self.assertEqual(ask(port, "127.0.0.1")[0], 421)
        self.assertEqual(ask(port, "other.example")[0], 421)
        workers = self.gunicorns(container, 1 + 3)
        # the secret is the application's, byte for byte, and nobody has written it down
        for pid in workers:
            self.assertEqual(environment(pid)[b"DJANGO_SECRET_KEY"], SECRET.encode())
        self.assertNotIn("canary", container.logs())
        root = pathlib.Path(f"/proc/{workers[0]}/root")
        for path in (root / "run/eggcrate/settings").resolve().rglob("*"):
            if path.is_file():
                self.assertEqual(path.stat().st_mode & 0o777, 0o600)
                self.assertNotIn("canary", path.read_text())
        # podman keeps no check of an image, but it would be this one
        self.engine.cli("exec", container.identifier, *HEALTH)


class ContainerTest(InAnEngine, unittest.TestCase):
    layer = ON_DOCKER
    engine = layers.DOCKER_ENGINE

    def test_two_customers(self) -> None:
        """Side by side, from one image; one of them is started again five times."""
        first, second = layers.free_port(), layers.free_port()
        (self.scratch / "secret").write_bytes(SECRET.encode() + b"\n")
        os.chmod(self.scratch / "secret", 0o644)
        os.chmod(self.scratch, 0o755)
        with (
            self.customer(
                WEBAPP_PORT=str(first),
                SERVER_NAME="shop.acme.example,www.acme.example",
                WORKERS="3",
                GREETING=GREETING,
                TRUSTED_PROXIES="10.0.0.0/8 192.0.2.1",
                DJANGO_SECRET_KEY=SECRET,
                WORKRES_="x",
            ) as acme,
            self.customer(
                f"--volume={self.scratch / 'secret'}:/secrets/key:ro",
                user="10001:0",
                WEBAPP_PORT=str(second),
                SERVER_NAME="",
                DJANGO_SECRET_KEY_FILE="/secrets/key",
                GREETNG="x",
            ) as other,
        ):
            self.check_customer(acme, first)
            self.assertIn("Fresh eggs, every day", self.site(other, second, "localhost"))
            self.assertEqual(ask(second, "shop.acme.example")[0], 421)
            self.assertIn(
                "warning: GREETNG is set, which means nothing here; was it to be GREETING?",
                other.logs(),
            )
            for pid in self.gunicorns(other, 1 + 2):
                environ = environment(pid)
                self.assertEqual(environ[b"DJANGO_SECRET_KEY"], SECRET.encode())
                self.assertNotIn(b"DJANGO_SECRET_KEY_FILE", environ)
            # what is started beside PID 1 has none of its variables
            asked = (
                "import os, sys; from eggcrate.runtime import environment, settings\n"
                "print(settings()['webapp_port'], len(environment()['DJANGO_SECRET_KEY']))"
            )
            self.assertEqual(
                self.engine.cli("exec", other.identifier, "python3", "-c", asked).split(),
                [str(second), str(len(SECRET))],
            )
            # neither the engine nor PID 1's own beginning know what a file holds
            self.assertNotIn("canary", json.dumps(other.inspect()))
            self.assertIn("canary", json.dumps(acme.inspect()))
            (worker, *_) = [
                pid for pid, words in processes(other).items() if "nginx: worker" in words[0]
            ]
            os.kill(worker, signal.SIGKILL)
            self.site(other, second, "localhost")
            for _ in range(5):
                self.engine.cli("restart", "--time", "10", acme.identifier)
                self.check_customer(acme, first)
            self.assertEqual(acme.stop(), 0)
            self.assertEqual(other.stop(), 0)

    def test_what_is_wrong(self) -> None:
        with self.customer(
            WEBAPP_PORT="80",
            WORKERS="many-canary",
            SERVER_NAME="canary; location /x/ { alias /; } server_name y",
            TRUSTED_PROXIES="10.0.0.1/8 canary",
            GREETING="canary\nseveral lines",
            DJANGO_SECRET_KEY="canary",
            DJANGO_SECRET_KEY_FILE="/run/secrets/canary",
        ) as container:
            self.assertEqual(container.wait(), 78)
            lines = container.logs().splitlines()
            self.assertEqual(len(lines), 6, lines)
            for name in (
                "GREETING must ",
                "SERVER_NAME must ",
                "TRUSTED_PROXIES must ",
                "WEBAPP_PORT must be a port number, 1024 to 65535",
                "WORKERS must be a whole number, 1 to 64",
                "DJANGO_SECRET_KEY and DJANGO_SECRET_KEY_FILE are both set; set one of them",
            ):
                self.assertTrue(any(f"eggcrate: {name}" in line for line in lines), name)
            self.assertNotIn("canary", container.logs())

    def test_nowhere_to_write(self) -> None:
        container = self.engine.run(self.image, read_only=True, env={"WORKERS": "3"})
        with contextlib.ExitStack() as stack:
            stack.callback(container.remove)
            self.assertEqual(container.wait(), 78)
            self.assertRegex(
                container.logs(),
                r"^eggcrate: the run directory /run/eggcrate can't be made by user 10001: .*; "
                r"start with --tmpfs /run\n$",
            )

    def test_what_can_be_set(self) -> None:
        table = self.engine.cli("run", "--rm", "--read-only", self.image, "--settings")
        self.assertIn("WEBAPP_PORT        port min=1024     ", table)
        self.assertIn("DJANGO_SECRET_KEY  secret\n", table)
        config = json.loads(
            self.engine.cli("inspect", "--format", "{{json .Config}}", self.image)
        )
        self.assertEqual(config["Healthcheck"]["Test"], ["CMD", *HEALTH])
        known = json.loads(config["Labels"]["eggcrate.settings"])
        self.assertEqual(
            known["WORKERS"], {"default": "2", "max": "64", "min": "1", "type": "int"}
        )
        self.assertEqual(known["DJANGO_SECRET_KEY"], {"type": "secret"})

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("0.0.0.0", 0)) as taken:
            port = taken.getsockname()[1]
            with self.customer(WEBAPP_PORT=str(port)) as container:
                self.assertEqual(container.wait(), 1)
                self.assertTrue(
                    container.logs().endswith(
                        f"eggcrate: port {port} is taken already; stop the other program, or "
                        "set another port\n"
                    ),
                    container.logs(),
                )
                # before nginx has tried for seconds, again and again
                self.assertNotIn("in use", container.logs())

    def test_without_a_network(self) -> None:
        identifier = self.engine.cli(
            *("run", "--detach", "--read-only", "--tmpfs=/run", "--network=none"),
            *("--env=WEBAPP_PORT=9999", "--dns=192.0.2.1", self.image),
        ).split()[-1]
        container = layers.Container(self.engine, identifier)
        ask = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
        asked = ("exec", identifier, "python3", "-c", ask, "http://127.0.0.1:9999/")
        with contextlib.ExitStack() as stack:
            stack.callback(container.remove)
            deadline = time.monotonic() + 120
            page = ""
            while not page:
                try:
                    page = self.engine.cli(*asked)
                except AssertionError:
                    if time.monotonic() > deadline:
                        raise AssertionError(container.logs()) from None
                    time.sleep(0.2)
            self.assertIn("The Egg Shop", page)


class PodmanTest(InAnEngine, unittest.TestCase):
    layer = ON_PODMAN
    engine = layers.PODMAN

    def test_a_customer(self) -> None:
        port = layers.free_port()
        with self.customer(
            WEBAPP_PORT=str(port),
            SERVER_NAME="shop.acme.example,www.acme.example",
            WORKERS="3",
            GREETING=GREETING,
            DJANGO_SECRET_KEY=SECRET,
        ) as container:
            self.check_customer(container, port)
            self.assertEqual(container.stop(), 0)
