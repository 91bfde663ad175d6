"""Runtime settings of a buildout: declared in a section, found in what real recipes write."""

from __future__ import annotations

import os
import re
import unittest
from collections.abc import Mapping

from eggcrate.recipes.symbols import Runtime
from eggcrate.runtime import variables
from eggcrate.tests.test_circus_config import Sample, eggs_directory

DIRECTORY = f"parts/{variables.DIRECTORY}"

# what nginx needs around the line that a test is about
NGINX = """\
worker_processes 1;
error_log stderr warn;
events {
}
http {
    access_log /dev/stdout;
    {line}
}
"""


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.sample = Sample(self)

    def settings(self, part: str) -> variables.Settings:
        """What PID 1 gets to know of a part."""
        return variables.load_files([f"{self.sample.directory}/{DIRECTORY}/{part}.json"])

    def text(self, part: str, environ: Mapping[str, str] | None = None) -> str:
        """What PID 1 writes with an environment; what the part has written, without one."""
        settings = self.settings(part)
        values = variables.read(settings, environ or {}).values
        (document,) = settings.documents
        text = variables.render(document, values)
        if not environ:
            self.assertEqual(text, self.sample.read(os.path.relpath(document.path, self.top)))
        return text.replace(self.top, "SAMPLE")

    @property
    def top(self) -> str:
        return str(self.sample.directory)

    def nginx(self, line: str, custom: str, runtime: str, more: str = "") -> str:
        """A buildout with a line in an nginx configuration; neither lint nor nginx look."""
        self.sample.write("nginx.conf.in", NGINX.replace("{line}", line))
        return (
            "[buildout]\nparts = nginx\n"
            f"[custom]\n{custom}\n[runtime]\n{runtime}\n"
            "[nginx]\nrecipe = eggcrate:nginx-config\ninput = nginx.conf.in\ncheck = false\n"
            f"{more}"
        )

    def line(self, environ: Mapping[str, str] | None = None) -> str:
        """The lines that stand for ``line`` of the nginx configuration."""
        before, _, after = NGINX.partition("    {line}\n")
        text = self.text("nginx", environ)
        self.assertTrue(text.startswith(before) and text.endswith(after), text)
        return text[len(before) : -len(after)]


class Places(Case):
    """Where a setting stands, however it has come there."""

    def test_through_other_sections(self) -> None:
        self.sample.run(
            self.nginx(
                "server { listen ${app:bind}; }",
                "port = 8080",
                "port = port",
                "[app]\nhost = 127.0.0.1\nbind = ${:host}:${listener:port}\n"
                "[listener]\nport = ${custom:port}\n",
            )
        )
        self.assertEqual(self.line(), "    server { listen 127.0.0.1:8080; }\n")
        self.assertEqual(self.line({"PORT": "9000"}), "    server { listen 127.0.0.1:9000; }\n")

    def test_a_value_that_stands_elsewhere_by_itself_stays(self) -> None:
        self.sample.run(
            self.nginx(
                "server { listen ${custom:port}; return 200 8080; }",
                "port = 8080",
                "port = port",
            )
        )
        self.assertEqual(
            self.line({"PORT": "9000"}), "    server { listen 9000; return 200 8080; }\n"
        )

    def test_an_option_of_another_name(self) -> None:
        self.sample.run(
            self.nginx(
                "listen ${site:listen}${site:more};",
                "",
                "port = port from=site:listen min=1024 env=SITE_PORT",
                "[site]\nlisten = 8080\nmore = ${:_}\n_ =\n",
            )
        )
        self.assertEqual(self.line({"SITE_PORT": "9000"}), "    listen 9000;\n")

    def test_a_text_in_an_option(self) -> None:
        self.sample.run(
            """\
            [buildout]
            parts = circus

            [custom]
            workers = 2
            price = $$5

            [runtime]
            workers = int min=1 max=64
            price = text

            [circus]
            recipe = eggcrate:circus-config
            inline =
                [watcher:web]
                cmd = /bin/true --workers ${custom:workers} --price '${custom:price}'
            """
        )
        rendered = self.text("circus", {"WORKERS": "5", "PRICE": 'it\'s "5" \\ 6'})
        self.assertIn("--workers 5 ", rendered)
        self.assertIn("""--price 'it'"'"'s "5" \\ 6'""", rendered)
        self.assertIn("--price '$$5'", self.text("circus"))

    def test_declared_nginx(self) -> None:
        self.sample.run(
            """\
            [buildout]
            parts = nginx

            [custom]
            port = 8080
            names = shop.example
            size = 10m
            slow = 60s
            proxies = 10.0.0.0/8 192.0.2.1
            policy = same-origin
            greeting = hello

            [runtime]
            port = port min=1024
            names = hostnames
            size = size max=1g
            slow = duration
            proxies = cidrs
            policy = choices same-origin no-referrer
            greeting = text

            [nginx]
            recipe = eggcrate:nginx-config
            listen = ${custom:port}
            server-names = ${custom:names}
            upstream = 127.0.0.1:9999
            client-max-body-size = ${custom:size}
            proxy-read-timeout = ${custom:slow}
            trusted-proxies = ${custom:proxies}
            referrer-policy = ${custom:policy}
            headers = X-Greeting: ${custom:greeting}
            """
        )
        self.text("nginx")
        changed = self.text(
            "nginx",
            {
                "PORT": "9000",
                "NAMES": "a.example,b.example",
                "SIZE": "20m",
                "SLOW": "90s",
                "PROXIES": "172.16.0.0/12 198.51.100.0/24",
                "POLICY": "no-referrer",
                "GREETING": 'say "hi"',
            },
        )
        for line in (
            "listen 9000;",
            "listen 9000 default_server;",
            "server_name a.example b.example;",
            "client_max_body_size 20m;",
            "proxy_read_timeout 90s;",
            "set_real_ip_from 172.16.0.0/12;",
            "set_real_ip_from 198.51.100.0/24;",
            r'"say \"hi\""',
        ):
            self.assertIn(line, changed)
        for gone in ("listen 8080", "shop.example", "10m;", "10.0.0.0", "hello"):
            self.assertNotIn(gone, changed)
        self.assertIn('"~[|]$" no-referrer;', changed)

    def test_declared_circus(self) -> None:
        self.sample.run(
            f"""\
            [buildout]
            parts = circus
            eggs-directory = {eggs_directory(self)}

            [custom]
            workers = 2
            patience = 8
            names = shop.example www.shop.example
            greeting = Good morning

            [runtime]
            workers = int min=1 max=64
            patience = int min=1 max=60
            names = hostnames
            greeting = text

            [circus]
            recipe = eggcrate:circus-config
            eggs = gunicorn
            check = false
            watcher.web =
                preset = gunicorn
                app = shop.wsgi
                workers = ${{custom:workers}}
            watcher.other =
                cmd = /bin/sleep 60
                graceful_timeout = ${{custom:patience}}
            env.web =
                HOSTS = ${{custom:names}}
                GREETING = ${{custom:greeting}}
            """
        )
        changed = self.text(
            "circus",
            {"WORKERS": "9", "PATIENCE": "3", "NAMES": "a.example", "GREETING": "¡Hola, tú!"},
        )
        for line in (
            "--workers 9",
            "graceful_timeout = 3",
            "HOSTS = a.example\n",
            "GREETING = ¡Hola, tú!\n",
        ):
            self.assertIn(line, changed)

    def test_a_list_repeats_its_line(self) -> None:
        self.sample.run(
            self.nginx(
                "set_real_ip_from ${custom:proxies};",
                "proxies = 10.0.0.0/8  192.0.2.1",
                "proxies = cidrs",
            )
        )
        self.assertEqual(
            self.line(),
            "    set_real_ip_from 10.0.0.0/8;\n    set_real_ip_from 192.0.2.1;\n",
        )
        self.assertEqual(
            self.line({"PROXIES": "127.0.0.1"}), "    set_real_ip_from 127.0.0.1;\n"
        )

    def test_messages_have_the_template_s_line_behind_a_repeated_one(self) -> None:
        cfg = self.nginx(
            "set_real_ip_from ${custom:proxies};\n    gzip perhaps;",
            "proxies = 10.0.0.0/8 192.0.2.1",
            "proxies = cidrs",
        )
        self.assertRegex(
            self.sample.error(cfg.replace("check = false", "")), r"nginx\.conf\.in, line 8: "
        )

    def test_true_and_false_are_spelled_as_they_were(self) -> None:
        for written, changed in (("on", "off"), ("off", "on"), ("True", "False"), ("1", "0")):
            with self.subTest(written=written):
                self.sample.run(
                    self.nginx("set $flag ${custom:flag};", f"flag = {written}", "flag = bool")
                )
                self.assertEqual(self.line(), f"    set $flag {written};\n")
                value = "no" if written in ("on", "True", "1") else "yes"
                self.assertEqual(self.line({"FLAG": value}), f"    set $flag {changed};\n")

    def test_a_narrow_range_and_few_choices(self) -> None:
        self.sample.run(
            self.nginx(
                "gzip_comp_level ${custom:level}; error_log stderr ${custom:log}; "
                "set $x ${custom:only};",
                "level = 5\nlog = warn\nonly = one",
                "level = int min=5 max=6\nlog = choices warn info\nonly = choices one",
            )
        )
        self.assertEqual(
            self.line({"LEVEL": "6", "LOG": "info", "ONLY": "one"}),
            "    gzip_comp_level 6; error_log stderr info; set $x one;\n",
        )

    def test_values_that_begin_alike(self) -> None:
        for custom, runtime, value in (
            ("one = 5", "one = int min=1 max=12", "7"),
            ("one = 12", "one = int min=1 max=121", "7"),
            ("one = 1k", "one = size min=1 max=12g", "2m"),
        ):
            with self.subTest(runtime=runtime):
                line = "a 12; b 121 112; c ${custom:one} 1 ${custom:one}; d 1212; e 12g;"
                self.sample.run(self.nginx(line, custom, runtime))
                for wanted, environ in ((custom[6:], {}), (value, {"ONE": value})):
                    self.assertEqual(
                        self.line(environ),
                        f"    a 12; b 121 112; c {wanted} 1 {wanted}; d 1212; e 12g;\n",
                    )

    def test_one_that_has_no_default_stands_there_too(self) -> None:
        self.sample.run(
            self.nginx(
                "server_name ${custom:name};",
                "name = to-be-set.example",
                "name = hostname required",
            )
        )
        self.assertEqual(self.line({"NAME": "a.example"}), "    server_name a.example;\n")
        with self.assertRaises(variables.SettingsProblem) as caught:
            self.line()
        self.assertEqual(caught.exception.problems, ("NAME must be set: it has no default",))

    def test_sections_that_others_are_made_of(self) -> None:
        self.sample.run(
            self.nginx(
                "listen ${site:listen};",
                "port = 8080",
                "port = port",
                "[base]\nlisten = 127.0.0.1:${custom:port}\n[site]\n<= base\n",
            )
        )
        self.assertEqual(self.line({"PORT": "9000"}), "    listen 127.0.0.1:9000;\n")

    def test_what_a_recipe_sets_is_no_place(self) -> None:
        self.sample.run(
            self.nginx(
                "root ${files:location}; listen ${custom:port};",
                "port = 8080",
                "port = port",
                "[files]\nrecipe = eggcrate:circus-config\n"
                "location = /srv/${custom:port}\ninline = [watcher:x]\n  cmd = /bin/true\n"
                "run-directory = var/${custom:port}/run\noutput = a/${custom:port}.ini\n",
            )
        )
        self.assertEqual(self.line({"PORT": "9000"}), "    root /srv/9000; listen 9000;\n")
        # output was made absolute by its recipe: it is where a file is, whatever is set
        self.assertIn("a/8080.ini", os.fspath(self.settings("files").documents[0].path))


class Refused(Case):
    """What can't be: one sentence for each, all at once, and nothing is written."""

    def refused(self, cfg: str, *sentences: str) -> None:
        message = self.sample.error(cfg)
        found = re.findall(r"^  - (.*)", message, re.MULTILINE) or [message[len("[nginx] ") :]]
        self.assertEqual(found, list(sentences))
        self.assertFalse((self.sample.directory / DIRECTORY).exists())

    def declared(self, custom: str, runtime: str, options: str) -> str:
        return (
            f"[buildout]\nparts = nginx\n[custom]\n{custom}\n[runtime]\n{runtime}\n"
            "[nginx]\nrecipe = eggcrate:nginx-config\nserver-names = shop.example\n"
            f"upstream = 127.0.0.1:9999\n{options}\n"
        )

    def test_a_setting_that_decides_more_than_a_value(self) -> None:
        for custom, runtime, options in (
            ("it = true", "it = bool", "gzip = ${custom:it}"),
            ("it = true", "it = bool", "websockets = ${custom:it}"),
            ("it = /health", "it = choices off /health", "health = ${custom:it}"),
        ):
            with self.subTest(options=options):
                self.refused(
                    self.declared(custom, runtime, options),
                    "it of [runtime] decides more in the options of [nginx] than what stands "
                    "in one place; take it out of [runtime], or use another option there",
                )

    def test_a_value_that_an_option_refuses(self) -> None:
        hint = "declare it so that it can't be, with min= and max= or as another type"
        self.refused(
            self.declared(
                "level = 5\nmany = 4",
                "level = int min=1\nmany = int min=0 max=8",
                "gzip-comp-level = ${custom:level}\nworker-processes = ${custom:many}",
            ),
            "level of [runtime] may be 999983, and then gzip-comp-level must be one of 1, 2, "
            f"3, 4, 5, 6, 7, 8, 9; {hint}",
            "many of [runtime] may be 0, and then worker-processes must be a number above "
            f"zero, or auto; {hint}",
        )

    def test_declarations(self) -> None:
        self.refused(
            self.nginx(
                "",
                "port = 8080\nworkers = 0\nflags = on\nclash = 1",
                "prot = port\nworkers = int min=1\nflags = boolean\nnames = hostnames\n"
                "other = word from=cutsom:port\nsecrets = clash PATH",
            ),
            "[runtime] flags has the type boolean, which there is not; write bool",
            "[runtime] names is no option of [custom]; add names to [custom], with the value "
            "for those who set nothing",
            "[runtime] other is an option of [cutsom], which there is not; write "
            "from=custom:port, the nearest name there is",
            "[runtime] prot is no option of [custom]; write port, the nearest name there is",
            "[runtime] secrets has the variable clash, which is no name; write capitals, "
            "digits and _",
            "[runtime] workers has a default that does not fit: it must be a whole number, 1 "
            "or more; correct it, or say required",
        )

    def test_two_of_one_variable(self) -> None:
        for custom, runtime in (
            ("port = 8080\nother = 8081", "port = port\nother = port env=PORT"),
            ("port = 8080", "port = port\nsecrets = PORT"),
        ):
            with self.subTest(runtime=runtime):
                self.refused(
                    self.nginx("", custom, runtime),
                    "[runtime] is wrong: the variable PORT is declared twice; rename one of "
                    "the two",
                )

    def test_places_that_can_have_no_setting(self) -> None:
        self.refused(
            self.nginx(
                "${custom:directive} on;\n    set $y $x${custom:end};",
                "directive = gzip\nend = es",
                "directive = word\nend = word",
            ),
            "nginx.conf.in, line 7: directive stands where a directive's name is; write the "
            "name itself",
            "nginx.conf.in, line 8: end would become part of a variable's name; put braces "
            "around the name of the variable before it",
        )

    def test_two_that_are_one_value(self) -> None:
        self.refused(
            self.nginx(
                "listen ${custom:port};",
                "port = ${:web}\nweb = 8080",
                "port = port\nweb = port",
            ),
            "web of [runtime] and another setting share a place in nginx.conf.in; let each of "
            "them stand for itself",
        )

    def test_a_section_that_is_not_there(self) -> None:
        self.refused(
            self.nginx("", "port = 8080", "port = port", "runtime = rutime\n"),
            "runtime: there is no section [rutime]; write runtime, the nearest name there is",
        )


class Files(Case):
    def test_without_a_section_nothing_is_kept(self) -> None:
        cfg = self.nginx("listen ${custom:port};", "port = 8080", "")
        self.sample.run(cfg.replace("[runtime]\n", ""))
        self.assertFalse((self.sample.directory / DIRECTORY).exists())
        self.assertEqual(sorted(os.listdir(self.sample.directory / "parts")), ["nginx"])

    def test_a_section_of_another_name(self) -> None:
        cfg = self.nginx("listen ${custom:port};", "port = 8080", "port = port")
        self.sample.run(cfg.replace("[runtime]", "[other]") + "runtime = other\n")
        self.assertEqual(self.line({"PORT": "9000"}), "    listen 9000;\n")

    def test_a_second_run_changes_nothing(self) -> None:
        cfg = self.nginx("listen ${custom:port};", "port = 8080", "port = port")
        self.sample.run(cfg)

        def state() -> dict[str, tuple[int, int]]:
            return {
                str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
                for path in self.sample.directory.rglob("*")
                if path.is_file() and path.name != ".installed.cfg"
            }

        before = state()
        self.assertIn("Updating nginx", self.sample.run())
        self.assertEqual(state(), before)

    def test_another_declaration_is_known_at_once(self) -> None:
        cfg = self.nginx("listen ${custom:port};", "port = 8080", "port = port")
        self.sample.run(cfg)
        self.sample.run(cfg.replace("port = port", "port = port min=1024 env=WEB"))
        (setting,) = self.settings("nginx").settings
        self.assertEqual((setting.env, setting.minimum), ("WEB", "1024"))
        self.sample.run(cfg.replace("[runtime]\nport = port\n", ""))
        self.assertFalse((self.sample.directory / DIRECTORY / "nginx.json").exists())
        self.assertIn("listen 8080;", self.sample.read("parts/nginx/nginx.conf"))

    def test_what_a_part_has_left_goes_with_it(self) -> None:
        cfg = self.nginx("listen ${custom:port};", "port = 8080", "port = port")
        self.sample.run(cfg)
        self.assertTrue((self.sample.directory / DIRECTORY / "nginx.json").exists())
        self.sample.run(cfg.replace("parts = nginx", "parts ="))
        self.assertFalse((self.sample.directory / DIRECTORY / "nginx.json").exists())

    def test_what_looks_like_a_secret_is_a_warning(self) -> None:
        options = {
            "custom": {"db_password": "canary", "key": "", "greeting": "x"},
            "runtime": {
                "db_password": "text",
                "key": "text",
                "greeting": "text",
                "token": "word required",
                "secrets": "DJANGO_SECRET_KEY",
            },
        }
        self.assertEqual(
            list(Runtime(options).warnings()),
            [
                "[runtime] db_password looks like a secret, and its value in [custom] is in "
                "the image; name DB_PASSWORD in secrets, or write required and take "
                "db_password out of [custom]"
            ],
        )

    def test_no_secret_has_a_value(self) -> None:
        cfg = self.nginx("", "", "secrets = DJANGO_SECRET_KEY")
        self.sample.run(cfg)
        self.assertEqual(self.settings("nginx").secrets, ("DJANGO_SECRET_KEY",))
        document = self.sample.read(f"{DIRECTORY}/nginx.json")
        self.assertEqual(len(re.findall("DJANGO_SECRET_KEY", document)), 1)
