"""The store: what has a name is complete, and an error leaves nothing behind."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from unittest import mock

from eggcrate.errors import PlanError
from eggcrate.image import store as stores
from eggcrate.image.store import (
    LEFTOVER,
    Store,
    default_root,
    remove,
    replacing,
    write_if_changed,
)

_IO_ERROR = OSError(errno.EIO, os.strerror(errno.EIO))

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

# Uses a store until nobody writes to it any longer, and for a moment more.
_BUILDING = """
import pathlib, sys, time
from eggcrate.image.store import Store
with Store(pathlib.Path(sys.argv[1])).in_use():
    print("building", flush=True)
    sys.stdin.read()
    time.sleep(0.5)
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

    def test_what_can_t_be_synced_is_not_there(self) -> None:
        path = self.root / "file"
        path.write_bytes(b"good")
        with (
            mock.patch("os.fsync", side_effect=_IO_ERROR),
            self.assertRaises(PlanError) as caught,
            replacing(path) as stream,
        ):
            stream.write(b"new")
        self.assertIn("Input/output error", caught.exception.what)
        self.assertEqual(path.read_bytes(), b"good")
        self.assertEqual(self.files(), ["file"])


class Removing(Scratch):
    def test_files_links_and_directories(self) -> None:
        (self.root / "kept").write_bytes(b"")
        (self.root / "link").symlink_to(".")
        (self.root / "directory/below").mkdir(parents=True)
        for name in ("link", "directory", "nosuch"):
            self.assertTrue(remove(self.root / name))
        self.assertEqual(self.files(), ["kept"])

    def test_half_a_directory_has_another_name(self) -> None:
        (self.root / "directory").mkdir()
        (self.root / "directory/file").write_bytes(b"")
        # as when it is killed
        with mock.patch("shutil.rmtree", side_effect=KeyError), self.assertRaises(KeyError):
            remove(self.root / "directory")
        (left,) = self.files()
        self.assertRegex(left, rf"^\.eggcrate-tmp-{os.getpid()}-\w+/file$")

    def test_what_can_t_be_removed(self) -> None:
        with mock.patch("pathlib.Path.unlink", side_effect=PermissionError):
            self.assertFalse(remove(self.root / "file"))


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
        with self.assertRaises(PlanError) as caught, Store(self.root / "file").scratch():
            pass
        self.assertIn("EGGCRATE_CACHE", caught.exception.hint)

    def test_a_directory_for_a_while(self) -> None:
        store = Store(self.root / "cache")
        with store.scratch() as place:
            (place / "x").write_bytes(b"abc")
            # what a killed process leaves is known by its name
            self.assertTrue(place.name.startswith(f"{LEFTOVER}{os.getpid()}-"))
        self.assertEqual(self.files(), [])

    def test_a_blob_is_verified_when_it_is_opened(self) -> None:
        store = Store(self.root)
        digest = store.put(b"abc")
        with store.open(digest) as stream:
            self.assertEqual(stream.read(), b"abc")
        store.blob(digest).write_bytes(b"abd")
        with self.assertRaises(PlanError) as caught:
            store.open(digest)
        self.assertEqual(
            str(caught.exception),
            f"the blob {digest} in the cache {self.root} is damaged; run again: it has been "
            "removed, and will be made anew",
        )
        self.assertFalse(store.has(digest, 3))

    def test_a_blob_that_was_verified_is_not_read_again(self) -> None:
        store = Store(self.root)
        digest = store.put(b"abc")
        store.verify(digest)
        with mock.patch.object(stores, "sha256", side_effect=KeyError):
            store.verify(digest)
            os.utime(store.blob(digest), (1, 1))
            self.assertRaises(KeyError, store.verify, digest)

    def test_what_is_damaged_goes_with_all_that_mentions_it(self) -> None:
        store = Store(self.root)
        digest, other = store.put(b"abc"), store.put(b"xyz")
        store.remember("layers", "a1", {"digest": digest})
        store.remember("layers", "a2", {"digest": other})
        store.keep_table("plans", "b1", [("f", os.fspath(store.blob(digest)))])
        store.keep_table("plans", "b2", [("f", os.fspath(store.blob(other)))])
        store.verify(digest)
        store.blob(digest).write_bytes(b"abd")
        self.assertRaises(PlanError, store.verify, digest)
        self.assertIsNone(store.recall("layers", "a1"))
        self.assertIsNone(store.table("plans", "b1"))
        self.assertIsNotNone(store.recall("layers", "a2"))
        self.assertIsNotNone(store.table("plans", "b2"))
        self.assertEqual(len(self.files()), 3)

    def test_a_blob_that_can_t_be_synced_is_not_there(self) -> None:
        store = Store(self.root)
        digest = f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
        with (
            mock.patch("os.fsync", side_effect=_IO_ERROR),
            self.assertRaises(PlanError) as caught,
            store.writing() as stream,
        ):
            stream.write(b"abc")
            store.adopt(stream, digest)
        self.assertEqual(
            caught.exception.what, f"the cache {self.root} can't be written: Input/output error"
        )
        self.assertEqual(self.files(), [])

    def test_it_counts_what_it_writes(self) -> None:
        store = Store(self.root)
        store.put(b"abc")
        store.put(b"abc")
        store.keep_table("plans", "a", "x" * 100)
        store.keep_table("plans", "a", "x" * 50)
        with store.writing() as stream:
            stream.write(b"xyz")
            store.adopt(stream, f"sha256:{hashlib.sha256(b'xyz').hexdigest()}")
        size = sum((self.root / name).stat().st_size for name in self.files())
        self.assertEqual(store.written, size)

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

    def test_no_damage_is_recalled(self) -> None:
        store = Store(self.root)
        store.remember("layers", "abc", {"diff_id": "sha256:12", "size": 1})
        store.keep_table("plans", "abc", [("a", 1, b"x")])
        for path in self.root.glob("records/*/ab/abc"):
            whole = path.read_bytes()
            for place in range(len(whole)):
                changed = bytearray(whole)
                changed[place] ^= 1 << place % 8
                path.write_bytes(changed)
                self.assertIsNone(store.recall("layers", "abc") and store.table("plans", "abc"))
                path.write_bytes(whole[:place])
                self.assertIsNone(store.recall("layers", "abc") and store.table("plans", "abc"))
            path.write_bytes(whole)
        self.assertEqual(store.recall("layers", "abc"), {"diff_id": "sha256:12", "size": 1})
        self.assertEqual(store.table("plans", "abc"), [("a", 1, b"x")])

    def test_a_record_says_within_an_hour_when_it_was_used(self) -> None:
        Store(self.root).remember("layers", "abc", {})
        Store(self.root).keep_table("plans", "abc", [])
        uses: tuple[Callable[[Store], object], ...] = (
            lambda store: store.recall("layers", "abc"),
            lambda store: store.table("plans", "abc"),
            lambda store: store.has_table("plans", "abc"),
        )
        for use in uses:
            now = time.time()
            for age, expected in ((1000, 1000), (10_000, 0)):
                for path in self.root.glob("records/*/ab/abc"):
                    os.utime(path, (now - age, now - age))
                use(Store(self.root))
                found = [path.stat().st_mtime for path in self.root.glob("records/*/ab/abc")]
                self.assertAlmostEqual(now - max(found), expected, delta=60)

    def test_a_look_is_no_use(self) -> None:
        store = Store(self.root)
        Store(self.root).keep_table("plans", "abc", [1])
        (path,) = self.root.glob("records/*/ab/abc")
        os.utime(path, (1, 1))
        self.assertEqual(store.peek("plans", "abc"), [1])
        self.assertIsNone(store.peek("plans", "other"))
        self.assertEqual((path.stat().st_mtime, store.used()), (1, []))

    def test_it_tells_what_was_used(self) -> None:
        Store(self.root).remember("layers", "a", {})
        store = Store(self.root)
        store.verify(store.put(b"x"))
        store.recall("layers", "a")
        store.recall("layers", "b")
        store.remember("layers", "c", {})
        store.keep_table("plans", "d", [])
        store.has_table("plans", "e")
        plans = f"plans-{stores._TABLES}"
        self.assertEqual(store.used(), ["layers/a", "layers/c", f"{plans}/d"])


class ReadOnly(Scratch):
    """A store that this user can't write; root is refused by a mock."""

    def setUp(self) -> None:
        super().setUp()
        self.store = Store(self.root)
        self.digest = self.store.put(b"abc")
        self.store.remember("layers", "abc", {"size": 1})
        refused = OSError(errno.EROFS, os.strerror(errno.EROFS))
        for name in ("pathlib.Path.replace", "pathlib.Path.unlink", "os.utime"):
            patch = mock.patch(name, side_effect=refused)
            patch.start()
            self.addCleanup(patch.stop)

    def test_it_serves_what_it_has(self) -> None:
        self.assertEqual(self.store.recall("layers", "abc"), {"size": 1})
        self.assertEqual(self.store.put(b"abc"), self.digest)
        self.store.verify(self.digest)
        with self.store.in_use(), self.store.open(self.digest) as stream:
            self.assertEqual(stream.read(), b"abc")

    def test_nothing_has_to_be_remembered(self) -> None:
        self.store.remember("layers", "xyz", {})
        self.store.keep_table("plans", "xyz", [])
        self.assertIsNone(self.store.recall("layers", "xyz"))
        self.assertNotIn("layers/xyz", self.store.used())

    def test_a_blob_has_to_be_kept(self) -> None:
        with self.assertRaises(PlanError) as caught:
            self.store.put(b"xyz")
        self.assertEqual(
            str(caught.exception),
            f"the cache {self.root} can't be written: Read-only file system; make room, or "
            "name another directory in EGGCRATE_CACHE",
        )

    def test_what_is_damaged_is_named(self) -> None:
        blob = self.store.blob(self.digest)
        blob.write_bytes(b"abd")
        with self.assertRaises(PlanError) as caught:
            self.store.verify(self.digest)
        self.assertEqual(
            caught.exception.hint, f"remove {blob}, which this user can't, and run again"
        )


class Lock(Scratch):
    def test_builds_share_it(self) -> None:
        store = Store(self.root / "new")
        with store.in_use(), Store(store.root).in_use(), store.alone(0) as alone:
            self.assertFalse(alone)
        with store.alone(0) as alone:
            self.assertTrue(alone)

    def test_it_waits_for_them(self) -> None:
        store = Store(self.root)
        build = subprocess.Popen(
            [sys.executable, "-c", _BUILDING, self.root],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert build.stdin is not None and build.stdout is not None
        with build.stdout:
            self.assertEqual(build.stdout.readline(), b"building\n")
            with store.alone(0) as alone:
                self.assertFalse(alone)
            build.stdin.close()
            with store.alone(60) as alone:
                self.assertTrue(alone)
        self.assertEqual(build.wait(), 0)

    def test_a_build_waits_until_it_is_pruned(self) -> None:
        with Store(self.root).alone(0):
            build = subprocess.Popen(
                [sys.executable, "-c", _BUILDING, self.root],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            assert build.stdout is not None
            time.sleep(0.3)
            os.set_blocking(build.stdout.fileno(), False)
            self.assertIsNone(build.stdout.read())
        with build.stdout:
            self.assertEqual(build.wait(), 0)
            self.assertEqual(build.stdout.read(), b"building\n")

    def test_without_a_lock_nobody_prunes(self) -> None:
        (self.root / "file").write_bytes(b"")
        store = Store(self.root / "file")
        with store.in_use():
            pass
        with self.assertRaises(PlanError) as caught, store.alone(0):
            pass
        self.assertIn(f"the cache {store.root} can't be written", caught.exception.what)


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
