"""What a container is given: its settings from a file, checked; its ports."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import signal
import tempfile
import threading
import unittest
from collections.abc import Iterator
from unittest import mock

from eggcrate.errors import EggcrateError
from eggcrate.payload.settings import check, given
from eggcrate.runtime.variables import Settings, declaration
from eggcrate.transports.container import Published, published, run

SETTINGS = Settings(
    [
        declaration("webapp_port", "port min=1024", "8080"),
        declaration("debug", "bool", "false"),
        declaration("names", "hostnames env=SERVER_NAMES", "localhost"),
    ],
    ["SECRET_KEY"],
    [],
)


class Files(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)

    def given(self, name: str, text: str, customer: str | None = None) -> dict[str, str]:
        path = self.root / name
        path.write_text(text)
        return given(path, SETTINGS, customer)

    def complaint(self, name: str, text: str, customer: str | None = None) -> str:
        with self.assertRaises(EggcrateError) as caught:
            self.given(name, text, customer)
        return str(caught.exception).replace(f"{self.root}/", "")

    def test_lines(self) -> None:
        with mock.patch.dict(os.environ, SECRET_KEY="s"):
            found = self.given(
                "a.env", "# all\n\nWEBAPP_PORT=9000\n  X= y #\nSECRET_KEY\nNOWHERE\nE=\n"
            )
        self.assertEqual(
            found, {"WEBAPP_PORT": "9000", "X": " y #", "SECRET_KEY": "s", "E": ""}
        )
        self.assertEqual(
            self.complaint("a.env", "A=1\nshop port=2"),
            "a.env, line 2: 'shop port' is no name of a variable; write NAME=value, or NAME "
            "alone for what this environment has",
        )
        self.assertIn("a.env has no tables", self.complaint("a.env", "", "acme"))

    def test_toml(self) -> None:
        text = (
            "webapp_port = 9000\ndebug = true\nOTHER = 1.5\n"
            "[acme]\nwebapp_port = 9001\nnames = ['a.example', 'b.example']\n[emca]\n"
        )
        common = {"WEBAPP_PORT": "9000", "DEBUG": "true", "OTHER": "1.5"}
        self.assertEqual(self.given("a.toml", text), common)
        self.assertEqual(
            self.given("a.toml", text, "acme"),
            {**common, "WEBAPP_PORT": "9001", "SERVER_NAMES": "a.example b.example"},
        )
        self.assertEqual(
            self.complaint("a.toml", text, "amce"),
            "a.toml has no table [amce]; name one of acme, emca",
        )
        self.assertEqual(
            self.complaint("a.toml", "[acme]\nwebapp_port = 9001\n[emca]\n"),
            "a.toml has nothing but tables, and none is named; add --customer, one of acme, "
            "emca",
        )
        self.assertIn("is no TOML: ", self.complaint("a.toml", "a b"))
        self.assertIn("b is a table in a table", self.complaint("a.toml", "[a.b]\nc=1", "a"))

    def test_what_is_wrong_comes_together(self) -> None:
        with self.assertRaises(EggcrateError) as caught:
            check(SETTINGS, {"WEBAPP_PORT": "80", "DEBUG": "perhaps"})
        self.assertIn("WEBAPP_PORT must be", str(caught.exception))
        self.assertIn("DEBUG must be", str(caught.exception))
        self.assertIsNone(check(None, {"WEBAPP_PORT": "80"}))
        with self.assertRaisesRegex(EggcrateError, "; mend the settings of a.toml$"):
            check(SETTINGS, {"WEBAPP_PORT": "80"}, "a.toml")
        check(None, {"ANY": "x" * (131071 - 4)})
        with self.assertRaisesRegex(EggcrateError, "^ANY is longer than the 131,071 bytes"):
            check(None, {"ANY": "x" * (131071 - 3)})

    def test_files_of_the_container_are_not_looked_at(self) -> None:
        values = check(
            SETTINGS, {"SECRET_KEY_FILE": "/run/secrets/key", "SERVER_NAMES": "a.example"}
        )
        assert values is not None
        self.assertEqual(values.changed, ("names",))

    def test_ports(self) -> None:
        for text, expected in (
            ("8080", Published("8080/tcp", "127.0.0.1", 8080)),
            ("80:8080", Published("8080/tcp", "127.0.0.1", 80)),
            ("0.0.0.0:80:8080/udp", Published("8080/udp", "0.0.0.0", 80)),
            ("[::1]:80:8080", Published("8080/tcp", "::1", 80)),
        ):
            self.assertEqual(published(text), expected)
        for text in ("", "0", "80800", "a:1", "1:2:3", "8080/icmp"):
            with self.assertRaisesRegex(EggcrateError, "^--publish .* is no port"):
                published(text)

    def test_a_port_in_two_places(self) -> None:
        api = mock.Mock()
        api.create_container.return_value = {"Id": "1"}
        api.attach.return_value = ()
        api.wait.return_value = {"StatusCode": 3}
        engine = mock.Mock(api=api, asked=lambda doing: contextlib.nullcontext())
        ports = [published(text) for text in ("81:80", "82:80", "53/udp")]
        self.assertEqual(run(engine, "acme/shop", environment={}, ports=ports), 3)
        self.assertEqual(
            api.create_host_config.call_args.kwargs["port_bindings"],
            {
                "80/tcp": [("127.0.0.1", 81), ("127.0.0.1", 82)],
                "53/udp": [("127.0.0.1", 53)],
            },
        )
        asked = api.create_container.call_args.kwargs["ports"]
        self.assertEqual(asked, [("80", "tcp"), ("53", "udp")])

    def test_what_is_ignored_does_not_stop_it(self) -> None:
        api = mock.Mock()
        api.create_container.return_value = {"Id": "1"}
        api.wait.return_value = {"StatusCode": 0}
        told = threading.Event()
        api.stop.side_effect = lambda *_, **__: told.set()
        engine = mock.Mock(api=api, asked=lambda doing: contextlib.nullcontext())
        for ignored in (True, False):

            def output(number: int) -> Iterator[tuple[bytes, bytes]]:
                os.kill(os.getpid(), number)
                told.wait(0.2 if ignored else 60)
                yield b"", b""

            api.attach.return_value = output(signal.SIGHUP)
            before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    run(engine, "acme/shop", environment={})
            finally:
                signal.signal(signal.SIGHUP, before)
            self.assertEqual(told.is_set(), not ignored)


if __name__ == "__main__":
    unittest.main()
