"""What runs in a container, on the standard library alone."""

from __future__ import annotations

import os
import sys


def settings(directory: str | None = None) -> dict[str, int | bool | float | str | list[str]]:
    """The runtime settings with their types: for Django's settings module, for instance.

    They have the names that ``[runtime]`` gives them; a size is in bytes, a duration in
    seconds, a list of hosts or networks a list.  They are those of ``directory``, or those
    that the container was started with, or those of the buildout whose script this process
    runs.  Where there are none, the result is empty.
    """
    from eggcrate.runtime import start, variables

    script = os.path.abspath(sys.argv[0] if sys.argv else "")
    places = (
        directory,
        os.environ.get(start.APPLIED),
        os.path.join(os.path.dirname(os.path.dirname(script)), "parts", variables.DIRECTORY),
    )
    place = next((place for place in places if place and os.path.isdir(place)), None)
    if place is None:
        return {}
    known = variables.load(place)
    return variables.typed(known, variables.read(known, os.environ).values)
