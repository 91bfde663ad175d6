"""What ``nginx -t`` accepts in silence, and what then breaks, leaks or lies.

nginx tests a text's grammar.  It doesn't know that a header is lost because a location sets
another one, that an alias without its slash serves the directory above, or that everybody may
say whose request it is.  Each of these mistakes has an id here, and is an error or, where it
may well be meant, a warning.  What another file could provide is no mistake: neither in a text
that is only a part of a configuration, nor where an include leads out of the buildout.
"""

from __future__ import annotations

import difflib
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator

from eggcrate.config import nginx_tree
from eggcrate.config.nginx_tree import DATA, Directive
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError, TemplateError

# Every rule's id, and what it finds
RULES = {
    "structure": "braces, semicolons, arguments, and directives where they may not stand",
    "placeholder": "${NAME}, {{ name }} and the like, which nothing has replaced",
    "capture": "$1 and the like, where no regular expression sets them",
    "include-missing": "an include below the buildout's directory that leads to no file",
    "file-missing": "a certificate or a password file of the buildout that is not there",
    "alias-traversal": "an alias with a final slash in a location without one",
    "alias-slash": "an alias without a final slash in a location with one",
    "alias-regex": "an alias that uses nothing of its location's regular expression",
    "root-doubled": "a root that ends with the location's path, which nginx appends again",
    "root-exposed": "a root or an alias that serves the system or the whole buildout",
    "location-path": "a location whose path is no path",
    "regex-dot": "a dot in a location's regular expression that is any character",
    "try-files": "a last argument of try_files that is no URI, name or code",
    "named-location": "a named location that does not exist",
    "proxy-host": "an application that does not learn which host was asked for",
    "proxy-proto": "an application that does not learn of HTTPS",
    "proxy-header-lost": "proxy_set_header that an inner block takes away from outer ones",
    "add-header-lost": "add_header that an inner block takes away from outer ones",
    "header-twice": "a header that is set twice in one block",
    "header-newline": "a header with the end of a line in it",
    "content-type-header": "add_header Content-Type, which makes a second one",
    "host-spoofed": "a Host header that is taken from what clients send",
    "forwarded-spoofed": "X-Forwarded-... passed on as clients send them",
    "trust-everybody": "set_real_ip_from with every address there is",
    "proxy-target-open": "a proxy that goes wherever the client wants",
    "proxy-slash": "a proxy_pass whose URI and location differ in their final slash",
    "upstream-name": "a name that is almost an upstream's",
    "upstream-unused": "an upstream that nobody uses",
    "upstream-keepalive": "keepalive in an upstream that is spoken to in HTTP/1.0",
    "resolver-missing": "a host name in a variable without a resolver to look it up",
    "websocket-connection": "Upgrade without Connection",
    "websocket-version": "Upgrade without HTTP/1.1",
    "body-unlimited": "client_max_body_size 0",
    "body-tiny": "client_max_body_size below a kilobyte",
    "map-default": "a map without a default whose variable has to have a value",
    "hsts-short": "Strict-Transport-Security for less than a year",
    "server-twice": "a name that two servers have at one address",
    "server-name": "a server name that no Host header can have",
    "listen-ssl": "port 443 without ssl, or port 80 with it",
    "ssl-unused": "a certificate in a server without HTTPS",
    "ssl-protocols": "protocols that are broken",
    "ssl-ciphers": "ciphers that are broken",
    "if-in-location": "directives that do not do in an if what they seem to",
    "header-injection": "decoded parts of the URI in a header of the response",
    "open-redirect": "a redirect to wherever the client wants",
    "allow-without-deny": "allow without deny, which allows all",
    "return-bypasses-allow": "a return that comes before allow, deny and passwords",
    "auth-basic": "auth_basic without its file, or the file without it: nobody is asked",
    "status-open": "stub_status for everybody",
    "error-log-off": "error_log off, which writes a file of that name",
    "log-path": "a log in a file whose path depends on how nginx was built",
    "root-path": "a path that only root can write to",
    "default-path": "paths that keep their defaults, which only root can write to",
    "nofile": "fewer files than connections",
    "timeout-units": "a timeout of more than a day without a unit",
}
_WARNINGS = re.compile(
    r"regex-dot|upstream-unused|upstream-keepalive|websocket-version|hsts-short|"
    r"root-path|default-path|timeout-units"
)

_ID = re.compile(r"\(([a-z-]+)\)\Z")
_YEAR = 31536000
_PASSES = ("proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass")
_BLOCKS = ("http", "server", "location", "if", "limit_except")
_TEMPORARY = (
    "client_body_temp_path",
    "proxy_temp_path",
    "fastcgi_temp_path",
    "uwsgi_temp_path",
    "scgi_temp_path",
)
_LUA = re.compile(r"\w*_by_lua\w*|perl\w*|js_content")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_TARGET = re.compile(
    r"(?:(?P<scheme>https?|grpcs?)://)?"
    r"(?P<host>unix:[^:]+|\[[^\]]*\]|[^/:?]*)(?::(?P<port>\d+|\$\w+)?)?(?P<uri>.*)",
    re.DOTALL,
)
_ADDRESS = re.compile(r"unix:.*|localhost|\[.*\]|\d+\.\d+\.\d+\.\d+")
_FORWARDED = re.compile(r"forwarded|x-(?:forwarded-|url-)?(?:proto(?:col)?|scheme|ssl|https)")
_NOT_READY = re.compile(
    r"\$\{(?P<braces>[^}]*)\}|\$\((?:circus\.|env\.)?[A-Z_a-z][\w.]*\)|%\([a-z_A-Z]\w*\)[sdi]|"
    r"\{\{-?\s*[\w.][^{}]*\}\}|\{%[^{}]*%\}|<%.*?%>|\$(?P<bare>[A-Z][A-Z0-9_]+)\b"
)
# Directives in which nginx replaces no variables
_LITERAL = re.compile(
    r"listen|server_name|server|upstream|set_real_ip_from|include|pid|user|allow|"
    r"deny|worker_connections|worker_rlimit_nofile|client_max_body_size"
)
# Where a second one means what it says
_REPEATABLE = re.compile(
    r"set-cookie|link|vary|cache-control|content-security-policy|server-timing|"
    r"www-authenticate|content-security-policy-report-only|permissions-policy|warning|"
    r"via|x-robots-tag"
)
_WRITABLE = ("/dev", "/tmp", "/var/tmp", "/proc/self/fd")  # noqa: S108 (compared only)
_SYSTEM = re.compile(r"/|/(?:etc|etc/nginx|root|home|proc|sys|dev|var|usr|run)")
_FILES = re.compile(
    r"auth_basic_user_file|ssl_certificate|ssl_certificate_key|ssl_client_certificate|"
    r"ssl_trusted_certificate|ssl_dhparam|ssl_password_file|ssl_crl|ssl_stapling_file|"
    r"proxy_ssl_certificate|proxy_ssl_certificate_key|proxy_ssl_trusted_certificate"
)
_WEAK_CIPHER = re.compile(
    r"(?![!+-])(?:.*[-+])?(?:e?NULL|aNULL|EXP(?:ORT)?\d*|RC[24]|DES|MD5|ADH|AECDH|LOW)(?:[-+].*)?"
)
_HARMLESS_IN_IF = re.compile(
    r"return|rewrite|set|break|limit_rate\w*|access_log|expires|rewrite_log|\w*_by_lua\w*|"
    r"more_\w+|uninitialized_variable_warn|default_type|error_page|include"
)


def complaints(
    rendered: Rendered,
    *,
    output: pathlib.Path,
    directory: pathlib.Path,
    run_directory: pathlib.Path,
    shown: Callable[[pathlib.Path], str],
    ignored: Collection[str] = (),
    nginx_missing: bool = False,
) -> tuple[list[EggcrateError], list[str]]:
    """The errors and the warnings about a configuration, in the order of its lines.

    ``output`` is where the text would stand: includes start from its directory.  Files are
    judged below ``directory``, the buildout's, and not in ``run_directory``, which is filled
    when the site starts.  ``shown`` gives an included file's name for messages.  ``ignored``
    has the ids of rules that don't count.  Where no nginx can be asked, ``nginx_missing``,
    directives that are almost known ones are mistakes too.
    """
    errors: list[EggcrateError] = []
    for name in ignored:
        if name not in RULES:
            near = difflib.get_close_matches(name, sorted(RULES), 1, 0.0)[0]
            errors.append(
                SettingsError(
                    f"ignore has {name!r}, which is the id of no rule",
                    f"write {near}, the nearest id there is, or remove it",
                )
            )
    tree = nginx_tree.read(
        rendered,
        output=output,
        directory=directory,
        shown=shown,
        nginx_missing=nginx_missing,
    )
    found: dict[str, TemplateError] = {str(error): error for error in tree.errors}
    order: dict[str, tuple[int, int]] = {}
    if tree.sound:
        lint = _Lint(tree, output, directory, run_directory)
        found |= {str(error): error for error in lint.complaints()}
        order = lint.order
    warnings: list[str] = []
    for error in sorted(found.values(), key=lambda one: _position(one, order)):
        match = _ID.search(error.what)
        rule = match[1] if match else ""
        if rule in ignored:
            continue
        if _WARNINGS.fullmatch(rule):
            warnings.append(str(error))
        else:
            errors.append(error)
    return errors, warnings


def _position(error: TemplateError, order: dict[str, tuple[int, int]]) -> tuple[int, int]:
    place = re.match(r".*?, line \d+(?=: )", error.what)
    return order.get(place[0] if place else "", (len(order), 0))


def _location(block: Directive) -> tuple[str, str]:
    """A location's modifier and its path, regular expression or name."""
    if len(block.args) > 1:
        return block.args[0], block.args[1]
    match = re.match(r"(=|\^~|~\*|~|)(.*)", block.first, re.DOTALL)
    assert match
    return match[1], match[2]


def _is_prefix(block: Directive | None) -> bool:
    return block is not None and block.name == "location" and _location(block)[0] in ("", "^~")


def _groups(expression: str) -> int:
    """How many groups of a regular expression capture."""
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", expression, flags=re.DOTALL)
    return len(re.findall(r"\((?!\?)|\(\?P?<(?![=!])|\(\?'", plain))


def _variables(text: str) -> set[str]:
    return {(one or other).lower() for one, other in _VARIABLE.findall(text)}


def _listen(directive: Directive) -> tuple[str, str]:
    """The address and the port that a server listens at."""
    word = directive.first
    if word.startswith("unix:"):
        return word, ""
    if word.isdigit():
        return "*", word
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.+))?", word)
    address, port = (match[1], match[2] or "80") if match else (word, "")
    return {"0.0.0.0": "*", "localhost": "127.0.0.1"}.get(address, address), port  # noqa: S104 (read, not bound)


def _listens(server: Directive) -> list[tuple[str, str]]:
    return [_listen(one) for one in server.all("listen")] or [("*", "80")]


def _near(name: str, names: Collection[str]) -> str:
    """The name that was surely meant, or nothing: web1 and web2 are names of their own."""
    near = difflib.get_close_matches(name, sorted(names), 1, 0.75)
    if near and re.sub(r"\d", "", near[0]) != re.sub(r"\d", "", name):
        return near[0]
    return ""


class _Lint:
    """The rules; each function has one topic and yields what is wrong about it."""

    def __init__(
        self,
        tree: nginx_tree.Tree,
        output: pathlib.Path,
        directory: pathlib.Path,
        run_directory: pathlib.Path,
    ) -> None:
        self._tree = tree
        self._output = output
        self._directory = directory
        self._run = run_directory
        self._everything = list(tree.root.below())
        self._by_name: dict[str, list[Directive]] = {}  # those of http
        self.order: dict[str, tuple[int, int]] = {}
        sources: dict[int, int] = {}
        outside = tree.context is not None and tree.context[:1] not in ((), ("http",))
        for one in self._everything:
            number = sources.setdefault(id(one.source), len(sources))
            for line in (one.line, *one.lines):
                self.order.setdefault(one.source.where(line), (number, line))
            if one.parent and one.parent.name in DATA:
                continue
            top = next((up.name for up in one.up() if up.name in nginx_tree.MAIN), "")
            if top in ("", "http") and not outside:
                self._by_name.setdefault(one.name, []).append(one)
        self._upstreams = {one.first: one for one in self._of("upstream")}
        self._maps = {one.args[1]: one for one in self._of("map") if len(one.args) == 2}

    def complaints(self) -> Iterator[TemplateError]:
        """All of them, in no order."""
        for topic in (
            self._placeholders,
            self._captures,
            self._files,
            self._roots,
            self._locations,
            self._names_of_locations,
            self._applications,
            self._lost_headers,
            self._headers,
            self._trust,
            self._targets,
            self._upstream_names,
            self._websockets,
            self._sizes_and_times,
            self._unmapped,
            self._servers,
            self._tls,
            self._ifs,
            self._redirects,
            self._access,
            self._logs,
            self._paths,
        ):
            yield from topic()

    # -- what the rules share -----------------------------------------------------------

    def _of(self, *names: str) -> list[Directive]:
        return [one for name in names for one in self._by_name.get(name, ())]

    def _effective(self, block: Directive | None, name: str) -> tuple[list[Directive], bool]:
        """The directives of a name that count in a block, and whether these are surely all.

        The directives of the nearest block that has any count, and no others.
        """
        while block is not None:
            if found := block.all(name):
                return found, not block.unread
            if block.unread:
                break
            if block.name == "http":
                return [], True
            block = block.parent
        return [], False

    def _is_local(self, path: str) -> bool:
        """Whether a path is the buildout's, and not made when the site starts."""
        normal = pathlib.Path(os.path.normpath(self._output.parent / path))
        return normal.is_relative_to(self._directory) and not normal.is_relative_to(self._run)

    def _is_missing(self, path: str) -> bool:
        return self._is_local(path) and not os.path.exists(self._output.parent / path)

    def _open_to_all(self, server: Directive | None) -> bool:
        if server is None:
            return False
        return any(
            not re.match(r"unix:|127\.|\[::1\]", address) for address, _ in _listens(server)
        )

    # -- what has been left over --------------------------------------------------------

    def _placeholders(self) -> Iterator[TemplateError]:
        defined = {
            name
            for one in self._everything
            for name in (
                *(one.args[:1] if re.search(r"set$", one.name) else ()),
                *(one.args[-1:] if one.name in DATA else ()),
            )
        }
        defined = {name.lstrip("$").lower() for name in defined}
        for one in self._everything:
            if _LUA.fullmatch(one.name):
                continue
            for index, word in enumerate((one.name, *one.args)):
                if "$" not in word and "{" not in word and "%" not in word:
                    continue
                regex = self._is_regex(one, index - 1)
                for match in _NOT_READY.finditer(word):
                    name = match["braces"] or match["bare"] or ""
                    if re.fullmatch(r"[a-z_]\w*|\d", name) or name.lower() in defined:
                        continue
                    if regex and match["bare"]:
                        continue
                    place = one.at(index - 1) if index else str(one)
                    yield TemplateError(
                        f"{place}: {match[0]} is left over, and nginx would take it as it is "
                        f"or for another variable (placeholder)",
                        "write the value or ${section:option} of your buildout, or add "
                        "placeholder to ignore",
                    )
                literal = _LITERAL.fullmatch(one.name) and (
                    one.parent is None or one.parent.name not in DATA
                )
                if not index or regex or not literal or word == "$hostname":
                    continue
                if unread := re.search(r"\$\{[a-z_]\w*\}|\$[a-z_]\w*", word):
                    yield TemplateError(
                        f"{one.at(index - 1)}: {unread[0]} is left over, as nginx replaces no "
                        f"variables in {one.name} (placeholder)",
                        "write the value or ${section:option} of your buildout, or add "
                        "placeholder to ignore",
                    )

    def _is_regex(self, one: Directive, index: int) -> bool:
        """Whether an argument (-1 is the name) is a regular expression."""
        if one.parent is not None and one.parent.name in DATA:
            return index == -1 and one.name.startswith("~")
        if one.name == "location":
            return _location(one)[0].startswith("~")
        if one.name == "rewrite":
            return index == 0
        if one.name == "if":
            return any("~" in word for word in one.args[max(index - 1, 0) : index])
        return index >= 0 and one.args[index].startswith("~")

    def _captures(self) -> Iterator[TemplateError]:
        for one in self._everything:
            if one.parent is None or _LUA.fullmatch(one.name) or one.name in DATA:
                continue
            for index, word in enumerate(one.args):
                numbers = re.findall(r"(?<!\\)\$\{?([1-9])", word)
                if not numbers or self._is_regex(one, index):
                    continue
                groups = self._groups_for(one)
                if groups is not None and max(map(int, numbers)) > groups:
                    yield TemplateError(
                        f"{one.at(index)}: ${max(numbers)} is empty, as no regular expression "
                        f"there has so many groups (capture)",
                        "correct the number, or make it a group, or add capture to ignore",
                    )

    def _groups_for(self, one: Directive) -> int | None:
        """How many groups a directive can use, or None if nobody knows here."""
        assert one.parent is not None
        if one.parent.name in DATA:
            return _groups(one.name) if one.name.startswith("~") else None
        if one.name == "rewrite":
            return _groups(one.first)
        server = one.within("server")
        if server is None or server.parent is None or one.within("stream", "mail"):
            return None
        counts = [0]
        for block in one.up():
            if block.unread:
                return None
            if block.name == "location" and _location(block)[0].startswith("~"):
                counts.append(_groups(_location(block)[1]))
            for other in (block, *(block.block or ())):
                if other.name in ("if", "rewrite", "server_name"):
                    counts += [_groups(word) for word in other.args]
                if other.parent is not None and other.block is None:
                    for name in _VARIABLE.findall(" ".join(other.args)):
                        if used := self._maps.get("$" + (name[0] or name[1])):
                            counts += [_groups(entry.name) for entry in used.block or ()]
            if block is server:
                break
        return max(counts)

    def _files(self) -> Iterator[TemplateError]:
        for one in self._everything:
            path = one.first
            if not path or re.search(r"[$@]\{|\$|^(?:data|engine|store):", path):
                continue
            if one.name == "include" and len(one.args) == 1:
                if self._is_local(path) and not nginx_tree.matches(path, self._output.parent):
                    yield TemplateError(
                        f"{one}: include {path} leads to no file (include-missing)",
                        f"write {self._meant(path)}, or add include-missing to ignore",
                    )
            elif _FILES.fullmatch(one.name) and path != "off" and self._is_missing(path):
                yield TemplateError(
                    f"{one}: {one.name} {path} is not there (file-missing)",
                    "write the file, or have a part make it first, or correct the path, or add "
                    "file-missing to ignore",
                )

    def _meant(self, path: str) -> str:
        """What an include that leads to no file was meant to be."""
        name = os.path.basename(path)
        if re.search(r"^(?:mime\.types|\w+_params|fastcgi\.conf)$", name):
            return f"include /etc/nginx/{name}"
        above = (self._output.parent / path).parent
        beside = [one.name for one in above.iterdir()] if above.is_dir() else []
        if near := difflib.get_close_matches(name, beside, 1):
            return f"include {os.path.join(os.path.dirname(path), near[0])}"
        return "the file, or correct the path, which starts from the output's directory"

    # -- locations ----------------------------------------------------------------------

    def _roots(self) -> Iterator[TemplateError]:
        for one in self._of("alias", "root"):
            path, block = one.first, one.within("location")
            internal = block is not None and bool(block.all("internal"))
            if not path.startswith("/") and not path.startswith(("$", "@")):
                pass  # it starts from nginx's own prefix
            elif not internal and self._exposes(path):
                yield TemplateError(
                    f"{one}: {one.name} {path} serves what nobody should read (root-exposed)",
                    "name the directory of the files that are to be served, or add "
                    "root-exposed to ignore",
                )
            if block is None or one.parent is not block or not path:
                continue
            kind, prefix = _location(block)
            if one.name == "root":
                end = prefix.strip("/")
                doubled = path.rstrip("/")
                if not _is_prefix(block) or not end or not doubled.endswith(f"/{end}"):
                    continue
                if not os.path.isdir(f"{doubled}/{end}"):
                    yield TemplateError(
                        f"{one}: root {path} ends with the location's path, which nginx "
                        f"appends again: {doubled}/{end} (root-doubled)",
                        "write alias, or the directory above it, or add root-doubled to ignore",
                    )
            elif kind.startswith("~"):
                name = path.rpartition("/")[2]
                if "$" not in path and "." not in name:
                    yield TemplateError(
                        f"{one}: alias {path} is the same for all that the location's regular "
                        f"expression matches (alias-regex)",
                        "end it with a group such as $1, or add alias-regex to ignore",
                    )
            elif _is_prefix(block) and prefix.endswith("/") and not path.endswith("/"):
                if not re.search(r"\$\{?\w+\}?$", path):
                    yield TemplateError(
                        f"{one}: alias {path} has no slash at its end, but location {prefix} "
                        f"has: {prefix}x would be {path}x (alias-slash)",
                        f"write alias {path}/, or add alias-slash to ignore",
                    )
            elif _is_prefix(block) and path.endswith("/") and not prefix.endswith("/"):
                yield TemplateError(
                    f"{one}: location {prefix} has no slash at its end, but alias {path} has: "
                    f"{prefix}../x would be a file outside of it (alias-traversal)",
                    f"write location {prefix}/, or add alias-traversal to ignore",
                )

    def _exposes(self, path: str) -> bool:
        if "$" in path or "@{" in path:
            return False
        normal = pathlib.Path(os.path.normpath(path))
        return _SYSTEM.fullmatch(str(normal)) is not None or self._directory.is_relative_to(
            normal
        )

    def _locations(self) -> Iterator[TemplateError]:
        for one in self._of("location"):
            kind, path = _location(one)
            if "@{" in path or "{{" in path or not path:
                continue
            if kind.startswith("~"):
                if re.match(r"\*?\.[\w(]", path):
                    yield TemplateError(
                        f"{one}: the dot in {path} stands for any character (regex-dot)",
                        r"write \. for a dot, or add regex-dot to ignore",
                    )
            elif path.startswith("@") and not kind:
                continue
            elif not path.startswith("/"):
                yield TemplateError(
                    f"{one}: location {path} matches nothing, as no path begins so "
                    f"(location-path)",
                    "begin it with /, or write location ~ before a regular expression, or add "
                    "location-path to ignore",
                )
            elif re.search(r"[*^|\\\[]|\.\+|\(.*\)|\$$", path):
                yield TemplateError(
                    f"{one}: location {path} is no regular expression without ~, and no path "
                    f"has these characters (location-path)",
                    "write location ~ before a regular expression, or the path's beginning "
                    "alone, or add location-path to ignore",
                )

    def _names_of_locations(self) -> Iterator[TemplateError]:
        for one in self._of("error_page", "try_files"):
            target = one.args[-1] if len(one.args) > 1 else ""
            if one.name == "try_files" and target and not re.match(r"[/=@$]", target):
                yield TemplateError(
                    f"{one}: try_files ends with {target}, which begins with no slash, and "
                    f"nginx would answer with an error (try-files)",
                    f"write /{target}, or a code such as =404, or add try-files to ignore",
                )
            server = one.within("server")
            servers = [server] if server else self._of("server")
            if not target.startswith("@") or "$" in target or "{" in target or not servers:
                continue
            if any(block.unread for block in (*servers, *one.up())):
                continue
            names = {
                block.first
                for other in servers
                for block in other.below()
                if block.block is not None
            }
            if target not in names:
                near = difflib.get_close_matches(
                    target, [name for name in names if name[:1] == "@"], 1
                )
                yield TemplateError(
                    f"{one}: {one.name} goes to {target}, but no location has this name "
                    f"(named-location)",
                    f"write {near[0] if near else 'location ' + target}, or add named-location "
                    f"to ignore",
                )

    # -- headers ------------------------------------------------------------------------

    def _target(self, one: Directive) -> re.Match[str]:
        match = _TARGET.fullmatch(one.first)
        assert match
        return match

    def _applications(self) -> Iterator[TemplateError]:
        for one in self._of("proxy_pass"):
            target = self._target(one)
            host = target["host"]
            if host not in self._upstreams and not _ADDRESS.fullmatch(host):
                continue
            found, sure = self._effective(one.parent, "proxy_set_header")
            names = {header.first.lower() for header in found}
            outer = self._outer_headers(found[0], "proxy_set_header") if found else {}
            location = one.within("location")
            internal = location is not None and bool(location.all("internal"))
            if sure and "host" not in names and "host" not in outer:
                yield TemplateError(
                    f"{one}: {host} is not told which host was asked for, as no "
                    f"proxy_set_header sets Host (proxy-host)",
                    "add proxy_set_header Host $host, or add proxy-host to ignore",
                )
            if target["scheme"] == "https" or internal or not sure:
                continue
            if not any(_FORWARDED.fullmatch(name) for name in (*names, *outer)):
                yield TemplateError(
                    f"{one}: {host} is not told of HTTPS, as no proxy_set_header sets "
                    f"X-Forwarded-Proto (proxy-proto)",
                    "add proxy_set_header X-Forwarded-Proto $scheme, or add proxy-proto to "
                    "ignore",
                )

    def _outer_headers(self, header: Directive, name: str) -> dict[str, Directive]:
        """The headers that blocks around a header's own block set for it in vain."""
        assert header.parent is not None
        found, _ = self._effective(header.parent.parent, name)
        return {other.first.lower(): other for other in found}

    def _lost_headers(self) -> Iterator[TemplateError]:
        for block in self._of(*_BLOCKS):
            if own := block.all("proxy_set_header"):
                if block.unread or not any(one.name == "proxy_pass" for one in block.below()):
                    continue
                lost = self._lost(own)
                if lost:
                    yield TemplateError(
                        f"{own[0]}: proxy_set_header {own[0].first} makes nginx forget all "
                        f"those of {lost[0]}, such as {lost[0].first} (proxy-header-lost)",
                        "repeat them here, or set all of them in one block, or add "
                        "proxy-header-lost to ignore",
                    )
            if own := block.all("add_header"):
                inherit, _ = self._effective(block, "add_header_inherit")
                if block.unread or any(one.first == "merge" for one in inherit):
                    continue
                lost = self._lost(own)
                if lost:
                    yield TemplateError(
                        f"{own[0]}: add_header {own[0].first} makes nginx forget all those of "
                        f"{lost[0]}, such as {lost[0].first} (add-header-lost)",
                        "repeat them here, or set all of them in one block with values from a "
                        "map, or add add-header-lost to ignore",
                    )

    def _lost(self, own: list[Directive]) -> list[Directive]:
        names = {one.first.lower() for one in own}
        outer = self._outer_headers(own[0], own[0].name)
        return [one for name, one in outer.items() if name not in names]

    def _headers(self) -> Iterator[TemplateError]:
        firsts: dict[tuple[int, str, str], Directive] = {}
        for one in self._of("proxy_set_header", "add_header", "grpc_set_header"):
            name = one.first.lower()
            first = firsts.setdefault((id(one.parent), one.name, name), one)
            if first is not one and not (
                one.name == "add_header" and _REPEATABLE.fullmatch(name)
            ):
                yield TemplateError(
                    f"{one}: {one.name} {one.first} stands there a second time, and both would "
                    f"be sent (header-twice)",
                    "remove one of the two, or add header-twice to ignore",
                )
            if any("\n" in word for word in one.args):
                yield TemplateError(
                    f"{one}: {one.name} {one.first} has the end of a line in its value, and "
                    f"what comes after it would be no header (header-newline)",
                    "write the value on one line, or add header-newline to ignore",
                )
            if one.name == "add_header" and name == "content-type":
                yield TemplateError(
                    f"{one}: add_header Content-Type adds a second one (content-type-header)",
                    "write default_type, or add content-type-header to ignore",
                )
            if one.name == "add_header" and name == "strict-transport-security":
                yield from self._hsts(one)

    def _hsts(self, one: Directive) -> Iterator[TemplateError]:
        values = [(one.at(1), one.args[1])] if len(one.args) > 1 else []
        for name in _VARIABLE.findall(values[0][1] if values else ""):
            if used := self._maps.get("$" + (name[0] or name[1])):
                values += [
                    (entry.at(0), entry.first) for entry in used.block or () if entry.args
                ]
        for place, value in values:
            match = re.search(r"max-age=\"?(\d+)", value, re.IGNORECASE)
            if match and 0 < int(match[1]) < _YEAR:
                yield TemplateError(
                    f"{place}: {match[0]} is less than a year, so browsers soon forget it "
                    f"(hsts-short)",
                    "write max-age=63072000 once all works, or add hsts-short to ignore",
                )

    def _trust(self) -> Iterator[TemplateError]:
        for one in self._of("set_real_ip_from"):
            if re.search(r"/0+$", one.first):
                yield TemplateError(
                    f"{one}: set_real_ip_from {one.first} lets everybody say whose address a "
                    f"request has (trust-everybody)",
                    "name the addresses of your proxy alone, or add trust-everybody to ignore",
                )
        for one in self._of("proxy_set_header", "grpc_set_header"):
            name, value = one.first.lower(), one.args[-1].lower()
            sent = {
                name
                for name in _variables(value)
                if name.startswith(("http_", "arg_", "cookie_"))
            }
            if name == "host" and sent - {"http_host"}:
                yield TemplateError(
                    f"{one}: Host is {one.args[-1]}, which every client can choose "
                    f"(host-spoofed)",
                    "write $host, or add host-spoofed to ignore",
                )
            header = "http_" + name.replace("-", "_")
            if re.match(r"x-forwarded-|x-real-ip$", name) and sent & {header}:
                yield TemplateError(
                    f"{one}: {one.first} is passed on as the client sent it, and everybody can "
                    f"send it (forwarded-spoofed)",
                    "write $scheme, $remote_addr or $host, or a map that asks whether the "
                    "proxy is yours, or add forwarded-spoofed to ignore",
                )

    # -- where requests go --------------------------------------------------------------

    def _targets(self) -> Iterator[TemplateError]:
        for one in self._of("proxy_pass"):
            target = self._target(one)
            host, uri = target["host"], target["uri"]
            location = one.within("location")
            internal = location is not None and bool(location.all("internal"))
            open_ones = [
                name
                for name in sorted(_variables(host))
                if re.match(r"(?:http|arg|cookie)_|\d$", name)
                or name in ("host", "uri", "document_uri", "request_uri", "args")
            ]
            if open_ones and target["scheme"] and not internal:
                yield TemplateError(
                    f"{one}: {one.first} goes wherever ${open_ones[0]} says, and the client "
                    f"chooses it (proxy-target-open)",
                    "name the host, or take it from a map, or add proxy-target-open to ignore",
                )
            if location is None or one.parent is not location or not _is_prefix(location):
                continue
            path = _location(location)[1]
            if not uri or re.search(r"[$?@]", one.first):
                continue
            if uri.endswith("/") != path.endswith("/"):
                yield TemplateError(
                    f"{one}: nginx puts {uri} in the place of {path}, so {path}"
                    f"{'x' if path.endswith('/') else '/x'} would become "
                    f"{uri}{'x' if path.endswith('/') else '/x'} (proxy-slash)",
                    "end both with a slash, or none, or add proxy-slash to ignore",
                )
        yield from self._resolvers()

    def _resolvers(self) -> Iterator[TemplateError]:
        set_to = {one.first: one for one in self._of("set") if len(one.args) == 2}
        for one in self._of("proxy_pass"):
            match = re.match(r"(?:https?://)?(\$\w+)", one.first)
            value = set_to.get(match[1]) if match else None
            if value is None or "$" in value.args[1] or value.within("if"):
                continue
            target = _TARGET.fullmatch(value.args[1])
            host = target["host"] if target else ""
            found, sure = self._effective(one.parent, "resolver")
            if found or not sure or host in self._upstreams or _ADDRESS.fullmatch(host):
                continue
            if host and "@{" not in host:
                yield TemplateError(
                    f"{one}: {host} comes from a variable, so nginx looks it up when a request "
                    f"comes, and has no resolver (resolver-missing)",
                    "add resolver with the address of a name server, or write the name into "
                    "proxy_pass, or add resolver-missing to ignore",
                )

    def _upstream_names(self) -> Iterator[TemplateError]:
        for one in self._of(*_PASSES):
            host = self._target(one)["host"]
            if not re.fullmatch(r"[\w-]+", host) or self._target(one)["port"]:
                continue
            if host in self._upstreams or host == "localhost":
                continue
            if near := _near(host, self._upstreams):
                yield TemplateError(
                    f"{one}: {host} is no upstream, and nginx would look for a host of this "
                    f"name (upstream-name)",
                    f"write {near}, or add upstream-name to ignore",
                )
        blocks = (*self._of(*_BLOCKS), self._tree.root)
        if not self._tree.whole or any(block.unread for block in blocks):
            return
        for name, one in self._upstreams.items():
            pattern = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
            if name and not any(
                pattern.search(word)
                for other in self._everything
                if other is not one and other.parent is not one
                for word in other.args
            ):
                yield TemplateError(
                    f"{one}: nobody uses upstream {name} (upstream-unused)",
                    "remove it, or add upstream-unused to ignore",
                )

    def _websockets(self) -> Iterator[TemplateError]:
        for one in self._of("proxy_pass"):
            headers, sure = self._effective(one.parent, "proxy_set_header")
            values = {header.first.lower(): header for header in headers}
            version, known = self._effective(one.parent, "proxy_http_version")
            old = version[0].first == "1.0" if version else known
            upgrade = values.get("upgrade")
            if upgrade is not None and upgrade.args[-1]:
                if sure and "connection" not in values:
                    yield TemplateError(
                        f"{upgrade}: Upgrade is passed on without Connection, so no WebSocket "
                        f"would open (websocket-connection)",
                        "add proxy_set_header Connection with a map of $http_upgrade, or add "
                        "websocket-connection to ignore",
                    )
                if old:
                    yield TemplateError(
                        f"{upgrade}: Upgrade is passed on in HTTP/1.0 by an nginx before "
                        f"1.29.7, and no WebSocket would open (websocket-version)",
                        "add proxy_http_version 1.1, or add websocket-version to ignore",
                    )
            elif old and (upstream := self._upstreams.get(self._target(one)["host"])):
                for kept in upstream.all("keepalive"):
                    yield TemplateError(
                        f"{kept}: keepalive has no effect on {one}, as an nginx before 1.29.7 "
                        f"would speak HTTP/1.0 there (upstream-keepalive)",
                        'add proxy_http_version 1.1 and proxy_set_header Connection "", or add '
                        "upstream-keepalive to ignore",
                    )

    # -- values -------------------------------------------------------------------------

    def _sizes_and_times(self) -> Iterator[TemplateError]:
        for one in self._of("client_max_body_size"):
            if re.fullmatch(r"0+[kKmMgG]?", one.first):
                yield TemplateError(
                    f"{one}: client_max_body_size 0 is no limit at all (body-unlimited)",
                    "write the largest upload that is allowed, such as 10m, or add "
                    "body-unlimited to ignore",
                )
            elif one.first.isdigit() and int(one.first) < 1024:
                yield TemplateError(
                    f"{one}: client_max_body_size {one.first} is {one.first} bytes (body-tiny)",
                    f"write the unit, such as {one.first}m, or add body-tiny to ignore",
                )
        for one in self._everything:
            if not one.name.endswith("_timeout") or one.name == "ssl_session_timeout":
                continue
            if one.first.isdigit() and int(one.first) > 86400:
                yield TemplateError(
                    f"{one}: {one.name} {one.first} is more than a day, as it is in seconds "
                    f"(timeout-units)",
                    f"write {one.first}ms if milliseconds are meant, or add timeout-units to "
                    f"ignore",
                )
        limits = self._tree.root.all("worker_rlimit_nofile")
        for one in self._everything:
            if one.name != "worker_connections" or not one.first.isdigit() or not limits:
                continue
            if limits[0].first.isdigit() and int(limits[0].first) < int(one.first):
                yield TemplateError(
                    f"{limits[0]}: worker_rlimit_nofile {limits[0].first} is less than "
                    f"worker_connections {one.first}, of which each needs a file or two "
                    f"(nofile)",
                    f"write at least {2 * int(one.first)}, or add nofile to ignore",
                )

    def _unmapped(self) -> Iterator[TemplateError]:
        for name, one in self._maps.items():
            entries = one.block or []
            if one.unread or any(
                entry.name in ("default", "include", "~", "~.", "~.*", "~*.*", "~^", "~^.*$")
                for entry in entries
            ):
                continue
            if user := next(self._users(name.lstrip("$").lower()), None):
                yield TemplateError(
                    f"{one}: the map of {name} has no default, so {user.name} of {user} would "
                    f"get nothing for the rest (map-default)",
                    "add a line with default, or add map-default to ignore",
                )

    def _users(self, name: str) -> Iterator[Directive]:
        """The directives that need a variable's value."""
        for one in self._of(*_PASSES, "root", "alias", "return", "rewrite", "proxy_set_header"):
            if one.name == "proxy_set_header" and not re.fullmatch(
                r"host|connection|x-forwarded-\w+|x-real-ip", one.first.lower()
            ):
                continue
            if name not in _variables(" ".join(one.args)):
                continue
            asked = (block for block in one.up() if block.name == "if")
            if not any(name in _variables(" ".join(block.args)) for block in asked):
                yield one

    # -- servers ------------------------------------------------------------------------

    def _servers(self) -> Iterator[TemplateError]:
        taken: dict[tuple[str, str, str], Directive] = {}
        for server in self._of("server"):
            if server.within("upstream") or server.block is None:
                continue
            names = [
                (name.lower(), one) for one in server.all("server_name") for name in one.args
            ]
            own: set[tuple[str, str, str]] = set()
            for name, one in names or ([] if server.unread else [("", server)]):
                if re.match(r"~|\$", name):
                    continue
                for address, port in _listens(server):
                    if (address, port, name) in own or "$" in port + name or "{" in port + name:
                        continue
                    own.add((address, port, name))
                    first = taken.setdefault((address, port, name), one)
                    if first is not one:
                        yield TemplateError(
                            f"{one}: {name or 'no name'} at {address}:{port} is already that "
                            f"of the server of {first}, and nginx never uses the second one "
                            f"(server-twice)",
                            "give the servers other names or ports, or add server-twice to "
                            "ignore",
                        )
            for name, one in names:
                if "$" in name or "{" in name or name.startswith("~"):
                    continue
                if re.search(r"[:/,\s;]", name):
                    yield TemplateError(
                        f"{one}: server_name {name} is no host's name alone, and no request "
                        f"has such a one (server-name)",
                        "write the host's name, with spaces between several and no scheme, "
                        "port or path, or add server-name to ignore",
                    )

    def _tls(self) -> Iterator[TemplateError]:
        secure: set[tuple[str, str]] = set()
        for one in self._of("listen"):
            if {"ssl", "quic"} & set(one.args):
                secure.add(_listen(one))
        for one in self._of("listen"):
            server = one.within("server")
            old, _ = self._effective(server, "ssl")
            address, port = _listen(one)
            if port == "443" and (address, port) not in secure and not old:
                yield TemplateError(
                    f"{one}: port 443 without ssl would speak plain HTTP (listen-ssl)",
                    f"write listen {one.first} ssl, or add listen-ssl to ignore",
                )
            elif port == "80" and "ssl" in one.args:
                yield TemplateError(
                    f"{one}: port 80 with ssl would refuse plain HTTP (listen-ssl)",
                    "leave out ssl, or listen at port 443, or add listen-ssl to ignore",
                )
        for one in self._of("ssl_certificate"):
            server = one.parent
            if server is None or server.name != "server" or server.unread:
                continue
            if not server.all("ssl") and not secure & set(_listens(server)):
                yield TemplateError(
                    f"{one}: ssl_certificate is of no use, as the server listens without ssl "
                    f"(ssl-unused)",
                    "write ssl at the end of its listen, or remove the certificate, or add "
                    "ssl-unused to ignore",
                )
        for one in self._everything:
            if one.name == "ssl_protocols":
                weak = [name for name in one.args if name not in ("TLSv1.2", "TLSv1.3")]
                if weak and "$" not in weak[0] and "{" not in weak[0]:
                    yield TemplateError(
                        f"{one}: ssl_protocols has {weak[0]}, which is no longer safe "
                        f"(ssl-protocols)",
                        "write ssl_protocols TLSv1.2 TLSv1.3, or add ssl-protocols to ignore",
                    )
            elif one.name == "ssl_ciphers":
                names = re.split(r"[:, ]+", " ".join(one.args))
                weak = [name for name in names if _WEAK_CIPHER.fullmatch(name)]
                if weak:
                    yield TemplateError(
                        f"{one}: ssl_ciphers has {weak[0]}, which is broken (ssl-ciphers)",
                        "remove it, or write HIGH:!aNULL:!MD5, or add ssl-ciphers to ignore",
                    )

    # -- requests -----------------------------------------------------------------------

    def _ifs(self) -> Iterator[TemplateError]:
        for block in self._of("if"):
            children = block.block or []
            ends = any(
                one.name == "return"
                or (one.name == "rewrite" and one.args[-1] in ("last", "redirect", "permanent"))
                for one in children
            )
            if ends or block.parent is None or block.parent.name != "location":
                continue
            for one in children:
                if not _HARMLESS_IN_IF.fullmatch(one.name):
                    yield TemplateError(
                        f"{one}: {one.name} in an if of a location makes nginx forget other "
                        f"directives of the location (if-in-location)",
                        "take its value from a map, or have the if return, rewrite or set, or "
                        "add if-in-location to ignore",
                    )

    def _redirects(self) -> Iterator[TemplateError]:
        for one in self._of("return", "rewrite", "add_header"):
            if not one.args:
                continue
            value = one.args[-1]
            if one.name == "return":
                if len(one.args) > 1 and not re.fullmatch(r"30[12378]", one.first):
                    continue
            elif one.name == "rewrite":
                if len(one.args) < 2:
                    continue
                value = one.args[1]
                if not re.match(r"https?://|\$scheme", value) and one.args[-1] not in (
                    "redirect",
                    "permanent",
                ):
                    continue
            else:
                value = one.args[1] if len(one.args) > 1 else ""
            decoded: list[str] = [
                name for name in ("uri", "document_uri") if name in _variables(value)
            ]
            decoded += self._decoded_groups(one, value) if one.name == "return" else []
            if decoded:
                yield TemplateError(
                    f"{one}: ${decoded[0]} is decoded, so %0d%0a in a URI would begin a header "
                    f"of the client's own (header-injection)",
                    "write $request_uri, or a group that matches no end of a line, or add "
                    "header-injection to ignore",
                )
            target = re.match(r"(?:https?:/+|\$scheme:/+|//)?\$\{?(\w+)", value)
            if one.name == "add_header" or target is None:
                continue
            if re.match(r"arg_|cookie_|http_(?!host$)", target[1].lower()):
                yield TemplateError(
                    f"{one}: the redirect goes wherever ${target[1]} says, and the client "
                    f"chooses it (open-redirect)",
                    "begin it with the site's own name, or take it from a map, or add "
                    "open-redirect to ignore",
                )

    def _decoded_groups(self, one: Directive, value: str) -> list[str]:
        """The groups of the location in a value that can match the end of a line."""
        block = one.within("location")
        if block is None or not _location(block)[0].startswith("~") or one.within("if"):
            return []
        expression = _location(block)[1]
        if not re.search(r"\[\^(?:(?!\\[nrs])[^\]])*\]", expression) or not _groups(expression):
            return []
        named = set(re.findall(r"\(\?P?<(\w+)>", expression))
        return [
            name for name in sorted(_variables(value)) if name in named or name in "123456789"
        ]

    def _access(self) -> Iterator[TemplateError]:
        blocks = {id(one.parent): one.parent for one in self._of("allow", "deny", "auth_basic")}
        for block in filter(None, blocks.values()):
            allows, denies, returns = block.all("allow"), block.all("deny"), block.all("return")
            satisfy, _ = self._effective(block, "satisfy")
            sure = not block.unread and not any(one.first == "any" for one in satisfy)
            if sure and allows and not denies and all(one.first != "all" for one in allows):
                yield TemplateError(
                    f"{allows[0]}: allow without deny allows all others too "
                    f"(allow-without-deny)",
                    "add deny all after it, or add allow-without-deny to ignore",
                )
            passwords = [one for one in block.all("auth_basic") if one.first != "off"]
            asked = [*allows, *denies, *passwords]
            if asked and any(not re.fullmatch(r"4\d\d", one.first) for one in returns):
                yield TemplateError(
                    f"{returns[0]}: return answers before {asked[0].name} is looked at "
                    f"(return-bypasses-allow)",
                    "answer with a file or try_files, or add return-bypasses-allow to ignore",
                )
        for one in self._of("auth_basic", "auth_basic_user_file"):
            other = {"auth_basic": "auth_basic_user_file"}.get(one.name, "auth_basic")
            found, sure = self._effective(one.parent, other)
            below = one.parent.below() if one.parent else ()
            if (
                found
                or not sure
                or one.first == "off"
                or any(two.name == other for two in below)
            ):
                continue
            yield TemplateError(
                f"{one}: {one.name} asks nobody for a password without {other} (auth-basic)",
                f"add {other}, or add auth-basic to ignore",
            )
        for one in self._of("stub_status"):
            if not self._open_to_all(one.within("server")):
                continue
            limits = [
                self._effective(one.parent, name)
                for name in ("allow", "deny", "auth_basic", "auth_request")
            ]
            if all(not found and sure for found, sure in limits):
                yield TemplateError(
                    f"{one}: everybody can read stub_status (status-open)",
                    "add allow with the addresses that may, and deny all, or add status-open "
                    "to ignore",
                )

    # -- what nginx writes --------------------------------------------------------------

    def _logs(self) -> Iterator[TemplateError]:
        for one in self._everything:
            path = one.first
            if one.name == "error_log" and path == "off":
                yield TemplateError(
                    f"{one}: error_log off writes a file with the name off (error-log-off)",
                    "write error_log stderr crit, or error_log /dev/null, or add "
                    "error-log-off to ignore",
                )
                continue
            if one.name not in ("access_log", "error_log") or not path:
                continue
            special = ("off",) if one.name == "access_log" else ("stderr",)
            if path in special or re.match(r"/|syslog:|memory:|\$|@\{|\{\{|<%|%\(", path):
                continue
            meant = f"/dev/{path}" if path in ("stdout", "stderr") else "/dev/stdout"
            yield TemplateError(
                f"{one}: {one.name} {path} is a file below the directory for which nginx was "
                f"built (log-path)",
                f"write {meant}, or add log-path to ignore",
            )

    def _paths(self) -> Iterator[TemplateError]:
        root = self._tree.root
        if any(one.name == "user" and one.parent is root for one in self._everything):
            return  # it is made for root
        for one in self._everything:
            if one.name not in ("access_log", "error_log", "pid", "lock_file", *_TEMPORARY):
                continue
            path = one.first
            if path.startswith("/") and "$" not in path and not self._is_writable(path):
                yield TemplateError(
                    f"{one}: {one.name} {path} is a place in which only root may write "
                    f"(root-path)",
                    "write a path in the run directory, or /dev/stdout for a log, or add "
                    "root-path to ignore",
                )
        http = next((one for one in root.all("http")), None)
        if http is None or not http.all("server"):
            return
        if root.unread or http.unread:
            return
        missing = [] if root.all("pid") else ["pid"]
        missing += [name for name in _TEMPORARY if not http.all(name)]
        if not any(one.name == "access_log" for one in http.below()):
            missing.append("access_log")
        if missing:
            yield TemplateError(
                f"{http}: there is no {', '.join(missing)}, and only root may write where "
                f"nginx writes by default (default-path)",
                "write paths in the run directory, and access_log /dev/stdout, or add "
                "default-path to ignore",
            )

    def _is_writable(self, path: str) -> bool:
        normal = pathlib.Path(os.path.normpath(path))
        places = (self._run, self._directory, *_WRITABLE)
        return any(normal.is_relative_to(place) for place in places)
