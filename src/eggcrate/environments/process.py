"""Programs that we start: followed line by line, masked, ended at a deadline or with us."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

# A password may have an "@" in it, and even what it must not have, a "/"
_CREDENTIALS = re.compile(
    r"(?<=://)(?:[^/\s]+(?=@)|[^/@\s:]+:(?!\d+/)[^@\s]*(?=@[^/@\s]+(?:/|\s|$)))"
)

#: between two calls of whoever follows a program that prints nothing
_TICK = 0.1

#: prctl(2): the signal that a process gets when the one that started it is gone
_PR_SET_PDEATHSIG = 1


def masked(text: str) -> str:
    """The text, with the user names and passwords of URLs made unreadable."""
    return _CREDENTIALS.sub("****", text)


class Failed(Exception):
    """A program ended with an error; ``output`` is all that it printed, masked."""

    def __init__(self, output: str, seconds: float = 0) -> None:
        super().__init__(output)
        self.output = output
        #: how long it ran
        self.seconds = seconds

    def message(self) -> str:
        """The error it ended with, in one line."""
        lines = self.output.splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s*(?:(?i:error): |\u00d7 )", line):
                lines = lines[number:]
                break
        words = " ".join(
            # without blanks and frames at its beginning
            re.sub(r"^[^!-~]*(?:(?i:error): )?", "", line)
            for line in lines
            if not line.startswith(("WARNING:", "[notice]", "Looking in "))
        ).split()
        text = " ".join(words).replace(" cause: ", ": ").rstrip(".") or "it says nothing"
        return text if len(text) <= 900 else f"{text[:300]} ... {text[-600:]}"


class TookTooLong(Failed):
    """A program was not done at its deadline, and has been killed."""


def run(
    command: Sequence[str],
    directory: pathlib.Path,
    environ: Mapping[str, str],
    *,
    errors: bool = True,
    timeout: float | None = None,
    told: Callable[[str], None] = lambda line: None,
    keep: Sequence[int] = (),
) -> str:
    """What the program prints (without its errors, if they are not wanted), masked.

    ``told`` gets each line as it comes, and an empty one now and then.  After ``timeout``
    seconds the program and what it has started are killed, and :class:`TookTooLong` is
    raised.  ``keep`` are file descriptors that it inherits.  When this process is killed,
    so is the program (on Linux).
    """
    begun = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, to be killed as one
            pass_fds=keep,
            preexec_fn=_dying_with_us(),
        )
    except OSError as error:
        raise Failed(f"error: {command[0]}: {error.strerror}") from error
    lines = []
    try:
        for line in _lines(process, begun + timeout if timeout is not None else None):
            text = masked(line.decode("utf-8", "replace"))
            if text:
                lines.append(text)
            told(text.rstrip())
    except BaseException as error:
        _kill(process)
        if isinstance(error, TimeoutError):
            raise TookTooLong("".join(lines), time.monotonic() - begun) from None
        raise
    output = "".join(lines)
    if process.wait():
        raise Failed(output, time.monotonic() - begun)
    return output


def _lines(process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[bytes]:
    """The lines that a process prints, until it ends; an empty one after each tick."""
    assert process.stdout is not None
    rest = b""
    with process.stdout as stream, selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
            if not selector.select(_TICK):
                yield b""
                continue
            data = os.read(stream.fileno(), 1 << 16)
            *whole, rest = (rest + data).split(b"\n")
            yield from (line + b"\n" for line in whole)
            if not data:
                break
    if rest:
        yield rest


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@functools.cache
def _dying_with_us() -> Callable[[], object] | None:
    """What a new process calls to be killed with this one: it would go on writing."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
