"""circusd as a first process: the real Circus, in a PID namespace of its own."""

from __future__ import annotations

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

from eggcrate.runtime import circusd, start
from eggcrate.tests import layers

TOP = pathlib.Path(__file__).parents[3]
PACKAGE = os.fspath(pathlib.Path(start.__file__).parents[2])

#: what every configuration here begins with
CIRCUS = """\
[circus]
check_delay = 1
endpoint = ipc://{directory}/ctl
pubsub_endpoint = ipc://{directory}/pub
multicast_endpoint =
"""
#: seconds: less than any limit here, and enough for whatever stops at once on a busy machine
SOON = 25

#: PID 1 of an image, with another place for its package
MAIN = """\
import sys
sys.path.insert(0, {package!r})
from eggcrate.runtime.start import start
sys.exit(start({directory!r}, sys.argv[1:]))
"""

PROGRAM = """\
import os, signal, sys, time
name, how = sys.argv[1], sys.argv[2:]
def stop(*args):
    print(name, "was told to stop", flush=True)
    if how == ["slow"]:
        time.sleep(3)
    if how != ["stubborn"]:
        sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print(name, "is up as", os.getpid(), flush=True)
while True:
    time.sleep(0.05)
"""


class FirstProcess(layers.Layer):
    """What the tests need of the machine: a PID namespace, and the demo's Circus."""

    def __init__(self) -> None:
        super().__init__("FIRST_PROCESS", "util-linux")

    def setUp(self) -> None:
        super().setUp()
        if subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "true"],
            capture_output=True,
            check=False,
        ).returncode:
            self.unavailable = "needs to make a PID namespace: run as root"
        elif not (TOP / "bin" / "circusd").exists():
            self.unavailable = "needs bin/circusd: run bin/buildout"


FIRST_PROCESS = FirstProcess()


class Case(unittest.TestCase):
    layer = FIRST_PROCESS
    #: so long that nothing here stops in time because it is killed
    limits = "stop_timeout = 60"

    def setUp(self) -> None:
        FIRST_PROCESS.require(self)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name).resolve()
        (self.directory / "program.py").write_text(PROGRAM)
        (self.directory / "main.py").write_text(
            MAIN.format(package=PACKAGE, directory=os.fspath(self.directory))
        )
        self.log = self.directory / "log"

    def write(self, text: str) -> pathlib.Path:
        """Write a configuration; ``PROGRAM`` in it is a program, with its name as argument."""
        program = f"{sys.executable} {self.directory / 'program.py'}"
        path = self.directory / "circus.ini"
        text = textwrap.dedent(text).replace("PROGRAM", program)
        path.write_text(f"{CIRCUS.format(directory=self.directory)}{self.limits}\n{text}")
        return path

    def started(self, text: str, **environment: str) -> subprocess.Popen[bytes]:
        """PID 1 of a namespace with this configuration; its output goes to ``log``."""
        config = self.write(text)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"),
                    *(sys.executable, "-I", self.directory / "main.py"),
                    *(TOP / "bin" / "circusd", config),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        self.addCleanup(self.ended, process)
        return process

    def ended(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()

    def first(self, process: subprocess.Popen[bytes]) -> int:
        """The number of the namespace's first process, outside of it."""
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for _ in range(6000):
            if found := children.read_text().split():
                return int(found[0])
            time.sleep(0.01)
        raise AssertionError("unshare has no child")

    def wait_for(self, text: str, count: int = 1) -> None:
        for _ in range(1200):
            if self.log.read_text().count(text) >= count:
                return
            time.sleep(0.05)
        raise AssertionError(f"{text!r} was not said:\n{self.log.read_text()}")

    def wait_for_start(self, process: subprocess.Popen[bytes]) -> None:
        """Until the signals are held: a first process without handlers never gets them."""
        status = pathlib.Path(f"/proc/{self.first(process)}/status")
        for _ in range(30_000):
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            held = int(lines["SigBlk"], 16) | int(lines["SigCgt"], 16)
            # unshare itself holds two of them for a moment
            if all(held >> (number - 1) & 1 for number in circusd.SIGNALS):
                return
            time.sleep(0.002)
        raise AssertionError("it does not hold its signals")

    def code(self, process: subprocess.Popen[bytes], seconds: float = SOON) -> int:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.log.read_text()}") from None

    def stopped(self, process: subprocess.Popen[bytes], seconds: float = SOON) -> int:
        """Its exit code after SIGTERM; it has to end in time, and without a traceback."""
        os.kill(self.first(process), signal.SIGTERM)
        code = self.code(process, seconds)
        self.assertNotIn("Traceback", self.log.read_text())
        self.assertNotIn("ConflictError", self.log.read_text())
        return code


class StopTest(Case):
    def test_what_was_started_first_stops_last(self) -> None:
        process = self.started(
            """
            [watcher:front]
            cmd = PROGRAM front
            priority = 1
            [watcher:web]
            cmd = PROGRAM web
            priority = 10
            """
        )
        self.wait_for("is up", 2)
        self.assertEqual(self.stopped(process), 0)
        log = self.log.read_text()
        # a slow machine may let the second say so first; its number tells when it began
        began = {name: int(pid) for name, pid in re.findall(r"(\w+) is up as (\d+)", log)}
        self.assertLess(began["web"], began["front"])
        front, web = log.index("front was told to stop"), log.index("web was told to stop")
        self.assertLess(front, log.index("front stopped"))
        self.assertLess(log.index("front stopped"), web)

    def test_at_any_moment(self) -> None:
        """Whatever it is doing, from its first line of code on."""
        chance = random.Random(5)
        text = """
            [watcher:slow]
            cmd = PROGRAM slow
            numprocesses = 4
            warmup_delay = 1
            priority = 5
            [watcher:loop]
            cmd = false
            priority = 1
            """
        for number in range(12):
            process = self.started(text)
            delay = 0.1 + (number * 0.05 if number < 8 else chance.uniform(0.5, 5))
            with self.subTest(delay=delay):
                self.wait_for_start(process)
                time.sleep(delay)
                self.assertEqual(self.stopped(process), 0)

    def test_while_the_next_of_several_is_due(self) -> None:
        """Nothing is started any longer by what is stopping: Circus would wait for it."""
        process = self.started(
            "[watcher:web]\ncmd = PROGRAM web slow\nnumprocesses = 9\nwarmup_delay = 1\n"
        )
        self.wait_for("web is up")
        self.assertEqual(self.stopped(process), 0)
        self.assertLess(self.log.read_text().count("is up"), 9)

    def test_as_soon_as_it_holds_its_signals(self) -> None:
        for _ in range(10):
            process = self.started("[watcher:web]\ncmd = PROGRAM web\n")
            self.wait_for_start(process)
            self.assertEqual(self.stopped(process), 0)

    def test_during_a_reload(self) -> None:
        process = self.started(
            "[watcher:web]\ncmd = PROGRAM web stubborn\ngraceful_timeout = 3\n"
        )
        self.wait_for("web is up")
        os.kill(self.first(process), signal.SIGHUP)
        self.wait_for("web was told to stop")
        self.assertEqual(self.stopped(process), 0)

    def test_a_command_that_is_not_circus(self) -> None:
        """It gets its signals; one that came before it was there ends all."""
        main = [sys.executable, "-I", os.fspath(self.directory / "main.py")]
        told = [*main, sys.executable, os.fspath(self.directory / "program.py"), "it"]
        with subprocess.Popen(told, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            self.assertRegex(process.stdout.readline(), r"\Ait is up as \d+\n\Z")
            process.terminate()
            self.assertEqual(process.communicate()[0], "it was told to stop\n")
        code = (
            "import os, signal, sys\n"
            f"sys.path.insert(0, {PACKAGE!r})\n"
            "from eggcrate.runtime import start\n"
            "start.run_directory_problem = lambda path: os.kill(os.getpid(), signal.SIGTERM)\n"
            f"sys.exit(start.start({os.fspath(self.directory)!r}, ['echo', 'started']))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (143, ""))


class LimitTest(Case):
    limits = ""

    def test_stubborn_programs_are_killed_in_time(self) -> None:
        process = self.started(
            """
            [watcher:front]
            cmd = PROGRAM front stubborn
            priority = 1
            graceful_timeout = 60
            [watcher:web]
            cmd = PROGRAM web stubborn
            priority = 10
            graceful_timeout = 60
            """
        )
        self.wait_for("is up", 2)
        # what is less than the ten seconds of docker stop counts, and not a watcher's minute
        self.assertLess(circusd._STOP_TIMEOUT, 10)
        self.assertEqual(self.stopped(process), 0)
        self.assertIn("web was told to stop", self.log.read_text())

    def test_own_limit(self) -> None:
        process = self.started("stop_timeout = 2\n[watcher:web]\ncmd = PROGRAM web stubborn\n")
        self.wait_for("is up")
        self.assertEqual(self.stopped(process, circusd._STOP_TIMEOUT - 0.5), 0)


class CodeTest(Case):
    def refused(self, text: str, code: int, *sayings: str) -> None:
        with self.subTest(text):
            process = self.started(text)
            self.assertEqual(self.code(process), code, self.log.read_text())
            for saying in sayings:
                self.assertIn(saying, self.log.read_text())
            self.assertNotIn("Traceback", self.log.read_text())

    def test_configuration(self) -> None:
        for text, saying in (
            ("", "there is no watcher; write a section [watcher:NAME]"),
            ("[watcher:a]\nnumprocesses = 2\n", "[watcher:a]: there is no cmd"),
            ("[watcher:a]\ncmd = true\nnumprocesses = two\n", "invalid literal"),
            ("[watcher:a]\ncmd = true\nsingleton = 1\nnumprocesses = 2\n", "[watcher:a]: "),
            ("[watcher:a]\ncmd = true\nstop_signal = FOO\n", "SIGFOO"),
            ("[watcher:a]\ncmd = true\nhooks.before_start = no.such\n", "no"),
            ("[watcher:a]\ncmd = true\n[socket:b]\nport = x\n", "[socket:b]: "),
            (
                "[watcher:a]\ncmd = true\n[plugin:c]\npriority = 1\n",
                "[plugin:c]: there is no use",
            ),
            ("[watcher:a]\ncmd = true\nno line\n", "circus.ini: "),
        ):
            self.refused(text, 78, "eggcrate: ", saying)
        self.refused(
            "[watcher:a]\ncmd = true\nmax_age = x\n[watcher:b]\ncmd = true\nmax_age = x\n",
            78,
            "[watcher:a]: ",
            "[watcher:b]: ",
        )

    def test_what_can_not_be_started(self) -> None:
        self.refused(
            "[watcher:web]\ncmd = PROGRAM web\n[watcher:no]\ncmd = /no/such/program\n",
            1,
            "eggcrate: these watchers could not be started: no",
        )
        self.refused(
            "[watcher:a]\ncmd = true\nrlimit_nosuch = 3\n",
            1,
            "eggcrate: not all watchers could be started: ",
        )

    def test_what_can_not_be_bound(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.refused(
                "[watcher:a]\ncmd = PROGRAM a\n"
                f"[socket:b]\nhost = 127.0.0.1\nport = {taken.getsockname()[1]}\n",
                1,
                "eggcrate: Circus can't start: ",
                "Address already in use",
            )
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(os.fspath(self.directory / "stale.sock"))
        self.refused(
            f"[watcher:a]\ncmd = PROGRAM a\n[socket:b]\npath = {self.directory}/stale.sock\n",
            1,
            "already exists",
        )

    def test_no_directory_for_the_endpoint(self) -> None:
        config = self.write("[watcher:a]\ncmd = PROGRAM a\n")
        config.write_text(config.read_text().replace("ctl", "no/such/ctl"))
        done = subprocess.run(
            [
                *(sys.executable, circusd.__file__),
                *(TOP / "bin" / "circusd", config),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("eggcrate: Circus can't start: ", done.stderr)

    def test_essential_watchers(self) -> None:
        self.refused(
            "[watcher:web]\ncmd = PROGRAM web\n[watcher:loop]\ncmd = false\nessential = True\n",
            1,
            "eggcrate: loop is essential, and has ended 4 times in ",
            "the last time with exit code 1",
            "web was told to stop",
        )
        self.refused(
            "[watcher:web]\ncmd = PROGRAM web\n"
            "[watcher:once]\ncmd = sleep 1\nrespawn = False\nessential = yes\n",
            1,
            "eggcrate: once is essential, and has stopped",
        )

    def test_watchers_that_are_not(self) -> None:
        process = self.started(
            "[watcher:web]\ncmd = PROGRAM web\nessential = True\n"
            "[watcher:loop]\ncmd = false\n[watcher:once]\ncmd = true\nrespawn = False\n"
        )
        self.wait_for("web is up")
        time.sleep(6)
        self.assertIsNone(process.poll(), self.log.read_text())
        self.assertEqual(self.stopped(process), 0)

    def test_a_reload_ends_nothing(self) -> None:
        process = self.started("[watcher:web]\ncmd = PROGRAM web\nessential = True\n")
        for number in range(1, 6):
            self.wait_for("web is up", number)
            os.kill(self.first(process), signal.SIGHUP)
        self.wait_for("web is up", 6)
        self.assertIsNone(process.poll(), self.log.read_text())
        self.assertEqual(self.stopped(process), 0)


class EnvironmentTest(Case):
    def test_values_arrive_as_they_are(self) -> None:
        value = "a$BCD$HOME;x \n% ((circus.env.HOME)) $(circus.env.HOME) é"
        dump = "import os, time; print(repr(os.environ['SECRET']), flush=True); time.sleep(60)"
        (self.directory / "dump.py").write_text(dump)
        process = self.started(
            f"""
            [watcher:web]
            cmd = {sys.executable} {self.directory}/dump.py
            copy_env = True
            [env:web]
            OTHER = $(circus.env.HOME)
            """,
            SECRET=value,
            PYTHONUTF8="1",
        )
        self.wait_for(repr(value))
        self.stopped(process)

    def test_what_the_configuration_says_counts(self) -> None:
        class Found:
            def __init__(self, name: str, env: dict[str, str], copy_env: bool = True) -> None:
                self.name, self.env, self.copy_env = name, env, copy_env

        one = Found("one", {"A": "changed", "B": "own"})
        two = Found("two", {"A": "changed"}, copy_env=False)
        circusd.inherit(
            [one, two],
            [
                {"name": "one", "env": {"A": " a$X", "B": "own"}},
                {"name": "two", "env": {"A": " a$X"}},
            ],
            {"A": " a$X", "B": "theirs"},
        )
        self.assertEqual((one.env, two.env), ({"A": " a$X", "B": "own"}, {"A": "changed"}))


class OrphanTest(Case):
    def test_a_thousand_orphans(self) -> None:
        (self.directory / "forks.py").write_text(
            "import os, sys, time\n"
            "for number in range(1000):\n"
            "    if os.fork() == 0:\n"
            "        if os.fork() == 0:\n"
            "            time.sleep(0.1)\n"
            "        os._exit(0)\n"
            "    os.wait()\n"
            "print('all are born', flush=True)\n"
            "time.sleep(60)\n"
        )
        process = self.started(
            f"[watcher:web]\ncmd = {sys.executable} {self.directory}/forks.py\n"
        )
        self.wait_for("all are born")
        # of all its children, those that are dead among them, the program alone is left
        first = self.first(process)
        children = pathlib.Path(f"/proc/{first}/task/{first}/children")
        for _ in range(600):
            if len(children.read_text().split()) == 1:
                break
            time.sleep(0.1)
        self.assertEqual(len(children.read_text().split()), 1)
        self.assertEqual(self.stopped(process), 0)


class LogTest(Case):
    def test_lines_are_whole(self) -> None:
        (self.directory / "talk.py").write_text(
            "import json, time\n"
            "line = json.dumps({'message': 'x' * 3000})\n"
            "for number in range(1000):\n"
            "    print(line, flush=True)\n"
            "print('all is said', flush=True)\n"
            "time.sleep(60)\n"
        )
        process = self.started(
            f"[watcher:web]\ncmd = {sys.executable} {self.directory}/talk.py\n"
            "numprocesses = 2\n"
        )
        self.wait_for("all is said", 2)
        whole = '{"message": "' + "x" * 3000 + '"}'
        lines = [line for line in self.log.read_text().splitlines() if "xxx" in line]
        self.assertEqual((len(lines), set(lines)), (2000, {whole}))
        self.assertEqual(self.stopped(process), 0)


class HostTest(Case):
    def test_arguments(self) -> None:
        command = [sys.executable, circusd.__file__, os.fspath(TOP / "bin" / "circusd")]
        version = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=False
        )
        self.assertEqual((version.returncode, version.stdout), (0, "0.19.0\n"))
        nothing = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(nothing.returncode, 2)
        self.assertIn("there is no configuration file", nothing.stderr)
        absent = subprocess.run(
            [*command, "/no/such.ini"], capture_output=True, text=True, check=False
        )
        self.assertEqual(absent.returncode, 78)
        self.assertIn("does not exist", absent.stderr)

    def test_pid_file(self) -> None:
        config = self.write("[watcher:web]\ncmd = PROGRAM web\n")
        file = self.directory / "pid"
        command = [sys.executable, circusd.__file__, TOP / "bin" / "circusd", config]
        with (
            self.log.open("wb") as log,
            subprocess.Popen(
                [*map(str, command), "--pidfile", str(file), "--log-level", "debug"],
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            self.wait_for("web is up")
            self.assertEqual(int(file.read_text()), process.pid)
            process.terminate()
            self.assertEqual(process.wait(60), 0)
        self.assertFalse(file.exists())


if __name__ == "__main__":
    unittest.main()
