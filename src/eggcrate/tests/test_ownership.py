"""What a part owns goes when the part goes, and not when it is installed anew."""

from __future__ import annotations

import pathlib
import tempfile
import unittest
from unittest import mock

import zc.buildout

from eggcrate.errors import PlanError, SeveralErrors
from eggcrate.recipes import ownership
from eggcrate.recipes.boundary import user_errors


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        # what other tests have declared in this process is not of this run
        fresh: set[str] = set()
        live = mock.patch.object(ownership, "_live", fresh)
        live.start()
        self.addCleanup(live.stop)

    def make(self, *names: str) -> list[pathlib.Path]:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        return [self.root / name for name in names]


class Ownership(Scratch):
    def test_what_was_declared_is_recorded_in_order(self) -> None:
        options: dict[str, str] = {}
        ownership.declare(options, [self.root / "b", self.root / "a"])
        self.assertEqual(options, {"owned": f"{self.root}/a\n{self.root}/b"})

    def test_a_part_that_is_gone_takes_its_things_along(self) -> None:
        self.make("tree/x/y", "file", "other")
        (self.root / "link").symlink_to(self.root / "other")
        names = ("tree", "file", "link", "never-made")
        owned = "\n".join(f"{self.root}/{name}" for name in names)
        ownership.uninstall("x", {"owned": owned})
        self.assertEqual([path.name for path in self.root.iterdir()], ["other"])

    def test_a_part_that_is_installed_anew_keeps_them(self) -> None:
        kept, gone = self.make("kept", "gone")
        options: dict[str, str] = {}
        ownership.declare(options, [kept])
        ownership.uninstall("x", {"owned": f"{kept}\n{gone}"})
        self.assertEqual(list(self.root.iterdir()), [kept])

    def test_a_link_to_a_directory_goes_and_the_directory_stays(self) -> None:
        (data,) = self.make("data/x")
        (self.root / "link").symlink_to(self.root / "data")
        ownership.uninstall("x", {"owned": f"{self.root}/link"})
        self.assertTrue(data.exists())
        self.assertFalse((self.root / "link").is_symlink())

    def test_nothing_and_what_is_not_absolute_is_left_alone(self) -> None:
        self.make("x")
        for options in ({}, {"owned": ""}, {"owned": "\n\n"}, {"owned": "x\n./x\n../x"}):
            ownership.uninstall("x", options)
        self.assertTrue((self.root / "x").exists())


class Boundary(unittest.TestCase):
    def test_our_errors_name_the_part(self) -> None:
        with self.assertRaises(zc.buildout.UserError) as caught, user_errors("image"):
            raise PlanError("it is wrong", "mend it")
        self.assertEqual(str(caught.exception), "[image] it is wrong; mend it")
        self.assertIsInstance(caught.exception.__cause__, PlanError)

    def test_several_come_together(self) -> None:
        one, two = PlanError("one", "mend one"), PlanError("two", "mend two")
        with self.assertRaises(zc.buildout.UserError) as caught, user_errors("image"):
            raise SeveralErrors([one, two])
        self.assertEqual(
            str(caught.exception),
            "[image] 2 problems:\n  - one; mend one\n  - two; mend two",
        )

    def test_a_bug_stays_one(self) -> None:
        with self.assertRaises(KeyError), user_errors("image"):
            raise KeyError("bug")
