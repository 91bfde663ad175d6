#!/usr/bin/env python3
"""The demo's image, built by eggcrate and by two Dockerfiles: times, sizes, ratios.

::

    sudo python3 benchmarks/images.py

README.rst beside this file says what is compared, and what "cold" means for each.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import dataclasses
import hashlib
import http.server
import json
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path.insert(0, str(PROJECT / "src"))

# the servers of the tests serve here, too
from eggcrate.tests import layers

# The line of source that changes, and what the image is asked to see the change.
SOURCE = "examples/shop/src/shop/catalogue/views.py"
LINE = '    return JsonResponse({"status": "ok"})'
CHANGED = '    return JsonResponse({{"status": "ok", "change": {number}}})'

# What the Dockerfiles' base has beside the image's own os-packages.
BASE_PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
# as Debian's own slim images
SLIM = (
    *(
        f"path-exclude=/usr/share/{name}/*"
        for name in ("doc", "info", "lintian", "locale", "man")
    ),
    "path-include=/usr/share/doc/*/copyright",
)
# What eggcrate's cache has that was downloaded, and not made.
DOWNLOADS = ("apt/*/lists", "apt/*/lists-complete", "debs/*.deb")
# Of an image that eggcrate built, what the Dockerfiles find in their base.
BASE_LAYERS = ("eggcrate: packages",)

# Where the metadata of a distribution lie: zc.buildout adds the platform to its version.
DISTRIBUTION = re.compile(r"/([\w.]+)-(\d[^/-]*)[^/]*\.dist-info/METADATA$")

MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


class BenchmarkError(Exception):
    """Why the benchmark can't go on: one sentence."""


def say(text: str) -> None:
    """Tell how far we are; standard output is for the result."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> list[tuple[float, str]]:
    """Run a program to its good end; its lines, with the time at which each came."""
    process = subprocess.Popen(
        argv,
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    lines: list[tuple[float, str]] = []
    try:
        lines.extend((time.monotonic(), line.rstrip("\n")) for line in process.stdout)
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        tail = "\n".join(line for _, line in lines[-25:])
        raise BenchmarkError(f"{argv[0]} has ended with {process.returncode}:\n{tail}")
    return lines


def settled() -> float:
    """The time, when what was written before is on the disk: it is not to be in a figure."""
    os.sync()
    return time.monotonic()


# What is the same for all


@dataclasses.dataclass(frozen=True)
class Demo:
    """The project that is built, and what its buildout.cfg says."""

    source: Path
    parts: tuple[str, ...]
    custom: Mapping[str, str]
    pins: Mapping[str, str]
    os_packages: tuple[str, ...]

    @classmethod
    def taken(cls, source: Path) -> Demo:
        """What a clone of this working tree would have, with its changes, in ``source``."""
        # nobody's work while the benchmark runs is to be in its figures
        listed = ("ls-files", "--cached", "--others", "--exclude-standard")
        for _, name in run(["git", "-c", "core.quotePath=off", *listed], directory=PROJECT):
            if (PROJECT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / name, source / name)
        config = configparser.ConfigParser(
            interpolation=None, delimiters=("=",), default_section=""
        )
        config.optionxform = str  # type: ignore[assignment,method-assign] # as documented
        config.read(source / "buildout.cfg", encoding="utf-8")
        parts = config["buildout"]["parts"].split()
        return cls(
            source,
            # what comes after the image does not go into it
            parts=tuple(parts[: parts.index("image") + 1]),
            custom=dict(config["custom"]),
            pins=dict(config["versions"]),
            os_packages=tuple(config["image"]["os-packages"].split()),
        )

    def copy(self, target: Path) -> None:
        """Make a fresh copy, whose files are as new as a clone's."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.source, target, copy_function=shutil.copy)

    def render(self, template: str, values: Mapping[str, str]) -> str:
        """A template's text as somebody would have written it without buildout."""
        return re.sub(
            r"\$\{([\w-]+:[\w-]+)\}",
            lambda reference: values[reference[1]],
            (self.source / "templates" / template).read_text(encoding="utf-8"),
        )


def change_line(tree: Path, number: int) -> None:
    """Change one line of the application's source."""
    path = tree / SOURCE
    text = path.read_text(encoding="utf-8")
    if text.count(f"{LINE}\n") != 1:
        raise BenchmarkError(f"{SOURCE} has no line {LINE!r}; mend LINE in {__file__}")
    path.write_text(text.replace(LINE, CHANGED.format(number=number)), encoding="utf-8")


@contextlib.contextmanager
def package_index(files: Path, pins: Mapping[str, str]) -> Iterator[str]:
    """The URL of an index (PEP 503) on loopback that has the files, under any spelling.

    As a public one does, it has the metadata of wheels beside them (PEP 658), says how long
    what it has may be kept, and whether what somebody has kept is still the same.
    """

    def normalised(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pages: dict[str, list[str]] = {normalised(name): [] for name in pins}
    metadata: dict[str, bytes] = {}
    for path in sorted(files.iterdir()):
        project = re.split(r"-(?=\d)", path.name, maxsplit=1)[0]
        attribute = ""
        if path.suffix == ".whl":
            metadata[f"/{path.name}.metadata"] = content = wheel_metadata(path)
            digest = hashlib.sha256(content).hexdigest()
            attribute = f' data-core-metadata="sha256={digest}"'
        link = f'<a href="/{path.name}"{attribute}>{path.name}</a>\n'
        pages.setdefault(normalised(project), []).append(link)

    class Index(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, directory=str(files), **keywords)

        def do_GET(self) -> None:
            page = re.fullmatch(r"/simple/([^/]+)/?", self.path)
            if page and normalised(page[1]) in pages:
                self.answer("text/html", "".join(pages[normalised(page[1])]).encode())
            elif self.path in metadata:
                self.answer("application/octet-stream", metadata[self.path])
            else:
                super().do_GET()

        def answer(self, media_type: str, body: bytes) -> None:
            tag = f'"{hashlib.sha256(body).hexdigest()}"'
            known = self.headers["If-None-Match"] == tag
            self.send_response(304 if known else 200)
            self.send_header("Content-Type", media_type)
            self.send_header("ETag", tag)
            if not known:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not known:
                self.wfile.write(body)

        def end_headers(self) -> None:
            kept = "600" if self.path.startswith("/simple/") else "365000000, immutable"
            self.send_header("Cache-Control", f"max-age={kept}, public")
            super().end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Nobody reads it."""

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128  # uv asks for all at once, and one more would wait a second

    server = Server(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wheel_metadata(wheel: Path) -> bytes:
    """What a wheel says about its distribution."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            name
            for name in archive.namelist()
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
        )
        return archive.read(name)


def packaging_environ(home: Path, index: str) -> dict[str, str]:
    """An environment with an index and an empty home, and nothing of the user's own."""
    own = ("PIP_", "UV_", "PYTHON", "XDG_", "EGGCRATE_", "SOURCE_DATE")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(own)},
        "HOME": str(home),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index,
        "UV_NO_CONFIG": "1",
        "no_proxy": "127.0.0.1",
    }


@dataclasses.dataclass(frozen=True)
class Site:
    """Where everything happens: a scratch directory, an engine, a registry, an index."""

    demo: Demo
    directory: Path
    engine: layers.DockerEngine
    registry: layers.Registry
    docker: str
    index: str
    port: int

    @property
    def base(self) -> str:
        """The image that the Dockerfiles start from."""
        return f"{self.registry.host}/benchmark/base"

    @property
    def uv(self) -> str:
        """The image that has the program /uv."""
        return f"{self.registry.host}/benchmark/uv"

    def call_docker(self, *arguments: str | Path) -> list[tuple[float, str]]:
        """Call the client that can do BuildKit."""
        environ = {**self.engine.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        return run([self.docker, *arguments], environ=environ)

    def forget_images(self, *names: str) -> None:
        """Take images out of the engine, with all that was built before them, and the cache."""
        with contextlib.suppress(BenchmarkError):  # there are none before the first build
            self.call_docker("image", "rm", "--force", *names)
        self.call_docker("image", "prune", "--force")
        self.call_docker("builder", "prune", "--all", "--force")

    def packaging_environ(self) -> dict[str, str]:
        """An environment with the index on loopback, and nothing of the user's own."""
        return packaging_environ(self.directory / "home", self.index)

    def layers_of(self, image: str) -> tuple[dict[str, int], int]:
        """The compressed layers of an image in the registry, and the bytes in base layers."""
        name, _, tag = image.removeprefix(f"{self.registry.host}/").partition(":")
        url = f"{self.registry.url}/v2/{name}"
        answer = layers.get(f"{url}/manifests/{tag or 'latest'}", {"Accept": MANIFESTS})
        manifest = json.loads(answer.body)
        config = json.loads(layers.get(f"{url}/blobs/{manifest['config']['digest']}").body)
        names = [
            step.get("created_by", "")
            for step in config["history"]
            if not step.get("empty_layer")
        ]
        base = sum(
            layer["size"]
            for layer, step in zip(manifest["layers"], names, strict=True)
            if step in BASE_LAYERS
        )
        return {layer["digest"]: layer["size"] for layer in manifest["layers"]}, base


# The contenders


class Contender(Protocol):
    """A way to build the demo's image."""

    site: Site
    name: str
    image: str  # in the registry

    def tree(self) -> Path:
        """The source that is built."""

    def build(self, *, cold: bool) -> dict[str, float]:
        """Build; the seconds that it took, ``build``, and the seconds of more steps."""

    def push(self) -> None:
        """Push the image to the registry."""


class Eggcrate:
    """``python3 bootstrap.py && bin/buildout -N`` in a fresh copy, then ``bin/buildout -N``."""

    name = "eggcrate"

    def __init__(self, site: Site) -> None:
        self.site = site
        self.image = f"{site.registry.host}/benchmark/eggcrate"
        self._home = site.directory / "home"
        self._cache = self._home / "eggcrate"
        self._downloads = site.directory / "downloads"
        self._loaded = ""
        say("eggcrate: a first build, for what it downloads")
        self.build(cold=True)
        for pattern in DOWNLOADS:
            for path in self._cache.glob(pattern):
                target = self._downloads / path.relative_to(self._cache)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)

    def tree(self) -> Path:
        """The source that is built."""
        return self.site.directory / "eggcrate"

    def build(self, *, cold: bool) -> dict[str, float]:
        """Build, and load into the engine; ``part`` is the share of the part [image]."""
        site, tree = self.site, self.tree()
        environ = {**site.packaging_environ(), "EGGCRATE_CACHE": str(self._cache)}
        if cold:
            shutil.rmtree(self._home, ignore_errors=True)
            if self._downloads.exists():
                shutil.copytree(self._downloads, self._cache)
            self._home.mkdir(exist_ok=True)
            site.demo.copy(tree)
            site.forget_images(self._loaded, self.image)
        start = settled()
        if cold:
            run([sys.executable, "bootstrap.py"], environ=environ, directory=tree)
        lines = run(
            [
                tree / "bin" / "buildout",
                "-N",
                f"buildout:index={site.index}",
                f"buildout:parts={' '.join(site.demo.parts)}",
                f"custom:webapp_port={site.port}",
            ],
            environ=environ,
            directory=tree,
        )
        end = time.monotonic()
        (began,) = (
            at for at, line in lines if re.match(r"(Installing|Updating) image\.", line)
        )
        self._loaded = site.engine.load(tree / "parts" / "image" / "image.tar")
        seconds = {"build": end - start, "part": end - began, "load": time.monotonic() - end}
        site.call_docker("tag", self._loaded, self.image)
        return seconds

    def push(self) -> None:
        """Push what was built."""
        layout = self.tree() / "parts" / "image" / "oci"
        # the layout's own bytes: the engine would compress the layers again
        target = f"docker://{self.image}"
        run(["skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", target])


class Dockerfile:
    """``docker build``, with BuildKit."""

    def __init__(self, site: Site, name: str, arguments: Mapping[str, str]) -> None:
        self.site = site
        self.name = name
        self.image = f"{site.registry.host}/benchmark/{name}"
        self._arguments = arguments

    def tree(self) -> Path:
        """The source that is built."""
        return self.site.directory / self.name

    def build(self, *, cold: bool) -> dict[str, float]:
        """Build, which is into the engine."""
        site, tree = self.site, self.tree()
        if cold:
            site.demo.copy(tree)
            if self.name == "tuned":
                write_by_hand(site, tree / "deploy")
            site.forget_images(self.image)
        start = settled()
        site.call_docker(
            *("build", "--network=host", f"--tag={self.image}"),
            f"--file={HERE / self.name}.Dockerfile",
            *(f"--build-arg={name}={value}" for name, value in self._arguments.items()),
            tree,
        )
        return {"build": time.monotonic() - start}

    def push(self) -> None:
        """Push what was built."""
        self.site.call_docker("push", "--quiet", self.image)


def write_by_hand(site: Site, target: Path) -> None:
    """The files that a project without buildout keeps beside its Dockerfile."""
    values = {f"custom:{name}": value for name, value in site.demo.custom.items()} | {
        "buildout:bin-directory": "/app/venv/bin",
        "buildout:directory": "/app",
        "circus:run-directory": "/run/shop",
        "custom:webapp_port": str(site.port),
        "django:project": "shop",
        "django:settings": "settings.production",
        "nginx:output": "/app/nginx.conf",
        "nginx:run-directory": "/run/shop",
        "static:location": "/app/static",
    }
    target.mkdir()
    for name in ("circus.ini", "nginx.conf"):
        (target / name).write_text(site.demo.render(f"{name}.in", values), encoding="utf-8")
    pins = "".join(f"{name}=={version}\n" for name, version in site.demo.pins.items())
    (target / "versions.txt").write_text(pins, encoding="utf-8")


CONTENDERS: Mapping[str, Callable[[Site], Contender]] = {
    "eggcrate": Eggcrate,
    "tuned": lambda site: Dockerfile(
        site,
        "tuned",
        {"BASE": site.base, "UV": site.uv, "UV_DEFAULT_INDEX": site.index},
    ),
    "article": lambda site: Dockerfile(
        site,
        "article",
        {
            "BASE": site.base,
            "PIP_INDEX_URL": site.index,
            "PORT": str(site.port),
            "PARTS": " ".join(part for part in site.demo.parts if part != "image"),
        },
    ),
}


# Preparation: all downloads


def docker_client() -> str:
    """A docker command that can do BuildKit, by itself or with its plug-in buildx."""
    for program in filter(None, (shutil.which("docker"), shutil.which("/usr/bin/docker"))):
        version = re.search(r"version (\d+)\.", run([program, "--version"])[0][1])
        with contextlib.suppress(BenchmarkError):
            if version is None or int(version[1]) >= 23:
                run([program, "buildx", "version"])
            return program
    raise BenchmarkError(
        "no docker command here can do BuildKit; apt-get install docker.io docker-buildx"
    )


def download_packages(pins: Mapping[str, str], scratch: Path) -> Path:
    """Every distribution that is pinned, from where this machine's pip looks for it."""
    files = scratch / "packages"
    pip = scratch / "pip"
    run([sys.executable, "-m", "venv", pip])
    wanted = [f"{name}=={version}" for name, version in pins.items()]
    run([pip / "bin/python", "-m", "pip", "download", "--no-deps", "--dest", files, *wanted])
    return files


def make_base(demo: Demo, scratch: Path) -> Path:
    """A root file system of the machine's own Debian release, with Python and nginx."""
    archive = scratch / "base.tar"
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    packages = sorted({*BASE_PACKAGES, *demo.os_packages})
    run(
        [
            *("mmdebstrap", "--variant=apt", f"--include={','.join(packages)}"),
            *(f"--dpkgopt={option}" for option in SLIM),
            *(suite, archive),
        ]
    )
    return archive


def prepare_images(site: Site, base: Path, packages: Path) -> None:
    """What the Dockerfiles start from, in the engine and in the registry."""
    site.call_docker("import", base, site.base)
    site.call_docker("push", "--quiet", site.base)
    (version,) = site.engine.cli(
        "run", "--rm", "--network=none", site.base, "python3", "--version"
    ).splitlines()
    if version.split()[1].split(".")[:2] != platform.python_version().split(".")[:2]:
        raise BenchmarkError(
            f"the base has {version}, and this is {platform.python_version()}; run "
            f"{Path(__file__).name} with the base's, so that all images have the same"
        )
    # uv has an image of its own in real life; its wheel has the same program
    context = site.directory / "uv"
    run(
        [
            *(
                site.directory / "pip/bin/python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-index",
            ),
            *(f"--find-links={packages}", f"--target={context}", f"uv=={site.demo.pins['uv']}"),
        ]
    )
    (context / "Dockerfile").write_text("FROM scratch\nCOPY bin/uv /uv\n", encoding="utf-8")
    site.call_docker("build", f"--tag={site.uv}", context)


# Measuring


def check(contender: Contender, health: Mapping[str, object]) -> None:
    """See the image at work: a page, its style sheet, the health of the changed source."""
    site = contender.site
    container = site.engine.run(contender.image)
    try:
        page = container.wait_http(site.port, "/")
        style = re.search(r'href="(/static/[^"]+\.[0-9a-f]{12}\.css)"', page.text)
        if style is None:
            raise BenchmarkError(f"{contender.name}: no style sheet in {page.text}")
        container.wait_http(site.port, style[1])
        found = json.loads(container.wait_http(site.port, "/health/").body)
        if found != health:
            raise BenchmarkError(f"{contender.name}: its health is {found}, not {health}")
        if code := container.stop():
            raise BenchmarkError(f"{contender.name}: it stops with {code}\n{container.logs()}")
    finally:
        container.remove()


def distributions(contender: Contender) -> dict[str, str]:
    """Which Python distributions are in an image: their versions by their names."""
    site = contender.site
    identifier = site.engine.cli("create", contender.image).strip()
    found: dict[str, str] = {}
    try:
        export = subprocess.Popen(
            [site.docker, "export", identifier],
            env=site.engine.environ,
            stdout=subprocess.PIPE,
        )
        with export, tarfile.open(fileobj=export.stdout, mode="r|") as archive:
            for member in archive:
                if match := DISTRIBUTION.search(member.name):
                    found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    finally:
        site.engine.cli("rm", identifier)
    return found


Figures = dict[str, list[float]]


def measure(
    contender: Contender, number: int, figures: Figures, before: dict[str, int]
) -> dict[str, int]:
    """One run: cold, unchanged, one line changed; the layers of the cold image.

    ``before`` has the layers of the same source in the run before, if there was one.
    """

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    def build(scenario: str, *, cold: bool = False) -> dict[str, int]:
        say(f"run {number}, {contender.name}, {scenario}")
        for step, seconds in contender.build(cold=cold).items():
            note(f"{scenario} {step}", seconds)
        start = time.monotonic()
        contender.push()
        if scenario == "changed":
            # what a cold build pushes, the registry may have from the run before
            note("changed push", time.monotonic() - start)
        made, base = site.layers_of(contender.image)
        if scenario == "cold":
            below, _ = site.layers_of(site.base)
            base += sum(size for digest, size in made.items() if digest in below)
            note("size", sum(made.values()))
            note("size base", base)
            note("size own", sum(made.values()) - base)
            size = site.engine.cli("inspect", "--format={{.Size}}", contender.image)
            note("size unpacked", float(size))
        return made

    def note_new(scenario: str, made: dict[str, int], known: dict[str, int]) -> None:
        new = [size for digest, size in made.items() if digest not in known]
        note(f"{scenario} bytes", sum(new))
        note(f"{scenario} layers", len(new))

    site = contender.site
    first = build("cold", cold=True)
    if before:
        note_new("again", first, before)
    check(contender, {"status": "ok"})
    second = build("unchanged")
    note_new("unchanged", second, first)
    change_line(contender.tree(), number)
    note_new("changed", build("changed"), second)
    check(contender, {"status": "ok", "change": number})
    return first


# The report


def seconds_text(value: float) -> str:
    """As in 12.34 s."""
    return f"{value:.2f} s"


def bytes_text(value: float) -> str:
    """As in 12.3 kB."""
    for unit in ("B", "kB", "MB"):
        if value < 1000 or unit == "MB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def count_text(value: float) -> str:
    """As in 12."""
    return f"{value:.0f}"


def ratio_text(value: float) -> str:
    """As in 12.3x, with three digits that count."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}x" if value else "0x"


SECTIONS: Sequence[tuple[str, Sequence[tuple[str, str, Callable[[float], str]]]]] = (
    (
        "Cold",
        (
            ("  build", "cold build", seconds_text),
            ("    of it the part [image]", "cold part", seconds_text),
            ("  load into the engine", "cold load", seconds_text),
        ),
    ),
    (
        "Unchanged",
        (
            ("  build", "unchanged build", seconds_text),
            ("    of it the part [image]", "unchanged part", seconds_text),
            ("  new bytes to push", "unchanged bytes", bytes_text),
        ),
    ),
    (
        "One line of source changed",
        (
            ("  build", "changed build", seconds_text),
            ("    of it the part [image]", "changed part", seconds_text),
            ("  load into the engine", "changed load", seconds_text),
            ("  push", "changed push", seconds_text),
            ("  new layers", "changed layers", count_text),
            ("  new bytes to push", "changed bytes", bytes_text),
        ),
    ),
    (
        "The same source, cold again",
        (
            ("  new layers", "again layers", count_text),
            ("  new bytes to push", "again bytes", bytes_text),
        ),
    ),
    (
        "The image",
        (
            ("  compressed", "size", bytes_text),
            ("    Debian's packages", "size base", bytes_text),
            ("    the rest", "size own", bytes_text),
            ("  unpacked", "size unpacked", bytes_text),
        ),
    ),
)


def table(results: Mapping[str, Figures]) -> str:
    """The medians, and in parentheses their ratios to those of the first contender."""
    first = next(iter(results))
    lines = [f"{'':30}" + "".join(f"{name:>22}" for name in results)]
    for heading, rows in SECTIONS:
        if not any(figure in figures for _, figure, _ in rows for figures in results.values()):
            continue
        lines.append(heading)
        for title, figure, text in rows:
            medians = {
                name: statistics.median(figures[figure])
                for name, figures in results.items()
                if figure in figures
            }
            cells = []
            for name in results:
                cell = text(medians[name]) if name in medians else "-"
                if name != first and name in medians and medians.get(first):
                    cell += f" ({ratio_text(medians[name] / medians[first])})"
                cells.append(f"{cell:>22}")
            if medians:
                lines.append(f"{title:30}{''.join(cells)}")
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """What all figures depend on."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}",
        "memory": f"{memory / 2**30:.0f} GiB",
        "load": f"{os.getloadavg()[1]:.1f} in the 5 minutes before",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "Python": platform.python_version(),
    }


def tools(site: Site) -> dict[str, str]:
    """The versions of what builds."""
    return {
        "uv": site.demo.pins["uv"],
        "docker": run([site.docker, "--version"])[0][1],
        "dockerd": site.engine.cli("version", "--format={{.Server.Version}}").strip()
        + ", "
        + site.engine.cli("info", "--format={{.Driver}}").strip(),
    }


@contextlib.contextmanager
def site_of_our_own(scratch: Path) -> Iterator[Site]:
    """A dockerd, a registry and an index, which end with this block."""
    if os.geteuid():
        raise BenchmarkError("only root can start a dockerd; run it with sudo")
    for program in ("git", "mmdebstrap", "skopeo"):
        if shutil.which(program) is None:
            raise BenchmarkError(f"{program} is not here; apt-get install {program}")
    docker = docker_client()
    demo = Demo.taken(scratch / "project")
    with contextlib.ExitStack() as stack:
        engine = layers.DockerEngine("ENGINE", "docker.io")
        registry = layers.Registry("REGISTRY", "docker-registry")
        for server in (engine, registry):
            server.setUp()
            stack.callback(server.tearDown)
            if server.unavailable:
                raise BenchmarkError(server.unavailable)
        say("downloading the packages, and making the Dockerfiles' base of Debian's")
        packages = download_packages(demo.pins, scratch)
        index = stack.enter_context(package_index(packages, demo.pins))
        port = layers.free_port()
        site = Site(demo, scratch, engine, registry, docker, index, port)
        prepare_images(site, make_base(demo, scratch), packages)
        yield site


def compare(site: Site, names: Sequence[str], runs: int) -> dict[str, Figures]:
    """All figures of all runs; the contenders take turns."""
    contenders = [CONTENDERS[name](site) for name in names]
    results: dict[str, Figures] = {name: {} for name in names}
    before: dict[str, dict[str, int]] = {name: {} for name in names}
    for number in range(1, runs + 1):
        for contender in contenders:
            before[contender.name] = measure(
                contender, number, results[contender.name], before[contender.name]
            )
    say("comparing what is in the images")
    first, *others = (distributions(contender) for contender in contenders)
    for name, other in zip(names[1:], others, strict=True):
        common = sorted(first.keys() & other.keys())
        say(f"{names[0]} and {name} have in common: {', '.join(common) or 'nothing'}")
        for project in common:
            if first[project] != other[project]:
                raise BenchmarkError(
                    f"{names[0]} has {project} {first[project]}, {name} has {other[project]}"
                )
    return results


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only",
        default=",".join(CONTENDERS),
        metavar="NAMES",
        help="some of eggcrate,tuned,article; ratios are to the first (default: all)",
    )
    parser.add_argument(
        "--runs", type=int, default=3, help="the table has medians (default: 3)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every run")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(CONTENDERS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    if options.runs < 1:
        parser.error("--runs: at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="eggcrate-benchmark-") as scratch,
            site_of_our_own(Path(scratch)) as site,
        ):
            facts = machine() | tools(site)
            results = compare(site, names, options.runs)
            say("cleaning up")
    except (AssertionError, BenchmarkError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
    print(f"The demo's image, medians of {options.runs}; (ratio to {names[0]})\n")
    print(table(results))
    print()
    for name, fact in facts.items():
        print(f"{name + ':':11}{fact}")
    if options.json:
        text = json.dumps({"machine": facts, "runs": results}, indent=1)
        options.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
