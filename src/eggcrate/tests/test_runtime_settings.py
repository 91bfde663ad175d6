"""Runtime settings: declared by the build, read and rendered when a container starts."""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Mapping
from typing import Any
from unittest import mock

import eggcrate
from eggcrate.config.symbolic import Symbol, placed
from eggcrate.payload.settings import label
from eggcrate.runtime import variables as runtime
from eggcrate.runtime.variables import (
    Document,
    Piece,
    Setting,
    Settings,
    SettingsProblem,
    declaration,
)

CANARY = "s3cr3t-canary"

PORT = declaration("webapp_port", "port min=1024", "8080")
NAMES = declaration("server_name", "hostnames", "localhost 127.0.0.1")
WORKERS = declaration("workers", "int min=1 max=64", "2")
GREETING = declaration("greeting", "text", "Hello")
TRUSTED = declaration("trusted", "cidrs", "127.0.0.1")
KEY = "DJANGO_SECRET_KEY"


def document(
    path: str, kind: str, *pieces: str | Symbol, mode: int = 0o644, of: Settings | None = None
) -> Document:
    known = of.settings if of else (PORT, NAMES, WORKERS, GREETING, TRUSTED)
    types = {setting.name: setting for setting in known}
    return Document(path, mode, kind, placed(pieces, kind, types, str))


def nginx() -> Document:
    return document(
        "/var/application/parts/conf/nginx.conf",
        "nginx",
        "server {\n  listen ",
        Symbol("webapp_port", 2),
        ";\n  server_name ",
        Symbol("server_name", 3),
        ";\n  allow ",
        Symbol("trusted", 4),
        ';\n  return 200 "',
        Symbol("greeting", 5),
        '";\n}\n',
    )


def circus() -> Document:
    return document(
        "/var/application/parts/conf/circus.ini",
        "circus",
        "[watcher:web]\ncmd = web\nargs = --workers ",
        Symbol("workers", 3),
        ' --title "',
        Symbol("greeting", 3),
        '"\n[env]\nPORT = ',
        Symbol("webapp_port", 5),
        "\nGREETING = ",
        Symbol("greeting", 6),
        "\n",
    )


def settings(*documents: Document) -> Settings:
    return Settings((PORT, NAMES, WORKERS, GREETING, TRUSTED), (KEY, "DATABASE_URL"), documents)


class Directory(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)

    def file(self, name: str, content: bytes | str) -> str:
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def problems(self, environ: Mapping[str, str], of: Settings | None = None) -> list[str]:
        with self.assertRaises(SettingsProblem) as caught:
            runtime.read(of or settings(nginx(), circus()), environ)
        return list(caught.exception.problems)


class Declarations(unittest.TestCase):
    def test_a_line_declares_a_type_with_its_limits(self) -> None:
        self.assertEqual(
            declaration("webapp_port", "port min=1024", "08080").data(),
            {
                "name": "webapp_port",
                "type": "port",
                "env": "WEBAPP_PORT",
                "default": "8080",
                "min": "1024",
                "max": "",
                "choices": [],
                "cpus": False,
            },
        )
        level = declaration("log-level", "choices debug info warning env=LEVEL", "info")
        self.assertEqual(level.choices, ("debug", "info", "warning"))
        self.assertEqual((level.env, level.default), ("LEVEL", "info"))
        self.assertEqual(declaration("log-level.x", "word", "a").env, "LOG_LEVEL_X")
        needed = declaration("greeting", "text env=GREETING required", "for the build only")
        self.assertTrue(needed.required)
        self.assertIsNone(needed.default)
        self.assertEqual(declaration("x", "size min=1k max=1G", "10m").maximum, "1G")
        self.assertEqual(declaration("x", "duration max=1m", "60000ms").default, "60000ms")
        self.assertEqual(declaration("x", "bool", "On").default, "true")

    def test_a_mistake_in_a_line_is_a_sentence(self) -> None:
        for name, text, default, wanted in (
            ("x", "prot", "1", "has the type prot, which there is not; write port"),
            ("x", "hostnam", "a", "has the type hostnam, which there is not; write hostname"),
            ("x", "qqq", "a", "has the type qqq, which there is not; write one of port, int"),
            ("x", "", "a", "names no type; write one of port, int"),
            ("x", "int min=5 max=4", "5", "has min=5, which is more than max=4"),
            ("x", "size min=1m max=900k", "1m", "has min=1m, which is more than max=900k"),
            ("x", "int min=a", "5", "has min=a, but min must be a whole number"),
            ("x", "word min=1", "5", "has min=1, but a word has no limits"),
            ("x", "port", "http", "has a default that does not fit: it must be a port number"),
            ("x", "port min=1024", "80", "has a default that does not fit: it must be a port"),
            ("x", "choices a b", "c", "has a default that does not fit: it must be one of a"),
            ("x", "choices", "c", "has no choices; write them after the word choices"),
            ("x", "choices a b;", "a", "has the choice b;, which must be one word of letters"),
            ("x", "hostname", "", "has a default that does not fit: it must be a host name"),
            ("x", "port", None, "has no default; give it a value, or say that it is required"),
            ("x", "port requird", "1", "has requird, which means nothing here; after port t"),
            ("x", "word cpus", "1", "has cpus, which means nothing here; after word there may"
                                    " be env=, from= and required"),
            ("x", "int cpsu", "1", "has cpsu, which means nothing here; after int there may be "
                                   "min=, max=, cpus, env=, from= and required"),
            ("x", "int cpus required", "1", "is required, and has a default by cpus; leave"),
            ("x", "text", "a" * 5000, "has a default that is longer than 4,096 bytes"),
            ("x", "word env=lower", "1", "has the variable lower, which is no name; write cap"),
            ("x", "word env=1A", "1", "has the variable 1A, which is no name; write capitals"),
            ("a b", "word", "1", "has the variable A B, which is no name; write capitals"),
            ("path", "word", "1", "has the variable PATH, which is the process's own; write"),
            ("home", "word", "1", "has the variable HOME, which is the process's own; write"),
            ("pythonpath", "word", "1", "has the variable PYTHONPATH, which is the process's"),
            ("ld-preload", "word", "1", "has the variable LD_PRELOAD, which is the process's"),
            ("eggcrate_run", "word", "1", "has the variable EGGCRATE_RUN, which is the proc"),
            ("key_file", "word", "1", "has the variable KEY_FILE, but a name with _FILE names"),
        ):  # fmt: skip
            with self.subTest(name=name, text=text):
                with self.assertRaises(ValueError) as caught:
                    declaration(name, text, default)
                self.assertEqual(str(caught.exception)[: len(wanted)], wanted)

    def test_a_secret_s_name_is_checked_too(self) -> None:
        self.assertEqual(runtime.variable(KEY), KEY)
        with self.assertRaisesRegex(
            ValueError, "^has the variable PATH, .*; name another one$"
        ):
            runtime.variable("PATH", "name another one")
        for name in ("secret", "LD_LIBRARY_PATH", "A_FILE", ""):
            self.assertRaises(ValueError, runtime.variable, name)

    def test_nothing_is_declared_twice(self) -> None:
        cases: tuple[tuple[tuple[Setting, ...], tuple[str, ...], tuple[Document, ...]], ...] = (
            ((PORT, declaration("p", "port env=WEBAPP_PORT", "1")), (), ()),
            ((PORT,), ("WEBAPP_PORT",), ()),
            ((PORT,), (KEY, KEY), ()),
            ((PORT, declaration("webapp_port", "port env=X", "1")), (), ()),
            ((PORT,), (), (nginx(), nginx())),
        )
        for declared, secrets, documents in cases:
            with self.assertRaisesRegex(ValueError, "is declared twice"):
                Settings(declared, secrets, documents)


class Loading(Directory):
    def test_what_is_dumped_is_loaded(self) -> None:
        for number, part in enumerate((nginx(), circus())):
            self.file(f"part{number}.json", runtime.dumped(settings(part)))
        self.file("README", "nothing")
        found = runtime.load(str(self.directory))
        self.assertEqual(runtime.dumped(found), runtime.dumped(settings(nginx(), circus())))

    def test_there_may_be_no_settings(self) -> None:
        found = runtime.load(str(self.directory / "none"))
        self.assertEqual((found.settings, found.secrets, found.documents), ((), (), ()))
        self.assertEqual(runtime.read(found, {"A": "b"}).environment, {"A": "b"})
        self.assertEqual(runtime.write(found, {}, "/no/such/directory"), {})

    def test_numbers_and_nothing_do_for_limits(self) -> None:
        one = {"name": "n", "type": "int", "env": "N", "default": "2", "min": 1, "max": None}
        data = {"version": 1, "settings": [one], "secrets": [], "documents": []}
        self.file("a.json", json.dumps(data))
        (setting,) = runtime.load(str(self.directory)).settings
        self.assertEqual((setting.minimum, setting.maximum, setting.cpus), ("1", "", False))

    def test_files_that_do_not_fit_together_are_refused(self) -> None:
        self.file("a.json", runtime.dumped(settings()))
        self.file("b.json", runtime.dumped(Settings((PORT,))))
        self.file("c.json", runtime.dumped(settings()).replace('"version": 1', '"version": 2'))
        self.file("d.json", "{")
        self.file("e.json", '{"version": 1}')
        self.file("f.json", "[]")
        self.file("g.json", runtime.dumped(settings(nginx())).replace('"word"', '"wrod"'))
        self.file("h.json", runtime.dumped(settings(nginx())).replace("/var/app", "../app"))
        with self.assertRaises(SettingsProblem) as caught:
            runtime.load(str(self.directory))
        found = [line.replace(f"{self.directory}/", "") for line in caught.exception.problems]
        self.assertEqual(found[0], "b.json declares other settings than a.json")
        self.assertEqual(found[1], "c.json has version 2, not 1")
        for line, name in zip(found[2:], "defgh", strict=True):
            self.assertRegex(line, rf"^{name}\.json is not what eggcrate writes: ")


class Reading(Directory):
    def test_unset_or_empty_is_the_default(self) -> None:
        for environ in ({}, {"WEBAPP_PORT": "", "SERVER_NAME_FILE": "", KEY: ""}):
            found = runtime.read(settings(), environ)
            self.assertEqual(
                found.values,
                {
                    "webapp_port": "8080",
                    "server_name": "localhost 127.0.0.1",
                    "workers": "2",
                    "greeting": "Hello",
                    "trusted": "127.0.0.1",
                },
            )
            self.assertEqual((found.changed, found.warnings), ((), ()))
            self.assertNotIn("SERVER_NAME_FILE", found.environment)

    def test_what_is_set_comes_in_one_spelling(self) -> None:
        found = runtime.read(
            settings(), {"WEBAPP_PORT": "09000", "SERVER_NAME": "A.example,b.example", "X": "y"}
        )
        self.assertEqual(found.values["webapp_port"], "9000")
        self.assertEqual(found.values["server_name"], "a.example b.example")
        self.assertEqual(found.changed, ("webapp_port", "server_name"))
        self.assertEqual(found.environment["X"], "y")

    def test_every_problem_comes_at_once_and_no_value_is_repeated(self) -> None:
        found = self.problems(
            {
                "WEBAPP_PORT": f"{CANARY}",
                "SERVER_NAME": f"x; location /x/ {{ alias /{CANARY}; }} server_name y",
                "WORKERS": "65",
                "GREETING": f"a\nb{CANARY}",
                "TRUSTED": "10.0.0.1/8",
                f"{KEY}_FILE": f"/{CANARY}",
                "DATABASE_URL": CANARY,
                "DATABASE_URL_FILE": "/run/x",
            }
        )
        self.assertEqual(
            found,
            [
                "WEBAPP_PORT must be a port number, 1024 to 65535",
                "SERVER_NAME must be a host name, as shop.example",
                "WORKERS must be a whole number, 1 to 64",
                "GREETING must be one line of text, without control characters",
                "TRUSTED must be a network, as 10.0.0.0/8: it has host bits set",
                f"{KEY}_FILE: the file can't be read: No such file or directory",
                "DATABASE_URL and DATABASE_URL_FILE are both set; set one of them",
            ],
        )

    def test_all_that_is_missing_is_named(self) -> None:
        of = Settings(
            (declaration("a", "text required", None), declaration("b", "port required", "80"))
        )
        self.assertEqual(
            self.problems({"B": ""}, of),
            ["A must be set: it has no default", "B must be set: it has no default"],
        )

    def test_what_is_missing_may_be_there_under_a_wrong_name(self) -> None:
        of = Settings((declaration("database_name", "word required", None),))
        self.assertEqual(
            self.problems({"DATABASE_NAM": CANARY}, of),
            [
                "DATABASE_NAME must be set: it has no default",
                "DATABASE_NAM is set, which means nothing here; was it to be DATABASE_NAME?",
            ],
        )

    def test_limits_are_in_the_type_s_own_units(self) -> None:
        for line, default, good, bad, rule in (
            ("size min=1k max=1g", "1m", ("1024", "1024m"), ("1023", "1025m"), "1k to 1g"),
            ("duration min=1s", "5", ("1000ms", "1m", "1"), ("999ms", "0"), "1s or more"),
            ("int max=9", "5", ("-3", "9"), ("10",), "9 or less"),
            ("port max=9", "5", ("1", "9"), ("0", "10"), "9 or less"),
        ):
            of = Settings((declaration("x", line, default),))
            for text in good:
                self.assertEqual(runtime.read(of, {"X": text}).values["x"], text)
            for text in bad:
                (problem,) = self.problems({"X": text}, of)
                self.assertRegex(problem, f"^X must be an? .*, {rule}$")

    def test_a_file_holds_a_value(self) -> None:
        for content, wanted in (
            (b"a.example\n", "a.example"),
            (b"a.example\r\n", "a.example"),
            (b"a.example", "a.example"),
        ):
            path = self.file("name", content)
            found = runtime.read(settings(), {"SERVER_NAME_FILE": path})
            self.assertEqual(found.values["server_name"], wanted)
            self.assertEqual(found.changed, ("server_name",))
            self.assertEqual(found.environment, {"SERVER_NAME": wanted})

    def test_a_secret_may_hold_anything(self) -> None:
        content = b"a$BCD \xff\r x;{\n\n"
        os.symlink(self.file("key", content), self.directory / "link")
        found = runtime.read(settings(), {f"{KEY}_FILE": str(self.directory / "link")})
        self.assertEqual(os.fsencode(found.environment[KEY]), content[:-1])
        # one end of a line, whichever it is
        path = self.file("key", b"a\r\n\r\n")
        found = runtime.read(settings(), {f"{KEY}_FILE": path})
        self.assertEqual(found.environment[KEY], "a\r\n")
        self.assertNotIn(f"{KEY}_FILE", found.environment)
        self.assertEqual((found.changed, found.warnings), ((), ()))
        self.assertNotIn(KEY, found.values)

    def test_a_file_that_can_t_be_used(self) -> None:
        os.mkfifo(self.directory / "pipe")
        (self.directory / "closed").mkdir()
        for name, content in (
            ("empty", b"\n"),
            ("nul", b"a\0b"),
            ("latin", b"\xe4"),
            ("huge", b"x" * ((1 << 20) + 1)),
            ("long", b"x" * 140_000),
            ("wide", b"x" * 4097),
            ("port", b"http\n"),
        ):
            self.file(name, content)
        for name, wanted in (
            ("empty", "GREETING_FILE: {} is empty"),
            ("nul", "GREETING_FILE: {} has a NUL in it"),
            ("latin", "GREETING_FILE: {} is not UTF-8"),
            ("huge", "GREETING_FILE: {} is longer than 1,048,576 bytes"),
            ("long", "GREETING_FILE: {} is longer than the 131,071 bytes that a variable of "
             "the environment can have"),
            ("wide", "GREETING_FILE: the content of {} is longer than 4,096 bytes"),
            ("pipe", "GREETING_FILE: {} is no regular file"),
            ("closed", "GREETING_FILE: {} is no regular file"),
            ("none", "GREETING_FILE: {} can't be read: No such file or directory"),
        ):  # fmt: skip
            with self.subTest(name=name):
                path = str(self.directory / name)
                self.assertEqual(self.problems({"GREETING_FILE": path}), [wanted.format(path)])
        self.assertEqual(
            self.problems({"WEBAPP_PORT_FILE": str(self.directory / "port")}),
            [f"WEBAPP_PORT_FILE: the content of {self.directory}/port must be a port number, "
             f"1024 to 65535"],
        )  # fmt: skip
        for path in (CANARY, f"x/{CANARY}"):
            self.assertEqual(
                self.problems({f"{KEY}_FILE": path}),
                [f"{KEY}_FILE must be the absolute path of a file"],
            )
        for name in ("nul", "long"):
            (problem,) = self.problems({f"{KEY}_FILE": str(self.directory / name)})
            self.assertRegex(problem, f"^{KEY}_FILE: .*/{name} (has a NUL|is longer)")

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_a_file_that_is_closed_to_us(self) -> None:
        path = self.file("key", "x")
        os.chmod(path, 0)
        self.directory.chmod(0o755)
        script = (
            "import os; from eggcrate.runtime import variables as s; os.setuid(65534)\n"
            f"try: s.read(s.Settings((), ('K',)), {{'K_FILE': {path!r}}})\n"
            "except s.SettingsProblem as problem: print(problem)"
        )
        self.assertEqual(
            python("-c", script).stdout.strip(),
            f"K_FILE: {path} can't be read: Permission denied",
        )

    def test_a_value_has_a_length(self) -> None:
        self.assertEqual(
            self.problems({"GREETING": "ä" * 2049}, settings()),
            ["GREETING is longer than 4,096 bytes"],
        )
        runtime.read(settings(), {"GREETING": "ä" * 2048})

    def test_a_port_that_kubernetes_sets_is_explained(self) -> None:
        (problem,) = self.problems({"WEBAPP_PORT": "tcp://10.0.0.1:80"})
        self.assertIn("enableServiceLinks: false", problem)

    def test_a_slip_is_a_warning(self) -> None:
        for name, wanted in (
            ("WEBAP_PORT", "WEBAPP_PORT"),
            ("WEBAPP_PROT", "WEBAPP_PORT"),
            ("webapp_port", "WEBAPP_PORT"),
            ("WEBAPPPORT", "WEBAPP_PORT"),
            ("WEBAP_PORT_FILE", "WEBAPP_PORT_FILE"),
            ("SERVER_NAMES", "SERVER_NAME"),
            ("DJANGO_SECRETKEY", KEY),
            ("DJANGO_SECRET_KEY_FLIE", f"{KEY}_FILE"),
            ("DATABASE_URI", "DATABASE_URL"),
        ):
            with self.subTest(name=name):
                self.assertEqual(
                    runtime.read(settings(), {name: CANARY}).warnings,
                    (f"{name} is set, which means nothing here; was it to be {wanted}?",),
                )

    def test_what_is_no_slip(self) -> None:
        for environ in (
            {"WEBAP_PORT": "1", "WEBAPP_PORT": "9000"},
            {"DATABASE_URL2": "x", "PATH": "/bin", "LANG": "C", "HOME": "/", "PORT": "1"},
            {"TRUSTEE_OF_X": "x", "WORKER_CLASS": "x", "SERVER": "x", "X": "1", "": "x"},
            {f"{KEY}": "x", "DJANGO_SECRETKEY": "y"},
        ):
            self.assertEqual(runtime.read(settings(), environ).warnings, ())

    def test_text_that_a_place_can_t_have_is_a_problem_before_anything_is_rendered(
        self,
    ) -> None:
        paths = [document.path for document in (nginx(), circus())]
        for value, wanted in (
            ("costs $5", [f"GREETING can't have $, where {paths[0]} has it"]),
            ("a ; b", [f"GREETING can't have ; at its beginning or after a blank, where "
                       f"{paths[1]} has it"]),
            (" a", [f"GREETING can't begin or end with a blank, where {paths[1]} has it"]),
            ("x $(circus.env.HOME)", [
                f"GREETING can't have $, where {paths[0]} has it",
                f"GREETING can't have (circus or ((, where {paths[1]} has it"]),
            ("-x", [f"GREETING can't begin with -, as it would be taken for an option, where "
                    f"{paths[1]} has it"]),
            ('""', [f'GREETING can\'t be "" alone, where {paths[1]} has it']),
        ):  # fmt: skip
            with self.subTest(value=value):
                self.assertEqual(self.problems({"GREETING": value}), wanted)


class Cpus(Directory):
    def group(self, name: str, content: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def count(self) -> int:
        with mock.patch("os.sched_getaffinity", return_value=set(range(16))):
            return runtime.cpus(str(self.directory))

    def test_without_a_quota_it_is_the_affinity(self) -> None:
        self.assertEqual(self.count(), 16)
        self.group("sys/fs/cgroup/cpu.max", "max 100000\n")
        self.group("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
        self.group("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
        self.assertEqual(self.count(), 16)

    def test_version_2(self) -> None:
        for quota, wanted in (("150000", 2), ("1000", 1), ("800000", 8), ("9900000", 16)):
            self.group("sys/fs/cgroup/cpu.max", f"{quota} 100000\n")
            self.assertEqual(self.count(), wanted)

    def test_version_1(self) -> None:
        self.group("proc/self/cgroup", "4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n")
        self.group("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n")
        self.group("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
        self.assertEqual(self.count(), 3)

    def test_the_narrowest_group_counts(self) -> None:
        self.group("proc/self/cgroup", "0::/a.slice/b\n")
        self.group("sys/fs/cgroup/a.slice/cpu.max", "200000 100000\n")
        self.group("sys/fs/cgroup/a.slice/b/cpu.max", "400000 100000\n")
        self.assertEqual(self.count(), 2)

    def test_they_are_the_default_within_the_limits(self) -> None:
        of = Settings((declaration("w", "int min=2 max=6 cpus", "3"),))
        for number, wanted in ((1, "2"), (4, "4"), (16, "6")):
            with mock.patch.object(runtime, "cpus", return_value=number):
                found = runtime.read(of, {})
                self.assertEqual((found.values["w"], found.changed), (wanted, ()))
                self.assertEqual(runtime.read(of, {"W": "5"}).values["w"], "5")
        self.assertFalse(declaration("w", "int cpus", None).required)
        self.assertGreaterEqual(runtime.cpus(), 1)


class Rendering(unittest.TestCase):
    def rendered(self, form: str, value: str, kind: str = "text", default: str = "on") -> str:
        setting = Setting("x", kind, "X", "other")
        piece = Piece(setting, form, default if kind == "bool" else None)
        return runtime.render(Document("/f", 0o600, "plain", ["<", piece, ">"]), {"x": value})

    def refused(self, form: str, value: str) -> str:
        with self.assertRaises(SettingsProblem) as caught:
            self.rendered(form, value)
        (problem,) = caught.exception.problems
        return problem

    def test_text_is_quoted_as_its_place_needs_it(self) -> None:
        hard = "a \\ \" ' {;} #x"
        for form, wanted in (
            ("word", hard),
            ("comment", hard),
            ("nginx-quoted", '"a \\\\ \\" \' {;} #x"'),
            ("nginx-double", "a \\\\ \\\" ' {;} #x"),
            ("nginx-single", "a \\\\ \" \\' {;} #x"),
            ("circus-value", hard),
            ("circus-env", hard),
            ("circus-word", "'a \\ \" '\"'\"' {;} #x'"),
            ("circus-single", "a \\ \" '\"'\"' {;} #x"),
            ("circus-double", "a \\\\ \\\" ' {;} #x"),
        ):
            with self.subTest(form=form):
                self.assertEqual(self.rendered(form, hard), f"<{wanted}>")
        self.assertEqual(self.rendered("circus-word", "a/b-c"), "<a/b-c>")

    def test_what_a_place_can_t_have(self) -> None:
        for form, values in {
            "nginx-double": ("$", "a$b"),
            "nginx-single": ("$",),
            "nginx-quoted": ("$host",),
            "nginx-key": ("default", "include"),
            "circus-value": (" a", "a ", "a\u3000", "a ;b", ";", "a\xa0;", "((x", "(Circus.x)",
                             '""', '"', "$(circus.env.A)"),
            "circus-env": ("$A", "x$", "a ;", "$HOME"),
            "circus-word": ("$WID", " a", "a ;", "(circus."),
            "circus-single": ("$WID", "((", "x "),
            "circus-double": ("$WID", " ;", "x "),
        }.items():  # fmt: skip
            for value in values:
                with self.subTest(form=form, value=value):
                    self.assertRegex(
                        self.refused(form, value), r"^X can't .*, where /f has it$"
                    )
        self.assertEqual(self.rendered("circus-env", "$5"), "<$5>")

    def test_true_and_false_are_spelled_like_the_default(self) -> None:
        for default, on, off in (
            ("on", "on", "off"),
            ("off", "on", "off"),
            ("True", "True", "False"),
            ("NO", "YES", "NO"),
            ("1", "1", "0"),
            ("false", "true", "false"),
        ):
            self.assertEqual(self.rendered("word", "true", "bool", default), f"<{on}>")
            self.assertEqual(self.rendered("word", "false", "bool", default), f"<{off}>")

    def test_a_document_has_all_values(self) -> None:
        values = runtime.read(
            settings(nginx(), circus()),
            {
                "WEBAPP_PORT": "9000",
                "SERVER_NAME": "shop.example, www.shop.example",
                "TRUSTED": "10.0.0.0/8 ::1",
                "GREETING": 'say "hi"; {now}',
                "WORKERS": "4",
            },
        ).values
        self.assertEqual(
            runtime.render(nginx(), values),
            "server {\n"
            "  listen 9000;\n"
            "  server_name shop.example www.shop.example;\n"
            "  allow 10.0.0.0/8;\n"
            "  allow ::1;\n"
            '  return 200 "say \\"hi\\"; {now}";\n'
            "}\n",
        )
        self.assertEqual(
            runtime.render(circus(), values),
            "[watcher:web]\ncmd = web\n"
            'args = --workers 4 --title "say \\"hi\\"; {now}"\n'
            '[env]\nPORT = 9000\nGREETING = say "hi"; {now}\n',
        )

    def test_a_word_has_the_length_that_nginx_reads(self) -> None:
        def check(value: str) -> None:
            runtime.read(settings(nginx()), {"GREETING": value})

        check("a" * 4094)
        for value in ("a" * 4095, '"' * 2048, "ä" * 2048):
            with self.assertRaisesRegex(SettingsProblem, "^GREETING is too long: it stands in"):
                check(value)


class Writing(Directory):
    def setUp(self) -> None:
        super().setUp()
        self.run_directory = self.directory / "run"
        self.run_directory.mkdir(0o700)

    def write(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        of = settings(nginx(), circus())
        return runtime.write(
            of, runtime.read(of, environ or {}).values, str(self.run_directory)
        )

    def refused(self) -> str:
        before = sorted(os.listdir(self.run_directory)) if self.run_directory.is_dir() else []
        with self.assertRaises(SettingsProblem) as caught:
            self.write()
        if before:
            self.assertEqual(sorted(os.listdir(self.run_directory)), before)
        (problem,) = caught.exception.problems
        return problem.replace(str(self.directory), "")

    def test_the_files_are_private_and_known_by_their_normal_places(self) -> None:
        found = self.write({"WEBAPP_PORT": "9000"})
        self.assertEqual(
            found,
            {
                path: f"{self.run_directory}/settings{path}"
                for path in (nginx().path, circus().path)
            },
        )
        for path in found.values():
            self.assertIn("9000", pathlib.Path(path).read_text())
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        real = os.path.realpath(self.run_directory / "settings")
        self.assertEqual(stat.S_IMODE(os.stat(real).st_mode), 0o700)

    def test_a_script_can_be_run(self) -> None:
        of = settings(document("/s", "plain", "#!", Symbol("workers", 1), mode=0o755))
        found = runtime.write(of, {}, str(self.run_directory))
        self.assertEqual(stat.S_IMODE(os.stat(found["/s"]).st_mode), 0o700)

    def test_it_can_be_written_again_and_again(self) -> None:
        texts = set()
        for _ in range(5):
            texts.add(tuple(pathlib.Path(path).read_text() for path in self.write().values()))
            self.assertEqual(len(os.listdir(self.run_directory)), 2)
        self.assertEqual(len(texts), 1)

    def test_what_a_killed_predecessor_left_is_removed_and_nothing_else(self) -> None:
        outside = self.directory / "outside"
        outside.mkdir()
        (outside / "kept").write_text("x")
        old = self.run_directory / ".settings-0123"
        (old / "var").mkdir(parents=True)
        (old / "var/file").write_text("x")
        (old / "link").symlink_to(outside)
        (self.run_directory / ".settings-4567.link").symlink_to(outside)
        (self.run_directory / "other").write_text("x")
        self.write()
        names = sorted(os.listdir(self.run_directory))
        self.assertEqual([name[:10] for name in names], [".settings-", "other", "settings"])
        self.assertEqual(os.listdir(outside), ["kept"])

    def test_a_link_that_leads_elsewhere_is_replaced(self) -> None:
        outside = self.directory / "outside"
        outside.mkdir()
        for target in (outside, self.directory / "none"):
            (self.run_directory / "settings").unlink(missing_ok=True)
            (self.run_directory / "settings").symlink_to(target)
            self.write()
            self.assertEqual(os.listdir(outside), [])
            self.assertIn(".settings-", os.readlink(self.run_directory / "settings"))
        (self.run_directory / "settings").unlink()
        (self.run_directory / "settings").write_text("a file")
        self.write()
        self.assertTrue((self.run_directory / "settings").is_symlink())

    def test_a_directory_in_the_link_s_place_is_a_problem(self) -> None:
        (self.run_directory / "settings").mkdir()
        self.assertEqual(
            self.refused(),
            "/run/settings is a directory, where a symbolic link is to be; remove it",
        )

    def test_a_run_directory_must_be_private(self) -> None:
        self.write()
        self.run_directory.chmod(0o777)
        self.assertEqual(self.refused(), "the run directory /run can be written by other users")
        self.run_directory.chmod(0o1777)  # as the engine makes a tmpfs
        self.write()
        # one of root's, where we are another user
        with mock.patch("os.geteuid", return_value=os.geteuid() + 1):
            found = os.stat(self.run_directory)
            for mode, wanted in ((0o777, 1), (0o2777, 1), (0o775, 0), (0o1777, 0)):
                words = (stat.S_IFDIR | mode, *found[1:4], 0, *found[5:])
                with (
                    mock.patch("os.lstat", return_value=os.stat_result(words)),
                    mock.patch("os.path.lexists", return_value=False),
                ):
                    self.assertEqual(
                        len(list(runtime._foreign("/run/none"))), wanted, oct(mode)
                    )

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a directory away")
    def test_a_run_directory_must_be_ours(self) -> None:
        os.chown(self.run_directory, 12345, 12345)
        self.assertEqual(
            self.refused(),
            "the run directory /run belongs to user 12345, not to user 0",
        )

    def test_a_run_directory_must_be_there(self) -> None:
        self.run_directory.rmdir()
        self.assertEqual(
            self.refused(), "the run directory /run can't be used: No such file or directory"
        )
        self.run_directory.write_text("x")
        self.assertEqual(self.refused(), "the run directory /run is no directory")

    def test_when_the_disk_is_full_nothing_has_changed(self) -> None:
        self.write({"WEBAPP_PORT": "9000"})
        before = os.readlink(self.run_directory / "settings")
        create = runtime._create
        for failing in ("_create", "rename", "symlink"):
            done: list[str] = []

            def fail(*args: Any, failing: str = failing, done: list[str] = done) -> None:
                if failing == "_create" and not done:
                    done.append("")
                    create(*args)
                    return
                raise OSError(28, "No space left on device")

            target = runtime if failing == "_create" else os
            with mock.patch.object(target, failing, fail):
                self.assertEqual(
                    self.refused(),
                    "the settings can't be written to /run: No space left on device",
                )
            self.assertEqual(os.readlink(self.run_directory / "settings"), before)

    def test_when_one_document_can_t_be_rendered_none_is_replaced(self) -> None:
        self.write({"WEBAPP_PORT": "9000"})
        of = settings(nginx(), circus())
        with self.assertRaises(SettingsProblem):
            runtime.write(
                of, {"webapp_port": "9001", "greeting": " a"}, str(self.run_directory)
            )
        path = f"{self.run_directory}/settings{nginx().path}"
        self.assertIn("9000", pathlib.Path(path).read_text())

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_any_user_can_write_to_a_directory_that_the_engine_has_made(self) -> None:
        self.directory.chmod(0o755)
        self.run_directory.chmod(0o1777)
        schema = self.directory / "schema"
        schema.mkdir()
        (schema / "a.json").write_text(runtime.dumped(settings(nginx(), circus())))
        script = (
            "import os; from eggcrate.runtime import variables as s\n"
            "os.setgid(0); os.setuid(10001)\n"
            f"of = s.load({str(schema)!r})\n"
            f"s.write(of, s.read(of, {{}}).values, {str(self.run_directory)!r})\n"
        )
        for _ in range(2):
            python("-c", script)
        self.assertEqual(len(os.listdir(self.run_directory)), 2)

    def test_killed_at_any_moment_it_leaves_a_whole_set(self) -> None:
        schema = self.directory / "schema"
        schema.mkdir()
        (schema / "a.json").write_text(runtime.dumped(settings(nginx(), circus())))
        command = [sys.executable, "-c", _LOOP, str(schema), str(self.run_directory)]
        self.write({"WEBAPP_PORT": "2000"})
        generator = random.Random(15)
        for turn in range(30):
            process = subprocess.Popen(
                [*command, str(2000 + 100 * turn)],
                env=environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            process.stdout.readline()  # the first set of this turn is there
            until = time.monotonic() + generator.uniform(0, 0.02)
            while time.monotonic() < until:
                self.ports()
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            (port,) = self.ports()
            self.assertEqual(int(port) // 100, 20 + turn)
        self.write()
        self.assertEqual(len(os.listdir(self.run_directory)), 2)

    def ports(self) -> set[str]:
        """The ports in the two files of one set; empty if it was replaced meanwhile."""
        place = os.open(self.run_directory / "settings", os.O_DIRECTORY)
        try:
            found = set()
            for path, before in ((nginx().path, "listen "), (circus().path, "PORT = ")):
                with open(os.open(path[1:], os.O_RDONLY, dir_fd=place)) as file:
                    found.add(file.read().partition(before)[2][:4])
        except FileNotFoundError:
            return set()
        finally:
            os.close(place)
        self.assertEqual(len(found), 1, "a mix of two sets")
        return found


_LOOP = """
import itertools, sys
from eggcrate.runtime import variables as s
of = s.load(sys.argv[1])
values = s.read(of, {}).values
for number in itertools.count():
    port = int(sys.argv[3]) + number % 100
    s.write(of, {**values, "webapp_port": str(port)}, sys.argv[2])
    if not number:
        print("ready", flush=True)
"""


def environment() -> dict[str, str]:
    source = str(pathlib.Path(eggcrate.__file__).parent.parent)
    return {"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )


class Beside(Directory):
    """What is started in a container beside PID 1, which has none of its variables."""

    def test_settings_and_secrets(self) -> None:
        library = self.directory / "lib"
        package = pathlib.Path(runtime.__file__).parent
        shutil.copytree(package, library / "eggcrate/runtime")
        shutil.copy(package.parent / "__init__.py", library / "eggcrate")
        script = (
            "from eggcrate.runtime import environment, settings\n"
            "print(sorted(settings().items()), environment().get('KEY'))\n"
        )
        environ = {
            "PYTHONPATH": str(library),
            "PYTHONDONTWRITEBYTECODE": "1",
            "WORKERS": "7",
            "KEY_FILE": self.file("key", "secret\n"),
        }

        def said() -> str:
            return subprocess.run(
                [sys.executable, "-c", script],
                env=environ,
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        self.assertEqual(said(), "[] None\n")
        # a package may be called so
        (library / "settings").mkdir()
        self.assertEqual(said(), "[] None\n")
        of = Settings((PORT, WORKERS), ("KEY",))
        (library / "settings/settings.json").write_text(runtime.dumped(of))
        self.assertEqual(said(), "[('webapp_port', 8080), ('workers', 7)] secret\n")


class ForPeople(unittest.TestCase):
    def test_the_table_shows_what_may_be_set(self) -> None:
        of = Settings(
            (
                PORT,
                declaration("level", "choices debug info", "info"),
                declaration("needed", "text required", None),
                declaration("workers", "int min=1 max=64 cpus", "2"),
                declaration("note", "text", ""),
            ),
            (KEY,),
        )
        self.assertEqual(
            runtime.table(of),
            "VARIABLE           TYPE                DEFAULT\n"
            "WEBAPP_PORT        port min=1024       8080\n"
            "LEVEL              choices debug info  info\n"
            "NEEDED             text                (required)\n"
            "WORKERS            int min=1 max=64    (CPUs)\n"
            'NOTE               text                ""\n'
            "DJANGO_SECRET_KEY  secret\n",
        )

    def test_the_label_shows_it_too(self) -> None:
        workers = declaration("workers", "int cpus min=2 max=16", "4")
        level = declaration("level", "choices a b required", None)
        self.assertEqual(
            json.loads(label(Settings((PORT, workers, level), ("KEY",)))),
            {
                "WEBAPP_PORT": {"type": "port", "default": "8080", "min": "1024"},
                "WORKERS": {"type": "int", "cpus": True, "min": "2", "max": "16"},
                "LEVEL": {"type": "choices", "default": None, "choices": ["a", "b"]},
                "KEY": {"type": "secret"},
            },
        )

    def test_what_looks_secret_is_not_shown(self) -> None:
        for name, text, hidden in (
            ("db_password", "text", True),
            ("admin_passwd", "text", True),
            ("secret", "word", True),
            ("csrf_secret_2", "word", True),
            ("api_token", "text", True),
            ("apikey", "text", True),
            ("django_secret_key", "text", True),
            ("aws-keys", "text", True),
            ("tls_key", "path", False),
            ("token_lifetime", "duration", False),
            ("password_hint", "text", False),
            ("keyboard", "word", False),
            ("monkey_business", "text", False),
            ("bypass", "word", False),
        ):
            default = {"path": "/x", "duration": "5s"}.get(text, "canary")
            of = Settings((declaration(name, text, default),))
            with self.subTest(name):
                self.assertEqual(of.settings[0].looks_secret, hidden)
                self.assertEqual("(not shown)" in runtime.table(of), hidden)
                self.assertEqual(default in runtime.table(of), not hidden)
                self.assertEqual(
                    "canary" in label(of), text != "path" and not hidden and default == "canary"
                )

    def test_an_application_gets_numbers_and_lists(self) -> None:
        of = Settings(
            tuple(
                declaration(kind, kind, default)
                for kind, default in (
                    ("port", "80"),
                    ("int", "-3"),
                    ("bool", "off"),
                    ("size", "10m"),
                    ("duration", "1h30m"),
                    ("hostnames", "a b"),
                    ("cidrs", "::1"),
                    ("text", "x y"),
                )
            )
        )
        self.assertEqual(
            runtime.typed(of, runtime.read(of, {}).values),
            {
                "port": 80,
                "int": -3,
                "bool": False,
                "size": 10 * 1024**2,
                "duration": 5400,
                "hostnames": ["a", "b"],
                "cidrs": ["::1"],
                "text": "x y",
            },
        )
        values = runtime.read(of, {"DURATION": "500ms", "SIZE": "7", "BOOL": "1"}).values
        found = runtime.typed(of, values)
        self.assertEqual((found["duration"], found["size"], found["bool"]), (0.5, 7, True))

    def test_pid_1_imports_little(self) -> None:
        # each of these takes longer than all of ours
        heavy = ("ipaddress", "dataclasses", "typing", "shutil", "difflib", "inspect")
        script = (
            "import sys, json, re; before = set(sys.modules)\n"
            "from eggcrate.runtime import variables as s\n"
            "of = s.Settings((s.Setting('a', 'port', 'A', '1'),)); s.read(of, {'A': '2'})\n"
            f"print(*[n for n in {heavy} if n in sys.modules and n not in before])"
        )
        self.assertEqual(python("-S", "-c", script).stdout.strip(), "")
