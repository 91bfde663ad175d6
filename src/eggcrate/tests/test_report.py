"""The page about an image: complete, harmless, and legible in a real browser."""

from __future__ import annotations

import collections
import dataclasses
import functools
import html
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

from eggcrate.image.layout import Image, make_image
from eggcrate.image.oci import Platform, Reference, RuntimeConfig, reference
from eggcrate.image.plan import (
    GROUPS,
    BuildPlan,
    FileEntry,
    LayerPlan,
    bytes_file,
    directory,
    merge,
    symlink,
)
from eggcrate.image.report import Box, blocks, file_type, report, share, squarify
from eggcrate.image.store import Store
from eggcrate.image.words import amount
from eggcrate.tests import layers

# Prints the digest of the page of the example, made from nothing.
_ELSEWHERE = """
import hashlib
from eggcrate.tests import test_report
print(hashlib.sha256(test_report.example_page().encode()).hexdigest())
"""

# No end tag: HTML Standard, 13.1.2
_VOID = {"meta", "link", "img", "input", "br", "hr", "wbr", "source", "embed", "base", "col"}


def file(path: str, size: int, group: str = "data", reason: str = "test") -> FileEntry:
    return bytes_file(path, b"x" * size, group=group, reason=reason)


def egg(name: str, version: str, *sizes: int) -> list[FileEntry]:
    top = f"app/eggs/{name}-{version}-py3.11.egg/{name}"
    return [
        file(f"{top}/part{number % 7}/m{number}.py", size, f"egg {name}-{version}")
        for number, size in enumerate(sizes)
    ]


def image(
    contents: Mapping[str, Sequence[FileEntry]],
    references: Sequence[Reference] = (reference("acme/shop", "latest"),),
) -> Image:
    """An image of the layers, whose store is gone again."""
    plans = (
        LayerPlan(name, tuple(merge(entries).values())) for name, entries in contents.items()
    )
    with tempfile.TemporaryDirectory() as scratch:
        return make_image(
            BuildPlan(tuple(plans)),
            platform=Platform("linux", "amd64"),
            runtime=RuntimeConfig(),
            references=tuple(references),
            store=Store(pathlib.Path(scratch)),
            compression="none",
            epoch=1,
        )


@functools.cache
def example(version: str = "5.2.19", views: int = 900) -> Image:
    """An image such as a small project has."""
    debian = [
        file(f"usr/lib/{name}/{part}", size, "packages", f"package {name} 1.0-{number}")
        for number, name in enumerate(("libc6", "libssl3", "python3", "perl-base", "tzdata"))
        for part, size in (("a.so.6", 90_000 // (number + 1)), ("b", 8000), ("c/d.py", 3000))
    ]
    small = [
        entry
        for number in range(40)
        for entry in egg(f"tail{number:02}", "1.0", 400 + 90 * number, 300)
    ]
    return image(
        {
            "packages": [*debian, symlink("bin", "usr/bin", group="packages", reason="test")],
            f"egg Django-{version}": egg("Django", version, *range(20, 7000, 90)),
            "eggs": small,
            "develop": [
                file("app/src/shop/views.py", views, "develop shop"),
                file("app/src/shop/models.py", 400, "develop shop"),
            ],
            "configuration": [file("app/parts/conf/circus.ini", 120, "configuration")],
        },
        (reference("acme/shop", "latest"), reference("acme/shop", "1.4")),
    )


@functools.cache
def example_page() -> str:
    return report(example(), example("5.2.18", 850))


HOSTILE = (
    "<script>alert(1)</script>",
    '"onload="alert(1)',
    "'><svg/onload=alert(1)>",
    "]]><!--",
    "&lt;b&gt; &amp &nbsp",
    "\x1b[31mred\x07\x00\x0b",
    "two\nlines\ttab\r",
    "\u202egnp.exe\u2066",
    "caf\u00e9 \u05e9\u05dc\u05d5\u05dd \u6f22\u5b57 \U0001f980",
    "\udcff\udcfe",
    "\ufffe\uffff\x85\x9b",
    "https:example.js",
    "%{}{0}{style}",
    "w" * 250,
)


@functools.cache
def hostile() -> Image:
    """An image in which everything that has a name has a bad one."""
    made = image(
        {
            f"layer {number}": [
                file(
                    f"srv/{name.replace('/', '-')}/{number}/{name.replace('/', '-')}",
                    5000 + 999 * number,
                    f"egg {name}-{number}",
                    name,
                ),
                symlink(f"srv/{number}", name, group="data", reason=name),
                directory(f"srv/d/{number}{name.replace('/', '-')}", group=name, reason=name),
            ]
            for number, name in enumerate(HOSTILE)
        }
    )
    named = [
        dataclasses.replace(
            layer, plan=dataclasses.replace(layer.plan, name=f"egg {name}-{number}")
        )
        for number, (name, layer) in enumerate(zip(HOSTILE, made.layers, strict=True))
    ]
    return dataclasses.replace(made, layers=tuple(named))


@functools.cache
def hostile_page() -> str:
    return report(hostile(), example())


class _Page(HTMLParser):
    """The page as an HTML parser sees it, with a complaint for each tag that is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.complaints: list[str] = []
        self.text: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        self.feed(page)
        self.close()
        self.complaints += [f"<{tag}> is open at the end" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID and "svg" not in self.open:
            self.complaints.append(f"<{tag}/> does not close itself in HTML")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.complaints.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]].append(data)

    def attributes(self, name: str) -> Iterator[str]:
        return (attributes[name] for _, attributes in self.tags if name in attributes)


def parsed(page: str) -> ElementTree.Element:
    """The page as XML, which it is too."""
    return ElementTree.fromstring(page)


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def section(page: str, key: str) -> ElementTree.Element:
    found = parsed(page).find(f".//section[@aria-labelledby='{key}']")
    assert found is not None, key
    return found


def rows(page: str, key: str, table: int = 0) -> list[list[str]]:
    """The cells of a table in a section, without its head and foot."""
    body = section(page, key).findall(".//tbody")[table]
    return [[words(cell) for cell in row] for row in body]


def box(rectangle: ElementTree.Element) -> Box:
    return Box(*(float(rectangle.attrib[key]) for key in ("x", "y", "width", "height")))


class Structure(unittest.TestCase):
    def setUp(self) -> None:
        self.image = example()
        self.page = example_page()

    def test_it_is_well_formed(self) -> None:
        self.assertEqual(_Page(self.page).complaints, [])
        self.assertEqual(parsed(self.page).tag, "html")

    def test_headings_captions_and_links(self) -> None:
        tree = parsed(self.page)
        self.assertEqual([words(h) for h in tree.iter("h1")], ["acme/shop:latest"])
        for part in tree.iter("section"):
            self.assertEqual([h.attrib["id"] for h in part.iter("h2")], list(
                part.attrib.values()
            ))  # fmt: skip
        for table in tree.iter("table"):
            self.assertTrue(words(table[0]), "a table without a caption")
            self.assertEqual(table[0].tag, "caption")
            for row in table.iter("tr"):
                self.assertIn("th", [cell.tag for cell in row])
        found = _Page(self.page)
        identifiers = list(found.attributes("id"))
        self.assertEqual(len(identifiers), len(set(identifiers)))
        self.assertLessEqual({link[1:] for link in found.attributes("href")}, {*identifiers})

    def test_names_and_digest(self) -> None:
        self.assertIn(self.image.manifest.digest, self.page)
        facts = parsed(self.page).find(".//p[@class='facts']")
        assert facts is not None
        self.assertEqual(words(facts), "also acme/shop:1.4 \N{MIDDLE DOT} linux/amd64")

    def test_totals(self) -> None:
        entries = {e.path: e for layer in self.image.layers for e in layer.plan.entries}
        files = sum(entry.type.value != "directory" for entry in entries.values())
        totals = {
            words(pair[0]): words(pair[1])
            for pair in parsed(self.page).findall(".//dl[@class='totals']/div")
        }
        self.assertEqual(
            {key: totals[key] for key in ("compressed", "unpacked", "files", "layers")},
            {
                "compressed": amount(self.image.size),
                "unpacked": amount(sum(entry.size for entry in entries.values())),
                "files": f"{files:,}",
                "layers": "5",
            },
        )
        self.assertIn("new since the last build", totals)
        self.assertNotIn("since", parsed(report(self.image, None)).findtext(".//dl") or "")

    def test_every_layer_has_its_row(self) -> None:
        found = rows(self.page, "layers")
        self.assertEqual(len(found), len(self.image.layers))
        for number, (cells, layer) in enumerate(zip(found, self.image.layers, strict=True), 1):
            files = sum(e.type.value != "directory" for e in layer.plan.entries)
            digest = layer.descriptor.digest.removeprefix("sha256:")[:12]
            self.assertEqual(
                cells[:5],
                [
                    str(number),
                    f"{layer.plan.name} {digest}",
                    amount(layer.descriptor.size),
                    amount(layer.plan.size),
                    f"{files:,}",
                ],
            )

    def test_which_layers_changed(self) -> None:
        before, after = example("5.2.18", 850), self.image
        was = [amount(layer.descriptor.size) for layer in before.layers]
        self.assertEqual(
            [cells[5] for cells in rows(self.page, "layers")],
            ["no", f"yes was {was[1]}", "no", f"yes was {was[3]}", "no"],
        )
        without = dataclasses.replace(before, layers=before.layers[:2])
        self.assertEqual(rows(report(after, without), "layers")[2][5], "new")
        self.assertEqual({len(cells) for cells in rows(report(after, None), "layers")}, {5})

    def test_what_is_new(self) -> None:
        self.assertEqual(
            rows(self.page, "since"),
            [["changed", "Django 5.2.18 \N{RIGHTWARDS ARROW} 5.2.19", "Python", ""]],
        )
        self.assertEqual(
            rows(self.page, "since", 1),
            [["changed", "/app/src/shop/views.py content", "+50 bytes"]],
        )
        self.assertRegex(
            words(section(self.page, "since")),
            r"78 paths added, 78 removed, 1 changed; 2 of 5 layers to push, \d+ kB; "
            r"\+50 bytes unpacked\. before: sha256:",
        )
        first = words(section(report(self.image, None), "since"))
        self.assertIn("no build before", first)
        again = words(section(report(self.image, self.image), "since"))
        self.assertIn(f"Nothing differs: {self.image.manifest.digest}", again)

    def test_a_thousand_new_paths_stay_few_rows(self) -> None:
        many = [file(f"srv/{number:04}", 1) for number in range(1000)]
        before = image({"data": [file("a", 1)]})
        page = report(image({"data": [*many, file("etc/x", 1)]}), before)
        self.assertIn(["added", "/srv/ 1,000 added", "+1.0 kB"], rows(page, "since"))
        self.assertIn(["added", "/etc/x", "+1 byte"], rows(page, "since"))

    def test_the_largest_distributions_first(self) -> None:
        found = rows(self.page, "distributions")
        total = sum(layer.plan.size for layer in self.image.layers)
        size = self.image.layers[1].plan.size
        self.assertEqual(
            found[0][:5],
            ["Django 5.2.19", "Python", "78", amount(size), share(size, total)],
        )
        self.assertEqual(found[1][:3], ["libc6 1.0-0", "Debian", "3"])
        told = words(section(self.page, "distributions"))
        self.assertIn("31 more distributions", told)
        for number in range(40):
            self.assertIn(f"tail{number:02} 1.0", told)

    def test_the_largest_files_and_why_they_are_there(self) -> None:
        self.assertEqual(
            rows(self.page, "files")[0],
            ["/usr/lib/libc6/a.so.6 package libc6 1.0-0", "packages", "90 kB"],
        )
        bytes_ = [entry.size for layer in self.image.layers for entry in layer.plan.entries]
        self.assertEqual(
            [cells[2] for cells in rows(self.page, "files")],
            [amount(size) for size in sorted(bytes_, reverse=True)[:20]],
        )

    def test_file_types(self) -> None:
        found = {cells[0]: cells[1] for cells in rows(self.page, "types")}
        self.assertEqual(found["Shared libraries .so"], "5")
        self.assertEqual(found["Text .ini"], "1")
        self.assertEqual(found["Other data"], "5")
        for path, mode, expected in (
            ("a/b.cpython-311.pyc", 0o644, ("Byte-code", ".pyc")),
            ("a/b.py", 0o755, ("Python source", ".py")),
            ("a/libssl.so.1.1", 0o644, ("Shared libraries", ".so")),
            ("usr/bin/python3.11", 0o755, ("Programs", "")),
            ("a/django.mo", 0o644, ("Translations", ".mo")),
            ("a/.po", 0o644, ("Other data", "")),
            ("a/x.sock", 0o644, ("Other data", "")),
        ):
            entry = dataclasses.replace(file(path, 1), mode=mode)
            self.assertEqual(file_type(entry), expected)

    def test_an_image_of_nothing(self) -> None:
        empty = image({"data": [directory("srv", group="data", reason="test")]})
        nothing = dataclasses.replace(empty, layers=(), references=())
        for one in (empty, nothing):
            for page in (report(one, None), report(one, example()), report(example(), one)):
                self.assertEqual(_Page(page).complaints, [])
                parsed(page)
        self.assertIn(f"<title>{nothing.manifest.digest}", report(nothing, None))

    def test_shares(self) -> None:
        self.assertEqual(share(0, 0), "0.0 %")
        self.assertEqual(share(1, 3), "33.3 %")
        self.assertEqual(share(1, 100_000), "under 0.1 %")


class Safety(unittest.TestCase):
    def setUp(self) -> None:
        self.page = hostile_page()

    def test_bad_names_are_nothing_but_text(self) -> None:
        for page in (self.page, report(example(), hostile())):
            found, harmless = _Page(page), _Page(example_page())
            self.assertEqual(found.complaints, [])
            self.assertEqual([tag for tag, _ in found.tags if tag == "script"], ["script"])
            self.assertLessEqual({tag for tag, _ in found.tags}, {t for t, _ in harmless.tags})
            names = {name for _, attributes in found.tags for name in attributes}
            known = {name for _, attributes in harmless.tags for name in attributes}
            self.assertLessEqual(names, known)
            self.assertEqual(found.text["script"], harmless.text["script"])
            self.assertEqual(found.text["style"], harmless.text["style"])

    def test_nothing_turns_or_hides_the_rest_of_a_line(self) -> None:
        strange = {letter for letter in self.page if not letter.isprintable()}
        self.assertLessEqual(strange, {"\n", "\N{NO-BREAK SPACE}"})
        self.page.encode()
        for shown in ("\\x1b[31mred", "two\\x0alines", "\\u202egnp", "\\xff\\xfe", "\\u009b"):
            self.assertIn(shown, self.page)
        self.assertIn("caf\u00e9", self.page)

    def test_names_can_be_read(self) -> None:
        told = words(parsed(self.page))
        for name in HOSTILE[:4]:
            self.assertIn(name, told)

    def test_nothing_comes_from_elsewhere(self) -> None:
        for page in (self.page, example_page()):
            found = _Page(page)
            self.assertNotRegex(page, r"https?://")
            self.assertNotRegex("".join(found.text["style"]), r"url\(|@import|@font-face")
            for name in ("src", "srcset", "action", "data", "poster", "xlink:href"):
                self.assertEqual(list(found.attributes(name)), [])
            for link in found.attributes("href"):
                self.assertRegex(link, r"^#[a-z]+$")


class SameBytes(unittest.TestCase):
    layer = layers.SLOW

    def test_the_same_images_give_the_same_page(self) -> None:
        self.assertEqual(example_page(), example_page.__wrapped__())
        path = os.pathsep.join(filter(None, sys.path))
        digests = {
            subprocess.run(
                [sys.executable, "-c", _ELSEWHERE],
                env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed, "TZ": "UTC+7"},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        self.assertEqual(len(digests), 1)

    def test_under_a_megabyte_for_twelve_thousand_files(self) -> None:
        eggs = [
            entry
            for number in range(240)
            for entry in egg(f"collective.something{number}", f"{number}.0.1", *[99] * 50)
        ]
        page = report(image({"eggs": eggs}), image({"eggs": eggs[:6000]}))
        self.assertLess(len(page.encode()), 1_000_000)
        self.assertIn("240 distributions", page)


class Squarified(unittest.TestCase):
    def test_the_example_of_its_inventors(self) -> None:
        found = squarify([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
        expected = [
            Box(0, 0, 3, 2),
            Box(0, 2, 3, 2),
            Box(3, 0, 12 / 7, 7 / 3),
            Box(3 + 12 / 7, 0, 9 / 7, 7 / 3),
        ]
        for one, other in zip(found, expected, strict=False):
            for value, wanted in zip(
                dataclasses.astuple(one), dataclasses.astuple(other), strict=True
            ):
                self.assertAlmostEqual(value, wanted)

    def test_areas_are_in_proportion_and_lie_beside_one_another(self) -> None:
        for sizes in (
            [1],
            [5, 5, 5, 5],
            [10**9, 10**6, 10**3, 1],
            list(range(400, 0, -1)),
        ):
            for place in (Box(3, 4, 1080, 600), Box(0, 0, 30, 700)):
                found = squarify(sizes, place)
                self.assertEqual(len(found), len(sizes))
                for size, one in zip(sizes, found, strict=True):
                    self.assertAlmostEqual(one.area, size * place.area / sum(sizes), places=3)
                    self.assertGreaterEqual(one.x, place.x - 1e-6)
                    self.assertGreaterEqual(one.y, place.y - 1e-6)
                    self.assertLessEqual(one.x + one.width, place.x + place.width + 1e-6)
                    self.assertLessEqual(one.y + one.height, place.y + place.height + 1e-6)
        many = squarify(list(range(60, 0, -1)), Box(0, 0, 100, 100))
        for number, one in enumerate(many):
            for other in many[:number]:
                wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
                high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
                self.assertLess(min(wide, high), 1e-6, "they overlap")

    def test_of_nothing_nothing(self) -> None:
        self.assertEqual(squarify([], Box(0, 0, 1, 1)), [])


class Treemap(unittest.TestCase):
    def setUp(self) -> None:
        self.image = example()
        self.maps = parsed(example_page()).findall(".//svg")

    def test_all_layers_are_there_as_large_as_their_bytes(self) -> None:
        sizes = {layer.plan.name: layer.plan.size for layer in self.image.layers}
        total = sum(sizes.values())
        for drawing in self.maps:
            _, _, width, height = map(float, drawing.attrib["viewBox"].split())
            found = drawing.findall("g")
            self.assertEqual(len(found), len(sizes))
            for group in found:
                name, _, _ = (group.findtext("title") or "").partition(":")
                self.assertEqual(int(group.attrib["data-size"]), sizes.pop(name, 0) or total)
                area = box(group[1]).area
                expected = int(group.attrib["data-size"]) / total * width * height
                self.assertAlmostEqual(area, expected, delta=0.02 * (width + height) / 2)
            sizes = {layer.plan.name: layer.plan.size for layer in self.image.layers}

    def test_what_is_in_a_box_is_in_proportion_too(self) -> None:
        compared = 0
        for drawing in self.maps:
            for group in drawing.iter("g"):
                inside = group.findall("g")
                if not inside:
                    continue
                outer = box(group[1])
                places = [box(part[1]) for part in inside]
                sizes = [int(part.attrib["data-size"]) for part in inside]
                self.assertEqual(sum(sizes), int(group.attrib["data-size"]))
                unit = sum(place.area for place in places) / sum(sizes)
                self.assertGreater(unit * sum(sizes), 0.5 * outer.area)
                for place, size in zip(places, sizes, strict=True):
                    compared += 1
                    self.assertAlmostEqual(
                        place.area, size * unit, delta=0.02 * (place.width + place.height)
                    )
                    self.assertGreaterEqual(place.x, outer.x)
                    self.assertGreaterEqual(place.y, outer.y)
                    self.assertLessEqual(place.x + place.width, outer.x + outer.width + 0.02)
                    self.assertLessEqual(place.y + place.height, outer.y + outer.height + 0.02)
        self.assertGreater(compared, 50)

    def test_blocks_have_all_bytes(self) -> None:
        found = blocks(self.image)
        self.assertEqual(
            {block.name: block.size for block in found},
            {layer.plan.name: layer.plan.size for layer in self.image.layers},
        )
        waiting = list(found)
        while waiting:
            block = waiting.pop()
            if block.inside:
                self.assertEqual(sum(part.size for part in block.inside), block.size)
                self.assertEqual(
                    sorted(block.inside, key=lambda part: -part.size), list(block.inside)
                )
                waiting.extend(block.inside)

    def test_directories_of_the_largest(self) -> None:
        found = {block.name: block for block in blocks(self.image)}
        django = found["egg Django-5.2.19"]
        self.assertEqual(django.top, "app/eggs/Django-5.2.19-py3.11.egg/Django")
        self.assertEqual(
            sorted(part.name for part in django.inside),
            [f"part{number}/" for number in range(7)],
        )
        self.assertEqual(found["packages"].inside[0].title, "libc6 1.0-0")
        self.assertIn("a.so.6", [part.name for part in found["packages"].inside[0].inside])
        self.assertIn(
            "packages \N{MIDDLE DOT} libc6 1.0-0 \N{MIDDLE DOT} /usr/lib/libc6/a.so.6: 90 kB",
            example_page(),
        )

    def test_the_same_as_a_list(self) -> None:
        told = words(section(example_page(), "where"))
        for block in blocks(self.image):
            self.assertIn(f"{block.title} {amount(block.size)}", told)


class Colours(unittest.TestCase):
    def test_every_kind_of_content_has_one(self) -> None:
        style = _Page(example_page()).text["style"][0]
        for kind in GROUPS:
            self.assertIn(f".{kind} {{ --c: var(--{kind});", style)
            self.assertIn(f"  --{kind}: #", style)

    def test_text_can_be_read_in_light_and_dark(self) -> None:
        # WCAG 2.2, 1.4.3: a contrast of 4.5 to 1 with what it stands on
        style = _Page(example_page()).text["style"][0]
        light, dark = (
            dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6});", part))
            for part in style.split("@media (prefers-color-scheme: dark)")
        )
        self.assertEqual(set(light), set(dark))
        for colours in (light, dark):
            for text in ("ink", "soft", "plus", "minus", "turn"):
                for ground in ("paper", "fill"):
                    self.assertGreaterEqual(
                        contrast(colours[text], colours[ground]), 4.5, (text, ground)
                    )
            kinds = [key for key in colours if f"{key}-frame" in colours]
            self.assertEqual(len(kinds), 8)
            for kind in kinds:
                for ground in (kind, f"{kind}-frame"):
                    self.assertGreaterEqual(contrast(colours["ink"], colours[ground]), 4.5)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (0, 2, 4)]
        red, green, blue = (
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in channels
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


# Browsers have no narrow windows, but narrow frames.  In each of these the page is measured;
# the last one runs no scripts.
_FRAMES = """
<!DOCTYPE html>
<html><body style="margin:0">
{frames}
<pre id="result"></pre>
<script>
const visible = (element) => element.getClientRects().length !== 0;
const end = (box) => box.x + box.width;
const foot = (box) => box.y + box.height;
onerror = (message) => {{
  document.querySelector("#result").textContent = JSON.stringify([{{wrong: [message]}}]);
}};
function measure(frame) {{
  const page = frame.contentDocument;
  const maps = [...page.querySelectorAll("svg")].filter(visible);
  const wrong = [];
  let labels = 0;
  for (const text of maps.length === 1 ? maps[0].querySelectorAll("text") : []) {{
    const [label, room] = [text.getBBox(), text.parentNode.querySelector("rect").getBBox()];
    labels += 1;
    if (label.x < room.x || label.y < room.y || end(label) > end(room) + 0.5 ||
        foot(label) > foot(room) + 0.5) wrong.push(`${{text.textContent}} leaves its box`);
    for (const other of text.parentNode.querySelectorAll(":scope > text")) {{
      const place = other.getBBox();
      if (other !== text && label.x < end(place) && place.x < end(label) &&
          label.y + 2 < foot(place) && place.y + 2 < foot(label))
        wrong.push(`${{text.textContent}} lies on ${{other.textContent}}`);
    }}
  }}
  for (const summary of page.querySelectorAll("summary")) {{
    if (summary.tabIndex !== 0) wrong.push(`${{summary.textContent}} can't be reached by keys`);
    if (!summary.parentNode.open) summary.click();
    if (!summary.parentNode.open) wrong.push(`${{summary.textContent}} does not open`);
  }}
  const readout = page.querySelector(".readout");
  const before = readout.textContent;
  const cell = [...maps[0].querySelectorAll("g")].pop();
  cell.querySelector("rect").dispatchEvent(new PointerEvent("pointerover", {{bubbles: true}}));
  return {{
    width: frame.contentWindow.innerWidth,
    needs: page.documentElement.scrollWidth,
    high: page.documentElement.scrollHeight,
    maps: maps.map((map) => map.getAttribute("class")),
    labels, wrong,
    read: readout.textContent === cell.querySelector("title").textContent,
    unread: readout.textContent === before,
    ground: getComputedStyle(page.body).backgroundColor,
    title: page.title,
  }};
}}
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(measure);
  document.querySelector("#result").textContent = JSON.stringify(found);
}});
</script>
</body></html>
"""
_WIDTHS = (1280, 820, 420, 420)


class Browser(layers.Layer):
    """Chromium without a window."""

    program = ""

    def setUp(self) -> None:
        super().setUp()
        self.program = self._program("chromium")
        if self.unavailable:
            return
        try:
            self.output("<p>it works</p>", "--dump-dom")
        except (AssertionError, subprocess.TimeoutExpired) as error:
            self.unavailable = f"chromium doesn't work here: {error}; try it as root"

    def output(self, page: str, *options: str) -> str:
        """What the browser prints when it opens a page with these options."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            path = pathlib.Path(scratch, "page.html")
            path.write_text(page, encoding="utf-8")
            command = [
                self.program,
                "--headless",
                f"--user-data-dir={scratch}/profile",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--hide-scrollbars",
                # nobody, not even the page's own links, is reached
                "--host-resolver-rules=MAP * ~NOTFOUND",
                # as root there is no sandbox
                *(() if os.geteuid() else ("--no-sandbox",)),
                *options,
                path.as_uri(),
            ]
            process = subprocess.run(
                command,
                env={**os.environ, "HOME": scratch},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=300,
                check=False,
            )
        if process.returncode:
            raise AssertionError(f"chromium: {process.returncode}, {process.stderr}")
        return process.stdout

    def measured(self, page: str, *options: str) -> list[dict[str, Any]]:
        """What there is to measure in frames of these widths, the last one without scripts."""
        frames = "\n".join(
            f'<iframe width="{width}" height="900" style="border:0" {sandbox} '
            f'srcdoc="{html.escape(page)}"></iframe>'
            for width, sandbox in zip(
                _WIDTHS,
                [*[""] * (len(_WIDTHS) - 1), 'sandbox="allow-same-origin"'],
                strict=True,
            )
        )
        output = self.output(
            _FRAMES.format(frames=frames),
            "--window-size=1400,900",
            "--virtual-time-budget=20000",
            "--dump-dom",
            *options,
        )
        result = re.search(r'<pre id="result">(.*?)</pre>', output, re.DOTALL)
        if result is None or not result[1]:
            raise AssertionError(f"the page was not measured: {output[-500:]}")
        found: list[dict[str, Any]] = json.loads(html.unescape(result[1]))
        return found


BROWSER = Browser("BROWSER", "--no-install-recommends chromium")


class InABrowser(unittest.TestCase):
    layer = BROWSER

    def setUp(self) -> None:
        self.layer.require(self)

    def check(self, page: str, found: Sequence[Mapping[str, Any]]) -> None:
        for one in found:
            self.assertEqual(one["wrong"], [])
            self.assertLessEqual(one["needs"], one["width"], "it has to be scrolled sideways")
            self.assertGreater(one["high"], 2000)
            self.assertGreater(one["labels"], 5)
            self.assertEqual(one["title"], parsed(page).findtext("head/title"))
        self.assertEqual([one["width"] for one in found], list(_WIDTHS))
        self.assertEqual(
            [one["maps"] for one in found],
            [["map wide"], ["map medium"], ["map narrow"], ["map narrow"]],
        )
        self.assertEqual([one["read"] for one in found], [True, True, True, False])
        self.assertTrue(found[-1]["unread"])

    def test_it_fits_wide_and_narrow_windows(self) -> None:
        page = example_page()
        self.check(page, self.layer.measured(page))

    def test_bad_names_fit_and_run_nothing(self) -> None:
        page = hostile_page()
        self.check(page, self.layer.measured(page))

    def test_light_and_dark(self) -> None:
        page = example_page()
        for scheme, ground in (("1", "rgb(252, 252, 250)"), ("0", "rgb(23, 25, 28)")):
            options = f"--blink-settings=preferredColorScheme={scheme}"
            found = self.layer.measured(page, options)
            self.assertEqual({one["ground"] for one in found}, {ground})

    def test_it_is_painted(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for width in (1280, 500):
                shot = pathlib.Path(scratch, f"{width}.png")
                self.layer.output(
                    example_page(), f"--window-size={width},1400", f"--screenshot={shot}"
                )
                picture = shot.read_bytes()
                self.assertEqual(picture[:8], b"\x89PNG\r\n\x1a\n")
                self.assertEqual(struct.unpack(">II", picture[16:24]), (width, 1400))
                # a page without anything on it compresses to a few kilobytes
                self.assertGreater(len(picture), 40_000)
