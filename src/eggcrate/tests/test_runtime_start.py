"""PID 1 with runtime settings, in a PID namespace of its own: what stops it, and how."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import unittest

from eggcrate.runtime import variables
from eggcrate.runtime.variables import Document, Piece, Setting, Settings
from eggcrate.tests import layers, test_circusd

#: PID 1 of an image, with other places for its package and its settings
MAIN = """\
import sys
sys.path.insert(0, {package!r})
from eggcrate.runtime import start
start.SETTINGS = {settings!r}
sys.exit(start.start({run!r}, sys.argv[1:]))
"""

NGINX = """\
daemon off;
pid {run}/nginx.pid;
error_log stderr warn;
events {{
}}
http {{
    access_log off;
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi;
    uwsgi_temp_path {run}/uwsgi;
    scgi_temp_path {run}/scgi;
    server {{
        listen 127.0.0.1:"""


class Case(test_circusd.Case):
    """A Circus whose workers, and a text of an application, can be set."""

    setting = Setting("greeting", "text", "GREETING", "hello")
    port = Setting("port", "port", "PORT", "8080")
    strength = Setting("level", "int", "LEVEL", "5")
    names = Setting("names", "hostnames", "NAMES", "shop.example")

    def setUp(self) -> None:
        super().setUp()
        self.run_directory = self.directory / "run"
        self.settings = self.directory / "settings"
        self.settings.mkdir()
        self.documents: list[Document] = []

    def write(self, text: str) -> pathlib.Path:
        """The configuration as an image has it: a link to what PID 1 writes."""
        path = super().write(text)
        pieces: list[str | Piece] = []
        for number, piece in enumerate(path.read_text().split("GREETING_HERE")):
            pieces += [Piece(self.setting, "circus-env")] * bool(number) + [piece]
        self.add(path, "circus", pieces)
        (self.settings / "settings.json").write_text(
            variables.dumped(
                Settings(
                    (self.setting, self.port, self.strength, self.names),
                    ("SECRET",),
                    self.documents,
                )
            )
        )
        (self.directory / "main.py").write_text(
            MAIN.format(
                package=test_circusd.PACKAGE,
                settings=os.fspath(self.settings),
                run=os.fspath(self.run_directory),
            )
        )
        return path

    def add(self, path: pathlib.Path, kind: str, pieces: list[str | Piece]) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(f"{self.run_directory}/settings{path}")
        self.documents.append(Document(os.fspath(path), 0o644, kind, pieces))

    def refused(self, text: str, code: int, *sayings: str, **environment: str) -> None:
        process = self.started(text, **environment)
        self.assertEqual(self.code(process), code, self.log.read_text())
        for saying in sayings:
            self.assertIn(saying, self.log.read_text())
        self.assertNotIn("Traceback", self.log.read_text())
        # nothing was started
        self.assertNotIn("is up", self.log.read_text())


WEB = "[watcher:web]\ncmd = PROGRAM web\ncopy_env = True\n[env:web]\nGREETING = GREETING_HERE\n"


class Stop(Case):
    def test_while_it_renders(self) -> None:
        """SIGTERM at 20 moments, from the first at which it can be told anything."""
        for number in range(20):
            self.documents.clear()
            process = self.started(WEB, GREETING="good morning")
            self.wait_for_start(process)
            with self.subTest(number):
                time.sleep(number * 0.01)
                self.assertEqual(self.stopped(process), 0)
                files = [
                    path.read_text()
                    for path in self.run_directory.rglob("*.ini")
                    if path.is_file()
                ]
                for text in files:
                    self.assertTrue(text.endswith("\nGREETING = good morning\n"), text)

    def test_another_command_is_not_started(self) -> None:
        code = (
            "import os, signal, sys\n"
            f"sys.path.insert(0, {test_circusd.PACKAGE!r})\n"
            "from eggcrate.runtime import start, variables\n"
            f"start.SETTINGS = {os.fspath(self.settings)!r}\n"
            "write = variables.write\n"
            "def told(*words, **more):\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n"
            "    return write(*words, **more)\n"
            "variables.write = told\n"
            f"sys.exit(start.start({os.fspath(self.run_directory)!r}, ['echo', 'started']))\n"
        )
        self.write(WEB)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (143, ""), done.stderr)


class Nginx(Case):
    layer = test_circusd.FIRST_PROCESS

    def setUp(self) -> None:
        super().setUp()
        if not pathlib.Path("/usr/sbin/nginx").exists():
            layers.skip(self, "needs nginx: apt-get install nginx-light")
        run = os.fspath(self.run_directory)
        self.add(
            self.directory / "nginx.conf",
            "nginx",
            [
                NGINX.format(run=run),
                Piece(self.port, "word"),
                ";\n        gzip_comp_level ",
                Piece(self.strength, "word"),
                ";\n        server_name ",
                Piece(self.names, "word"),
                ";\n    }\n    server {\n        listen 127.0.0.1:",
                Piece(self.port, "word"),
                ";\n        server_name admin.example twice.example;\n    }\n"
                "    server {\n        listen 127.0.0.1:",
                Piece(self.port, "word"),
                ";\n        server_name twice.example;\n    }\n}\n",
            ],
        )

    def test_what_it_refuses(self) -> None:
        """A value that fits its type, and not nginx."""
        self.refused(
            WEB,
            78,
            "eggcrate: nginx: value must be between 1 and 9 in "
            f"{self.directory}/nginx.conf:15\n",
            LEVEL="10",
        )
        # a container that is started again has nothing of it
        self.assertEqual(list(self.run_directory.glob("*settings*")), [])

    def test_a_name_of_another_site(self) -> None:
        """nginx takes the first server that has it, and what the other denies would be open."""
        self.refused(
            WEB,
            78,
            "eggcrate: NAMES has a name of another site on 127.0.0.1:8080\n",
            NAMES="a.example Admin.example",
        )

    def test_a_name_that_two_sites_have_anyhow(self) -> None:
        """What is so without a setting is nginx's own warning, and goes on."""
        process = self.started(WEB, NAMES="a.example")
        self.wait_for_start(process)
        self.assertEqual(self.stopped(process), 0)

    def test_a_script_of_ours_called_nginx_is_not_asked(self) -> None:
        """It would apply the settings, and ask again."""
        script = self.directory / "bin" / "nginx"
        script.parent.mkdir()
        asked = self.directory / "asked"
        script.write_text(f"#!/bin/sh\n# eggcrate.runtime.nginxctl\ntouch {asked}\n")
        script.chmod(0o755)
        path = os.pathsep.join((os.fspath(script.parent), os.environ.get("PATH", os.defpath)))
        self.refused(
            WEB,
            78,
            "eggcrate: nginx: value must be between 1 and 9 in "
            f"{self.directory}/nginx.conf:15\n",
            LEVEL="10",
            PATH=path,
        )
        self.assertFalse(asked.exists())

    def test_a_port_that_nobody_may_have(self) -> None:
        if (
            os.geteuid()
            or not pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").exists()
        ):
            layers.skip(self, "needs to become an ordinary user: run as root")
        os.chmod(self.directory, 0o777)
        self.write(WEB)
        done = subprocess.run(
            [
                *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
                *("--inh-caps=-all", "--bounding-set=-all"),
                *(sys.executable, "-I", self.directory / "main.py", "true"),
            ],
            env={**os.environ, "PORT": "80"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn("bind() to 127.0.0.1:80 failed (13: Permission denied)", done.stderr)

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refused(WEB, 1, f"eggcrate: port {port} is taken already; ", PORT=str(port))

    def test_another_command_may_run_beside_the_site(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.write(WEB)
            done = subprocess.run(
                [sys.executable, "-I", self.directory / "main.py", "echo", "started"],
                env={**os.environ, "PORT": str(taken.getsockname()[1])},
                capture_output=True,
                text=True,
                check=False,
            )
        self.assertEqual((done.returncode, done.stdout), (0, "started\n"), done.stderr)


class Log(Case):
    def test_nobody_reads_it(self) -> None:
        """The service goes on though its log is full, and stops when it is told to."""
        (self.directory / "talk.py").write_text(
            "import os, threading, time\n"
            "def talk():\n"
            "    while True:\n"
            "        print('x' * 1000, flush=True)\n"
            "threading.Thread(target=talk, daemon=True).start()\n"
            f"path = {os.fspath(self.directory / 'beat')!r}\n"
            "while True:\n"
            "    open(path, 'w').write(str(time.time()))\n"
            "    time.sleep(0.05)\n"
        )
        config = self.write(f"[watcher:web]\ncmd = {sys.executable} {self.directory}/talk.py\n")
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        process = subprocess.Popen(
            [
                *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"),
                *(sys.executable, "-I", self.directory / "main.py"),
                *(test_circusd.TOP / "bin" / "circusd", config),
            ],
            stdout=writing,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GREETING": "set"},
        )
        self.addCleanup(self.ended, process)
        os.close(writing)
        beat = self.directory / "beat"
        deadline = time.monotonic() + 60
        while not beat.exists():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        time.sleep(2)  # a pipe is full after 64 kB
        before = beat.stat().st_mtime_ns
        deadline = time.monotonic() + 60
        while beat.stat().st_mtime_ns == before:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        os.kill(self.first(process), signal.SIGTERM)
        self.assertEqual(process.wait(test_circusd.SOON), 0)


class Long(Case):
    def test_values(self) -> None:
        """4,096 bytes of a setting; all that Linux passes on of a secret."""
        (self.directory / "dump.py").write_text(
            "import os, sys\n"
            "print(len(os.environ['GREETING']), len(os.environ['SECRET']), flush=True)\n"
            "sys.stdin.read()\n"
        )
        text = (
            f"[watcher:web]\ncmd = {sys.executable} {self.directory}/dump.py\ncopy_env = True\n"
            "[env:web]\nGREETING = GREETING_HERE\n"
        )
        longest = 131071 - len("SECRET=")
        process = self.started(text, GREETING="g" * 4096, SECRET="s" * longest)
        self.wait_for(f"4096 {longest}")
        self.assertEqual(self.stopped(process), 0)
        self.documents.clear()
        self.refused(
            WEB, 78, "eggcrate: GREETING is longer than 4,096 bytes", GREETING="g" * 4097
        )
        file = self.directory / "long"
        file.write_text("s" * 131072)
        self.documents.clear()
        self.refused(
            WEB,
            78,
            f"eggcrate: SECRET_FILE: {file} is longer than the 131,071 bytes that a variable",
            SECRET_FILE=os.fspath(file),
        )


if __name__ == "__main__":
    unittest.main()
