"""nginx for one configuration, on a developer's machine as in an image: start, stop, reload."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from eggcrate.runtime.start import (
    EX_CONFIG,
    NOT_EXECUTABLE,
    NOT_FOUND,
    apply_here,
    find_nginx,
    run_directory_problem,
    start,
    try_here,
)

FAILED = 1

# Seconds in which requests have to end, and between two looks
_PATIENCE = 10.0
_AGAIN = 0.05

_PIECE = re.compile(
    r"#[^\n]*|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[{};]|(?:\$\{[^}\s]*\}?|[^\s{};])+",
    re.DOTALL,
)

_COMMANDS = """\
commands:
  start    run nginx in the foreground (the default)
  stop     let nginx end its requests, and wait until it has
  reload   test the configuration, and have nginx take it
  test     test the configuration

Anything that begins with a single dash is nginx's own, as in -V."""


def main(
    configuration: str,
    run_directory: str,
    settings: str = "",
    argv: Sequence[str] | None = None,
) -> int:
    """Do what the arguments say to the nginx of ``configuration``; gives the exit code.

    Runtime settings are those of the directory ``settings``, if nobody has applied them yet.

    It is 78 for a configuration that nginx refuses, 127 without an nginx, 126 for one that
    can't be run, and 1 where there is no process to talk to.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    own = bool(given) and re.match(r"-[^-]", given[0]) is not None
    arguments = _arguments([] if own else given)
    program = find_nginx(arguments.program)
    if program is None:
        wanted = arguments.program
        return _complain(
            f"{wanted} was not found" if wanted else "there is no nginx here; install it",
            NOT_FOUND,
        )
    if own:  # who finds this on PATH means nginx
        return start(run_directory, [program, *given], needed=False)
    try:
        with open(configuration, encoding="utf-8") as file:
            found = main_directives(file.read())
    except (OSError, UnicodeDecodeError) as error:
        return _complain(f"{configuration} can't be read: {error}", EX_CONFIG)
    nginx = _Nginx(program, configuration, run_directory, settings, found)
    if arguments.command == "stop":
        return nginx.stop(now=arguments.now)
    return {"start": nginx.start, "reload": nginx.reload, "test": nginx.test}[
        arguments.command
    ]()


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run nginx with the configuration of a buildout.",
        epilog=_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ("start", "stop", "reload", "test")
    parser.add_argument("command", nargs="?", default="start", choices=names)
    parser.add_argument("--now", action="store_true", help="with stop: end requests, too")
    parser.add_argument("--program", default="", help="the nginx to run")
    arguments = parser.parse_args(argv)
    if arguments.now and arguments.command != "stop":
        parser.error("--now goes with stop")
    return arguments


def main_directives(text: str) -> dict[str, str]:
    """The directives outside all blocks, each with its first argument."""
    found: dict[str, str] = {}
    words: list[str] = []
    depth = 0
    for piece in _PIECE.findall(text):
        if piece[0] == "#":
            continue
        if piece in ("{", "}", ";"):
            if piece == ";" and depth == 0 and len(words) > 1:
                found.setdefault(words[0], words[1])
            depth += {"{": 1, "}": -1, ";": 0}[piece]
            words = []
        else:
            words.append(piece[1:-1] if piece[0] in "'\"" else piece)
    return found


class _Nginx:
    """The nginx that runs with a configuration, or could."""

    def __init__(
        self,
        program: str,
        configuration: str,
        run_directory: str,
        settings: str,
        directives: dict[str, str],
    ) -> None:
        self._program = program
        self._configuration = configuration
        self._run_directory = run_directory
        self._settings = settings
        self._directives = directives

    def start(self) -> int:
        """Become nginx, in the foreground."""
        pid, _ = self._running()
        if pid:
            return _complain(f"nginx runs already, it is process {pid}; stop it", FAILED)
        settled = self._settled()
        if settled is None:
            return EX_CONFIG
        command = self._command(settled)
        if "daemon" not in self._directives:
            command += ["-g", "daemon off;"]
        return start(self._run_directory, command)

    def test(self) -> int:
        """Have nginx test the configuration, which isn't used yet; it says what is wrong."""
        if problem := run_directory_problem(self._run_directory):
            return _complain(problem, EX_CONFIG)
        return try_here(self._settings, self._run_directory, self._configuration, self._tested)

    def reload(self) -> int:
        """Have the running nginx read its configuration again, unless it would refuse it."""
        pid, problem = self._running()
        if problem:
            return _complain(problem, FAILED)
        code = self.test()
        if not code and self._settled() is None:
            code = EX_CONFIG
        if code:
            _complain("nginx isn't told to reload, and goes on with what it has", code)
            return code
        return self._send(pid, signal.SIGHUP)

    def stop(self, *, now: bool) -> int:
        """End the running nginx, and its requests too if that is to be ``now``."""
        pid, problem = self._running()
        if problem:
            return _complain(problem, FAILED)
        if code := self._send(pid, signal.SIGTERM if now else signal.SIGQUIT):
            return code
        deadline = time.monotonic() + _PATIENCE
        while _is_alive(pid):
            if time.monotonic() > deadline:
                return _complain(
                    f"nginx, process {pid}, has not ended in {_PATIENCE:.0f} s; "
                    + ("kill it" if now else "stop --now doesn't wait for requests"),
                    FAILED,
                )
            time.sleep(_AGAIN)
        return 0

    def _settled(self) -> str | None:
        """The configuration, with the settings in it that the environment has now."""
        return apply_here(self._settings, self._run_directory, self._configuration)

    def _tested(self, configuration: str, unsaid: str) -> int:
        try:
            done = subprocess.run(
                [*self._command(configuration), "-t"], stderr=subprocess.PIPE, check=False
            )
        except OSError as error:
            return _complain(f"{self._program} can't be run: {error.strerror}", NOT_EXECUTABLE)
        said = done.stderr.decode("utf-8", "replace")
        print(said.replace(unsaid, "") if unsaid else said, end="", file=sys.stderr)
        return EX_CONFIG if done.returncode else 0

    def _command(self, configuration: str) -> list[str]:
        return [self._program, "-e", "stderr", "-c", configuration]

    def _send(self, pid: int, number: signal.Signals) -> int:
        try:
            os.kill(pid, number)
        except PermissionError:
            return _complain(f"nginx, process {pid}, is another user's; ask as that", FAILED)
        except ProcessLookupError:
            return _complain(f"nginx, process {pid}, has just ended", FAILED)
        return 0

    def _running(self) -> tuple[int, str]:
        """The first process of our nginx; or 0, and why there is none."""
        path = self._pid_file()
        try:
            with open(path, encoding="ascii") as file:
                pid = int(file.read(32))
        except FileNotFoundError:
            return 0, f"nginx doesn't run: there is no {path}"
        except OSError as error:
            return 0, f"{path} can't be read: {error.strerror}"
        except ValueError:  # nginx -t leaves an empty one
            return 0, f"nginx doesn't run: {path} holds no process number"
        if pid <= 0 or not _is_alive(pid):
            return 0, f"nginx doesn't run: {path} is left from process {pid}, which has ended"
        if other := _other_program(pid, self._program):
            return 0, f"nginx doesn't run: {path} is left, and process {pid} is {other}"
        return pid, ""

    def _pid_file(self) -> str:
        path = self._directives.get("pid", "")
        if path.startswith("/"):
            return path
        built = _built_in(self._program)
        path = path or built("pid-path") or "logs/nginx.pid"
        return os.path.join(built("prefix") or "/usr/local/nginx", path)


def _built_in(program: str) -> Callable[[str], str]:
    """Where nginx has its files unless it is told otherwise, by the name of the option."""
    try:
        said = subprocess.run([program, "-V"], capture_output=True, check=False).stderr
    except OSError:
        said = b""
    options = dict(re.findall(r"--([\w-]+)=(\S+)", said.decode("utf-8", "replace")))
    return lambda name: options.get(name, "")


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # the name, in parentheses, may have some of its own
    return not any(line.rpartition(b")")[2].split()[:1] == [b"Z"] for line in _of(pid, "stat"))


def _other_program(pid: int, program: str) -> str:
    """The name of a process that is no nginx, where that can be seen."""
    for title in _of(pid, "cmdline"):
        if title.startswith(b"nginx: "):
            worker = not title.startswith(b"nginx: master")
            return "a worker of another nginx" if worker else ""
    for line in _of(pid, "comm"):
        name = os.fsdecode(line.strip())
        # as much as the kernel keeps of a name
        return "" if name in ("nginx", os.path.basename(program)[:15]) else name
    return ""


def _of(pid: int, name: str) -> Iterator[bytes]:
    """What the kernel knows of a process, where it tells."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            yield file.read()
    except OSError:
        return


def _complain(problem: str, code: int) -> int:
    print(f"eggcrate: {problem}", file=sys.stderr)
    return code
