"""virtualenv-part when it is killed, not alone, lied to, and what it says of its work."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Mapping
from unittest import mock

from eggcrate.environments import environment
from eggcrate.tests import layers, local_index, test_virtualenv_part

#: installs the part in a process of its own, the way that buildout does
_PROCESS = """
import logging, os, sys
sys.path[:0] = {path!r}
from unittest import mock
import zc.buildout, zc.buildout.testing
from eggcrate.recipes.virtualenv_part import Recipe
logging.basicConfig(level=logging.INFO, format="%(message)s")
os.chdir({directory!r})
buildout = zc.buildout.testing.Buildout()
buildout["buildout"]["newest"] = "false"
buildout["tool"] = {options!r}
try:
    Recipe(buildout, "tool", buildout["tool"]).install()
except zc.buildout.UserError as error:
    sys.exit(str(error))
"""


class Case(test_virtualenv_part.Case):
    def process(
        self, options: Mapping[str, str], directory: pathlib.Path | None = None
    ) -> subprocess.Popen[str]:
        given = {"find-links": str(self.wheels), "index": str(self.wheels / "simple")}
        given |= options
        directory = directory or self.directory
        # what zc.buildout's own tests make when it is not there, two at once fail at it
        for name in ("eggs/v5", "parts"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        code = _PROCESS.format(
            path=sys.path,
            directory=str(directory),
            options={"recipe": "eggcrate:virtualenv-part", **given},
        )
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


class TestKilled(Case):
    def test_at_any_moment(self) -> None:
        """What is there then works, or the next run mends it."""
        chance = random.Random(4)
        steps = [
            {"requirements": "hello == 1.0", "scripts": "hello"},
            {"requirements": "needy\nbuildtool", "scripts": "hello"},
        ]
        with self.process(steps[0]) as process:
            begun = time.monotonic()
            process.communicate()
            lasts = time.monotonic() - begun
        self.assertEqual(process.returncode, 0)
        killed = 0
        for number in range(1, 21):
            options = steps[number % 2]
            with self.process(options) as process:
                begun = time.monotonic()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=chance.uniform(0.3, 1) * lasts)
                    # the machine has less to do than before, or there was little to change
                    lasts = max(time.monotonic() - begun, 0.8 * lasts)
                process.send_signal(signal.SIGKILL)
                process.communicate()
            killed += process.returncode == -signal.SIGKILL
            # what is there now is nothing, the old one or the new one; or mended by a run
            record = environment.recorded(self.location)
            if record is not None and not environment.is_unfinished(self.location):
                code = "import hello; hello.main()"
                found = self.output(self.location / "bin" / "python", "-c", code)
                self.assertIn(found, ("hello 1.0", "hello 2.0"))
            if number % 3 == 0:
                self.recipe(**options).install()
                wanted = "hello 2.0" if number % 2 else "hello 1.0"
                self.assertEqual(self.output(self.bin / "hello"), wanted)
                self.assertEqual(list(self.location.parent.iterdir()), [self.location])
        self.assertGreater(killed, 5)

    def test_interrupted(self) -> None:
        self.recipe(requirements="hello == 1.0").install()
        before = self.tree()
        local_index.write_project(self.directory / "src", "shop", "1.0")
        recipe = self.recipe(requirements="hello == 2.0", develop="src")
        with (
            mock.patch("eggcrate.environments.process._lines", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            recipe.install()
        self.assertEqual(self.tree(), before)


class TestNotAlone(Case):
    def test_two_runs_in_one_directory(self) -> None:
        options = {"requirements": "needy", "scripts": "hello"}
        processes = [self.process(options) for _ in range(4)]
        outputs = [process.communicate()[0] for process in processes]
        self.assertEqual([process.returncode for process in processes], [0] * 4, outputs)
        self.assertEqual(sum("distributions for Python" in text for text in outputs), 1)
        self.assertEqual(self.output(self.bin / "hello"), "hello 2.0")
        self.assertEqual(list(self.location.parent.iterdir()), [self.location])

    def test_it_says_that_it_waits(self) -> None:
        log = self.logged()
        recipe = self.recipe(requirements="hello")
        with environment.alone(self.location, recipe.log):
            process = self.process({"requirements": "hello"})
            assert process.stdout is not None
            self.assertIn("Waiting for another run that changes", process.stdout.readline())
        process.communicate()
        self.assertEqual(process.returncode, 0)
        self.assertEqual(log.getvalue(), "")

    def test_one_cache_for_many(self) -> None:
        cache = self.directory / "cache"
        processes = []
        with mock.patch.dict(os.environ, {"UV_CACHE_DIR": str(cache)}):
            for number in range(20):
                directory = self.directory / f"site {number}"
                directory.mkdir()
                options = {"requirements": "needy\nbuildtool"}
                processes.append(self.process(options, directory))
            outputs = [process.communicate()[0] for process in processes]
        self.assertEqual([process.returncode for process in processes], [0] * 20, outputs)
        for number in range(20):
            python = self.directory / f"site {number}" / "parts" / "tool" / "bin" / "python"
            self.assertEqual(self.output(python, "-c", "import needy, hello, buildtool"), "")


class TestHostile(Case):
    """Wheels that reach out of the environment, in a mount namespace with nothing to lose."""

    def wheel(self, name: str, members: dict[str, str]) -> None:
        wheel = local_index.write_wheel(self.directory / "evil", name, "1.0", members=members)
        self.assertTrue(zipfile.is_zipfile(wheel))

    def refused_in_sandbox(self, name: str, *sayings: str) -> None:
        for installer in ("uv", "pip"):
            with self.subTest(name, installer=installer):
                output = self.sandboxed(name, installer)
                self.assertTrue(any(saying in output for saying in sayings), output)
                self.assertIn("nothing outside\n", output)
                self.assertNotIn("Traceback", output)

    def sandboxed(self, name: str, installer: str) -> str:
        """What the part says of the wheel, as nobody, where nothing but a tmpfs is writable."""
        code = _PROCESS.format(
            path=sys.path,
            directory="/mnt/site",
            options={
                "recipe": "eggcrate:virtualenv-part",
                "requirements": name,
                "installer": installer,
                "index": "/mnt/evil",
                "find-links": "/mnt/evil",
            },
        )
        script = f"""
            set -e
            mount --make-rprivate /
            mount -t tmpfs -o mode=1777 none /mnt
            cp -r {self.directory}/evil {self.directory}/program.py /mnt/
            chmod -R a+rX /mnt
            awk '{{print $2}}' /proc/mounts | sort -ru | while read -r place; do
                case $place in /proc*|/sys*|/dev*|/mnt) continue;; esac
                mount -o remount,bind,ro "$place" 2>/dev/null || :
            done
            mkdir -m 777 /mnt/site /mnt/nobody /mnt/canary
            export HOME=/mnt/nobody UV_CACHE_DIR=/mnt/nobody/cache TMPDIR=/mnt/nobody
            {sys.executable} /mnt/program.py || :
            test -z "$(ls -A /mnt/canary)" && test ! -e /mnt/evil.py && echo nothing outside
            """
        (self.directory / "program.py").write_text(code)
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                *(["--map-root-user"] if os.geteuid() else []),
                "sh",
                "-c",
                script,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def test_files_outside(self) -> None:
        """pip refuses the wheel, and uv leaves such files out."""
        climb = "../" * 12 + "mnt/canary/out.py"
        self.wheel("climbing", {climb: ""})
        self.wheel("absolute", {"/mnt/canary/out.py": ""})
        self.wheel("data", {f"data-1.0.data/data/{climb}": ""})
        for name in ("climbing", "absolute", "data"):
            self.refused_in_sandbox(
                name,
                "1 distribution for Python",
                "trying to install outside the target directory",
                "Unknown scheme key",
            )

    def test_files_of_the_environment(self) -> None:
        self.wheel("config", {"config-1.0.data/data/pyvenv.cfg": "home = /"})
        self.refused_in_sandbox(
            "config", "a package has overwritten /mnt/site/parts/tool/pyvenv"
        )
        self.wheel("program", {"program-1.0.data/scripts/python": "#!/bin/sh\n"})
        self.refused_in_sandbox(
            "program", "a package has overwritten", "must not use the reserved name"
        )
        self.wheel("marker", {"marker-1.0.data/data/.eggcrate.json": "{}"})
        output = self.sandboxed("marker", "uv")
        self.assertIn("1 distribution for Python", output)

    def test_names_of_scripts(self) -> None:
        entry = "[console_scripts]\n../../../../canary/evil = named:main\n"
        self.wheel("named", {"named-1.0.dist-info/entry_points.txt": entry})
        self.refused_in_sandbox("named", "within the scripts directory", "outside the scripts")


class TestWords(Case):
    def test_quiet_and_verbose(self) -> None:
        lines = {}
        for level in (logging.WARNING, logging.INFO, logging.DEBUG):
            stream = io.StringIO()
            handler = logging.StreamHandler(stream)
            recipe = self.recipe(requirements="hello == 1.0" if level == 20 else "hello")
            recipe.log.addHandler(handler)
            recipe.log.setLevel(level)
            try:
                recipe.install()
            finally:
                recipe.log.removeHandler(handler)
                recipe.log.setLevel(logging.NOTSET)
            lines[level] = stream.getvalue().splitlines()
        self.assertEqual(lines[logging.WARNING], [])
        self.assertEqual(lines[logging.INFO][1:], ["~ hello 1.0, was 2.0"])
        self.assertIn(" + hello==2.0", lines[logging.DEBUG])
        self.assertLess(len(lines[logging.INFO]), len(lines[logging.DEBUG]))

    def test_a_line_now_and_then(self) -> None:
        from eggcrate.image import progress

        log = self.logged()
        with (
            mock.patch.object(progress, "_WHILE", 0.2),
            local_index.serving(self.wheels, stalls=0.7) as seen,
        ):
            self.recipe(
                requirements="needy",
                find_links="",
                index=f"http://127.0.0.1:{seen.port}/simple",
            ).install()
        self.assertRegex(log.getvalue(), r"(?m)^(?:working|Resolved \d.*), \d s$")

    def test_on_a_terminal(self) -> None:
        code = textwrap.dedent(
            """
            import logging, pty, os, sys
            main, other = pty.openpty()
            import fcntl, struct, termios
            fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
            sys.stderr = os.fdopen(other, "w")
            logging.basicConfig(level=logging.INFO, stream=sys.stdout)
            from eggcrate.image.progress import status
            with status(logging.getLogger("tool"), "tool") as told:
                told("Building numpy")
                told("")
            sys.stderr.close()
            try:
                while data := os.read(main, 10000):
                    print(end=data.decode())
            except OSError:  # all is read, and nobody writes
                pass
            """
        )
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertRegex(done.stdout, r"tool: Building numpy  00:0\d")
        # and it is gone in the end
        self.assertEqual(done.stdout.rstrip("\n").splitlines()[-1].strip(), "")


class TestAudit(Case):
    """What the page says of pip-audit: it is ``--strict`` that makes a gate of it."""

    def test_it_fails_when_it_can_ask_nobody(self) -> None:
        top = pathlib.Path(__file__).parents[3]
        python = top / "parts" / "oracles" / "bin" / "python"
        alone = ("unshare", "--net", "--map-root-user")
        if subprocess.run([*alone, "true"], check=False).returncode:
            layers.skip(self, "needs to make a network namespace: run as root")
        if subprocess.run([python, "-c", "import pip_audit"], check=False).returncode:
            layers.skip(self, "there is no pip-audit: bin/buildout install oracles")
        self.recipe(requirements="needy").install()
        audit = [*alone, python, "-m", "pip_audit", "--path", self.options["site-packages"]]
        done = subprocess.run(
            [*audit, "--strict", "--timeout", "1"], capture_output=True, text=True, check=False
        )
        self.assertNotEqual(done.returncode, 0, done.stdout + done.stderr)


class TestUninstall(test_virtualenv_part.TestBuildout):
    # what it inherits is tested there
    test_life_of_a_part = None  # type: ignore[assignment] # no test here
    test_another_part_refers_to_it = None  # type: ignore[assignment] # no test here

    def test_exactly_its_own_scripts(self) -> None:
        configuration = f"""\
            [buildout]
            parts = tool other
            [tool]
            recipe = eggcrate:virtualenv-part
            requirements = hello
            scripts = hello
            interpreter = py
            find-links = {self.wheels}
            index = {self.wheels / "simple"}
            [other]
            <= tool
            scripts = hello-again
            interpreter =
            """
        self.buildout(configuration)
        self.assertEqual(sorted(os.listdir(self.bin)), ["hello", "hello-again", "py"])
        (self.bin / "precious").write_text("mine")
        (self.bin / "hello-again").unlink()
        (self.bin / "py").unlink()
        (self.bin / "py").write_text("mine")
        output = self.buildout(configuration.replace("parts = tool other", "parts = other"))
        self.assertIn("Uninstalling tool.", output)
        self.assertFalse(self.location.exists())
        self.assertEqual(sorted(os.listdir(self.bin)), ["hello-again", "precious"])
        output = self.buildout(configuration.replace("parts = tool other", "parts ="))
        self.assertEqual(sorted(os.listdir(self.bin)), ["precious"])
        self.assertEqual(os.listdir(self.directory / "parts"), [])
