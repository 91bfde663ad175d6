"""nginx-config: what it adds to circus-config is a test by nginx itself."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import unittest
import unittest.mock
from collections.abc import Iterator

import zc.buildout

from eggcrate.config import nginx, nginx_scratch
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
    """What nginx says; the lint is silent, as it would often say it first."""

    layer = NGINX
    lint = False

    def setUp(self) -> None:
        if not self.lint:
            silent: unittest.mock._patch[object] = unittest.mock.patch(
                "eggcrate.config.nginx_lint.complaints", lambda *_, **__: ([], [])
            )
            silent.start()
            self.addCleanup(silent.stop)
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
        self.template("    include ${buildout:directory}/nope.conf;")
        self.refused(
            'templates/nginx.conf.in, line 11: open() "SAMPLE/nope.conf" failed'
            " (2: No such file or directory)"
        )
        self.template("    include nope.conf;")
        self.refused(
            'templates/nginx.conf.in, line 11: open() "SAMPLE/parts/nginx/nope.conf" failed'
            " (2: No such file or directory)"
        )

    def test_a_certificate_of_the_buildout_that_is_missing(self) -> None:
        self.template(
            "listen 127.0.0.1:18443 ssl;\n"
            "ssl_certificate ${buildout:directory}/nope.pem;\n"
            "ssl_certificate_key ${buildout:directory}/nope.key;",
            "listen 127.0.0.1:${custom:webapp_port};",
        )
        message = self.sample.error(BUILDOUT)
        self.assertIn(
            "[nginx] templates/nginx.conf.in, line 17: cannot load certificate"
            ' "SAMPLE/nope.pem"',
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


class Elsewhere(NginxTest):
    """What only another machine has is replaced in the copy, and all is tested."""

    def passes(self, *lines: str, replaced: str = "    # here") -> None:
        """nginx gets past each of the lines, and to the end of the text."""
        for line in lines:
            with self.subTest(line):
                self.template(line, replaced)
                self.accepted()
                self.template(line, replaced)
                path = self.sample.directory / "templates/nginx.conf.in"
                text = path.read_text().removesuffix("}\n")
                path.write_text(f"{text}    lissten 80;\n}}\n")
                number = path.read_text().count("\n") - 1
                self.assertIn(
                    f'line {number}: unknown directive "lissten"', self.sample.error()
                )

    def test_ports_that_are_taken(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.template(f"server {{ listen {port}; listen 127.0.0.1:{port}; }}")
            given: list[str] = []
            ask = nginx._ask

            def watched(program: str, configuration: str) -> str:
                given.append(pathlib.Path(configuration).read_text())
                return ask(program, configuration)

            with unittest.mock.patch.object(nginx, "_ask", watched):
                self.accepted()
        # nginx would try again for two seconds and a half
        self.assertEqual(len(given), 1)
        self.assertIn("listen ", given[0])
        self.assertNotRegex(given[0], rf"\b{port}\b")

    def test_addresses_of_another_machine(self) -> None:
        self.passes(
            "server { listen 192.0.2.1:80; listen 192.0.2.1:443 default_server; }",
            "server { listen [2001:db8::1]:80 ipv6only=on; listen [::]:80 ipv6only=off; }",
            "server { listen unix:/nowhere/nginx.sock; listen '80' backlog=64; }",
            "server { listen shop.invalid:80; listen 192.0.2.1; listen *:81; }",
            "server {\n listen # 80\n 80\n default_server;\n }",
            "map $host $x {\n listen 80;\n default listen;\n }",
        )

    def test_a_machine_without_ipv6(self) -> None:
        with unittest.mock.patch.object(nginx_scratch, "_has_ipv6", return_value=False):
            self.passes("server { listen [::]:80 ipv6only=on; listen 80; }")

    def test_duplicates_of_an_address_are_still_found(self) -> None:
        for one, other, shown in (
            ("80", "80", "0.0.0.0:80"),
            ("80", "*:80", "0.0.0.0:80"),
            ("0.0.0.0:80", "*:80", "0.0.0.0:80"),
            ("[::]:80", "[0::0]:80", "[::]:80"),
            ("192.0.2.1", "192.0.2.1:80", "192.0.2.1:80"),
            ("unix:/nowhere/a.sock", "'unix:/nowhere/a.sock'", "unix:/nowhere/a.sock"),
        ):
            with self.subTest(one):
                self.template(
                    f"server {{ listen {one} default_server; }}\n"
                    f"server {{ listen {other} default_server; }}"
                )
                self.refused(
                    f"templates/nginx.conf.in, line 12: a duplicate default server for {shown}"
                )

    def test_duplicates_in_an_included_file_are_found_too(self) -> None:
        self.sample.write(
            "parts/nginx/conf.d/site.conf", "\nserver { listen *:80 default_server; }\n"
        )
        self.template("server { listen 80 default_server; }")
        self.refused(
            "templates/nginx.conf.in, line 11: a duplicate default server for 0.0.0.0:80"
        )
        self.template("include ${buildout:directory}/site.conf; ")
        self.sample.write("site.conf", "\n\nserver { listen 80 default_server; }\n")
        self.refused("SAMPLE/site.conf, line 3: a duplicate default server for 0.0.0.0:80")

    def test_a_file_that_includes_itself(self) -> None:
        included = self.sample.write("parts/nginx/conf.d/a.conf", "include conf.d/a.conf;\n")
        self.template(f"    include {included};")
        self.assertIn("not tested to the end", self.sample.run(BUILDOUT))

    def test_certificates_of_the_image(self) -> None:
        pair = (
            "ssl_certificate /nowhere/a.pem; ssl_certificate_key /nowhere/a.key;"
            " ssl_certificate '/nowhere/b.pem'; ssl_certificate_key \"/nowhere/b.pem\";"
        )
        self.passes(
            f"server {{ listen 443 ssl; {pair} }}",
            f"server {{ listen 443 ssl; {pair}\n ssl_dhparam /nowhere/dh.pem;\n"
            " ssl_trusted_certificate /nowhere/ca.pem; ssl_crl /nowhere/crl.pem;\n"
            " ssl_client_certificate /nowhere/ca.pem; ssl_verify_client on;\n"
            " ssl_password_file /nowhere/x; ssl_session_ticket_key /nowhere/y; }",
            "ssl_certificate ${run-directory}/a.pem;"
            " ssl_certificate_key ${run-directory}/a.key;",
            "proxy_ssl_certificate /nowhere/a; proxy_ssl_certificate_key /nowhere/b;",
            "server { listen 443 ssl; ssl_certificate $ssl_server_name.pem;"
            " ssl_certificate_key /nowhere/$ssl_server_name; }",
        )

    def test_a_key_that_is_here_goes_with_its_certificate(self) -> None:
        key = self.sample.write("a.key", nginx_scratch._dummy().decode())
        self.passes(
            f"ssl_certificate_key {key}; ssl_certificate /nowhere/a.pem;",
            f"ssl_certificate {key}; ssl_certificate_key {key};",
        )
        self.template(
            "ssl_certificate /nowhere/a.pem; ssl_certificate_key ${buildout:directory}/b.key;"
        )
        self.assertIn(
            "[nginx] templates/nginx.conf.in, line 11: cannot load certificate key"
            ' "SAMPLE/b.key"',
            self.sample.error(),
        )

    def test_names_of_hosts_are_not_looked_up(self) -> None:
        self.passes(
            "upstream app { server nowhere.invalid:80 weight=2; server nowhere.invalid; }",
            "server { resolver nowhere.invalid nowhere.invalid:53 10.0.0.2 valid=9s; }",
            "server { location /a { proxy_pass http://nowhere.invalid:8080/x?y; }\n"
            "location /b { proxy_pass https://$host; } location /c { proxy_pass http://WEB; }\n"
            "location /d { fastcgi_pass nowhere.invalid:9000; }\n"
            "location /e { uwsgi_pass nowhere.invalid:9000; }\n"
            "location /f { scgi_pass 'nowhere.invalid:9000'; }\n"
            "location /g { grpc_pass grpcs://nowhere.invalid:9000; }\n"
            "location /h { set $memcached_key x; memcached_pass nowhere.invalid:9000; }\n"
            "location /i { proxy_pass http://unix:/nowhere:/x; } }",
            "access_log syslog:server=nowhere.invalid:514,tag=x combined;",
            "error_log syslog:facility=local7,server=nowhere.invalid;",
            "set_real_ip_from nowhere.invalid; set_real_ip_from 10.0.0.0/8;",
        )

    def test_a_message_has_the_name_of_the_host(self) -> None:
        self.template("server { location / { fastcgi_pass nowhere.invalid; } }")
        self.refused('templates/nginx.conf.in, line 11: no port in upstream "nowhere.invalid"')
        self.template("upstream app { server nowhere.invalid:99999; }")
        self.refused(
            'templates/nginx.conf.in, line 11: invalid port in upstream "nowhere.invalid:99999"'
        )

    def test_users(self) -> None:
        self.passes(
            "user nowhere;\n",
            "user 'nowhere' nogroup-here;\n",
            "user root nowhere;\n",
            replaced="worker_processes 1;\n",
        )

    def test_nothing_is_written_outside(self) -> None:
        outside = Sample(self).directory
        self.passes(
            f"access_log {outside}/access.log; access_log {outside}/access.log combined;",
            f"error_log {outside}/error.log;",
            "access_log /nowhere/access.log combined buffer=32k;",
            f"proxy_cache_path {outside}/cache levels=1:2 keys_zone=a:1m;",
            "proxy_temp_path /nowhere/a/b 1 2;",
            "access_log /nowhere/$host.log;",
        )
        self.assertEqual(list(outside.iterdir()), [])
        self.passes(f"pid {outside}/x.pid;", replaced="pid ${run-directory}/nginx.pid;")
        self.assertEqual(list(outside.iterdir()), [])
        log = "access_log /nowhere/access.log combined"
        self.template(f"{log} buffer=1k;\n{log} buffer=2k;")
        self.assertIn(
            '[nginx] templates/nginx.conf.in, line 12: access_log "/nowhere/access.log"'
            " already defined with conflicting parameters",
            self.sample.error(),
        )

    def test_files_that_only_the_image_includes(self) -> None:
        self.passes(
            "include /nowhere/mime.types;",
            "types { include /nowhere/more.types; }",
            "include ${run-directory}/made-at-start.conf;",
            "server { location / { include '/nowhere/proxy_params'; } }",
        )

    def test_what_such_a_file_may_define_is_no_mistake(self) -> None:
        self.template("include /nowhere/maps.conf; add_header X $theirs;")
        self.accepted('templates/nginx.conf.in, line 11: unknown "theirs" variable')
        self.template("include /nowhere/maps.conf; access_log /dev/stdout theirs;")
        self.accepted('templates/nginx.conf.in, line 11: unknown log format "theirs"')
        # there are no variables in it
        self.template("include /nowhere/mime.types; add_header X $theirs;")
        self.assertIn('line 11: unknown "theirs" variable', self.sample.error())

    def test_modules_that_only_the_image_has(self) -> None:
        for line in ("load_module /nowhere/x.so; ", "load_module\n modules/nowhere.so;\n"):
            self.template(line, "worker_processes 1;\n")
            self.accepted()
            # what is behind it is tested, up to what the module may know
            path = self.sample.directory / "templates/nginx.conf.in"
            text = path.read_text()
            path.write_text(text.replace("# here", "brotli on;"))
            self.accepted("templates/nginx.conf.in, line ")
            path.write_text(text.replace("# here", "gzip_static maybe;"))
            self.assertIn('invalid value "maybe"', self.sample.error())

    def test_what_crossplane_can_t_read_is_tested_as_it_is(self) -> None:
        self.template("    content_by_lua_block { x = '}' } include /nowhere/mime.types;")
        self.refused(
            'templates/nginx.conf.in, line 11: unknown directive "content_by_lua_block"'
        )


class DependsOnTheMachine(NginxTest):
    """What is wrong here may be right in the image: a warning, never an error."""

    def test_a_log_file_of_the_buildout(self) -> None:
        self.template("access_log ${buildout:directory}/var/log/access.log;")
        self.accepted("templates/nginx.conf.in: open()")

    def test_a_path_that_is_too_long_here(self) -> None:
        self.template(f"upstream app {{ server unix:/{'x' * 108}; }}")
        self.accepted("templates/nginx.conf.in, line 11: too long path")
        self.template(f"server {{ listen unix:/{'x' * 108}; }}")
        self.accepted("templates/nginx.conf.in, line 11: too long path")

    def test_another_nginx(self) -> None:
        self.template("    http2 on;")
        with fake_nginx(
            self.sample,
            'echo "nginx: [emerg] unknown directive \\"http2\\" in $5:12" >&2; exit 1',
        ):
            self.accepted('templates/nginx.conf.in, line 11: unknown directive "http2"')
        self.template("load_module ${buildout:directory}/x.so;\n", "worker_processes 1;\n")
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


class Version(NginxTest):
    def test_it_is_what_nginx_says(self) -> None:
        own, openssl = nginx.version(NGINX.program)
        self.assertEqual(len(own), 3)
        self.assertGreater(own, (1,))
        self.assertGreater(openssl, (1,))

    def test_what_it_runs_with_counts(self) -> None:
        for script, expected in (
            (
                "echo 'nginx version: openresty/1.27.1.1' >&2;"
                " echo 'built with OpenSSL 3.0.22 25 Aug 2026"
                " (running with OpenSSL 3.0.19 27 Jan 2026)' >&2",
                ((1, 27, 1, 1), (3, 0, 19)),
            ),
            (
                "echo 'nginx version: nginx/1.18.0 (Ubuntu)' >&2;"
                " echo 'built with OpenSSL 1.1.1f  31 Mar 2020' >&2",
                ((1, 18, 0), (1, 1, 1)),
            ),
            ("echo 'built with LibreSSL 3.8.2' >&2", ((), ())),
            ("exit 1", ((), ())),
        ):
            with self.subTest(script), fake_nginx(Sample(self), script) as program:
                self.assertEqual(nginx.version(str(program)), expected)
        self.assertEqual(nginx.version("/nowhere/nginx"), ((), ()))

    def test_it_is_asked_once(self) -> None:
        asked = self.sample.directory / "asked"
        with fake_nginx(self.sample, f"echo >> {asked}") as program:
            for _ in range(3):
                nginx.version(str(program))
            self.assertEqual(asked.read_text(), "\n")
            os.utime(program, (1, 1))
            nginx.version(str(program))
            self.assertEqual(asked.read_text(), "\n\n")


class Together(NginxTest):
    """nginx, the lint and the recipe's options, as a user has them."""

    lint = True

    def test_all_problems_come_at_once_and_what_is_missing_only_once(self) -> None:
        self.template(
            "    client_max_body_size 0;\n    include ${buildout:directory}/nope.conf;"
        )
        self.assertEqual(
            self.sample.error(BUILDOUT),
            "[nginx] 2 problems:\n"
            "  - templates/nginx.conf.in, line 11: client_max_body_size 0 is no limit at all "
            "(body-unlimited); write the largest upload that is allowed, such as 10m, "
            "or add body-unlimited to ignore\n"
            "  - templates/nginx.conf.in, line 12: include SAMPLE/nope.conf leads to no file "
            "(include-missing); write the file, or correct the path, which starts from the "
            "output's directory, or add include-missing to ignore",
        )
        self.assertFalse((self.sample.directory / OUTPUT).exists())
        self.template("    client_max_body_size 0;\n    lissten 80;")
        error = self.sample.error(BUILDOUT)
        self.assertIn('line 12: unknown directive "lissten" (says nginx -t)', error)
        self.assertIn("(body-unlimited)", error)

    def test_a_rule_can_be_ignored_and_a_misspelt_one_can_t(self) -> None:
        self.template("    client_max_body_size 0;")
        self.accepted(cfg=BUILDOUT + "ignore = body-unlimited\n")
        self.assertIn(
            "ignore has 'body-unlimted', which is the id of no rule; write body-unlimited",
            self.sample.error(BUILDOUT + "ignore = body-unlimted\n"),
        )

    def test_braces_are_nginx_s_matter_where_there_is_one(self) -> None:
        self.template("    server {")
        self.refused(
            'templates/nginx.conf.in, line 12: "upstream" directive is not allowed here'
        )
        with unittest.mock.patch.object(nginx, "find", return_value=None):
            self.assertIn("(structure)", self.sample.error(BUILDOUT))

    def test_a_file_that_another_part_makes_first_is_there(self) -> None:
        self.template("    include ${other:output};")
        self.sample.run(
            BUILDOUT + "\n[other]\nrecipe = eggcrate:nginx-config\ninline = gzip_static on;\n"
            "output = parts/other.conf\n"
        )
        self.assertTrue((self.sample.directory / OUTPUT).exists())


DECLARED = """\
[buildout]
parts = nginx

[circus]
recipe = eggcrate:circus-config
socket.web =
socket.tcp =
  host = 127.0.0.1
  port = 9100
watcher.web =
  preset = command
  socket = web
  command = /bin/true $(circus.sockets.web)
watcher.own =
  preset = gunicorn
  program = /bin/true
  app = x
watcher.nginx =
  preset = nginx
  config = ${nginx:output}
  program = /bin/true

[nginx]
recipe = eggcrate:nginx-config
server-names = shop.example
"""


class Declared(NginxTest):
    """Options that make the text."""

    lint = True

    def test_the_sockets_of_circus_whichever_part_is_first(self) -> None:
        run = f"{self.sample.directory}/var/run"
        for first in ("nginx", "circus"):
            for name, address in (
                ("web", f"unix:{run}/web.sock"),
                ("tcp", "127.0.0.1:9100"),
                ("own", f"unix:{run}/own.sock"),
            ):
                with self.subTest(first=first, socket=name):
                    cfg = DECLARED.replace("parts = nginx", f"parts = {first}")
                    self.accepted(cfg=f"{cfg}upstream = socket:{name}\n")
                    self.assertIn(f"server {address} fail_timeout=0;", self.sample.read(OUTPUT))

    def test_the_sockets_of_a_template(self) -> None:
        self.sample.write(
            "templates/circus.ini.in",
            "[socket:web]\npath = ${circus:run-directory}/own/w.sock\n"
            "[watcher:nginx]\ncmd = /bin/true\nargs = ${nginx:output}\n",
        )
        cfg = (
            "[buildout]\nparts = circus nginx\n[circus]\nrecipe = eggcrate:circus-config\n"
            "check = false\ninput = templates/circus.ini.in\nrun-directory = run\n"
            "[nginx]\nrecipe = eggcrate:nginx-config\nupstream = socket:web\n"
        )
        self.accepted(cfg=cfg)
        self.assertIn(
            f"server unix:{self.sample.directory}/run/own/w.sock ", self.sample.read(OUTPUT)
        )

    def test_a_preset_knows_what_the_file_will_have(self) -> None:
        """nginx takes no second daemon directive; the part waits for Circus's socket."""
        circus = (
            "[circus]\nrecipe = eggcrate:circus-config\ncheck = false\n"
            "socket.web =\nwatcher.web =\n    cmd = /bin/true\n"
            "watcher.nginx =\n    preset = nginx\n    config = ${nginx:output}\n"
        )
        self.sample.write(
            "templates/nginx.conf.in",
            TEMPLATE.replace("events", "daemon off;\nevents").replace(
                "nginx:run", "circus:run"
            ),
        )
        template = "input = templates/nginx.conf.in\n"
        for text, orders in (
            ("upstream = socket:web\n", ("nginx circus", "circus nginx")),
            (template, ("nginx circus",)),
        ):
            for parts in orders:
                with self.subTest(text=text, parts=parts):
                    self.sample.run(
                        f"[buildout]\nparts = {parts}\n[custom]\nwebapp_port = 18080\nlines =\n"
                        f"{circus}[nginx]\nrecipe = eggcrate:nginx-config\ncheck = false\n"
                        f"{text}"
                    )
                    first = self.sample.read("parts/circus/circus.ini")
                    self.assertNotIn("daemon", first)
                    self.sample.run()
                    self.assertEqual(self.sample.read("parts/circus/circus.ini"), first)
                    self.sample.run("[buildout]\nparts =\n")

    def test_a_socket_that_is_none(self) -> None:
        for options, said in (
            (
                "upstream = socket:wbe\n",
                "upstream: [circus] has no socket wbe; write socket:web, the nearest name",
            ),
            (
                "upstream = socket:web\ncircus = cirkus\n",
                "upstream: there is no part [cirkus] that could have the socket web; "
                "set circus to your circus-config part",
            ),
        ):
            self.assertIn(said, self.sample.error(DECLARED + options))

    def test_what_nginx_refuses_has_the_option_s_name(self) -> None:
        error = self.sample.error(
            DECLARED
            + "upstream = 127.0.0.1:8000\nhttp-extra =\n    etag off;\n    lissten 1;\n"
        )
        self.assertIn('http-extra, line 2: unknown directive "lissten" (says nginx -t)', error)

    def test_a_template_and_options_that_mean_nothing_beside_it(self) -> None:
        self.assertEqual(
            self.sample.error(BUILDOUT + "static = /static/ static\n"),
            "[nginx] static means nothing where a template makes the text; write it in the "
            "template, use ${static} there, or take static out",
        )
        self.template("    keepalive_timeout ${keepalive-timeout};")
        self.accepted(cfg=BUILDOUT + "keepalive-timeout = 5s\n")

    def test_misspelt_options_have_the_nearest_name(self) -> None:
        for option, near in (
            ("uptream = 127.0.0.1:80", "upstream"),
            ("sites.a = x", "site.a"),
            ("acces-log = off", "access-log"),
        ):
            error = self.sample.error(DECLARED + f"upstream = 127.0.0.1:8000\n{option}\n")
            name = option.partition(" ")[0]
            self.assertIn(f"has an unknown option {name}; write {near}", error)
        self.assertIn(
            "has neither input nor inline; set input to the path of a template, or inline to "
            "its text, or declare upstream and server-names",
            self.sample.error("[buildout]\nparts = n\n[n]\nrecipe = eggcrate:nginx-config\n"),
        )

    def test_a_certificate_that_is_none(self) -> None:
        cfg = DECLARED + "upstream = 127.0.0.1:8000\ntls = on\ntls-certificate = c.pem\n"
        self.assertIn("there is no tls-key", self.sample.error(cfg))
        error = self.sample.error(cfg + "tls-key = k.pem\n")
        self.assertIn("tls-certificate: SAMPLE/c.pem is no file that can be read", error)
        self.assertIn("tls-key: SAMPLE/k.pem is no file that can be read", error)
        self.accepted(cfg=cfg.replace("c.pem", "/nowhere/c.pem") + "tls-key = /nowhere/k.pem\n")


class ByTheImage(NginxTest):
    """Where this machine has no nginx, docker-image asks the packed one."""

    CFG = (
        BUILDOUT.replace("parts = nginx", "parts = nginx image")
        + "[image]\nrecipe = eggcrate:docker-image\nparts = nginx\n"
    )

    def run_without(self, cfg: str, program: str | None) -> list[str]:
        """A run on a machine without nginx; the programs that the image was asked for."""
        asked: list[str] = []

        @contextlib.contextmanager
        def packed(settings: object, store: object, path: str) -> Iterator[str | None]:
            asked.append(path)
            yield program

        with (
            unittest.mock.patch.object(nginx, "find", return_value=None),
            unittest.mock.patch("eggcrate.build.packed_program", packed),
            # the test comes before anything is built
            unittest.mock.patch("eggcrate.build.build", side_effect=NotImplementedError),
            unittest.mock.patch.dict(
                os.environ, EGGCRATE_CACHE=str(self.sample.directory / "cache")
            ),
            contextlib.suppress(NotImplementedError),
        ):
            self.sample.run(cfg)
        return asked

    def test_a_mistake_is_found_before_an_image_is_made(self) -> None:
        self.template("    lissten 80;")
        with self.assertRaises(zc.buildout.UserError) as caught:
            self.run_without(self.CFG, NGINX.program)
        self.assertIn(
            '[image] templates/nginx.conf.in, line 11: unknown directive "lissten"',
            str(caught.exception),
        )

    def test_the_same_text_is_tested_once(self) -> None:
        self.assertEqual(self.run_without(self.CFG, NGINX.program), ["usr/sbin/nginx"])
        self.assertEqual(self.run_without(self.CFG, NGINX.program), [])
        self.template("    gzip_static on;")
        self.assertEqual(self.run_without(self.CFG, NGINX.program), ["usr/sbin/nginx"])

    def test_what_is_not_to_be_tested_is_not(self) -> None:
        self.template("    lissten 80;")
        cfg = self.CFG.replace("[image]", "check = false\n[image]")
        self.assertEqual(self.run_without(cfg, NGINX.program), [])
        self.assertEqual(self.run_without(self.CFG, None), ["usr/sbin/nginx"])
