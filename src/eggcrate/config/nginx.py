"""What nginx itself says about a configuration, with the places of its template."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from eggcrate.config.references import Rendered
from eggcrate.errors import TemplateError

_SECONDS = 10  # a test takes milliseconds; only a name server that is silent takes longer

_COMPLAINT = re.compile(
    r"\[(?:emerg|crit)\] (?:\d+#\d+: )?(?P<what>.*?)(?=\n(?:nginx: |\d{4}/\d\d/\d\d )|\Z)",
    re.DOTALL,
)
_PLACE = re.compile(r"(?P<what>.*) in (?P<file>/.*):(?P<line>\d+)", re.DOTALL)
_OPENED = re.compile(r'open\(\) "(?P<path>.+?)" failed \(2: ')
_LOADED = re.compile(r'cannot load certificate(?: key)? "(?P<path>.+?)": .*No such file')
_VARIABLE = re.compile(r'unknown "(?P<name>\w+)" variable')
_DIRECTIVE = re.compile(r'unknown directive "(?P<name>.*?)"')

# What depends on the machine that tests, not on the text: files, addresses, users, names,
# what nginx was built with, and its OpenSSL.
_MACHINE = re.compile(
    r"\(\d+: [^)]*\)|host not found|\(SSL:|dlopen\(\)|getpwnam|getgrnam|"
    r"is not binary compatible|version \d+ instead of|requires (?:ngx_|PCRE|the )|"
    r"is not supported on this platform|too long path in the unix domain socket|"
    r'invalid parameter "(?:quic|http2|http3)"'
)
# Where a configuration loads modules of the machine, its directives depend on them.
_MODULES = re.compile(r"^\s*(?:load_module\s|include\s[^;]*modules)", re.MULTILINE)

# Directives that came after nginx 1.18: one that is older must not call them mistakes.
_NEWER = re.compile(
    r"http[23]\w*|quic_\w+|"
    r"\w*ssl_(?:alpn|certificate_cache|certificate_compression|conf_command|ech_file)|"
    r"ssl_(?:key_log|ocsp\w*|reject_handshake)|"
    r"keepalive_(?:time|min_timeout)|add_(?:header|trailer)_inherit|early_hints|max_headers|"
    r"mp4_start_key_frame|pass|proxy_(?:cookie_flags|half_close|pass_trailers)|userid_flags"
)

# A text without any of these is a fragment, for another configuration to include.
_MAIN = re.compile(r"(?:^|[;{}])\s*(?:events|http|stream|mail)\s*\{", re.MULTILINE)


def find() -> str | None:
    """The nginx of this machine, also where its directory is not on an ordinary user's PATH."""
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def check(
    rendered: Rendered,
    program: str,
    *,
    output: pathlib.Path,
    run_directory: pathlib.Path,
    directory: pathlib.Path,
) -> str:
    """Have ``program`` test the text as it would stand in ``output``; raise what is wrong.

    The result says what could not be tested, and why, or is empty: a problem of this
    machine (an address that is taken, a file, a user or a name that only the image has) is
    no mistake of the configuration.  Files that are missing below ``directory``, the
    buildout's, are one.  What nginx makes when it tests (its pid file, sockets, temporary
    directories, log files) is made in a temporary directory, unless the configuration has
    it outside the run directory.
    """
    if not _MAIN.search(rendered.text):
        return "it has neither an events nor an http block, so another file must include it"
    with tempfile.TemporaryDirectory(prefix="eggcrate-") as temporary:
        if not re.fullmatch(r"[\w/.+-]+", temporary):
            return f"the name of the temporary directory, {temporary!r}, would need quotes"
        scratch = _Scratch(pathlib.Path(temporary), output, run_directory)
        scratch.write(rendered.text)
        said = _ask(program, scratch.copy)
        if not said:
            return ""
        found = _COMPLAINT.search(said)
        if found is None:  # an nginx that knows no -e (before 1.19.5), or one that crashed
            return said.split("\n")[-1]
        what, path, line = found["what"], scratch.copy, 0
        if place := _PLACE.fullmatch(what):
            what, path, line = place["what"], place["file"], int(place["line"])
        ours = path == scratch.copy
        what, path = scratch.real(what), scratch.real(path)

    def foreign(file: str) -> bool:
        normal = pathlib.Path(os.path.normpath(file))
        return not normal.is_relative_to(directory) or normal.is_relative_to(run_directory)

    modules = bool(_MODULES.search(rendered.text))
    if variable := _VARIABLE.match(what):  # nginx gives no line
        line = _line_of(rf"\$\{{?{variable['name']}\b", rendered.text)
        machine = modules
    elif directive := _DIRECTIVE.match(what):
        machine = modules or bool(_NEWER.fullmatch(directive["name"]))
    elif loaded := _LOADED.match(what):  # nor here
        line = _line_of(re.escape(loaded["path"]), rendered.text)
        machine = foreign(loaded["path"])
    elif line and (opened := _OPENED.match(what)):  # without a line it is a log file
        machine = foreign(opened["path"])
    else:
        machine = bool(_MACHINE.search(what))
    if ours:
        complaint = f"{rendered.where(line) if line else rendered.name}: {what}"
    else:
        complaint = f"{path}, line {line}: {what}"
        machine = machine or foreign(path)
    if machine:
        return complaint
    raise TemplateError(
        f"{complaint} (says nginx -t)",
        "correct it, or set check = false if the nginx that will read it knows better",
    )


def _ask(program: str, configuration: str) -> str:
    """What ``nginx -t`` has to say about a configuration; nothing when all is well."""
    try:
        result = subprocess.run(
            # no -p: paths like modules/x.so start from the prefix that nginx was built with
            [program, "-t", "-e", "stderr", "-c", configuration],
            # nginx takes over the sockets that NGINX names
            env={name: value for name, value in os.environ.items() if name != "NGINX"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{program} -t was stopped after {_SECONDS} seconds"
    except OSError as error:
        return f"{program} can't be started: {error.strerror}"
    if result.returncode == 0:
        return ""
    said = result.stdout.decode("utf-8", "replace").strip()
    return said or f"{program} -t ended with status {result.returncode}"


class _Scratch:
    """A place in which nginx finds a copy of the configuration and can't touch the site.

    Its run directory is empty, because a test makes the directories and sockets that are
    configured there.  The files beside the output are there too, as links: an include
    with a relative path starts from the configuration's directory.
    """

    def __init__(
        self, root: pathlib.Path, output: pathlib.Path, run_directory: pathlib.Path
    ) -> None:
        self._root = root
        self._output = output
        self._run_directory = run_directory
        self.copy = str(root / "conf" / output.name)

    def write(self, text: str) -> None:
        """Lay the place out, with ``text`` as the configuration."""
        for name in ("conf", "run"):
            (self._root / name).mkdir()
        with contextlib.suppress(OSError):  # no such directory yet, or none that we may read
            for beside in self._output.parent.iterdir():
                if beside.name != self._output.name:
                    (self._root / "conf" / beside.name).symlink_to(beside)
        # whole path components only: /srv/run is no part of /srv/run2 or of /old/srv/run
        path = rf"(?<![\w./-]){re.escape(str(self._run_directory))}(?![\w.-])"
        replaced = re.sub(path, str(self._root / "run"), text)
        pathlib.Path(self.copy).write_bytes(replaced.encode("utf-8"))

    def real(self, text: str) -> str:
        """``text`` with the names of the real places."""
        text = text.replace(str(self._root / "conf"), str(self._output.parent))
        return text.replace(str(self._root / "run"), str(self._run_directory))


def _line_of(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return text.count("\n", 0, found.start()) + 1 if found else 0
