"""The tool's own tests: ``bin/report-python -m unittest discover examples/report/tests``."""

from __future__ import annotations

import unittest

from report import Row, requests, summary

LOG = """\
2026-11-23 10:00:00 circus[1] [INFO] nginx started
{"uri":"/","status":200,"request_time":0.010}
{"uri":"/?page=2","status":502,"request_time":0.030}
{"uri":"/products/quail/","status":200,"request_time":0.004}
{"uri":"/cut","status":2
"a string"
17
{"status":200}
"""


class ReportTest(unittest.TestCase):
    def test_requests_are_counted_by_path_without_the_query(self) -> None:
        self.assertEqual(
            summary(requests(LOG.splitlines())),
            [Row("/", 2, 1, 20.0, 30.0), Row("/products/quail/", 1, 0, 4.0, 4.0)],
        )

    def test_nothing_in_nothing_out(self) -> None:
        self.assertEqual(summary(requests([])), [])


if __name__ == "__main__":
    unittest.main()
