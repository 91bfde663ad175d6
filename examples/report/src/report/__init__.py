"""Sum up nginx's access log, as the shop's nginx writes it: a line of JSON a request."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate


@dataclass(frozen=True)
class Request:
    """One line of the log; the time is in seconds."""

    path: str
    status: int
    time: float


@dataclass(frozen=True)
class Row:
    """What is known about one path; times are in milliseconds."""

    path: str
    requests: int
    errors: int
    median: float
    slowest: float


def requests(lines: Iterable[str]) -> Iterator[Request]:
    """Yield what is a request; Circus and gunicorn may write into the same stream."""
    for line in lines:
        try:
            entry = json.loads(line)
            path = str(entry["uri"]).partition("?")[0]
            yield Request(path, int(entry["status"]), float(entry["request_time"]))
        except (ValueError, KeyError, TypeError):
            continue


def summary(found: Iterable[Request]) -> list[Row]:
    """Return a row for each path, the most wanted first."""
    by_path = defaultdict(list)
    for request in found:
        by_path[request.path].append(request)
    rows = []
    for path, group in by_path.items():
        times = [1000 * request.time for request in group]
        errors = sum(request.status >= 500 for request in group)
        rows.append(Row(path, len(group), errors, statistics.median(times), max(times)))
    return sorted(rows, key=lambda row: (-row.requests, row.path))


def main() -> None:
    """Read a log from a file or from standard input, write a table."""
    parser = argparse.ArgumentParser(
        prog="report", description="Sum up nginx's access log (JSON lines)."
    )
    parser.add_argument("log", nargs="?", type=Path, help="a file (default: standard input)")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="rows (default: 20)")
    arguments = parser.parse_args()
    try:
        text = arguments.log.read_text() if arguments.log else sys.stdin.read()
    except (OSError, UnicodeError) as error:
        parser.exit(1, f"report: {error}\n")
    rows = summary(requests(text.splitlines()))
    if not rows:
        parser.exit(1, "report: there is no request in this log\n")
    headers = ["path", "requests", "5xx", "median ms", "slowest ms"]
    table = [
        (row.path, row.requests, row.errors, row.median, row.slowest)
        for row in rows[: arguments.top]
    ]
    print(tabulate(table, headers, floatfmt=".0f"))
