"""The recipe of a virtualenv-part in this process: the seconds that it takes, as JSON.

environments.py runs this with a Python that has eggcrate, in the directory of a buildout
whose section ``venv`` is the part's, without a recipe.
"""

from __future__ import annotations

import json
import sys
import time

import zc.buildout.buildout

# what Python reports before it starts a program, whatever asks it to
STARTS = ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen")


def main(action: str) -> None:
    """Import the recipe, call its constructor and ``install`` or ``update``.

    ``count`` is ``update`` with programs counted, which takes time.
    """
    buildout = zc.buildout.buildout.Buildout("buildout.cfg", [("buildout", "newest", "false")])
    options = buildout["venv"]
    started: list[str] = []
    if action == "count":
        sys.addaudithook(lambda event, _: started.append(event) if event in STARTS else None)
    begun = time.perf_counter()
    from eggcrate.recipes.virtualenv_part import Recipe  # this is measured

    imported = time.perf_counter()
    recipe = Recipe(buildout, "venv", options)
    constructed = time.perf_counter()
    if action == "install":
        recipe.install()
    else:
        recipe.update()
    done = time.perf_counter()
    seconds = {"import": imported - begun, "constructor": constructed - imported}
    print(json.dumps({**seconds, "action": done - constructed, "programs": len(started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
