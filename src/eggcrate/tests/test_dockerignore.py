"""What a .dockerignore leaves out: the same as Docker."""

from __future__ import annotations

import time
import unittest
from collections.abc import Iterator

from eggcrate.errors import EggcrateError, PlanError
from eggcrate.payload.dockerignore import Ignore

# The lines, the files of a tree, and those that BuildKit (of August 2026) copied of it in
# a build whose Dockerfile was "FROM scratch" and "COPY . /c/".
#
# Other builders differ.  That of Docker 20.10, and its BuildKit, escape no +, (, ) or |,
# escape ^, take "**build" for "**/build", let "!a" bring back what a line has left out below
# a, and look below a directory that is left out only if a line with ! begins with its name,
# so that "!**/keep" brings nothing back.  The classic builder of Docker 28 differs in the
# last point only.
COPIED = (
    ("*.pyc", "a.pyc, b.py, c/d.pyc", "b.py, c/d.pyc"),
    ("**/*.pyc", "a.pyc, b.py, c/d.pyc, c/e/f.pyc", "b.py"),
    ("*/*.pyc", "a.pyc, c/d.pyc, c/e/f.pyc", "a.pyc, c/e/f.pyc"),
    ("build", "build/a, build/b/c, src/build/d, builder", "builder, src/build/d"),
    ("/build", "build/a, src/build/d", "src/build/d"),
    ("build/", "build/a, src/build/d", "src/build/d"),
    ("note/", "note, src/a", "src/a"),
    ("./build//x/", "build/x/a, build/y", "build/y"),
    ("src/../build", "build/a, src/b", "src/b"),
    ("../build", "build/a", "build/a"),
    ("/../build", "build/a, b", "b"),
    (".", "a, b/c", "a, b/c"),
    ("/", "a, b/c", "a, b/c"),
    ("**", "a, b/c", ""),
    ("*", "a, b/c, .d", ""),
    ("**/build", "build/a, src/build/b, src/x/build, rebuild", "rebuild"),
    ("**build", "build/a, rebuild/b, src/rebuild, builder", "builder"),
    ("build**", "build/a, builder/b, c/build", "c/build"),
    ("build/**", "build/a, build/b/c, d", "d"),
    ("src/**/x", "src/x, src/a/x, src/a/b/x/y, src/ax", "src/ax"),
    ("src/**x", "src/x, src/ax, src/a/x, src/a/bx", "src/a/bx, src/ax"),
    ("**/x/**", "x/a, y/x/b, y/xx/c, x2", "x2, y/xx/c"),
    ("**/*", "a, b/c", ""),
    ("a?c", "abc, a/c, ac, abbc", "a/c, abbc, ac"),
    ("a[bx]c", "abc, axc, a/c, ayc", "a/c, ayc"),
    ("a[^b]c", "abc, axc, a/c", "abc"),
    ("a[!b]c", "abc, axc, a!c", "axc"),
    ("a[b-d]", "ab, ad, ae, a-", "a-, ae"),
    ("a[b*]", "ab, a*, abc", "a*, ab, abc"),
    ("[[:digit:]]x", "1x, ax, :x, :]x", ":]x, :x, ax"),
    ("\\#a\n#b", "#a, #b", "#b"),
    (" #a", "#a, b", "b"),
    ("\\!a", "!a, a", "a"),
    ("a\\*b", "a*b, axb", "axb"),
    ("a\\?b\na\\[b", "a?b, axb, a[b", "axb"),
    ("a\\db", "a1b, adb, a\\db", "a\\db, adb"),
    ("a\\\\b", "a\\b, ab", "ab"),
    ("  a  \n\tb\t", "a, b, c", "c"),
    ("a b", "a b, a, b", "a, b"),
    ("a\\ b", "a b, ab", "ab"),
    ("\ufeffa\nb", "a, b, c", "c"),
    ("b\n\ufeffa", "a, b, c", "a, c"),
    ("a\r\nb\r\n\r\n", "a, b, c", "c"),
    ("\n\n# nothing\n", "a, # nothing", "# nothing, a"),
    ("*.md\n!README.md", "README.md, a.md, b/c.md", "README.md, b/c.md"),
    ("!README.md\n*.md", "README.md, a.md", ""),
    ("*.md\n!README*.md\nREADME-secret.md", "README.md, README-secret.md, a.md", "README.md"),
    ("a\n!a/b", "a/b, a/c, d", "a/b, d"),
    ("a\n!a/b/c", "a/b/c/e, a/b/d, a/f", "a/b/c/e"),
    ("a/*\n!a/b", "a/b/x, a/c, d", "a/b/x, d"),
    ("a/b\n!a", "a/b, a/c", "a/c"),
    ("a/b\n!a/*", "a/b/x, a/c", "a/b/x, a/c"),
    ("a\n!a\na/b", "a/b, a/c", "a/c"),
    ("*\n!src", "src/a, src/b/c, d", "src/a, src/b/c"),
    ("*\n!src/**", "src/a, src/b/c, d", "src/a, src/b/c"),
    ("*\n!src/*.py", "src/a.py, src/b.txt, src/c/d.py, e.py", "src/a.py"),
    ("*\n!**/*.py", "a.py, src/b.py, src/c/d.py, e.txt", "a.py, src/b.py, src/c/d.py"),
    ("*\n!*/keep", "a/keep, a/drop, b/c/keep, keep", "a/keep"),
    ("a\n!**/keep", "a/keep, a/b/keep, a/drop, b", "a/b/keep, a/keep, b"),
    ("a\n!a/*/**", "a/b/c, a/d", ""),
    ("**\n!a/b/", "a/b/c, a/d, e", "a/b/c"),
    ("*\n!a\na/b\n!a/b/c", "a/b/c, a/b/d, a/e, f", "a/b/c, a/e"),
    ("*\n! a", "a, b", "a"),
    ("*\n!./a/", "a/b, c", "a/b"),
    ("*\n!/a", "a, b", "a"),
    ("!a", "a, b", "a, b"),
    ("a\n!!a", "a, !a", "!a"),
    ("!a\n!b\n*", "a, b", ""),
    ("a/b/c\n!a/b", "a/b/c, a/b/d", "a/b/d"),
    ("a/**\n!a/b/**", "a/b/c, a/d", "a/b/c"),
    ("a+b", "a+b, aab", "aab"),
    ("a+*", "a+b, aab, a+", "aab"),
    ("*(1).txt", "a(1).txt, a1.txt", "a1.txt"),
    ("a.*", "a.b, axb, a.", "axb"),
    ("*.{js,ts}", "a.js, a.ts, a.{js,ts}", "a.js, a.ts"),
    ("a{2}*", "aa, a{2}, aab, b", "a{2}, b"),
    ("a|b*", "ax, a|bc, b, cb, c/bd, d", "d"),
    ("a|b", "a, b, a|b", "a, b"),
    ("?^b", "a^b, ab", "a^b, ab"),
    ("a^b", "a^b, ab", "ab"),
    ("a$\nb$*", "a$, a, b$c, b", "a, b"),
    ("é?\n**/ü", "éa, é, x/ü", "é"),
    ("A", "a, A", "a"),
    (".*", ".a, b, c/.d, .e/f", "b, c/.d"),
    ("***", "a, b/c", ""),
    ("**/a/**/b", "a/b, a/c/b, x/a/c/d/b, a/d", "a/d"),
    ("a/", "a, b/a", "b/a"),
    ("bin\\Debug", "bin/a, binDebug, binXebug, bin\\Debug", "bin/a, bin\\Debug"),
)
# Lines at which that BuildKit stopped with an error.
REFUSED = (
    "[",
    "a[]b]",
    "a[",
    "*[",
    "a[c-a]",
    "a\\",
    "*\\y",
    "!",
    "!/",
    "a[b-]",
    "a\n!a/b[",
)


def directories(files: list[str]) -> dict[str, list[str]]:
    """What each directory has."""
    found: dict[str, list[str]] = {"": []}
    for file in files:
        above, path = "", file
        for end in [at for at, character in enumerate(f"{path}/") if character == "/"]:
            part = path[:end]
            if part not in found.setdefault(above, []):
                found[above].append(part)
            above = part
    return found


def walked(ignore: Ignore, files: list[str]) -> Iterator[str]:
    """The files that are left for one who looks only where something may be."""
    children = directories(files)
    waiting = [""]
    while waiting:
        for path in children[waiting.pop()]:
            directory = path in children
            left_out = ignore.matches(path, directory=directory)
            if directory and (not left_out or ignore.may_hold(path)):
                waiting.append(path)
            elif not directory and not left_out:
                yield path


class Docker(unittest.TestCase):
    def test_what_is_copied(self) -> None:
        for lines, tree, copied in COPIED:
            files = tree.split(", ")
            with self.subTest(lines=lines, tree=tree):
                ignore = Ignore.parse(lines)
                left = [file for file in files if not ignore.matches(file)]
                self.assertEqual(", ".join(sorted(left)), copied)

    def test_a_walk_that_prunes_finds_the_same(self) -> None:
        for lines, tree, copied in COPIED:
            with self.subTest(lines=lines, tree=tree):
                left = walked(Ignore.parse(lines), tree.split(", "))
                self.assertEqual(", ".join(sorted(left)), copied)

    def test_what_is_refused(self) -> None:
        for lines in REFUSED:
            with self.subTest(lines=lines), self.assertRaises(PlanError):
                Ignore.parse(lines)


class Complaints(unittest.TestCase):
    def test_all_lines_that_are_wrong_are_named_with_their_number(self) -> None:
        with self.assertRaises(EggcrateError) as caught:
            Ignore.parse("# fine\nfine\n\n[\n!a[\n  !\n")
        shown = str(caught.exception)
        self.assertIn(".dockerignore, line 4: '[' has a [ without its end", shown)
        self.assertIn(".dockerignore, line 5: '!a[' has a [ without its end", shown)
        self.assertIn(".dockerignore, line 6: '!' names nothing", shown)

    def test_escapes_that_are_a_regular_expressions(self) -> None:
        # Go accepts them, as a character by its number, a class of Unicode, a quotation
        for pattern in ("a\\x41", "\\pL", "\\Qa*", "a[\\012]*"):
            with self.subTest(pattern=pattern), self.assertRaises(PlanError):
                Ignore.parse(pattern)


class Pruning(unittest.TestCase):
    def may_hold(self, lines: str, path: str) -> bool:
        return Ignore.parse(lines).may_hold(path)

    def test_without_exceptions_nothing_comes_back(self) -> None:
        self.assertFalse(self.may_hold("a\nb/*.py", "a"))

    def test_an_exception_below(self) -> None:
        self.assertTrue(self.may_hold("*\n!a/b/c", "a"))
        self.assertTrue(self.may_hold("*\n!a/b/c", "a/b"))
        self.assertFalse(self.may_hold("*\n!a/b/c", "a/d"))
        self.assertFalse(self.may_hold("*\n!ab/c", "a"))

    def test_an_exception_with_a_final_wildcard(self) -> None:
        for exception in ("a/b/*", "a/b/**"):
            self.assertTrue(self.may_hold(f"*\n!{exception}", "a/b"))
            self.assertFalse(self.may_hold(f"*\n!{exception}", "c"))

    def test_with_a_wildcard_anywhere_else_it_may_be_anywhere(self) -> None:
        self.assertTrue(self.may_hold("*\n!a\n!**/keep", "x/y/z"))


class Matching(unittest.TestCase):
    def test_nothing_is_left_out_by_nothing(self) -> None:
        self.assertFalse(Ignore.parse("").matches("a/b"))

    def test_the_order_of_questions_does_not_matter(self) -> None:
        lines = "a/b\n!a\n**/c\n!a/b/c/d*"
        paths = ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a/c", "a/c/x"]
        forward, backward = Ignore.parse(lines), Ignore.parse(lines)
        expected = {path: forward.matches(path, directory=True) for path in paths}
        found = {path: backward.matches(path) for path in reversed(paths)}
        self.assertEqual(found, expected)
        self.assertEqual(
            [path for path in paths if expected[path]], ["a/b", "a/b/c", "a/c", "a/c/x"]
        )

    def test_names_that_are_no_text(self) -> None:
        ignore = Ignore.parse("a?b\n\udcffx")
        self.assertTrue(ignore.matches("a\udcfeb"))
        self.assertTrue(ignore.matches("\udcffx"))
        self.assertFalse(ignore.matches("\udcfex"))

    def test_names_with_a_line_feed(self) -> None:
        self.assertTrue(Ignore.parse("a*").matches("a\nb"))
        self.assertFalse(Ignore.parse("a[b]").matches("ab\n"))

    def test_a_deep_tree(self) -> None:
        deep = "/".join(["d"] * 3000)
        self.assertTrue(Ignore.parse("**/d/x").matches(f"{deep}/x"))
        self.assertFalse(Ignore.parse("**/d/x").matches(f"{deep}/y"))

    def test_equal_files_are_equal(self) -> None:
        first, second = Ignore.parse("a\n!a/b"), Ignore.parse("# the same\n/a/\n!a/b")
        first.matches("a/b/c")
        self.assertEqual(first, second)

    def test_ten_thousand_paths_take_no_time(self) -> None:
        ignore = Ignore.parse(
            "**/__pycache__\n**/*.py[co]\n*.egg-info/\n.git\n.env*\n!.env.example\n*.log\n"
            "parts\nbin\nlogs/**\n**/tests/**/fixtures\nvar/*\n!var/.keep\n"
        )
        paths = [f"src/pkg{i % 17}/sub{i % 131}/module_{i}.py" for i in range(10_000)]
        before = time.process_time()
        self.assertFalse(any(map(ignore.matches, paths)))
        # 0.03 s where it was written
        self.assertLess(time.process_time() - before, 0.5)
