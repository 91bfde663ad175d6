"""Where credentials are found, and what is said of those that can't be."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import re
import tempfile
import time
import unittest
from typing import Any
from unittest import mock

from eggcrate.errors import TransportError
from eggcrate.transports import credentials
from eggcrate.transports.credentials import find

CANARY = "canary-2Kd8-secret"


def auth(password: str, user: str = "me") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class Homes(unittest.TestCase):
    """A home directory of a test's own."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.home = pathlib.Path(scratch.name)
        self.environ = {
            "HOME": str(self.home),
            "PATH": f"{self.home}/bin{os.pathsep}{os.environ['PATH']}",
        }
        patched = mock.patch.dict(os.environ, self.environ, clear=True)
        patched.start()
        self.addCleanup(patched.stop)
        (self.home / "bin").mkdir()

    def write(self, value: Any, path: str = ".docker/config.json") -> pathlib.Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        file.chmod(0o600)
        return file

    def helper(self, name: str, script: str) -> None:
        path = self.home / "bin" / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def answering(self, name: str, user: str, secret: str) -> None:
        answer = json.dumps({"ServerURL": "x", "Username": user, "Secret": secret})
        self.helper(name, f"cat > {self.home}/asked\necho '{answer}'")

    def complaint(self, host: str = "registry.example", **options: Any) -> str:
        with self.assertRaises(TransportError) as caught:
            find(host, "acme/shop", **options)
        self.assertNotIn(CANARY, repr(caught.exception))
        return str(caught.exception)


class Files(Homes):
    def password(self, host: str = "registry.example", path: str = "acme/shop") -> str | None:
        found = find(host, path)
        return None if found is None else found.password

    def test_nothing_anywhere(self) -> None:
        """D23: no file, an empty one, and empty auths."""
        self.assertIsNone(self.password())
        self.write({})
        self.assertIsNone(self.password())
        self.write("")
        self.assertIsNone(self.password())
        self.write({"auths": {"registry.example": {}}})
        self.assertIsNone(self.password())

    def test_the_order_of_files(self) -> None:
        places: tuple[tuple[str, dict[str, str]], ...] = (
            (".docker/config.json", {}),
            ("elsewhere/config.json", {"DOCKER_CONFIG": f"{self.home}/elsewhere"}),
            (".config/containers/auth.json", {}),
            ("xdg/containers/auth.json", {"XDG_CONFIG_HOME": f"{self.home}/xdg"}),
            ("run/containers/auth.json", {"XDG_RUNTIME_DIR": f"{self.home}/run"}),
            ("own.json", {"REGISTRY_AUTH_FILE": f"{self.home}/own.json"}),
        )
        for number, (path, environ) in enumerate(places):
            self.write({"auths": {"registry.example": auth(f"p{number}")}}, path)
            with mock.patch.dict(os.environ, environ):
                self.assertEqual(self.password(), f"p{number}")
            os.environ.update({k: v for k, v in environ.items() if k != "REGISTRY_AUTH_FILE"})

    def test_a_file_without_the_host_does_not_hide_the_next(self) -> None:
        self.write({"auths": {"other.example": auth("no")}}, ".config/containers/auth.json")
        self.write({"auths": {"registry.example": auth("yes")}})
        self.assertEqual(self.password(), "yes")

    def test_the_special_comes_before_the_general(self) -> None:
        self.write(
            {
                "auths": {
                    "registry.example": auth("host"),
                    "registry.example/acme": auth("space"),
                    "registry.example/acme/shop": auth("repository"),
                }
            }
        )
        self.assertEqual(self.password(), "repository")
        self.assertEqual(self.password(path="acme/other"), "space")
        self.assertEqual(self.password(path="other"), "host")

    def test_keys_with_a_scheme_and_a_version(self) -> None:
        for key in ("https://registry.example", "https://registry.example/v2/"):
            self.write({"auths": {key: auth("yes")}})
            self.assertEqual(self.password(), "yes")

    def test_docker_hub_has_an_odd_key(self) -> None:
        for key in ("https://index.docker.io/v1/", "docker.io", "index.docker.io"):
            self.write({"auths": {key: auth("yes")}})
            self.assertEqual(self.password("docker.io", "library/debian"), "yes")

    def test_a_password_with_colons_and_an_identity_token(self) -> None:
        self.write({"auths": {"registry.example": auth("a:b:c")}})
        self.assertEqual(self.password(), "a:b:c")
        self.write({"auths": {"registry.example": {"identitytoken": CANARY, **auth("x")}}})
        found = find("registry.example", "a")
        assert found is not None
        self.assertEqual(found.identity_token, CANARY)
        self.assertNotIn(CANARY, repr(found))

    def test_a_file_that_everybody_can_read_is_said(self) -> None:
        """D23: mode 644."""
        file = self.write({"auths": {"registry.example": auth("x")}})
        file.chmod(0o644)
        with self.assertLogs(credentials.logger, "WARNING") as logs:
            self.password()
        self.assertIn("chmod 600", logs.output[0])

    def test_what_is_broken_is_named_with_its_line(self) -> None:
        """D23: a broken file."""
        file = self.write('{\n "auths": {\n  "x": ' + CANARY + "\n}}")
        self.assertEqual(
            self.complaint(),
            f"{file}, line 3: this is not the JSON that docker login writes; mend that line, "
            "or move the file away and log in again",
        )
        for text in ("[]", '"x"', "[" * 100_000, "\udcff".encode(errors="surrogateescape")):
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
            self.assertIn(f"{file}, line 1", self.complaint())
        self.write({"auths": [CANARY]})
        self.assertIn("auths is no JSON object", self.complaint())
        for entry in ({"auth": CANARY}, {"auth": "aGFsbG8="}, CANARY):
            self.write({"auths": {"registry.example": entry}})
            self.assertIn("auth of registry.example is not base64", self.complaint())


class Helpers(Homes):
    def test_helpers_come_before_the_store_and_both_before_auths(self) -> None:
        """D23: the order of precedence."""
        self.answering("one", "me", "one")
        self.answering("two", "me", "two")
        document: dict[str, Any] = {
            "credHelpers": {"registry.example": "one"},
            "credsStore": "two",
            "auths": {"registry.example": auth("three")},
        }
        for expected, last in (
            ("one", "credHelpers"),
            ("two", "credsStore"),
            ("three", "auths"),
        ):
            self.write(document)
            found = find("registry.example", "acme/shop")
            assert found is not None
            self.assertEqual(found.password, expected)
            del document[last]

    def test_what_a_helper_does_not_know_the_next_may(self) -> None:
        self.helper("no", "echo 'credentials not found in native keychain'; exit 1")
        self.write({"credsStore": "no", "auths": {"registry.example": auth("yes")}})
        found = find("registry.example", "a")
        assert found is not None
        self.assertEqual(found.password, "yes")

    def test_it_is_asked_for_the_host(self) -> None:
        self.answering("ask", "<token>", CANARY)
        self.write({"credsStore": "ask"})
        for host, server in (
            ("registry.example:5000", "registry.example:5000"),
            ("docker.io", "https://index.docker.io/v1/"),
        ):
            found = find(host, "a")
            assert found is not None
            self.assertEqual(found.identity_token, CANARY)
            self.assertEqual((self.home / "asked").read_text(), server)

    def test_helpers_that_fail(self) -> None:
        """D22: missing, exits 3, prints junk; nothing of what it prints is said."""
        file = self.write({"credsStore": "bad"})
        self.assertIn(
            f"docker-credential-bad, which {file} names, can't be run: No such file",
            self.complaint(),
        )
        for script, expected in (
            (f"echo {CANARY} >&2; exit 3", "has failed with exit code 3; see what it says"),
            (f"echo {CANARY}", "has not answered with a Username and a Secret"),
            (f"""echo '{{"Username": "{CANARY}"}}'""", "a Username and a Secret"),
            ("echo '[]'", "a Username and a Secret"),
        ):
            self.helper("bad", script)
            self.assertRegex(self.complaint(), re.escape(expected))

    def test_a_helper_that_hangs_with_a_child(self) -> None:
        """D22: it hangs."""
        self.helper("hung", "sleep 60 & wait")
        self.write({"credHelpers": {"registry.example": "hung"}})
        begun = time.monotonic()
        self.assertIn("has not answered in 0.3 seconds", self.complaint(limit=0.3))
        self.assertLess(time.monotonic() - begun, 5)

    def test_a_name_that_is_a_path_is_not_run(self) -> None:
        for name in ("../evil", "a/b", "", 7, "a b"):
            self.write({"credsStore": name or "/"})
            self.assertIn("can't be the name of a program", self.complaint())
