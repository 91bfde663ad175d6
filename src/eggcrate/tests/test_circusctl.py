"""circusctl of one configuration asks the circusd that runs with it."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import sys
import tempfile
import types
import unittest
from unittest import mock

from eggcrate.runtime import circusctl


class Options(unittest.TestCase):
    def test_they_are_read_as_circus_does(self) -> None:
        text = """\
# [circus]
[watcher:a]
endpoint = no
[circus]
endpoint = ipc://$(circus.env.RUN)/((circus.env.Name))$(circus.env.none) ; a comment
endpoint = second
pubsub_endpoint: tcp://127.0.0.1:5556
[other]
endpoint = no
"""
        found = circusctl.circus_options(text, {"RUN": "/run", "NAME": "ctl"})
        self.assertEqual(found["endpoint"], "ipc:///run/ctl$(circus.env.none)")
        self.assertEqual(found["pubsub_endpoint"], "tcp://127.0.0.1:5556")


class Main(unittest.TestCase):
    def run_with(
        self, *arguments: str, text: str = "", **environment: str
    ) -> tuple[str | None, list[str]]:
        """The endpoint in the environment, and the arguments, that Circus's own gets."""
        seen: list[tuple[str | None, list[str]]] = []
        own = types.SimpleNamespace(
            main=lambda: seen.append((os.environ.get("CIRCUSCTL_ENDPOINT"), sys.argv[1:]))
        )
        with (
            tempfile.TemporaryDirectory() as directory,
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["circusctl", *arguments]),
            mock.patch("importlib.import_module", lambda name: own),
        ):
            os.environ.pop("CIRCUSCTL_ENDPOINT", None)
            os.environ.update(environment)
            path = pathlib.Path(directory, "circus.ini")
            path.write_text(
                text or "[circus]\nendpoint = ipc://ctl\npubsub_endpoint = ipc://pub\n"
            )
            self.assertEqual(circusctl.main(str(path)), 0)
        return seen[0]

    def test_the_endpoint_is_the_configuration_s(self) -> None:
        self.assertEqual(self.run_with("status"), ("ipc://ctl", ["status"]))

    def test_what_the_user_says_wins(self) -> None:
        environment = {"CIRCUSCTL_ENDPOINT": "ipc://other"}
        self.assertEqual(self.run_with("status", **environment)[0], "ipc://other")
        arguments = ["--endpoint=ipc://x", "listen"]
        self.assertEqual(self.run_with(*arguments)[1], arguments)

    def test_listen_goes_to_the_other_endpoint(self) -> None:
        self.assertEqual(
            self.run_with("listen", "watcher")[1],
            ["--endpoint", "ipc://pub", "listen", "watcher"],
        )

    def test_without_endpoints_nothing_changes(self) -> None:
        self.assertEqual(self.run_with("listen", text="[circus]\n"), (None, ["listen"]))

    def test_a_configuration_that_is_not_there(self) -> None:
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            self.assertEqual(circusctl.main("/no/such/file"), 78)
        self.assertIn("circusctl: /no/such/file can't be read: ", errors.getvalue())
