"""Byte-code that a read-only image starts fast with, the same on every machine."""

from __future__ import annotations

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
FORMAT = 1

_UNCHECKED_HASH = (0b01).to_bytes(4, "little")  # PEP 552
_WORKERS = 2


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


def bytecode_entries(
    modules: Sequence[FileEntry], store: Store, *, cache_tag: str = sys.implementation.cache_tag
) -> list[FileEntry]:
    """The entries of the modules' byte-code, made or found in the store.

    The interpreter that runs this has compiled them, so ``cache_tag`` is its own.
    """
    import hashlib

    from eggcrate.image.plan import FileEntry, FileType

    magic = importlib.util.MAGIC_NUMBER.hex()
    keys = {
        module.path: hashlib.sha256(
            f"{FORMAT} {magic} {module.digest} /{module.path}".encode(
                "utf-8", "surrogateescape"
            )
        ).hexdigest()
        for module in modules
    }
    records = {path: store.recall("bytecode", key) for path, key in keys.items()}
    missing = [
        module
        for module in modules
        if not (record := records[module.path])
        or (record["digest"] and not store.has(record["digest"], record["size"]))
    ]
    for module, record in _compile(missing, store):
        store.remember("bytecode", keys[module.path], record)
        records[module.path] = record

    found = []
    for module in modules:
        record = records[module.path] or {"digest": ""}
        if not record["digest"]:
            continue
        directory, _, name = module.path.rpartition("/")
        found.append(
            FileEntry(
                f"{directory}/__pycache__/{name.removesuffix('.py')}.{cache_tag}.pyc",
                FileType.REGULAR,
                0o644,
                module.group,
                f"byte-code of {name}",
                source=store.blob(record["digest"]),
                size=record["size"],
                digest=record["digest"].partition(":")[2],
            )
        )
    return found


def _compile(
    modules: Sequence[FileEntry], store: Store
) -> Iterable[tuple[FileEntry, dict[str, Any]]]:
    """Each module with the record of its byte-code, which is now in the store.

    Fresh interpreters do it, one a core, with a fixed hash seed: the order of a frozen
    set is part of the bytes in Python 3.10.
    """
    from eggcrate.errors import PlanError

    if not modules:
        return
    shares = [modules[start::_WORKERS] for start in range(_WORKERS)]
    # no PYTHON* variable of the user's may reach the bytes (PYTHONNODEBUGRANGES would)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    environment.update(PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
    workers = []
    for share in filter(None, shares):
        jobs = []
        for module in share:
            source = module.source or store.blob(store.put(module.data or b""))
            jobs.append([os.fspath(source), f"/{module.path}", module.digest])
        worker = subprocess.Popen(
            [sys.executable, "-S", "-s", __file__, os.fspath(store.root)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(jobs).encode())
        worker.stdin.close()
        workers.append((share, worker))
    results = []
    for share, worker in workers:
        assert worker.stdout is not None
        results.append((share, worker.stdout.read()))
        worker.stdout.close()
        if worker.wait() != 0:
            raise RuntimeError("the byte-code compiler failed")
    for share, output in results:
        records = json.loads(output)
        if isinstance(records, dict):
            raise PlanError(records["what"], records["hint"])
        yield from zip(share, records, strict=True)


def _main() -> None:
    # as a program, this file is alone: the package is found beside it
    sys.path.insert(0, os.fspath(pathlib.Path(__file__).parents[2]))
    from eggcrate.errors import PlanError
    from eggcrate.image.store import Store

    store = Store(pathlib.Path(sys.argv[1]))
    records = []
    try:
        for source, path, digest in json.load(sys.stdin):
            records.append(_record(pathlib.Path(source), path, digest, store))
    except PlanError as error:
        json.dump({"what": error.what, "hint": error.hint}, sys.stdout)
    else:
        json.dump(records, sys.stdout)


def _record(source: pathlib.Path, path: str, digest: str, store: Store) -> dict[str, Any]:
    """The record of a module's byte-code, which is now in the store."""
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
    data = compiled(text, path)
    return {"digest": store.put(data) if data else "", "size": len(data or b"")}


if __name__ == "__main__":
    _main()
