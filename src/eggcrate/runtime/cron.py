"""Runs one command by the clock, as a line of a crontab does, under a supervisor.

There is no cron in a container.  This one runs in the foreground, has one job, says on
standard output how each run ended, and ends with its supervisor::

    python cron.py "30 3 * * *" bin/django clearsessions

It is used where the configuration was made, and shipped in the image.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

EX_CONFIG = 78
NOT_EXECUTABLE = 126
NOT_FOUND = 127

#: what stands for five fields
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# name, lowest and highest value, names of values from the lowest on
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _DAYS),
)
_ITEM = re.compile(r"(?:(?P<all>\*)|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>[0-9]+))?")
# 29 February may be eight years away: 2096 and 2104
_DAYS_AHEAD = 366 * 8 + 2
# a clock may be set while we sleep
_LONGEST_SLEEP = 60.0


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The minutes at which something runs, in local time; made by :func:`parse`.

    ``every_hour`` says that the hour is ``*`` or ``*/N``: then what counts is how much
    time passes.  Else it is what a clock on the wall shows: when clocks go forward over
    a run, it comes an hour later, and when they go back it doesn't come again.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    every_hour: bool

    def has_day(self, day: datetime.date) -> bool:
        """Whether there are runs on a day.

        As in every cron, a day that fits either field will do where neither is ``*``.
        """
        if day.month not in self.months:
            return False
        of_month = day.day in self.days
        of_week = day.isoweekday() % 7 in self.weekdays
        return (of_month and of_week) if self.any_day else (of_month or of_week)

    def next(self, after: float) -> float | None:
        """The first run after a time, both in seconds since 1970; None if there is none."""
        start = (after // 60 + 1) * 60
        day = datetime.datetime.fromtimestamp(start).date()
        for _ in range(_DAYS_AHEAD):
            if self.has_day(day):
                runs = [at for at in self._runs(day) if at >= start]
                if runs:
                    return min(runs)
            day += datetime.timedelta(days=1)
        return None

    def _runs(self, day: datetime.date) -> list[float]:
        midnight = datetime.datetime(day.year, day.month, day.day)
        if not self.every_hour:
            return [
                midnight.replace(hour=hour, minute=minute).timestamp()
                for hour in self.hours
                for minute in self.minutes
            ]
        end = int((midnight + datetime.timedelta(days=1)).timestamp())
        runs = []
        for at in range(int(midnight.timestamp()), end, 60):
            clock = time.localtime(at)
            if clock.tm_min in self.minutes and clock.tm_hour in self.hours:
                runs.append(float(at))
        return runs


def parse(text: str) -> Schedule:
    """The schedule that five fields of a crontab, or ``@daily`` and the like, describe.

    ``ValueError`` says what is wrong, in a sentence that can go on after "schedule".
    """
    words = text.split()
    if len(words) == 1 and words[0].startswith("@"):
        nickname = words[0].lower()
        if nickname not in NICKNAMES:
            raise ValueError(f"{words[0]} is none of {', '.join(sorted(NICKNAMES))}")
        words = NICKNAMES[nickname].split()
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"{text.strip()!r} has not five fields: minute, hour, day, month, weekday"
        )
    values = [_values(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = values
    schedule = Schedule(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        any_day=words[2].startswith("*") or words[4].startswith("*"),
        every_hour=words[1].startswith("*"),
    )
    # a leap year, which has every day there is
    first = datetime.date(2096, 1, 1)
    if not any(schedule.has_day(first + datetime.timedelta(days=n)) for n in range(366 * 5)):
        raise ValueError(f"{text.strip()!r} is a day that never comes")
    return schedule


def _values(
    text: str, name: str, lowest: int, highest: int, names: tuple[str, ...]
) -> frozenset[int]:
    def number(word: str) -> int:
        if word.lower()[:3] in names and word.isalpha():
            return names.index(word.lower()[:3]) + lowest
        if not word.isascii() or not word.isdigit():
            raise ValueError(f"has {word!r} for the {name}, which is no {name}")
        if not lowest <= int(word) <= highest:
            raise ValueError(
                f"has the {name} {word}, and {name}s go from {lowest} to {highest}"
            )
        return int(word)

    found: set[int] = set()
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"has {item!r} for the {name}; write *, 5, 1-5, */10 or 1,3")
        step = int(match["step"] or 1)
        if match["all"]:
            low, high = lowest, highest
        else:
            low = number(match["low"])
            # 5/10: from 5 on, every tenth
            last = highest if match["step"] else low
            high = number(match["high"]) if match["high"] else last
            if high < low and high == 0 and names is _DAYS:
                high = 7  # fri-sun
        if step < 1 or low > high:
            raise ValueError(f"has {item!r} for the {name}, which is nothing")
        found.update(range(low, high + 1, step))
    return frozenset(found)


class Job:
    """A command that runs by a schedule, and never twice at once."""

    def __init__(self, name: str, schedule: Schedule, command: Sequence[str]) -> None:
        self._name = name
        self._schedule = schedule
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._sleeping = False
        self._stopped = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, which the command gets too; the exit code is 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        due = self._schedule.next(time.time())
        if due is None:
            self.say("there is no next run")
            return EX_CONFIG
        self.say(f"{shlex.join(self._command)}: first at {_shown(due)}")
        with contextlib.suppress(_Stopped):
            while not self._stopped and due is not None:
                self._wait(due)
                self.once()
                due = self._after(due)
        return 0

    def once(self) -> int:
        """Run the command once, and say how it ended; its exit code, as a shell has it."""
        began = time.monotonic()
        try:
            # a session of its own: what it starts is reached, too
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            self.say(f"{self._command[0]} can't be run: {error.strerror}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        if self._stopped:  # in the moment before there was somebody to tell
            self._end()
        code = self._child.wait()
        self._child = None
        took = f"after {time.monotonic() - began:.1f} s"
        if code < 0:
            self.say(f"ended by {_name(-code)} {took}")
            return 128 - code
        self.say(f"exit code {code} {took}")
        return code

    def say(self, text: str) -> None:
        """Write a line at once, so that no other process writes into it."""
        sys.stdout.flush()
        with contextlib.suppress(OSError):  # whoever read it is gone
            os.write(1, f"cron {self._name}: {text}\n".encode("utf-8", "backslashreplace"))

    def _wait(self, due: float) -> None:
        while True:
            self._sleeping = True
            try:
                if self._stopped:
                    raise _Stopped
                left = due - time.time()
                if left <= 0:
                    return
                time.sleep(min(left, _LONGEST_SLEEP))
            finally:
                self._sleeping = False

    def _after(self, due: float) -> float | None:
        """The next run; those that came while the last one went on are left out."""
        now = time.time()
        missed = 0
        following = self._schedule.next(due)
        while following is not None and following <= now:
            missed += 1
            following = self._schedule.next(following)
            if missed == 1000:  # the clock was set, perhaps by years
                following = self._schedule.next(now)
        if missed:
            self.say(f"left out {missed} run{'s' if missed > 1 else ''}, as it took so long")
        return following

    def _stop(self, number: int, frame: object) -> None:
        self._stopped = True
        if self._child is not None:
            self._end()
        elif self._sleeping:
            raise _Stopped

    def _end(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGTERM)


class _Stopped(Exception):
    """The end has come while nothing runs."""


def _name(number: int) -> str:
    """The name of a signal; most of those for real time have none."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _shown(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().isoformat(" ", "minutes")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser("cron", description="Run a command by the clock.")
    parser.add_argument("--name", default="", help="what messages begin with")
    parser.add_argument("schedule", help='five fields, as in "30 3 * * *", or @daily')
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run, no shell")
    arguments = parser.parse_args(argv)
    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        print("cron: there is no command; write one after the schedule", file=sys.stderr)
        return EX_CONFIG
    try:
        schedule = parse(arguments.schedule)
    except ValueError as error:
        print(f"cron: the schedule {error}", file=sys.stderr)
        return EX_CONFIG
    return Job(arguments.name or os.path.basename(command[0]), schedule, command).run()


if __name__ == "__main__":
    sys.exit(main())
