"""Files as they are: every odd but legal one comes through, and what can't is refused.

The rows are those of the fault matrix, "source tree to layer": from the files of a buildout
through closure, plan, layers and image to the archive, which strangers then read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unicodedata
import unittest
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple
from unittest import mock

from eggcrate.errors import EggcrateError, SeveralErrors
from eggcrate.image import plan
from eggcrate.image.layers import DEFAULT_EPOCH, tar_header
from eggcrate.image.layout import Image, make_image, write_archive
from eggcrate.image.oci import RuntimeConfig, reference
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    bytes_file,
    directory,
    merge,
    plan_layers,
    symlink,
)
from eggcrate.image.store import Store, replacing
from eggcrate.payload import files as payload_files
from eggcrate.payload.bytecode import bytecode_entries
from eggcrate.payload.closure import Closure
from eggcrate.payload.files import Facts, Files
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.payload.site import Include, Part, Site
from eggcrate.settings import this_platform
from eggcrate.tests import layers
from eggcrate.tests.validator import validate

NOBODY = 65534
CANARY = "canary-4711-do-not-publish"
MEGABYTE = 1_000_000
# what an image of 100,000 files, or of gigabytes, may take
MOST_MEMORY = 128 * MEGABYTE


@dataclasses.dataclass(frozen=True)
class Built:
    """An image, the archive that it was written to, and what was said on the way."""

    image: Image
    store: Store
    archive: pathlib.Path
    warnings: tuple[str, ...]

    @property
    def digest(self) -> str:
        return self.image.manifest.digest


def site_at(top: pathlib.Path) -> Site:
    """A buildout without anything in it."""
    for name in ("bin", "parts", "eggs", "develop-eggs"):
        (top / name).mkdir(parents=True, exist_ok=True)
    elsewhere = pathlib.Path("/nonexistent/venv")
    return Site(
        directory=top,
        eggs=top / "eggs",
        develop_eggs=top / "develop-eggs",
        bin=top / "bin",
        parts=top / "parts",
        environment=elsewhere / "lib/python3.x/site-packages",
        run_directory=top / "var/run",
        prefixes=(elsewhere,),
        develop=(),
    )


def build(
    top: pathlib.Path,
    work: pathlib.Path,
    *,
    outputs: Sequence[str] = ("parts/x",),
    includes: Sequence[tuple[str, str]] = (),
    base: Iterable[FileEntry] = (),
    command: Sequence[str] = ("/bin/true",),
    compression: str = "gzip",
    epoch: int = DEFAULT_EPOCH,
    layers: int = 12,
) -> Built:
    """The image of what a part has made below ``top``; ``work`` has the cache and the archive.

    As ``docker-image`` builds it, but for the Debian packages, in place of which is ``base``.
    """
    store = Store(work / "cache")
    relocation = Relocation((Rule(os.fspath(top), "/image"),))
    files = Files(relocation, store)
    closure = Closure(site_at(top), relocation, files=files)
    closure.add_part(Part("x", tuple(top / output for output in outputs)))
    for source, target in includes:
        closure.add_include(Include(top / source, target))
    payload = closure.finish()
    files.keep()
    modules = [entry for entry in payload if entry.path.endswith(".py")]
    payload += bytecode_entries(modules, store, cache_tag="cpython-3x")
    tree = merge([*base, *payload])
    del payload
    image = make_image(
        plan_layers(tree, layers),
        platform=this_platform(),
        runtime=RuntimeConfig(command=tuple(command), working_directory="/"),
        references=(reference("acme/odd", "1"),),
        store=store,
        compression=compression,
        epoch=epoch,
    )
    archive = work / "image.tar"
    with replacing(archive) as stream:
        write_archive(image, store, stream, epoch)
    return Built(image, store, archive, tuple(closure.warnings))


class Seen(NamedTuple):
    """A path of an image, as one who unpacks it sees it.

    ``content`` is the SHA-256 of a file's bytes, or the text of a symbolic link.
    """

    kind: str
    mode: int
    content: str


class Unpacked(NamedTuple):
    """The paths of an image, and which of them are names of one file."""

    paths: dict[str, Seen]
    twins: set[frozenset[str]]


def unpacked(archive: pathlib.Path) -> Unpacked:
    """What Python's tarfile makes of the layers in an archive, the lowest first."""
    found = Unpacked({}, set())
    for layer in layer_bytes(archive):
        with tarfile.open(fileobj=io.BytesIO(layer)) as stream:
            one = read_tar(stream)
        found.paths.update(one.paths)
        found.twins.update(one.twins)
    return found


def layer_bytes(archive: pathlib.Path) -> Iterator[bytes]:
    """The layers of an archive as they are stored, the lowest first."""
    with tarfile.open(archive) as image:

        def blob(name: str) -> bytes:
            stream = image.extractfile(name)
            assert stream is not None
            return stream.read()

        (entry,) = json.loads(blob("manifest.json"))
        for name in entry["Layers"]:
            yield blob(name)


def read_tar(stream: tarfile.TarFile) -> Unpacked:
    paths: dict[str, Seen] = {}
    links: dict[str, list[str]] = {}
    for member in stream:
        name = member.name.removeprefix("./")
        mode = stat.S_IMODE(member.mode)
        if member.isdir():
            paths[name] = Seen("directory", mode, "")
        elif member.issym():
            paths[name] = Seen("symlink", 0o777, member.linkname)
        elif member.islnk():
            target = member.linkname.removeprefix("./")
            paths[name] = paths[target]
            links.setdefault(target, [target]).append(name)
        elif member.isreg():
            content = stream.extractfile(member)
            assert content is not None
            digest = hashlib.sha256()
            while block := content.read(1 << 20):
                digest.update(block)
            paths[name] = Seen("file", mode, digest.hexdigest())
        else:
            paths[name] = Seen(f"type {member.type!r}", mode, "")
    return Unpacked(paths, {frozenset(names) for names in links.values()})


def on_disk(top: bytes, place: str, *, plain: bool = True) -> Unpacked:
    """What lies below a directory, at ``place``; ``plain`` with the modes that images have."""
    paths: dict[str, Seen] = {}
    names: dict[tuple[int, int], list[str]] = {}

    def look(path: bytes, shown: str) -> None:
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        if plain:
            mode = 0o755 if stat.S_ISDIR(status.st_mode) or mode & 0o100 else 0o644
        if stat.S_ISLNK(status.st_mode):
            paths[shown] = Seen("symlink", 0o777, os.fsdecode(os.readlink(path)))
        elif stat.S_ISDIR(status.st_mode):
            paths[shown] = Seen("directory", mode, "")
            for name in os.listdir(path):
                look(path + b"/" + name, f"{shown}/{os.fsdecode(name)}")
        else:
            with open(path, "rb") as stream:
                digest = hashlib.sha256(stream.read()).hexdigest()
            paths[shown] = Seen("file", mode, digest)
            if status.st_nlink > 1:
                names.setdefault((status.st_dev, status.st_ino), []).append(shown)

    look(top, place)
    return Unpacked(paths, set(map(frozenset, names.values())))


def differences(found: Unpacked, expected: Unpacked) -> list[str]:
    """Where two images of a tree differ, and how."""
    lines = [
        f"{path!r}: {found.paths.get(path)}, not {expected.paths.get(path)}"
        for path in sorted(found.paths | expected.paths)
        if found.paths.get(path) != expected.paths.get(path)
    ]
    if found.twins != expected.twins:
        lines.append(f"hard links: {found.twins}, not {expected.twins}")
    return lines


NAMES = (
    *(b"new\nline", b"\n", b"tab\tand\rreturn", b"\x01\x1b[31mred\x7f", b" blanks ", b"  "),
    *(b"bad-\xff\xfe", b"\xc0\xaf", b"\xed\xb3\xbf", b"\xed\xa0\x80", b"caf\xc3\xa9-\xff"),
    *(b"-rf", b"--checkpoint-action=exec=sh", b"...", b"..x", b".hidden", b"back\\slash"),
    *(b"quote'\"$`*?[x]{y}", b"12 path=x", b"a=b", b"x:y", b"%s%n", b"#", b"&amp;"),
    "\u202etxt.exe".encode(), "\U0001f95a".encode(), "\u65e5\u672c\u8a9e".encode(),
    *(b"n" * 255, b"\xc3\xa9" * 127, b"\xff" * 255),
    *(b"README", b"readme", b"ReadMe", b"caf\xc3\xa9", b"cafe\xcc\x81"),
)  # fmt: skip


def odd_tree(top: pathlib.Path) -> None:
    """Everything odd that a file system allows, below a new directory."""
    place = os.fsencode(top)
    os.makedirs(place)

    def write(name: bytes, data: bytes, mode: int = 0o644) -> None:
        path = place + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)
        os.chmod(path, mode)

    for number, name in enumerate(NAMES):
        write(b"names/" + name, b"%d\n" % number)
        os.symlink(name, place + b"/names/l%d" % number)
        write(b"directories/" + name + b"/" + name, b"in %d\n" % number)
    for length in (0, 1, 511, 512, 513, 1024, (1 << 20) - 1, (1 << 20) + 1):
        write(b"sizes/%07d" % length, random.Random(length).randbytes(length))
    for mode in (0o400, 0o444, 0o600, 0o640, 0o700, 0o711, 0o755, 0o744, 0o666, 0o777):
        write(b"modes/%03o" % mode, b"%o" % mode, mode)
    # around the limits of ustar's fields, 100 and 155 bytes with the buildout's place before
    for length in (*range(60, 110), *range(140, 170), 240, 250, 255):
        write(b"lengths/" + b"x" * length, b"")
        write(b"lengths/%d/" % length + b"y" * length + b"/" + b"z" * length, b"")
    deep = b"/".join([b"d" * 200] * 6)
    write(b"deep/" + deep + b"/file", b"below 1200 bytes of path")
    write(b"deep/" + b"/".join([b"e"] * 300) + b"/file", b"below 300 directories")
    os.symlink(b"../" * 300 + b"t" * 200, place + b"/deep/link")
    os.makedirs(place + b"/empty/in empty")
    os.chmod(place + b"/empty", 0o700)
    for name, text in (
        *((b"self", b"self"), (b"one", b"two"), (b"two", b"one"), (b"here", b".")),
        *((b"dangling", b"no/such"), (b"up", b"../../../../../.."), (b"root", b"/")),
        *((b"shadow", b"/etc/shadow"), (b"odd", b"bad-\xff\n"), (b"file", b"../sizes/0000513")),
    ):
        os.makedirs(place + b"/links", exist_ok=True)
        os.symlink(text, place + b"/links/" + name)
    write(b"same/z", b"of several names", 0o755)
    for name in (b"same/a", b"same/" + b"h" * 255, b"same/\xff\n", b"same/deeper/x"):
        os.makedirs(os.path.dirname(place + b"/" + name), exist_ok=True)
        os.link(place + b"/same/z", place + b"/" + name)
    write(b"same/0", b"")
    os.link(place + b"/same/0", place + b"/same/1")


def complaints(build: Callable[[], object]) -> list[str]:
    """What the errors say that a build raises, each as a sentence of its own."""
    try:
        build()
    except SeveralErrors as several:
        return [str(error) for error in several.errors]
    except EggcrateError as error:
        return [str(error)]
    return []


def as_nobody(work: Callable[[], Any]) -> Any:
    """What ``work`` gives, as JSON can say it, to a user whom no file belongs to."""
    if os.geteuid():
        return work()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        answer: dict[str, Any] = {}
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            answer = {"value": work()}
        except BaseException as error:
            answer = {"error": repr(error)}
        finally:
            with open(writer, "w") as stream:
                json.dump(answer, stream)
            os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        answer = json.load(stream)
    os.waitpid(child, 0)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["value"]


class Scratch(unittest.TestCase):
    """A buildout in ``top``, and a place for the cache and the archive in ``work``."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        root = pathlib.Path(os.path.realpath(scratch.name))
        root.chmod(0o755)
        self.top, self.work = root / "site", root / "work"
        self.work.mkdir()
        self.work.chmod(0o777)
        site_at(self.top)
        (self.top / "parts/x").mkdir()

    def write(self, name: str, data: bytes | str = b"x", mode: int = 0o644) -> pathlib.Path:
        """A file of the buildout; TOP in a text is its directory."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            data = data.replace("TOP", os.fspath(self.top)).encode()
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def build(self, **options: Any) -> Built:
        """The image, whose archive has been found to be valid."""
        built = build(self.top, self.work, **options)
        self.assertEqual(validate(built.archive), [])
        return built

    def tree(self, **options: Any) -> dict[str, Seen]:
        return unpacked(self.build(**options).archive).paths

    def refused(self, **options: Any) -> list[str]:
        """What is said of a build that fails and leaves nothing behind."""
        found = complaints(lambda: build(self.top, self.work, **options))
        self.assertNotEqual(found, [], "it was not refused")
        self.nothing_left()
        return found

    def nothing_left(self) -> None:
        """Neither archive nor layer, nor a word that there is one."""
        left = [
            path
            for path in self.work.rglob("*")
            if path.is_file() and "records/files" not in path.as_posix()
        ]
        self.assertEqual([path for path in left if path.name != "lock"], [])


def base_file(path: str, data: bytes = b"base", mode: int = 0o644) -> FileEntry:
    return bytes_file(path, data, group="packages", reason="the package base", mode=mode)


def base_link(path: str, text: str) -> FileEntry:
    return symlink(path, text, group="packages", reason="the package base")


class Targets(Scratch):
    """C1, C2, C3, C18: where things go."""

    def test_c1_whiteouts_are_refused(self) -> None:
        for name in (".wh.x", "d/.wh..wh..opq", ".wh.d/file", ".wh."):
            self.write(f"parts/x/{name}")
        found = "\n".join(self.refused())
        for name in (".wh.x", "d/.wh..wh..opq", ".wh.d", ".wh."):
            self.assertIn(f"/image/parts/x/{name} would delete files in the image", found)
        self.assertIn("rename it, or list it in exclude", found)

    def test_c1_what_only_looks_like_one_is_a_file(self) -> None:
        for name in ("x.wh.y", ".wh", ".whx", "wh."):
            self.write(f"parts/x/{name}")
        self.assertEqual(len(self.tree()), 4 + 3)

    def test_c2_a_path_through_a_link_of_the_base(self) -> None:
        self.write("tool", "#!/bin/sh\n", 0o755)
        for text in ("usr/bin", "/usr/bin", "sbin"):
            with self.subTest(text):
                found = self.tree(
                    outputs=(),
                    includes=[("tool", "/bin/tool")],
                    base=[
                        base_file("usr/bin/sh", mode=0o755),
                        base_link("sbin", "usr/bin"),
                        base_link("bin", text),
                    ],
                )
                self.assertEqual(found["bin"], Seen("symlink", 0o777, text))
                self.assertEqual(found["usr/bin/tool"].mode, 0o755)
                self.assertIn("usr/bin/sh", found)
                self.assertEqual([path for path in found if path.startswith("bin/")], [])

    def test_c2_a_directory_through_a_link_of_the_base(self) -> None:
        # include = rootfs = /, with a bin and a usr of its own
        self.write("rootfs/bin/tool", mode=0o755)
        self.write("rootfs/usr/bin/other")
        found = self.tree(
            outputs=(),
            includes=[("rootfs", "/")],
            base=[base_link("bin", "usr/bin"), base_file("usr/bin/sh")],
        )
        self.assertEqual(
            sorted(found),
            ["bin", "usr", "usr/bin", "usr/bin/other", "usr/bin/sh", "usr/bin/tool"],
        )
        self.assertEqual(found["bin"].kind, "symlink")

    def test_c3_a_file_where_a_directory_is_needed(self) -> None:
        self.write("parts/x/a")
        found = self.refused(
            outputs=(), includes=[("parts/x", "/srv/app")], base=[base_file("srv/app")]
        )
        message = "\n".join(found)
        self.assertIn("/srv/app", message)
        self.assertIn("the package base", message)
        self.assertIn("include: parts/x", message)

    def test_c3_a_file_above_the_place(self) -> None:
        self.write("parts/x/a")
        (message,) = self.refused(
            outputs=(), includes=[("parts/x/a", "/srv/app/a")], base=[base_file("srv/app")]
        )
        self.assertIn("/srv/app is a file (the package base), and /srv/app/a needs", message)
        self.assertIn("include: parts/x/a", message)

    def test_c3_a_directory_where_a_file_is_to_go(self) -> None:
        self.write("parts/x/a")
        (message,) = self.refused(
            outputs=(), includes=[("parts/x/a", "/srv")], base=[base_file("srv/app")]
        )
        self.assertIn("/srv is a file (include: parts/x/a), and /srv/app needs", message)
        self.assertIn("the package base", message)

    def test_c18_two_sources_for_one_place(self) -> None:
        self.write("a", b"1")
        self.write("b\n", b"2")
        (message,) = self.refused(
            outputs=(), includes=[("a", "/etc/\x1bapp"), ("b\n", "/etc/\x1bapp")]
        )
        self.assertIn("/etc/\\x1bapp is claimed twice, with different content", message)
        self.assertIn("include: a; and include: b\\x0a", message)
        self.assertNotIn("\x1b", message)
        self.write("b\n", b"1")
        found = self.tree(outputs=(), includes=[("a", "/etc/app"), ("b\n", "/etc/app")])
        self.assertEqual(sorted(found), ["etc", "etc/app"])

    def test_c18_the_base_and_the_buildout_for_one_place(self) -> None:
        self.write("a", b"1")
        (message,) = self.refused(
            outputs=(), includes=[("a", "/etc/passwd")], base=[base_file("etc/passwd")]
        )
        self.assertIn("/etc/passwd is claimed twice", message)
        self.assertIn("the package base; and include: a", message)


class Names(Scratch):
    """C4, C5, C6, C9, C11, C17, C23: all that is odd, in one tree."""

    def test_all_of_it_comes_through(self) -> None:
        shutil.rmtree(self.top / "parts/x")
        odd_tree(self.top / "parts/x")
        expected = on_disk(os.fsencode(self.top / "parts/x"), "image/parts/x")
        for compression in ("gzip", "none"):
            found = unpacked(self.build(compression=compression).archive)
            above = {name: found.paths.pop(name) for name in ("image", "image/parts")}
            self.assertEqual(set(above.values()), {Seen("directory", 0o755, "")})
            self.assertEqual(differences(found, expected), [])

    def test_c5_messages_show_no_stray_bytes(self) -> None:
        for name in (b"bad-\xff\n\x1b[2J", b"other-\xff"):
            path = os.fsencode(self.top / "parts/x") + b"/.wh." + name
            with open(path, "wb"):
                pass
        found = self.refused()
        self.assertEqual(len(found), 2)
        for message in found:
            message.encode("utf-8")
            self.assertTrue(message.isprintable(), ascii(message))
        self.assertIn("bad-\\xff\\x0a\\x1b[2J", found[0])

    def test_c5_nor_do_those_of_a_file_that_changes(self) -> None:
        name = os.fsencode(self.top / "parts/x") + b"/bad-\xff\n"
        with open(name, "wb") as stream:
            stream.write(b"x")

        def change(made: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            with open(name, "ab") as stream:
                stream.write(b"y")
            return made(*arguments, **options)

        with mock.patch(f"{__name__}.plan_layers", lambda *a: change(plan.plan_layers, *a)):
            (message,) = self.refused()
        self.assertTrue(message.isprintable(), ascii(message))

    def test_deeper_than_python_calls(self) -> None:
        deep = "/".join(["d"] * 1200)
        # neither pathlib nor shutil goes that deep
        self.addCleanup(subprocess.check_call, ["rm", "-r", self.top / "parts/x/d"])
        for level in range(1, len(deep) + 1, 2):
            os.mkdir(self.top / "parts/x" / deep[:level])
        (self.top / "parts/x" / deep / "file").write_bytes(b"x")
        self.assertIn(f"image/parts/x/{deep}/file", self.tree())

    def test_c9_links_that_lead_nowhere(self) -> None:
        place = self.top / "parts/x"
        texts = {"self": "self", "a": "b", "b": "a", "dangling": "none", "up": "..", "d": "d/x"}
        for name, text in texts.items():
            (place / name).symlink_to(text)
        found = self.tree()
        for name, text in texts.items():
            self.assertEqual(found[f"image/parts/x/{name}"], Seen("symlink", 0o777, text))

    def test_c9_an_output_that_is_a_link_to_itself(self) -> None:
        (self.top / "parts/loop").symlink_to("loop")
        self.assertEqual(
            self.tree(outputs=["parts/loop"])["image/parts/loop"],
            Seen("symlink", 0o777, "loop"),
        )

    def test_c11_hard_links_across_layers_are_files(self) -> None:
        # a layer that holds a link alone would depend on the one below it
        one = self.write("parts/x/one", b"1" * 1000)
        egg = self.top / "eggs/e-1.egg/e"
        egg.mkdir(parents=True)
        os.link(one, egg / "two")
        self.write("bin/run", "'TOP/eggs/e-1.egg'")
        found = unpacked(self.build(outputs=["parts/x", "bin/run"]).archive)
        self.assertEqual(found.twins, set())
        self.assertEqual(
            found.paths["image/parts/x/one"], found.paths["image/eggs/e-1.egg/e/two"]
        )

    def test_c17_names_that_differ_little(self) -> None:
        names = ("README", "readme", "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9"))
        for name in names:
            self.write(f"parts/x/{name}", name)
        if len(os.listdir(self.top / "parts/x")) < len(names):
            self.skipTest("this file system takes them for the same")
        self.write("parts/x/other")
        built = self.build()
        found = unpacked(built.archive).paths
        for name in names:
            digest = hashlib.sha256(name.encode()).hexdigest()
            self.assertEqual(found[f"image/parts/x/{name}"].content, digest)
        (warning,) = built.warnings
        self.assertIn("/image/parts/x/README", warning)
        self.assertIn("and 1 more", warning)
        self.assertNotIn("other", warning)

    def test_c23_nothing_at_all(self) -> None:
        self.assertEqual(self.build(outputs=()).image.layers, ())
        self.assertEqual(
            self.tree(),
            {
                name: Seen("directory", 0o755, "")
                for name in ("image", "image/parts", "image/parts/x")
            },
        )


class Rights(Scratch):
    """C10, C12, C13, C15, C16: links out of the tree, odd rights, what is no file."""

    def test_c10_a_link_to_a_secret_is_a_link(self) -> None:
        outside = self.work / "outside"
        outside.mkdir()
        (outside / "secret").write_text(CANARY)
        place = self.top / "parts/x"
        (place / "shadow").symlink_to("/etc/shadow")
        (place / "secret").symlink_to(outside / "secret")
        (place / "directory").symlink_to(outside)
        (place / "relative").symlink_to(os.path.relpath(outside, place))
        self.write("parts/x/names them", f"/etc/shadow {outside}/secret '{outside}'")
        built = self.build(compression="none")
        self.assertNotIn(CANARY.encode(), built.archive.read_bytes())
        found = unpacked(built.archive).paths
        self.assertEqual(found["image/parts/x/shadow"].content, "/etc/shadow")
        self.assertEqual(found["image/parts/x/secret"].content, f"{outside}/secret")
        self.assertEqual(
            sorted(path for path in found if not path.startswith("image")), [], found
        )

    def test_c10_a_file_that_becomes_a_link_to_a_secret(self) -> None:
        (self.work / "secret").write_text(CANARY)
        path = self.write("parts/x/file", b"x" * len(CANARY))
        opened = plan.open_at_once

        def replaced(name: str) -> BinaryIO:
            path.unlink()
            path.symlink_to(self.work / "secret")
            return opened(name)

        with mock.patch.object(payload_files, "open_at_once", replaced):
            found = complaints(lambda: build(self.top, self.work))
        self.assertEqual(len(found), 1, found)
        self.assertIn(f"{path} was replaced while it was read", found[0])
        self.assertFalse((self.work / "image.tar").exists())

    def test_c12_odd_rights_are_dropped_with_one_warning(self) -> None:
        for number in range(20):
            self.write(f"parts/x/s{number:02}", mode=0o4755)
            self.write(f"parts/x/g{number:02}", mode=0o2755)
        self.write("parts/x/all", mode=0o6777)
        self.write("parts/x/w", mode=0o666)
        self.write("parts/x/p", mode=0o600)
        (self.top / "parts/x/tmp").mkdir()
        (self.top / "parts/x/tmp").chmod(0o3777)
        built = self.build()
        found = unpacked(built.archive).paths
        self.assertEqual({seen.mode for seen in found.values()}, {0o755, 0o644})
        for name in ("w", "p"):
            self.assertEqual(found[f"image/parts/x/{name}"].mode, 0o644)
        (warning,) = built.warnings
        self.assertIn("set-user-ID or set-group-ID", warning)
        self.assertIn("parts/x/all", warning)
        self.assertIn("and 38 more", warning)

    def odd_kinds(self) -> list[str]:
        place = self.top / "parts/x"
        os.mkfifo(place / "fifo")
        here = os.getcwd()
        os.chdir(place)  # the path of a socket must be short
        self.addCleanup(os.chdir, here)
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind("socket")
        names = ["fifo", "socket"]
        with contextlib.suppress(OSError):
            os.mknod(place / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            names.append("device")
        return sorted(names)

    def test_c13_what_is_no_file_is_left_out_and_never_opened(self) -> None:
        names = self.odd_kinds()
        self.write(
            "parts/x/file", "names them: " + " ".join(f"'TOP/parts/x/{n}'" for n in names)
        )
        with _no_longer_than(5):
            built = self.build()
        self.assertEqual(
            set(unpacked(built.archive).paths),
            {"image", "image/parts", "image/parts/x", "image/parts/x/file"},
        )
        (warning,) = built.warnings
        for name in names:
            self.assertIn(f"parts/x/{name}", warning)

    def test_c13_not_even_as_outputs_or_includes(self) -> None:
        names = self.odd_kinds()
        with _no_longer_than(5):
            built = self.build(
                outputs=[f"parts/x/{name}" for name in names],
                includes=[(f"parts/x/{name}", f"/srv/{name}") for name in names],
            )
        self.assertEqual(built.image.layers, ())
        self.assertEqual(len(built.warnings), 1, built.warnings)

    def test_c13_a_file_that_becomes_a_fifo(self) -> None:
        path = self.write("parts/x/file")

        def replaced(*arguments: Any, **options: Any) -> Any:
            path.unlink()
            os.mkfifo(path)
            return plan.plan_layers(*arguments, **options)

        with _no_longer_than(5), mock.patch(f"{__name__}.plan_layers", replaced):
            (message,) = self.refused()
        self.assertIn("parts/x/file changed while it was read", message)

    def test_c15_all_that_can_not_be_read_is_named(self) -> None:
        for number in range(12):
            self.write(f"parts/x/{number:02}", mode=0)
        self.write("parts/x/sealed/x")
        (self.top / "parts/x/sealed").chmod(0)
        self.addCleanup((self.top / "parts/x/sealed").chmod, 0o755)
        self.write("parts/x/.dockerignore", "x", mode=0)

        def work() -> Any:
            return [os.geteuid(), complaints(lambda: build(self.top, self.work))]

        user, found = as_nobody(work)
        text = "\n".join(found)
        for name in (*(f"{number:02}" for number in range(12)), "sealed"):
            self.assertIn(f"parts/x/{name}", text)
        self.assertIn(f"user {user}", text)
        self.assertIn("Permission denied", text)
        self.assertIn("let this user read", text)
        self.nothing_left()

    def test_c16_extended_attributes_are_not_taken(self) -> None:
        paths = [self.write("parts/x/a"), self.write("parts/x/b", b"program", 0o755)]
        plain = self.build().digest
        acl = struct.pack("<I", 2) + b"".join(
            struct.pack("<HHI", tag, rights, who)
            for tag, rights, who in (
                *((1, 6, 0xFFFFFFFF), (2, 6, 1234), (4, 4, 0xFFFFFFFF)),
                *((16, 6, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)),
            )
        )
        # cap_net_bind_service, permitted and effective
        capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
        wanted = [("user.test", b"x" * 100), ("system.posix_acl_access", acl)]
        if not os.geteuid():
            wanted.append(("security.capability", capability))
        modes = [path.stat().st_mode for path in paths]
        for name, value in wanted:
            try:
                for path in paths:
                    os.setxattr(path, name, value)
            except (OSError, AttributeError) as error:
                self.skipTest(f"no {name} here: {error}")
        self.assertGreaterEqual(len(os.listxattr(paths[1])), 2)
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)
        built = self.build()
        self.assertEqual(built.digest, plain)
        for layer in layer_bytes(built.archive):
            with tarfile.open(fileobj=io.BytesIO(layer)) as stream:
                self.assertEqual(
                    [member.pax_headers for member in stream if member.pax_headers], []
                )


@contextlib.contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    """An error when the block takes longer, even if it waits for something."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"it still waits after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Changing(Scratch):
    """C14: files that change while they are read."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.write("parts/x/file", random.Random(1).randbytes(3 << 20))
        # old enough that what was read of it would be kept
        os.utime(self.path, (1, 1))

    def grows(self) -> None:
        with self.path.open("ab") as stream:
            stream.write(b"more")

    def shrinks(self) -> None:
        os.truncate(self.path, (2 << 20) + 1)

    def empties(self) -> None:
        self.path.write_bytes(b"")

    def vanishes(self) -> None:
        self.path.unlink()

    def is_replaced(self) -> None:
        other = self.path.with_name("other")
        other.write_bytes(random.Random(2).randbytes(3 << 20))
        os.utime(other, (1, 1))
        other.replace(self.path)

    def is_written_over(self) -> None:
        with self.path.open("r+b") as stream:
            stream.seek(2 << 20)
            stream.write(b"other")
        os.utime(self.path, (1, 1))

    def becomes_a_directory(self) -> None:
        self.path.unlink()
        self.path.mkdir()

    @property
    def changes(self) -> tuple[Callable[[], None], ...]:
        return (
            *(self.grows, self.shrinks, self.empties, self.vanishes, self.is_replaced),
            *(self.is_written_over, self.becomes_a_directory),
        )

    def test_after_the_plan(self) -> None:
        for change in self.changes:
            with self.subTest(change.__name__):

                def changed(
                    *arguments: Any, change: Callable[[], None] = change, **options: Any
                ) -> Any:
                    change()
                    return plan.plan_layers(*arguments, **options)

                with mock.patch(f"{__name__}.plan_layers", changed):
                    self.fails()

    def test_while_it_is_written_to_the_layer(self) -> None:
        opened = FileEntry.open
        # who has a file open keeps what is removed or replaced
        for change in (self.grows, self.shrinks, self.empties, self.is_written_over):
            with self.subTest(change.__name__):

                def changing(entry: FileEntry, change: Callable[[], None] = change) -> BinaryIO:
                    return _Changing(opened(entry), change)

                with mock.patch.object(FileEntry, "open", changing):
                    self.fails()

    def test_while_it_is_digested(self) -> None:
        # what was read first is not what is read for the layer
        for change in (self.grows, self.shrinks, self.empties, self.is_written_over):
            with self.subTest(change.__name__):

                def changing(name: str, change: Callable[[], None] = change) -> BinaryIO:
                    return _Changing(plan.open_at_once(name), change)

                with mock.patch.object(payload_files, "open_at_once", changing):
                    built = complaints(lambda: build(self.top, self.work))
                if built:
                    self.nothing_left()
                else:
                    # it had changed before it was read: then all of it is new
                    found = unpacked(self.work / "image.tar").paths["image/parts/x/file"]
                    self.assertEqual(
                        found.content, hashlib.sha256(self.path.read_bytes()).hexdigest()
                    )
                self.afresh()

    def test_between_being_digested_and_being_relocated(self) -> None:
        self.path = self.write("parts/x/file", "path = TOP/parts/x\n")
        facts = Files.facts

        def changing(files: Files, *arguments: Any, **options: Any) -> Facts:
            found = facts(files, *arguments, **options)
            self.path.write_text(f"path = {self.top}/par")  # half of it
            return found

        with mock.patch.object(Files, "facts", changing):
            self.fails()

    def fails(self) -> None:
        found = complaints(lambda: build(self.top, self.work))
        self.assertEqual(len(found), 1, found)
        self.assertRegex(
            found[0],
            r"parts/x/file (changed while it was read|can't be read: (No such file|Is a))",
        )
        self.nothing_left()
        self.afresh()

    def afresh(self) -> None:
        shutil.rmtree(self.work)
        self.work.mkdir()
        shutil.rmtree(self.top / "parts/x")
        self.write("parts/x/file", random.Random(1).randbytes(3 << 20))
        os.utime(self.path, (1, 1))


class _Changing(io.BufferedReader):
    """A stream that has something happen after its first block."""

    def __init__(self, stream: BinaryIO, change: Callable[[], None]) -> None:
        super().__init__(io.FileIO(os.dup(stream.fileno()), "rb"))
        stream.close()
        self._change: Callable[[], None] | None = change

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(min(size, 1 << 20) if size and size > 0 else size)
        change, self._change = self._change, None
        if change:
            change()
        return data


# Builds what is below argv[1], with its cache and archive in argv[2], after the code in
# argv[3], and says what came of it and the most memory that it took, in bytes.
_ELSEWHERE = """
import json, pathlib, re, sys
exec(sys.argv[3])
from eggcrate.tests.test_files_as_they_are import build
top, work = map(pathlib.Path, sys.argv[1:3])
outputs = [
    f"{place}/{path.name}" for place in ("bin", "parts") for path in (top / place).iterdir()
]
built = build(top, work, outputs=outputs, **json.loads(sys.argv[4]))
# not getrusage(2): what it says of a child begins with what its parent had
status = pathlib.Path("/proc/self/status").read_text()
most = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) * 1024
print(json.dumps([built.digest, most, built.warnings]))
"""


def elsewhere(
    top: pathlib.Path,
    work: pathlib.Path,
    *,
    before: str = "",
    environment: dict[str, str] | None = None,
    **options: Any,
) -> tuple[str, int]:
    """The digest of an image that another process builds, and its memory in bytes."""
    work.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-c", _ELSEWHERE),
            *(top, work, before, json.dumps(options)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
        cwd=work,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    digest, most, _ = json.loads(done.stdout)
    return digest, most


# What a directory's listing may come as
_SHUFFLED = """
import os, random
class Shuffled(list):
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def __next__(self): return self.pop()
def scandir(path=".", scandir=os.scandir):
    with scandir(path) as found:
        children = Shuffled(found)
    random.shuffle(children)
    return children
os.scandir = scandir
def listdir(path=".", listdir=os.listdir):
    names = listdir(path)
    random.shuffle(names)
    return names
os.listdir = listdir
"""
# A clock that shows any time, and jumps back
_CLOCK = """
import itertools, time
times = itertools.cycle(({now}, {now} - 1e6, {now} + 5))
time.time = lambda: next(times)
time.time_ns = lambda: int(next(times) * 1e9)
"""


class Sameness(Scratch):
    """C20, C22: whatever is not in the files changes nothing."""

    layer = layers.SLOW

    def make(
        self, top: pathlib.Path, *, umask: int = 0o022, newest_first: bool = False
    ) -> None:
        """A buildout, whose files come into being under a umask, in one order or the other."""
        before = os.umask(umask)
        try:
            site_at(top)
            contents = {
                "bin/run": "#!/bin/sh\nexec 'TOP/parts/x/a.conf' 'TOP/eggs/b-1.egg'\n",
                "parts/x/a.conf": "TOP/parts/x\n",
                "parts/x/dir/plain": "plain\n" * 1000,
                "parts/x/dir/m.py": "def f(x={'a', 'b', 'c'}): return 'here', x\n",
                "parts/x/dir/\u00e9": "",
                "eggs/b-1.egg/b/__init__.py": "import os\n",
                "eggs/b-1.egg/b/c.py": "X = frozenset({1, 2, 'three'})\n",
            }
            for name in sorted(contents, reverse=newest_first):
                path = top / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents[name].replace("TOP", os.fspath(top)).encode())
                if name == "bin/run":
                    path.chmod(0o777 & ~umask)
            (top / "parts/x/link").symlink_to(top / "parts/x/dir")
            (top / "parts/x/relative").symlink_to("dir/plain")
            names = ["1", "2", "3"]
            for name in reversed(names) if newest_first else names:
                os.link(top / "parts/x/dir/plain", top / f"parts/x/dir/hard{name}")
            cache = top / "parts/x/dir/__pycache__"
            if newest_first:
                cache.mkdir()
                (cache / "m.cpython-311.pyc").write_bytes(b"left behind")
        finally:
            os.umask(before)

    def digest(
        self,
        name: str,
        *,
        umask: int = 0o022,
        newest_first: bool = False,
        before: str = "",
        **environment: str,
    ) -> str:
        top = self.work / name / "site"
        top.parent.mkdir()
        self.make(top, umask=umask, newest_first=newest_first)
        work = self.work / name / "work"
        return elsewhere(
            top, work, before=f"import os; os.umask({umask})\n{before}", environment=environment
        )[0]

    def test_c20_the_same_digest_everywhere(self) -> None:
        reference = self.digest("one")
        digests = {
            "again": self.digest("two"),
            "umask 077": self.digest("three", umask=0o077),
            "umask 000": self.digest("umask", umask=0),
            "another place": self.digest(
                "in a much longer directory, \u00fc %x", newest_first=True
            ),
            "time zone": self.digest("tz", TZ="Asia/Kathmandu"),
            "locale": self.digest("locale", LC_ALL="C", LANG="tr_TR.UTF-8", PYTHONUTF8="0"),
            "hashes": self.digest("hash", PYTHONHASHSEED="1"),
            "other hashes": self.digest("hash2", PYTHONHASHSEED="4294967295"),
            "order": self.digest("order", before=_SHUFFLED, newest_first=True),
            "optimised": self.digest("o", PYTHONOPTIMIZE="2", PYTHONDONTWRITEBYTECODE="1"),
            "home": self.digest("home", HOME="/nonexistent", TMPDIR=os.fspath(self.work)),
        }
        self.assertEqual(digests, dict.fromkeys(digests, reference))

    def test_c20_the_same_digest_as_another_user(self) -> None:
        self.make(self.top / "inside")

        def work() -> Any:
            place = pathlib.Path(tempfile.mkdtemp(dir=self.work))
            digests = [build(self.top / "inside", place, outputs=["bin/run", "parts/x"]).digest]
            self.make(place / "own")
            (place / "second").mkdir()
            digests.append(
                build(place / "own", place / "second", outputs=["bin/run", "parts/x"]).digest
            )
            return digests

        # what is imported late can't be read by the other user
        mine = work()
        self.assertEqual(as_nobody(work), mine)
        self.assertEqual(len(set(mine)), 1)

    def test_c22_the_same_digest_at_any_time(self) -> None:
        reference = self.digest("now")
        for now in (0.0, 4_102_444_800.0, 32_503_680_000.0):
            clock = _CLOCK.format(now=now)
            self.assertEqual(self.digest(f"at {now:.0f}", before=clock), reference)
        faketime = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        for library in faketime:
            for when in ("1970-01-02 00:00:00", "2100-01-01 00:00:00"):
                digest = self.digest(
                    f"faketime {when}", LD_PRELOAD=os.fspath(library), FAKETIME=f"@{when}"
                )
                self.assertEqual(digest, reference)

    def test_c22_files_of_any_time(self) -> None:
        path = self.write("parts/x/file")
        digests = set()
        for when in (-(1 << 31), 0, 1, (1 << 31) - 1, (1 << 33) + 1, (1 << 34) - 1):
            with contextlib.suppress(OverflowError):
                os.utime(path, (when, when))
            digests.add(self.build().digest)
        self.assertEqual(len(digests), 1)

    def test_c21_no_source_date_epoch_means_a_fixed_one(self) -> None:
        self.write("parts/x/file")
        with mock.patch.dict(os.environ):
            os.environ.pop("SOURCE_DATE_EPOCH", None)
            from eggcrate.recipes.docker_image import _epoch

            self.assertEqual(_epoch(None), DEFAULT_EPOCH)
        built = self.build(epoch=1_700_000_000)
        for layer in layer_bytes(built.archive):
            with tarfile.open(fileobj=io.BytesIO(layer)) as stream:
                self.assertEqual({member.mtime for member in stream}, {1_700_000_000})


class Sizes(Scratch):
    layer = layers.SLOW

    """C7, C8, C24: large, many, too many."""

    def test_c7_the_header_of_more_than_8_gib(self) -> None:
        size = 9 << 30
        entry = FileEntry("srv/data", FileType.REGULAR, 0o644, "data", "t", size=size)
        after = tar_header(bytes_file("srv/next", b"", group="data", reason="t"), 0)
        # a hole in place of the bytes
        path = self.work / "sparse.tar"
        with path.open("wb") as stream:
            stream.write(tar_header(entry, 0))
            stream.seek(size, os.SEEK_CUR)
            stream.write(after + bytes(1024))
        with tarfile.open(path) as archive:
            members = archive.getmembers()
        self.assertEqual(
            [(member.name, member.size) for member in members],
            [("srv/data", size), ("srv/next", 0)],
        )
        self.assertEqual(members[0].pax_headers["size"], str(size))
        # one byte less than what needs more than eleven octal digits
        smaller = dataclasses.replace(entry, size=(8 << 30) - 1)
        self.assertEqual(len(tar_header(smaller, 0)), 512)
        self.assertGreater(len(tar_header(dataclasses.replace(entry, size=8 << 30), 0)), 512)

    def test_c7_a_large_sparse_file_takes_little_memory(self) -> None:
        path = self.write("parts/x/sparse", b"begin")
        os.truncate(path, 200 << 20)
        with path.open("ab") as stream:
            stream.write(b"end")
        for compression in ("gzip", "none"):
            work = self.work / compression
            _, most = elsewhere(self.top, work, compression=compression)
            self.assertLess(most, MOST_MEMORY)
            self.assertEqual(validate(work / "image.tar"), [])

    def test_c7_random_data_takes_little_memory(self) -> None:
        block = random.Random(1).randbytes(1 << 20)
        for number in range(3):
            with (self.top / f"parts/x/{number}").open("wb") as stream:
                for turn in range(100):
                    stream.write(block[turn:] + block[:turn])
        _, most = elsewhere(self.top, self.work)
        self.assertLess(most, MOST_MEMORY)

    def test_c8_what_is_known_of_many_files(self) -> None:
        for number in range(10):
            path = self.write(f"parts/x/{number}", f"{number}")
            os.utime(path, (1, 1))
        patch = mock.patch.multiple(payload_files, _MANY=3, TICK=0)
        patch.start()
        self.addCleanup(patch.stop)
        time.sleep(0.05)  # longer than a tick of the file system's clock
        first = self.build()
        with mock.patch.object(Files, "_read", side_effect=AssertionError):
            self.assertEqual(self.build().digest, first.digest)
        files = Files(Relocation((Rule(os.fspath(self.top), "/image"),)), first.store)
        paths = [self.top / f"parts/x/{number}" for number in range(10)]
        for path in paths:
            files.facts(os.fspath(path), path.stat(), secrets=True)
        self.assertEqual([path for path, *_ in files.seen()], list(map(os.fspath, paths)))

    def test_c24_more_layers_than_engines_take(self) -> None:
        self.write("parts/x/file")
        for budget in (0, 128, 1000):
            (message,) = self.refused(layers=budget)
            self.assertIn(f"layers = {budget}", message)
            self.assertIn("to 127", message)
        self.assertFalse((self.work / "cache/blobs").exists())

    def test_c24_as_many_as_they_take(self) -> None:
        eggs = [
            FileEntry(
                f"eggs/e{number}",
                FileType.REGULAR,
                0o644,
                f"egg e{number}-1",
                "t",
                size=(5 << 20) + number,
                digest="0" * 64,
            )
            for number in range(200)
        ]
        self.assertEqual(len(plan_layers(merge(eggs), 127).layers), 127)


class ManyFiles(Scratch):
    layer = layers.SLOW

    def test_c8_100_000_files_take_little_memory(self) -> None:
        number = 100_000
        for start in range(0, number, 50):
            place = (
                self.top / f"parts/x/package_{start // 1000:03}/module_{start // 50 % 20:02}"
            )
            place.mkdir(parents=True)
            for one in range(start, start + 50):
                (place / f"some_file_{one:06}.txt").write_bytes(b"%d\n" % one)
        first, most = elsewhere(self.top, self.work)
        self.assertLess(most, MOST_MEMORY)
        # and once more, with what is known of them
        second, most = elsewhere(self.top, self.work)
        self.assertLess(most, MOST_MEMORY)
        self.assertEqual(first, second)
        # a block for each header and each file's few bytes, and the end
        directories = 3 + 100 + 2000
        (layer,) = layer_bytes(self.work / "image.tar")
        blocks = 2 * number + directories + 2
        self.assertEqual(len(gzip.decompress(layer)), 512 * blocks)


class Secrets(Scratch):
    """C19: what nobody should publish."""

    def everything(self, built: Built) -> bytes:
        """All bytes of the archive, and those of its layers uncompressed."""
        layers = (
            gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer
            for layer in layer_bytes(built.archive)
        )
        return built.archive.read_bytes() + b"".join(layers)

    def test_c19_files_that_hold_secrets_stay_out(self) -> None:
        names = (
            *(".git/config", ".git/objects/pack/x", ".hg/hgrc", ".svn/auth/x", ".env"),
            *(".env.production", ".envrc", ".netrc", ".pypirc", "pip.conf", "id_rsa", "id_dsa"),
            *("id_ecdsa", "id_ed25519", ".ssh/config", ".aws/credentials", ".gnupg/x"),
            *(".docker/config.json", ".dockercfg", ".npmrc", ".git-credentials"),
            *(".installed.cfg", ".mr.developer.cfg"),
        )
        for place in ("", "parts/x/", "parts/x/deep/er/", "src/shop/shop/"):
            for name in names:
                self.write(f"{place}{name}", f"password = {CANARY}\n")
        self.write("src/shop/shop/__init__.py")
        self.write(
            "parts/x/kept", " ".join(f"'TOP/parts/x/{name}' 'TOP/{name}'" for name in names)
        )
        self.write("bin/run", "".join(f"'TOP/src/shop/shop/{name}'\n" for name in names))
        (self.top / "parts/x/link").symlink_to(self.top / ".env")
        (self.top / "parts/x/relative").symlink_to("../../.git/config")
        built = self.build(
            outputs=["parts/x", "bin/run", *names],
            includes=[("parts/x", "/srv/x"), ("src", "")],
        )
        self.assertNotIn(CANARY.encode(), self.everything(built))
        paths = unpacked(built.archive).paths
        for name in ("image/parts/x/kept", "srv/x/kept", "image/src/shop/shop/__init__.py"):
            self.assertIn(name, paths)

    def test_c19_none_of_them_can_be_included(self) -> None:
        for name in (".env", ".git", "id_rsa", ".installed.cfg"):
            self.write(f"{name}/x" if name == ".git" else name, CANARY)
            (message,) = self.refused(outputs=(), includes=[(name, "/srv/x")])
            self.assertIn(f"include: {name} is of a kind that stays out of images", message)
            self.assertNotIn(CANARY, message)

    def test_c19_a_password_in_a_url(self) -> None:
        for name, text in (
            (
                "buildout.cfg",
                f"[buildout]\nindex = https://user:{CANARY}@index.shop.internal/simple\n",
            ),
            ("settings.ini", f"url=postgresql://shop:{CANARY}@db.shop.internal:5432/shop"),
            ("conf.json", f'{{"broker": "amqp://u:{CANARY}@mq.shop.internal//"}}'),
        ):
            with self.subTest(name):
                path = self.write(f"parts/x/{name}", text)
                (message,) = self.refused()
                self.assertIn(f"parts/x/{name}", message)
                self.assertNotIn(CANARY, message)
                path.unlink()

    def test_c19_a_private_key(self) -> None:
        kind = "PRIVATE KEY"
        lines = "\n".join(["A" * 64] * 8)
        self.write(
            "parts/x/server.pem", f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n"
        )
        (message,) = self.refused()
        self.assertIn("there is a private key in parts/x/server.pem", message)

    def test_c19_no_secret_in_the_environment_of_the_build(self) -> None:
        self.write("parts/x/file")
        with mock.patch.dict(os.environ, PIP_INDEX_URL=f"https://u:{CANARY}@index.example/"):
            self.assertNotIn(CANARY.encode(), self.everything(self.build()))


# A shell for the images, as this machine has it --------------------------------------------


def shell(test: unittest.TestCase) -> list[FileEntry]:
    """``/bin/sh`` and its libraries, in a system whose ``/bin`` and ``/lib`` are links."""
    done = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=False)
    if done.returncode:
        layers.skip(
            test, "needs a /bin/sh, and ldd to find its libraries: apt-get install libc-bin"
        )
    entries = [base_link(name, f"usr/{name}") for name in ("bin", "lib", "lib64")]
    for word in ("/bin/sh", *done.stdout.split()):
        if not word.startswith("/"):
            continue
        place = word.strip("/")
        if not place.startswith("usr/"):
            place = f"usr/{place}"
        data = pathlib.Path(word).read_bytes()
        entries.append(base_file(place, data, 0o755))
    for name in ("lib", "lib64"):
        entries.append(directory(f"usr/{name}", group="packages", reason="the package base"))
    return entries


class InAnEngine:
    """What an engine makes of an image that has all of it."""

    engine: layers.Engine

    def setUp(self) -> None:
        assert isinstance(self, unittest.TestCase)
        self.engine.require(self)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        root = pathlib.Path(os.path.realpath(scratch.name))
        self.top, self.work = root / "site", root / "work"
        self.work.mkdir()

    def exported(self, container: layers.Container) -> Unpacked:
        path = self.work / "container.tar"
        self.engine.cli("export", "--output", path, container.identifier)
        with tarfile.open(path) as stream:
            return read_tar(stream)

    def test_every_odd_file(self) -> None:
        assert isinstance(self, unittest.TestCase)
        odd_tree(self.top / "parts/x")
        built = build(self.top, self.work, base=shell(self), command=["/bin/sh"])
        self.assertEqual(validate(built.archive), [])
        with self.running(
            built, ["/bin/sh", "-c", "test -f /image/parts/x/sizes/0000000"]
        ) as it:
            self.assertEqual(it.wait(), 0, it.logs())
            found = self.exported(it)
        expected = on_disk(os.fsencode(self.top / "parts/x"), "image/parts/x")
        inside = {
            path: seen
            for path, seen in found.paths.items()
            if path == "image/parts/x" or path.startswith("image/parts/x/")
        }
        self.assertEqual(differences(Unpacked(inside, found.twins), expected), [])

    def test_c2_bin_stays_a_link_and_the_shell_works(self) -> None:
        assert isinstance(self, unittest.TestCase)
        site_at(self.top)
        (self.top / "hello").write_text("#!/bin/sh\necho hello from $0\n")
        (self.top / "hello").chmod(0o755)
        built = build(
            self.top,
            self.work,
            outputs=(),
            includes=[("hello", "/bin/hello"), ("hello", "/lib/x/hello")],
            base=shell(self),
        )
        with self.running(built, ["/bin/hello"]) as it:
            self.assertEqual(it.wait(), 0, it.logs())
            self.assertEqual(it.logs(), "hello from /bin/hello\n")
            found = self.exported(it).paths
        self.assertEqual(found["bin"], Seen("symlink", 0o777, "usr/bin"))
        self.assertEqual(found["lib"], Seen("symlink", 0o777, "usr/lib"))
        self.assertIn("usr/bin/hello", found)
        self.assertIn("usr/lib/x/hello", found)

    def test_c23_next_to_nothing(self) -> None:
        (self.top / "parts/x").mkdir(parents=True)
        for outputs in ((), ("parts/x",)):
            self.engine.load(build(self.top, self.work, outputs=outputs).archive)

    @contextlib.contextmanager
    def running(self, built: Built, command: Sequence[str]) -> Iterator[layers.Container]:
        container = self.engine.run(self.engine.load(built.archive), args=command)
        try:
            yield container
        finally:
            container.remove()


class DockerTest(InAnEngine, unittest.TestCase):
    layer = layers.DOCKER_ENGINE
    engine = layers.DOCKER_ENGINE


class PodmanTest(InAnEngine, unittest.TestCase):
    layer = layers.PODMAN
    engine = layers.PODMAN


class UmociTest(Scratch):
    layer = layers.SLOW

    def test_every_odd_file(self) -> None:
        for program in ("skopeo", "umoci"):
            if not shutil.which(program):
                layers.skip(self, f"needs {program}: apt-get install {program}")
        shutil.rmtree(self.top / "parts/x")
        odd_tree(self.top / "parts/x")
        built = self.build()
        layout, bundle = self.work / "oci", self.work / "bundle"
        for command in (
            ("skopeo", "copy", f"oci-archive:{built.archive}", f"oci:{layout}:latest"),
            ("umoci", "unpack", "--rootless", "--image", f"{layout}:latest", bundle),
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
        found = on_disk(
            os.fsencode(bundle / "rootfs/image/parts/x"), "image/parts/x", plain=False
        )
        expected = on_disk(os.fsencode(self.top / "parts/x"), "image/parts/x")
        self.assertEqual(differences(found, expected), [])
        same = os.lstat(bundle / "rootfs/image/parts/x/same/0")
        self.assertEqual(same.st_nlink, 2)
