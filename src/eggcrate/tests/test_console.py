"""``bin/image`` without an image and with wrong arguments; ``test_inner_loop`` has more."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import tempfile
import unittest
from unittest import mock

from eggcrate.console import main
from eggcrate.image.oci import reference
from eggcrate.payload.site import Site
from eggcrate.settings import ImageSettings, document, this_platform

COMMANDS = (
    *("build", "plan", "why", "diff", "report"),
    *("verify", "save", "sbom", "rebase", "cache"),
)


class ConsoleTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.location = self.root / "parts" / "image"
        self.location.mkdir(parents=True)
        cache = mock.patch.dict(os.environ, EGGCRATE_CACHE=os.fspath(self.root / "cache"))
        cache.start()
        self.addCleanup(cache.stop)
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
        """The exit code, and what was printed to both streams."""
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        err = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main("bin/image", os.fspath(self.location), words)
            except SystemExit as error:
                code = int(error.code or 0)
        out.flush()
        buffer = out.buffer
        assert isinstance(buffer, io.BytesIO)
        return code, buffer.getvalue().decode(), err.getvalue()

    def test_every_command_has_its_help(self) -> None:
        code, listed, _ = self.run_main("--help")
        self.assertEqual(code, 0)
        for command in COMMANDS:
            self.assertIn(f"\n    {command} ", listed)
            code, text, _ = self.run_main(command, "--help")
            self.assertEqual(code, 0)
            self.assertIn(f"usage: bin/image {command}", text)

    def test_wrong_arguments_end_with_2(self) -> None:
        for words in ((), ("bild",), ("build", "--fast"), ("why",), ("sbom", "--layer", "x")):
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
        ):
            code, printed, said = self.run_main(*words)
            self.assertEqual((code, printed), (1, ""), words)
            self.assertEqual(
                said,
                f"bin/image: the cache does not know the image at {self.location}; build it, "
                "with bin/buildout or with the command build\n",
            )

    def test_there_is_nothing_to_save(self) -> None:
        code, _, said = self.run_main("save", os.fspath(self.root / "copy.tar"))
        self.assertEqual(code, 1)
        self.assertIn("there is no", said)
        self.assertFalse((self.root / "copy.tar").exists())

    def test_a_copy_goes_where_there_is_a_directory(self) -> None:
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
