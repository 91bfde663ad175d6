"""Where an ELF file looks for its libraries, as it has to be in the image."""

from __future__ import annotations

import io
from collections.abc import Callable

from eggcrate.errors import PlanError
from eggcrate.payload.libraries import NEEDED, RPATH, RUNPATH, SONAME, Elf

_HASH, _SYMTAB = 4, 6
# DT_CONFIG, DT_DEPAUDIT, DT_AUDIT, DT_AUXILIARY, DT_FILTER
_NAMES = (NEEDED, SONAME, 0x6FFFFEFA, 0x6FFFFEFB, 0x6FFFFEFC, 0x7FFFFFFD, 0x7FFFFFFF)
_DYNSYM = 11


def relocated_search_path(data: bytes, relocate: Callable[[bytes], bytes]) -> bytes | None:
    """An ELF file whose RUNPATH and RPATH are what ``relocate`` makes of them.

    The file keeps its size: a path may become shorter, and NULs follow it.  None is for what
    can't be done so: the path becomes longer; other names lie in its bytes, as linkers let
    strings share their ends, or the file does not say which do; it is no ELF file.
    """
    try:
        elf = Elf(io.BytesIO(data))
        positions = {*elf.values(RPATH), *elf.values(RUNPATH)}
        changes: list[tuple[int, bytes, bytes]] = []
        for position in sorted(positions):
            old = elf.string(position)
            new = relocate(old)
            if len(new) > len(old) or b"\0" in new:
                return None
            if new != old:
                changes.append((position, old, new))
        if not changes:
            return data
        names = _names(elf)
        table, _ = elf.strings()
    except PlanError:
        return None
    if names is None:
        return None
    changed = bytearray(data)
    for position, old, new in changes:
        start, end = table + position, table + position + len(old)
        # what begins before the path and has it as its end counts, too
        first = max(table, data.rfind(b"\0", table, start) + 1)
        others = names | (positions - {position})
        if any(first <= table + name < end for name in others):
            return None
        changed[start:end] = new.ljust(len(old), b"\0")
    return bytes(changed)


def _names(elf: Elf) -> set[int] | None:
    """Where the other names of the file lie in its string table; None if it does not say."""
    names = {name for tag in _NAMES for name in elf.values(tag)}
    for library, versions in elf.needed_versions():
        names.add(library)
        names.update(version for version, _ in versions)
    for versions_defined in elf.defined_versions():
        names.update(versions_defined)
    for table in elf.values(_SYMTAB):
        count = _symbol_count(elf, table)
        if count is None:
            return None
        layout, size = ("I20x", 24) if elf.wide else ("I12x", 16)
        place = elf.place(table, count * size)
        names.update(name for (name,) in elf.unpack_all(layout, place, count))
    return names


def _symbol_count(elf: Elf, symbols: int) -> int | None:
    """How many symbols the table has: a hash table tells it, or a section."""
    # the words of a hash table have 32 bits, but for one architecture
    words = "QQ" if elf.machine == "s390x" else "II"
    counts = [elf.unpack(words, elf.place(table, 8))[1] for table in elf.values(_HASH)]
    counts += [
        length // (24 if elf.wide else 16)
        for kind, address, length in elf.sections()
        if kind == _DYNSYM and address == symbols
    ]
    return max(counts, default=None)
