"""What a program finds where it runs: in a container, what the engine has given it."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import tempfile

from tabulate import tabulate


def facts() -> dict[str, str | int]:
    """Return what there is, by name."""
    return {
        "report": importlib.metadata.version("report"),
        "python": platform.python_version(),
        "user": f"{os.getuid()}:{os.getgid()}",
        "processors": len(os.sched_getaffinity(0)),
        "temporary files": temporary_files(),
    }


def temporary_files() -> str:
    """Return where they go; on a read-only file system there may be no place."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return "nowhere"


def main() -> None:
    """Write a table, or YAML."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("--yaml", action="store_true", help="YAML in place of a table")
    if parser.parse_args().yaml:
        import yaml  # the extra of that name

        print(yaml.safe_dump(facts(), sort_keys=False), end="")
    else:
        print(tabulate(facts().items(), ["what", "is"]))
