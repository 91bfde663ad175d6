"""Imports point down, and only where they may; this test has the last word."""

from __future__ import annotations

import ast
import functools
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
import importlib, sys
{first}
for module in {modules!r}:
    before = set(sys.modules)
    importlib.import_module(module)
    print(*(f"{{module}}: {{name}}" for name in {heavy!r} if name in {{*sys.modules}} - before))
"""


@functools.cache
def imports() -> list[tuple[str, int, str]]:
    """What every module of the package but its tests imports, with the line.

    Modules have their dotted names below the package.
    """
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("tests", "__init__"):
            tree = ast.parse(path.read_bytes(), path.name)
            found += [(".".join(parts), line, name) for line, name in imported(tree)]
    return found


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
        parts = {name.partition(".")[0] for name, _, _ in imports()}
        self.assertEqual(parts, set(ALLOWED))

    def test_imports_are_absolute(self) -> None:
        wrong = [
            f"{module}:{line} {name}"
            for module, line, name in imports()
            if name.startswith(".")
        ]
        self.assertEqual(wrong, [])

    def test_imports_point_down_only(self) -> None:
        wrong = []
        for module, line, name in imports():
            part = module.partition(".")[0]
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if top == "eggcrate" and other not in {part, *ALLOWED[part]}:
                wrong.append(f"{module}:{line} imports {name}")
        self.assertEqual(wrong, [])

    def test_only_recipes_know_zc_buildout(self) -> None:
        wrong = [
            f"{module}:{line} imports {name}"
            for module, line, name in imports()
            if name.partition(".")[0] in ("zc", "pkg_resources")
            and not module.startswith("recipes.")
        ]
        self.assertEqual(wrong, [])

    def test_the_runtime_needs_the_standard_library_alone(self) -> None:
        wrong = [
            f"{module}:{line} imports {name}"
            for module, line, name in imports()
            if module.startswith("runtime.")
            and name.partition(".")[0] not in sys.stdlib_module_names
            and not name.startswith("eggcrate.runtime")
            and name.partition(".")[0] not in SUPERVISED.get(module, ())
        ]
        self.assertEqual(wrong, [])


class Weight(unittest.TestCase):
    def loaded(self, *modules: str, first: str = "") -> str:
        """What of ``HEAVY`` each module brings, one after another in one process."""
        script = _LOADED.format(modules=modules, first=first, heavy=HEAVY)
        return subprocess.run(
            [sys.executable, "-c", script],
            cwd=PACKAGE.parent,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()

    def test_a_recipe_loads_nothing_heavy(self) -> None:
        recipes = [f"eggcrate.recipes.{recipe}" for recipe in RECIPES]
        self.assertEqual(self.loaded(*recipes, first="import zc.buildout.buildout"), "")
        # it would be seen
        self.assertIn("http.client: ssl", self.loaded("http.client"))

    def test_pid_1_loads_nothing_heavy(self) -> None:
        self.assertEqual(self.loaded("eggcrate.runtime.start"), "")
