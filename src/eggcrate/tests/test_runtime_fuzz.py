"""Hostile values of runtime settings: none changes more than its places.

``EGGCRATE_FUZZ=50000 bin/test -m test_runtime_fuzz`` tries so many values.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import crossplane
import hypothesis
from hypothesis import configuration, strategies

from eggcrate.runtime import values as types
from eggcrate.runtime import variables as runtime
from eggcrate.runtime.variables import Settings, SettingsProblem, declaration
from eggcrate.tests import layers
from eggcrate.tests.test_circus import circusd
from eggcrate.tests.test_symbolic import document

EXAMPLES = int(os.environ.get("EGGCRATE_FUZZ") or 250)

# Each setting with a value that stands for it in the tree that is to come out.
DECLARED = {
    "port": ("port", "31999"),
    "count": ("int", "47"),
    "flag": ("bool", "on"),
    "body": ("size", "31313k"),
    "wait": ("duration", "31313s"),
    "host": ("hostname", "zz-host"),
    "hosts": ("hostnames", "zz-hosts"),
    "trusted": ("cidrs", "203.0.113.31"),
    "media": ("path", "/zz-path"),
    "prefix": ("urlpath", "/zz-urlpath"),
    "site": ("url", "https://zz-url"),
    "name": ("word", "zz-word"),
    "level": ("choices zz-choice default include x", "zz-choice"),
    "greeting": ("text", "zz-greeting"),
    "title": ("text", "zz-title"),
}
MODELS = {model: name for name, (_, model) in DECLARED.items() if name != "flag"}
# longer ones first, as one may begin like another
MODEL = re.compile(
    "|".join(re.escape(model) for model in sorted(MODELS, key=len, reverse=True))
)
SETTINGS = {
    name: declaration(name, line, default) for name, (line, default) in DECLARED.items()
}

NGINX = """\
# @greeting @title @name
events { worker_connections 512; }
http {
    client_max_body_size @body;  # @title
    keepalive_timeout @wait;
    gzip @flag;
    set_real_ip_from @trusted;
    geo $trusted {
        default 0;
        @trusted 1;  # @greeting
    }
    map $host $known {
        default 0;
        @host 1;
        @level "@greeting";
        x '@title';
    }
    server {
        listen @port default_server;
        listen 127.0.0.1:@port;
        server_name @hosts;
        error_log stderr @level;
        add_header X-Whole @greeting;
        add_header X-Double "<@greeting> and '@title'";
        add_header X-Single '<@title> and "@greeting"' always;
        add_header X-Word @name;
        add_header X-Part a-@name-@count;
        add_header X-Hosts "@hosts; @trusted";
        location @prefix {
            alias @media/;
            return 301 @site$request_uri;
        }
        location = /x { return 200 @title; }
        allow @trusted;
        deny all;
    }
}
"""

CIRCUS = """\
# @greeting @title
; @name
rem @greeting
[circus]
check_delay = 1
loglevel = @level
[socket:web]
host = @host
port = @port
[watcher:web]
cmd = /bin/web @greeting --title=@title
args = --double "<@greeting> @title" --single '<@title> @greeting' -p @port -w@count
  --hosts "@hosts" --from='@trusted'
  @name @title
  --body @body --wait @wait --site @site --media @media --last
numprocesses = @count
singleton = @flag
note = a;@greeting b ;c
remark = @name ; @greeting
alone = @title
colon: @greeting
env_of = $(circus.env.ADDRESS)
working_dir = @media
[env]
ADDRESS = @host:@port
GREETING = @greeting
BOTH = "@greeting" x=@title
LIST = @hosts @trusted
LONG = a
  @title
  # @greeting
[env:web]
TITLE = @title
FLAG = @flag
[watcher:other]
cmd = other
"""

# What Circus makes of a file, for each one whose text is a line of standard input.
READER = """
import json, logging, os, shlex, sys, warnings
path, sys.path[:0] = sys.argv[1], json.loads(sys.argv[2])
import circus.config, circus.util
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
def made(text):
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    config = circus.config.get_config(path)
    parser = circus.config.DefaultConfigParser()
    with open(path, encoding="utf-8") as file:
        parser.read_file(file)
    for watcher in config["watchers"]:
        env = watcher["env"] = circus.util.parse_env_dict(watcher["env"])
        words = []
        for name in ("cmd", "args"):
            value = circus.util.replace_gnu_args(watcher.pop(name), env=env)
            value = circus.util.replace_gnu_args(value, env=env, wid=1, sockets={"web": 7})
            words += shlex.split(value)
        watcher["words"] = words
    sections = [
        [section, [item for item in parser.items(section, noreplace=True)
                   if item[0] not in ("cmd", "args")]]
        for section in parser.sections()
    ]
    return {"config": config, "sections": sections}
for line in sys.stdin:
    try:
        answer = made(json.loads(line))
    except Exception as error:
        answer = repr(error)
    print(json.dumps(answer, default=str), flush=True)
"""

SIGNS = (
    *" \t;{}#$\"'\\()[]=:%-,*~/.@+?&`|<>0aA\n\r\v\f\0\x1b\x7f\x85\xa0\u2028\u3000äß",
    *("\ud800", "\U0001f95a", '""', "''", "\\n", "\\\\", "\\'", '\\"', " ;", "; ", " #", "${"),
    *("$host", "$HOME", "$WID", "${host}", "$(circus.env.HOME)", "((circus.env.HOME))"),
    *("(CIRCUS.wid)", "$(circus.", "circus.wid", "$(", "((", "))", "%(here)s", "%%", "rem "),
    *("x; location /x/ { alias /; } server_name y", "}\n}\nevents {", "include /etc/shadow;"),
    *("\n[watcher:evil]\ncmd = evil\n", "\nnumprocesses = 9", " --config /evil", "'; evil '"),
    *(
        "default",
        "include",
        "zz-title",
        "zz-greeting",
        "31",
        "31999",
        "zz-hosts",
        "203.0.113.31",
    ),
    *(
        "10.0.0.0/8",
        "::1",
        "fe80::/10",
        "a.example",
        "*.b.example",
        "/srv/x",
        "..",
        "https://c",
    ),
    *("true", "off", "80", "8080", "10m", "1h30m", "_", "é", "=", "lua", "~^(?<x>.+)$"),
)
NICE = {
    "port": r"[0-9]{1,5}",
    "int": r"-?[0-9]{1,4}",
    "bool": r"on|off|true|False|yes|NO|0|1",
    "size": types._SIZE,
    "duration": types._DURATION,
    "hostname": r"[a-zA-Z0-9.*-]{1,12}",
    "hostnames": r"[a-z0-9.-]{1,9}([, ]+[a-z0-9.*-]{1,9}){0,3}",
    "cidrs": r"[0-9]{1,2}\.0\.0\.0/[0-9]{1,2}([, ]+::[0-9a-f]{1,3}){0,3}",
    "path": types._PATH,
    "urlpath": types._URL_PATH,
    "url": r"https?://[a-z.0-9-]{1,9}(:[0-9]{1,5})?" + types._URL_PATH,
    "word": types._WORD,
    "choices": r"zz-choice|default|include|x",
    "text": r"[ -~]{1,20}",
}
# A few alphabets only: to know all of Unicode costs hypothesis seconds.
ASCII = "".join(map(chr, range(32, 127)))
ANY = "".join(
    map(chr, (*range(0x180), *range(0x2000, 0x2070), 0x3000, 0xD800, 0xFEFF, 0x1F95A))
)
# Signs that text may have somewhere: many of these values are accepted.
LINES = strategies.lists(
    strategies.sampled_from([s for s in SIGNS if not re.search(types._CONTROL, s)]),
    min_size=1,
    max_size=5,
).map("".join)
HOSTILE = strategies.one_of(
    strategies.lists(strategies.sampled_from(SIGNS), min_size=1, max_size=6).map("".join),
    strategies.text(ANY, max_size=12),
)


RIGHT = {
    name: strategies.from_regex(NICE[setting.type], fullmatch=True, alphabet=ASCII)
    for name, setting in SETTINGS.items()
}
MIXED = {
    name: strategies.tuples(right, HOSTILE, right).map("".join) for name, right in RIGHT.items()
}
NAMES = strategies.lists(
    strategies.sampled_from([*SETTINGS, "greeting", "title", "greeting"]),
    min_size=1,
    max_size=3,
    unique=True,
)


def environment(draw: Callable[[Any], Any]) -> dict[str, str]:
    """Values for some of the settings: right ones, hostile ones, and mixtures of the two."""
    found = {}
    for name in draw(NAMES):
        nice, mixed = RIGHT[name], MIXED[name]
        kinds = [HOSTILE, nice, nice, mixed]
        if SETTINGS[name].type == "text":
            kinds = [HOSTILE, nice, LINES, LINES]
        found[name] = draw(draw(strategies.sampled_from(kinds)))
    return found


class Trees(unittest.TestCase):
    """A tree of a configuration, and the same with other values in their places."""

    layer = layers.SLOW

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)
        configuration.set_hypothesis_home_dir(str(self.directory / "hypothesis"))
        python, path = circusd(self)
        self.circusd = subprocess.Popen(
            [python, "-c", READER, str(self.directory / "circus.ini"), json.dumps(path)],
            env={"PATH": "/bin", "HOME": "/evil", "PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.addCleanup(self.end)
        self.nginx = document(NGINX, "nginx", SETTINGS)
        self.circus = document(CIRCUS, "circus", SETTINGS)
        self.settings = Settings(tuple(SETTINGS.values()), (), (self.nginx, self.circus))
        self.default_nginx = self.nginx_tree(runtime.render(self.nginx, {}))
        self.default_circus = self.circus_tree(runtime.render(self.circus, {}))
        self.counts: collections.Counter[str] = collections.Counter()

    def end(self) -> None:
        assert self.circusd.stdin is not None and self.circusd.stdout is not None
        self.circusd.stdin.close()
        self.circusd.wait(60)
        self.circusd.stdout.close()

    def nginx_tree(self, text: str) -> Any:
        path = self.directory / "nginx.conf"
        path.write_bytes(text.encode("utf-8"))
        found = crossplane.parse(str(path), single=True, check_ctx=False, check_args=False)
        self.assertEqual(found["errors"], [], text)

        def tree(statements: list[dict[str, Any]]) -> list[Any]:
            return [
                [
                    statement["directive"],
                    [word.replace("\\\\", "\\") for word in statement["args"]],
                    tree(statement["block"]) if "block" in statement else None,
                ]
                for statement in statements
            ]

        return tree(found["config"][0]["parsed"])

    def circus_tree(self, text: str) -> Any:
        assert self.circusd.stdin is not None and self.circusd.stdout is not None
        self.circusd.stdin.write(json.dumps(text) + "\n")
        self.circusd.stdin.flush()
        found = json.loads(self.circusd.stdout.readline())
        self.assertIsInstance(found, dict, f"{found}\n{text}")
        return found

    def put(self, text: str, values: Mapping[str, str]) -> str:
        """A text of the default's tree with other values, each once, from the left."""
        return MODEL.sub(lambda found: values[MODELS[found[0]]], text)

    def expected_nginx(self, statements: Any, values: Mapping[str, str]) -> Any:
        found = []
        for name, words, block in statements:
            if name == "gzip":
                found.append([name, [values["flag"]], None])
                continue
            lists = {"trusted": values["trusted"].split()}
            repeated = DECLARED["trusted"][1] in (name, *words)
            for network in lists["trusted"] if repeated else [""]:
                here = {**values, "trusted": network} if repeated else values
                own = []
                for word in words:
                    if word == DECLARED["hosts"][1] and name == "server_name":
                        own += values["hosts"].split()
                    else:
                        own.append(self.put(word, here))
                found.append(
                    [
                        self.put(name, here),
                        own,
                        None if block is None else self.expected_nginx(block, values),
                    ]
                )
        return found

    def expected_circus(self, tree: Any, values: Mapping[str, str]) -> Any:
        if isinstance(tree, str):
            if tree == "true":
                return "true" if values["flag"] == "on" else "false"
            return self.put(tree, values)
        if isinstance(tree, list):
            return [self.expected_circus(one, values) for one in tree]
        if isinstance(tree, dict):
            found = {key: self.expected_circus(one, values) for key, one in tree.items()}
            if "numprocesses" in found and found["numprocesses"] == 47:
                found["numprocesses"] = int(values["count"])
            if found.get("singleton") is True:
                found["singleton"] = values["flag"] == "on"
            return found
        return tree

    def try_values(self, environ: Mapping[str, str]) -> None:
        """Read the values, and judge both files when they are accepted."""
        self.counts["tried"] += 1
        try:
            found = runtime.read(
                self.settings, {SETTINGS[name].env: text for name, text in environ.items()}
            )
        except SettingsProblem as refused:
            self.counts["refused"] += 1
            for sentence in refused.problems:
                self.assertRegex(sentence, r"^[A-Z]+ (?:must|can't|is longer than|is too long)")
            return
        self.counts["accepted"] += 1
        self.counts["accepted with text"] += bool({"greeting", "title"} & {*environ})
        values = {**found.values, "flag": "on" if found.values["flag"] == "true" else "off"}
        nginx = runtime.render(self.nginx, found.values)
        self.assertEqual(
            self.nginx_tree(nginx), self.expected_nginx(self.default_nginx, values), nginx
        )
        circus = runtime.render(self.circus, found.values)
        self.assertEqual(
            self.circus_tree(circus), self.expected_circus(self.default_circus, values), circus
        )

    def test_the_default_s_tree_has_every_place(self) -> None:
        """The fuzzing below compares with it: what is missing there would not be compared."""
        for tree, absent in (
            (self.default_nginx, ()),
            (self.default_circus, ("prefix",)),
        ):
            text = json.dumps(tree)
            for name, (_, model) in DECLARED.items():
                if name not in absent:
                    self.assertIn(model, text, name)

    def test_a_changed_structure_is_seen(self) -> None:
        """The judges themselves: text that is put in without any care."""
        for name, value in (
            ("greeting", '"; evil on; x "'),
            ("title", "a' b 'c"),
            ("name", "a b"),
            ("greeting", "x ; y"),
        ):
            with mock_forms(), self.assertRaises(AssertionError):
                self.try_values({name: value})

    def test_hostile_values(self) -> None:
        def attempt(environ: dict[str, str]) -> None:
            self.try_values(environ)

        limits = hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=not os.environ.get("EGGCRATE_FUZZ"),
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        environments = strategies.composite(environment)()
        limits(hypothesis.given(environments)(attempt))()
        self.assertGreater(self.counts["refused"], EXAMPLES // 10)
        self.assertGreater(self.counts["accepted with text"], EXAMPLES // 20)
        if os.environ.get("EGGCRATE_FUZZ"):
            print(dict(self.counts))


def mock_forms() -> Any:
    """Every value is written as it is, and every word is one."""
    lax = {**runtime.TYPES, "word": str, "text": str}
    return mock.patch.multiple(runtime, FORMS=dict.fromkeys(runtime.FORMS, str), TYPES=lax)
