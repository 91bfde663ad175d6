"""Long work says how far it is: with a bar to people, with a line to logs."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import pty
import struct
import sys
import termios
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO
from unittest import mock

from eggcrate.image.progress import progress

MB = 1_000_000


class Said(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class ProgressTest(unittest.TestCase):
    def setUp(self) -> None:
        self.said = Said()
        self.logger = logging.Logger("test", logging.INFO)
        self.logger.addHandler(self.said)
        # a thread that looks after all bars would outlive the test
        patch = mock.patch("tqdm.tqdm.monitor_interval", 0)
        patch.start()
        self.addCleanup(patch.stop)

    @contextmanager
    def stderr(self, stream: TextIO | None) -> Iterator[None]:
        with mock.patch.object(sys, "stderr", stream):
            yield

    @contextmanager
    def terminal(self, columns: int = 80) -> Iterator[list[str]]:
        """A terminal as stderr; its text is in the list after the block."""
        shown: list[str] = []
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        try:
            with open(theirs, "w", encoding="utf-8") as stream, self.stderr(stream):
                yield shown
            data = b""
            # an error when all is read, and nobody writes
            with contextlib.suppress(OSError):
                while more := os.read(ours, 1 << 16):
                    data += more
            shown.append(data.decode())
        finally:
            os.close(ours)

    def work(self, total: int, steps: int = 4) -> None:
        with progress(self.logger, "layer 3 of 9: eggs", total) as written:
            for _ in range(steps):
                written(total // steps)

    def test_quick_work_says_nothing(self) -> None:
        stream = io.StringIO()
        for total in (0, 1, 8 * MB):
            with self.stderr(stream):
                self.work(total)
        with self.terminal() as shown:
            self.work(8 * MB)
        self.assertEqual((self.said.lines, stream.getvalue(), shown), ([], "", [""]))

    def test_long_work_logs_one_line(self) -> None:
        for stream in (io.StringIO(), None):
            with self.stderr(stream):
                self.work(210 * MB)
            self.assertEqual(self.said.lines, ["layer 3 of 9: eggs, 210 MB"])
            self.assertEqual(stream and stream.getvalue(), stream and "")
            self.said.lines.clear()

    def test_a_terminal_shows_a_bar_which_goes_away(self) -> None:
        with self.terminal() as shown:
            self.work(210 * MB)
        self.assertEqual(self.said.lines, [])
        (text,) = shown
        self.assertIn("layer 3 of 9: eggs:   0%", text)
        self.assertIn("/210M", text)
        # the cursor is where it was, and the line is empty
        self.assertRegex(text, r"\r +\r\Z")
        self.assertNotIn("\n", text)

    def test_a_terminal_without_columns(self) -> None:
        with self.terminal(columns=0) as shown:
            self.work(210 * MB)
        self.assertEqual((self.said.lines, shown), (["layer 3 of 9: eggs, 210 MB"], [""]))

    def test_the_bar_counts_the_bytes(self) -> None:
        counted: list[int] = []
        with (
            self.terminal(),
            mock.patch("tqdm.tqdm.update", lambda bar, size: counted.append(size)),
        ):
            self.work(100 * MB, steps=5)
        self.assertEqual(counted, [20 * MB] * 5)

    def test_who_wants_quiet_has_it(self) -> None:
        self.logger.setLevel(logging.WARNING)
        with self.terminal() as shown:
            self.work(210 * MB)
        self.assertEqual((self.said.lines, shown), ([], [""]))

    def test_after_an_error_the_bar_is_gone_too(self) -> None:
        with (
            self.terminal() as shown,
            self.assertRaises(KeyError),
            progress(self.logger, "layer", 210 * MB) as written,
        ):
            written(MB)
            raise KeyError
        self.assertRegex(shown[0], r"\r +\r\Z")
