"""Debian as a base image: packages from apt's own sources, as any user, without an engine.

apt-get resolves and fetches in a directory of eggcrate's own, with the machine's sources,
keys and proxies, and nothing of its packages or hooks.  apt checks the signatures of the
package index; a package file is known by the SHA-256 that the index has for it.
``eggcrate.transports.deb`` makes files of the packages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fcntl
import functools
import hashlib
import json
import logging
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eggcrate.errors import TransportError
from eggcrate.image.store import replacing, write_if_changed
from eggcrate.transports.deb import Package, deb_path, is_unpacked, paragraphs

logger = logging.getLogger(__name__)

# What an image of os-packages alone starts from: the accounts, /etc, a shell, the C library
# with its C.UTF-8 locale, time zones, the names of ports, certificates.
BASE_PACKAGES = (
    "base-files",
    "base-passwd",
    "ca-certificates",
    "coreutils",
    "dash",
    "libc-bin",
    "netbase",
    "tzdata",
)

# Packages whose programs only install others, and which most dependencies on them mean
# for maintainer scripts.  apt is told that they are there, unless the user names them.
_INSTALLERS = ("debconf", "dpkg")

# OCI's names for processors, and Debian's (image-spec config.md; dpkg-architecture(1))
_ARCHITECTURES = {
    "386": "i386",
    "amd64": "amd64",
    "arm": "armhf",
    "arm/v5": "armel",
    "arm/v7": "armhf",
    "arm64": "arm64",
    "arm64/v8": "arm64",
    "loong64": "loong64",
    "mips64le": "mips64el",
    "ppc64le": "ppc64el",
    "riscv64": "riscv64",
    "s390x": "s390x",
}

_OTHER_BASE = "run buildout on Debian or Ubuntu, or in a container of theirs"
_SAFE = "A-Za-z0-9.+~"


def debian_architecture(platform_name: str) -> str:
    """Debian's name for a platform of OCI's: ``amd64`` for ``linux/amd64``."""
    system, _, processor = platform_name.partition("/")
    if system != "linux" or processor not in _ARCHITECTURES:
        raise TransportError(
            f"Debian has no packages for the platform {platform_name}",
            "set platform to linux/amd64, linux/arm64 or another that Debian supports",
        )
    return _ARCHITECTURES[processor]


# Sources ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One repository: ``options`` are fields of sources.list(5), in lower case."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Suite:
    """A release of Debian for one architecture, and where its packages come from."""

    name: str
    architecture: str
    sources: tuple[Source, ...]

    def text(self) -> str:
        """The sources in apt's deb822 format."""
        stanzas = []
        for source in self.sources:
            fields = {
                "types": "deb",
                "uris": source.uri,
                "suites": source.suite,
                "components": " ".join(source.components),
                "architectures": self.architecture,
                **dict(source.options),
            }
            stanzas.append("".join(f"{name}: {fields[name]}\n" for name in fields))
        return "\n".join(stanzas)


# Options by which whoever runs the machine says whom to trust, and what is too old.  Those that
# let apt take what nobody vouches for (allow-insecure and its like) are not among them.
_KEPT_OPTIONS = frozenset(
    (
        "by-hash",
        "check-date",
        "check-valid-until",
        "date-max-future",
        "inrelease-path",
        "signed-by",
        "snapshot",
        "trusted",
        "valid-until-max",
        "valid-until-min",
    )
)
# Debian's, and Ubuntu's
_OFFICIAL_COMPONENTS = frozenset(
    ("main", "contrib", "non-free", "non-free-firmware", "restricted", "universe", "multiverse")
)


def _source(fields: Mapping[str, str], architecture: str) -> Iterator[Source]:
    """The repositories of one stanza, as far as they serve the architecture."""
    only = re.split(r"[\s,]+", fields.get("architectures", "").strip())
    if only != [""] and architecture not in only:
        return
    options = tuple(sorted((k, v) for k, v in fields.items() if k in _KEPT_OPTIONS))
    components = tuple(fields.get("components", "").split())
    for uri in fields.get("uris", "").split():
        for suite_name in fields.get("suites", "").split():
            yield Source(uri, suite_name, components, options)


def parse_sources(text: str, *, deb822: bool, architecture: str) -> list[Source]:
    """The binary repositories that a file of apt's sources has (sources.list(5))."""
    found: list[Source] = []
    if deb822:
        for fields in paragraphs(text):
            enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off")
            if enabled and "deb" in fields.get("types", "").split():
                found += _source(fields, architecture)
        return found
    for line in text.splitlines():
        match = re.fullmatch(
            r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)",
            line.partition("#")[0].strip(),
        )
        if match is None:
            continue
        options = {
            name.lower(): value
            for name, _, value in (
                option.partition("=") for option in (match["options"] or "").split()
            )
        }
        found += _source(
            {
                **options,
                "architectures": options.get("arch", ""),
                "uris": match["uri"],
                "suites": match["suite"],
                "components": match["rest"],
            },
            architecture,
        )
    return found


def _pocket(suite_name: str, release: str) -> str | None:
    """Which part of the release a suite is: "" or "-updates"; None when it is neither."""
    for pocket in ("", "-updates", "-security", "/updates"):
        if suite_name == release + pocket:
            return pocket
    return None


def select_sources(
    sources: Iterable[Source], *, release: str, wanted: str
) -> tuple[Source, ...]:
    """The official sources of ``release``, which is the machine's, made to serve ``wanted``.

    Repositories of third parties have suites or components of their own invention; those
    of the release are Debian's, with its updates and security fixes.
    """
    chosen: dict[Source, None] = {}
    for source in sources:
        pocket = _pocket(source.suite, release)
        if pocket is None or not _OFFICIAL_COMPONENTS.issuperset(source.components):
            continue
        if wanted != release:
            if pocket and wanted in ("sid", "unstable"):
                continue  # they are their own updates
            pocket = "-security" if pocket == "/updates" else pocket
            source = dataclasses.replace(source, suite=wanted + pocket)
        chosen[source] = None
    return tuple(chosen)


def suite(name: str | None, *, architecture: str) -> Suite:
    """The machine's own release, or another one from the same places.

    ``architecture`` is Debian's name of one, see ``debian_architecture``.  Raises
    TransportError where there is no apt, or its sources have no such release.
    """
    if shutil.which("apt-get") is None:
        raise TransportError("there is no apt-get on this machine", _OTHER_BASE)
    if name is not None and not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise TransportError(
            f"{name!r} is no name of a Debian release", "name one, base = debian:trixie"
        )
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    release = system.get("VERSION_CODENAME", "")
    if name not in (None, release) and system.get("ID") != "debian":
        raise TransportError(
            f"apt on this machine knows {system.get('ID', 'an unknown system')}, not Debian",
            f"set base = debian, without :{name}, or {_OTHER_BASE}",
        )
    wanted = name or release
    found = select_sources(_machine_sources(architecture), release=release, wanted=wanted)
    if not found:
        raise TransportError(
            f"apt's sources on this machine have no stanza for its own release, "
            f"{release or 'which is unknown'}, with the architecture {architecture}",
            f"name the release in /etc/apt/sources.list, or {_OTHER_BASE}",
        )
    return Suite(wanted, architecture, found)


def _machine_sources(architecture: str) -> list[Source]:
    """All repositories that apt is configured for on this machine."""
    found: list[Source] = []
    for path in _source_files():
        with contextlib.suppress(OSError):  # what a user may not read, apt leaves out, too
            text = path.read_text("utf-8", "replace")
            deb822 = path.suffix == ".sources"
            found += parse_sources(text, deb822=deb822, architecture=architecture)
    return found


@functools.cache
def _source_files() -> tuple[pathlib.Path, ...]:
    """The files in which apt's repositories are listed on this machine."""
    places = _apt_config("MAIN", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d")
    files = [pathlib.Path(places.get("MAIN", "/etc/apt/sources.list"))]
    with contextlib.suppress(OSError):
        parts = pathlib.Path(places.get("PARTS", "/etc/apt/sources.list.d"))
        files += sorted(p for p in parts.iterdir() if p.suffix in (".list", ".sources"))
    return tuple(files)


# apt ----------------------------------------------------------------------------------


def _run(
    *command: str | pathlib.Path, configuration: pathlib.Path | None = None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """What one of apt's programs says, in English; ``timeout`` is in seconds."""
    environment = {**os.environ, "LC_ALL": "C"}
    if configuration is not None:
        environment["APT_CONFIG"] = str(configuration)
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )
    except OSError as error:
        raise TransportError(
            f"{command[0]} can't be run: {error.strerror or error}", _OTHER_BASE
        ) from error
    except subprocess.TimeoutExpired as error:
        raise TransportError(
            f"{command[0]} was not ready after {timeout:.0f} seconds",
            "see whether the network and apt's proxy work, and run again",
        ) from error


def _apt_config(*pairs: str) -> dict[str, str]:
    """Values of the machine's apt configuration, by the names given to them."""
    words = shlex.split(_run("apt-config", "shell", *pairs, timeout=30).stdout)
    return dict(word.split("=", 1) for word in words if "=" in word)


# How to reach the network; not what else to fetch, nor leave to trust what is not signed.
_CARRIED_OVER = re.compile(
    r"Acquire::(?!Allow|Changelogs|GzipIndexes|IndexTargets|Languages)\S+ \".*\";"
)


def _configuration(root: pathlib.Path, architecture: str | None = None) -> str:
    """apt.conf(5) with everything below ``root``, and the machine's way to the network."""
    own = {
        "Dir::State": root,
        "Dir::State::lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Cache::pkgcache": root / "pkgcache.bin",
        "Dir::Etc::sourcelist": root / "suite.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": root / "preferences",
        "Dir::Etc::preferencesparts": "/dev/null",
        # read after this file, with hooks and with settings for installing
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::main": "/dev/null",
        "APT::Cmd::Pattern-Only": "true",
        "APT::Install-Recommends": "false",
        # root's apt would else fetch as a user that may not write here
        "APT::Sandbox::User": "root",
        "Acquire::ForceHash": "sha256",
        "Acquire::GzipIndexes": "true",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    if architecture is not None:
        own |= {"APT::Architecture": architecture, "APT::Architectures::": architecture}
    dump = _run("apt-config", "dump", timeout=30).stdout.splitlines()
    carried = [line for line in dump if _CARRIED_OVER.fullmatch(line)]
    return "\n".join([*(f'{name} "{value}";' for name, value in own.items()), *carried, ""])


@dataclasses.dataclass(frozen=True, slots=True)
class _Apt:
    """apt on a directory of our own, which no other process uses at the same time."""

    suite: Suite
    root: pathlib.Path
    configuration: pathlib.Path

    def run(
        self, *command: str | pathlib.Path, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return _run(*command, configuration=self.configuration, timeout=timeout)


def _root(suite: Suite, state: pathlib.Path) -> pathlib.Path:
    """Where apt works for a suite; other sources have another place."""
    digest = hashlib.sha256(suite.text().encode()).hexdigest()
    return state / f"{suite.name}-{suite.architecture}-{digest[:16]}"


# Where somebody else publishes packages for the release, Debian's own versions win.
_PREFERENCES = "".join(
    f"Package: *\nPin: release o={origin}\nPin-Priority: 990\n\n"
    for origin in ("Debian", "Ubuntu")
)


@contextlib.contextmanager
def _apt(
    suite: Suite, state: pathlib.Path, *, refresh: bool = False, offline: bool
) -> Iterator[_Apt]:
    """apt, with the suite's package lists in place."""
    root = _root(suite, state).absolute()
    try:
        for name in ("lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True, exist_ok=True)
        lock = (root / "lock").open("w")
    except OSError as error:
        raise TransportError(
            f"apt can't work in {root}: {error.strerror}", "let this user write there"
        ) from error
    with lock, tempfile.NamedTemporaryFile("w", prefix="apt-conf-") as configuration:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Addresses may hold passwords: these files are this user's, the proxy's short-lived.
        configuration.write(_configuration(root, suite.architecture))
        configuration.flush()
        write_if_changed(root / "suite.sources", suite.text().encode(), 0o600)
        write_if_changed(root / "preferences", _PREFERENCES.encode())
        if not (root / "status").exists():
            write_if_changed(root / "status", b"")
        apt = _Apt(suite, root, pathlib.Path(configuration.name))
        _update(apt, refresh=refresh, offline=offline)
        yield apt


# Names the package lists that apt has fetched, and is as old as they are
_COMPLETE = "lists-complete"


def _has_lists(apt: _Apt) -> bool:
    """Whether all package lists were fetched once, and are still there."""
    try:
        names = (apt.root / _COMPLETE).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return all((apt.root / "lists" / name).exists() for name in names)


def _update(apt: _Apt, *, refresh: bool, offline: bool) -> None:
    """Fetch the package lists where they are missing, or when they should be fresh."""
    known = _has_lists(apt)
    if known and (offline or not refresh):
        return
    what = f"the package lists of Debian {apt.suite.name}"
    if offline:
        raise TransportError(
            f"{what} are not in the cache, and offline is set",
            "run once with offline = false",
        )
    done = apt.run(
        "apt-get",
        "-q",
        # without it, older lists count as success
        "--option=APT::Update::Error-Mode=any",
        # made when they are needed
        "--option=pkgCacheFile::Generate=false",
        "update",
        timeout=300,
    )
    if done.returncode == 0 and "Failed to fetch" not in done.stderr:
        names = sorted(path.name for path in (apt.root / "lists").iterdir() if path.is_file())
        with replacing(apt.root / _COMPLETE) as stream:
            stream.write("\n".join(names).encode())
    elif known:
        logger.warning(
            "%s could not be refreshed, going on with those in the cache: %s",
            what,
            _reasons(done.stderr),
        )
    else:
        raise TransportError(
            f"{what} could not be fetched: {_reasons(done.stderr)}",
            "check the network, apt's proxy and keys, and that there is such a suite",
        )


def _reasons(stderr: str) -> str:
    """What apt could not reach, host by host; or whatever it complained about."""
    hosts: dict[str, str] = {}
    others: dict[str, None] = {}
    for line in re.sub(r"//[^/@\s]*@", "//", stderr).splitlines():  # no passwords
        if match := re.fullmatch(r"[EW]: Failed to fetch (\S+)\s+(.*)", line):
            parts = urllib.parse.urlsplit(match[1])
            reason = re.sub(r"\s+\[IP: .*\]$|\s+", " ", match[2]).strip()
            hosts.setdefault(parts.netloc or match[1], reason)
        elif line.startswith(("E: ", "W: GPG error")) and "index files failed" not in line:
            others[line[3:].rstrip(".")] = None
    return "; ".join([*(f"{host}: {why}" for host, why in hosts.items()), *others]) or (
        "apt gave no reason"
    )


# Packages -----------------------------------------------------------------------------


def resolve(
    names: Iterable[str],
    *,
    suite: Suite,
    state: pathlib.Path,
    refresh: bool = False,
    offline: bool = False,
) -> tuple[Package, ...]:
    """The packages with all that they depend on, by name.

    A name may have a version, ``nginx=1.22.1-9``.  Recommended packages do not come in,
    nor do dpkg and debconf unless they are named: they are what maintainer scripts need.
    The answer is kept below ``state``; ``refresh`` asks again, of fresh package lists.
    When these can't be had, it is a warning if there are older ones.

    Raises TransportError for names that the suite does not have, all at once.
    """
    wanted = sorted(set(names))
    _check_names(wanted)
    key = hashlib.sha256(json.dumps([wanted, _INSTALLERS]).encode()).hexdigest()[:16]
    memory = _root(suite, state) / f"resolved-{key}.json"
    remembered = _recall(memory)
    if remembered is not None and (offline or not refresh):
        return remembered[1]
    with _apt(suite, state, refresh=refresh, offline=offline) as apt:
        lists = _lists_digest(apt)
        if remembered is not None and remembered[0] == lists:
            return remembered[1]
        _claim_installers(apt, wanted)
        done = apt.run("apt-get", "-q", "--print-uris", "install", "--", *wanted)
        if done.returncode:
            raise _unresolved(apt, done)
        packages = _printed(done.stdout)
        with replacing(memory, 0o600) as stream:
            found = [dataclasses.asdict(package) for package in packages]
            stream.write(json.dumps({"lists": lists, "packages": found}).encode())
    return packages


def inputs(suite: Suite, *, state: pathlib.Path) -> list[str]:
    """The files on which it depends what :func:`resolve` answers without ``refresh``."""
    root = _root(suite, state)
    sources = [os.fspath(path) for path in _source_files()]
    kept = sorted(map(os.fspath, root.glob("resolved-*.json")))
    return [*sources, *kept, os.fspath(root / "python-version")]


def _check_names(names: Sequence[str]) -> None:
    """Refuse what apt-get would take for something else: ``vim-`` removes, ``x/sid`` pins."""
    pattern = rf"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?:=[{_SAFE}:-]+)?"
    if wrong := [name for name in names if not re.fullmatch(pattern, name)]:
        raise TransportError(
            f"{', '.join(map(repr, wrong))} can't be the name of a Debian package",
            "list names, one for each package, with = and a version if need be",
        )


def _recall(memory: pathlib.Path) -> tuple[str, tuple[Package, ...]] | None:
    """What was resolved before, and the digest of the lists that it was resolved with."""
    try:
        known = json.loads(memory.read_bytes())
        return known["lists"], tuple(Package(**entry) for entry in known["packages"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _lists_digest(apt: _Apt) -> str:
    """The digest of the Release files, which have the digests of all package lists."""
    digest = hashlib.sha256()
    for path in sorted((apt.root / "lists").glob("*Release")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _claim_installers(apt: _Apt, names: Iterable[str]) -> None:
    """Tell apt that the packages which only install others are there, unless named."""
    named = {name.partition("=")[0] for name in names}
    stanzas: list[str] = []
    shown = apt.run(
        "apt-cache",
        "show",
        "--no-all-versions",
        "--option=Dir::State::status=/dev/null",
        "--option=Dir::Cache::pkgcache=",
        *_INSTALLERS,
    )
    for fields in paragraphs(shown.stdout):
        if fields["package"] not in named:
            kept = ("package", "version", "architecture", "multi-arch", "provides")
            lines = [f"{name}: {fields[name]}" for name in kept if name in fields]
            stanzas.append("\n".join([*lines, "Status: install ok installed", ""]))
    write_if_changed(apt.root / "status", "\n".join(stanzas).encode())


def _unresolved(apt: _Apt, done: subprocess.CompletedProcess[str]) -> TransportError:
    """Why apt found no way to have all packages."""
    where = f"Debian {apt.suite.name} ({apt.suite.architecture})"
    missing = re.findall(
        r"^E: (?:Unable to locate package|Package) '?([a-z0-9+.-]+)'?"
        r"(?: has no installation candidate)?$",
        done.stderr,
        re.MULTILINE,
    )
    missing += [
        f"{name}={version}"
        for version, name in re.findall(
            r"^E: Version '(.*)' for '(.*)' was not found$", done.stderr, re.MULTILINE
        )
    ]
    if missing:
        return TransportError(
            f"{where} has no package {', '.join(missing)}", _did_you_mean(apt, missing)
        )
    # what apt says of unmet dependencies is on stdout, one or more lines a package
    unmet = re.findall(r"^ ((?:\S+ : | {2,})\S.*)$", done.stdout, re.MULTILINE)
    reason = "; ".join(re.sub(r"\s+", " ", line).strip() for line in unmet)
    return TransportError(
        f"the packages don't fit together in {where}: {reason or _reasons(done.stderr)}",
        "change os-packages so that they do",
    )


def _did_you_mean(apt: _Apt, missing: Iterable[str]) -> str:
    """The hint for names and versions that do not exist: the nearest ones that do."""
    known = _package_names(apt)
    near: list[str] = []
    for name in missing:
        bare, _, version = name.partition("=")
        if version:
            # NAME | VERSION | REPOSITORY, the newest version first
            table = apt.run("apt-cache", "madison", bare).stdout.split("\n", 1)[0]
            found = [f"{bare}={row}" for row in table.replace(" ", "").split("|")[1:2]]
        else:
            # names that begin alike first: they are fewer, and usually right
            alike = [other for other in known if other[:2] == name[:2]]
            found = difflib.get_close_matches(name, alike, 1, 0.7)
            found = found or difflib.get_close_matches(name, known, 1, 0.8)
        near += [f"{other} for {name}" for other in found]
    if near:
        return f"correct os-packages: perhaps {', '.join(near)}"
    return "correct os-packages; apt-cache search WORD finds names"


def _package_names(apt: _Apt, prefix: str = "") -> list[str]:
    done = apt.run("apt-cache", "pkgnames", "--", *([prefix] if prefix else []))
    return sorted(done.stdout.split())


def _printed(text: str) -> tuple[Package, ...]:
    """The packages that ``--print-uris`` lists, by name."""
    packages: list[Package] = []
    for line in text.splitlines():
        match = re.fullmatch(r"'([^']+)' (\S+)\.deb (\d+) (?:SHA256:([0-9a-f]{64}))?.*", line)
        if match is None:
            continue
        uri, file, size, sha256 = match.groups()
        if not sha256:
            raise TransportError(
                f"apt's index has no SHA-256 for {file}.deb", "use a repository that has"
            )
        # NAME_VERSION_ARCHITECTURE, with a quoted colon in the version
        name, version, architecture = urllib.parse.unquote(file).split("_")
        packages.append(Package(name, version, architecture, uri, int(size), sha256))
    return tuple(sorted(packages, key=lambda package: package.name))


def download(
    packages: Iterable[Package], *, store: pathlib.Path, offline: bool = False
) -> None:
    """Have every package's file in ``store``, with its digest compared; fetch what is not.

    Several builds may share the store.  Raises TransportError naming the packages that
    could not be had, and the hosts.
    """
    missing = [package for package in packages if not _is_stored(package, store)]
    if not missing:
        return
    if offline:
        raise TransportError(
            f"the Debian packages {', '.join(map(str, missing))} are not in the cache, or "
            "damaged, and offline is set",
            "run once with offline = false",
        )
    size = sum(package.size for package in missing)
    logger.info("fetching %d Debian packages, %.1f MB", len(missing), size / 1e6)
    try:
        store.mkdir(parents=True, exist_ok=True)
        fresh = tempfile.TemporaryDirectory(prefix=".fetch-", dir=store.absolute())
    except OSError as error:
        raise TransportError(
            f"packages can't be kept in {store}: {error.strerror}", "let this user write there"
        ) from error
    with fresh:
        failed = _fetch(missing, store, pathlib.Path(fresh.name), timeout=120 + size / 50_000)
    if failed:
        names = ", ".join(str(package) for package, _ in failed)
        reasons = "; ".join(dict.fromkeys(reason for _, reason in failed if reason))
        gone = "404" in reasons
        raise TransportError(
            f"the Debian packages {names} could not be fetched: {reasons}",
            "run again with newest = true, to learn what the mirror has now"
            if gone
            else "check the network and apt's proxy, and run again",
        )


def _is_stored(package: Package, store: pathlib.Path) -> bool:
    """Whether the package can be unpacked: a damaged file does not count."""
    if is_unpacked(package, store):
        return True
    path = deb_path(package, store)
    try:
        return _digest(path) == package.sha256
    except OSError:
        return False


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetch(
    packages: Sequence[Package], store: pathlib.Path, fresh: pathlib.Path, *, timeout: float
) -> list[tuple[Package, str]]:
    """Fetch with apt's own program, which knows its proxies and passwords."""
    methods = _apt_config("METHODS", "Dir::Bin::methods/d").get("METHODS", "")
    program = pathlib.Path(methods or "/usr/lib/apt/methods").parent / "apt-helper"
    configuration = fresh / "apt.conf"
    configuration.touch(mode=0o600)  # see _apt
    configuration.write_text(_configuration(fresh))
    triples = [
        argument
        for package in packages
        for argument in (
            package.uri,
            str(fresh / package.sha256),
            f"SHA256:{package.sha256}",
        )
    ]
    done = _run(
        program, "-qq", "download-file", *triples, configuration=configuration, timeout=timeout
    )
    failed: list[tuple[Package, str]] = []
    for package in packages:
        source = fresh / package.sha256
        if source.exists() and _digest(source) == package.sha256:
            with replacing(deb_path(package, store)) as stream:
                stream.write(source.read_bytes())
        else:
            ours = [line for line in done.stderr.splitlines() if package.uri in line]
            failed.append((package, _reasons("\n".join(ours) or done.stderr)))
    return failed


def python_version(suite: Suite, *, state: pathlib.Path, offline: bool = False) -> str:
    """The version of the suite's python3, as in ``3.11``; of the lists that are there."""
    root = _root(suite, state)
    memory = root / "python-version"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if memory.stat().st_mtime >= (root / _COMPLETE).stat().st_mtime:
            version = memory.read_text()
            if re.fullmatch(r"\d+\.\d+", version):
                return version
    with _apt(suite, state, offline=offline) as apt:
        shown = apt.run("apt-cache", "show", "--no-all-versions", "python3")
    fields = next(paragraphs(shown.stdout), {})
    match = re.match(r"(?:\d+:)?(\d+\.\d+)", fields.get("version", ""))
    if match is None:
        raise TransportError(
            f"Debian {suite.name} ({suite.architecture}) has no package python3",
            "choose another suite, or set python = host",
        )
    write_if_changed(memory, match[1].encode())
    memory.touch()
    return match[1]


# Libraries whose packages are not called after them, by the beginning of their names ...
_ODD_LIBRARIES = {
    "ld-linux": "libc6",
    "libBrokenLocale.so": "libc6",
    "libanl.so": "libc6",
    "libc.so": "libc6",
    "libdl.so": "libc6",
    "libm.so": "libc6",
    "libmvec.so": "libc6",
    "libnss_": "libc6",
    "libpthread.so": "libc6",
    "libresolv.so": "libc6",
    "librt.so": "libc6",
    "libutil.so": "libc6",
    "libz.so": "zlib1g",
}
# ... and what Debian puts in the place of the name without its version
_FAMILIES = {
    "libgio-2.0": "libglib2.0",
    "libglib-2.0": "libglib2.0",
    "libgmodule-2.0": "libglib2.0",
    "libgobject-2.0": "libglib2.0",
    "libgthread-2.0": "libglib2.0",
    "libicudata": "libicu",
    "libicui18n": "libicu",
    "libicuio": "libicu",
    "libicuuc": "libicu",
}


def package_for_library(
    soname: str, *, suite: Suite, state: pathlib.Path, offline: bool = False
) -> str | None:
    """The package of the suite that most likely has a shared library; None if none does.

    Debian names a library's package after its soname (Policy 8.1): ``libpq.so.5`` is in
    libpq5, ``libcairo.so.2`` in libcairo2.
    """
    for prefix, package in _ODD_LIBRARIES.items():
        if soname.startswith(prefix):
            return package
    stem, version = _soname_parts(soname)
    if not stem:
        return None
    stem = _FAMILIES.get(stem, stem)
    with _apt(suite, state, offline=offline) as apt:
        known = set(_package_names(apt, stem))
    joined = stem + ("-" if stem[-1].isdigit() and version else "") + version
    # what renames and transitions put behind the name: 64-bit times, a C++ ABI, a fork
    for name in (joined, f"{stem}{version}", stem):
        for suffix in ("", "t64", "v5", "-turbo", "debian", "-0"):
            if name + suffix in known:
                return name + suffix
    return None


def _soname_parts(soname: str) -> tuple[str, str]:
    """What a package's name begins with, and its version: libpq.so.5, libdb-5.3.so."""
    plain = soname.lower().replace("_", "-")
    if match := re.fullmatch(rf"([{_SAFE}-]+)\.so\.([{_SAFE}]+)", plain):
        return match[1], match[2]
    if match := re.fullmatch(rf"([{_SAFE}-]+?)-([0-9.]+)\.so", plain):
        return match[1], match[2]
    return "", ""
