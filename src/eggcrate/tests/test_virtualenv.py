"""Environments in an image run on its Python, whichever made them."""

from __future__ import annotations

import posixpath
import unittest

from eggcrate.image.plan import FileEntry, bytes_file, merge, resolve, symlink
from eggcrate.payload import virtualenv
from eggcrate.payload.interpreter import Interpreter

DEBIAN = Interpreter((3, 11), "/usr/bin/python3.11", "debian")
PACKED = Interpreter((3, 11), "/usr/local/bin/python3.11", "host")
GROUP = "environment env"

VENV = """\
home = {home}
include-system-site-packages = false
version = 3.11.7
executable = {home}/python3.11
command = {home}/python3.11 -m venv --without-pip /app/env
"""
UV = "home = {home}\nimplementation = CPython\nuv = 0.13.9\nversion_info = 3.11.7\n"
VIRTUALENV = """\
home = {home}
version_info = 3.11.7.final.0
base-prefix = {prefix}
base-exec-prefix = {prefix}
base-executable = {home}/python3.11
prompt = home = here
"""


def image(*more: FileEntry, python: str, text: str, made_by: str) -> dict[str, FileEntry]:
    """A tree with the program ``python``, and an environment that ``made_by`` has made."""
    home = posixpath.dirname(made_by)
    text = text.format(home=home, prefix=posixpath.dirname(home))
    links = {"python": "python3.11", "python3": "python3.11", "python3.11": made_by}
    return merge(
        (
            bytes_file(python.lstrip("/"), b"", group="python", reason="t", mode=0o755),
            bytes_file("app/env/pyvenv.cfg", text.encode(), group=GROUP, reason="t"),
            *(
                symlink(f"app/env/bin/{name}", there, group=GROUP, reason="t")
                for name, there in links.items()
            ),
            *more,
        )
    )


def configuration(tree: dict[str, FileEntry]) -> str:
    with tree["app/env/pyvenv.cfg"].open() as stream:
        return stream.read().decode()


class Adopting(unittest.TestCase):
    def assert_runs_on(self, tree: dict[str, FileEntry], program: str, text: str) -> None:
        for name in ("python", "python3", "python3.11"):
            found = resolve(f"app/env/bin/{name}", tree, last=True)
            self.assertEqual(f"/{found}", program, name)
        home = posixpath.dirname(program)
        self.assertEqual(
            configuration(tree), text.format(home=home, prefix=posixpath.dirname(home))
        )

    def test_one_that_another_python_made(self) -> None:
        for python in (DEBIAN, PACKED):
            for made_by in (
                "/usr/bin/python3.11",
                "/usr/local/bin/python3.11",
                "/opt/pythons/3.11.7/bin/python3.11",
                "/opt/with blanks/bin/python3.11",
            ):
                for text in (VENV, UV, VIRTUALENV):
                    with self.subTest(python=python.origin, made_by=made_by, text=text):
                        tree = image(python=python.program, text=text, made_by=made_by)
                        before = tree.keys()
                        virtualenv.adopt(tree, python)
                        self.assert_runs_on(tree, python.program, text)
                        self.assertEqual(tree.keys(), before)
                        link = tree["app/env/bin/python"]
                        self.assertEqual(link.linkname, "python3.11")

    def test_home_follows_a_link_that_leads_right(self) -> None:
        # /usr's Python is packed below /usr/local: rules move its program, not all of /usr/bin
        tree = image(python=PACKED.program, text=VENV, made_by=PACKED.program)
        text = VENV.format(home="/usr/bin").encode()
        tree["app/env/pyvenv.cfg"] = bytes_file(
            "app/env/pyvenv.cfg", text, group=GROUP, reason="t"
        )
        virtualenv.adopt(tree, PACKED)
        self.assert_runs_on(tree, PACKED.program, VENV)

    def test_one_whose_own_python_is_in_the_image(self) -> None:
        own = "/app/parts/python/bin/python3.11"
        program = bytes_file(own[1:], b"", group="data", reason="t", mode=0o755)
        tree = image(program, python=DEBIAN.program, text=VENV, made_by=own)
        before = dict(tree)
        virtualenv.adopt(tree, DEBIAN)
        self.assert_runs_on(tree, own, VENV)
        self.assertEqual(tree["app/env/bin/python3.11"], before["app/env/bin/python3.11"])

    def test_a_program_of_its_own_stays(self) -> None:
        tree = image(python=DEBIAN.program, text=VENV, made_by="/opt/bin/python3.11")
        for name in ("python", "python3", "python3.11"):
            path = f"app/env/bin/{name}"
            tree[path] = bytes_file(path, b"", group=GROUP, reason="t", mode=0o755)
        before = dict(tree)
        virtualenv.adopt(tree, DEBIAN)
        self.assertEqual(tree, before)

    def test_without_a_program(self) -> None:
        tree = image(python=DEBIAN.program, text=VENV, made_by="/opt/bin/python3.11")
        for name in ("python", "python3", "python3.11"):
            del tree[f"app/env/bin/{name}"]
        before = dict(tree)
        virtualenv.adopt(tree, DEBIAN)
        self.assertEqual(tree, before)


class Checking(unittest.TestCase):
    def complaints(self, text: str) -> list[str]:
        tree = image(python=DEBIAN.program, text=text, made_by=DEBIAN.program)
        return [str(error) for error in virtualenv.check(tree, DEBIAN)]

    def test_the_image_s_version(self) -> None:
        for text in (VENV, UV, VIRTUALENV, "home = /usr/bin\n"):
            self.assertEqual(self.complaints(text), [])

    def test_another_version(self) -> None:
        for text in (VENV, UV, VIRTUALENV):
            self.assertEqual(
                self.complaints(text.replace("3.11.7", "3.12.1")),
                [
                    "/app/env is an environment for Python 3.12, and the image's Python is "
                    "3.11; give that part the same python, or leave it out of parts"
                ],
            )
