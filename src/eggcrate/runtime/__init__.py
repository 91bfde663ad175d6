"""What runs in a container, on the standard library alone."""

from __future__ import annotations

import os
import sys


def settings(directory: str | None = None) -> dict[str, int | bool | float | str | list[str]]:
    """The runtime settings with their types: for Django's settings module, for instance.

    They have the names that ``[runtime]`` gives them; a size is in bytes, a duration in
    seconds, a list of hosts or networks a list.  They are those of ``directory``, or those
    that the container was started with, or those of the buildout whose script this process
    runs, or those of the image.  Where there are none, the result is empty.
    """
    from eggcrate.runtime import variables

    place = _place(directory)
    if place is None:
        return {}
    known = variables.load(place)
    return variables.typed(known, variables.read(known, os.environ).values)


def environment(directory: str | None = None) -> dict[str, str]:
    """The variables of this process, with what the files of ``NAME_FILE`` hold as ``NAME``.

    What a container's first process starts has them anyway; what ``docker exec`` starts beside
    it has not.  The settings are those of :func:`settings`.
    """
    from eggcrate.runtime import variables

    place = _place(directory)
    if place is None:
        return dict(os.environ)
    return variables.read(variables.load(place), os.environ).environment


def _place(directory: str | None) -> str | None:
    """The directory of the settings."""
    from eggcrate.runtime import start, variables

    script = os.path.abspath(sys.argv[0] if sys.argv else "")
    here = os.path.join(os.path.dirname(os.path.dirname(script)), "parts", variables.DIRECTORY)
    for place in (directory, os.environ.get(start.APPLIED), here):
        if place and os.path.isdir(place):
            return place
    # where this is installed among others, a package may have that name
    image = os.path.isfile(os.path.join(start.SETTINGS, variables.FILE))
    return start.SETTINGS if image else None
