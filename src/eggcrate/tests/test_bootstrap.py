"""bootstrap.py makes bin/buildout, leaves it alone, mends it, and says what is wrong."""

from __future__ import annotations

import ast
import atexit
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
import unittest
import zipfile
from pathlib import Path

from eggcrate.tests import layers

CHECKOUT = Path(__file__).resolve().parents[3]
BOOTSTRAP = CHECKOUT / "bootstrap.py"


def wheel(place: Path, project: str, version: str, requires: str = "", code: str = "") -> None:
    """Write a wheel with one module; with ``code``, also a script ``buildout`` to run it."""
    module = project.replace(".", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"def main():\n    {code or 'pass'}\n",
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
            + (f"Requires-Dist: {requires}\n" if requires else "")
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if code:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\nbuildout = {module}:main\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(place / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def tree(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below a directory, and what changes when somebody writes it."""
    return {
        str(path.relative_to(directory)): (status.st_mode, status.st_size, status.st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if "__pycache__" not in path.parts
        for status in [path.lstat()]
    }


def module() -> types.ModuleType:
    """bootstrap.py, to call its functions."""
    spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
    assert spec is not None and spec.loader is not None
    result = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result


class Project(unittest.TestCase):
    layer = layers.SLOW

    """A directory with bootstrap.py and buildout.cfg, and packages that nobody else has."""

    def setUp(self) -> None:
        if not BOOTSTRAP.is_file():
            self.skipTest("bootstrap.py is not part of an installation; use a checkout")
        self.scratch = self.new_scratch()
        self.project = self.scratch / "project"
        self.project.mkdir()
        shutil.copy(BOOTSTRAP, self.project)
        self.links = self.scratch / "links"
        self.links.mkdir()
        self.environ = {
            **{name: value for name, value in os.environ.items() if name[:4] != "PIP_"},
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.links),
            "PIP_NO_CACHE_DIR": "1",
        }

    def new_scratch(self) -> Path:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        return Path(scratch.name).resolve()

    def provide_packages(self) -> None:
        for version in ("5.9", "6.0", "6.2", "7.0"):
            code = f"print('buildout {version}')"
            wheel(self.links, "zc.buildout", version, "setuptools>=75", code)
        for version in ("70.0", "80.0", "81.0"):
            wheel(self.links, "setuptools", version)
        wheel(self.links, "pip", "26.0")
        wheel(self.links, "wheel", "0.48")

    def configure(self, text: str, name: str = "buildout.cfg") -> None:
        (self.project / name).write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.project / "bootstrap.py"), *arguments]

    def bootstrap(self, *arguments: str) -> str:
        """Run it; what it says when all went well."""
        process = subprocess.run(
            self.command(*arguments), env=self.environ, capture_output=True, text=True
        )
        self.assertEqual((process.returncode, process.stderr), (0, ""), process.stdout)
        return process.stdout

    def complaint(self, *arguments: str, argv: list[str] | None = None) -> str:
        """Run it; the one line with which it refuses, having changed nothing."""
        before = tree(self.project)
        process = subprocess.run(
            argv or self.command(*arguments), env=self.environ, capture_output=True, text=True
        )
        self.assertEqual((process.returncode, process.stdout), (1, ""), process.stderr)
        self.assertRegex(process.stderr, r"\Abootstrap\.py: .*; .*\n\Z")
        self.assertEqual(tree(self.project), before)
        return process.stderr

    def buildout(self) -> str:
        """What the bin/buildout that was made says."""
        return subprocess.run(
            [self.project / "bin" / "buildout"], capture_output=True, text=True, check=True
        ).stdout.strip()


class FirstRun(Project):
    def setUp(self) -> None:
        super().setUp()
        self.provide_packages()
        self.configure("[versions]\nzc.buildout = 6.0\n")

    def test_it_makes_an_environment_and_a_script_and_nothing_else(self) -> None:
        # where packages go is not for pip's configuration to say
        self.environ.update(PIP_USER="1", PIP_TARGET=str(self.scratch / "elsewhere"))
        self.assertIn("is zc.buildout 6.0 on Python", self.bootstrap())
        self.assertEqual(self.buildout(), "buildout 6.0")
        self.assertEqual(
            sorted(path.name for path in self.project.iterdir()),
            [".venv", "bin", "bootstrap.py", "buildout.cfg"],
        )
        self.assertEqual([path.name for path in (self.project / "bin").iterdir()], ["buildout"])
        self.assertFalse((self.scratch / "elsewhere").exists())
        for path in (self.project / ".venv").rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.assertNotIn(b".venv.bootstrap-new", path.read_bytes(), path)

    def test_without_a_pin_it_is_the_newest_6(self) -> None:
        self.configure("[buildout]\nparts =\n")
        self.bootstrap()
        self.assertEqual(self.buildout(), "buildout 6.2")
        # and any pin that agrees with what is there changes nothing
        self.configure("[versions]\nzc.buildout = 6.2\nsetuptools = 81.0\nDjango = 5.2.19\n")
        self.assertIn("is up to date", self.bootstrap())

    def test_two_at_once_wait_for_each_other(self) -> None:
        runs = [
            subprocess.Popen(
                self.command(), env=self.environ, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        outputs = sorted(run.communicate()[0] for run in runs)
        self.assertEqual([run.returncode for run in runs], [0, 0])
        self.assertIn("is up to date", outputs[0])
        self.assertEqual(self.buildout(), "buildout 6.0")

    def test_one_that_was_killed_is_mended_by_the_next(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
            process = subprocess.Popen(
                self.command("--index", index),
                env={**self.environ, "PIP_NO_INDEX": "0"},
                start_new_session=True,
            )
            silent.accept()[0].close()  # pip is at work
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.assertTrue((self.project / ".venv.bootstrap-new").exists())
        self.bootstrap()
        self.assertEqual(self.buildout(), "buildout 6.0")
        self.assertFalse((self.project / ".venv.bootstrap-new").exists())

    def test_options_name_the_configuration_and_the_packages(self) -> None:
        elsewhere = self.scratch / "elsewhere"
        elsewhere.mkdir()
        shutil.move(self.project / "buildout.cfg", elsewhere / "other.cfg")
        del self.environ["PIP_FIND_LINKS"]
        self.bootstrap("-c", str(elsewhere / "other.cfg"), "--find-links", str(self.links))
        self.assertTrue((elsewhere / "bin" / "buildout").exists())
        self.assertFalse((self.project / "bin").exists())


@functools.cache  # zope.testrunner calls no setUpClass
def kept() -> Path:
    """A directory that is there until the tests are over."""
    directory = Path(tempfile.mkdtemp()).resolve()
    atexit.register(shutil.rmtree, directory)
    return directory


class NextRun(Project):
    """Every test finds the project, at the same place, as one run has left it."""

    def new_scratch(self) -> Path:
        scratch = kept() / "scratch"
        scratch.mkdir()
        self.addCleanup(shutil.rmtree, scratch)
        return scratch

    def setUp(self) -> None:
        super().setUp()
        self.provide_packages()
        self.configure("[buildout]\nextends = versions.cfg\n")
        self.configure("[versions]\nzc.buildout = 6.0\nsetuptools = 80.0\n", "versions.cfg")
        made = kept() / "made"
        if not made.exists():
            self.bootstrap()
            shutil.copytree(self.project, made, symlinks=True)
        shutil.rmtree(self.project)
        shutil.copytree(made, self.project, symlinks=True)

    def test_it_changes_nothing_and_needs_no_package(self) -> None:
        shutil.rmtree(self.links)
        made = tree(self.project)
        self.assertIn("is up to date", self.bootstrap())
        self.assertEqual(tree(self.project), made)
        # the same from elsewhere, by another spelling, with the environment's own Python
        link = self.scratch / "link"
        link.symlink_to(self.project)
        process = subprocess.run(
            [self.project / ".venv" / "bin" / "python", link / "bootstrap.py"],
            cwd="/",
            capture_output=True,
            text=True,
        )
        self.assertIn("is up to date", process.stdout)
        self.assertEqual(tree(self.project), made)

    def test_a_changed_pin_is_followed(self) -> None:
        self.configure("[versions]\nzc.buildout = 6.2\n", "versions.cfg")
        self.assertIn("is zc.buildout 6.2", self.bootstrap())
        self.assertEqual(self.buildout(), "buildout 6.2")

    def test_a_pin_that_does_not_exist_leaves_what_works(self) -> None:
        self.configure("[versions]\nzc.buildout = 6.1\n", "versions.cfg")
        self.assertIn("no zc.buildout==6.1 for this Python", self.complaint())
        self.assertEqual(self.buildout(), "buildout 6.0")

    def test_a_lost_or_foreign_script_is_written_again(self) -> None:
        shutil.rmtree(self.links)
        script = self.project / "bin" / "buildout"
        script.unlink()
        self.bootstrap()
        self.assertEqual(self.buildout(), "buildout 6.0")
        script.write_text(f"#!{sys.executable}\n")
        self.bootstrap()
        self.assertEqual(self.buildout(), "buildout 6.0")

    def test_a_project_that_was_moved_gets_an_environment_for_its_new_place(self) -> None:
        self.project = self.project.rename(self.scratch / "moved")
        self.assertIn("is zc.buildout 6.0", self.bootstrap())
        self.assertEqual(self.buildout(), "buildout 6.0")

    def test_what_another_python_made_or_somebody_changed_is_not_up_to_date(self) -> None:
        bootstrap, place = module(), self.project / ".venv"
        wanted = bootstrap.pins(self.project / "buildout.cfg")
        stamp = place / "bootstrap.json"
        (info,) = place.rglob("zc_buildout-6.0.dist-info")
        self.assertTrue(bootstrap.complete(place, place, wanted))
        self.assertFalse(bootstrap.complete(place, place, {"setuptools": "==81.0"}))
        info.rename(info.with_name("zc_buildout-6.2.dist-info"))
        self.assertFalse(bootstrap.complete(place, place, wanted))
        info.with_name("zc_buildout-6.2.dist-info").rename(info)
        self.assertTrue(bootstrap.complete(place, place, wanted))
        stamp.write_text(stamp.read_text().replace('"interpreter": "', '"interpreter": "/old'))
        self.assertFalse(bootstrap.complete(place, place, wanted))

    def test_one_that_was_killed_at_the_swap_is_finished(self) -> None:
        shutil.rmtree(self.links)
        before = sorted(path.name for path in self.project.iterdir())
        shutil.copytree(
            self.project / ".venv", self.project / ".venv.bootstrap-old", symlinks=True
        )
        (self.project / ".venv").rename(self.project / ".venv.bootstrap-new")
        self.bootstrap()
        self.assertEqual(self.buildout(), "buildout 6.0")
        self.assertEqual(sorted(path.name for path in self.project.iterdir()), before)
        # or, a moment later, when there was only the old one to remove
        shutil.copytree(self.project / ".venv" / "bin", self.project / ".venv.bootstrap-old")
        self.assertIn("is up to date", self.bootstrap())
        self.assertEqual(sorted(path.name for path in self.project.iterdir()), before)
        # or when what it had made is not what is asked for any more
        (self.project / ".venv").rename(self.project / ".venv.bootstrap-old")
        (self.project / ".venv.bootstrap-new").mkdir()
        self.assertIn("is up to date", self.bootstrap())


class Refusals(Project):
    """One sentence, exit code 1, and nothing changed."""

    def test_a_configuration_that_is_not_there(self) -> None:
        self.assertIn("can't read", self.complaint())
        self.configure("[buildout]\nextends = base.cfg\n")
        self.assertRegex(self.complaint(), "can't read .*base.cfg")

    def test_pins_that_are_none(self) -> None:
        for text, expected in (
            ("[versions]\nzc.buildout 6.0.1\n", "line 2: 'zc.buildout 6.0.1' is neither"),
            ("zc.buildout = 6.0.1\n", "line 1: 'zc.buildout = 6.0.1' is neither"),
            (
                "[versions]\nzc.buildout = the newest\n",
                "zc.buildout = 'the newest', which is no",
            ),
            ("[versions]\nsetuptools = ${a:b}\n", "setuptools = '${a:b}', which is no version"),
            ("[versions:nonsense]\npip = 26.0\n", "the condition 'nonsense' can't be judged"),
            ("[buildout]\nextends = buildout.cfg\n", "extends itself"),
        ):
            with self.subTest(text):
                self.configure(text)
                self.assertIn(expected, self.complaint())
        (self.project / "buildout.cfg").write_bytes(b"[versions]\n\xff = 1\n")
        self.assertIn("is not UTF-8 text", self.complaint())

    def test_pins_that_contradict_each_other(self) -> None:
        self.provide_packages()
        self.configure("[versions]\nzc.buildout = 6.2\nsetuptools = 70.0\n")
        self.assertRegex(
            self.complaint(),
            r"the pins contradict each other: \[versions\] has setuptools==70.0, but "
            r"zc-buildout 6.2 depends on setuptools>=75; mend",
        )

    def test_packages_that_are_nowhere(self) -> None:
        self.configure("[buildout]\n")
        self.assertRegex(
            self.complaint(), "no zc.buildout.* where pip looks .*; .*--find-links"
        )

    def test_an_index_that_does_not_answer(self) -> None:
        self.configure("[buildout]\n")
        self.environ.update(PIP_NO_INDEX="0", PIP_RETRIES="1")
        index = f"http://127.0.0.1:{layers.free_port()}/simple"
        self.assertRegex(
            self.complaint("--index", index), r"can't reach 127\.0\.0\.1 \(Connection refused\)"
        )

    def test_an_environment_that_somebody_else_made(self) -> None:
        self.configure("[buildout]\n")
        (self.project / ".venv").mkdir()
        (self.project / ".venv" / "precious").touch()
        self.assertIn("is not an environment that bootstrap.py made", self.complaint())

    def test_a_directory_that_can_not_be_written(self) -> None:
        self.configure("[buildout]\n")
        argv = self.command()
        if os.geteuid():
            self.project.chmod(0o555)
            self.addCleanup(self.project.chmod, 0o755)
        else:  # for root, nothing but the mount is read-only
            script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
            argv = ["unshare", "--mount", "sh", "-c", script, str(self.project), *argv]
        self.assertRegex(
            self.complaint(argv=argv), r"\.venv\.bootstrap-new: (Read-only|Permission)"
        )

    def test_a_path_that_no_environment_can_have(self) -> None:
        self.project = self.project.rename(self.scratch / "a:b")
        self.configure("[buildout]\n")
        self.assertIn("can't be in", self.complaint())

    def test_a_python_that_lacks_something(self) -> None:
        self.configure("[buildout]\n")
        for change, expected in (
            ("sys.modules['ensurepip'] = None", "has no module ensurepip; install"),
            ("sys.modules['venv'] = None", "has no module venv; install"),
            ("sys.version_info = (3, 9, 2)", "this is Python 3.9, and zc.buildout 6 needs"),
        ):
            with self.subTest(change):
                code = f"import runpy, sys; {change}; sys.argv = sys.argv[1:]; " + (
                    "runpy.run_path(sys.argv[0], run_name='__main__')"
                )
                script = str(self.project / "bootstrap.py")
                self.assertIn(
                    expected, self.complaint(argv=[sys.executable, "-c", code, script])
                )

    def test_an_old_python_gets_as_far_as_the_message(self) -> None:
        # 3.7 is the oldest grammar that Python 3.13 can still check
        ast.parse(BOOTSTRAP.read_text(encoding="utf-8"), feature_version=(3, 7))


class Pins(Project):
    """What is read of a buildout configuration."""

    def check(self, text: str, expected: dict[str, str]) -> None:
        self.configure(text)
        self.assertEqual(module().pins(self.project / "buildout.cfg"), expected)

    def test_names_are_normalised_and_specifiers_kept(self) -> None:
        self.check(
            "[versions]\nZC.Buildout = 6.0.1\nSetup_Tools=>=75,<80\npip = ==26.3\n",
            {"zc-buildout": "==6.0.1", "setup-tools": ">=75,<80", "pip": "==26.3"},
        )

    def test_what_is_no_pin_of_ours_is_left_to_buildout(self) -> None:
        self.check("[versions]\nDjango = ${custom:django}\nwheel =\nodd = 1 2\n", {})

    def test_the_other_lines_of_a_configuration_do_no_harm(self) -> None:
        self.check(
            "# comment\n; comment\n\n[buildout]  # comment\nparts =\n  a\n# comment\n  b = c\n"
            "eggs += d\n<= macro\n[a]\n=> b\nx = [y]\n\n[versions]\npip = 1\n",
            {"pip": "==1"},
        )

    def test_extends_are_local_files_and_the_nearest_wins(self) -> None:
        (self.project / "sub").mkdir()
        self.configure(
            "[buildout]\nextends = more.cfg\n[versions]\na = 1\nb = 1\n", "sub/base.cfg"
        )
        self.configure("[versions]\na = 0\nb = 0\nc = 0\n", "sub/more.cfg")
        self.configure("[versions]\nd = 4\n", "there.cfg")
        self.check(
            "[buildout]\nextends = sub/base.cfg\n  https://example.org/versions.cfg\n"
            "optional-extends = there.cfg not-there.cfg\n[versions]\na = 2\n",
            {"a": "==2", "b": "==1", "c": "==0", "d": "==4"},
        )

    def test_another_section_may_hold_the_versions(self) -> None:
        self.check(
            "[buildout]\nversions = release\n[versions]\na = 1\n[release]\na = 2\n",
            {"a": "==2"},
        )

    def test_conditions_are_judged_as_buildout_does(self) -> None:
        self.check(
            "[versions:python_version >= '3.10']\na = 1\n[versions:python39]\na = 2\n"
            "[versions:sys_platform == 'none' and python3]\na = 3\n[versions: posix]\nb = 4\n",
            {"a": "==1", "b": "==4"},
        )


class RealPackages(Project):
    """Once with what pip's configuration leads to: zc.buildout itself."""

    def test_the_pins_of_this_checkout_make_a_buildout_that_runs(self) -> None:
        versions = []
        section = ""
        for line in (CHECKOUT / "buildout.cfg").read_text(encoding="utf-8").splitlines():
            section = line if line.startswith("[") else section
            if section.startswith("[versions") and line:
                versions.append(line)
        self.configure("\n".join(["[buildout]", "parts =", *versions, ""]))
        before = os.times()
        process = subprocess.run(self.command(), capture_output=True, text=True)
        after = os.times()
        # of the processor: neither its other work nor the network's pace counts
        seconds = sum(after[2:4]) - sum(before[2:4])
        if "can't reach" in process.stderr:
            layers.skip(self, process.stderr.strip())
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        self.assertLess(seconds, 60, "it should take seconds")
        pin = next(line.split("=")[1].strip() for line in versions if "zc.buildout" in line)
        for arguments, expected in ((["--version"], f"version {pin}"), (["-N"], "Creating")):
            buildout = subprocess.run(
                [self.project / "bin" / "buildout", *arguments],
                cwd=self.project,
                capture_output=True,
                text=True,
            )
            self.assertEqual(buildout.returncode, 0, buildout.stderr)
            self.assertIn(expected, buildout.stdout)
