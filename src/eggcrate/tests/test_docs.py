"""The documentation is right: its buildouts work, its options exist, its errors are said."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import logging
import os
import pathlib
import re
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from unittest import mock

import manuel
import manuel.testing
import zc.buildout
import zc.buildout.buildout
import zc.buildout.configparser

import eggcrate
import eggcrate.errors
from eggcrate.config import circus_sections, nginx_lint, nginx_options
from eggcrate.payload import closure
from eggcrate.recipes import (
    circus_config,
    config_file,
    docker_image,
    nginx_config,
    virtualenv_part,
)
from eggcrate.runtime import variables

TOP = pathlib.Path(__file__).parents[3]
DOCS = TOP / "docs"
PAGES = [TOP / "README.rst", *sorted(DOCS.glob("*.rst"))]
SOURCES = pathlib.Path(eggcrate.__file__).parent

# What the prose of a page takes for granted, and no code block shows.
GRANTED = {
    "circus-config.rst": {
        "templates/nginx.conf.in": "events {}\n",
    },
    "docker-image.rst": {
        "templates/circus.ini.in": "[circus]\n",
    },
    "virtualenv-part.rst": {
        "tool/requirements.txt": "tabulate\n",
        "tool/pyproject.toml": "[project]\nname = 'report'\nversion = '1'\n",
    },
}
# The buildout that a page's sections belong to, where the page itself has none.
WHOLE = {"README.rst": TOP / "buildout.cfg"}


# Buildouts ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block, and the file that it is said to be, if any."""

    language: str
    name: str
    text: str

    @property
    def is_configuration(self) -> bool:
        """Whether zc.buildout is to read it."""
        return self.name.endswith(".cfg") if self.name else self.language == "ini"

    @property
    def is_whole(self) -> bool:
        """Whether it is a buildout with all its parts, and not sections for one."""
        sections = parsed(self.text, self.name)
        parts = sections.get("buildout", {}).get("parts")
        return parts is not None and sections.keys() >= set(parts.split())


_BLOCK = re.compile(
    r"(?:^``(?P<name>[^`\n]+)``:\n\n)?"
    r"^\.\. code-block:: (?P<language>\S+)\n"
    r"(?P<text>(?:[ \t]*\n)*(?:(?:    .*|[ \t]*)\n)+)",
    re.MULTILINE,
)


def parsed(text: str, name: str) -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, str]] = zc.buildout.configparser.parse(
        io.StringIO(text), name
    )
    return sections


def blocks(page: pathlib.Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [_block(match) for match in _BLOCK.finditer(text)]


def _block(match: re.Match[str]) -> Block:
    text = textwrap.dedent(match["text"]).strip("\n") + "\n"
    return Block(match["language"], match["name"] or "", text)


class Options(zc.buildout.buildout.Options):  # type: ignore[misc]  # zc.buildout has no types
    """A section whose recipe is looked at only if it is ours: others are not installed."""

    def initialize(self) -> None:
        """Construct the recipe."""
        if self["recipe"].startswith("eggcrate:"):
            super().initialize()


class Scratch:
    """A directory in which a page's buildouts are tried."""

    def __init__(self, page: pathlib.Path) -> None:
        self._page = page
        self._temporary = tempfile.TemporaryDirectory(prefix="eggcrate-docs-")
        self.directory = pathlib.Path(self._temporary.name).resolve()
        for name in ("examples", "templates"):
            (self.directory / name).symlink_to(TOP / name)
        if page.parent == DOCS:
            (self.directory / "templates").unlink()
        self.write(GRANTED.get(page.name, {}).items())

    def remove(self) -> None:
        """Take the directory away."""
        self._temporary.cleanup()

    def write(self, files: Iterable[tuple[str, str]]) -> None:
        """Make these files, by name."""
        for name, text in files:
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def complaint(self, block: Block, before: Sequence[Block]) -> str:
        """What a configuration's recipes say against it; nothing when it is right.

        A section extends the whole buildout that came last ``before`` it.
        """
        text = block.text
        if not block.is_whole:
            whole = [other for other in before if other.is_configuration and other.is_whole]
            base = whole[-1].text if whole else WHOLE[self._page.name].read_text()
            self.write([("base.cfg", base)])
            extends = "[buildout]\nextends = base.cfg\n"
            own = "[buildout]\n"
            text = text.replace(own, extends, 1) if own in text else f"{extends}\n{text}"
        self.write([("buildout.cfg", text)])
        sections = parsed(block.text, block.name)
        ours = [
            section
            for section, options in sections.items()
            if not section.startswith(("buildout", "versions"))
            and ("recipe" not in options or options["recipe"].startswith("eggcrate:"))
        ]
        try:
            with self._buildout() as buildout:
                for section in ours:
                    buildout[section]
        except zc.buildout.UserError as error:
            return str(error)
        return ""

    @contextlib.contextmanager
    def _buildout(self) -> Iterator[Any]:
        """zc.buildout itself, which leaves no trace in this process."""
        before = pathlib.Path.cwd()
        root, own = logging.getLogger(), logging.getLogger("zc.buildout")
        handlers = [(logger, list(logger.handlers)) for logger in (root, own)]
        level, propagate, path = root.level, own.propagate, list(sys.path)
        os.chdir(self.directory)
        try:
            with (
                mock.patch.object(zc.buildout.buildout.Buildout, "Options", Options),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield zc.buildout.buildout.Buildout("buildout.cfg", [], False)
        finally:
            os.chdir(before)
            for logger, kept in handlers:
                logger.handlers[:] = kept
            root.setLevel(level)
            own.propagate = propagate
            sys.path[:] = path


def parse(document: Any) -> None:
    """Find the code blocks of a page."""
    for region in document.find_regions(_BLOCK):
        document.claim_region(region)
        region.parsed = _block(region.start_match)


def evaluate(region: Any, document: Any, globs: dict[str, Any]) -> None:
    """Try a block, with all files of the page in place, those before it as they are there."""
    block = region.parsed
    if not isinstance(block, Block) or not block.is_configuration:
        return
    found = [other.parsed for other in document if isinstance(other.parsed, Block)]
    earlier = itertools.takewhile(lambda other: other is not region, document)
    before = [other.parsed for other in earlier if isinstance(other.parsed, Block)]
    scratch = globs["scratch"]
    scratch.write((other.name, other.text) for other in (*found, *before) if other.name)
    region.evaluated = scratch.complaint(block, before)


def format_complaints(document: Any) -> None:
    """Show what is wrong with the line of its block."""
    for region in document:
        if region.evaluated:
            region.formatted = f"{document.location}:{region.lineno}: {region.evaluated}\n"


def buildouts() -> unittest.TestSuite:
    """One test a page: whatever it shows of a buildout is accepted by the recipes."""

    def set_up(test: Any) -> None:
        test.globs["scratch"] = Scratch(pathlib.Path(test.regions.location))

    def tear_down(test: Any) -> None:
        test.globs.pop("scratch").remove()

    suite = unittest.TestSuite()
    for page in PAGES:
        suite.addTest(
            manuel.testing.TestSuite(
                manuel.Manuel([parse], [evaluate], [format_complaints]),
                os.fspath(page),
                globs={},
                setUp=set_up,
                tearDown=tear_down,
            )
        )
    return suite


class Buildouts(unittest.TestCase):
    """What the tests above rest on."""

    def test_a_mistake_in_a_page_is_seen_with_its_line(self) -> None:
        scratch = Scratch(DOCS / "docker-image.rst")
        self.addCleanup(scratch.remove)
        document = manuel.Document(
            "Text.\n\n``buildout.cfg``:\n\n.. code-block:: ini\n\n"
            "    [buildout]\n    parts = image\n\n"
            "    [image]\n    recipe = eggcrate:docker-image\n\n"
            "More.\n\n.. code-block:: ini\n\n    [image]\n    os-package = nginx\n",
            location="page.rst",
        )
        document.process_with(
            manuel.Manuel([parse], [evaluate], [format_complaints]), {"scratch": scratch}
        )
        self.assertEqual(
            document.formatted(),
            "page.rst:15: [image] there is no option 'os-package'; did you mean os-packages?\n",
        )

    def test_the_pages_have_buildouts(self) -> None:
        recipes = {
            options.get("recipe", "")
            for page in PAGES
            for block in blocks(page)
            if block.is_configuration
            for options in parsed(block.text, page.name).values()
        }
        for name in ("docker-image", "circus-config", "nginx-config", "virtualenv-part"):
            self.assertIn(f"eggcrate:{name}", recipes)


# Options ------------------------------------------------------------------------------


def section(page: str, title: str) -> str:
    """The text of a section, with its subsections."""
    text = (DOCS / page).read_text(encoding="utf-8")
    match = re.search(rf"^{title}\n=+\n(.*?)(?=^[^\n]+\n==+\n|\Z)", text, re.M | re.S)
    assert match, f"{page} has no section {title}"
    return match[1]


def defined(text: str) -> set[str]:
    """The names that definitions at the margin define."""
    lines = re.findall(r"^(``.*``.*)\n    \S", text, re.MULTILINE)
    return {name for line in lines for name in re.findall(r"``([^`]+)``", line)}


class Pages(unittest.TestCase):
    maxDiff = None

    def test_every_option_of_docker_image_is_there_and_no_other(self) -> None:
        self.assertEqual(
            defined(section("docker-image.rst", "Options")), set(docker_image.OPTIONS)
        )

    def test_every_option_of_virtualenv_part_is_there_and_no_other(self) -> None:
        self.assertEqual(
            defined(section("virtualenv-part.rst", "Options")), set(virtualenv_part.OPTIONS)
        )

    def test_every_option_of_circus_config_is_there_and_no_other(self) -> None:
        sections = (
            *circus_sections.SINGLE,
            *(f"{kind}.NAME" for kind in circus_sections.NAMED),
        )
        self.assertEqual(
            defined(section("circus-config.rst", "Options")),
            {*config_file._OPTIONS, *circus_config.OPTIONS, *sections},
        )

    def test_every_preset_of_circus_config_is_there_with_its_keys(self) -> None:
        text = section("circus-config.rst", "Presets")
        found = re.findall(r"^``([\w-]+)``\n((?:    .*\n)+)", text, re.MULTILINE)
        self.assertEqual({name for name, _ in found}, set(circus_sections._PRESETS))
        for name, described in found:
            for key in circus_sections._PRESETS[name].keys:
                with self.subTest(preset=name, key=key):
                    self.assertIn(f"``{key}``", described)

    def test_every_option_of_nginx_config_is_there_and_no_other(self) -> None:
        text = section("nginx-config.rst", "Options")
        sections = {f"{kind}.NAME" for kind in nginx_options.NAMED}
        self.assertEqual(
            defined(text),
            {
                *nginx_config.OPTIONS,
                "output",
                *nginx_options.MAIN,
                *nginx_options.SITE,
                *sections,
            },
        )
        for table, name in (
            (nginx_options.LOCATION, "location.NAME"),
            (nginx_options.UPSTREAM, "upstream.NAME"),
        ):
            described = text.partition(f"``{name}``\n    ")[2].partition("\n\n")[0]
            for option in table:
                if not option.startswith("proxy-"):
                    self.assertIn(f"``{option}``", described)
        rules_table = section("nginx-config.rst", "The lint")
        rules = re.findall(r"^``([a-z-]+)``  ", rules_table, re.MULTILINE)
        self.assertEqual(rules, list(nginx_lint.RULES))
        shared = text.partition("\n\n")[0]
        for option in set(config_file._OPTIONS) - {"output"}:
            self.assertIn(f"``{option}``", shared)

    def test_every_word_of_runtime_settings_is_there_and_no_other(self) -> None:
        self.assertEqual(
            defined(section("runtime-settings.rst", "Declarations")),
            {*variables.TYPES, "min=", "max=", "required", "env=", "from=", "cpus"},
        )

    def test_values_that_the_page_gives_as_examples_are_accepted(self) -> None:
        text = " ".join(section("docker-image.rst", "Options").split())
        examples = [
            example
            for example in re.findall(r"``([a-z-]+) = ([^`]+)``", text)
            if example[0] != "source"
        ]
        self.assertGreater(len(examples), 20)
        scratch = Scratch(DOCS / "docker-image.rst")
        self.addCleanup(scratch.remove)
        (page,) = [block for block in blocks(DOCS / "docker-image.rst") if block.name]
        head, _, image = page.text.partition("[image]\n")
        instead = {"command": "supervisor = circus\n"}
        for option, value in examples:
            kept = re.sub(rf"^{option} =.*\n(?: .*\n)*", "", image, flags=re.MULTILINE)
            kept = kept.replace(instead.get(option, "\n\n"), "")
            if option == "base" and not value.startswith("debian"):
                kept = re.sub(r"^os-packages =.*\n", "", kept, flags=re.MULTILINE)
            text = f"{head}[image]\n{kept}{option} = {value}\n"
            with self.subTest(f"{option} = {value}"):
                block = Block("ini", "buildout.cfg", text)
                self.assertEqual(scratch.complaint(block, []), "")

    def test_the_page_names_all_that_never_goes_in(self) -> None:
        text = section("docker-image.rst", "What goes in")
        (table,) = re.findall(r"^=+  =+\n(.*?)^=+  =+\n", text, re.M | re.S)
        self.assertEqual(sorted(re.findall(r"``([^`]+)``", table)), sorted(closure.LEFT_OUT))

    def test_links_to_files_lead_to_files(self) -> None:
        for page in [*PAGES, TOP / "benchmarks" / "README.rst"]:
            text = page.read_text(encoding="utf-8")
            for target in re.findall(r"`[^`<]*<([^>`]+)>`__?", text):
                if not re.match(r"[a-z]+:", target):
                    with self.subTest(page=page.name, target=target):
                        self.assertTrue((page.parent / target.partition("#")[0]).is_file())

    def test_links_to_titles_lead_to_titles(self) -> None:
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            titles = set(re.findall(r"^([^\n]+)\n(?:==+|--+)$", text, re.MULTILINE))
            for title in re.findall(r"`([^`<>]+)`_(?!_)", text):
                with self.subTest(page=page.name, title=title):
                    self.assertIn(title, titles)

    def test_no_page_stands_alone(self) -> None:
        text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
        for page in DOCS.glob("*.rst"):
            self.assertRegex(text, rf"<(docs/)?{re.escape(page.name)}>`_")


# Errors -------------------------------------------------------------------------------

_ERRORS = {
    name
    for name, value in inspect.getmembers(eggcrate.errors, inspect.isclass)
    if issubclass(value, eggcrate.errors.EggcrateError)
}
# How much of a message has to be ours, for the message to prove anything
_LEAST = 12


@dataclasses.dataclass(frozen=True)
class Message:
    """What an error says, as the source has it: a pattern with holes for what varies."""

    module: str
    line: int
    pattern: str
    text: str

    @functools.cached_property
    def expression(self) -> re.Pattern[str]:
        return re.compile(rf"(?:.*[ :])?{self.pattern}")


def _pattern(node: ast.expr) -> tuple[str, str]:
    """A regular expression for the value of a string expression, and its fixed text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value), node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_pattern(value) for value in node.values]
        return "".join(part for part, _ in parts), "".join(text for _, text in parts)
    if isinstance(node, ast.IfExp):
        body, orelse = _pattern(node.body), _pattern(node.orelse)
        return f"(?:{body[0]}|{orelse[0]})", min(body[1], orelse[1], key=len)
    return ".*", ""


@functools.cache
def messages() -> tuple[Message, ...]:
    """Every error that the package can raise."""
    return tuple(_messages())


def _messages() -> Iterator[Message]:
    for path in sorted(SOURCES.rglob("*.py")):
        module = path.relative_to(SOURCES).with_suffix("").as_posix()
        if module.startswith("tests/"):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not (
                isinstance(node, ast.Call)
                and (
                    (isinstance(node.func, ast.Name) and node.func.id in _ERRORS)
                    or (isinstance(node.func, ast.Attribute) and node.func.attr == "error")
                )
                and len(node.args) == 2
            ):
                continue
            what, hint = map(_pattern, node.args)
            if len(what[1] + hint[1]) >= _LEAST:
                yield Message(
                    module, node.lineno, f"{what[0]}; {hint[0]}", f"{what[1]}; {hint[1]}"
                )


_SHOWN = re.compile(r"^ +(?:Error: )?\[[\w-]+\] (?P<text>.*)", re.MULTILINE | re.DOTALL)


def shown(page: pathlib.Path) -> list[str]:
    """The errors that a page quotes, each on one line, without the part's name."""
    paragraphs = re.split(r"\n\s*\n", page.read_text(encoding="utf-8"))
    matches = filter(None, map(_SHOWN.search, paragraphs))
    return [" ".join(match["text"].split()) for match in matches]


# The modules whose errors docker-image can pass on
_OF_DOCKER_IMAGE = re.compile(
    r"bases|build|dockerfile|environments/wheels|image/\w+|payload/\w+|recipes/docker_image|"
    r"transports/(base_image|container|deb(ian)?|engine)"
)

# Options with which the constructor gives an error that the page quotes
WRONG = (
    {"os-package": "nginx"},
    {"name": "Acme/Shop"},
    {"tags": "1.4+fix"},
    {"base": "alpine"},
    {"base": "oci:"},
    {"platform": "linux/arm46"},
    {"builder": "docker", "base": "scratch"},
    {"builder": "docker", "os-packages": "auto"},
    {"base-size": "40 gigs"},
    {"base": "docker://Acme/base"},
    {"base": "docker://acme/base@latest"},
    {"base": "oci:bases/python", "os-packages": "nginx-light"},
    {"base": "oci:bases/python", "python": "debian"},
    {"python": "hots"},
    {"directory": "application"},
    {"directory": "/usr"},
    {"os-packages": "Nginx"},
    {"user": "www-data"},
    {"user": "4294967296"},
    {"expose": "80800"},
    {"command": "gunicorn 'shop.wsgi"},
    {"environment": "SHOP-DEBUG = 1"},
    {"labels": "version"},
    {"stop-signal": "SIGTREM"},
    {"layers": "many"},
    {"push": "me:secret@registry.example/shop"},
    {"insecure-registries": "http://registry.example"},
    {"supervisor": "circus", "command": "gunicorn shop.wsgi"},
    {"supervisor": "cirus"},
    {"supervisor": "app"},
    {"parts": "app cirus"},
    {"parts": "app custom"},
)


class Errors(unittest.TestCase):
    maxDiff = None

    def test_what_pages_quote_is_what_the_code_says(self) -> None:
        patterns = [message.expression for message in messages()]
        for page in PAGES:
            for text in shown(page):
                with self.subTest(page=page.name, text=text):
                    self.assertTrue(any(pattern.fullmatch(text) for pattern in patterns))

    def test_every_error_of_docker_image_is_on_its_page(self) -> None:
        texts = shown(DOCS / "docker-image.rst")
        for message in messages():
            if _OF_DOCKER_IMAGE.fullmatch(message.module):
                with self.subTest(f"{message.module}.py:{message.line} {message.text}"):
                    self.assertTrue(any(map(message.expression.fullmatch, texts)))

    def test_every_error_of_registries_is_on_their_page(self) -> None:
        texts = shown(DOCS / "publishing.rst")
        for message in messages():
            if re.fullmatch(r"transports/(?:registry|connection|credentials)", message.module):
                with self.subTest(f"{message.module}.py:{message.line} {message.text}"):
                    self.assertTrue(any(map(message.expression.fullmatch, texts)))

    def test_errors_of_options_are_quoted_word_for_word(self) -> None:
        texts = shown(DOCS / "docker-image.rst")
        scratch = Scratch(DOCS / "docker-image.rst")
        self.addCleanup(scratch.remove)
        for options in WRONG:
            lines = [f"{option} = {value}" for option, value in options.items()]
            text = "\n".join(
                [
                    "[buildout]",
                    "parts = app circus image",
                    "[custom]",
                    "[app]",
                    "recipe = zc.recipe.egg",
                    "[circus]",
                    "recipe = eggcrate:circus-config",
                    "inline = [circus]",
                    "[image]",
                    "recipe = eggcrate:docker-image",
                    *lines,
                    "",
                ]
            )
            with self.subTest(options):
                complaint = scratch.complaint(Block("ini", "buildout.cfg", text), [])
                self.assertIn(complaint.removeprefix("[image] "), texts)

    def test_an_error_of_the_environment_is_quoted_word_for_word(self) -> None:
        scratch = Scratch(DOCS / "docker-image.rst")
        self.addCleanup(scratch.remove)
        (page,) = [block for block in blocks(DOCS / "docker-image.rst") if block.name]
        with mock.patch.dict(os.environ, SOURCE_DATE_EPOCH="yesterday"):
            complaint = scratch.complaint(page, [])
        self.assertIn(complaint.removeprefix("[image] "), shown(DOCS / "docker-image.rst"))


def test_suite() -> unittest.TestSuite:
    """The buildouts of all pages, and what is said of them here."""
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    return unittest.TestSuite([buildouts(), *map(load, (Buildouts, Pages, Errors))])
