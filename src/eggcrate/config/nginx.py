"""What nginx itself says about a configuration, with the places of its template."""

from __future__ import annotations

import functools
import os
import pathlib
import re
import subprocess
import tempfile

from eggcrate.config.nginx_scratch import Scratch
from eggcrate.config.references import Rendered
from eggcrate.errors import TemplateError
from eggcrate.runtime import start

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

# What may be defined in a file that only the image has.
_ELSEWHERE = re.compile(
    r'unknown "\w+" variable|unknown log format|zero size shared memory zone|'
    r'no "(?:events" section|ssl_certificate)|"\w+" zone|zone "[^"]*" is unknown|'
    r"no port in upstream"
)

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
    return start.find_nginx()


def version(program: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The version of an nginx, and that of the OpenSSL it runs with: ``(1, 22, 1)``.

    One that nginx doesn't tell, because it can't be asked or has another library, is empty.
    """
    said = _about(program)
    nginx = re.search(r"^nginx version: [^/\n]*/(\d+(?:\.\d+)*)", said, re.MULTILINE)
    # "built with OpenSSL 3.0.22 ... (running with OpenSSL 3.0.19 ...)" where they differ
    openssl = re.search(r"running with OpenSSL (\d+(?:\.\d+)*)", said) or re.search(
        r"^built with OpenSSL (\d+(?:\.\d+)*)", said, re.MULTILINE
    )
    return _numbers(nginx), _numbers(openssl)


def _numbers(found: re.Match[str] | None) -> tuple[int, ...]:
    return tuple(map(int, found[1].split("."))) if found else ()


def _prefix(program: str) -> str:
    """The directory from which the paths of modules start."""
    found = re.search(r"--prefix=(\S+)", _about(program))
    return found[1] if found else "/usr/local/nginx"


def _about(program: str) -> str:
    """What ``nginx -V`` says; nothing if it can't be asked."""
    try:
        return _asked_about(program, os.stat(program).st_mtime_ns)
    except OSError:
        return ""


@functools.cache
def _asked_about(program: str, _modified: int) -> str:
    try:
        result = subprocess.run(
            [program, "-V"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stderr.decode("utf-8", "replace")


def check(
    rendered: Rendered,
    program: str,
    *,
    output: pathlib.Path,
    run_directory: pathlib.Path,
    directory: pathlib.Path,
) -> str:
    """Have ``program`` test the text as it would stand in ``output``; raise what is wrong.

    What nginx reads is a copy that depends on nothing of this machine, see
    :class:`~eggcrate.config.nginx_scratch.Scratch`.  The result says what could not be
    tested all the same, and why, or is empty: what this machine lacks is no mistake of the
    configuration.  Files that are missing below ``directory``, the buildout's, are one.
    What nginx makes when it tests (its pid file, sockets, temporary directories, log files)
    is made in a temporary directory, but for log files in the buildout.
    """
    if not _MAIN.search(rendered.text):
        return "it has neither an events nor an http block, so another file must include it"
    with tempfile.TemporaryDirectory(prefix="eggcrate-") as temporary:
        if not re.fullmatch(r"[\w/.+-]+", temporary):
            return f"the name of the temporary directory, {temporary!r}, would need quotes"
        root = pathlib.Path(temporary)
        prefix = functools.partial(_prefix, program)
        scratch = Scratch(root, output, run_directory, directory, prefix)
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

    foreign = scratch.foreign
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
    if scratch.incomplete and _ELSEWHERE.match(what):
        machine = True
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


def _line_of(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return text.count("\n", 0, found.start()) + 1 if found else 0
