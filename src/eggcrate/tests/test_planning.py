"""What planning itself decides; test_engines and test_examples go the whole way."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import unittest
from collections.abc import Sequence

from eggcrate.image.oci import Platform, RuntimeConfig
from eggcrate.image.plan import FileEntry, bytes_file, symlink
from eggcrate.payload.closure import Closure
from eggcrate.payload.interpreter import debian_interpreter
from eggcrate.payload.relocation import Relocation
from eggcrate.payload.site import Part, Site
from eggcrate.planning import (
    RUN_DIRECTORY,
    relocation_rules,
    runtime_entries,
    search_path,
    start_program,
)
from eggcrate.runtime import cron
from eggcrate.settings import ImageSettings


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

    def closure(self, **places: pathlib.Path) -> list[FileEntry]:
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
        return closure.finish()

    def test_it_is_relocated_wherever_eggcrate_is(self) -> None:
        for places in (
            {},
            # an egg, and a distribution of buildout's own environment
            {"eggs": self.here.parents[2]},
            {"environment": self.here.parents[1]},
        ):
            with self.subTest(places):
                (entry,) = self.closure(**places)
                self.assertEqual(
                    entry.data,
                    b"cmd = python -I /usr/lib/eggcrate/eggcrate/runtime/cron.py\n"
                    b"# '/usr/lib/eggcrate/eggcrate/runtime'\n",
                )
            shutil.rmtree(self.top / "parts")

    def test_all_of_it_is_in_every_image(self) -> None:
        names = {entry.path for entry in runtime_entries()}
        for module in self.here.glob("*.py"):
            self.assertIn(f"usr/lib/eggcrate/eggcrate/runtime/{module.name}", names)


class SearchPath(unittest.TestCase):
    def first(self, bin_directory: str, *environment: tuple[str, str]) -> str:
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
        settings = ImageSettings(
            references=(),
            platform=Platform("linux", "amd64"),
            site=site,
            parts=(),
            directory="/app",
            location=top / "parts/image",
            environment=environment,
        )
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
