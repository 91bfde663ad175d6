"""Declared options of nginx-config: the text for people, and what is no option."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from eggcrate.config import nginx, nginx_declared
from eggcrate.config.nginx_model import Surroundings
from eggcrate.errors import EggcrateError, SettingsError, SeveralErrors
from eggcrate.tests.layers import NGINX

SMALL = {"upstream": "socket:web", "server-names": "shop.example"}

TLS = {"tls": "on", "tls-certificate": "a.crt", "tls-key": "a.key"}

LARGE = {
    **SMALL,
    "listen": "8080 127.0.0.1:8081 [::1]:8080",
    "ipv6": "true",
    "redirect-names": "www.shop.example",
    "worker-processes": "auto",
    "error-log-level": "info",
    "trusted-proxies": "10.0.0.0/8 fd00::/8",
    "tls": "edge",
    "force-https": "true",
    "hsts": "300 includeSubDomains",
    "static": "/static/ parts/static\n/assets parts/a b",
    "media": "/media/ var/media",
    "protected": "/protected/ var/protected",
    "files": "/favicon.ico parts/static/favicon.ico",
    "rate-limit": "20r/s",
    "connection-limit": "40",
    "maintenance": "var/closed",
    "content-security-policy": "default-src 'self'; img-src \"x\"",
    "headers": "X-A: b\nX-C: d e",
    "access-log-exclude": "/ping /pong",
    "stub-status": "127.0.0.1:8099",
    "open-file-cache": "1000",
    "upstream.pool": "servers =\n    127.0.0.1:8000\n    unix:var/run/b.sock backup\n"
    "keepalive = 8",
    "location.api": "upstream = pool\nproxy-read-timeout = 1h\nextra =\n    gzip off;\n"
    "    etag off;",
    "location.login": "path = = /admin/login/\nrate-limit = 1r/s burst=5 nodelay",
    "location.old": "path = ~ ^/old/[0-9]+$\nreturn = 301 /new/",
    "location.data": "alias = var/data\nallow = 10.0.0.0/8",
    "http-extra": "map $host $x {\n    default 1;\n}",
    "server-extra": "gzip_disable x;",
    "location-extra": "limit_rate 1m;",
    "main-extra": "timer_resolution 100ms;",
    "events-extra": "multi_accept on;",
}  # fmt: skip

# the option, its value, and what is said of it
MISTAKES: tuple[tuple[dict[str, str], str], ...] = (
    ({"listen": "80800"}, "listen '80800' must be a port number, 1 to 65535; write 8080"),
    ({"listen": "web"}, "listen 'web' must be a port or an address and a port"),
    ({"listen": "8080 ssl"}, "listen 'ssl' must be a port or"),
    ({"listen": "1.2.3:80"}, "listen '1.2.3:80' must be a host name"),
    ({"listen": "8080 8080"}, "listen 8080 is there twice"),
    (
        {"site.a-b": "server-names = a.example", "site.a_b": "server-names = b.example"},
        "site.a_b: nginx's names have _ for -, and there is site.a-b",
    ),
    ({"listen": ""}, "there is no address to listen on"),
    ({"server-names": "https://shop.example"}, "server-names must be a host name"),
    ({"server-names": "shop.example:80"}, "server-names must be a host name"),
    ({"server-names": "a.example a.example"}, "server-names: a.example is there twice"),
    ({"redirect-names": "shop.example"}, "redirect-names shop.example is one of server-names"),
    ({"redirect-names": "a.example", "server-names": ""}, "has no name to redirect to"),
    ({"client-max-body-size": "10mb"}, "client-max-body-size must be a size"),
    ({"proxy-read-timeout": "1 minute"}, "proxy-read-timeout must be a time"),
    ({"keepalive-timeout": "x"}, "keepalive-timeout must be a time"),
    ({"trusted-proxies": "10.0.0.1/8"}, "as 10.0.0.0/8: it has host bits set"),
    ({"trusted-proxies": "proxy"}, "trusted-proxies must be an address or a network"),
    ({"allow": "10.0.0.0/33"}, "allow must be an address or a network"),
    ({"upstream": ""}, "there is nothing to serve; set upstream = socket:NAME"),
    ({"upstream": "web"}, "upstream: 'web' is neither an address nor the name of an upstream"),
    ({"upstream": "pol", "upstream.pool": "servers = a:1"}, "write pool, the nearest name"),
    ({"upstream": "socket:wbe"}, "upstream: [circus] has no socket wbe; write socket:web"),
    ({"upstream": "127.0.0.1:99999"}, "'127.0.0.1:99999' is neither an address"),
    ({"upstream.pool": "balance = ip_hash"}, "upstream.pool has no servers"),
    ({"upstream.p": "servers = a:1\nbalance = best"}, "p, line 2: balance must be one"),
    ({"worker-processes": "-1"}, "worker-processes must be a number above zero, or auto"),
    ({"gzip": "maybe"}, "gzip must be true or false"),
    ({"gzip-comp-level": "11"}, "gzip-comp-level must be one of 1, 2"),
    ({"access-log": "xml"}, "access-log must be one of json, combined, off"),
    ({"rate-limit": "20/s"}, "rate-limit must be a rate, as 20r/s burst=40 nodelay, or off"),
    ({"health": "ok"}, "health must be the path of a URL, as /shop/, or off"),
    ({"default-server": "200"}, "default-server must be one of"),
    ({"static": "/static/"}, "static must be two words"),
    ({"static": "static parts"}, "static must be the path of a URL"),
    ({"static": "/a/ x\n/b/ y\nc z"}, "static, line 3 must be the path of a URL"),
    ({"static": "/a/ x\n/a y"}, "there are two for /a/, the other one at static, line 1"),
    ({"static": "/a/ x$y"}, "nginx can't be given the path"),
    ({"media": "/m/ x", "location.m": "return = 204"}, "location.m: there are two for /m/"),
    ({"hashed-names": "[a"}, "hashed-names must be a regular expression"),
    ({"headers": "nonsense"}, "headers must be a header"),
    ({"headers": "X A: b"}, "headers must be a header"),
    ({"headers": "Content-Length: 5"}, "headers must be a header that nginx does not make"),
    ({"error-log": "off"}, "error-log must be stderr or a file: off would be one of that name"),
    ({"listen": "unix:"}, "listen: unix: names no socket"),
    ({"listen": "unix:" + "a" * 100}, "is longer than 107 bytes"),
    ({"upstream": "unix:"}, "upstream: unix: names no socket"),
    ({"upstream": "p p", "upstream.p": "servers = a:1"}, "p is an upstream.p, and there are"),
    ({"stub-status": "foo"}, "stub-status 'foo' must be a port or an address and a port"),
    ({"stub-status": "8081 8082"}, "stub-status has 2 addresses"),
    ({"server-names": "a.example m\u00fcnchen.de"}, "which m\u00fcnchen.de is not; write it"),
    ({"server-names": "..a.b"}, "must be a host name, as shop.example, which ..a.b is not"),
    ({"static": "/a%20b/ x"}, "static must be the path of a URL without %"),
    ({"auth-basic": "Staff"}, "auth-basic has no file of passwords, so nobody would be asked"),
    ({"location.x": "allow = ::1\nreturn = 200 x"}, "what return says before it looks at"),
    ({"allow": "::1", "location.x": "return = 200 x"}, "before it looks at allow"),
    ({"tls-verify-client": "on"}, "tls-verify-client means nothing unless tls is on"),
    ({**TLS, "tls-verify-client": "on"}, "there is no tls-client-ca to verify with"),
    ({"http3": "true"}, "http3 means nothing unless tls is on"),
    ({**TLS, "server-names": "127.0.0.1"}, "no client says 127.0.0.1 in its TLS handshake"),
    ({"site.Shop": ""}, "site.Shop: 'Shop' is no name; write site.NAME"),
    ({"location.x": "maintenance = x"}, "write maintenance in the site, or in the part"),
    (
        {
            "tls": "edge",
            "trusted-proxies": "::1",
            "proxy-protocol": "true",
        },
        "tls is edge, and proxy-protocol says nothing of it",
    ),
    (
        {
            "trusted-proxies": "::1",
            "site.a": "server-names = a.b\nproxy-protocol = true",
            "site.b": "server-names = b.b",
        },
        "site.b and site.a have 8080 with and without proxy-protocol",
    ),
    ({"headers": "X-Frame-Options: DENY"}, "headers: X-Frame-Options is sent already"),
    ({"headers": "X-A: 5$"}, "headers: nginx can't be given $, which is none of its variables"),
    ({"content-security-policy": "a\u00fc"}, "content-security-policy must be ASCII"),
    ({"tls": "yes"}, "tls must be one of off, edge, on"),
    ({"tls": "on"}, "tls is on, and there is no tls-certificate"),
    ({"tls-key": "x"}, "tls-key: tls-key means nothing unless tls is on"),
    ({"tls": "edge"}, "tls is edge, and nobody is trusted to say so"),
    ({"hsts": "300"}, "hsts means nothing where tls is off"),
    ({"hsts": "2 years"}, "hsts must be a number of seconds"),
    ({"force-https": "true"}, "force-https needs tls"),
    ({"proxy-protocol": "true"}, "proxy-protocol needs trusted-proxies"),
    ({"location.a b": ""}, "location.a b: 'a b' is no name"),
    ({"location.a": "upstrem = x:1"}, "line 1: upstrem is no option here; write upstream"),
    ({"location.a": "nonsense"}, "location.a, line 1: 'nonsense' is no option"),
    ({"location.a": "return = 1\nreturn = 2"}, "location.a, line 2: return is there twice"),
    ({"location.a": "return = 204\nalias = x"}, "location.a has both alias and return"),
    ({"location.a": "path = a"}, "location.a, line 1: path: 'a' is no path of a URL"),
    ({"location.a": "sites = shp"}, "location.a, line 1: there is no site.shp"),
    ({"site.a": "", "site.b": ""}, "site.b and site.a are both shop.example on 8080"),
    ({"site.a": "gzip = true"}, "line 1: gzip is no option here; write gzip in the part"),
    ({**TLS, "listen-tls": "8080"}, "listen: 8080 would be both with and without TLS"),
    ({**TLS, "http3": "true"}, "http3 needs nginx 1.25, and this is for 1.22.1"),
    ({**TLS, "nginx-version": "1.18"}, "tls = on needs nginx 1.19.4, and this is for 1.18"),
    ({"nginx-version": "new"}, "nginx-version must be a version"),
    ({"location-extra": "x;", "location.b": "path = /"}, "is for the location / that"),
)  # fmt: skip


def socket(name: str) -> str:
    if name == "web":
        return "unix:/srv/shop/var/run/web.sock"
    raise SettingsError(f"[circus] has no socket {name}", "write socket:web, the nearest name")


AROUND = Surroundings("nginx", "/srv/shop", "/srv/shop/var/run", socket)


def text(options: dict[str, str], around: Surroundings = AROUND) -> str:
    return nginx_declared.declared(options, around).text


class Text(unittest.TestCase):
    def test_the_same_options_give_the_same_text_whatever_their_order(self) -> None:
        self.assertEqual(text(LARGE), text(dict(reversed(LARGE.items()))))

    def test_lines_know_their_options(self) -> None:
        rendered = nginx_declared.declared(LARGE, AROUND)
        places = {
            line.strip(): rendered.where(number)
            for number, line in enumerate(rendered.text.splitlines(), 1)
        }
        for line, place in (
            ("worker_processes auto;", "worker-processes"),
            ("alias /srv/shop/parts/static/;", "static, line 1"),
            ('alias "/srv/shop/parts/a b/";', "static, line 2"),
            ("gzip_disable x;", "server-extra"),
            ("proxy_read_timeout 1h;", "location.api, line 2"),
            ("gzip off;", "location.api, line 4"),
            ("default 1;", "http-extra, line 2"),
            ("server unix:/srv/shop/var/run/b.sock backup;",
             "upstream.pool, line 3"),
            ("pid /srv/shop/var/run/nginx.pid;", "the text that the options make"),
        ):  # fmt: skip
            self.assertEqual(places[line], place, line)

    def test_what_nobody_asked_for_is_not_there(self) -> None:
        small = text(SMALL)
        for word in (
            "ssl",
            "limit_req",
            "limit_conn",
            "real_ip",
            "geo",
            "alias",
            "rewrite",
            "auth",
        ):
            self.assertNotIn(word, small)
        self.assertLess(len(small.splitlines()), 190)

    def test_lines_have_no_blanks_at_their_ends_and_blocks_none_within(self) -> None:
        for options in (SMALL, LARGE):
            made = text(options)
            self.assertNotRegex(made, r"[ \t]\n")
            self.assertNotRegex(made, r"\n\n\n|\{\n\n|\n\n *\}")
            self.assertLess(max(map(len, made.splitlines())), 115)

    def test_braces_of_nginx_s_own(self) -> None:
        made = text({**SMALL, "http-extra": 'map $host $y { default "$${scheme}s"; }'})
        self.assertIn('default "${scheme}s";', made)

    def test_http2_is_written_as_the_version_wants_it(self) -> None:
        options = {**SMALL, **TLS}
        old = text(options)
        self.assertIn("listen 8443 ssl http2;", old)
        self.assertNotIn("http2 on", old)
        self.assertNotIn("MLKEM", old)
        new = text({**options, "nginx-version": "1.30.1", "openssl-version": "3.5.1"})
        self.assertIn("listen 8443 ssl;\n        http2 on;", new)
        self.assertIn("ssl_ecdh_curve X25519MLKEM768:X25519:", new)
        newest = text({**options, "nginx-version": "1.30.1", "http3": "true"})
        self.assertIn("listen 8443 quic reuseport default_server;", newest)
        self.assertIn("listen 8443 quic;", newest)
        self.assertIn('h3=":443"', newest)
        self.assertNotIn("http2", text({**options, "http2": "false"}))

    def test_sites_have_the_part_s_options_unless_they_have_their_own(self) -> None:
        made = text(
            {
                "client-max-body-size": "1m",
                "upstream": "socket:web",
                "site.a": "server-names = a.example\nclient-max-body-size = 9m",
                "site.b": "server-names = b.example",
            }
        )
        bodies = re.findall(r"server_name (\S+);\n\n\s+client_max_body_size (\S+);", made)
        self.assertEqual(bodies, [("a.example", "9m"), ("b.example", "1m")])
        self.assertEqual(made.count("upstream web {"), 1)

    def test_a_site_for_every_name_has_no_server_beside_it(self) -> None:
        made = text({"upstream": "127.0.0.1:8000"})
        self.assertEqual(made.count("server {"), 1)
        self.assertIn("listen 8080 default_server;", made)
        self.assertIn("server_name _;", made)

    def test_an_empty_option_is_one_that_is_switched_off(self) -> None:
        self.assertEqual(text({**SMALL, "static": "", "rate-limit": ""}), text(SMALL))

    def test_nothing_of_a_value_gets_out_of_its_quotes(self) -> None:
        for value in ('a"; } server { #', "a\\", "a\\\\", 'a\\" b', "a'b"):
            made = text({**SMALL, "content-security-policy": value})
            line = next(line for line in made.splitlines() if '"~[|]$" "a' in line)
            quoted = re.fullmatch(r'\s*"~\[\|\]\$" "((?:[^"\\]|\\.)*)";', line)
            assert quoted, line
            self.assertEqual(re.sub(r"\\([\\\"])", r"\1", quoted[1]), value)


class Mistakes(unittest.TestCase):
    def test_each_is_said(self) -> None:
        for options, said in MISTAKES:
            with self.subTest(options=options):
                with self.assertRaises(EggcrateError) as caught:
                    text({**SMALL, **options})
                self.assertIn(said, str(caught.exception))

    def test_all_are_said_together(self) -> None:
        with self.assertRaises(SeveralErrors) as caught:
            text({**SMALL, "listen": "x", "gzip": "x", "location.a": "x = y"})
        self.assertEqual(len(caught.exception.errors), 3)

    def test_what_is_nearly_a_section(self) -> None:
        self.assertEqual(nginx_declared.nearest("sites.shop"), "site.shop")
        self.assertEqual(nginx_declared.nearest("locatoin.a"), "location.a")
        self.assertIsNone(nginx_declared.nearest("watcher.web"))
        self.assertIsNone(nginx_declared.nearest("site.shop"))


class Judges(unittest.TestCase):
    """Strangers look at the text."""

    layer = NGINX

    def setUp(self) -> None:
        NGINX.require(self)
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)
        self.around = Surroundings("nginx", temporary.name, f"{temporary.name}/run", socket)
        (self.directory / "run").mkdir()

    def judge(self, options: dict[str, str]) -> str:
        """What gixy finds, after nginx has found nothing."""
        path = self.directory / "nginx.conf"
        path.write_text(text(options, self.around))
        program = nginx.find()
        assert program
        tested = subprocess.run(
            [program, "-t", "-q", "-e", "stderr", "-c", path], capture_output=True, text=True
        )
        self.assertEqual((tested.returncode, tested.stderr), (0, ""))
        gixy = pathlib.Path(sys.argv[0]).resolve().parent.parent / "parts/oracles/bin/gixy"
        judged = subprocess.run([gixy, path], capture_output=True, text=True)
        return judged.stdout if judged.returncode else ""

    def test_host_names_of_any_length(self) -> None:
        label = "a" * 60
        longest = f"{label}.{label}.{label}.{label}.{'b' * 9}"
        self.assertEqual(len(longest), 253)
        site = {"listen": "8080", "upstream": "socket:web"}
        for names in (longest, f"{label}.example *.{longest[2:]} .{longest[1:]}"):
            self.judge({**site, "server-names": names})
        own = "server_names_hash_bucket_size 1024;"
        options = {**site, "server-names": longest, "http-extra": own}
        self.judge(options)
        self.assertEqual(text(options, self.around).count("server_names_hash"), 1)

    def test_nginx_and_gixy_find_nothing_in_the_defaults(self) -> None:
        self.assertEqual(self.judge(SMALL), "")
        self.assertEqual(self.judge({"upstream": "127.0.0.1:8000"}), "")

    def test_nor_in_all_that_there_is(self) -> None:
        self.assertEqual(self.judge({**LARGE, "location.data": "alias = var/data"}), "")

    def test_nor_with_tls(self) -> None:
        from eggcrate.tests.test_nginx_serving import certificate

        certificate(self.directory, "tls", "shop.example")
        options = {"tls": "on", "tls-certificate": "tls.crt", "tls-key": "tls.key"}
        wanted = {**SMALL, **options, "redirect-names": "www.shop.example"}
        self.assertEqual(self.judge(wanted), "")
        self.assertEqual(self.judge({**wanted, "tls-profile": "modern", "ipv6": "true"}), "")
