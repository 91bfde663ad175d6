"""virtualenv-part: real uv, real pip, an index of our own, no network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import io
import json
import logging
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

import zc.buildout
import zc.buildout.testing

from eggcrate.environments import environment, installers
from eggcrate.recipes import ownership
from eggcrate.recipes.virtualenv_part import Recipe
from eggcrate.tests import local_index

SHORT = ".".join(map(str, sys.version_info[:2]))


class Wheels:
    """The layer of an index with ``hello`` 1.0 and 2.0, and of a cache for uv."""

    __bases__ = ()
    __name__ = "Wheels"

    def setUp(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        base = pathlib.Path(self.directory.name).resolve()
        self.cache = base / "cache"
        self.wheels = base / "wheels"
        for version in ("1.0", "2.0"):
            local_index.write_wheel(
                self.wheels, "hello", version, scripts=["hello", "hello-again"]
            )
        local_index.write_wheel(self.wheels, "needy", "1.0", requires=["hello>=2"])
        local_index.write_wheel(self.wheels, "buildtool", "1.0")
        local_index.write_index(self.wheels)

    def tearDown(self) -> None:
        self.directory.cleanup()


WHEELS = Wheels()


class Case(unittest.TestCase):
    """A buildout in a directory of its own."""

    layer = WHEELS
    maxDiff = None

    def setUp(self) -> None:
        self.wheels = WHEELS.wheels
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name).resolve() / "site"
        self.directory.mkdir()
        before = pathlib.Path.cwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, before)
        self.path = os.environ["PATH"]
        clean = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("PIP_", "UV_"))
        }
        clean |= {
            # of nobody's machine
            "PATH": os.defpath,
            "PIP_CONFIG_FILE": os.devnull,
            "UV_NO_CONFIG": "1",
            "XDG_CONFIG_HOME": str(self.directory / "no"),
            "XDG_CONFIG_DIRS": str(self.directory / "no"),
            "UV_CACHE_DIR": str(WHEELS.cache),
            # an index that isn't there shall be given up at once
            "PIP_RETRIES": "1",
            "UV_HTTP_RETRIES": "0",
        }
        self.enterContext310(mock.patch.dict(os.environ, clean, clear=True))
        self.enterContext310(mock.patch.object(ownership, "_live", set()))
        for name in (None, "zc.buildout"):  # every Buildout adds its own
            logger = logging.getLogger(name)
            self.addCleanup(setattr, logger, "handlers", logger.handlers[:])
            self.addCleanup(logger.setLevel, logger.level)
        self.enterContext310(mock.patch.object(logging.getLogger("tool"), "propagate", False))
        self.bin = self.directory / "bin"
        self.location = self.directory / "parts" / "tool"

    def enterContext310(self, context: Any) -> Any:  # noqa: N802 stands in for enterContext of 3.11
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    def recipe(self, **options: Any) -> Recipe:
        """The part ``tool``; an option's name has ``_`` for ``-`` here.

        ``shared`` and ``versions`` are the sections of all parts.
        """
        buildout = zc.buildout.testing.Buildout()
        buildout["buildout"].update({"newest": "false", **options.pop("shared", {})})
        buildout["versions"].update(options.pop("versions", {}))
        given = {"find-links": str(self.wheels), "index": str(self.wheels / "simple")}
        given |= {name.replace("_", "-"): text for name, text in options.items()}
        buildout["tool"] = {"recipe": "eggcrate:virtualenv-part", **given}
        self.options = buildout["tool"]
        return Recipe(buildout, "tool", self.options)

    def refused(self, *sayings: str, install: bool = False, **options: Any) -> str:
        """The complaint about these options; it has all the sayings and the part's name."""
        with self.assertRaises(zc.buildout.UserError) as caught:
            recipe = self.recipe(**options)
            if install:
                recipe.install()
        text = str(caught.exception)
        for saying in ("[tool] ", *sayings):
            self.assertIn(saying, text)
        return text

    def output(self, *command: str | pathlib.Path) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.strip()

    def tree(self) -> dict[str, str]:
        """Every file below the environment, by content; links by target."""
        found = {}
        for path in sorted(self.location.rglob("*")):
            name = str(path.relative_to(self.location))
            if path.is_symlink():
                found[name] = f"-> {path.readlink()}"
            elif path.is_file():
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def logged(self) -> io.StringIO:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logger = logging.getLogger("tool")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        self.addCleanup(logger.removeHandler, handler)
        return stream


@contextlib.contextmanager
def nothing_is_started() -> Iterator[None]:
    with mock.patch("subprocess.Popen", side_effect=AssertionError("a process was started")):
        yield


class BothInstallers:
    """What has to be so whether uv or pip installs."""

    class Case(Case):
        installer: str

        def recipe(self, **options: Any) -> Recipe:
            return super().recipe(**{"installer": self.installer, **options})

        def test_environment_and_scripts(self) -> None:
            log = self.logged()
            recipe = self.recipe(requirements="hello == 1.0", scripts="hello")
            self.assertFalse(self.location.exists())
            self.assertEqual(recipe.install(), [str(self.bin / "hello")])
            self.assertEqual(self.output(self.bin / "hello"), "hello 1.0")
            self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 1.0")
            version = ".".join(map(str, sys.version_info[:3]))
            self.assertRegex(
                log.getvalue(),
                rf"^1 distribution for Python {version}, by {self.installer}, "
                r"in \d+\.\d s\.\n$",
            )
            self.assertEqual(
                {name: self.options[name] for name in ("location", "python", "bin-directory")},
                {
                    "location": str(self.location),
                    "python": str(self.location / "bin" / "python"),
                    "bin-directory": str(self.location / "bin"),
                },
            )
            self.assertEqual(
                self.options["site-packages"],
                self.output(
                    self.options["python"], "-c", "import hello; print(hello.__file__)"
                ).removesuffix("/hello.py"),
            )
            self.assertEqual(list(self.location.parent.iterdir()), [self.location])
            # the installers stay outside
            site_packages = pathlib.Path(self.options["site-packages"])
            self.assertEqual(
                sorted(path.name for path in site_packages.iterdir()),
                ["hello-1.0.dist-info", "hello.py"],
            )
            self.assertEqual(
                (site_packages / "hello-1.0.dist-info" / "INSTALLER").read_text().strip(),
                self.installer,
            )

        def test_same_inputs_same_bytes(self) -> None:
            project = local_index.write_project(self.directory / "src", "shop", "1.0")
            recipe = self.recipe(requirements="hello", develop="src", scripts="*")
            recipe.install()
            first = self.tree()
            shutil.rmtree(self.location)
            for path in project.iterdir():
                os.utime(path, (1, 1))
            recipe.update()
            self.assertEqual(self.tree(), first)
            for path in self.location.rglob("*"):
                if not path.is_symlink():
                    self.assertFalse(path.stat().st_mode & stat.S_IWOTH, path)

        def test_failure_keeps_the_old_environment(self) -> None:
            self.recipe(requirements="hello == 1.0", scripts="hello").install()
            before = self.tree()
            recipe = self.recipe(requirements="hello == 3.0", scripts="hello")
            (self.bin / "hello").unlink()  # as buildout does it before it installs again
            with self.assertRaisesRegex(zc.buildout.UserError, r"hello ?==3\.0"):
                recipe.install()
            self.assertEqual(self.tree(), before)
            self.assertEqual(self.output(self.bin / "hello"), "hello 1.0")
            self.assertEqual(list(self.location.parent.iterdir()), [self.location])

        def test_first_failure_leaves_nothing(self) -> None:
            text = self.refused(
                f"{self.installer} can't install what is asked for: ",
                "nosuchthing",
                "; mend the requirements",
                install=True,
                requirements="nosuchthing",
            )
            self.assertNotIn("\n", text)
            self.assertEqual(list(self.location.parent.iterdir()), [])
            self.assertFalse(self.bin.exists() and list(self.bin.iterdir()))

        def test_editable_project(self) -> None:
            project = local_index.write_project(self.directory / "src", "shop", "1.0")
            self.recipe(develop="src", scripts="shop").install()
            self.assertEqual(self.output(self.bin / "shop"), "shop 1.0")
            (project / "shop.py").write_text("def main():\n    print('edited')\n")
            with nothing_is_started():
                self.recipe(develop="src", scripts="shop").update()
            self.assertEqual(self.output(self.bin / "shop"), "edited")

        def test_broken_project(self) -> None:
            project = local_index.write_project(self.directory / "src", "shop", "1.0")
            (project / "backend.py").write_text("raise SystemError('the backend is broken')\n")
            text = self.refused("the backend is broken", install=True, develop="src")
            self.assertNotIn("\n", text)

        def test_versions_hold(self) -> None:
            versions = {"Hello": "<2", "buildtool": "1.0"}
            self.recipe(requirements="hello\nbuildtool", versions=versions).install()
            self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 1.0")

        def test_versions_against_a_dependency(self) -> None:
            self.refused(
                "hello>=2",
                "hello==1.0",
                "; compare with hello in [versions], and change one of the two",
                install=True,
                requirements="needy",
                versions={"hello": "1.0"},
            )

        def test_index_alone(self) -> None:
            self.recipe(requirements="hello", find_links="").install()
            self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

        def test_odd_directory_names(self) -> None:
            wheels = self.directory / "wheels, ü 100%"
            shutil.copytree(self.wheels, wheels)
            self.recipe(
                requirements="hello", find_links=wheels.name, index=f"{wheels.name}/simple"
            ).install()
            self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

        def test_offline_asks_nobody(self) -> None:
            with local_index.serving(self.wheels) as seen:
                index = f"http://127.0.0.1:{seen.port}/simple"
                self.refused(
                    "; unset offline and install-from-cache, or add a directory of wheels",
                    install=True,
                    requirements="hello",
                    find_links=f"http://127.0.0.1:{seen.port}/",
                    index=index,
                    shared={"offline": "true"},
                )
                self.recipe(
                    requirements="hello", index=index, shared={"offline": "true"}
                ).install()
            self.assertEqual(seen.paths, [])

        def test_unreachable_index(self) -> None:
            with local_index.serving(self.wheels) as seen:
                pass  # now the port is free: nobody answers there
            self.refused(
                "something could not be reached in ",
                "; check the network, and index and find-links",
                install=True,
                requirements="hello",
                find_links="",
                index=f"http://127.0.0.1:{seen.port}/simple",
            )

        def test_password_is_seen_by_nobody(self) -> None:
            local_index.write_project(
                self.directory / "src", "shop", "1.0", build_requires="buildtool"
            )
            log = self.logged()
            with local_index.serving(self.wheels, {"me": "s3/cret"}) as seen:
                index = f"http://me:s3%2Fcret@127.0.0.1:{seen.port}/simple"
                links = f"http://me:s3%2Fcret@127.0.0.1:{seen.port}/"
                with mock.patch.dict(os.environ, {"NETRC": str(self.directory / "netrc")}):
                    self.recipe(
                        requirements="hello", index=index, find_links=links, develop="src"
                    ).install()
                    text = self.refused(
                        "nosuchthing",
                        install=True,
                        requirements="nosuchthing",
                        index=index,
                        find_links=links,
                    )
            self.assertIn("/simple/buildtool/", seen.paths)
            self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")
            self.assertEqual(self.options["index"], f"http://****@127.0.0.1:{seen.port}/simple")
            self.assertTrue(any(str(self.location) in command for command in seen.commands))
            texts = [text, log.getvalue(), *seen.commands, *self.options.values()]
            texts += [
                path.read_text("utf-8", "replace")
                for path in self.directory.rglob("*")
                if path.is_file()
            ]
            for found in texts:
                self.assertNotIn("s3%2F", found)
                self.assertNotIn("s3/c", found)


class TestUv(BothInstallers.Case):
    installer = "uv"

    def test_pips_configuration_holds(self) -> None:
        configuration = self.directory / "pip.conf"
        configuration.write_text(
            f"[global]\nfind-links = {self.wheels}\n[install]\nno-index = yes\n"
        )
        with mock.patch.dict(os.environ, {"PIP_CONFIG_FILE": str(configuration)}):
            self.recipe(requirements="hello", index="", find_links="").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_pips_indexes_hold(self) -> None:
        mirror = self.directory / "mirror"
        local_index.write_wheel(mirror, "hello", "1.0")
        settings = {
            "PIP_INDEX_URL": (self.wheels / "simple").as_uri(),
            "PIP_EXTRA_INDEX_URL": local_index.write_index(mirror).as_uri(),
        }
        with mock.patch.dict(os.environ, settings):
            self.recipe(requirements="hello == 2.0", index="", find_links="").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_uvs_own_configuration_comes_first(self) -> None:
        settings = {
            "PIP_INDEX_URL": "http://127.0.0.1:1/",
            "UV_DEFAULT_INDEX": (self.wheels / "simple").as_uri(),
        }
        with mock.patch.dict(os.environ, settings):
            self.recipe(requirements="hello", index="", find_links="").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_without_uv_pip_does_it(self) -> None:
        log = self.logged()
        with (
            mock.patch.dict(sys.modules, {"uv": None}),
            mock.patch.dict(os.environ, {"PATH": str(self.directory)}),
        ):
            self.recipe(requirements="hello").install()
        self.assertEqual(
            log.getvalue().splitlines()[0],
            "There is no uv here, neither installed nor on PATH: pip stands in.",
        )
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_egg_without_its_program(self) -> None:
        """zc.buildout makes such an egg of uv."""
        import uv

        version = importlib.metadata.version("uv")
        program = pathlib.Path(uv.find_uv_bin())
        local_index.write_wheel(self.directory / "more", "uv", version, programs=[program])
        egg = self.directory / "eggs" / f"uv-{version}.egg"
        egg.mkdir(parents=True)
        (egg / f"uv-{version}.dist-info").mkdir()
        (egg / f"uv-{version}.dist-info" / "METADATA").write_text(f"Version: {version}\n")
        (egg / "uv").mkdir()
        (egg / "uv" / "__init__.py").write_text(
            "import pathlib\n"
            "def find_uv_bin():\n"
            "    program = pathlib.Path(__file__).parent.parent / 'bin' / 'uv'\n"
            "    return str(program.resolve(strict=True))\n"
        )
        log = self.logged()
        with (
            mock.patch.object(sys, "path", [str(egg), *sys.path]),
            mock.patch.dict(sys.modules),
            mock.patch.dict(os.environ, {"PIP_NO_INDEX": "1"}),
        ):
            del sys.modules["uv"]
            importlib.invalidate_caches()
            # there, uv can't be had
            self.recipe(requirements="hello").install()
            self.recipe(requirements="hello", find_links=f"{self.wheels}\nmore").install()
        self.assertEqual(
            re.findall(r"pip stands in|by \w+(?=,)", log.getvalue()),
            ["pip stands in", "by pip", "by uv"],
        )
        self.assertTrue(os.access(egg / "bin" / "uv", os.X_OK))


class TestPip(BothInstallers.Case):
    installer = "pip"


class TestInputs(Case):
    def test_files(self) -> None:
        (self.directory / "requirements.txt").write_text("-r more.txt\n# nothing\n")
        (self.directory / "more.txt").write_text("hello\n")
        (self.directory / "constraints.txt").write_text("hello < 2\n")
        options = {
            "requirements_files": "requirements.txt",
            "constraints_files": "constraints.txt",
        }
        self.recipe(**options).install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 1.0")
        digest = self.options["digest"]
        (self.directory / "more.txt").write_text("hello\nneedy\n")
        self.recipe(**options)
        self.assertNotEqual(self.options["digest"], digest)

    def test_buildouts_index_and_find_links(self) -> None:
        self.recipe(
            requirements="hello",
            index="",
            find_links="",
            shared={
                "index": (self.wheels / "simple").as_uri(),
                "find-links": f"not/there {self.wheels}".replace(" ", "\n"),
            },
        ).install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_deep_directory(self) -> None:
        deep = self.directory / ("a deep directory " * 4) / ("x" * 90)
        deep.mkdir(parents=True)
        os.chdir(deep)
        self.recipe(requirements="hello", scripts="hello", interpreter="py").install()
        self.assertEqual(self.output(deep / "bin" / "hello"), "hello 2.0")
        self.assertEqual(
            self.output(
                deep / "bin" / "py", "-c", "import hello, sys; print(sys.argv[1:])", "'"
            ),
            '["\'"]',
        )


class TestScripts(Case):
    def test_all_with_one_renamed(self) -> None:
        made = self.recipe(requirements="hello", scripts="* hello = hi").install()
        self.assertEqual(made, [str(self.bin / "hello-again"), str(self.bin / "hi")])
        self.assertEqual(self.output(self.bin / "hi"), "hello 2.0")
        self.assertEqual(self.output(self.bin / "hello-again"), "hello 2.0")

    def test_interpreter(self) -> None:
        made = self.recipe(requirements="hello", interpreter="py").install()
        self.assertEqual(made, [str(self.bin / "py")])
        program = "import hello, sys; print(sys.prefix, *sys.argv[1:])"
        self.assertEqual(
            self.output(self.bin / "py", "-c", program, "a b", "-x"), f"{self.location} a b -x"
        )

    def test_another_script_needs_no_process(self) -> None:
        self.recipe(requirements="hello").install()
        with nothing_is_started():
            self.recipe(requirements="hello", scripts="hello").install()
        self.assertEqual(self.output(self.bin / "hello"), "hello 2.0")

    def test_program_that_is_no_script(self) -> None:
        shutil.copy("/bin/echo", self.directory / "echo")
        local_index.write_wheel(
            self.directory / "more", "binary", "1.0", programs=[self.directory / "echo"]
        )
        self.recipe(
            requirements="binary", scripts="echo=say", find_links=f"{self.wheels}\nmore"
        ).install()
        self.assertEqual(self.output(self.bin / "say", "a  b", "c"), "a  b c")
        self.assertLess((self.bin / "say").stat().st_size, 500)

    def test_unknown(self) -> None:
        self.refused(
            "scripts: this environment has no script helo; "
            "did you mean hello? There are: hello, hello-again",
            install=True,
            requirements="hello",
            scripts="helo",
        )
        self.assertFalse(self.location.exists())
        self.refused(
            "no script report; name in requirements or develop what brings it",
            install=True,
            scripts="report",
        )

    def test_taken(self) -> None:
        self.recipe(requirements="hello == 1.0").install()
        self.bin.mkdir(exist_ok=True)
        (self.bin / "hello").write_text("precious")
        for requirement in ("hello == 1.0", "hello == 2.0"):
            self.refused(
                "bin/hello is there already, and not from this part; "
                "rename ours with scripts = hello=..., or remove that file",
                install=True,
                requirements=requirement,
                scripts="hello",
            )
            self.assertEqual((self.bin / "hello").read_text(), "precious")
            self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 1.0")

    def test_a_wrapper_of_the_users(self) -> None:
        self.bin.mkdir(exist_ok=True)
        wrapper = self.bin / "hello"
        wrapper.write_text(f"#!/bin/sh\n# mine\nexec {self.location}/bin/hello --loud\n")
        text = wrapper.read_text()
        self.refused(
            "bin/hello is there already", requirements="hello", scripts="hello", install=True
        )
        (self.bin / "py").write_text("mine")
        self.refused(
            "bin/py is there already, and not from this part; rename ours with interpreter, or",
            interpreter="py",
            install=True,
        )
        self.assertEqual(wrapper.read_text(), text)

    def test_nowhere_to_put_them(self) -> None:
        self.recipe(requirements="hello == 1.0").install()
        before = self.tree()
        shutil.rmtree(self.bin)
        self.bin.write_text("a file")
        self.refused(
            "bin can't be written: ", requirements="hello", scripts="hello", install=True
        )
        self.assertEqual(self.tree(), before)

    def test_two_for_one_name(self) -> None:
        for options in (
            {"scripts": "* hello=hello-again"},
            {"scripts": "*", "interpreter": "hello"},
        ):
            self.refused(
                "two scripts would be bin/hello", requirements="hello", install=True, **options
            )
        made = self.recipe(requirements="hello", scripts="hello=a hello=b hello=a").install()
        self.assertEqual(made, [str(self.bin / "a"), str(self.bin / "b")])

    def test_names(self) -> None:
        self.refused("two scripts would be bin/a", scripts="hello=a hi=a")
        self.refused("two scripts would be bin/py", scripts="hello=py", interpreter="py")
        self.refused("'../up' can't be the name of a script", scripts="hello=../up")
        self.refused("scripts: hello= has no name; write name=newname", scripts="hello=")


class TestUpdate(Case):
    def test_unchanged_starts_nothing_and_writes_nothing(self) -> None:
        local_index.write_project(self.directory / "src", "shop", "1.0")
        (self.directory / "requirements.txt").write_text("hello\n")
        options = {
            "requirements_files": "requirements.txt",
            "develop": "src",
            "scripts": "*",
            "interpreter": "py",
        }
        made = self.recipe(**options).install()
        digest = self.options["digest"]
        before = self.times()
        with nothing_is_started():
            recipe = self.recipe(**options)
            self.assertEqual(self.options["digest"], digest)
            self.assertEqual(recipe.update(), made)
        self.assertEqual(self.times(), before)

    def times(self) -> dict[pathlib.Path, tuple[int, int]]:
        """Which file each path is, and when it was written."""
        return {
            path: (path.lstat().st_ino, path.lstat().st_mtime_ns)
            for path in self.directory.rglob("*")
        }

    def test_what_is_missing_is_mended(self) -> None:
        recipe = self.recipe(requirements="hello", scripts="hello", interpreter="py")
        recipe.install()
        (self.bin / "hello").unlink()
        (self.bin / "py").unlink()
        with nothing_is_started():
            recipe.update()
        self.assertEqual(self.output(self.bin / "hello"), "hello 2.0")
        (self.location / "bin" / "python").unlink()
        recipe.update()
        self.assertEqual(self.output(self.bin / "hello"), "hello 2.0")
        (self.location / environment.MARKER).write_text("{")
        recipe.update()
        self.assertEqual(self.output(self.bin / "py", "-c", "import hello"), "")

    def test_changed_requirement(self) -> None:
        self.recipe(requirements="hello == 1.0").install()
        before = self.options["digest"]
        self.recipe(requirements="hello == 2.0\nneedy").install()
        self.assertNotEqual(self.options["digest"], before)
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")
        self.recipe(requirements="hello == 1.0").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 1.0")
        self.assertEqual(list(self.location.rglob("needy*")), [])

    def test_changed_metadata_of_a_project(self) -> None:
        project = local_index.write_project(self.directory / "src", "shop", "1.0")
        self.recipe(develop="src", scripts="shop").install()
        digest = self.options["digest"]
        with (project / "pyproject.toml").open("a") as file:
            file.write('sell = "shop:main"\n')
        made = self.recipe(develop="src", scripts="shop sell").install()
        self.assertNotEqual(self.options["digest"], digest)
        self.assertEqual(made, [str(self.bin / "sell"), str(self.bin / "shop")])

    def test_moved_directory(self) -> None:
        self.recipe(requirements="hello", scripts="hello").install()
        moved = self.directory.with_name("moved")
        self.directory.rename(moved)
        os.chdir(moved)
        self.recipe(requirements="hello", scripts="hello").update()
        self.assertEqual(self.output(moved / "bin" / "hello"), "hello 2.0")
        self.assertFalse(self.directory.exists())

    def test_replaced_interpreter(self) -> None:
        python = self.directory / "some-python"
        python.symlink_to(os.path.realpath(sys.executable))
        self.recipe(requirements="hello", python="./some-python").install()
        digest = self.options["digest"]
        python.unlink()
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        self.recipe(requirements="hello", python="./some-python").update()
        self.assertNotEqual(self.options["digest"], digest)
        python.unlink()
        self.recipe(requirements="hello", python=sys.executable).install()
        self.refused("python: ./some-python is no program", python="./some-python")

    def test_record(self) -> None:
        self.recipe(requirements="hello", scripts="hello=hi").install()
        record = json.loads((self.location / environment.MARKER).read_text())
        self.assertEqual(record["commands"], ["hello", "hello-again"])
        self.assertEqual(record["links"], {"hi": "hello"})


class TestKilled(Case):
    """A run that is killed leaves no chance to clean up; the next one does it."""

    def killed(self, recipe: Recipe, *, complete: bool) -> None:
        child = os.fork()
        if child == 0:
            before = environment.recorded(self.location)
            with contextlib.suppress(BaseException):
                lock = os.open(self.directory, os.O_RDONLY)

                def finish(record: environment.Record) -> environment.Record:
                    if not complete:
                        os._exit(9)
                    return record

                installers.provide(recipe.wanted, before, recipe.log, finish, lock=lock)
                os._exit(9)
            os._exit(1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 9)

    def test_first_time(self) -> None:
        self.killed(self.recipe(requirements="hello"), complete=False)
        self.assertTrue(self.location.exists())
        self.recipe(requirements="hello").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_before_there_was_any_file(self) -> None:
        (self.location / "lib").mkdir(parents=True)
        self.recipe(requirements="hello").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_while_it_was_removed(self) -> None:
        self.recipe(requirements="hello").install()
        with (
            mock.patch.object(pathlib.Path, "rmdir", side_effect=KeyboardInterrupt),
            mock.patch.object(shutil, "rmtree", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            environment._remove(self.location)
        self.assertFalse((self.location / environment.MARKER).exists())
        self.recipe(requirements="hello").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")

    def test_with_an_old_environment(self) -> None:
        self.recipe(requirements="hello == 1.0").install()
        before = self.tree()
        self.killed(self.recipe(requirements="hello == 2.0"), complete=False)
        self.refused("nosuchthing", install=True, requirements="nosuchthing")
        self.assertEqual(self.tree(), before)
        self.killed(self.recipe(requirements="hello == 2.0"), complete=False)
        self.recipe(requirements="hello == 2.0").install()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")
        self.assertEqual(list(self.location.parent.iterdir()), [self.location])

    def test_when_the_new_one_was_complete(self) -> None:
        self.recipe(requirements="hello == 1.0").install()
        recipe = self.recipe(requirements="hello == 2.0")
        with mock.patch.object(environment, "_remove"):  # killed before the old one is removed
            self.killed(recipe, complete=True)
        self.assertEqual(len(list(self.location.parent.iterdir())), 2)
        with nothing_is_started():
            recipe.update()
        self.assertEqual(self.output(self.location / "bin" / "hello"), "hello 2.0")
        self.assertEqual(list(self.location.parent.iterdir()), [self.location])


class TestBadInput(Case):
    def test_all_at_once(self) -> None:
        text = self.refused(
            "8 problems:",
            "has an unknown option requirement; write requirements",
            "installer: poetry is unknown; use uv or pip",
            "requirements: -i https://****@example.com/ is an option of the installer; ",
            "requirements-files: absent.txt can't be read: No such file or directory; "
            "correct the path, which starts from the buildout directory",
            "develop: there is no directory absent; correct the path",
            "python: there is no Python 2.1 on this machine; install it, ",
            "index: there is no ",
            "scripts: hello= has no name; ",
            requirement="hello",
            installer="poetry",
            requirements="-i https://me:s3cret@example.com/",
            requirements_files="absent.txt",
            develop="absent",
            python="2.1",
            index="absent",
            scripts="hello=",
        )
        version = ".".join(map(str, sys.version_info[:3]))
        self.assertIn(f"{version} (", text)

    def test_directory_that_is_no_project(self) -> None:
        (self.directory / "src").mkdir()
        self.refused(
            "develop: src is no project, as it has neither pyproject.toml nor setup.py; "
            "name the directory that has one of them",
            develop="src",
        )
        self.refused(
            "develop: there is no directory srv; write src, the nearest name there is",
            develop="srv",
        )

    def test_included_file_that_is_missing(self) -> None:
        (self.directory / "requirements.txt").write_text("hello\n-r base.txt\n")
        self.refused(
            "[tool] requirements.txt, line 2: base.txt can't be read: ",
            requirements_files="requirements.txt",
        )

    def test_conflicts_with_versions(self) -> None:
        (self.directory / "requirements.txt").write_text(
            "needy\nHello >= 2  # new\nhello >= 2; python_version < '3'\nhello>=1\n"
        )
        text = self.refused(
            "requirements: hello==2.0 conflicts with hello = 1.0 in [versions]; "
            "change one of the two",
            "requirements.txt, line 2: Hello >= 2 conflicts with hello = 1.0 in [versions]",
            requirements="hello==2.0",
            requirements_files="requirements.txt",
            versions={"hello": "1.0"},
        )
        self.assertIn("2 problems", text)

    def test_program_that_is_no_python(self) -> None:
        self.refused("python: /bin/false is no Python 3 that works; ", python="/bin/false")

    def test_more_than_one_index(self) -> None:
        self.refused("index: it has more than one URL", index="https://a/ https://b/")

    def test_unwritable(self) -> None:
        if os.geteuid() == 0:
            self.location.parent.mkdir(exist_ok=True)
            recipe = self.recipe(requirements="hello")
            shutil.rmtree(self.location.parent)
            self.location.parent.write_text("in the way")
        else:
            recipe = self.recipe(requirements="hello")
            self.location.parent.chmod(0o555)
            self.addCleanup(self.location.parent.chmod, 0o755)
        with self.assertRaisesRegex(zc.buildout.UserError, "can't be written: .*; free it"):
            recipe.install()

    def test_password_in_a_requirement(self) -> None:
        self.recipe(requirements="hello @ https://me:s3cret@example.com/hello-1.0.tar.gz")
        self.assertEqual(
            self.options["requirements"],
            "hello @ https://****@example.com/hello-1.0.tar.gz",
        )


class TestPython(Case):
    def other(self) -> pathlib.Path:
        """Another Python of this machine, with its version in its name."""
        beside = pathlib.Path(sys.base_prefix).parent.glob("*/bin")
        places = [*self.path.split(os.pathsep), *map(str, beside)]
        for place in places:
            for minor in range(14, 8, -1):
                program = shutil.which(f"python3.{minor}", path=place)
                if program is None or minor == sys.version_info[1]:
                    continue
                ask = [program, "-I", "-c", "import sys, venv; print(sys.executable)"]
                done = subprocess.run(ask, capture_output=True, text=True, check=False)
                found = pathlib.Path(done.stdout.strip())  # there, PATH may have a shim
                if done.returncode == 0 and found.name == f"python3.{minor}":
                    return found
        raise unittest.SkipTest("needs a second Python 3 on PATH: apt install python3")

    def test_another_version(self) -> None:
        program = self.other()
        version = program.name.removeprefix("python")
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        for installer, asked in (
            ("uv", version),
            ("uv", program.name),
            ("pip", version),
            ("pip", str(program)),
        ):
            with self.subTest(installer=installer, asked=asked):
                options = {"requirements": "hello", "python": asked, "installer": installer}
                with mock.patch.dict(os.environ, {"PATH": path}):
                    self.recipe(**options).install()
                self.assertIn(f"/lib/python{version}", self.options["site-packages"])
                code = "import hello, sys; print('%d.%d' % sys.version_info[:2])"
                self.assertEqual(self.output(self.options["python"], "-c", code), version)
                with nothing_is_started():
                    self.recipe(**options).update()

    def test_another_version_without_uv(self) -> None:
        program = self.other()
        with (
            mock.patch.dict(sys.modules, {"uv": None}),
            mock.patch.dict(os.environ, {"PATH": str(program.parent)}),
        ):
            for asked in (program.name, program.name.removeprefix("python")):
                self.recipe(python=asked)
                self.assertIn(f"/lib/{program.name}", self.options["site-packages"])
            self.refused("python: there is no Python 2.1 on this machine", python="2.1")

    def test_this_version_by_number(self) -> None:
        for asked in (SHORT, f"{SHORT}.{sys.version_info[2]}"):
            self.recipe(python=asked).install()
            self.assertEqual(
                self.output(self.options["python"], "-c", "import sys; print(sys.version)"),
                sys.version,
            )


class TestBuildout(Case):
    """The recipe in real buildouts."""

    def buildout(self, configuration: str, *arguments: str, works: bool = True) -> str:
        (self.directory / "buildout.cfg").write_text(textwrap.dedent(configuration))
        develop_eggs = self.directory / "develop-eggs"
        develop_eggs.mkdir(exist_ok=True)
        for project in ("eggcrate", "pyelftools", "uv", "zc.buildout", "zc.recipe.egg"):
            zc.buildout.testing.install_develop(project, str(develop_eggs))
        main = "import sys, zc.buildout.buildout as b; sys.exit(b.main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", main, "-N", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode == 0, works, output)
        self.assertNotIn("Traceback", output)
        return output

    def test_life_of_a_part(self) -> None:
        local_index.write_project(self.directory / "src", "shop", "1.0")
        configuration = f"""\
            [buildout]
            parts = tool
            index = {(self.wheels / "simple").as_uri()}
            [tool]
            recipe = eggcrate:virtualenv-part
            requirements = hello
            develop = src
            scripts = hello shop=sell
            index = http://me:s3cret@127.0.0.1:1/
            find-links = {self.wheels}
            [versions]
            hello = 1.0
            """
        configuration = configuration.replace("127.0.0.1:1/", "127.0.0.1:{port}/simple")
        with local_index.serving(self.wheels, {"me": "s3cret"}) as seen:
            configuration = configuration.format(port=seen.port)
            output = self.buildout(configuration)
            self.assertIn("tool: 2 distributions for Python", output)
            asked = len(seen.paths)
            output = self.buildout(configuration)
            self.assertNotIn("distributions", output)
            self.assertEqual(len(seen.paths), asked)
        self.assertEqual(self.output(self.bin / "hello"), "hello 1.0")
        self.assertEqual(self.output(self.bin / "sell"), "shop 1.0")
        self.assertNotIn("s3cret", (self.directory / ".installed.cfg").read_text())

        output = self.buildout(configuration.replace("= hello\n", "= absent\n"), works=False)
        self.assertIn("Error: [tool] uv can't install what is asked for: ", output)
        self.assertEqual(self.output(self.bin / "hello"), "hello 1.0")

        output = self.buildout(configuration.replace("index = http", "# http"))
        self.assertIn("Installing tool.", output)
        output = self.buildout(
            configuration.replace("index = http", "# http").replace("parts = tool", "parts =")
        )
        self.assertIn("Uninstalling tool.", output)
        self.assertFalse(self.location.exists())
        self.assertEqual(list(self.bin.iterdir()), [])

    def test_another_part_refers_to_it(self) -> None:
        output = self.buildout(
            f"""\
            [buildout]
            parts = other
            [other]
            recipe = eggcrate:virtualenv-part
            requirements-files = ${{tool:location}}/absent.txt
            [tool]
            recipe = eggcrate:virtualenv-part
            requirements = hello
            find-links = {self.wheels}
            """,
            works=False,
        )
        self.assertIn("[other] requirements-files: parts/tool/absent.txt can't", output)
