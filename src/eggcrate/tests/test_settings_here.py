"""Runtime settings where the buildout is: files of their own, the buildout's as they are."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import eggcrate
from eggcrate.runtime import variables
from eggcrate.runtime.variables import Document, Piece, Setting, Settings

HERE = """
import json, os, sys
from eggcrate.runtime.start import apply_here
place = apply_here(*sys.argv[1:])
print(json.dumps([place, os.environ.get("PYTHONPATH"), os.environ.get("EGGCRATE_SETTINGS")]))
"""


class Here(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.top = pathlib.Path(os.path.realpath(temporary.name))
        self.run_directory = self.top / "var" / "run"
        self.settings = self.top / "parts" / ".settings"
        self.settings.mkdir(parents=True)
        self.circus = self.top / "parts" / "conf" / "circus.ini"
        self.nginx = self.top / "parts" / "conf" / "site.conf"
        port = Setting("port", "port", "PORT", "8080", minimum="1024")
        circus: list[str | Piece] = [f"args = -c {self.nginx} -p {self.nginx}.d\n"]
        nginx: list[str | Piece] = ["listen ", Piece(port, "word"), ";\ninclude more/*.conf;\n"]
        for path, name, pieces in (
            (self.circus, "circus", circus),
            (self.nginx, "nginx", nginx),
        ):
            path.parent.mkdir(exist_ok=True)
            path.write_text("as bin/buildout has left it")
            document = Document(str(path), 0o644, name, pieces)
            (self.settings / f"{name}.json").write_text(
                variables.dumped(Settings((port,), ("SECRET",), [document]))
            )
        (self.circus.parent / "more").mkdir()

    def apply(self, **environment: str) -> tuple[list[Any], str]:
        """What comes back, as JSON, and what is said."""
        package = os.fspath(pathlib.Path(eggcrate.__file__).parents[1])
        done = subprocess.run(
            [
                *(sys.executable, "-c", HERE),
                *(self.settings, self.run_directory, self.circus),
            ],
            env={"PYTHONPATH": package, "PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout), done.stderr

    def test_the_files_name_each_other_and_the_buildout_s_stay(self) -> None:
        (place, python_path, settings), said = self.apply(PORT="9000")
        moved = f"{self.run_directory}/settings"
        self.assertEqual(place, f"{moved}{self.circus}")
        self.assertEqual(
            pathlib.Path(place).read_text(),
            f"args = -c {moved}{self.nginx} -p {self.nginx}.d\n",
        )
        rendered = pathlib.Path(f"{moved}{self.nginx}")
        self.assertEqual(rendered.read_text(), "listen 9000;\ninclude more/*.conf;\n")
        # a relative include starts at the file that has it
        self.assertTrue((rendered.parent / "more").is_dir())
        self.assertEqual(self.circus.read_text(), "as bin/buildout has left it")
        self.assertEqual(said, "eggcrate: set are PORT\n")
        self.assertEqual(settings, str(self.settings))
        # the application finds eggcrate.runtime, and nothing of what lies beside eggcrate
        own = pathlib.Path(python_path.split(os.pathsep)[-1])
        self.assertEqual([path.name for path in own.iterdir()], ["eggcrate"])

    def test_what_is_wrong_starts_nothing(self) -> None:
        (place, _, _), said = self.apply(PORT="80")
        self.assertIsNone(place)
        self.assertEqual(said, "eggcrate: PORT must be a port number, 1024 to 65535\n")
        self.assertFalse((self.run_directory / "settings").exists())

    def test_below_a_program_that_has_done_it_nothing_is_done(self) -> None:
        (place, _, _), said = self.apply(PORT="9000", EGGCRATE_SETTINGS="x")
        self.assertEqual((place, said), (str(self.circus), ""))

    def test_without_settings_the_configuration_is_what_was_given(self) -> None:
        for path in self.settings.iterdir():
            path.unlink()
        self.settings.rmdir()
        (place, _, _), said = self.apply(PORT="9000")
        self.assertEqual((place, said), (str(self.circus), ""))
