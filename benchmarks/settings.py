#!/usr/bin/env python3
"""Runtime settings: what they cost at the start, and a thousand customers of one image.

::

    bin/buildout -N && python3 benchmarks/settings.py

README.rst beside this file says what the rows are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "src")]

from eggcrate import fleet
from eggcrate.runtime import variables

#: PID 1 of an image, with other places, and with `true` for Circus
MAIN = """\
import sys
sys.path.insert(0, {package!r})
from eggcrate.runtime import start
start._SETTINGS = {settings!r}
start._supervisor = lambda command: ["true"]
if not {test!r}:
    from eggcrate.runtime import variables
    variables._tested = lambda path: ()
sys.exit(start.start({run!r}, ["circusd"]))
"""

# The usual entrypoint: what is not set gets its default, and nothing is checked.
SHELL = """\
#!/bin/sh
set -e
{defaults}
for file in {files}; do
    envsubst '{names}' < "{templates}/$file" > "{run}/$file"
done
exec true
"""
TEMPLATE = """\
import os, string
values = {{**{defaults!r}, **os.environ}}
for name in {files!r}:
    text = open({templates!r} + "/" + name).read()
    open({run!r} + "/" + name, "w").write(string.Template(text).safe_substitute(values))
os.execvp("true", ["true"])
"""

SET = {
    "WEBAPP_PORT": "19000",
    "SERVER_NAME": "shop.example www.shop.example",
    "WORKERS": "4",
    "TRUSTED_PROXIES": "10.0.0.0/8 192.0.2.1",
    "GREETING": 'Say "hi"',
}


class Scratch:
    """A directory with the entrypoints that are compared, and their templates."""

    def __init__(self, directory: Path, python: str) -> None:
        self.directory = directory
        self.python = python
        self.source = PROJECT / "parts" / ".settings"
        if not list(self.source.glob("*.json")):
            raise SystemExit("there are no settings; run bin/buildout -N")
        self.settings = variables.load(str(self.source))
        self.defaults = {one.env: one.value() for one in self.settings.settings}
        self.templates = directory / "templates"
        self.templates.mkdir()
        self.files: list[str] = []
        for document in self.settings.documents:
            name = Path(document.path).name
            text = "".join(
                piece if isinstance(piece, str) else f"${{{piece.setting.env}}}"
                for piece in document.pieces
            )
            (self.templates / name).write_text(text)
            self.files.append(name)
        self.run = directory / "run"
        self.run.mkdir(mode=0o700)

    def pid1(self, name: str, *, settings: bool, test: bool = False) -> list[str]:
        """The command that is PID 1 of an image."""
        path = self.directory / f"{name}.py"
        path.write_text(
            MAIN.format(
                package=str(PROJECT / "src"),
                settings=str(self.source if settings else self.directory / "none"),
                run=str(self.run),
                test=test,
            )
        )
        return [self.python, "-I", str(path)]

    def shell(self) -> list[str]:
        """The command that is the usual entrypoint."""
        path = self.directory / "entrypoint.sh"
        path.write_text(
            SHELL.format(
                defaults="\n".join(
                    f': "${{{name}:={value}}}"; export {name}'
                    for name, value in self.defaults.items()
                ),
                names=" ".join(f"${{{name}}}" for name in self.defaults),
                files=" ".join(self.files),
                templates=self.templates,
                run=self.run,
            )
        )
        return ["sh", str(path)]

    def template(self) -> list[str]:
        """The same, with nothing but Python."""
        path = self.directory / "entrypoint.py"
        path.write_text(
            TEMPLATE.format(
                defaults=self.defaults,
                files=self.files,
                templates=str(self.templates),
                run=str(self.run),
            )
        )
        return [self.python, "-I", str(path)]


def milliseconds(command: list[str], environment: Mapping[str, str]) -> float:
    """How long a command takes."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    took = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command}: {done.returncode}, {done.stderr.decode()}")
    return took * 1000


def starts(scratch: Scratch, runs: int) -> dict[str, float]:
    """The median of each way to start, in turns."""
    plain = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "no settings": (scratch.pid1("plain", settings=False), plain),
        "none set": (scratch.pid1("some", settings=True), plain),
        "five set": (scratch.pid1("some", settings=True), {**plain, **SET}),
        "five set, nginx -t": (
            scratch.pid1("tested", settings=True, test=True),
            {**plain, **SET},
        ),
        "sh, string.Template": (scratch.template(), {**plain, **SET}),
    }
    if shutil.which("envsubst"):
        ways["sh, envsubst"] = (scratch.shell(), {**plain, **SET})
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs + 3):
        for name, (command, environment) in ways.items():
            took = milliseconds(command, environment)
            if turn >= 3:  # by then everything is in memory
                found[name].append(took)
    return {name: statistics.median(times) for name, times in found.items()}


def customers(scratch: Scratch, count: int) -> dict[str, float]:
    """Seconds for many customers: checked, rendered; and by envsubst, unchecked."""
    path = scratch.directory / "customers.toml"
    path.write_text(
        "".join(
            f"[customer{number}]\nWEBAPP_PORT = {10000 + number}\n"
            f'SERVER_NAME = "shop{number}.example"\nWORKERS = {1 + number % 8}\n'
            f'GREETING = "Hello, {number}"\nDJANGO_SECRET_KEY = "{number:064}"\n'
            for number in range(count)
        )
    )
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], None]) -> None:
        started = time.perf_counter()
        work()
        found[name] = time.perf_counter() - started

    checked: list[fleet.Checked] = []

    def check() -> None:
        checked.append(fleet.check(scratch.settings, fleet.read(path)))
        if checked[0].problems:
            raise SystemExit(checked[0].problems[0])

    timed("read and checked", check)
    out = scratch.directory / "out"
    timed("rendered", lambda: fleet.write(scratch.settings, checked[0].values, out))
    if shutil.which("envsubst"):
        command = scratch.shell()
        environment = {"PATH": os.environ["PATH"], **SET}

        def substitute() -> None:
            for _ in range(count):
                subprocess.run(command, env=environment, check=True)

        timed("sh, envsubst", substitute)
    return found


def main() -> None:
    """Print the figures; the exit code is not 0 where they are above what they should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=40, help="starts of each kind (40)")
    parser.add_argument("--customers", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--python", default="/usr/bin/python3", help="the image's Python")
    parser.add_argument("--json", metavar="FILE", help="keep the figures there")
    options = parser.parse_args()
    # a container's run directory is a tmpfs, and a disk that others use has times of its own
    memory = "/dev/shm"  # noqa: S108 - what is made there has a name of its own
    place = memory if os.path.isdir(memory) else None
    with tempfile.TemporaryDirectory(prefix="eggcrate-", dir=place) as directory:
        scratch = Scratch(Path(directory), options.python)
        started = starts(scratch, options.runs)
        many = customers(scratch, options.customers)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    base = started["no settings"]
    print("\nUntil PID 1 has become the command; ms, and more than without settings")
    for name, took in started.items():
        print(f"  {name:22}{took:8.1f}{took - base:+8.1f}")
    ours = many["read and checked"] + many["rendered"]
    print(f"\n{options.customers:,} customers; seconds, and the ratio to both steps together")
    for name, took in many.items():
        print(f"  {name:22}{took:8.2f}{took / ours:8.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps({"start": started, "customers": many}))
    if started["five set"] - base > 20 or ours > options.customers / 1000:
        raise SystemExit("that is more than it should be: 20 ms, and 1 ms a customer")


if __name__ == "__main__":
    main()
