"""The examples are built as a reader would, and their images are run."""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import zc.buildout.configparser

from eggcrate.tests import layers
from eggcrate.tests.test_files_as_they_are import layer_bytes

TOP = Path(__file__).parents[3]
# what an example's ``develop = ../..`` needs of the checkout
PROJECT = ("setup.py", "pyproject.toml", "README.rst", "CHANGES.rst", "LICENSE.txt")
GENERATED = shutil.ignore_patterns(
    *("tests", "__pycache__", "*.egg-info", "*.egg-link"),
    *(".venv", ".installed.cfg", "bin", "develop-eggs", "eggs", "parts", "var"),
)
# nobody in the image, and not the owner of anything
STRANGER = "12345:12345"


class Example(layers.Layer):
    """One of the examples, copied with its checkout, bootstrapped and built: ``directory``.

    ``options`` are for ``bin/buildout``; PORT in them is a free one.
    """

    # these are set up first
    __bases__ = (layers.DOCKER_ENGINE, layers.PODMAN)

    def __init__(self, name: str, *options: str) -> None:
        super().__init__(f"EXAMPLE_{name.upper()}", "apt")
        self.name = name
        self.options = options
        self.output = ""
        self.port = 0
        self.directory = Path()

    def setUp(self) -> None:
        super().setUp()
        self._program("apt-get")
        if self.unavailable:
            return
        checkout = Path(tempfile.mkdtemp(prefix="eggcrate-")).resolve()
        self.directory = checkout / "examples" / self.name
        self.port = layers.free_port()
        for name in PROJECT:
            shutil.copy(TOP / name, checkout)
        shutil.copytree(TOP / "src", checkout / "src", ignore=GENERATED)
        shutil.copytree(TOP / "examples" / self.name, self.directory, ignore=GENERATED)
        try:
            self._bootstrap()
            if not self.unavailable:
                self.output = self.buildout()
        except BaseException:
            self.tearDown()
            raise

    def _bootstrap(self) -> None:
        process = subprocess.run(
            [sys.executable, TOP / "bootstrap.py", "--config", self.directory / "buildout.cfg"],
            capture_output=True,
            text=True,
        )
        if "can't reach" in process.stderr:
            self.unavailable = process.stderr.strip()
        elif process.returncode:
            raise AssertionError(process.stdout + process.stderr)

    def tearDown(self) -> None:
        super().tearDown()
        if self.directory != Path():
            shutil.rmtree(self.directory.parents[1])
            self.directory = Path()

    def buildout(self, *arguments: str) -> str:
        """Run ``bin/buildout``; what it says."""
        options = [option.replace("PORT", str(self.port)) for option in self.options]
        process = subprocess.run(
            [self.directory / "bin" / "buildout", *options, *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        if process.returncode:
            raise AssertionError(process.stdout)
        return process.stdout

    @functools.cache  # noqa: B019 - there is one instance an example
    def image(self, engine: layers.Engine) -> str:
        """Load the image into an engine, once; its name there."""
        return engine.load(self.directory / "parts" / "image" / "image.tar")

    def planned(self) -> list[str]:
        """The paths of the image."""
        plan = (self.directory / "parts" / "image" / "plan.txt").read_text()
        return re.findall(r"^ +\d+ +\d+ +\d+ +(\S+)", plan, re.M)


ARTICLE = Example(
    "article",
    "custom:webapp_port=PORT",
    # a crontab that is a file
    "crontab:readcrontab=cat crontab",
    "crontab:writecrontab=cat > crontab",
)
TOOL = Example("tool")


def sections(path: Path) -> dict[str, dict[str, str]]:
    """The sections of a ``buildout.cfg``."""
    with path.open() as stream:
        found: dict[str, dict[str, str]] = zc.buildout.configparser.parse(stream, path.name)
    return found


class FilesTest(unittest.TestCase):
    """What a reader sees."""

    def test_pins_are_those_of_the_project(self) -> None:
        project = sections(TOP / "buildout.cfg")["versions"]
        for example in (ARTICLE, TOOL):
            own = sections(TOP / "examples" / example.name / "buildout.cfg")["versions"]
            for name, version in own.items():
                with self.subTest(example=example.name, name=name):
                    self.assertEqual(version, project.get(name, version))


class ArticleFilesTest(unittest.TestCase):
    """What the article's reader sees."""

    directory = TOP / "examples" / "article"

    def test_it_is_an_ordinary_buildout_with_one_section_more(self) -> None:
        recipes = {
            name: options["recipe"]
            for name, options in sections(self.directory / "buildout.cfg").items()
            if "recipe" in options
        }
        ours = {name: recipe for name, recipe in recipes.items() if "eggcrate" in recipe}
        self.assertEqual(
            ours, {"tool": "eggcrate:virtualenv-part", "image": "eggcrate:docker-image"}
        )
        self.assertEqual(recipes["circus_ini"], "collective.recipe.template")
        self.assertEqual(recipes["nginx_conf"], "collective.recipe.template")

    def test_both_templates_share_the_port(self) -> None:
        for name in ("circus.ini.in", "nginx.conf.in"):
            template = (self.directory / "conf" / name).read_text()
            self.assertIn("${custom:webapp_port}", template)


class ArticleTest(unittest.TestCase):
    layer = ARTICLE

    def setUp(self) -> None:
        ARTICLE.require(self)

    def test_everything_is_there(self) -> None:
        names = {path.name for path in (ARTICLE.directory / "bin").iterdir()}
        self.assertLessEqual(
            {"circusd", "count-sessions", "django", "gunicorn-with-settings"}, names
        )
        self.assertIn("docker load -i parts/image/image.tar", ARTICLE.output)

    def test_run_again_it_changes_nothing(self) -> None:
        archive = ARTICLE.directory / "parts" / "image" / "image.tar"
        crontab = ARTICLE.directory / "crontab"
        jobs = f"@daily true\n{crontab.read_text()}"
        crontab.write_text(jobs)
        before = archive.stat()
        output = ARTICLE.buildout("-N")
        self.assertRegex(output, r"image: example/article:latest .*\(unchanged\)")
        after = archive.stat()
        self.assertEqual((before.st_ino, before.st_mtime), (after.st_ino, after.st_mtime))
        self.assertEqual(crontab.read_text(), jobs)

    def test_the_nightly_job_is_in_the_crontab(self) -> None:
        lines = (ARTICLE.directory / "crontab").read_text().splitlines()
        django = ARTICLE.directory / "bin" / "django"
        self.assertEqual(lines.count(f"30 3 * * *\t{django} clearsessions"), 1)

    def test_the_image_has_what_the_site_needs(self) -> None:
        paths = ARTICLE.planned()
        for wanted in (
            "mysite/settings.py",
            "visits/templates/visits/welcome.html",
            "parts/static/visits/site.css",
            "parts/tool/pyvenv.cfg",
        ):
            self.assertIn(f"/var/application/{wanted}", paths)

    def test_the_image_has_nothing_else(self) -> None:
        paths = ARTICLE.planned()
        tops = {
            path.split("/")[3] for path in paths if path.startswith("/var/application/")
        } - {""}
        self.assertEqual(tops, {"bin", "eggs", "mysite", "parts", "tools", "var", "visits"})
        sources = {path for path in paths if re.fullmatch(r".*/tools/.*[^/c]", path)}
        self.assertEqual(sources, {"/var/application/tools/count_sessions.py"})
        for path in paths:
            self.assertNotRegex(path, r"/(zc/buildout|eggcrate/recipes|pip|setuptools)(/|$)")

    def test_docker_serves_the_site(self) -> None:
        self.assert_serves(layers.DOCKER_ENGINE)

    def test_podman_serves_the_site(self) -> None:
        self.assert_serves(layers.PODMAN)

    def assert_serves(self, engine: layers.Engine) -> None:
        """The site works for any user on a read-only root file system, and stops in time."""
        engine.require(self)
        container = engine.run(
            ARTICLE.image(engine), user=STRANGER, read_only=True, tmpfs=["/run"]
        )
        self.addCleanup(container.remove)

        page = container.wait_http(ARTICLE.port)
        self.assertIn("visit number 1.", page.text)
        # said by the circus.ini of the same buildout variable as nginx's listen
        self.assertIn(f'href="http://localhost:{ARTICLE.port}/"', page.text)
        self.assertRegex(page.headers["Server"], "^nginx")

        cookie = page.headers["Set-Cookie"].partition(";")[0]
        site = f"http://127.0.0.1:{ARTICLE.port}"
        self.assertIn("visit number 2.", layers.get(site, {"Cookie": cookie}).text)

        link = re.search(r'rel="stylesheet" href="([^"]+)"', page.text)
        assert link
        style = layers.get(site + link[1])
        self.assertEqual((style.status, style.headers["Content-Type"]), (200, "text/css"))
        source = ARTICLE.directory / "visits/static/visits/site.css"
        self.assertEqual(style.body, source.read_bytes())
        self.assertEqual(layers.get(f"{site}/no-such-page").status, 404)

        # the tool, in its own environment, counts the session; the nightly job leaves it
        command = ("exec", container.identifier)
        self.assertEqual(engine.cli(*command, "django", "clearsessions"), "")
        counted = engine.cli(*command, "count-sessions", "/run/eggcrate")
        self.assertRegex(counted, r"^day +sessions\n[- ]+\n[\d-]+ +1\n$")

        self.assertNotIn("Traceback", container.logs())
        began = time.monotonic()
        code = container.stop()
        # nobody waits for what doesn't end
        self.assertLess(time.monotonic() - began, 7)
        self.assertEqual(code, 0, container.logs())

    def test_a_customer_has_another_port_in_the_files_of_another_recipe(self) -> None:
        engine = layers.DOCKER_ENGINE
        engine.require(self)
        port = layers.free_port()
        container = engine.run(
            ARTICLE.image(engine),
            user=STRANGER,
            read_only=True,
            tmpfs=["/run"],
            env={"WEBAPP_PORT": str(port), "SERVER_NAME": "www.example"},
        )
        self.addCleanup(container.remove)
        page = container.wait_http(port)
        self.assertIn(f'href="http://www.example:{port}/"', page.text)
        self.assertEqual(container.stop(), 0, container.logs())


APPLICATION = "/var/application"
ENVIRONMENT = f"{APPLICATION}/parts/report"
# what an environment's Python knows of itself, and the first lines of its scripts
LOOK = """
import importlib.metadata, json, os, pathlib, report, sys
text = pathlib.Path(sys.prefix, "pyvenv.cfg").read_text()
values = dict(line.split(" = ", 1) for line in text.splitlines())
scripts = ["bin/report", f"{sys.prefix}/bin/report", f"{sys.prefix}/bin/tabulate"]
print(json.dumps({
    "prefix": sys.prefix,
    "program": os.path.realpath(sys.executable),
    "home": values["home"],
    "module": report.__file__,
    "version": importlib.metadata.version("report"),
    "first lines": sorted({open(script).readline() for script in scripts}),
}))
"""


class ToolTest(unittest.TestCase):
    """An environment, in an image of its own."""

    layer = TOOL

    def setUp(self) -> None:
        TOOL.require(self)

    def test_everything_is_there(self) -> None:
        names = {path.name for path in (TOOL.directory / "bin").iterdir()}
        self.assertEqual(names, {"buildout", "image", "report"})
        self.assertIn("docker load -i parts/image/image.tar", TOOL.output)

    def test_run_again_it_changes_nothing(self) -> None:
        output = TOOL.buildout("-N")
        self.assertRegex(output, r"image: example/report:latest .*\(unchanged\)")

    def test_the_image_has_nothing_else(self) -> None:
        paths = TOOL.planned()
        tops = {path.split("/")[3] for path in paths if path.startswith(f"{APPLICATION}/")}
        self.assertEqual(tops - {""}, {"bin", "parts", "tool", "var"})
        for path in paths:
            self.assertNotRegex(path, r"/(pip|uv|setuptools|wheel|circus|nginx)([-/.]|$)")
            self.assertNotRegex(path, r"/(direct_url\.json|\.eggcrate\.json)$")

    def test_docker_runs_it(self) -> None:
        self.assert_runs(layers.DOCKER_ENGINE, TOOL.directory)

    def test_podman_runs_it(self) -> None:
        self.assert_runs(layers.PODMAN, TOOL.directory)

    def test_made_by_pip(self) -> None:
        directory = self.built("pip", "report:installer=pip")
        self.assert_runs(layers.DOCKER_ENGINE, directory)

    def test_with_the_python_that_runs_buildout(self) -> None:
        directory = self.built("host", "image:python=host")
        self.assert_runs(layers.DOCKER_ENGINE, directory)

    def test_where_a_first_line_would_be_too_long(self) -> None:
        options = ("report:interpreter=report-python", "image:name=example/long")
        short, long = self.built("short", *options), self.built("x" * 127, *options)
        for name in ("bin/report", "bin/report-python", "parts/report/bin/report"):
            self.assertTrue((long / name).read_text().startswith("#!/bin/sh\n"), name)
        digests = [(place / "parts/image/digest").read_text() for place in (short, long)]
        self.assertEqual(digests[0], digests[1])

    def built(self, name: str, *options: str) -> Path:
        """Build with ``bin`` and ``parts`` in another directory, which is given back."""
        scratch = tempfile.TemporaryDirectory(prefix="eggcrate-")
        self.addCleanup(scratch.cleanup)
        directory = Path(scratch.name).resolve() / name
        directory.mkdir()
        TOOL.buildout(
            "-N",
            f"buildout:bin-directory={directory / 'bin'}",
            f"buildout:parts-directory={directory / 'parts'}",
            f"buildout:installed={directory / 'installed.cfg'}",
            f"image:name=example/{name}",
            *options,
        )
        return directory

    def assert_runs(self, engine: layers.Engine, directory: Path) -> None:
        """The tool and its environment work, and nothing is left of this machine."""
        archive = directory / "parts" / "image" / "image.tar"
        self.assert_no_trace(archive)
        engine.require(self)
        image = engine.load(archive)
        version = re.escape("{}.{}".format(*sys.version_info))
        runs: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("10001:10001", "/run/eggcrate", {}),
            (STRANGER, "nowhere", {"read_only": True}),
            ("0:0", "/run/eggcrate", {"read_only": True, "tmpfs": ["/run"]}),
        )
        for user, place, options in runs:
            self.assertRegex(
                said(engine, image, user=user, **options),
                r"^what +is\n[ -]+\n"
                rf"report +1\.0\npython +{version}\.\d+\nuser +{user}\n"
                rf"processors +\d+\ntemporary files +{place}\n$",
            )
        self.assertRegex(said(engine, image, "report", "--yaml"), rf"\npython: {version}\.")

        activate = '. parts/report/bin/activate && python -c "$0"'
        for command in (
            (f"{ENVIRONMENT}/bin/python", "-c", LOOK),
            ("sh", "-c", activate, LOOK),
        ):
            seen = json.loads(said(engine, image, *command, user=STRANGER, read_only=True))
            program = seen.pop("program")
            self.assertRegex(program, rf"^/usr/(local/)?bin/python{version}$")
            self.assertEqual(
                seen,
                {
                    "prefix": ENVIRONMENT,
                    "home": program.rpartition("/")[0],
                    "module": f"{APPLICATION}/tool/src/report.py",
                    "version": "1.0",
                    "first lines": [f"#!{ENVIRONMENT}/bin/python\n"],
                },
            )

    def assert_no_trace(self, archive: Path) -> None:
        """No layer has a path of the build, or of the Python that ran it."""
        traces = [str(TOOL.directory.parents[1]), str(archive.parents[2])]
        if sys.base_prefix not in ("/usr", "/usr/local"):
            traces.append(sys.base_prefix)
        for layer in layer_bytes(archive):
            data = gzip.decompress(layer)
            for trace in traces:
                self.assertFalse(os.fsencode(trace) in data, f"{trace} is in a layer")


def said(engine: layers.Engine, image: str, *command: str, **options: Any) -> str:
    """What a container says that ends well."""
    container = engine.run(image, args=command, **options)
    try:
        code, text = container.wait(), container.logs()
    finally:
        container.remove()
    if code:
        raise AssertionError(f"it has ended with {code}; logs:\n{text}")
    return text


if __name__ == "__main__":
    unittest.main()
