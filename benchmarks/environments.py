#!/usr/bin/env python3
"""virtualenv-part and its peers, bare uv and virtualenv with pip: how long they take.

::

    python3 benchmarks/environments.py

README.rst beside this file says what the rows a to d are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "src")]

# packages, index and table are those of the other benchmarks
from benchmarks import builder, images
from benchmarks.builder import QUICK, SECONDS, Line
from benchmarks.images import BenchmarkError, Figures, say
from eggcrate.environments.requirements import canonical_name

ROWS = {
    "a": "From nothing, caches empty; pip's ratios are to the part, others to bare uv",
    "b": "From nothing, caches full; pip's ratios are to the part, others to bare uv",
    "c": "One pin changed, in place; ratios to bare uv",
    "d": "Nothing changed; ratios to buildout without the part",
}

# The wheels for CPython 3.11.
PINS = {
    "amqp": "5.4.2",
    "asgiref": "3.13.0",
    "billiard": "4.3.2",
    "celery": "5.7.0",
    "certifi": "2026.10.18",
    "cffi": "2.1.1",
    "charset-normalizer": "3.5.2",
    "click": "8.5.1",
    "click-didyoumean": "0.3.1",
    "click-plugins": "1.1.1.2",
    "click-repl": "0.4.1",
    "cryptography": "50.0.2",
    "Django": "5.2.19",
    "djangorestframework": "3.18.3",
    "gunicorn": "27.0.1",
    "idna": "3.20",
    "Jinja2": "3.1.6",
    "kombu": "5.7.0",
    "lxml": "6.1.3",
    "MarkupSafe": "3.0.4",
    "numpy": "2.4.6",
    "packaging": "26.3",
    "Pillow": "13.0.0",
    "prompt-toolkit": "3.0.53",
    "psycopg": "3.3.9",
    "psycopg-binary": "3.3.9",
    "pycparser": "3.12",
    "python-dateutil": "2.9.0.post0",
    "redis": "8.1.0",
    "requests": "2.34.2",
    "six": "1.17.0",
    "sqlparse": "0.6.1",
    "typing-extensions": "4.16.0",
    "tzlocal": "5.4.5",
    "urllib3": "2.8.0",
    "vine": "5.1.0",
    "wcwidth": "0.9.4",
}
# What changes: the distribution that has the most files.
OTHER = {"Django": "5.2.18"}
EXTRAS = {"celery": "[redis]", "psycopg": "[binary]"}
# It brings a pip of its own, the newest one; both take no part in what is measured.
VIRTUALENV = "virtualenv==21.15.11"

# What the buildouts have in common; the part app has 20 eggs, with those that it requires.
BASE = """\
[buildout]
extends = versions.cfg
eggs-directory = ../project/eggs
parts =

[app]
recipe = zc.recipe.egg
eggs =
    celery
    Django
    gunicorn
    redis
scripts = django-admin gunicorn

[python]
recipe = zc.recipe.egg
eggs = eggcrate
interpreter = python

[venv]
requirements-files = ../project/requirements.txt
scripts = celery

[other]
recipe = collective.recipe.cmd
"""
PART = "[venv]\nrecipe = eggcrate:virtualenv-part\n"
BUILDOUTS = {
    # a place for the recipe that inside.py calls itself
    "inside": "",
    "empty": "",
    "only": f"parts = venv\n\n{PART}",
    "plain": "parts = app\n",
    "both": f"parts = app venv\n\n{PART}",
    "other": "parts = app other\n",
}


@dataclasses.dataclass
class Bench:
    """The buildouts, the peers and their caches, below one directory."""

    directory: Path
    index: str
    runs: int
    #: versions of what buildout and eggcrate are and need
    tools: Mapping[str, str]
    uv: str = ""
    figures: Figures = dataclasses.field(default_factory=dict)

    @property
    def project(self) -> Path:
        """The buildout whose programs and eggs the others share."""
        return self.directory / "project"

    @property
    def requirements(self) -> Path:
        """The requirements file that all install from."""
        return self.project / "requirements.txt"

    @property
    def peers(self) -> Path:
        """The environment that has virtualenv."""
        return self.directory / "peers"

    def note(self, name: str, value: float) -> None:
        """Keep one figure of one run."""
        self.figures.setdefault(name, []).append(value)

    def cache(self, user: str) -> Path:
        """Where the tools keep what they have downloaded, each user's own."""
        return self.directory / "caches" / user

    def environ(self, user: str) -> dict[str, str]:
        """What everything runs with."""
        cache = self.cache(user)
        return {
            **images.packaging_environ(self.directory / "home", self.index),
            "PIP_CACHE_DIR": str(cache / "pip"),
            "UV_CACHE_DIR": str(cache / "uv"),
            "VIRTUALENV_OVERRIDE_APP_DATA": str(cache / "virtualenv"),
        }

    def write_pins(self, pins: Mapping[str, str]) -> None:
        """Have everybody ask for these versions."""
        requirements = (
            f"{name}{EXTRAS.get(name, '')}=={version}\n" for name, version in pins.items()
        )
        self.requirements.write_text("".join(requirements), encoding="utf-8")
        versions = (f"{name} = {version}\n" for name, version in {**self.tools, **pins}.items())
        text = "".join(["[versions]\n", *versions])
        (self.project / "versions.cfg").write_text(text, encoding="utf-8")

    def buildout(self, name: str, *options: str) -> float:
        """Run ``bin/buildout -N``; the seconds of it all."""
        return builder.timed(
            [self.project / "bin" / "buildout", "-N", *options],
            environ=self.environ("part"),
            directory=self.directory / name,
        )

    def recipe(self, action: str) -> dict[str, float]:
        """Call the recipe in a new process; the seconds of each step."""
        images.settled()
        lines = images.run(
            [self.project / "bin" / "python", HERE / "inside.py", action],
            environ=self.environ("part"),
            directory=self.directory / "inside",
        )
        found: dict[str, float] = json.loads(lines[-1][1])
        return found


# The contenders


class Part:
    """The recipe: what buildout waits for when it comes to the part."""

    name = "part"
    brought: Sequence[str] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.venv = bench.directory / "inside" / "parts" / "venv"

    def install(self) -> float:
        """Import the recipe, make the environment and the scripts."""
        found = self.bench.recipe("install")
        return found["import"] + found["constructor"] + found["action"]

    # buildout calls install() after a change, too
    change = install


class Uv:
    """The uv that the part uses, told the least that does the same."""

    name = "uv"
    brought: Sequence[str] = ()
    switches: Sequence[str] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.venv = bench.directory / self.name

    def install(self) -> float:
        """``uv venv`` and ``uv pip install``."""
        begun = images.settled()
        self._run("venv", "--python", sys.executable, self.venv)
        self._install(*self.switches)
        return time.monotonic() - begun

    def change(self) -> float:
        """``uv pip install --exact``."""
        begun = images.settled()
        self._install("--exact", *self.switches)
        return time.monotonic() - begun

    def _install(self, *switches: str) -> None:
        where = ("--python", self.venv, "-r", self.bench.requirements)
        self._run("pip", "install", *switches, *where)

    def _run(self, *arguments: str | Path) -> None:
        environ = {**self.bench.environ(self.name), "UV_DEFAULT_INDEX": self.bench.index}
        images.run([self.bench.uv, *arguments], environ=environ)


class UvAsking(Uv):
    """The same, but what the index has said before does not count."""

    name = "uv-upgrade"
    switches = ("--upgrade",)


class Pip:
    """virtualenv and the pip that it brings."""

    name = "pip"
    # by virtualenv
    brought: Sequence[str] = ("pip", "setuptools")
    switches: Sequence[str] = ()

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.venv = bench.directory / self.name

    def install(self) -> float:
        """``virtualenv`` and ``pip install``."""
        begun = images.settled()
        self._run(self.bench.peers / "bin" / "virtualenv", self.venv)
        self._run(*self._pip())
        return time.monotonic() - begun

    def change(self) -> float:
        """``pip install``, which removes nothing."""
        begun = images.settled()
        self._run(*self._pip())
        return time.monotonic() - begun

    def _pip(self) -> Sequence[str | Path]:
        program = self.venv / "bin" / "pip"
        return [program, "install", *self.switches, "-r", self.bench.requirements]

    def _run(self, *command: str | Path) -> None:
        images.run(command, environ=self.bench.environ(self.name))


class PipWithoutBytecode(Pip):
    """The same, without the byte-code that the others don't compile either."""

    name = "pip-no-compile"
    switches = ("--no-compile",)


Contender = Part | Uv | Pip
ALL: Sequence[Callable[[Bench], Contender]] = (Part, Uv, UvAsking, Pip, PipWithoutBytecode)

T = TypeVar("T")


def turns(several: Sequence[T], number: int) -> Iterator[T]:
    """All of them, each time another one first."""
    first = number % len(several)
    yield from (*several[first:], *several[:first])


def check(contender: Contender, pins: Mapping[str, str]) -> None:
    """Nothing, if the contender's environment has just these distributions."""
    found = {}
    for path in contender.venv.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        found[canonical_name(name)] = version
    for name in contender.brought:
        found.pop(name, None)
    wanted = {canonical_name(name): version for name, version in pins.items()}
    if wrong := sorted(name for name, _ in found.items() ^ wanted.items()):
        raise BenchmarkError(f"{contender.name} has installed wrong: {', '.join(wrong)}")


# What is measured


def cold(bench: Bench) -> None:
    """Row a: environments from nothing, packages from the index."""
    contenders = [contender(bench) for contender in ALL if contender is not UvAsking]
    for number in range(bench.runs):
        say(f"a, run {number + 1}")
        for contender in turns(contenders, number):
            shutil.rmtree(bench.cache(contender.name), ignore_errors=True)
            shutil.rmtree(contender.venv, ignore_errors=True)
            bench.note(f"a {contender.name}", contender.install())
            check(contender, PINS)


def warm(bench: Bench) -> None:
    """Row b: environments from nothing, packages from the tools' caches."""
    contenders = [contender(bench) for contender in ALL]
    quick = [contender for contender in contenders if not isinstance(contender, Pip)]

    def measure(contender: Contender) -> float:
        shutil.rmtree(contender.venv, ignore_errors=True)
        seconds = contender.install()
        check(contender, PINS)
        return seconds

    for contender in contenders:
        measure(contender)
    for number in range(bench.runs * QUICK):
        if number % QUICK == 0:
            say(f"b, run {number // QUICK + 1}")
        for contender in turns(quick if number % QUICK else contenders, number):
            bench.note(f"b {contender.name}", measure(contender))
        empty = bench.buildout("empty")
        shutil.rmtree(bench.directory / "only" / "parts", ignore_errors=True)
        (bench.directory / "only" / ".installed.cfg").unlink(missing_ok=True)
        only = bench.buildout("only")
        bench.note("b empty", empty)
        bench.note("b only", only)
        bench.note("b added", only - empty)


def changed(bench: Bench) -> None:
    """Row c: environments in which one distribution gets another version."""
    contenders = [contender(bench) for contender in ALL if contender is not PipWithoutBytecode]
    for contender in contenders:
        shutil.rmtree(contender.venv, ignore_errors=True)
        contender.install()
    both = (PINS | OTHER, PINS)
    try:
        for number in range(-len(both), bench.runs * QUICK):
            if number % QUICK == 0:
                say(f"c, run {number // QUICK + 1}")
            pins = both[number % len(both)]
            bench.write_pins(pins)
            for contender in turns(contenders, number):
                seconds = contender.change()
                check(contender, pins)
                if number >= 0:  # before, the caches don't have both
                    bench.note(f"c {contender.name}", seconds)
    finally:
        bench.write_pins(PINS)


def unchanged(bench: Bench) -> None:
    """Row d: the recipe, and all of buildout, when there is nothing to be done."""
    bench.recipe("install")
    several = ("plain", "both", "other")
    for name in (*several, *several):
        bench.buildout(name)
    for number in range(bench.runs * QUICK):
        if number % QUICK == 0:
            say(f"d, run {number // QUICK + 1}")
        found = bench.recipe("update")
        bench.note("d import", found["import"] * 1000)
        bench.note("d update", (found["constructor"] + found["action"]) * 1000)
        for name in turns(several, number):
            bench.note(f"d {name}", bench.buildout(name))
    bench.note("d programs", bench.recipe("count")["programs"])


MEASURES: Mapping[str, Callable[[Bench], None]] = {
    "a": cold,
    "b": warm,
    "c": changed,
    "d": unchanged,
}


# The report


def milliseconds_text(value: float) -> str:
    """As in 12.3 ms."""
    return f"{value:.1f} ms"


def from_nothing(row: str) -> Sequence[Line]:
    """The lines of a row that makes environments."""
    part = f"{row} part"
    return (
        Line("virtualenv-part, the recipe", part, SECONDS, to=f"{row} uv", most=1.1),
        Line("uv venv, uv pip install", f"{row} uv", SECONDS),
        Line("virtualenv, pip install", f"{row} pip", SECONDS, to=part, least=5),
        Line("  --no-compile", f"{row} pip-no-compile", SECONDS, to=part, least=5),
    )


LINES: Mapping[str, Sequence[Line]] = {
    "a": from_nothing("a"),
    "b": (
        *from_nothing("b"),
        Line("uv venv, uv pip install --upgrade", "b uv-upgrade", SECONDS, to="b uv"),
        Line("bin/buildout -N without any part", "b empty", SECONDS),
        Line("  with the part and nothing else", "b only", SECONDS),
        Line("  of it because of the part", "b added", SECONDS, to="b uv"),
    ),
    "c": (
        Line("virtualenv-part, the recipe", "c part", SECONDS, to="c uv"),
        Line("uv pip install --exact", "c uv", SECONDS),
        Line("  --upgrade", "c uv-upgrade", SECONDS, to="c uv"),
        Line("pip install", "c pip", SECONDS, to="c uv"),
    ),
    "d": (
        Line("constructor and update()", "d update", milliseconds_text, most=20),
        Line("  to import the recipe before", "d import", milliseconds_text),
        Line("  programs started", "d programs", images.count_text, most=0),
        Line("bin/buildout -N, 20 eggs", "d plain", SECONDS),
        Line("  with the part", "d both", SECONDS, to="d plain", most=1.03),
        Line("  with a recipe that does nothing", "d other", SECONDS, to="d plain"),
    ),
}


def facts(bench: Bench) -> dict[str, str]:
    """What the figures depend on."""
    files = [
        path.stat().st_size
        for path in (bench.directory / "inside" / "parts" / "venv").rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    pips = bench.directory.glob(f"{Pip.name}/lib/python*/site-packages/pip-*.dist-info")
    return {
        "packages": f"{len(PINS)}, {len(files):,} files, {sum(files) / 1e6:.0f} MB",
        **images.machine(),
        "uv": images.run([bench.uv, "--version"])[0][1],
        "peers": " ".join([VIRTUALENV, *(path.stem for path in pips)]),
    }


# Preparation


def prepare(directory: Path, runs: int, stack: contextlib.ExitStack) -> Bench:
    """The buildouts and the peers, ready to be measured."""
    # nobody's work while the benchmark runs is to be in its figures
    snapshot = directory / "eggcrate"
    shutil.rmtree(snapshot, ignore_errors=True)
    taken = images.Demo.taken(snapshot)
    tools = (*builder.TOOLS, "collective.recipe.cmd")
    wanted = {**{name: taken.pins[name] for name in tools}, **PINS}
    packages = builder.download(directory, {**taken.pins, **PINS}, wanted)
    pip: Sequence[str | Path] = (directory / "pip" / "bin" / "python", "-m", "pip")
    others = [f"{name}=={version}" for name, version in OTHER.items()]
    images.run([*pip, "download", "--no-deps", "--dest", packages, *others])
    index = stack.enter_context(images.package_index(packages, wanted))
    bench = Bench(directory, index, runs, taken.pins)

    if not bench.peers.exists():
        images.run([sys.executable, "-m", "venv", bench.peers])
    images.run([bench.peers / "bin" / "python", "-m", "pip", "install", VIRTUALENV])

    say("the buildouts, and the eggs that they share")
    for name in ("home", "project", *BUILDOUTS):
        (directory / name).mkdir(exist_ok=True)
    # the version stays the same from one benchmark to the next
    for egg in bench.project.glob("eggs/*/eggcrate-*.egg"):
        shutil.rmtree(egg)
    shutil.copy(snapshot / "bootstrap.py", bench.project)
    bench.write_pins(PINS)
    texts = {
        "project/base.cfg": BASE,
        "project/buildout.cfg": "[buildout]\nextends = base.cfg\nparts = app python\n",
    } | {
        f"{name}/buildout.cfg": f"[buildout]\nextends = ../project/base.cfg\n{text}"
        for name, text in BUILDOUTS.items()
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    images.run(
        [sys.executable, "bootstrap.py"],
        environ=bench.environ("part"),
        directory=bench.project,
    )
    # zc.recipe.egg takes another index for a reason to install again, and eggs are all there
    bench.buildout("project", f"buildout:index={index}")
    for name in BUILDOUTS:
        bench.buildout(name)
    program = "from eggcrate.environments import interpreters as i; print(i.uv_program())"
    bench.uv = images.run([bench.project / "bin" / "python", "-c", program])[-1][1]
    return bench


def main() -> None:
    """Do what the command line says."""
    options = builder.command_line(__doc__ or "", ROWS, runs=5)
    load = builder.load_text()
    try:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(builder.project_directory(options.keep))
            bench = prepare(directory, options.runs, stack)
            for row in options.rows:
                MEASURES[row](bench)
            known = facts(bench)
            say("cleaning up")
    except BenchmarkError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    known["load"] = f"{load} before the start, {builder.load_text()} at the end"
    print(f"virtualenv-part, medians of {options.runs}\n")
    print(builder.table({row: ROWS[row] for row in options.rows}, LINES, bench.figures, {}))
    print()
    for name, fact in known.items():
        print(f"{name + ':':11}{fact}")
    builder.write_figures(options.json, known, bench.figures)


if __name__ == "__main__":
    main()
