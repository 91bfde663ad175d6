"""What the ELF files of an image need, and whether the image has it."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from eggcrate.errors import EggcrateError, PlanError
from eggcrate.image.plan import FileEntry, FileType, printable, resolve

if TYPE_CHECKING:
    from eggcrate.image.store import Store

_MAGIC = b"\x7fELF"
# e_machine (ELF specification) of the architectures that Debian and Docker both build
_MACHINES = {
    "EM_X86_64": "amd64",
    "EM_AARCH64": "arm64",
    "EM_386": "386",
    "EM_ARM": "arm",
    "EM_PPC64": "ppc64le",
    "EM_S390": "s390x",
    "EM_RISCV": "riscv64",
}
# the part of a Debian path that names the architecture
MULTIARCH = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "386": "i386-linux-gnu",
    "arm": "arm-linux-gnueabihf",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
}
_EXTENSION = re.compile(
    r"(?P<module>[^.]+)\.(?P<tag>cpython-\d+[a-z]*(?:-[\w-]+)?|abi3|pypy\d+[\w-]*)\.so"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Binary:
    """What an ELF file says of itself.

    ``versions`` are the symbol versions that it needs of each library, ``provides`` those
    that it defines; ``search`` is its RUNPATH, or its RPATH where it has no RUNPATH.
    """

    machine: str
    interpreter: str
    needed: tuple[str, ...]
    search: tuple[str, ...]
    soname: str
    versions: tuple[tuple[str, tuple[str, ...]], ...]
    provides: tuple[str, ...]


def read_binary(stream: BinaryIO) -> Binary | None:
    """The dynamic section of an ELF file; None for anything else, and for static objects."""
    if stream.read(4) != _MAGIC:
        return None
    # pyelftools takes a fifth of a second to import
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    stream.seek(0)
    try:
        elf: Any = ELFFile(stream)
        interpreter = dynamic = None
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_INTERP":
                interpreter = segment.get_interp_name()
            elif segment["p_type"] == "PT_DYNAMIC":
                dynamic = segment
        if dynamic is None:
            return None
        tags: dict[str, list[str]] = {}
        names = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath"}
        names["DT_SONAME"] = "soname"
        for tag in dynamic.iter_tags():
            if name := names.get(tag.entry.d_tag):
                tags.setdefault(tag.entry.d_tag, []).append(getattr(tag, name))
        search = ":".join(tags.get("DT_RUNPATH") or tags.get("DT_RPATH") or ())
        return Binary(
            machine=_MACHINES.get(elf["e_machine"], str(elf["e_machine"])),
            interpreter=interpreter or "",
            needed=tuple(tags.get("DT_NEEDED", ())),
            search=tuple(filter(None, search.split(":"))),
            soname="".join(tags.get("DT_SONAME", ())),
            versions=_versions_needed(elf),
            provides=_versions_defined(elf),
        )
    except (ELFError, ValueError, KeyError, OverflowError) as error:
        raise PlanError(
            f"an ELF file can't be read: {error}", "build it again, or list it in exclude"
        ) from error


def _versions_needed(elf: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    from elftools.elf.gnuversions import GNUVerNeedSection

    return tuple(
        (str(need.name), tuple(str(auxiliary.name) for auxiliary in auxiliaries))
        for section in elf.iter_sections()
        if isinstance(section, GNUVerNeedSection)
        for need, auxiliaries in section.iter_versions()
    )


def _versions_defined(elf: Any) -> tuple[str, ...]:
    from elftools.elf.gnuversions import GNUVerDefSection

    return tuple(
        str(next(iter(auxiliaries)).name)
        for section in elf.iter_sections()
        if isinstance(section, GNUVerDefSection)
        for _, auxiliaries in section.iter_versions()
    )


def binaries(
    tree: Mapping[str, FileEntry], store: Store | None = None
) -> dict[str, tuple[FileEntry, Binary]]:
    """The ELF files of a tree with what they say of themselves, by path."""
    found = {}
    for path, entry in tree.items():
        if entry.type is not FileType.REGULAR or entry.size < 64:
            continue
        if not (entry.mode & 0o111 or ".so" in posixpath.basename(path)):
            continue
        binary = _remembered(entry, store)
        if binary is not None:
            found[path] = (entry, binary)
    return found


def _remembered(entry: FileEntry, store: Store | None) -> Binary | None:
    """What the file says of itself, as it was read when it was first seen."""
    record = store.recall("elf", entry.digest) if store else None
    if record is None:
        with entry.open() as stream:
            try:
                binary = read_binary(stream)
            except PlanError as error:
                raise PlanError(
                    f"/{printable(entry.path)}: {error.what}", error.hint
                ) from error
        if store:
            store.remember("elf", entry.digest, dataclasses.asdict(binary) if binary else {})
        return binary
    if not record:
        return None
    return Binary(
        record["machine"],
        record["interpreter"],
        tuple(record["needed"]),
        tuple(record["search"]),
        record["soname"],
        tuple((name, tuple(versions)) for name, versions in record["versions"]),
        tuple(record["provides"]),
    )


class Linker:
    """Finds libraries in a tree as the dynamic linker of the image would (ld.so(8)).

    Without a cache of its own, ld.so looks at a file's RUNPATH and into its built-in
    directories.  Libraries that an application loads before (the ``.libs`` of some wheels)
    count as found wherever they lie.
    """

    def __init__(self, tree: Mapping[str, FileEntry], architecture: str) -> None:
        self._tree = tree
        multiarch = MULTIARCH.get(architecture, architecture)
        places = (f"lib/{multiarch}", f"usr/lib/{multiarch}", "lib", "usr/lib")
        self._directories = (*places, "lib64", "usr/lib64")
        self._names = {
            posixpath.basename(path): path
            for path, entry in tree.items()
            if ".so" in path and entry.type is not FileType.DIRECTORY
        }

    def find(self, library: str, binary: Binary, path: str) -> str | None:
        """The path of ``library`` for the file at ``path``; None when it is not there."""
        origin = "/" + posixpath.dirname(path)
        search = [
            text.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
            for text in binary.search
        ]
        for directory in (*search, *self._directories):
            found = resolve(posixpath.normpath(f"{directory}/{library}"), self._tree, last=True)
            if found in self._tree:
                return found
        # somewhere else in the image: the application loads it itself
        return self._names.get(library)

    def exists(self, path: str) -> bool:
        """Whether an absolute path is a file of the tree, links followed."""
        return resolve(path, self._tree, last=True) in self._tree


def check_libraries(
    tree: Mapping[str, FileEntry],
    *,
    architecture: str,
    package_for: Callable[[str], str | None],
    store: Store | None = None,
) -> list[EggcrateError]:
    """What the ELF files of the tree lack: libraries, symbol versions, their loader.

    ``package_for`` names the package that provides a library, for the hint.  Files of the
    distribution's own packages are taken on trust: apt has resolved what they need.
    """
    found = binaries(tree, store)
    linker = Linker(tree, architecture)
    missing: dict[str, list[str]] = {}
    errors: list[EggcrateError] = []
    for path, (entry, binary) in found.items():
        if entry.group == "packages":
            continue
        if binary.machine != architecture:
            errors.append(
                PlanError(
                    f"/{path} is built for {binary.machine}, and the image for {architecture}",
                    "build the egg for the image's platform, or list the file in exclude",
                )
            )
            continue
        if binary.interpreter and not linker.exists(binary.interpreter):
            errors.append(
                PlanError(
                    f"/{path} needs the loader {binary.interpreter}, which is not in the image",
                    "take a base with the same C library, or list the file in exclude",
                )
            )
        needs = dict(binary.versions)
        for library in binary.needed:
            where = linker.find(library, binary, path)
            if where is None:
                missing.setdefault(library, []).append(path)
            elif where in found and needs.get(library):
                lacking = sorted(set(needs[library]) - set(found[where][1].provides))
                if lacking and found[where][1].provides:
                    errors.append(
                        PlanError(
                            f"/{path} needs {', '.join(lacking)} of {library}, and the one in "
                            "the image is older",
                            "take a newer base, or build on a machine as old as the base",
                        )
                    )
    for library, users in sorted(missing.items()):
        package = package_for(library)
        more = f" and {len(users) - 1} more" if len(users) > 1 else ""
        errors.append(
            PlanError(
                f"/{users[0]}{more} needs the library {library}, which no layer provides",
                f"add {package} to os-packages"
                if package
                else "add the package that provides it to os-packages",
            )
        )
    return errors


def check_extension_modules(
    entries: Iterable[FileEntry], *, version: tuple[int, int]
) -> list[EggcrateError]:
    """The extension modules that the image's Python, ``version``, can't load.

    A module that comes for several Pythons is fine when one of them is the image's.
    """
    suffix = f"cpython-{version[0]}{version[1]}"
    names: dict[tuple[str, str], list[tuple[str, FileEntry]]] = {}
    plain: set[tuple[str, str]] = set()
    for entry in entries:
        directory, _, name = entry.path.rpartition("/")
        match = _EXTENSION.fullmatch(name)
        if match:
            key = (directory, match["module"])
            names.setdefault(key, []).append((match["tag"], entry))
        elif name.endswith((".py", ".so")):
            plain.add((directory, name.rpartition(".")[0]))
    errors: list[EggcrateError] = []
    for key, candidates in names.items():
        fits = [
            tag for tag, _ in candidates if tag == "abi3" or re.match(rf"{suffix}(?!\w)", tag)
        ]
        if fits or key in plain:
            continue
        tag, entry = candidates[0]
        errors.append(
            PlanError(
                f"/{printable(entry.path)} is built for {tag}, and the image's Python is "
                f"{version[0]}.{version[1]}",
                "run buildout with the image's Python, or set python = host to pack this one",
            )
        )
    return errors


def check_interpreters(
    entries: Sequence[tuple[FileEntry, bytes]], tree: Mapping[str, FileEntry]
) -> list[EggcrateError]:
    """The scripts whose ``#!`` line names a program that is not in the image.

    Each script comes with its first line.
    """
    errors: list[EggcrateError] = []
    for entry, line in entries:
        words = line[2:].split()
        if not words:
            continue
        program = words[0].decode("utf-8", "backslashreplace")
        if resolve(program, tree, last=True) in tree:
            continue
        errors.append(
            PlanError(
                f"/{printable(entry.path)} is run by {program}, which is not in the image",
                "add the package that has it to os-packages, or list the script in exclude",
            )
        )
    return errors
