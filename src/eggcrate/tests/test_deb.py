"""Package files of the tests' own making: unpacked, refused, merged to a tree."""

from __future__ import annotations

import base64
import bz2
import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import lzma
import os
import pathlib
import tarfile
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterable, Mapping

from eggcrate.errors import EggcrateError, PlanError, SeveralErrors, TransportError
from eggcrate.image.plan import FileEntry, FileType
from eggcrate.transports import deb

COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
}
HAS_ZSTANDARD = any(
    importlib.util.find_spec(name.partition(".")[0]) and importlib.util.find_spec(name)
    for name in ("compression.zstd", "backports.zstd", "zstandard")
)
# make_tar((("./etc/a", b"a\n"),)), as the program zstd packs it
ZSTANDARD = base64.b64decode(
    "KLUv/QRo5QEAggIJELCpA1SzOYYs2yJC3h05oimD3AylSutrdxTS3kVHJD3PqHMhCSDQD/qFH3SK/0x7"
    "MIAHDAqwnFgcnBIR6A=="
)

# A member of data.tar: its name and what is to be said of it
Item = tuple[str, bytes | str | tarfile.TarInfo | None]


def link(name: str, linkname: str, *, hard: bool = False) -> Item:
    """A symbolic or hard link, as a member for ``make_deb``."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
    info.linkname = linkname
    return name, info


def folder(name: str, mode: int = 0o755) -> Item:
    """A directory, as a member for ``make_deb``."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return name, info


def program(name: str, mode: int, *, gid: int = 0) -> Item:
    """An empty file with a mode and a group, as a member for ``make_deb``."""
    info = tarfile.TarInfo(name)
    info.mode, info.gid = mode, gid
    return name, info


def content(entry: FileEntry) -> bytes:
    """The bytes of an entry."""
    with entry.open() as stream:
        return stream.read()


def make_tar(items: Iterable[Item]) -> bytes:
    """A tar of files (their bytes or text) and of other members (their TarInfo)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, what in items:
            if isinstance(what, tarfile.TarInfo):
                tar.addfile(what)
                continue
            data = what.encode() if isinstance(what, str) else what or b""
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def make_ar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """An ar archive, as dpkg-deb writes it."""
    parts = [b"!<arch>\n"]
    for name, data in members:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
        parts += [header.encode(), data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


def make_deb(
    name: str,
    items: Iterable[Item] = (),
    *,
    version: str = "1.0-1",
    compression: str = ".xz",
    conffiles: str = "",
    **fields: str,
) -> bytes:
    """A whole .deb file; ``fields`` go to its control file."""
    lines = {"Package": name, "Version": version, "Architecture": "all"}
    lines |= {key.replace("_", "-").title(): value for key, value in fields.items()}
    control = "".join(f"{key}: {value}\n" for key, value in lines.items())
    control += "Description: made by a test\n of nothing\n"
    pack = COMPRESSIONS[compression]
    return make_ar(
        (
            ("debian-binary", b"2.0\n"),
            (
                f"control.tar{compression}",
                pack(make_tar((("./control", control), ("./conffiles", conffiles)))),
            ),
            (f"data.tar{compression}", pack(make_tar((folder("./"), *items)))),
        )
    )


class DebTestCase(unittest.TestCase):
    """A store of its own for each test."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.top = pathlib.Path(temporary.name)
        self.store = self.top / "store"
        self.store.mkdir()

    def put(self, data: bytes, name: str = "demo", version: str = "1.0-1") -> deb.Package:
        """Have a .deb in the store, as a download leaves it."""
        sha256 = hashlib.sha256(data).hexdigest()
        package = deb.Package(name, version, "all", f"file:/{name}.deb", len(data), sha256)
        deb.deb_path(package, self.store).write_bytes(data)
        return package

    def files(self, name: str, *items: Item, **fields: str) -> deb.DebFiles:
        """The unpacked files of a package that has these members."""
        return deb.unpack(self.put(make_deb(name, items, **fields), name), self.store)

    def tree(self, *packages: deb.DebFiles, user: str | None = "app") -> dict[str, FileEntry]:
        return {entry.path: entry for entry in deb.root_entries(packages, user=user)}

    def stored(self) -> list[str]:
        return sorted(str(path.relative_to(self.top)) for path in self.top.rglob("*"))


class UnpackTest(DebTestCase):
    ITEMS: tuple[Item, ...] = (
        folder("./usr"),
        folder("./usr/bin"),
        ("./usr/bin/tool", b"\x7fELF..."),
        link("./usr/bin/again", "./usr/bin/tool", hard=True),
        link("./usr/bin/other", "tool"),
        ("./etc/tool.conf", "a = 1\n"),
    )

    def test_every_compression_gives_the_same_members(self) -> None:
        for compression in COMPRESSIONS:
            with self.subTest(compression=compression):
                data = make_deb(
                    "demo", self.ITEMS, compression=compression, conffiles="/etc/tool.conf\n"
                )
                found = deb.unpack(self.put(data), self.store)
                self.assertEqual(
                    [(m.path, m.type.value, m.size) for m in found.members],
                    [
                        ("etc/tool.conf", "file", 6),
                        ("usr", "directory", 0),
                        ("usr/bin", "directory", 0),
                        ("usr/bin/again", "hardlink", 7),
                        ("usr/bin/other", "symlink", 0),
                        ("usr/bin/tool", "file", 7),
                    ],
                )
                self.assertEqual(found.conffiles, ("etc/tool.conf",))
                self.assertTrue(found.control.startswith("Package: demo\nVersion: 1.0-1\n"))
                tool = found.members[-1]
                assert tool.source is not None
                self.assertEqual(tool.source.read_bytes(), b"\x7fELF...")
                self.assertEqual(tool.digest, hashlib.sha256(b"\x7fELF...").hexdigest())
                self.assertEqual(found.members[3].source, tool.source)
                self.assertEqual(found.members[4].linkname, "tool")

    def test_what_was_unpacked_needs_the_file_no_more(self) -> None:
        package = self.put(make_deb("demo", self.ITEMS))
        self.assertFalse(deb.is_unpacked(package, self.store))
        first = deb.unpack(package, self.store)
        deb.deb_path(package, self.store).unlink()
        self.assertTrue(deb.is_unpacked(package, self.store))
        self.assertEqual(deb.unpack(package, self.store), first)

    def test_names_that_are_no_utf8_survive(self) -> None:
        name = "./usr/share/caf\udce9"
        package = self.put(make_deb("demo", ((name, tarfile.TarInfo(name)),)))
        for _ in range(2):  # from the package, and from the index
            found = deb.unpack(package, self.store)
            self.assertEqual(found.members[0].path, "usr/share/caf\udce9")

    def test_several_builds_unpack_the_same_package(self) -> None:
        package = self.put(make_deb("demo", self.ITEMS))
        found: list[deb.DebFiles] = []
        threads = [
            threading.Thread(target=lambda: found.append(deb.unpack(package, self.store)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 8)
        self.assertEqual(len(set(found)), 1)
        self.assertEqual(os.listdir(self.store / "unpacked"), [package.sha256])

    def test_damage_is_found_and_mended(self) -> None:
        package = self.put(make_deb("demo", self.ITEMS))
        whole = deb.unpack(package, self.store)
        place = self.store / "unpacked" / package.sha256

        def empty_a_file() -> None:
            source = whole.members[-1].source
            assert source is not None
            source.write_bytes(b"")

        def lose_a_file() -> None:
            source = whole.members[0].source
            assert source is not None
            source.unlink()

        def cut_the_index() -> None:
            index = next(place.glob("index-*.json"))
            index.write_bytes(index.read_bytes()[:50])

        def empty_the_index() -> None:
            next(place.glob("index-*.json")).write_text(json.dumps({}))

        for damage in (empty_a_file, lose_a_file, cut_the_index, empty_the_index):
            with self.subTest(damage=damage.__name__):
                damage()
                self.assertFalse(deb.is_unpacked(package, self.store))
                self.assertEqual(deb.unpack(package, self.store), whole)
                self.assertTrue(deb.is_unpacked(package, self.store))
        self.assertEqual(os.listdir(self.store / "unpacked"), [package.sha256])

    def test_a_flipped_bit_is_no_package(self) -> None:
        package = self.put(make_deb("demo", self.ITEMS))
        path = deb.deb_path(package, self.store)
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
        with self.assertRaises(TransportError) as caught:
            deb.unpack(package, self.store)
        self.assertIn("demo 1.0-1 is damaged", caught.exception.what)
        self.assertFalse(deb.is_unpacked(package, self.store))

    def test_an_unreadable_store_is_a_sentence(self) -> None:
        package = self.put(make_deb("demo", self.ITEMS))
        (self.store / "unpacked").write_bytes(b"")
        with self.assertRaises(TransportError) as caught:
            deb.unpack(package, self.store)
        self.assertIn("demo 1.0-1 can't be unpacked below", caught.exception.what)
        self.assertIn("make room", caught.exception.hint)


class HostileTest(DebTestCase):
    def refused(self, data: bytes, why: str) -> None:
        before = self.stored()
        package = self.put(data)
        with self.assertRaises(TransportError) as caught:
            deb.unpack(package, self.store)
        self.assertIn(why, str(caught.exception))
        self.assertIn("demo 1.0-1", caught.exception.what)
        left = set(self.stored()) - set(before)
        self.assertEqual(left - {"store/unpacked"}, {f"store/{package.sha256}.deb"})

    def test_members_that_lead_out_of_the_tree(self) -> None:
        for name in (
            "../evil",
            "./../evil",
            "/etc/evil",
            "./a/../../evil",
            "./a//b",
            "./a/./b",
        ):
            with self.subTest(name=name):
                self.refused(make_deb("demo", ((name, b"evil"),)), "leads out of the tree")
        self.refused(
            make_deb("demo", (("./a", b""), link("./b", "../../../etc/passwd", hard=True))),
            "leads out of the tree",
        )

    def test_members_that_are_no_files(self) -> None:
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("./dev/x")
            info.type = kind
            self.refused(make_deb("demo", (("", info),)), "dev/x is a device or a pipe")

    def test_members_that_come_twice(self) -> None:
        twice = (("./etc/a", b"1"), link("./etc/a", "b"))
        self.refused(make_deb("demo", twice), "etc/a is there twice")

    def test_hard_links_to_what_is_not_there(self) -> None:
        for target in ("./usr/nothing", "./usr/link"):
            items = (link("./usr/link", "x"), link("./usr/a", target, hard=True))
            self.refused(make_deb("demo", items), "usr/a shares no file before it")

    def test_links_never_lead_writes_astray(self) -> None:
        outside = self.top / "outside"
        outside.mkdir()
        items = (link("./a", str(outside)), ("./a/evil", b"evil"))
        found = self.files("demo", *items)
        self.assertEqual([m.path for m in found.members], ["a", "a/evil"])
        self.assertEqual(os.listdir(outside), [])

    def test_files_that_are_no_packages(self) -> None:
        whole = make_deb("demo", (("./a", b"x" * 5000),))
        control = make_tar((("./control", "Package: demo\n"),))
        self.refused(b"", "no ar archive")
        self.refused(b"PK\3\4" + whole, "no ar archive")
        self.refused(whole[:100], "is damaged")
        self.refused(whole[:-20], "data.tar.xz is cut off")
        self.refused(make_ar((("debian-binary", b"3.0\n"),)), "no package of format 2")
        self.refused(make_ar((("debian-binary", b"2.0\n"),)), "no control.tar")
        self.refused(
            make_ar((("debian-binary", b"2.0\n"), ("control.tar", control))), "no data.tar"
        )
        self.refused(
            make_ar((("debian-binary", b"2.0\n"), ("control.tar", make_tar(())))),
            "no control file",
        )
        self.refused(make_ar((("a", b""), ("a", b""))), "two members a")

    def test_compressed_data_that_is_damaged(self) -> None:
        control = make_tar((("./control", "Package: demo\n"),))
        plain = make_tar((("./a", os.urandom(1 << 16)),))
        for suffix in (".xz", ".gz", ".bz2"):
            with self.subTest(suffix=suffix):
                data = COMPRESSIONS[suffix](plain)
                for broken in (data[:-2000], b"?" + data[1:], b"?"):
                    self.refused(
                        make_ar(
                            (
                                ("debian-binary", b"2.0\n"),
                                ("control.tar", control),
                                (f"data.tar{suffix}", broken),
                            )
                        ),
                        "can't be unpacked",
                    )

    def test_zstandard(self) -> None:
        control = make_tar((("./control", "Package: demo\n"),))
        package = self.put(
            make_ar(
                (
                    ("debian-binary", b"2.0\n"),
                    ("control.tar", control),
                    ("data.tar.zst", ZSTANDARD),
                )
            )
        )
        if HAS_ZSTANDARD:
            self.assertEqual(deb.unpack(package, self.store).members[0].path, "etc/a")
            return
        with self.assertRaises(TransportError) as caught:
            deb.unpack(package, self.store)
        self.assertIn("Zstandard", caught.exception.what)
        self.assertIn("install zstandard", caught.exception.hint)


class TreeTest(DebTestCase):
    def test_usr_is_merged(self) -> None:
        tree = self.tree(
            self.files(
                "old",
                folder("./bin"),
                program("./bin/cat", 0o755),
                ("./lib/x86_64-linux-gnu/libc.so.6", b"c"),
                link("./lib64/ld.so", "/lib/x86_64-linux-gnu/ld.so"),
                link("./usr/bin/cat", "/bin/cat"),  # what merged /usr makes of it is itself
                link("./sbin/tool", "/usr/sbin/tool"),
                ("./usr/sbin/tool", b"t"),
            ),
            # a suite whose base-files has the links
            self.files("new", folder("./usr/bin"), link("./bin", "usr/bin")),
        )
        links = {p: e.linkname for p, e in tree.items() if e.type is FileType.SYMLINK}
        self.assertEqual(
            links,
            {
                "bin": "usr/bin",
                "lib": "usr/lib",
                "lib64": "usr/lib64",
                "sbin": "usr/sbin",
                "usr/lib64/ld.so": "/lib/x86_64-linux-gnu/ld.so",
                "var/lock": "/run/lock",
                "var/run": "/run",
            },
        )
        self.assertEqual(tree["usr/bin/cat"].mode, 0o755)
        self.assertIs(tree["usr/bin/cat"].type, FileType.REGULAR)
        self.assertIs(tree["usr/sbin/tool"].type, FileType.REGULAR)
        self.assertIn("usr/lib/x86_64-linux-gnu/libc.so.6", tree)
        self.assertFalse([p for p in tree if p.startswith(("bin/", "lib/", "var/run/"))])

    def test_paths_lead_through_other_packages_links(self) -> None:
        tree = self.tree(
            self.files("a", folder("./opt/real"), link("./opt/alias", "real")),
            self.files("b", folder("./opt/alias"), ("./opt/alias/file", b"b")),
            self.files("c", ("./var/run/c/file", b"c")),
        )
        self.assertEqual(tree["opt/alias"].linkname, "real")
        self.assertEqual(tree["opt/real/file"].reason, "package b 1.0-1")
        self.assertIn("run/c/file", tree)
        self.assertNotIn("opt/alias/file", tree)

    def test_links_in_a_circle_are_no_endless_loop(self) -> None:
        circle = self.files("a", link("./x", "y"), link("./y", "x"), ("./x/file", b""))
        with self.assertRaises(PlanError):
            self.tree(circle)

    def test_parents_are_there_and_come_first(self) -> None:
        entries = deb.root_entries([self.files("a", ("./usr/lib/a/b/c", b""))])
        seen: set[str] = set()
        for entry in entries:
            parent = entry.path.rpartition("/")[0]
            self.assertTrue(not parent or parent in seen, entry.path)
            if entry.type is FileType.DIRECTORY:
                seen.add(entry.path)
        paths = [os.fsencode(entry.path) for entry in entries]
        self.assertEqual(paths, sorted(set(paths)))
        self.assertEqual({entry.group for entry in entries}, {"packages"})

    def test_documentation_stays_behind_and_licences_come(self) -> None:
        tree = self.tree(
            self.files(
                "a",
                ("./usr/share/doc/a/README", b""),
                ("./usr/share/doc/a/copyright", b"c"),
                link("./usr/share/doc/a-common", "a"),
                ("./usr/share/man/man1/a.1.gz", b""),
                ("./usr/share/locale/de/LC_MESSAGES/a.mo", b""),
                ("./usr/share/manual/a", b""),
                ("./usr/lib/locale/C.utf8/LC_TIME", b""),
            )
        )
        self.assertEqual(
            [path for path in tree if path.startswith("usr/share/")],
            [
                "usr/share/doc",
                "usr/share/doc/a",
                "usr/share/doc/a-common",
                "usr/share/doc/a/copyright",
                "usr/share/manual",
                "usr/share/manual/a",
            ],
        )
        self.assertIn("usr/lib/locale/C.utf8/LC_TIME", tree)

    def test_modes_and_owners(self) -> None:
        tree = self.tree(
            self.files(
                "base-files",
                folder("./root", 0o700),
                folder("./tmp", 0o755),
                folder("./etc/ssl", 0o755),
            ),
            self.files(
                "a",
                folder("./etc/ssl", 0o700),
                folder("./var/mail", 0o2775),
                program("./usr/bin/su", 0o4755, gid=42),
            ),
        )
        self.assertEqual(tree["root"].mode, 0o700)
        self.assertEqual(tree["etc/ssl"].mode, 0o755)  # the first package's
        self.assertEqual(tree["var/mail"].mode, 0o775)
        self.assertEqual((tree["usr/bin/su"].mode, tree["usr/bin/su"].gid), (0o755, 42))
        for path in ("tmp", "run", "var/tmp", "run/lock"):
            self.assertEqual(tree[path].mode, 0o1777, path)

    def test_hard_links(self) -> None:
        tree = self.tree(
            self.files(
                "perl",
                ("./usr/bin/perl5.36", b"perl"),
                link("./usr/bin/perl", "./usr/bin/perl5.36", hard=True),
                ("./usr/share/doc/perl/x", b"doc"),
                link("./usr/lib/x", "./usr/share/doc/perl/x", hard=True),
            )
        )
        # the first in the archive holds the bytes
        self.assertIs(tree["usr/bin/perl"].type, FileType.REGULAR)
        self.assertEqual(tree["usr/bin/perl5.36"].linkname, "usr/bin/perl")
        self.assertEqual(tree["usr/bin/perl5.36"].size, 0)
        # what the other shared stayed behind
        self.assertIs(tree["usr/lib/x"].type, FileType.REGULAR)
        self.assertEqual(content(tree["usr/lib/x"]), b"doc")

    def test_the_order_of_packages_does_not_matter(self) -> None:
        packages = [
            self.files("base-files", folder("./etc", 0o755), ("./etc/debian_version", b"12")),
            self.files("a", folder("./etc", 0o700), ("./etc/a", b"1")),
            self.files("b", ("./etc/a", b"2"), replaces="a"),
            self.files("c", ("./bin/c", b"")),
        ]
        self.assertEqual(deb.root_entries(packages), deb.root_entries(packages[::-1]))

    def test_one_path_with_two_contents(self) -> None:
        one = self.files("one", ("./etc/x", b"1"), ("./etc/y", b"1"), ("./etc/same", b"="))
        two = self.files("two", ("./etc/x", b"2"), link("./etc/y", "z"), ("./etc/same", b"="))
        with self.assertRaises(SeveralErrors) as caught:
            self.tree(one, two)
        self.assertEqual(
            [error.what for error in caught.exception.errors],
            [
                "the Debian packages one 1.0-1 and two 1.0-1 both have /etc/x, "
                "with different content",
                "the Debian packages one 1.0-1 and two 1.0-1 both have /etc/y, "
                "with different content",
            ],
        )

    def test_a_file_where_another_package_needs_a_directory(self) -> None:
        with self.assertRaises(EggcrateError) as caught:
            self.tree(
                self.files("one", ("./opt/x", b"")), self.files("two", ("./opt/x/y", b""))
            )
        self.assertIn("/opt/x", str(caught.exception))
        self.assertIn("package two 1.0-1", str(caught.exception))

    def test_a_package_that_replaces_the_other_wins(self) -> None:
        for names in (("a", "b"), ("b", "a")):
            old = self.files(names[0], ("./etc/x", b"old"))
            new = self.files(names[1], ("./etc/x", b"new"), replaces=f"z, {names[0]} (<< 2~)")
            tree = self.tree(old, new)
            self.assertEqual(content(tree["etc/x"]), b"new")
            self.assertEqual(tree["etc/x"].reason, f"package {names[1]} 1.0-1")

    def test_accounts(self) -> None:
        def text(path: str, tree: dict[str, FileEntry]) -> list[str]:
            return content(tree[path]).decode().splitlines()

        bare = self.tree(self.files("a"))
        self.assertEqual(text("etc/passwd", bare)[0], "root:*:0:0:root:/root:/bin/sh")
        self.assertEqual(text("etc/passwd", bare)[-1], "app:*:10001:10001::/:/usr/sbin/nologin")
        self.assertEqual(text("etc/group", bare)[-1], "app:*:10001:")
        self.assertFalse([x for x in text("etc/group", self.tree(user=None)) if "app" in x])

        master = self.files(
            "base-passwd",
            ("./usr/share/base-passwd/passwd.master", "root:*:0:0::/root:/bin/bash\n"),
            ("./usr/share/base-passwd/group.master", "root:*:0:\nwww-data:*:33:\n"),
        )
        self.assertEqual(
            text("etc/group", self.tree(master)),
            ["root:*:0:", "www-data:*:33:", "app:*:10001:"],
        )
        # an account that Debian has is not made twice
        self.assertEqual(len(text("etc/group", self.tree(master, user="www-data"))), 2)

    def test_certificates(self) -> None:
        tree = self.tree(
            self.files(
                "ca-certificates",
                ("./usr/share/ca-certificates/mozilla/B.crt", b"-B-"),
                ("./usr/share/ca-certificates/mozilla/A.crt", b"-A-\n"),
                ("./usr/share/ca-certificates/README", b"no certificate"),
            )
        )
        bundle = tree["etc/ssl/certs/ca-certificates.crt"]
        self.assertEqual(content(bundle), b"-A-\n-B-\n")
        self.assertEqual(
            content(tree["etc/ca-certificates.conf"]), b"mozilla/A.crt\nmozilla/B.crt\n"
        )
        self.assertNotIn("etc/ca-certificates.conf", self.tree(self.files("a")))

    def test_a_certificate_that_is_damaged_on_disk_is_not_taken(self) -> None:
        found = self.files("a", ("./usr/share/ca-certificates/A.crt", b"-A-"))
        source = found.members[0].source
        assert source is not None
        source.write_bytes(b"-E-")
        with self.assertRaises(TransportError) as caught:
            self.tree(found)
        self.assertIn("usr/share/ca-certificates/A.crt", caught.exception.what)

    def test_what_scanners_read(self) -> None:
        tree = self.tree(self.files("b", depends="a (>= 1)"), self.files("a"))
        self.assertEqual(
            content(tree["var/lib/dpkg/status"]).decode(),
            "Package: a\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: all\n"
            "Description: made by a test\n of nothing\n"
            "\n"
            "Package: b\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: all\n"
            "Depends: a (>= 1)\nDescription: made by a test\n of nothing\n",
        )

    def test_files_that_maintainer_scripts_make(self) -> None:
        packages = [
            self.files("tzdata", ("./usr/share/zoneinfo/Etc/UTC", b"TZif")),
            self.files("libc-bin", ("./usr/share/libc-bin/nsswitch.conf", b"hosts: dns\n")),
        ]
        tree = self.tree(*packages)
        self.assertEqual(tree["etc/localtime"].linkname, "/usr/share/zoneinfo/Etc/UTC")
        self.assertEqual(content(tree["etc/nsswitch.conf"]), b"hosts: dns\n")
        own = self.files("own", ("./etc/nsswitch.conf", b"mine"), ("./etc/localtime", b"mine"))
        tree = self.tree(*packages, own)
        self.assertEqual(content(tree["etc/nsswitch.conf"]), b"mine")
        self.assertEqual(content(tree["etc/localtime"]), b"mine")

    def test_the_group_is_the_callers(self) -> None:
        entries = deb.root_entries([self.files("a", ("./etc/a", b""))], group="base")
        self.assertEqual({entry.group for entry in entries}, {"base"})
        self.assertTrue(all(dataclasses.is_dataclass(entry) for entry in entries))


class ParagraphsTest(unittest.TestCase):
    def test_fields_comments_and_continuations(self) -> None:
        text = "# c\nA: 1\nLong-Field: x\n y\n .\n# c\n\tz\n\n\n lost\nB:2\n"
        self.assertEqual(
            list(deb.paragraphs(text)),
            [{"a": "1", "long-field": "x\n y\n .\n\tz"}, {"b": "2"}],
        )


if __name__ == "__main__":
    unittest.main()
