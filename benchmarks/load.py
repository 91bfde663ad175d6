#!/usr/bin/env python3
"""After one changed line: ``bin/image load`` against ``docker load`` of the whole archive.

See README.rst beside this file.  It needs root, a dockerd, podman, and eggcrate's own test
layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP / "src"))

from eggcrate.image.layers import DEFAULT_EPOCH
from eggcrate.image.layout import make_image, write_archive, write_layout
from eggcrate.image.oci import RuntimeConfig, reference
from eggcrate.image.plan import FileEntry, bytes_file, merge, plan_layers
from eggcrate.image.store import Store, replacing
from eggcrate.image.stored import stored
from eggcrate.payload.site import Site
from eggcrate.settings import ImageSettings, document, this_platform
from eggcrate.tests import layers
from eggcrate.transports.engine import Engine

MEGABYTE = 1 << 20
# what the script of the part does
_RUN = "import sys; from eggcrate.console import main; "
_RUN += "sys.exit(main('image', sys.argv[1], sys.argv[2:]))"


@dataclasses.dataclass
class Application:
    """An image as eggcrate makes it: packages, seven large eggs, a source of 60 modules."""

    directory: Path
    megabytes: int

    def __post_init__(self) -> None:
        self.location = self.directory / "parts" / "image"
        self.location.mkdir(parents=True)
        here = self.directory
        self.settings = ImageSettings(
            references=(reference("bench/load", "latest"),),
            platform=this_platform(),
            site=Site(here, here, here, here, here, here, here, (), ()),
            parts=(),
            directory="/srv",
            location=self.location,
        )
        (self.location / "settings.json").write_bytes(document(self.settings))
        self.store = Store(self.directory / "store")
        # what is compressed already, as the files of most eggs' bytes are in a layer
        share = self.megabytes * MEGABYTE // 8 // 50
        noise = random.Random(self.megabytes)  # noqa: S311 - nothing secret
        self.large = [
            bytes_file(
                f"srv/{group.replace(' ', '/')}/{number}",
                noise.randbytes(share),
                group=group,
                reason="benchmark",
            )
            for group in ("packages", *(f"egg big{one}" for one in range(7)))
            for number in range(50)
        ]

    def build(self, line: str) -> None:
        """The image with another line in one of its modules."""
        source: list[FileEntry] = [
            bytes_file(
                f"srv/src/module{number}.py",
                f"# {line if number == 7 else ''}\n".encode() + b"value = 1\n" * 400,
                group="develop shop",
                reason="benchmark",
            )
            for number in range(60)
        ]
        image = make_image(
            plan_layers(merge([*self.large, *source]), 12),
            platform=self.settings.platform,
            runtime=RuntimeConfig(command=("/nothing",)),
            references=self.settings.references,
            store=self.store,
            compression="gzip",
            epoch=DEFAULT_EPOCH,
        )
        write_layout(image, self.store, self.location / "oci")
        with replacing(self.location / "image.tar") as stream:
            write_archive(image, self.store, stream, DEFAULT_EPOCH)


def timed(argv: Sequence[str | Path], environ: dict[str, str]) -> float:
    """Seconds that a command takes, as a whole."""
    start = time.monotonic()
    subprocess.run(argv, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def measure(megabytes: int, runs: int, engine: layers.Engine, host: str) -> dict[str, float]:
    """The medians, in seconds."""
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="eggcrate-load-") as scratch:
        application = Application(Path(scratch), megabytes)
        archive = application.location / "image.tar"
        thin: list[str | Path] = [
            sys.executable,
            "-c",
            _RUN,
            application.location,
            "--quiet",
            "load",
        ]
        whole: list[str | Path] = [engine._command, "load", "--quiet", "--input", archive]
        environ = {**engine.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        # byte-code is there, as it is where eggcrate is installed
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ |= {"DOCKER_HOST": host, "PYTHONPYCACHEPREFIX": f"{scratch}/bytecode"}
        timed([*thin, "--help"], environ)
        for run in range(runs):
            application.build(f"first {run}")
            engine.cli("image", "prune", "--all", "--force")
            figures.setdefault("nothing", []).append(timed(whole, environ))
            for number in range(3):
                for name, command in (("thin", thin), ("whole", whole)):
                    application.build(f"{name} {run} {number}")
                    figures.setdefault(name, []).append(timed(command, environ))
                application.build(f"engine {run} {number}")
                start = time.monotonic()
                with Engine(host) as here:
                    here.load(stored(application.location / "oci"))
                figures.setdefault("engine", []).append(time.monotonic() - start)
        engine.cli("image", "prune", "--all", "--force")
    return {name: statistics.median(values) for name, values in figures.items()}


def compare(engine: layers.Engine, options: argparse.Namespace) -> None:
    """Measure with an engine, and print a table."""
    engine.setUp()
    if engine.unavailable:
        sys.exit(engine.unavailable)
    try:
        host = engine.serve() if isinstance(engine, layers.Podman) else ""
        host = engine.host if isinstance(engine, layers.DockerEngine) else host
        with Engine(host) as here:
            print(f"{here.name}; load before the start: {os.getloadavg()[0]:.1f}")
        command = engine._command.rpartition("/")[2]
        print(f"   MB  bin/image load  of it the engine  {command + ' load':>11}  ratio  anew")
        for megabytes in options.megabytes:
            found = measure(megabytes, options.runs, engine, host)
            thin = found["thin"]
            print(
                f"{megabytes:5}  {thin:12.2f} s  {found['engine']:14.2f} s  "
                f"{found['whole']:9.2f} s  {found['whole'] / thin:5.1f}  "
                f"{found['nothing']:.2f} s",
                flush=True,
            )
    finally:
        engine.tearDown()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50, 200, 800])
    parser.add_argument("--engine", choices=("docker", "podman"), action="append")
    options = parser.parse_args()
    for name in options.engine or ("docker", "podman"):
        kind = {"docker": layers.DockerEngine, "podman": layers.Podman}[name]
        compare(kind(name.upper(), name), options)


if __name__ == "__main__":
    main()
