"""PID 1: it becomes the command, or says in one line why it can't."""

from __future__ import annotations

import os
import pathlib
import socket
import stat
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from eggcrate.runtime import start

PROGRAM = (
    "import sys; from eggcrate.runtime.start import start; "
    "sys.exit(start({!r}, sys.argv[1:], needed={}))"
)


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.run_directory = self.root / "run/eggcrate"

    def start(
        self,
        *command: str,
        run_directory: pathlib.Path | None = None,
        needed: bool = True,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        package = pathlib.Path(start.__file__).parents[2]
        place = os.fspath(run_directory or self.run_directory)
        return subprocess.run(
            [sys.executable, "-c", PROGRAM.format(place, needed), *command],
            env={**os.environ, "PYTHONPATH": os.fspath(package), **environment},
            capture_output=True,
            text=True,
            check=False,
        )


class Starting(Scratch):
    def test_it_becomes_the_command(self) -> None:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM.format(os.fspath(self.run_directory), True)),
                *("sh", "-c", 'echo $$ "$0" "$@"; exit 7', "a b", "", "c"),
            ],
            env={
                **os.environ,
                "PYTHONPATH": os.fspath(pathlib.Path(start.__file__).parents[2]),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        output, _ = process.communicate()
        self.assertEqual(output, f"{process.pid} a b  c\n")
        self.assertEqual(process.returncode, 7)

    def test_what_has_no_place_elsewhere_goes_to_the_run_directory(self) -> None:
        show = ("sh", "-c", 'echo "$TMPDIR $HOME"')
        place = os.fspath(self.run_directory)
        with mock.patch.dict(os.environ):
            os.environ.pop("TMPDIR", None)
            self.assertEqual(self.start(*show, HOME="/").stdout, f"{place} {place}\n")
            self.assertEqual(self.start(*show, HOME="/root").stdout, f"{place} /root\n")
            given = self.start(*show, HOME="/root", TMPDIR="/tmp")
            self.assertEqual(given.stdout, "/tmp /root\n")

    def test_the_run_directory_is_private(self) -> None:
        self.assertEqual(self.start("true").returncode, 0)
        # root's is passed through by nginx's workers, which are another user
        expected = 0o711 if os.geteuid() == 0 else 0o700
        self.assertEqual(stat.S_IMODE(self.run_directory.stat().st_mode), expected)
        self.assertEqual(self.start("true").returncode, 0)

    def test_one_of_ours_is_closed_to_others(self) -> None:
        self.run_directory.mkdir(parents=True)
        for mode, expected in ((0o777, 0o755), (0o2770, 0o2750), (0o1777, 0o1777)):
            self.run_directory.chmod(mode)
            self.assertEqual(self.start("true").returncode, 0)
            self.assertEqual(stat.S_IMODE(self.run_directory.stat().st_mode), expected)

    @unittest.skipIf(os.geteuid(), "only root can become another user")
    def test_one_of_root_s_that_others_may_write_to(self) -> None:
        self.root.chmod(0o755)
        self.run_directory.mkdir(parents=True)
        for mode, refused in ((0o777, True), (0o2777, True), (0o1777, False), (0o770, False)):
            self.run_directory.chmod(mode)
            script = (
                "import os; from eggcrate.runtime import start\n"
                "os.setgroups([]); os.setgid(0); os.setuid(10001)\n"
                f"print(start.run_directory_problem({os.fspath(self.run_directory)!r}))\n"
            )
            package = pathlib.Path(start.__file__).parents[2]
            said = subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, "PYTHONPATH": os.fspath(package)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            wanted = (
                f"the run directory {self.run_directory} can be written by other users; mount "
                f"what can be written at {self.root}/run instead"
            )
            self.assertEqual(said, f"{wanted if refused else None}\n", oct(mode))

    def test_each_failure_has_its_code_and_one_line(self) -> None:
        plain = self.root / "plain"
        plain.write_text("text")
        for command, code, line in (
            ((), 78, "there is nothing to run; give docker run a command"),
            (("",), 78, "there is nothing to run; give docker run a command"),
            (("--settings", "x"), 78, "--settings has nothing behind it; leave that out"),
            (("no-such-program",), 127, "no-such-program was not found"),
            ((os.fspath(plain),), 126, f"{plain} can't be run: Permission denied"),
            ((os.fspath(self.root),), 126, f"{self.root} can't be run: Permission denied"),
        ):
            result = self.start(*command)
            self.assertEqual(result.returncode, code, command)
            self.assertEqual(result.stderr, f"eggcrate: {line}\n")

    def test_a_file_on_the_search_path_changes_nothing(self) -> None:
        result = self.start("no-such-program", PATH="/bin:/etc/passwd")
        self.assertEqual(result.returncode, 127)

    @unittest.skipUnless(os.path.isdir("/proc/self"), "there is no /proc that tells")
    def test_the_command_ignores_no_signal(self) -> None:
        result = self.start("grep", "^SigIgn:", "/proc/self/status")
        # from number 32 on they are the C library's; the first three are those of nohup and of
        # a job in the background, in which these tests may run
        ignored = int(result.stdout.split()[1], 16) & 0x7FFF_FFF8
        self.assertEqual(ignored, 0, f"{ignored:b}")

    def test_a_program_of_no_known_kind(self) -> None:
        odd = self.root / "odd"
        odd.write_bytes(b"\x00\x01")
        odd.chmod(0o755)
        self.assertEqual(self.start(os.fspath(odd)).returncode, 126)


class Ports(Scratch):
    def test_one_that_is_taken(self) -> None:
        """F19: it is named, and who has it where that can be seen."""
        document = self.root / "nginx.conf"
        me = f"{pathlib.Path('/proc/self/comm').read_text().strip()}, process {os.getpid()}"
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")):
            with self.subTest(address), socket.socket(family) as taken:
                taken.bind((address, 0))
                port = taken.getsockname()[1]
                document.write_text(f"  listen {port};\n")
                # bound, and nobody listens yet: nobody is known to have it
                self.assertNotIn("process", start._taken({"": str(document)}))
                taken.listen()
                self.assertEqual(
                    start._taken({"": str(document)}), f"port {port} is taken already by {me}"
                )
                # it is another user's, all of whose processes are out of sight
                with mock.patch("os.readlink", side_effect=PermissionError):
                    self.assertEqual(start._holder(port), "")
        self.assertEqual(start._taken({"": str(document)}), "")


class RunDirectory(Scratch):
    def test_a_place_that_can_t_be_made_names_the_way_out(self) -> None:
        (self.root / "file").write_text("")
        place = self.root / "file/eggcrate"
        result = self.start("true", run_directory=place)
        self.assertEqual(result.returncode, 78)
        self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertIn(f"the run directory {place} can't be ", result.stderr)
        self.assertTrue(result.stderr.endswith(f"start with --tmpfs {self.root}/file\n"))

    @unittest.skipUnless(
        os.path.isdir("/proc/self"), "there is no /proc, which nobody can write"
    )
    def test_a_read_only_file_system(self) -> None:
        problem = start.run_directory_problem("/proc/eggcrate")
        assert problem is not None
        self.assertIn("--tmpfs /proc", problem)

    def test_a_file_in_its_place(self) -> None:
        self.run_directory.parent.mkdir()
        self.run_directory.write_text("")
        self.assertIsNotNone(start.run_directory_problem(os.fspath(self.run_directory)))

    def test_where_it_is_not_needed_it_is_made_if_it_can_be(self) -> None:
        (self.root / "file").write_text("")
        nowhere = self.root / "file/eggcrate"
        show = ("sh", "-c", 'echo "$TMPDIR $HOME"')
        with mock.patch.dict(os.environ, HOME="/"):
            os.environ.pop("TMPDIR", None)
            made = self.start(*show, needed=False)
            none = self.start(*show, needed=False, run_directory=nowhere)
        self.assertEqual(made.stdout, f"{self.run_directory} {self.run_directory}\n")
        self.assertEqual((none.stdout, none.stderr, none.returncode), (" /\n", "", 0))

    def test_nothing_is_started_without_it(self) -> None:
        (self.root / "run").write_text("")
        result = self.start("touch", os.fspath(self.root / "started"))
        self.assertEqual(result.returncode, 78)
        self.assertFalse((self.root / "started").exists())
