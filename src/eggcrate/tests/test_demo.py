"""The demo's files agree with each other; its image is tried in test_examples."""

from __future__ import annotations

import ast
import re
import unittest
from pathlib import Path

import zc.buildout.configparser

TOP = Path(__file__).parents[3]
TEMPLATES = sorted((TOP / "templates").glob("*.in"))

# what a section has although nobody wrote it there
PUBLISHED = {
    "buildout": {"directory", "bin-directory", "parts-directory"},
    "circus": {"output", "run-directory"},
    "nginx": {"output", "run-directory"},
}


def option(text: str, name: str) -> str:
    """Return the only value that *name* has in a configuration, ``a = 1`` or ``a 1;``."""
    (value,) = set(re.findall(rf"^\s*{re.escape(name)}\s*(?:=\s*|\s)(.*?);?$", text, re.M))
    return str(value)


class DemoTest(unittest.TestCase):
    def setUp(self) -> None:
        self.circus = (TOP / "templates" / "circus.ini.in").read_text()
        self.nginx = (TOP / "templates" / "nginx.conf.in").read_text()

    def test_templates_refer_to_options_that_buildout_cfg_has(self) -> None:
        with (TOP / "buildout.cfg").open() as file:
            sections = zc.buildout.configparser.parse(file, "buildout.cfg")
        self.assertTrue(TEMPLATES)
        for template in TEMPLATES:
            for section, name in re.findall(r"\$\{([^:}]*):([^}]*)\}", template.read_text()):
                with self.subTest(template=template.name, reference=f"{section}:{name}"):
                    known = {*sections.get(section, ()), *PUBLISHED.get(section, ())}
                    self.assertIn(name, known)

    def test_circus_and_nginx_meet_at_one_socket(self) -> None:
        path = option(self.circus, "path").replace("${circus:", "${nginx:")
        self.assertIn(f'server "unix:{path}" ', self.nginx)

    def test_all_have_stopped_in_time(self) -> None:
        # Circus kills after its own limit, so that of the others must be lower.
        limit = float(option(self.circus, "graceful_timeout"))
        self.assertLess(limit, 9)
        shutdown = option(self.nginx, "worker_shutdown_timeout")
        self.assertLess(float(shutdown.removesuffix("s")), limit)
        serving = ast.parse((TOP / "examples/shop/src/shop/serving.py").read_text())
        values = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in serving.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        self.assertLess(values["graceful_timeout"], limit)

    def test_nothing_is_written_outside_the_run_directory(self) -> None:
        written = re.findall(r"^\s*(?:pid|\w+_temp_path)\s+(.*);$", self.nginx, re.M)
        written += re.findall(r"^(?:\w*endpoint|path) = (?:ipc://)?(.+)$", self.circus, re.M)
        self.assertEqual(len(written), 9)
        for path in written:
            self.assertRegex(path, r'^"?\$\{(nginx|circus):run-directory\}/')


if __name__ == "__main__":
    unittest.main()
