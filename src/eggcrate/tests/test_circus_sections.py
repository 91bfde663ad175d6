"""Declared sections: what comes of them, and what is said against them."""

from __future__ import annotations

import pathlib
import textwrap
import unittest
from collections.abc import Callable
from typing import ClassVar

from eggcrate.config import circus, circus_sections
from eggcrate.config.circus_sections import Surroundings
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError

RUNTIME = "/lib/eggcrate/runtime"


def surroundings(
    scripts: Callable[[str], str | None] | None = None, nginx: str | None = None
) -> Surroundings:
    return Surroundings(
        part="site",
        directory="/app",
        bin="/app/bin",
        run_directory="/app/run",
        runtime=RUNTIME,
        python="/usr/bin/python3",
        scripts=scripts,
        read={"/app/nginx.conf": nginx}.get,
    )


def declared(
    before: Rendered | None = None, around: Surroundings | None = None, **options: str
) -> Rendered:
    """The text of options whose names have _ for the dot."""
    named = {
        name.replace("_", ".", 1): textwrap.dedent(text).strip("\n")
        for name, text in options.items()
    }
    return circus_sections.declared(named, around or surroundings(), before)


def section(rendered: Rendered, title: str) -> dict[str, str]:
    """The options of a section, as written."""
    _, _, rest = rendered.text.partition(f"\n[{title}]\n")
    options: dict[str, str] = {}
    name = ""
    for line in rest.partition("\n[")[0].splitlines():
        if line.startswith(" "):
            options[name] += f"\n{line.strip()}"
        elif line and not line.startswith("#"):
            name, _, value = line.partition(" =")
            options[name] = value.strip()
    return options


class SectionsTest(unittest.TestCase):
    maxDiff = None

    def complaint(self, **options: str) -> str:
        with self.assertRaises(EggcrateError) as caught:
            declared(None, None, **options)
        return str(caught.exception)

    def assert_sound(self, rendered: Rendered) -> None:
        """Our own lint has nothing to say."""
        found = circus.complaints(
            rendered, output=pathlib.Path("/app/circus.ini"), directory=pathlib.Path("/app")
        )
        self.assertEqual([str(error) for error in found], [])


class Text(SectionsTest):
    def test_it_is_written_for_people(self) -> None:
        rendered = declared(
            socket_web="",
            watcher_web="""
                # what the shop is
                cmd = bin/web
                args = --fd $(circus.sockets.web)
                    --name shop
                """,
            env_web="A = 1",
            env="LANG = C.UTF-8",
        )
        self.assertEqual(
            rendered.text,
            """\
# Made by bin/buildout of [site] in its configuration: change it there.

[circus]
# a process that has died is started again within so many seconds
check_delay = 1
# whoever reaches an endpoint can run any command: sockets in a private directory, no ports
endpoint = ipc:///app/run/circus.ctl
pubsub_endpoint = ipc:///app/run/circus.pub
multicast_endpoint =
umask = 077

[env]
LANG = C.UTF-8

[socket:web]
path = /app/run/web.sock
# decimal; 077 in octal: for this user alone
umask = 63
# the file of a killed predecessor is no obstacle
replace = True

[watcher:web]
# what the shop is
cmd = bin/web
args = --fd $(circus.sockets.web)
    --name shop
working_dir = /app
use_sockets = True
copy_env = True
# docker stop kills after ten seconds; this comes before
graceful_timeout = 8

[env:web]
A = 1
""",
        )
        self.assert_sound(rendered)

    def test_a_line_knows_where_it_comes_from(self) -> None:
        rendered = declared(watcher_web="cmd = a\n\nargs = b\n    c")
        places = {
            line.strip(): rendered.where(number)
            for number, line in enumerate(rendered.text.splitlines(), 1)
        }
        self.assertEqual(places["cmd = a"], "watcher.web, line 1")
        self.assertEqual(places["args = b"], "watcher.web, line 3")
        self.assertEqual(places["c"], "watcher.web, line 3")
        self.assertEqual(places["copy_env = True"], "watcher.web")
        self.assertEqual(places["umask = 077"], "circus")

    def test_the_order_of_options_of_the_part_is_nothing(self) -> None:
        options = {"watcher.b": "cmd = b", "watcher.a": "cmd = a", "socket.z": "", "env": "A=1"}
        texts = {
            circus_sections.declared(dict(items), surroundings()).text
            for items in (options.items(), reversed(list(options.items())))
        }
        self.assertEqual(len(texts), 1)

    def test_the_highest_priority_comes_first(self) -> None:
        text = declared(
            watcher_a="cmd = a", watcher_b="cmd = b\npriority = 2", watcher_c="cmd = c"
        ).text
        self.assertEqual(
            [line for line in text.splitlines() if line.startswith("[watcher")],
            ["[watcher:b]", "[watcher:a]", "[watcher:c]"],
        )

    def test_every_kind_of_section_and_option_is_possible(self) -> None:
        rendered = declared(
            watcher_web="""
                cmd = a
                stdout_stream.class = FileStream
                stdout_stream.filename = /app/log
                rlimit_nofile = 4096
                hooks.before_start = shop.hooks.start
                virtualenv =
                """,
            plugin_flapping="use = circus.plugins.flapping.Flapping\nattempts = 3",
        )
        self.assertEqual(
            section(rendered, "plugin:flapping"),
            {"use": "circus.plugins.flapping.Flapping", "attempts": "3"},
        )
        web = section(rendered, "watcher:web")
        self.assertEqual(web["rlimit_nofile"], "4096")
        self.assertEqual(web["virtualenv"], "")

    def test_an_escaped_brace_is_a_brace(self) -> None:
        rendered = declared(watcher_web="cmd = sh -c 'echo $${HOME}'")
        self.assertEqual(section(rendered, "watcher:web")["cmd"], "sh -c 'echo ${HOME}'")


class Defaults(SectionsTest):
    def test_a_value_wins_and_an_empty_one_takes_the_default_out(self) -> None:
        rendered = declared(
            circus="check_delay = 5\numask =\nmulticast_endpoint = udp://237.219.251.97:12027",
            watcher_web="cmd = a\ncopy_env =\ngraceful_timeout = 9\nworking_dir =",
        )
        self.assertEqual(
            section(rendered, "circus"),
            {
                "check_delay": "5",
                "endpoint": "ipc:///app/run/circus.ctl",
                "pubsub_endpoint": "ipc:///app/run/circus.pub",
                "multicast_endpoint": "udp://237.219.251.97:12027",
            },
        )
        self.assertEqual(
            section(rendered, "watcher:web"), {"cmd": "a", "graceful_timeout": "9"}
        )

    def test_an_empty_multicast_endpoint_stays(self) -> None:
        # without the line Circus listens on all interfaces
        rendered = declared(circus="multicast_endpoint =", watcher_web="cmd = a")
        self.assertEqual(section(rendered, "circus")["multicast_endpoint"], "")

    def test_a_port_needs_neither_umask_nor_path(self) -> None:
        rendered = declared(socket_web="host = 127.0.0.1\nport = 80", watcher_web="cmd = a")
        self.assertEqual(section(rendered, "socket:web"), {"host": "127.0.0.1", "port": "80"})

    def test_nginx_may_connect_where_the_directory_is_private(self) -> None:
        rendered = declared(
            socket_web="",
            socket_out="path = /srv/out.sock",
            socket_own="umask = 7",
            watcher_n="cmd = /usr/sbin/nginx",
        )
        masks = {
            name: section(rendered, f"socket:{name}")["umask"] for name in ("web", "out", "own")
        }
        self.assertEqual(masks, {"web": "0", "out": "63", "own": "7"})

    def test_a_template_goes_before(self) -> None:
        before = Rendered(
            "t.in", "[circus]\numask = 022\n\n[socket:web]\nport = 1", (1, 2, 3, 4, 5)
        )
        rendered = declared(
            before, watcher_web="preset = command\ncommand = a $(circus.sockets.web)"
        )
        self.assertTrue(rendered.text.startswith(before.text + "\n\n[watcher:web]\n"))
        self.assertEqual(rendered.where(5), "t.in, line 5")
        self.assertEqual(rendered.where(8), "watcher.web, line 1")
        self.assertNotIn("check_delay", rendered.text)

    def test_a_template_without_circus_gets_its_defaults(self) -> None:
        before = Rendered("t.in", "[env]\nA = 1\n", (1, 2, 3))
        self.assertIn("[circus]\n", declared(before, watcher_web="cmd = a").text)

    def test_a_section_is_in_one_place(self) -> None:
        before = Rendered("t.in", "[circus]\numask = 022\n", (1, 2, 3))
        with self.assertRaises(EggcrateError) as caught:
            declared(before, circus="umask = 077")
        self.assertEqual(
            str(caught.exception),
            "circus: the template has [circus] already; put the options of a section in one "
            "place",
        )


class Mistakes(SectionsTest):
    def test_a_line_that_is_no_option(self) -> None:
        self.assertEqual(
            self.complaint(watcher_web="cmd = a\nsingleton"),
            "watcher.web, line 2: 'singleton' is no option; write name = value, one a line; "
            "begin a line with a blank to go on with the value before it",
        )

    def test_an_option_twice(self) -> None:
        self.assertEqual(
            self.complaint(watcher_web="cmd = a\ncmd = b"),
            "watcher.web, line 2: cmd is there twice, and Circus takes the first one; leave "
            "one of the two out",
        )

    def test_a_name_that_circus_reads_as_something_else(self) -> None:
        for name in ("a:b", "a b", "[a]"):
            self.assertIn("can't read", self.complaint(watcher_web=f"{name} = 1"))

    def test_a_section_that_can_have_no_header(self) -> None:
        for name in ("a]b", "a\nb", " a", ""):
            with self.assertRaises(EggcrateError) as caught:
                circus_sections.declared({f"watcher.{name}": "cmd = a"}, surroundings())
            self.assertIn("names no section that Circus could read", str(caught.exception))

    def test_a_socket_that_nothing_could_name(self) -> None:
        self.assertIn("no $(circus.sockets...) can name", self.complaint(**{"socket_a b": ""}))

    def test_a_value_that_would_be_cut(self) -> None:
        self.assertEqual(
            self.complaint(watcher_web="cmd = sh -c 'a ; b'"),
            "watcher.web, line 1: Circus would cut cmd at the semicolon after a blank; take "
            "the blank out, or write the value on an indented line of its own below cmd =",
        )
        self.assertIn("would cut A", self.complaint(env="A = ;b"))
        # the first one counts, and a line of its own is never cut
        declared(watcher_web="cmd = sh -c 'a; b ; c'")
        rendered = declared(watcher_web="cmd =\n    sh -c 'a ; b'")
        self.assertEqual(section(rendered, "watcher:web")["cmd"], "\nsh -c 'a ; b'")

    def test_all_come_together(self) -> None:
        text = self.complaint(watcher_a="x", watcher_b="preset = gunicron", socket_c="y")
        self.assertTrue(text.startswith("3 problems:"), text)

    def test_a_section_s_name_that_is_almost_right(self) -> None:
        self.assertEqual(circus_sections.nearest("watchers.web"), "watcher.web")
        self.assertEqual(circus_sections.nearest("wacther.web"), "watcher.web")
        self.assertIsNone(circus_sections.nearest("watcher.web"))
        self.assertIsNone(circus_sections.nearest("settings.web"))


class Presets(SectionsTest):
    #: the fewest lines of each
    LEAST: ClassVar = {
        "gunicorn": "app = shop.wsgi",
        "uvicorn": "app = shop.asgi:app",
        "waitress": "app = shop.wsgi\npython = /venv/bin/python",
        "command": "command = bin/serve --fd $(circus.sockets.web)",
        "nginx": "config = nginx.conf",
        "celery": "app = shop",
        "celery-beat": "app = shop",
        "worker": "command = bin/work",
        "cron": "schedule = 30 3 * * *\ncommand = bin/tidy --all",
    }

    def watcher(self, text: str, around: Surroundings | None = None) -> dict[str, str]:
        return section(declared(None, around, watcher_web=text), "watcher:web")

    def test_each_makes_a_sound_configuration_and_leaves_no_key_behind(self) -> None:
        self.assertEqual(set(self.LEAST), set(circus_sections._PRESETS))
        for preset, text in self.LEAST.items():
            with self.subTest(preset):
                rendered = declared(watcher_web=f"preset = {preset}\n{text}")
                self.assert_sound(rendered)
                options = section(rendered, "watcher:web")
                self.assertEqual(
                    set(options) & {"preset", *circus_sections._PRESETS[preset].keys}, set()
                )

    def test_what_is_missing_is_said_with_an_example(self) -> None:
        for preset, kind in circus_sections._PRESETS.items():
            for key in kind.needed:
                self.assertIn(
                    f"the preset {preset} needs {key}; add {key} = {kind.keys[key]}",
                    self.complaint(watcher_web=f"preset = {preset}"),
                )

    def test_gunicorn(self) -> None:
        rendered = declared(
            watcher_web="""
                preset = gunicorn
                app = shop.wsgi:app
                workers = 3
                options = --timeout 60
                """
        )
        self.assertEqual(
            section(rendered, "watcher:web"),
            {
                "cmd": "/app/bin/gunicorn --workers 3 --graceful-timeout 7 "
                "--bind fd://$(circus.sockets.web) --timeout 60 shop.wsgi:app",
                "working_dir": "/app",
                "use_sockets": "True",
                "singleton": "True",
                "copy_env": "True",
                "graceful_timeout": "8",
                "priority": "10",
                "essential": "True",
            },
        )
        self.assertEqual(section(rendered, "socket:web")["path"], "/app/run/web.sock")

    def test_a_file_of_gunicorn_s_own_decides(self) -> None:
        options = self.watcher("preset = gunicorn\napp = a\nconfig = etc/g.py\nsocket = x")
        self.assertEqual(
            options["cmd"],
            "/app/bin/gunicorn --config /app/etc/g.py --bind fd://$(circus.sockets.x) a",
        )
        module = self.watcher("preset = gunicorn\napp = a\nconfig = python:shop.serving")
        self.assertIn("--config python:shop.serving", module["cmd"])

    def test_a_server_s_patience_is_less_than_circus_s(self) -> None:
        options = self.watcher("preset = gunicorn\napp = a\ngraceful_timeout = 9")
        self.assertIn("--graceful-timeout 8", options["cmd"])

    def test_circus_s_own_options_win(self) -> None:
        options = self.watcher(
            "preset = gunicorn\napp = a\npriority = 3\nessential =\nnumprocesses = 2"
        )
        self.assertEqual(options["priority"], "3")
        self.assertEqual(options["numprocesses"], "2")
        self.assertNotIn("essential", options)
        self.assertNotIn("singleton", options)

    def test_uvicorn_believes_who_comes_by_the_private_socket(self) -> None:
        text = "preset = uvicorn\napp = a:b\nworkers = 2"
        self.assertEqual(
            self.watcher(text)["cmd"],
            "/app/bin/uvicorn --workers 2 --timeout-graceful-shutdown 7 "
            '--fd $(circus.sockets.web) --forwarded-allow-ips "*" a:b',
        )
        rendered = declared(watcher_web=text, socket_web="host = 127.0.0.1\nport = 80")
        self.assertNotIn("forwarded", rendered.text)

    def test_waitress_is_run_by_our_own_program(self) -> None:
        options = self.watcher("preset = waitress\napp = a\npython = /venv/bin/python")
        self.assertEqual(
            options["cmd"],
            f"/venv/bin/python -I {RUNTIME}/serve_waitress.py --fd $(circus.sockets.web) a",
        )
        own = surroundings(scripts="/app/bin/{}".format)
        options = self.watcher("preset = waitress\napp = a\nthreads = 8", own)
        self.assertEqual(
            options["cmd"], "/app/bin/serve-waitress --threads 8 --fd $(circus.sockets.web) a"
        )
        self.assertIn(
            "nothing says which Python has waitress",
            self.complaint(watcher_web="preset = waitress\napp = a"),
        )

    def test_nginx(self) -> None:
        self.assertEqual(
            self.watcher("preset = nginx\nconfig = /app/nginx.conf"),
            {
                "cmd": '/usr/sbin/nginx -e stderr -c /app/nginx.conf -g "daemon off;"',
                "singleton": "True",
                "copy_env": "False",
                "stop_signal": "QUIT",
                "send_hup": "True",
                "graceful_timeout": "8",
                "priority": "1",
                "essential": "True",
            },
        )

    def test_daemon_is_said_once(self) -> None:
        text = "preset = nginx\nconfig = nginx.conf"
        for conf, is_said in (
            ("daemon off;\n", False),
            ("a;\n  daemon off;", False),
            ("# daemon off;\n", True),
        ):
            options = self.watcher(text, surroundings(nginx=conf))
            self.assertEqual("daemon off" in options["cmd"], is_said, conf)

    def test_celery(self) -> None:
        options = self.watcher(
            "preset = celery\napp = shop\nqueues = a, b\nconcurrency = 2\noptions = -l INFO"
        )
        self.assertEqual(
            options["cmd"],
            "/app/bin/celery --app shop worker --hostname web@%h --concurrency 2 "
            "--queues a,b -l INFO",
        )
        self.assertNotIn("essential", options)
        beat = self.watcher("preset = celery-beat\napp = shop\nprogram = env/bin/celery")
        self.assertEqual(
            beat["cmd"],
            "/app/env/bin/celery --app shop beat --pidfile= --schedule /app/run/web.schedule",
        )

    def test_cron(self) -> None:
        options = self.watcher("preset = cron\nschedule = @daily\ncommand = bin/tidy 'a b'")
        self.assertEqual(
            options["cmd"],
            f"/usr/bin/python3 -I {RUNTIME}/cron.py --name web \"@daily\" bin/tidy 'a b'",
        )
        self.assertEqual(
            self.complaint(watcher_web="preset = cron\nschedule = 60 * * * *\ncommand = x"),
            "watcher.web, line 2: schedule has the minute 60, and minutes go from 0 to 59; "
            "write five fields as in a crontab, 30 3 * * *, or @daily",
        )

    def test_a_command_that_would_be_cut_stands_on_a_line_of_its_own(self) -> None:
        rendered = declared(watcher_web="preset = worker\ncommand = sh -c 'a ; b'")
        self.assertIn("\ncmd =\n    sh -c 'a ; b'\n", rendered.text)
        self.assert_sound(rendered)

    def test_a_command_has_the_sockets_that_it_names(self) -> None:
        text = "preset = command\ncommand = a $(circus.sockets.x) ((circus.sockets.y))"
        rendered = declared(watcher_web=f"{text}\nsocket = z")
        for name in "xyz":
            self.assertIn(f"[socket:{name}]", rendered.text)
        self.assertEqual(section(rendered, "watcher:web")["use_sockets"], "True")

    def test_the_part_s_own_scripts_go_first(self) -> None:
        own = surroundings(scripts={"gunicorn": "/app/bin/serve"}.get)
        options = self.watcher("preset = gunicorn\napp = a", own)
        self.assertTrue(options["cmd"].startswith("/app/bin/serve "))

    def test_a_path_with_a_blank_is_one_word(self) -> None:
        options = self.watcher("preset = nginx\nconfig = /app/my conf/nginx.conf")
        self.assertIn("-c '/app/my conf/nginx.conf'", options["cmd"])

    def test_mistakes(self) -> None:
        for text, expected in (
            (
                "preset = gunicron",
                "watcher.web, line 1: there is no preset 'gunicron'; write gunicorn, the "
                "nearest name there is",
            ),
            (
                "preset = gunicorn\napp = a\nworker = 2",
                "watcher.web, line 3: worker is no key of preset gunicorn and no option of a "
                "watcher; write workers, the nearest name there is",
            ),
            (
                "preset = gunicorn\napp = a\nworkers = two",
                "watcher.web, line 3: workers is 'two', which is no number; write workers = "
                "2, for example",
            ),
            (
                "preset = gunicorn\napp = a\ncmd = b",
                "watcher.web, line 3: the preset gunicorn makes cmd itself; take preset or "
                "cmd out",
            ),
            (
                "preset = gunicorn\napp = a\nsocket = b c",
                "watcher.web, line 3: 'b c' can't be the name of a socket; set socket to a "
                "name of letters, digits and any of _ . -",
            ),
        ):
            self.assertEqual(self.complaint(watcher_web=text), expected)
