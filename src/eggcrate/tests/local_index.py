"""Distributions to install without a network: wheels, a project, an index on loopback."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import importlib.metadata
import pathlib
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence

_BACKEND = '''\
"""A build backend that needs nothing; the tests install projects without a network."""

import os
import pathlib
import re
import zipfile

HERE = pathlib.Path(__file__).parent


if os.environ.get("BACKEND_FAILS"):
    raise SystemError(os.environ["BACKEND_FAILS"])


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    text = (HERE / "pyproject.toml").read_text()
    name, version = re.findall(r'^(?:name|version) = "(.*)"', text, re.M)
    scripts = re.findall(r'^(\\S+) = "(\\w+:main)"', text, re.M)
    more = (HERE / "metadata").read_text().splitlines()
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *more]
    info = f"{name}-{version}.dist-info/"
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, wheel), "w") as archive:
        archive.writestr(f"{name}.pth", f"{HERE}\\n")
        archive.writestr(info + "METADATA", "\\n".join(metadata) + "\\n")
        archive.writestr(
            info + "WHEEL",
            "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\n"
            "Tag: py3-none-any\\n",
        )
        lines = ["[console_scripts]", *(f"{script} = {call}" for script, call in scripts)]
        archive.writestr(info + "entry_points.txt", "\\n".join(lines) + "\\n")
        archive.writestr(info + "RECORD", "")
    return wheel
'''


def write_wheel(
    directory: pathlib.Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    scripts: Sequence[str] = (),
    programs: Sequence[pathlib.Path] = (),
    extras: Mapping[str, str] | None = None,
    members: Mapping[str, str] | None = None,
) -> pathlib.Path:
    """Write a wheel of one module, whose scripts print its name and version; and programs.

    ``extras`` have one requirement each, ``members`` are more files, whatever their names.
    """
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"def main():\n    print('{name} {version}')\n",
        f"{info}/METADATA": "".join(
            [
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                *(f"Requires-Dist: {line}\n" for line in requires),
                *(
                    f"Provides-Extra: {extra}\nRequires-Dist: {line}; extra == '{extra}'\n"
                    for extra, line in (extras or {}).items()
                ),
            ]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    if scripts:
        lines = ["[console_scripts]", *(f"{script} = {name}:main" for script in scripts)]
        files[f"{info}/entry_points.txt"] = "\n".join(lines) + "\n"
    files |= members or {}
    data = {f"{name}-{version}.data/scripts/{path.name}": path for path in programs}
    record = f"{info}/RECORD"
    files[record] = "".join(f"{path},,\n" for path in [*files, *data, record])
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        for path, program in data.items():
            archive.write(program, path)
    return wheel


def repack(directory: pathlib.Path, name: str) -> pathlib.Path:
    """Make a wheel again of an installed distribution of pure Python."""
    directory.mkdir(parents=True, exist_ok=True)
    found = importlib.metadata.distribution(name)
    wheel = directory / f"{name}-{found.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in found.files or ():
            if "__pycache__" not in path.parts and ".." not in path.parts:
                archive.write(path.locate(), str(path))
    return wheel


def write_lock(path: pathlib.Path, *wheels: pathlib.Path) -> pathlib.Path:
    """Write a lock file (PEP 751) of these wheels, by their paths."""
    lines = ['lock-version = "1.0"', 'created-by = "tests"']
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines += ["[[packages]]", f'name = "{name}"', f'version = "{version}"']
        lines += ["[[packages.wheels]]", f'name = "{wheel.name}"', f'url = "{wheel.as_uri()}"']
        lines += [f'hashes = {{sha256 = "{digest}"}}']
    path.write_text("\n".join(lines) + "\n")
    return path


def write_project(
    directory: pathlib.Path,
    name: str,
    version: str,
    *,
    build_requires: str = "",
    requires: Sequence[str] = (),
    extras: Mapping[str, str] | None = None,
    more: str = "",
) -> pathlib.Path:
    """Write a project with a script of its name, and a build backend of its own.

    ``extras`` have one requirement each, ``more`` are lines of its ``pyproject.toml``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    build = f'"{build_requires}"' if build_requires else ""
    optional = {extra: [line] for extra, line in (extras or {}).items()}
    tables = "".join(f"{extra} = {lines}\n" for extra, lines in optional.items())
    (directory / "pyproject.toml").write_text(
        f"""\
[build-system]
requires = [{build}]
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "{version}"
dependencies = {[*requires]}

[project.optional-dependencies]
{tables}
[project.scripts]
{name} = "{name}:main"

{more}"""
    )
    metadata = [f"Requires-Dist: {line}" for line in requires]
    for extra, (line,) in optional.items():
        metadata += [f"Provides-Extra: {extra}", f"Requires-Dist: {line}; extra == '{extra}'"]
    (directory / "metadata").write_text("".join(f"{line}\n" for line in metadata))
    (directory / "backend.py").write_text(_BACKEND)
    (directory / f"{name}.py").write_text(f"def main():\n    print('{name} {version}')\n")
    return directory


def write_index(directory: pathlib.Path) -> pathlib.Path:
    """Make an index (PEP 503) of the wheels in ``directory``; gives its directory."""
    wheels: dict[str, list[str]] = {}
    for wheel in sorted(directory.glob("*.whl")):
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        wheels.setdefault(name, []).append(wheel.name)
    index = directory / "simple"
    for name, files in wheels.items():
        (index / name).mkdir(parents=True, exist_ok=True)
        links = [f'<a href="../../{file}">{file}</a>' for file in files]
        (index / name / "index.html").write_text(
            "<!DOCTYPE html><html><body>\n" + "\n".join(links) + "\n</body></html>\n"
        )
    return index


class Seen:
    """What an index has been asked, and which programs ran meanwhile."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.paths: list[str] = []
        #: command lines of this machine's processes, read at every request
        self.commands: set[str] = set()


@contextlib.contextmanager
def serving(
    directory: pathlib.Path,
    credentials: Mapping[str, str] | None = None,
    *,
    stalls: float = 0,
    status: int = 0,
) -> Iterator[Seen]:
    """Serve ``directory`` on loopback, to those with a user and password if any are given.

    ``stalls`` are seconds before every answer, ``status`` is all that there is to get.
    """
    allowed = {
        "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        for user, password in (credentials or {}).items()
    }

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **keywords: object) -> None:
            super().__init__(*args, directory=str(directory), **keywords)  # type: ignore[arg-type] # passed on

        def do_GET(self) -> None:
            seen.paths.append(self.path)
            for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    seen.commands.add(
                        file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
            if stalls:
                ended.wait(stalls)
            if status:
                self.send_error(status)
            elif allowed and self.headers.get("Authorization") not in allowed:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="packages"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                with contextlib.suppress(ConnectionError):  # who asked has gone
                    super().do_GET()

        def log_message(self, *args: object) -> None:
            pass

    ended = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = Seen(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
