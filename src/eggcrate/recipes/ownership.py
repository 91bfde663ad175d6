"""What a part of ours keeps when buildout reinstalls it, and removes when it goes.

zc.buildout deletes every path that a recipe returned before it installs the part anew.
For an environment or an image that is the wrong moment: a failing install would have
destroyed the last good one.  So our recipes return only what is cheap to make again, and
own the rest here: a part's constructor declares the paths, and buildout's uninstall hook
removes those that no part of this run declares any more.
"""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, MutableMapping

import zc.buildout

OPTION = "owned"

_live: set[str] = set()


def declare(options: MutableMapping[str, str], paths: Iterable[os.PathLike[str] | str]) -> None:
    """Record in the part's options that it owns ``paths`` (absolute, its alone)."""
    texts = sorted(os.fspath(path) for path in paths)
    options[OPTION] = "\n".join(texts)
    _live.update(texts)


def uninstall(name: str, options: Mapping[str, str]) -> None:
    """Remove what the part owned; buildout's ``zc.buildout.uninstall`` hook.

    A reinstalled part has declared its paths again in this run and keeps them.
    """
    for text in options.get(OPTION, "").split("\n"):
        path = pathlib.Path(text)
        if not text or text in _live or not path.is_absolute():
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise zc.buildout.UserError(
                f"[{name}] {path} can't be removed: {error.strerror}; check its permissions"
            ) from error
