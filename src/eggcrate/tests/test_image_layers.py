"""The same entries give the same bytes, everywhere."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import pathlib
import random
import subprocess
import sys
import tarfile
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

from eggcrate.errors import PlanError
from eggcrate.image import layers
from eggcrate.image.layers import DEFAULT_EPOCH, Layer, layer_key, tar_header, write_layer
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    LayerPlan,
    bytes_file,
    directory,
    disk_file,
    merge,
    plan_layers,
    symlink,
)
from eggcrate.image.store import Store

# Makes a layer of the directory in argv[1], in a store at argv[2], and prints its digest.
_ELSEWHERE = """
import os, pathlib, sys
os.umask(int(sys.argv[3], 8))
from eggcrate.image.layers import write_layer
from eggcrate.image.plan import LayerPlan, disk_file, merge
from eggcrate.image.store import Store
top = pathlib.Path(sys.argv[1])
paths = [path for path in top.rglob("*") if path.is_file()]
if sys.argv[4] == "reversed":
    paths.reverse()
tree = merge(
    disk_file(f"srv/{path.relative_to(top)}", path, group="data", reason="test")
    for path in paths
)
from concurrent.futures import ThreadPoolExecutor
layer = write_layer(
    LayerPlan("data", tuple(tree.values())),
    Store(pathlib.Path(sys.argv[2])),
    compression="gzip",
    epoch=315532800,
    pool=ThreadPoolExecutor(2),
)
print(layer.descriptor.digest)
"""


def file(path: str, data: bytes = b"x", mode: int = 0o644) -> FileEntry:
    return bytes_file(path, data, group="data", reason="test", mode=mode)


def plan(*entries: FileEntry) -> LayerPlan:
    return LayerPlan("data", tuple(merge(entries).values()))


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.store = Store(self.root / "store")

    def write(self, plan: LayerPlan, compression: str = "none", epoch: int = 1) -> Layer:
        with ThreadPoolExecutor(2) as pool:
            return write_layer(
                plan, self.store, compression=compression, epoch=epoch, pool=pool
            )

    def stored(self, layer: Layer) -> bytes:
        return self.store.blob(layer.descriptor.digest).read_bytes()

    def lines(self, layer: Layer) -> list[str]:
        """The entries of a layer as another program reads them, one line each."""
        stream = io.BytesIO(self.stored(layer))
        with tarfile.open(fileobj=stream, mode="r:*") as archive:
            return [_line(archive, entry) for entry in archive]

    def temporaries(self) -> list[pathlib.Path]:
        return list(self.root.rglob(".eggcrate-tmp-*"))


def _line(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    kind = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h"}.get(
        entry.type, "-"
    )
    line = f"{kind} {entry.mode:04o} {entry.uid}:{entry.gid} {entry.mtime} {entry.name!r}"
    if entry.linkname:
        line += f" -> {entry.linkname!r}"
    if stream := archive.extractfile(entry) if entry.isreg() else None:
        line += f" {stream.read()[:20]!r}"
    return line


class Bytes(Scratch):
    def test_each_entry_is_what_the_plan_says(self) -> None:
        entries = (
            dataclasses.replace(directory("d", group="data", reason="t"), mode=0o1777),
            file("d/f", b"abc", 0o755),
            dataclasses.replace(file("d/g"), uid=33, gid=4_000_000),
            FileEntry("d/h", FileType.HARDLINK, 0o755, "data", "t", linkname="d/f"),
            symlink("d/l", "../x y", group="data", reason="t"),
        )
        self.assertEqual(
            self.lines(self.write(LayerPlan("data", entries), epoch=1_700_000_000)),
            [
                "d 1777 0:0 1700000000 'd'",
                "- 0755 0:0 1700000000 'd/f' b'abc'",
                "- 0644 33:4000000 1700000000 'd/g' b'x'",
                "h 0755 0:0 1700000000 'd/h' -> 'd/f'",
                "l 0777 0:0 1700000000 'd/l' -> '../x y'",
            ],
        )

    def test_odd_names_come_back_byte_for_byte(self) -> None:
        names = [
            "-leading",
            "a b",
            "new\nline",
            "\x01\x7f",
            os.fsdecode(b"bad-\xff\xfe"),
            "umlaut-\u00e4\u6f22",
            "n" * 255,
            "/".join(["d" * 100] * 12),
            "/".join(["\u00e9" * 90] * 5),
            "p" * 100,
            "p" * 90 + "/" + "q" * 100,
        ]
        links = [
            symlink(f"l{number}", name, group="data", reason="t")
            for number, name in enumerate(names)
        ]
        layer = self.write(plan(*map(file, names), *links))
        with tarfile.open(self.store.blob(layer.descriptor.digest)) as archive:
            found = {entry.name: entry for entry in archive}
        for number, name in enumerate(names):
            self.assertTrue(found[name].isreg(), ascii(name))
            self.assertEqual(found[f"l{number}"].linkname, name)

    def test_a_short_name_needs_no_pax_header(self) -> None:
        layer = self.write(plan(file("a")))
        self.assertEqual(layer.size, 4 * 512)
        self.assertIn(b"ustar\x0000", self.stored(layer))

    def test_no_owner_has_a_name(self) -> None:
        with tarfile.open(
            fileobj=io.BytesIO(self.stored(self.write(plan(file("a")))))
        ) as found:
            entry = found.getmembers()[0]
        self.assertEqual((entry.uname, entry.gname, entry.pax_headers), ("", "", {}))

    def test_digest_diff_id_and_sizes_are_those_of_the_bytes(self) -> None:
        random_bytes = random.Random(1).randbytes(3 << 20)
        for compression, suffix in (("gzip", "+gzip"), ("none", "")):
            layer = self.write(plan(file("a", random_bytes), file("b")), compression)
            stored = self.stored(layer)
            plain = gzip.decompress(stored) if compression == "gzip" else stored
            self.assertEqual(
                layer.descriptor.digest, f"sha256:{hashlib.sha256(stored).hexdigest()}"
            )
            self.assertEqual(layer.diff_id, f"sha256:{hashlib.sha256(plain).hexdigest()}")
            self.assertEqual((layer.descriptor.size, layer.size), (len(stored), len(plain)))
            self.assertTrue(layer.descriptor.media_type.endswith(f".v1.tar{suffix}"))
            self.assertEqual(plain[-1024:], bytes(1024))

    def test_compression_does_not_change_what_is_in_it(self) -> None:
        entries = plan(file("a"), file("b", bytes(5000)))
        packed, plain = self.write(entries, "gzip"), self.write(entries, "none")
        self.assertEqual(packed.diff_id, plain.diff_id)

    def test_a_gzip_header_has_neither_time_nor_name(self) -> None:
        header = self.stored(self.write(plan(file("a")), "gzip"))[:10]
        self.assertEqual(header[:8], b"\x1f\x8b\x08\x00\x00\x00\x00\x00")

    def test_an_empty_layer_is_a_tar(self) -> None:
        layer = self.write(LayerPlan("data", ()))
        self.assertEqual(self.lines(layer), [])
        self.assertEqual(layer.size, 1024)


class Determinism(Scratch):
    def digest(self, umask: str = "022", order: str = "", **environment: str) -> str:
        """The digest of a layer that another process makes of the same files elsewhere."""
        place = pathlib.Path(tempfile.mkdtemp(dir=self.root))
        names = [f"{name}/{number}" for name in ("a", "b-", "b") for number in range(3)]
        if order:
            names.reverse()
        os.umask(before := os.umask(0))
        try:
            os.umask(int(umask, 8))
            for name in names:
                path = place / "files" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(name)
                path.chmod(0o755 if name.startswith("a") else 0o644)
                os.utime(path, (1, 1))
        finally:
            os.umask(before)
        return subprocess.run(
            [
                *(sys.executable, "-c", _ELSEWHERE),
                *(place / "files", place / "store", umask, order),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            cwd=place,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    def test_neither_machine_nor_user_is_in_the_bytes(self) -> None:
        digests = {
            self.digest(),
            self.digest(umask="077", TZ="Asia/Kathmandu", PYTHONHASHSEED="1"),
            self.digest(order="reversed", LC_ALL="C", PYTHONHASHSEED="2"),
        }
        self.assertEqual(len(digests), 1, digests)

    def test_a_digest_that_no_release_may_change_unnoticed(self) -> None:
        # of the uncompressed tar: the bytes of gzip are zlib's.  Raise layers.FORMAT with it.
        entries = plan(file("d/a", b"abc"), symlink("d/l", "a", group="data", reason="t"))
        self.assertEqual(layers.FORMAT, 3)
        self.assertEqual(
            self.write(entries, epoch=DEFAULT_EPOCH).diff_id,
            "sha256:d1b51d4200c90f107190c4c4a2b48c45c2121258ae0e565d9836fad7435be2e3",
        )


class Times(unittest.TestCase):
    """nginx makes an ETag of a file's time and size."""

    def time(self, entry: FileEntry, epoch: int = DEFAULT_EPOCH) -> int:
        header = tar_header(entry, epoch)
        return int(tarfile.TarInfo.frombuf(header, "utf-8", "strict").mtime)

    def test_a_file_for_browsers_has_one_that_its_content_says(self) -> None:
        red, blue = (
            file("site.css", b"a { color: red1 }"),
            file("site.css", b"a { color: blue }"),
        )
        self.assertEqual(red.size, blue.size)
        self.assertNotEqual(self.time(red), self.time(blue))
        self.assertEqual(self.time(red), self.time(file("other.css", b"a { color: red1 }")))
        half_a_year = range(DEFAULT_EPOCH, DEFAULT_EPOCH + 200 * 86400)
        self.assertIn(self.time(red), half_a_year)

    def test_all_others_have_one_and_so_has_everything_if_somebody_chose_it(self) -> None:
        for name in ("a.py", "a.pyc", "a.mo", "a.pt", "a"):
            self.assertEqual(self.time(file(name)), DEFAULT_EPOCH)
        self.assertEqual(self.time(symlink("a.css", "b", group="g", reason="r")), DEFAULT_EPOCH)
        self.assertEqual(self.time(file("a.css"), 1_700_000_000), 1_700_000_000)


class Key(unittest.TestCase):
    def test_it_changes_with_everything_that_is_in_the_bytes(self) -> None:
        one = file("a")
        changes = [
            dataclasses.replace(one, path="b"),
            dataclasses.replace(one, mode=0o755),
            dataclasses.replace(one, uid=1),
            dataclasses.replace(one, gid=1),
            file("a", b"y"),
            symlink("a", "x", group="data", reason="test"),
            FileEntry("a", FileType.HARDLINK, 0o644, "data", "test", linkname="x"),
            directory("a", group="data", reason="test"),
        ]
        keys = [layer_key([entry], "gzip", 0) for entry in (one, *changes)]
        keys += [layer_key([one], "none", 0), layer_key([one], "gzip", 1)]
        keys += [layer_key([one, file("b")], "gzip", 0), layer_key([], "gzip", 0)]
        self.assertEqual(len(keys), len(set(keys)))

    def test_it_does_not_change_with_what_people_read(self) -> None:
        one = file("a")
        other = dataclasses.replace(one, reason="other", group="egg x-1", data=None)
        self.assertEqual(layer_key([one], "gzip", 0), layer_key([other], "gzip", 0))

    def test_names_can_t_run_into_one_another(self) -> None:
        one = [file("a\n"), file("b")]
        other = [file("a"), file("\nb")]
        self.assertNotEqual(layer_key(one, "gzip", 0), layer_key(other, "gzip", 0))


class Cache(Scratch):
    def test_a_layer_is_made_once(self) -> None:
        first, second = self.write(plan(file("a"))), self.write(plan(file("a")))
        self.assertTrue(first.made)
        self.assertFalse(second.made)
        self.assertEqual(dataclasses.replace(second, made=True), first)

    def test_a_layer_whose_blob_is_gone_or_cut_off_is_made_again(self) -> None:
        layer = self.write(plan(file("a")))
        blob = self.store.blob(layer.descriptor.digest)
        good = blob.read_bytes()
        for damage in (lambda: blob.write_bytes(good[:-1]), blob.unlink):
            damage()
            self.assertTrue(self.write(plan(file("a"))).made)
            self.assertEqual(blob.read_bytes(), good)

    def test_a_file_that_changes_after_the_plan_is_an_error(self) -> None:
        source = self.root / "file"
        for change in (b"abd", b"abcd", b"ab", b""):
            source.write_bytes(b"abc")
            entries = plan(disk_file("a", source, group="data", reason="test"))
            source.write_bytes(change)
            with self.assertRaises(PlanError) as caught:
                self.write(entries)
            self.assertEqual(caught.exception.what, f"{source} changed while it was read")
            self.assertIsNone(
                self.store.recall("layers", layer_key(entries.entries, "none", 1))
            )
        self.assertEqual(self.temporaries(), [])

    def test_a_file_that_vanishes_is_an_error(self) -> None:
        source = self.root / "file"
        source.write_bytes(b"abc")
        entries = plan(disk_file("a", source, group="data", reason="test"))
        source.unlink()
        with self.assertRaises(PlanError) as caught:
            self.write(entries)
        self.assertIn("can't be read: No such file", caught.exception.what)
        self.assertEqual(self.temporaries(), [])


class Plans(Scratch):
    def test_a_change_in_one_group_changes_one_layer(self) -> None:
        def digests(source: bytes) -> list[str]:
            tree = merge(
                [
                    bytes_file("a/b", b"1", group="packages", reason="t"),
                    bytes_file("a/c", b"2", group="egg c-1", reason="t"),
                    bytes_file("a/d", source, group="develop d", reason="t"),
                ]
            )
            return [
                self.write(layer).descriptor.digest for layer in plan_layers(tree, 9).layers
            ]

        before, after = digests(b"3"), digests(b"4")
        self.assertEqual(before[:2], after[:2])
        self.assertNotEqual(before[2], after[2])
