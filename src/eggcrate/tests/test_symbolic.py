"""How a setting is written at its place, by what stands around it."""

from __future__ import annotations

import re
import unittest
from collections.abc import Mapping

from eggcrate.config.symbolic import Symbol, format_of, placed
from eggcrate.errors import EggcrateError, SeveralErrors, TemplateError
from eggcrate.runtime import variables as runtime
from eggcrate.runtime.variables import Document, Piece, Setting

SETTINGS: dict[str, Setting] = {
    name: runtime.declaration(name, line, default)
    for name, line, default in (
        ("port", "port", "8080"),
        ("workers", "int min=1 max=64", "2"),
        ("gzip", "bool", "on"),
        ("body", "size", "10m"),
        ("wait", "duration", "30s"),
        ("host", "hostname", "localhost"),
        ("hosts", "hostnames", "localhost 127.0.0.1"),
        ("trusted", "cidrs", "127.0.0.1"),
        ("networks", "cidrs", "10.0.0.0/8 127.0.0.1"),
        ("media", "path", "/srv/media"),
        ("prefix", "urlpath", "/shop/"),
        ("site", "url", "https://shop.example"),
        ("name", "word", "shop"),
        ("level", "choices debug info", "info"),
        ("greeting", "text", "Hello"),
        ("title", "text", "Two words"),
        ("motto", "text", 'a "quoted" one'),
        ("needed", "text required", None),
    )
}


def symbols(text: str) -> list[str | Symbol]:
    """``@name`` in a text is a place."""
    pieces: list[str | Symbol] = []
    line = 1
    for part in re.split(r"(@[a-z]+)", text):
        if part.startswith("@"):
            pieces.append(Symbol(part[1:], line))
        elif part:
            pieces.append(part)
        line += part.count("\n")
    return pieces


def document(text: str, kind: str, settings: Mapping[str, Setting] = SETTINGS) -> Document:
    pieces = placed(symbols(text), kind, settings, lambda line: f"t.in, line {line}")
    return Document(f"/srv/{kind}.conf", 0o644, kind, pieces)


def forms(text: str, kind: str) -> list[str]:
    found = []
    for piece in document(text, kind).pieces:
        if isinstance(piece, Piece):
            found.append(f"first {piece.form}" if piece.first else piece.form)
    return found


def complaints(text: str, kind: str) -> list[str]:
    try:
        document(text, kind)
    except SeveralErrors as several:
        return [str(error).removeprefix("t.in, line ") for error in several.errors]
    except EggcrateError as error:
        return [str(error).removeprefix("t.in, line ")]
    return []


NGINX = (
    ("# @greeting; {\n", ["comment"]),
    ("listen @port;", ["word"]),
    ("listen 127.0.0.1:@port default_server;", ["word"]),
    ("gzip @gzip;", ["word"]),
    ("server_name @hosts;", ["word"]),
    ("server_name @host www.@host;", ["word", "word"]),
    ("return 200 @greeting;", ["nginx-quoted"]),
    ("return 200 @greeting ;", ["nginx-quoted"]),
    ('return 200 "@greeting";', ["nginx-double"]),
    ('return 200 "a \\" @greeting, @title";', ["nginx-double", "nginx-double"]),
    ("return 200 'a \" @title';", ["nginx-single"]),
    ("return 200 'it\\'s # @title'; # @title", ["nginx-single", "comment"]),
    ("add_header X \"@motto'\"; # '", None),
    ("  set_real_ip_from @trusted;\n", ["nginx-line"]),
    ("  allow @trusted; # ours\n", ["nginx-line"]),
    ("geo $x {\n  default 0;\n  @trusted 1;\n}", ["nginx-line"]),
    ("geo $x {\n  proxy @trusted;\n}", ["nginx-line"]),
    ("geo $x {\n  @trusted @port; # @title\n}", ["nginx-line", "word", "comment"]),
    ('add_header X "@trusted";', ["word"]),
    ('add_header X "@hosts";', ["word"]),
    ("map $host $x {\n  default 0;\n  @host 1;\n  x @host;\n}", ["nginx-key", "word"]),
    ("map $host $x {\n  @hosts 1;\n}", ["nginx-line"]),
    ('map $host $x {\n  a "@greeting";\n}', ["nginx-double"]),
    ("location @prefix {\n  alias @media/;\n}", ["word", "word"]),
    ("location = @prefix { }", ["word"]),
    ("return 301 @site$request_uri;", ["word"]),
    ("set $x ${host}@port;", ["word"]),
    ("set $x $host@prefix;", ["word"]),
    ("client_max_body_size @body; send_timeout @wait;", ["word", "word"]),
    ("server { listen @port; }", ["word"]),
)

NGINX_WRONG = (
    ("return 200 x@greeting;", "1: greeting is text, in a part of a word without quotes; put"),
    ("\n\n@host on;", "3: host stands where a directive's name is; write the name itself"),
    ("@host { }", "1: host stands where a block's name is; write the name itself"),
    ("x@port 1;", "1: port stands where a directive's name is; write the name itself"),
    ("@trusted on;", "1: trusted stands where a directive's name is; write the name itself"),
    ("include @greeting;", "1: greeting is text, which is too free for include; declare it as"),
    ('load_module "@greeting";', "1: greeting is text, which is too free for load_module"),
    ('root "@greeting";', "1: greeting is text, which is too free for root"),
    ('proxy_pass "http://@greeting";', "1: greeting is text, which is too free for proxy_pass"),
    ('ssl_certificate "@greeting";', "1: greeting is text, which is too free for ssl_cert"),
    ('proxy_temp_path "@greeting";', "1: greeting is text, which is too free for proxy_temp"),
    ('location "@greeting" { }', "1: greeting is text, which is too free for location"),
    ('if ($host = "@greeting") { }', "1: greeting is text, which is too free for if"),
    ("include @name;", "1: name is a word, and include would read any file that it names"),
    ("location @name { }", "1: name is a word, and location gives a meaning to its first"),
    ('auth_basic "@host";', "1: host is a hostname, and auth_basic off would let everybody"),
    (
        "listen @trusted;",
        "1: trusted is a list of networks, where there can be one at most; let",
    ),
    ("allow @trusted; deny all;", "1: trusted is a list whose line is repeated, and there is"),
    ("allow\n @trusted;", "2: trusted is a list whose line is repeated, and there is more on"),
    (
        "geo $x { @trusted 1; }",
        "1: trusted is a list whose line is repeated, and there is more",
    ),
    (
        "allow 1@trusted;",
        "1: trusted is a list of networks, where there can be one at most; let",
    ),
    (
        'allow "@trusted";',
        "1: trusted is a list of networks, where there can be one at most; let",
    ),
    (
        "return 301 http://@hosts;",
        "1: hosts is a list of hosts, where there can be one at most",
    ),
    ("return 301 @hosts;", "1: hosts is a list of hosts, where there can be one at most"),
    ('server_name "@hosts";', "1: hosts is a list of hosts, where there can be one at most"),
    ("map $host $x {\n  @greeting 1;\n}", "2: greeting is text, where a block has its keys"),
    ("set $x $@name;", "1: name would become part of a variable's name; put braces around"),
    ("set $x $host@port;", "1: port would become part of a variable's name; put braces around"),
    ("set $x ${@name};", "1: name would become part of a variable's name; put braces around"),
    ('set $x "\\@greeting";', "1: greeting stands after a backslash; remove the backslash"),
    ("return 200 @title;", "1: title has a default that is no single word; put quotes around"),
    (
        'return 200 "@motto";',
        "1: motto has a default with a quote or a backslash that would be",
    ),
    ("content_by_lua_block { x = @name; }", "1: name stands in a block of Lua; hand it over"),
    ("@nothing", "1: nothing is no runtime setting; declare it in the section of the runtime"),
)

CIRCUS = (
    ("# @greeting\n; @title\nrem @motto\n[circus]\n", ["comment"] * 3),
    ("[watcher:web]\nnumprocesses = @workers\n", ["word"]),
    ("[watcher:web]\ncmd = web ; @greeting\n", ["comment"]),
    ("[watcher:web]\ncmd = web @greeting\n", ["first circus-word"]),
    ("[watcher:web]\ncmd = web --title=@greeting\n", ["circus-word"]),
    ("[watcher:web]\ncmd = web\nargs = \"@title\" 'x @title'\n",
     ["first circus-double", "circus-single"]),
    ("[watcher:web]\ncmd = web\nargs = a\n  --title\n  @greeting\n", ["first circus-word"]),
    ("[watcher:web]\nargs = --host '@hosts' --from=\"@trusted\" @name @port -l@name\n",
     ["word", "word", "first word", "word", "word"]),
    ("[watcher:web]\ncmd = web\nnote = @title\n", ["circus-value"]),
    ("[watcher:web]\nargs = --bind fd://$(circus.sockets.web) --x (@port) \"@title\"\n",
     ["word", "first circus-double"]),
    ("[watcher:web]\ncmd = sh start.sh \"@title\"\n", ["first circus-double"]),
    ("[env]\nA = @title @motto\nB: @hosts\n", ["circus-env", "circus-env", "word"]),
    ("[env:web]\nA = x\n  # @title\n", ["circus-env"]),
    ("[socket:web]\nhost = @host\nport = @port\n", ["word", "word"]),
    ("[plugin:x]\nuse = x\nlevel = @level\n", ["word"]),
    # a shell would take & for the end of a command
    ("[watcher:web]\ncmd = web @site\n", ["word"]),
    ("[watcher:web]\ncmd = web @site\nshell = true\n", ["word"]),  # each word is quoted
    ("[watcher:web]\ncmd = sh -c \"web @site @port\"\n", ["shell", "word"]),
    ("[watcher:web]\ncmd = /bin/bash\nargs = -ec 'web @site'\n", ["shell"]),
    ("[env]\nA = @site\n[watcher:w]\ncmd = sh -c 'web $(circus.env.a)'\n", ["shell"]),
    ("[env]\nA = @site\n[watcher:w]\ncmd = web $(circus.env.a)\n", ["word"]),
)  # fmt: skip

CIRCUS_WRONG = (
    ("[watcher:@name]\n", "1: name stands in a section's name; write the name itself"),
    ("[env]\nX_@name = 1\n", "2: name stands in an option's name; write the name itself"),
    ("[env]\n@name\n", "2: name stands where no option is; write NAME = value in a section"),
    ("@name = 1\n[env]\n", "1: name stands where no option is; write NAME = value in a secti"),
    ("[watcher:w]\ncmd = web @hosts\n", "2: hosts is a list, which would be several words of"),
    ("[watcher:w]\ncmd = web -x=@trusted\n", "2: trusted is a list, which would be several"),
    ("[watcher:w]\ncmd = @greeting\n", "2: greeting is text, where the program's name is"),
    ("[watcher:w]\ncmd = \"/bin/@greeting\" x\n", "2: greeting is text, where the program's"),
    ("[watcher:w]\ncmd = sh -c \"echo @greeting\"\n", "2: greeting is text in the arguments"),
    ("[watcher:w]\nargs = -g 'x @title'\ncmd = /usr/sbin/nginx\n", "2: title is text in the"),
    ("[watcher:w]\ncmd = gosu web python3 -Ic '@greeting'\n", "2: greeting is text in the arg"),
    ("[watcher:w]\ncmd = web \\@greeting\n", "2: greeting stands after a backslash; remove"),
    ("[watcher:w]\ncmd = web @title\n", "2: title has a default that is no single word; put"),
    ("[watcher:w]\ncmd = web '@motto'\nargs = \"@motto\"\n", "3: motto has a default with a"),
    ("[watcher:w]\ncmd = web '@title' ; x\n", "2: title is text before a comment on the same"),
    ("[watcher:w]\nexecutable = @greeting\n", "2: greeting is text, which is too free for ex"),
    ("[circus]\ninclude = @greeting\n", "2: greeting is text, which is too free for include"),
    ("[watcher:w]\nhooks.before_start = @greeting\n", "2: greeting is text, which is too free"),
    ("[plugin:x]\nuse = x\nnote = @greeting\n", "3: greeting is text, which would tear a plu"),
    ("[watcher:w]\ncmd = web $(circus.env.@name)\n", "2: name stands in what Circus would ta"),
    ("[watcher:w]\ncmd = web $(@name)\n", "2: name stands in what Circus would take for a ref"),
    ("[watcher:w]\ncmd = web \"$(circus.@port)\"\n", "2: port stands in what Circus would ta"),
    ("[watcher:w]\ncmd = web \"@greeting(circus.wid)\"\n", "2: greeting is text before a bra"),
    ("[env]\nA = $@name\n", "2: name would become a variable's name after its $; remove the"),
    ("[env]\nA = @greeting\n[watcher:w]\ncmd = web $(circus.env.a)\n",
     "2: greeting is text, and $(circus.env.A) puts it into a command line; write the setting"),
)  # fmt: skip


class Places(unittest.TestCase):
    def test_what_stands_around_a_place_in_nginx(self) -> None:
        for text, wanted in NGINX:
            with self.subTest(text=text):
                if wanted is None:
                    self.assertEqual(len(complaints(text, "nginx")), 1)
                else:
                    self.assertEqual(forms(text, "nginx"), wanted)

    def test_what_stands_around_a_place_in_circus(self) -> None:
        for text, wanted in CIRCUS:
            with self.subTest(text=text):
                self.assertEqual(forms(text, "circus"), wanted)

    def test_where_no_setting_can_stand(self) -> None:
        for kind, cases in (("nginx", NGINX_WRONG), ("circus", CIRCUS_WRONG)):
            for text, wanted in cases:
                with self.subTest(text=text):
                    (complaint,) = complaints(text, kind)
                    self.assertEqual(complaint[: len(wanted)], wanted)
                    self.assertRegex(complaint, r"; [a-z]\w* ")

    def test_what_a_complaint_advises_is_no_next_one(self) -> None:
        declared = {
            name: runtime.declaration("x", line, default)
            for name, line, default in (
                *(("text", "text", "a"), ("path", "path", "/a"), ("url", "url", "http://a")),
                *(("hostname", "hostname", "a"), ("hostnames", "hostnames", "a b")),
                *(("word", "word", "a"), ("urlpath", "urlpath", "/a")),
                ("choices", "choices a b", "a"),
            )
        }
        for directive in (
            *("include", "load_module", "root", "pid", "error_log", "server_name", "listen"),
            *("location", "if", "auth_basic", "allow", "proxy_pass", "ssl_certificate"),
        ):
            end = " { }" if directive in ("location", "if") else ";"
            for place in ("@x", '"@x"', "a @x"):
                text = f"{directive} {place}{end}"
                for kind in ("text", "word"):
                    try:
                        document(text, "nginx", {"x": declared[kind]})
                    except TemplateError as error:
                        advised = re.sub("^declare it as ", "", error.hint)
                        for other in re.split(", | or ", advised):
                            if other == "hostnames" and '"' in text:
                                continue  # names stand side by side
                            with self.subTest(text, advised=other):
                                document(text, "nginx", {"x": declared[other]})

    def test_a_file_of_no_known_format_has_words_only(self) -> None:
        self.assertEqual(forms("port: @port, @hosts, @name", "plain"), ["word"] * 3)
        self.assertEqual(
            complaints("port: @port\n\n@greeting", "plain"),
            [
                "3: greeting is text, in a file whose format is not known; declare it as word, "
                "or as another type that needs no quotes"
            ],
        )

    def test_a_script_of_a_shell_has_no_url_that_begins_a_command(self) -> None:
        for text, form in (
            ("#!/bin/sh -e\nexec web @site\n", "shell"),
            ("#!/usr/bin/env bash\nexec web '@site'\n", "shell"),
            ("# read by .\nexport SITE=@site\n", "shell"),
            ("#!/usr/bin/python3\nsite = '@site'\n", "word"),
            ("site: @site\n", "word"),
        ):
            with self.subTest(text=text):
                self.assertEqual(forms(text, "plain"), [form])
        script = document("#!/bin/sh\nexec web @site\n", "plain")
        fine = {"site": "https://a.example/?b=1"}
        self.assertEqual(
            runtime.render(script, fine), "#!/bin/sh\nexec web " + fine["site"] + "\n"
        )
        with self.assertRaises(runtime.SettingsProblem) as caught:
            runtime.render(script, {"site": "https://a.example/&/tmp/evil"})
        self.assertEqual(
            caught.exception.problems, ("SITE can't have &, where /srv/plain.conf has it",)
        )

    def test_all_complaints_come_at_once(self) -> None:
        text = "include @greeting;\nx@port 1;\nreturn 200 '@greeting';\nlisten @trusted;\n"
        self.assertEqual([line[:2] for line in complaints(text, "nginx")], ["1:", "2:", "4:"])
        with self.assertRaises(SeveralErrors) as caught:
            document(text, "nginx")
        for error in caught.exception.errors:
            self.assertIsInstance(error, TemplateError)

    def test_a_configuration_has_no_nul(self) -> None:
        self.assertIn("has a NUL character", complaints("a\0 @port", "nginx")[0])

    def test_the_build_s_own_text_stays_with_the_place(self) -> None:
        pieces = placed(
            ["listen ", Symbol("port", 1, "08080"), ";"], "nginx", SETTINGS, lambda line: "t"
        )
        whole = Document("/t", 0o644, "nginx", pieces)
        self.assertEqual(runtime.render(whole, {}), "listen 08080;")
        self.assertEqual(runtime.render(whole, {"port": "8080"}), "listen 08080;")
        self.assertEqual(runtime.render(whole, {"port": "81"}), "listen 81;")

    def test_a_list_has_its_line_as_often_as_it_needs_it_with_the_default_too(self) -> None:
        text = "a;\n  allow @networks; # ours\ndeny all;\n"
        whole = document(text, "nginx")
        wanted = "a;\n  allow 10.0.0.0/8; # ours\n  allow 127.0.0.1; # ours\ndeny all;\n"
        self.assertEqual(runtime.render(whole, {}), wanted)
        self.assertEqual(runtime.render(whole, {"networks": "10.0.0.0/8 127.0.0.1"}), wanted)
        self.assertEqual(
            runtime.render(whole, {"networks": "::1"}), "a;\n  allow ::1; # ours\ndeny all;\n"
        )

    def test_a_list_of_several_lines_in_the_buildout_is_one_line(self) -> None:
        pieces = placed(
            ["[env]\nHOSTS = ", Symbol("hosts", 2, "localhost\n127.0.0.1"), "\n"],
            "circus",
            SETTINGS,
            lambda line: "t",
        )
        whole = Document("/t", 0o644, "circus", pieces)
        self.assertEqual(runtime.render(whole, {}), "[env]\nHOSTS = localhost 127.0.0.1\n")

    def test_one_that_is_required_has_no_default(self) -> None:
        (piece,) = (
            piece
            for piece in document("return 200 '@needed';", "nginx").pieces
            if isinstance(piece, Piece)
        )
        self.assertIsNone(piece.default)


class Formats(unittest.TestCase):
    def test_a_file_shows_what_it_is(self) -> None:
        for text, wanted in (
            ("; comment\n[circus]\ncheck_delay = 1\n", "circus"),
            ("[watcher:web]\ncmd = web\n", "circus"),
            ("events { }\nhttp {\n}\n", "nginx"),
            ("server {\n listen 80; }", "nginx"),
            ("upstream web {\n}\n", "nginx"),
            ("user www; http{}", "nginx"),
            ("# server {\nx = 1\n", "plain"),
            ("[server]\nx = 1\n", "plain"),
            ("server: {a: 1}\n", "plain"),
            ("", "plain"),
        ):
            with self.subTest(text=text):
                self.assertEqual(format_of(text), wanted)
