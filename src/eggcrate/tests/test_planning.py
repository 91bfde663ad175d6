"""What planning itself decides; test_engines and test_examples go the whole way."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Iterator, Sequence
from unittest import mock

from eggcrate.image.oci import Platform, RuntimeConfig
from eggcrate.image.plan import FileEntry, bytes_file, symlink
from eggcrate.image.store import Store
from eggcrate.payload import libraries
from eggcrate.payload.closure import Closure
from eggcrate.payload.interpreter import debian_interpreter
from eggcrate.payload.relocation import Relocation
from eggcrate.payload.site import Part, Site, develop_places
from eggcrate.planning import (
    RUN_DIRECTORY,
    Base,
    _check_environment,
    relocation_rules,
    runtime_entries,
    search_path,
    start_program,
)
from eggcrate.recipes import scripts
from eggcrate.runtime import cron
from eggcrate.runtime.variables import Setting, Settings
from eggcrate.settings import ImageSettings, this_platform


class StartProgram(unittest.TestCase):
    def is_needed(
        self, runtime: RuntimeConfig | None = None, payload: Sequence[FileEntry] = ()
    ) -> bool:
        """Whether a container doesn't start without a run directory."""
        entry = start_program(runtime or RuntimeConfig(command=("report",)), payload)
        with entry.open() as stream:
            text = stream.read().decode()
        compile(text, entry.path, "exec")
        self.assertIn(f"start({RUN_DIRECTORY!r}, sys.argv[1:], needed=", text)
        return "needed=True" in text

    def test_a_tool_runs_without_a_run_directory(self) -> None:
        payload = [
            bytes_file("app/bin/report", b"#!/app/bin/python\n", group="t", reason="t"),
            symlink("app/bin/python", "/usr/bin/python3", group="t", reason="t"),
        ]
        self.assertFalse(self.is_needed(payload=payload))

    def test_what_names_it_needs_it(self) -> None:
        socket = f"{RUN_DIRECTORY}/socket"
        text = f"endpoint = ipc://{socket}\n".encode()
        payload = [bytes_file("app/circus.ini", text, group="t", reason="t")]
        self.assertTrue(self.is_needed(payload=payload))
        self.assertTrue(self.is_needed(RuntimeConfig(command=("gunicorn", "-b", socket))))
        self.assertTrue(self.is_needed(RuntimeConfig(environment=(("SOCKET", socket),))))


class Runtime(unittest.TestCase):
    """What a configuration names of our runtime package is where the image has it."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(temporary.cleanup)
        self.top = pathlib.Path(temporary.name).resolve()
        self.here = pathlib.Path(cron.__file__).parent

    def closure(self, more: Sequence[Part] = (), **places: pathlib.Path) -> list[FileEntry]:
        """The entries of a part that names cron.py, and a path for ``sys.path``."""
        top = self.top
        (top / "parts").mkdir()
        output = top / "parts/circus.ini"
        output.write_text(f"cmd = python -I {self.here}/cron.py\n# '{self.here}'\n")
        site = Site(
            **{
                "directory": top,
                "eggs": top / "eggs",
                "develop_eggs": top / "develop-eggs",
                "bin": top / "bin",
                "parts": top / "parts",
                "environment": top / ".venv",
                "run_directory": top / "var/run",
                **places,
            },
            prefixes=(),
            develop=(self.here.parents[1],),
        )
        rules = relocation_rules(site, "/var/application", debian_interpreter((3, 11)))
        closure = Closure(site, Relocation(rules), present=[str(self.here)])
        closure.add_part(Part("circus", (output,)))
        for part in more:
            closure.add_part(part)
        return closure.finish()

    def test_develop_eggs_that_have_the_same_name(self) -> None:
        paths = ("/a/shop/src", "/b/tool/src", "/c/tool/src", "/c/other", "/srv/own/src")
        self.assertEqual(
            list(develop_places(map(pathlib.Path, paths), pathlib.Path("/srv")).values()),
            ["develop/shop-src", "develop/tool-src", "develop/tool-src-2", "develop/other"],
        )
        here = pathlib.Path("/srv")
        develop = tuple(map(pathlib.Path, paths))
        site = Site(here, here, here, here, here, here, here, (), develop)
        rules = relocation_rules(site, "/app", debian_interpreter((3, 11)))
        targets = {rule.source: rule.target for rule in rules}
        self.assertEqual(targets["/b/tool/src"], "/app/develop/tool-src")
        self.assertEqual(targets["/c/other"], "/app/develop/other")

    def test_it_is_relocated_wherever_eggcrate_is(self) -> None:
        for places in (
            {},
            # an egg, and a distribution of buildout's own environment
            {"eggs": self.here.parents[2]},
            {"environment": self.here.parents[1]},
        ):
            with self.subTest(places):
                (entry,) = self.closure((), **places)
                self.assertEqual(
                    entry.data,
                    b"cmd = python -I /usr/lib/eggcrate/eggcrate/runtime/cron.py\n"
                    b"# '/usr/lib/eggcrate/eggcrate/runtime'\n",
                )
            shutil.rmtree(self.top / "parts")

    def test_a_script_that_runs_it_does_so_there(self) -> None:
        for relative in ("false", "true"):
            section = {
                "directory": str(self.top),
                "bin-directory": str(self.top / "bin"),
                "relative-paths": relative,
            }
            (self.top / "bin").mkdir()
            output = self.top / "parts/nginx.conf"
            (script,) = scripts.bound(
                section, "nginx", "nginxctl", output, self.top / "var/run"
            )
            more = [Part("nginx", (pathlib.Path(script),))]
            with self.subTest(relative):
                _, entry = sorted(self.closure(more), key=lambda found: "/bin/" in found.path)
                assert entry.data is not None
                self.assertIn(b"\n  '/usr/lib/eggcrate/eggcrate/runtime',\n", entry.data)
                self.assertIn(b"'/run/eggcrate')", entry.data)
                self.assertNotIn(os.fsencode(self.top), entry.data)
            shutil.rmtree(self.top / "parts")
            shutil.rmtree(self.top / "bin")

    def test_all_of_it_is_in_every_image(self) -> None:
        names = {entry.path for entry in runtime_entries()}
        for module in self.here.glob("*.py"):
            self.assertIn(f"usr/lib/eggcrate/eggcrate/runtime/{module.name}", names)


def settings_with(
    bin_directory: str = "/srv/shop/bin", environment: tuple[tuple[str, str], ...] = ()
) -> ImageSettings:
    top = pathlib.Path("/srv/shop")
    site = Site(
        directory=top,
        eggs=top / "eggs",
        develop_eggs=top / "develop-eggs",
        bin=pathlib.Path(bin_directory),
        parts=top / "parts",
        environment=top / ".venv",
        run_directory=top / "var/run",
        prefixes=(),
        develop=(),
    )
    return ImageSettings(
        references=(),
        platform=Platform("linux", "amd64"),
        site=site,
        parts=(),
        directory="/app",
        location=top / "parts/image",
        environment=environment,
    )


class Variables(unittest.TestCase):
    def test_a_runtime_setting_is_none_of_the_image_s(self) -> None:
        declared = Settings((Setting("port", "port", "PORT", "8080"),), (), ())
        settings = settings_with(environment=(("OTHER", "1"), ("PORT", "9")))
        self.assertEqual(
            list(map(str, _check_environment(settings, declared))),
            [
                "environment: PORT is a runtime setting; set the option that it stands for, "
                "which is its default, and take it out here"
            ],
        )
        self.assertEqual(list(_check_environment(settings, None)), [])


class SearchPath(unittest.TestCase):
    def first(self, bin_directory: str, *environment: tuple[str, str]) -> str:
        settings = settings_with(bin_directory, environment)
        return search_path(settings).partition(":")[0]

    def test_bin_of_the_buildout_comes_first(self) -> None:
        for bin_directory, place in (
            ("/srv/shop/bin", "/app/bin"),
            ("/srv/shop/tools/scripts", "/app/tools/scripts"),
            ("/srv/shop-bin", "/app/bin"),
            ("/usr/local/bin", "/app/bin"),
        ):
            self.assertEqual(self.first(bin_directory), place)

    def test_that_of_the_option_is_all_there_is(self) -> None:
        self.assertEqual(self.first("/srv/shop/bin", ("PATH", "/x")), "/x")


class Extract(unittest.TestCase):
    """A program of the packages runs on a machine that has none of its libraries."""

    def entries(self) -> Iterator[FileEntry]:
        """sh of this machine, with what it needs, as if packages had it."""
        program = os.path.realpath("/bin/sh")
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for path in ["/bin/sh", *re.findall(r"(/\S+) \(0x", said.stdout)]:
            data = pathlib.Path(path).read_bytes()
            entry = bytes_file(path.strip("/"), data, group="packages", reason="t")
            yield dataclasses.replace(entry, mode=0o755)

    def test_it_runs_through_the_packed_loader(self) -> None:
        if not shutil.which("ldd"):
            self.skipTest("there is no ldd to tell what a program needs")
        entries = tuple(self.entries())
        with (
            tempfile.TemporaryDirectory() as directory,
            mock.patch.object(Base, "python"),
            mock.patch.object(Base, "entries", return_value=entries),
        ):
            settings = mock.Mock()
            settings.platform = this_platform()
            (pathlib.Path(directory) / "programs").mkdir()
            base = Base(settings, Store(pathlib.Path(directory, "cache")))
            base.binaries = libraries.read_all(entries)
            top = pathlib.Path(directory, "programs")
            words = base.extract("bin/sh", top)
            self.assertEqual(words[0], str(next(top.glob("ld-*"))))
            self.assertGreater(len(list(top.glob("lib*"))), 0)
            said = subprocess.run(
                [*words, "-c", 'echo "$1"', "sh", "it runs"], capture_output=True, check=True
            )
            self.assertEqual(said.stdout, b"it runs\n")
            self.assertEqual(base.extract("usr/sbin/nginx", top), ())
