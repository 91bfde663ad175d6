"""The small cron: when a schedule says that something runs, and how runs come and end."""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from unittest import mock

from eggcrate.runtime import cron


@contextlib.contextmanager
def zone(name: str) -> Iterator[None]:
    """Be somewhere else."""
    with mock.patch.dict(os.environ, TZ=name):
        time.tzset()
        try:
            yield
        finally:
            os.environ.pop("TZ")
            time.tzset()
    time.tzset()


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def runs(schedule: str, after: str, count: int = 3) -> list[str]:
    """The next runs, as a clock on the wall shows them."""
    parsed = cron.parse(schedule)
    found: list[str] = []
    last: float | None = at(after)
    for _ in range(count):
        assert last is not None
        last = parsed.next(last)
        if last is None:
            break
        found.append(datetime.datetime.fromtimestamp(last).isoformat(" ", "minutes"))
    return found


class Schedules(unittest.TestCase):
    def test_fields(self) -> None:
        for schedule, expected in (
            ("30 3 * * *", ["2026-11-28 03:30", "2026-11-29 03:30"]),
            ("*/20 * * * *", ["2026-11-27 12:20", "2026-11-27 12:40"]),
            ("5/20 * * * *", ["2026-11-27 12:05", "2026-11-27 12:25"]),
            ("0 9-11,17 * * *", ["2026-11-27 17:00", "2026-11-28 09:00"]),
            ("0 0 * * mon", ["2026-11-30 00:00", "2026-12-07 00:00"]),
            ("0 0 * * fri-sun", ["2026-11-28 00:00", "2026-11-29 00:00"]),
            ("0 0 * * 7", ["2026-11-29 00:00", "2026-12-06 00:00"]),
            ("0 0 1 Jan *", ["2027-01-01 00:00", "2028-01-01 00:00"]),
            ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
            # both fields are given: either will do
            ("0 0 13 * fri", ["2026-12-04 00:00", "2026-12-11 00:00"]),
            # one begins with *: both must fit
            ("0 0 */2 * mon", ["2026-12-07 00:00", "2026-12-21 00:00"]),
            ("@hourly", ["2026-11-27 13:00", "2026-11-27 14:00"]),
            ("@Weekly", ["2026-11-29 00:00", "2026-12-06 00:00"]),
            ("@yearly", ["2027-01-01 00:00", "2028-01-01 00:00"]),
        ):
            with self.subTest(schedule):
                self.assertEqual(runs(schedule, "2026-11-27 12:00:00", 2), expected)

    def test_mistakes(self) -> None:
        for schedule, expected in (
            ("", "has not five fields"),
            ("* * * *", "has not five fields"),
            ("* * * * * *", "has not five fields"),
            ("60 * * * *", "has the minute 60, and minutes go from 0 to 59"),
            ("* 24 * * *", "has the hour 24"),
            ("* * 0 * *", "has the day 0"),
            ("* * * * 8", "has the weekday 8"),
            ("* * * foo *", "has 'foo' for the month, which is no month"),
            ("*/0 * * * *", "has '*/0' for the minute, which is nothing"),
            ("5-1 * * * *", "has '5-1' for the minute, which is nothing"),
            ("1;2 * * * *", "has '1;2' for the minute; write *"),
            (",1 * * * *", "has '' for the minute"),
            ("\N{SUPERSCRIPT TWO} * * * *", "which is no minute"),
            ("0 0 30 2 *", "is a day that never comes"),
            ("@reboot", "@reboot is none of @annually"),
        ):
            with self.subTest(schedule), self.assertRaisesRegex(ValueError, "") as caught:
                cron.parse(schedule)
            self.assertIn(expected, str(caught.exception))

    def test_it_agrees_with_a_look_at_every_minute(self) -> None:
        dice = random.Random(4711)

        def field(low: int, high: int) -> str:
            one, other = sorted(dice.sample(range(low, high + 1), 2))
            return dice.choice(["*", "*/3", str(one), f"{one}-{other}", f"{one},{other}"])

        bounds = [(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)]
        with zone("UTC"):
            for _ in range(30):
                text = " ".join(field(*bound) for bound in bounds)
                schedule = cron.parse(text)
                start = at("2026-01-30 22:57:31")
                expected = next(
                    (
                        minute
                        for minute in range(
                            int(start // 60 + 1) * 60, int(start) + 86400 * 9, 60
                        )
                        if (clock := time.gmtime(minute)).tm_min in schedule.minutes
                        and clock.tm_hour in schedule.hours
                        and schedule.has_day(datetime.date(*clock[:3]))
                    ),
                    None,
                )
                found = schedule.next(start)
                if expected is None:
                    assert found is None or found >= start + 86400 * 8
                else:
                    self.assertEqual(found, expected, text)

    def test_a_day_on_which_clocks_go_forward(self) -> None:
        # 02:00 becomes 03:00 on 29 March 2026
        with zone("Europe/Berlin"):
            self.assertEqual(
                runs("30 2 * * *", "2026-03-28 12:00:00"),
                ["2026-03-29 03:30", "2026-03-30 02:30", "2026-03-31 02:30"],
            )
            self.assertEqual(
                runs("0 * * * *", "2026-03-29 00:30:00"),
                ["2026-03-29 01:00", "2026-03-29 03:00", "2026-03-29 04:00"],
            )

    def test_a_day_on_which_they_go_back(self) -> None:
        # 03:00 becomes 02:00 on 25 October 2026
        with zone("Europe/Berlin"):
            self.assertEqual(
                runs("30 2 * * *", "2026-10-25 00:00:00"),
                ["2026-10-25 02:30", "2026-10-26 02:30", "2026-10-27 02:30"],
            )
            self.assertEqual(
                runs("*/30 * * * *", "2026-10-25 01:45:00", 5),
                [
                    f"2026-10-25 {clock}"
                    for clock in ("02:00", "02:30", "02:00", "02:30", "03:00")
                ],
            )


class Jobs(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)

    def started(self, prelude: str, *command: str) -> subprocess.Popen[str]:
        """A job of its own process whose schedule is soon."""
        code = (
            "import sys, time\n"
            "from eggcrate.runtime import cron\n"
            f"{prelude}\n"
            "sys.exit(cron.main(sys.argv[1:]))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, "--name", "tidy", "* * * * *", *command],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        return process

    #: a run every 50 ms
    OFTEN = "cron.Schedule.next = lambda self, after: after + 0.05"

    def line(self, process: subprocess.Popen[str], but: str = "left out") -> str:
        assert process.stdout is not None
        while but in (line := process.stdout.readline()):
            pass  # a matter of how fast this machine is
        return line

    def test_it_says_how_each_run_ended(self) -> None:
        process = self.started(self.OFTEN, sys.executable, "-c", "print('hello'); exit(3)")
        self.assertRegex(self.line(process), r"^cron tidy: .*: first at \d{4}-\d\d-\d\d ")
        for _ in range(2):
            self.assertEqual(self.line(process), "hello\n")
            self.assertRegex(self.line(process), r"^cron tidy: exit code 3 after \d+\.\d s\n$")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(50), 0)

    def test_a_program_that_is_not_there_is_said_at_each_run(self) -> None:
        process = self.started(self.OFTEN, "/no/such/program")
        self.line(process)
        for _ in range(2):
            expected = "cron tidy: /no/such/program can't be run: No such file or directory\n"
            self.assertEqual(self.line(process), expected)

    def test_a_run_that_takes_long_is_never_joined_by_another(self) -> None:
        process = self.started(self.OFTEN, "/bin/sh", "-c", "echo a; sleep 0.3; echo b")
        self.line(process)
        for _ in range(2):
            self.assertEqual(self.line(process), "a\n")
            self.assertEqual(self.line(process), "b\n")
            self.assertIn("exit code 0", self.line(process))
            self.assertRegex(
                self.line(process, "nothing"),
                r"^cron tidy: left out \d+ runs?, as it took so long\n$",
            )

    def test_a_signal_that_has_no_name(self) -> None:
        number = signal.SIGRTMIN + 1
        process = self.started(self.OFTEN, "/bin/sh", "-c", f"kill -{number} $$")
        self.line(process)
        self.assertIn(f"cron tidy: ended by signal {number} after", self.line(process))

    def test_sigterm_ends_what_runs_and_all_that_it_started(self) -> None:
        marker = self.directory / "pid"
        script = f"sleep 60 & echo $! > {marker}; echo runs; wait"
        process = self.started(self.OFTEN, "/bin/sh", "-c", script)
        self.line(process)
        self.assertEqual(self.line(process), "runs\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(50), 0)
        assert process.stdout is not None
        self.assertIn("cron tidy: ended by SIGTERM after", process.stdout.read())
        pid = int(marker.read_text())
        for _ in range(600):
            if not _is_alive(pid):
                break
            time.sleep(0.05)
        self.assertFalse(_is_alive(pid))

    def test_sigterm_ends_it_at_once_while_nothing_runs(self) -> None:
        process = self.started("cron.Schedule.next = lambda self, after: after + 999", "true")
        self.line(process)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(50), 0)

    def test_mistakes_end_it_with_78(self) -> None:
        for arguments, expected in (
            (["* * * * *"], "there is no command; write one after the schedule"),
            (["* * * *", "true"], "the schedule '* * * *' has not five fields"),
        ):
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors):
                self.assertEqual(cron.main(arguments), 78)
            self.assertIn(expected, errors.getvalue())

    def test_it_runs_as_a_file_without_the_package(self) -> None:
        result = subprocess.run(
            [sys.executable, "-I", cron.__file__, "60 * * * *", "true"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(result.returncode, 78)
        self.assertIn("cron: the schedule has the minute 60", result.stderr)


def _is_alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            return not pathlib.Path("/proc/self").exists()
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
