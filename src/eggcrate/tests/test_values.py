"""Values of settings: what is accepted can't end a word of a configuration."""

from __future__ import annotations

import unittest

from eggcrate.runtime import values

GOOD = {
    values.port: {"1": "1", "65535": "65535", "08080": "8080"},
    values.integer: {"0": "0", "-3": "-3", "007": "7"},
    values.boolean: {"true": "true", "Yes": "true", "ON": "true", "0": "false", "off": "false"},
    values.size: {"10m": "10m", "1024": "1024", "4K": "4K"},
    values.duration: {
        "30s": "30s",
        "500ms": "500ms",
        "1h30m": "1h30m",
        "8": "8",
        "1y2M3w4d5h6m7s8ms": "1y2M3w4d5h6m7s8ms",
        "1m5ms": "1m5ms",
    },
    values.hostname: {
        "Shop.Example": "shop.example",
        "localhost": "localhost",
        "*.shop.example": "*.shop.example",
        "127.0.0.1": "127.0.0.1",
        "[::1]": "[::1]",
        "xn--bcher-kva.example": "xn--bcher-kva.example",
    },
    values.hostnames: {"a.example, b.example\tc": "a.example b.example c"},
    values.network: {
        "10.0.0.0/8": "10.0.0.0/8",
        "10.1.2.3": "10.1.2.3",
        "FD00::/8": "fd00::/8",
    },
    values.networks: {"10.0.0.0/8,::1": "10.0.0.0/8 ::1"},
    values.path: {"/run/tls/cert.pem": "/run/tls/cert.pem", "/": "/"},
    values.url_path: {"/": "/", "/shop/a%20b/": "/shop/a%20b/"},
    values.url: {
        "https://shop.example:8443/a?b=c&d": "https://shop.example:8443/a?b=c&d",
        "http://[::1]:80": "http://[::1]:80",
    },
    values.word: {"info": "info", "a/b:c@d": "a/b:c@d", "/a/~b": "/a/~b"},
    values.text: {'Welcome; {you} "there" $x': 'Welcome; {you} "there" $x', "": ""},
    values.choice(["red", "blue"]): {"red": "red"},
}

BAD = {
    values.port: ["0", "65536", "80 ", "8e1", "٨٠", "+80", "-1", "99999999999999999999"],
    values.integer: ["", "1.5", "1_000", "0x1", "²"],
    values.boolean: ["", "maybe", "2", "true;"],
    values.size: ["1 m", "m", "10mb", "-1", "1.5m", "1m\n"],
    values.duration: ["30 s", "s", "-1s", "1s;", "1H", "1h30", "", "1s1s", "30s1m",
                      "1ms1s", "1m1M", "5ms5m"],
    values.hostname: ["", "a_b", "-a", "a..b", "a b", "1.2.3", "256.1.1.1", "::1", "[::1"],
    values.hostnames: ["", " , ", "ok.example; x"],
    values.network: ["10.0.0.1/8", "10.0.0.0/33", "host", "fe80::1%eth0", "", "1.2.3"],
    values.path: ["x", "/a b", "/a/../b", "/a;", "/a'", "/ä", ""],
    values.url_path: ["x", "/a b", "/a/../b", "/$x", "/a{", ""],
    values.url: ["ftp://a", "http://", "http://a b", "https://a/;", "javascript:x"],
    values.word: ["", "~", "~*a", "~root/x", "a b", "a;", "a$", "a'", "a\\", "ä", "a\x00"],
    values.text: ["a\nb", "a\x00", "a\x7f", "a\u2028b", "a\udcff", "\t"],
    values.choice(["red", "blue"]): ["", "green", "red "],
}  # fmt: skip


class Types(unittest.TestCase):
    def test_what_is_right_comes_back_in_one_spelling(self) -> None:
        for check, examples in GOOD.items():
            for text, wanted in examples.items():
                with self.subTest(check=check.__name__, text=text):
                    self.assertEqual(check(text), wanted)
                    self.assertEqual(check(wanted), wanted)

    def test_what_is_wrong_is_refused_without_being_repeated(self) -> None:
        for check, examples in BAD.items():
            for text in examples:
                with self.subTest(check=check.__name__, text=text):
                    with self.assertRaises(ValueError) as caught:
                        check(text)
                    self.assertRegex(str(caught.exception), r"^must ")

    def test_no_type_but_text_admits_what_a_configuration_would_understand(self) -> None:
        for check, examples in GOOD.items():
            if check in (values.text, values.hostnames, values.networks):
                continue
            for example in examples:
                for sign in " \t\n\r\v\f\0;{}'\"\\$#`()<>|\x85\xa0\u2028\uff04":
                    for text in (
                        example + sign,
                        sign + example,
                        example[:1] + sign + example[1:],
                    ):
                        with self.subTest(check=check.__name__, text=text):
                            self.assertRaises(ValueError, check, text)

    def test_host_bits_are_pointed_out(self) -> None:
        with self.assertRaisesRegex(ValueError, "must be a network, as 10.0.0.0/8"):
            values.network("10.1.2.3/8")
