"""What a browser sees of declared options: a real nginx, and an application that echoes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
import warnings
from collections.abc import Mapping
from typing import Any

from eggcrate.config import certificates, nginx, nginx_declared
from eggcrate.config.nginx_model import Certificate, Surroundings
from eggcrate.tests.layers import NGINX, free_port

_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class Application(http.server.BaseHTTPRequestHandler):
    """Says what it was asked, with the headers that its query asks for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/ws/" and self.headers.get("Upgrade") == "websocket":
            self._websocket()
            return
        sent = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        body = json.dumps({"path": path, "headers": dict(self.headers.items())}).encode()
        self.send_response(int(sent.pop("status", "200")))
        for name, value in sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing: the tests ask."""

    def _websocket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + _WEBSOCKET
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest())
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        while data := self.rfile.read1(1024):
            self.wfile.write(data.upper())
            self.wfile.flush()


class Site:
    """A directory, an application and an nginx that serves both, as the options say."""

    def __init__(self, test: unittest.TestCase, options: str) -> None:
        stack = contextlib.ExitStack()
        test.addCleanup(stack.close)
        self.directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.directory.chmod(0o755)
        self.run = self.directory / "run"
        self.run.mkdir(mode=0o711)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        self.application = f"127.0.0.1:{server.server_address[1]}"
        self.port, self.tls_port = free_port(), free_port()
        for name, text in (
            ("static/app.css", "a { color: red }\n" * 200),
            ("static/app.0123456789ab.css", "a { color: blue }\n"),
            ("media/photo.html", "<script>alert(1)</script>"),
            ("protected/invoice.txt", "secret invoice"),
            ("favicon.ico", "icon"),
            ("users", "ada:{PLAIN}lovelace\n"),
            ("sorry.html", "<h1>Own page</h1>"),
        ):
            self.write(name, text)
        certificate(self.directory, "tls", "shop.example", "www.shop.example")
        text = self.text(options)
        self.configuration = self.directory / "nginx.conf"
        self.configuration.write_text(text)
        program = nginx.find()
        assert program
        process = subprocess.Popen(
            [program, "-e", "stderr", "-c", os.fspath(self.configuration)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

        def stop() -> None:
            process.terminate()
            self.output, _ = process.communicate(timeout=60)

        self.stop = stop
        stack.callback(lambda: stop() if process.poll() is None else None)
        deadline = time.monotonic() + 60
        # nginx listens on one after the other
        for port in re.findall(r"\blisten [^;]*?\b(\d{4,5})\b", text):
            while True:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", int(port))),
                ):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(process.communicate()[0].decode() + text)
                time.sleep(0.01)

    def text(self, options: str) -> str:
        """The configuration of these options, one a line; deeper lines go on."""
        options = options.replace("@app", self.application)
        found: dict[str, str] = {"listen": str(self.port), "listen-tls": str(self.tls_port)}
        name = ""
        for line in options.strip("\n").splitlines():
            if line[0].isspace():
                found[name] += ("\n" if found[name] else "") + line[4:]
            else:
                name, _, value = (word.strip() for word in line.partition("="))
                found[name] = value
        around = Surroundings(
            "nginx", str(self.directory), str(self.run), lambda name: f"unix:/no/{name}.sock"
        )
        return nginx_declared.declared(found, around).text

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def ask(
        self,
        path: str,
        *,
        host: str = "shop.example",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        tls: bool = False,
    ) -> Answer:
        connection: http.client.HTTPConnection
        if tls:
            context = ssl.create_default_context(cafile=str(self.directory / "tls.crt"))
            connection = _Named("127.0.0.1", self.tls_port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                method, path, body, {"Host": host, "Connection": "close", **(headers or {})}
            )
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def every(self, name: str) -> list[str]:
        return list(self.headers.get_all(name) or [])

    @property
    def seen(self) -> dict[str, str]:
        """The headers that the application was sent."""
        return dict(json.loads(self.body)["headers"])


class _Named(http.client.HTTPSConnection):
    """A connection to an address here, by the name of the site."""

    name = "shop.example"

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        context: ssl.SSLContext = self._context  # type: ignore[attr-defined]  # not public
        self.sock = context.wrap_socket(plain, server_hostname=self.name)


def certificate(directory: pathlib.Path, name: str, *hosts: str, days: int = 30) -> None:
    """A certificate and its key, by the program that everybody has."""
    request, names = directory / f"{name}.csr", directory / f"{name}.names"
    names.write_text("subjectAltName=" + ",".join(f"DNS:{host}" for host in hosts))
    for command in (
        f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={hosts[0]} "
        f"-keyout {name}.key -out {request}",
        f"x509 -req -in {request} -signkey {name}.key -days {days} -extfile {names} "
        f"-out {name}.crt",
    ):
        subprocess.run(
            ["openssl", *command.split()], cwd=directory, check=True, capture_output=True
        )


class ServingTest(unittest.TestCase):
    layer = NGINX

    def setUp(self) -> None:
        NGINX.require(self)


class Plain(ServingTest):
    """One site by HTTP."""

    OPTIONS = """\
server-names = shop.example www.other.example
redirect-names = www.shop.example
upstream = @app
static = /static/ static
media = /media/ media
protected = /protected/ protected
files = /favicon.ico favicon.ico
trusted-proxies = 127.0.0.1
client-max-body-size = 2k
maintenance = closed
headers = X-Robots-Tag: noindex
proxy-headers = X-Site: shop
location.slow =
    rate-limit = 1r/m burst=1 nodelay
location.private =
    auth-basic-user-file = users
location.none =
    deny = all
location.gone =
    return = 410
location.ws =
    proxy-read-timeout = 1h
location.broken =
    upstream = 127.0.0.1:1
"""

    def setUp(self) -> None:
        super().setUp()
        self.site = Site(self, self.OPTIONS)

    def test_the_application_knows_the_client_and_what_it_asked_for(self) -> None:
        answer = self.site.ask("/a?b=c", host="shop.example:9000")
        self.assertEqual(answer.status, 200)
        seen = answer.seen
        # as `docker run -p 9000:8080` needs it, else Django takes a form for a foreign one
        self.assertEqual(seen["Host"], "shop.example:9000")
        self.assertEqual(seen["X-Forwarded-Host"], "shop.example:9000")
        self.assertEqual(seen["X-Forwarded-For"], "127.0.0.1")
        self.assertEqual(seen["X-Forwarded-Proto"], "http")
        self.assertEqual(seen["X-Real-IP"], "127.0.0.1")
        self.assertEqual(seen["X-Site"], "shop")
        self.assertEqual(seen["Connection"], "close")
        self.assertEqual([seen["X-Request-ID"]], answer.every("X-Request-ID"))
        self.assertNotIn("Upgrade", seen)

    def test_a_trusted_proxy_is_believed_and_a_client_s_lies_are_not(self) -> None:
        told = {"X-Forwarded-For": "9.9.9.9, 203.0.113.7", "X-Forwarded-Proto": "https"}
        seen = self.site.ask("/", headers=told).seen
        self.assertEqual(seen["X-Forwarded-For"], "203.0.113.7")
        self.assertEqual(seen["X-Forwarded-Proto"], "https")
        seen = self.site.ask("/", headers={"X-Forwarded-Proto": "gopher", "Proxy": "evil"}).seen
        self.assertEqual(seen["X-Forwarded-Proto"], "http")
        self.assertNotIn("Proxy", seen)

    def test_an_unknown_host_is_told_so_and_health_answers_it(self) -> None:
        self.assertEqual(self.site.ask("/", host="evil.example").status, 421)
        for host in ("evil.example", "127.0.0.1", "shop.example"):
            answer = self.site.ask("/nginx-health", host=host)
            self.assertEqual((answer.status, answer.body), (200, b"ok\n"))

    def test_files_with_a_hash_in_their_names_are_kept_for_ever(self) -> None:
        answer = self.site.ask("/static/app.0123456789ab.css")
        self.assertEqual(answer.every("Cache-Control"), ["public, max-age=31536000, immutable"])
        answer = self.site.ask("/static/app.css", headers={"Accept-Encoding": "gzip"})
        self.assertEqual(answer.every("Cache-Control"), ["public, max-age=3600"])
        self.assertEqual(answer.every("Content-Encoding"), ["gzip"])
        self.assertEqual(answer.every("Vary"), ["Accept-Encoding"])
        self.assertEqual(answer.every("Content-Type"), ["text/css; charset=utf-8"])
        self.assertEqual(self.site.ask("/static/none.css").every("Cache-Control"), [])
        self.assertEqual(self.site.ask("/favicon.ico").body, b"icon")

    def test_a_browser_that_has_a_file_is_not_sent_it_again(self) -> None:
        first = self.site.ask("/static/app.css")
        etag = first.headers["ETag"]
        again = self.site.ask("/static/app.css", headers={"If-None-Match": etag})
        self.assertEqual((again.status, again.body), (304, b""))
        part = self.site.ask("/static/app.css", headers={"Range": "bytes=2-9"})
        self.assertEqual((part.status, part.body), (206, first.body[2:10]))
        self.assertEqual(self.site.ask("/static/app.css", method="HEAD").status, 200)
        for path in (
            "/static/../nginx.conf",
            "/static/..%2fnginx.conf",
            "/static../nginx.conf",
        ):
            answer = self.site.ask(path)
            self.assertNotIn(b"worker_processes", answer.body)

    def test_a_precompressed_file_is_sent_as_it_is(self) -> None:
        self.site.write("static/app.css.gz", "compressed before")
        answer = self.site.ask("/static/app.css", headers={"Accept-Encoding": "gzip"})
        self.assertEqual(answer.body, b"compressed before")
        self.assertEqual(self.site.ask("/static/app.css").headers["Content-Encoding"], None)

    def test_what_visitors_upload_runs_no_scripts(self) -> None:
        answer = self.site.ask("/media/photo.html")
        self.assertEqual(
            answer.every("Content-Security-Policy"), ["default-src 'none'; sandbox"]
        )
        self.assertEqual(answer.every("Cache-Control"), ["private, max-age=300"])
        self.assertEqual(answer.every("X-Content-Type-Options"), ["nosniff"])

    def test_protected_files_come_only_by_the_application(self) -> None:
        self.assertEqual(self.site.ask("/protected/invoice.txt").status, 404)
        answer = self.site.ask("/get?X-Accel-Redirect=/protected/invoice.txt")
        self.assertEqual(answer.body, b"secret invoice")

    def test_security_headers_are_sent_once(self) -> None:
        wanted = {
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "strict-origin-when-cross-origin",
            "X-Frame-Options": "DENY",
            "X-Robots-Tag": "noindex",
        }
        for path in ("/", "/static/app.css", "/nowhere?status=404", "/broken/", "/gone/"):
            answer = self.site.ask(path)
            for header, value in wanted.items():
                with self.subTest(path=path, header=header):
                    self.assertEqual(answer.every(header), [value])
        answer = self.site.ask("/?X-Frame-Options=SAMEORIGIN&Referrer-Policy=no-referrer")
        self.assertEqual(answer.every("X-Frame-Options"), ["SAMEORIGIN"])
        self.assertEqual(answer.every("Referrer-Policy"), ["no-referrer"])
        self.assertNotIn("/", self.site.ask("/").headers["Server"])

    def test_another_name_leads_to_the_right_one(self) -> None:
        answer = self.site.ask("/a?b=c", host="www.shop.example:9000")
        self.assertEqual(answer.status, 301)
        self.assertEqual(answer.every("Location"), ["http://shop.example:9000/a?b=c"])

    def test_limits(self) -> None:
        self.assertEqual(self.site.ask("/", method="POST", body=b"x" * 2048).status, 200)
        self.assertEqual(self.site.ask("/", method="POST", body=b"x" * 2049).status, 413)
        statuses = [self.site.ask("/slow/").status for _ in range(4)]
        self.assertEqual(statuses, [200, 200, 429, 429])
        self.assertEqual(self.site.ask("/").status, 200)
        self.assertEqual(self.site.ask("/none/").status, 403)
        self.assertEqual(self.site.ask("/gone/").status, 410)

    def test_passwords(self) -> None:
        self.assertEqual(self.site.ask("/private/").status, 401)
        for password, status in (("lovelace", 200), ("babbage", 401)):
            token = base64.b64encode(f"ada:{password}".encode()).decode()
            answer = self.site.ask("/private/", headers={"Authorization": f"Basic {token}"})
            self.assertEqual(answer.status, status)

    def test_a_websocket_is_passed_on_and_nothing_else_takes_a_connection_over(self) -> None:
        with socket.create_connection(("127.0.0.1", self.site.port), 30) as plain:
            plain.sendall(
                b"GET /ws/ HTTP/1.1\r\nHost: shop.example\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            head = b""
            while b"\r\n\r\n" not in head:
                head += plain.recv(1024)
            self.assertIn(b"101 Switching Protocols", head)
            self.assertIn(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", head)  # RFC 6455's own example
            plain.sendall(b"hello")
            self.assertEqual(plain.recv(1024), b"HELLO")
        told = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}
        seen = self.site.ask("/", headers=told).seen
        self.assertNotIn("Upgrade", seen)
        self.assertEqual(seen["Connection"], "close")

    def test_an_application_that_is_down_is_no_riddle(self) -> None:
        answer = self.site.ask("/broken/")
        self.assertEqual(answer.status, 503)
        self.assertIn(b"Back in a moment", answer.body)
        self.assertEqual(answer.every("Retry-After"), ["60"])
        self.assertEqual(self.site.ask("/broken/", method="POST", body=b"x").status, 503)

    def test_maintenance_is_a_file(self) -> None:
        (self.site.directory / "closed").touch()
        for path in ("/", "/ws/", "/private/"):
            answer = self.site.ask(path, method="POST")
            self.assertEqual(answer.status, 503)
            self.assertIn(b"Down for maintenance", answer.body)
            self.assertEqual(answer.every("Retry-After"), ["60"])
        self.assertEqual(self.site.ask("/static/app.css").status, 200)
        self.assertEqual(self.site.ask("/nginx-health").status, 200)
        (self.site.directory / "closed").unlink()
        self.assertEqual(self.site.ask("/").status, 200)

    def test_the_log_is_one_object_a_line_without_health(self) -> None:
        self.site.ask('/a?"b', headers={"User-Agent": 'quote " and \\ back'})
        self.site.ask("/nginx-health")
        self.site.stop()
        lines = [line for line in self.site.output.decode().splitlines() if line[:1] == "{"]
        logged = [json.loads(line) for line in lines]
        self.assertEqual([entry["uri"] for entry in logged], ['/a?"b'])
        self.assertEqual(logged[0]["user_agent"], 'quote " and \\ back')
        self.assertEqual((logged[0]["status"], logged[0]["host"]), (200, "shop.example"))


class Restricted(ServingTest):
    """Who may come in, and what is kept by whom, where a location differs from its site."""

    OPTIONS = """\
upstream = @app
static = / static
media = /media/ media
allow = 127.0.0.0/8
deny = 127.0.0.2
trusted-proxies = 127.0.0.1
hashed-names = \\.[0-9a-f]{12}\\.|-[a-z0-9]{8}\\.
headers = X-Robots-Tag: noindex
location.all =
    upstream = @app
location.one =
    upstream = @app
    deny = 10.0.0.1
location.none =
    upstream = @app
    allow = 10.0.0.0/8
location.api =
    upstream = @app
location.moved =
    return = 301 /elsewhere
"""

    def setUp(self) -> None:
        super().setUp()
        self.site = Site(self, self.OPTIONS)
        self.site.write("static/.git/config", "secret")
        self.site.write("static/docs/index.html", "<p>docs")
        self.site.write("media/photo-01234567.jpg", "a photo")

    def status(self, path: str, client: str) -> int:
        return self.site.ask(path, headers={"X-Forwarded-For": client}).status

    def test_what_a_location_does_not_say_its_site_does(self) -> None:
        for path, client, status in (
            ("/all/", "127.0.0.9", 200),
            ("/all/", "8.8.8.8", 403),
            ("/all/", "127.0.0.2", 403),
            ("/one/", "127.0.0.9", 200),
            ("/one/", "8.8.8.8", 403),
            ("/one/", "10.0.0.1", 403),
            ("/none/", "10.0.0.9", 200),
            ("/none/", "127.0.0.9", 403),
        ):
            with self.subTest(path=path, client=client):
                self.assertEqual(self.status(path, client), status)

    def test_only_files_are_kept_as_files(self) -> None:
        for path, wanted in (
            ("/app.css", ["public, max-age=3600"]),
            ("/app.0123456789ab.css", ["public, max-age=31536000, immutable"]),
            ("/media/photo-01234567.jpg", ["private, max-age=300"]),
            ("/api/x.0123456789ab.json", []),
            ("/api/export-01234567.csv?Cache-Control=no-store", ["no-store"]),
            ("/nginx-health", []),
            ("/moved/", []),
        ):
            with self.subTest(path=path):
                self.assertEqual(self.site.ask(path).every("Cache-Control"), wanted)

    def test_hidden_files_are_nobody_s_business(self) -> None:
        self.assertEqual(self.site.ask("/.git/config").status, 404)

    def test_a_redirect_names_neither_host_nor_port(self) -> None:
        self.assertEqual(self.site.ask("/docs").every("Location"), ["/docs/"])
        self.assertEqual(self.site.ask("/moved/").every("Location"), ["/elsewhere"])

    def test_a_file_by_x_accel_keeps_what_the_application_has_said(self) -> None:
        answer = self.site.ask("/api/?X-Accel-Redirect=/media/photo.html&X-Frame-Options=DENY")
        self.assertIn(b"alert", answer.body)
        self.assertEqual(
            answer.every("Content-Security-Policy"), ["default-src 'none'; sandbox"]
        )
        self.assertEqual(answer.every("X-Content-Type-Options"), ["nosniff"])
        self.assertEqual(answer.every("X-Frame-Options"), ["DENY"])
        own = "X-Accel-Redirect=/app.css&X-Frame-Options=SAMEORIGIN&Cache-Control=no-store"
        answer = self.site.ask(f"/api/?{own}&Content-Security-Policy=x&X-Robots-Tag=all")
        self.assertEqual(answer.every("X-Frame-Options"), ["SAMEORIGIN"])
        self.assertEqual(answer.every("Content-Security-Policy"), ["x"])
        self.assertEqual(answer.every("Cache-Control"), ["no-store"])
        self.assertEqual(answer.every("X-Robots-Tag"), ["all"])

    def test_nothing_that_a_client_says_of_its_way_is_believed(self) -> None:
        lies = {
            "X-Forwarded-Port": "99",
            "Forwarded": "for=1.2.3.4",
            "X-Forwarded-Prefix": "/x",
            "X-Script-Name": "/y",
            "X-Forwarded-Ssl": "on",
        }
        seen = self.site.ask("/api/", headers=lies).seen
        self.assertEqual(set(lies) & set(seen), set())
        answer = self.site.ask("/api/?X-Request-ID=own")
        self.assertEqual(answer.every("X-Request-ID"), ["own"])


class Pool(ServingTest):
    """Servers of which one is down."""

    def test_another_one_answers(self) -> None:
        for options in ("127.0.0.1:1\n        @app", "127.0.0.1:1\n        @app backup"):
            site = Site(
                self, f"upstream = pool\nupstream.pool =\n    servers =\n        {options}\n"
            )
            self.assertEqual([site.ask("/").status for _ in range(6)], [200] * 6)
            answer = site.ask("/", method="POST", body=b"x")
            self.assertEqual(answer.status, 200)

    def test_the_only_one_is_asked_again_at_once(self) -> None:
        site = Site(self, "upstream = 127.0.0.1:1\n")
        answers = [site.ask("/") for _ in range(3)]
        self.assertEqual([answer.status for answer in answers], [503] * 3)
        self.assertEqual(answers[0].every("Retry-After"), ["60"])

    def test_a_proxy_that_speaks_tcp_says_who_the_client_is_and_nobody_else(self) -> None:
        site = Site(
            self, "upstream = @app\nproxy-protocol = true\ntrusted-proxies = 127.0.0.1\n"
        )
        with socket.create_connection(("127.0.0.1", site.port), 30) as plain:
            plain.sendall(
                b"PROXY TCP4 203.0.113.9 127.0.0.1 5 80\r\nGET / HTTP/1.1\r\nHost: x\r\n"
                b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
                b"Connection: close\r\n\r\n"
            )
            answer = b"".join(iter(lambda: plain.recv(4096), b""))
        seen = json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]
        self.assertEqual(seen["X-Real-IP"], "203.0.113.9")
        self.assertEqual(seen["X-Forwarded-For"], "203.0.113.9")
        self.assertEqual(seen["X-Forwarded-Proto"], "http")


class Secure(ServingTest):
    """One site by HTTPS."""

    OPTIONS = """\
server-names = shop.example
redirect-names = www.shop.example
upstream = @app
static = /static/ static
tls = on
tls-certificate = tls.crt
tls-key = tls.key
error-page = sorry.html
acme-challenge = media
location.broken =
    upstream = 127.0.0.1:1
"""

    def setUp(self) -> None:
        super().setUp()
        self.site = Site(self, self.OPTIONS)

    def test_https_is_served_and_kept(self) -> None:
        answer = self.site.ask("/a", tls=True)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.every("Strict-Transport-Security"), ["max-age=63072000"])
        self.assertEqual(answer.seen["X-Forwarded-Proto"], "https")
        answer = self.site.ask("/?Strict-Transport-Security=max-age=1", tls=True)
        self.assertEqual(answer.every("Strict-Transport-Security"), ["max-age=1"])

    def test_http_leads_there(self) -> None:
        answer = self.site.ask("/a?b=c")
        self.assertEqual(answer.status, 301)
        self.assertEqual(answer.every("Location"), ["https://shop.example/a?b=c"])
        self.assertEqual(answer.every("Strict-Transport-Security"), [])
        self.assertEqual(self.site.ask("/nginx-health", host="x").status, 200)
        for tls in (False, True):
            answer = self.site.ask("/a", host="www.shop.example", tls=tls)
            self.assertEqual(answer.every("Location"), ["https://shop.example/a"])

    def test_an_authority_finds_what_it_has_asked_for(self) -> None:
        for tls in (False, True):
            answer = self.site.ask("/.well-known/acme-challenge/photo.html", tls=tls)
            self.assertIn(b"alert", answer.body)

    def test_an_unknown_name_gets_no_handshake_and_a_foreign_host_no_site(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for name in ("evil.example", None):
            with (
                socket.create_connection(("127.0.0.1", self.site.tls_port), 30) as plain,
                self.assertRaises(ssl.SSLError, msg=name),
            ):
                context.wrap_socket(plain, server_hostname=name)
        self.assertEqual(self.site.ask("/", host="evil.example", tls=True).status, 421)

    def test_old_protocols_are_refused_and_http2_is_offered(self) -> None:
        context = ssl.create_default_context(cafile=str(self.site.directory / "tls.crt"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", self.site.tls_port), 30) as plain,
            context.wrap_socket(plain, server_hostname="shop.example") as secure,
        ):
            self.assertEqual(secure.selected_alpn_protocol(), "h2")
            self.assertEqual(secure.version(), "TLSv1.3")
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", self.site.tls_port), 30) as plain,
            self.assertRaises((ssl.SSLError, ConnectionResetError)),
        ):
            context.wrap_socket(plain, server_hostname="shop.example")

    def test_an_own_page_of_the_site(self) -> None:
        for method in ("GET", "POST"):
            answer = self.site.ask("/broken/", tls=True, method=method)
            self.assertEqual((answer.status, answer.body), (503, b"<h1>Own page</h1>"))
            self.assertEqual(answer.every("Content-Type"), ["text/html; charset=utf-8"])


class Several(ServingTest):
    """Sites of one configuration, and one behind a proxy that has the certificate."""

    OPTIONS = """\
trusted-proxies = 127.0.0.1
default-server = 444
site.shop =
    server-names = shop.example
    upstream = @app
    static =
        /static/ static
        /assets/ media
    tls = edge
    force-https = true
    hsts = 300 includeSubDomains
    frame-options = SAMEORIGIN
    content-security-policy = default-src 'self'
site.admin =
    server-names = *.admin.example
    upstream = pool
    websockets = false
    security-headers = false
    deny = 127.0.0.0/8
    allow = 10.0.0.0/8
upstream.pool =
    servers =
        @app
        127.0.0.1:1 backup
    keepalive = 4
"""

    def setUp(self) -> None:
        super().setUp()
        self.site = Site(self, self.OPTIONS)

    def test_each_has_its_own(self) -> None:
        secure = {"X-Forwarded-Proto": "https"}
        answer = self.site.ask("/", headers=secure)
        self.assertEqual(answer.every("X-Frame-Options"), ["SAMEORIGIN"])
        self.assertEqual(answer.every("Content-Security-Policy"), ["default-src 'self'"])
        self.assertEqual(
            answer.every("Strict-Transport-Security"), ["max-age=300; includeSubDomains"]
        )
        self.assertEqual(self.site.ask("/assets/photo.html", headers=secure).status, 200)
        client = {"X-Forwarded-For": "10.1.2.3"}
        answer = self.site.ask("/", host="a.admin.example", headers=client)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.every("X-Frame-Options"), [])
        self.assertNotIn("Connection", answer.seen)  # the upstream's are kept
        self.assertEqual(self.site.ask("/", host="a.admin.example").status, 403)
        self.assertEqual(self.site.ask("/nginx-health", host="a.admin.example").status, 200)

    def test_the_edge_has_https_and_everybody_uses_it(self) -> None:
        answer = self.site.ask("/a?b", headers={"X-Forwarded-Proto": "http"})
        self.assertEqual(answer.status, 301)
        self.assertEqual(answer.every("Location"), ["https://shop.example/a?b"])
        for path in ("/static/app.css", "/assets/photo.html"):
            answer = self.site.ask(path, headers={"X-Forwarded-Proto": "http"})
            self.assertEqual(answer.every("Location"), [f"https://shop.example{path}"])
        health = self.site.ask("/nginx-health", headers={"X-Forwarded-Proto": "http"})
        self.assertEqual(health.status, 200)
        two = self.site.ask("/a", headers={"X-Forwarded-Proto": "https, http"})
        self.assertEqual(two.status, 200)

    def test_an_unknown_host_gets_nothing(self) -> None:
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
            self.site.ask("/", host="evil.example")


class Certificates(unittest.TestCase):
    """A certificate that no browser would take is none to build with."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)
        certificate(self.directory, "good", "shop.example", "*.shop.example")

    def complaints(self, name: str, key: str, *hosts: str) -> list[str]:
        pair = Certificate(
            str(self.directory / name),
            str(self.directory / key),
            hosts,
            "tls-certificate",
            "tls-key",
        )
        return [str(error) for error in certificates.complaints([pair], self.directory)]

    def test_a_good_pair(self) -> None:
        self.assertEqual(
            self.complaints("good.crt", "good.key", "shop.example", ".shop.example"), []
        )
        self.assertEqual(self.complaints("good.crt", "good.key"), [])

    def test_what_is_wrong_is_said(self) -> None:
        certificate(self.directory, "other", "other.example")
        certificate(self.directory, "www", "shop.example", "www.shop.example")
        certificate(self.directory, "old", "shop.example", days=-1)
        (self.directory / "text.crt").write_text("no certificate")
        for name, key, wanted in (
            ("none.crt", "good.key", "tls-certificate: .*none.crt is no file that can be read"),
            ("good.crt", "none.key", "tls-key: .*none.key is no file that can be read"),
            ("good.crt", "other.key", "the key .*other.key belongs to another certificate"),
            ("old.crt", "old.key", "old.crt has expired; have it renewed before you build"),
            ("other.crt", "other.key", "other.crt is not for shop.example"),
            ("text.crt", "good.key", "can't be used"),
            ("www.crt", "www.key", "www.crt is not for [*].shop.example"),
            ("good.crt", "text.crt", "can't be used"),
        ):
            with self.subTest(name=name, key=key):
                hosts = ["shop.example", *["*.shop.example"] * name.startswith("www")]
                found = self.complaints(name, key, *hosts)
                self.assertEqual(len(found), 1, found)
                self.assertRegex(found[0], wanted)

    def test_files_that_come_with_the_container_are_not_missed(self) -> None:
        self.assertEqual(self.complaints("/nowhere/tls.crt", "/nowhere/tls.key"), [])
