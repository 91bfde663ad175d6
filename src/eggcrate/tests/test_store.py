"""The store: what has a name is complete, and an error leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from eggcrate.errors import PlanError
from eggcrate.image import store as stores
from eggcrate.image.store import Store, default_root, replacing, write_if_changed

# Started in four processes at once: each puts the same blobs.
_WRITER = """
import pathlib, sys
from eggcrate.image.store import Store
store = Store(pathlib.Path(sys.argv[1]))
for number in range(20):
    digest = store.put(bytes([number]) * 100_000)
    store.remember("test", "k", {"digest": digest})
    assert store.recall("test", "k")
"""


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)

    def files(self) -> list[str]:
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if not path.is_dir() or path.is_symlink()
        )


class Replacing(Scratch):
    def test_the_bytes_appear_at_once(self) -> None:
        path = self.root / "new" / "file"
        with replacing(path, 0o640) as stream:
            stream.write(b"one")
            self.assertFalse(path.exists())
        self.assertEqual(path.read_bytes(), b"one")
        self.assertEqual(path.stat().st_mode & 0o777, 0o640)
        self.assertEqual(self.files(), ["new/file"])

    def test_the_mode_does_not_depend_on_the_umask(self) -> None:
        before = os.umask(0o077)
        try:
            with replacing(self.root / "file") as stream:
                stream.write(b"")
        finally:
            os.umask(before)
        self.assertEqual((self.root / "file").stat().st_mode & 0o777, 0o644)

    def test_after_an_error_all_is_as_it_was(self) -> None:
        path = self.root / "file"
        path.write_bytes(b"good")
        with self.assertRaises(KeyError), replacing(path) as stream:
            stream.write(b"half")
            raise KeyError
        self.assertEqual(path.read_bytes(), b"good")
        self.assertEqual(self.files(), ["file"])

    def test_a_link_is_replaced_and_what_it_led_to_is_kept(self) -> None:
        (self.root / "kept").write_bytes(b"kept")
        (self.root / "link").symlink_to("kept")
        with replacing(self.root / "link") as stream:
            stream.write(b"new")
        self.assertEqual((self.root / "kept").read_bytes(), b"kept")
        self.assertEqual((self.root / "link").read_bytes(), b"new")

    def test_a_place_that_can_t_be_written_is_one_sentence(self) -> None:
        (self.root / "file").write_bytes(b"")
        (self.root / "directory").mkdir()
        for path in (self.root / "file" / "below", self.root / "directory"):
            with self.assertRaises(PlanError) as caught, replacing(path) as stream:
                stream.write(b"")
            self.assertTrue(caught.exception.what.startswith(f"{path} can't be written: "))
        self.assertEqual(self.files(), ["file"])

    def test_a_full_disk_is_one_sentence(self) -> None:
        full = pathlib.Path("/dev/full")
        if not full.exists():
            self.skipTest("there is no /dev/full")
        with self.assertRaises(PlanError) as caught, replacing(self.root / "file"):
            full.write_bytes(b"x")
        self.assertIn("No space left on device", caught.exception.what)
        self.assertEqual(self.files(), [])


class WritingIfChanged(Scratch):
    def test_an_unchanged_file_is_not_touched(self) -> None:
        path = self.root / "file"
        self.assertTrue(write_if_changed(path, b"one"))
        os.utime(path, (1, 1))
        self.assertFalse(write_if_changed(path, b"one"))
        self.assertEqual(path.stat().st_mtime, 1)
        self.assertTrue(write_if_changed(path, b"two"))
        self.assertEqual(path.read_bytes(), b"two")


class Blobs(Scratch):
    def test_a_blob_lies_under_the_digest_of_its_bytes(self) -> None:
        digest = Store(self.root).put(b"abc")
        self.assertEqual(digest, f"sha256:{hashlib.sha256(b'abc').hexdigest()}")
        self.assertEqual(self.files(), [f"blobs/sha256/{digest.partition(':')[2]}"])
        self.assertEqual(Store(self.root).blob(digest).read_bytes(), b"abc")

    def test_a_blob_is_written_once(self) -> None:
        store = Store(self.root)
        path = store.blob(store.put(b"abc"))
        os.utime(path, (1, 1))
        store.put(b"abc")
        self.assertEqual(path.stat().st_mtime, 1)

    def test_a_blob_that_was_cut_off_is_not_there(self) -> None:
        store = Store(self.root)
        digest = store.put(b"abc")
        store.blob(digest).write_bytes(b"ab")
        self.assertFalse(store.has(digest, 3))
        store.put(b"abc")
        self.assertTrue(store.has(digest, 3))
        self.assertEqual(store.blob(digest).read_bytes(), b"abc")

    def test_a_stream_becomes_a_blob_when_it_is_adopted(self) -> None:
        store = Store(self.root)
        digest = f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
        with store.writing() as stream:
            stream.write(b"abc")
            self.assertFalse(store.has(digest, 3))
            store.adopt(stream, digest)
        self.assertEqual(store.blob(digest).read_bytes(), b"abc")
        self.assertEqual(len(list((self.root / "blobs").rglob("*"))), 2)

    def test_a_stream_that_is_not_adopted_leaves_nothing(self) -> None:
        with Store(self.root).writing() as stream:
            stream.write(b"abc")
        with self.assertRaises(KeyError), Store(self.root).writing():
            raise KeyError
        self.assertEqual(self.files(), [])

    def test_a_store_that_can_t_be_written_names_the_variable(self) -> None:
        (self.root / "file").write_bytes(b"")
        with (
            self.assertRaises(PlanError) as caught,
            Store(self.root / "file").writing() as stream,
        ):
            stream.write(b"")
        self.assertIn("EGGCRATE_CACHE", caught.exception.hint)

    def test_several_processes_may_write_at_a_time(self) -> None:
        package = pathlib.Path(stores.__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": os.fspath(package)}
        writers = [
            subprocess.Popen([sys.executable, "-c", _WRITER, self.root], env=environment)
            for _ in range(4)
        ]
        self.assertEqual([writer.wait() for writer in writers], [0] * 4)
        blobs = list((self.root / "blobs" / "sha256").iterdir())
        self.assertEqual(len(blobs), 20)
        for blob in blobs:
            self.assertEqual(hashlib.sha256(blob.read_bytes()).hexdigest(), blob.name)
        self.assertEqual([name for name in self.files() if "tmp" in name], [])


class Records(Scratch):
    def test_what_was_remembered_is_recalled(self) -> None:
        store = Store(self.root)
        self.assertIsNone(store.recall("layers", "abc"))
        store.remember("layers", "abc", {"size": 1})
        self.assertEqual(Store(self.root).recall("layers", "abc"), {"size": 1})
        self.assertIsNone(store.recall("other", "abc"))

    def test_what_is_not_whole_is_not_recalled(self) -> None:
        store = Store(self.root)
        store.remember("layers", "abc", {"size": 1})
        path = self.root / "records" / "layers" / "ab" / "abc"
        for damaged in (b"", b"{", b"[1]", b"\xff", b"null"):
            path.write_bytes(damaged)
            self.assertIsNone(store.recall("layers", "abc"), damaged)


class Changed(Scratch):
    """Files whose bytes are not what they were."""

    def test_a_file_of_the_store_is_removed(self) -> None:
        store = Store(self.root / "cache")
        blob = store.blob(store.put(b"x"))
        self.assertIn("damaged", store.changed(blob).what)
        self.assertFalse(blob.exists())
        package = self.root / "cache/debs/unpacked/abc"
        (package / "files").mkdir(parents=True)
        (package / "files/1").write_text("x")
        self.assertIn("damaged", store.changed(package / "files/1").what)
        self.assertFalse(package.exists())
        self.assertTrue(package.parent.exists())

    def test_a_file_of_the_user_stays(self) -> None:
        path = self.root / "file"
        path.write_text("x")
        error = Store(self.root / "cache").changed(path)
        self.assertEqual(error.what, f"{path} changed while it was read")
        self.assertTrue(path.exists())


class Place(unittest.TestCase):
    def place(self, **environment: str) -> str:
        with mock.patch.dict(os.environ, environment, clear=True):
            return os.fspath(default_root())

    def test_the_variable_then_the_users_cache(self) -> None:
        self.assertEqual(self.place(EGGCRATE_CACHE="/a", XDG_CACHE_HOME="/b", HOME="/c"), "/a")
        self.assertEqual(self.place(XDG_CACHE_HOME="/b", HOME="/c"), "/b/eggcrate")
        self.assertEqual(self.place(XDG_CACHE_HOME="", HOME="/c"), "/c/.cache/eggcrate")
