"""How far long work is: a bar on a terminal, else a line for each step."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

# Seconds after which somebody wonders
_WHILE = 15

# Bytes that are written so fast that nobody wonders
_QUICK = 8 << 20


@contextmanager
def progress(logger: logging.Logger, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that is told of each so many bytes more, of ``total``."""
    if total < _QUICK:
        yield lambda size: None
        return
    if not (logger.isEnabledFor(logging.INFO) and _has_room(sys.stderr)):
        from eggcrate.image.words import amount  # who has no image needs none of it

        logger.info("%s, %s", what, amount(total))
        yield lambda size: None
        return
    from tqdm import tqdm

    with tqdm(
        desc=what, total=total, unit="B", unit_scale=True, leave=False, file=sys.stderr
    ) as bar:
        yield lambda size: bar.update(size) and None


@contextmanager
def status(logger: logging.Logger, what: str) -> Iterator[Callable[[str], None]]:
    """A function that is told what is being done, and with nothing, that it goes on.

    On a terminal there is a line that says so, with the seconds; elsewhere one comes now and
    then, so that nobody thinks that it hangs.
    """
    if not logger.isEnabledFor(logging.INFO):
        yield lambda doing: None
        return
    if not _has_room(sys.stderr):
        yield _NowAndThen(logger)
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread: processes are forked meanwhile
    with tqdm(bar_format="{desc}  {elapsed}", leave=False, file=sys.stderr) as bar:

        def told(doing: str) -> None:
            if doing:
                bar.set_description_str(f"{what}: {doing}", refresh=False)
            bar.refresh()

        yield told


class _NowAndThen:
    """A line after each while in which something went on."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._begun = self._last = time.monotonic()
        self._doing = "working"

    def __call__(self, doing: str) -> None:
        self._doing = doing or self._doing
        now = time.monotonic()
        if now - self._last > _WHILE:
            self._last = now
            self._logger.info("%s, %d s", self._doing, now - self._begun)


def _has_room(stream: TextIO | None) -> bool:
    """Whether there is such a stream, and it is a terminal with columns.

    Those of some container engines have none.
    """
    if stream is None or not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False
