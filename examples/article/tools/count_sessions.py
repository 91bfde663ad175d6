"""Count Django's session files by the day on which they were used last."""

from __future__ import annotations

import argparse
import datetime
from collections import Counter
from pathlib import Path

from tabulate import tabulate


def main() -> None:
    """Write a table of days and sessions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where the session files are")
    directory: Path = parser.parse_args().directory
    used = (path.stat().st_mtime for path in directory.glob("sessionid*"))
    days = Counter(datetime.date.fromtimestamp(seconds) for seconds in used)
    print(tabulate(sorted(days.items()), ["day", "sessions"]))
