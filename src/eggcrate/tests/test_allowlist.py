from __future__ import annotations

import base64
import http.client
import http.server
import pathlib
import socket
import tempfile
import threading
import unittest
import urllib.error
import urllib.request
from collections.abc import Mapping

from eggcrate.environments import allowlist
from eggcrate.tests import local_index


def opened(url: str, environ: Mapping[str, str]) -> bytes:
    """What comes for a URL, the way that an installer with these variables would go."""
    proxies = {
        name.removesuffix("_proxy"): text
        for name, text in environ.items()
        if name in ("http_proxy", "https_proxy")
    }
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    with opener.open(url, timeout=60) as answer:
        content: bytes = answer.read()
    return content


class AllowlistTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        (self.directory / "file").write_bytes(b"content" * 100_000)

    def test_nothing_is_in_between_without_hosts(self) -> None:
        environ = {"https_proxy": "http://proxy.example/"}
        with allowlist.only((), environ) as allowed:
            self.assertIs(allowed.environ, environ)

    def test_hosts(self) -> None:
        with local_index.serving(self.directory) as seen:
            url = f"http://127.0.0.1:{seen.port}/file?query"
            for hosts, passes in (
                (["127.0.0.1"], True),
                (["other.example", "127.0.*"], True),
                ([f"127.0.0.1:{seen.port}"], True),
                (["127.0.0.1:1"], False),
                (["27.0.0.1", "127.0.0"], False),
            ):
                with self.subTest(hosts), allowlist.only(hosts, {}) as allowed:
                    if passes:
                        self.assertEqual(opened(url, allowed.environ), b"content" * 100_000)
                        self.assertEqual(allowed.refused, set())
                        continue
                    with self.assertRaises(urllib.error.HTTPError) as caught:
                        opened(url, allowed.environ)
                    self.assertEqual(caught.exception.code, 403)
                    caught.exception.close()
                    self.assertEqual(allowed.refused, {"127.0.0.1"})
            self.assertEqual(set(seen.paths), {"/file?query"})

    def test_what_the_environment_becomes(self) -> None:
        environ = {"NO_PROXY": "*", "ALL_PROXY": "http://a.example", "OTHER": "x"}
        with allowlist.only(["a"], environ) as allowed:
            self.assertEqual(
                set(allowed.environ),
                {"OTHER", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"},
            )
            self.assertEqual(len(set(allowed.environ.values())), 2)

    def connected(self, proxy: str, address: str) -> tuple[int, http.client.HTTPConnection]:
        host, _, port = proxy.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self.addCleanup(connection.close)
        connection.request("CONNECT", address)
        response = connection.response_class(connection.sock, method="CONNECT")
        response.begin()
        return response.status, connection

    def test_tunnels(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def answer() -> None:
            with listener.accept()[0] as there:
                there.sendall(there.recv(100).upper())

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with allowlist.only(["127.0.0.1"], {}) as allowed:
            proxy = allowed.environ["https_proxy"]
            status, _ = self.connected(proxy, f"localhost:{port}")
            self.assertEqual((status, allowed.refused), (403, {"localhost"}))
            status, connection = self.connected(proxy, f"127.0.0.1:{port}")
            self.assertEqual(status, 200)
            connection.sock.sendall(b"hello")
            self.assertEqual(connection.sock.recv(100), b"HELLO")
            thread.join()
            listener.close()
            status, _ = self.connected(proxy, f"127.0.0.1:{port}")
            self.assertEqual(status, 502)

    def test_the_users_own_proxy_is_next(self) -> None:
        asked: list[tuple[str, str, str | None]] = []

        class Proxy(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.command, self.path, self.headers["Proxy-Authorization"]))
                self.send_response(200)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(b"from the proxy")

            do_CONNECT = do_GET

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            own = f"http://me:s%2Fcret@127.0.0.1:{server.server_address[1]}"
            environ = {"HTTP_PROXY": own, "ALL_PROXY": own, "no_proxy": "direct.example"}
            with allowlist.only(["*.example"], environ) as allowed:
                url = "http://a.example/simple/"
                self.assertEqual(opened(url, allowed.environ), b"from the proxy")
                status, _ = self.connected(allowed.environ["https_proxy"], "b.example:443")
                self.assertEqual(status, 200)
                status, _ = self.connected(allowed.environ["https_proxy"], "b.test:443")
                self.assertEqual(status, 403)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        secret = "Basic " + base64.b64encode(b"me:s/cret").decode()
        self.assertEqual(asked, [("GET", url, secret), ("CONNECT", "b.example:443", secret)])


if __name__ == "__main__":
    unittest.main()
