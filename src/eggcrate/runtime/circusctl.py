"""circusctl for one configuration: it asks the circusd that runs with it."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping

_SECTION = re.compile(r"\[(?P<name>[^]]+)\]")
_OPTION = re.compile(r"(?P<name>[^\s=:][^=:]*?)\s*[=:]\s*(?P<value>.*)")
_VARIABLE = re.compile(r"\$\(circus\.env\.([\w.-]+)\)|\(\(circus\.env\.([\w.-]+)\)\)", re.I)


def circus_options(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The options of ``[circus]``, the endpoints among them.

    Read as Circus does: the first value counts, " ;" ends one.
    """
    lower = {name.lower(): value for name, value in environment.items()}

    def value(match: re.Match[str]) -> str:
        return lower.get((match[1] or match[2]).lower(), match[0])

    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if match := _SECTION.match(line):
            section = match["name"]
        elif section == "circus" and (match := _OPTION.match(line)):
            cut = re.split(r"\s;", match["value"], maxsplit=1)[0].strip()
            found.setdefault(match["name"], _VARIABLE.sub(value, cut))
    return found


def main(configuration: str) -> int:
    """Run Circus's own circusctl, with the endpoint that the configuration has."""
    try:
        with open(configuration, encoding="utf-8") as stream:
            found = circus_options(stream.read(), os.environ)
    except (OSError, UnicodeDecodeError) as error:
        print(f"circusctl: {configuration} can't be read: {error}", file=sys.stderr)
        return 78
    if found.get("endpoint"):
        os.environ.setdefault("CIRCUSCTL_ENDPOINT", found["endpoint"])
    given = any(word.partition("=")[0] == "--endpoint" for word in sys.argv[1:])
    if "listen" in sys.argv[1:] and not given and found.get("pubsub_endpoint"):
        # the one command that goes to the other endpoint
        sys.argv[1:1] = ["--endpoint", found["pubsub_endpoint"]]
    importlib.import_module("circus.circusctl").main()
    return 0
