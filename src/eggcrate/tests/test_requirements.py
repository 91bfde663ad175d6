from __future__ import annotations

import pathlib
import sys
import tempfile
import unittest

from eggcrate.environments import interpreters, requirements
from eggcrate.environments.environment import Project
from eggcrate.environments.requirements import Files, Line

PYTHON = interpreters.find_interpreter(sys.executable, pathlib.Path.cwd())


class FilesTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def write(self, name: str, text: str) -> pathlib.Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, text: str) -> Files:
        files = Files(self.directory)
        files.read(self.write("r.txt", text), "requirements-files")
        return files

    def test_lines(self) -> None:
        files = self.read(
            "\ufeff# all of it\n"
            "one==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb  # comment\n"
            "two[x] >= 2; python_version < '4'  # comment\n"
            "--no-binary one\n"
            "three @ https://a.example/three-1.zip#sha256=" + "c" * 64
        )
        self.assertEqual(
            files.lines,
            [
                Line("r.txt, line 2", "one==1"),
                Line("r.txt, line 5", "two[x] >= 2; python_version < '4'"),
                Line("r.txt, line 6", "--no-binary one"),
                Line(
                    "r.txt, line 7", f"three @ https://a.example/three-1.zip#sha256={'c' * 64}"
                ),
            ],
        )
        self.assertEqual(
            files.hashes, {"one": "sha256:aa sha256:bb", "three": f"sha256={'c' * 64}"}
        )

    def test_includes(self) -> None:
        self.write("sub/more.txt", "-r ../r.txt\n--constraint=limits.txt\n")
        self.write("sub/limits.txt", "one<3\n")
        files = self.read("-r sub/more.txt\n-c https://a.example/c.txt\none\n-rabsent.txt")
        self.assertEqual(
            files.lines,
            [Line("sub/limits.txt, line 1", "one<3", False), Line("r.txt, line 3", "one")],
        )
        self.assertEqual(
            [error.what for error in files.errors],
            ["r.txt, line 4: absent.txt can't be read: No such file or directory"],
        )
        self.assertEqual(len(files.digests), 3)

    def test_what_is_on_this_machine_counts(self) -> None:
        self.write("lib/setup.py", "")
        self.write("lib/pyproject.toml", "")
        self.write("own/setup.cfg", "")
        self.write("wheel-1.whl", "")
        files = self.read("-e ./lib[x]\n./own ; python_version > '3'\n./wheel-1.whl\n./absent")
        self.assertEqual(
            {
                pathlib.Path(path).relative_to(self.directory).as_posix()
                for path in files.digests
            },
            {"r.txt", "lib/setup.py", "lib/pyproject.toml", "own/setup.cfg", "wheel-1.whl"},
        )

    def test_metadata_in_other_files(self) -> None:
        self.write(
            "lib/pyproject.toml",
            "[tool.setuptools.dynamic]\nversion = {file = 'VERSION'}\n"
            "optional-dependencies.x = {file = ['x.txt', 'absent.txt']}\n"
            "readme = {attr = 'lib'}\n",
        )
        self.write("lib/VERSION", "1")
        self.write("lib/x.txt", "")
        files = Files(self.directory)
        files.read_project(Project(self.directory / "lib"))
        self.assertEqual(
            {pathlib.Path(path).name for path in files.digests},
            {"pyproject.toml", "VERSION", "x.txt"},
        )

    def test_groups(self) -> None:
        self.write("a/pyproject.toml", "[dependency-groups]\nTest_1 = []\ndocs = []\n")
        self.write("b/pyproject.toml", "[dependency-groups]\ntest-1 = []\n")
        self.write("c/setup.py", "")
        projects = [Project(self.directory / name) for name in "abc"]
        files = Files(self.directory)
        self.assertEqual(
            list(requirements.groups(["test.1", "nosuch"], projects, files)),
            [
                (self.directory / "a" / "pyproject.toml", "Test_1"),
                (self.directory / "b" / "pyproject.toml", "test-1"),
            ],
        )
        self.assertEqual(
            [str(error) for error in files.errors],
            [
                "dependency-groups: no project of develop has a group nosuch; "
                "name some of docs, test-1"
            ],
        )

    def test_tables_of_other_shapes(self) -> None:
        for text in (
            "dependency-groups = 3\n",
            "tool = 3 # tool.setuptools.dynamic\n",
            "[tool.setuptools.dynamic]\nversion = {file = 3}\nreadme = {file = [1, 'x']}\n",
            "[tool]\nsetuptools = 'tool.setuptools.dynamic'\n",
        ):
            self.write("lib/pyproject.toml", text)
            files = Files(self.directory)
            project = Project(self.directory / "lib")
            files.read_project(project)
            self.assertEqual(list(requirements.groups(["x"], [project], files)), [])
            self.assertEqual(len(files.errors), 1)
        files = Files(self.directory)
        files.read_lock(
            self.write("pylock.toml", "lock-version = '1.0'\npackages = ['a', 1]\n")
        )
        self.assertIn("pylock.toml is no lock file", str(files.errors[0]))

    def test_lock(self) -> None:
        path = self.write(
            "pylock.toml",
            "lock-version = '1.0'\n[[packages]]\nname = 'One'\nversion = '1'\n"
            "[[packages.wheels]]\nhashes = {sha256 = 'aa'}\n"
            "[[packages]]\nname = 'here'\ndirectory = {path = '.'}\n",
        )
        files = Files(self.directory)
        files.read_lock(path)
        self.assertEqual(files.lines, [Line("pylock.toml", "One==1")])
        self.assertEqual(list(files.hashes), ["one"])
        self.assertEqual(files.errors, [])


class JudgedTest(unittest.TestCase):
    def test_exact_names(self) -> None:
        lines = [
            "one==1",
            "two == 2.*",
            "three[x]===3; python_version > '3'",
            "four @ https://a.example/four.zip",
            "five>=5,<6",
            "Six_6 == 6,!=7",
            "-e ./seven",
            "",
        ]
        found = requirements.exact_names(
            [Line("", text) for text in lines],
            [("Pin.ned", "==1"), ("some", "==1.*"), ("more", ">=1")],
        )
        self.assertEqual(list(found), ["pin-ned", "one", "three", "four"])

    def test_unhashed(self) -> None:
        files = Files(pathlib.Path.cwd())
        here = pathlib.Path.cwd()
        for line, asks in (
            ("one==1 --hash=sha256:aa", True),
            ("two==1", True),
            ("three==1", False),
            ("four==1; python_version < '3'", True),
            ("-e ./five", True),
            ("--only-binary :all:", True),
            ("One", True),
        ):
            files.take("r.txt, line 1", line, here, asks=asks)
        self.assertEqual(
            [error.what for error in requirements.unhashed(files, PYTHON)],
            [
                "r.txt, line 1: two==1 has no hash, and require-hashes is set",
                "r.txt, line 1: -e ./five has no hash, and require-hashes is set",
            ],
        )


if __name__ == "__main__":
    unittest.main()
