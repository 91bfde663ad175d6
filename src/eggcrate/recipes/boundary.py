"""Where our errors become zc.buildout's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import zc.buildout

from eggcrate.errors import EggcrateError


@contextlib.contextmanager
def user_errors(part: str) -> Iterator[None]:
    """Turn an :class:`EggcrateError` into a ``UserError`` that names the part.

    Anything else is a bug of ours and keeps its traceback.
    """
    try:
        yield
    except EggcrateError as error:
        raise zc.buildout.UserError(f"[{part}] {error}") from error
