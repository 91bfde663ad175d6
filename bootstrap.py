#!/usr/bin/env python3
"""Make ``bin/buildout``: zc.buildout, as pinned, in an environment of its own.

Run it with the Python that the project shall use; it needs nothing else::

    python3 bootstrap.py && bin/buildout

``.venv`` and ``bin/buildout`` appear beside buildout.cfg.  The versions of zc.buildout
and of what it needs are those of the configuration's ``[versions]``, local ``extends``
included; without a pin it is the newest zc.buildout 6.  Where packages come from is pip's
own configuration (pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX).

Run again, it changes nothing as long as the environment is what ``[versions]`` and this
Python ask for; otherwise it makes a new one and puts it in place of the old.  A run that
fails or is killed leaves the old one as it was.

The file depends on nothing else in its project: copy it into yours.  It is part of
eggcrate, under the Zope Public License 2.1.
"""

import argparse
import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

# An older Python has to get as far as this line, so nothing in this file may be syntax
# that Python 3.6 does not know; annotations are evaluated further down only.
if sys.version_info < (3, 10):  # noqa: UP036 - it is an older Python that is told so
    sys.exit(
        f"bootstrap.py: this is Python {sys.version_info[0]}.{sys.version_info[1]}, and "
        "zc.buildout 6 needs Python 3.10 or newer; run bootstrap.py with a newer one"
    )

# What zc.buildout imports and looks up on every run, and what else it requires.
PROJECTS = ("zc.buildout", "pip", "setuptools", "wheel")
REQUIRED = ("packaging", "platformdirs")
UNPINNED = {"zc.buildout": ">=6,<7"}

# Written last into an environment: one without it was made by somebody else.
STAMP = "bootstrap.json"

HEADER = re.compile(r"\[\s*([^\s#\[\]:;{}]+)\s*(?::([^#;]*))?\]\s*(?:[#;].*)?$")
PROJECT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")
VERSION = re.compile(
    r"(?:===?|~=|!=|<=?|>=?)\s*[A-Za-z0-9][\w.+!*-]*"
    r"(?:\s*,\s*(?:===?|~=|!=|<=?|>=?)\s*[A-Za-z0-9][\w.+!*-]*)*$"
)


class BootstrapError(Exception):
    """What is wrong, and what to do about it: one sentence."""


# [versions]: what is asked for


def conditions() -> dict[str, object]:
    """The names that a section's condition may use, ``[versions:python310]`` say.

    They are zc.buildout's own and those of PEP 508.  As strings, Python's versions 3.10
    and later compare as they should.
    """
    major, minor = sys.version_info[:2]
    names: dict[str, object] = {f"python{old}{m}": False for old in (2, 3) for m in range(30)}
    names.update({"python2": False, "python3": True, f"python{major}{minor}": True})
    for system, prefix in (("linux", "linux"), ("macosx", "darwin"), ("windows", "win32")):
        names[system] = sys.platform.startswith(prefix)
    for implementation in ("cpython", "pypy", "jython", "ironpython"):
        names[implementation] = sys.implementation.name == implementation
    names.update(cygwin=False, solaris=False, posix=os.name == "posix")
    names.update(bits64=sys.maxsize > 2**32, bits32=sys.maxsize < 2**32)
    names.update(little_endian=sys.byteorder == "little", big_endian=sys.byteorder == "big")
    names.update(sys=sys, os=os, platform=platform, re=re)
    names.update(
        python_version=f"{major}.{minor}",
        python_full_version=platform.python_version(),
        sys_version=sys.version.lower(),
        sys_platform=sys.platform,
        os_name=os.name,
        implementation_name=sys.implementation.name,
        platform_machine=platform.machine(),
        platform_python_implementation=platform.python_implementation(),
        platform_system=platform.system(),
    )
    return names


def parse(path: Path) -> dict[str, dict[str, str]]:
    """The sections of one buildout configuration, values as they are written."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BootstrapError(
            f"can't read {path}: {error.strerror}; name the configuration with --config, "
            "or mend the extends that names it"
        ) from error
    except UnicodeDecodeError as error:
        raise BootstrapError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    sections: dict[str, dict[str, str]] = {}
    section = None
    option = None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line[0] in "#;":
            continue
        if line[0].isspace() and section is not None and option is not None:
            section[option] += "\n" + line.strip()
            continue
        header = HEADER.match(line)
        if header:
            name, condition = header.groups()
            option = None
            try:
                # as zc.buildout does; the file is the project's own, like this one
                holds = condition is None or eval(condition.strip(), conditions())  # noqa: S307 - see above
            except Exception as error:  # whatever an expression can raise
                raise BootstrapError(
                    f"{path}, line {number}: the condition {condition.strip()!r} can't be "
                    f"judged ({error}); use a marker like python_version < '3.12'"
                ) from error
            section = sections.setdefault(name, {}) if holds else {}
            continue
        option, equals, value = (part.strip() for part in line.partition("="))
        if section is None or not equals:
            raise BootstrapError(
                f"{path}, line {number}: {line.strip()!r} is neither a [section] nor "
                "an option in one; write it as name = value"
            )
        section[option] = value
    return sections


def configuration(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, dict[str, str]]:
    """The sections of a buildout configuration and of the local files that it extends.

    A URL in ``extends`` is left to zc.buildout, which has the caches and credentials.
    """
    path = Path(os.path.normpath(path))
    if path in extending:
        raise BootstrapError(f"{path} extends itself; take it out of one extends")
    sections = parse(path)
    buildout = sections.get("buildout", {})
    bases = [
        path.parent / name for name in buildout.get("extends", "").split() if "://" not in name
    ]
    optional = [path.parent / name for name in buildout.get("optional-extends", "").split()]
    result: dict[str, dict[str, str]] = {}
    for base in (*bases, *filter(Path.is_file, optional)):
        merge(result, configuration(base, (*extending, path)))
    merge(result, sections)
    return result


def merge(sections: dict[str, dict[str, str]], later: dict[str, dict[str, str]]) -> None:
    """Let the options of ``later`` win."""
    for name, options in later.items():
        sections.setdefault(name, {}).update(options)


def normalised(project: str) -> str:
    """A project's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", project).lower()


def pins(config: Path) -> dict[str, str]:
    """What ``[versions]`` asks for: normalised project name to specifier, ``==6.0.1`` say."""
    sections = configuration(config)
    versions = sections.get("buildout", {}).get("versions", "versions")
    result: dict[str, str] = {}
    for project, value in sections.get(versions, {}).items():
        specifier = value if value[:1] in tuple("<>=!~") else "==" + value
        if not value:
            result.pop(normalised(project), None)
        elif PROJECT.match(project) and VERSION.match(specifier):
            result[normalised(project)] = specifier
        elif normalised(project) in map(normalised, PROJECTS + REQUIRED):
            raise BootstrapError(
                f"[{versions}] of {config} has {project} = {value!r}, which is no version; "
                f"write a plain one, {project} = 1.2.3 say"
            )
        # any other odd pin is for zc.buildout to judge: it is not needed here
    return result


# The environment: what is there


def interpreter() -> str:
    """The Python that runs this, not the environment it may run in."""
    # private, but venv relies on it as well, and there is nothing public
    base = getattr(sys, "_base_executable", None) or sys.executable
    return f"{os.path.realpath(base)} {platform.python_version()}"


def site_packages(environment: Path) -> Path:
    """Where pip puts what it installs into an environment of this Python."""
    return Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(environment)}))


def installed(environment: Path) -> dict[str, str]:
    """What is installed in an environment: normalised project name to version."""
    result = {}
    for path in site_packages(environment).glob("*.dist-info"):
        project, _, version = path.name[: -len(".dist-info")].partition("-")
        result[normalised(project)] = version
    return result


def complete(environment: Path, place: Path, wanted: dict[str, str]) -> bool:
    """Whether the environment, made to live at ``place``, is what is asked for."""
    try:
        stamp = json.loads((environment / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if stamp["place"] != str(place) or stamp["interpreter"] != interpreter():
        return False
    if not all((environment / "bin" / name).exists() for name in ("python", "buildout")):
        return False
    found = installed(environment)
    return all(
        found.get(project) == version and wanted.get(project, "") in (specifier, "==" + version)
        for project, (version, specifier) in stamp["projects"].items()
    )


# The environment: how it is made


def pip_wheel() -> Path:
    """The pip that comes with this Python, as a file that Python can run."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    specs = {name: importlib.util.find_spec(name) for name in ("venv", "ensurepip")}
    files = {name: spec.origin for name, spec in specs.items() if spec and spec.origin}
    places = [
        sysconfig.get_config_var("WHEEL_PKG_DIR"),  # Fedora
        Path(files.get("ensurepip", "")).parent / "_bundled",
        "/usr/share/python-wheels",  # Debian
    ]
    wheels = [wheel for place in places if place for wheel in Path(place).glob("pip-*.whl")]
    missing = [f"module {name}" for name in specs if name not in files]
    if missing or not wheels:
        what = " and no ".join(missing) or "pip in its module ensurepip"
        how = "install the package that brings it, or use another Python"
        if shutil.which("apt-get"):
            how = f"install it with: apt-get install python{version}-venv"
        raise BootstrapError(f"this Python {version} has no {what}; {how}")
    return wheels[0]


def build(environment: Path, place: Path, wanted: dict[str, str], sources: list[str]) -> None:
    """Make the environment in one directory, so that it works at another one, ``place``."""
    wheel = pip_wheel()
    import venv  # takes a while to import, and a run that changes nothing has no use for it

    if os.pathsep in str(place):  # Python 3.11 and later refuse it as well
        raise BootstrapError(
            f"an environment can't be in {place.parent}, with a {os.pathsep} in it; "
            "move the project to another directory"
        )
    venv.EnvBuilder(symlinks=True, prompt=place.parent.name).create(environment)
    constraints = environment / "constraints.txt"
    constraints.write_text(
        "".join(
            f"{project}{specifier}\n"
            for project, specifier in sorted(wanted.items())
            if project not in map(normalised, PROJECTS + REQUIRED)
        ),
        encoding="utf-8",
    )
    # By name, so that a pin that does not exist is reported as that.
    requirements = [
        project + wanted.get(normalised(project), UNPINNED.get(project, ""))
        for project in (*PROJECTS, *(name for name in REQUIRED if name in wanted))
    ]
    install(environment, wheel, [*sources, f"--constraint={constraints}", *requirements])
    constraints.unlink()
    if not (environment / "bin" / "buildout").is_file():
        raise BootstrapError(
            f"zc.buildout {installed(environment)['zc-buildout']} brings no program buildout; "
            "pin another version of it in [versions]"
        )
    # pip writes the path of the Python that runs it into scripts
    for path in (environment / "pyvenv.cfg", *(environment / "bin").iterdir()):
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            path.write_bytes(text.replace(os.fsencode(environment), os.fsencode(place)))
    stamp = {
        "place": str(place),
        "interpreter": interpreter(),
        "projects": {
            project: (version, wanted.get(project, ""))
            for project, version in sorted(installed(environment).items())
        },
    }
    (environment / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")


def install(environment: Path, wheel: Path, arguments: list[str]) -> None:
    """Let pip, run from its wheel, install into the environment."""
    # Where packages come from is pip's configuration; where they go is not.
    environ = {**os.environ, "PIP_USER": "0"}
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_DRY_RUN"):
        environ.pop(name, None)
    process = subprocess.run(
        [
            *(environment / "bin" / "python", "-I", wheel / "pip", "install"),
            # compiled as it is imported: half of the time, and most is never imported
            "--no-compile",
            *("--no-input", "--progress-bar=off", "--disable-pip-version-check"),
            *arguments,
        ],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if process.returncode:
        raise BootstrapError(diagnosis(process.stdout))


def diagnosis(output: str) -> str:
    """What pip's output means, in one sentence; all of it goes before one we don't know."""
    conflict = re.search(r"The conflict is caused by:\n((?:    .*\n)+)", output)
    if conflict:
        causes = [
            re.sub("The user requested( .constraint.)?", "[versions] has", line.strip())
            for line in conflict.group(1).splitlines()
        ]
        # more are about the versions that pip tried next
        return f"the pins contradict each other: {', but '.join(causes[:2])}; mend [versions]"
    missing = re.search(r"No matching distribution found for (\S+)", output)
    choice = re.search(r"\(from versions: (?:.*, )?([^,)]+)\)", output)
    if missing and choice and choice.group(1) != "none":
        return (
            f"there is no {missing.group(1)} for this Python {platform.python_version()} "
            f"(the newest is {choice.group(1)}); mend [versions]"
        )
    if "after connection broken by" in output or "Could not fetch URL" in output:
        listed = re.search(r"Looking in indexes: (.*)", output)
        urls = listed.group(1).split(", ") if listed else []
        # pip lists its indexes only where there is more than the default one
        hosts = [host for host in (urlsplit(url).hostname for url in urls) if host]
        hosts = hosts or re.findall(r"host='([^']+)'", output)[:1]
        cause = re.search(r"\[(?:Errno -?\d+|SSL: \w+)\] ([\w ]+)", output)
        reason = f" ({cause.group(1)})" if cause else ""
        return (
            f"can't reach {' or '.join(hosts) or 'any index'}{reason}; "
            "check the network, or name another source with --index or --find-links"
        )
    if missing:
        return (
            f"no {missing.group(1)} where pip looks for packages; "
            "name a source that has it with --index or --find-links"
        )
    sys.stderr.write(output)
    last = re.findall("ERROR: (.*)", output)[-1:] or ["see above"]
    return f"pip failed ({last[0]}); mend that, and run bootstrap.py again"


def write_script(environment: Path, script: Path) -> None:
    """Make ``bin/buildout`` of what zc.buildout's installation has left."""
    script.parent.mkdir(exist_ok=True)
    temporary = script.with_name(".buildout.new")
    shutil.copy(environment / "bin" / "buildout", temporary)
    try:
        temporary.replace(script)
    except OSError:
        temporary.unlink()
        raise


def runs_in(environment: Path, script: Path) -> bool:
    """Whether a script runs with the environment's Python.

    zc.buildout may have rewritten it (it upgrades itself); that is as good as ours.
    """
    try:
        text = script.read_bytes()
    except OSError:
        return False
    return os.fsencode(environment / "bin" / "python") in text and os.access(script, os.X_OK)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait until no other run of this file works in the directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def bootstrap(config: Path, sources: list[str]) -> str:
    """Bring ``.venv`` and ``bin/buildout`` up to date; tell what was done."""
    # the directory in one spelling, whatever links lead to it
    directory = config.parent.resolve()
    place, new, old = (
        directory / f".venv{suffix}" for suffix in ("", ".bootstrap-new", ".bootstrap-old")
    )
    script = directory / "bin" / "buildout"
    wanted = pins(directory / config.name)
    with alone(directory):
        if old.exists():  # an earlier run was killed when it put a new one in place
            if place.exists() or complete(new, place, wanted):
                shutil.rmtree(old)
            else:
                old.rename(place)
        if complete(place, place, wanted) and runs_in(place, script):
            return f"{script} is up to date"
        if os.path.lexists(place) and not (place / STAMP).is_file():
            raise BootstrapError(
                f"{place} is not an environment that bootstrap.py made; "
                "move it away, and run bootstrap.py again"
            )
        if not complete(place, place, wanted):
            if not complete(new, place, wanted):
                if new.exists():
                    shutil.rmtree(new)
                try:
                    build(new, place, wanted, sources)
                except BaseException:
                    shutil.rmtree(new, ignore_errors=True)
                    raise
            if place.exists():
                place.rename(old)
            new.rename(place)
            if old.exists():
                shutil.rmtree(old)
        write_script(place, script)
    version = installed(place)["zc-buildout"]
    return f"{script} is zc.buildout {version} on Python {platform.python_version()}"


def main() -> None:
    """Do what the command line says."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="bootstrap.py",
        description=summary + rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *("-c", "--config"),
        type=Path,
        metavar="FILE",
        default=Path(__file__).with_name("buildout.cfg"),
        help="the configuration that has [versions] (default: buildout.cfg beside this file)",
    )
    parser.add_argument(
        *("-f", "--find-links"),
        metavar="PLACE",
        action="append",
        default=[],
        help="a directory or page with packages, besides pip's own configuration",
    )
    parser.add_argument(
        *("-i", "--index"),
        metavar="URL",
        help="the package index, instead of the one that pip's configuration names",
    )
    options = parser.parse_args()
    sources = [f"--find-links={place}" for place in options.find_links]
    if options.index:
        sources.append(f"--index-url={options.index}")
    try:
        print("bootstrap.py:", bootstrap(options.config, sources))
    except BootstrapError as error:
        sys.exit(f"bootstrap.py: {error}")
    except OSError as error:
        sys.exit(
            f"bootstrap.py: {error.filename or options.config.parent}: {error.strerror}; "
            "make it possible to write there, and run bootstrap.py again"
        )
    except KeyboardInterrupt:
        sys.exit("bootstrap.py: interrupted; run it again to finish")


if __name__ == "__main__":
    main()
