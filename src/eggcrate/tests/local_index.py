"""Distributions to install without a network: wheels, a project, an index on loopback."""

from __future__ import annotations

import base64
import contextlib
import http.server
import pathlib
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence

_BACKEND = '''\
"""A build backend that needs nothing; the tests install projects without a network."""

import pathlib
import re
import zipfile

HERE = pathlib.Path(__file__).parent


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    text = (HERE / "pyproject.toml").read_text()
    name, version = re.findall(r'^(?:name|version) = "(.*)"', text, re.M)
    scripts = re.findall(r'^(\\S+) = "(\\w+:main)"', text, re.M)
    info = f"{name}-{version}.dist-info/"
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, wheel), "w") as archive:
        archive.writestr(f"{name}.pth", f"{HERE}\\n")
        archive.writestr(
            info + "METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
        )
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
) -> pathlib.Path:
    """Write a wheel of one module, whose scripts print its name and version; and programs."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"def main():\n    print('{name} {version}')\n",
        f"{info}/METADATA": "".join(
            [
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                *(f"Requires-Dist: {line}\n" for line in requires),
            ]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    if scripts:
        lines = ["[console_scripts]", *(f"{script} = {name}:main" for script in scripts)]
        files[f"{info}/entry_points.txt"] = "\n".join(lines) + "\n"
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


def write_project(
    directory: pathlib.Path, name: str, version: str, *, build_requires: str = ""
) -> pathlib.Path:
    """Write a project with a script of its name, and a build backend of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    requires = f'"{build_requires}"' if build_requires else ""
    (directory / "pyproject.toml").write_text(
        f"""\
[build-system]
requires = [{requires}]
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "{version}"

[project.scripts]
{name} = "{name}:main"
"""
    )
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
    directory: pathlib.Path, credentials: Mapping[str, str] | None = None
) -> Iterator[Seen]:
    """Serve ``directory`` on loopback, to those with a user and password if any are given."""
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
                    seen.commands.add(file.read_bytes().replace(b"\0", b" ").decode())
            if allowed and self.headers.get("Authorization") not in allowed:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="packages"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = Seen(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
