"""Secrets are found, what only looks like one is not, and it takes no time."""

from __future__ import annotations

import pathlib
import sysconfig
import time
import unittest

from eggcrate.payload.secrets import secret_in

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n"
# put together here, so that no scanner takes this file for a find
KEY = "-----BEGIN " + "{}PRIVATE KEY-----\n{}{}-----END PRIVATE KEY-----\n"


class Found(unittest.TestCase):
    def test_private_keys(self) -> None:
        for kind in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "):
            self.assertEqual(secret_in(KEY.format(kind, "", BODY).encode()), "a private key")
        headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"
        self.assertEqual(secret_in(KEY.format("RSA ", headers, BODY).encode()), "a private key")
        text = f"key = '''{KEY.format('', '', BODY)}'''".replace("\n", "\r\n")
        self.assertEqual(secret_in(text.encode()), "a private key")

    def test_a_password_in_a_url_is_named_without_its_value(self) -> None:
        for text, said in (
            ("postgres://shop:Kd83-xQz@db.shop.internal/shop", "postgres://shop:***@db"),
            ("url = 'https://bot:a%40b9Zq@git.shop.io/x'", "https://bot:***@git"),
            ("redis://:n0tAPlaceholder9@cache:6379/0", "redis://:***@cache"),
            ("amqp://shop:8fJ2kq@10.0.0.3//", "amqp://shop:***@10.0.0.3"),
        ):
            found = secret_in(text.encode()) or ""
            self.assertIn(said, found)
            self.assertNotIn(text.split(":")[2].split("@")[0], found)

    def test_tokens(self) -> None:
        for token, said in (
            ("AKIA" + "IOSFODNN7EXAMPLE".replace("7", "2").replace("L", "K"), "AWS"),
            ("ghp_" + "a1B2" * 9, "GitHub"),
            ("github_pat_" + "A1" * 11 + "_" + "b" * 59, "GitHub"),
            ("glpat-" + "aB3_" * 5, "GitLab"),
            ("xoxb-" + "123456789012-" + "abcDEF123456", "Slack"),
            ("pypi-AgE" + "IcHlwaS5vcmc" * 6, "package index"),
            ("//registry.example/:_authToken=" + "a1b2" * 9, "npm"),
        ):
            self.assertIn(said, secret_in(f"x = '{token}'".encode()) or "", token)


class NotFound(unittest.TestCase):
    def test_what_only_shows_how_it_looks(self) -> None:
        for text in (
            "postgres://user:password@localhost/db",
            "postgresql://scott:tiger@localhost/test",
            "https://user:${PASSWORD}@git.shop.io",
            "https://user:%(password)s@git.shop.io",
            "https://{user}:{password}@{host}/",
            "amqp://guest:guest@rabbit:5672//",
            "https://user:reallygood9@proxy.example.com:3128",
            "https://user:<password>@git.shop.io",
            "ftp://anonymous:***@ftp.shop.io",
            "http://[::1]:8080/x@y",
            "https://shop.io:8080/@handle",
            "mail: a:b@c.d",
            "-----BEGIN PRIVATE KEY-----",
            "if line == '-----BEGIN RSA PRIVATE KEY-----':\n    read(body)",
            "-----BEGIN CERTIFICATE-----\n" + BODY,
            "-----BEGIN PUBLIC KEY-----\n" + BODY,
            "ghp_short",
            "AKIA",
        ):
            self.assertIsNone(secret_in(text.encode()), text)

    def test_nothing_in_the_standard_library(self) -> None:
        top = pathlib.Path(sysconfig.get_path("stdlib"))
        found = {
            path.relative_to(top).as_posix(): secret_in(path.read_bytes())
            for path in top.rglob("*.py")
            if "site-packages" not in path.parts and "test" not in path.parts
        }
        self.assertGreater(len(found), 500)
        self.assertEqual({name: what for name, what in found.items() if what}, {})


class Time(unittest.TestCase):
    def test_long_lines_without_an_end(self) -> None:
        started = time.process_time()
        for piece in ("a://b:", "a" * 50 + "://", ":@", "-----BEGIN ", "ghp_a", "://x:y"):
            self.assertIsNone(secret_in((piece * (1_000_000 // len(piece))).encode()), piece)
        # linear: quadratic ones would take hours
        self.assertLess(time.process_time() - started, 20)
