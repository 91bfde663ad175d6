"""What is released: the distributions, their texts, and no trace of whoever made them."""

from __future__ import annotations

import atexit
import configparser
import dataclasses
import email.message
import email.parser
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile
from collections.abc import Callable, Iterable, Iterator

from eggcrate.tests import layers

TOP = pathlib.Path(__file__).parents[3]
RECIPES = {"circus-config", "docker-image", "nginx-config", "virtualenv-part"}

_SDIST = """
import sys, setuptools.build_meta
setuptools.build_meta.build_sdist(sys.argv[1])
"""


def ignored() -> Callable[[str, list[str]], set[str]]:
    """What .gitignore keeps out of a copy, as ``shutil.copytree`` wants it."""
    lines = (TOP / ".gitignore").read_text(encoding="utf-8").split()
    anywhere = [line.rstrip("/") for line in lines if not line.startswith("/")]
    at_the_top = {line.strip("/") for line in lines if line.startswith("/")}
    patterns = shutil.ignore_patterns(".git", *anywhere)

    def ignore(directory: str, names: list[str]) -> set[str]:
        own = at_the_top if pathlib.Path(directory) == TOP else set()
        return patterns(directory, names) | own.intersection(names)

    return ignore


@dataclasses.dataclass(frozen=True)
class Built:
    """The files of the tree, the sdist of it with its files, the wheel of the sdist."""

    tree: frozenset[str]
    sdist: str
    files: frozenset[str]
    wheel: zipfile.ZipFile

    def read(self, name: str) -> str:
        """A file of the wheel's metadata."""
        (path,) = [found for found in self.wheel.namelist() if found.endswith(f"info/{name}")]
        return self.wheel.read(path).decode()

    @property
    def metadata(self) -> email.message.Message:
        """The wheel's METADATA."""
        return email.parser.Parser().parsestr(self.read("METADATA"))


@functools.cache
def built() -> Built | str:
    """The distributions, made once, or why that can't be.

    zope.testrunner knows no ``setUpClass``.
    """
    scratch = tempfile.TemporaryDirectory(prefix="eggcrate-packaging-")
    atexit.register(scratch.cleanup)
    top = pathlib.Path(scratch.name)
    tree = top / "tree"
    shutil.copytree(TOP, tree, ignore=ignored(), symlinks=True)
    before = relative_files(tree)
    if complaint := run(tree, "-c", _SDIST, os.fspath(top)):
        return f"no sdist: {complaint}"
    (sdist,) = top.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # what Python 3.12 warns of being without
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(top / "unpacked")
    (unpacked,) = (top / "unpacked").iterdir()
    files = relative_files(unpacked)
    complaint = run(
        unpacked,
        *("-m", "pip", "--quiet", "wheel", "--no-deps", "--no-index"),
        *("--no-build-isolation", "--no-cache-dir", "--wheel-dir", os.fspath(top), "."),
    )
    if complaint:
        return f"no wheel of the sdist: {complaint}"
    (wheel,) = top.glob("*.whl")
    return Built(before, sdist.name, files, zipfile.ZipFile(wheel))


def run(directory: pathlib.Path, *arguments: str) -> str:
    """What this Python says when it fails; pip's configuration and PYTHONPATH have no say."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON"))
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**environment, "PIP_CONFIG_FILE": os.devnull},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout or "it says nothing" if done.returncode else ""


def relative_files(top: pathlib.Path) -> frozenset[str]:
    return frozenset(
        path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()
    )


class Distributions(unittest.TestCase):
    layer = layers.SLOW
    maxDiff = None

    def setUp(self) -> None:
        installed = {found.name for found in importlib.metadata.distributions()}
        absent = [name for name in ("pip", "setuptools") if name not in installed]
        if absent:
            reason = f"no {' and '.join(absent)} here; {sys.executable} -m ensurepip"
            layers.skip(self, reason)
        made = built()
        if isinstance(made, str):
            self.fail(made)
        self.built = made
        self.metadata = self.built.metadata

    def test_the_wheel_has_every_module_and_nothing_else(self) -> None:
        found = {name for name in self.built.wheel.namelist() if ".dist-info/" not in name}
        source = {
            name.removeprefix("src/")
            for name in self.built.tree
            if name.startswith("src/") and name.endswith((".py", "/py.typed"))
        }
        self.assertEqual(found, source)

    def test_the_wheel_has_the_licence(self) -> None:
        self.assertEqual(
            self.built.read("licenses/LICENSE.txt"), (TOP / "LICENSE.txt").read_text("utf-8")
        )
        self.assertEqual(self.metadata["License"], "ZPL-2.1")

    def test_the_wheel_is_for_any_machine_and_the_right_pythons(self) -> None:
        self.assertIn("Tag: py3-none-any", self.built.read("WHEEL"))
        self.assertEqual(self.metadata["Requires-Python"], ">=3.10")

    def test_each_recipe_has_entry_points_that_can_be_loaded(self) -> None:
        points = configparser.ConfigParser()
        points.optionxform = str  # type: ignore[method-assign,assignment]  # names keep their case
        points.read_string(self.built.read("entry_points.txt"))
        self.assertEqual(points.sections(), ["zc.buildout", "zc.buildout.uninstall"])
        for group in points.sections():
            self.assertEqual(set(points[group]), RECIPES)
            for name, value in points[group].items():
                with self.subTest(group=group, name=name):
                    point = importlib.metadata.EntryPoint(name, value, group)
                    self.assertTrue(callable(point.load()))

    def test_what_a_recipe_needs_is_required(self) -> None:
        required = {
            re.split(r"[^\w.-]", text)[0].lower()
            for text in self.metadata.get_all("Requires-Dist", [])
            if "extra ==" not in text
        }
        self.assertEqual(
            required,
            {
                "zc.buildout",
                "zc.recipe.egg",
                "deflate",
                "tqdm",
                "crossplane",
                "uv",
                "packaging",
                "tomli",
            },
        )

    def test_the_sdist_has_the_whole_project(self) -> None:
        # what begins with a dot is for git and for this repository's own builds
        wanted = {name for name in self.built.tree if not name.startswith(".")}
        found = {name for name in self.built.files if ".egg-info/" not in name}
        self.assertEqual(found - {"PKG-INFO", "setup.cfg"}, wanted)

    def test_the_version_is_the_same_everywhere(self) -> None:
        version = self.metadata["Version"]
        self.assertEqual(self.built.sdist, f"eggcrate-{version}.tar.gz")
        changes = (TOP / "CHANGES.rst").read_text(encoding="utf-8")
        heading = re.search(r"^(\d\S*) \((.*)\)\n-+$", changes, re.MULTILINE)
        assert heading, "CHANGES.rst has no heading of a version"
        self.assertEqual(heading[1], re.sub(r"\.?(?:dev|a|b|rc)\d+$", "", version))
        self.assertEqual(heading[2] == "unreleased", ".dev" in version)

    def test_the_description_is_readme_and_changes(self) -> None:
        # what a package index shows
        text = self.metadata.get_payload()
        for name in ("README.rst", "CHANGES.rst"):
            self.assertIn((TOP / name).read_text(encoding="utf-8").strip(), text)
        self.assertEqual(self.metadata["Description-Content-Type"], "text/x-rst")


# Texts --------------------------------------------------------------------------------


def texts() -> Iterator[pathlib.Path]:
    """Every page that somebody reads."""
    yield from sorted(TOP.glob("*.rst"))
    yield from sorted((TOP / "docs").glob("*.rst"))
    yield from sorted((TOP / "benchmarks").glob("*.rst"))


class Texts(unittest.TestCase):
    """reStructuredText that a package index, and everybody else, can show."""

    def test_titles_are_underlined_to_their_end(self) -> None:
        for page in texts():
            lines = ["", *page.read_text(encoding="utf-8").splitlines()]
            for above, title, line in zip(lines, lines[1:], lines[2:], strict=False):
                if title and re.fullmatch(r"([=~-])\1{3,}", line) and title[0].isalnum():
                    with self.subTest(page=page.name, title=title):
                        self.assertEqual(len(line), len(title))
                        self.assertIn(above, ("", line))

    def test_lines_have_no_tabs_and_no_blanks_at_their_end(self) -> None:
        for page in texts():
            text = page.read_text(encoding="utf-8")
            with self.subTest(page=page.name):
                self.assertNotIn("\t", text)
                self.assertNotRegex(text, r"[ \r]\n")
                self.assertTrue(text.endswith("\n"))

    def test_quotes_of_literals_are_closed(self) -> None:
        for page in texts():
            paragraphs = re.split(r"\n\s*\n", page.read_text(encoding="utf-8"))
            for paragraph in paragraphs:
                if not paragraph.startswith(" "):
                    with self.subTest(page=page.name, paragraph=paragraph):
                        self.assertEqual(paragraph.count("``") % 2, 0)

    def test_docutils_has_no_complaint(self) -> None:
        if importlib.util.find_spec("docutils") is None:
            return  # it is none of our requirements; what matters most is tested above
        core = importlib.import_module("docutils.core")
        pages = {os.fspath(page): page.read_text(encoding="utf-8") for page in texts()}
        pages["the description"] = "\n\n".join(
            (TOP / name).read_text(encoding="utf-8") for name in ("README.rst", "CHANGES.rst")
        )
        settings = {"report_level": 1, "halt_level": 2, "syntax_highlight": "none"}
        for name, text in pages.items():
            with self.subTest(name):
                core.publish_doctree(text, source_path=name, settings_overrides=settings)


# Traces -------------------------------------------------------------------------------

# Written so that no pattern matches itself.
MACHINES = (
    r"[/]home[/](?!me\b)\w",  # "me" is an example
    r"[/]Users[/]\w",
    r"[/]root[/](?!\.cache[/]uv\b)\S",  # in a container, whose user is root
    r"[/]work[/]\w",
    r"[/]tmp[/]w\b",
    r"[.]pyenv",
)
REGISTRIES = (
    r"pypi[.]org",
    r"pythonhosted[.]org",
    r"(?:deb|security|ftp|snapshot)[.]debian[.]org",
    r"(?:archive|security)[.]ubuntu[.]com",
    r"registry-1[.]docker[.]io",
    r"\b(?:ghcr|quay|gcr)[.]io",
)


def files() -> Iterator[pathlib.Path]:
    """Everything here that git would take."""
    ignore = ignored()
    for root, directories, names in os.walk(TOP):
        left_out = ignore(root, [*directories, *names])
        directories[:] = sorted(set(directories) - left_out)
        yield from (pathlib.Path(root, name) for name in sorted(set(names) - left_out))


def this_machine() -> Iterator[str]:
    """Paths of this machine that are not those of any machine."""
    for path in (
        TOP,
        pathlib.Path.home(),
        pathlib.Path(sys.prefix),
        pathlib.Path(sys.base_prefix),
    ):
        if len(path.parts) > 2 and not path.is_relative_to("/usr"):
            yield re.escape(os.fspath(path))


class Traces(unittest.TestCase):
    def found(self, patterns: Iterable[str]) -> list[str]:
        pattern = re.compile("|".join(patterns))
        return [
            f"{path.relative_to(TOP)}:{number}: {line.strip()}"
            for path in files()
            for number, line in enumerate(
                path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
            )
            if pattern.search(line)
        ]

    def test_no_file_names_a_path_of_a_machine(self) -> None:
        self.assertEqual(self.found([*MACHINES, *this_machine()]), [])

    def test_no_file_names_a_registry(self) -> None:
        # where packages come from is said by the configuration of pip, uv and apt
        self.assertEqual(self.found(REGISTRIES), [])

    def test_the_patterns_find_something(self) -> None:
        home, index = "home", "pypi"
        for text, patterns in (
            (f"/{home}/somebody/src", MACHINES),
            (f"https://{index}.org/simple", REGISTRIES),
        ):
            self.assertRegex(text, "|".join(patterns))
