"""From the sites of nginx-config to a text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eggcrate.config.nginx_model import (
    ACME,
    HEALTH,
    OWN,
    Location,
    Site,
    Text,
    as_directive,
    as_quoted,
    as_word,
    dedented,
    location_order,
)
from eggcrate.config.references import Rendered
from eggcrate.errors import raise_all

if TYPE_CHECKING:
    from eggcrate.config.nginx_declared import Configuration

# Mozilla's guidelines, version 6: what nearly every client since 2014 can do
_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
_CURVES = "X25519:prime256v1:secp384r1"
_POST_QUANTUM = "X25519MLKEM768"  # of OpenSSL 3.5


_UNAVAILABLE = "/.eggcrate/unavailable.html"
_MAINTENANCE = "/.eggcrate/maintenance.html"
_SORRY = "<!doctype html><title>Unavailable</title><h1>Back in a moment</h1>"
_CLOSED = "<!doctype html><title>Maintenance</title><h1>Down for maintenance</h1>"

_NO_SITE = "There is no site of this name here."


def written(configuration: Configuration) -> Rendered:
    """The text, with the place of every line; raises what is wrong with the options."""
    return _Writer(configuration).rendered()


class _Writer:
    """A configuration on its way to a text."""

    def __init__(self, configuration: Configuration) -> None:
        self._of = configuration

    def rendered(self) -> Rendered:
        """The text, with the place of every line; raises what is wrong with the options."""
        raise_all(self._of.errors)
        text = Text()
        main = self._of.main
        run = self._of.around.run_directory
        text.add(
            f"# Made by bin/buildout of [{self._of.around.part}] in its configuration: "
            "change it there.",
            OWN,
        )
        text.add("", OWN)
        text.comment(
            "Circus, Docker or a terminal is above it, and wants it in the foreground.", OWN
        )
        text.add("daemon off;", OWN)
        if main.has("user"):
            text.add(f"user {main.text('user')};", main.place("user"))
        for option in ("worker-processes", "worker-rlimit-nofile", "worker-shutdown-timeout"):
            text.add(as_directive(option, main), main.place(option))
        text.add(f"pid {as_word(run + '/nginx.pid')};", OWN)
        place = main.place("error-log")
        log = main.text("error-log")
        log = (
            log
            if log == "stderr" or log.startswith("syslog:")
            else as_word(self._of.path(log, place))
        )
        text.add(f"error_log {log} {main.text('error-log-level')};", place)
        for module, place in main.lines("load-modules"):
            text.add(f"load_module {as_word(module)};", place)
        text.raw(dedented(main.lines("main-extra")))
        text.add("", OWN)
        with text.block("events", OWN):
            text.add(as_directive("worker-connections", main), main.place("worker-connections"))
            text.raw(dedented(main.lines("events-extra")))
        text.add("", OWN)
        with text.block("http", OWN):
            self._http(text)
        raise_all(self._of.errors)
        places = [place for _, place in text.lines]
        return Rendered(
            f"the options of [{self._of.around.part}]",
            "".join(f"{line}\n" for line, _ in text.lines),
            tuple(range(1, len(places) + 1)),
            (*places, places[-1]),
        )

    def _http(self, text: Text) -> None:
        main = self._of.main
        place = main.place("mime-types")
        text.add(f"include {as_word(self._of.path(main.text('mime-types'), place))};", place)
        text.add("default_type application/octet-stream;", OWN)
        text.add("charset utf-8;", OWN)
        # text/html always has it
        types = "text/css text/javascript text/plain text/xml application/javascript"
        text.add(f"charset_types {types};", OWN)
        text.add("", OWN)
        text.comment(
            "What nginx writes goes here, as the rest of the file system may be read-only.",
            OWN,
        )
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            text.add(
                f"{name}_temp_path {as_word(f'{self._of.around.run_directory}/{name}')};", OWN
            )
        text.add("", OWN)
        for line in ("server_tokens off;", "sendfile on;", "tcp_nopush on;"):
            text.add(line, OWN)
        text.comment("the port here is not the one that browsers see", OWN)
        text.add("absolute_redirect off;", OWN)
        for option in ("keepalive-timeout", "client-header-timeout", "client-body-timeout"):
            text.add(as_directive(option, main), main.place(option))
        text.add(as_directive("send-timeout", main), main.place("send-timeout"))
        text.add("reset_timedout_connection on;", OWN)
        if "server_names_hash_bucket_size" not in main.text("http-extra"):
            # nginx's own size ends below 64 characters, and a setting may have any name
            text.comment("a host's name may have 253 characters", OWN)
            text.add("server_names_hash_bucket_size 512;", OWN)
        option = "large-client-header-buffers"
        text.add(as_directive(option, main), main.place(option))
        if main.text("open-file-cache") != "off":
            place = main.place("open-file-cache")
            text.add(f"open_file_cache max={main.text('open-file-cache')} inactive=60s;", place)
        self._logs(text)
        self._compression(text)
        self._client(text)
        before = ""
        for (source, entries), (name, why, place) in self._of.maps.items():
            if why != before:
                text.add("", place)
                text.comment(why[0].upper() + why[1:] + ".", place)
            before = why
            with text.block(f"map {source} ${name}", place):
                for entry in entries:
                    text.add(entry, place)
        if self._of.zones:
            text.add("", OWN)
            for line, place in self._of.zones:
                text.add(line, place)
            text.add("limit_req_status 429;", OWN)
            text.add("limit_conn_status 429;", OWN)
        self._all_upstreams(text)
        if any(site.secure for site in self._of.sites):
            self._profile(text)
        if main.has("http-extra"):
            text.add("", OWN)
            text.raw(dedented(main.lines("http-extra")))
        self._unknown(text)
        if main.has("stub-status"):
            self._stub_status(text)
        for site in self._of.sites:
            self._servers(text, site)

    def _logs(self, text: Text) -> None:
        main = self._of.main
        place, kind = main.place("access-log"), main.text("access-log")
        text.add("", place)
        if kind == "off":
            text.add("access_log off;", place)
            return
        if kind == "json":
            text.add("log_format json escape=json", place)
            fields = (
                '"time":"$time_iso8601","remote_addr":"$remote_addr","request_id":"$request_id",',
                '"method":"$request_method","uri":"$request_uri","status":$status,',
                '"bytes":$body_bytes_sent,"request_time":$request_time,',
                '"upstream_time":"$upstream_response_time","host":"$host",',
                '"referer":"$http_referer","user_agent":"$http_user_agent",',
                '"xff":"$http_x_forwarded_for"',
            )
            for number, line in enumerate(fields):
                first, last = number == 0, number == len(fields) - 1
                text.add(f"    '{'{' * first}{line}{'}' * last}'{';' * last}", place)
        condition = ""
        if main.has("access-log-exclude"):
            where = main.place("access-log-exclude")
            with text.block("map $uri $logged", where):
                text.add("default 1;", where)
                for url in main.text("access-log-exclude").split():
                    text.add(f"{as_word(url)} 0;", where)
            condition = " if=$logged"
        path = main.text("access-log-path")
        path = (
            path
            if path.startswith("syslog:")
            else as_word(self._of.path(path, "access-log-path"))
        )
        text.add(f"access_log {path} {kind}{condition};", place)

    def _compression(self, text: Text) -> None:
        main = self._of.main
        place = main.place("gzip")
        text.add("", place)
        if not main.on("gzip"):
            text.add("gzip off;", place)
            return
        text.add("gzip on;", place)
        text.add(as_directive("gzip-comp-level", main), main.place("gzip-comp-level"))
        text.add(as_directive("gzip-min-length", main), main.place("gzip-min-length"))
        text.add("gzip_proxied any;", place)
        text.add("gzip_vary on;", place)
        words, line = main.text("gzip-types").split(), "gzip_types"
        for word in words:
            if len(line) + len(word) > 76:
                text.add(line, main.place("gzip-types"))
                line = "   "
            line += f" {word}"
        text.add(f"{line};", main.place("gzip-types"))

    def _client(self, text: Text) -> None:
        """Who the client is, and what it has asked for."""
        main = self._of.main
        if main.has("trusted-proxies"):
            place = main.place("trusted-proxies")
            networks = main.text("trusted-proxies").split()
            text.add("", place)
            text.comment("Who may say where a request came from, and by which protocol.", place)
            for network in networks:
                text.add(f"set_real_ip_from {network};", place)
            where = main.place("real-ip-header") if main.has("real-ip-header") else place
            text.add(f"real_ip_header {self._of.real_ip_header()};", where)
            text.add("real_ip_recursive on;", place)
            if self._of.believes_headers():
                self._forwarded(text, networks, place)
        self._forced(text)
        if not any(
            site.passes or site.options.has("redirect-names") for site in self._of.sites
        ):
            return
        text.add("", OWN)
        text.comment(
            "The port as the browser sees it, docker run -p 9000:8080 for instance: Django "
            "compares the Host header with the origin of a form.",
            OWN,
        )
        with text.block("map $http_host $host_port", OWN):
            text.add('default "";', OWN)
            text.add(
                '"~^(?:[^:]+|\\[[0-9a-fA-F:.]+\\])(?<client_port>:[0-9]{1,5})$" $client_port;',
                OWN,
            )
        if any(site.options.on("websockets") for site in self._of.sites):
            kept = any(
                level.text("keepalive") != "off" for level in self._of.upstreams.values()
            )
            text.add("", OWN)
            text.comment("WebSockets, and no other protocol, may take a connection over.", OWN)
            with text.block("map $http_upgrade $upgrade", OWN):
                text.add('default "";', OWN)
                text.add('"~*^websocket$" websocket;', OWN)
            with text.block("map $upgrade $connection_header", OWN):
                text.add("default upgrade;", OWN)
                text.add(f'"" {as_word("") if kept else "close"};', OWN)

    @staticmethod
    def _forwarded(text: Text, networks: Sequence[str], place: str) -> None:
        """The protocol that a client has used, as a trusted proxy says."""
        with text.block("geo $realip_remote_addr $from_trusted_proxy", place):
            text.add("default 0;", place)
            for network in networks:
                if network != "unix:":
                    text.add(f"{network} 1;", place)
        trusted = "$from_trusted_proxy"
        if "unix:" in networks:
            trusted = "$trusted"
            with text.block("map $realip_remote_addr $trusted", place):
                text.add("default $from_trusted_proxy;", place)
                text.add("unix: 1;", place)
        with text.block(f'map "{trusted}:$http_x_forwarded_proto" $forwarded_proto', place):
            text.add("default $scheme;", place)
            text.add('"~^1:https(,|$)" https;', place)
            text.add('"~^1:http(,|$)" http;', place)

    def _forced(self, text: Text) -> None:
        """What comes by HTTP to a site that wants HTTPS, but for its health."""
        forced = [
            site
            for site in self._of.sites
            if site.options.text("tls") == "edge" and site.options.on("force-https")
        ]
        if not forced:
            return
        place = forced[0].options.place("force-https")
        with text.block('map "$forwarded_proto:$uri" $insecure', place):
            text.add("default 0;", place)
            if self._of.main.text("health") != "off":
                text.add(f"{as_quoted('http:' + self._of.main.text('health'))} 0;", place)
            text.add('"~^http:" 1;', place)

    def _all_upstreams(self, text: Text) -> None:
        for name, servers in sorted(self._of.plain_upstreams.items()):
            place = servers[0][1] if servers else name
            text.add("", place)
            with text.block(f"upstream {name}", place):
                # where there is no other, it is asked again at once
                again = " fail_timeout=0" * (len(servers) == 1)
                for server, where in servers:
                    text.add(f"server {as_word(server)}{again};", where)
        for name, level in sorted(self._of.upstreams.items()):
            place = f"upstream.{name}"
            text.add("", place)
            with text.block(f"upstream {name}", place):
                if level.text("balance") != "round-robin":
                    text.add(f"{level.text('balance')};", level.place("balance"))
                for line, where in level.lines("servers"):
                    first, *more = line.split()
                    words = [as_word(self._of.server(first, where)), *more]
                    for option in ("max-fails", "fail-timeout"):
                        key = option.replace("-", "_") + "="
                        alone = option == "fail-timeout" and len(level.lines("servers")) == 1
                        value = level.text(option) or "0" * alone
                        if value and key not in line:
                            words.append(f"{key}{value}")
                    text.add(f"server {' '.join(words)};", where)
                if level.text("keepalive") != "off":
                    text.add(as_directive("keepalive", level), level.place("keepalive"))
                text.raw(dedented(level.lines("extra")))

    def _profile(self, text: Text) -> None:
        main = self._of.main
        place = main.place("tls-profile")
        profile = main.text("tls-profile")
        text.add("", place)
        text.comment(f"Mozilla's guidelines, version 6, {profile}.", place)
        modern = profile == "modern"
        text.add(f"ssl_protocols {'' if modern else 'TLSv1.2 '}TLSv1.3;", place)
        if not modern:
            text.add(f"ssl_ciphers {_CIPHERS};", place)
        curves = f"{_POST_QUANTUM}:{_CURVES}" if self._of.openssl >= (3, 5) else _CURVES
        text.add(f"ssl_ecdh_curve {curves};", place)
        text.add("ssl_prefer_server_ciphers off;", place)
        text.add("ssl_session_timeout 1d;", place)
        text.add("ssl_session_cache shared:tls:10m;", place)
        text.add("ssl_session_tickets off;", place)

    def _unknown(self, text: Text) -> None:
        """The servers for hosts that are no site's."""
        answer = self._of.main.text("default-server")
        place = self._of.main.place("default-server")
        for secure in (False, True):
            addresses: dict[str, Site] = {}
            for site in self._of.sites:
                for address in site.secure if secure else site.plain:
                    addresses.setdefault(address, site)
            open_ = {
                address
                for site in self._of.sites
                if site.any_host or answer == "site"
                for address in (site.secure if secure else site.plain)
            }
            closed = {key: site for key, site in addresses.items() if key not in open_}
            if not closed:
                continue
            text.add("", place)
            text.comment(
                "Requests for another host are refused"
                + (
                    ", but whoever asks for nginx's health may not know the host's name."
                    if self._of.main.text("health") != "off" and not secure
                    else "."
                ),
                place,
            )
            with text.block("server", place):
                for address, site in closed.items():
                    words = " ssl" + self._http2(site) if secure else ""
                    text.add(self._listen(site, address, words, first=True), place)
                    if secure and site.options.on("http3") and not address.startswith("unix:"):
                        # reuseport: a client's packets come to the worker that has it
                        text.add(
                            f"listen {as_word(address)} quic reuseport default_server;", place
                        )
                if secure:
                    text.add("ssl_reject_handshake on;", place)
                text.add("server_name _;", place)
                if secure:
                    with text.block("location /", place):
                        text.add("return 421;", place)
                    continue
                self._health(text)
                with text.block("location /", place):
                    if answer == "444":
                        text.comment("no answer, the connection is closed", place)
                        text.add("return 444;", place)
                    else:
                        text.add("default_type text/plain;", place)
                        text.add(f'return {answer} "{_NO_SITE}\\n";', place)

    @staticmethod
    def _listen(site: Site, address: str, words: str, *, first: bool) -> str:
        """A listen directive; the first of its address has all that only one may have."""
        level = site.options
        words += " default_server" * first
        if level.on("proxy-protocol"):
            words += " proxy_protocol"
        if first and not address.startswith("unix:"):
            if level.on("reuseport"):
                words += " reuseport"
            if level.has("backlog"):
                words += f" backlog={level.text('backlog')}"
        return f"listen {as_word(address)}{words};"

    def _http2(self, site: Site) -> str:
        """HTTP/2 as a word of listen, as it was before nginx 1.25.1."""
        return " http2" if site.options.on("http2") and self._of.nginx < (1, 25, 1) else ""

    def _health(self, text: Text) -> None:
        url = self._of.main.text("health")
        if url != "off":
            place = self._of.main.place("health")
            with text.block(f"location = {as_word(url)}", place):
                text.raw((line, place) for line in HEALTH)

    def _stub_status(self, text: Text) -> None:
        place = self._of.main.place("stub-status")
        addresses = self._of.listened(self._of.main, "stub-status")
        if len(addresses) != 1:
            self._of.error(
                f"{place} has {len(addresses)} addresses", "write one: 127.0.0.1:8081"
            )
            return
        text.add("", place)
        with text.block("server", place):
            text.add(f"listen {as_word(addresses[0])};", place)
            text.add("access_log off;", place)
            with text.block("location = /stub_status", place):
                text.add("stub_status;", place)
                for line in ("allow 127.0.0.1;", "allow ::1;", "deny all;"):
                    text.add(line, place)

    def _servers(self, text: Text, site: Site) -> None:
        level = site.options
        tls = level.text("tls") == "on"
        redirects = tls and (level.text("force-https") != "false")
        names = " ".join(site.names) or "_"
        place = level.place("server-names")
        if level.has("redirect-names"):
            self._redirect_names(text, site, secure=False)
            if site.secure:
                self._redirect_names(text, site, secure=True)
        if redirects and site.plain:
            text.add("", OWN)
            text.comment("Everything by HTTPS.", level.place("force-https"))
            with text.block("server", place):
                self._listens(text, site, site.plain, secure=False)
                text.add(f"server_name {names};", place)
                self._health(text)
                if level.has("acme-challenge"):
                    challenge = Location(f"^~ {ACME}", level.place("acme-challenge"))
                    self._of.acme(site, challenge)
                    with text.block(f"location {challenge.title}", challenge.place):
                        text.raw(challenge.body)
                with text.block("location /", place):
                    text.add(
                        f"return 301 https://$host{self._of.https(site)}$request_uri;", place
                    )
        text.add("", OWN)
        with text.block("server", place):
            if not redirects:
                self._listens(text, site, site.plain, secure=False)
            self._listens(text, site, site.secure, secure=True)
            text.add(f"server_name {names};", place)
            if tls:
                self._tls_files(text, site)
            self._site_body(text, site)

    def _redirect_names(self, text: Text, site: Site, *, secure: bool) -> None:
        level = site.options
        place = level.place("redirect-names")
        text.add("", place)
        with text.block("server", place):
            self._listens(
                text, site, site.secure if secure else site.plain, secure=secure, extra=True
            )
            text.add(f"server_name {level.text('redirect-names')};", place)
            if secure:
                self._tls_files(text, site)
                for header, value, where in site.headers:
                    if header == "Strict-Transport-Security":
                        text.add(f"add_header {header} {value};", where)
            self._health(text)
            with text.block("location /", place):
                to_https = level.text("tls") == "on" and level.text("force-https") != "false"
                if to_https or secure:
                    target = f"https://{site.names[0]}{self._of.https(site)}"
                else:
                    target = f"{self._of.scheme()}://{site.names[0]}$host_port"
                text.add(f"return 301 {target}$request_uri;", place)

    def _listens(
        self,
        text: Text,
        site: Site,
        addresses: Sequence[str],
        *,
        secure: bool,
        extra: bool = False,
    ) -> None:
        level = site.options
        place = level.place("listen-tls" if secure else "listen")
        opens = (site.any_host or self._of.main.text("default-server") == "site") and not extra
        for address in addresses:
            words = " ssl" + self._http2(site) if secure else ""
            first = opens and self._opener(address, secure) is site
            text.add(self._listen(site, address, words, first=first), place)
            if secure and level.on("http3") and not address.startswith("unix:"):
                quic = " quic reuseport default_server" if first else " quic"
                text.add(f"listen {as_word(address)}{quic};", level.place("http3"))
        if secure and addresses and level.on("http2") and self._of.nginx >= (1, 25, 1):
            text.add("http2 on;", level.place("http2"))

    def _opener(self, address: str, secure: bool) -> Site | None:
        """The site that answers for every host at an address."""
        answer = self._of.main.text("default-server") == "site"
        here = [
            site
            for site in self._of.sites
            if address in (site.secure if secure else site.plain)
        ]
        openers = [site for site in here if site.any_host] or (here if answer else [])
        return openers[0] if openers else None

    def _tls_files(self, text: Text, site: Site) -> None:
        level = site.options
        for option, directive in (
            ("tls-certificate", "ssl_certificate"),
            ("tls-key", "ssl_certificate_key"),
            ("tls-client-ca", "ssl_client_certificate"),
        ):
            if level.has(option):
                place = level.place(option)
                text.add(
                    f"{directive} {as_word(self._of.path(level.text(option), place))};", place
                )
        if level.has("tls-client-ca"):
            verify = level.text("tls-verify-client")
            text.add(f"ssl_verify_client {verify};", level.place("tls-verify-client"))

    def _site_body(self, text: Text, site: Site) -> None:
        level = site.options
        text.add("", OWN)
        for option in ("client-max-body-size", "client-body-buffer-size"):
            if level.text(option):
                text.add(as_directive(option, level), level.place(option))
        for line, place in self._of.access(level):
            text.add(line, place)
        if level.text("tls") == "edge" and level.on("force-https"):
            place = level.place("force-https")
            with text.block("if ($insecure)", place):
                text.add(f"return 301 https://$host{self._of.https(site)}$request_uri;", place)
        text.add("", OWN)
        text.comment(
            "Headers are set once, here: an add_header in a location would drop all these.  An "
            "empty value sends no header.",
            OWN,
        )
        for header, value, place in site.headers:
            text.add(f"add_header {header} {value};", place)
        if site.passes:
            self._proxy(text, site)
        text.raw([("", OWN), *dedented(level.lines("server-extra"))])
        for title in sorted(site.locations, key=location_order):
            location = site.locations[title]
            text.add("", location.place)
            with text.block(f"location {title}", location.place):
                text.raw(location.body)
        if site.passes:
            self._error_pages(text, site)

    def _proxy(self, text: Text, site: Site) -> None:
        level = site.options
        text.add("", OWN)
        text.add("proxy_http_version 1.1;", OWN)
        headers = [
            ("Host", "$host$host_port", OWN),
            ("X-Real-IP", "$remote_addr", OWN),
            (
                "X-Forwarded-For",
                "$remote_addr"
                if level.text("forwarded-for") == "replace"
                else "$proxy_add_x_forwarded_for",
                level.place("forwarded-for"),
            ),
            ("X-Forwarded-Proto", self._of.scheme(), OWN),
            ("X-Forwarded-Host", "$host$host_port", OWN),
            ("X-Request-ID", "$request_id", OWN),
        ]
        if level.on("websockets"):
            headers += [
                ("Upgrade", "$upgrade", level.place("websockets")),
                ("Connection", "$connection_header", level.place("websockets")),
            ]
        else:
            kept = any(one.text("keepalive") != "off" for one in self._of.upstreams.values())
            headers.append(("Connection", '""' if kept else "close", OWN))
        # CGI programs would take Proxy for the variable HTTP_PROXY; of the others some
        # frameworks make addresses, and clients could say what they want in them
        for name in ("Proxy", "Forwarded", "X-Forwarded-Port", "X-Forwarded-Prefix"):
            headers.append((name, '""', OWN))
        headers += [(name, '""', OWN) for name in ("X-Forwarded-Ssl", "X-Script-Name")]
        for line, place in level.lines("proxy-headers"):
            name, _, value = line.partition(": ")
            self._of.no_dollar(place, value)
            headers = [one for one in headers if one[0].lower() != name.lower()]
            headers.append((name, as_quoted(value), place))
        for name, value, place in headers:
            text.add(f"proxy_set_header {name} {value};", place)
        for option in ("proxy-connect-timeout", "proxy-send-timeout", "proxy-read-timeout"):
            text.add(as_directive(option, level), level.place(option))
        for option in ("proxy-buffering", "proxy-request-buffering"):
            if not level.on(option):
                text.add(as_directive(option, level), level.place(option))
        text.add("proxy_redirect off;", OWN)
        text.comment("where a server can't be reached another is asked, if that is safe", OWN)
        text.add("proxy_next_upstream error;", OWN)

    def _error_pages(self, text: Text, site: Site) -> None:
        level = site.options
        pages = [("error-page", "502 504 =503", _UNAVAILABLE, _SORRY)]
        if level.has("maintenance"):
            pages.append(("maintenance-page", "503", _MAINTENANCE, _CLOSED))
        text.add("", OWN)
        for option, codes, url, _ in pages:
            text.add(f"error_page {codes} {url};", level.place(option))
        for option, _, url, page in pages:
            place = level.place(option)
            with text.block(f"location = {url}", place):
                text.add("internal;", place)
                if level.has("auth-basic-user-file"):
                    text.add("auth_basic off;", place)
                text.add("default_type text/html;", place)
                if level.has(option):
                    text.add(
                        f"alias {as_word(self._of.path(level.text(option), place))};", place
                    )
                else:
                    text.add(f'return 503 "{page}\\n";', place)
