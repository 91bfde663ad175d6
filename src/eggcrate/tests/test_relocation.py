"""Paths of the build become paths of the image, at whole components only."""

from __future__ import annotations

import os
import pathlib
import tempfile
import unittest

from eggcrate.payload.relocation import Relocation, Rule, is_text

RULES = (
    Rule("/srv/app", "/var/application"),
    Rule("/srv/app/var/run", "/run/eggcrate"),
    Rule("/home/me/eggs", "/var/application/eggs"),
)


class Text(unittest.TestCase):
    def setUp(self) -> None:
        self.relocation = Relocation(RULES)

    def text(self, text: str) -> str:
        return self.relocation.text(text.encode()).decode()

    def test_a_path_is_replaced_wherever_it_stands(self) -> None:
        for before, after in (
            ("#!/srv/app/bin/python -I\n", "#!/var/application/bin/python -I\n"),
            ("x = '/srv/app'", "x = '/var/application'"),
            ('"/srv/app/a b"', '"/var/application/a b"'),
            ("a=/srv/app:/srv/app/lib;", "a=/var/application:/var/application/lib;"),
            ("file:///srv/app/x", "file:///var/application/x"),
            ("(/srv/app)", "(/var/application)"),
            (
                "\u201c/srv/app\u201d, \u00ab/srv/app\u00bb",
                "\u201c/var/application\u201d, \u00ab/var/application\u00bb",
            ),
            ("-I/srv/app/include -L/srv/app", "-I/var/application/include -L/var/application"),
            ("it is in /srv/app.", "it is in /var/application."),
            ("/srv/app\n/srv/app/\t", "/var/application\n/var/application/\t"),
            ("--prefix=/srv/app,/srv/app", "--prefix=/var/application,/var/application"),
        ):
            self.assertEqual(self.text(before), after)

    def test_another_path_with_the_same_beginning_is_left_alone(self) -> None:
        for text in (
            *("/srv/app2", "/srv/application", "/srv/app-old/x", "/srv/app_x", "/srv/app.d/x"),
            *("/srv/app\u00e9", "/srv/app.\u00e9", "/srv/app\u6f22"),
            *("/srv/app~", "/srv/app+1", "/srv/app@2", "/srv/ap", "/srv/app%20x"),
        ):
            self.assertEqual(self.text(text), text)

    def test_a_path_inside_another_is_left_alone(self) -> None:
        for text in (
            "/mnt/srv/app",
            "other/srv/app/x",
            "../srv/app",
            "a-/srv/app",
            "\u00e9/srv/app",
        ):
            self.assertEqual(self.text(text), text)

    def test_the_longer_rule_wins(self) -> None:
        self.assertEqual(self.text("/srv/app/var/run/x"), "/run/eggcrate/x")
        self.assertEqual(self.text("/srv/app/var/runs"), "/var/application/var/runs")
        for rules in (RULES, tuple(reversed(RULES))):
            self.assertEqual(Relocation(rules).text(b"/srv/app/var/run"), b"/run/eggcrate")

    def test_the_first_rule_for_a_path_holds(self) -> None:
        relocation = Relocation((Rule("/a", "/b"), Rule("/a", "/c")))
        self.assertEqual(relocation.text(b"/a"), b"/b")

    def test_what_is_no_utf_8_comes_through(self) -> None:
        self.assertEqual(
            self.relocation.text(b"\xff '/srv/app' \xfe"), b"\xff '/var/application' \xfe"
        )

    def test_a_rule_s_odd_characters_mean_themselves(self) -> None:
        relocation = Relocation((Rule("/a.b(c)", "/\\1"),))
        self.assertEqual(relocation.text(b"/a.b(c)/x /axb(c)"), b"/\\1/x /axb(c)")

    def test_a_path_in_a_url(self) -> None:
        relocation = Relocation((Rule("/srv/my app", "/var/application"),))
        self.assertEqual(
            relocation.text(b"file:///srv/my%20app/x /srv/my app/x"),
            b"file:///var/application/x /var/application/x",
        )

    def test_a_path_through_a_link_is_known_by_both_names(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            real = pathlib.Path(scratch).resolve() / "real"
            real.mkdir()
            link = real.with_name("link")
            link.symlink_to(real)
            relocation = Relocation((Rule(os.fspath(link), "/image"),))
            for path in (link, real):
                self.assertEqual(relocation.path(f"{path}/x"), "/image/x")

    def test_touches_is_never_wrongly_false(self) -> None:
        for data in (b"/srv/app", b"x/home/me/eggs", b"\x00/srv/app/var/run\x00"):
            self.assertTrue(self.relocation.touches(data))
        self.assertFalse(self.relocation.touches(b"/srv /home/me"))


class Paths(unittest.TestCase):
    def test_of_this_machine_in_the_image(self) -> None:
        relocation = Relocation(RULES)
        for before, after in (
            ("/srv/app", "/var/application"),
            ("/srv/app/a b/\udcff", "/var/application/a b/\udcff"),
            ("/srv/app/x/srv/app", "/var/application/x/srv/app"),
            ("/srv/app/var/run/s", "/run/eggcrate/s"),
            ("/srv/app2", None),
            ("/srv/app\u00e9", None),
            ("/etc/srv/app", None),
            ("srv/app", None),
            ("", None),
        ):
            self.assertEqual(relocation.path(before), after)


class Residue(unittest.TestCase):
    def test_what_text_could_not_replace_is_found(self) -> None:
        relocation = Relocation(RULES)
        for data, expected in (
            (b"mnt/srv/app/include", "/srv/app"),
            (b"/mnt/srv/app", "/srv/app"),
            (b"\x00/home/me/eggs/x\x00", "/home/me/eggs"),
            (b"/srv/app2 /srv/application", None),
            (b"", None),
        ):
            self.assertEqual(relocation.residue(data), expected, data)

    def test_what_text_has_replaced_leaves_nothing(self) -> None:
        relocation = Relocation(RULES)
        data = b"#!/srv/app/bin/python\n'/srv/app/var/run' /home/me/eggs\n"
        self.assertIsNone(relocation.residue(relocation.text(data)))

    def test_a_path_of_the_image_is_none(self) -> None:
        # the buildout lies on this machine where it will lie in the image, or has a name
        # that the image's ends with; buildout runs on the Python that the image has
        for source, target in (
            ("/var/application", "/var/application"),
            ("/application", "/var/application"),
            ("/home/me/.venv/bin/python", "/usr/bin/python3.11"),
        ):
            python = Rule("/usr/bin/python3.11", "/usr/bin/python3.11")
            relocation = Relocation((Rule(source, target), python))
            data = relocation.text(f"#!{source}/x\n'{source}'".encode())
            self.assertEqual(data, f"#!{target}/x\n'{target}'".encode())
            self.assertIsNone(relocation.residue(data))

    def test_a_source_below_a_target_is_still_one(self) -> None:
        relocation = Relocation((Rule("/srv", "/srv"), Rule("/srv/build", "/image")))
        self.assertEqual(relocation.residue(b"x/srv/build/y"), "/srv/build")


class References(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name).resolve()
        self.relocation = Relocation((Rule(os.fspath(self.root), "/image"),))
        for name in ("a", "a b", "c.d", "quo'te"):
            (self.root / name).mkdir()

    def references(self, text: str) -> list[tuple[str, bool]]:
        data = text.replace("ROOT", os.fspath(self.root)).encode()
        return [
            (os.path.relpath(found.path, self.root), found.quoted)
            for found in self.relocation.mentions(data)
            if found.there
        ]

    def test_existing_paths_are_found_with_their_quotes(self) -> None:
        for text, expected in (
            ("'ROOT/a'", [("a", True)]),
            ('"ROOT/a b",', [("a b", True)]),
            ("ROOT/a b", [("a b", False)]),
            ("x = ROOT/a, y = ROOT/c.d.", [("a", False), ("c.d", False)]),
            ("cd ROOT/a && ls", [("a", False)]),
            ("#!ROOT/a -I\n", [("a", False)]),
            ("'ROOT/none'", []),
            ("see ROOT", [(".", False)]),
            ("'ROOT'", [(".", True)]),
            ('"ROOT/quo\'te"', [("quo'te", True)]),
            ("ROOT/a/\nROOT/c.d/", [("a", False), ("c.d", False)]),
        ):
            self.assertEqual(self.references(text), expected, text)

    def test_a_very_long_line_is_no_trouble(self) -> None:
        self.assertEqual(self.references("'ROOT/a' " + "x" * 1_000_000), [("a", True)])
        self.assertEqual(self.references("'ROOT/" + "x" * 10_000 + "'"), [])


class Kinds(unittest.TestCase):
    def test_a_text_has_no_nul(self) -> None:
        self.assertTrue(is_text(b"\xff\xfe"))
        self.assertFalse(is_text(b"a\x00"))
