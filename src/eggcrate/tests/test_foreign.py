"""Images for other platforms: wheels in the place of what was compiled for this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import tempfile
import unittest
import zipfile
from collections.abc import Mapping, Sequence
from unittest import mock

from eggcrate import foreign, planning
from eggcrate.environments import interpreters
from eggcrate.environments.environment import Record
from eggcrate.environments.wheels import Target
from eggcrate.errors import InstallError, SeveralErrors
from eggcrate.image.oci import Platform
from eggcrate.image.plan import FileEntry, FileType, bytes_file
from eggcrate.image.store import Store
from eggcrate.payload.distributions import record_rows
from eggcrate.payload.libraries import CLibrary, read_all
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.payload.site import Site
from eggcrate.settings import ImageSettings
from eggcrate.tests import layers
from eggcrate.tests.test_libraries import crafted

ARM64 = Platform("linux", "arm64")
GLIBC = CLibrary("glibc", (2, 36))
HERE, THERE = crafted(machine=62), crafted(machine=183)


def write_wheel(
    directory: pathlib.Path, name: str, version: str, tag: str, said: Sequence[str] = ()
) -> None:
    """A wheel with a module, an extension module, a program, data and a script of Python's.

    Its RECORD has the paths that are ``said``, too.
    """
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": b"pure = 1\n",
        f"{name}/_there.abi3.so": THERE,
        f"{name}-{version}.data/scripts/{name}": THERE,
        f"{name}-{version}.data/scripts/{name}.py": b"#!python\n",
        f"{name}-{version}.data/data/share/{name}.txt": b"data",
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        ).encode(),
        f"{info}/WHEEL": (
            f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: false\nTag: {tag}\n"
        ).encode(),
    }
    record = "".join(f"{path},,\n" for path in (*files, *said, f"{info}/RECORD"))
    files[f"{info}/RECORD"] = record.encode()
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / f"{name}-{version}-{tag}.whl", "w") as archive:
        for path, data in files.items():
            member = zipfile.ZipInfo(path)
            member.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(member, data)


def installed(top: str, name: str, version: str, prefix: str, info: str) -> list[FileEntry]:
    """What an installer for this machine has left of such a wheel."""
    relative = os.path.relpath(prefix, top)
    files = {
        f"{name}/__init__.py": b"pure = 1\n",
        f"{name}/_here.abi3.so": HERE,
        f"{relative}/bin/{name}": HERE,
        f"{relative}/bin/{name}.py": b"#!/usr/bin/python3\n",
        f"{relative}/share/{name}.txt": b"data",
        f"{info}/METADATA": f"Name: {name}\nVersion: {version}\n\nName: other\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nTag: cp311-abi3-manylinux_2_17_x86_64\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in files).encode()
    return [
        bytes_file(
            os.path.normpath(f"{top}/{path}"),
            data,
            group=f"egg {name}-{version}",
            reason="a test",
            mode=0o755 if "/bin/" in path else 0o644,
        )
        for path, data in files.items()
    ]


def egg(name: str, version: str) -> list[FileEntry]:
    top = f"app/eggs/{name}-{version}-py3.11-linux-x86_64.egg"
    info = f"{name}-{version}-py3.11-linux-x86_64.dist-info"
    return installed(top, name, version, top, info)


def environment(name: str, version: str, prefix: str = "app/parts/tool") -> list[FileEntry]:
    top = f"{prefix}/lib/python3.11/site-packages"
    return installed(top, name, version, prefix, f"{name}-{version}.dist-info")


class Case(unittest.TestCase):
    layer = layers.SLOW  # pip runs

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.wheels = self.root / "wheels"
        self.store = Store(self.root / "store")
        self.store.root.mkdir()
        site = Site(*(self.root,) * 7, (), ())
        self.settings = ImageSettings(
            (), ARM64, site, (), "/app", self.root, find_links=(str(self.wheels),), offline=True
        )

    def adapted(
        self,
        entries: list[FileEntry],
        c_library: CLibrary | None = GLIBC,
        locked: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        **more: object,
    ) -> dict[str, FileEntry]:
        settings = dataclasses.replace(
            self.settings,
            **more,  # type: ignore[arg-type]  # each of its field's type
        )
        found = foreign.adapted(
            entries,
            read_all(entries),
            settings,
            self.store,
            python=(3, 11),
            c_library=c_library,
            locked=locked,
        )
        return {entry.path: entry for entry in found}


class ReplacedTest(Case):
    def test_an_egg_gets_what_the_wheel_has(self) -> None:
        write_wheel(self.wheels, "fast", "1.0", "cp311-abi3-manylinux2014_aarch64")
        pure = bytes_file("app/x.py", b"x", group="develop x", reason="a test")
        tree = self.adapted([*egg("fast", "1.0"), pure])
        top = "app/eggs/fast-1.0-py3.11-linux-x86_64.egg"
        info = f"{top}/fast-1.0-py3.11-linux-x86_64.dist-info"
        self.assertEqual(
            sorted(tree),
            sorted(
                (
                    *("app/x.py", f"{top}/bin/fast", f"{top}/bin/fast.py"),
                    *(f"{top}/fast/__init__.py", f"{top}/fast/_there.abi3.so"),
                    *(f"{top}/share/fast.txt", f"{info}/METADATA", f"{info}/WHEEL"),
                    f"{info}/RECORD",
                )
            ),
        )
        self.assertIs(tree["app/x.py"], pure)
        for path, mode in ((f"{top}/bin/fast", 0o755), (f"{top}/fast/_there.abi3.so", 0o644)):
            with tree[path].open() as stream:
                self.assertEqual(stream.read(), THERE)
            self.assertEqual((tree[path].mode, tree[path].group), (mode, "egg fast-1.0"))
            self.assertEqual(tree[path].reason, "a test; of the wheel for linux/arm64")
        with tree[f"{top}/bin/fast.py"].open() as stream:
            self.assertEqual(stream.read(), b"#!/usr/bin/python3\n")
        with tree[f"{info}/WHEEL"].open() as stream:
            self.assertIn(b"Tag: cp311-abi3-manylinux2014_aarch64\n", stream.read())
        with tree[f"{info}/RECORD"].open() as stream:
            self.assertEqual(
                sorted(line.split(b",")[0] for line in stream.read().splitlines()),
                [b"fast/__init__.py", b"fast/_there.abi3.so"],
            )

    def test_an_environment_too(self) -> None:
        write_wheel(self.wheels, "fast", "1.0", "cp311-cp311-manylinux_2_28_aarch64")
        tree = self.adapted(environment("fast", "1.0"))
        top = "app/parts/tool/lib/python3.11/site-packages"
        self.assertIn(f"{top}/fast/_there.abi3.so", tree)
        self.assertNotIn(f"{top}/fast/_here.abi3.so", tree)
        self.assertEqual(tree["app/parts/tool/bin/fast"].size, len(THERE))
        self.assertIn(b"/python3", tree["app/parts/tool/bin/fast.py"].data or b"")
        self.assertIn("app/parts/tool/share/fast.txt", tree)
        with tree[f"{top}/fast-1.0.dist-info/RECORD"].open() as stream:
            lines = stream.read().splitlines()
        self.assertIn(b"fast/_there.abi3.so,,", lines)
        self.assertNotIn(b"direct_url", b"".join(lines))

    def test_a_record_that_names_files_of_this_machine(self) -> None:
        secret = self.root / "secret"
        secret.write_text("canary")
        up = "../" * 30
        said = (
            *(f"{secret}", f"{up.rstrip('/')}{secret}", f"fast/{up.rstrip('/')}{secret}"),
            *("fast/../fast/__init__.py", "../outside"),
        )
        write_wheel(self.wheels, "fast", "1.0", "cp311-abi3-manylinux2014_aarch64", said)
        tree = self.adapted(environment("fast", "1.0"))
        top = "app/parts/tool/lib/python3.11/site-packages"
        self.assertIn(f"{top}/fast/_there.abi3.so", tree)
        for path, entry in tree.items():
            with entry.open() as stream:
                self.assertNotEqual(stream.read(), b"canary", path)
            self.assertEqual(os.path.normpath(path), path)

    def test_what_was_compiled_into_nothing(self) -> None:
        """Its wheel is for one platform, for whatever reason."""
        write_wheel(self.wheels, "fast", "1.0", "cp311-abi3-manylinux2014_aarch64")
        entries = [entry for entry in environment("fast", "1.0") if entry.data != HERE]
        top = "app/parts/tool/lib/python3.11/site-packages"
        self.assertIn(f"{top}/fast/_there.abi3.so", self.adapted(entries))
        pure = [
            bytes_file(entry.path, b"Tag: py3-none-any\n", group=entry.group, reason="t")
            if entry.path.endswith("/WHEEL")
            else entry
            for entry in entries
        ]
        self.assertEqual(list(self.adapted(pure).values()), pure)

    def test_files_that_environments_share(self) -> None:
        """What had another's bytes has its own when those go."""
        write_wheel(self.wheels, "fast", "1.0", "cp311-abi3-manylinux2014_aarch64")
        entries = environment("fast", "1.0")
        kept = dataclasses.replace(
            entries[0],
            path="app/parts/other/copy.py",
            type=FileType.HARDLINK,
            linkname=entries[0].path,
            data=None,
        )
        tree = self.adapted([*entries, kept])
        self.assertEqual(tree[kept.path].type, FileType.REGULAR)
        self.assertEqual(tree[kept.path].data, b"pure = 1\n")

    def test_each_c_library_has_its_wheels(self) -> None:
        write_wheel(self.wheels, "fast", "1.0", "cp311-abi3-manylinux2014_aarch64")
        write_wheel(self.wheels, "fast", "1.0", "cp311-abi3-musllinux_1_1_aarch64")
        top = "app/parts/tool/lib/python3.11/site-packages/fast-1.0.dist-info"
        for library, tag in (
            (GLIBC, b"manylinux2014"),
            (CLibrary("glibc"), b"manylinux2014"),
            (CLibrary("musl"), b"musllinux_1_1"),
            (None, b"manylinux2014"),
        ):
            with self.subTest(library):
                tree = self.adapted(environment("fast", "1.0"), library)
                with tree[f"{top}/WHEEL"].open() as stream:
                    self.assertIn(b"-abi3-" + tag, stream.read())

    def test_two_versions_of_one_distribution(self) -> None:
        for version in ("1.0", "2.0"):
            write_wheel(self.wheels, "fast", version, "cp311-abi3-manylinux2014_aarch64")
        tree = self.adapted(
            [*environment("fast", "1.0", "app/one"), *environment("fast", "2.0", "app/two")]
        )
        for prefix, version in (("app/one", "1.0"), ("app/two", "2.0")):
            top = f"{prefix}/lib/python3.11/site-packages/fast-{version}.dist-info"
            with tree[f"{top}/METADATA"].open() as stream:
                self.assertIn(f"Version: {version}\n", stream.read().decode())

    def test_what_nobody_has_published_stays(self) -> None:
        """The check of libraries finds it, and names it."""
        entries = [
            dataclasses.replace(entry, group="develop own") for entry in egg("own", "1.0")
        ]
        alone = bytes_file("app/bin/tool", HERE, group="data", reason="t", mode=0o755)
        with mock.patch.object(foreign, "fetch", side_effect=AssertionError):
            tree = self.adapted([*entries, alone])
        self.assertEqual(list(tree.values()), [*entries, alone])

    def test_a_wheel_is_fetched_once(self) -> None:
        write_wheel(self.wheels, "fast", "1.0", "cp311-abi3-manylinux2014_aarch64")
        first = self.adapted(egg("fast", "1.0"))
        with mock.patch.object(foreign, "fetch", side_effect=AssertionError):
            self.assertEqual(self.adapted(egg("fast", "1.0")), first)
        blob = next(entry.source for path, entry in first.items() if path.endswith("abi3.so"))
        os.unlink(blob or "")
        self.assertEqual(self.adapted(egg("fast", "1.0")), first)


class NoWheelTest(Case):
    def test_all_are_named_at_once(self) -> None:
        write_wheel(self.wheels, "there", "1.0", "cp311-abi3-manylinux2014_aarch64")
        # for a newer C library than the base's, another Python, another machine
        write_wheel(self.wheels, "newer", "1.0", "cp311-abi3-manylinux_2_40_aarch64")
        write_wheel(self.wheels, "python", "1.0", "cp39-cp39-manylinux2014_aarch64")
        write_wheel(self.wheels, "machine", "1.0", "cp311-abi3-manylinux2014_x86_64")
        names = ("there", "newer", "python", "machine")
        with self.assertRaises(SeveralErrors) as caught:
            self.adapted([entry for name in names for entry in egg(name, "1.0")])
        self.assertEqual(
            sorted(map(str, caught.exception.errors)),
            [
                f"{name} 1.0 has compiled modules, and there is no wheel of it for "
                "linux/arm64, Python 3.11 and glibc 2.36; pin a version that has one, put a "
                "wheel into find-links, or leave the platform out"
                for name in ("machine", "newer", "python")
            ],
        )

    def test_one_that_was_not_locked(self) -> None:
        tag = "cp311-abi3-manylinux2014_aarch64"
        for name in ("fast", "other"):
            write_wheel(self.wheels, name, "1.0", tag)
        wheel = self.wheels / f"fast-1.0-{tag}.whl"
        right = f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        wrong = f"sha256:{64 * '0'}"
        # nothing is locked of the second one
        entries = [*environment("fast", "1.0"), *environment("other", "1.0", "app/other")]
        # what is known without its hash doesn't count
        self.adapted(entries)
        for hashes in ([wrong], [wrong, right], [wrong]):
            locked = {"app/parts/tool": {"fast": hashes, "none": [wrong]}}
            if right in hashes:
                tree = self.adapted(entries, locked=locked)
                top = "app/parts/tool/lib/python3.11/site-packages"
                self.assertIn(f"{top}/fast/_there.abi3.so", tree)
                continue
            with self.assertRaises(InstallError) as caught:
                self.adapted(entries, locked=locked)
            self.assertEqual(
                str(caught.exception),
                "the wheel of fast 1.0 for linux/arm64, Python 3.11 and glibc 2.36 has none "
                "of the hashes that are locked; lock the hashes of all its wheels, or find out "
                "who has changed this one",
            )

    def test_what_an_environment_has_locked(self) -> None:
        location = self.root / "parts/tool"
        location.mkdir(parents=True)
        python = interpreters.Interpreter("3", "/p", "3.11.7", "lib/python3.11", "/p", 1, 1)
        hashes = {"fast": f"sha256:{64 * 'a'}", "another": "of its lock"}
        Record("", "", python, (), (), True, hashes).write(location)
        settings = dataclasses.replace(
            self.settings,
            site=dataclasses.replace(self.settings.site, parts=location.parent),
        )
        relocation = Relocation((Rule(str(self.root), "/app"),))
        self.assertEqual(
            planning._locked(settings, relocation),
            {"app/parts/tool": {"fast": [hashes["fast"]]}},
        )

    def test_an_index_that_is_not_there(self) -> None:
        pip = {"PIP_RETRIES": "0", "PIP_NO_INDEX": "", "PIP_CONFIG_FILE": os.devnull}
        with (
            mock.patch.dict(os.environ, pip),
            self.assertRaises(InstallError) as caught,
        ):
            self.adapted(
                egg("fast", "1.0"), offline=False, index="http://me:canary@127.0.0.1:9/simple"
            )
        self.assertNotIn("canary", str(caught.exception))


class RecordTest(unittest.TestCase):
    def test_what_is_no_csv_to_its_end(self) -> None:
        """Python's csv takes no longer fields, and before 3.11 no NUL."""
        text = "a.py,,\n\nb\0.py,,\n" + "x" * 200_000 + ",,\nc.py,,\n"
        self.assertEqual([row[0] for row in record_rows(text)], ["a.py", "b.py"])
        # what ends a line elsewhere
        text = '"a\x85b.py",,\nc\u2028d.py,,\r\n'
        self.assertEqual([row[0] for row in record_rows(text)], ["a\x85b.py", "c\u2028d.py"])


class TargetTest(unittest.TestCase):
    def test_the_best_first(self) -> None:
        tags = list(Target("linux/arm64", ("aarch64",), (3, 11), (2, 18)).tags())
        self.assertEqual(
            tags[:4],
            [
                "manylinux_2_18_aarch64",
                "manylinux_2_17_aarch64",
                "manylinux2014_aarch64",
                "manylinux_2_16_aarch64",
            ],
        )
        self.assertEqual(tags[-1], "linux_aarch64")
        musl = list(Target("linux/arm64", ("aarch64",), (3, 11), None).tags())
        self.assertEqual(musl[0], "musllinux_1_2_aarch64")


if __name__ == "__main__":
    unittest.main()
