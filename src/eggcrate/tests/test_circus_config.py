"""circus-config, and with it what both configuration recipes share."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from collections.abc import Iterator

import zc.buildout
import zc.buildout.buildout
import zope.testrunner

from eggcrate.recipes import ownership
from eggcrate.runtime.start import private_mode
from eggcrate.tests import layers


class Sample:
    """A buildout in a directory of its own, run by the real zc.buildout in this process."""

    def __init__(self, test: unittest.TestCase) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        test.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name).resolve()
        self.log = ""

    def write(self, name: str, text: str) -> pathlib.Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def read(self, name: str) -> str:
        return (self.directory / name).read_bytes().decode("utf-8")

    def run(self, cfg: str = "") -> str:
        """The output of one run; its ``UserError`` is the caller's."""
        if cfg:
            self.write("buildout.cfg", cfg)
        # what a part has declared holds for one run, which is one process elsewhere
        ownership._live.clear()
        before = pathlib.Path.cwd()
        root, own = logging.getLogger(), logging.getLogger("zc.buildout")
        handlers = [(logger, list(logger.handlers)) for logger in (root, own)]
        level, path = root.level, list(sys.path)
        output = io.StringIO()
        os.chdir(self.directory)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                buildout = zc.buildout.buildout.Buildout(
                    "buildout.cfg", [("buildout", "newest", "false")], False
                )
                buildout.install([])
        finally:
            os.chdir(before)
            for logger, kept in handlers:
                logger.handlers[:] = kept
            root.setLevel(level)
            sys.path[:] = path
            self.log = output.getvalue().replace(str(self.directory), "SAMPLE")
        return self.log

    def error(self, cfg: str = "") -> str:
        """The sentence with which a run fails, the directory replaced by SAMPLE."""
        try:
            self.run(cfg)
        except zc.buildout.UserError as error:
            return str(error).replace(str(self.directory), "SAMPLE")
        raise AssertionError("the run did not fail")


@contextlib.contextmanager
def ordinary_user(directory: pathlib.Path) -> Iterator[None]:
    """Be a user to whom permissions apply, who owns the directory: root is none."""
    if os.getuid() != 0:
        yield
        return
    for path in (directory, *directory.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


BUILDOUT = """\
[buildout]
parts = circus

[custom]
webapp_port = 8080
server_name = shop.example

[circus]
recipe = eggcrate:circus-config
input = templates/circus.ini.in
# most of these templates are none that Circus would take
check = false
"""

TEMPLATE = """\
[circus]
endpoint = ipc://${run-directory}/circus.ctl

[socket:web]
port = ${custom:webapp_port}

[watcher:web]
cmd = ${buildout:bin-directory}/web --fd $(circus.sockets.web) --name %(x)s --home $${HOME}
"""

RENDERED = """\
[circus]
endpoint = ipc://SAMPLE/var/run/circus.ctl

[socket:web]
port = 8080

[watcher:web]
cmd = SAMPLE/bin/web --fd $(circus.sockets.web) --name %(x)s --home ${HOME}
"""

OUTPUT = "parts/circus/circus.ini"


def main(sample: Sample, prelude: str = "", *arguments: str | bytes) -> tuple[int, str]:
    """The exit code and standard error of ``bin/buildout`` in a process of its own."""
    code = f"{prelude}\nimport zc.buildout.buildout\nzc.buildout.buildout.main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "-U", "buildout:newest=false", *arguments],
        cwd=sample.directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stderr


class RecipeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.sample = Sample(self)
        self.template = self.sample.write("templates/circus.ini.in", TEMPLATE)
        self.template.chmod(0o644)

    def output(self, name: str = OUTPUT) -> str:
        return self.sample.read(name).replace(str(self.sample.directory), "SAMPLE")

    def path(self, name: str = OUTPUT) -> pathlib.Path:
        return self.sample.directory / name

    def mode(self, name: str = OUTPUT) -> int:
        return stat.S_IMODE(self.path(name).stat().st_mode)


class Writing(RecipeTest):
    def test_a_template_becomes_a_file(self) -> None:
        self.assertIn("Installing circus.", self.sample.run(BUILDOUT))
        self.assertEqual(self.output(), RENDERED)
        self.assertEqual(list(self.path("parts/circus").iterdir()), [self.path()])

    def test_output_may_be_elsewhere_and_its_directories_are_made(self) -> None:
        self.sample.run(BUILDOUT + "output = etc/deep/../circus.conf\n")
        self.assertEqual(self.output("etc/circus.conf"), RENDERED)

    def test_an_absolute_input_is_one(self) -> None:
        with tempfile.TemporaryDirectory() as elsewhere:
            template = pathlib.Path(elsewhere, "t.in")
            template.write_text("port = ${custom:webapp_port} ${nope}")
            cfg = BUILDOUT.replace("templates/circus.ini.in", str(template))
            self.assertIn(f"[circus] {template}, line 1: ${{nope}}", self.sample.error(cfg))
            template.write_text("port = ${custom:webapp_port}")
            self.sample.run(cfg)
        self.assertEqual(self.output(), "port = 8080")

    def test_bytes_are_kept_but_for_a_mark_that_no_reader_expects(self) -> None:
        text = "a\r\n\r\n  é\t${custom:webapp_port} \n\n"
        self.template.write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
        self.sample.run(BUILDOUT)
        self.assertEqual(self.output(), text.replace("${custom:webapp_port}", "8080"))

    def test_an_update_with_nothing_new_leaves_the_file_alone(self) -> None:
        self.sample.run(BUILDOUT)
        os.utime(self.path(), (1, 1))
        before = self.path().stat()
        self.assertIn("Updating circus.", self.sample.run())
        after = self.path().stat()
        self.assertEqual((before.st_ino, before.st_mtime), (after.st_ino, after.st_mtime))

    def test_a_changed_template_is_an_update(self) -> None:
        self.sample.run(BUILDOUT)
        self.template.write_text("[circus]\n")
        self.assertIn("Updating circus.", self.sample.run())
        self.assertEqual(self.output(), "[circus]\n")

    def test_a_changed_value_is_an_update(self) -> None:
        self.sample.run(BUILDOUT)
        log = self.sample.run(BUILDOUT.replace("8080", "9090"))
        self.assertIn("Updating circus.", log)
        self.assertIn("port = 9090", self.output())

    def test_an_update_mends_what_was_lost_or_edited(self) -> None:
        self.sample.run(BUILDOUT)
        self.path().unlink()
        self.sample.run()
        self.assertEqual(self.output(), RENDERED)
        self.path().write_text("edited")
        self.sample.run()
        self.assertEqual(self.output(), RENDERED)
        self.path().chmod(0o600)
        self.sample.run()
        self.assertEqual(self.mode(), 0o644)

    def test_a_link_is_replaced_and_not_followed(self) -> None:
        other = self.sample.write("other", "untouched")
        self.path().parent.mkdir(parents=True)
        self.path().symlink_to(other)
        self.sample.run(BUILDOUT)
        self.assertFalse(self.path().is_symlink())
        self.assertEqual(self.sample.read("other"), "untouched")

    def test_mode_is_the_template_s_or_the_option_s(self) -> None:
        self.template.chmod(0o640)
        self.sample.run(BUILDOUT)
        self.assertEqual(self.mode(), 0o640)
        self.sample.run(BUILDOUT + "mode = 755\n")
        self.assertEqual(self.mode(), 0o755)
        self.sample.run(BUILDOUT + "mode = 0600\n")
        self.assertEqual(self.mode(), 0o600)

    def test_removing_the_part_removes_the_file_and_nothing_else(self) -> None:
        cfg = BUILDOUT + "output = etc/circus.ini\n"
        self.sample.write("etc/mine", "mine")
        self.sample.run(cfg)
        self.sample.run(cfg.replace("parts = circus", "parts ="))
        self.assertFalse(self.path("etc/circus.ini").exists())
        self.assertTrue(self.path("etc/mine").exists())
        self.assertTrue(self.path("var/run").is_dir())

    def test_another_output_takes_the_place_of_the_first(self) -> None:
        self.sample.run(BUILDOUT)
        self.sample.run(BUILDOUT + "output = etc/circus.ini\n")
        self.assertFalse(self.path().exists())
        self.assertEqual(self.output("etc/circus.ini"), RENDERED)

    def test_a_failure_keeps_the_last_good_file(self) -> None:
        self.sample.run(BUILDOUT)
        self.template.write_text("${nope:nope}")
        # an option that would make buildout uninstall the part first
        self.sample.error(BUILDOUT + "mode = 600\n")
        self.assertEqual(self.output(), RENDERED)
        self.assertEqual(self.mode(), 0o644)


class Inline(RecipeTest):
    def test_inline_is_the_text_itself(self) -> None:
        self.sample.run(
            BUILDOUT.replace(
                "input = templates/circus.ini.in",
                "inline =\n    #!/bin/sh\n      echo ${custom:webapp_port} ${:recipe}"
                " $${HOME} $$ $(x)\n    # end",
            )
        )
        self.assertEqual(
            self.output(),
            "#!/bin/sh\n  echo 8080 eggcrate:circus-config ${HOME} $$ $(x)\n# end",
        )
        self.assertEqual(self.mode(), 0o644)

    def test_the_older_spelling_works_too(self) -> None:
        self.sample.run(
            BUILDOUT.replace(
                "input = templates/circus.ini.in",
                "input = inline:\n  a\n  b ${:mode}\nmode = 755",
            )
        )
        self.assertEqual(self.output(), "a\nb 755")
        self.assertEqual(self.mode(), 0o755)

    def test_a_value_with_an_escape_is_the_same_in_a_file_and_inline(self) -> None:
        cfg = BUILDOUT.replace("8080", "$${x}")
        self.template.write_text("a ${custom:webapp_port}")
        self.sample.run(cfg)
        self.assertEqual(self.output(), "a ${x}")
        self.sample.run(
            cfg.replace("input = templates/circus.ini.in", "inline = b ${custom:webapp_port}")
        )
        self.assertEqual(self.output(), "b ${x}")


class References(RecipeTest):
    def test_a_part_may_use_options_of_its_own(self) -> None:
        self.template.write_text("${greeting} ${:greeting} ${circus:greeting} ${inputs}")
        self.sample.run(BUILDOUT + "greeting = hello\ninputs = near, but used\n")
        self.assertEqual(self.output(), "hello hello hello near, but used")

    def test_the_section_s_name_is_an_option(self) -> None:
        self.template.write_text("${_buildout_section_name_} ${:_buildout_section_name_}")
        self.sample.run(BUILDOUT)
        self.assertEqual(self.output(), "circus circus")

    def test_a_part_that_is_referred_to_comes_first(self) -> None:
        self.sample.write("other.in", "")
        self.template.write_text("${other:output} ${other:run-directory}")
        log = self.sample.run(
            BUILDOUT
            + """
[other]
recipe = eggcrate:circus-config
check = false
input = other.in
run-directory = run
"""
        )
        self.assertLess(log.index("Installing other."), log.index("Installing circus."))
        self.assertEqual(self.output(), "SAMPLE/parts/other/circus.ini SAMPLE/run")
        self.assertTrue(self.path("run").is_dir())

    def test_two_templates_may_refer_to_each_other(self) -> None:
        self.sample.write("other.in", "${circus:output} ${circus:run-directory}")
        self.template.write_text("${other:output}")
        self.sample.run(
            BUILDOUT
            + "[other]\nrecipe = eggcrate:circus-config\ncheck = false\ninput = other.in\n"
        )
        self.assertEqual(
            self.output("parts/other/circus.ini"), f"SAMPLE/{OUTPUT} SAMPLE/var/run"
        )

    def test_nested_references_are_resolved(self) -> None:
        self.template.write_text("${custom:bind}")
        self.sample.run(
            BUILDOUT.replace(
                "[circus]", "bind = ${custom:server_name}:${custom:webapp_port}\n[circus]"
            )
        )
        self.assertEqual(self.output(), "shop.example:8080")

    def test_every_unknown_reference_comes_at_once_with_the_nearest_name(self) -> None:
        self.template.write_text(
            "${custom:webap_port}\n${cusotm:webapp_port}\n\n${run-dir} ${host} ${",
        )
        self.assertEqual(
            self.sample.error(BUILDOUT),
            "[circus] 5 problems:\n"
            "  - templates/circus.ini.in, line 1: ${custom:webap_port} names no option of"
            " [custom]; write ${custom:webapp_port}, the nearest name there is\n"
            "  - templates/circus.ini.in, line 2: ${cusotm:webapp_port} names no section;"
            " write ${custom:webapp_port}, the nearest name there is\n"
            "  - templates/circus.ini.in, line 4: ${run-dir} names no option of [circus];"
            " write ${run-directory}, the nearest name there is\n"
            "  - templates/circus.ini.in, line 4: ${host} names no option of [circus];"
            " add host to [circus], or write $${host} for the text ${host}\n"
            "  - templates/circus.ini.in, line 4: ${ has no closing brace on its line;"
            " write ${section:option}, or $${ where the text itself should have ${",
        )
        self.assertFalse(self.path().exists())
        self.assertFalse(self.path("var").exists())

    def test_an_error_of_another_section_keeps_its_own_words(self) -> None:
        self.template.write_text("${broken:a}")
        self.assertIn(
            "Referenced option does not exist: custom nope",
            self.sample.error(BUILDOUT + "[broken]\na = ${custom:nope}\n"),
        )


class RunDirectory(RecipeTest):
    def test_it_is_made_private_and_published(self) -> None:
        self.template.write_text("${circus:run-directory}")
        self.sample.run(BUILDOUT)
        self.assertEqual(self.output(), "SAMPLE/var/run")
        self.assertEqual(self.mode("var/run"), private_mode())

    def test_one_that_exists_is_left_as_it_is(self) -> None:
        self.path("var/run").mkdir(parents=True)
        self.path("var/run").chmod(0o755)
        self.sample.write("var/run/web.sock", "")
        self.sample.run(BUILDOUT)
        self.assertEqual(self.mode("var/run"), 0o755)
        self.assertTrue(self.path("var/run/web.sock").exists())

    def test_one_that_can_t_be_made_is_named(self) -> None:
        self.sample.write("taken", "")
        self.assertEqual(
            self.sample.error(BUILDOUT + "run-directory = taken\n"),
            "[circus] run-directory SAMPLE/taken can't be made: File exists;"
            " set run-directory to a directory that you may make",
        )
        self.assertFalse(self.path().exists())


class Mistakes(RecipeTest):
    def check(self, expected: str, cfg: str) -> None:
        self.assertEqual(self.sample.error(cfg), f"[circus] {expected}")
        self.assertFalse(self.path().exists())

    def with_input(self, name: str) -> str:
        return BUILDOUT.replace("templates/circus.ini.in", name)

    def test_a_missing_template(self) -> None:
        self.check(
            "input templates/circus.in.in does not exist;"
            " write templates/circus.ini.in, the nearest name there is",
            self.with_input("templates/circus.in.in"),
        )
        self.check(
            "input nowhere/x does not exist;"
            " write it, or correct its path, which starts from the buildout directory",
            self.with_input("nowhere/x"),
        )

    def test_a_template_that_is_a_directory_or_a_pipe(self) -> None:
        self.check(
            "input templates is a directory; let input name a file",
            self.with_input("templates"),
        )
        os.mkfifo(self.path("pipe"))
        self.check(
            "input pipe is no regular file; let input name a file", self.with_input("pipe")
        )

    def test_a_template_that_can_t_be_read(self) -> None:
        self.path("loop").symlink_to("loop")
        message = self.sample.error(self.with_input("loop"))
        self.assertIn("[circus] input loop can't be read: ", message)

    def test_a_template_that_is_not_utf_8(self) -> None:
        self.template.write_bytes(b"a\nb\nM\xfcller\n")
        self.check(
            "templates/circus.ini.in, line 3: byte 0xfc is not UTF-8;"
            " save the template as UTF-8",
            BUILDOUT,
        )

    def test_no_template_or_two(self) -> None:
        self.check(
            "has neither input nor inline;"
            " set input to the path of a template, or inline to its text,"
            " or declare watcher.NAME",
            self.with_input(""),
        )
        self.check(
            "has both input and inline; leave one of them out", BUILDOUT + "inline = a\n"
        )

    def test_misspelt_options(self) -> None:
        self.check(
            "2 problems:\n"
            "  - has an unknown option inputt; write input\n"
            "  - has neither input nor inline;"
            " set input to the path of a template, or inline to its text,"
            " or declare watcher.NAME",
            BUILDOUT.replace("input =", "inputt ="),
        )
        self.check(
            "2 problems:\n"
            "  - has an unknown option outptu; write output\n"
            "  - has an unknown option run_directory; write run-directory",
            BUILDOUT + "outptu = x\nrun_directory = y\n",
        )

    def test_a_mode_that_is_none(self) -> None:
        for mode in ("rw-r--r--", "648", "7777", "-1", "0"):
            self.check(
                f"mode is {mode!r}, which is no octal mode up to 777;"
                " set mode to 644, for example",
                BUILDOUT + f"mode = {mode}\n",
            )

    def test_an_output_that_is_a_directory(self) -> None:
        self.path("etc").mkdir()
        for output, shown in (("etc", "etc"), ("conf/", "conf")):
            self.check(
                f"output {shown} is a directory; let output name a file in that directory",
                BUILDOUT + f"output = {output}\n",
            )

    def test_an_output_that_is_a_device(self) -> None:
        self.check(
            "output /dev/null is no regular file; choose another output",
            BUILDOUT + "output = /dev/null\n",
        )

    def test_an_output_that_is_the_template(self) -> None:
        self.check(
            "output templates/circus.ini.in is the template itself; choose another output",
            BUILDOUT + "output = templates/circus.ini.in\n",
        )
        self.assertEqual(self.template.read_text(), TEMPLATE)

    def test_an_output_below_a_file(self) -> None:
        self.sample.write("etc", "")
        self.check(
            "output etc/a/circus.ini can't be written: etc is no directory;"
            " set output to a path that you may write",
            BUILDOUT + "output = etc/a/circus.ini\n",
        )

    @unittest.skipUnless(sys.platform == "linux", "/proc is Linux's")
    def test_an_output_where_nothing_can_be_written(self) -> None:
        message = self.sample.error(BUILDOUT + "output = /proc/eggcrate/circus.ini\n")
        self.assertIn("[circus] output /proc/eggcrate/circus.ini can't be written: ", message)

    def test_an_output_in_a_directory_that_is_not_writable(self) -> None:
        self.path("etc").mkdir()
        self.path("etc").chmod(0o555)
        cfg = BUILDOUT + "output = etc/circus.ini\n"
        self.sample.run(BUILDOUT)
        with ordinary_user(self.sample.directory):
            self.assertEqual(
                self.sample.error(cfg),
                "[circus] output etc/circus.ini can't be written: etc is not writable;"
                " set output to a path that you may write",
            )
        self.assertEqual(self.output(), RENDERED)

    def test_a_buildout_that_is_complete_may_be_read_only(self) -> None:
        self.sample.run(BUILDOUT)
        self.path("parts/circus").chmod(0o555)
        with ordinary_user(self.sample.directory):
            self.assertIn("Updating circus.", self.sample.run())

    def test_two_parts_with_one_output(self) -> None:
        self.path("etc").mkdir()
        self.path("link").symlink_to("etc")
        self.check(
            "output etc/x is the output of [other] too; give one of the two another output",
            BUILDOUT.replace("parts = circus", "parts = other circus")
            + "output = etc/x\n"
            + "[other]\nrecipe = eggcrate:circus-config\ncheck = false\n"
            + "inline = a\noutput = link/x\n",
        )

    def test_a_value_that_no_file_can_hold(self) -> None:
        self.sample.write("buildout.cfg", BUILDOUT)
        code, errors = main(self.sample, "", b"custom:webapp_port=\xff")
        self.assertEqual(code, 1)
        self.assertEqual(
            errors.splitlines()[-1],
            "Error: [circus] templates/circus.ini.in, line 5:"
            " a value has a character that UTF-8 can't hold;"
            " correct the option that the line refers to",
        )

    def test_all_that_is_wrong_comes_at_once(self) -> None:
        self.template.write_text("${nope}")
        self.path("etc").mkdir()
        message = self.sample.error(BUILDOUT + "mode = x\noutput = etc\nmodes = y\n")
        self.assertIn("[circus] 4 problems:", message)


class Recovery(RecipeTest):
    def test_a_write_that_fails_leaves_the_old_file_and_no_litter(self) -> None:
        self.sample.run(BUILDOUT)
        self.template.write_text("x" * 100_000)
        # as on a disk that is full, by the limit that a process can set on its files
        _, errors = main(
            self.sample,
            "import resource, signal\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))",
        )
        self.assertIn(
            f"Error: [circus] output {OUTPUT} can't be written: File too large;", errors
        )
        self.assertEqual(self.output(), RENDERED)
        self.assertEqual(list(self.path("parts/circus").iterdir()), [self.path()])


class DropIn(RecipeTest):
    """What collective.recipe.template makes of its options, this recipe makes of them too."""

    OPTIONS = (
        "input = templates/circus.ini.in\noutput = etc/a.ini",
        "input = templates/circus.ini.in\noutput = etc/a.ini\nmode = 640",
        "inline =\n    [circus]\n    # ${custom:webapp_port}\n\n      $host %(x)s\noutput = a",
        "inline = a ${:mode}\noutput = a\nmode = 755",
        "input = inline:\n    a\n    b\noutput = a\nmode = 600",
    )

    def made(self, recipe: str, options: str) -> dict[str, tuple[int, bytes]]:
        sample = Sample(self)
        template = sample.write(
            "templates/circus.ini.in",
            "[circus]\npidfile = ${pid}.${custom:server_name}\n\n# ${:mode} $(circus.wid)\n",
        )
        template.chmod(0o644)
        if "mode =" not in options:
            options += "\nmode = 644"
        head = BUILDOUT.partition("[circus]")[0]
        sample.run(f"{head}[circus]\nrecipe = {recipe}\npid = p\n{options}\n")
        return {
            str(path.relative_to(sample.directory)): (
                stat.S_IMODE(path.stat().st_mode),
                path.read_bytes().replace(os.fsencode(sample.directory), b"SAMPLE"),
            )
            for name in ("etc/a.ini", "a")
            if (path := sample.directory / name).exists()
        }

    def test_the_same_options_make_the_same_file(self) -> None:
        for options in self.OPTIONS:
            with self.subTest(options):
                theirs = self.made("collective.recipe.template", options)
                self.assertEqual(len(theirs), 1)
                ours = self.made("eggcrate:circus-config", f"{options}\ncheck = false")
                self.assertEqual(ours, theirs)


DECLARED = """\
[buildout]
parts = circus

[custom]
workers = 2

[nginx]
recipe = eggcrate:nginx-config
check = false
inline =
    # ${buildout:directory}
    daemon off;

[circus]
recipe = eggcrate:circus-config
watcher.web =
    preset = gunicorn
    app = shop.wsgi
    workers = ${custom:workers}
watcher.nginx =
    preset = nginx
    config = ${nginx:output}
"""


class Declared(RecipeTest):
    def test_ten_lines_are_a_site(self) -> None:
        self.assertEqual(DECLARED.partition("[circus]\n")[2].count("\n"), 8)
        log = self.sample.run(DECLARED)
        self.assertLess(log.index("Installing nginx."), log.index("Installing circus."))
        text = self.output()
        self.assertIn("\ncmd = SAMPLE/bin/gunicorn --workers 2 ", text)
        self.assertIn("\npath = SAMPLE/var/run/web.sock\n", text)
        self.assertIn("\numask = 0\n", text)
        # the file of [nginx], which is not written yet, has "daemon off" already
        self.assertIn(
            "\ncmd = /usr/sbin/nginx -e stderr -c SAMPLE/parts/nginx/nginx.conf\n", text
        )
        self.assertEqual(self.mode(), 0o644)

    def test_an_update_with_nothing_new_leaves_the_file_alone(self) -> None:
        self.sample.run(DECLARED)
        before = self.path().stat()
        self.assertIn("Updating circus.", self.sample.run())
        self.assertEqual(self.path().stat().st_mtime_ns, before.st_mtime_ns)
        self.assertEqual(self.path().stat().st_ino, before.st_ino)

    def test_a_template_and_sections_make_one_file(self) -> None:
        self.template.write_text("[circus]\nmulticast_endpoint =\n# ${custom:webapp_port}\n")
        self.sample.run(BUILDOUT + "mode = 640\nwatcher.web =\n  cmd = bin/a\n")
        self.assertTrue(
            self.output().startswith(
                "[circus]\nmulticast_endpoint =\n# 8080\n\n[watcher:web]\ncmd = bin/a\n"
            )
        )
        self.assertEqual(self.mode(), 0o640)

    def test_an_escape_and_a_reference(self) -> None:
        self.sample.run(
            DECLARED.replace("[nginx]", "x = $${HOME}\n[nginx]")
            + "env.web = A = ${custom:workers} $${B} ${custom:x}\ncheck = false\n"
        )
        self.assertIn("[env:web]\nA = 2 ${B} ${HOME}\n", self.output())

    def test_more_lines_from_another_section(self) -> None:
        self.sample.run(DECLARED + "watcher.web +=\n    numprocesses = 3\n")
        self.assertIn("\nnumprocesses = 3\n", self.output())

    def test_a_program_that_is_nearly_there(self) -> None:
        self.sample.write("bin/gunicorn", "#!/bin/sh\n").chmod(0o755)
        cfg = DECLARED + "watcher.x =\n    cmd = ${buildout:bin-directory}/gunicron\n"
        self.assertIn(
            "watcher.x, line 1: [watcher:x] cmd runs bin/gunicron, which does not exist, and "
            "circusd would stay up without it; write bin/gunicorn, the nearest name there is",
            self.sample.error(cfg),
        )
        self.assertFalse(self.path().exists())
        self.sample.run(cfg.replace("gunicron", "made-by-a-later-part"))

    def test_what_is_wrong_is_said_with_its_line_before_anything_is_done(self) -> None:
        self.sample.run(DECLARED)
        before = self.output()
        cfg = DECLARED.replace("app = shop.wsgi", "app = shop.wsgi\n    gracefull_timeout = 3")
        self.assertIn(
            "[circus] watcher.web, line 3: gracefull_timeout is no key of preset gunicorn and "
            "no option of a watcher; write graceful_timeout",
            self.sample.error(cfg),
        )
        cfg = DECLARED + "watcher.x =\n    cmd = a\n    numprocess = 3\n"
        self.assertIn("[circus] watcher.x, line 2: ", self.sample.error(cfg))
        self.assertEqual(self.output(), before)
        self.sample.run(f"{cfg}check = false\n")

    def test_a_misspelt_section(self) -> None:
        self.assertEqual(
            self.sample.error(DECLARED.replace("watcher.web", "wacther.web")),
            "[circus] has an unknown option wacther.web; write watcher.web",
        )

    def test_scripts_need_eggs(self) -> None:
        self.assertEqual(
            self.sample.error(DECLARED + "scripts = circusd\n"),
            "[circus] scripts needs eggs; set eggs, or take scripts out",
        )

    def test_names_of_scripts(self) -> None:
        for scripts, expected in (
            ("circusd=", "scripts: circusd= names no script; write name, or name=newname"),
            ("a=b circusd=b", "scripts: two would be bin/b; rename one: name=newname"),
        ):
            cfg = f"{DECLARED}eggs = circus\nscripts = {scripts}\n"
            self.assertEqual(self.sample.error(cfg), f"[circus] {expected}")


def eggs_directory(test: unittest.TestCase) -> pathlib.Path:
    """Where this checkout has its eggs, beside those that the tests themselves need."""
    eggs = pathlib.Path(zope.testrunner.__file__).parents[3]
    if not list(eggs.glob("circus-*")):
        layers.skip(test, f"{eggs} has no Circus; run bin/buildout")
    return eggs.parent


NGINX_CONF = """\
worker_processes 1;
pid "${nginx:run-directory}/nginx.pid";
error_log stderr warn;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path "${nginx:run-directory}/client_body";
    proxy_temp_path "${nginx:run-directory}/proxy";
    fastcgi_temp_path "${nginx:run-directory}/fastcgi";
    uwsgi_temp_path "${nginx:run-directory}/uwsgi";
    scgi_temp_path "${nginx:run-directory}/scgi";
    server {
        listen 127.0.0.1:${custom:port};
        location / { proxy_pass "http://unix:${nginx:run-directory}/web.sock:"; }
    }
}
"""

SITE = """\
[buildout]
parts = circus
eggs-directory = {eggs}

[custom]
port = {port}

[nginx]
recipe = eggcrate:nginx-config
check = false
input = nginx.conf.in

[circus]
recipe = eggcrate:circus-config
eggs = gunicorn
watcher.web =
    preset = gunicorn
    app = shop
watcher.echo =
    preset = command
    command = {python} echo.py $(circus.sockets.echo)
watcher.nginx =
    preset = nginx
    program = {nginx}
    config = ${{nginx:output}}
watcher.tidy =
    preset = cron
    schedule = @yearly
    command = true
"""


class Running(RecipeTest):
    """A site that is declared, run by the Circus of its eggs."""

    layer = layers.NGINX

    def setUp(self) -> None:
        self.layer.require(self)
        super().setUp()
        # nginx's workers are nobody where root starts it
        self.sample.directory.chmod(0o755)
        self.port = layers.free_port()
        self.sample.write("nginx.conf.in", NGINX_CONF)
        self.sample.write(
            "shop.py",
            """
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"hello"]
            """,
        )
        self.sample.write(
            "echo.py",
            """
            import socket, sys
            server = socket.socket(fileno=int(sys.argv[1]))
            server.setblocking(True)
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"echo of " + connection.recv(99))
            """,
        )
        self.site = SITE.format(
            eggs=eggs_directory(self),
            port=self.port,
            python=sys.executable,
            nginx=self.layer.program,
        )

    def buildout(self, site: str) -> None:
        self.sample.write("buildout.cfg", site)
        code, errors = main(self.sample)
        self.assertEqual(code, 0, errors)

    def scripts(self) -> set[str]:
        return {path.name for path in self.path("bin").iterdir()}

    def echo(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(os.fspath(self.path("var/run/echo.sock")))
            client.sendall(b"this")
            return client.recv(99)

    def test_the_site_runs_and_answers_and_stops(self) -> None:
        self.buildout(self.site)
        self.assertEqual(self.scripts(), {"circusctl", "circusd", "gunicorn"})
        shutil.rmtree(self.path("var"), ignore_errors=True)
        with self.path("log").open("wb") as log:
            circusd = subprocess.Popen(
                [self.path("bin/circusd")], cwd="/", stdout=log, stderr=log
            )
        self.addCleanup(circusd.kill)
        for _ in range(600):
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                if layers.get(f"http://127.0.0.1:{self.port}/").text == "hello":
                    break
        else:
            self.fail(self.sample.read("log"))
        self.assertEqual(self.echo(), b"echo of this")
        # Circus starts one after the other, and the last has nothing to do with the answer
        for _ in range(60):
            if "cron tidy: true: first at " in self.sample.read("log"):
                break
            time.sleep(1)
        else:
            self.fail(self.sample.read("log"))
        status = subprocess.run(
            [self.path("bin/circusctl"), "status"],
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(
            status.stdout.split("\n")[:4],
            ["echo: active", "nginx: active", "tidy: active", "web: active"],
        )
        # it is left alone by another one
        second = subprocess.run(
            [self.path("bin/circusd")], cwd="/", stderr=subprocess.PIPE, text=True, check=False
        )
        self.assertEqual(second.returncode, 1)
        run_directory = self.path("var/run")
        self.assertEqual(
            second.stderr,
            f"eggcrate: another circusd, process {circusd.pid}, has the run directory "
            f"{run_directory}; stop that one first\n",
        )
        self.assertEqual(self.echo(), b"echo of this")
        circusd.send_signal(signal.SIGTERM)
        self.assertEqual(circusd.wait(60), 0, self.sample.read("log"))
        with self.assertRaises(OSError):
            layers.get(f"http://127.0.0.1:{self.port}/")

    def test_what_circus_can_t_load_is_said_and_nothing_is_changed(self) -> None:
        self.buildout(self.site)
        before = self.output()
        site = self.site.replace("app = shop", "app = shop\n    hooks.before_start = nope.hook")
        self.sample.write("buildout.cfg", site)
        code, errors = main(self.sample)
        self.assertEqual(code, 1)
        self.assertIn("Error: [circus] watcher.web, line 3: ", errors)
        self.assertIn("nope", errors)
        self.assertEqual(self.output(), before)

    def test_scripts_come_and_go(self) -> None:
        self.buildout(self.site + "scripts = circusd=site gunicorn\n")
        self.assertEqual(self.scripts(), {"gunicorn", "site"})
        self.assertIn("bin/gunicorn ", self.output())
        before = self.path("bin/site").stat()
        self.buildout(self.site + "scripts = circusd=site gunicorn\n")
        self.assertEqual(self.path("bin/site").stat().st_mtime_ns, before.st_mtime_ns)
        self.buildout(self.site + "scripts =\n")
        self.assertEqual(self.scripts(), set())
        self.sample.write("buildout.cfg", self.site + "scripts = circusd nope\n")
        _, errors = main(self.sample)
        self.assertIn(
            "Error: [circus] scripts: no egg has a script nope; add what has it to eggs, or "
            "take nope out",
            errors,
        )

    def test_relative_paths_are_relative(self) -> None:
        site = self.site.replace("[custom]", "relative-paths = true\n[custom]")
        self.buildout(site)
        text = self.sample.read("bin/circusd")
        self.assertIn("join(base, 'parts/circus/circus.ini')", text)
        version = subprocess.run(
            [self.path("bin/circusd"), "--version"], capture_output=True, text=True, check=True
        )
        self.assertRegex(version.stdout, r"^0\.19")
