"""Compressed bytes depend on what is written, and on nothing else."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import time
import unittest
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from eggcrate.errors import SettingsError
from eggcrate.image import compression
from eggcrate.image.compression import MEMBER, Sink, Written, compressor, plain

DATA = random.Random(7).randbytes(MEMBER) + b"text " * MEMBER + bytes(MEMBER // 3)


def packed(data: bytes, kind: str, *, cuts: int = 0, threads: int = 2) -> tuple[bytes, Written]:
    stream = io.BytesIO()
    places = sorted(random.Random(cuts).choices(range(len(data) + 1), k=cuts))
    with ThreadPoolExecutor(threads) as pool:
        sink = Sink(stream, kind, pool)
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            sink.write(data[start:end])
        written = sink.close()
    return stream.getvalue(), written


class Streams(unittest.TestCase):
    def test_neither_cuts_nor_threads_are_in_the_bytes(self) -> None:
        for kind in compression.KINDS:
            whole = packed(DATA, kind)
            for cuts, threads in ((1, 1), (100, 4), (3000, 2)):
                self.assertEqual(packed(DATA, kind, cuts=cuts, threads=threads), whole, kind)

    def test_both_sides_are_digested(self) -> None:
        for kind in compression.KINDS:
            stored, written = packed(DATA, kind)
            self.assertEqual(written.diff_id, f"sha256:{hashlib.sha256(DATA).hexdigest()}")
            self.assertEqual(written.digest, f"sha256:{hashlib.sha256(stored).hexdigest()}")
            self.assertEqual((written.size, written.stored), (len(DATA), len(stored)))

    def test_every_reader_gets_the_data_back(self) -> None:
        for size in (0, 1, MEMBER - 1, MEMBER, MEMBER + 1, len(DATA)):
            for kind in compression.KINDS:
                stored, _ = packed(DATA[:size], kind)
                media_type = f"application/x.tar{compression.SUFFIX[kind]}"
                with plain(io.BytesIO(stored), media_type) as stream:
                    self.assertEqual(stream.read(), DATA[:size], (kind, size))
            self.assertEqual(gzip.decompress(packed(DATA[:size], "gzip")[0]), DATA[:size])

    def test_an_error_of_a_thread_reaches_the_caller(self) -> None:
        def broken(kind: str) -> object:
            def compress(data: bytes) -> bytes:
                raise MemoryError

            return compress

        with (
            mock.patch.object(compression, "_compress", broken),
            self.assertRaises(MemoryError),
        ):
            packed(DATA, "gzip")

    def test_an_error_of_the_stream_reaches_the_caller(self) -> None:
        class Full(io.BytesIO):
            def write(self, data: Any) -> int:
                raise OSError(28, "No space left on device")

        for kind in compression.KINDS:
            with ThreadPoolExecutor(2) as pool, self.assertRaises(OSError):
                sink = Sink(Full(), kind, pool)
                sink.write(DATA)
                sink.close()

    def test_members_that_are_ready_too_early_wait(self) -> None:
        def slow_at_first(kind: str) -> object:
            def compress(data: bytes) -> bytes:
                time.sleep(0.05 if data[0] == 0 else 0)
                return data[:1]

            return compress

        data = b"".join(bytes([number]) * MEMBER for number in (0, 1, 2, 3, 0, 4))
        with mock.patch.object(compression, "_compress", slow_at_first):
            self.assertEqual(packed(data, "gzip", threads=4)[0], bytes((0, 1, 2, 3, 0, 4)))

    def test_few_members_are_in_memory(self) -> None:
        waiting: list[int] = []
        stream = io.BytesIO()

        class Pool(ThreadPoolExecutor):
            def submit(self, *arguments: Any, **options: Any) -> Any:
                future = super().submit(*arguments, **options)
                waiting.append(len(waiting) + 1 - len(stream.getvalue()))
                return future

        def compress(data: bytes) -> bytes:
            time.sleep(0.001)
            return b"x"

        with (
            mock.patch.object(compression, "cores", lambda: 2),
            mock.patch.object(compression, "_compress", lambda kind: compress),
            Pool(1) as pool,
        ):
            sink = Sink(stream, "gzip", pool)
            for _ in range(40):
                sink.write(bytes(MEMBER))
            self.assertEqual(sink.close().stored, 40)
        self.assertLessEqual(max(waiting), 2 * compression._AHEAD + 1)

    def test_members_have_neither_time_nor_name(self) -> None:
        stored, _ = packed(DATA, "gzip")
        sizes = []
        while stored:
            # RFC 1952, 2.3: no flag is set, and the time is 0
            self.assertEqual(stored[:8], b"\x1f\x8b\x08\0\0\0\0\0")
            member = zlib.decompressobj(31)
            sizes.append(len(member.decompress(stored)))
            stored = member.unused_data
        self.assertEqual(sizes[:-1], [MEMBER] * (len(DATA) // MEMBER))
        self.assertEqual(sum(sizes), len(DATA))

    def test_frames_have_checksums(self) -> None:
        stored, _ = packed(DATA, "zstd")
        zstd = compression._zstd()
        damaged = bytearray(stored)
        damaged[-1] ^= 1
        self.assertEqual(zstd.decompress(stored), DATA)
        with self.assertRaises(zstd.ZstdError):
            zstd.decompress(bytes(damaged))

    def test_a_python_without_zstandard(self) -> None:
        compression._zstd.cache_clear()
        self.addCleanup(compression._zstd.cache_clear)
        with (
            mock.patch("importlib.import_module", side_effect=ImportError),
            self.assertRaises(SettingsError) as caught,
        ):
            packed(b"", "zstd")
        self.assertIn("eggcrate[zstd], or use gzip", caught.exception.hint)

    def test_the_compressor_is_named_with_its_version(self) -> None:
        self.assertRegex(
            compressor("gzip"), r"^deflate \d+\.\d+\S*, level 6, members of 1048576"
        )
        self.assertRegex(compressor("zstd"), r"^zstd \d+\.\d+\S*, level \d+, frames of")
        self.assertEqual(compressor("none"), "none")
