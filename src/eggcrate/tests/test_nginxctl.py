"""bin/nginx of a buildout: the real nginx, with one configuration."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from eggcrate.runtime import nginxctl, start
from eggcrate.tests import layers
from eggcrate.tests.layers import NGINX
from eggcrate.tests.test_circus_config import Sample

CONF = """\
pid {run}/nginx.pid;
error_log stderr warn;
worker_processes 1;
{more}
events {{
}}
http {{
    access_log off;
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi;
    uwsgi_temp_path {run}/uwsgi;
    scgi_temp_path {run}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            default_type text/plain;
            return 200 "{said}";
        }}
        location = /slow {{
            limit_rate 1k;
            default_type text/plain;
            alias {slow};
        }}
    }}
}}
"""
HTTP = "http {\n    gzip_comp_level ${custom:level};"
CALL = "import sys; from eggcrate.runtime import nginxctl; sys.exit(nginxctl.main({!r}, {!r}))"


class Directives(unittest.TestCase):
    def test_only_those_outside_blocks_count(self) -> None:
        text = """
        # pid /no;
        user "a b" c; pid '/run/x.pid' # pid;
        ;
        events { pid /no; }
        http { map $x $y { "}" ${z}; } log_format a "{ pid /no;"; }
        daemon off; pid /second;
        """
        self.assertEqual(
            nginxctl.main_directives(text),
            {"user": "a b", "pid": "/run/x.pid", "daemon": "off"},
        )


class Finding(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(temporary.cleanup)
        self.top = pathlib.Path(temporary.name)

    def program(self, name: str, text: str, mode: int = 0o755) -> pathlib.Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def test_a_script_of_ours_is_none(self) -> None:
        self.program("a/nginx", "#!/usr/bin/python3\nimport eggcrate.runtime.nginxctl\n")
        self.program("b/nginx", "#!/bin/sh\n", 0o644)
        real = self.program("c/nginx", "#!/bin/sh\n")
        path = os.pathsep.join(str(self.top / name) for name in ("no", "a", "b", "c"))
        with mock.patch.dict(os.environ, PATH=path):
            self.assertEqual(start.find_nginx(), str(real))
            self.assertIsNone(start.find_nginx("no-such-nginx"))
        self.assertIsNone(start.find_nginx(f"{self.top}/no/nginx"))

    def test_each_failure_has_its_code_and_one_line(self) -> None:
        odd = self.program("odd", "text", 0o644)
        conf = self.program("nginx.conf", "events {}\n")
        run = str(self.top / "run")
        for arguments, code, line in (
            (("--program=/no/nginx",), 127, "/no/nginx was not found"),
            ((f"--program={odd}",), 126, f"{odd} can't be run: Permission denied"),
            (("test", f"--program={odd}"), 126, f"{odd} can't be run: Permission denied"),
        ):
            result = self.call(str(conf), run, *arguments)
            self.assertEqual((result.returncode, result.stderr), (code, f"eggcrate: {line}\n"))
        result = self.call(f"{self.top}/no.conf", run, f"--program={odd}")
        self.assertEqual(result.returncode, 78)
        self.assertIn("no.conf can't be read: ", result.stderr)
        result = self.call(str(conf), f"{odd}/run", "test", f"--program={odd}")
        self.assertEqual(result.returncode, 78)
        self.assertIn(f"eggcrate: the run directory {odd}/run can't be ", result.stderr)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        conf, run, *rest = arguments
        package = pathlib.Path(nginxctl.__file__).parents[2]
        return subprocess.run(
            [sys.executable, "-c", CALL.format(conf, run), *rest],
            env={**os.environ, "PYTHONPATH": str(package)},
            capture_output=True,
            text=True,
            check=False,
        )


class RealNginx(unittest.TestCase):
    layer = NGINX

    def setUp(self) -> None:
        NGINX.require(self)
        self.sample = Sample(self)
        # the workers are another user
        self.sample.directory.chmod(0o755)
        self.run_directory = self.sample.directory / "var/run"
        self.pid_file = self.run_directory / "nginx.pid"
        self.slow = self.sample.write("slow", "x" * 100_000)
        self.port = layers.free_port()
        self.conf = self.write()
        self.started: subprocess.Popen[str] | None = None

    def write(self, said: str = "one", more: str = "") -> pathlib.Path:
        text = CONF.format(
            run=self.run_directory, port=self.port, said=said, more=more, slow=self.slow
        )
        return self.sample.write("nginx.conf", text)

    def command(self, *arguments: str) -> list[str]:
        code = CALL.format(str(self.conf), str(self.run_directory))
        return [sys.executable, "-c", code, *arguments]

    def environ(self) -> dict[str, str]:
        package = pathlib.Path(nginxctl.__file__).parents[2]
        return {**os.environ, "PYTHONPATH": str(package)}

    def start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command or self.command(),
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        self.addCleanup(self.end, process)
        self.wait_for("one")
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """Let it end: one that is killed leaves its workers behind."""
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    def wait_for(self, said: str) -> None:
        deadline = time.monotonic() + 60
        last = ""
        while last != said:
            self.assertLess(time.monotonic(), deadline, last)
            try:
                last = layers.get(f"http://127.0.0.1:{self.port}/").text
            except OSError as error:
                last = str(error)
            time.sleep(0.02)

    def call(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and what is on stderr."""
        result = subprocess.run(
            self.command(*arguments),
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertNotIn("Traceback", result.stderr)
        return result.returncode, result.stderr

    def test_start_reload_stop(self) -> None:
        process = self.start()
        # it is nginx itself, in the foreground
        self.assertEqual(int(self.pid_file.read_text()), process.pid)
        self.assertEqual(
            self.call(),
            (1, f"eggcrate: nginx runs already, it is process {process.pid}; stop it\n"),
        )
        self.write("two")
        self.assertEqual(self.call("reload")[0], 0)
        self.wait_for("two")
        self.write("three", more="lissten 80;")
        code, said = self.call("reload")
        self.assertEqual(code, 78)
        self.assertIn('unknown directive "lissten"', said)
        self.assertIn(
            "eggcrate: nginx isn't told to reload, and goes on with what it has", said
        )
        self.assertEqual(self.call("test")[0], 78)
        self.wait_for("two")
        self.assertEqual(self.call("stop"), (0, ""))
        self.assertEqual(process.wait(60), 0)
        for command in ("stop", "reload"):
            code, said = self.call(command)
            self.assertEqual(code, 1)
            self.assertIn("eggcrate: nginx doesn't run: there is no ", said)

    def test_test(self) -> None:
        code, said = self.call("test")
        self.assertEqual(code, 0)
        self.assertIn("test is successful", said)
        # it has left an empty file of the process number
        code, said = self.call("stop")
        self.assertEqual(code, 1)
        self.assertIn("nginx doesn't run", said)

    def test_a_stale_pid_file(self) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        for pid, why in (
            (str(gone.pid), f"is left from process {gone.pid}, which has ended"),
            ("junk", "holds no process number"),
            ("0", "is left from process 0, which has ended"),
        ):
            self.run_directory.mkdir(parents=True, exist_ok=True)
            self.pid_file.write_text(f"{pid}\n")
            with self.subTest(pid):
                code, said = self.call("stop")
                self.assertEqual(code, 1)
                self.assertEqual(said, f"eggcrate: nginx doesn't run: {self.pid_file} {why}\n")
        self.start()

    @unittest.skipUnless(os.path.isdir("/proc/self"), "there is no /proc that tells")
    def test_the_number_of_another_program(self) -> None:
        other = subprocess.Popen(["sleep", "60"])
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.run_directory.mkdir(parents=True, exist_ok=True)
        self.pid_file.write_text(f"{other.pid}\n")
        code, said = self.call("stop", "--now")
        self.assertEqual(code, 1)
        self.assertIn(f"is left, and process {other.pid} is sleep", said)
        self.assertIsNone(other.poll())

    @unittest.skipIf(os.geteuid(), "only root has processes of two users")
    def test_the_process_of_another_user(self) -> None:
        process = self.start()
        self.run_directory.chmod(0o755)
        with mock.patch("os.kill", side_effect=PermissionError):
            running = nginxctl._Nginx(
                NGINX.program,
                str(self.conf),
                str(self.run_directory),
                "",
                {"pid": str(self.pid_file)},
            )
            with mock.patch.object(nginxctl, "_complain", lambda problem, code: problem):
                self.assertEqual(
                    running.stop(now=True),
                    f"nginx, process {process.pid}, is another user's; ask as that",
                )

    def test_a_port_that_is_taken_is_said_by_nginx(self) -> None:
        self.start()
        self.pid_file.unlink()
        code, said = self.call()
        self.assertEqual(code, 1)
        self.assertIn(f"bind() to 127.0.0.1:{self.port} failed", said)

    def test_requests_that_go_on(self) -> None:
        process = self.start()
        with subprocess.Popen(
            [
                *(sys.executable, "-c"),
                "import sys, urllib.request; r = urllib.request.urlopen(sys.argv[1]);"
                " print(r.read(1)); sys.stdout.flush(); r.read()",
                f"http://127.0.0.1:{self.port}/slow",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as client:
            self.addCleanup(client.kill)
            assert client.stdout is not None
            client.stdout.readline()
            errors = io.StringIO()
            with (
                mock.patch.object(nginxctl, "_PATIENCE", 0.3),
                contextlib.redirect_stderr(errors),
            ):
                code = nginxctl.main(str(self.conf), str(self.run_directory), "", ["stop"])
            self.assertEqual(code, 1)
            self.assertIn("stop --now doesn't wait for requests", errors.getvalue())
            self.assertEqual(self.call("stop", "--now"), (0, ""))
            self.assertEqual(process.wait(60), 0)

    def test_a_daemon_directive_of_its_own(self) -> None:
        self.write(more="daemon off;")
        self.start()
        self.assertEqual(self.call("stop"), (0, ""))

    def test_what_is_nginx_s_own_goes_to_it(self) -> None:
        code, said = self.call("-v")
        self.assertEqual(code, 0)
        self.assertIn("nginx version: ", said)

    def test_a_usage(self) -> None:
        self.assertEqual(self.call("start", "--now")[0], 2)
        self.assertEqual(self.call("restart")[0], 2)

    def test_the_pid_file_that_nginx_is_built_with(self) -> None:
        running = nginxctl._Nginx(NGINX.program, "", "", "", {})
        self.assertTrue(running._pid_file().startswith("/"))
        running = nginxctl._Nginx(NGINX.program, "", "", "", {"pid": "x.pid"})
        self.assertRegex(running._pid_file(), r"^/.*/x\.pid$")


class Script(RealNginx):
    """The script that the recipe makes."""

    BUILDOUT = """\
[buildout]
parts = web

[web]
recipe = eggcrate:nginx-config
input = nginx.conf
scripts = true
"""
    RUNTIME = """
[custom]
level = 5
said = one

[runtime]
level = int
said = word
"""

    def setUp(self) -> None:
        self.variables: dict[str, str] = {}
        super().setUp()

    def command(self, *arguments: str) -> list[str]:
        return [str(self.sample.directory / "bin/web"), *arguments]

    def write(self, said: str = "one", more: str = "") -> pathlib.Path:
        path = super().write(said, more)
        if "lissten" in more:
            (self.sample.directory / "parts/web/nginx.conf").write_text(path.read_text())
        else:
            self.sample.run(self.BUILDOUT)
        return path

    def environ(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], **self.variables}

    def test_settings_that_nginx_refuses_are_never_in_use(self) -> None:
        super().write("${custom:said}", more="")
        text = self.sample.read("nginx.conf").replace("http {", HTTP)
        self.sample.write("nginx.conf", text)
        self.sample.run(self.BUILDOUT + self.RUNTIME)
        process = self.start()
        in_use = self.run_directory / "settings"
        first = os.readlink(in_use)
        for variables, command, code, words in (
            ({"LEVEL": "10"}, "test", 78, "value must be between 1 and 9 in /"),
            ({"LEVEL": "ten"}, "test", 78, "eggcrate: LEVEL must be a whole number\n"),
            ({"SAID": "two"}, "test", 0, "parts/web/nginx.conf test is successful"),
            ({"LEVEL": "10"}, "reload", 78, "nginx isn't told to reload, and goes on with wh"),
            ({"SAID": "two"}, "start", 1, "nginx runs already"),
        ):
            with self.subTest(variables, command=command):
                self.variables = variables
                found, said = self.call(command)
                self.assertEqual(found, code, said)
                self.assertIn(words, said)
                self.assertNotIn(".settings-", said)
                self.assertEqual(os.readlink(in_use), first)
                # nor is anything left of the test
                names = [name for name in os.listdir(self.run_directory) if ".settings" in name]
                self.assertEqual(names, [first])
        process.send_signal(signal.SIGHUP)
        self.variables = {"SAID": "two"}
        self.assertEqual(self.call("reload")[0], 0)
        self.assertNotEqual(os.readlink(in_use), first)
        self.wait_for("two")

    def test_it_comes_and_goes(self) -> None:
        script = self.sample.directory / "bin/web"
        before = script.stat()
        self.sample.run()
        self.assertEqual(script.stat().st_mtime_ns, before.st_mtime_ns)
        self.assertIn(str(script), self.sample.read(".installed.cfg"))
        self.sample.run(self.BUILDOUT.replace("scripts = true", ""))
        self.assertFalse(script.exists())
        self.assertEqual(
            self.sample.error(self.BUILDOUT.replace("true", "yes")),
            "[web] scripts is 'yes', which is neither true nor false; set scripts to true or "
            "false",
        )

    def test_relative_paths(self) -> None:
        self.sample.run(self.BUILDOUT.replace("[web]", "relative-paths = true\n\n[web]", 1))
        text = self.sample.read("bin/web")
        self.assertIn("join(base, 'parts/web/nginx.conf'), join(base, 'var/run')", text)
        self.assertEqual(self.call("test")[0], 0)
