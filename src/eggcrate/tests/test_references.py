"""The template language: what is a reference, what is not, and where a line comes from."""

from __future__ import annotations

import unittest

from eggcrate.config import references
from eggcrate.config.references import Malformed, Reference
from eggcrate.errors import EggcrateError, SeveralErrors, TemplateError

VALUES = {
    ("custom", "webapp_port"): "8080",
    ("custom", "lines"): "one\ntwo\nthree",
    ("", "output"): "/srv/app/circus.ini",
}


def resolve(section: str, option: str) -> str:
    try:
        return VALUES[section, option]
    except KeyError:
        raise TemplateError("names nothing", "name something") from None


def rendered(text: str) -> str:
    return references.parse(text, "t.in").render(resolve).text


def complaints(text: str) -> list[str]:
    try:
        references.parse(text, "t.in").render(resolve)
    except SeveralErrors as several:
        return [error.what for error in several.errors]
    except EggcrateError as error:
        return [error.what]
    return []


class Parsing(unittest.TestCase):
    def test_pieces_come_in_order_with_their_lines(self) -> None:
        template = references.parse("a ${custom:webapp_port}\n\n${output}${:output}z", "t.in")
        self.assertEqual(
            template.pieces,
            (
                "a ",
                Reference("custom", "webapp_port", 1),
                "\n\n",
                Reference("", "output", 3),
                Reference("", "output", 3),
                "z",
            ),
        )
        self.assertEqual([r.line for r in template.references], [1, 3, 3])

    def test_a_reference_shows_itself_as_written(self) -> None:
        self.assertEqual(str(Reference("custom", "port", 1)), "${custom:port}")
        self.assertEqual(str(Reference("", "port", 1)), "${port}")

    def test_names_may_hold_what_buildout_allows(self) -> None:
        text = "${my section.a-b_1:an option.c-d_2}"
        self.assertEqual(
            references.parse(text, "t.in").pieces,
            (Reference("my section.a-b_1", "an option.c-d_2", 1),),
        )

    def test_an_escape_is_literal_and_joins_its_neighbours(self) -> None:
        self.assertEqual(references.parse("a $${x} b", "t.in").pieces, ("a ${x} b",))

    def test_an_empty_template_has_no_pieces(self) -> None:
        self.assertEqual(references.parse("", "t.in").pieces, ())

    def test_what_is_malformed_is_a_piece_until_it_is_rendered(self) -> None:
        template = references.parse("a\n${b", "t.in")
        self.assertEqual(
            template.pieces, ("a\n", Malformed("${b", "has no closing brace on its line", 2))
        )


class Rendering(unittest.TestCase):
    def test_references_become_values(self) -> None:
        self.assertEqual(
            rendered("listen ${custom:webapp_port}; # ${output}, ${:output}"),
            "listen 8080; # /srv/app/circus.ini, /srv/app/circus.ini",
        )

    def test_what_others_write_with_dollars_is_left_alone(self) -> None:
        for text in (
            "proxy_set_header Host $host$host_port;",
            "fd://$(circus.sockets.web) ((circus.env.HOME))",
            "%(x)s %% @{x} {x} $ $$ $$$ $} {$",
            "location ~ ^/a$ { }",
            "tab\tand trailing space \r\n\n",
        ):
            self.assertEqual(rendered(text), text)

    def test_two_dollars_and_a_brace_are_a_literal(self) -> None:
        self.assertEqual(rendered("$${host} $${a:b} $${"), "${host} ${a:b} ${")

    def test_dollars_pair_from_the_left_as_in_buildout(self) -> None:
        self.assertEqual(rendered("$$${custom:webapp_port}"), "$$8080")
        self.assertEqual(rendered("$$$${custom:webapp_port}"), "$$${custom:webapp_port}")

    def test_a_value_is_not_read_again(self) -> None:
        text = references.parse("${a}", "t.in").render(lambda section, option: "${b} $${c}")
        self.assertEqual(text.text, "${b} $${c}")

    def test_every_complaint_comes_at_once_and_in_order(self) -> None:
        self.assertEqual(
            complaints(
                "${custom:nope}\n"
                "${custom:webapp_port} ${\n"
                "${a ${b:c} ${}\n"
                "${custom:webapp_port}\n"
                "${a:b:c} ${a:} ${a:$b} ${é:b} ${x y}"
            ),
            [
                "t.in, line 1: ${custom:nope} names nothing",
                "t.in, line 2: ${ has no closing brace on its line",
                "t.in, line 3: ${a has no closing brace on its line",
                "t.in, line 3: ${b:c} names nothing",
                "t.in, line 3: ${} is empty",
                "t.in, line 5: ${a:b:c} has more than one colon",
                "t.in, line 5: ${a:} names no option",
                "t.in, line 5: ${a:$b} has a character that no reference can have",
                "t.in, line 5: ${é:b} has a character that no reference can have",
                "t.in, line 5: ${x y} names nothing",
            ],
        )

    def test_a_hint_says_how_to_write_it(self) -> None:
        with self.assertRaises(TemplateError) as caught:
            references.parse("${", "t.in").render(resolve)
        self.assertIn("$${", caught.exception.hint)

    def test_a_brace_that_was_forgotten_is_shown_in_part_only(self) -> None:
        (complaint,) = complaints("${" + "x" * 500)
        self.assertLess(len(complaint), 100)


class Lines(unittest.TestCase):
    def where(self, text: str) -> list[str]:
        result = references.parse(text, "t.in").render(resolve)
        self.assertEqual(len(result.lines), result.text.count("\n") + 1)
        return [
            f"{line}: {result.where(number).removeprefix('t.in, line ')}"
            for number, line in enumerate(result.text.split("\n"), 1)
        ]

    def test_without_values_of_several_lines_they_are_the_template_s(self) -> None:
        self.assertEqual(
            self.where("a\n${custom:webapp_port}\n\nb"), ["a: 1", "8080: 2", ": 3", "b: 4"]
        )

    def test_every_line_of_a_value_is_the_line_of_its_reference(self) -> None:
        self.assertEqual(
            self.where("a\nx ${custom:lines} y ${custom:lines}\nb\n${custom:lines}\n"),
            [
                "a: 1",
                "x one: 2",
                "two: 2",
                "three y one: 2",
                "two: 2",
                "three: 2",
                "b: 3",
                "one: 4",
                "two: 4",
                "three: 4",
                ": 5",
            ],
        )

    def test_a_line_beyond_the_end_is_the_last(self) -> None:
        result = references.parse("a\nb", "t.in").render(resolve)
        self.assertEqual(result.where(0), "t.in, line 1")
        self.assertEqual(result.where(99), "t.in, line 2")
