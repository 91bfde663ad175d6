"""HTTP with one registry: TLS, proxies, credentials and tokens, time limits, retries.

What a registry says is read up to a limit, and quoted with nothing secret in it.  Credentials
go to the registry itself, and to a token service that belongs to it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import email.utils
import functools
import http.client
import json
import logging
import os
import pathlib
import random
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eggcrate.errors import TransportError
from eggcrate.transports import credentials
from eggcrate.transports.pool import NoAddress, NoProxy, Pool, Response, Unreachable, origin_of

logger = logging.getLogger(__name__)

_HUB = "docker.io"
# Hosts that hand out tokens for another one, and belong to it
_TOKEN_HOSTS = {_HUB: ("auth.docker.io",), "registry.gitlab.com": ("gitlab.com",)}
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
# what may be better a moment later
PASSING = (408, 429, 500, 502, 503, 504)
# how often a registry may say that it is busy, beside the tries
_MOST_BUSY = 5
# no token and no error is longer, in bytes
_SMALL_ANSWER = 1 << 20
# nor is anything quoted at greater length, in characters
_QUOTED = 200
# of openssl's verify(1)
_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64

Body = Callable[[], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How long anything may take, in seconds, and how often it is tried."""

    connect: float = 10.0
    # without a byte, in either direction
    stall: float = 60.0
    # one request with its body, and a download with all its tries
    total: float = 3600.0
    tries: int = 3
    # before the second try; then twice as long each time
    pause: float = 0.5
    # the longest that a registry can have us wait (Retry-After)
    longest_wait: float = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """What is allowed beyond HTTPS with a host that this machine trusts.

    ``insecure`` are the hosts (``HOST`` or ``HOST:PORT``, as in a reference) that are spoken to
    in plain HTTP, and ``token_hosts`` those that are given the credentials of a registry
    that says that its tokens come from there.  ``ca`` is a file of certificates to trust
    beside the machine's.
    """

    insecure: frozenset[str] = frozenset()
    token_hosts: frozenset[str] = frozenset()
    ca: pathlib.Path | None = None
    limits: Limits = Limits()


class Interrupted(Exception):
    """An exchange that has no answer: ``error`` is what to say if nothing helps.

    ``passing`` says whether another try may.
    """

    def __init__(self, error: TransportError, *, passing: bool) -> None:
        super().__init__(error)
        self.error = error
        self.passing = passing


class Stopped(Exception):
    """Somebody else's error, or Ctrl-C, has made the exchange pointless."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer, with its whole body; ``url`` is where it came from."""

    url: str
    status: int
    headers: Any
    body: bytes

    @property
    def is_page(self) -> bool:
        """Whether it is something for browsers."""
        kind = self.headers.get("content-type", "").lower()
        return kind.startswith("text/html") or self.body[:100].lstrip().startswith(b"<")


class Connection:
    """The connections with one registry, on behalf of one repository, from several threads.

    ``actions`` are those of the token that is asked for: ``pull``, or ``pull,push``;
    ``sources`` are other repositories of the same host from which blobs are mounted.
    """

    def __init__(
        self,
        host: str,
        path: str,
        access: Access,
        *,
        actions: str = "pull",
        sources: tuple[str, ...] = (),
        stop: threading.Event | None = None,
    ) -> None:
        self.host = host
        self.path = path
        self.limits = access.limits
        self._access = access
        scheme = "http" if host in access.insecure else "https"
        self._scopes = [f"repository:{path}:{actions}"]
        self._scopes += [f"repository:{source}:pull" for source in sources]
        self.origin = f"{scheme}://{f'registry-1.{_HUB}' if host == _HUB else host}"
        self._stop = stop or threading.Event()
        self._renewing = threading.Lock()
        self._pool = Pool(
            connect=self.limits.connect,
            stall=self.limits.stall,
            tls=functools.partial(_context, access, host, self.origin),
        )
        self._authorization: str | None = None
        self._credentials: credentials.Credentials | None = None
        self._asked = False
        self._secrets: set[str] = set()

    def url(self, target: str) -> str:
        """The URL of a path of the registry's API, or of what the registry itself has given."""
        return urllib.parse.urljoin(f"{self.origin}/v2/{self.path}/", target)

    # Requests

    def call(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        limit: int = _SMALL_ANSWER,
        tries: int | None = None,
    ) -> Answer:
        """The answer to a request, whatever its status but 401.

        Where there is none, it is tried again up to ``tries`` times.  ``body`` gives a new
        stream, or bytes, for each try.  Raises TransportError, and with one try Interrupted.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                with self.request(
                    method, target, headers=headers, body=body, tries=tries
                ) as response:
                    return self.answer(target, response, limit)
            except Interrupted as failed:
                if tries == 1:
                    raise
                if not failed.passing or attempt >= (tries or self.limits.tries):
                    raise failed.error from failed

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        tries: int | None = None,
    ) -> Iterator[Response]:
        """The answer, see :meth:`call`, of which no body has been read yet."""
        deadline = time.monotonic() + self.limits.total
        most = tries or self.limits.tries
        attempt = busy = 0
        while True:
            wait: float | None = None
            try:
                response = self._authorized(method, self.url(target), headers or {}, body)
            except Interrupted as failed:
                attempt += 1
                if tries == 1:
                    raise
                if not failed.passing or attempt >= most:
                    raise failed.error from failed
            else:
                if response.status == 429 and busy < _MOST_BUSY and tries != 1:
                    busy += 1
                elif response.status not in PASSING or attempt + 1 >= most:
                    break
                else:
                    attempt += 1
                wait = self.asked_wait(response.status, response.headers)
                response.close()
            self.rest(attempt + busy, deadline, wait)
        try:
            yield response
        finally:
            response.close()

    def answer(self, target: str, response: Response, limit: int = _SMALL_ANSWER) -> Answer:
        """The answer with its body, if that has at most ``limit`` bytes."""
        url = self.url(target)
        body = bytearray()
        for block in self.blocks(response, url):
            body += block
            if len(body) > limit:
                raise TransportError(
                    f"{self.host} answers with more than {limit >> 10} kB where it can't have "
                    f"so much to say",
                    "see whether this is a registry, and ask who runs it",
                )
        return Answer(url, response.status, response.headers, bytes(body))

    def blocks(self, response: Response, url: str = "") -> Iterator[bytes]:
        """The body, as it comes; Interrupted when it does not come to its end."""
        deadline = time.monotonic() + self.limits.total
        while True:
            if self._stop.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                raise self._late()
            try:
                block = response.read1()
            except (http.client.HTTPException, OSError) as error:
                raise self._interrupted(error, url or self.origin) from error
            if block:
                yield block
            elif response.left:
                raise self._interrupted(EOFError(), url or self.origin)
            else:
                return

    def stopped(self) -> bool:
        """Whether the exchange has become pointless."""
        return self._stop.is_set()

    def rest(self, attempt: int, deadline: float, wait: float | None = None) -> None:
        """Wait before the next try: so long, or as is usual after that many."""
        if wait is None:
            jitter = random.uniform(0.5, 1.5)  # noqa: S311  (only to come apart)
            wait = self.limits.pause * 2 ** max(attempt - 1, 0) * jitter
        if time.monotonic() + wait > deadline:
            raise self._late()
        if self._stop.wait(wait):
            raise Stopped

    def asked_wait(self, status: int, headers: Any) -> float | None:
        """For how long a registry that is busy wants to be left alone."""
        text = headers.get("retry-after", "").strip()
        wanted: float | None = None
        if text.isdecimal() and len(text) < 10:
            wanted = float(text)
        elif text:
            with contextlib.suppress(ValueError, TypeError, OverflowError):
                wanted = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        if wanted is None:
            return None
        wait = min(max(wanted, 0.0), self.limits.longest_wait)
        short = ", as it asks" if wait >= wanted else f", instead of {wanted:.0f}"
        logger.warning("%s is busy (%d): waiting %.0f s%s", self.host, status, wait, short)
        return wait

    def _late(self) -> TransportError:
        return TransportError(
            f"{self.host} has not been done with a request in {self.limits.total:.0f} seconds",
            "see whether the network is slow, or the registry busy, and run again",
        )

    def _authorized(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> Response:
        """One exchange, with the credentials that the registry asks for.

        A token that has expired meanwhile is replaced once.
        """
        for renewed in (False, True):
            used = self._authorization
            response = self._follow(method, url, headers, body, used)
            if response.status != 401 or origin_of(url) != self.origin:
                break
            with contextlib.closing(response):
                answer = self.answer(url, response)
            challenges = _challenges(response.headers)
            if renewed or (used and "bearer" not in challenges):
                raise self._unauthorized(answer, challenges)
            self._renew(answer, challenges, used)
        return response

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        authorization: str | None,
    ) -> Response:
        """One exchange, at the place to which the registry may send us for it."""
        for _ in range(_MOST_REDIRECTS):
            own = dict(headers)
            if authorization and origin_of(url) == self.origin:
                own["Authorization"] = authorization
            response = self._once(method, url, own, body() if body else None)
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            response.close()
            location = self.joined(url, response.headers.get("location", ""))
            scheme = urllib.parse.urlsplit(location).scheme
            if scheme not in ("http", "https") or _downgraded(url, location):
                raise TransportError(
                    f"{self.host} sends us to {_shown(location)}, which is not HTTPS",
                    "ask who runs the registry: what begins with TLS has to go on with it",
                )
            url = location
        raise TransportError(
            f"{self.host} sends us from one place to the next, again and again",
            "ask who runs the registry",
        )

    def joined(self, url: str, location: str) -> str:
        """The place that an answer of ``url`` names."""
        try:
            place = urllib.parse.urljoin(url, location)
            urllib.parse.urlsplit(place)
        except ValueError as error:
            raise self._no_address(location) from error
        return place

    def _no_address(self, text: str) -> TransportError:
        shown = _shown(text) if "[" not in text else "a place"
        return TransportError(
            f"{self.host} sends us to {shown}, which can't be an address",
            "ask who runs the registry",
        )

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Response:
        """One exchange; the body of the answer has not been read."""
        if self._stop.is_set():
            raise Stopped
        try:
            return self._pool.ask(method, url, {"User-Agent": "eggcrate", **headers}, body)
        except NoAddress as error:
            raise self._no_address(url) from error
        except NoProxy as error:
            raise TransportError(
                f"the proxy {error.proxy} is none that HTTP can go through",
                "set https_proxy to http://HOST:PORT, or list the registry in no_proxy",
            ) from error
        except (http.client.HTTPException, OSError) as error:
            raise self._interrupted(error, url) from error

    # Credentials

    def _login(self) -> credentials.Credentials | None:
        """Who we are here, once somebody has asked."""
        if not self._asked:
            self._credentials = credentials.find(self.host, self.path)
            self._asked = True
            if self._credentials is not None:
                who = self._credentials
                self._keep_secret(who.password, who.identity_token)
        return self._credentials

    def _keep_secret(self, *texts: str) -> None:
        self._secrets |= {text for text in texts if text}

    def _renew(self, answer: Answer, challenges: Mapping[str, Any], used: str | None) -> None:
        """Have a new authorization, unless another thread has had one meanwhile."""
        with self._renewing:
            if self._authorization != used:
                return
            if "bearer" in challenges:
                self._authorization = f"Bearer {self._token(challenges['bearer'])}"
                return
            who = self._login()
            if "basic" not in challenges or who is None or who.identity_token:
                raise self._unauthorized(answer, challenges)
            basic = base64.b64encode(f"{who.username}:{who.password}".encode()).decode()
            self._keep_secret(basic)
            self._authorization = f"Basic {basic}"

    def _token(self, challenge: Mapping[str, str]) -> str:
        """A token of the service that the registry names (distribution, auth/token)."""
        realm = challenge.get("realm", "")
        parts = urllib.parse.urlsplit(realm)
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme != "https" and not (
            parts.scheme == "http" and host in self._access.insecure
        ):
            raise TransportError(
                f"{self.host} wants a token of {_shown(realm)}, which is not HTTPS",
                "ask who runs the registry; where it is meant so, name that host in "
                "insecure-registries (--insecure), too",
            )
        who = self._login()
        ours = (self.host, *_TOKEN_HOSTS.get(self.host, ()), *self._access.token_hosts)
        if who is not None and host not in ours:
            raise TransportError(
                f"{self.host} wants a token of another host, {host}, which the credentials of "
                f"{who.source} are not for",
                f"if it belongs to the registry, say so: token-hosts = {host}, or --token-host",
            )
        wanted = dict.fromkeys((*challenge.get("scope", "").split(), *self._scopes))
        fields = [("scope", scope) for scope in wanted if scope]
        if service := challenge.get("service"):
            fields.insert(0, ("service", service))
        headers: dict[str, str] = {}
        body: Body | None = None
        base = urllib.parse.urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        if who is not None and who.identity_token:
            method, url = "POST", base
            form = {
                "grant_type": "refresh_token",
                "client_id": "eggcrate",
                "refresh_token": who.identity_token,
                "service": challenge.get("service", ""),
                "scope": " ".join(wanted),
            }
            body = functools.partial(bytes, urllib.parse.urlencode(form).encode())
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            joint = "&" if parts.query else "?"
            method, url = "GET", f"{base}{joint}{urllib.parse.urlencode(fields)}"
            if who is not None:
                pair = base64.b64encode(f"{who.username}:{who.password}".encode()).decode()
                self._keep_secret(pair)
                headers["Authorization"] = f"Basic {pair}"
        answer = self._from_token_service(method, url, headers, body)
        if answer.status in (400, 401, 403):
            raise self._unauthorized(answer, {})
        token = None
        if answer.status == 200:
            with contextlib.suppress(ValueError, RecursionError, AttributeError):
                document = json.loads(answer.body)
                token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise TransportError(
                f"the token service of {self.host}, {host}, has no token for us "
                f"({_status(answer.status)})",
                "run again later, or ask who runs it",
            )
        self._keep_secret(token)
        return token

    def _from_token_service(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> Answer:
        deadline = time.monotonic() + self.limits.total
        attempt = 0
        while True:
            attempt += 1
            wait = None
            try:
                response = self._once(method, url, headers, body() if body else None)
                try:
                    answer = self.answer(url, response)
                finally:
                    response.close()
            except Interrupted as failed:
                if not failed.passing or attempt >= self.limits.tries:
                    raise failed.error from failed
            else:
                if answer.status not in PASSING or attempt >= self.limits.tries:
                    return answer
                wait = self.asked_wait(answer.status, answer.headers)
            self.rest(attempt, deadline, wait)

    # What to say

    def _unauthorized(self, answer: Answer, challenges: Mapping[str, Any]) -> TransportError:
        who = self._login()
        bearer = challenges.get("bearer", {})
        if bearer.get("error") == "insufficient_scope" and who is not None:
            return self.forbidden(answer)
        if who is None:
            return TransportError(
                f"{self.host} asks who we are for {self.path} (401), and no file has "
                f"credentials for it",
                f"log in, docker login {self.host}, or see whether the name is right; looked "
                f"into: {', '.join(map(str, credentials.files(os.environ)))}",
            )
        return TransportError(
            f"{self.host} does not take the credentials of {who.source} (401)"
            f"{self.quoted(answer)}",
            f"log in again: docker login {self.host}",
        )

    def forbidden(self, answer: Answer) -> TransportError:
        """What to say of what these credentials are not allowed."""
        who = self._login() if self._asked else None
        whose = f"with the credentials of {who.source}" if who else "without credentials"
        return TransportError(
            f"{self.host} does not allow this for {self.path} {whose} ({answer.status})"
            f"{self.quoted(answer)}",
            f"ask for the right to it, or log in as somebody who has it: docker login "
            f"{self.host}",
        )

    def refusal(self, answer: Answer, doing: str) -> TransportError:
        """What to say of an answer that is none of those that there should be."""
        if answer.status == 403:
            return self.forbidden(answer)
        if answer.status == 413:
            return TransportError(
                f"{self.host} finds too large what is sent to it (413) to {doing}"
                f"{self.quoted(answer)}",
                "raise the limit of the server in front of the registry, nginx's "
                "client_max_body_size 0 for instance, or the quota",
            )
        if b"HTTP request to an HTTPS server" in answer.body:
            return TransportError(
                f"{self.host} speaks TLS, but is named among the insecure registries",
                "take it out of insecure-registries (--insecure), and name its CA if need be",
            )
        if answer.is_page and answer.status < 400:
            return self.page(answer)
        if answer.status in PASSING:
            return TransportError(
                f"{self.host} could not {doing}: {_status(answer.status)}{self.quoted(answer)}",
                "run again later: what is there already is not sent again",
            )
        return TransportError(
            f"{self.host} has not wanted to {doing}: {_status(answer.status)}"
            f"{self.quoted(answer)}",
            "ask who runs the registry what it does not like",
        )

    def page(self, answer: Answer) -> TransportError:
        """What to say of a page where there should be a registry's answer."""
        kind = answer.headers.get("content-type", "").partition(";")[0] or "no type"
        return TransportError(
            f"what {self.host} has answered is no registry's answer ({kind})"
            f"{self.quoted(answer)}",
            "see whether a proxy or a page to log in is between, and whether the host is right",
        )

    def quoted(self, answer: Answer) -> str:
        """The beginning of what was said, in brackets, without anything secret."""
        text = answer.body[: 16 * _QUOTED].decode("utf-8", "replace")
        with contextlib.suppress(ValueError, RecursionError, LookupError, TypeError):
            said = next(iter(json.loads(answer.body)["errors"]))
            text = ": ".join(str(said[key]) for key in ("code", "message") if said.get(key))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"://[^\s/@]+@", "://***@", text)
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if len(text) > _QUOTED:
            text = f"{text[: _QUOTED - 3]}..."
        return f": {text!r}" if text else ""

    def _interrupted(self, error: Exception, url: str) -> Interrupted:
        """What has become of an exchange, as an error of ours."""
        host = _shown(url).partition("://")[2].partition("/")[0]
        cause: BaseException | None = error
        if isinstance(error, Unreachable):
            cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return Interrupted(_tls_failure(cause, host), passing=False)
        if isinstance(error, Unreachable) and error.proxy:
            wants = " wants a name and a password" if " 407 " in str(cause) else ""
            return Interrupted(
                TransportError(
                    f"the proxy {error.proxy}{wants or ' does not let us'} to {host}",
                    "see https_proxy, http_proxy and no_proxy in the environment",
                ),
                passing=False,
            )
        if isinstance(cause, socket.gaierror):
            return Interrupted(
                TransportError(
                    f"there is no host {host}, as far as this machine knows",
                    "see whether the name is right, and whether DNS works here",
                ),
                passing=False,
            )
        if isinstance(cause, ConnectionRefusedError):
            return Interrupted(
                TransportError(
                    f"{host} refuses the connection",
                    "see whether the registry runs, and on this port",
                ),
                passing=True,
            )
        if isinstance(cause, TimeoutError) and isinstance(error, Unreachable):
            return Interrupted(
                TransportError(
                    f"{host} does not answer: no connection in {self.limits.connect:g} seconds",
                    "see whether the port is right, and whether a firewall is between",
                ),
                passing=True,
            )
        if isinstance(cause, TimeoutError):
            return Interrupted(
                TransportError(
                    f"{host} has not sent or taken a byte for {self.limits.stall:g} seconds",
                    "see whether the network works, and run again",
                ),
                passing=True,
            )
        closed = (ConnectionError, ssl.SSLError, http.client.HTTPException)
        if isinstance(error, Unreachable) and not isinstance(cause, closed):
            return Interrupted(
                TransportError(
                    f"{host} can't be reached: {getattr(cause, 'strerror', None) or cause}",
                    "see whether the network works",
                ),
                passing=True,
            )
        return Interrupted(
            TransportError(
                f"{host} has closed the connection in the middle of an answer",
                "run again; if it stays so, ask who runs the registry",
            ),
            passing=True,
        )


def _context(access: Access, registry: str, origin: str, host: str) -> ssl.SSLContext:
    """The system's CAs, and those that are there for a registry (dockerd(8), certs.d).

    ``registry`` is its name in references, ``origin`` its URL, ``host`` who is spoken to.
    """
    named = os.environ.get("SSL_CERT_FILE")
    if named and not pathlib.Path(named).is_file():
        raise TransportError(
            f"SSL_CERT_FILE is {named}, and there is no such file",
            "name a file of certificates, or unset it",
        )
    context = ssl.create_default_context()
    files: list[tuple[pathlib.Path, pathlib.Path | None]] = []
    if access.ca is not None:
        files.append((access.ca, None))
    if f"https://{host}" == origin:
        for top in ("~/.docker", "/etc/docker", "~/.config/containers", "/etc/containers"):
            directory = pathlib.Path(top).expanduser() / "certs.d" / registry
            files += [(path, None) for path in sorted(directory.glob("*.crt"))]
            certificates = sorted(directory.glob("*.cert"))
            files += [(path, path.with_suffix(".key")) for path in certificates]
    for path, key in files:
        try:
            if key is None:
                context.load_verify_locations(path)
            else:
                context.load_cert_chain(path, key)
        except (OSError, ValueError) as error:
            raise TransportError(
                f"{path} can't be used as a certificate",
                "let it be a file that this user can read, in PEM format; the key of a "
                "client's .cert lies beside it as .key",
            ) from error
    return context


def _downgraded(url: str, other: str) -> bool:
    return url.startswith("https:") and not other.startswith("https:")


def _shown(url: str) -> str:
    """A URL without user, password and query, in which secrets are."""
    parts = urllib.parse.urlsplit(url)
    text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "".join(c if c.isprintable() else "?" for c in text)[:_QUOTED]


def _status(status: int) -> str:
    """A status with its name."""
    with contextlib.suppress(ValueError):
        return f"{status} {http.HTTPStatus(status).phrase}"
    return str(status)


def _tls_failure(error: ssl.SSLError, host: str) -> TransportError:
    code = getattr(error, "verify_code", None)
    if code in (_NOT_YET, _EXPIRED):
        what = "has expired" if code == _EXPIRED else "is not valid yet"
        return TransportError(
            f"the certificate of {host} {what}",
            "have it renewed, or see whether the clock of this machine is right",
        )
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return TransportError(
            f"the certificate of {host} is for another name",
            "use the name that it is for, or have one made for this name",
        )
    if code:
        return TransportError(
            f"the certificate of {host} is of nobody whom this machine trusts "
            f"({getattr(error, 'verify_message', '')})",
            f"put the certificate of its CA into ~/.docker/certs.d/{host}/ca.crt, or name it "
            f"in SSL_CERT_FILE or --ca",
        )
    reason = (error.reason or "no reason given").lower().replace("_", " ")
    if "version number" in reason or "http request" in reason or "record layer" in reason:
        return TransportError(
            f"{host} does not speak TLS",
            f"if it is meant to have none, name it: insecure-registries = {host}, or "
            f"--insecure {host}",
        )
    return TransportError(
        f"there is no TLS with {host}: {reason}",
        "see which versions of TLS and which certificates the registry wants",
    )


def _challenges(headers: Any) -> dict[str, dict[str, str]]:
    """What a server wants to be asked with, by scheme (RFC 9110, WWW-Authenticate)."""
    found: dict[str, dict[str, str]] = {}
    for line in headers.get_all("www-authenticate", []):
        current: dict[str, str] = {}
        for match in re.finditer(
            r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z][\w-]*)', line[:8192]
        ):
            name, quoted, plain, scheme = match.groups()
            if scheme:
                current = found.setdefault(scheme.lower(), {})
            else:
                text = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                current.setdefault(name.lower(), text)
    return found
