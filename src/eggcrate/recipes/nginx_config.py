"""``eggcrate:nginx-config``: a configuration for nginx, from a template or declared, tested."""

from __future__ import annotations

import difflib
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping

from eggcrate.config import nginx, nginx_declared, references
from eggcrate.config.nginx_model import Surroundings
from eggcrate.config.nginx_options import MAIN, SITE
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError, raise_all
from eggcrate.recipes import scripts
from eggcrate.recipes.boundary import user_errors
from eggcrate.recipes.config_file import Buildout, ConfigFile, flag, noting, text_of

#: what a user may write here beside what declares: circus-config has none of it, or another
OPTIONS = ("check", "circus", "ignore", "scripts")

_ALL = (*MAIN, *SITE)
_SOCKET = re.compile(r"^\[socket:(?P<name>[^\]\n]+)\](?P<body>(?:\n(?!\[).*)*)", re.MULTILINE)


class Recipe:
    """The part writes one file, and a script if asked; see ``docs/nginx-config.rst``."""

    def __init__(
        self, buildout: Buildout, name: str, options: MutableMapping[str, str]
    ) -> None:
        self._name = name
        self._buildout = buildout
        self._section = buildout["buildout"]
        self._options = options
        with user_errors(name):
            #: whether nginx is to test the file
            self.checks = flag(options, "check", default=True)
            self._scripts = flag(options, "scripts", default=False)
            raise_all(_misspelt(options))
            self._declared = {
                option: options[option]
                for option in sorted(options)
                if nginx_declared.is_declared(option)
            }
            own_text = bool(
                options.get("input", "").strip() or options.get("inline", "").strip()
            )
            self._file = ConfigFile(
                buildout,
                name,
                options,
                file_name="nginx.conf",
                more_options=[*OPTIONS, *self._declared, *_ALL],
                declare=None if own_text or not self._declared else self._declare,
                otherwise=", or declare upstream and server-names",
                certain="daemon off;\n",
            )
            if own_text:
                raise_all(self._unused())

    def install(self) -> tuple[str, ...]:
        """Judge the file and write it, and the script."""
        with user_errors(self._name):
            if self.checks:
                self._judge()
            return self._write()

    def update(self) -> tuple[str, ...]:
        """Do the same when the file would change; what is there has been judged."""
        with user_errors(self._name):
            if self.checks and not self._file.is_current():
                self._judge()
            return self._write()

    def _write(self) -> tuple[str, ...]:
        self._file.write()  # which is owned through eggcrate.recipes.ownership
        if not self._scripts:
            return ()
        paths = (self._file.output, self._file.run_directory, self._file.settings)
        return tuple(scripts.bound(self._section, self._name, "nginxctl", *paths))

    @property
    def text(self) -> str:
        """What the file says."""
        return self._file.rendered.text

    def test(self, program: str) -> None:
        """Have an nginx test the file; raises what is wrong."""
        if untested := self._untested(program):
            logging.getLogger(self._name).warning("not tested to the end: %s", untested)

    def _untested(self, program: str) -> str:
        """What an nginx could not test; what is wrong is raised."""
        return nginx.check(
            self._file.rendered,
            program,
            output=self._file.output,
            run_directory=self._file.run_directory,
            directory=self._file.directory,
        )

    def _declare(
        self, _: Rendered | None, run_directory: pathlib.Path, value: Callable[[str], str]
    ) -> Rendered:
        options = {option: value(option) for option in self._declared}
        return nginx_declared.declared(options, self._surroundings(run_directory))

    def _surroundings(self, run_directory: pathlib.Path) -> Surroundings:
        return Surroundings(
            part=self._name,
            directory=self._buildout["buildout"]["directory"],
            run_directory=os.fspath(run_directory),
            socket=self._socket,
            **self._versions(),
        )

    def _versions(self) -> dict[str, tuple[int, ...]]:
        """The nginx that is here and its OpenSSL, where the text depends on them."""
        program = nginx.find() if "tls" in self._said() else None
        found = nginx.version(program) if program else ((), ())
        return {name: one for name, one in zip(("nginx", "openssl"), found, strict=True) if one}

    def _said(self) -> str:
        """All that is declared, to look for a word in it."""
        return " ".join((*self._declared, *self._declared.values()))

    def _unused(self) -> Iterator[EggcrateError]:
        """Options that declare something beside a template that makes no use of them."""
        used = self._file.own_names
        for option in sorted(set(self._declared) - used):
            yield SettingsError(
                f"{option} means nothing where a template makes the text",
                f"write it in the template, use ${{{option}}} there, or take {option} out",
            )

    def _judge(self) -> None:
        """Ask the lint, nginx and the certificates; raises every complaint.

        It is done when the parts before this one have made their files.
        """
        from eggcrate.config import nginx_lint

        file = self._file
        program = nginx.find()
        errors, warnings = nginx_lint.complaints(
            file.rendered,
            output=file.output,
            directory=file.directory,
            run_directory=file.run_directory,
            shown=file.shown,
            ignored=self._options.get("ignore", "").split(),
            nginx_missing=program is None,
        )
        certificates: list[EggcrateError] = []
        with noting(certificates):
            raise_all(self._certificates())
        if certificates:  # the lint sees that the files are missing, and no more
            errors = [one for one in errors if "ssl_certificate" not in one.what]
            errors += certificates
        if program is not None:
            said: list[EggcrateError] = []
            with noting(said):
                if untested := self._untested(program):
                    warnings.append(f"not tested to the end: {untested}")
            if any("-missing)" in error.what for error in errors):
                said = []  # that's where it has stopped
            if said:  # of the grammar nginx knows more than anybody
                errors = [*said, *(one for one in errors if "(structure)" not in one.what)]
        for warning in warnings:
            logging.getLogger(self._name).warning("%s", warning)
        raise_all(errors)

    def _certificates(self) -> Iterator[EggcrateError]:
        """What is wrong with the certificates of declared sites."""
        if "tls-certificate" in self._said():
            from eggcrate.config import certificates

            around = self._surroundings(self._file.run_directory)
            pairs = nginx_declared.certificates(self._declared, around)
            yield from certificates.complaints(pairs, self._file.directory)

    # The sockets of circus-config parts ---------------------------------------------------

    def _socket(self, name: str) -> str:
        """The address of a socket, as nginx writes it."""
        part = self._options.get("circus", "").strip() or "circus"
        if part not in list(self._buildout.keys()):
            raise SettingsError(
                f"there is no part [{part}] that could have the socket {name}",
                "set circus to your circus-config part, or write the address of the socket",
            )
        found = self._sockets(part)
        if name in found:
            return found[name]
        near = difflib.get_close_matches(name, sorted(found), 1)
        raise SettingsError(
            f"[{part}] has no socket {name}",
            f"write socket:{near[0]}, the nearest name there is"
            if near
            else f"declare socket.{name} there, or write the address of the socket",
        )

    def _sockets(self, part: str) -> dict[str, str]:
        """The sockets of a circus-config part, by name, with their addresses.

        The part may be on its way here itself, for the path of our file.  Then its text is
        not made yet, and what its options say has to do.
        """
        options = self._buildout[part]
        directory = self._buildout["buildout"]["directory"]
        run = os.path.normpath(
            os.path.join(directory, options.get("run-directory", "") or "var/run")
        )
        text = text_of(self._buildout, options["output"]) if "output" in options else None
        texts = [(match["name"], match["body"]) for match in _SOCKET.finditer(text or "")]
        if text is None:
            texts += [
                (option.partition(".")[2], options.get(option, ""))
                for option in options
                if option.startswith("socket.")
            ]
            texts += [(socket, "") for socket in _preset_sockets(options)]
            texts += self._template_sockets(part, options, run)
        found: dict[str, str] = {}
        for name, body in texts:
            said = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", body, re.MULTILINE))
            path = said.get("path", "")
            if said.get("type", "SOCK_STREAM") != "SOCK_STREAM":
                continue
            if not path and said.get("port"):
                found.setdefault(name, f"{said.get('host') or '127.0.0.1'}:{said['port']}")
                continue
            path = path or f"{run}/{name.lower()}.sock"
            found.setdefault(name, f"unix:{os.path.normpath(os.path.join(directory, path))}")
        return found

    def _template_sockets(
        self, part: str, options: Mapping[str, str], run: str
    ) -> list[tuple[str, str]]:
        """The sections of sockets in a template, whose part is not that far."""
        path = options.get("input", "").strip()
        text = options.get("inline", "")
        if path:
            directory = self._buildout["buildout"]["directory"]
            try:
                text = pathlib.Path(directory, path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                return []  # circus-config says what is wrong

        def resolve(section: str, option: str) -> str:
            if section in ("", part) and option == "run-directory":
                return run
            return self._buildout[section or part].get(option) or ""

        return [
            (match["name"], references.parse(match["body"], path).render(resolve).text)
            for match in _SOCKET.finditer(text)
        ]


def _preset_sockets(options: Mapping[str, str]) -> Iterator[str]:
    """The sockets that presets of watchers make for themselves."""
    for option in options:
        kind, _, name = option.partition(".")
        text = options.get(option, "") if kind == "watcher" else ""
        if re.search(r"^preset\s*=\s*(?:gunicorn|uvicorn|waitress)\s*$", text, re.MULTILINE):
            named = re.search(r"^socket\s*=\s*(\S+)", text, re.MULTILINE)
            yield named[1] if named else name


def _misspelt(options: Mapping[str, str]) -> Iterator[SettingsError]:
    for option in sorted(options):
        if near := nginx_declared.nearest(option):
            yield SettingsError(f"has an unknown option {option}", f"write {near}")
