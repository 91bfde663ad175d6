"""A container engine, Docker's or podman: an image is put into it, layer by missing layer.

What a load takes is asked over the engine's socket with little of the standard library: to
import the docker SDK takes three times as long as the load of a changed line, and
``http.client`` is a tenth of it.  Where the engine is elsewhere (``ssh://``, ``tcp://`` with
TLS), and for all else, the SDK is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import socket
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

from eggcrate.errors import EggcrateError, TransportError
from eggcrate.image.stored import Stored

# what the docker SDK takes as well
_OLDEST = (1, 24)
_SECONDS = 600
# so many of its images an engine is asked for, and none where no more than so many bytes lack
_IMAGES = 100
_LITTLE = 1 << 18
# the longest line of an answer's head
_LINE = 1 << 16
# what an engine is asked first
_FIRST = "asked for its version"
_HOW_TO_START = (
    "start it (systemctl start docker, or for podman systemctl --user start podman.socket), or "
    "name another one with --host"
)


class Loaded(NamedTuple):
    """What a load has done: how many layers were sent, and how many bytes in all.

    ``engine`` is its name and version; ``unchanged`` says that the image was there.
    """

    engine: str
    sent: int
    size: int
    unchanged: bool = False


class _Api(Protocol):
    """What a load asks of an engine, as the docker SDK's ``APIClient`` has it."""

    def version(self, api_version: bool = True) -> dict[str, Any]:
        """What the engine is, and which version of the API it speaks."""

    def images(self, *, all: bool) -> list[dict[str, Any]]:  # noqa: A002 - the SDK's name for it
        """Its images, in short."""

    def inspect_image(self, image: str) -> dict[str, Any]:
        """All that it knows of an image."""

    def load_image(self, data: Iterable[bytes]) -> Iterable[dict[str, Any]]:
        """Load an archive; what it says meanwhile."""

    def tag(self, image: str, repository: str, tag: str) -> object:
        """Give an image a name."""

    def close(self) -> None:
        """Drop the connection."""


class _Refused(Exception):
    """The engine has answered with an error: what it says, and its status (RFC 9110)."""

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


def default_host(environ: Mapping[str, str] = os.environ) -> str:
    """The engine that the docker command would talk to, or podman when only that is there.

    ``DOCKER_HOST`` comes first, then the context that ``DOCKER_CONTEXT`` or Docker's
    ``config.json`` names.
    """
    if environ.get("DOCKER_HOST"):
        return environ["DOCKER_HOST"]
    home = pathlib.Path(environ.get("DOCKER_CONFIG") or pathlib.Path.home() / ".docker")
    context = environ.get("DOCKER_CONTEXT") or _read_json(home / "config.json").get(
        "currentContext"
    )
    if context and context != "default":
        import hashlib

        name = hashlib.sha256(str(context).encode()).hexdigest()
        meta = _read_json(home / "contexts" / "meta" / name / "meta.json")
        host = None
        with contextlib.suppress(KeyError, TypeError):
            host = meta["Endpoints"]["docker"]["Host"]
        if not isinstance(host, str) or not host:
            raise TransportError(
                f"there is no context {context!r} of Docker in {home}",
                "choose one with docker context use, or name the engine with --host",
            )
        return host
    places = ["/var/run/docker.sock"]
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        places += [f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock"]
    places.append("/run/podman/podman.sock")
    found = next((place for place in places if os.path.exists(place)), places[0])
    return f"unix://{found}"


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Engine:
    """An engine that answers at ``host``: ``unix://``, ``tcp://`` or ``ssh://``."""

    def __init__(self, host: str, *, whole_api: bool = False) -> None:
        self.host = host
        self._api: Any = None
        try:
            with self.asked(_FIRST):
                self._api = client_of(host) if _needs_sdk(host) else _Socket(host)
                version = self._api.version(api_version=False)
        except TransportError:
            self.close()
            raise
        components = version.get("Components") or []
        names = [str(one.get("Name", "")) for one in components if isinstance(one, dict)]
        self.is_podman = any("podman" in name.lower() for name in names)
        name = "podman" if self.is_podman else "Docker"
        number = str(version.get("Version", ""))
        self.name = f"{name} {'.'.join(number.split('.')[:2])}".strip()
        spoken = str(version.get("ApiVersion", ""))
        if _numbers(spoken) < _OLDEST:
            self.close()
            raise TransportError(
                f"{self.name} at {host} is too old: it speaks version {spoken} of the API, and "
                "1.24 is needed",
                "use Docker 1.12 or newer, or bin/image save and its own load command",
            )
        if whole_api and isinstance(self._api, _Socket):
            # that there is no engine is said without the SDK, which leaves sockets open then
            self._api.close()
            with self.asked(_FIRST):
                self._api = client_of(host, spoken)

    @property
    def api(self) -> Any:
        """The client of the docker SDK, for an engine made with ``whole_api``."""
        return self._api

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        if self._api is not None:
            self._api.close()

    @contextlib.contextmanager
    def asked(self, doing: str) -> Iterator[None]:
        """What goes wrong in the block becomes one of our errors."""
        try:
            yield
        except EggcrateError:
            raise
        except Exception as error:
            raise self._error(error, doing) from error

    def _error(self, error: Exception, doing: str) -> Exception:
        """What to say of an error of the SDK, of the socket or of the engine itself."""
        cause = _os_error(error)
        if isinstance(cause, PermissionError):
            return TransportError(
                f"user {os.geteuid()} may not use the engine at {self.host}",
                "add the user to the group of the socket (docker), or run as root",
            )
        if isinstance(cause, (FileNotFoundError, ConnectionRefusedError, socket.gaierror)):
            return TransportError(
                f"no container engine answers at {self.host}: {cause.strerror}", _HOW_TO_START
            )
        if isinstance(cause, TimeoutError):
            return TransportError(
                f"the engine at {self.host} did not answer in {_SECONDS} seconds when it was "
                f"{doing}",
                "see what its log says, and run again",
            )
        said, status = _said(error)
        if said is not None and not (doing is _FIRST and status == 404):
            return TransportError(
                f"the engine at {self.host} says {status or 'no'} when it was {doing}: {said}",
                "mend that, or see what its log says",
            )
        if cause is not None or (doing is not _FIRST and _broken_off(error)):
            return TransportError(
                f"the engine at {self.host} broke off when it was {doing}",
                "see whether it still runs and what its log says, and run again",
            )
        if doing is _FIRST:
            return TransportError(
                f"what answers at {self.host} is no container engine",
                "name the socket of one with --host",
            )
        return error

    # Loading

    def load(self, image: Stored) -> Loaded:
        """Put the image into the engine under all its names; only missing layers are sent.

        An engine that wants the whole archive gets it.
        """
        if self._has(image):
            return Loaded(self.name, 0, 0, unchanged=True)
        known = self._known_layers(image)
        try:
            size = self._send(image, known)
        except _Refused:
            if not known:
                raise
            # a layer has gone meanwhile, or this engine looks into the archive for all of them
            known = frozenset()
            size = self._send(image, known)
        if self.is_podman and len(image.references) > 1:
            self._has(image)  # all its names, of which the archive has one
        if self._id(image.references[0]) not in _ids(image):
            raise TransportError(
                f"{self.name} has loaded another image than {image.references[0]}",
                "see what its log says, and load again",
            )
        sent = [diff_id for diff_id in image.diff_ids if diff_id not in known]
        return Loaded(self.name, len(sent), size)

    def _inspected(self, reference: str) -> Mapping[str, Any] | None:
        """What is known of the image with that name or ID; None where there is none."""
        with self.asked("asked for an image"):
            try:
                return dict(self._api.inspect_image(reference))
            except Exception as error:
                if _said(error)[1] == 404:
                    return None
                raise

    def _id(self, reference: str) -> str | None:
        found = self._inspected(reference)
        return None if found is None else str(found["Id"]).removeprefix("sha256:")

    def _has(self, image: Stored) -> bool:
        """Whether the image was there; it has all its names now."""
        found = self._id(image.config.digest)
        if found is None:
            return False
        for reference in image.references:
            if self._id(reference) != found:
                repository, _, tag = reference.rpartition(":")
                with self.asked("asked to name an image"):
                    self._api.tag(image.config.digest, repository, tag)
        return True

    def _known_layers(self, image: Stored) -> frozenset[str]:
        """The diff ids of the image's layers that need not be sent.

        Docker knows a layer by all that is below it: one that comes later counts only where
        all before it are the same.  podman looks for each by itself.
        """
        best: frozenset[str] = frozenset()

        def enough(found: Mapping[str, Any] | None) -> bool:
            """Whether it is no use to ask on, now that the image ``found`` counts, too."""
            nonlocal best
            layers = ((found or {}).get("RootFS") or {}).get("Layers") or []
            if self.is_podman:
                best |= set(layers).intersection(image.diff_ids)
            else:
                count = _common(image.diff_ids, layers)
                best = max(best, frozenset(image.diff_ids[:count]), key=len)
            sizes = (
                layer.size
                for layer, diff_id in zip(image.layers, image.diff_ids, strict=True)
                if diff_id not in best
            )
            return sum(sizes) <= _LITTLE

        # the image of the same name most likely has the most
        if any(enough(self._inspected(reference)) for reference in image.references):
            return best
        names = {reference.rpartition(":")[0] for reference in image.references}
        with self.asked("asked for its images"):
            listed = self._api.images(all=True)
        listed.sort(
            key=lambda one: (
                not any(
                    _full_name(tag).rpartition(":")[0] in names
                    for tag in one.get("RepoTags") or ()
                ),
                -int(one.get("Created") or 0),
            )
        )
        any(enough(self._inspected(one["Id"])) for one in listed[:_IMAGES])
        return best

    def _send(self, image: Stored, known: Collection[str]) -> int:
        """How many bytes were sent; what the engine complains about in its answer is raised."""
        size = 0
        # podman takes a Docker archive only with all its layers
        archive = image.oci_archive if self.is_podman else image.docker_archive

        def counted() -> Iterator[bytes]:
            nonlocal size
            for data in archive(known):
                size += len(data)
                yield data

        try:
            with self.asked("sent the image"):
                for line in self._api.load_image(counted()):
                    if complaint := complaint_of(line):
                        raise _Refused(complaint)
        except TransportError as error:
            if known and _said(error.__cause__)[0] is not None:
                raise _Refused(error.what) from error
            raise
        return size

    # Building

    def has_buildkit(self) -> bool:
        """Whether BuildKit is to build: ``DOCKER_BUILDKIT`` decides, or else the engine."""
        if self.is_podman:
            return False
        if wanted := os.environ.get("DOCKER_BUILDKIT"):
            return wanted not in ("0", "false")
        with self.asked("asked how it builds"):
            answer = self._api.get(f"{self._api.base_url}/_ping")
            return bool(answer.headers.get("Builder-Version") == "2")

    def build(
        self,
        context: pathlib.Path,
        references: Sequence[str],
        *,
        names: Sequence[str],
        arguments: Mapping[str, str],
        network: str,
        buildkit: bool,
    ) -> tuple[str, int]:
        """The ID and the size of the image that the engine builds of a directory.

        ``names`` are what is sent of it; one of them is the Dockerfile.  The names of the image
        change when it is complete.
        """
        query = {
            "buildargs": json.dumps(dict(arguments)),
            "dockerfile": "Dockerfile",
            "t": references[0],
            "rm": "1",
            "forcerm": "1",
            **({"networkmode": network} if network else {}),
            **({"version": "2"} if buildkit else {}),
        }
        # who loads an image needs none of these
        import collections
        import logging

        from eggcrate.image.progress import status

        logger = logging.getLogger(__name__)
        last: collections.deque[str] = collections.deque(maxlen=15)
        with self.asked("asked to build"), status(logger, "building") as told:
            answer = self._api.post(
                f"{self._api.base_url}/v{self._api.api_version}/build",
                params=query,
                data=_tar(context, names),
                headers={"Content-Type": "application/x-tar"},
                stream=True,
                # the least of an engine's answers is a step of the Dockerfile
                timeout=(_SECONDS, None),
            )
            if answer.status_code >= 400:
                raise _Refused(_message(answer.content, answer.reason), answer.status_code)
            for data in answer.iter_lines():
                line = json.loads(data) if data else {}
                if complaint := complaint_of(line):
                    self._failed(complaint, last)
                for text in _told(line):
                    if not _CHATTER.match(text):
                        last.append(text)
                    logger.debug("%s", text)
                    told(text[:60] if _STEP.match(text) else "")
        with self.asked("asked for an image"):
            found = self._api.inspect_image(references[0])
            for reference in references[1:]:
                repository, _, tag = reference.rpartition(":")
                self._api.tag(found["Id"], repository, tag)
        return str(found["Id"]), int(found.get("Size") or 0)

    def push(self, image: str, reference: str) -> str:
        """Have the engine push an image of its own under a name; its manifest's digest.

        It is the engine that talks to the registry, with the credentials of this user.
        """
        repository, _, tag = reference.rpartition(":")
        digest = ""
        with self.asked("asked to push"):
            if image != reference:
                self._api.tag(image, repository, tag)
            for line in self._api.push(repository, tag, stream=True, decode=True):
                if complaint := complaint_of(line):
                    raise TransportError(
                        f"{self.name} could not push {reference}: {complaint}",
                        "mend that: docker login says who you are, and the engine's own "
                        "settings which registries it may use without TLS",
                    )
                # podman says it in words alone
                words = re.search(r": digest: (sha256:[0-9a-f]{64}) ", line.get("status") or "")
                digest = (line.get("aux") or {}).get("Digest") or (
                    words[1] if words else digest
                )
        return digest

    def _failed(self, complaint: str, last: Iterable[str]) -> None:
        lines = "".join(f"\n    {line}" for line in last)
        raise TransportError(
            f"{self.name} could not build the image: {complaint}{lines}",
            "mend what the last lines say, and run again",
        )


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# of the classic builder, about what it makes
_CHATTER = re.compile(r" ---> |Removing intermediate container ")
_STEP = re.compile(r"Step \d|STEP \d|\[")


def _tar(context: pathlib.Path, names: Sequence[str]) -> Iterator[bytes]:
    """A directory as a tar, piece by piece; no times and owners, on which no layer depends."""
    from eggcrate.image.layers import BLOCKSIZE, tar_header
    from eggcrate.image.plan import FileEntry, FileType

    for name in names:
        top = context / name
        paths = [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]
        for path in paths:
            place = path.relative_to(context).as_posix()
            if path.is_symlink():
                yield tar_header(
                    FileEntry(
                        place, FileType.SYMLINK, 0o777, "", "", linkname=os.readlink(path)
                    ),
                    0,
                )
            elif path.is_dir():
                yield tar_header(FileEntry(place, FileType.DIRECTORY, 0o755, "", ""), 0)
            else:
                data = path.read_bytes()
                mode = path.stat().st_mode & 0o777
                yield tar_header(
                    FileEntry(place, FileType.REGULAR, mode, "", "", size=len(data)), 0
                )
                yield data + bytes(-len(data) % BLOCKSIZE)
    yield bytes(2 * BLOCKSIZE)


def _told(line: Mapping[str, Any]) -> Iterator[str]:
    """The lines of text in a line of a build's answer."""
    if line.get("id") == "moby.buildkit.trace" and isinstance(line.get("aux"), str):
        import base64

        texts = _traced(base64.b64decode(line["aux"]))
    else:
        texts = iter((str(line.get("stream") or ""),))
    for text in texts:
        for one in re.split(r"[\r\n]+", _COLOUR.sub("", text)):
            if one.strip():
                yield one.rstrip()


def _traced(data: bytes) -> Iterator[str]:
    """The texts in a message of BuildKit (its control.proto, StatusResponse): names of
    steps, as they begin, and what they print."""
    for number, value in _fields(data):
        if number not in (1, 3) or not isinstance(value, bytes):
            continue
        inner = dict(_fields(value))
        # a vertex has a name, and is told again when it has ended; a log has a message
        text = inner.get(3 if number == 1 else 4)
        if isinstance(text, bytes) and (number == 3 or (5 in inner and 6 not in inner)):
            yield text.decode("utf-8", "replace")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message of protocol buffers: bytes, or numbers where they are."""
    at = 0

    def number() -> int:
        nonlocal at
        found = shift = 0
        while at < len(data):
            byte = data[at]
            at += 1
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return found

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
        elif kind == 2:
            size = number()
            yield key >> 3, data[at : at + size]
            at += size
        else:
            at += {1: 8, 5: 4}.get(kind, len(data))


def _message(data: bytes, otherwise: str) -> str:
    """What an engine says with a status that is an error."""
    try:
        return str(json.loads(data)["message"])
    except (ValueError, LookupError, TypeError):
        return data[:200].decode("utf-8", "replace") or otherwise


def complaint_of(line: Mapping[str, Any]) -> str:
    """What a line of an engine's answer complains about; nothing where it is no error."""
    detail = line.get("errorDetail")
    if isinstance(detail, dict) and detail.get("message"):
        return str(detail["message"])
    return str(line.get("error") or "")


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count


def _full_name(reference: str) -> str:
    """A name with its registry, as an image layout has it."""
    host, slash, _ = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    if host == "localhost" or "." in host or ":" in host:
        return reference
    return f"docker.io/{reference}"


def _ids(image: Stored) -> set[str]:
    """What an engine may call the image: by its config, or where containerd keeps images, by
    its manifest."""
    return {
        image.config.digest.partition(":")[2],
        image.manifest.digest.partition(":")[2],
    }


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _os_error(error: BaseException | None) -> OSError | None:
    """The error of the system that an error comes from.

    requests and urllib3 have it among their arguments.
    """
    seen: set[int] = set()
    pending: list[Any] = [error]
    while pending:
        one = pending.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and (
            one.errno is not None or isinstance(one, TimeoutError)
        ):
            return one
        pending += [one.__cause__, one.__context__, *one.args, getattr(one, "reason", None)]
    return None


def _said(error: BaseException | None) -> tuple[str | None, int]:
    """What an engine has answered, and with which status; None where it has not."""
    if isinstance(error, _Refused):
        return str(error), error.status
    explanation = getattr(error, "explanation", None)  # docker.errors.APIError
    if explanation is not None:
        return str(explanation), int(getattr(error, "status_code", 0) or 0)
    return None, 0


def _broken_off(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        names & {"HTTPException", "ChunkedEncodingError", "ConnectionError", "ValueError"}
    )


# The docker SDK


def _needs_sdk(host: str) -> bool:
    return host.startswith(("ssh://", "https://", "npipe://")) or (
        host.startswith("tcp://") and bool(os.environ.get("DOCKER_TLS_VERIFY"))
    )


def client_of(host: str, version: str = "auto") -> Any:
    """A client of the docker SDK, which speaks that version of the API."""
    try:
        import docker
        import docker.tls
    except ImportError as error:
        raise TransportError(
            "the docker SDK, which talks to the Docker Engine, is not here",
            "install it beside zc.buildout, .venv/bin/python -m pip install docker, and run "
            "bin/buildout, which writes bin/image anew",
        ) from error
    reach(host)
    tls: Any = False
    if os.environ.get("DOCKER_TLS_VERIFY") and host.startswith("tcp://"):
        place = pathlib.Path(
            os.environ.get("DOCKER_CERT_PATH") or pathlib.Path.home() / ".docker"
        )
        tls = docker.tls.TLSConfig(
            client_cert=(str(place / "cert.pem"), str(place / "key.pem")),
            ca_cert=str(place / "ca.pem"),
            verify=True,
        )
    return docker.APIClient(
        base_url=host,
        version=version,
        timeout=_SECONDS,
        tls=tls,
        use_ssh_client=host.startswith("ssh://"),
    )


# The socket


class _Answer(NamedTuple):
    """An answer over HTTP; the names of its headers are in lower case.

    ``last`` says that the connection ends with it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    last: bool


def reach(host: str) -> None:
    """Nothing, when somebody listens at a ``unix://`` address; OSError when nobody does.

    The docker SDK would leave the socket open with which it has found that out.
    """
    if host.startswith("unix://"):
        _unix(host.removeprefix("unix://")).close()


class _Socket:
    """An engine's API over a socket, as far as a load needs it."""

    def __init__(self, host: str) -> None:
        scheme, _, rest = host.partition("://")
        self._connect: Callable[[], socket.socket]
        self._name = "localhost"
        if scheme == "unix":
            self._connect = lambda: _unix(rest)
        else:
            address = urllib.parse.urlsplit(f"//{rest}")
            if scheme not in ("tcp", "http") or not address.hostname:
                raise TransportError(
                    f"{host} is no address of an engine",
                    "write unix:///run/docker.sock, tcp://HOST:2375 or ssh://USER@HOST",
                )
            self._name = address.netloc
            place = (address.hostname, address.port or 2375)
            self._connect = lambda: socket.create_connection(place, _SECONDS)
        self._connection: socket.socket | None = None
        self._stream: BinaryIO | None = None
        self._prefix = ""

    def close(self) -> None:
        """Drop the connection."""
        if self._stream is not None:
            self._stream.close()
        if self._connection is not None:
            self._connection.close()
        self._stream = self._connection = None

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Iterable[bytes] | None = None,
    ) -> _Answer:
        target = self._prefix + urllib.parse.quote(path, safe="/:")
        if query:
            target += f"?{urllib.parse.urlencode(query)}"
        head = [f"{method} {target} HTTP/1.1", f"Host: {self._name}"]
        if body is not None:
            head += ["Content-Type: application/x-tar", "Transfer-Encoding: chunked"]
        elif method == "POST":
            head.append("Content-Length: 0")
        answer = None
        try:
            answer = self._answered("\r\n".join([*head, "", ""]).encode(), body)
        finally:
            # after an error nobody knows what comes next
            if answer is None or answer.last or body is not None:
                self.close()
        if answer.status >= 400:
            raise _Refused(_message(answer.body, str(answer.status)), answer.status)
        return answer

    def _answered(self, head: bytes, body: Iterable[bytes] | None) -> _Answer:
        if self._connection is None or self._stream is None:
            self._connection = self._connect()
            self._stream = self._connection.makefile("rb")
        try:
            self._connection.sendall(head)
            if body is not None:
                for data in body:
                    if data:
                        self._connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
                self._connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            if body is None:
                raise
            # it may have answered before it had read all
        return _answer(self._stream)

    def version(self, api_version: bool = True) -> dict[str, Any]:
        """What the engine is; from now on its own version of the API is spoken."""
        found = self._pinged() or dict(json.loads(self._ask("GET", "/version").body))
        spoken = str(found["ApiVersion"])
        self._prefix = f"/v{spoken}" if re.fullmatch(r"[0-9.]+", spoken) else ""
        return found

    def _pinged(self) -> dict[str, Any]:
        """What an answer without content says; for /version Docker asks runc and others."""
        try:
            headers = self._ask("GET", "/_ping").headers
        except _Refused:
            return {}
        # Docker/28.2.2 (linux), Libpod/4.3.1 (linux)
        server = re.match(r"(Docker|Libpod)/(\S+)", headers.get("server", ""))
        if server is None or not headers.get("api-version"):
            return {}
        name = {"Docker": "Engine", "Libpod": "Podman Engine"}[server[1]]
        return {
            "ApiVersion": headers["api-version"],
            "Version": server[2],
            "Components": [{"Name": name}],
        }

    def images(self, *, all: bool) -> list[dict[str, Any]]:  # noqa: A002 - the SDK's name for it
        """Its images, in short."""
        found = json.loads(self._ask("GET", "/images/json", {"all": str(int(all))}).body)
        return list(found)

    def inspect_image(self, image: str) -> dict[str, Any]:
        """All that it knows of an image."""
        return dict(json.loads(self._ask("GET", f"/images/{image}/json").body))

    def load_image(self, data: Iterable[bytes]) -> Iterable[dict[str, Any]]:
        """Load an archive; what it says meanwhile."""
        answer = self._ask("POST", "/images/load", {"quiet": "1"}, data).body
        return [json.loads(line) for line in answer.splitlines() if line.strip()]

    def tag(self, image: str, repository: str, tag: str) -> object:
        """Give an image a name."""
        query = {"repo": repository, "tag": tag}
        return self._ask("POST", f"/images/{image}/tag", query)


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_SECONDS)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _answer(stream: BinaryIO) -> _Answer:
    """The next answer (RFC 9112); ValueError for what is none."""
    status = 100
    headers: dict[str, str] = {}
    version = ""
    while 100 <= status < 200:
        line = stream.readline(_LINE)
        if not line:
            raise ConnectionResetError("no answer")
        version, _, rest = line.decode("latin-1").partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(line)
        status = int(rest[:3])
        headers = {}
        while header := stream.readline(_LINE).decode("latin-1").rstrip("\r\n"):
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
    closes = version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
    if status in (204, 304):
        return _Answer(status, headers, b"", closes)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = []
        while size := int(stream.readline(_LINE).partition(b";")[0], 16):
            body.append(_exactly(stream, size))
            stream.readline(_LINE)
        while stream.readline(_LINE).strip():
            pass
        return _Answer(status, headers, b"".join(body), closes)
    if "content-length" in headers:
        data = _exactly(stream, int(headers["content-length"]))
        return _Answer(status, headers, data, closes)
    return _Answer(status, headers, stream.read(), True)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionResetError("the answer ends too early")
    return data
