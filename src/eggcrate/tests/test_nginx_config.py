"""nginx-config: what it adds to circus-config is a test by nginx itself."""

from __future__ import annotations

import contextlib
import os
import pathlib
import unittest
import unittest.mock
from collections.abc import Iterator

from eggcrate.config import nginx
from eggcrate.tests.layers import NGINX
from eggcrate.tests.test_circus_config import Sample

BUILDOUT = """\
[buildout]
parts = nginx

[custom]
webapp_port = 18080
lines =
    gzip on;
    gzip_vary on;

[nginx]
recipe = eggcrate:nginx-config
input = templates/nginx.conf.in
"""

# line 11 is the one that tests change
TEMPLATE = """\
worker_processes 1;
pid ${run-directory}/nginx.pid;
error_log stderr warn;
events {
}
http {
    include conf.d/*.conf;
    client_body_temp_path ${nginx:run-directory}/body;
    access_log /dev/stdout;
    ${custom:lines}
    # here
    upstream web {
        server unix:${nginx:run-directory}/web.sock fail_timeout=0;
    }
    server {
        listen 127.0.0.1:${custom:webapp_port};
        listen unix:${nginx:run-directory}/nginx.sock;
        location / {
            proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto $scheme;
            proxy_pass http://web;
            add_header X-Scheme "$${scheme}s";
        }
    }
}
"""

OUTPUT = "parts/nginx/nginx.conf"


class NginxTest(unittest.TestCase):
    layer = NGINX

    def setUp(self) -> None:
        NGINX.require(self)
        self.sample = Sample(self)
        self.sample.write("templates/nginx.conf.in", TEMPLATE)
        self.sample.write("parts/nginx/conf.d/empty.conf", "")

    def template(self, line: str, replaced: str = "    # here") -> None:
        assert replaced in TEMPLATE
        self.sample.write("templates/nginx.conf.in", TEMPLATE.replace(replaced, line))

    def refused(self, message: str, cfg: str = BUILDOUT) -> None:
        """The run fails with nginx's message, and nothing is written."""
        self.assertEqual(
            self.sample.error(cfg),
            f"[nginx] {message} (says nginx -t);"
            " correct it, or set check = false if the nginx that will read it knows better",
        )
        self.assertFalse((self.sample.directory / OUTPUT).exists())

    def accepted(self, warning: str = "", cfg: str = BUILDOUT) -> None:
        """The run writes the file; with a warning, if there is one to expect."""
        log = self.sample.run(cfg)
        self.assertTrue((self.sample.directory / OUTPUT).exists())
        if warning:
            self.assertIn(f"nginx: not tested to the end: {warning}", log)
        else:
            self.assertNotIn("not tested", log)


class Accepted(NginxTest):
    def test_a_good_configuration_is_tested_and_written(self) -> None:
        self.accepted()
        run = self.sample.directory / "var/run"
        self.assertIn(f"server unix:{run}/web.sock", self.sample.read(OUTPUT))
        self.assertIn('"${scheme}s"', self.sample.read(OUTPUT))
        # the test made nginx's files somewhere else
        self.assertEqual(list(run.iterdir()), [])

    def test_the_files_of_a_site_that_runs_are_not_touched(self) -> None:
        run = self.sample.directory / "var/run"
        run.mkdir(parents=True)
        (run / "nginx.pid").write_text("1\n")
        (run / "nginx.sock").write_text("live")
        self.accepted()
        self.assertEqual((run / "nginx.pid").read_text(), "1\n")
        self.assertEqual((run / "nginx.sock").read_text(), "live")

    def test_a_path_that_only_begins_like_the_run_directory_stays(self) -> None:
        self.sample.write("run.d/a.conf", "gzip_static on;\n")
        self.sample.write("old/run/a.conf", "gunzip_static on;\n")
        self.template("    include ${buildout:directory}/run.d/a.conf;")
        self.accepted(cfg=BUILDOUT + "run-directory = run\n")

    def test_relative_includes_start_beside_the_output(self) -> None:
        self.sample.write("parts/nginx/conf.d/site.conf", "gzip_static on;\n")
        self.accepted()


class Refused(NginxTest):
    def test_the_message_is_nginx_s_with_the_template_s_line(self) -> None:
        self.template("    lissten 80;")
        self.refused('templates/nginx.conf.in, line 11: unknown directive "lissten"')

    def test_inline_has_lines_too(self) -> None:
        self.refused(
            'inline, line 2: unknown directive "htp"',
            BUILDOUT.replace(
                "input = templates/nginx.conf.in", "inline =\n  events {}\n  htp {}\n  http {}"
            ),
        )

    def test_a_directive_in_the_wrong_place(self) -> None:
        self.template("    server {")
        self.refused(
            'templates/nginx.conf.in, line 12: "upstream" directive is not allowed here'
        )

    def test_what_was_forgotten(self) -> None:
        self.template("", "events {\n}\n")
        self.refused('templates/nginx.conf.in: no "events" section in configuration')
        self.sample.write("templates/nginx.conf.in", TEMPLATE.removesuffix("}\n"))
        self.refused('templates/nginx.conf.in, line 24: unexpected end of file, expecting "}"')
        self.template("    gzip_static on")
        self.refused(
            'templates/nginx.conf.in, line 12: directive "gzip_static" is not terminated by ";"'
        )

    def test_an_unknown_variable_has_a_line_though_nginx_gives_none(self) -> None:
        self.template("Host $hots;", "Host $host;")
        self.refused('templates/nginx.conf.in, line 19: unknown "hots" variable')

    def test_what_is_wrong_without_a_line(self) -> None:
        self.template("    limit_req zone=nowhere;")
        self.refused('templates/nginx.conf.in: zero size shared memory zone "nowhere"')

    def test_a_value_that_nginx_refuses(self) -> None:
        self.refused(
            'templates/nginx.conf.in, line 16: invalid port in "127.0.0.1:99999" of the'
            ' "listen" directive',
            BUILDOUT.replace("18080", "99999"),
        )

    def test_an_include_of_the_buildout_that_is_missing(self) -> None:
        for path in ("${buildout:directory}/nope.conf", "nope.conf"):
            self.template(f"    include {path};")
            shown = path.replace("${buildout:directory}", "SAMPLE")
            self.assertEqual(
                self.sample.error(BUILDOUT),
                f"[nginx] templates/nginx.conf.in, line 11: include {shown} leads to no file "
                "(include-missing); write the file, or correct the path, which starts from the "
                "output's directory, or add include-missing to ignore",
            )
            self.assertFalse((self.sample.directory / OUTPUT).exists())

    def test_a_certificate_of_the_buildout_that_is_missing(self) -> None:
        self.template(
            "listen 127.0.0.1:18443 ssl;\n"
            "ssl_certificate ${buildout:directory}/nope.pem;\n"
            "ssl_certificate_key ${buildout:directory}/nope.key;",
            "listen 127.0.0.1:${custom:webapp_port};",
        )
        message = self.sample.error(BUILDOUT)
        self.assertIn(
            "templates/nginx.conf.in, line 17: ssl_certificate SAMPLE/nope.pem is not there",
            message,
        )
        self.assertFalse((self.sample.directory / OUTPUT).exists())

    def test_a_mistake_in_an_included_file_of_the_buildout(self) -> None:
        self.sample.write("parts/nginx/conf.d/site.conf", "\n\nlissten 80;\n")
        self.refused('SAMPLE/parts/nginx/conf.d/site.conf, line 3: unknown directive "lissten"')

    def test_a_failure_keeps_the_last_good_file(self) -> None:
        self.sample.run(BUILDOUT)
        good = self.sample.read(OUTPUT)
        self.template("    lissten 80;")
        self.assertIn("lissten", self.sample.error())
        self.assertEqual(self.sample.read(OUTPUT), good)
        # now it is installed, no longer updated
        self.assertIn("lissten", self.sample.error())
        self.assertEqual(self.sample.read(OUTPUT), good)


class DependsOnTheMachine(NginxTest):
    """What is wrong here may be right in the image: a warning, never an error."""

    def test_files_of_the_image(self) -> None:
        for line in (
            "include /nowhere/mime.types;",
            "access_log /nowhere/access.log;",
            "access_log ${buildout:directory}/var/log/access.log;",
            "include ${run-directory}/made-at-start.conf;",
            "client_body_temp_path /nowhere/a/b;",
            "server { listen 127.0.0.1:18443 ssl; ssl_certificate /nowhere/a.pem;"
            " ssl_certificate_key /nowhere/a.key; }",
        ):
            with self.subTest(line):
                # the second one would be the first one's duplicate
                replaced = "client_body_temp_path ${nginx:run-directory}/body;"
                if "client_body" in line:
                    self.template(line, replaced)
                else:
                    self.template(line)
                self.accepted("templates/nginx.conf.in")

    def test_names_users_addresses_and_libraries(self) -> None:
        self.template("server { listen 127.0.0.1:18443; resolver nowhere.invalid; }")
        self.accepted("templates/nginx.conf.in, line 11: host not found in resolver")
        self.template("upstream app { server nowhere.invalid:80; }")
        self.accepted("templates/nginx.conf.in, line 11: host not found in upstream")
        self.template("server { listen 192.0.2.1:18443; }")
        self.accepted("templates/nginx.conf.in: bind() to 192.0.2.1:18443 failed")
        self.template(f"upstream app {{ server unix:/{'x' * 108}; }}")
        self.accepted("templates/nginx.conf.in, line 11: too long path")
        self.template("user nowhere;\n", "worker_processes 1;\n")
        if os.geteuid() == 0:  # nginx asks for the user of no one else
            self.accepted('templates/nginx.conf.in, line 1: getpwnam("nowhere") failed')

    def test_another_nginx(self) -> None:
        self.template("    http2 on;")
        with fake_nginx(
            self.sample,
            'echo "nginx: [emerg] unknown directive \\"http2\\" in $5:12" >&2; exit 1',
        ):
            self.accepted('templates/nginx.conf.in, line 11: unknown directive "http2"')
        self.template("load_module /nowhere/x.so;\n", "worker_processes 1;\n")
        self.accepted("templates/nginx.conf.in, line 1: dlopen()")
        self.template("include /nowhere/modules-enabled/*.conf;\n", "worker_processes 1;\n")
        path = self.sample.directory / "templates/nginx.conf.in"
        path.write_text(path.read_text().replace("# here", "brotli on;"))
        self.accepted('templates/nginx.conf.in, line 11: unknown directive "brotli"')

    def test_a_mistake_in_a_file_of_the_machine(self) -> None:
        included = Sample(self).write("site.conf", "lissten 80;\n")
        self.template(f"    include {included};")
        self.accepted(f'{included}, line 1: unknown directive "lissten"')

    def test_a_fragment_is_not_a_configuration(self) -> None:
        self.sample.write("templates/nginx.conf.in", "server { listen 80; }\n# http {}\n")
        self.accepted("it has neither an events nor an http block")

    def test_a_temporary_directory_with_a_space(self) -> None:
        spaced = self.sample.directory / "with space"
        spaced.mkdir()
        with unittest.mock.patch("tempfile.tempdir", str(spaced)):
            self.accepted("the name of the temporary directory")


@contextlib.contextmanager
def fake_nginx(sample: Sample, script: str) -> Iterator[pathlib.Path]:
    """A program of that name that comes first on PATH."""
    program = sample.write("fake/nginx", f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    with unittest.mock.patch.dict(os.environ, PATH=path):
        yield program


class Programs(NginxTest):
    """Which nginx is asked, and when."""

    def test_it_is_asked_only_when_there_is_something_new(self) -> None:
        asked = self.sample.directory / "asked"
        real = nginx.find()
        with fake_nginx(self.sample, f'echo >> {asked}; exec {real} "$@"'):

            def times() -> int:
                count = len(asked.read_text()) if asked.exists() else 0
                asked.unlink(missing_ok=True)
                return count

            self.accepted()
            self.assertEqual(times(), 1)
            self.assertIn("Updating nginx.", self.sample.run())
            self.assertEqual(times(), 0)
            self.template("    gzip_static on;")
            self.assertIn("Updating nginx.", self.sample.run())
            self.assertEqual(times(), 1)
            self.accepted(cfg=BUILDOUT + "check = false\n")
            self.assertEqual(times(), 0)
            # what is there was written without a test
            self.accepted(cfg=BUILDOUT + "check = true\n")
            self.assertEqual(times(), 1)

    def test_check_false_writes_what_nginx_would_refuse(self) -> None:
        self.template("    lissten 80;")
        self.accepted(cfg=BUILDOUT + "check = false\n")

    def test_check_is_true_or_false(self) -> None:
        self.assertEqual(
            self.sample.error(BUILDOUT + "check = maybe\n"),
            "[nginx] check is 'maybe', which is neither true nor false;"
            " set check to true or false",
        )

    def test_without_nginx_nothing_is_said(self) -> None:
        self.template("    of_a_module 80;")
        with unittest.mock.patch.object(nginx, "find", return_value=None):
            self.accepted()

    def test_an_nginx_that_can_t_be_asked_refuses_nothing(self) -> None:
        for script, warning in (
            ("echo 'nginx: invalid option: \"e\"' >&2; exit 1", 'nginx: invalid option: "e"'),
            ("kill -SEGV $$", "SAMPLE/fake/nginx -t ended with status -11"),
            ("exec sleep 60", "SAMPLE/fake/nginx -t was stopped after"),
        ):
            with (
                self.subTest(script),
                unittest.mock.patch.object(nginx, "_SECONDS", 0.2),
                fake_nginx(self.sample, script),
            ):
                self.accepted(warning)
                (self.sample.directory / OUTPUT).unlink()

    def test_one_that_can_t_be_started_refuses_nothing(self) -> None:
        with fake_nginx(self.sample, "") as program:
            program.write_text("#!/nowhere/interpreter\n")
            self.accepted("SAMPLE/fake/nginx can't be started: No such file or directory")

    def test_sockets_of_a_surrounding_nginx_are_not_taken_over(self) -> None:
        with unittest.mock.patch.dict(os.environ, NGINX="0;"):
            self.accepted()
