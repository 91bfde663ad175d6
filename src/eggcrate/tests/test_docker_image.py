"""The options of docker-image, and what it says of wrong ones."""

from __future__ import annotations

import logging
import os
import pathlib
import tempfile
import unittest
from unittest import mock

import zc.buildout
import zc.buildout.testing

from eggcrate.recipes.docker_image import Recipe

DIGEST = f"sha256:{'0' * 64}"


class OptionsTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.directory = pathlib.Path(os.path.realpath(scratch.name))
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.directory)
        for name in (None, "zc.buildout"):
            logger = logging.getLogger(name)
            self.addCleanup(setattr, logger, "handlers", logger.handlers[:])
        self.buildout = zc.buildout.testing.Buildout()
        self.buildout["buildout"]["parts"] = "app circus image"
        self.buildout["app"] = {"recipe": "zc.recipe.egg"}
        self.buildout["circus"] = {
            "recipe": "collective.recipe.template",
            "output": f"{self.directory}/parts/circus.ini",
        }

    def recipe(self, **options: str) -> Recipe:
        named = {name.replace("_", "-"): value for name, value in options.items()}
        options = {"recipe": "eggcrate:docker-image", **named}
        return Recipe(self.buildout, "image", options)

    def complaint(self, **options: str) -> str:
        with self.assertRaises(zc.buildout.UserError) as caught:
            self.recipe(**options)
        return str(caught.exception)

    def test_publishes_where_the_image_will_be(self) -> None:
        recipe = self.recipe()
        location = f"{self.directory}/parts/image"
        self.assertEqual(recipe.options["location"], location)
        self.assertEqual(recipe.options["image"], f"{location}/image.tar")
        owned = ("bin/image", "parts/.settings/image.json", "parts/image")
        self.assertEqual(
            recipe.options["owned"], "\n".join(f"{self.directory}/{path}" for path in owned)
        )

    def test_the_constructor_makes_nothing(self) -> None:
        before = sorted(os.listdir(self.directory))
        self.recipe(os_packages="nginx-light")
        self.assertEqual(sorted(os.listdir(self.directory)), before)

    def test_a_directory_of_eggs_that_is_a_link(self) -> None:
        """zc.buildout writes what it leads to into scripts."""
        eggs = pathlib.Path(self.directory, "shared").resolve()
        eggs.mkdir()
        os.symlink(eggs, f"{self.directory}/link")
        self.buildout["buildout"]["eggs-directory"] = f"{self.directory}/link"
        self.assertEqual(self.recipe()._settings(()).site.eggs, eggs)

    def test_parts_are_those_before_it(self) -> None:
        self.assertEqual(self.recipe()._parts, ["app", "circus"])

    def test_an_unknown_part_has_its_nearest_name(self) -> None:
        self.assertEqual(
            self.complaint(parts="app cirus"),
            "[image] parts: there is no part 'cirus'; did you mean circus?",
        )

    def test_every_unknown_part_is_named(self) -> None:
        message = self.complaint(parts="cirus appp")
        self.assertIn("'cirus'", message)
        self.assertIn("'appp'", message)

    def test_a_section_without_a_recipe_is_no_part(self) -> None:
        self.buildout["custom"] = {"port": "1"}
        self.assertEqual(
            self.complaint(parts="custom"),
            "[image] parts: the section custom has no recipe; take it out of parts",
        )

    def test_an_unknown_option_has_its_nearest_name(self) -> None:
        self.assertEqual(
            self.complaint(os_package="nginx"),
            "[image] there is no option 'os-package'; did you mean os-packages?",
        )

    def test_all_complaints_come_at_once(self) -> None:
        message = self.complaint(name="Acme/Shop", user="app", expose="99999", layers="no")
        for part in ("'Acme/Shop'", "user = app", "'99999'", "layers = no"):
            self.assertIn(part, message)

    def test_names_that_are_no_references(self) -> None:
        for name in ("Acme/shop", "acme//shop", "acme/shop:1", "-a", "a b", "a" * 300):
            with self.subTest(name=name):
                self.assertIn("is not valid", self.complaint(name=name))

    def test_names_that_are_references(self) -> None:
        for name, full in {
            "shop": "docker.io/library/shop:latest",
            "acme/shop": "docker.io/acme/shop:latest",
            "registry.example/a/b": "registry.example/a/b:latest",
            "localhost:5000/a": "localhost:5000/a:latest",
        }.items():
            with self.subTest(name=name):
                settings = self.recipe(name=name)._settings(parts=())
                self.assertEqual([str(r) for r in settings.references], [full])

    def test_tags(self) -> None:
        settings = self.recipe(name="shop", tags="1.0 latest")._settings(parts=())
        self.assertEqual([r.familiar for r in settings.references], ["shop:1.0", "shop:latest"])
        self.assertIn("'a/b'", self.complaint(tags="a/b"))

    def test_a_supervisor_runs_its_configuration(self) -> None:
        settings = self.recipe(supervisor="circus")._settings(parts=())
        self.assertEqual(
            settings.command,
            (f"{self.directory}/bin/circusd", f"{self.directory}/parts/circus.ini"),
        )

    def test_a_supervisor_with_a_script_of_its_own_runs_that(self) -> None:
        self.buildout["circus"]["circusd"] = f"{self.directory}/bin/site"
        settings = self.recipe(supervisor="circus")._settings(parts=())
        self.assertEqual(settings.command[0], f"{self.directory}/bin/site")

    def test_a_supervisor_that_is_no_part(self) -> None:
        self.assertIn("did you mean circus?", self.complaint(supervisor="cirus"))

    def test_supervisor_and_command_exclude_each_other(self) -> None:
        self.assertIn("both set", self.complaint(supervisor="circus", command="x"))

    def test_a_base_that_can_not_be_taken(self) -> None:
        for base in ("alpine", "ftp://a/b", "oci:", "docker://Acme/x", "dir:/x"):
            with self.subTest(base):
                self.assertIn(f"base = {base}", self.complaint(base=base))
        self.assertNotIn("hunter2", self.complaint(base="docker://me:hunter2@a.example/b"))

    def test_bases(self) -> None:
        for base, found in {
            "debian": "",
            "debian:trixie": "",
            "scratch": "scratch",
            "python:3.13-slim": "docker://docker.io/library/python:3.13-slim",
            "debian:12": "docker://docker.io/library/debian:12",
            "a.example/b": "docker://a.example/b:latest",
            "docker://python": "docker://docker.io/library/python:latest",
            f"docker://a.example/b:1@{DIGEST}": f"docker://a.example/b@{DIGEST}",
            "docker-daemon:acme/base:1": "docker-daemon:docker.io/acme/base:1",
            f"docker-daemon:{DIGEST}": f"docker-daemon:{DIGEST}",
            "oci:bases/one:1": f"oci:{self.directory}/bases/one:1",
            "oci-archive:/srv/base.tar": "oci-archive:/srv/base.tar",
            "docker-archive:../b.tar:acme/b:1": (
                f"docker-archive:{self.directory.parent}/b.tar:acme/b:1"
            ),
        }.items():
            with self.subTest(base):
                settings = self.recipe(base=base)._settings(parts=())
                self.assertEqual(settings.base, found)
        self.assertEqual(self.recipe(base="debian:trixie")._settings(parts=()).suite, "trixie")

    def test_what_a_base_can_not_have(self) -> None:
        message = self.complaint(base="oci:b", os_packages="nginx-light", python="debian")
        self.assertIn("os-packages: nothing is installed into the base oci:b", message)
        self.assertIn("python = debian: the base is oci:b", message)

    def test_what_nobody_has_given_the_base_decides(self) -> None:
        every = ("healthcheck", "stop-signal", "user", "workdir")
        self.assertEqual(self.recipe(base="oci:b")._settings(parts=()).inherited, every)
        settings = self.recipe(base="oci:b", user="5", supervisor="circus")._settings(parts=())
        self.assertEqual(settings.inherited, ("healthcheck", "workdir"))

    def test_a_quote_that_is_not_closed(self) -> None:
        self.assertIn("command: no closing quotation", self.complaint(command="a 'b"))

    def test_environment_and_labels(self) -> None:
        settings = self.recipe(environment="A = 1\nB=x=y", labels="a.b = c")._settings(parts=())
        self.assertEqual(settings.environment, (("A", "1"), ("B", "x=y")))
        self.assertEqual(settings.labels, (("a.b", "c"),))
        self.assertIn("'1A'", self.complaint(environment="1A = 2"))

    def test_values_that_no_engine_takes(self) -> None:
        for option, values in {
            "layers": ("\u00b2", "0", "128", "many", "1.5"),
            "base_size": ("0", "-1", "many", "40 gigs"),
            "expose": ("\u0668\u0660", "0", "65536", "80:80", "http"),
            "user": ("99999999999", "-1", "\u0661", "root", "1:x"),
            "volumes": ("data", "/data ../x"),
            "workdir": ("src", "/a/../b", "/a\n/b "),
            "directory": ("app", "/", "/usr", "/var", "/tmp/app", "/run/app", "//"),
            "stop_signal": ("SIGTURM", "99", ""),
            "healthcheck": ("https://127.0.0.1/",),
            "os_packages": ("nginx:amd64", "--help"),
            "include": ("a = b", "a = ../etc/passwd", "a = /b/../c"),
        }.items():
            for value in values:
                with self.subTest(option=option, value=value):
                    message = self.complaint(**{option: value})
                    self.assertTrue(message.startswith("[image] "), message)

    def test_values_that_engines_take(self) -> None:
        settings = self.recipe(
            stop_signal="QUIT",
            workdir="/srv/app",
            volumes="/data /srv/media",
            user="0",
            base_size="40G",
        )._settings(parts=())
        self.assertEqual(settings.stop_signal, "QUIT")
        self.assertEqual(settings.volumes, ("/data", "/srv/media"))
        self.assertEqual((settings.uid, settings.gid), (0, 0))
        self.assertEqual(settings.base_size, 40 << 30)
        self.assertEqual(self.recipe()._settings(parts=()).base_size, 20 << 30)

    def test_where_it_goes(self) -> None:
        settings = self.recipe(
            push="registry.example/shop:1\n localhost:5000/shop",
            insecure_registries="localhost:5000",
            token_hosts="login.example",
        )._settings(parts=())
        self.assertEqual(
            [str(item) for item in settings.push],
            ["registry.example/shop:1", "localhost:5000/shop:latest"],
        )
        self.assertEqual(settings.insecure_registries, ("localhost:5000",))
        self.assertEqual(settings.token_hosts, ("login.example",))
        for options in ({"push": "a:b:c"}, {"push": "a/B"}, {"token_hosts": "https://x"}):
            self.assertTrue(self.complaint(**options))
        self.assertNotIn("canary", self.complaint(push="me:canary@registry.example/shop"))

    def test_source_date_epoch(self) -> None:
        with mock.patch.dict(os.environ, SOURCE_DATE_EPOCH="1700000000"):
            self.assertEqual(self.recipe()._settings(parts=()).epoch, 1_700_000_000)
        for wrong in ("", "abc", "-1", "1.5", "1" + "0" * 12):
            with self.subTest(wrong), mock.patch.dict(os.environ, SOURCE_DATE_EPOCH=wrong):
                self.assertIn("SOURCE_DATE_EPOCH is", self.complaint())

    def test_a_part_that_was_never_installed(self) -> None:
        recipe = self.recipe(parts="app")
        with self.assertRaises(zc.buildout.UserError) as caught:
            recipe.install()
        self.assertEqual(
            str(caught.exception),
            "[image] parts: app is not installed; run bin/buildout install app, or list it in "
            "parts of [buildout]",
        )
