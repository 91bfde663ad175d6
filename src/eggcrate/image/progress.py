"""How far long work is: a bar on a terminal, else a line for each step."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from eggcrate.image.plan import amount

# Bytes that are written so fast that nobody wonders
_QUICK = 8 << 20


@contextmanager
def progress(logger: logging.Logger, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that is told of each so many bytes more, of ``total``."""
    if total < _QUICK:
        yield lambda size: None
        return
    if not (logger.isEnabledFor(logging.INFO) and _has_room(sys.stderr)):
        logger.info("%s, %s", what, amount(total))
        yield lambda size: None
        return
    from tqdm import tqdm

    with tqdm(
        desc=what, total=total, unit="B", unit_scale=True, leave=False, file=sys.stderr
    ) as bar:
        yield lambda size: bar.update(size) and None


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
