"""What planning itself decides; test_engines and test_examples go the whole way."""

from __future__ import annotations

import pathlib
import unittest
from collections.abc import Sequence

from eggcrate.image.oci import Platform, RuntimeConfig
from eggcrate.image.plan import FileEntry, bytes_file, symlink
from eggcrate.payload.site import Site
from eggcrate.planning import RUN_DIRECTORY, search_path, start_program
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
