"""virtualenv-part: what goes into an environment, by uv and by pip, from an index of ours."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from typing import Any
from unittest import mock

import zc.buildout
import zc.buildout.testing

from eggcrate.environments import environment
from eggcrate.recipes.virtualenv_part import Recipe
from eggcrate.tests import local_index, test_virtualenv_part
from eggcrate.tests.test_virtualenv_part import WHEELS, nothing_is_started


def hashed(wheel: pathlib.Path) -> str:
    """A line of requirements that takes this wheel, and no other."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} \\\n    --hash={sha256(wheel)}"


def sha256(wheel: pathlib.Path) -> str:
    return f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


class BothInstallers:
    """What has to be so whether uv or pip installs."""

    class Case(test_virtualenv_part.Case):
        installer: str

        def recipe(self, **options: Any) -> Recipe:
            return super().recipe(**{"installer": self.installer, **options})

        def installed(self) -> dict[str, str]:
            """Name and version of what is there."""
            names = os.listdir(self.options["site-packages"])
            found = (name[:-10].split("-") for name in names if name.endswith(".dist-info"))
            return dict(found)

        def wheel(self, name: str, version: str) -> pathlib.Path:
            return self.wheels / f"{name}-{version}-py3-none-any.whl"

        def write(self, name: str, text: str) -> str:
            (self.directory / name).write_text(textwrap.dedent(text))
            return name

        # Requirements

        def test_all_kinds_of_requirements(self) -> None:
            local_index.write_wheel(
                self.directory / "more", "rich", "1.0", extras={"pdf": "buildtool"}
            )
            shutil.copy(self.wheel("needy", "1.0"), self.directory)
            self.write("more.txt", "-c limits.txt\nrich[pdf]\n")
            self.write("limits.txt", "hello < 3\nabsent == 1.0\n")
            self.write("requirements.txt", "# a comment\n-r more.txt\nhello >= 2\n")
            self.recipe(
                requirements=f"""
                    nosuchthing; python_version < "3"
                    needy @ {(self.directory / "needy-1.0-py3-none-any.whl").as_uri()}""",
                requirements_files="requirements.txt",
                find_links=f"{self.wheels}\nmore",
            ).install()
            self.assertEqual(
                self.installed(),
                {"buildtool": "1.0", "hello": "2.0", "needy": "1.0", "rich": "1.0"},
            )

        def test_path_as_a_requirement(self) -> None:
            shutil.copy(self.wheel("hello", "1.0"), self.directory)
            options = {"requirements": "./hello-1.0-py3-none-any.whl", "index": ""}
            self.recipe(**options).install()
            self.assertEqual(self.installed(), {"hello": "1.0"})
            digest = self.options["digest"]
            os.utime(self.directory / "hello-1.0-py3-none-any.whl", (1, 1))
            self.recipe(**options)
            self.assertNotEqual(self.options["digest"], digest)

        # Hashes

        def test_hashes(self) -> None:
            self.write("requirements.txt", hashed(self.wheel("hello", "1.0")) + "\n")
            options = {"requirements_files": "requirements.txt", "require_hashes": "true"}
            self.recipe(**options, versions={"hello": "1.0"}).install()
            self.assertEqual(self.installed(), {"hello": "1.0"})
            self.assertEqual(self.archives(), {"hello": [sha256(self.wheel("hello", "1.0"))]})

        def archives(self) -> dict[str, list[str]]:
            """What other platforms' wheels may be."""
            record = environment.recorded(self.location)
            assert record
            return record.archives()

        def test_wrong_hash(self) -> None:
            self.recipe(requirements="hello == 2.0").install()
            before = self.tree()
            line = hashed(self.wheel("hello", "1.0"))
            right = line.rpartition(":")[2]
            self.write("requirements.txt", line.replace(right, "0" * 64))
            text = self.refused(
                "hello",
                right,
                "0" * 64,
                install=True,
                requirements_files="requirements.txt",
            )
            self.assertNotIn("\n", text)
            self.assertEqual(self.tree(), before)

        def test_missing_hash(self) -> None:
            line = hashed(self.wheel("hello", "1.0"))
            self.write("requirements.txt", f"{line}\nneedy==1.0\n-c limits.txt\n")
            self.write("limits.txt", "buildtool==1.0\n")
            self.refused(
                "2 problems",
                "requirements.txt, line 3: needy==1.0 has no hash, and require-hashes is set; "
                "write --hash=sha256:... behind it; uv pip compile --generate-hashes does",
                "requirements: buildtool has no hash",
                requirements="buildtool\nabsent; python_version < '3'",
                requirements_files="requirements.txt",
                require_hashes="true",
            )
            # a dependency that is on no list
            self.write("requirements.txt", hashed(self.wheel("needy", "1.0")))
            self.refused(
                "hello",
                install=True,
                requirements_files="requirements.txt",
                require_hashes="true",
            )

        def test_another_hash_of_what_is_installed(self) -> None:
            options = {"requirements_files": "requirements.txt"}
            line = hashed(self.wheel("hello", "1.0"))
            self.write("requirements.txt", line)
            self.recipe(**options).install()
            before = self.tree()
            self.write("requirements.txt", line[:-64] + "0" * 64)
            self.refused("0" * 64, install=True, **options)
            self.assertEqual(self.tree(), before)

        # Projects

        def test_projects_of_every_kind(self) -> None:
            wheels = self.directory / "more"
            local_index.repack(wheels, "setuptools")
            files = {
                "old/setup.py": """\
                    from setuptools import setup
                    setup(name="old", version="1.0", py_modules=["old"],
                          entry_points={"console_scripts": ["old=old:main"]},
                          install_requires=["hello"], extras_require={"more": ["needy"]})
                    """,
                "cfg/setup.py": "import setuptools; setuptools.setup()\n",
                "cfg/setup.cfg": """\
                    [metadata]
                    name = cfg
                    version = 1.0
                    [options]
                    py_modules = cfg
                    [options.entry_points]
                    console_scripts =
                        cfg = cfg:main
                    """,
                "new/pyproject.toml": """\
                    [build-system]
                    requires = ["setuptools"]
                    build-backend = "setuptools.build_meta"
                    [project]
                    name = "new"
                    version = "1.0"
                    dynamic = ["dependencies"]
                    scripts = {new = "new:main"}
                    [tool.setuptools.dynamic]
                    dependencies = {file = ["needs.txt"]}
                    """,
                "new/needs.txt": "buildtool\n",
                "new/src/new.py": "def main(): print('new')\n",
                "old/old.py": "def main(): print('old')\n",
                "cfg/cfg.py": "def main(): print('cfg')\n",
            }
            for name, text in files.items():
                path = self.directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(textwrap.dedent(text))
            options = {
                "develop": "old[more]\ncfg\nnew",
                "scripts": "*",
                "find_links": f"{self.wheels}\nmore",
            }
            self.recipe(**options).install()
            wanted = {"buildtool", "cfg", "hello", "needy", "new", "old"}
            self.assertEqual(self.installed().keys(), wanted)
            for name in ("old", "cfg", "new"):
                self.assertEqual(self.output(self.bin / name), name)
            # no program has been left behind, and what setuptools has read counts
            self.assertEqual(list(self.directory.glob("*/build/lib*")), [])
            digest = self.options["digest"]
            (self.directory / "new" / "needs.txt").write_text("")
            self.recipe(**options).install()
            self.assertNotEqual(self.options["digest"], digest)
            self.assertEqual(self.installed().keys(), wanted - {"buildtool"})

        def project(self, **metadata: Any) -> None:
            local_index.write_project(self.directory / "src", "shop", "1.0", **metadata)

        def test_extras_and_groups(self) -> None:
            self.project(
                extras={"pdf": "hello==1.0"},
                more="[dependency-groups]\nMore_1 = ['needy']\n"
                "test = ['buildtool', {include-group = 'More_1'}]\n",
            )
            self.recipe(develop="src", find_links=self.wheels).install()
            self.assertEqual(self.installed(), {"shop": "1.0"})
            for options in ({"develop": "src[pdf]"}, {"develop": "src", "extras": "pdf"}):
                self.recipe(**options).install()
                self.assertEqual(self.installed(), {"hello": "1.0", "shop": "1.0"})
            self.recipe(develop="src", dependency_groups="test").install()
            self.assertEqual(
                self.installed(),
                {"buildtool": "1.0", "hello": "2.0", "needy": "1.0", "shop": "1.0"},
            )
            self.recipe(develop="src", dependency_groups="more-1").install()
            self.assertEqual(self.installed(), {"hello": "2.0", "needy": "1.0", "shop": "1.0"})

        def test_extra_in_a_directory_with_an_odd_name(self) -> None:
            name = "tool (ü), 100%"
            local_index.write_project(
                self.directory / name, "shop", "1.0", extras={"pdf": "hello==1.0"}
            )
            self.recipe(develop=name, extras="pdf").install()
            self.assertEqual(self.installed(), {"hello": "1.0", "shop": "1.0"})

        def test_unknown_extra(self) -> None:
            self.project(extras={"pdf": "hello"})
            self.recipe(develop="src").install()
            before = self.tree()
            self.refused(
                "extras: no project of develop has an extra pfd; write pdf",
                install=True,
                develop="src[pfd]",
            )
            self.assertEqual(self.tree(), before)

        # Lock files

        def test_lock(self) -> None:
            lock = self.directory / "pylock.toml"
            wheels = [self.wheel("needy", "1.0"), self.wheel("hello", "2.0")]
            local_index.write_lock(lock, *wheels)
            self.project(requires=["hello>=2"])
            options = {"lock": "pylock.toml", "develop": "src", "scripts": "shop"}
            self.recipe(**options, find_links="", index="").install()
            self.assertEqual(self.installed(), {"hello": "2.0", "needy": "1.0", "shop": "1.0"})
            self.assertEqual(self.output(self.bin / "shop"), "shop 1.0")
            with nothing_is_started():  # not even with newest: there can be none
                self.recipe(
                    **options, find_links="", index="", shared={"newest": "true"}
                ).update()

            local_index.write_lock(lock, self.wheel("hello", "1.0"))
            before = self.tree()
            self.refused(
                "develop: shop needs hello>=2, and lock has 1.0; bring that up to date",
                install=True,
                **options,
            )
            self.assertEqual(self.tree(), before)
            local_index.write_lock(lock)
            text = lock.read_text() + "packages = []\n"
            lock.write_text(text)
            self.refused(
                "develop: shop needs hello>=2, and lock has it not; ", install=True, **options
            )

            local_index.write_lock(lock, self.wheel("hello", "2.0"))
            lock.write_text(re.sub('sha256 = ".*"', f'sha256 = "{"0" * 64}"', lock.read_text()))
            self.refused("hello", install=True, **options)
            self.assertEqual(self.tree(), before)

        # Changes

        def test_changes_end_where_a_new_environment_would(self) -> None:
            self.project()
            steps: list[dict[str, str]] = [
                {"requirements": "hello == 1.0"},
                {"requirements": "needy\nbuildtool"},
                {"requirements": "hello"},
                {"requirements": "hello", "develop": "src"},
                {"requirements": "needy", "develop": "src", "versions": {"hello": "2.0"}},  # type: ignore[dict-item] # a section
                {"develop": "src"},
                {},
                {"requirements": "hello == 1.0"},
            ]
            for number, options in enumerate(steps):
                with self.subTest(number):
                    self.recipe(**options).install()
                    changed = self.tree()
                    shutil.rmtree(self.location)
                    self.recipe(**options).install()
                    self.assertEqual(changed, self.tree())

        def test_changed_in_place(self) -> None:
            self.recipe(requirements="hello == 1.0\nbuildtool").install()
            site_packages = pathlib.Path(self.options["site-packages"])
            python = self.location / "bin" / "python"
            kept = [
                (path, path.lstat().st_ino) for path in (site_packages / "buildtool.py", python)
            ]
            log = self.logged()
            self.recipe(requirements="needy\nbuildtool").install()
            self.assertEqual(
                log.getvalue().splitlines()[1:], ["~ hello 2.0, was 1.0", "+ needy 1.0"]
            )
            for path, inode in kept:
                self.assertEqual(path.lstat().st_ino, inode, path)
            self.recipe(requirements="hello == 2.0").install()
            self.assertEqual(
                log.getvalue().splitlines()[4:], ["- buildtool 1.0", "- needy 1.0"]
            )
            self.assertEqual(list(self.location.parent.iterdir()), [self.location])

        def test_failing_change_gives_every_byte_back(self) -> None:
            self.project()
            self.recipe(requirements="hello == 1.0", develop="src", scripts="*").install()
            before = self.tree()
            with mock.patch.dict(os.environ, {"BACKEND_FAILS": "on purpose"}):
                self.refused(
                    "on purpose",
                    install=True,
                    requirements="needy\nbuildtool",
                    develop="src",
                    scripts="*",
                )
            self.assertEqual(self.tree(), before)
            self.refused(  # after all is installed
                "scripts: this environment has no script nosuch",
                install=True,
                requirements="needy\nbuildtool",
                develop="src",
                scripts="nosuch",
            )
            self.assertEqual(self.tree(), before)
            self.assertEqual(self.output(self.bin / "hello"), "hello 1.0")

        def test_what_somebody_did_by_hand_is_mended(self) -> None:
            options = {"requirements": "needy", "scripts": "hello"}
            self.recipe(requirements="needy").install()
            before = self.tree()
            site_packages = pathlib.Path(self.options["site-packages"])
            harms: list[Callable[[], object]] = [
                lambda: shutil.rmtree(site_packages / "needy-1.0.dist-info"),
                lambda: (site_packages / "hello.py").unlink(),
                lambda: (site_packages / "extra.py").touch(),
                lambda: (self.location / "bin" / "hello").unlink(),
            ]
            for harm in harms:
                harm()
                self.recipe(requirements="needy").update()
                self.assertEqual(self.tree(), before)
            self.recipe(**options).install()
            self.output(self.bin / "hello")  # which may leave byte-code
            (site_packages / "__pycache__").mkdir(exist_ok=True)
            with nothing_is_started():
                self.recipe(**options).update()

        # How

        def test_environment_variables(self) -> None:
            self.project()
            self.refused(
                "told by an option",
                install=True,
                develop="src",
                environment="BACKEND_FAILS = told by an option",
            )
            self.recipe(develop="src", environment="OTHER=x\nA_TOKEN=s3cret").install()
            self.assertEqual(self.options["environment"], "OTHER=x\nA_TOKEN=****")

        def test_system_site_packages(self) -> None:
            code = "import sys, site; print(len(site.getsitepackages()), sys.prefix)"
            for text, count in (("true", "2"), ("false", "1")):
                self.recipe(requirements="hello", system_site_packages=text).install()
                found = self.output(self.options["python"], "-c", code).split()
                self.assertEqual(found[1], str(self.location))
                configuration = (self.location / "pyvenv.cfg").read_text()
                self.assertIn(f"include-system-site-packages = {text}", configuration)
                del count
                self.assertEqual(self.installed(), {"hello": "2.0"})

        def test_install_from_cache(self) -> None:
            cache = {"download-cache": str(self.directory / "cache")}
            (self.directory / "cache" / "dist").mkdir(parents=True)  # buildout makes it
            with local_index.serving(self.wheels) as seen:
                index = f"http://127.0.0.1:{seen.port}/simple"
                options = {"requirements": "needy", "index": index, "find_links": ""}
                self.recipe(**options, shared=cache).install()
                asked = len(seen.paths)
                shutil.rmtree(self.location)
                cached = {**cache, "install-from-cache": "true"}
                self.recipe(**options, shared=cached).install()
                self.assertEqual(self.installed(), {"hello": "2.0", "needy": "1.0"})
                self.refused(
                    "buildtool",
                    "unset offline and install-from-cache",
                    install=True,
                    **{**options, "requirements": "buildtool"},
                    shared=cached,
                )
                self.assertEqual(len(seen.paths), asked)

        def test_newer_releases(self) -> None:
            wheels = self.directory / "wheels"
            local_index.write_wheel(wheels, "fresh", "1.0")
            self.project()
            options = {"requirements": "fresh", "index": "", "find_links": str(wheels)}
            options["develop"] = "src"
            settings = {"PIP_NO_INDEX": "1"}
            self.enterContext310(mock.patch.dict(os.environ, settings))
            newest = {"newest": "true"}
            self.recipe(**options).install()
            before = self.tree()
            self.recipe(**options, shared=newest).update()
            self.assertEqual(self.tree(), before)
            local_index.write_wheel(wheels, "fresh", "1.1")
            with nothing_is_started():
                self.recipe(**options).update()
                for held in ({"fresh": "1.0"}, {"fresh": "1.0", "other": "2"}):
                    self.recipe(**options, versions=held, shared=newest)
            self.recipe(**options, shared=newest).update()
            self.assertEqual(self.installed(), {"fresh": "1.1", "shop": "1.0"})
            pinned = {**options, "requirements": "fresh == 1.1", "shared": newest}
            self.recipe(**pinned).install()
            local_index.write_wheel(wheels, "fresh", "1.2")
            with nothing_is_started():
                self.recipe(**pinned).update()

        def test_no_index_for_newer_releases(self) -> None:
            log = self.logged()
            with local_index.serving(self.wheels) as seen:
                index = f"http://127.0.0.1:{seen.port}/simple"
                options = {"requirements": "hello", "index": index, "find_links": ""}
                self.recipe(**options).install()
            before = self.tree()
            log.truncate(0)
            empty = {"UV_CACHE_DIR": str(self.directory / "empty")}
            with mock.patch.dict(os.environ, empty):  # uv believes its own for ten minutes
                self.recipe(**options, shared={"newest": "true"}).update()
            self.assertIn("Nothing newer was looked for: ", log.getvalue())
            self.assertEqual(self.tree(), before)

        def test_another_index(self) -> None:
            other = self.directory / "other"
            local_index.write_wheel(other, "hello", "1.0")
            self.recipe(requirements="hello", find_links="").install()
            self.assertEqual(self.installed(), {"hello": "2.0"})
            index = str(local_index.write_index(other))
            self.recipe(requirements="hello", find_links="", index=index).install()
            self.assertEqual(self.installed(), {"hello": "1.0"})

        # Hosts

        def test_allowed_hosts(self) -> None:
            pages = self.directory / "pages" / "simple" / "hello"
            pages.mkdir(parents=True)
            with (
                local_index.serving(self.wheels) as files,
                local_index.serving(self.directory / "pages") as seen,
            ):
                (pages / "index.html").write_text(
                    f'<a href="http://localhost:{files.port}/hello-2.0-py3-none-any.whl">'
                    "hello-2.0-py3-none-any.whl</a>"
                )
                options = {
                    "requirements": "hello",
                    "index": f"http://127.0.0.1:{seen.port}/simple",
                    "find_links": "",
                }
                self.refused(
                    "allow-hosts forbids localhost: ",
                    "; add it to allow-hosts, or take index and find-links that don't lead",
                    install=True,
                    **options,
                    shared={"allow-hosts": "127.0.0.*\n*.example"},
                )
                self.assertEqual(files.paths, [])
                self.recipe(
                    **options, shared={"allow-hosts": f"127.0.0.*\nlocalhost:{files.port}"}
                ).install()
            self.assertEqual(self.installed(), {"hello": "2.0"})

        # Trouble

        def test_stalling_index(self) -> None:
            with local_index.serving(self.wheels, stalls=60) as seen:
                index = f"http://127.0.0.1:{seen.port}/simple"
                self.refused(
                    "something could not be reached in ",
                    install=True,
                    requirements="hello",
                    find_links="",
                    index=index,
                    shared={"socket-timeout": "1"},
                )
                self.refused(
                    f"{self.installer} was not done after 2 s",
                    "; look what it waits for, or give it more seconds: timeout",
                    install=True,
                    requirements="hello",
                    find_links="",
                    index=index,
                    timeout="2",
                )
            self.assertEqual(list(self.location.parent.iterdir()), [])

        def test_index_that_is_out_of_order(self) -> None:
            with local_index.serving(self.wheels, status=503) as seen:
                self.refused(
                    "503",
                    install=True,
                    requirements="hello",
                    find_links="",
                    index=f"http://127.0.0.1:{seen.port}/simple",
                )
            self.assertLess(len(seen.paths), 10)

        def test_password_of_a_requirement(self) -> None:
            log = self.logged()
            with local_index.serving(self.wheels, {"me": "s3cret"}) as seen:
                name = "hello-2.0-py3-none-any.whl"
                self.recipe(
                    requirements=f"hello @ http://me:s3cret@127.0.0.1:{seen.port}/{name}"
                ).install()
            self.assertEqual(self.installed(), {"hello": "2.0"})
            self.assertIn("requirements has a password in it", log.getvalue())
            texts = [log.getvalue(), *seen.commands, *self.options.values()]
            texts += [
                path.read_text("utf-8", "replace")
                for path in self.directory.rglob("*")
                if path.is_file()
            ]
            for text in texts:
                self.assertNotIn("s3cret", text)
            # and what it lists is what is there
            information = self.location.joinpath(
                self.options["site-packages"], "hello-2.0.dist-info"
            )
            record = (information / "RECORD").read_text()
            listed = {line.partition(",")[0] for line in record.splitlines()}
            self.assertLessEqual(
                {f"{information.name}/{name}" for name in os.listdir(information)}, listed
            )
            self.assertFalse([line for line in listed if line.endswith("REQUESTED")])


class TestUv(BothInstallers.Case):
    layer = WHEELS
    installer = "uv"

    def test_pips_constraints_and_a_lock(self) -> None:
        local_index.write_lock(self.directory / "pylock.toml", self.wheel("hello", "2.0"))
        self.write("constraints.txt", "hello==2.0\n")
        constraint = {"PIP_CONSTRAINT": str(self.directory / "constraints.txt")}
        with mock.patch.dict(os.environ, constraint):
            self.recipe(lock="pylock.toml").install()
        self.assertEqual(self.installed(), {"hello": "2.0"})
        self.assertEqual(self.archives(), {"hello": [sha256(self.wheel("hello", "2.0"))]})

    def test_pips_constraints_and_hashes(self) -> None:
        """uv takes nothing beside hashes that is not exact; pip takes it."""
        self.write("requirements.txt", hashed(self.wheel("hello", "1.0")))
        self.write("constraints.txt", "other<=2\n")
        constraint = {"PIP_CONSTRAINT": str(self.directory / "constraints.txt")}
        with mock.patch.dict(os.environ, constraint):
            self.recipe(requirements_files="requirements.txt", require_hashes="true").install()
        self.assertEqual(self.installed(), {"hello": "1.0"})

    def test_uvs_settings_of_some_project_above(self) -> None:
        self.directory.parent.joinpath("pyproject.toml").write_text(
            f'[tool.uv.pip]\ntarget = "{self.directory}/elsewhere"\n'
        )
        del os.environ["UV_NO_CONFIG"]
        self.recipe(requirements="hello").install()
        self.assertEqual(self.installed(), {"hello": "2.0"})
        self.assertFalse((self.directory / "elsewhere").exists())

    def test_old_uv(self) -> None:
        old = self.directory / "old" / "uv"
        old.parent.mkdir()
        old.write_text(
            "#!/bin/sh\necho \"error: unexpected argument '--exact' found\" >&2; exit 2\n"
        )
        old.chmod(0o755)
        with (
            mock.patch.dict(sys.modules, {"uv": None}),
            mock.patch.dict(os.environ, {"PATH": f"{old.parent}:{os.environ['PATH']}"}),
        ):
            self.refused(
                "uv is older than 0.7: ",
                "; install uv 0.7 or newer, or set installer = pip",
                install=True,
                requirements="hello",
            )

    def test_first_index_that_knows_a_name_is_the_only_one(self) -> None:
        own = self.directory / "own"
        local_index.write_wheel(own, "hello", "1.5")
        settings = {
            "UV_DEFAULT_INDEX": (self.wheels / "simple").as_uri(),
            "UV_INDEX": local_index.write_index(own).as_uri(),
        }
        with mock.patch.dict(os.environ, settings):
            self.recipe(requirements="hello", index="", find_links="").install()
        self.assertEqual(self.installed(), {"hello": "1.5"})


class TestPip(BothInstallers.Case):
    layer = WHEELS
    installer = "pip"


class TestBoth(test_virtualenv_part.Case):
    def test_they_install_the_same(self) -> None:
        local_index.write_project(self.directory / "src", "shop", "1.0")
        local_index.write_wheel(
            self.directory / "more", "typed", "1.0", requires=["needy"], scripts=["typed"]
        )
        trees = []
        for installer in ("uv", "pip"):
            self.recipe(
                requirements="typed\nhello",
                develop="src",
                installer=installer,
                find_links=f"{self.wheels}\nmore",
            ).install()
            trees.append(
                {
                    name: digest
                    for name, digest in self.tree().items()
                    # who installed it, what that listed, and our own note
                    if not name.endswith(
                        ("/INSTALLER", "/RECORD", "/direct_url.json", ".eggcrate.json")
                    )
                }
            )
            (address,) = self.location.rglob("direct_url.json")
            self.assertEqual(
                json.loads(address.read_bytes()),
                {"dir_info": {"editable": True}, "url": (self.directory / "src").as_uri()},
            )
            for name in ("typed", "shop", "hello-again"):
                self.assertTrue(self.output(self.location / "bin" / name))
        scripts = [name for name in trees[0] if name.startswith("bin/")]
        self.assertEqual(scripts, [name for name in trees[1] if name.startswith("bin/")])
        for name in scripts:  # they word them differently
            for tree in trees:
                del tree[name]
        self.assertEqual(trees[0], trees[1])


class TestRefused(test_virtualenv_part.Case):
    def test_lock_and_others(self) -> None:
        (self.directory / "pylock.toml").write_text("lock-version = '1.0'\n")
        text = self.refused(
            "requirements: lock is the whole list already; take one of the two options out",
            "lock: pylock.toml is no lock file, as it has no lock-version or no packages; ",
            lock="pylock.toml",
            requirements="hello",
        )
        self.assertIn("2 problems", text)

    def test_lock_and_versions(self) -> None:
        local_index.write_lock(
            self.directory / "pylock.toml", self.wheels / "hello-1.0-py3-none-any.whl"
        )
        self.refused(
            "pylock.toml: hello==1.0 conflicts with hello = 2.0 in [versions]; change one",
            lock="pylock.toml",
            versions={"hello": "2.0"},
        )

    def test_files_that_are_no_lock(self) -> None:
        for name, text, complaint in (
            ("uv.lock", "", "lock: uv.lock is no name of a lock file; call it pylock.toml"),
            ("pylock.toml", "a = ", "lock: pylock.toml is no TOML: "),
            ("pylock.x.toml", "", "lock: pylock.x.toml is no lock file"),
        ):
            (self.directory / name).write_text(text)
            self.refused(complaint, lock=name)
        self.refused("lock: absent can't be read", lock="absent")

    def test_values(self) -> None:
        self.refused(
            "6 problems",
            "require-hashes: yes is neither true nor false; write one of them",
            "system-site-packages: 1 is neither true nor false; write one of them",
            "timeout: 10m is no number of seconds; write one, like 600",
            "environment: CFLAGS sets no variable; write NAME=value, one a line",
            "environment: VIRTUAL_ENV would send packages elsewhere; take it out",
            "extras: there is no project to have any; name its directory in develop",
            require_hashes="yes",
            system_site_packages="1",
            timeout="10m",
            environment="CFLAGS\nVIRTUAL_ENV=/",
            extras="x",
        )

    def test_ranges_in_versions(self) -> None:
        line = hashed(self.wheels / "hello-1.0-py3-none-any.whl")
        text = self.refused(
            "requirements: hello==1.0 conflicts with hello = >=2 in [versions]; change one",
            requirements=line,
            require_hashes="true",
            versions={"hello": ">=2"},
        )
        self.assertNotIn("problems", text)
        self.recipe(requirements=line, require_hashes="true", versions={"hello": "<2"})

    def test_password_for_git(self) -> None:
        (self.directory / "requirements.txt").write_text(
            "-e git+https://me:s3cret@git.example/shop.git@v1#egg=shop\n"
            "ok @ git+https://git@git.example/ok.git\n"
        )
        text = self.refused(
            "2 problems",
            "requirements.txt, line 1: git would have the password of -e "
            "git+https://****@git.example/shop.git@v1#egg=shop among its arguments",
            "requirements: git would have the password of shop @ ",
            requirements="shop @ git+http://s3cret@git.example/shop.git",
            requirements_files="requirements.txt",
        )
        self.assertNotIn("s3cret", text)

    def test_something_else_is_there(self) -> None:
        self.location.mkdir(parents=True)
        (self.location / "gold").touch()
        self.refused(
            "parts/tool is there already, and is no environment; move it away, or give the "
            "part another name",
            install=True,
            requirements="hello",
        )
        self.assertTrue((self.location / "gold").exists())

    def test_part_whose_name_is_a_path(self) -> None:
        for name in ("../precious", ".", "..", "/precious"):
            buildout = zc.buildout.testing.Buildout()
            buildout[name] = {"recipe": "eggcrate:virtualenv-part"}
            with self.assertRaisesRegex(
                zc.buildout.UserError, "its name is the path of something else; give the part"
            ):
                Recipe(buildout, name, buildout[name])

    def test_unknown_group(self) -> None:
        local_index.write_project(
            self.directory / "src", "shop", "1.0", more="[dependency-groups]\ntest = []\n"
        )
        self.refused(
            "dependency-groups: no project of develop has a group tset; write test",
            develop="src",
            dependency_groups="tset test",
        )

    def test_project_with_broken_metadata(self) -> None:
        project = local_index.write_project(self.directory / "src", "shop", "1.0")
        (project / "pyproject.toml").write_text("[project\n")
        self.refused(
            "develop: src/pyproject.toml is no TOML: ", develop="src", dependency_groups="x"
        )
