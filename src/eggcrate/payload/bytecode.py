"""Byte-code that a read-only image starts fast with, the same on every machine."""

from __future__ import annotations

import gc
import importlib.util
import json
import marshal
import os
import pathlib
import subprocess
import sys
import types
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eggcrate.image.plan import FileEntry
    from eggcrate.image.store import Store

# Raise it whenever the bytes that come of the same source change.
FORMAT = 2

_UNCHECKED_HASH = (0b01).to_bytes(4, "little")  # PEP 552
_WORKERS = 2
# so many modules are compiled without a process of their own
_FEW = 8


def _canonical(value: Any, held: list[Any]) -> Any:
    """The constant or code object in a form whose marshalled bytes depend on nothing else.

    ``marshal`` writes whether an object is shared and whether a string is interned, and
    both depend on what else the process has loaded (python/cpython#78274).  Here every
    string is interned and every object held by one more reference, so that all are marked
    alike.
    """
    if isinstance(value, str):
        value = sys.intern(value)
    elif isinstance(value, tuple):
        value = tuple(_canonical(item, held) for item in value)
    elif isinstance(value, frozenset):
        value = frozenset(_canonical(item, held) for item in value)
    elif isinstance(value, types.CodeType):
        changes: dict[str, Any] = {
            "co_consts": _canonical(value.co_consts, held),
            "co_name": _canonical(value.co_name, held),
            "co_filename": _canonical(value.co_filename, held),
        }
        if sys.version_info >= (3, 11):
            changes["co_qualname"] = _canonical(value.co_qualname, held)
        value = value.replace(**changes)
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        held.extend((value.co_consts, *names, *(name for part in names for name in part)))
    held.append(value)
    return value


def compiled(source: bytes, path: str) -> bytes | None:
    """The byte-code file of a module whose source lies at ``path`` in the image.

    None when the source does not compile: templates and tests of other Pythons are
    ordinary content.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    held: list[Any] = []
    code = _canonical(code, held)
    return b"".join(
        (
            importlib.util.MAGIC_NUMBER,
            _UNCHECKED_HASH,
            importlib.util.source_hash(source),
            marshal.dumps(code),
        )
    )


# A module's byte-code: the bundle that holds it (a blob's digest), where, its size and its
# own digest; all empty for a source that does not compile.
_Row = tuple[str, int, int, str]


def bytecode_path(module: str, cache_tag: str) -> str:
    """Where the byte-code of the module at an image path lies (PEP 3147)."""
    directory, _, name = module.rpartition("/")
    return f"{directory}/__pycache__/{name.removesuffix('.py')}.{cache_tag}.pyc"


def bytecode_entries(
    modules: Sequence[FileEntry],
    store: Store,
    *,
    cache_tag: str = sys.implementation.cache_tag,
    whole_groups: bool = True,
) -> list[FileEntry]:
    """The entries of the modules' byte-code, made or found in the store.

    The interpreter that runs this has compiled them, so ``cache_tag`` is its own.  The store
    has many modules in one blob: a blob for each would be thousands of small files.
    With ``whole_groups`` the modules are all that their groups have, and the store forgets
    the byte-code of others.
    """
    from eggcrate.image.plan import FileEntry, FileType

    groups: dict[str, list[FileEntry]] = {}
    for module in modules:
        groups.setdefault(module.group, []).append(module)
    tables = {group: _table(group, store) for group in groups}
    missing = [
        module
        for group, members in groups.items()
        for module in members
        if _key(module) not in tables[group]
    ]
    changed = {module.group for module in missing}
    for module, row in zip(missing, _compile(missing, store), strict=True):
        tables[module.group][_key(module)] = row
    found = []
    for group, members in groups.items():
        table = tables[group]
        if group in changed:
            if whole_groups:
                table = {_key(module): table[_key(module)] for module in members}
            store.keep_table("bytecode", _table_key(group), table)
        for module in members:
            bundle, offset, size, digest = table[_key(module)]
            if not bundle:
                continue
            name = module.path.rpartition("/")[2]
            found.append(
                FileEntry(
                    bytecode_path(module.path, cache_tag),
                    FileType.REGULAR,
                    0o644,
                    module.group,
                    f"byte-code of {name}",
                    source=os.fspath(store.blob(bundle)),
                    offset=offset,
                    size=size,
                    digest=digest,
                )
            )
    return found


def _key(module: FileEntry) -> str:
    """What a module's byte-code depends on, within its table."""
    return f"{module.digest} {module.path}"


def _table_key(group: str) -> str:
    import hashlib

    magic = importlib.util.MAGIC_NUMBER.hex()
    return hashlib.sha256(
        f"{FORMAT} {magic} {group}".encode("utf-8", "surrogateescape")
    ).hexdigest()


def _table(group: str, store: Store) -> dict[str, _Row]:
    """What the store has of a group's byte-code; not what lies in a bundle that is gone."""
    table = store.table("bytecode", _table_key(group))
    if not isinstance(table, dict):
        return {}
    there = {
        bundle: not bundle or store.blob(bundle).exists()
        for bundle in {row[0] for row in table.values()}
    }
    return {key: row for key, row in table.items() if there[row[0]]}


def _compile(modules: Sequence[FileEntry], store: Store) -> list[_Row]:
    """The rows of the modules, whose byte-code is now in the store.

    Fresh interpreters do it, one a core, with a fixed hash seed: the order of a frozen
    set is part of the bytes in Python 3.10.  A few modules are not worth another process.
    """
    from eggcrate.errors import PlanError

    jobs = [
        (
            module.source or os.fspath(store.blob(store.put(module.data or b""))),
            f"/{module.path}",
            module.digest,
        )
        for module in modules
    ]
    if not jobs:
        return []
    if len(jobs) <= _FEW and _compiles_as_a_fresh_interpreter():
        return _bundle(jobs, store)
    # large and small ones in turn, as they are a package's
    shares = [list(range(start, len(jobs), _WORKERS)) for start in range(_WORKERS)]
    # no PYTHON* variable of the user's may reach the bytes (PYTHONNODEBUGRANGES would)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    environment.update(PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
    workers = []
    for share in shares:
        worker = subprocess.Popen(
            [sys.executable, "-S", "-s", __file__, os.fspath(store.root)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert worker.stdin is not None
        worker.stdin.write(json.dumps([jobs[number] for number in share]).encode())
        worker.stdin.close()
        workers.append(worker)
    outputs = []
    for worker in workers:
        assert worker.stdout is not None
        outputs.append(worker.stdout.read())
        worker.stdout.close()
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise RuntimeError("the byte-code compiler failed")
    rows: dict[int, _Row] = {}
    for share, output in zip(shares, outputs, strict=True):
        answer = json.loads(output)
        if isinstance(answer, dict):
            raise PlanError(answer["what"], answer["hint"])
        rows.update(zip(share, map(tuple, answer), strict=True))
    return [rows[number] for number in range(len(jobs))]


def _compiles_as_a_fresh_interpreter() -> bool:
    """Whether what is compiled in this process is what a fresh interpreter would make."""
    return sys.version_info >= (3, 11) and not (
        os.environ.get("PYTHONNODEBUGRANGES") or "no_debug_ranges" in sys._xoptions
    )


def _bundle(jobs: Iterable[tuple[str, str, str]], store: Store) -> list[_Row]:
    """The rows of modules, whose byte-code is now one blob of the store."""
    import hashlib

    places: list[tuple[int, int, str]] = []
    whole = hashlib.sha256()
    offset = 0
    with store.writing() as stream:
        for source, path, digest in jobs:
            data = _bytecode(pathlib.Path(source), path, digest, store)
            if data is None:
                places.append((0, 0, ""))
                continue
            stream.write(data)
            whole.update(data)
            places.append((offset, len(data), hashlib.sha256(data).hexdigest()))
            offset += len(data)
        bundle = f"sha256:{whole.hexdigest()}"
        # each module is digested again when it goes into a layer
        store.adopt(stream, bundle, sync=False)
    return [(bundle if size else "", start, size, digest) for start, size, digest in places]


def _bytecode(source: pathlib.Path, path: str, digest: str, store: Store) -> bytes | None:
    import hashlib

    from eggcrate.errors import PlanError

    try:
        text = source.read_bytes()
    except OSError as error:
        raise PlanError(
            f"{source} can't be read: {error.strerror}", "mend it and run again"
        ) from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise store.changed(source)
    return compiled(text, path)


def _main() -> None:
    # as a program, this file is alone: the package is found beside it
    sys.path[0] = os.fspath(pathlib.Path(__file__).parents[2])
    from eggcrate.errors import PlanError
    from eggcrate.image.store import Store

    store = Store(pathlib.Path(sys.argv[1]))
    gc.disable()  # code objects are no garbage: it takes a tenth of the time, to find nothing
    try:
        answer: Any = _bundle(map(tuple, json.load(sys.stdin)), store)
    except PlanError as error:
        answer = {"what": error.what, "hint": error.hint}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
