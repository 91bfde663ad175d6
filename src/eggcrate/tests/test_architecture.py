"""Imports point down, and only where they may; this test has the last word."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
import unittest
from collections.abc import Iterator

import eggcrate

PACKAGE = pathlib.Path(eggcrate.__file__).parent

BELOW = ("environments", "payload", "transports", "image", "runtime", "errors")
# What each part of the package may import of the others.
ALLOWED = {
    "recipes": {"console", "build", "dockerfile", "settings", "config", *BELOW},
    "console": {"build", "dockerfile", "fleet", "planning", "settings", *BELOW},
    "dockerfile": {"bases", "planning", "settings", *BELOW},
    "build": {"planning", "bases", "record", "settings", "image", "payload", "errors"},
    "planning": {"bases", "foreign", "record", "settings", "config", *BELOW},
    "foreign": {"environments", "payload", "image", "settings"},
    "bases": {"settings", "payload", "transports", "image", "errors"},
    "fleet": {"runtime", "errors"},
    "record": {"payload", "image", "runtime", "errors"},
    "settings": {"payload", "image", "runtime", "errors"},
    "config": {"image", "runtime", "errors"},
    "payload": {"image", "runtime", "errors"},
    "environments": {"image", "errors"},
    "transports": {"image", "runtime", "errors"},
    "image": {"runtime", "errors"},
    "runtime": set(),
    "errors": set(),
}

# What `bin/buildout` would load at every run, for nothing.  zc.buildout brings some of it:
# what counts is what a recipe adds.
HEAVY = (
    "elftools",
    "docker",
    "uv",
    "urllib3",
    "http.client",
    "ssl",
    "circus",
    "crossplane",
    "tornado",
)
RECIPES = ("virtualenv_part", "circus_config", "nginx_config", "docker_image")
_LOADED = """
import sys
{first}
before = set(sys.modules)
import {module}
print(*(name for name in {heavy!r} if name in sys.modules and name not in before))
"""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package but its tests, by its dotted name below it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("tests", "__init__"):
            yield ".".join(parts), ast.parse(path.read_bytes(), os_path(path))


def os_path(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each module that is imported, anywhere in the source, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
            elif node.module == "eggcrate":
                yield from ((node.lineno, f"eggcrate.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module or ""


# What the first process of an image runs, and the image's application has.
SUPERVISED = {"runtime.circusd": {"circus", "tornado"}}


class Imports(unittest.TestCase):
    def test_there_is_something_to_read(self) -> None:
        parts = {name.partition(".")[0] for name, _ in modules()}
        self.assertEqual(parts, set(ALLOWED))

    def test_imports_are_absolute(self) -> None:
        wrong = [
            f"{module}:{line} {name}"
            for module, tree in modules()
            for line, name in imported(tree)
            if name.startswith(".")
        ]
        self.assertEqual(wrong, [])

    def test_imports_point_down_only(self) -> None:
        wrong = []
        for module, tree in modules():
            part = module.partition(".")[0]
            for line, name in imported(tree):
                top, _, rest = name.partition(".")
                other = rest.partition(".")[0]
                if top == "eggcrate" and other not in {part, *ALLOWED[part]}:
                    wrong.append(f"{module}:{line} imports {name}")
        self.assertEqual(wrong, [])

    def test_only_recipes_know_zc_buildout(self) -> None:
        wrong = [
            f"{module}:{line} imports {name}"
            for module, tree in modules()
            for line, name in imported(tree)
            if name.partition(".")[0] in ("zc", "pkg_resources")
            and not module.startswith("recipes.")
        ]
        self.assertEqual(wrong, [])

    def test_the_runtime_needs_the_standard_library_alone(self) -> None:
        wrong = [
            f"{module}:{line} imports {name}"
            for module, tree in modules()
            if module.startswith("runtime.")
            for line, name in imported(tree)
            if name.partition(".")[0] not in sys.stdlib_module_names
            and not name.startswith("eggcrate.runtime")
            and name.partition(".")[0] not in SUPERVISED.get(module, ())
        ]
        self.assertEqual(wrong, [])


class Weight(unittest.TestCase):
    def loaded(self, module: str, first: str = "") -> str:
        script = _LOADED.format(module=module, first=first, heavy=HEAVY)
        return subprocess.run(
            [sys.executable, "-c", script],
            cwd=PACKAGE.parent,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()

    def test_a_recipe_loads_nothing_heavy(self) -> None:
        for recipe in RECIPES:
            found = self.loaded(f"eggcrate.recipes.{recipe}", "import zc.buildout.buildout")
            self.assertEqual(found, "", recipe)

    def test_pid_1_loads_nothing_heavy(self) -> None:
        self.assertEqual(self.loaded("eggcrate.runtime.start"), "")
