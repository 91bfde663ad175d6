"""What is known of files: right, read once, and never believed for too long."""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
import tempfile
import time
import tracemalloc
import unittest
from collections.abc import Callable
from typing import BinaryIO
from unittest import mock

from eggcrate.errors import PlanError
from eggcrate.image.plan import open_at_once
from eggcrate.image.store import Store
from eggcrate.payload import files
from eggcrate.payload.files import Facts, Files, Stamp, listing, settled, stamp
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.tests.test_record import KEY


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name).resolve()
        self.store = Store(self.root / "store")
        self.top = self.root / "top"
        self.top.mkdir()
        self.relocation = Relocation((Rule(os.fspath(self.top), "/srv/app"),))
        self.opened: list[str] = []

        def opening(path: str) -> BinaryIO:
            self.opened.append(os.path.basename(path))
            return open_at_once(path)

        self.patch("open_at_once", opening)

    def patch(self, name: str, value: object) -> None:
        patch = mock.patch.object(files, name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def let_time_pass(self) -> None:
        """Let what was written so far be so old that every change of it will be seen."""
        self.patch("TICK", 15_000_000)
        time.sleep(0.03)

    def write(self, data: bytes, name: str = "file") -> pathlib.Path:
        path = self.top / name
        path.write_bytes(data)
        return path

    def files(self) -> Files:
        return Files(self.relocation, self.store)

    def facts(
        self, path: pathlib.Path, *, secrets: bool = False, known: Files | None = None
    ) -> Facts:
        return (known or self.files()).facts(os.fspath(path), path.lstat(), secrets=secrets)

    def of(self, data: bytes, *, secrets: bool = False) -> Facts:
        return self.facts(self.write(data), secrets=secrets)


class Reading(Scratch):
    def test_an_ordinary_text(self) -> None:
        digest = hashlib.sha256(b"text\n").hexdigest()
        wanted = Facts(5, digest, True, False, b"", None, None, "")
        self.assertEqual(self.of(b"text\n"), wanted)
        self.assertEqual(self.of(b"text\n", secrets=True), wanted._replace(secret=""))

    def test_an_empty_file(self) -> None:
        facts = self.of(b"")
        self.assertEqual((facts.size, facts.digest), (0, hashlib.sha256().hexdigest()))
        self.assertEqual((facts.text, facts.touched, facts.first_line), (True, False, b""))

    def test_a_script(self) -> None:
        self.assertEqual(self.of(b"#!/bin/sh -e\nexit\n").first_line, b"#!/bin/sh -e")
        self.assertEqual(self.of(b"#!/bin/sh").first_line, b"#!/bin/sh")
        self.assertEqual(self.of(b"# !/bin/sh\n").first_line, b"")
        long = b"#!" + b"x" * 10_000
        self.assertEqual(self.of(long + b"\n").first_line, long[:4096])

    def test_a_path_of_the_build(self) -> None:
        path = os.fsencode(self.top)
        for data, touched in (
            (path, True),
            (b"x" + path + b"y", True),
            (path + b"/more", True),
            (path[:-1], False),
            (b"\0" + path + b"\0", True),
        ):
            self.assertEqual(self.of(data).touched, touched, data)

    def test_a_nul_makes_it_no_text(self) -> None:
        for data in (b"\0", b"text\0", b"\0text"):
            self.assertFalse(self.of(data).text)

    def test_a_secret_in_a_text_and_only_there(self) -> None:
        self.assertEqual(self.of(b"x = " + KEY, secrets=True).secret, "a private key")
        self.assertEqual(self.of(b"\0" + KEY, secrets=True).secret, "")
        self.assertIsNone(self.of(KEY).secret)

    def test_an_elf_file(self) -> None:
        facts = self.facts(pathlib.Path(os.path.realpath("/bin/ls")))
        assert facts.binary is not None
        self.assertIn("libc.so.6", facts.binary.needed)
        self.assertEqual(facts.complaint, "")

    def test_an_elf_file_that_is_cut_off(self) -> None:
        with open(os.path.realpath(sys.executable), "rb") as stream:
            facts = self.of(stream.read(100))
        self.assertIsNone(facts.binary)
        self.assertIn("it ends too early", facts.complaint)

    def test_a_file_that_is_gone(self) -> None:
        path = self.write(b"")
        status = path.stat()
        path.unlink()
        with self.assertRaises(FileNotFoundError):
            self.files().facts(os.fspath(path), status, secrets=False)

    def test_a_file_that_another_has_replaced(self) -> None:
        path = self.write(b"")
        status = path.stat()
        (self.top / "kept").hardlink_to(path)
        replacements: tuple[Callable[[], pathlib.Path], ...] = (
            lambda: self.write(b"other", "new"),
            self.fifo,
        )
        for replace in replacements:
            replace().replace(path)
            with self.assertRaises(PlanError) as caught:
                self.files().facts(os.fspath(path), status, secrets=False)
            self.assertEqual(caught.exception.what, f"{path} was replaced while it was read")

    def test_a_fifo_that_has_got_the_number_of_a_file(self) -> None:
        path = self.fifo()
        with self.assertRaises(PlanError):
            self.files().facts(os.fspath(path), path.stat(), secrets=False)

    def fifo(self) -> pathlib.Path:
        os.mkfifo(self.top / "new")
        return self.top / "new"


class Blocks(Scratch):
    """Files that are read in pieces."""

    def test_each_place_of_a_path_at_each_border(self) -> None:
        self.patch("_WHOLE", 1024)
        self.patch("_BLOCK", 256)
        path = os.fsencode(self.top)
        for border in (1024, 1280, 1536):
            for before in range(len(path) + 1):
                data = bytearray(b"x" * 2000)
                data[border - before : border - before + len(path)] = path
                facts = self.of(bytes(data))
                self.assertTrue(facts.touched, (border, before))
                self.assertEqual(facts.digest, hashlib.sha256(data).hexdigest())

    def test_the_borders_are_where_they_are_said_to_be(self) -> None:
        path = os.fsencode(self.top)
        for border in (8 << 20, 9 << 20):
            data = b"x" * (border - 4) + path + b"x" * 100
            with self.subTest(border):
                facts = self.of(data)
                self.assertEqual((facts.touched, facts.size), (True, len(data)))
                self.assertFalse(self.of(data.replace(path, path[:-1] + b"-")).touched)

    def test_a_nul_in_any_block(self) -> None:
        for place in (0, (8 << 20) - 1, 8 << 20, (9 << 20) - 1, 9 << 20):
            data = bytearray(b"x" * ((9 << 20) + 1))
            data[place] = 0
            self.assertFalse(self.of(bytes(data)).text, place)
        self.assertTrue(self.of(b"x" * ((9 << 20) + 1)).text)

    def test_a_secret_at_each_border(self) -> None:
        self.patch("_WHOLE", 1 << 14)
        self.patch("_BLOCK", 1 << 13)
        for border in (1 << 14, (1 << 14) + (1 << 13)):
            for before in range(0, len(KEY), 17):
                data = b" " * (border - before) + KEY + b" " * (1 << 13)
                self.assertEqual(self.of(data, secrets=True).secret, "a private key", before)
                # what turns out to be no text has none
                self.assertEqual(self.of(data + b"\0", secrets=True).secret, "")

    def test_sizes_around_the_borders(self) -> None:
        self.patch("_WHOLE", 64)
        self.patch("_BLOCK", 16)
        for size in (*range(60, 100), 1000):
            data = os.urandom(size)
            facts = self.of(data)
            self.assertEqual(facts.size, size)
            self.assertEqual(facts.digest, hashlib.sha256(data).hexdigest())

    def test_a_large_file_takes_little_memory(self) -> None:
        path = self.write(b"")
        os.truncate(path, 100 << 20)
        tracemalloc.start()
        try:
            facts = self.facts(path, secrets=True)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual((facts.size, facts.text), (100 << 20, False))
        self.assertLess(most, 32 << 20)


class Stamps(Scratch):
    def test_every_change_changes_it(self) -> None:
        path = self.write(b"one")

        def rewrite() -> None:
            status = path.stat()
            path.write_bytes(b"two")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        def replace() -> None:
            self.write(path.read_bytes(), "other").replace(path)

        def replace_by_a_link() -> None:
            path.rename(self.top / "other")
            path.symlink_to("other")

        changes: tuple[Callable[[], object], ...] = (
            lambda: path.write_bytes(b"one and more"),
            lambda: os.truncate(path, 3),
            rewrite,
            path.touch,
            lambda: path.chmod(0o755),
            lambda: (self.top / "link").hardlink_to(path),
            (self.top / "link").unlink,
            replace,
            replace_by_a_link,
        )
        before = stamp(path.lstat())
        for change in changes:
            time.sleep(0.03)
            change()
            after = stamp(path.lstat())
            self.assertNotEqual(after, before)
            before = after

    def test_reading_changes_nothing(self) -> None:
        path = self.write(b"one")
        before = stamp(path.stat())
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
        path.read_bytes()
        after = stamp(path.stat())
        self.assertEqual(after._replace(changed=0), before._replace(changed=0))

    def test_a_directory_s_size_is_not_its_own(self) -> None:
        before = stamp(self.top.stat())
        (self.top / "below").mkdir()
        after = stamp(self.top.stat())
        self.assertEqual((after.size, after.links), (before.size, before.links))
        self.assertNotEqual(after, before)

    def test_when_a_stamp_will_show_the_next_change(self) -> None:
        path = self.write(b"")
        os.utime(path, ns=(0, 0))
        status = path.stat()
        changed = status.st_ctime_ns
        self.assertFalse(settled(status, changed))
        self.assertFalse(settled(status, changed + files.TICK))
        self.assertTrue(settled(status, changed + files.TICK + 1))
        # a clock that was set back, or files of the future
        self.assertFalse(settled(status, changed - files.TICK))
        os.utime(path, ns=(0, changed + 10**12))
        self.assertFalse(settled(path.stat(), changed + 10**11))


class Remembering(Scratch):
    def test_what_is_unchanged_is_not_read_again(self) -> None:
        path = self.write(b"#!/bin/sh\n" + os.fsencode(self.top))
        elf = pathlib.Path(os.path.realpath("/bin/ls"))
        self.let_time_pass()
        known = self.files()
        first = [self.facts(path, known=known, secrets=True), self.facts(elf, known=known)]
        self.facts(path, known=known)
        self.assertEqual(self.opened, ["file", elf.name])
        known.keep()
        again = self.files()
        found = [self.facts(path, known=again, secrets=True), self.facts(elf, known=again)]
        self.assertEqual(self.opened, ["file", elf.name])
        self.assertEqual(found, first)
        self.assertEqual(again.binaries, known.binaries)
        self.assertEqual(list(again.binaries), [first[1].digest])

    def test_what_is_young_is_read_by_the_next_build(self) -> None:
        path = self.write(b"one")
        known = self.files()
        self.facts(path, known=known)
        self.facts(path, known=known)
        known.keep()
        self.assertEqual(self.opened, ["file"])
        self.facts(path)
        self.assertEqual(self.opened, ["file", "file"])

    def test_a_file_system_whose_clock_is_coarse(self) -> None:
        # FAT has 2 s: two states of a file have one stamp
        def coarse(status: os.stat_result) -> Stamp:
            return stamp(status)._replace(modified=1, changed=1)

        self.patch("stamp", coarse)
        known = self.files()
        self.facts(self.write(b"one"), known=known)
        known.keep()
        facts = self.facts(self.write(b"two"))
        self.assertEqual(facts.digest, hashlib.sha256(b"two").hexdigest())

    def test_what_has_changed_is_read(self) -> None:
        path = self.write(b"one")
        self.let_time_pass()
        known = self.files()
        self.facts(path, known=known)
        known.keep()
        status = path.stat()
        path.write_bytes(b"two")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertEqual(self.facts(path).digest, hashlib.sha256(b"two").hexdigest())

    def test_secrets_are_looked_for_where_nobody_has(self) -> None:
        path = self.write(KEY)
        self.let_time_pass()
        known = self.files()
        self.assertIsNone(self.facts(path, known=known).secret)
        known.keep()
        known = self.files()
        self.assertEqual(self.facts(path, known=known, secrets=True).secret, "a private key")
        # and what was found so is not said to those that did not ask
        self.assertIsNone(self.facts(path, known=known).secret)
        known.keep()
        self.assertIsNone(self.facts(path).secret)
        self.assertEqual(self.opened, ["file", "file"])

    def test_other_rules_have_other_facts(self) -> None:
        path = self.write(b"/elsewhere/x")
        self.let_time_pass()
        known = self.files()
        self.assertFalse(self.facts(path, known=known).touched)
        known.keep()
        self.relocation = Relocation((*self.relocation.rules, Rule("/elsewhere", "/srv")))
        self.assertTrue(self.facts(path).touched)

    def test_a_path_that_has_got_another_spelling(self) -> None:
        place, moved = self.root / "place", self.root / "moved"
        place.mkdir()
        self.relocation = Relocation((Rule(os.fspath(place), "/srv"),))
        path = self.write(os.fsencode(moved))
        self.let_time_pass()
        known = self.files()
        self.assertFalse(self.facts(path, known=known).touched)
        known.keep()
        place.rename(moved)
        place.symlink_to(moved)
        self.relocation = Relocation(self.relocation.rules)
        self.assertTrue(self.facts(path).touched)

    def test_only_what_was_used_is_kept(self) -> None:
        paths = [self.write(b"", name) for name in "abc"]
        self.let_time_pass()
        known = self.files()
        for path in paths:
            self.facts(path, known=known)
        known.keep()
        known = self.files()
        self.facts(paths[0], known=known)
        known.keep()
        self.opened.clear()
        known = self.files()
        for path in paths:
            self.facts(path, known=known)
        self.assertEqual(self.opened, ["b", "c"])

    def test_nothing_new_is_not_written(self) -> None:
        path = self.write(b"")
        self.let_time_pass()
        known = self.files()
        self.facts(path, known=known)
        known.keep()
        with mock.patch.object(Store, "keep_table", side_effect=AssertionError):
            known = self.files()
            self.facts(path, known=known)
            known.keep()

    def test_more_files_than_are_held_at_a_time(self) -> None:
        self.patch("_MANY", 3)
        paths = [self.write(str(number).encode(), str(number)) for number in range(10)]
        self.let_time_pass()
        known = self.files()
        facts = [self.facts(path, known=known) for path in paths]
        self.assertEqual(
            [path for path, *_ in known.seen()], [os.fspath(path) for path in paths]
        )
        self.assertEqual([found for *_, found in known.seen()], facts)
        known.keep()
        self.assertEqual([found for *_, found in known.seen()], facts)
        self.opened.clear()
        known = self.files()
        self.assertEqual([self.facts(path, known=known) for path in paths], facts)
        self.assertEqual([self.facts(path, known=known) for path in paths], facts)
        self.assertEqual(self.files()._known.keys(), {os.fspath(path) for path in paths})

    def test_a_damaged_table_is_as_good_as_none(self) -> None:
        path = self.write(b"one")
        self.let_time_pass()
        known = self.files()
        facts = self.facts(path, known=known)
        known.keep()
        (table,) = self.store.root.glob("records/files-*/*/*")
        data = table.read_bytes()
        for damaged in (b"", data[:-1], data[:40], b"x" + data):
            table.write_bytes(damaged)
            self.opened.clear()
            self.assertEqual(self.facts(path), facts)
            self.assertEqual(self.opened, ["file"])

    def test_what_was_seen_says_whether_it_will_last(self) -> None:
        old = self.write(b"", "old")
        self.let_time_pass()
        new = self.write(b"", "new")
        known = self.files()
        for path in (old, new):
            self.facts(path, known=known)
        self.assertEqual(
            [(path, sign, lasting) for path, sign, lasting, _ in known.seen()],
            [
                (os.fspath(path), stamp(path.stat()), lasting)
                for path, lasting in ((old, True), (new, False))
            ],
        )


class Looking(Scratch):
    def names(self) -> str:
        with os.scandir(self.top) as found:
            return listing(sorted(found, key=lambda child: child.name))

    def test_a_listing_has_names_and_kinds(self) -> None:
        path = self.top / "x"
        makers: tuple[Callable[[], object], ...] = (
            lambda: None,
            lambda: path.write_bytes(b""),
            path.mkdir,
            lambda: path.symlink_to("nowhere"),
        )
        found = []
        for make in makers:
            make()
            found.append(self.names())
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        os.mkfifo(path)
        found.append(self.names())
        path.unlink()
        # what is neither file nor directory, and what may lead to either, are left alone
        self.assertEqual(len(set(found[:4])), 4)
        self.assertNotIn(found[4], found[:3])
        path.rename(self.top / "y") if path.exists() else self.write(b"", "y")
        self.assertNotIn(self.names(), found)

    def test_byte_code_comes_and_goes_unnoticed(self) -> None:
        self.write(b"", "module.py")
        before = self.names()
        (self.top / "__pycache__").mkdir()
        self.assertEqual(self.names(), before)
        self.write(b"", "module.pyc")
        self.assertNotEqual(self.names(), before)

    def test_bytes_do_not_count_in_a_listing(self) -> None:
        path = self.write(b"one")
        before = self.names()
        path.write_bytes(b"two")
        path.chmod(0o755)
        self.assertEqual(self.names(), before)

    def test_names_that_are_no_utf_8(self) -> None:
        open(os.fsencode(self.top) + b"/\xff", "wb").close()
        before = self.names()
        os.rename(os.fsencode(self.top) + b"/\xff", os.fsencode(self.top) + b"/\xfe")
        self.assertNotEqual(self.names(), before)

    def test_children_are_in_order(self) -> None:
        for name in ("b", "a", "C", "\u00e9"):
            self.write(b"", name)
        known = self.files()
        found = known.children(os.fspath(self.top), self.top.stat())
        self.assertEqual([child.name for child in found], ["C", "a", "b", "\u00e9"])
        self.assertEqual(
            known.directories, {os.fspath(self.top): (stamp(self.top.stat()), self.names())}
        )

    def test_what_is_not_there_is_noted(self) -> None:
        known = self.files()
        self.assertFalse(known.exists(f"{self.top}/no"))
        self.assertTrue(known.exists(os.fspath(self.top)))
        (self.top / "dangling").symlink_to("no")
        self.assertTrue(known.exists(f"{self.top}/dangling"))
        self.assertEqual(known.absent, {f"{self.top}/no"})

    def test_links_are_noted(self) -> None:
        (self.top / "link").symlink_to("no")
        known = self.files()
        self.assertEqual(known.link(f"{self.top}/link"), "no")
        self.assertEqual(known.links, {f"{self.top}/link": "no"})

    def test_a_look_notes_whatever_it_is(self) -> None:
        path = self.write(b"")
        known = self.files()
        for name in (path, self.top, self.top / "no"):
            known.look(os.fspath(name))
        self.assertEqual([name for name, *_ in known.seen()], [os.fspath(path)])
        self.assertEqual(list(known.directories), [os.fspath(self.top)])
        self.assertEqual(known.absent, {f"{self.top}/no"})
