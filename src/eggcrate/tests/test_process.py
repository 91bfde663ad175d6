from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from eggcrate.environments import process

HERE = pathlib.Path.cwd()


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


def is_there(identifier: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        status = pathlib.Path(f"/proc/{identifier}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class RunTest(unittest.TestCase):
    def run_(self, code: str, **options: object) -> str:
        return process.run(python(code), HERE, dict(os.environ), **options)  # type: ignore[arg-type] # passed on

    def test_what_it_prints(self) -> None:
        lines: list[str] = []
        output = self.run_(
            "import sys; print('one'); sys.stdout.flush();"
            "print('https://me:secret@a.example/', file=sys.stderr); print(end='three')",
            told=lines.append,
        )
        self.assertEqual(
            sorted(output.splitlines()), ["https://****@a.example/", "one", "three"]
        )
        self.assertEqual(sorted(filter(None, lines)), sorted(output.splitlines()))
        self.assertEqual(
            self.run_("import sys; print(1); print(2, file=sys.stderr)", errors=False), "1\n"
        )

    def test_lines_come_while_it_runs(self) -> None:
        seen: list[str] = []
        with tempfile.TemporaryDirectory() as directory:
            known = pathlib.Path(directory, "known")

            def told(line: str) -> None:
                # now and then it is said that nothing came
                if seen == ["a"] and not line:
                    known.touch()
                elif line:
                    seen.append(line)

            self.run_(
                "import pathlib, time; print('a', flush=True)\n"
                f"while not pathlib.Path({str(known)!r}).exists(): time.sleep(0.01)\n"
                "print('b')",
                told=told,
                timeout=60,
            )
        self.assertEqual(seen, ["a", "b"])

    def test_failure(self) -> None:
        with self.assertRaises(process.Failed) as caught:
            self.run_("print('error: so it is'); raise SystemExit(3)")
        self.assertEqual(caught.exception.message(), "so it is")
        with self.assertRaises(process.Failed) as caught:
            process.run(["/nonexistent"], HERE, {})
        self.assertIn("No such file", caught.exception.message())

    def test_deadline(self) -> None:
        script = "sleep 60 & echo $!; wait"
        begun = time.monotonic()
        with self.assertRaises(process.TookTooLong) as caught:
            process.run(["sh", "-c", script], HERE, dict(os.environ), timeout=2)
        self.assertLess(time.monotonic() - begun, 50)
        self.assertGreaterEqual(caught.exception.seconds, 2)
        # what it has started is gone, too
        child = int(caught.exception.output)
        for _ in range(600):
            if not is_there(child):
                break
            time.sleep(0.05)
        self.assertFalse(is_there(child))

    def test_interrupted(self) -> None:
        started: list[int] = []

        def told(line: str) -> None:
            if line:
                started.append(int(line))
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.run_(
                "import os, time; print(os.getpid(), flush=True); time.sleep(60)", told=told
            )
        self.assertFalse(is_there(started[0]))

    def test_it_ends_with_us(self) -> None:
        code = f"""
import os, pathlib, sys
sys.path[:0] = {sys.path!r}
from eggcrate.environments import process
process.run(
    [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"],
    pathlib.Path.cwd(), os.environ, told=lambda line: line and print(line, flush=True),
)
"""
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        ) as us:
            assert us.stdout is not None
            started = int(us.stdout.readline())
            self.assertTrue(is_there(started))
            us.send_signal(signal.SIGKILL)
            us.wait()
            for _ in range(600):
                if not is_there(started):
                    break
                time.sleep(0.05)
            self.assertFalse(is_there(started))


class MaskedTest(unittest.TestCase):
    def test_passwords(self) -> None:
        for text, masked in (
            ("https://me:secret@a.example/", "https://****@a.example/"),
            ("https://me:s@cret@a.example/", "https://****@a.example/"),
            ("https://me:s/cret@a.example/x", "https://****@a.example/x"),
            ("see https://token@a.example.", "see https://****@a.example."),
            ("https://a.example:8080/x@1", "https://a.example:8080/x@1"),
            ("git+https://a.example/x.git@v1", "git+https://a.example/x.git@v1"),
            ("https://a.example/ me@b.example", "https://a.example/ me@b.example"),
        ):
            with self.subTest(text):
                self.assertEqual(process.masked(text), masked)


class MessageTest(unittest.TestCase):
    def test_the_error_alone(self) -> None:
        for output, message in (
            ("Using Python\nerror: no\n  cause: that\n", "no: that"),
            (
                "  \u00d7 No solution:\n  ╰─▶ Because it is so,\n      it is.\n",
                "No solution: Because it is so, it is",
            ),
            ("WARNING: old\nERROR: new\n[notice] x\n", "new"),
            ("", "it says nothing"),
        ):
            with self.subTest(output):
                self.assertEqual(process.Failed(output).message(), message)

    def test_a_long_one_is_cut(self) -> None:
        message = process.Failed("error: " + "word " * 1000 + "end").message()
        self.assertLess(len(message), 1000)
        self.assertTrue(message.endswith("end"))


if __name__ == "__main__":
    unittest.main()
