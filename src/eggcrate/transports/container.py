"""A container of an image, run as it should be: nothing to write to, no privileges."""

from __future__ import annotations

import dataclasses
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from eggcrate.errors import TransportError
from eggcrate.transports.engine import Engine

# Circus takes up to nine
_STOP_SECONDS = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PUBLISH = re.compile(
    r"(?:(?P<address>[0-9]+(?:\.[0-9]+){3}|\[[0-9a-fA-F:]+\]):)?(?:(?P<host>[0-9]{1,5}):)?"
    r"(?P<port>[0-9]{1,5})(?P<protocol>/(?:tcp|udp|sctp))?"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """A port of the container, ``8080/tcp``, and where it is on this machine."""

    port: str
    address: str
    host: int


def published(text: str) -> Published:
    """What ``docker run --publish`` takes; without an address it is loopback alone."""
    match = _PUBLISH.fullmatch(text)
    numbers = (int(match["port"]), int(match["host"] or match["port"])) if match else (0, 0)
    if match is None or not all(0 < number < 65536 for number in numbers):
        raise TransportError(
            f"--publish {text} is no port", "write PORT, HOST:PORT or ADDRESS:HOST:PORT"
        )
    address = (match["address"] or "127.0.0.1").strip("[]")
    return Published(f"{numbers[0]}{match['protocol'] or '/tcp'}", address, numbers[1])


def run(
    engine: Engine,
    image: str,
    *,
    command: Sequence[str] = (),
    environment: Mapping[str, str],
    ports: Iterable[Published] = (),
    network: str = "",
    keep_capabilities: bool = False,
) -> int:
    """The exit code of a container, which is removed; its output goes to both streams.

    The root file system is read-only, /run a tmpfs.  What would end this process stops the
    container; the second time it is killed.
    """
    api = engine.api
    bindings: dict[str, list[tuple[str, int]]] = {}
    for one in ports:
        bindings.setdefault(one.port, []).append((one.address, one.host))
    with engine.asked("asked for a container"):
        made = api.create_container(
            image,
            list(command) or None,
            environment=dict(environment),
            ports=[tuple(port.split("/")) for port in bindings],
            host_config=api.create_host_config(
                read_only=True,
                tmpfs={"/run": ""},
                security_opt=["no-new-privileges"],
                cap_drop=None if keep_capabilities else ["ALL"],
                port_bindings=bindings,
                network_mode=network or None,
            ),
        )
    identifier = made["Id"]
    try:
        with _stopping(api, identifier), engine.asked("asked to run a container"):
            output = api.attach(identifier, stream=True, logs=True, demux=True)
            api.start(identifier)
            for out, err in output:
                for data, stream in ((out, sys.stdout), (err, sys.stderr)):
                    if data:
                        stream.flush()
                        stream.buffer.write(data)
                        stream.buffer.flush()
            return int(api.wait(identifier)["StatusCode"])
    finally:
        # an error of the engine has been said, or it will be
        with suppress(Exception):
            api.remove_container(identifier, force=True, v=True)


@contextmanager
def _stopping(api: Any, identifier: str) -> Iterator[None]:
    """While the block runs, what would end this process is for the container."""
    asked = 0

    def tell() -> None:
        # it may be gone by now
        with suppress(Exception):
            if asked > 1:
                api.kill(identifier)
            else:
                api.stop(identifier, timeout=_STOP_SECONDS)

    def stop(*_: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            print("stopping; the same once more kills it", file=sys.stderr, flush=True)
        # the output goes on meanwhile
        threading.Thread(target=tell, daemon=True).start()

    # what nohup, or a shell for what runs beside it, has had ignored stays so
    wanted = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield
    finally:
        for number, kept in before.items():
            signal.signal(number, kept)
