"""HTTP/1.1 with servers, whose connections are kept for the next request: TLS, proxies, limits.

It is http.client's, which is there whenever Python is, and loads in a third of the time that a
library for all of HTTP takes: a push of a changed line has little else to do.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import ssl
import threading
import urllib.parse
import weakref
from collections.abc import Callable, Mapping
from typing import Any

BLOCK = 1 << 18
# what is left of an answer is read, so that its connection can be used again, up to so much
_DRAINED = 1 << 14


class Unreachable(OSError):
    """There is no connection; its cause says why.  ``proxy`` was to lead there, if any."""

    def __init__(self, proxy: str) -> None:
        super().__init__("no connection")
        self.proxy = proxy


class NoAddress(ValueError):
    """A URL that leads nowhere."""


class NoProxy(ValueError):
    """A proxy of the environment that HTTP can't go through."""

    def __init__(self, proxy: str) -> None:
        super().__init__("no proxy for HTTP")
        self.proxy = proxy


class Response:
    """An answer whose body has not been read yet, with its ``status`` and its ``headers``."""

    def __init__(self, raw: http.client.HTTPResponse, done: Callable[[bool], None]) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self._raw = raw
        self._done: Callable[[bool], None] | None = done

    def read1(self) -> bytes:
        """The next bytes of the body, as they come; none at its end, or where it breaks off."""
        return self._raw.read1(BLOCK)

    @property
    def left(self) -> int:
        """How many bytes are still to come, as far as that was announced."""
        return self._raw.length or 0

    def close(self) -> None:
        """Be done with the answer, whatever is left of it."""
        done, self._done = self._done, None
        if done is None:
            return
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self._raw.length is not None and self._raw.length <= _DRAINED:
                self._raw.read()
        whole = self._raw.isclosed()
        self._raw.close()
        done(whole)


class Pool:
    """Connections, for several threads; they end when nobody has the pool any more.

    ``connect`` is how many seconds one may take to come about, ``stall`` how long nothing has
    to move on it.  ``tls`` gives the context for a host with its port.
    """

    def __init__(
        self, *, connect: float, stall: float, tls: Callable[[str], ssl.SSLContext]
    ) -> None:
        self._connect = connect
        self._stall = stall
        self._tls = tls
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._kept: dict[str, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._kept)

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Response:
        """The answer to a request; ``body`` is bytes or has ``read``.

        Raises NoAddress, NoProxy, Unreachable, and what http.client and sockets raise.
        """
        origin = origin_of(url)
        target = _target(url)
        proxy = proxy_of(origin)
        headers = dict(headers)
        if proxy and origin.startswith("http:"):
            # a proxy is told the whole of it
            target = origin + target
            headers.update(_login(proxy))
        line = self._idle(origin) or self._opened(origin, proxy)
        try:
            # what a server says of a body that it does not want to read to its end is heard
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                line.request(method, target, body=body, headers=headers)
            raw = line.getresponse()
        except BaseException:
            line.close()
            raise

        def done(whole: bool) -> None:
            if whole and line.sock is not None:
                with self._lock:
                    self._kept.setdefault(origin, []).append(line)
            else:
                line.close()

        return Response(raw, done)

    def _idle(self, origin: str) -> http.client.HTTPConnection | None:
        """A connection that is there already."""
        while True:
            with self._lock:
                lines = self._kept.get(origin)
                if not lines:
                    return None
                line = lines.pop()
            # a server that says something now has had enough
            waiting = select.poll()
            waiting.register(line.sock, select.POLLIN)
            if not waiting.poll(0):
                return line
            line.close()

    def _opened(self, origin: str, proxy: str) -> http.client.HTTPConnection:
        place = _place(proxy or origin)
        options: dict[str, Any] = {"timeout": self._connect, "blocksize": BLOCK}
        line: http.client.HTTPConnection
        if origin.startswith("https:"):
            line = http.client.HTTPSConnection(*place, context=self._context(origin), **options)
            if proxy:
                line.set_tunnel(*_place(origin), _login(proxy))
        else:
            line = http.client.HTTPConnection(*place, **options)
        try:
            line.connect()
        except (OSError, http.client.HTTPException) as error:
            line.close()
            raise Unreachable(bare(proxy)) from error
        line.sock.settimeout(self._stall)
        return line

    def _context(self, origin: str) -> ssl.SSLContext:
        with self._lock:
            context = self._contexts.get(origin)
            if context is None:
                context = self._contexts[origin] = self._tls(origin.partition("://")[2])
        return context


def _close_all(kept: dict[str, list[http.client.HTTPConnection]]) -> None:
    for lines in kept.values():
        for line in lines:
            line.close()
    kept.clear()


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, without a port that goes without saying."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    default = {"https": ":443", "http": ":80"}.get(parts.scheme, ":")
    return f"{parts.scheme}://{host.removesuffix(default)}"


def _place(url: str) -> tuple[str, int]:
    """Host and port of a URL.

    The port is always said: http.client looks for one in 2001:db8::1, and takes that of HTTPS
    for a proxy's.
    """
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _target(url: str) -> str:
    """What is asked for at a URL's host; NoAddress where there can be no such host."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        if parts.port == 0 or not host.encode("idna") or re.search(r"[\0- \x7f]", host):
            raise NoAddress
    except ValueError as error:
        raise NoAddress from error
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return urllib.parse.quote(target, safe="/%?:@!$&'()*+,;=-._~")


def bare(url: str) -> str:
    """A URL without name and password."""
    scheme, slashes, rest = url.partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def _login(proxy: str) -> dict[str, str]:
    """Who we are to a proxy, as its URL has it."""
    parts = urllib.parse.urlsplit(proxy)
    if parts.username is None:
        return {}
    import base64

    user = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


def proxy_of(origin: str) -> str:
    """The proxy that the environment has for a host; empty where it has to be without one."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    import ipaddress
    import urllib.request

    scheme, _, host = origin.partition("://")
    name = urllib.parse.urlsplit(origin).hostname or ""
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or name == "localhost":
        return ""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
        if address.is_loopback:
            return ""
        for item in proxies.get("no", "").split(","):
            with contextlib.suppress(ValueError):
                if "/" in item and address in ipaddress.ip_network(item.strip(), strict=False):
                    return ""
    if urllib.request.proxy_bypass_environment(host):  # type: ignore[attr-defined]  # in no stub
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urllib.parse.urlsplit(proxy)
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return proxy
    except ValueError:
        pass
    raise NoProxy(bare(proxy))
