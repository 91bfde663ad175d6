"""apt's sources, and apt itself on repositories of the tests' own and on Debian's."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Callable
from unittest import mock

from eggcrate.errors import EggcrateError, TransportError
from eggcrate.image.plan import FileEntry, FileType
from eggcrate.tests import layers
from eggcrate.tests.test_deb import make_deb
from eggcrate.transports import deb, debian

DEBIAN_SOURCES = """\
# the release
Types: deb deb-src
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBGPL0BUBEADmW5NdOOHwPIJlgPu6JDcKw
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://arm.example/debian
Suites: bookworm
Components: main
Architectures: arm64 armhf

Types: deb
URIs: https://third.example/linux/debian
Suites: bookworm
Components: stable
"""

ONE_LINE_SOURCES = """\
# deb http://off.example/debian bookworm main
deb http://deb.example/debian bookworm main contrib  # the release
deb [ arch=amd64,arm64 Signed-By=/usr/share/K.gpg ] http://k.example/debian buster/updates main
deb [trusted=yes allow-insecure=yes] http://deb.example/debian bookworm-updates main
deb-src http://deb.example/debian bookworm main
deb [arch=i386] http://deb.example/debian bookworm main
deb http://third.example/node nodistro main
deb http://third.example/flat ./
deb
"""


class SourcesTest(unittest.TestCase):
    def test_deb822(self) -> None:
        found = debian.parse_sources(DEBIAN_SOURCES, deb822=True, architecture="amd64")
        self.assertEqual(
            [(source.uri, source.suite, source.components) for source in found],
            [
                ("http://deb.example/debian", "bookworm", ("main", "contrib")),
                ("http://deb.example/debian", "bookworm-updates", ("main", "contrib")),
                ("http://deb.example/debian", "bookworm-backports", ("main", "contrib")),
                ("http://deb.example/debian-security", "bookworm-security", ("main",)),
                ("https://third.example/linux/debian", "bookworm", ("stable",)),
            ],
        )
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        self.assertEqual(found[0].options, (("signed-by", keyring),))

    def test_one_line_style(self) -> None:
        found = debian.parse_sources(ONE_LINE_SOURCES, deb822=False, architecture="amd64")
        self.assertEqual(
            [(source.uri, source.suite, source.components, source.options) for source in found],
            [
                ("http://deb.example/debian", "bookworm", ("main", "contrib"), ()),
                (
                    "http://k.example/debian",
                    "buster/updates",
                    ("main",),
                    (("signed-by", "/usr/share/K.gpg"),),
                ),
                (
                    "http://deb.example/debian",
                    "bookworm-updates",
                    ("main",),
                    (("trusted", "yes"),),
                ),
                ("http://third.example/node", "nodistro", ("main",), ()),
                ("http://third.example/flat", "./", (), ()),
            ],
        )

    def select(self, wanted: str, release: str = "bookworm") -> list[str]:
        found = debian.parse_sources(DEBIAN_SOURCES, deb822=True, architecture="amd64")
        chosen = debian.select_sources([*found, *found], release=release, wanted=wanted)
        return [f"{source.uri} {source.suite}" for source in chosen]

    def test_the_machines_own_release_without_third_parties(self) -> None:
        self.assertEqual(
            self.select("bookworm"),
            [
                "http://deb.example/debian bookworm",
                "http://deb.example/debian bookworm-updates",
                "http://deb.example/debian-security bookworm-security",
            ],
        )
        self.assertEqual(self.select("trixie", release="trixie"), [])

    def test_another_release_from_the_same_places(self) -> None:
        self.assertEqual(
            self.select("trixie"),
            [
                "http://deb.example/debian trixie",
                "http://deb.example/debian trixie-updates",
                "http://deb.example/debian-security trixie-security",
            ],
        )
        self.assertEqual(self.select("sid"), ["http://deb.example/debian sid"])

    def test_the_old_name_of_the_security_suite(self) -> None:
        found = debian.parse_sources(ONE_LINE_SOURCES, deb822=False, architecture="amd64")
        for wanted, expected in (("buster", "buster/updates"), ("trixie", "trixie-security")):
            (source,) = debian.select_sources(found, release="buster", wanted=wanted)
            self.assertEqual(source.suite, expected)

    def test_apt_can_read_what_we_write(self) -> None:
        found = debian.parse_sources(DEBIAN_SOURCES, deb822=True, architecture="amd64")
        text = debian.Suite("bookworm", "amd64", tuple(found)).text()
        again = debian.parse_sources(text, deb822=True, architecture="amd64")
        self.assertEqual(again, found)
        self.assertEqual(debian.parse_sources(text, deb822=True, architecture="arm64"), [])

    def test_platforms(self) -> None:
        for platform, architecture in (
            ("linux/amd64", "amd64"),
            ("linux/arm64", "arm64"),
            ("linux/arm64/v8", "arm64"),
            ("linux/arm/v7", "armhf"),
            ("linux/ppc64le", "ppc64el"),
        ):
            self.assertEqual(debian.debian_architecture(platform), architecture)
        for platform in ("windows/amd64", "linux/z80", "amd64", ""):
            with self.assertRaises(TransportError):
                debian.debian_architecture(platform)

    def test_a_machine_without_apt(self) -> None:
        with (
            mock.patch.dict(os.environ, {"PATH": "/nowhere"}),
            self.assertRaises(TransportError) as caught,
        ):
            debian.suite(None, architecture="amd64")
        self.assertEqual(caught.exception.what, "there is no apt-get on this machine")
        self.assertIn("run buildout on Debian or Ubuntu", caught.exception.hint)


class Repository:
    """A repository of tiny packages in a directory, as apt wants it."""

    def __init__(self, top: pathlib.Path) -> None:
        self.top = top
        self.stanzas: list[str] = []

    def add(self, name: str, version: str = "1.0-1", **fields: str) -> pathlib.Path:
        data = make_deb(name, ((f"./usr/lib/{name}", name),), version=version, **fields)
        path = self.top / "pool" / f"{name}_{version.replace(':', '%3a')}_all.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        lines = {
            "Package": name,
            "Version": version,
            "Architecture": "all",
            **{key.replace("_", "-").title(): value for key, value in fields.items()},
            "Filename": f"pool/{path.name}",
            "Size": str(len(data)),
            "SHA256": hashlib.sha256(data).hexdigest(),
        }
        self.stanzas.append("".join(f"{key}: {value}\n" for key, value in lines.items()))
        return path

    def publish(self) -> None:
        dist = self.top / "dists" / "demo"
        (dist / "main" / "binary-amd64").mkdir(parents=True, exist_ok=True)
        packages = "\n".join(self.stanzas).encode()
        (dist / "main" / "binary-amd64" / "Packages").write_bytes(packages)
        digest = hashlib.sha256(packages).hexdigest()
        (dist / "Release").write_text(
            "Origin: Debian\nSuite: demo\nCodename: demo\n"
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: amd64\nComponents: main\n"
            f"SHA256:\n {digest} {len(packages)} main/binary-amd64/Packages\n"
        )

    def suite(self, **options: str) -> debian.Suite:
        fields = tuple((key.replace("_", "-"), value) for key, value in options.items())
        source = debian.Source(f"file:{self.top}", "demo", ("main",), fields)
        return debian.Suite("demo", "amd64", (source,))


class AptTest(unittest.TestCase):
    """apt on a repository in a directory: no network is needed."""

    layer = layers.SLOW

    def setUp(self) -> None:
        if shutil.which("apt-get") is None:
            layers.skip(self, "there is no apt-get on this machine; use Debian or Ubuntu")
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.top = pathlib.Path(temporary.name)
        self.state, self.store = self.top / "state", self.top / "store"
        self.repository = Repository(self.top / "repository")
        self.repository.add("dpkg")
        self.repository.add("debconf", provides="debconf-2.0")
        self.repository.add("libc6")
        self.repository.add("libssl3t64", depends="libc6")
        self.repository.add("nginx-common", depends="debconf (>= 0.5) | debconf-2.0")
        self.repository.add(
            "nginx", "1:1.22-1", depends="libc6, libssl3t64, nginx-common, dpkg (>= 1)"
        )
        self.repository.add("nginx-light", depends="nginx", recommends="python3")
        self.repository.add("python3", "3.11.2-1", depends="libc6")
        self.repository.add("broken", depends="nginx (>= 1:2), gone")
        self.repository.add("exim", provides="mta")
        self.repository.add("postfix", provides="mta")
        self.repository.publish()
        self.suite = self.repository.suite(trusted="yes")

    def resolve(
        self,
        *names: str,
        suite: debian.Suite | None = None,
        refresh: bool = False,
        offline: bool = False,
    ) -> tuple[deb.Package, ...]:
        return debian.resolve(
            names,
            suite=suite or self.suite,
            state=self.state,
            refresh=refresh,
            offline=offline,
        )

    def refused(self, call: Callable[[], object]) -> TransportError:
        with self.assertRaises(TransportError) as caught:
            call()
        return caught.exception

    def names(self, *names: str) -> list[str]:
        return [package.name for package in self.resolve(*names)]

    def test_packages_with_their_dependencies(self) -> None:
        found = self.resolve("nginx-light", "nginx-light")
        self.assertEqual(
            [str(package) for package in found],
            [
                "libc6 1.0-1",
                "libssl3t64 1.0-1",
                "nginx 1:1.22-1",
                "nginx-common 1.0-1",
                "nginx-light 1.0-1",
            ],
        )
        self.assertEqual(found, self.resolve("nginx-light", refresh=True))
        data = pathlib.Path(found[2].uri.removeprefix("file:").replace("%25", "%")).read_bytes()
        self.assertEqual(found[2].size, len(data))
        self.assertEqual(found[2].sha256, hashlib.sha256(data).hexdigest())

    def test_what_only_installs_packages_comes_when_it_is_named(self) -> None:
        self.assertEqual(self.names("nginx-common"), ["nginx-common"])
        self.assertEqual(self.names("nginx-common", "debconf"), ["debconf", "nginx-common"])
        self.assertEqual(self.names("dpkg=1.0-1"), ["dpkg"])
        self.assertEqual(self.names("nginx-common"), ["nginx-common"])

    def test_the_answer_is_remembered(self) -> None:
        found = self.resolve("nginx-light")
        shutil.rmtree(self.repository.top)
        with mock.patch.dict(os.environ, {"PATH": "/nowhere"}):  # not even apt is needed
            self.assertEqual(self.resolve("nginx-light"), found)
            self.assertEqual(self.resolve("nginx-light", refresh=True, offline=True), found)

    def test_a_remembered_answer_that_is_damaged_is_asked_again(self) -> None:
        found = self.resolve("nginx-light")
        for path in self.state.rglob("resolved-*.json"):
            path.write_bytes(path.read_bytes()[:40])
        self.assertEqual(self.resolve("nginx-light"), found)

    def test_refresh_sees_what_is_new(self) -> None:
        before = self.resolve("python3")
        self.assertEqual(debian.python_version(self.suite, state=self.state), "3.11")
        self.repository.add("python3", "3.13.1-1", depends="libc6")
        self.repository.publish()
        self.assertEqual(self.resolve("python3"), before)
        after = self.resolve("python3", refresh=True)
        self.assertEqual(after[1].version, "3.13.1-1")
        self.assertEqual(debian.python_version(self.suite, state=self.state), "3.13")
        pinned = self.resolve("python3=3.11.2-1")
        self.assertEqual(pinned, before)

    def test_refresh_without_the_repository_is_a_warning(self) -> None:
        found = self.resolve("nginx-light")
        shutil.rmtree(self.repository.top)
        with self.assertLogs(debian.logger, logging.WARNING) as logged:
            self.assertEqual(self.resolve("nginx-light", refresh=True), found)
        self.assertEqual(len(logged.records), 1)
        self.assertIn("package lists of Debian demo could not be refreshed", logged.output[0])
        self.assertIn(str(self.repository.top), logged.output[0])

    def test_lists_that_somebody_removed_are_fetched_again(self) -> None:
        self.resolve("libc6")
        for path in self.state.rglob("*Packages*"):
            path.unlink()
        self.assertEqual(self.names("nginx-common"), ["nginx-common"])

    def test_nothing_in_the_cache_and_offline(self) -> None:
        error = self.refused(lambda: self.resolve("nginx", offline=True))
        self.assertIn("package lists of Debian demo are not in the cache", error.what)
        self.assertEqual(error.hint, "run once with offline = false")

    def test_hosts_that_cannot_be_reached_are_named(self) -> None:
        sources = tuple(
            debian.Source(f"http://user:secret@{host}/debian", "demo", ("main",))
            for host in ("one.invalid", "two.invalid")
        )
        suite = debian.Suite("demo", "amd64", sources)
        error = self.refused(lambda: self.resolve("nginx", suite=suite))
        self.assertIn("the package lists of Debian demo could not be fetched", error.what)
        self.assertIn("one.invalid: ", error.what)
        self.assertIn("two.invalid: ", error.what)
        self.assertNotIn("secret", str(error))
        self.assertIn("check the network", error.hint)

    def test_names_that_do_not_exist_come_together(self) -> None:
        error = self.refused(lambda: self.resolve("nginx-lite", "libc6", "pyton3", "zzz"))
        self.assertEqual(
            error.what, "Debian demo (amd64) has no package nginx-lite, pyton3, zzz"
        )
        self.assertEqual(
            error.hint,
            "correct os-packages: perhaps nginx-light for nginx-lite, python3 for pyton3",
        )
        error = self.refused(lambda: self.resolve("nginx=9", "mta", "libssl3.64"))
        self.assertEqual(
            error.what, "Debian demo (amd64) has no package libssl3.64, mta, nginx=9"
        )
        self.assertIn("nginx=1:1.22-1 for nginx=9", error.hint)

    def test_dependencies_that_cannot_be_had(self) -> None:
        error = self.refused(lambda: self.resolve("broken"))
        self.assertIn("the packages don't fit together in Debian demo (amd64)", error.what)
        self.assertIn("broken : Depends: nginx (>= 1:2)", error.what)
        self.assertIn("Depends: gone but it is not installable", error.what)

    def test_what_apt_would_take_for_something_else(self) -> None:
        for name in (
            "nginx-",
            "-oDir=/",
            "nginx/sid",
            "nginx:i386",
            "Nginx",
            "ngin*",
            "^x",
            "",
        ):
            with self.subTest(name=name):
                error = self.refused(functools.partial(self.resolve, name))
                self.assertIn(f"{name!r} can't be the name of a Debian package", error.what)
        self.assertFalse(self.state.exists())

    def test_a_repository_that_is_not_signed_is_not_trusted(self) -> None:
        error = self.refused(lambda: self.resolve("nginx", suite=self.repository.suite()))
        self.assertIn("is not signed", error.what)

    def test_the_machines_hooks_and_holes_do_not_count(self) -> None:
        marker = self.top / "hook"
        configuration = self.top / "apt.conf"
        configuration.write_text(
            f'APT::Update::Pre-Invoke {{ "touch {marker}"; }};\n'
            f'APT::Update::Post-Invoke {{ "touch {marker}"; }};\n'
            f'DPkg::Pre-Install-Pkgs {{ "touch {marker}"; }};\n'
            'APT::Install-Recommends "true";\n'
            'Acquire::AllowInsecureRepositories "true";\n'
            'Acquire::http::Proxy "http://user:secret@proxy.invalid:3128/";\n'
        )
        with mock.patch.dict(os.environ, {"APT_CONFIG": str(configuration)}):
            found = self.resolve("nginx-light")
            debian.download(found, store=self.store)
            self.assertNotIn("python3", [package.name for package in found])
            self.refused(lambda: self.resolve("nginx", suite=self.repository.suite()))
            sources = (debian.Source("http://deb.invalid/debian", "demo", ("main",)),)
            suite = debian.Suite("demo", "amd64", sources)
            error = self.refused(lambda: self.resolve("nginx", suite=suite))
        self.assertIn("proxy.invalid", error.what)  # that one does count
        self.assertFalse(marker.exists())
        for path in (*self.state.rglob("*"), *self.store.rglob("*")):
            if path.is_file():
                self.assertNotIn(b"secret", path.read_bytes(), path)

    def test_a_place_that_cannot_be_written(self) -> None:
        self.state.write_bytes(b"")
        error = self.refused(lambda: self.resolve("nginx"))
        self.assertIn("apt can't work in", error.what)
        found = debian.resolve(["nginx"], suite=self.suite, state=self.top / "other")
        self.store.write_bytes(b"")
        error = self.refused(lambda: debian.download(found, store=self.store))
        self.assertIn("packages can't be kept in", error.what)

    def test_downloads_are_checked_and_kept(self) -> None:
        found = self.resolve("nginx-light")
        with self.assertLogs(debian.logger, logging.INFO) as logged:
            debian.download(found, store=self.store)
        self.assertIn("fetching 5 Debian packages", logged.output[0])
        self.assertEqual(
            sorted(path.name for path in self.store.iterdir()),
            sorted(f"{package.sha256}.deb" for package in found),
        )
        shutil.rmtree(self.repository.top)
        for path in self.store.iterdir():
            self.assertTrue(path.is_file() and not path.is_symlink())
        debian.download(found, store=self.store)
        debian.download(found, store=self.store, offline=True)
        entries = deb.root_entries(deb.unpack(package, self.store) for package in found)
        self.assertIn("usr/lib/nginx", [entry.path for entry in entries])
        for package in found:
            deb.deb_path(package, self.store).unlink()
        debian.download(found, store=self.store, offline=True)  # all are unpacked

    def test_a_damaged_file_is_fetched_again(self) -> None:
        found = self.resolve("nginx-light")
        debian.download(found, store=self.store)
        path = deb.deb_path(found[0], self.store)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?")
        error = self.refused(lambda: debian.download(found, store=self.store, offline=True))
        self.assertIn("the Debian packages libc6 1.0-1 are not in the cache, or", error.what)
        debian.download(found, store=self.store)
        self.assertEqual(path.read_bytes(), whole)

    def test_files_that_are_not_what_the_index_says(self) -> None:
        found = self.resolve("nginx-light")
        pool = self.repository.top / "pool"
        (pool / "libc6_1.0-1_all.deb").write_bytes(make_deb("evil"))
        (pool / "nginx-common_1.0-1_all.deb").unlink()
        error = self.refused(lambda: debian.download(found, store=self.store))
        self.assertIn("libc6 1.0-1, nginx-common 1.0-1 could not be fetched", error.what)
        self.assertIn("run again", error.hint)
        # the others are kept
        self.assertEqual(
            sorted(path.name for path in self.store.iterdir()),
            sorted(
                f"{package.sha256}.deb"
                for package in found
                if package.name not in ("libc6", "nginx-common")
            ),
        )

    def test_several_builds_at_once(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(self.build, ["nginx", "nginx", "python3", "nginx-light"]))
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[0], list(self.resolve("nginx")))

    def build(self, name: str) -> list[deb.Package]:
        packages = self.resolve(name, refresh=True)
        debian.download(packages, store=self.store)
        for package in packages:
            deb.unpack(package, self.store)
        return list(packages)

    def test_the_version_of_python(self) -> None:
        for _ in range(2):
            self.assertEqual(debian.python_version(self.suite, state=self.state), "3.11")
        other = Repository(self.top / "other")
        other.add("perl")
        other.publish()
        suite = other.suite(trusted="yes")
        error = self.refused(lambda: debian.python_version(suite, state=self.state))
        self.assertIn("has no package python3", error.what)

    def test_packages_of_libraries(self) -> None:
        packages = {
            "libstdc++.so.6": "libstdc++6",
            "libgcc_s.so.1": "libgcc-s1",
            "libssl.so.3": "libssl3t64",
            "libfoo-1.2.so.3": "libfoo-1.2-3",
            "libpq.so.5": "libpq5",
            "libxml2.so.2": "libxml2",
            "libjpeg.so.62": "libjpeg62-turbo",
            "libz.so.1": "zlib1g",
            "libm.so.6": "libc6",
            "ld-linux-x86-64.so.2": "libc6",
            "libdb-5.3.so": "libdb5.3",
            "libgeos_c.so.1": "libgeos-c1v5",
            "libicuuc.so.72": "libicu72",
            "libgobject-2.0.so.0": "libglib2.0-0t64",
            "libMagickWand-6.Q16.so.6": "libmagickwand-6.q16-6",
            "libpython3.11.so.1.0": "libpython3.11",
            "libpng16.so.16": "libpng16-16",
        }
        for package in {*packages.values()} - {"libc6", "libssl3t64"}:
            self.repository.add(package)
        self.repository.publish()
        unknown = dict.fromkeys(("libnosuch.so.1", "plugin.so", "../lib/x;y.so.1", ""))
        for soname, expected in {**packages, **unknown}.items():
            with self.subTest(soname=soname):
                found = debian.package_for_library(soname, suite=self.suite, state=self.state)
                self.assertEqual(found, expected)


BASE = (*debian.BASE_PACKAGES, "python3", "nginx-light")


def lay_out(entries: tuple[FileEntry, ...], top: pathlib.Path) -> None:
    """Write entries to a directory, as root."""
    for entry in entries:
        path = top / entry.path
        if entry.type is FileType.DIRECTORY:
            path.mkdir()
        elif entry.type is FileType.SYMLINK:
            path.symlink_to(entry.linkname)
            continue
        elif entry.type is FileType.HARDLINK:
            path.hardlink_to(top / entry.linkname)
        else:
            with entry.open() as stream:
                path.write_bytes(stream.read())
        path.chmod(entry.mode)


def own_suite() -> debian.Suite:
    """The machine's release for the machine's processor."""
    done = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    )
    return debian.suite(None, architecture=done.stdout.strip())


def make_image_tree(top: pathlib.Path) -> tuple[FileEntry, ...]:
    """The whole way from the machine's apt to entries."""
    suite = own_suite()
    packages = debian.resolve(BASE, suite=suite, state=top / "state")
    debian.download(packages, store=top / "store")
    return deb.root_entries(deb.unpack(package, top / "store") for package in packages)


def as_user(uid: int, home: pathlib.Path, call: Callable[[], object]) -> None:
    """Call a function as another user; its error is raised here.

    A fork has all modules loaded, so the user need not be able to read this Python.
    """
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                os.environ["HOME"] = str(home)
                call()
                pickle.dump(None, answer)
            except BaseException as error:
                pickle.dump(error, answer)
            finally:
                answer.flush()
                os._exit(0)
        os.waitpid(child, 0)
        answer.seek(0)
        problem: BaseException | None = pickle.load(answer)
    if problem is not None:
        raise problem


class DebianArchive(layers.Layer):
    """A tree that an ordinary user made of Debian's packages, with the machine's apt."""

    top: pathlib.Path
    entries: tuple[FileEntry, ...]
    owners: frozenset[int]

    def setUp(self) -> None:
        super().setUp()
        self.top = pathlib.Path(tempfile.mkdtemp())
        if not self._program("apt-get"):
            return
        try:
            if os.geteuid() == 0:
                os.chown(self.top, 65534, 65534)
                as_user(65534, self.top, lambda: make_image_tree(self.top))
            self.owners = frozenset(path.lstat().st_uid for path in self.top.rglob("*"))
            self.entries = make_image_tree(self.top)
        except EggcrateError as error:
            self.unavailable = f"Debian's packages can't be had: {error}"

    def tearDown(self) -> None:
        super().tearDown()
        shutil.rmtree(self.top, ignore_errors=True)


DEBIAN = DebianArchive("DEBIAN", "apt")


class DebianTest(unittest.TestCase):
    """The machine's own apt and Debian's archive."""

    layer = DEBIAN

    def setUp(self) -> None:
        self.layer.require(self)
        self.top, self.entries = DEBIAN.top, DEBIAN.entries

    def test_an_ordinary_user_makes_the_tree(self) -> None:
        paths = {entry.path: entry for entry in self.entries}
        for path in ("usr/bin/python3", "usr/sbin/nginx", "usr/bin/sh", "usr/bin/env"):
            self.assertIn(path, paths)
        for path in ("usr/bin/dpkg", "usr/sbin/dpkg-preconfigure", "usr/share/man"):
            self.assertNotIn(path, paths)
        self.assertFalse([entry for entry in self.entries if entry.mode & 0o6000])
        self.assertEqual({entry.group for entry in self.entries}, {"packages"})
        if os.geteuid() == 0:
            self.assertEqual(DEBIAN.owners, {65534})

    def test_a_second_time_needs_no_network(self) -> None:
        suite = own_suite()
        packages = debian.resolve(BASE, suite=suite, state=self.top / "state", offline=True)
        debian.download(packages, store=self.top / "store", offline=True)
        again = deb.root_entries(deb.unpack(p, self.top / "store") for p in packages)
        self.assertEqual(again, self.entries)
        self.assertRegex(
            debian.python_version(suite, state=self.top / "state", offline=True), r"^3\.\d+$"
        )

    def test_a_damaged_package_is_fetched_from_the_archive(self) -> None:
        suite = own_suite()
        packages = debian.resolve(["netbase"], suite=suite, state=self.top / "state")
        store = self.top / "second-store"
        debian.download(packages, store=store)
        path = deb.deb_path(packages[0], store)
        path.write_bytes(b"damaged")
        debian.download(packages, store=store)
        self.assertEqual(hashlib.sha256(path.read_bytes()).hexdigest(), packages[0].sha256)

    def test_a_version_that_the_mirror_no_longer_has(self) -> None:
        suite = own_suite()
        (package,) = debian.resolve(["netbase"], suite=suite, state=self.top / "state")
        gone = dataclasses.replace(
            package, uri=re.sub(r"[^/]*$", "netbase_0_all.deb", package.uri), sha256="0" * 64
        )
        with self.assertRaises(TransportError) as caught:
            debian.download([gone], store=self.top / "third-store")
        self.assertIn("404", caught.exception.what)
        self.assertIn("newest = true", caught.exception.hint)

    def test_programs_run_in_the_tree(self) -> None:
        if os.geteuid() != 0:
            layers.skip(self, "only root can use chroot; run the tests as root")
        with tempfile.TemporaryDirectory() as name:
            top = pathlib.Path(name)
            top.chmod(0o755)
            lay_out(self.entries, top)

            def run(*command: str) -> subprocess.CompletedProcess[str]:
                return subprocess.run(
                    ["chroot", "--userspec=10001:10001", name, *command],
                    env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8"},
                    capture_output=True,
                    text=True,
                    check=False,
                )

            done = run(
                "python3",
                "-c",
                "import bz2, ctypes, lzma, readline, sqlite3\n"
                "import locale, os, pwd, socket, ssl, time\n"
                "locale.setlocale(locale.LC_ALL, '')\n"
                "assert ssl.create_default_context().cert_store_stats()['x509_ca'] > 100\n"
                "assert pwd.getpwuid(os.getuid()).pw_name == 'app'\n"
                "assert socket.getservbyname('https') == 443\n"
                "open('/run/x', 'w').close(), open('/tmp/x', 'w').close()\n"
                "print(time.tzname[0], os.system('ls / > /tmp/ls'))",
            )
            self.assertEqual((done.stdout, done.stderr), ("UTC 0\n", ""))
            (top / "tmp" / "nginx.conf").write_text(
                "pid /tmp/pid; error_log /tmp/log; events {}\n"
                "http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p;\n"
                "fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; }\n"
            )
            done = run("nginx", "-e", "/tmp/log", "-t", "-c", "/tmp/nginx.conf")
            self.assertIn("test is successful", done.stderr)


if __name__ == "__main__":
    unittest.main()
