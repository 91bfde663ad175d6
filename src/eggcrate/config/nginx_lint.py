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

from eggcrate.config import nginx_requests, nginx_tree
from eggcrate.config.nginx_tree import (
    DATA,
    PASSES,
    VARIABLE,
    Directive,
    Site,
    count_groups,
    is_prefix,
    listen,
    listens,
    path_of,
    variables,
)
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError, TemplateError

# Every rule's id, and what it finds
RULES = {
    "structure": "braces, semicolons, arguments, and directives where they may not stand",
    "placeholder": "${NAME}, {{ name }} and the like, which nothing has replaced",
    "capture": "$1 and the like, where no regular expression sets them",
    "include-missing": "an include below the buildout's directory that leads to no file",
    "file-missing": "a certificate, password file or error page of the buildout that is absent",
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
    "header-injection": "decoded parts of the URI in a header or in a request",
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
_TEMPORARY = (
    "client_body_temp_path",
    "proxy_temp_path",
    "fastcgi_temp_path",
    "uwsgi_temp_path",
    "scgi_temp_path",
)
_LUA = re.compile(r"\w*_by_lua\w*|perl\w*|js_content")
_NOT_READY = re.compile(
    r"\$\{(?P<braces>[^}]*)\}|\$\((?:circus\.|env\.)?[A-Z_a-z][\w.]*\)|%\([a-z_A-Z]\w*\)[sdi]|"
    r"\{\{-?\s*[\w.][^{}]*\}\}|\{%[^{}]*%\}|<%.*?%>|\$(?P<bare>[A-Z][A-Z0-9_]+)\b"
)
# Directives in which nginx replaces no variables
_LITERAL = re.compile(
    r"listen|server_name|server|upstream|set_real_ip_from|include|pid|user|allow|"
    r"deny|worker_connections|worker_rlimit_nofile|client_max_body_size"
)
_WRITABLE = ("/dev", "/tmp", "/var/tmp", "/proc/self/fd")  # noqa: S108 (compared only)
_SYSTEM = re.compile(r"/|/(?:etc|etc/nginx|root|home|proc|sys|dev|var|usr|run)")
_FILES = re.compile(
    r"auth_basic_user_file|ssl_certificate|ssl_certificate_key|ssl_client_certificate|"
    r"ssl_trusted_certificate|ssl_dhparam|ssl_password_file|ssl_crl|ssl_stapling_file|"
    r"proxy_ssl_certificate|proxy_ssl_certificate_key|proxy_ssl_trusted_certificate"
)
_IPV6 = re.compile(r"\[[0-9a-f:.]+\]")  # as it stands in a Host header
_WEAK_CIPHER = re.compile(
    r"(?![!+-])(?:.*[-+])?(?:e?NULL|aNULL|EXP(?:ORT)?\d*|RC[24]|DES|MD5|ADH|AECDH|LOW)(?:[-+].*)?"
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
        site = Site(tree, output=output, directory=directory, run_directory=run_directory)
        broken = {_place(error) for error in tree.errors if "structure" not in ignored}
        for topic in (*_TOPICS, *nginx_requests.TOPICS):
            # what has swallowed the next line is wrong in other ways too
            found |= {str(one): one for one in topic(site) if _place(one) not in broken}
        order = site.order
    warnings: list[str] = []
    last = (len(order), 0)
    for error in sorted(found.values(), key=lambda one: order.get(_place(one), last)):
        match = _ID.search(error.what)
        rule = match[1] if match else ""
        if rule in ignored:
            continue
        if _WARNINGS.fullmatch(rule):
            warnings.append(str(error))
        else:
            errors.append(error)
    return errors, warnings


def _place(error: EggcrateError) -> str:
    match = re.match(r".*?, line \d+(?=: )", error.what)
    return match[0] if match else ""


def _placeholders(site: Site) -> Iterator[TemplateError]:
    defined = {
        name
        for one in site.everything
        for name in (
            *(one.args[:1] if re.search(r"set$", one.name) else ()),
            *(one.args[-1:] if one.name in DATA else ()),
        )
    }
    defined = {name.lstrip("$").lower() for name in defined}
    for one in site.everything:
        if _LUA.fullmatch(one.name):
            continue
        for index, word in enumerate((one.name, *one.args)):
            if "$" not in word and "{" not in word and "%" not in word:
                continue
            regex = _is_regex(one, index - 1)
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


def _is_regex(one: Directive, index: int) -> bool:
    """Whether an argument (-1 is the name) is a regular expression."""
    if one.parent is not None and one.parent.name in DATA:
        return index == -1 and one.name.startswith("~")
    if one.name == "location":
        return path_of(one)[0].startswith("~")
    if one.name == "rewrite":
        return index == 0
    if one.name == "if":
        return any("~" in word for word in one.args[max(index - 1, 0) : index])
    return index >= 0 and one.args[index].startswith("~")


def _captures(site: Site) -> Iterator[TemplateError]:
    for one in site.everything:
        if one.parent is None or _LUA.fullmatch(one.name) or one.name in DATA:
            continue
        for index, word in enumerate(one.args):
            numbers = re.findall(r"(?<!\\)\$\{?([1-9])", word)
            if not numbers or _is_regex(one, index):
                continue
            groups = _groups_for(site, one)
            if groups is not None and max(map(int, numbers)) > groups:
                yield TemplateError(
                    f"{one.at(index)}: ${max(numbers)} is empty, as no regular expression "
                    f"there has so many groups (capture)",
                    "correct the number, or make it a group, or add capture to ignore",
                )


def _groups_for(site: Site, one: Directive) -> int | None:
    """How many groups a directive can use, or None if nobody knows here."""
    assert one.parent is not None
    if one.parent.name in DATA:
        return count_groups(one.name) if one.name.startswith("~") else None
    if one.name == "rewrite":
        return count_groups(one.first)
    server = one.within("server")
    if server is None or server.parent is None or one.within("stream", "mail"):
        return None
    counts = [0]
    for block in one.up():
        if block.unread:
            return None
        if block.name == "location" and path_of(block)[0].startswith("~"):
            counts.append(count_groups(path_of(block)[1]))
        for other in (block, *(block.block or ())):
            if other.name in ("if", "rewrite", "server_name"):
                counts += [count_groups(word) for word in other.args]
            if other.parent is not None and other.block is None:
                for name in VARIABLE.findall(" ".join(other.args)):
                    if used := site.maps.get("$" + (name[0] or name[1])):
                        counts += [count_groups(entry.name) for entry in used.block or ()]
        if block is server:
            break
    return max(counts)


def _files(site: Site) -> Iterator[TemplateError]:
    for one in site.everything:
        path = one.first
        if not path or re.search(r"[$@]\{|\$|^(?:data|engine|store):", path):
            continue
        if one.name == "include" and len(one.args) == 1:
            if site.is_local(path) and not nginx_tree.matches(path, site.output.parent):
                yield TemplateError(
                    f"{one}: include {path} leads to no file (include-missing)",
                    f"write {_meant(site, path)}, or add include-missing to ignore",
                )
        elif _FILES.fullmatch(one.name) and path != "off" and site.is_missing(path):
            yield TemplateError(
                f"{one}: {one.name} {path} is not there (file-missing)",
                "write the file, or have a part make it first, or correct the path, or add "
                "file-missing to ignore",
            )
    yield from _error_pages(site)


def _error_pages(site: Site) -> Iterator[TemplateError]:
    """Error pages that are not there, so that nginx answers 404 instead of the error."""
    found: dict[Directive, str] = {}
    for one in site.of("error_page"):
        server = one.within("server")
        for block in [server] if server else site.of("server"):
            for location in block.below():
                if location.name == "location" and path_of(location) == ("=", one.last):
                    found[location] = one.last
    for location, uri in found.items():
        if location.all("try_files", "return", "rewrite", *nginx_tree.PASSES):
            continue
        alias = location.all("alias")
        roots, sure = site.effective(location, "root")
        if alias:
            path = alias[0].first
        elif roots and sure:
            path = roots[0].first.rstrip("/") + uri
        else:
            continue
        # one that is relative starts from nginx's own prefix
        if re.match(r"/[^$]*\Z", path) and "@{" not in path and site.is_missing(path):
            yield TemplateError(
                f"{location}: {path}, the page of {uri}, is not there, so the answer to an "
                f"error would be 404 (file-missing)",
                "write the file, or have a part make it first, or correct the path, or add "
                "file-missing to ignore",
            )


def _meant(site: Site, path: str) -> str:
    """What an include that leads to no file was meant to be."""
    name = os.path.basename(path)
    if re.search(r"^(?:mime\.types|\w+_params|fastcgi\.conf)$", name):
        return f"include /etc/nginx/{name}"
    above = (site.output.parent / path).parent
    beside = [one.name for one in above.iterdir()] if above.is_dir() else []
    if near := difflib.get_close_matches(name, beside, 1):
        return f"include {os.path.join(os.path.dirname(path), near[0])}"
    return "the file, or correct the path, which starts from the output's directory"


def _roots(site: Site) -> Iterator[TemplateError]:
    for one in site.of("alias", "root"):
        path, block = one.first, one.within("location")
        internal = block is not None and bool(block.all("internal"))
        if not path.startswith("/") and not path.startswith(("$", "@")):
            pass  # it starts from nginx's own prefix
        elif not internal and _exposes(site, path):
            yield TemplateError(
                f"{one}: {one.name} {path} serves what nobody should read (root-exposed)",
                "name the directory of the files that are to be served, or add "
                "root-exposed to ignore",
            )
        if block is None or one.parent is not block or not path:
            continue
        kind, prefix = path_of(block)
        if one.name == "root":
            end = prefix.strip("/")
            doubled = path.rstrip("/")
            if not is_prefix(block) or not end or not doubled.endswith(f"/{end}"):
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
        elif is_prefix(block) and prefix.endswith("/") and not path.endswith("/"):
            if not re.search(r"\$\{?\w+\}?$", path):
                yield TemplateError(
                    f"{one}: alias {path} has no slash at its end, but location {prefix} "
                    f"has: {prefix}x would be {path}x (alias-slash)",
                    f"write alias {path}/, or add alias-slash to ignore",
                )
        elif is_prefix(block) and path.endswith("/") and not prefix.endswith("/"):
            yield TemplateError(
                f"{one}: location {prefix} has no slash at its end, but alias {path} has: "
                f"{prefix}../x would be a file outside of it (alias-traversal)",
                f"write location {prefix}/, or add alias-traversal to ignore",
            )


def _exposes(site: Site, path: str) -> bool:
    if "$" in path or "@{" in path:
        return False
    normal = pathlib.Path(os.path.normpath(path))
    return _SYSTEM.fullmatch(str(normal)) is not None or site.directory.is_relative_to(normal)


def _locations(site: Site) -> Iterator[TemplateError]:
    for one in site.of("location"):
        kind, path = path_of(one)
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
                f"{one}: location {path} matches nothing, as no path begins so (location-path)",
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


def _names_of_locations(site: Site) -> Iterator[TemplateError]:
    for one in site.of("error_page", "try_files"):
        target = one.last if len(one.args) > 1 else ""
        if one.name == "try_files" and target and not re.match(r"[/=@$]", target):
            yield TemplateError(
                f"{one}: try_files ends with {target}, which begins with no slash, and "
                f"nginx would answer with an error (try-files)",
                f"write /{target}, or a code such as =404, or add try-files to ignore",
            )
        server = one.within("server")
        servers = [server] if server else site.of("server")
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


def _sizes_and_times(site: Site) -> Iterator[TemplateError]:
    for one in site.of("client_max_body_size"):
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
    for one in site.everything:
        if not one.name.endswith("_timeout") or one.name == "ssl_session_timeout":
            continue
        if one.first.isdigit() and int(one.first) > 86400:
            yield TemplateError(
                f"{one}: {one.name} {one.first} is more than a day, as it is in seconds "
                f"(timeout-units)",
                f"write {one.first}ms if milliseconds are meant, or add timeout-units to "
                f"ignore",
            )
    limits = site.tree.root.all("worker_rlimit_nofile")
    for one in site.everything:
        if one.name != "worker_connections" or not one.first.isdigit() or not limits:
            continue
        if limits[0].first.isdigit() and int(limits[0].first) < int(one.first):
            yield TemplateError(
                f"{limits[0]}: worker_rlimit_nofile {limits[0].first} is less than "
                f"worker_connections {one.first}, of which each needs a file or two "
                f"(nofile)",
                f"write at least {2 * int(one.first)}, or add nofile to ignore",
            )


def _unmapped(site: Site) -> Iterator[TemplateError]:
    for name, one in site.maps.items():
        entries = one.block or []
        if one.unread or any(
            entry.name in ("default", "include", "~", "~.", "~.*", "~*.*", "~^", "~^.*$")
            for entry in entries
        ):
            continue
        if user := next(_users(site, name.lstrip("$").lower()), None):
            yield TemplateError(
                f"{one}: the map of {name} has no default, so {user.name} of {user} would "
                f"get nothing for the rest (map-default)",
                "add a line with default, or add map-default to ignore",
            )


def _users(site: Site, name: str) -> Iterator[Directive]:
    """The directives that need a variable's value."""
    for one in site.of(*PASSES, "root", "alias", "return", "rewrite", "proxy_set_header"):
        if one.name == "proxy_set_header" and not re.fullmatch(
            r"host|connection|x-forwarded-\w+|x-real-ip", one.first.lower()
        ):
            continue
        if name not in variables(" ".join(one.args)):
            continue
        asked = (block for block in one.up() if block.name == "if")
        if not any(name in variables(" ".join(block.args)) for block in asked):
            yield one


def _servers(site: Site) -> Iterator[TemplateError]:
    taken: dict[tuple[str, str, str], Directive] = {}
    for server in site.of("server"):
        if server.within("upstream") or server.block is None:
            continue
        names = [(name.lower(), one) for one in server.all("server_name") for name in one.args]
        own: set[tuple[str, str, str]] = set()
        for name, one in names or ([] if server.unread else [("", server)]):
            if re.match(r"~|\$", name):
                continue
            for address, port in listens(server):
                if (address, port, name) in own or "$" in port + name or "{" in port + name:
                    continue
                own.add((address, port, name))
                first = taken.setdefault((address, port, name), one)
                if first is not one:
                    yield TemplateError(
                        f"{one}: {name or 'no name'} at {address}:{port} is already that "
                        f"of the server of {first}, and nginx never uses the second one "
                        f"(server-twice)",
                        "give the servers other names or ports, or add server-twice to ignore",
                    )
        for name, one in names:
            if "$" in name or "{" in name or name.startswith("~"):
                continue
            if re.search(r"[:/,\s;]", name) and not _IPV6.fullmatch(name):
                yield TemplateError(
                    f"{one}: server_name {name} is no host's name alone, and no request "
                    f"has such a one (server-name)",
                    "write the host's name, with spaces between several and no scheme, "
                    "port or path, or add server-name to ignore",
                )


def _tls(site: Site) -> Iterator[TemplateError]:
    secure: set[tuple[str, str]] = set()
    for one in site.of("listen"):
        if {"ssl", "quic"} & set(one.args):
            secure.add(listen(one))
    for one in site.of("listen"):
        server = one.within("server")
        old, _ = site.effective(server, "ssl")
        address, port = listen(one)
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
    for one in site.of("ssl_certificate"):
        server = one.parent
        if server is None or server.name != "server" or server.unread:
            continue
        if not server.all("ssl") and not secure & set(listens(server)):
            yield TemplateError(
                f"{one}: ssl_certificate is of no use, as the server listens without ssl "
                f"(ssl-unused)",
                "write ssl at the end of its listen, or remove the certificate, or add "
                "ssl-unused to ignore",
            )
    for one in site.everything:
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


def _logs(site: Site) -> Iterator[TemplateError]:
    for one in site.everything:
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
        default = "/dev/stdout" if one.name == "access_log" else "stderr"
        meant = f"/dev/{path}" if path in ("stdout", "stderr") else default
        yield TemplateError(
            f"{one}: {one.name} {path} is a file below the directory for which nginx was "
            f"built (log-path)",
            f"write {meant}, or add log-path to ignore",
        )


def _paths(site: Site) -> Iterator[TemplateError]:
    root = site.tree.root
    if any(one.name == "user" and one.parent is root for one in site.everything):
        return  # it is made for root
    for one in site.everything:
        if one.name not in ("access_log", "error_log", "pid", "lock_file", *_TEMPORARY):
            continue
        path = one.first
        if path.startswith("/") and "$" not in path and not _is_writable(site, path):
            yield TemplateError(
                f"{one}: {one.name} {path} is a place in which only root may write (root-path)",
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


def _is_writable(site: Site, path: str) -> bool:
    normal = pathlib.Path(os.path.normpath(path))
    places = (site.run_directory, site.directory, *_WRITABLE)
    return any(normal.is_relative_to(place) for place in places)


_TOPICS = (
    _placeholders,
    _captures,
    _files,
    _roots,
    _locations,
    _names_of_locations,
    _sizes_and_times,
    _unmapped,
    _servers,
    _tls,
    _logs,
    _paths,
)
