"""Many customers' settings: all that is wrong at once, and files that are private."""

from __future__ import annotations

import os
import pathlib
import stat
import tempfile
import time
import unittest
from unittest import mock

from eggcrate import fleet
from eggcrate.errors import SettingsError
from eggcrate.runtime.variables import Document, Piece, Setting, Settings
from eggcrate.tests import layers

PORT = Setting("port", "port", "PORT", "8080", "1024")
NAMES = Setting("names", "hostnames", "NAMES", "localhost")
DEBUG = Setting("debug", "bool", "DEBUG", "false")
WORKERS = Setting("workers", "int", "WORKERS", None)
SETTINGS = Settings(
    (PORT, NAMES, DEBUG, WORKERS),
    ("SECRET_KEY", "DATABASE_URL"),
    (
        Document(
            "/srv/conf/nginx.conf",
            0o644,
            "nginx",
            ("listen ", Piece(PORT, "word"), ";\nserver_name ", Piece(NAMES, "word"), ";\n"),
        ),
        Document("/srv/bin/run", 0o755, "plain", ("#!/bin/sh\n# ", Piece(WORKERS, "word"))),
    ),
)


class Case(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)

    def checked(self, text: str) -> fleet.Checked:
        path = self.root / "customers.toml"
        path.write_text(text, encoding="utf-8")
        return fleet.check(SETTINGS, fleet.read(path))


class Checking(Case):
    def test_values_may_have_the_types_of_toml(self) -> None:
        checked = self.checked(
            '[acme]\nPORT = 9000\nDEBUG = true\nWORKERS = "3"\nNAMES = "a.example,b.example"\n'
            'SECRET_KEY = """a\n$b \\"c\\" d\\\\ ü"""\nANYTHING = "of the application"\n'
            "[other]\nWORKERS = 1\nDEBUG = false\n"
        )
        self.assertEqual(checked.problems, ())
        self.assertEqual(
            checked.values,
            {
                "acme": {
                    "port": "9000",
                    "names": "a.example b.example",
                    "debug": "true",
                    "workers": "3",
                },
                "other": {
                    "port": "8080",
                    "names": "localhost",
                    "debug": "false",
                    "workers": "1",
                },
            },
        )

    def test_everything_that_is_wrong_comes_at_once_and_no_value_is_repeated(self) -> None:
        checked = self.checked(
            '[acme]\nPORT = 80\nNAMES = "canary; }"\n'
            'SECRET_KEY = "canary\\u0000"\nWORKERS = 1.5\n"A B" = "canary"\n'
            '[other]\nWORKERS = ["canary"]\nDATABASE_URL_FILE = "canary"\n'
            '[third]\nWORKERS = 1\nSECRET_KEY = "canary"\nSECRET_KEY_FILE = "/run/x"\n'
            f'[long]\nWORKERS = 1\nSECRET_KEY = "{"x" * 131061}"\n'
            '["../up"]\n["a\\nb"]\n["."]\n'
            "[fine]\nWORKERS = 2\n"
        )
        name = "is no name for a customer's directory; write letters, digits, _ - and ."
        self.assertEqual(
            checked.problems[:4],
            (
                "[acme] SECRET_KEY has a NUL in it",
                "[acme] WORKERS must be a string, a whole number, true or false",
                "[acme] A B is no name of a variable",
                "[acme] PORT must be a port number, 1024 to 65535",
            ),
        )
        self.assertRegex(checked.problems[4], r"^\[acme\] NAMES must be ")
        self.assertEqual(
            checked.problems[5:],
            (
                "[acme] WORKERS must be set: it has no default",
                "[other] WORKERS must be a string, a whole number, true or false",
                "[other] WORKERS must be set: it has no default",
                "[other] DATABASE_URL_FILE must be the absolute path of a file",
                "[third] SECRET_KEY and SECRET_KEY_FILE are both set; set one of them",
                "[long] SECRET_KEY is longer than the 131,071 bytes that a variable of the "
                "environment can have",
                f"[../up] {name}",
                f"[a\\nb] {name}",
                f"[.] {name}",
            ),
        )
        self.assertNotIn("canary", str(checked.problems))
        self.assertEqual(list(checked.values), ["long", "fine"])

    def test_what_is_outside_of_the_tables(self) -> None:
        self.assertEqual(
            self.checked("PORT = 9000\n[a]\nWORKERS = 1\n[a.b]\nPORT = 1\n").problems,
            (
                "PORT stands outside of the customers' tables; move it into one",
                "[a] b must be a string, a whole number, true or false",
            ),
        )

    def test_files_of_settings_are_read_and_those_of_secrets_if_they_are_here(self) -> None:
        (self.root / "port").write_text("9000\n")
        (self.root / "empty").write_text("")
        checked = self.checked(
            f'[a]\nWORKERS = 1\nPORT_FILE = "{self.root}/port"\n'
            'SECRET_KEY_FILE = "/run/secrets/only-there"\n'
            f'[b]\nWORKERS = 1\nPORT_FILE = "{self.root}/none"\n'
            f'SECRET_KEY_FILE = "{self.root}/empty"\n'
        )
        self.assertEqual(checked.values["a"]["port"], "9000")
        self.assertEqual(
            checked.problems,
            (
                f"[b] PORT_FILE: {self.root}/none can't be read: No such file or directory",
                f"[b] SECRET_KEY_FILE: {self.root}/empty is empty",
            ),
        )

    def test_a_slip_is_a_warning(self) -> None:
        self.assertEqual(
            self.checked("[a]\nWORKERS = 1\nNAMSE = 'x'\n").warnings,
            ("[a] NAMSE is set, which means nothing here; was it to be NAMES?",),
        )

    def test_what_is_no_setting_is_a_warning_once(self) -> None:
        self.assertEqual(
            self.checked(
                "[a]\nWORKERS = 1\nWEB_PORT = 9000\nTZ = 'Europe/Berlin'\n"
                "[b]\nWORKERS = 1\nWEB_PORT = 9001\nPORT_FILE = ''\nSHOP_MAIL = 'x'\n"
                "[c]\nWORKERS = 1\nWEB_PORT = 9001\nNAMSE = 'x'\n"
            ).warnings,
            (
                "[c] NAMSE is set, which means nothing here; was it to be NAMES?",
                "[a] and 2 more: WEB_PORT is no setting; the application alone gets it",
                "[b]: SHOP_MAIL is no setting; the application alone gets it",
            ),
        )


class Writing(Case):
    layer = layers.SLOW

    def setUp(self) -> None:
        super().setUp()
        self.out = self.root / "out"

    def write(self, text: str) -> None:
        fleet.write(SETTINGS, self.checked(text).values, self.out)

    def test_files_are_private_and_a_script_stays_one(self) -> None:
        umask = os.umask(0)
        try:
            self.write("[a]\nWORKERS = 3\nPORT = 9000\nSECRET_KEY = 'canary'\n")
        finally:
            os.umask(umask)
        conf, script = self.out / "a/srv/conf/nginx.conf", self.out / "a/srv/bin/run"
        self.assertEqual(conf.read_text(), "listen 9000;\nserver_name localhost;\n")
        self.assertEqual(script.read_text(), "#!/bin/sh\n# 3")
        for path, mode in ((conf, 0o600), (script, 0o700)):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode)
        found = [path for path in self.out.rglob("*") if path.is_file()]
        self.assertEqual(sorted(found), sorted((conf, script)))
        for path in found:
            self.assertNotIn("canary", path.read_text())

    def test_what_is_right_is_not_touched_and_what_is_foreign_stays(self) -> None:
        self.write("[a]\nWORKERS = 3\n[b]\nWORKERS = 4\n")
        (self.out / "a/note").write_text("mine")
        before = {
            path: path.stat().st_mtime_ns for path in self.out.rglob("*") if path.is_file()
        }
        self.write("[a]\nWORKERS = 3\n[b]\nWORKERS = 5\n")
        changed = [path for path in before if path.stat().st_mtime_ns != before[path]]
        self.assertEqual(changed, [self.out / "b/srv/bin/run"])

    def test_what_fails_leaves_the_file_that_is_there(self) -> None:
        self.write("[a]\nWORKERS = 3\n")
        path = self.out / "a/srv/bin/run"
        with (
            mock.patch.object(os, "rename", side_effect=OSError(28, "No space left on device")),
            self.assertRaisesRegex(SettingsError, f"^{path} can't be written: No space left"),
        ):
            self.write("[a]\nWORKERS = 4\n")
        self.assertEqual(path.read_text(), "#!/bin/sh\n# 3")
        self.assertEqual(list(path.parent.iterdir()), [path])

    def test_a_thousand_customers_take_a_second(self) -> None:
        text = "".join(
            f"[c{number}]\nPORT = {10000 + number}\nWORKERS = 2\nNAMES = 'c{number}.example'\n"
            for number in range(1000)
        )
        # benchmarks/settings.py measures a fraction of it, with the files
        started = time.process_time()
        self.assertEqual(self.checked(text).problems, ())
        self.assertLess(time.process_time() - started, 2)
        self.write(text)
        self.assertEqual(len(list(self.out.iterdir())), 1000)
