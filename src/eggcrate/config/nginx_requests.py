"""What ``nginx -t`` accepts in silence about requests: headers, proxies, redirects, access.

The rules are those of :data:`eggcrate.config.nginx_lint.RULES`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator

from eggcrate.config.nginx_tree import (
    PASSES,
    VARIABLE,
    Directive,
    Site,
    count_groups,
    is_prefix,
    listens,
    path_of,
    variables,
)
from eggcrate.errors import TemplateError

_YEAR = 31536000
_SHORT = 120  # characters of a constant answer, such as that of a health check
_BLOCKS = ("http", "server", "location", "if", "limit_except")
_TARGET = re.compile(
    r"(?:(?P<scheme>https?|grpcs?)://)?"
    r"(?P<host>unix:[^:]+|\[[^\]]*\]|[^/:?]*)(?::(?P<port>\d+|\$\w+)?)?(?P<uri>.*)",
    re.DOTALL,
)
_VIRTUAL_HOST = "/VirtualHostBase/"
_ADDRESS = re.compile(r"unix:.*|localhost|\[.*\]|\d+\.\d+\.\d+\.\d+")
# Who is connected, and to what
_CONNECTED = re.compile(
    r"(?:realip_)?remote_addr|binary_remote_addr|server_(?:addr|port)|ssl_client_\w+|"
    r"proxy_protocol_(?:server_)?addr"
)
_HOST = re.compile(r"host|forwarded|x-(?:forwarded|original)-host")
_FORWARDED = re.compile(r"forwarded|x-(?:forwarded-|url-)?(?:proto(?:col)?|scheme|ssl|https)")
# Where a second one means what it says
_REPEATABLE = re.compile(
    r"set-cookie|link|vary|cache-control|content-security-policy|server-timing|"
    r"www-authenticate|content-security-policy-report-only|permissions-policy|warning|"
    r"via|x-robots-tag"
)
_EQUALS = re.compile(r"\(? *(\$\w+) = (.*?) *\)?")
_HARMLESS_IN_IF = re.compile(
    r"return|rewrite|set|break|limit_rate\w*|access_log|expires|rewrite_log|\w*_by_lua\w*|"
    r"more_\w+|uninitialized_variable_warn|default_type|error_page|include"
)


def _near(name: str, names: Collection[str]) -> str:
    """The name that was surely meant, or nothing: web1 and web2 are names of their own."""
    near = difflib.get_close_matches(name, sorted(names), 1, 0.75)
    if near and re.sub(r"\d", "", near[0]) != re.sub(r"\d", "", name):
        return near[0]
    return ""


def _open_to_all(server: Directive | None) -> bool:
    if server is None:
        return False
    return any(not re.match(r"unix:|127\.|\[::1\]", address) for address, _ in listens(server))


def _target(one: Directive) -> re.Match[str]:
    match = _TARGET.fullmatch(one.first)
    assert match
    return match


def _applications(site: Site) -> Iterator[TemplateError]:
    for one in site.of("proxy_pass"):
        target = _target(one)
        host = target["host"]
        if host not in site.upstreams and not _ADDRESS.fullmatch(host):
            continue
        found, sure = site.effective(one.parent, "proxy_set_header")
        names = {header.first.lower() for header in found}
        outer = _outer_headers(site, found[0], "proxy_set_header") if found else {}
        location = one.within("location")
        internal = location is not None and bool(location.all("internal"))
        if _tells_in_the_path(one) or (location is not None and _only_asks(site, location)):
            continue
        if sure and not any(_HOST.fullmatch(name) for name in (*names, *outer)):
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
                "add proxy_set_header X-Forwarded-Proto $scheme, or add proxy-proto to ignore",
            )


def _tells_in_the_path(one: Directive) -> bool:
    """Whether the path has the scheme and the host, as Zope's VirtualHostMonster reads them."""
    if _VIRTUAL_HOST in one.first:
        return True
    for block in one.up():
        below = block.below() if block.name == "location" else block.block or ()
        if any(
            _VIRTUAL_HOST in word
            for other in below
            if other.name in ("rewrite", "set")
            for word in other.args
        ):
            return True
    return False


def _only_asks(site: Site, location: Directive) -> bool:
    """Whether it is where auth_request asks if a request may pass, and no application."""
    path = path_of(location)[1]
    return any(ask.first == path for ask in site.of("auth_request")) and bool(
        location.all("internal", "proxy_pass_request_body")
    )


def _outer_headers(site: Site, header: Directive, name: str) -> dict[str, Directive]:
    """The headers that blocks around a header's own block set for it in vain."""
    assert header.parent is not None
    found, _ = site.effective(header.parent.parent, name)
    return {other.first.lower(): other for other in found}


def _lost_headers(site: Site) -> Iterator[TemplateError]:
    for block in site.of(*_BLOCKS):
        if own := block.all("proxy_set_header"):
            if block.unread or not any(one.name == "proxy_pass" for one in block.below()):
                continue
            lost = _lost(site, own)
            if lost:
                yield TemplateError(
                    f"{own[0]}: proxy_set_header {own[0].first} makes nginx forget all "
                    f"those of {lost[0]}, such as {lost[0].first} (proxy-header-lost)",
                    "repeat them here, or set all of them in one block, or add "
                    "proxy-header-lost to ignore",
                )
        if own := block.all("add_header"):
            inherit, _ = site.effective(block, "add_header_inherit")
            if block.unread or any(one.first == "merge" for one in inherit):
                continue
            lost = _lost(site, own)
            if lost:
                yield TemplateError(
                    f"{own[0]}: add_header {own[0].first} makes nginx forget all those of "
                    f"{lost[0]}, such as {lost[0].first} (add-header-lost)",
                    "repeat them here, or set all of them in one block with values from a "
                    "map, or add add-header-lost to ignore",
                )


def _lost(site: Site, own: list[Directive]) -> list[Directive]:
    names = {one.first.lower() for one in own}
    outer = _outer_headers(site, own[0], own[0].name)
    return [one for name, one in outer.items() if name not in names]


def _headers(site: Site) -> Iterator[TemplateError]:
    firsts: dict[tuple[int, str, str], Directive] = {}
    for one in site.of("proxy_set_header", "add_header", "grpc_set_header"):
        name = one.first.lower()
        first = firsts.setdefault((id(one.parent), one.name, name), one)
        if first is not one and not (one.name == "add_header" and _REPEATABLE.fullmatch(name)):
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
        if one.name == "add_header" and name == "content-type" and _has_a_type(site, one):
            yield TemplateError(
                f"{one}: add_header Content-Type adds a second one (content-type-header)",
                "write default_type, or add content-type-header to ignore",
            )
        if one.name == "add_header" and name == "strict-transport-security":
            yield from _hsts(site, one)


def _has_a_type(site: Site, one: Directive) -> bool:
    """Whether nginx sends a Content-Type beside the one of an add_header."""
    assert one.parent is not None
    if any(other.first == "204" for other in one.parent.all("return")):
        return False
    default, _ = site.effective(one.parent, "default_type")
    types, _ = site.effective(one.parent, "types")
    untyped = one.parent.all("return") or (types and not types[0].block)
    if default and not default[0].first and untyped:
        return False
    hidden = (
        other.first.lower()
        for name in PASSES
        for other in site.effective(one.parent, name.replace("_pass", "_hide_header"))[0]
    )
    return "content-type" not in hidden


def _hsts(site: Site, one: Directive) -> Iterator[TemplateError]:
    values = [(one.at(1), one.args[1])] if len(one.args) > 1 else []
    for name in VARIABLE.findall(values[0][1] if values else ""):
        if used := site.maps.get("$" + (name[0] or name[1])):
            values += [(entry.at(0), entry.first) for entry in used.block or () if entry.args]
    for place, value in values:
        match = re.search(r"max-age=\"?(\d+)", value, re.IGNORECASE)
        if match and 0 < int(match[1]) < _YEAR:
            yield TemplateError(
                f"{place}: {match[0]} is less than a year, so browsers soon forget it "
                f"(hsts-short)",
                "write max-age=63072000 once all works, or add hsts-short to ignore",
            )


def _trust(site: Site) -> Iterator[TemplateError]:
    for one in site.of("set_real_ip_from"):
        if re.search(r"/0+$", one.first):
            yield TemplateError(
                f"{one}: set_real_ip_from {one.first} lets everybody say whose address a "
                f"request has (trust-everybody)",
                "name the addresses of your proxy alone, or add trust-everybody to ignore",
            )
    for one in site.of("proxy_set_header", "grpc_set_header"):
        name = one.first.lower()
        if name == "host" and _sent(site, one, "") - {"http_host"}:
            yield TemplateError(
                f"{one}: Host is {one.last}, which every client can choose (host-spoofed)",
                "write $host, or add host-spoofed to ignore",
            )
        header = "http_" + name.replace("-", "_")
        if re.match(r"x-forwarded-|x-real-ip$", name) and header in _sent(site, one, header):
            yield TemplateError(
                f"{one}: {one.first} is passed on as the client sent it, and everybody can "
                f"send it (forwarded-spoofed)",
                "write $scheme, $remote_addr or $host, or a map that asks whether the "
                "proxy is yours, or add forwarded-spoofed to ignore",
            )


def _sent(site: Site, one: Directive, header: str) -> set[str]:
    """The variables with what clients send of which a value is made, also by maps and set.

    A map of nothing but ``header`` is the header, whatever its values.
    """
    found: set[str] = set()
    seen: set[str] = set()
    left = variables(one.last)
    while left - seen:
        name = (left - seen).pop()
        seen.add(name)
        if name.startswith(("http_", "arg_", "cookie_")):
            found.add(name)
        elif (used := site.maps.get("$" + name)) and not _knows_the_client(site, used.first):
            if header and variables(used.first) == {header}:
                found.add(header)
            left |= variables(" ".join(entry.last for entry in used.block or ()))
        for other in site.of("set"):
            if other.first.lower() != f"${name}" or not _same_server(one, other):
                continue
            asked = other.within("if")
            if asked is None or not _knows_the_client(site, " ".join(asked.args)):
                left |= variables(other.last)
    return found


def _same_server(one: Directive, other: Directive) -> bool:
    servers = (one.within("server"), other.within("server"))
    return None in servers or servers[0] is servers[1]


def _knows_the_client(site: Site, text: str) -> bool:
    """Whether variables say who is connected, which nobody chooses."""
    known = {one.last.lower() for one in site.of("geo")}
    left, seen = variables(text), set[str]()
    while left - seen:
        name = (left - seen).pop()
        seen.add(name)
        if f"${name}" in known or _CONNECTED.fullmatch(name):
            return True
        if used := site.maps.get("$" + name):
            left |= variables(used.first)
    return False


def _targets(site: Site) -> Iterator[TemplateError]:
    for one in site.of("proxy_pass"):
        target = _target(one)
        host, uri = target["host"], target["uri"]
        location = one.within("location")
        internal = location is not None and bool(location.all("internal"))
        open_ones = [
            name
            for name in sorted(variables(host))
            if re.match(r"(?:http|arg|cookie)_|\d$", name)
            or name in ("host", "args")
            or (name in ("uri", "document_uri", "request_uri") and host[:1] == "$")
        ]
        if open_ones and target["scheme"] and not internal:
            yield TemplateError(
                f"{one}: {one.first} goes wherever ${open_ones[0]} says, and the client "
                f"chooses it (proxy-target-open)",
                "name the host, or take it from a map, or add proxy-target-open to ignore",
            )
        if location is None or one.parent is not location or not is_prefix(location):
            continue
        path = path_of(location)[1]
        if not uri or re.search(r"[$?@]", one.first):
            continue
        if uri.endswith("/") != path.endswith("/"):
            yield TemplateError(
                f"{one}: nginx puts {uri} in the place of {path}, so {path}"
                f"{'x' if path.endswith('/') else '/x'} would become "
                f"{uri}{'x' if path.endswith('/') else '/x'} (proxy-slash)",
                "end both with a slash, or none, or add proxy-slash to ignore",
            )
    yield from _resolvers(site)


def _resolvers(site: Site) -> Iterator[TemplateError]:
    set_to = {one.first: one for one in site.of("set") if len(one.args) == 2}
    for one in site.of("proxy_pass"):
        match = re.match(r"(?:https?://)?(\$\w+)", one.first)
        value = set_to.get(match[1]) if match else None
        if value is None or "$" in value.args[1] or value.within("if"):
            continue
        target = _TARGET.fullmatch(value.args[1])
        host = target["host"] if target else ""
        found, sure = site.effective(one.parent, "resolver")
        if found or not sure or host in site.upstreams or _ADDRESS.fullmatch(host):
            continue
        if host and "@{" not in host:
            yield TemplateError(
                f"{one}: {host} comes from a variable, so nginx looks it up when a request "
                f"comes, and has no resolver (resolver-missing)",
                "add resolver with the address of a name server, or write the name into "
                "proxy_pass, or add resolver-missing to ignore",
            )


def _upstream_names(site: Site) -> Iterator[TemplateError]:
    for one in site.of(*PASSES):
        host = _target(one)["host"]
        if not re.fullmatch(r"[\w-]+", host) or _target(one)["port"]:
            continue
        if host in site.upstreams or host == "localhost":
            continue
        if near := _near(host, site.upstreams):
            yield TemplateError(
                f"{one}: {host} is no upstream, and nginx would look for a host of this "
                f"name (upstream-name)",
                f"write {near}, or add upstream-name to ignore",
            )
    blocks = (*site.of(*_BLOCKS), site.tree.root)
    if not site.tree.whole or any(block.unread for block in blocks):
        return
    for name, one in site.upstreams.items():
        pattern = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
        if name and not any(
            pattern.search(word)
            for other in site.everything
            if other is not one and other.parent is not one
            for word in other.args
        ):
            yield TemplateError(
                f"{one}: nobody uses upstream {name} (upstream-unused)",
                "remove it, or add upstream-unused to ignore",
            )


def _websockets(site: Site) -> Iterator[TemplateError]:
    for one in site.of("proxy_pass"):
        headers, sure = site.effective(one.parent, "proxy_set_header")
        values = {header.first.lower(): header for header in headers}
        version, known = site.effective(one.parent, "proxy_http_version")
        old = version[0].first == "1.0" if version else known
        upgrade = values.get("upgrade")
        if upgrade is not None and upgrade.last:
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
        elif old and (upstream := site.upstreams.get(_target(one)["host"])):
            for kept in upstream.all("keepalive"):
                yield TemplateError(
                    f"{kept}: keepalive has no effect on {one}, as an nginx before 1.29.7 "
                    f"would speak HTTP/1.0 there (upstream-keepalive)",
                    'add proxy_http_version 1.1 and proxy_set_header Connection "", or add '
                    "upstream-keepalive to ignore",
                )


def _ifs(site: Site) -> Iterator[TemplateError]:
    for block in site.of("if"):
        if _ends(block) or block.parent is None or block.parent.name != "location":
            continue
        for one in block.block or ():
            if _HARMLESS_IN_IF.fullmatch(one.name):
                continue
            if one.name == "add_header" and _counts_alone(block, block.parent):
                continue
            yield TemplateError(
                f"{one}: {one.name} in an if of a location makes nginx forget other "
                f"directives of the location (if-in-location)",
                "take its value from a map, or have the if return, rewrite or set, or "
                "add if-in-location to ignore",
            )


def _ends(block: Directive) -> bool:
    """Whether an if answers, or sends the request elsewhere."""
    return any(
        one.name == "return"
        or (one.name == "rewrite" and one.last in ("last", "redirect", "permanent"))
        for one in block.block or ()
    )


def _counts_alone(block: Directive, location: Directive) -> bool:
    """Whether an if takes nothing away: no try_files, and no other if that may hold, too."""
    if location.all("try_files"):
        return False
    ours = _EQUALS.fullmatch(" ".join(block.args))
    for other in location.all("if"):
        if other is block or _ends(other):
            continue
        theirs = _EQUALS.fullmatch(" ".join(other.args))
        if not ours or not theirs or ours[1] != theirs[1] or ours[2] == theirs[2]:
            return False
    return True


def _redirects(site: Site) -> Iterator[TemplateError]:
    for one in site.of("return", "rewrite", "add_header", "proxy_set_header", "proxy_pass"):
        if not one.args:
            continue
        value = one.last
        if one.name == "return":
            if len(one.args) > 1 and not re.fullmatch(r"30[12378]", one.first):
                continue
        elif one.name == "rewrite":
            if len(one.args) < 2:
                continue
            value = one.args[1]
            if not re.match(r"https?://|\$scheme", value) and one.last not in (
                "redirect",
                "permanent",
            ):
                continue
        elif one.name == "proxy_pass":
            value = _target(one)["host"] + _target(one)["uri"]
        else:
            value = one.args[1] if len(one.args) > 1 else ""
        decoded: list[str] = [
            name for name in ("uri", "document_uri") if name in variables(value)
        ]
        decoded += _decoded_groups(one, value) if one.name == "return" else []
        if decoded:
            yield TemplateError(
                f"{one}: ${decoded[0]} is decoded, so %0d%0a in a URI would begin a header "
                f"of the client's own (header-injection)",
                "write $request_uri, or a group that matches no end of a line, or add "
                "header-injection to ignore",
            )
        target = re.match(r"(?:https?:/+|\$scheme:/+|//)?\$\{?(\w+)", value)
        if one.name not in ("return", "rewrite") or target is None:
            continue
        if re.match(r"arg_|cookie_|http_(?!host$)", target[1].lower()):
            yield TemplateError(
                f"{one}: the redirect goes wherever ${target[1]} says, and the client "
                f"chooses it (open-redirect)",
                "begin it with the site's own name, or take it from a map, or add "
                "open-redirect to ignore",
            )


def _decoded_groups(one: Directive, value: str) -> list[str]:
    """The groups of the location in a value that can match the end of a line."""
    block = one.within("location")
    if block is None or not path_of(block)[0].startswith("~") or one.within("if"):
        return []
    expression = path_of(block)[1]
    if not re.search(r"\[\^(?:(?!\\[nrs])[^\]])*\]", expression) or not count_groups(
        expression
    ):
        return []
    named = set(re.findall(r"\(\?P?<(\w+)>", expression))
    return [name for name in sorted(variables(value)) if name in named or name in "123456789"]


def _access(site: Site) -> Iterator[TemplateError]:
    blocks = {id(one.parent): one.parent for one in site.of("allow", "deny", "auth_basic")}
    for block in filter(None, blocks.values()):
        allows, denies, returns = block.all("allow"), block.all("deny"), block.all("return")
        satisfy, _ = site.effective(block, "satisfy")
        sure = not block.unread and not any(one.first == "any" for one in satisfy)
        if sure and allows and not denies and all(one.first != "all" for one in allows):
            yield TemplateError(
                f"{allows[0]}: allow without deny allows all others too (allow-without-deny)",
                "add deny all after it, or add allow-without-deny to ignore",
            )
        passwords = [one for one in block.all("auth_basic") if one.first != "off"]
        rules = block.all("allow", "deny")
        if rules and (rules[0].name, rules[0].first) == ("allow", "all"):
            rules = []  # the first one that fits counts, so there are no limits
        asked = [*rules, *passwords]
        if asked and any(not re.fullmatch(r"4\d\d", one.first) for one in returns):
            yield TemplateError(
                f"{returns[0]}: return answers before {asked[0].name} is looked at "
                f"(return-bypasses-allow)",
                "answer with a file or try_files, or add return-bypasses-allow to ignore",
            )
    yield from _returns_below_limits(site)
    for one in site.of("auth_basic", "auth_basic_user_file"):
        other = {"auth_basic": "auth_basic_user_file"}.get(one.name, "auth_basic")
        found, sure = site.effective(one.parent, other)
        below = one.parent.below() if one.parent else ()
        if found or not sure or one.first == "off" or any(two.name == other for two in below):
            continue
        yield TemplateError(
            f"{one}: {one.name} asks nobody for a password without {other} (auth-basic)",
            f"add {other}, or add auth-basic to ignore",
        )
    for one in site.of("stub_status"):
        if not _open_to_all(one.within("server")):
            continue
        limits = [
            site.effective(one.parent, name)
            for name in ("allow", "deny", "auth_basic", "auth_request")
        ]
        if all(not found and sure for found, sure in limits):
            yield TemplateError(
                f"{one}: everybody can read stub_status (status-open)",
                "add allow with the addresses that may, and deny all, or add status-open "
                "to ignore",
            )


def _returns_below_limits(site: Site) -> Iterator[TemplateError]:
    """What a location gives away that blocks around it keep for some."""
    for one in site.of("return"):
        block = one.parent
        if block is None or block.name != "location" or _is_for_all(block, one):
            continue
        if block.all("allow", "deny", "auth_basic"):
            continue  # it has limits of its own, or says that it has none
        for outer in block.up():
            limits = [limit for limit in outer.all("deny") if limit.first == "all"]
            limits += [limit for limit in outer.all("auth_basic") if limit.first != "off"]
            if limits:
                yield TemplateError(
                    f"{one}: return answers before {limits[0].name} of {limits[0]} is looked "
                    f"at (return-bypasses-allow)",
                    "answer with a file or try_files, or write allow all into the location "
                    "if everybody may see it, or add return-bypasses-allow to ignore",
                )
                break
            if outer.unread or outer.all("allow", "deny", "auth_basic"):
                break


def _is_for_all(location: Directive, one: Directive) -> bool:
    """Whether a return gives away nothing: codes, other places, a word such as ``ok``."""
    kind, path = path_of(location)
    if not re.fullmatch(r"20[0-35-9]", one.first) or location.all("internal"):
        return True
    if path.startswith("@") or re.match(r"\^?/\\?\.well-known/", path):
        return True
    text = one.last if len(one.args) > 1 else ""
    return kind == "=" and "$" not in text and len(text) <= _SHORT


TOPICS = (
    _applications,
    _lost_headers,
    _headers,
    _trust,
    _targets,
    _upstream_names,
    _websockets,
    _ifs,
    _redirects,
    _access,
)
