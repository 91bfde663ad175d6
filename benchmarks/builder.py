#!/usr/bin/env python3
"""The builder on a project of 39 eggs: speed, size and memory, and how its peers do.

::

    sudo python3 benchmarks/builder.py

README.rst beside this file says what the rows a to e are.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gzip
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "src")]

# the engine, the index and the Dockerfiles' base are those of the other benchmark
from benchmarks import images
from benchmarks.images import BenchmarkError, Figures, say
from eggcrate.tests import layers

ROWS = {
    "a": "One changed line of source, the image; ratios to bin/image build",
    "b": "One changed line of source, the whole buildout; ratios to the line above",
    "c": "Cold: nothing is there but downloads; ratios to the part [image]",
    "d": "Size; ratios to eggcrate's image",
    "e": "Memory",
}

# The project's distributions: as eggs of CPython 3.11 they are 9,121 files of 211 MB, without
# byte-code.
PINS = {
    "amqp": "5.4.2",
    "asgiref": "3.13.0",
    "async-timeout": "5.0.1",
    "billiard": "4.3.2",
    "celery": "5.7.0",
    "certifi": "2026.10.18",
    "charset-normalizer": "3.5.2",
    "circus": "0.19.0",
    "click": "8.5.1",
    "click-didyoumean": "0.3.1",
    "click-plugins": "1.1.1.2",
    "click-repl": "0.4.1",
    "Django": "5.2.19",
    "djangorestframework": "3.18.3",
    "gunicorn": "27.0.1",
    "idna": "3.20",
    "kombu": "5.7.0",
    "lxml": "6.1.3",
    "numpy": "2.4.6",
    "packaging": "26.3",
    "pandas": "3.1.1",
    "pillow": "13.0.0",
    "prompt-toolkit": "3.0.53",
    "psutil": "7.2.2",
    "psycopg2-binary": "2.9.13",
    "python-dateutil": "2.9.0.post0",
    "pytz": "2026.6",
    "pyzmq": "27.3.0",
    "redis": "8.1.0",
    "requests": "2.34.2",
    "six": "1.17.0",
    "SQLAlchemy": "2.1.9",
    "sqlparse": "0.6.1",
    "tornado": "6.6.1",
    "typing-extensions": "4.16.0",
    "tzlocal": "5.4.5",
    "urllib3": "2.8.0",
    "vine": "5.1.0",
    "wcwidth": "0.9.4",
}
# What the project asks for itself, the rest follows.
REQUIRED = (
    *("celery", "circus", "Django", "djangorestframework", "gunicorn", "lxml", "numpy"),
    *("pandas", "pillow", "psycopg2-binary", "pytz", "redis", "requests", "SQLAlchemy"),
)
# What the buildout itself is run with; the versions are those of this repository.
TOOLS = (
    *("pip", "platformdirs", "pyelftools", "setuptools", "uv", "wheel"),
    *("zc.buildout", "zc.recipe.egg"),
)

BUILDOUT = """\
[buildout]
extends = versions.cfg
develop = .
parts = app image

[app]
recipe = zc.recipe.egg
eggs =
    depot
    circus
    gunicorn
scripts = circusd depot gunicorn

[image]
recipe = eggcrate:docker-image
name = benchmark/depot
os-packages = libstdc++6
command = gunicorn --bind 0.0.0.0:8080 depot.web
expose = 8080
"""
# The same project and the same eggs, from a directory beside it.
PLAIN = """\
[buildout]
extends = ../project/versions.cfg
develop = ../project
eggs-directory = ../project/eggs
parts = app

[app]
recipe = zc.recipe.egg
eggs =
    depot
    circus
    gunicorn
scripts = circusd depot gunicorn
"""
MEMORY = """\
[buildout]
extends = ../project/versions.cfg
eggs-directory = ../project/eggs
parts = image

[image]
recipe = eggcrate:docker-image
name = benchmark/memory
include = {data} = /srv/data
command = python3 -V
"""
SETUP = """\
from setuptools import find_packages, setup

setup(
    name="depot",
    version="1.0",
    packages=find_packages("src"),
    package_dir={{"": "src"}},
    install_requires={required!r},
    entry_points={{"console_scripts": ["depot = depot.__main__:main"]}},
)
"""
# Imports what has extension modules, and says which change it is.
MAIN = """\
import django
import lxml.etree
import numpy
import pandas
import PIL.Image
import psycopg2
import sqlalchemy

from depot.web import CHANGE


def main():
    print("depot", CHANGE, int(pandas.Series(numpy.arange(3)).sum()))


if __name__ == "__main__":
    main()
"""
# The file with the line that changes.
WEB = """\
CHANGE = "none"


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"depot {CHANGE}\\n".encode()]
"""
SOURCE = "src/depot/web.py"
MODULES = 60

# How often what takes little time is measured in each run.
QUICK = 5
# What is left in eggcrate's cache when it is emptied: Debian's packages, and which of them
# it takes.
PACKAGES = ("apt/*", "debs/*.deb")
# The data of row e, and what disk they need: source, cache, layout and archive.
SMALL_FILES = 100_000
LARGE_BYTES = 5_000_000_000
LARGE_FILES = 4
NEEDED_BYTES = 25_000_000_000


def timed(
    argv: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> float:
    """The seconds that a program takes to its good end."""
    start = images.settled()
    images.run(argv, environ=environ, directory=directory)
    return time.monotonic() - start


def program(name: str, package: str) -> str:
    """Where a peer is; why it takes no part, if it is not here."""
    found = shutil.which(name, path=layers.PROGRAMS_PATH)
    if found is None:
        raise BenchmarkError(f"{name} is not here; apt-get install {package}")
    return found


# The project


def write_source(target: Path, bootstrap: Path, pins: Mapping[str, str]) -> None:
    """The project as somebody would clone it."""
    package = target / "src" / "depot"
    package.mkdir(parents=True, exist_ok=True)
    versions = "".join(f"{name} = {version}\n" for name, version in pins.items())
    module = "".join(
        f"def task_{number}(value):\n    return value * {number} + 1\n\n\n"
        for number in range(20)
    )
    requirements = "".join(f"{name}=={version}\n" for name, version in PINS.items())
    files = {
        "buildout.cfg": BUILDOUT,
        "versions.cfg": f"[versions]\n{versions}",
        "requirements.txt": requirements,
        "setup.py": SETUP.format(required=list(REQUIRED)),
        "bootstrap.py": bootstrap.read_text(encoding="utf-8"),
        "src/depot/__init__.py": "",
        "src/depot/__main__.py": MAIN,
        SOURCE: WEB,
        **{f"src/depot/tasks_{number}.py": module for number in range(MODULES)},
    }
    for name, text in files.items():
        (target / name).write_text(text, encoding="utf-8")


def change_line(tree: Path) -> str:
    """Change one line of the project's source; what it says now, as never before."""
    change = f"{time.time_ns():x}"
    path = tree / SOURCE
    text = re.sub(r'^CHANGE = ".*"$', f'CHANGE = "{change}"', path.read_text(), flags=re.M)
    path.write_text(text, encoding="utf-8")
    return change


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """A layer of an image layout."""

    path: Path
    media_type: str

    def unpacked(self) -> Iterator[bytes]:
        """Its bytes before they were compressed."""
        if self.media_type.endswith(".tar"):
            with self.path.open("rb") as stream:
                yield from iter(lambda: stream.read(1 << 20), b"")
        else:
            with gzip.open(self.path) as unzipped:
                yield from iter(lambda: unzipped.read(1 << 20), b"")

    def contains(self, words: bytes) -> bool:
        """Whether the words are somewhere in the layer."""
        last = b""
        for block in self.unpacked():
            if words in last + block:
                return True
            last = block[-len(words) :]
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class Project:
    """The buildout with the image, ready to be built again."""

    site: images.Site

    @property
    def tree(self) -> Path:
        """The buildout's directory."""
        return self.site.directory / "project"

    @property
    def cache(self) -> Path:
        """eggcrate's cache."""
        return self.site.directory / "cache"

    @property
    def layout(self) -> Path:
        """The image layout that the part leaves."""
        return self.tree / "parts" / "image" / "oci"

    @property
    def image_script(self) -> Path:
        """The script that builds the image without buildout."""
        return self.tree / "bin" / "image"

    def environ(self) -> dict[str, str]:
        """What buildout runs with."""
        return {**self.site.packaging_environ(), "EGGCRATE_CACHE": str(self.cache)}

    def prepare(self) -> None:
        """Build everything for the first time, in an environment of the project's own."""
        site = self.site
        say("the project: its environment, its eggs, its image")
        for name in ("home", "plain"):
            (site.directory / name).mkdir(exist_ok=True)
        shutil.copytree(
            site.demo.source, self.tree, copy_function=shutil.copy, dirs_exist_ok=True
        )
        (site.directory / "plain" / "buildout.cfg").write_text(PLAIN, encoding="utf-8")
        # the version stays the same from one benchmark to the next
        for egg in self.tree.glob("eggs/*/eggcrate-*.egg"):
            shutil.rmtree(egg)
        index = f"buildout:index={site.index}"
        images.run(
            [sys.executable, "bootstrap.py"], environ=self.environ(), directory=self.tree
        )
        self.buildout(index)
        self.plain(index)
        # without the option, which zc.recipe.egg takes for a reason to install again
        self.buildout()
        self.plain()

    def buildout(self, *options: str) -> tuple[float, float]:
        """Run ``bin/buildout -N``; the seconds of it all, and those of the part [image]."""
        start = images.settled()
        lines = images.run(
            [self.tree / "bin" / "buildout", "-N", *options],
            environ=self.environ(),
            directory=self.tree,
        )
        end = time.monotonic()
        began = [at for at, line in lines if re.match(r"(Installing|Updating) image\.", line)]
        if not began:
            raise BenchmarkError("buildout does not say when it comes to the part image")
        return end - start, end - began[0]

    def plain(self, *options: str) -> float:
        """Run ``bin/buildout -N`` for the same project without an image."""
        configuration = self.site.directory / "plain" / "buildout.cfg"
        return timed(
            [self.tree / "bin" / "buildout", "-N", "-c", configuration, *options],
            environ=self.environ(),
            directory=configuration.parent,
        )

    def build_image(self) -> float:
        """Run ``bin/image build``."""
        if not self.image_script.exists():
            raise BenchmarkError("bin/image is not there")
        return timed([self.image_script, "build"], environ=self.environ(), directory=self.tree)

    def forget(self, but: Sequence[str]) -> None:
        """Let nothing remain of the image, and of the cache only what fits the patterns."""
        shutil.rmtree(self.tree / "parts" / "image", ignore_errors=True)
        kept = self.cache.with_name("downloads")
        shutil.rmtree(kept, ignore_errors=True)
        for pattern in but:
            for path in self.cache.glob(pattern):
                target = kept / path.relative_to(self.cache)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        shutil.rmtree(self.cache)
        kept.rename(self.cache)

    def layers(self) -> list[Blob]:
        """The layers of the image."""
        index = json.loads((self.layout / "index.json").read_bytes())
        manifest = json.loads(self._blob(index["manifests"][0]["digest"]).read_bytes())
        return [
            Blob(self._blob(layer["digest"]), layer["mediaType"])
            for layer in manifest["layers"]
        ]

    def _blob(self, digest: str) -> Path:
        return self.layout / "blobs" / digest.replace(":", "/")

    def blobs(self) -> dict[Path, int]:
        """The sizes of all blobs of the layout."""
        return {
            path: path.stat().st_size for path in (self.layout / "blobs" / "sha256").iterdir()
        }

    def content(self) -> int:
        """The bytes of the image before it was compressed."""
        return sum(len(block) for layer in self.layers() for block in layer.unpacked())

    def check_change(self, change: str, before: Mapping[Path, int]) -> None:
        """Nothing, if the image has the changed line now."""
        if not any(
            layer.contains(change.encode())
            for layer in self.layers()
            if layer.path not in before
        ):
            raise BenchmarkError(
                f"the image is not of the source as it is: {change} is missing"
            )

    def unpack(self, target: Path) -> None:
        """Make ``target`` the root file system of the image."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for layer in self.layers():
            images.run(["tar", "--extract", "--file", layer.path, "--directory", target])


# What is measured


@dataclasses.dataclass
class Bench:
    """The project and its peers, with all figures; why a peer has none is in ``missing``."""

    project: Project
    runs: int
    peers: Mapping[str, images.Dockerfile] = dataclasses.field(default_factory=dict)
    figures: Figures = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def site(self) -> images.Site:
        """Where everything happens."""
        return self.project.site

    def note(self, name: str, value: float) -> None:
        """Keep one figure of one run."""
        self.figures.setdefault(name, []).append(value)

    def attempt(self, name: str, measure: Callable[[], object]) -> None:
        """Measure something that may not be here, or may fail; then go on without it."""
        if name not in self.missing:
            try:
                measure()
            except (AssertionError, BenchmarkError, OSError) as error:
                self.missing[name] = str(error)
                say(f"{name}: {error}")

    def peer(self, name: str) -> images.Dockerfile:
        """A Dockerfile, whose image has been built."""
        if "engine" in self.missing:
            raise BenchmarkError(self.missing["engine"])
        return self.peers[name]


def changed_image(bench: Bench) -> None:
    """Row a: the image alone, after a change of one line."""
    project = bench.project

    def ours() -> None:
        before = project.blobs()
        change = change_line(project.tree)
        seconds = project.build_image()
        project.check_change(change, before)
        bench.note("a image", seconds)
        bench.note("a image unchanged", project.build_image())

    def tuned() -> None:
        contender = bench.peer("tuned")
        change_line(contender.tree())
        bench.note("a tuned", contender.build(cold=False)["build"])
        bench.note("a tuned unchanged", contender.build(cold=False)["build"])

    def article() -> None:
        contender = bench.peer("article")
        change_line(contender.tree())
        bench.note("a article", contender.build(cold=False)["build"])

    for number in range(1, bench.runs + 1):
        say(f"a, run {number}")
        for _ in range(QUICK):
            bench.attempt("a image", ours)
            bench.attempt("a tuned", tuned)
        bench.attempt("a article", article)


def changed_buildout(bench: Bench) -> None:
    """Row b: all of ``bin/buildout -N``."""
    project = bench.project
    for number in range(1, bench.runs + 1):
        say(f"b, run {number}")
        for _ in range(QUICK):
            before = project.blobs()
            change = change_line(project.tree)
            whole, part = project.buildout()
            project.check_change(change, before)
            bench.note("b changed", whole)
            bench.note("b changed part", part)
            whole, part = project.buildout()
            bench.note("b unchanged", whole)
            bench.note("b unchanged part", part)
            bench.note("b plain", project.plain())


def cold(bench: Bench) -> None:
    """Row c: the image from nothing, and its tree in the hands of others."""
    project = bench.project
    tree = bench.site.directory / "content"
    content = project.content() / 1e6
    bench.note("c content", content)
    project.unpack(tree)

    def ours() -> None:
        project.forget(but=images.DOWNLOADS)
        bench.note("c resolving", project.buildout()[1])
        project.forget(but=PACKAGES)
        whole, part = project.buildout()
        bench.note("c buildout", whole)
        bench.note("c part", part)
        bench.note("c part speed", content / part)

    peers: Mapping[str, Callable[[Bench, Path], float]] = {
        "c docker": copy_with_docker,
        "c buildah": copy_with_buildah,
        "c umoci": copy_with_umoci,
    }
    for number in range(1, bench.runs + 1):
        say(f"c, run {number}")
        ours()
        for name, copy in peers.items():

            def theirs(name: str = name, copy: Callable[[Bench, Path], float] = copy) -> None:
                seconds = copy(bench, tree)
                bench.note(name, seconds)
                bench.note(f"{name} speed", content / seconds)

            bench.attempt(name, theirs)
    shutil.rmtree(tree)


def copy_with_docker(bench: Bench, tree: Path) -> float:
    """The seconds of ``docker build`` of a COPY, and ``docker save | gzip``."""
    site = bench.site
    if "engine" in bench.missing:
        raise BenchmarkError(bench.missing["engine"])
    file = site.directory / "copy.Dockerfile"
    file.write_text("FROM scratch\nCOPY . /\n", encoding="utf-8")
    archive = site.directory / "docker.tar.gz"
    name = "benchmark/copy"
    site.forget_images(name)
    start = images.settled()
    site.call_docker("build", f"--tag={name}", f"--file={file}", tree)
    with (
        archive.open("wb") as target,
        subprocess.Popen(
            [site.docker, "save", name], env=site.engine.environ, stdout=subprocess.PIPE
        ) as saving,
        subprocess.Popen(["gzip"], stdin=saving.stdout, stdout=target) as compressing,
    ):
        assert saving.stdout is not None
        # so that the one ends when the other does
        saving.stdout.close()
    seconds = time.monotonic() - start
    if saving.returncode or compressing.returncode:
        raise BenchmarkError("docker save | gzip has failed")
    bench.note("c docker size", archive.stat().st_size)
    archive.unlink()
    site.forget_images(name)
    return seconds


def copy_with_buildah(bench: Bench, tree: Path) -> float:
    """The seconds of ``buildah`` ``copy``, ``commit``, and ``push`` into an OCI archive."""
    archive = bench.site.directory / "buildah.tar"
    command = program("buildah", "buildah")
    with tempfile.TemporaryDirectory(prefix="eggcrate-buildah-") as storage:
        buildah = (
            *(command, "--storage-driver", "overlay"),
            *("--root", f"{storage}/root", "--runroot", f"{storage}/run"),
        )
        start = images.settled()
        ((_, container),) = images.run([*buildah, "from", "scratch"])
        try:
            images.run([*buildah, "copy", "--quiet", container, tree, "/"])
            images.run([*buildah, "commit", "--quiet", container, "copy"])
            images.run([*buildah, "push", "--quiet", "copy", f"oci-archive:{archive}:copy"])
            seconds = time.monotonic() - start
        finally:
            images.run([*buildah, "rm", "--all"])
    bench.note("c buildah size", archive.stat().st_size)
    archive.unlink()
    return seconds


def copy_with_umoci(bench: Bench, tree: Path) -> float:
    """The seconds of ``umoci insert`` into an image layout, and ``tar`` of that."""
    umoci = program("umoci", "umoci")
    layout, archive = (bench.site.directory / name for name in ("umoci", "umoci.tar"))
    shutil.rmtree(layout, ignore_errors=True)
    start = images.settled()
    images.run([umoci, "init", "--layout", layout])
    images.run([umoci, "new", "--image", f"{layout}:copy"])
    images.run([umoci, "insert", "--image", f"{layout}:copy", tree, "/"])
    images.run(["tar", "--create", "--file", archive, "--directory", layout, "."])
    seconds = time.monotonic() - start
    bench.note("c umoci size", archive.stat().st_size)
    shutil.rmtree(layout)
    archive.unlink()
    return seconds


def sizes(bench: Bench) -> None:
    """Row d: what there is to push, at first and after a change of one line."""
    project = bench.project
    for number in range(1, bench.runs + 1):
        say(f"d, run {number}")
        before = project.blobs()
        change_line(project.tree)
        project.buildout()
        after = project.blobs()
        bench.note("d size", sum(after.values()))
        bench.note("d content", project.content())
        new = {path: size for path, size in after.items() if path not in before}
        bench.note("d changed", sum(new.values()))

    def tuned() -> None:
        contender = bench.peer("tuned")
        # row c has emptied the engine's cache; what is built again has other bytes
        contender.build(cold=False)
        contender.push()
        before, _ = bench.site.layers_of(contender.image)
        change_line(contender.tree())
        contender.build(cold=False)
        contender.push()
        after, _ = bench.site.layers_of(contender.image)
        bench.note("d tuned", sum(after.values()))
        bench.note(
            "d tuned changed",
            sum(size for digest, size in after.items() if digest not in before),
        )

    bench.attempt("d tuned", tuned)


def check_images(bench: Bench) -> None:
    """See that the images are of the same project, and work."""
    project, engine = bench.project, bench.site.engine
    changes = {"eggcrate": change_line(project.tree)}
    project.buildout()
    names = {"eggcrate": engine.load(project.tree / "parts" / "image" / "image.tar")}
    for name, contender in bench.peers.items():
        if f"a {name}" in bench.missing:
            continue
        text = (contender.tree() / SOURCE).read_text(encoding="utf-8")
        changes[name] = text.split('"')[1]
        names[name] = contender.image
    commands = {
        "eggcrate": ("depot",),
        "tuned": ("python", "-m", "depot"),
        "article": ("bin/depot",),
    }
    for name, image in names.items():
        container = engine.run(image, args=commands[name])
        try:
            code, said = container.wait(120), container.logs().strip()
        finally:
            container.remove()
        if code or said != f"depot {changes[name]} 3":
            raise BenchmarkError(f"{name}: its image ends with {code}, and says {said!r}")


# Memory


def descendants(pid: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield pid
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))


def resident(pid: int) -> int:
    """The bytes of memory of a process; of what it shares with others, its part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else 0


def peaks(argv: Sequence[str | Path], environ: Mapping[str, str]) -> tuple[int, int]:
    """The most bytes of memory of one of a program's processes, and of all of them together.

    The first is what the kernel knows (getrusage(2)), the second is looked at 20 times a
    second.
    """
    together = 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            argv, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            while True:
                # not poll(), which would have no use for what wait4() says
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if ended:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    break
                together = max(together, sum(map(resident, descendants(process.pid))))
                time.sleep(0.05)
        finally:
            if process.returncode is None:
                process.terminate()
                process.wait()
        if process.returncode:
            log.seek(0)
            tail = "\n".join(log.read().decode(errors="replace").splitlines()[-25:])
            raise BenchmarkError(f"{argv[0]} has ended with {process.returncode}:\n{tail}")
    return usage.ru_maxrss * 1024, together


def small_files(target: Path) -> None:
    """Many files, a few hundred bytes each, no two of them alike."""
    for number in range(SMALL_FILES):
        directory = target / f"{number // 100:04}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        text = f"record {number}\n" * (10 + number % 30)
        (directory / f"{number:06}.txt").write_text(text, encoding="ascii")


def large_files(target: Path) -> None:
    """Random data in a few files."""
    target.mkdir(parents=True)
    for number in range(LARGE_FILES):
        with (target / f"{number}.bin").open("wb") as stream:
            for _ in range(LARGE_BYTES // LARGE_FILES // 1_000_000):
                stream.write(os.urandom(1_000_000))


def memory(bench: Bench) -> None:
    """Row e: an image of many files, and one of large ones; once each."""
    project = bench.project
    directory = bench.site.directory / "memory"
    plain = bench.site.directory / "plain"
    buildout = project.tree / "bin" / "buildout"
    say("e")
    one, _ = peaks([buildout, "-N", "-c", plain / "buildout.cfg"], project.environ())
    bench.note("e plain", one)

    def measure(name: str, write: Callable[[Path], None]) -> None:
        data = bench.site.directory / name
        done = data.with_suffix(".done")
        if not done.exists():
            say(f"e: writing the data of {name}")
            shutil.rmtree(data, ignore_errors=True)
            write(data)
            done.touch()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        configuration = directory / "buildout.cfg"
        configuration.write_text(MEMORY.format(data=data), encoding="utf-8")
        project.forget(but=PACKAGES)
        say(f"e: {name}")
        start = images.settled()
        try:
            one, together = peaks([buildout, "-N", "-c", configuration], project.environ())
        finally:
            shutil.rmtree(directory)
            project.forget(but=PACKAGES)
        bench.note(f"e {name} seconds", time.monotonic() - start)
        bench.note(f"e {name}", one)
        bench.note(f"e {name} together", together)

    def many() -> None:
        measure("many", small_files)

    def large() -> None:
        free = shutil.disk_usage(bench.site.directory).free
        if free < NEEDED_BYTES:
            raise BenchmarkError(
                f"it needs {NEEDED_BYTES / 1e9:.0f} GB of disk, and {free / 1e9:.0f} are free"
            )
        measure("large", large_files)

    bench.attempt("e many", many)
    bench.attempt("e large", large)


MEASURES: Mapping[str, Callable[[Bench], None]] = {
    "a": changed_image,
    "b": changed_buildout,
    "c": cold,
    "d": sizes,
    "e": memory,
}


# The report


def speed_text(value: float) -> str:
    """As in 12.3 MB/s."""
    return f"{value:.1f} MB/s"


def content_text(value: float) -> str:
    """As in 123 MB, from megabytes."""
    return f"{value:.0f} MB"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A figure, and what it is compared with.

    The ratio is that of ``figure`` to ``to``, or of ``to`` to ``figure`` if it is ``least``.
    Without ``to`` it is the figure itself that has a limit.
    """

    title: str
    figure: str
    text: Callable[[float], str]
    to: str = ""
    most: float | None = None
    least: float | None = None

    def ratio(self, medians: Mapping[str, float]) -> float | None:
        """How many times the other figure it is."""
        return medians[self.figure] / medians[self.to] if medians.get(self.to) else None

    def verdict(self, medians: Mapping[str, float]) -> str:
        """Whether the figure, or its ratio, is within what is wanted."""
        value = self.ratio(medians) if self.to else medians[self.figure]
        text = images.ratio_text if self.to else self.text
        if value is None:
            return ""
        if self.least is not None:
            met, wanted = value >= self.least, f"at least {text(self.least)}"
        elif self.most is not None:
            met, wanted = value <= self.most, f"at most {text(self.most)}"
        else:
            return ""
        return f"{wanted:20}{'met' if met else 'missed'}"


SECONDS, BYTES = images.seconds_text, images.bytes_text
LINES: Mapping[str, Sequence[Line]] = {
    "a": (
        Line("bin/image build", "a image", SECONDS),
        Line("  nothing changed", "a image unchanged", SECONDS),
        Line("tuned Dockerfile, BuildKit", "a tuned", SECONDS, to="a image", least=1),
        Line("  nothing changed", "a tuned unchanged", SECONDS, to="a image"),
        Line("article's Dockerfile", "a article", SECONDS, to="a image", least=300),
    ),
    "b": (
        Line("the same without the part [image]", "b plain", SECONDS),
        Line("nothing changed", "b unchanged", SECONDS, to="b plain", most=1.1),
        Line("  of it the part [image]", "b unchanged part", SECONDS),
        Line("one line changed", "b changed", SECONDS, to="b unchanged", most=1.3),
        Line("  of it the part [image]", "b changed part", SECONDS),
    ),
    "c": (
        Line("content of the image", "c content", content_text),
        Line("the whole buildout, its eggs installed", "c buildout", SECONDS),
        Line("  of it the part [image]", "c part", SECONDS),
        Line("    content a second", "c part speed", speed_text, least=60),
        Line("    with packages to resolve, too", "c resolving", SECONDS),
        Line("docker build of a COPY, save | gzip", "c docker", SECONDS, to="c part", least=1),
        Line("    content a second", "c docker speed", speed_text),
        Line("    archive", "c docker size", BYTES),
        Line("buildah", "c buildah", SECONDS, to="c part", least=1),
        Line("    content a second", "c buildah speed", speed_text),
        Line("    archive", "c buildah size", BYTES),
        Line("umoci and tar", "c umoci", SECONDS, to="c part", least=1),
        Line("    content a second", "c umoci speed", speed_text),
        Line("    archive", "c umoci size", BYTES),
    ),
    "d": (
        Line("compressed", "d size", BYTES),
        Line("  unpacked", "d content", BYTES),
        Line("  new after one changed line", "d changed", BYTES, most=64_000),
        Line("tuned Dockerfile, compressed", "d tuned", BYTES, to="d size", least=2),
        Line("  new after one changed line", "d tuned changed", BYTES),
    ),
    "e": (
        Line("buildout without the part [image]", "e plain", BYTES),
        Line(f"image of {SMALL_FILES:,} files", "e many", BYTES, most=128e6),
        Line("  all processes together", "e many together", BYTES),
        Line("  in", "e many seconds", SECONDS),
        Line(
            f"image of {LARGE_BYTES / 1e9:.0f} GB of random data",
            "e large",
            BYTES,
            most=128e6,
        ),
        Line("  all processes together", "e large together", BYTES),
        Line("  in", "e large seconds", SECONDS),
    ),
}


def table(
    titles: Mapping[str, str],
    lines: Mapping[str, Sequence[Line]],
    figures: Figures,
    missing: Mapping[str, str],
) -> str:
    """The medians, their ratios, and what is wanted of them; ``titles`` are those of rows."""
    medians = {name: statistics.median(values) for name, values in figures.items()}
    texts = []
    for row, title in titles.items():
        texts.append(f"{row}  {title}")
        for line in lines[row]:
            if line.figure in medians:
                ratio = line.ratio(medians) if line.to else None
                cell = line.text(medians[line.figure])
                times = images.ratio_text(ratio) if ratio is not None else ""
                text = f"{cell:>12}{times:>9}  {line.verdict(medians)}"
            elif line.figure in missing:
                text = f"{'-':>12}  {missing[line.figure].splitlines()[0]}"
            else:
                text = f"{'-':>12}"
            texts.append(f"   {line.title:42}{text}".rstrip())
    return "\n".join(texts)


def facts(bench: Bench) -> dict[str, str]:
    """What the figures depend on."""
    sizes = [
        path.stat().st_size
        for egg in bench.project.tree.glob("eggs/*/*.egg")
        if re.sub(r"[-_.]+", "-", egg.name.partition("-")[0]).lower()
        in {name.lower() for name in PINS}
        for path in egg.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    found = {
        "project": f"{len(PINS)} distributions, {len(sizes):,} files, "
        f"{sum(sizes) / 1e6:.0f} MB without byte-code"
    }
    found |= images.machine()
    if bench.peers:
        found |= images.tools(bench.site)
    for peer in ("buildah", "umoci"):
        if shutil.which(peer, path=layers.PROGRAMS_PATH):
            found[peer] = images.run([peer, "--version"])[0][1]
    return found


def load_text() -> str:
    """How much the machine has to do."""
    one, five, fifteen = os.getloadavg()
    return f"{one:.1f} {five:.1f} {fifteen:.1f} (1, 5, 15 minutes)"


# Preparation


def download(directory: Path, pins: Mapping[str, str], wanted: Mapping[str, str]) -> Path:
    """All packages: those wanted, and eggcrate as it is now, with what else it requires.

    ``directory`` has eggcrate's source; ``pins`` are of both.
    """
    packages, stamp = directory / "packages", directory / "packages.json"
    facts = json.dumps({**wanted, "python": sys.version}, sort_keys=True)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != facts:
        say("downloading the packages")
        for path in (packages, directory / "pip", directory / "project"):
            shutil.rmtree(path, ignore_errors=True)
        images.download_packages(wanted, directory)
        stamp.write_text(facts, encoding="utf-8")
    pip: tuple[str | Path, ...] = (directory / "pip" / "bin" / "python", "-m", "pip")
    here: tuple[str | Path, ...] = ("--no-index", "--find-links", packages)
    for old in packages.glob("eggcrate-*"):
        old.unlink()
    images.run(
        [*pip, "wheel", "--no-deps", *here, "--wheel-dir", packages, directory / "eggcrate"]
    )
    (wheel,) = packages.glob("eggcrate-*.whl")
    constraints = directory / "constraints.txt"
    constraints.write_text(
        "".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8"
    )
    # what eggcrate requires beside TOOLS
    more = [*pip, "download", "--dest", packages, "--constraint", constraints, wheel]
    try:
        images.run([*more, *here])
    except BenchmarkError:
        images.run([*more, "--find-links", packages])
    return packages


def start_engine(site: images.Site, packages: Path, stack: contextlib.ExitStack) -> None:
    """The engine and the registry, with the images that the Dockerfiles start from."""
    if os.geteuid():
        raise BenchmarkError("only root can start a dockerd; run it with sudo")
    for server in (site.engine, site.registry):
        server.setUp()
        stack.callback(server.tearDown)
        if server.unavailable:
            raise BenchmarkError(server.unavailable)
    base = site.directory / "base.tar"
    if not base.exists():
        program("mmdebstrap", "mmdebstrap")
        say("making the Dockerfiles' base of Debian's packages")
        images.make_base(site.demo, site.directory)
    images.prepare_images(site, base, packages)


def dockerfiles(site: images.Site) -> Mapping[str, images.Dockerfile]:
    """The two Dockerfiles, for an engine and a registry that have been started."""
    return {
        "tuned": images.Dockerfile(
            site,
            "builder-tuned",
            {"BASE": site.base, "UV": site.uv, "UV_DEFAULT_INDEX": site.index},
        ),
        "article": images.Dockerfile(
            site, "article", {"BASE": site.base, "PIP_INDEX_URL": site.index, "PARTS": "app"}
        ),
    }


def prepare(
    directory: Path, rows: Sequence[str], runs: int, stack: contextlib.ExitStack
) -> Bench:
    """The project in ``directory``, built once, and the peers that the rows need."""
    # nobody's work while the benchmark runs is to be in its figures
    snapshot = directory / "eggcrate"
    shutil.rmtree(snapshot, ignore_errors=True)
    taken = images.Demo.taken(snapshot)
    pins = {**taken.pins, **PINS}
    demo = images.Demo(
        source=directory / "source",
        parts=("app",),
        custom={},
        pins={**{name: taken.pins[name] for name in TOOLS}, **PINS},
        os_packages=("libstdc++6",),
    )
    write_source(demo.source, snapshot / "bootstrap.py", pins)
    packages = download(directory, pins, demo.pins)
    index = stack.enter_context(images.package_index(packages, demo.pins))
    engine = layers.DockerEngine("ENGINE", "docker.io")
    registry = layers.Registry("REGISTRY", "docker-registry")
    missing = {}
    try:
        docker = images.docker_client()
    except BenchmarkError as error:
        docker, missing["engine"] = "", str(error)
    site = images.Site(demo, directory, engine, registry, docker, index, layers.free_port())
    bench = Bench(Project(site), runs, missing=missing)
    bench.project.prepare()
    if set(rows) & {"a", "c", "d"}:
        say("the engine")
        bench.attempt("engine", lambda: start_engine(site, packages, stack))
        if "engine" not in bench.missing:
            bench.peers = dockerfiles(site)
    if set(rows) & {"a", "d"} and bench.peers:
        say("the tuned Dockerfile, from nothing")
        bench.attempt("a tuned", lambda: bench.peers["tuned"].build(cold=True))
        demo.copy(bench.peers["article"].tree())
    return bench


def command_line(doc: str, rows: Mapping[str, str], runs: int) -> argparse.Namespace:
    """The options of a benchmark that has rows; its ``rows`` are those that are wanted."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument(
        "--only",
        default=",".join(rows),
        metavar="ROWS",
        help=f"some of {','.join(rows)} (default: all)",
    )
    parser.add_argument(
        "--runs", type=int, default=runs, help=f"the table has medians (default: {runs})"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="prepare the project there, and leave it for the next benchmark",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every run")
    options = parser.parse_args()
    options.rows = sorted(set(options.only.split(",")))
    if unknown := set(options.rows) - set(rows):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    if options.runs < 1:
        parser.error("--runs: at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    return options


@contextlib.contextmanager
def project_directory(keep: Path | None) -> Iterator[Path]:
    """A directory for the project: the one to keep, or one that goes with this block."""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="eggcrate-benchmark-") as scratch:
            yield Path(scratch)


def write_figures(path: Path | None, known: Mapping[str, str], figures: Figures) -> None:
    """Keep every figure of every run, if there is a path to keep them."""
    if path is not None:
        text = json.dumps({"machine": known, "runs": figures}, indent=1)
        path.write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    """Do what the command line says."""
    options = command_line(__doc__ or "", ROWS, runs=3)
    rows = options.rows
    load = load_text()
    try:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(project_directory(options.keep))
            bench = prepare(directory, rows, options.runs, stack)
            for row in rows:
                # a row that fails leaves the others their figures
                bench.attempt(f"row {row}", functools.partial(MEASURES[row], bench))
            if "a" in rows and bench.peers:
                say("seeing that the images work")
                bench.attempt("images", lambda: check_images(bench))
            known = facts(bench)
            say("cleaning up")
    except (AssertionError, BenchmarkError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    known["load"] = f"{load} before the start, {load_text()} at the end"
    print(f"The builder, medians of {options.runs}\n")
    print(table({row: ROWS[row] for row in rows}, LINES, bench.figures, bench.missing))
    print()
    for name, fact in known.items():
        print(f"{name + ':':11}{fact}")
    for name, reason in bench.missing.items():
        print(f"{name}: {reason}")
    write_figures(options.json, known, bench.figures)
    if failed := {"images", *(f"row {row}" for row in rows)} & set(bench.missing):
        sys.exit(f"{Path(__file__).name}: {', '.join(sorted(failed))}: see above")


if __name__ == "__main__":
    main()
