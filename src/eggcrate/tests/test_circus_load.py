"""Circus' own code on a configuration: what it says, in our words and with our lines."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Sequence
from unittest import mock

from eggcrate.config import circus, circus_load, circus_process, references
from eggcrate.errors import TemplateError
from eggcrate.tests import layers
from eggcrate.tests.test_circus import MISTAKES, VALID, circusd, rendered

# A configuration, and what Circus says of it, from the number of the line on.
SAID: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "a signal",
        "[watcher:web]\ncmd = web\nstop_signal = FOO\n",
        (
            "3: [watcher:web] stop_signal is 'FOO', which is no signal, and circusd would end "
            "at once; write a signal, such as TERM or QUIT",
        ),
    ),
    (
        "a stream",
        "[watcher:web]\ncmd = web\nstdout_stream = StdoutStream\nstderr_stream.class = Nope\n",
        (
            "3: [watcher:web] stdout_stream is no option of Circus, and circusd would end at "
            "once; write stdout_stream.class = StdoutStream",
            "4: [watcher:web] stderr_stream.class is 'Nope', which is no stream of Circus, and "
            "circusd would start without [watcher:web]; write FileStream or StdoutStream, or a "
            "class's name with its module's",
        ),
    ),
    (
        "hooks",
        """\
        [watcher:web]
        cmd = web
        hooks.before_start = no.such.hook
        hooks.after_start = os.path.no_such
        hooks.before_stop = os.path.join, true
        stdout_stream.class = no.such.Stream
        """,
        (
            "6: [watcher:web] stdout_stream.class is 'no.such.Stream', which can't be "
            "imported, "
            "and circusd would start without [watcher:web]: No module named 'no'; correct the "
            "name, or add the egg that has it to eggs",
            "3: [watcher:web] hooks.before_start is 'no.such.hook', which can't be "
            "imported, and "
            "circusd would start without [watcher:web]: No module named 'no'; correct "
            "the name, "
            "or add the egg that has it to eggs",
            "4: [watcher:web] hooks.after_start is 'os.path.no_such', which can't be imported, "
            "and circusd would start without [watcher:web]: No module named 'os.path.no_such'; "
            "'os.path' is not a package; correct the name, or add the egg that has it to eggs",
        ),
    ),
    (
        "plugins",
        """\
        [plugin:a]
        use = no.such.Plugin
        [plugin:b]
        priority = 1
        [plugin:c]
        use = circus.plugins.flapping.Flapping
        note = two words
        [plugin:d]
        use = circus.plugins.flapping.Flapping
        numprocesses = 2
        [plugin:e]
        use = circus.plugins.flapping
        """,
        (
            "2: [plugin:a] use is 'no.such.Plugin', which can't be imported, and circusd would "
            "end at once: No module named 'no'; correct the name, or add the egg that "
            "has it to "
            "eggs",
            "3: [plugin:b] has no option use, and circusd would end at once; set use to the "
            "plugin's class, such as circus.plugins.flapping.Flapping",
            "7: [plugin:c] note has a space or a quote, which tears the plugin's command line "
            'apart, and the plugin would never start; write "two words" in quotes, or without '
            "the space",
            "10: [plugin:d] numprocesses is '2', and Circus says ValueError: Cannot have 2 "
            "processes with a singleton watcher; correct it, or set check to false if the "
            "Circus that will read it knows better",
            "12: [plugin:e] use is 'circus.plugins.flapping', which can't be imported, and "
            "circusd would end at once: it can't be called; correct the name, or add the egg "
            "that has it to eggs",
        ),
    ),
    (
        "values",
        "[circus]\nwarmup_delay = 0.5\n[watcher:web]\ncmd = web\nmax_age = 1h\n"
        "[socket:Web]\nport = http\ntype = SOCK\n",
        (
            "2: [circus] warmup_delay is '0.5', and Circus says ValueError: invalid "
            "literal for "
            "int() with base 10: '0.5'; correct it, or set check to false if the Circus that "
            "will read it knows better",
            "5: [watcher:web] max_age is '1h', and Circus says ValueError: invalid literal for "
            "int() with base 10: '1h'; correct it, or set check to false if the Circus that "
            "will read it knows better",
            "7: [socket:Web] port is 'http', and Circus says ValueError: invalid literal for "
            "int() with base 10: 'http'; correct it, or set check to false if the Circus that "
            "will read it knows better",
            "8: [socket:Web] type is 'SOCK', and Circus says KeyError: 'SOCK'; correct it, or "
            "set check to false if the Circus that will read it knows better",
        ),
    ),
    (
        "the web console",
        "[circus]\nhttpd = True\n",
        (
            "2: [circus] httpd needs circus-web, which the eggs don't have, and circusd would "
            "end at once; remove it, or add circus-web to eggs",
        ),
    ),
    (
        "what it can't read",
        "[circus]\nstatsd\n",
        (
            "2: Circus can't read it and says ParsingError: Source contains parsing errors: "
            "'<string>' [line 2]: 'statsd\\n'; correct it, or set check to false if the Circus "
            "that will read it knows better",
        ),
    ),
    (
        "what only the container knows",
        """\
        [circus]
        statsd = $(circus.env.STATS)
        umask = @{umask}
        [watcher:web]
        cmd = web
        numprocesses = 3
        singleton = $(circus.env.ONE)
        virtualenv = /no/such/place
        copy_env = True
        hooks.before_start = only.there
        [watcher:path]
        cmd = path
        hooks.before_start = only.there
        [env:path]
        PYTHONPATH = /no/such/place
        [plugin:a]
        use = my.$(circus.env.PLUGIN)
        [socket:web]
        port = $(circus.env.PORT)
        host = no.such.host.invalid
        """,
        (),
    ),
)

# What the lint says too
TWICE = (
    "errors that Circus makes unclear",
    "kinds of values",
    "a stream that rotates",
    "the umask of a socket",
    "limits and arguments of the library",
    "lines that Circus can't read",
)

# Has Circus read many texts in one process, as importing it takes half a second.
ALL = """
import json, runpy, sys
question = json.load(sys.stdin)
answer = runpy.run_path(sys.argv[1])["answer"]
texts = question["texts"]
print(json.dumps([list(answer(question["path"], [text], sys.argv[2])) for text in texts]))
"""


class Complaints(unittest.TestCase):
    layer = layers.SLOW
    maxDiff = None

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name).resolve()
        self.python, self.path = circusd(self)

    def found(
        self,
        text: str | references.Rendered,
        told: Sequence[TemplateError] = (),
        path: Sequence[str] | None = None,
    ) -> list[str]:
        found = circus_load.load_complaints(
            rendered(text) if isinstance(text, str) else text,
            self.python,
            self.path if path is None else path,
            output=self.directory / "circus.ini",
            directory=self.directory,
            told=told,
        )
        return [str(error) for error in found]

    def test_what_circus_says_has_a_line_and_a_way_out(self) -> None:
        for name, text, expected in SAID:
            with self.subTest(name):
                self.assertEqual(
                    self.found(textwrap.dedent(text)),
                    [f"circus.ini.in, line {line}" for line in expected],
                )

    def test_nothing_is_said_twice(self) -> None:
        for name, text, _ in MISTAKES:
            if name not in TWICE:  # the others Circus takes silently
                continue
            made = rendered(textwrap.dedent(text))
            told = list(
                circus.complaints(
                    made, output=self.directory / "circus.ini", directory=self.directory
                )
            )
            with self.subTest(name):
                self.assertEqual(self.found(made, told), [])

    def test_no_valid_configuration_is_refused(self) -> None:
        (self.directory / "my.py").write_text("def Plugin(): pass\nStream = Plugin\n")
        (self.directory / "a.py").write_text("def b(): pass\n")
        (self.directory / "circusweb.py").touch()
        question = {
            "path": [*self.path, str(self.directory)],
            "texts": [re.sub(r"@\{\w+\}", "1", text) for text in VALID],
        }
        environment = dict.fromkeys(("U", "N", "LOG", "x", "circus_statsd"), "1")
        result = subprocess.run(
            [self.python, "-B", "-c", ALL, circus_process.__file__, str(self.directory)],
            input=json.dumps(question),
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        for text, found in zip(VALID, json.loads(result.stdout), strict=True):
            with self.subTest(text):
                self.assertEqual(found, [])
        self.assertEqual(self.found(max(VALID, key=len)), [])

    def test_hooks_are_found_where_the_watcher_has_them(self) -> None:
        (self.directory / "hooks").mkdir()
        (self.directory / "hooks/mine.py").write_text("def hook(**kw): return True\n")
        text = (
            "[watcher:web]\ncmd = web\ncopy_env = True\nhooks.before_start = hooks.mine.hook\n"
            "[env:web]\nPYTHONPATH = $PYTHONPATH:$PWD\n"
        )
        self.assertEqual(self.found(text), [])

    def test_a_module_that_needs_the_container_is_not_judged(self) -> None:
        (self.directory / "mine.py").write_text(
            "import os\nurl = os.environ['URL']\ndef hook(): pass\n"
        )
        text = "[watcher:web]\ncmd = web\nhooks.before_start = mine.hook\n"
        self.assertEqual(self.found(text, path=[*self.path, str(self.directory)]), [])

    def test_included_files_are_read_too(self) -> None:
        (self.directory / "more.ini").write_text("[watcher:more]\ncmd = x\nmax_age = 1h\n")
        (error,) = self.found("[circus]\ninclude = *.ini\n")
        self.assertTrue(error.startswith(f"{self.directory}/more.ini, line 3: [watcher:more]"))

    def test_it_leaves_no_trace(self) -> None:
        (self.directory / "mine.py").write_text("def hook(): pass\n")
        live = self.directory / "live.sock"
        live.touch()
        before = {path: path.stat().st_mtime_ns for path in self.directory.iterdir()}
        text = (
            "[circus]\nendpoint = ipc://HERE/ctl\npidfile = HERE/pid\nlogoutput = HERE/log\n"
            "[watcher:web]\ncmd = web\nhooks.before_start = mine.hook\n"
            "stdout_stream.filename = HERE/out.log\n"
            "stderr_stream.class = TimedRotatingFileStream\n"
            "stderr_stream.filename = HERE/no/err.log\nstderr_stream.rotate_when = H\n"
            "[socket:web]\npath = HERE/live.sock\nreplace = True\n"
        ).replace("HERE", str(self.directory))
        self.assertEqual(self.found(text, path=[*self.path, str(self.directory)]), [])
        after = {path: path.stat().st_mtime_ns for path in self.directory.iterdir()}
        self.assertEqual(after, before)

    def test_it_needs_nothing_of_this_process(self) -> None:
        (self.directory / "mine.py").write_text(
            "import os, sys\nassert 'SECRET' not in os.environ\nprint('noise')\n"
            "sys.stderr.write('noise')\ndef hook(): pass\n"
        )
        text = "[watcher:web]\ncmd = web\nhooks.before_start = mine.hook\n"
        with mock.patch.dict(os.environ, SECRET="s", PYTHONPATH="/nowhere"):
            self.assertEqual(self.found(text, path=[*self.path, str(self.directory)]), [])


class Trouble(unittest.TestCase):
    def found(self, text: str, python: str, *path: str) -> list[str]:
        found = circus_load.load_complaints(
            rendered(text),
            python,
            path,
            output=pathlib.Path("/buildout/circus.ini"),
            directory=pathlib.Path("/buildout"),
        )
        return [str(error) for error in found]

    def test_eggs_without_circus(self) -> None:
        with tempfile.TemporaryDirectory() as empty:
            pathlib.Path(empty, "circus.py").write_text("raise ImportError('not here')")
            self.assertEqual(
                self.found("[circus]\n", sys.executable, empty),
                [
                    "circus.ini.in: Circus can't be imported with the eggs of this part: not "
                    "here; add circus to eggs"
                ],
            )

    def test_a_python_that_is_none(self) -> None:
        self.assertEqual(
            self.found("[circus]\n", "/no/such/python"),
            [
                "circus.ini.in: /no/such/python can't be started: No such file or directory; "
                "correct the Python of this part"
            ],
        )

    def test_an_import_that_ends_the_process(self) -> None:
        with tempfile.TemporaryDirectory() as empty:
            pathlib.Path(empty, "circus.py").write_text("import os; os._exit(3)")
            (error,) = self.found("[circus]\n", sys.executable, empty)
        self.assertIn("reading it ended Circus' process with status 3", error)

    def test_an_import_that_never_ends(self) -> None:
        with tempfile.TemporaryDirectory() as empty:
            pathlib.Path(empty, "circus.py").write_text("import time; time.sleep(60)")
            with mock.patch.object(circus_load, "_SECONDS", 0.5):
                (error,) = self.found("[circus]\n", sys.executable, empty)
        self.assertIn("Circus has not read it within 0.5 seconds", error)
