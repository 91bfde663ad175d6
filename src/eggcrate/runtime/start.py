"""PID 1 of an image: makes the run directory, applies settings, then becomes the command."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence

# sysexits.h: a configuration error; and what a shell says of a program that it can't run
EX_CONFIG = 78
FAILED = 1
NOT_EXECUTABLE = 126
NOT_FOUND = 127
# what a shell says of a program that a signal has ended, less the signal's number
SIGNALLED = 128

#: where an image has its settings: beside the package that this is a module of
SETTINGS = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "settings"
)

#: the environment variable that says where the settings are that have been applied
APPLIED = "EGGCRATE_SETTINGS"

# Nothing that wants us to stop is lost before somebody is there who can
_WAITING = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))


def private_mode() -> int:
    """The mode of a run directory that this process makes."""
    return 0o711 if os.geteuid() == 0 else 0o700


def run_directory_problem(path: str) -> str | None:
    """Make the private directory at ``path``; what is wrong when it can't be made.

    Its mode is 0700, for root 0711: nginx's workers are another user then, and connect
    to a socket in it.  One that is there is taken when this user can write to it, and others
    can't, or can't any more.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, private_mode())
    except FileExistsError:
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            return (
                f"the run directory {path} can't be written by user {os.geteuid()}; start "
                f"with --tmpfs {os.path.dirname(path)}"
            )
        return _open_to_others(path)
    except OSError as error:
        return (
            f"the run directory {path} can't be made by user {os.geteuid()}: "
            f"{error.strerror}; start with --tmpfs {os.path.dirname(path)}"
        )
    return None


def _open_to_others(path: str) -> str | None:
    """Close a directory of ours to others; what is wrong where that can't be.

    The group may write where root has made it: by that alone, in some clusters, any user can.
    """
    try:
        found = os.lstat(path)
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISDIR(found.st_mode) or mode & stat.S_ISVTX:
            return None
        if found.st_uid == os.geteuid():
            if mode & 0o022:
                os.chmod(path, mode & ~0o022)
            return None
    except OSError as error:
        return f"the run directory {path} can't be used: {error.strerror}"
    if mode & 0o002:
        return (
            f"the run directory {path} can be written by other users; mount what can be "
            f"written at {os.path.dirname(path)} instead"
        )
    return None


def start(run_directory: str, command: Sequence[str], *, needed: bool = True) -> int:
    """Become ``command``; come back only with the exit code of a failure.

    The codes are 78 (configuration), 1 (a port that is taken), 127 (no such program), 126 (not
    executable).  Unless the run directory is ``needed``, a command does without where it can't
    be made.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)
    settings = SETTINGS if os.path.isdir(SETTINGS) else ""
    if list(command[:1]) == ["--settings"]:
        if command[1:]:
            return _complain("--settings has nothing behind it; leave that out", EX_CONFIG)
        return _show(settings)
    if not command or not command[0]:
        return _complain("there is nothing to run; give docker run a command", EX_CONFIG)
    problem = run_directory_problem(run_directory)
    if problem is None:
        # on a read-only root there is no other place to write to
        os.environ.setdefault("TMPDIR", run_directory)
        if os.environ.get("HOME", "/") == "/":
            os.environ["HOME"] = run_directory
    elif needed:
        return _complain(problem, EX_CONFIG)
    # what the first process starts has what that has applied, as bin/nginx of an image has
    if settings and os.getpid() != 1 and APPLIED in os.environ:
        settings = ""
    documents = apply(settings, run_directory) if settings else {}
    if documents is None:
        return EX_CONFIG
    sys.stdout.flush()
    # Python ignores these two; a command would inherit that, and so would all that it starts
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    supervisor = _supervisor(command)
    if supervisor is not None and (taken := _taken(documents)):
        return _complain(f"{taken}; stop the other program, or set another port", FAILED)
    if supervisor is None:
        if early := sorted(signal.sigpending() & _WAITING):
            return int(SIGNALLED + early[-1])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITING)
    program, *arguments = supervisor or command
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606 - there is no shell, and none is wanted
    except (FileNotFoundError, NotADirectoryError):
        return _complain(f"{command[0]} was not found", NOT_FOUND)
    except OSError as error:
        return _complain(f"{command[0]} can't be run: {error.strerror}", NOT_EXECUTABLE)


def apply(
    directory: str, run_directory: str, *, moved: bool = False
) -> Mapping[str, str] | None:
    """Have the environment's settings take effect; where each document is now.

    What is wrong goes to standard error, and None comes back.  The application finds
    ``eggcrate.runtime`` and nothing else of what is beside it.
    """
    from eggcrate.runtime import variables

    try:
        applied = variables.apply(directory, run_directory, os.environ, moved=moved)
    except variables.SettingsProblem as error:
        for problem in error.problems:
            _complain(problem, EX_CONFIG)
        return None
    for warning in applied.warnings:
        print(f"eggcrate: warning: {warning}", file=sys.stderr)
    if applied.changed:
        print(f"eggcrate: set are {', '.join(applied.changed)}", file=sys.stderr)
    for name in set(os.environ) - set(applied.environment):
        del os.environ[name]
    os.environ.update(applied.environment)
    place = _only_eggcrate(run_directory) if moved else os.path.dirname(SETTINGS)
    places = [os.environ.get("PYTHONPATH", ""), place]
    if place not in places[0].split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return applied.documents


def _only_eggcrate(run_directory: str) -> str:
    """A directory with a link to this package: where it lies itself there may be many more."""
    place = os.path.join(run_directory, "python")
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    link = os.path.join(place, "eggcrate")
    try:
        os.makedirs(place, exist_ok=True)
        if not os.path.islink(link) or os.readlink(link) != package:
            os.symlink(package, f"{link}.{os.getpid()}")
            os.rename(f"{link}.{os.getpid()}", link)
    except OSError:
        return ""  # the application does without
    return place


def apply_here(settings: str, run_directory: str, configuration: str) -> str | None:
    """On a machine: have settings take effect; the configuration that is to be used then.

    Below another program that has done it, and where there are none, it is the one that is
    given.  None comes back when something is wrong, which has been said.
    """
    if not _are_to_apply(settings):
        return configuration
    if problem := run_directory_problem(run_directory):
        _complain(problem, EX_CONFIG)
        return None
    documents = apply(settings, run_directory, moved=True)
    if documents is None:
        return None
    return documents.get(os.path.abspath(configuration), configuration)


def try_here(
    settings: str, run_directory: str, configuration: str, test: Callable[[str, str], int]
) -> int:
    """On a machine: the code of a ``test`` of the configuration as settings would have it.

    The test gets the path of one that is not in use, and what of that is to be left out where
    people read it.  What is in use stays as it is.
    """
    if not _are_to_apply(settings):
        return test(configuration, "")
    from eggcrate.runtime import variables

    if problem := run_directory_problem(run_directory):
        return _complain(problem, EX_CONFIG)
    try:
        known = variables.load(settings)
        found = variables.read(known, os.environ)
        trial = variables.Trial(known, found.values, run_directory)
        with trial as places:
            path = os.path.abspath(configuration)
            return test(places.get(path, configuration), trial.directory)
    except variables.SettingsProblem as error:
        for problem in error.problems:
            _complain(problem, EX_CONFIG)
        return EX_CONFIG


def _are_to_apply(settings: str) -> bool:
    """Whether there are settings that no program above this one has applied."""
    return bool(settings) and APPLIED not in os.environ and os.path.isdir(settings)


def _taken(documents: Mapping[str, str]) -> str:
    """What is wrong with the ports that nginx is to listen on.

    nginx itself tries for seconds, its test says nothing, and a supervisor starts it again.
    """
    import _socket  # what socket adds takes milliseconds to import
    import errno
    import re

    for path in documents.values():
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for found in re.finditer(r"^\s*listen\s+(?:([\d.]+):)?(\d+)\b([^;\n]*);", text, re.M):
            address, port, options = found.groups()
            if "reuseport" in options or "quic" in options:
                continue
            probe = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
            try:
                probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                probe.bind((address or "0.0.0.0", int(port)))  # noqa: S104 - as nginx does
                probe.listen(1)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return f"port {port} is taken already{_holder(int(port))}"
            finally:
                probe.close()
    return ""


def _holder(port: int) -> str:
    """Who listens on a port, with a space before it; nothing where that can't be seen."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file]
        except OSError:
            continue
        # proc(5): the local address, the state (listening), the inode
        sockets |= {
            f"socket:[{row[9]}]"
            for row in rows[1:]
            if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
        }
    for pid in sorted(map(int, filter(str.isdecimal, os.listdir("/proc")))):
        place = f"/proc/{pid}/fd"
        try:
            if any(os.readlink(f"{place}/{number}") in sockets for number in os.listdir(place)):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    return f" by {file.read().strip()}, process {pid}"
        except OSError:
            continue  # it is another user's, or has ended
    return ""


def _show(directory: str) -> int:
    """Print what can be set."""
    from eggcrate.runtime import variables

    try:
        table = variables.table(variables.load(directory)) if directory else ""
    except variables.SettingsProblem as error:
        return _complain("; ".join(error.problems), EX_CONFIG)
    print(table or "eggcrate: this image has no settings", end="" if table else "\n")
    return 0


def _supervisor(command: Sequence[str]) -> Sequence[str] | None:
    """How a script that starts Circus is run to be a good first process; None for others.

    It keeps its Python and its ``sys.path``, and gets ``main`` of ``runtime.circusd`` in the
    place of Circus's, which takes the signals that have come meanwhile.
    """
    if os.path.basename(command[0]) != "circusd":
        return None
    places = [""] if "/" in command[0] else os.get_exec_path()
    for script in (os.path.join(place, command[0]) for place in places):
        if os.path.isfile(script):
            break
    else:
        return None
    with open(script, "rb") as file:
        first = os.fsdecode(file.readline(4096))
    if not first.startswith("#!"):
        return None
    program, *switches = first[2:].split()
    if not os.path.basename(program).startswith("python"):
        return None
    launcher = os.path.join(os.path.dirname(os.path.abspath(__file__)), "circusd.py")
    return [program, *switches, launcher, script, *command[1:]]


def find_nginx(wanted: str = "") -> str | None:
    """The path of nginx: on PATH, or where an ordinary user's PATH doesn't lead.

    A script of ours is none, and may have its name.
    """
    if "/" in wanted:
        return wanted if os.path.exists(wanted) else None
    for directory in (*os.get_exec_path(), "/usr/sbin"):
        path = os.path.join(directory, wanted or "nginx")
        if os.path.isfile(path) and os.access(path, os.X_OK) and not _is_ours(path):
            return path
    return None


def _is_ours(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!" and b"eggcrate.runtime.nginxctl" in file.read(65536)
    except OSError:
        return False


def _complain(problem: str, code: int) -> int:
    print(f"eggcrate: {problem}", file=sys.stderr)
    return code
