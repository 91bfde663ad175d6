"""The examples are built as a reader would, and their images are run."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import zc.buildout.configparser

from eggcrate.tests import layers

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
    """One of the examples, copied with its checkout, bootstrapped and built: ``directory``."""

    # these are set up first
    __bases__ = (layers.DOCKER_ENGINE, layers.PODMAN)

    def __init__(self, name: str) -> None:
        super().__init__(f"EXAMPLE_{name.upper()}", "apt")
        self.name = name
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
        """Run ``bin/buildout``, with a crontab that is a file; what it says."""
        process = subprocess.run(
            [
                self.directory / "bin" / "buildout",
                f"custom:webapp_port={self.port}",
                "crontab:readcrontab=cat crontab",
                "crontab:writecrontab=cat > crontab",
                *arguments,
            ],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if process.returncode:
            raise AssertionError(process.stdout)
        return process.stdout

    @functools.cache  # noqa: B019 - there is one instance an example
    def image(self, engine: layers.Engine) -> str:
        """Load the image into an engine, once; its name there."""
        return engine.load(self.directory / "parts" / "image" / "image.tar")


ARTICLE = Example("article")


class ArticleFilesTest(unittest.TestCase):
    """What the article's reader sees."""

    def setUp(self) -> None:
        self.directory = TOP / "examples" / "article"
        with (self.directory / "buildout.cfg").open() as stream:
            self.sections = zc.buildout.configparser.parse(stream, "buildout.cfg")

    def test_it_is_an_ordinary_buildout_with_one_section_more(self) -> None:
        recipes = {
            name: options["recipe"]
            for name, options in self.sections.items()
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

    def test_its_pins_are_those_of_the_project(self) -> None:
        with (TOP / "buildout.cfg").open() as stream:
            project = zc.buildout.configparser.parse(stream, "buildout.cfg")["versions"]
        for name, version in self.sections["versions"].items():
            with self.subTest(name):
                self.assertEqual(version, project.get(name, version))


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
        plan = (ARTICLE.directory / "parts" / "image" / "plan.txt").read_text()
        for wanted in (
            "mysite/settings.py",
            "visits/templates/visits/welcome.html",
            "parts/static/visits/site.css",
            "parts/tool/pyvenv.cfg",
        ):
            self.assertIn(f" /var/application/{wanted} ", plan)

    def test_the_image_has_nothing_else(self) -> None:
        plan = (ARTICLE.directory / "parts" / "image" / "plan.txt").read_text()
        paths = re.findall(r"^ +\d+ +\d+ +\d+ +(\S+)", plan, re.M)
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
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(code, 0, container.logs())


if __name__ == "__main__":
    unittest.main()
