"""PID 1 of an image: makes the run directory, then becomes the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# sysexits.h: a configuration error; and what a shell says of a program that it can't run
EX_CONFIG = 78
NOT_EXECUTABLE = 126
NOT_FOUND = 127


def run_directory_problem(path: str) -> str | None:
    """Make the private directory at ``path``, mode 0700; what is wrong when it can't be.

    One that is there is taken when it is this user's own, or can be written.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            return (
                f"the run directory {path} can't be written by user {os.geteuid()}; start "
                f"with --tmpfs {os.path.dirname(path)}"
            )
    except OSError as error:
        return (
            f"the run directory {path} can't be made by user {os.geteuid()}: "
            f"{error.strerror}; start with --tmpfs {os.path.dirname(path)}"
        )
    return None


def start(run_directory: str, command: Sequence[str]) -> int:
    """Become ``command``; come back only with the exit code of a failure.

    The codes are 78 (configuration), 127 (no such program), 126 (not executable).
    """
    if not command:
        return _complain("there is nothing to run; give docker run a command", EX_CONFIG)
    if problem := run_directory_problem(run_directory):
        return _complain(problem, EX_CONFIG)
    sys.stdout.flush()
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - there is no shell, and none is wanted
    except FileNotFoundError:
        return _complain(f"{command[0]} was not found", NOT_FOUND)
    except OSError as error:
        return _complain(f"{command[0]} can't be run: {error.strerror}", NOT_EXECUTABLE)


def _complain(problem: str, code: int) -> int:
    print(f"eggcrate: {problem}", file=sys.stderr)
    return code
