"""The cache stays within its limit, and whatever happens to it, images stay what they are."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from eggcrate.errors import PlanError, SettingsError
from eggcrate.image import cache
from eggcrate.image.cache import LIMIT, Pruned, Usage, bound, prune, size_limit, usage
from eggcrate.image.layers import Layer, write_layer
from eggcrate.image.plan import FileEntry, LayerPlan, bytes_file, disk_file, merge
from eggcrate.image.store import Store
from eggcrate.payload.bytecode import bytecode_entries
from eggcrate.tests import layers
from eggcrate.tests.test_deb import make_deb
from eggcrate.tests.test_debian import as_user
from eggcrate.transports import deb

DAY = 86400
NOW = 2_000_000_000.0

# Writes the layer of the tests, in the store argv[1]; argv[2:] is when it is killed: before
# which call of which function.
_WRITER = """
import os, pathlib, signal, sys
from concurrent.futures import ThreadPoolExecutor
from eggcrate.image import layers, store
from eggcrate.image.plan import LayerPlan, bytes_file

def killing(owner, name, count):
    function, calls = getattr(owner, name), iter(range(1, 1000))
    def instead(*arguments, **options):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    setattr(owner, name, instead)

owners = {"header": (layers, "tar_header"), "fsync": (os, "fsync"),
          "rename": (pathlib.Path, "replace"), "record": (store.Store, "remember")}
if len(sys.argv) > 2:
    killing(*owners[sys.argv[2]], int(sys.argv[3]))
entries = [
    bytes_file(f"f{number:02}", bytes([number]) * 100_000, group="data", reason="test")
    for number in range(50)
]
if not sys.argv[2:]:
    sys.stdin.read()
layer = layers.write_layer(
    LayerPlan("data", tuple(entries)),
    store.Store(pathlib.Path(sys.argv[1])),
    compression="none",
    epoch=1,
    pool=ThreadPoolExecutor(1),
)
print(layer.descriptor.digest)
"""
# Writes a layer of random bytes in the store argv[1], and the file argv[2] of it.
_PLACE = """
import os, pathlib, random, sys
from concurrent.futures import ThreadPoolExecutor
from eggcrate.errors import PlanError
from eggcrate.image.layers import write_layer
from eggcrate.image.plan import LayerPlan, bytes_file
from eggcrate.image.store import Store, replacing

store, target = Store(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
for size in map(int, sys.argv[3:]):
    entry = bytes_file("f", random.Random(1).randbytes(size), group="data", reason="test")
    try:
        digest = write_layer(
            LayerPlan("data", (entry,)),
            store,
            compression="none",
            epoch=1,
            pool=ThreadPoolExecutor(1),
        ).descriptor.digest
        with replacing(target) as stream:
            store.write_to(digest, store.blob(digest).stat().st_size, stream)
        print(digest)
    except PlanError as error:
        print(error)
print(os.stat(store.root).st_dev == os.stat(target.parent).st_dev)
print(*(path.name for path in store.root.rglob(".*")))
"""
_MOUNTED = 'mount -t tmpfs -o size=8m none "$0" && exec "$@"'


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def layer_plan(*contents: bytes) -> LayerPlan:
    entries = [
        bytes_file(f"f{number}", data, group="data", reason="test")
        for number, data in enumerate(contents)
    ]
    return LayerPlan("data", tuple(entries))


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.root = self.scratch / "cache"
        self.store = Store(self.root)

    def write(self, plan: LayerPlan, compression: str = "none", epoch: int = 1) -> Layer:
        with ThreadPoolExecutor(2) as pool:
            return write_layer(
                plan, self.store, compression=compression, epoch=epoch, pool=pool
            )

    def files(self) -> set[str]:
        """What is in the store, but for the lock and what is known of its size."""
        found = {
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if not path.is_dir()
        }
        return found - {"lock", "size"}

    def size(self) -> int:
        return sum((self.root / name).stat().st_size for name in self.files())

    def age(self, path: pathlib.Path, days: float) -> None:
        os.utime(path, (NOW - days * DAY, NOW - days * DAY))

    def put(self, name: str, size: int = 1000, days: float = 1) -> str:
        """A blob that was written some days ago."""
        digest = self.store.put(name.encode().ljust(size, b"."))
        self.age(self.store.blob(digest), days)
        return digest

    def add_layer(self, name: str, days: float, size: int = 1000) -> str:
        """A blob that a layer's record mentions."""
        digest = self.put(name, size, days)
        self.store.remember("layers", key(name), {"digest": digest})
        self.age(self.record("layers", name), days)
        return digest

    def table(self, kind: str, name: str, days: float, content: object = None) -> None:
        self.store.keep_table(kind, key(name), content)
        self.age(self.record(f"{kind}-*", name), days)

    def record(self, kind: str, name: str) -> pathlib.Path:
        (path,) = self.root.glob(f"records/{kind}/*/{key(name)}")
        return path

    def prune(self, limit: int | None = None, everything: bool = False) -> Pruned:
        return prune(self.root, limit=limit, everything=everything, now=NOW)


def _ended() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


class Limits(unittest.TestCase):
    def test_the_variable(self) -> None:
        for text, expected in (
            ("", LIMIT),
            ("0", None),
            ("0 GB", None),
            ("500M", 500 << 20),
            ("20G", 20 << 30),
            ("1.5 gib", 3 << 29),
            ("64kB", 64 << 10),
            ("1T", 1 << 40),
            (" 4096 ", 4096),
        ):
            self.assertEqual(size_limit({"EGGCRATE_CACHE_SIZE": text}), expected, text)
        self.assertEqual(size_limit({}), 10 << 30)

    def test_nonsense(self) -> None:
        for text in ("much", "-1G", "10 GG", "1,5G", "G", "1e9", "\u0661G\u0662"):
            with self.assertRaises(SettingsError) as caught:
                size_limit({"EGGCRATE_CACHE_SIZE": text})
            self.assertIn(f"EGGCRATE_CACHE_SIZE is {text!r}", caught.exception.what)
            self.assertIn("500M or 20G, or to 0 for no limit", caught.exception.hint)


class Showing(Scratch):
    def test_an_empty_cache(self) -> None:
        self.assertEqual(usage(self.root), tuple(Usage(k, 0, 0, None) for k in cache.KINDS))

    def test_each_kind(self) -> None:
        self.add_layer("a", 3)
        self.add_layer("b", 5)
        self.store.verify(self.add_layer("c", 4))
        bundle = self.put("d", 200, 9)
        self.table("bytecode", "e", 2, {"x": (bundle, 0, 200, "")})
        debs = self.root / "debs"
        package = debs / "unpacked" / key("p")
        package.mkdir(parents=True)
        (debs / f"{key('p')}.deb").write_bytes(b"12345")
        (package / "1").write_bytes(b"123")
        (package / "2").write_bytes(b"1234")
        lists = self.root / "apt" / f"bookworm-amd64-{key('x')[:16]}"
        (lists / "lists").mkdir(parents=True)
        (lists / "lists/main").write_bytes(b"12")
        (self.root / "blobs" / f".eggcrate-tmp-{_ended()}-a").write_bytes(b"123456")
        (self.root / "blobs" / f".eggcrate-tmp-{os.getpid()}-a").write_bytes(b"123456")
        for path in (debs / f"{key('p')}.deb", package, lists):
            self.age(path, 7)
        self.age(self.root / "blobs" / f".eggcrate-tmp-{os.getpid()}-a", 0)
        found = {kind.kind: kind for kind in usage(self.root, NOW)}
        records = self.size_below("records") - self.size_below("records/verified")
        self.assertEqual(
            {kind: (usage.number, usage.size) for kind, usage in found.items()},
            {
                "layers": (3, 3000 + self.size_below("records/verified")),
                "byte-code": (1, 200),
                "what builds remember": (4, records),
                "Debian packages": (1, 5),
                "unpacked packages": (1, 7),
                "package lists": (1, 2),
                "left-overs of killed builds": (1, 6),
            },
        )
        self.assertEqual(found["layers"].oldest, NOW - 5 * DAY)
        # it was used when the table was
        self.assertEqual(found["byte-code"].oldest, NOW - 2 * DAY)
        self.assertEqual(found["Debian packages"].oldest, NOW - 7 * DAY)

    def size_below(self, place: str) -> int:
        return sum(p.stat().st_size for p in (self.root / place).rglob("*") if p.is_file())

    def test_in_words(self) -> None:
        found = (
            Usage("layers", 12, 845_100_000, 1_767_400_000.0),
            Usage("package lists", 0, 0, None),
        )
        with mock.patch.dict(os.environ, {"TZ": "UTC"}):
            time.tzset()
            text = cache.usage_text(pathlib.Path("/home/me/cache"), found, LIMIT)
        time.tzset()
        self.assertEqual(
            text.split("\n"),
            [
                "/home/me/cache: 845.1 MB of at most 10737.4 MB (EGGCRATE_CACHE_SIZE)",
                "                 number     MB  oldest use",
                "  layers             12  845.1  2026-01-03",
                "  package lists       0    0.0",
            ],
        )
        self.assertIn("MB without a limit (", cache.usage_text(self.root, found, None))

    def test_what_was_removed_in_words(self) -> None:
        self.assertEqual(
            cache.pruned_text(Pruned(3, 1_500_000, 7_000_000)),
            "3 removed, 1.5 MB; 7.0 MB are left",
        )
        self.assertEqual(
            cache.pruned_text(Pruned(0, 0, 7_000_000, busy=True)),
            "nothing removed, 7.0 MB are left: a build is running, run this again when it has "
            "ended",
        )


class Pruning(Scratch):
    def test_left_overs_of_killed_builds(self) -> None:
        unpacked = self.root / "debs/unpacked"
        unpacked.mkdir(parents=True)
        self.add_layer("a", 1)
        records = self.record("layers", "a").parent
        left, kept = [], []
        for place in (self.root, self.root / "blobs", records, self.root / "debs"):
            left.append(place / f".eggcrate-tmp-{_ended()}-x")
            kept.append(place / f".eggcrate-tmp-{os.getpid()}-x")
            left.append(place / f".eggcrate-tmp-{os.getpid()}-old")
        for place, name in ((self.root / "debs", ".fetch-x"), (unpacked, ".new-x")):
            left.append(place / f"{name}-old")
            kept.append(place / name)
        for path in (*left, *kept):
            path.mkdir()
            (path / "file").write_bytes(b"123")
            self.age(path, 2 if path.name.endswith("old") else 0.5)
        before = self.size()
        pruned = self.prune()
        self.assertEqual([path for path in left if path.exists()], [])
        self.assertEqual([path for path in kept if not path.exists()], [])
        self.assertEqual(pruned.removed, len(left))
        self.assertEqual(pruned.freed, before - self.size())

    def test_blobs_that_no_record_mentions(self) -> None:
        young, old, used = (
            self.put("a", days=0.01),
            self.put("b", days=1),
            self.add_layer("c", 80),
        )
        in_a_plan = self.put("d", days=80)
        self.table("plans", "p", 80, [("x", os.fspath(self.store.blob(in_a_plan)))])
        self.store.verify(old)
        for path in self.root.glob("records/verified/*/*"):
            self.age(path, 1)
        pruned = self.prune()
        self.assertFalse(self.store.blob(old).exists())
        self.assertEqual(list(self.root.glob("records/verified/*/*")), [])
        for digest in (young, used, in_a_plan):
            self.assertTrue(self.store.blob(digest).exists())
        self.assertEqual((pruned.removed, pruned.left), (1, self.size()))

    def test_what_a_buildout_remembers_when_it_is_gone(self) -> None:
        (self.scratch / "there").mkdir()
        shared, own = self.add_layer("shared", 1), self.add_layer("own", 1)
        for name in ("there", "gone"):
            document = self.put(f"manifest {name}")
            used = [f"layers/{key('shared')}", f"files-marshal4/{key('files ' + name)}"]
            used.append(f"plans-marshal4/{key('plan ' + name)}")
            table = {
                "location": os.fspath(self.scratch / name),
                "image": [document, shared, own],
                "records": used,
            }
            self.table("builds", name, 1, table)
            for kind, of in (
                ("details", name),
                ("files", f"files {name}"),
                ("plans", f"plan {name}"),
            ):
                self.table(kind, of, 1)
        self.table("builds", "unknown", 1, {"image": [self.put("manifest")]})
        pruned = self.prune()
        # its builds, details, files and plans, and the manifest that is in no layer's record
        self.assertEqual(pruned.removed, 5)
        gone = [key(name) for name in ("gone", "files gone", "plan gone")]
        self.assertEqual([name for name in self.files() if name.endswith(tuple(gone))], [])
        for name in ("there", "files there", "plan there", "unknown"):
            self.assertTrue([file for file in self.files() if file.endswith(key(name))], name)
        self.assertTrue(self.store.blob(shared).exists())
        self.assertTrue(self.store.blob(own).exists())

    def test_the_least_recently_used_goes_first(self) -> None:
        digests = [self.add_layer(f"{number}", days=20 - number) for number in range(10)]
        total = self.size()
        each = total // 10
        pruned = self.prune(limit=total - 3 * each)
        self.assertEqual(
            [self.store.blob(digest).exists() for digest in digests], [False] * 3 + [True] * 7
        )
        self.assertEqual((pruned.removed, pruned.freed), (6, 3 * each))
        self.assertEqual(pruned.left, self.size())
        self.assertEqual(self.prune(limit=total), Pruned(0, 0, self.size()))

    def test_what_a_build_uses_is_as_recently_used_as_the_build(self) -> None:
        (self.scratch / "there").mkdir()
        old = self.add_layer("old", 50)
        young = self.add_layer("young", 20)
        package = self.root / "debs/unpacked" / key("p")
        package.mkdir(parents=True)
        (package / "1").write_bytes(b"x" * 1000)
        self.age(package, 60)
        self.table("bases", "b", 55, [("f", os.fspath(package / "1"))])
        used = [f"layers/{key('old')}", f"bases-marshal4/{key('b')}"]
        self.table("builds", "x", 1, {"location": os.fspath(self.scratch), "records": used})
        self.prune(limit=self.size() - 1)
        self.assertFalse(self.store.blob(young).exists())
        self.assertTrue(self.store.blob(old).exists())
        self.assertTrue(package.exists())

    def test_a_record_goes_before_what_it_mentions(self) -> None:
        """Whatever the limit, what is mentioned is there."""
        rolls = random.Random(1)
        digests = [self.put(f"{number}", days=rolls.uniform(1, 80)) for number in range(12)]
        for number in range(12):
            mentioned = rolls.sample(digests, 3)
            self.table("plans", f"plan {number}", rolls.uniform(1, 80), mentioned)
        for number in range(4):
            plans = [f"plans-marshal4/{key(f'plan {n}')}" for n in rolls.sample(range(12), 3)]
            table = {
                "location": os.fspath(self.scratch),
                "records": plans,
                "m": digests[number],
            }
            self.table("builds", f"build {number}", rolls.uniform(1, 80), table)
        for limit in range(self.size(), -700, -700):
            pruned = self.prune(limit=max(0, limit))
            self.assertLessEqual(self.size(), max(0, limit))
            self.assertEqual(pruned.left, self.size())
            there = b" ".join(name.encode() for name in self.files())
            for path in self.root.glob("records/*/*/*"):
                for a, _ in cache._MENTION.findall(path.read_bytes()):
                    if path.parts[-3].startswith("plans"):
                        self.assertIn(a, there)
        self.assertEqual(self.files(), set())

    def test_what_was_long_not_used(self) -> None:
        kept = self.add_layer("kept", 80)
        self.add_layer("old", 100)
        deb_file = self.root / "debs" / f"{key('p')}.deb"
        deb_file.parent.mkdir()
        deb_file.write_bytes(b"x")
        self.age(deb_file, 1000)
        self.assertEqual(self.prune().removed, 2)
        self.assertTrue(self.store.blob(kept).exists())
        self.assertTrue(deb_file.exists())

    def test_everything(self) -> None:
        self.add_layer("a", 0)
        self.table("builds", "a", 0, {"location": os.fspath(self.scratch)})
        for name in (f"debs/{key('p')}.deb", f"debs/unpacked/{key('p')}/1"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(b"x")
        lists = self.root / "apt" / f"sid-arm64-{key('x')[:16]}" / "lists"
        lists.mkdir(parents=True)
        pruned = self.prune(everything=True)
        self.assertEqual((self.files(), pruned.left), (set(), 0))
        self.assertFalse(lists.parent.exists())
        self.assertEqual(pruned.removed, 6)

    def test_what_is_not_the_store_s_stays(self) -> None:
        """Somebody may name a directory that has other things, too."""
        others = [
            *("README", "debs/mine.deb", "debs/unpacked/mine/1", "apt/notes/lists/1"),
            *("blobs/mine", "blobs/sha256/mine", "records/1999/ab/mine", ".new-x/1"),
            *(f"records/1999/ab/{key('x')}", f"records/{key('x')}", f"debs/{key('x')}"),
        ]
        for name in others:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(b"x")
            self.age(self.root / name, 1000)
        self.add_layer("a", 1)
        self.assertEqual(self.prune(everything=True).removed, 2)
        self.assertEqual(self.files(), set(others))

    def test_not_while_a_build_runs(self) -> None:
        self.add_layer("a", 1)
        before = self.files()
        with self.store.in_use(), mock.patch.object(cache, "_WAIT", 0.1):
            pruned = self.prune(everything=True)
        self.assertEqual(pruned, Pruned(0, 0, self.size(), busy=True))
        self.assertEqual(self.files(), before)
        self.assertEqual(self.prune(everything=True).removed, 2)

    def test_killed_it_leaves_a_store_that_is_whole(self) -> None:
        for number in range(5):
            self.add_layer(f"{number}", 1)
        for _ in range(5):
            removed = iter(range(3))

            def killed(path: pathlib.Path, removed: Iterator[int] = removed) -> bool:
                if next(removed) == 2:
                    raise KeyboardInterrupt
                path.unlink()
                return True

            with (
                mock.patch.object(cache, "remove", killed),
                contextlib.suppress(KeyboardInterrupt),
            ):
                self.prune(limit=0)
            for path in self.root.glob("records/layers/*/*"):
                record = self.store.recall("layers", path.name)
                assert record is not None
                self.assertTrue(self.store.has(record["digest"], 1000))
        self.assertEqual(self.files(), set())

    def test_what_can_t_be_removed_stays(self) -> None:
        self.add_layer("a", 1)
        with mock.patch.object(cache, "remove", return_value=False):
            self.assertEqual(self.prune(everything=True), Pruned(0, 0, self.size()))


class Bounding(Scratch):
    """What a build does at its end."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(10):
            self.add_layer(f"{number}", days=20 - number, size=100_000)
        self.store = Store(self.root)

    def bound(self, limit: int | None, days: float = 0) -> Pruned | None:
        return bound(self.store, limit, now=NOW + days * DAY)

    def test_nothing_is_looked_at_when_nothing_is_new(self) -> None:
        self.assertIsNone(self.bound(LIMIT))
        with mock.patch.object(cache, "_survey", side_effect=KeyError):
            self.assertIsNone(self.bound(LIMIT))
            before = (self.root / "size").stat().st_mtime_ns
            self.assertIsNone(self.bound(LIMIT, days=0.9))
            self.assertEqual((self.root / "size").stat().st_mtime_ns, before)
            self.store.put(b"x" * 1000)
            self.assertIsNone(self.bound(LIMIT))
            # once a day, with another limit, with new packages, after a change of the clock
            self.assertRaises(KeyError, self.bound, LIMIT, 1.1)
            self.assertRaises(KeyError, self.bound, LIMIT, -1)
            self.assertRaises(KeyError, self.bound, LIMIT + 1)
            (self.root / "debs/unpacked").mkdir(parents=True)
            self.assertRaises(KeyError, self.bound, LIMIT)

    def test_what_many_builds_write_is_added_up(self) -> None:
        limit = self.size() + 1_000_000
        self.assertIsNone(self.bound(limit))
        pruned = []
        for number in range(100, 110):
            self.store = Store(self.root)
            self.add_layer(f"{number}", 0, size=9000)
            with mock.patch.object(cache, "_survey", side_effect=cache._survey) as survey:
                self.assertIsNone(self.bound(limit))
            pruned.append(survey.called)
        # 2,000,000 / 50 / 9000
        self.assertEqual(pruned, ([False] * 4 + [True]) * 2)

    def test_what_is_too_much_goes(self) -> None:
        size = self.size()
        self.assertIsNone(self.bound(size))
        self.add_layer("new", 0, size=200_000)
        pruned = self.bound(size)
        assert pruned is not None
        self.assertEqual(pruned.left, self.size())
        self.assertLessEqual(self.size(), size * 0.9)
        self.assertGreater(self.size(), size * 0.7)
        self.assertIsNone(self.bound(size))

    def test_it_is_never_more_than_the_limit(self) -> None:
        limit = 3_000_000
        rolls = random.Random(1)
        for number in range(100, 200):
            self.store = Store(self.root)
            self.add_layer(f"{number}", 0, size=rolls.randrange(100_000))
            self.bound(limit, number / 1000)
            self.assertLessEqual(self.size(), limit)
        self.assertGreater(self.size(), limit / 2)

    def test_what_the_build_used_stays(self) -> None:
        for number in range(3):
            self.store.recall("layers", key(f"{number}"))
            self.age(self.record("layers", f"{number}"), 20 - number)
        pruned = self.bound(1000)
        assert pruned is not None
        self.assertEqual(
            {path.name for path in self.root.glob("blobs/sha256/*")},
            {self.digest(number) for number in range(3)},
        )
        # and is not looked at in vain
        with mock.patch.object(cache, "_survey", side_effect=KeyError):
            self.assertIsNone(self.bound(1000))

    def digest(self, number: int) -> str:
        return hashlib.sha256(f"{number}".encode().ljust(100_000, b".")).hexdigest()

    def test_another_build_runs(self) -> None:
        with Store(self.root).in_use():
            self.assertIsNone(self.bound(1))
        pruned = self.bound(1)
        assert pruned is not None
        self.assertEqual(pruned.left, 0)

    def test_what_is_known_of_its_size_may_be_damaged(self) -> None:
        self.bound(LIMIT)
        whole = (self.root / "size").read_bytes()
        for text in (
            b"",
            b"{}",
            b"[]",
            b"\xff",
            whole.replace(b'"left": ', b'"left": "x", "y": '),
        ):
            (self.root / "size").write_bytes(text)
            with mock.patch.object(cache, "_survey", side_effect=KeyError):
                self.assertRaises(KeyError, self.bound, LIMIT)
            self.assertIsNone(self.bound(LIMIT))

    def test_no_limit(self) -> None:
        (self.root / f"blobs/.eggcrate-tmp-{_ended()}-x").write_bytes(b"12")
        self.assertEqual(self.bound(None), Pruned(1, 2, self.size()))
        self.add_layer("new", 0, size=1 << 20)
        self.assertIsNone(self.bound(None))


class Damage(Scratch):
    """A bit that flips, in whatever the cache has (A19)."""

    def flip(self, path: pathlib.Path, place: int) -> None:
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= 1
        path.write_bytes(data)

    def again(self, make: Callable[[], str]) -> str:
        """The outcome of a build; at the second attempt where the first names the damage."""
        try:
            return make()
        except PlanError as error:
            self.assertIn("damaged", error.what)
            self.assertIn("run again: it has been removed", error.hint)
            return make()

    def test_each_file_that_a_layer_leaves(self) -> None:
        def make() -> str:
            layer = self.write(layer_plan(b"abc" * 1000, b"x"), "gzip")
            config = self.store.put(layer.diff_id.encode())
            with (self.scratch / "out").open("wb") as out:
                self.store.write_to(layer.descriptor.digest, layer.descriptor.size, out)
                self.store.write_to(config, len(layer.diff_id), out)
            return key((self.scratch / "out").read_bytes().hex())

        expected = make()
        for name in sorted(self.files()):
            for place in (0, 50, 100, -1):
                self.flip(self.root / name, place)
                self.assertEqual(self.again(make), expected, (name, place))

    def test_byte_code(self) -> None:
        modules = [
            bytes_file(f"m{number}.py", b"x = %d" % number, group="egg m", reason="test")
            for number in range(6)
        ]
        epochs = iter(range(100))

        def make() -> str:
            # another layer each time, so that it is read
            entries = merge(bytecode_entries(modules, self.store)).values()
            self.write(LayerPlan("data", tuple(entries)), epoch=next(epochs))
            return " ".join(entry.digest for entry in entries)

        expected = make()
        bundles = {
            pathlib.Path(entry.source)
            for entry in bytecode_entries(modules, self.store)
            if entry.source
        }
        tables = list(self.root.glob("records/bytecode-*/*/*"))
        self.assertTrue(bundles)  # one for each process that compiled
        self.assertEqual(len(tables), 1)
        for path in (*bundles, *tables):
            for place in (0, 500, -1):
                self.flip(path, place)
                self.assertEqual(self.again(make), expected, (path, place))

    def test_a_file_of_a_package(self) -> None:
        data = make_deb("a", [("./usr/f", "text")])
        package = deb.Package(
            "a", "1.0-1", "all", "", len(data), hashlib.sha256(data).hexdigest()
        )
        debs = self.root / "debs"
        debs.mkdir(parents=True)
        deb.deb_path(package, debs).write_bytes(data)
        epochs = iter(range(100))

        def make() -> str:
            (member,) = [m for m in deb.unpack(package, debs).members if m.source]
            assert member.source is not None
            entry = FileEntry(
                "f",
                disk_file("f", member.source, group="", reason="").type,
                0o644,
                "data",
                "test",
                source=os.fspath(member.source),
                size=member.size,
                digest=member.digest,
            )
            self.write(LayerPlan("data", (entry,)), epoch=next(epochs))
            return member.digest

        expected = make()
        (unpacked,) = [
            path for path in debs.glob("unpacked/*/*") if path.read_bytes() == b"text"
        ]
        self.flip(unpacked, 2)
        self.assertEqual(self.again(make), expected)


class Killed(Scratch):
    """kill -9 while a layer is written (C25), and four processes that write it (C27)."""

    layer = layers.SLOW

    def start(self, *when: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _WRITER, self.root, *when],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def blobs(self) -> list[str]:
        """The digests of the blobs, each compared."""
        found = []
        for path in self.root.glob("blobs/sha256/*"):
            self.assertEqual(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
            found.append(f"sha256:{path.name}")
        return found

    def temporaries(self) -> list[str]:
        return [name for name in self.files() if "/.eggcrate-tmp-" in name]

    def test_at_any_moment(self) -> None:
        for when in ("header 1", "header 30", "header 50", "fsync 1", "rename 1", "record 1",
                     "rename 2", "record 2", "rename 3"):  # fmt: skip
            writer = self.start(*when.split())
            output, _ = writer.communicate()
            self.assertEqual((writer.returncode, output), (-signal.SIGKILL, ""), when)
            killed = self.blobs()
            left = self.temporaries()
            self.assertEqual(len(left), 0 if when.startswith("record") else 1, when)
            writer = self.start()
            output, _ = writer.communicate()
            digest = output.strip()
            self.assertEqual(writer.returncode, 0)
            self.assertEqual(self.blobs(), [digest])
            self.assertIn(killed, ([], [digest]))
            self.assertEqual(self.temporaries(), left)
            prune(self.root, limit=None)
            self.assertEqual(self.temporaries(), [])
            self.assertEqual(self.blobs(), [digest])
            prune(self.root, limit=None, everything=True)

    def test_four_at_a_time(self) -> None:
        writers = [self.start() for _ in range(4)]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
        outputs = []
        for writer in writers:
            assert writer.stdout is not None
            outputs.append(writer.stdout.read())
            writer.stdout.close()
            self.assertEqual(writer.wait(), 0)
        self.assertEqual(outputs, [f"{self.blobs()[0]}\n"] * 4)
        self.assertEqual(len(self.blobs()), 1)
        self.assertEqual(self.temporaries(), [])

    def test_what_is_not_synced_is_not_there(self) -> None:
        """An error of fsync is one of the build (C28)."""
        error = OSError(errno.EIO, os.strerror(errno.EIO))
        with mock.patch("os.fsync", side_effect=error), self.assertRaises(PlanError) as caught:
            self.write(layer_plan(b"abc"))
        self.assertEqual(
            caught.exception.what, f"the cache {self.root} can't be written: Input/output error"
        )
        self.assertEqual(self.files(), set())
        self.assertTrue(self.write(layer_plan(b"abc")).made)


class Places(Scratch):
    """A cache that is read-only (A16), on another file system (A17), on a full one (C26)."""

    def test_read_only(self) -> None:
        plan = layer_plan(b"abc")
        layer = self.write(plan)
        self.store.keep_table("builds", key("x"), {"location": "x"})
        with self.store.in_use():
            pass
        out = self.scratch / "out"
        for path in self.root.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
            os.utime(path, (1, 1))
        self.root.chmod(0o555)

        def warm() -> None:
            store = Store(self.root)
            with store.in_use():
                again = write_layer(plan, store, compression="none", epoch=1, pool=pool)
                assert not again.made
                assert again.descriptor == layer.descriptor
                with out.open("wb") as stream:
                    store.write_to(layer.descriptor.digest, layer.descriptor.size, stream)
                assert out.read_bytes()
                assert store.table("builds", key("x"))
                store.keep_table("builds", key("x"), {"location": "y"})
            assert bound(store, 1) is None
            assert not list(self.root.rglob(".*"))

        def cold() -> None:
            write_layer(
                layer_plan(b"x"), Store(self.root), compression="none", epoch=1, pool=pool
            )

        def pruned() -> None:
            assert prune(self.root, limit=0).removed == 0

        with ThreadPoolExecutor(1) as pool:
            self.as_stranger(warm)
            with self.assertRaises(PlanError) as caught:
                self.as_stranger(cold)
            self.as_stranger(pruned)
        self.assertEqual(
            str(caught.exception),
            f"the cache {self.root} can't be written: Permission denied; make room, or name "
            "another directory in EGGCRATE_CACHE",
        )
        for path in (self.root, *self.root.rglob("*")):
            path.chmod(0o755)

    def as_stranger(self, call: Callable[[], object]) -> None:
        """Call it as somebody who can't write to the cache, but below the scratch directory."""
        if os.geteuid():
            call()
            return
        os.chown(self.scratch, 65534, 65534)
        as_user(65534, self.scratch, call)

    def place(self, *sizes: int, mounted: bool = True) -> list[str]:
        """What a process says that writes layers in a cache that is a small file system."""
        self.root.mkdir(exist_ok=True)
        argv = [sys.executable, "-c", _PLACE, os.fspath(self.root)]
        argv += [os.fspath(self.scratch / "out"), *map(str, sizes)]
        if mounted:
            argv = [*self.mounting(), "sh", "-c", _MOUNTED, os.fspath(self.root), *argv]
        return subprocess.run(
            argv,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.splitlines()

    def mounting(self) -> list[str]:
        """A command in front of one that may mount file systems, for itself alone."""
        command = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            layers.skip(self, "mounting takes rights that this user lacks; run as root")
        return command

    def test_another_file_system(self) -> None:
        digest, same, _ = self.place(1 << 20, mounted=False)
        self.assertEqual(same, "True")
        self.assertEqual(self.place(1 << 20), [digest, "False", ""])

    def test_a_full_disk(self) -> None:
        full, digest, _, left = self.place(20 << 20, 1 << 20)
        self.assertRegex(
            full,
            rf"^the cache {self.root} can't be written: No space left on device after "
            r"[78]\.\d MB; make room, or name another directory in EGGCRATE_CACHE$",
        )
        # what it had written makes room
        self.assertRegex(digest, "^sha256:")
        self.assertEqual(left, "")


if __name__ == "__main__":
    unittest.main()
