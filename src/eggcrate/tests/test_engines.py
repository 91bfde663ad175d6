"""The demo's image in real engines: loaded, started, asked over HTTP, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Sequence
from unittest import mock

from eggcrate.tests import layers
from eggcrate.tests.validator import validate

ROOT = pathlib.Path(__file__).parents[3]
PARTS = "tool app django static circus nginx image"


class DemoImage(layers.Layer):
    """The image of the top-level ``buildout.cfg``, built in a directory of its own.

    The eggs of the buildout that runs the tests are used, so that nothing is fetched but
    Debian's packages, and those once a machine.
    """

    archive: pathlib.Path
    directory: pathlib.Path
    port: int
    output: str

    def setUp(self) -> None:
        self.unavailable = ""
        if not (ROOT / "buildout.cfg").exists() or not shutil.which("apt-get"):
            self.unavailable = "needs a checkout of eggcrate, and apt-get: apt-get is Debian's"
            return
        self.directory = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix="eggcrate-")))
        self.port = layers.free_port()
        try:
            self.output = build_demo(self.directory / "one", self.port)
        except BaseException:
            self.tearDown()
            raise
        self.archive = self.directory / "one" / "parts" / "image" / "image.tar"

    def tearDown(self) -> None:
        if not self.unavailable:
            shutil.rmtree(self.directory, ignore_errors=True)


def build_demo(directory: pathlib.Path, port: int, options: Sequence[str] = ()) -> str:
    """Build the demo in ``directory``; what buildout has printed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        target = directory / name
        if (ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    code, output = run_buildout(directory, f"custom:webapp_port={port}", *options)
    if code:
        raise AssertionError(f"buildout has failed:\n{output[-5000:]}")
    return output


def run_buildout(
    directory: pathlib.Path, *options: str, below: Sequence[str] = ()
) -> tuple[int, str]:
    """The exit code of buildout in ``directory``, and what it has printed.

    ``below`` is a command that runs it.
    """
    done = subprocess.run(
        [
            *below,
            sys.executable,
            "-c",
            "import zc.buildout.buildout; zc.buildout.buildout.main()",
            "-N",
            f"buildout:parts={PARTS}",
            f"buildout:eggs-directory={ROOT / 'eggs'}",
            *options,
        ],
        cwd=directory,
        env={**os.environ, **layers.BUILDOUT_ENVIRON},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


DEMO_IMAGE = DemoImage("DEMO_IMAGE", "apt")
ON_DOCKER = layers.Layer("ON_DOCKER", "docker.io")
ON_DOCKER.__bases__ = (DEMO_IMAGE, layers.DOCKER_ENGINE)
ON_PODMAN = layers.Layer("ON_PODMAN", "podman")
ON_PODMAN.__bases__ = (DEMO_IMAGE, layers.PODMAN)


class InAnEngine:
    """What an image must do in every engine."""

    engine: layers.Engine

    def setUp(self) -> None:
        assert isinstance(self, unittest.TestCase)
        DEMO_IMAGE.require(self)
        self.engine.require(self)
        self.image = self.engine.load(DEMO_IMAGE.archive)

    def test_serves_the_site_and_stops(self) -> None:
        assert isinstance(self, unittest.TestCase)
        with contextlib.ExitStack() as stack:
            container = self.engine.run(self.image, read_only=True, tmpfs=["/run"])
            stack.callback(container.remove)
            port = DEMO_IMAGE.port
            page = container.wait_http(port, "/")
            self.assertIn("The Egg Shop", page.text)
            # the page comes from Django: its CSRF and hashed names are Django's
            styles = re.search(r'href="(/static/[^"]+\.[0-9a-f]{12}\.css)"', page.text)
            assert styles is not None, page.text
            static = layers.get(f"http://127.0.0.1:{port}{styles[1]}")
            self.assertEqual(static.status, 200)
            self.assertIn("immutable", static.headers["Cache-Control"])
            health = layers.get(f"http://127.0.0.1:{port}/health/")
            self.assertEqual(json.loads(health.text), {"status": "ok"})
            self.assertEqual(layers.get(f"http://127.0.0.1:{port}/nginx-health").status, 200)
            started = time.monotonic()
            self.assertEqual(container.stop(), 0)
            # nginx would wait for seven seconds for a connection that stays
            self.assertLess(time.monotonic() - started, 7)

    def test_runs_as_any_user(self) -> None:
        assert isinstance(self, unittest.TestCase)
        for user in ("123456:0", "0"):
            with self.subTest(user=user), contextlib.ExitStack() as stack:
                container = self.engine.run(
                    self.image, user=user, read_only=True, tmpfs=["/run"]
                )
                stack.callback(container.remove)
                page = container.wait_http(DEMO_IMAGE.port, "/")
                self.assertIn("The Egg Shop", page.text)
                self.assertEqual(container.stop(), 0)

    def test_says_what_it_needs_where_nothing_can_be_written(self) -> None:
        assert isinstance(self, unittest.TestCase)
        with contextlib.ExitStack() as stack:
            container = self.engine.run(self.image, read_only=True)
            stack.callback(container.remove)
            self.assertEqual(container.wait(), 78)
            self.assertIn("start with --tmpfs /run", container.logs())

    def test_runs_another_command(self) -> None:
        assert isinstance(self, unittest.TestCase)
        for command, expected in (
            (["report", "--help"], "usage"),
            (["django", "check"], "System check identified no issues"),
            (["python3", "-c", "import sys; print(sys.prefix)"], "/usr"),
        ):
            with self.subTest(command=command), contextlib.ExitStack() as stack:
                container = self.engine.run(
                    self.image,
                    args=command,
                    env={"DJANGO_SETTINGS_MODULE": "shop.settings.production"},
                )
                stack.callback(container.remove)
                code = container.wait()
                self.assertIn(expected, container.logs())
                self.assertEqual(code, 0)

    def test_the_name_is_the_same_everywhere(self) -> None:
        """E9."""
        assert isinstance(self, unittest.TestCase)
        self.assertRegex(self.image, r"^(docker\.io/)?acme/shop:latest$")


class DockerTest(InAnEngine, unittest.TestCase):
    layer = ON_DOCKER
    engine = layers.DOCKER_ENGINE


class PodmanTest(InAnEngine, unittest.TestCase):
    layer = ON_PODMAN
    engine = layers.PODMAN

    def test_says_what_it_needs_where_nothing_can_be_written(self) -> None:
        # podman mounts a tmpfs on /run itself where the root is read-only
        with contextlib.ExitStack() as stack:
            container = self.engine.run(
                self.image, options=["--read-only", "--read-only-tmpfs=false"]
            )
            stack.callback(container.remove)
            self.assertEqual(container.wait(), 78)
            self.assertIn("start with --tmpfs /run", container.logs())


class RunInAnEngine:
    """``bin/image run``."""

    engine: layers.Engine

    def host(self) -> str:
        raise NotImplementedError

    def setUp(self) -> None:
        assert isinstance(self, unittest.TestCase)
        DEMO_IMAGE.require(self)
        self.engine.require(self)

    def start(self, *words: str) -> subprocess.Popen[str]:
        script = f"import signal, sys; sys.path[:] = {sys.path!r}\n"
        # a shell has what it starts beside itself ignore it, and so do all that this starts
        script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        script += "from eggcrate.console import main\n"
        script += "sys.exit(main('bin/image', sys.argv[1], sys.argv[2:]))"
        location = str(DEMO_IMAGE.archive.parent)
        return subprocess.Popen(
            [
                *(sys.executable, "-c", script, location, "run"),
                *("--host", self.host(), "--network", "host", *words),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def test_streams_and_exit_code_are_the_commands(self) -> None:
        assert isinstance(self, unittest.TestCase)
        code, out, err = self.done("--", "sh", "-c", "echo one; echo two >&2; exit 7")
        self.assertEqual((code, out), (7, "one\n"), err)
        self.assertIn("two\n", err)
        code, _, err = self.done("--", "nosuch")
        self.assertEqual(code, 127)
        self.assertIn("eggcrate: nosuch was not found", err)

    def test_nothing_can_be_written_and_there_are_no_privileges(self) -> None:
        assert isinstance(self, unittest.TestCase)
        script = "touch /x; touch /run/y && echo y; while read line; do echo $line; done"
        _, out, err = self.done("--", "sh", "-c", f"{script} < /proc/self/status")
        self.assertIn("Read-only file system", err)
        self.assertRegex(out, r"(?s)^y\n.*\nCapBnd: 0+\n.*NoNewPrivs: 1\n")

    def test_settings_of_a_customer_and_a_graceful_end(self) -> None:
        assert isinstance(self, unittest.TestCase)
        port = layers.free_port()
        path = DEMO_IMAGE.directory / "customers.toml"
        path.write_text(
            f"webapp_port = {port}\n[acme]\ngreeting = 'Eggs for Acme'\n[bad]\nworkers = 999\n"
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start("--settings", str(path), "--customer", "acme")
            try:
                deadline = time.monotonic() + 120
                while True:
                    with contextlib.suppress(OSError):
                        page = layers.get(f"http://127.0.0.1:{port}/")
                        if page.status == 200:
                            break
                    if process.poll() is not None or time.monotonic() > deadline:
                        process.kill()
                        self.fail("".join(process.communicate()))
                    time.sleep(0.1)
                self.assertIn("Eggs for Acme", page.text)
            finally:
                process.send_signal(number)
                out, err = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 0, err)
            self.assertIn("stopping", out + err)
        code, _, err = self.done("--settings", str(path), "--customer", "bad")
        self.assertEqual(code, 1)
        self.assertIn("bin/image: WORKERS must be a whole number, 1 to 64; mend the", err)
        self.assertEqual(self.engine.cli("ps", "--all", "--quiet"), "")


class DockerRunTest(RunInAnEngine, unittest.TestCase):
    layer = ON_DOCKER
    engine = layers.DOCKER_ENGINE

    def host(self) -> str:
        return layers.DOCKER_ENGINE.host


class PodmanRunTest(RunInAnEngine, unittest.TestCase):
    layer = ON_PODMAN
    engine = layers.PODMAN

    def host(self) -> str:
        return layers.PODMAN.serve()


class RefusalTest(unittest.TestCase):
    """What can't become an image: one sentence, and the last good image stays."""

    layer = DEMO_IMAGE

    def setUp(self) -> None:
        DEMO_IMAGE.require(self)
        self.directory = DEMO_IMAGE.directory / "one"

    def run_buildout(self, *options: str, below: Sequence[str] = ()) -> tuple[int, str]:
        port = f"custom:webapp_port={DEMO_IMAGE.port}"
        return run_buildout(self.directory, port, *options, below=below)

    def refused(self, *options: str, below: Sequence[str] = ()) -> str:
        """The message of a buildout that fails, and leaves the image as it was."""
        before = self.image()
        code, output = self.run_buildout(*options, below=below)
        self.assertEqual(code, 1, output)
        self.assertNotIn("Traceback", output)
        self.assertEqual(self.image(), before)
        return output.rpartition("Error: ")[2].strip()

    def image(self) -> dict[str, tuple[int, int]]:
        top = DEMO_IMAGE.archive.parent
        return {
            str(path.relative_to(top)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(top.rglob("*"))
            if path.is_file()
        }

    def test_a_library_that_no_layer_provides(self) -> None:
        self.assertRegex(
            self.refused("image:os-packages=nginx-light"),
            r"^\[image\] /var/application/eggs/pyzmq-\S+ needs the library libstdc\+\+\.so\.6, "
            r"which no layer provides; add libstdc\+\+6 to os-packages$",
        )

    def test_packages_that_do_not_exist(self) -> None:
        message = self.refused("image:os-packages=nginx-ligth libstdc++6 no-such-package-1")
        self.assertIn("no package nginx-ligth, no-such-package-1", message)
        self.assertIn("perhaps nginx-light for nginx-ligth", message)

    def test_a_path_that_is_claimed_twice(self) -> None:
        message = self.refused("image:include=README.rst = /etc/passwd")
        self.assertIn("/etc/passwd is claimed twice, with different content", message)

    def test_a_program_that_is_not_there(self) -> None:
        message = self.refused("image:command=bin/no-such", "image:supervisor=")
        self.assertIn("the program bin/no-such of the image's command is not in", message)

    def test_an_extension_module_for_another_python(self) -> None:
        wrong = self.directory / "examples/shop/src/shop/_x.cpython-27m-x86_64-linux-gnu.so"
        wrong.write_bytes(b"")
        self.addCleanup(wrong.unlink)
        self.assertRegex(
            self.refused(),
            r"/shop/_x\.cpython-27m-x86_64-linux-gnu\.so is built for cpython-27m-x86_64-linux-"
            r"gnu, and the image's Python is 3\.\d+; run buildout with the image's Python",
        )

    def test_no_apt(self) -> None:
        few = DEMO_IMAGE.directory / "few programs"
        few.mkdir()
        (few / "sh").symlink_to("/bin/sh")
        with mock.patch.dict(os.environ, PATH=str(few)):
            message = self.refused()
        self.assertEqual(
            message,
            "[image] there is no apt-get on this machine; run buildout on Debian or Ubuntu, "
            "or in a container of theirs",
        )

    def without_network(self) -> Sequence[str]:
        command = ("unshare", "--net", "--map-root-user")
        done = subprocess.run([*command, "true"], capture_output=True, check=False)
        if done.returncode:
            layers.skip(self, "needs to make a network namespace: run as root")
        return command

    def test_no_network_and_a_warm_cache(self) -> None:
        before = self.image()
        code, output = self.run_buildout(below=self.without_network())
        self.assertEqual(code, 0, output)
        self.assertIn("(unchanged)", output)
        self.assertEqual(self.image(), before)

    def test_no_network_and_nothing_in_the_cache(self) -> None:
        cold = DEMO_IMAGE.directory / "cold"
        with mock.patch.dict(os.environ, EGGCRATE_CACHE=str(cold)):
            message = self.refused(below=self.without_network())
        self.assertRegex(
            message,
            r"^\[image\] the package lists of Debian \w+ could not be fetched: .*; check the "
            r"network, apt's proxy and keys, and that there is such a suite$",
        )

    def test_a_place_that_can_not_be_written(self) -> None:
        layout = DEMO_IMAGE.archive.parent / "oci" / "blobs" / "sha256"
        page = self.directory / "examples/shop/src/shop/extra.py"
        page.write_text("changed = True\n")
        self.addCleanup(page.unlink)
        if os.geteuid() == 0:
            # what keeps root out: a file system that is read-only
            read_only = ("unshare", "--mount", "sh", "-c")
            mount = f"mount --bind -o ro '{layout}' '{layout}' && exec \"$@\""
            message = self.refused(below=[*read_only, mount, "sh"])
        else:
            layout.chmod(0o500)
            self.addCleanup(layout.chmod, 0o755)
            message = self.refused()
        self.assertRegex(
            message,
            r"can't be written: (Read-only file system|Permission denied); make room for it, "
            r"or let this user write there$",
        )


class ReadersTest(unittest.TestCase):
    """Strangers that read the archive, and this project's own check."""

    layer = DEMO_IMAGE

    def setUp(self) -> None:
        DEMO_IMAGE.require(self)
        self.location = DEMO_IMAGE.archive.parent

    def run_program(self, *arguments: str | pathlib.Path) -> str:
        if not shutil.which(str(arguments[0])):
            layers.skip(self, f"needs {arguments[0]}: apt-get install {arguments[0]}")
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_own_check(self) -> None:
        self.assertEqual(validate(DEMO_IMAGE.archive), [])
        self.assertEqual(validate(self.location / "oci"), [])

    def test_skopeo(self) -> None:
        digest = (self.location / "digest").read_text().strip()
        for place in (
            f"oci-archive:{DEMO_IMAGE.archive}",
            f"oci:{self.location / 'oci'}:docker.io/acme/shop:latest",
        ):
            with self.subTest(place=place):
                found = json.loads(self.run_program("skopeo", "inspect", place))
                self.assertEqual(found["Digest"], digest)
                self.assertEqual(found["Architecture"], "amd64")
        found = json.loads(
            self.run_program("skopeo", "inspect", f"docker-archive:{DEMO_IMAGE.archive}")
        )
        self.assertEqual(found["Os"], "linux")

    def test_umoci(self) -> None:
        layout = DEMO_IMAGE.directory / "umoci"
        self.run_program(
            "skopeo", "copy", f"oci-archive:{DEMO_IMAGE.archive}", f"oci:{layout}:latest"
        )
        bundle = DEMO_IMAGE.directory / "bundle"
        self.run_program("umoci", "unpack", "--rootless", "--image", f"{layout}:latest", bundle)
        root = bundle / "rootfs"
        self.assertTrue((root / "var/application/bin/circusd").is_file())
        self.assertEqual(os.readlink(root / "bin"), "usr/bin")
        script = (root / "var/application/bin/gunicorn").read_text()
        self.assertNotIn(str(DEMO_IMAGE.directory), script)

    def test_no_path_of_the_build_is_left(self) -> None:
        needle = os.fsencode(DEMO_IMAGE.directory)
        for blob in sorted((self.location / "oci" / "blobs" / "sha256").iterdir()):
            data = blob.read_bytes()
            if data[:2] == b"\x1f\x8b":
                import gzip

                data = gzip.decompress(data)
            self.assertNotIn(needle, data, blob.name)

    def test_neither_the_tools_nor_secrets_are_in_it(self) -> None:
        plan = (self.location / "plan.txt").read_text()
        for left_out in (
            "/site-packages/pip/",
            "/site-packages/setuptools/",
            "/zc/buildout/",
            ".installed.cfg",
            "/.git/",
            "/uv-",
            "examples/shop/tests",
        ):
            self.assertNotIn(left_out, plan)

    def test_the_same_inputs_give_the_same_digest_elsewhere(self) -> None:
        other = DEMO_IMAGE.directory / "somewhere" / "else"
        environment = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
        before = {name: os.environ.get(name) for name in environment}
        umask = os.umask(0o077)
        try:
            os.environ.update(environment)
            build_demo(other, DEMO_IMAGE.port)
        finally:
            os.umask(umask)
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
        self.assertEqual(
            (other / "parts/image/digest").read_text(), (self.location / "digest").read_text()
        )

    def test_what_it_says(self) -> None:
        self.assertRegex(
            DEMO_IMAGE.output,
            r"image: acme/shop:latest  sha256:[0-9a-f]{64}  \d+ layers, \d+ MB  "
            r"\(\d+ changed, \d+ MB\)\nimage: docker load -i parts/image/image.tar\n",
        )
