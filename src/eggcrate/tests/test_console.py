"""``bin/image`` as people call it, without a network (see also ``test_inner_loop``)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from typing import Any
from unittest import mock

import eggcrate.image.sbom
import eggcrate.planning
from eggcrate.build import last
from eggcrate.console import main
from eggcrate.image import cache, compression
from eggcrate.image.oci import reference
from eggcrate.image.store import Store
from eggcrate.payload.interpreter import Interpreter
from eggcrate.payload.site import Site
from eggcrate.runtime.variables import Document, Piece, Setting, Settings, dumped
from eggcrate.settings import ImageSettings, document, this_platform
from eggcrate.tests.fake_registry import FakeRegistry
from eggcrate.tests.test_record import KEY, PROGRAM, Buildout
from eggcrate.tests.validator import validate

COMMANDS = (
    *("build", "plan", "why", "diff", "report"),
    *("verify", "save", "push", "load", "run", "sbom", "rebase", "settings", "cache"),
)

# ``bin/image`` in a process of its own
_PROGRAM = """
import sys
from eggcrate.console import main
sys.exit(main("bin/image", sys.argv[1], sys.argv[2:]))
"""


def run_main(
    location: pathlib.Path, *words: str, out: io.TextIOWrapper | None = None
) -> tuple[int, str, str]:
    """The exit code of ``bin/image``, and what was printed to both streams."""
    kept = io.BytesIO()
    out = out or io.TextIOWrapper(kept, encoding="utf-8")
    err = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main("bin/image", os.fspath(location), words)
        except SystemExit as error:
            code = int(error.code or 0)
    out.flush()
    return code, kept.getvalue().decode("utf-8", "surrogateescape"), err.getvalue()


class Words(unittest.TestCase):
    """What is said without an image, and to wrong arguments."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.location = self.root / "parts" / "image"
        self.location.mkdir(parents=True)
        place = mock.patch.dict(os.environ, EGGCRATE_CACHE=os.fspath(self.root / "cache"))
        place.start()
        self.addCleanup(place.stop)
        here = self.root
        settings = ImageSettings(
            references=(reference("acme/shop", "latest"),),
            platform=this_platform(),
            site=Site(here, here, here, here, here, here, here, (), ()),
            parts=(),
            directory="/srv",
            location=self.location,
        )
        (self.location / "settings.json").write_bytes(document(settings))

    def run_main(self, *words: str) -> tuple[int, str, str]:
        return run_main(self.location, *words)

    def test_every_command_has_its_help(self) -> None:
        code, listed, _ = self.run_main("--help")
        self.assertEqual(code, 0)
        for command in COMMANDS:
            self.assertIn(f"\n    {command} ", listed)
            code, text, _ = self.run_main(command, "--help")
            self.assertEqual(code, 0)
            self.assertIn(f"usage: bin/image {command}", text)

    def test_wrong_arguments_end_with_2(self) -> None:
        for words in (
            *((), ("bild",), ("build", "--fast"), ("why",), ("save",), ("save", "a", "b")),
            *(("sbom", "--layer", "x"), ("sbom", "--format", "x"), ("cache", "x")),
            *(("settings", "a", "b"), ("settings", "--output")),
            *(("rebase", "--base"), ("plan", "x"), ("diff", "x"), ("report", "a", "b")),
        ):
            code, _, said = self.run_main(*words)
            self.assertEqual(code, 2, words)
            self.assertIn("usage: bin/image", said)

    def test_what_needs_an_image_says_how_to_have_one(self) -> None:
        for words in (
            ("why", "x"),
            ("diff",),
            ("report",),
            ("verify",),
            ("sbom",),
            ("rebase",),
            ("settings",),
        ):
            code, printed, said = self.run_main(*words)
            self.assertEqual((code, printed), (1, ""), words)
            self.assertEqual(
                said,
                f"bin/image: the cache does not know the image at {self.location}; build it, "
                "with bin/buildout or with the command build\n",
            )

    def test_there_is_nothing_to_push(self) -> None:
        self.assertEqual(
            self.run_main("push"),
            (1, "", f"bin/image: there is no image at {self.location}/oci; build it first\n"),
        )

    def test_there_is_nothing_to_save(self) -> None:
        code, _, said = self.run_main("save", os.fspath(self.root / "copy.tar"))
        self.assertEqual(code, 1)
        self.assertIn("there is no", said)
        self.assertFalse((self.root / "copy.tar").exists())

    def test_a_copy_takes_the_place_of_what_is_there(self) -> None:
        """E11: a file, a link to one, a link to nothing; what a link names stays."""
        (self.location / "image.tar").write_bytes(b"archive")
        target = self.root / "copy.tar"
        other = self.root / "other.tar"
        other.write_bytes(b"kept")
        target.write_bytes(b"old")
        for link in (None, other, self.root / "nothing"):
            if link is not None:
                target.unlink()
                target.symlink_to(link)
            self.assertEqual(self.run_main("save", os.fspath(target)), (0, "", ""))
            self.assertEqual(target.read_bytes(), b"archive")
            self.assertFalse(target.is_symlink())
        self.assertEqual(other.read_bytes(), b"kept")
        self.assertFalse((self.root / "nothing").exists())

    def test_a_copy_goes_where_there_is_a_directory(self) -> None:
        """E11: a directory is none."""
        (self.location / "image.tar").write_bytes(b"archive")
        for target, words in (
            (self.root / "no" / "copy.tar", "there is no directory"),
            (self.root, "is a directory"),
        ):
            code, _, said = self.run_main("save", os.fspath(target))
            self.assertEqual(code, 1)
            self.assertIn(words, said)
        self.assertFalse((self.root / "no").exists())
        code, _, said = self.run_main("save", os.fspath(self.root / "copy.tar"))
        self.assertEqual((code, said), (0, ""))
        self.assertEqual((self.root / "copy.tar").read_bytes(), b"archive")

    def test_without_settings(self) -> None:
        (self.location / "settings.json").unlink()
        code, _, said = self.run_main("build")
        self.assertEqual(code, 1)
        self.assertRegex(
            said, r"^bin/image: \S+settings.json can't be read: No such file .*\n$"
        )

    def test_the_cache_is_shown_and_pruned_without_an_image(self) -> None:
        code, printed, _ = self.run_main("cache")
        self.assertEqual(code, 0)
        self.assertIn(os.fspath(self.root / "cache"), printed)
        code, printed, _ = self.run_main("cache", "prune", "--all")
        self.assertEqual((code, printed[:9]), (0, "0 removed"))


class Commands(Buildout):
    """Each command, on an image."""

    def setUp(self) -> None:
        super().setUp()
        self.location = self.settings.location
        (self.location / "settings.json").write_bytes(document(self.settings))
        places = mock.patch.dict(
            os.environ, EGGCRATE_CACHE=os.fspath(self.store.root), EGGCRATE_CACHE_SIZE=""
        )
        places.start()
        self.addCleanup(places.stop)
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.directory)

    def run_image(self, *words: str, code: int = 0) -> tuple[str, str]:
        """What a command prints, and what it says on the other stream."""
        found, printed, said = run_main(self.location, *words)
        self.assertEqual(found, code, printed + said)
        return printed, said

    def digest(self) -> str:
        return (self.location / "digest").read_text().strip()

    def layers(self) -> dict[str, str]:
        """The digests of the image's layers, as its documents have them."""
        image = last(self.settings, self.store)
        manifest = json.loads(self.store.blob(image.manifest.digest).read_bytes())
        names = [layer.plan.name for layer in image.layers]
        return dict(zip(names, (item["digest"] for item in manifest["layers"]), strict=True))

    # build and plan

    def test_build(self) -> None:
        printed, said = self.run_image("build")
        self.assertRegex(
            printed,
            r"\Aacme/shop:1, acme/shop:latest  sha256:[0-9a-f]{64}  6 layers, \d+(\.\d)? kB"
            r"  \(6 changed, \d+(\.\d)? kB\)\n\Z",
        )
        self.assertIn(f"  {self.digest()}  ", printed)
        self.assertEqual(said, "")
        self.assertIn("  (unchanged)\n", self.run_image("build")[0])
        self.write("docs/index.txt", "changed")
        self.assertRegex(self.run_image("build")[0], r"\(1 changed, \d+ bytes\)\n")
        self.assertEqual(validate(self.location / "oci"), [])
        self.assertEqual(validate(self.location / "image.tar"), [])

    def test_build_is_quiet_when_asked(self) -> None:
        self.assertEqual(self.run_image("-q", "build"), ("", ""))
        self.assertTrue(self.digest())

    def test_only_newest_asks_for_package_lists(self) -> None:
        asked: list[ImageSettings] = []
        base: Any = eggcrate.planning.Base

        def watched(settings: ImageSettings, store: Store) -> Any:
            asked.append(settings)
            return base(settings, store)

        self.patch(eggcrate.planning, "Base", watched)
        self.settings = dataclasses.replace(self.settings, offline=True)
        (self.location / "settings.json").write_bytes(document(self.settings))
        self.run_image("build")
        self.assertEqual([(item.refresh, item.offline) for item in asked], [(False, False)])
        asked.clear()
        self.run_image("build", "--newest")
        self.assertEqual([(item.refresh, item.offline) for item in asked], [(True, False)])

    def test_each_mistake_has_its_line(self) -> None:
        self.write("docs/key", KEY)
        self.write("docs/library.bin", b"\0" + os.fsencode(self.directory) + b"/lib")
        for command in ("build", "plan"):
            printed, said = self.run_image(command, code=1)
            self.assertEqual(printed, "")
            lines = said.splitlines()
            self.assertEqual(len(lines), 2, said)
            self.assertIn("docs/library.bin; build them so that", lines[0])
            self.assertIn("there is a private key in docs/key; give it", lines[1])
            for line in lines:
                self.assertTrue(line.startswith("bin/image: "))
        self.assertEqual([path.name for path in self.location.iterdir()], ["settings.json"])

    def test_plan_writes_nothing(self) -> None:
        printed, _ = self.run_image("plan")
        self.assertIn("  4  0644           7  /srv/docs/index.txt  (include: docs", printed)
        self.assertEqual([path.name for path in self.location.iterdir()], ["settings.json"])
        self.run_image("build")
        self.assertEqual((self.location / "plan.txt").read_text(), printed)

    def test_plan_says_what_to_look_at(self) -> None:
        os.mkfifo(self.path("docs/fifo"))
        _, said = self.run_image("plan")
        self.assertEqual(said, "neither file, directory nor link, and left out: docs/fifo\n")

    def test_names_of_any_letters(self) -> None:
        with open(os.fsencode(self.path("docs")) + b"/\xff\n\xe2\x80\xae", "wb"):
            pass
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        code, _, said = run_main(self.location, "plan", out=out)
        self.assertEqual((code, said), (0, ""))
        buffer = out.buffer
        assert isinstance(buffer, io.BytesIO)
        self.assertIn(b"/srv/docs/\\xff\\x0a\\u202e  (", buffer.getvalue())

    # push

    def test_push(self) -> None:
        server = FakeRegistry()
        self.addCleanup(server.close)
        nobody = mock.patch.dict(os.environ, REGISTRY_AUTH_FILE=os.fspath(self.path("none")))
        nobody.start()
        self.addCleanup(nobody.stop)
        self.run_image("build")
        name = f"{server.host}/acme/shop"
        _, said = self.run_image("push", name, code=1)
        self.assertIn(f"bin/image: {server.host} does not speak TLS", said)
        words = ("push", f"{name}:1", f"{name}:2", "--insecure", server.host)
        printed, said = self.run_image(*words, "--attach", "sbom,provenance")
        digest = self.digest()
        self.assertRegex(
            printed,
            rf"\Apushed {name}:1, {name}:2 {digest} \(\d+ kB sent, 0 of 6 layers there\)\n"
            rf"attached sbom {name}@sha256:\w+\nattached provenance {name}@sha256:\w+\n\Z",
        )
        self.assertEqual(said, "")
        for tag in "12":
            data = server.manifests["acme/shop", tag][1]
            self.assertEqual(f"sha256:{hashlib.sha256(data).hexdigest()}", digest)
        referrers = json.loads(server.manifests["acme/shop", digest.replace(":", "-")][1])
        self.assertEqual(
            {entry["artifactType"] for entry in referrers["manifests"]},
            {"application/vnd.cyclonedx+json", "application/vnd.in-toto+json"},
        )
        self.assertIn("6 of 6 layers there", self.run_image(*words)[0])
        self.assertEqual(self.run_image("-q", *words), ("", ""))

    def test_push_goes_where_the_options_say(self) -> None:
        server = FakeRegistry()
        self.addCleanup(server.close)
        self.run_image("build")
        settings = dataclasses.replace(
            self.settings,
            references=(reference(f"{server.host}/a", "1"),),
            insecure_registries=(server.host,),
        )
        for push in ((), (reference(f"{server.host}/a", "2"),)):
            settings = dataclasses.replace(settings, push=push)
            (self.location / "settings.json").write_bytes(document(settings))
            self.run_image("push")
        self.assertIn(("a", "1"), server.manifests)
        self.assertIn(("a", "2"), server.manifests)

    def test_what_can_not_be_attached(self) -> None:
        self.run_image("build")
        _, said = self.run_image("push", "--attach", "sbom,cat", code=1)
        self.assertEqual(
            said,
            "bin/image: 'cat' can't be attached; use some of sbom, spdx, provenance\n",
        )

    # why, diff, report

    def test_why_by_a_path_of_the_image(self) -> None:
        self.run_image("build")
        printed, said = self.run_image("why", "/srv/docs/index.txt")
        self.assertEqual(
            printed.splitlines(),
            [
                "/srv/docs/index.txt",
                "  why      include: docs",
                "  layer    4, data",
                "  group    data",
                "  mode     0644, 0:0",
                "  bytes    7",
                f"  sha256   {hashlib.sha256(b'read me').hexdigest()}",
                f"  from     {self.directory}/docs/index.txt",
            ],
        )
        self.assertEqual(said, "")

    def test_why_by_a_path_of_this_machine(self) -> None:
        self.run_image("build")
        wanted = self.run_image("why", "srv/app/develop/shop/shop/views.py")[0]
        self.assertIn("\n  why      named in bin/run\n", wanted)
        path = self.path("SHOP/shop/views.py")
        for name in (os.fspath(path), os.path.relpath(path)):
            self.assertEqual(self.run_image("why", name)[0], wanted)

    def test_why_of_directories_links_and_what_links_lead_to(self) -> None:
        self.run_image("build")
        self.assertIn("\n  symlink  a.txt\n", self.run_image("why", "parts/data/link")[0])
        self.assertIn("\n  mode     0755, 0:0\n", self.run_image("why", "parts/data")[0])
        self.assertTrue(self.run_image("why", "/bin/sh")[0].startswith("/usr/bin/sh\n  why   "))

    def test_why_of_several(self) -> None:
        self.run_image("build")
        printed, said = self.run_image("why", "bin/run", "setup.py", "/usr", code=1)
        self.assertEqual(
            [line for line in printed.splitlines() if line[0] == "/"],
            ["/srv/app/bin/run", "/usr"],
        )
        self.assertEqual(said, "/srv/app/setup.py is not in the image\n")

    def test_diff(self) -> None:
        self.run_image("build")
        self.assertIn("no image before: 6 layers, ", self.run_image("diff")[0])
        for number in range(60):
            self.write(f"docs/many/{number}.txt", "x")
        self.write("SHOP/shop/views.py", "X = 3\n")
        self.run_image("build")
        printed, said = self.run_image("diff")
        self.assertIn("/srv/docs/many/", printed)
        self.assertIn("views.py", printed)
        self.assertEqual(said, "")
        every = self.run_image("diff", "--all")[0]
        for number in range(60):
            self.assertIn(f"/srv/docs/many/{number}.txt", every)
        self.assertLess(len(printed), len(every))

    def test_report(self) -> None:
        self.run_image("build")
        path = self.location / "report.html"
        self.assertEqual(self.run_image("report"), (f"{path}\n", ""))
        page = path.read_text()
        self.assertIn("acme/shop", page)
        self.assertIn(self.digest().partition(":")[2][:12], page)
        self.assertEqual(self.run_image("-q", "report", "other.html"), ("", ""))
        self.assertEqual((self.directory / "other.html").read_text(), page)
        # it is no part of the image, and the next build leaves it alone
        self.run_image("build")
        self.assertEqual(path.read_text(), page)

    # verify

    def test_verify_what_is_the_same(self) -> None:
        self.run_image("build")
        self.write("docs/index.txt", "changed")
        self.run_image("build")  # from what the first one remembers
        printed, said = self.run_image("verify")
        self.assertEqual(printed, f"{self.digest()} was built again, and is the same\n")
        self.assertEqual(said, "")
        left = [path.name for path in self.store.root.iterdir() if "tmp" in path.name]
        self.assertEqual(left, [])

    def test_verify_what_is_not(self) -> None:
        self.run_image("build")
        self.write("SHOP/shop/views.py", "X = 3\n")
        digest = self.digest()
        printed, said = self.run_image("verify", code=1)
        self.assertRegex(
            said, rf"\A{digest} is not what is built now, sha256:[0-9a-f]{{64}}\n\Z"
        )
        self.assertIn("views.py", printed)
        self.assertEqual(self.digest(), digest)

    def test_verify_with_another_compressor(self) -> None:
        self.run_image("build")
        self.addCleanup(compression.compressor.cache_clear)
        compression.compressor.cache_clear()
        self.patch(compression, "_deflate_version", lambda: "99.0")
        _, said = self.run_image("verify", code=1)
        self.assertIn("; the layers hold the same, compressed otherwise\n", said)

    def test_verify_a_damaged_layout(self) -> None:
        """E10: a blob with another byte, half a one, and none."""
        self.run_image("build")
        (blob, *_) = (self.location / "oci/blobs/sha256").iterdir()
        data = blob.read_bytes()
        for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data[: len(data) // 2], None):
            blob.unlink()
            if damaged is not None:
                blob.write_bytes(damaged)
            _, said = self.run_image("verify", code=1)
            self.assertEqual(
                said,
                f"bin/image: {blob} is not what its name says; remove the directory, and build "
                "again\n",
            )

    # save and sbom

    def test_save(self) -> None:
        self.run_image("build")
        data = (self.location / "image.tar").read_bytes()
        self.assertEqual(self.run_image("save", "copy.tar"), ("", ""))
        self.assertEqual((self.directory / "copy.tar").read_bytes(), data)
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        self.assertEqual(run_main(self.location, "save", "-", out=out)[0], 0)
        buffer = out.buffer
        assert isinstance(buffer, io.BytesIO)
        self.assertEqual(buffer.getvalue(), data)

    def test_an_archive_is_nothing_for_a_terminal(self) -> None:
        self.run_image("build")
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        with open(theirs, "w", encoding="utf-8") as out:
            assert isinstance(out, io.TextIOWrapper)
            code, _, said = run_main(self.location, "save", "-", out=out)
        self.assertEqual(code, 1)
        self.assertIn("name a file, or pipe it", said)

    def test_sbom(self) -> None:
        self.run_image("build")
        cyclonedx = json.loads(self.run_image("sbom")[0])
        self.assertEqual(cyclonedx["bomFormat"], "CycloneDX")
        names = {component["name"] for component in cyclonedx["components"]}
        self.assertLessEqual({"one", "two"}, names)
        spdx = json.loads(self.run_image("sbom", "--format", "spdx")[0])
        self.assertEqual(spdx["spdxVersion"], "SPDX-2.3")
        printed = self.run_image("sbom", "--format", "provenance")[0]
        statement = json.loads(printed)
        self.assertEqual(
            statement["subject"][0]["digest"]["sha256"], self.digest().partition(":")[2]
        )
        # nothing of this machine
        self.assertNotIn(os.fspath(self.root), printed)
        # the same once more
        self.assertEqual(json.loads(self.run_image("sbom")[0]), cyclonedx)

    def test_sbom_of_a_layer(self) -> None:
        self.run_image("build")
        found = []
        for layer in range(1, 7):
            document = json.loads(self.run_image("sbom", "--layer", str(layer))[0])
            names = {component["name"] for component in document.get("components", ())}
            found.append("one" in names)
        self.assertEqual(found, [False, False, True, False, False, False])
        for wrong in ("0", "7", "-1"):
            _, said = self.run_image("sbom", f"--layer={wrong}", code=1)
            self.assertEqual(
                said,
                f"bin/image: there is no layer {wrong}; name one of the 6, from 1 to 6\n",
            )

    # rebase

    def test_rebase_changes_the_packages_and_nothing_else(self) -> None:
        self.run_image("build")
        before, config = self.layers(), self.config()
        self.packages["usr/bin/sh"] = b"a shell without that hole"
        self.packages["usr/lib/more.txt"] = b"and more"
        printed, said = self.run_image("rebase")
        self.assertRegex(printed, r"6 layers, .*\(1 changed, \d+ bytes\)\n\Z")
        self.assertEqual(said, "")
        after = self.layers()
        self.assertEqual(
            [name for name in after if after[name] != before.get(name)], ["packages"]
        )
        self.assertEqual(list(after), list(before))
        self.assertEqual(validate(self.location / "oci"), [])
        self.assertEqual(validate(self.location / "image.tar"), [])
        self.assertEqual({**self.config(), "rootfs": 0}, {**config, "rootfs": 0})
        self.assertIn("/usr/lib/more.txt", (self.location / "plan.txt").read_text())
        self.assertIn("/usr/lib/more.txt", self.run_image("diff")[0])
        # and a build makes the same of it
        digest = self.digest()
        self.assertIn("(unchanged)", self.run_image("build")[0])
        self.assertEqual(self.digest(), digest)
        self.assertIn("is the same", self.run_image("verify")[0])

    def config(self) -> dict[str, Any]:
        image = last(self.settings, self.store)
        value: dict[str, Any] = json.loads(self.store.blob(image.config.digest).read_bytes())
        return value

    def test_rebase_on_the_same_packages(self) -> None:
        self.run_image("build")
        digest = self.digest()
        self.assertIn("(unchanged)", self.run_image("rebase")[0])
        self.assertEqual(self.digest(), digest)

    def test_rebase_does_not_look_at_what_was_edited(self) -> None:
        self.run_image("build")
        before = self.layers()
        self.write("SHOP/shop/views.py", "X = 3\n")
        self.packages["usr/bin/sh"] = b"another shell"
        self.run_image("rebase")
        after = self.layers()
        self.assertEqual(after["develop"], before["develop"])
        self.assertRegex(self.run_image("build")[0], r"\(1 changed, ")
        self.assertNotEqual(self.layers()["develop"], before["develop"])

    def test_rebase_on_another_release(self) -> None:
        self.run_image("build")
        suites: list[str | None] = []
        base: Any = eggcrate.planning.Base

        def watched(settings: ImageSettings, store: Store) -> Any:
            suites.append(settings.suite)
            return base(settings, store)

        self.patch(eggcrate.planning, "Base", watched)
        self.run_image("rebase", "--base", "trixie")
        self.assertEqual(suites, ["trixie"])

    def test_rebase_on_what_does_not_fit(self) -> None:
        self.run_image("build")
        digest = self.digest()
        del self.packages["usr/bin/sh"]
        _, said = self.run_image("rebase", code=1)
        self.assertIn("/srv/app/bin/run is run by /bin/sh, which is not in the image", said)
        self.packages["usr/bin/sh"] = b"a shell"
        base: Any = eggcrate.planning.Base
        other = Interpreter((3, 99), "/usr/bin/python3.99", "debian")
        self.patch(base.func, "python", lambda base: other)
        _, said = self.run_image("rebase", code=1)
        self.assertEqual(
            said,
            f"bin/image: the image runs on /{PROGRAM}, and the new base on "
            "/usr/bin/python3.99; run bin/buildout, which builds all of it for another "
            "Python\n",
        )
        self.assertEqual(self.digest(), digest)
        self.assertEqual(validate(self.location / "oci"), [])

    # The cache

    def test_the_cache(self) -> None:
        self.run_image("build")
        digest = self.digest()
        printed, _ = self.run_image("cache")
        self.assertEqual(printed, self.run_image("cache", "show")[0])
        self.assertRegex(printed, r"(?m)^  layers +\d+ ")
        self.assertTrue(self.run_image("cache", "prune")[0].startswith("0 removed, "))
        printed, _ = self.run_image("cache", "prune", "--all")
        self.assertRegex(printed, r"\A[1-9]\d* removed, ")
        self.assertEqual(self.run_image("why", "bin/run", code=1)[0], "")
        self.assertIn("(unchanged)", self.run_image("build")[0])
        self.assertEqual(self.digest(), digest)
        self.run_image("why", "bin/run")

    def test_nothing_is_pruned_beneath_a_command(self) -> None:
        self.run_image("build")
        pruned = []

        def prune(*_: object, **__: object) -> None:
            with mock.patch.object(cache, "_WAIT", 0):
                pruned.append(cache.prune(self.store.root, limit=0).busy)
            raise KeyboardInterrupt

        for words, module, name in (
            (("plan",), eggcrate.planning, "plan_image"),
            (("sbom",), eggcrate.image.sbom, "inventory"),
        ):
            with mock.patch.object(module, name, prune):
                self.run_image(*words, code=130)
        self.assertEqual(pruned, [True, True])

    def test_a_wrong_limit_of_the_cache(self) -> None:
        with mock.patch.dict(os.environ, EGGCRATE_CACHE_SIZE="much"):
            for words in (("build",), ("cache",), ("cache", "prune")):
                _, said = self.run_image(*words, code=1)
                self.assertIn("EGGCRATE_CACHE_SIZE is 'much', which is no size; set", said)

    # How programs end

    def test_a_reader_that_has_seen_enough(self) -> None:
        self.run_image("build")
        for words in (("plan",), ("save", "-"), ("diff",), ("why", "bin/run"), ("build",)):
            with self.subTest(words):
                ours, theirs = os.pipe()
                os.close(ours)
                with open(theirs, "w", encoding="utf-8") as out:
                    assert isinstance(out, io.TextIOWrapper)
                    code, _, said = run_main(self.location, *words, out=out)
                    self.assertEqual((code, said), (0, ""))

    def test_the_process_says_nothing_of_a_reader_that_has_gone(self) -> None:
        program = [sys.executable, "-c", _PROGRAM, os.fspath(self.location), "cache"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # or each line would be written at once
        environment.pop("PYTHONUNBUFFERED", None)
        ours, theirs = os.pipe()
        os.close(ours)
        try:
            done = subprocess.run(
                program, stdout=theirs, stderr=subprocess.PIPE, check=False, env=environment
            )
        finally:
            os.close(theirs)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_control_c(self) -> None:
        with mock.patch("eggcrate.build.build", side_effect=KeyboardInterrupt):
            self.assertEqual(self.run_image("build", code=130), ("", ""))

    def test_a_mistake_of_ours_keeps_its_traceback(self) -> None:
        with (
            mock.patch("eggcrate.build.build", side_effect=ZeroDivisionError),
            self.assertRaises(ZeroDivisionError),
        ):
            self.run_image("build")

    def test_settings_that_are_damaged(self) -> None:
        path = self.location / "settings.json"
        path.write_bytes(path.read_bytes()[:-20])
        for words in (("build",), ("plan",), ("cache",)):
            self.assertEqual(
                self.run_image(*words, code=1)[1],
                f"bin/image: {path} is not of this release, or not whole; run bin/buildout, "
                "which writes it\n",
            )

    # settings

    def declare(self) -> None:
        """Have the image know a port, a list and a secret; app.ini has the first two."""
        port = Setting("port", "port", "PORT", "8080", "1024")
        names = Setting("server_name", "hostnames", "SERVER_NAME", "localhost")
        where = os.fspath(self.path("parts/conf/app.ini"))
        pieces = (f"# {where}\nport = ", Piece(port, "word"), "\n", Piece(names, "word"), "\n")
        known = Settings(
            (port, names), ("SECRET_KEY",), (Document(where, 0o644, "plain", pieces),)
        )
        self.write("parts/conf/app.ini", f"# {where}\nport = 8080\nlocalhost\n")
        (self.directory / "parts/.settings").mkdir()
        self.write("parts/.settings/conf.json", dumped(known))
        self.run_image("build")

    def test_what_can_be_set(self) -> None:
        self.declare()
        printed, said = self.run_image("settings")
        self.assertEqual(
            printed,
            "VARIABLE     TYPE           DEFAULT\n"
            "PORT         port min=1024  8080\n"
            "SERVER_NAME  hostnames      localhost\n"
            "SECRET_KEY   secret\n",
        )
        self.assertEqual(said, "")
        # of the image, whatever has become of the buildout
        self.write("parts/.settings/conf.json", "{}")
        self.assertEqual(self.run_image("settings")[0], printed)

    def test_an_image_without_settings(self) -> None:
        self.run_image("build")
        _, said = self.run_image("settings", code=1)
        self.assertEqual(
            said,
            "bin/image: the image has no runtime settings; declare some in the section runtime "
            "of buildout.cfg, and run bin/buildout\n",
        )

    def test_customers(self) -> None:
        self.declare()
        self.write(
            "customers.toml",
            '[acme]\nPORT = 9000\nSECRET_KEY = "x$y"\n[nobody]\n[other]\n'
            'SERVER_NAME = "a.example,b.example"\nSEVER_NAME = ""\nPROT = 1\n',
        )
        printed, said = self.run_image("settings", "customers.toml", "--output", "out")
        self.assertEqual(printed, "3 customers: nothing is wrong\n")
        self.assertEqual(
            said,
            "bin/image: customers.toml: warning: [other] PROT is set, which means nothing "
            "here; was it to be PORT?\n",
        )
        name = "srv/app/parts/conf/app.ini"
        found = {
            str(path.relative_to(self.directory / "out")): path.read_text()
            for path in (self.directory / "out").rglob("*")
            if path.is_file()
        }
        self.assertEqual(
            found,
            {
                f"acme/{name}": f"# /{name}\nport = 9000\nlocalhost\n",
                f"nobody/{name}": f"# /{name}\nport = 8080\nlocalhost\n",
                f"other/{name}": f"# /{name}\nport = 8080\na.example b.example\n",
            },
        )
        self.assertEqual(self.run_image("-q", "settings", "customers.toml")[0], "")

    def test_customers_that_would_not_start(self) -> None:
        self.declare()
        self.write("customers.toml", "[acme]\nPORT = 80\n[other]\nSERVER_NAME = 'a b_'\n")
        printed, said = self.run_image("settings", "customers.toml", "--output", "out", code=78)
        self.assertEqual(printed, "")
        self.assertRegex(
            said,
            r"\Abin/image: customers.toml: \[acme\] PORT must be a port number, 1024 to 65535\n"
            r"bin/image: customers.toml: \[other\] SERVER_NAME must be .*\n\Z",
        )
        self.assertFalse((self.directory / "out").exists())
        for text, words in (("[acme", "is no TOML: "), (None, "can't be read: No such file")):
            self.path("customers.toml").unlink()
            if text:
                self.write("customers.toml", text)
                text = None
            _, said = self.run_image("settings", "customers.toml", code=1)
            self.assertIn(words, said)
        _, said = self.run_image("settings", "--output", "out", code=1)
        self.assertIn("there are no customers", said)
