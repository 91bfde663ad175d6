"""Two images, and what a person is told about what differs."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import unittest
from collections.abc import Mapping, Sequence

from eggcrate.image import difference as differences
from eggcrate.image.difference import Difference, Line, difference, rolled_up, text
from eggcrate.image.layout import Image, make_image
from eggcrate.image.oci import Platform, RuntimeConfig, reference
from eggcrate.image.plan import (
    BuildPlan,
    FileEntry,
    FileType,
    LayerPlan,
    bytes_file,
    directory,
    merge,
    symlink,
)
from eggcrate.image.store import Store
from eggcrate.image.words import amount


def file(
    path: str, data: bytes = b"x", mode: int = 0o644, group: str = "data", reason: str = "test"
) -> FileEntry:
    return bytes_file(path, data, group=group, reason=reason, mode=mode)


def egg(name: str, version: str, **files: bytes) -> list[FileEntry]:
    """The files of a distribution, in an egg's directory."""
    top = f"app/eggs/{name}-{version}-py3.11.egg"
    return [
        file(f"{top}/{key}.py", data, group=f"egg {name}-{version}")
        for key, data in files.items()
    ]


class Images(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.store = Store(pathlib.Path(scratch.name))

    def image(
        self,
        more: Mapping[str, Sequence[FileEntry]] | None = None,
        /,
        *,
        command: str = "",
        **layers: Sequence[FileEntry],
    ) -> Image:
        """An image of the layers, each with the directories above its entries."""
        plans = (
            LayerPlan(name, tuple(merge(entries).values()))
            for name, entries in {**(more or {}), **layers}.items()
        )
        return make_image(
            BuildPlan(tuple(plans)),
            platform=Platform("linux", "amd64"),
            runtime=RuntimeConfig(command=(command,)),
            references=(reference("acme/shop", "latest"),),
            store=self.store,
            compression="none",
            epoch=1,
        )

    def compare(self, before: Sequence[FileEntry], after: Sequence[FileEntry]) -> Difference:
        return difference(self.image(data=before), self.image(data=after))


def paths(lines: Sequence[Line]) -> list[str]:
    return [
        f"{line.sign} {line.path}{f' ({line.what})' if line.what else ''}" for line in lines
    ]


class Paths(Images):
    def what(self, before: FileEntry, after: FileEntry) -> list[tuple[str, ...]]:
        return [change.what for change in self.compare([before], [after]).changed]

    def test_added_removed_and_changed(self) -> None:
        found = self.compare(
            [file("srv/a"), file("srv/b", b"12"), file("srv/c")],
            [file("srv/a"), file("srv/b", b"12345"), file("srv/d", b"1234")],
        )
        self.assertEqual([entry.path for entry in found.added], ["srv/d"])
        self.assertEqual([entry.path for entry in found.removed], ["srv/c"])
        self.assertEqual(len(found.changed), 1)
        self.assertEqual((found.changed[0].before.size, found.changed[0].after.size), (2, 5))
        self.assertEqual(found.growth, 3 - 1 + 4)
        self.assertEqual(paths(found.loose), ["~ /srv/b (content)", "- /srv/c", "+ /srv/d"])

    def test_what_changed(self) -> None:
        one = file("a", b"1")
        self.assertEqual(self.what(one, one), [])
        self.assertEqual(self.what(one, file("a", b"2")), [("content",)])
        self.assertEqual(self.what(one, file("a", b"1", 0o755)), [("mode",)])
        self.assertEqual(self.what(one, dataclasses.replace(one, uid=7)), [("owner",)])
        self.assertEqual(self.what(one, dataclasses.replace(one, gid=7)), [("owner",)])
        both = dataclasses.replace(file("a", b"2", 0o600), gid=7)
        self.assertEqual(self.what(one, both), [("content", "mode", "owner")])
        link = symlink("a", "b", group="data", reason="test")
        self.assertEqual(self.what(link, dataclasses.replace(link, linkname="c")), [("link",)])
        self.assertEqual(self.what(one, link), [("type",)])
        self.assertEqual(
            self.what(one, directory("a", group="data", reason="test")), [("type",)]
        )

    def test_why_a_file_is_there_makes_no_difference(self) -> None:
        other = dataclasses.replace(file("a"), reason="another", group="develop shop")
        self.assertEqual(self.what(file("a"), other), [])

    def test_a_file_that_moves_to_another_layer_is_the_same(self) -> None:
        found = difference(
            self.image(data=[file("a"), file("b")], develop=[file("c")]),
            self.image(data=[file("a")], develop=[file("b"), file("c")]),
        )
        self.assertEqual((found.added, found.removed, found.changed), ((), (), ()))

    def test_directories_that_are_only_parents_are_not_told(self) -> None:
        found = self.compare(
            [file("a"), directory("old/empty", group="data", reason="test")],
            [file("a"), file("x/y/z/file"), directory("x/empty", group="data", reason="test")],
        )
        self.assertEqual(paths(found.loose), ["- /old/empty/", "+ /x/empty/", "+ /x/y/z/file"])
        self.assertEqual(len([e for e in found.added if e.type is FileType.DIRECTORY]), 4)

    def test_changes_are_told_with_old_and_new(self) -> None:
        found = self.compare(
            [
                file("a", mode=0o644),
                dataclasses.replace(file("b"), uid=1),
                symlink("c", "one", group="data", reason="test"),
                file("d"),
            ],
            [
                file("a", mode=0o755),
                dataclasses.replace(file("b"), uid=2, gid=3),
                symlink("c", "two", group="data", reason="test"),
                symlink("d", "a", group="data", reason="test"),
            ],
        )
        self.assertEqual(
            paths(found.loose),
            [
                "~ /a (mode 0644 -> 0755)",
                "~ /b (owner 1:0 -> 2:3)",
                "~ /c (link one -> two)",
                "~ /d (file -> symlink)",
            ],
        )

    def test_new_links_are_told_with_where_they_lead(self) -> None:
        hard = dataclasses.replace(
            file("b"), type=FileType.HARDLINK, linkname="a", data=None, size=0, digest=""
        )
        found = self.compare(
            [file("a")], [file("a"), hard, symlink("c", "../x", group="data", reason="test")]
        )
        self.assertEqual(
            paths(found.loose), ["+ /b (the same file as /a)", "+ /c (link to ../x)"]
        )


class Layers(Images):
    def names(self, before: Image, after: Image) -> dict[str, list[str]]:
        layers = difference(before, after).layers
        return {
            "kept": [layer.plan.name for layer in layers.kept],
            "changed": [f"{a.plan.name} -> {b.plan.name}" for a, b in layers.changed],
            "new": [layer.plan.name for layer in layers.new],
            "gone": [layer.plan.name for layer in layers.gone],
        }

    def test_kept_changed_new_and_gone(self) -> None:
        before = self.image(packages=[file("a")], data=[file("b")], environment=[file("c")])
        after = self.image(packages=[file("a")], data=[file("b", b"2")], develop=[file("d")])
        self.assertEqual(
            self.names(before, after),
            {
                "kept": ["packages"],
                "changed": ["data -> data"],
                "new": ["develop"],
                "gone": ["environment"],
            },
        )

    def test_a_blob_in_another_place_is_kept(self) -> None:
        before = self.image(python=[file("a")], data=[file("b")])
        after = self.image(eggs=[file("b")], python=[file("a")])
        self.assertEqual(
            self.names(before, after),
            {"kept": ["eggs", "python"], "changed": [], "new": [], "gone": []},
        )

    def test_an_upgraded_egg_changes_its_layer(self) -> None:
        before = self.image(
            {"egg Django-5": egg("Django", "5", a=b"1"), "egg six-1": [file("b")]}
        )
        after = self.image(
            {"egg Django-6": egg("Django", "6", a=b"1"), "egg seven-1": [file("c")]}
        )
        self.assertEqual(
            self.names(before, after),
            {
                "kept": [],
                "changed": ["egg Django-5 -> egg Django-6"],
                "new": ["egg seven-1"],
                "gone": ["egg six-1"],
            },
        )

    def test_only_blobs_that_were_not_there_are_pushed(self) -> None:
        before = self.image(packages=[file("a", b"1" * 9000)], data=[file("b", b"2")])
        after = self.image(data=[file("b", b"3")], packages=[file("a", b"1" * 9000)])
        found = difference(before, after)
        changed = after.layers[0].descriptor.size
        self.assertEqual(found.push, changed + after.manifest.size + after.config.size)
        self.assertEqual(difference(None, after).push, after.size)

    def test_the_same_image(self) -> None:
        image = self.image(data=[file("a")])
        found = difference(image, image)
        self.assertTrue(found.same)
        self.assertEqual((found.push, found.growth, found.loose), (0, 0, ()))
        self.assertEqual(text(found), f"nothing differs: {image.manifest.digest}\n")


class Distributions(Images):
    def upgrades(self, before: Sequence[FileEntry], after: Sequence[FileEntry]) -> list[str]:
        return [
            f"{item.kind} {item.name} {'+'.join(item.before)} -> {'+'.join(item.after)}"
            for item in self.compare(before, after).distributions
        ]

    def test_an_upgrade_is_one_line_and_not_all_of_its_files(self) -> None:
        found = self.compare(
            egg("Django", "5.2.18", a=b"1", b=b"22", c=b"3"),
            [*egg("Django", "5.2.19", a=b"1", b=b"2233"), file("own", b"new")],
        )
        (upgrade,) = found.upgraded
        self.assertEqual((upgrade.before, upgrade.after), (("5.2.18",), ("5.2.19",)))
        self.assertEqual((upgrade.added, upgrade.removed, upgrade.changed), (2, 3, 0))
        self.assertEqual(upgrade.growth, 1)
        self.assertEqual(paths(found.loose), ["+ /own"])

    def test_files_that_stay_in_their_place_belong_to_the_upgrade_too(self) -> None:
        old = file("site/a.py", b"1", group="egg demo-1.0")
        new = file("site/a.py", b"222", group="egg demo-1.1")
        found = self.compare([old], [new])
        (upgrade,) = found.upgraded
        self.assertEqual((upgrade.changed, upgrade.growth), (1, 2))
        self.assertEqual(found.loose, ())

    def test_a_file_that_changes_without_its_version_is_told(self) -> None:
        found = self.compare(egg("a", "1", x=b"1"), egg("a", "1", x=b"2"))
        self.assertEqual(found.distributions, ())
        self.assertEqual(paths(found.loose), ["~ /app/eggs/a-1-py3.11.egg/x.py (content)"])

    def test_came_went_and_changed_with_python_first(self) -> None:
        debian = [
            [file("usr/lib/libc.so", b"1", group="packages", reason=f"package libc6 {version}")]
            for version in ("2.36-9", "2.36-10")
        ]
        self.assertEqual(
            self.upgrades(
                [*debian[0], *egg("zope.a", "1", x=b""), *egg("gone", "1", x=b"")],
                [*debian[1], *egg("zope_a", "2", x=b""), *egg("came", "1", x=b"")],
            ),
            [
                "Python came  -> 1",
                "Python gone 1 -> ",
                "Python zope_a 1 -> 2",
                "Debian libc6 2.36-9 -> 2.36-10",
            ],
        )

    def test_names_and_versions_with_hyphens(self) -> None:
        for name, version in (
            ("charset-normalizer", "3.5.2"),
            ("python-3d-viewer", "1.0"),
            ("demo", "1.0-1"),
            ("demo", "0.1.0.dev0+gabc"),
            ("demo", "v2.0"),
            ("demo", "unknown"),
        ):
            entry = file("a", group=f"egg {name}-{version}")
            (found,) = differences.distributions({"a": entry}).values()
            self.assertEqual((found.name, found.version), (name, version))

    def test_byte_code_belongs_to_its_module(self) -> None:
        why = "package libpython3 3.11"
        module = file("usr/lib/a.py", group="packages", reason=why)
        code = "usr/lib/__pycache__/a.cpython-311.pyc"
        stray = "usr/lib/__pycache__/b.pyc"
        entries = [module, file(code, group="packages"), file(stray, group="packages")]
        found = differences.distributions({entry.path: entry for entry in entries})
        self.assertEqual({path: item.name for path, item in found.items()}, {
            "usr/lib/a.py": "libpython3", code: "libpython3",
        })  # fmt: skip


class RolledUp(unittest.TestCase):
    def lines(self, *names: str) -> list[Line]:
        return [Line(name[0], name[1:], "", 1) for name in sorted(names, key=lambda n: n[1:])]

    def test_few_paths_stay_as_they_are(self) -> None:
        lines = self.lines("+/a", "-/b/c")
        self.assertEqual(rolled_up(lines, 2), tuple(lines))

    def test_a_crowded_directory_becomes_one_line(self) -> None:
        crowd = [f"+/usr/share/zone/{number}" for number in range(1000)]
        lines = self.lines(*crowd, "~/srv/app/views.py", "-/usr/bin/x")
        self.assertEqual(
            paths(rolled_up(lines, 10)),
            ["~ /srv/app/views.py", "- /usr/bin/x", "+ /usr/share/zone/ (1,000 added)"],
        )
        self.assertEqual(sum(line.growth for line in rolled_up(lines, 10)), len(lines))

    def test_a_line_for_many_says_what_became_of_them(self) -> None:
        lines = self.lines("+/d/1", "+/d/2", "-/d/3", "~/e/4")
        self.assertEqual(paths(rolled_up(lines, 1)), ["~ / (2 added, 1 removed, 1 changed)"])

    def test_never_more_lines_than_asked_for(self) -> None:
        lines = self.lines(
            *(f"+/{a}/{b}/{c}" for a in range(5) for b in range(7) for c in range(9)),
            "~/0/",
            "~/1",
        )
        for most in (1, 2, 5, 6, 12, 40, 100, 400):
            self.assertLessEqual(len(rolled_up(lines, most)), most)

    def test_a_directory_that_changed_with_what_is_in_it(self) -> None:
        lines = self.lines("~/d/", "~/d/1", "~/d/2", "+/e")
        self.assertEqual(paths(rolled_up(lines, 3)), ["~ /d/ (3 changed)", "+ /e"])


class Text(Images):
    def test_the_whole(self) -> None:
        views = "srv/shop/views.py"
        before = self.image(
            {
                "packages": [file("usr/bin/x", b"x" * 50_000)],
                "egg Django-5": egg("Django", "5", a=b"a" * 20_000),
                "data": [file("srv/gone")],
                "develop": [file(views, b"v" * 900), file("srv/run", mode=0o644)],
            }
        )
        after = self.image(
            {
                "packages": [file("usr/bin/x", b"x" * 50_000)],
                "egg Django-6": egg("Django", "6", a=b"a" * 32_000),
                "develop": [file(views, b"v" * 912), file("srv/run", mode=0o755)],
                "configuration": [file("etc/new.conf", b"n" * 2345)],
            },
            command="run",
        )
        found = difference(before, after)
        sizes = [amount(layer.descriptor.size) for layer in (*before.layers, *after.layers)]
        sizes += [amount(after.config.size), amount(found.push)]
        width = max(map(len, sizes[:-1]))
        kept, django, data, develop, _, django_6, develop_2, new, config, push = sizes
        self.maxDiff = None
        self.assertEqual(
            text(found),
            f"""\
2 paths added, 2 removed, 2 changed; 3 of 4 layers to push, {push}; +14 kB unpacked

layers
  changed  egg Django-6        {django_6:>{width}}  was egg Django-5, {django}
  changed  develop             {develop_2:>{width}}  was {develop}
  new      configuration       {new:>{width}}
  gone     data                {data:>{width}}
  kept     1 layer             {kept:>{width}}
  changed  the image's config  {config:>{width}}

distributions
  ~  Django  5 -> 6  +12 kB  1 added, 1 removed

paths
  +    +2.3 kB  /etc/new.conf
  -    -1 byte  /srv/gone
  ~             /srv/run  (mode 0644 -> 0755)
  ~  +12 bytes  /srv/shop/views.py  (content)
""",
        )

    def test_without_an_image_before_no_path_is_told(self) -> None:
        found = text(difference(None, self.image(data=[file("a", b"1" * 5000)])))
        self.assertRegex(found, r"^no image before: 1 layer, \S+ kB to push, 5.0 kB unpacked\n")
        self.assertIn("new  data", found)
        self.assertNotIn("/a", found)

    def test_at_most_so_many_paths(self) -> None:
        many = [file(f"srv/{number:04}") for number in range(500)]
        found = self.compare([], [*many, file("etc/one")])
        self.assertLess(len(text(found).splitlines()), 20)
        self.assertIn("/srv/  (500 added)", text(found))
        self.assertIn("/etc/one\n", text(found))
        self.assertEqual(text(found, most=None).count("  /srv/"), 500)

    def test_paths_can_not_write_to_the_terminal(self) -> None:
        hostile = "srv/\x1b[2J\x9b31m\u202e\n\udcff\x7f"
        before = [symlink("srv/link", "\x1b]0;", group="data", reason="test")]
        after = [file(hostile), symlink("srv/link", "\u2028", group="egg \x07-1", reason="x")]
        found = text(difference(self.image({"\x1bc": before}), self.image({"\x1bd": after})))
        self.assertEqual([c for c in found if not c.isprintable() and c != "\n"], [])
        self.assertIn("\\x1b[2J\\u009b31m\\u202e\\x0a\\xff\\x7f", found)
        found.encode()

    def test_amounts(self) -> None:
        for size, expected in (
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (8_442_636, "8.4 MB"),
            (5_000_000_000, "5.0 GB"),
            (-1234, "-1.2 kB"),
        ):
            self.assertEqual(amount(size), expected)
