#!/usr/bin/env python3
"""A push by eggcrate, skopeo and Docker to the same registry: times, bytes sent, memory.

::

    python3 benchmarks/push.py

README.rst beside this file says what the rows a and b are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "src")]

# the table is that of the other benchmarks
from benchmarks import builder, images
from benchmarks.builder import SECONDS, Line
from benchmarks.images import BenchmarkError, Figures, say
from eggcrate.image import layout, oci
from eggcrate.image.layout import Image
from eggcrate.image.plan import bytes_file, merge, plan_layers
from eggcrate.image.store import Store, replacing
from eggcrate.image.words import amount
from eggcrate.payload.site import Site
from eggcrate.recipes import docker_image
from eggcrate.settings import ImageSettings, document
from eggcrate.tests import layers

ROWS = {
    "a": "One small layer has changed; ratios to eggcrate",
    "b": "A first push of 200 MB; ratios to eggcrate",
}


def bytes_text(value: float) -> str:
    """A number of bytes for people."""
    return amount(round(value))


LINES = {
    "a": (
        Line("eggcrate", "a eggcrate", SECONDS),
        Line("  in bin/buildout, which runs already", "a inside", SECONDS),
        Line("skopeo copy", "a skopeo", SECONDS, to="a eggcrate", least=1),
        Line("docker push", "a docker", SECONDS, to="a eggcrate", least=1),
        Line("eggcrate, to a tag that is new", "a new eggcrate", SECONDS),
        Line("skopeo copy, to a tag that is new", "a new skopeo", SECONDS, to="a new eggcrate"),
        Line("bytes sent, eggcrate", "a bytes eggcrate", bytes_text, most=64_000),
        Line("bytes sent, skopeo", "a bytes skopeo", bytes_text, to="a bytes eggcrate"),
    ),
    "b": (
        Line("eggcrate", "b eggcrate", SECONDS),
        Line("skopeo copy", "b skopeo", SECONDS, to="b eggcrate", least=1),
        Line("memory, eggcrate", "b memory eggcrate", bytes_text, most=128e6),
        Line("memory, skopeo", "b memory skopeo", bytes_text, to="b memory eggcrate"),
    ),
}

# What bin/image is, with a clock: in a process of its own, as people call it
_PUSH = """
import sys
sys.path[:0] = {path!r}
from eggcrate.console import main
sys.exit(main("bin/image", *sys.argv[1:2], sys.argv[2:]))
"""
# What a push takes where Python runs already, as in bin/buildout
_INSIDE = """
import pathlib, sys, time
sys.path[:0] = {path!r}
import eggcrate.build
from eggcrate.image.oci import parse
from eggcrate.image.stored import stored
began = time.monotonic()
from eggcrate.transports import registry
reference = parse(sys.argv[2])
access = registry.Access(insecure=frozenset([reference.host]))
registry.push(stored(pathlib.Path(sys.argv[1], "oci")), [reference], access=access)
print(time.monotonic() - began)
"""
# Layers of the first image in MB, as those of an application on Debian's packages
_SIZES = (80, 60, 30, 20, 8, 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Pushed:
    """What a push took: seconds, peak of memory in bytes, and what it printed."""

    seconds: float
    memory: float
    printed: str


@dataclasses.dataclass(slots=True)
class Bench:
    """A store with images, and where they lie for skopeo."""

    directory: Path
    store: Store
    random: random.Random
    figures: Figures
    engine: layers.DockerEngine | None = None

    def settings(self) -> None:
        """Write what bin/image finds beside an image."""
        nowhere = self.directory / "none"
        site = Site(nowhere, nowhere, nowhere, nowhere, nowhere, nowhere, nowhere, (), ())
        place = (oci.reference("acme/shop", "1"),)
        platform = oci.Platform("linux", "amd64")
        settings = ImageSettings(place, platform, site, (), "/", self.directory)
        (self.directory / "settings.json").write_bytes(document(settings))

    def note(self, name: str, value: float) -> None:
        """Keep a figure of a run."""
        self.figures.setdefault(name, []).append(value)

    def image(self, changed: bytes) -> Image:
        """The image with another small layer: random bytes, which nothing makes smaller."""
        groups = ("packages", *(f"egg {number}-1" for number in range(1, 10)))
        entries = [
            bytes_file(f"srv/{size}", self._content(size), group=group, reason="benchmark")
            for size, group in zip(_SIZES, groups, strict=False)
        ]
        entries.append(bytes_file("srv/app.py", changed, group="develop shop", reason="code"))
        image = layout.make_image(
            plan_layers(merge(entries), 12),
            platform=oci.Platform("linux", "amd64"),
            runtime=oci.RuntimeConfig(),
            references=(oci.reference("acme/shop", "1"),),
            store=self.store,
            compression="gzip",
            epoch=0,
        )
        layout.write_layout(image, self.store, self.directory / "oci")
        if self.engine is not None:
            with replacing(self.directory / "image.tar") as stream:
                layout.write_archive(image, self.store, stream, 0)
            self.engine.load(self.directory / "image.tar")
        return image

    def _content(self, size: int) -> bytes:
        return random.Random(size).randbytes(size * 1_000_000)  # noqa: S311 (bulk)

    def push(self, who: str, host: str, name: str) -> Pushed:
        """Push the last image to a repository."""
        path = docker_image._module_places(self.directory)
        environ = dict(os.environ)
        words = [sys.executable, "-I", "-c", _PUSH.format(path=path), str(self.directory)]
        words += ["-q", "push", "--insecure", host, f"{host}/{name}"]
        if who == "inside":
            words[3:] = [_INSIDE.format(path=path), str(self.directory), f"{host}/{name}"]
        elif who == "skopeo":
            words = ["skopeo", "copy", "--quiet", "--preserve-digests"]
            words += ["--dest-tls-verify=false", f"oci:{self.directory}/oci"]
            words.append(f"docker://{host}/{name}")
        elif who == "docker":
            assert self.engine is not None
            self.engine.cli("tag", "acme/shop:1", f"{host}/{name}")
            environ = dict(self.engine.environ)
            words = ["docker", "push", "--quiet", f"{host}/{name}"]
        began = images.settled()
        process = subprocess.Popen(words, stdout=subprocess.PIPE, encoding="ascii", env=environ)
        peaks = [0]
        watch = threading.Thread(target=watch_memory, args=(process.pid, peaks))
        watch.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - began
        watch.join()
        if process.returncode:
            raise BenchmarkError(f"{who} could not push")
        return Pushed(seconds, max(peaks), output)


def watch_memory(pid: int, peaks: list[int]) -> None:
    """Note the peak of a process, until it ends.

    The kernel's own figure at the end has this process in it, from before the program began.
    """
    with contextlib.suppress(OSError, IndexError):
        while True:
            status = Path(f"/proc/{pid}/status").read_text()
            peaks.append(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
            time.sleep(0.01)


@contextlib.contextmanager
def counting(host: str) -> Iterator[tuple[str, list[int]]]:
    """An address that leads to the registry, and the bytes that were sent to it."""
    counted = [0]
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def pass_on(source: socket.socket, target: socket.socket, *, count: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if count:
                    counted[0] += len(block)
                target.sendall(block)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        address, _, port = host.partition(":")
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((address, int(port)))
            for ends, count in (((client, server), True), ((server, client), False)):
                threading.Thread(
                    target=pass_on, args=ends, kwargs={"count": count}, daemon=True
                ).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", counted
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextlib.contextmanager
def empty_registry() -> Iterator[str]:
    """A registry that has nothing, and of which skopeo remembers nothing."""
    server = layers.Registry("REGISTRY", "docker-registry")
    server.setUp()
    try:
        if server.unavailable:
            raise BenchmarkError(server.unavailable)
        yield server.host
    finally:
        server.tearDown()


def changed(bench: Bench, runs: int) -> None:
    """Row a."""
    everybody = ["eggcrate", "inside", "skopeo", *(["docker"] if bench.engine else [])]
    with empty_registry() as host, counting(host) as (counted_host, counted):
        bench.image(b"x")
        for who in everybody:
            bench.push(who, host, f"{who}:0")
        for who in ("eggcrate", "skopeo"):
            bench.push(who, counted_host, f"{who}-counted:0")
        for run in range(1, runs + 1):
            say(f"row a, run {run}")
            for who in everybody[:: 1 if run % 2 else -1]:
                bench.image(bench.random.randbytes(5000))
                pushed = bench.push(who, host, f"{who}:0")
                inside = float(pushed.printed) if who == "inside" else pushed.seconds
                bench.note(f"a {who}", inside)
            for who in turns(run):
                bench.image(bench.random.randbytes(5000))
                bench.note(f"a new {who}", bench.push(who, host, f"{who}:{run}").seconds)
                bench.image(bench.random.randbytes(5000))
                counted[0] = 0
                bench.push(who, counted_host, f"{who}-counted:0")
                bench.note(f"a bytes {who}", counted[0])


def first(bench: Bench, runs: int) -> None:
    """Row b."""
    bench.image(b"x")
    for run in range(1, runs + 1):
        say(f"row b, run {run}")
        for who in turns(run):
            with empty_registry() as host:
                pushed = bench.push(who, host, f"{who}:1")
            bench.note(f"b {who}", pushed.seconds)
            bench.note(f"b memory {who}", pushed.memory)


def turns(run: int) -> Sequence[str]:
    """Who comes first takes turns."""
    return ("eggcrate", "skopeo")[:: 1 if run % 2 else -1]


def main() -> None:
    """Do what the command line says."""
    options = builder.command_line(__doc__ or "", ROWS, runs=5)
    load = builder.load_text()
    figures: Figures = {}
    try:
        with tempfile.TemporaryDirectory(prefix="eggcrate-benchmark-") as scratch:
            directory = Path(scratch)
            store = Store(directory / "store")
            numbers = random.Random()  # noqa: S311  (nothing secret: content that is new)
            bench = Bench(directory, store, numbers, figures)
            bench.settings()
            engine = layers.DockerEngine("DOCKER_ENGINE", "docker.io")
            if "a" in options.rows:
                engine.setUp()
            try:
                if not engine.unavailable:
                    bench.engine = engine
                for row in options.rows:
                    {"a": changed, "b": first}[row](bench, options.runs)
                    # the second row has nothing to do with it
                    bench.engine = None
            finally:
                engine.tearDown()
    except (AssertionError, BenchmarkError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    known = {
        **images.machine(),
        "load": f"{load} before the start, {builder.load_text()} at the end",
    }
    print(f"Pushes, medians of {options.runs}\n")
    print(builder.table({row: ROWS[row] for row in options.rows}, LINES, figures, {}))
    print()
    for name, fact in known.items():
        print(f"{name + ':':11}{fact}")
    if options.json:
        builder.write_figures(options.json, known, figures)


if __name__ == "__main__":
    main()
