"""Compressed bytes depend on what is written, and on nothing else."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import unittest
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

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

    def test_the_compressor_is_named_with_its_version(self) -> None:
        self.assertRegex(
            compressor("gzip"), r"^deflate \d+\.\d+\S*, level 6, members of 1048576"
        )
        self.assertRegex(compressor("zstd"), r"^zstd \d+\.\d+\S*, level \d+, frames of")
        self.assertEqual(compressor("none"), "none")
