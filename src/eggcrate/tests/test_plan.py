"""The tree of an image: each path once, with its parents, in as many layers as asked."""

from __future__ import annotations

import itertools
import os
import pathlib
import tempfile
import unittest
from collections.abc import Iterable

from eggcrate.errors import EggcrateError, PlanError, SeveralErrors
from eggcrate.image import plan
from eggcrate.image.plan import (
    BuildPlan,
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


def file(path: str, data: bytes = b"x", group: str = "data", mode: int = 0o644) -> FileEntry:
    return bytes_file(path, data, group=group, reason=f"test {path}", mode=mode)


def folder(path: str, group: str = "data", mode: int = 0o755) -> FileEntry:
    return directory(path, group=group, reason="test", mode=mode)


def link(path: str, linkname: str, group: str = "data") -> FileEntry:
    return symlink(path, linkname, group=group, reason=f"test {path}")


def hardlink(path: str, linkname: str, group: str = "data") -> FileEntry:
    return FileEntry(path, FileType.HARDLINK, 0o644, group, "test", linkname=linkname)


def lines(entries: Iterable[FileEntry]) -> list[str]:
    return [
        f"{entry.type.value} {entry.mode:o} {entry.path}"
        + (f" -> {entry.linkname}" if entry.linkname else "")
        for entry in entries
    ]


def complaints(entries: Iterable[FileEntry]) -> list[str]:
    try:
        merge(entries)
    except SeveralErrors as several:
        return [error.what for error in several.errors]
    except EggcrateError as error:
        return [error.what]
    return []


class Entries(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = pathlib.Path(scratch.name, "file")

    def test_a_file_on_disk_has_its_size_and_digest(self) -> None:
        self.path.write_bytes(b"abc")
        self.path.chmod(0o600)
        entry = disk_file("a", self.path, group="data", reason="test")
        self.assertEqual((entry.size, entry.mode), (3, 0o644))
        self.assertEqual(
            entry.digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
        with entry.open() as stream:
            self.assertEqual(stream.read(), b"abc")

    def test_only_the_owners_right_to_execute_counts(self) -> None:
        self.path.write_bytes(b"")
        for mode, expected in ((0o700, 0o755), (0o4777, 0o755), (0o666, 0o644), (0o611, 0o644)):
            self.path.chmod(mode)
            entry = disk_file("a", self.path, group="data", reason="test")
            self.assertEqual(entry.mode, expected, oct(mode))

    def test_a_given_mode_holds(self) -> None:
        self.path.write_bytes(b"")
        entry = disk_file("a", self.path, group="data", reason="test", mode=0o640)
        self.assertEqual(entry.mode, 0o640)

    def test_bytes_and_disk_make_the_same_entry(self) -> None:
        self.path.write_bytes(b"same")
        one = disk_file("a", self.path, group="data", reason="test a")
        other = file("a", b"same")
        self.assertEqual((one.size, one.digest), (other.size, other.digest))


class Resolving(unittest.TestCase):
    def setUp(self) -> None:
        entries = (
            link("bin", "usr/bin"),
            link("usr/lib64", "/lib"),
            link("lib", "usr/lib"),
            link("usr/bin/sh", "dash"),
            link("up", "../../usr/./bin"),
            link("loop", "loop"),
            link("a", "b/x"),
            link("b", "a/y"),
        )
        self.tree = {entry.path: entry for entry in entries}

    def test_links_on_the_way_are_followed(self) -> None:
        for path, expected in (
            ("bin/x", "usr/bin/x"),
            ("/bin/x", "usr/bin/x"),
            ("usr/lib64/x", "usr/lib/x"),
            ("up/x", "usr/bin/x"),
            ("usr/../bin/./x", "usr/bin/x"),
            ("../../etc", "etc"),
            ("none/x", "none/x"),
            ("", ""),
        ):
            self.assertEqual(plan.resolve(path, self.tree), expected, path)

    def test_the_last_link_only_when_asked(self) -> None:
        self.assertEqual(plan.resolve("bin/sh", self.tree), "usr/bin/sh")
        self.assertEqual(plan.resolve("bin/sh", self.tree, last=True), "usr/bin/dash")

    def test_a_long_way_is_no_loop(self) -> None:
        deep = "/".join(f"d{number}" for number in range(100))
        self.tree["deep"] = link("deep", deep)
        self.assertEqual(plan.resolve("deep/x", self.tree), f"{deep}/x")
        for number in range(30):
            self.tree[f"s{number}"] = link(f"s{number}", f"s{number + 1}")
        self.assertEqual(plan.resolve("s0/x", self.tree), "s30/x")

    def test_a_loop_ends(self) -> None:
        for path in ("loop/x", "a/x", "b"):
            self.assertIsInstance(plan.resolve(path, self.tree, last=True), str)


class Merging(unittest.TestCase):
    def test_parents_come_first_and_paths_are_in_the_order_of_their_bytes(self) -> None:
        entries = [
            file("b/c/d"),
            file("b-"),
            file("b/c-x"),
            file("é"),
            file("a\udcff"),
            file("a"),
        ]
        expected = ["a", "a\udcff", "b", "b-", "b/c", "b/c-x", "b/c/d", "é"]
        for order in itertools.islice(itertools.permutations(entries), 0, 720, 37):
            self.assertEqual(list(merge(order)), expected)

    def test_a_directory_made_up_is_0755_of_root(self) -> None:
        made = merge([file("a/b")])["a"]
        self.assertEqual((made.mode, made.uid, made.gid, made.group), (0o755, 0, 0, "data"))

    def test_the_lower_directory_keeps_its_attributes(self) -> None:
        tree = merge([folder("tmp", "packages", 0o1777), folder("tmp"), file("tmp/x")])
        self.assertEqual(tree["tmp"].mode, 0o1777)
        self.assertEqual(tree["tmp"].group, "packages")

    def test_the_same_file_twice_is_no_contradiction(self) -> None:
        self.assertEqual(len(merge([file("a"), file("a")])), 1)

    def test_all_that_is_claimed_twice_is_named_at_once(self) -> None:
        found = complaints(
            [
                file("a", b"1"),
                file("a", b"2"),
                file("b"),
                file("b", mode=0o755),
                link("c", "x"),
                link("c", "y"),
                file("d"),
                folder("d"),
            ]
        )
        self.assertEqual(
            [what.split(":")[0] for what in found],
            [f"/{name} is claimed twice, with different content" for name in "abcd"],
        )
        self.assertIn("test a; and test a", found[0])

    def test_a_file_where_a_directory_is_needed_is_refused(self) -> None:
        found = complaints([file("app"), file("app/x")])
        self.assertEqual(len(found), 1)
        self.assertIn("/app is a file (test app), and /app/x needs a directory", found[0])

    def test_a_path_below_a_link_moves_to_where_it_leads(self) -> None:
        base = [folder("usr/bin", "packages"), link("bin", "usr/bin", "packages")]
        for entries in ([*base, file("bin/x")], [file("bin/x"), *base]):
            self.assertEqual(
                lines(merge(entries).values()),
                [
                    "symlink 777 bin -> usr/bin",
                    "directory 755 usr",
                    "directory 755 usr/bin",
                    "file 644 usr/bin/x",
                ],
            )

    def test_a_directory_by_the_name_of_a_link_is_what_it_leads_to(self) -> None:
        base = [folder("usr/bin", "packages", 0o711), link("bin", "usr/bin", "packages")]
        tree = merge([*base, folder("bin"), file("bin/x")])
        self.assertEqual(
            lines(tree.values())[-2:], ["directory 711 usr/bin", "file 644 usr/bin/x"]
        )
        found = complaints([file("usr/x"), link("x", "usr/x"), folder("x")])
        self.assertIn("/usr/x is claimed twice", found[0])

    def test_two_names_of_one_place_are_one_claim(self) -> None:
        base = link("bin", "usr/bin", "packages")
        self.assertEqual(complaints([base, file("bin/x", b"1"), file("usr/bin/x", b"1")]), [])
        found = complaints([base, file("bin/x", b"1"), file("usr/bin/x", b"2")])
        self.assertIn("/usr/bin/x is claimed twice", found[0])

    def test_names_of_whiteouts_are_refused(self) -> None:
        for path in (".wh.x", "a/.wh..wh..opq", "a/.wh.", "a/.wh.b/c"):
            with self.assertRaises(PlanError) as caught:
                merge([file(path)])
            self.assertIn(f"/{path} would delete", caught.exception.what)
        self.assertEqual(complaints([file("a/x.wh.y"), file("a/.whx")]), [])

    def test_messages_show_odd_names_escaped(self) -> None:
        found = complaints([file("a\nb\udcff", b"1"), file("a\nb\udcff", b"2")])
        self.assertTrue(found[0].startswith("/a\\x0ab\\xff is claimed twice"), found[0])

    def test_loops_and_dangling_links_stay_links(self) -> None:
        entries = [
            link("self", "self"),
            link("one", "two"),
            link("two", "one"),
            link("x", "no"),
        ]
        self.assertEqual(len(merge(entries)), 4)

    def test_a_made_up_directory_s_reason_is_printable(self) -> None:
        self.assertEqual(merge([file("a/b\n")])["a"].reason, "the parent of /a/b\\x0a")

    def test_nothing_is_an_empty_tree(self) -> None:
        self.assertEqual(merge([]), {})


class HardLinks(unittest.TestCase):
    def test_the_first_name_holds_the_bytes(self) -> None:
        tree = merge([file("z", b"bytes"), hardlink("m", "z"), hardlink("a", "z")])
        self.assertEqual(
            lines(tree.values()),
            ["file 644 a", "hardlink 644 m -> a", "hardlink 644 z -> a"],
        )
        self.assertEqual((tree["a"].data, tree["a"].size), (b"bytes", 5))
        self.assertEqual((tree["z"].size, tree["z"].digest), (0, ""))

    def test_a_link_to_a_link_shares_the_file(self) -> None:
        tree = merge([file("z", b"bytes"), hardlink("y", "z"), hardlink("a", "y")])
        self.assertEqual(
            lines(tree.values()),
            ["file 644 a", "hardlink 644 y -> a", "hardlink 644 z -> a"],
        )

    def test_both_names_move_below_a_link(self) -> None:
        # gzip in a Debian release whose packages still have files in /bin
        tree = merge(
            [link("bin", "usr/bin"), file("bin/gunzip"), hardlink("bin/a", "bin/gunzip")]
        )
        self.assertEqual(
            lines(tree.values())[-2:],
            ["file 644 usr/bin/a", "hardlink 644 usr/bin/gunzip -> usr/bin/a"],
        )

    def test_one_that_leads_nowhere_is_refused(self) -> None:
        for entries in (
            [hardlink("b", "gone")],
            [hardlink("a", "b"), hardlink("b", "a")],
            [hardlink("a", "d"), folder("d")],
        ):
            with self.assertRaises(EggcrateError) as caught:
                merge(entries)
            self.assertIn("is no file of the image", str(caught.exception))

    def test_all_names_are_in_one_layer(self) -> None:
        tree = merge([file("z", b"bytes", "packages"), hardlink("a", "z", "data")])
        self.assertEqual({entry.group for entry in tree.values()}, {"packages"})


class Layers(unittest.TestCase):
    big = bytes(4 << 20)

    def plan(self, entries: Iterable[FileEntry], budget: int = 12) -> BuildPlan:
        return plan_layers(merge(entries), budget)

    def test_what_changes_most_is_on_top(self) -> None:
        groups = [
            "configuration",
            "develop shop",
            "data",
            "environment tool",
            "egg a-1",
            "python",
            "packages",
        ]
        made = self.plan(file(f"f{number}", group=group) for number, group in enumerate(groups))
        self.assertEqual(
            [layer.name for layer in made.layers],
            ["packages", "python", "eggs", "environment", "data", "develop", "configuration"],
        )

    def test_big_eggs_have_layers_of_their_own_while_there_is_budget(self) -> None:
        entries = [
            file("a", self.big, "egg a-1"),
            file("b", self.big + b"more", "egg b-1"),
            file("c", b"small", "egg c-1"),
        ]
        for budget, expected in (
            (1, ["eggs"]),
            (2, ["egg b-1", "eggs"]),
            (3, ["egg a-1", "egg b-1", "eggs"]),
            (12, ["egg a-1", "egg b-1", "eggs"]),
        ):
            made = self.plan(entries, budget)
            self.assertEqual([layer.name for layer in made.layers], expected, budget)

    def test_every_layer_has_the_parents_of_its_entries(self) -> None:
        made = self.plan(
            [
                folder("opt", "packages", 0o711),
                file("opt/a/one", group="egg a-1"),
                file("opt/b/two", group="configuration"),
            ]
        )
        self.assertEqual(
            [lines(layer.entries) for layer in made.layers],
            [
                ["directory 711 opt"],
                ["directory 711 opt", "directory 755 opt/a", "file 644 opt/a/one"],
                ["directory 711 opt", "directory 755 opt/b", "file 644 opt/b/two"],
            ],
        )

    def test_no_path_but_a_directory_is_in_two_layers(self) -> None:
        entries = [
            file(f"d{number % 3}/f{number}", group=group)
            for number, group in enumerate(["packages", "python", "egg a-1", "data"] * 5)
        ]
        made = self.plan(entries)
        paths = [e.path for e in made.entries() if e.type is not FileType.DIRECTORY]
        self.assertEqual(len(paths), len(set(paths)))
        self.assertEqual(sorted(paths), sorted(entry.path for entry in entries))

    def test_the_order_of_the_input_does_not_matter(self) -> None:
        entries = [
            file("x/a", self.big, "egg a-1"),
            file("x/b", self.big, "egg b-1"),
            file("x/c", group="data"),
            link("x/d", "a", "configuration"),
        ]
        texts = {self.plan(order, 4).text() for order in itertools.permutations(entries)}
        self.assertEqual(len(texts), 1)

    def test_a_budget_that_can_t_hold_is_refused(self) -> None:
        entries = [file("a", group="data"), file("b", group="python")]
        for budget in (0, 1, 128):
            with self.assertRaises(PlanError) as caught:
                self.plan(entries, budget)
            self.assertIn(f"layers = {budget}", caught.exception.what)
            self.assertIn("from 2 to 127", caught.exception.hint)
        self.assertEqual(len(self.plan(entries, 127).layers), 2)

    def test_more_eggs_than_an_image_may_have_layers(self) -> None:
        entries = [
            FileEntry(
                f"e{n}", FileType.REGULAR, 0o644, f"egg e{n}-1", "test", b"", size=5 << 20
            )
            for n in range(300)
        ]
        self.assertEqual(len(self.plan(entries, 127).layers), 127)

    def test_an_empty_tree_has_no_layers(self) -> None:
        self.assertEqual(self.plan([]).layers, ())


class Text(unittest.TestCase):
    def test_one_line_says_what_where_and_why(self) -> None:
        entries = (
            folder("d"),
            bytes_file("d/f\n\udcff", b"123", group="data", reason="test", mode=0o755),
            link("d/l", "f"),
        )
        text = BuildPlan((LayerPlan("data", entries),)).text()
        self.assertEqual(
            text.splitlines()[2:],
            [
                "## layer 1: data, 3 bytes",
                "  1  0755           0  /d/  (test)",
                "  1  0755           3  /d/f\\x0a\\xff  (test)",
                "  1  0777           0  /d/l -> f  (test d/l)",
            ],
        )

    def test_a_printable_name_stays_as_it_is(self) -> None:
        self.assertEqual(plan.printable("a b/é"), "a b/é")
        self.assertEqual(plan.printable("\x1b[2J\x7f"), "\\x1b[2J\\x7f")
        self.assertEqual(plan.printable(os.fsdecode(b"\xff")), "\\xff")
