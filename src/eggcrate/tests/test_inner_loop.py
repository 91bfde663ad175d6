"""``bin/image`` on the demo, as people use it: edit, build, load, ask; and look into it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import unittest
from collections.abc import Iterator

from eggcrate.tests import layers
from eggcrate.tests.test_engines import DEMO_IMAGE, ON_DOCKER
from eggcrate.tests.validator import validate

PAGE = "examples/shop/src/shop/catalogue/templates/catalogue/base.html"


class InnerLoopTest(unittest.TestCase):
    layer = ON_DOCKER

    def setUp(self) -> None:
        DEMO_IMAGE.require(self)
        layers.DOCKER_ENGINE.require(self)
        self.directory = DEMO_IMAGE.directory / "one"
        self.part = self.directory / "parts" / "image"
        self.page = self.directory / PAGE

    def image(self, *words: str, code: int = 0) -> str:
        """What a command prints."""
        done = subprocess.run(
            [self.directory / "bin" / "image", *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout

    def digest(self) -> str:
        return (self.part / "digest").read_text().strip()

    @contextlib.contextmanager
    def edited(self, path: pathlib.Path, old: str, new: str) -> Iterator[None]:
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)
            self.image("build")

    def test_an_edited_page_is_served_by_the_next_image(self) -> None:
        before = self.digest()
        with self.edited(self.page, "The Egg Shop", "The Other Shop"):
            printed = self.image("build")
            self.assertRegex(
                printed, r"acme/shop:latest  sha256:\w{64}  .*\(1 changed, .* kB\)"
            )
            self.assertNotEqual(self.digest(), before)
            self.assertEqual(validate(self.part / "oci"), [])
            self.assertEqual(validate(self.part / "image.tar"), [])
            self.assertIn("base.html  (content)", self.image("diff"))
            engine = layers.DOCKER_ENGINE
            with contextlib.ExitStack() as stack:
                container = engine.run(
                    engine.load(self.part / "image.tar"), read_only=True, tmpfs=["/run"]
                )
                stack.callback(container.remove)
                page = container.wait_http(DEMO_IMAGE.port, "/")
                self.assertIn("The Other Shop", page.text)
                self.assertEqual(container.stop(), 0)
            # what the plan of the last build was changed to is what a whole plan is
            self.assertIn("and is the same", self.image("verify"))
        self.assertEqual(self.digest(), before)

    def test_buildout_and_the_command_make_the_same(self) -> None:
        from eggcrate.tests.test_engines import run_buildout

        views = self.directory / "examples/shop/src/shop/catalogue/views.py"
        with self.edited(views, "def ", "# once more\ndef "):
            self.image("build")
            built = self.digest()
            code, output = run_buildout(self.directory, f"custom:webapp_port={DEMO_IMAGE.port}")
            self.assertEqual(code, 0, output)
            self.assertEqual(self.digest(), built)
            self.assertIn("(unchanged)", output)

    def test_looking_into_the_image(self) -> None:
        why = self.image("why", "bin/gunicorn", "/usr/sbin/nginx", PAGE)
        self.assertIn("made by the part app", why)
        self.assertIn("package nginx 1.", why)
        self.assertIn("develop", why)
        self.assertEqual(self.image("why", "bin/pip", code=1), "")
        self.assertEqual(self.image("plan"), (self.part / "plan.txt").read_text())
        page = pathlib.Path(self.image("report").strip())
        self.assertIn("acme/shop", page.read_text())
        copy = self.directory / "copy.tar"
        self.image("save", str(copy))
        self.assertEqual(copy.read_bytes(), (self.part / "image.tar").read_bytes())
        copy.unlink()
        self.assertIn("Debian packages", self.image("cache"))

    def test_documents_about_the_image(self) -> None:
        bom = json.loads(self.image("sbom"))
        names = {component["name"].lower() for component in bom["components"]}
        self.assertLessEqual({"django", "gunicorn", "circus", "nginx-light", "tabulate"}, names)
        self.assertNotIn("pip", names)
        spdx = json.loads(self.image("sbom", "--format", "spdx"))
        self.assertEqual(spdx["spdxVersion"], "SPDX-2.3")
        statement = json.loads(self.image("sbom", "--format", "provenance"))
        hexadecimal = self.digest().partition(":")[2]
        self.assertEqual(statement["subject"][0]["digest"], {"sha256": hexadecimal})
        for document in (bom, spdx, statement):
            self.assertNotIn(str(self.directory), json.dumps(document))

    def test_on_another_base_the_application_s_layers_stay(self) -> None:
        # there are no newer packages now: the same image comes of it, checked again
        before = self.digest()
        self.assertIn("(unchanged)", self.image("rebase"))
        self.assertEqual(self.digest(), before)
