"""``allow-hosts`` for programs that know no such thing: a proxy that lets some hosts pass.

Installers follow links from an index to wherever it says, so a look at the index's address
is not enough.  But all of them go through a proxy that they are told of.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fnmatch
import http.server
import re
import selectors
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

#: seconds to reach a host
_SOON = 30


@dataclasses.dataclass(frozen=True)
class Allowed:
    """Environment variables that lead through the proxy, and the hosts that it refused."""

    environ: Mapping[str, str]
    refused: set[str]


@contextlib.contextmanager
def only(hosts: Sequence[str], environ: Mapping[str, str]) -> Iterator[Allowed]:
    """Let what runs with the environment variables that this gives reach these hosts only.

    ``hosts`` are patterns of names, or of names and ports; empty, they stand for all of
    them, and nothing is in between.  Proxies that ``environ`` names are used in turn.
    """
    refused: set[str] = set()
    if not hosts:
        yield Allowed(environ, refused)
        return
    server = _Server(hosts, environ, refused)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    changed = {name: text for name, text in environ.items() if name.lower() not in _VARIABLES}
    for name in ("http_proxy", "https_proxy"):
        changed[name] = changed[name.upper()] = address
    try:
        yield Allowed(changed, refused)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, hosts: Sequence[str], environ: Mapping[str, str], refused: set[str]
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._pattern = re.compile("|".join(map(fnmatch.translate, hosts)), re.IGNORECASE)
        self._environ = {name.lower(): text for name, text in environ.items()}
        self.refused = refused

    def allows(self, host: str, port: int) -> bool:
        """Whether a host may be asked."""
        return any(self._pattern.match(name) for name in (host, f"{host}:{port}"))

    def proxy(self, scheme: str, host: str) -> urllib.parse.SplitResult | None:
        """The proxy that leads to a host by the environment of whoever runs us."""
        unproxied = {"no": self._environ.get("no_proxy", "")}
        if urllib.request.proxy_bypass_environment(host, unproxied):  # type: ignore[attr-defined] # typeshed lacks it
            return None
        text = self._environ.get(f"{scheme}_proxy") or self._environ.get("all_proxy")
        found = urllib.parse.urlsplit(text or "")
        return found if found.hostname else None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_CONNECT(self) -> None:
        """Lead to a host that is allowed; what goes over the connection is theirs."""
        host, _, port = self.path.rpartition(":")
        self._pass_on("https", host.strip("[]"), int(port) if port.isdigit() else 443)

    def do_GET(self) -> None:
        """Ask a host that is allowed."""
        url = urllib.parse.urlsplit(self.path)
        self._pass_on("http", url.hostname or "", url.port or 80)

    do_HEAD = do_GET  # noqa: N815 the name that http.server calls

    def _pass_on(self, scheme: str, host: str, port: int) -> None:
        self.close_connection = True
        if not self.server.allows(host, port):
            self.server.refused.add(host)
            self.send_error(403, "allow-hosts does not name this host")
            return
        proxy = self.server.proxy(scheme, host)
        address = (proxy.hostname or "", proxy.port or 80) if proxy else (host, port)
        try:
            other = socket.create_connection(address, timeout=_SOON)
        except OSError as error:
            self.send_error(502, str(error))
            return
        with other:
            other.settimeout(None)
            if self.command != "CONNECT" or proxy is not None:
                other.sendall(self._request(proxy))
            else:
                self.send_response(200)
                self.end_headers()
            _join(self.connection, other)

    def _request(self, proxy: urllib.parse.SplitResult | None) -> bytes:
        """The request as it goes on, to the host itself or to the next proxy."""
        url = urllib.parse.urlsplit(self.path)
        own = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
        lines = [f"{self.command} {self.path if proxy else own} HTTP/1.1"]
        lines += [
            f"{name}: {text}"
            for name, text in self.headers.items()
            if name.lower() not in ("connection", "proxy-connection", "keep-alive")
        ]
        if proxy and proxy.username:
            words = map(urllib.parse.unquote, (proxy.username, proxy.password or ""))
            secret = base64.b64encode(":".join(words).encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {secret}")
        if self.command != "CONNECT":
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def log_message(self, *args: object) -> None:
        """Say nothing: who asked gets the answer."""


def _join(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(1 << 16)
                if not data:
                    return
                key.data.sendall(data)
