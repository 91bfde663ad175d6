"""The real servers that tests use, as zope.testrunner layers.

A test names its layer, and asks for it in its own ``setUp``::

    class ImageRuns(unittest.TestCase):
        layer = layers.DOCKER_ENGINE

        def setUp(self) -> None:
            self.layer.require(self)

Where a server can't be had its tests are skipped, with the reason and the command that
would provide it; where ``EGGCRATE_REQUIRE=all`` is set they fail.  (zope.testrunner takes
a skip in a layer's ``setUp`` for an error, so the layer only notes the reason.)

Every server keeps all of its files below a temporary directory of its own, listens on
loopback or on a socket there, and shares nothing with one that the machine runs already.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import random
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

PROGRAMS_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def skip(test: unittest.TestCase, reason: str) -> None:
    """Skip the test, or fail it where everything is required."""
    if os.environ.get("EGGCRATE_REQUIRE") == "all":
        test.fail(reason)
    test.skipTest(reason)


def free_port() -> int:
    """A TCP port that nobody listens on, which nobody else is given meanwhile.

    The kernel gives those of its own range to whoever asks for any port, and to every
    connection that leaves: one that is free there may be taken before a server has begun.
    """
    first, last = 32768, 65535
    with contextlib.suppress(OSError):
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        first, last = map(int, text.split())
    every = range(10_000, 65_536)
    ports = [port for port in every if not first <= port <= last] or [*every]
    # two runs of the tests at a time hardly begin at the same one
    random.shuffle(ports)
    for port in ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError("this machine has no free port")


_given: set[int] = set()


@dataclasses.dataclass(frozen=True)
class Response:
    """An answer over HTTP, whatever its status; redirects are not followed."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def get(url: str, headers: Mapping[str, str] | None = None, timeout: float = 30) -> Response:
    """Ask for ``http://HOST:PORT/PATH``; ``OSError`` when nobody answers."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    return _answer(connection, urllib.parse.urlunsplit(("", "", *parts[2:])), headers or {})


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _answer(
    connection: http.client.HTTPConnection, target: str, headers: Mapping[str, str]
) -> Response:
    with contextlib.closing(connection):
        try:
            connection.request("GET", target or "/", headers=dict(headers))
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"no answer over HTTP: {error!r}") from error


# Where a hostile input lies, and what it would read or destroy if it could
SANDBOX = "/mnt"
CANARY = "a secret of this machine"


@dataclasses.dataclass(frozen=True)
class Sandboxed:
    """What a program said, and which paths outside of its own directory it has changed."""

    stdout: str
    changed: list[str]


def sandboxed(test: unittest.TestCase, given: Path, program: str) -> Sandboxed:
    """Run Python code where it can destroy nothing but canaries.

    All file systems are read-only, but for one in memory at ``SANDBOX``: there are a copy of
    ``given`` and a directory to write to, which are the program's two arguments, and the
    canaries, in ``canary``.
    """
    command = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        skip(test, "mounting takes rights that this user lacks; run as root")
    script = f"""
        set -e
        mount --make-rprivate /
        mount -t tmpfs -o mode=755 none {SANDBOX}
        cp -r {shlex.quote(str(given))} {SANDBOX}/given
        awk '{{print $2}}' /proc/mounts | sort -ru | while read -r place; do
            case $place in /proc*|/sys*|/dev*|{SANDBOX}) continue;; esac
            mount -o remount,bind,ro "$place" 2>/dev/null || :
        done
        mkdir {SANDBOX}/canary {SANDBOX}/own
        printf %s {shlex.quote(CANARY)} | tee {SANDBOX}/kept > {SANDBOX}/canary/kept
        cd {SANDBOX}
        state() {{ find . -path ./own -prune -o -printf '%p %y %m %s %n %T@ %l\\n' | sort; }}
        state > own/before
        export TMPDIR={SANDBOX}/own
        {shlex.quote(sys.executable)} -c "$0" {SANDBOX}/given {SANDBOX}/own || :
        printf '\\n--\\n'
        state | diff own/before - | sed 's/^/changed /'
        """
    done = subprocess.run(
        [*command, "sh", "-c", script, program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    stdout, _, changed = done.stdout.rpartition("\n--\n")
    test.assertEqual(done.returncode, 0, done.stdout)
    return Sandboxed(stdout, changed.splitlines())


class Layer:
    """Something that tests need and that a machine may not have.

    ``unavailable`` says why it can't be had, and the command that would provide it; it
    is empty once the layer is set up.
    """

    # A layer that is an instance has no base layers.  zope.testrunner sets up and tears
    # down the bases of one that is a class, its own class for instance.
    __bases__: tuple[Any, ...] = ()

    def __init__(self, name: str, package: str) -> None:
        self.__name__ = name
        self._package = package
        self.unavailable = f"the layer {name} is not set up"

    def setUp(self) -> None:
        self.unavailable = ""

    def tearDown(self) -> None:
        self.unavailable = f"the layer {self.__name__} is torn down"

    def require(self, test: unittest.TestCase) -> None:
        """Skip the test if the layer can't be had, or fail it where it has to be."""
        if self.unavailable:
            skip(test, self.unavailable)

    def _program(self, name: str) -> str:
        """Where a program is; when it is not there, that is why the layer is not."""
        program = shutil.which(name, path=PROGRAMS_PATH)
        if program is None:
            self.unavailable = f"{name} is not here; apt-get install {self._package}"
        return program or ""


class Nginx(Layer):
    """nginx itself: ``program``."""

    program = ""

    def setUp(self) -> None:
        super().setUp()
        self.program = self._program("nginx")


class _Server(Layer):
    """A layer with a directory of its own, and at most one process."""

    directory = Path()
    environ: MutableMapping[str, str] = os.environ
    _process: subprocess.Popen[bytes] | None = None

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(tempfile.mkdtemp(prefix=f"eggcrate-{self.__name__.lower()}-"))
        # zope.testrunner tears nothing down when it is interrupted
        atexit.register(self.tearDown)
        try:
            self._start()
        except BaseException:
            self.tearDown()
            raise
        if self.unavailable:
            reason = self.unavailable
            self.tearDown()
            self.unavailable = reason

    def _start(self) -> None:
        """Start what there is to start, or say why not in ``unavailable``."""

    def tearDown(self) -> None:
        super().tearDown()
        if self._process is not None:
            _end(self._process)
            self._process = None
        if self.directory != Path():
            _unmount_below(self.directory)
            shutil.rmtree(self.directory)
            self.directory = Path()
            atexit.unregister(self.tearDown)

    def _spawn(
        self, argv: Sequence[str | Path], ready: Callable[[], bool], *, seconds: float = 120
    ) -> None:
        """Start the server, and wait until it is ready to answer."""
        log = self.directory / "log"
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**self.environ, "PATH": PROGRAMS_PATH},
                # Ctrl-C is for the test runner, which then tears down
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if ready():
                    return
            time.sleep(0.05)
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        self.unavailable = (
            f"{Path(argv[0]).name} doesn't start here: {' '.join(last) or 'it says nothing'}; "
            f"try it as root, with no container around it: {shlex.join(map(str, argv))}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process of ours end, or else end it."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unmount_below(directory: Path) -> None:
    """Unmount what a server has left mounted in its directory."""
    if not Path("/proc/self/mountinfo").exists():
        return
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        # octal escapes stand for white space (proc(5))
        target = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4])
        if Path(target).is_relative_to(directory):
            subprocess.run(["umount", "--lazy", target], check=True)


class Registry(_Server):
    """Debian's docker-registry on loopback, without a password: ``host``, and ``url``."""

    host = ""

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def _more(self) -> dict[str, Any]:
        """What its configuration has beside; sections replace those of the same name."""
        return {}

    def _start(self) -> None:
        program = self._program("docker-registry")
        if self.unavailable:
            return
        self.host = f"127.0.0.1:{free_port()}"
        config = self.directory / "config.yml"
        # JSON is YAML
        config.write_text(
            json.dumps(
                {
                    "version": "0.1",
                    "log": {"level": "warn"},
                    "storage": {
                        "filesystem": {"rootdirectory": str(self.directory / "storage")},
                        "delete": {"enabled": True},
                    },
                    "http": {"addr": self.host},
                    **self._more(),
                }
            )
        )
        self._spawn([program, "serve", config], self._answers)

    def _answers(self) -> bool:
        address, _, port = self.host.partition(":")
        with socket.create_connection((address, int(port)), 5):
            return True


class RegistryBehindNginx(Registry):
    """One that is reached through an nginx: ``host`` is nginx's, ``url`` the registry's own."""

    _front: subprocess.Popen[bytes] | None = None

    def _start(self) -> None:
        self._nginx = self._program("nginx")
        super()._start()
        self._behind = self.host
        self.host = f"127.0.0.1:{free_port()}"

    @property
    def url(self) -> str:
        return f"http://{self._behind}"

    def front(self, directives: str) -> None:
        """Start nginx anew, with these directives in its server block."""
        self._end_front()
        configuration = self.directory / "nginx.conf"
        temporary = "".join(
            f"{name}_temp_path {self.directory}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        configuration.write_text(
            f"""\
daemon off; master_process off; error_log stderr; pid {self.directory}/nginx.pid;
events {{}}
http {{
    access_log off; {temporary}
    server {{
        listen {self.host};
        {directives}
        location / {{ proxy_pass {self.url}; proxy_set_header Host $http_host; }}
    }}
}}
"""
        )
        with (self.directory / "nginx.log").open("wb") as log:
            self._front = subprocess.Popen(
                [self._nginx, "-p", self.directory, "-e", "stderr", "-c", configuration],
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._front.poll() is None:
            with contextlib.suppress(OSError):
                if self._answers():
                    return
            time.sleep(0.02)
        raise AssertionError((self.directory / "nginx.log").read_text())

    def _end_front(self) -> None:
        if self._front is not None:
            _end(self._front)
            self._front = None

    def tearDown(self) -> None:
        self._end_front()
        super().tearDown()


class PasswordRegistry(Registry):
    """One that knows the user ``pusher`` with ``password``."""

    password = "canary-4bQx-password"

    def _more(self) -> dict[str, Any]:
        users = self.directory / "htpasswd"
        users.write_text(
            "pusher:$2b$04$dsU1gXlXfi/Pj3My8ZdlS.MTKAfI88aX7leOb8MCyvFmcmbmiBIFW\n"
        )
        return {"auth": {"htpasswd": {"realm": "eggcrate", "path": str(users)}}}


class TLSRegistry(Registry):
    """One with HTTPS, whose certificate is of a CA of the tests' own: ``ca``."""

    ca = Path()

    def _more(self) -> dict[str, Any]:
        self.ca = self.directory / "ca.crt"
        certificate(self.directory, "server")
        return {
            "http": {
                "addr": self.host,
                "tls": {
                    "certificate": str(self.directory / "server.crt"),
                    "key": str(self.directory / "server.key"),
                },
            }
        }


def certificate(
    directory: Path, name: str, *, address: str = "127.0.0.1", days: int = 30
) -> None:
    """``NAME.crt`` and ``NAME.key`` for an address, by the CA ``ca.crt``, made if need be."""
    commands = []
    if not (directory / "ca.crt").exists():
        commands.append(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 "
            "-subj /CN=tests -keyout ca.key -out ca.crt"
        )
    (directory / f"{name}.names").write_text(f"subjectAltName=IP:{address}")
    commands.append(
        f"req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} "
        f"-keyout {name}.key -out {name}.csr"
    )
    commands.append(
        f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {days} "
        f"-extfile {name}.names -out {name}.crt"
    )
    for command in commands:
        subprocess.run(
            ["openssl", *command.split()], cwd=directory, check=True, capture_output=True
        )


class TokenRegistry(Registry):
    """One that wants tokens of a service of the tests' own, at ``token_host``.

    ``lifetime`` is that of a token, in seconds.  The user is ``pusher`` with ``password``;
    without a password a token is for pulling.  ``asked`` has the headers of each request.
    """

    password = "canary-7tWv-password"
    token_host = ""
    lifetime = 60
    _service: http.server.ThreadingHTTPServer | None = None

    def _more(self) -> dict[str, Any]:
        certificate(self.directory, "signer")
        registry = self

        class Service(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                login = base64.b64encode(f"pusher:{registry.password}".encode()).decode()
                given = self.headers.get("authorization")
                registry.asked.append(dict(self.headers))
                status, answer = 200, {"token": registry.token(query["scope"], bool(given))}
                if given not in (None, f"Basic {login}"):
                    status, answer = 401, {"details": "wrong"}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.asked: list[dict[str, str]] = []
        self._service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=self._service.serve_forever, daemon=True).start()
        self.token_host = f"127.0.0.1:{self._service.server_address[1]}"
        return {
            "auth": {
                "token": {
                    "realm": f"http://{self.token_host}/token",
                    "service": "tests",
                    "issuer": "eggcrate",
                    "rootcertbundle": str(self.directory / "ca.crt"),
                }
            }
        }

    def token(self, scopes: Sequence[str], may_push: bool) -> str:
        """A token for these scopes, signed as JWT wants it (RFC 7515, ES256)."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [a for a in actions.split(",") if may_push or a == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        der = subprocess.run(
            ["openssl", "x509", "-in", "signer.crt", "-outform", "DER"],
            cwd=self.directory, check=True, capture_output=True,
        ).stdout  # fmt: skip
        now = int(time.time())
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        body = {
            "iss": "eggcrate", "sub": "pusher", "aud": "tests", "access": access, "iat": now,
            "nbf": now - 5, "exp": now + self.lifetime, "jti": secrets.token_hex(8),
        }  # fmt: skip
        text = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", "signer.key"],
            cwd=self.directory, check=True, capture_output=True, input=text.encode(),
        ).stdout  # fmt: skip
        return f"{text}.{_base64(_raw_signature(signed))}"

    def tearDown(self) -> None:
        if self._service is not None:
            self._service.shutdown()
            self._service.server_close()
            self._service = None
        super().tearDown()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw_signature(der: bytes) -> bytes:
    """The two numbers of an ECDSA signature side by side, as JWT wants them."""
    numbers, place = [], 2
    for _ in range(2):
        length = der[place + 1]
        numbers.append(int.from_bytes(der[place + 2 : place + 2 + length], "big"))
        place += 2 + length
    return b"".join(number.to_bytes(32, "big") for number in numbers)


class Container:
    """A container that an engine's layer runs on the machine's own network."""

    def __init__(self, engine: Engine, identifier: str) -> None:
        self.engine = engine
        self.identifier = identifier

    def logs(self) -> str:
        """What its processes have written so far, to either stream."""
        return self.engine.cli("logs", self.identifier, streams_together=True)

    def inspect(self) -> dict[str, Any]:
        """What the engine knows of it."""
        deadline = time.monotonic() + 30
        while True:
            try:
                found: list[dict[str, Any]] = json.loads(
                    self.engine.cli("inspect", self.identifier)
                )
            except AssertionError as error:
                # podman stumbles over a process that ends while it looks
                gone = re.search(r"/proc/\d+/\w+: no such (?:process|file)", str(error))
                if not gone or time.monotonic() > deadline:
                    raise
            else:
                return found[0]

    def exit_code(self) -> int | None:
        """What its first process has left; None as long as it runs."""
        state = self.inspect()["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def wait(self, seconds: float = 120) -> int:
        """The exit code of its first process, which ends on its own."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code()) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"it still runs after {seconds} s; logs:\n{self.logs()}")
            time.sleep(0.05)
        return code

    def wait_http(
        self, port: int, path: str = "/", *, status: int = 200, seconds: float = 120
    ) -> Response:
        """The first answer with that status on a port of the machine's loopback."""
        deadline = time.monotonic() + seconds
        last = "no answer"
        while True:
            try:
                response = get(f"http://127.0.0.1:{port}{path}")
            except OSError as error:
                last = str(error)
            else:
                if response.status == status:
                    return response
                last = f"{response.status} {response.body[:200]!r}"
            code = self.exit_code()
            if code is not None:
                raise AssertionError(f"it has ended with {code}; logs:\n{self.logs()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{path}: {last}; logs:\n{self.logs()}")
            time.sleep(0.05)

    def stop(self, timeout: int = 10) -> int:
        """Send its stop signal, after ``timeout`` seconds SIGKILL; give the exit code."""
        self.engine.cli("stop", "--time", str(timeout), self.identifier)
        return self.wait()

    def remove(self) -> None:
        """Take it away, running or not, with its anonymous volumes."""
        self.engine.cli("rm", "--force", "--volumes", self.identifier)


class Engine(_Server):
    """What the two engines have in common: a command with Docker's syntax.

    ``environ`` makes the command, and whatever else reads it, use this engine.
    """

    _command = ""
    _read_only: tuple[str, ...] = ("--read-only",)

    def setUp(self) -> None:
        self.environ = dict(os.environ)
        super().setUp()

    def cli(self, *arguments: str | Path, streams_together: bool = False) -> str:
        """Call the engine's command; its output, or ``AssertionError`` with its complaint."""
        process = subprocess.run(
            [self._command, *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if streams_together else subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=300,
            check=False,
        )
        if process.returncode:
            command = shlex.join(map(str, process.args))
            complaint = process.stdout if streams_together else process.stderr
            raise AssertionError(f"{command}: {process.returncode}, {complaint}")
        return process.stdout

    def load(self, archive: Path) -> str:
        """Load an image from its archive; the name or digest to run it by."""
        output = self.cli("load", "--quiet", "--input", archive)
        found = re.search(r"Loaded image(?:\(s\))?(?: ID)?: (\S+)", output)
        if not found:
            raise AssertionError(f"no image in what load says: {output}")
        return found[1]

    def run(
        self,
        image: str,
        *,
        args: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        user: str = "",
        read_only: bool = False,
        tmpfs: Iterable[str] = (),
        options: Iterable[str] = (),
    ) -> Container:
        """Start a container on the machine's network; it stays until it is removed.

        ``args`` come after the image, ``tmpfs`` are directories, with options after a
        colon, and ``options`` go to the command as they are.
        """
        arguments = ["run", "--detach", "--network", "host"]
        if user:
            arguments += ["--user", user]
        if read_only:
            arguments += self._read_only
        for directory in tmpfs:
            arguments += ["--tmpfs", directory]
        for name, value in (env or {}).items():
            arguments += ["--env", f"{name}={value}"]
        output = self.cli(*arguments, *options, image, *args)
        return Container(self, output.split()[-1])

    def tearDown(self) -> None:
        # Containers first: their processes are not the server's children.
        if self.directory != Path() and not self.unavailable:
            with contextlib.suppress(AssertionError):
                for identifier in self.cli("ps", "--all", "--quiet", "--no-trunc").split():
                    Container(self, identifier).remove()
        super().tearDown()


class DockerEngine(Engine):
    """A dockerd of the tests' own, which only root can start: ``host`` is its address.

    ``client()`` is a client of the docker SDK; in ``environ`` DOCKER_HOST is ``host``.
    """

    host = ""

    def client(self) -> Any:
        """A client of the docker SDK; close it after use."""
        import docker  # imported by few tests only, and slowly

        return docker.DockerClient(base_url=self.host)

    def _start(self) -> None:
        program = self._program("dockerd")
        self._command = self._program("docker")
        if os.geteuid():
            self.unavailable = "only root can start a dockerd; sudo bin/test"
        if self.unavailable:
            return
        endpoint = self.directory / "docker.sock"
        self.host = f"unix://{endpoint}"
        # Without these, the user's or the machine's configuration would have a say.
        daemon = self.directory / "daemon.json"
        daemon.write_text("{}")
        for name in [name for name in self.environ if name.startswith("DOCKER_")]:
            del self.environ[name]
        self.environ.update(DOCKER_HOST=self.host, DOCKER_CONFIG=str(self.directory / "client"))
        self._spawn(
            [
                program,
                f"--host={self.host}",
                f"--config-file={daemon}",
                f"--data-root={self.directory / 'data'}",
                f"--exec-root={self.directory / 'exec'}",
                f"--pidfile={self.directory / 'pid'}",
                # where containerd runs already, dockerd uses it
                *(
                    "--containerd-namespace=eggcrate",
                    "--containerd-plugins-namespace=eggcrate-p",
                ),
                # a network of its own would change the machine's
                *("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
            ],
            lambda: _answer(_UnixConnection(endpoint), "/_ping", {}).status == 200,
        )


class Podman(Engine):
    """podman with a storage of the tests' own; as root, for that is what works everywhere.

    ``serve()`` is the address at which it speaks Docker's API, ``registries`` its
    registries.conf.
    """

    # podman's own meaning of --read-only is: but for /run, /tmp and /var/tmp
    _read_only = ("--read-only", "--read-only-tmpfs=false")

    def _start(self) -> None:
        self._command = self._program("podman")
        if not shutil.which("runc", path=PROGRAMS_PATH):
            self.unavailable = "runc is not here; apt-get install runc"
        if os.geteuid():
            self.unavailable = "podman runs as root here; sudo bin/test"
        if self.unavailable:
            return
        storage = self.directory / "storage.conf"
        # crun wants a pure hierarchy of control groups, and journald a systemd; a limit
        # above the runner's own is refused inside many virtual machines.
        containers = self.directory / "containers.conf"
        containers.write_text(
            f"""\
[containers]
default_ulimits = ["nofile=512:512", "nproc=512:512"]

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{self.directory / "tmp"}"
"""
        )
        credentials = self.directory / "auth.json"
        credentials.write_text("{}")
        # podman asks every registry for TLS but those that this names
        self.registries = self.directory / "registries.conf"
        self.registries.write_text("")
        self.environ.update(
            CONTAINERS_CONF=str(containers),
            CONTAINERS_REGISTRIES_CONF=str(self.registries),
            CONTAINERS_STORAGE_CONF=str(storage),
            REGISTRY_AUTH_FILE=str(credentials),
        )
        self.environ.pop("CONTAINER_HOST", None)
        # vfs works anywhere, and copies all files of an image once for every layer
        for driver in ("overlay", "vfs"):
            storage.write_text(
                f"""\
[storage]
driver = "{driver}"
graphroot = "{self.directory / driver}"
runroot = "{self.directory / "run" / driver}"
"""
            )
            try:
                self.cli("info")
            except AssertionError as error:
                self.unavailable = f"podman doesn't work here: {error}; try podman info"
            else:
                self.unavailable = ""
                break

    def serve(self) -> str:
        """Start podman's service, once; its address."""
        endpoint = self.directory / "podman.sock"
        if self._process is None:
            self._spawn(
                [self._command, "system", "service", "--time=0", f"unix://{endpoint}"],
                lambda: _answer(_UnixConnection(endpoint), "/_ping", {}).status == 200,
            )
        if self.unavailable:
            raise AssertionError(self.unavailable)
        return f"unix://{endpoint}"


DOCKER_ENGINE = DockerEngine("DOCKER_ENGINE", "docker.io")
PODMAN = Podman("PODMAN", "podman")
REGISTRY = Registry("REGISTRY", "docker-registry")
REGISTRY_BEHIND_NGINX = RegistryBehindNginx(
    "REGISTRY_BEHIND_NGINX", "docker-registry nginx-light"
)
REGISTRY_WITH_PASSWORD = PasswordRegistry("REGISTRY_WITH_PASSWORD", "docker-registry")
REGISTRY_WITH_TLS = TLSRegistry("REGISTRY_WITH_TLS", "docker-registry")
REGISTRY_WITH_TOKENS = TokenRegistry("REGISTRY_WITH_TOKENS", "docker-registry")
NGINX = Nginx("NGINX", "nginx-light")
# For a buildout within a test: develop eggs are installed with the setuptools that is there,
# where pip takes six seconds for a fresh one of each.
BUILDOUT_ENVIRON = {"PYTHONPATH": "", "PIP_NO_BUILD_ISOLATION": "0"}

# Nothing is needed but time: these tests are not among those of `make check`.
SLOW = Layer("SLOW", "")
