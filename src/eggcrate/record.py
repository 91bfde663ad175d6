"""What the last build looked at and what came of it, so that the next one starts from there."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eggcrate.errors import PlanError
from eggcrate.image.descriptor import Descriptor
from eggcrate.image.layers import Layer
from eggcrate.image.layout import Image, make_layers, with_layers
from eggcrate.image.oci import Platform, Reference
from eggcrate.image.plan import (
    BASE_LAYER,
    BuildPlan,
    FileEntry,
    LayerPlan,
    as_row,
    from_row,
)
from eggcrate.image.store import Store
from eggcrate.payload.files import TICK, Facts, Files, Stamp, listing, settled, stamp

if TYPE_CHECKING:
    from eggcrate.payload.interpreter import Interpreter
    from eggcrate.payload.libraries import Binary
    from eggcrate.payload.relocation import Relocation

# Raise it whenever a record of an older release must not be used.
FORMAT = 4

# Kinds of groups whose files are taken one by one: a changed one changes its entry and its
# byte-code, and nothing else.
_PLAIN_KINDS = ("develop", "data", "configuration")
# Files that say what else goes in, what of it, or whether it fits
_TELLING = (
    *(".pth", ".egg-link", "pyvenv.cfg"),
    *("METADATA", "PKG-INFO", "RECORD", "WHEEL", "requires.txt", "top_level.txt"),
)


def place_key(location: pathlib.Path) -> str:
    """Under which key a store remembers what was built for a directory."""
    return hashlib.sha256(b"%d %b" % (FORMAT, os.fsencode(location))).hexdigest()


def _remembered(store: Store, location: pathlib.Path) -> dict[str, Any]:
    table = store.table("builds", place_key(location))
    return table if isinstance(table, dict) else {}


def remember(
    store: Store,
    location: pathlib.Path,
    key: str,
    image: Image,
    files: Sequence[Files],
    *,
    relocation: Relocation,
    cache_tag: str,
    started: int,
    telling: Iterable[str] = (),
) -> None:
    """Keep what a build looked at, and the image that it made.

    ``key`` stands for everything else that the image depends on; ``started`` is when the
    build began, in nanoseconds since 1970: a directory that changed since then, or just
    before, is read again next time.  ``telling`` are files that decide what else goes in.
    """
    plain: dict[str, bool] = {}
    for layer in image.layers:
        for entry in layer.plan.entries:
            if entry.source is not None:
                ordinary = entry.group.partition(" ")[0] in _PLAIN_KINDS
                plain[entry.source] = ordinary and plain.get(entry.source, True)
    for name in telling:
        plain[name] = False
    directories: dict[str, Any] = {}
    links: dict[str, str] = {}
    absent: set[str] = set()
    for seen in files:
        for path, (stamp_, names) in seen.directories.items():
            recent = max(stamp_.modified, stamp_.changed) + TICK >= started
            directories[path] = (None if recent else tuple(stamp_), names)
        links.update(seen.links)
        absent |= seen.absent

    def rows() -> Iterator[_Row]:
        for seen in files:
            for path, sign, lasting, facts in seen.seen():
                ordinary = (
                    plain.get(path, False) and _is_simple(facts) and not path.endswith(_TELLING)
                )
                note_link(path)
                yield path, tuple(sign), lasting, facts.digest, ordinary

    def note_link(path: str) -> None:
        if os.path.islink(path):  # what it leads to was looked at
            links[path] = os.readlink(path)

    for path in directories:
        note_link(path)
    before = _remembered(store, location)
    _keep_files(store, location, str(started), rows())
    table = {
        "key": key,
        # what the cache needs to know of whether this is of use
        "location": os.fspath(location),
        "records": store.used(),
        "rules": [(rule.source, rule.target) for rule in relocation.rules],
        "facts": Files(relocation).key,
        "cache_tag": cache_tag,
        "files": str(started),
        "directories": directories,
        "links": links,
        "absent": sorted(absent),
        "image": _image_row(image),
        "previous": _previous(before, image),
    }
    for layer in image.layers:
        _keep_plan(store, location, layer)
    store.keep_table("builds", place_key(location), table)


# A file that was looked at: its path, its stamp, whether that will show the next change, its
# digest, and whether it is an ordinary one
_Row = tuple[str, tuple[int, ...], bool, str, bool]


def _keep_files(store: Store, location: pathlib.Path, name: str, rows: Iterable[_Row]) -> None:
    """Keep the files that a build looked at; its table has the same ``name`` for them."""
    store.keep_rows("looked", place_key(location), itertools.chain((name,), rows))


def _kept_files(store: Store, location: pathlib.Path, name: str) -> Iterator[_Row] | None:
    rows = store.rows("looked", place_key(location))
    return rows if rows is not None and next(rows, None) == name else None


def _is_simple(facts: Facts) -> bool:
    """Whether the bytes of a file say nothing about anything else."""
    return not (
        facts.touched or facts.first_line or facts.secret or facts.binary or facts.complaint
    )


def _previous(before: Mapping[str, Any], image: Image) -> Any:
    """The last image before this one that was another one."""
    last = before.get("image")
    if not last or last["manifest"][1] == image.manifest.digest:
        return before.get("previous")
    return last


def _image_row(image: Image) -> dict[str, Any]:
    return {
        "platform": (image.platform.os, image.platform.architecture, image.platform.variant),
        "references": [(r.host, r.path, r.tag) for r in image.references],
        "base": (image.base_name, image.base_digest),
        "manifest": tuple(image.manifest),
        "config": tuple(image.config),
        "layers": [
            (
                layer.plan.name,
                tuple(layer.descriptor),
                layer.diff_id,
                layer.size,
                layer.key,
            )
            for layer in image.layers
        ],
    }


def _image(row: Mapping[str, Any], plans: Sequence[LayerPlan]) -> Image:
    return Image(
        Platform(*row["platform"]),
        tuple(Reference(*reference) for reference in row["references"]),
        Descriptor(*row["manifest"]),
        Descriptor(*row["config"]),
        tuple(
            Layer(
                LayerPlan(name, (), size) if name.startswith(BASE_LAYER) else plan,
                Descriptor(*descriptor),
                diff_id,
                size,
                key,
                made=False,
            )
            for plan, (name, descriptor, diff_id, size, key) in zip(
                plans, row["layers"], strict=True
            )
        ),
        *row["base"],
    )


def _plan_key(location: pathlib.Path, key: str) -> str:
    return hashlib.sha256(f"{place_key(location)} {key}".encode()).hexdigest()


def _keep_plan(store: Store, location: pathlib.Path, layer: Layer) -> None:
    key = _plan_key(location, layer.key)

    def rows() -> Iterator[Any]:
        return itertools.chain((layer.plan.name,), map(as_row, layer.plan.entries))

    # the same bytes may be there for another reason, or come from another place
    kept = store.rows("plans", key)
    if kept is None or any(
        one != other for one, other in itertools.zip_longest(kept, rows(), fillvalue=None)
    ):
        store.keep_rows("plans", key, rows())


def _recall_plan(store: Store, location: pathlib.Path, key: str) -> LayerPlan | None:
    rows = store.rows("plans", _plan_key(location, key))
    if rows is None:
        return None
    return LayerPlan(next(rows), tuple(map(from_row, rows)))


def recall(store: Store, location: pathlib.Path, *, previous: bool = False) -> Image | None:
    """The image that was built for a directory last, or the one before it, with its plan.

    None when the store does not know it any more.
    """
    row = _remembered(store, location).get("previous" if previous else "image")
    if not row:
        return None
    plans = [_recall_plan(store, location, layer[4]) for layer in row["layers"]]
    if any(plan is None for plan in plans):
        if not previous:
            _forget(store, location)
        return None
    return _image(row, [plan for plan in plans if plan is not None])


def replace(store: Store, location: pathlib.Path, image: Image) -> None:
    """Let ``image`` be the one that was built for a directory last, in another way."""
    table = _remembered(store, location)
    table["previous"] = _previous(table, image)
    table["image"] = _image_row(image)
    # what the next build looks at is not what this one was made of
    table["key"] = ""
    for layer in image.layers:
        _keep_plan(store, location, layer)
    store.keep_table("builds", place_key(location), table)


def _forget(store: Store, location: pathlib.Path) -> None:
    """Let the next build plan the image from its beginning, as a table of it is not whole."""
    if table := _remembered(store, location):
        store.keep_table("builds", place_key(location), {**table, "key": ""})


@dataclasses.dataclass(frozen=True, slots=True)
class Details:
    """What else is known of an image: how paths were relocated, its Python, the packages that
    were found to be needed, its ELF files by digest, its scripts with their first lines."""

    relocation: Relocation
    python: Interpreter
    added: tuple[str, ...]
    binaries: Mapping[str, Binary | None]
    scripts: tuple[tuple[FileEntry, bytes], ...]


def remember_details(store: Store, location: pathlib.Path, details: Details) -> None:
    """Keep the details of the image that was built for a directory last."""
    from eggcrate.payload.libraries import as_record

    table = (
        [(rule.source, rule.target) for rule in details.relocation.rules],
        dataclasses.astuple(details.python),
        details.added,
        [(digest, as_record(binary)) for digest, binary in details.binaries.items() if binary],
        [(as_row(entry), line) for entry, line in details.scripts],
    )
    store.keep_table("details", place_key(location), table)


def recall_details(store: Store, location: pathlib.Path) -> Details:
    """The details that were kept."""
    table = store.table("details", place_key(location))
    if table is None:
        _forget(store, location)
        raise PlanError(
            f"the cache does not know the image at {location}",
            "build it, with bin/buildout or with the command build",
        )
    from eggcrate.payload.interpreter import Interpreter
    from eggcrate.payload.libraries import from_record
    from eggcrate.payload.relocation import Relocation, Rule

    rules, python, added, binaries, scripts = table
    return Details(
        Relocation(tuple(Rule(*rule) for rule in rules)),
        Interpreter(*python),
        added,
        {digest: from_record(binary) for digest, binary in binaries},
        tuple((from_row(row), line) for row, line in scripts),
    )


# The next build -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Again:
    """What the next build is when nothing but the bytes of ordinary files has changed.

    Layers that stayed have a plan of no entries here: nobody needs them.  ``changed`` are
    the layers that were made anew, by their place in the image.
    """

    image: Image
    changed: Mapping[int, LayerPlan]


def again(
    store: Store, location: pathlib.Path, key: str, *, compression: str, epoch: int
) -> Again | None:
    """The image as it is now, from what the last build remembers; None when that can't be told.

    Then the image has to be planned from its beginning.
    """
    table = _remembered(store, location)
    if table.get("key") != key:
        return None
    row = table["image"]
    blobs = [row["manifest"], row["config"], *(layer[1] for layer in row["layers"])]
    if not all(store.has(digest, size) for _, digest, size in blobs):
        return None
    news = _News()
    rows = _kept_files(store, location, table["files"])
    if rows is None or not (
        _same_surroundings(table, news) and _same_but_bytes(table, rows, news)
    ):
        return None
    plans = _patched(table, news.changed, store, location) if news.changed else {}
    if plans is None:
        return None
    image = _image(row, [LayerPlan(name, ()) for name, *_ in row["layers"]])
    if plans:
        anew = make_layers(
            BuildPlan(tuple(plans.values())), store=store, compression=compression, epoch=epoch
        )
        made = dict(zip(plans, anew, strict=True))
        layers = tuple(made.get(number, layer) for number, layer in enumerate(image.layers))
        image = with_layers(image, layers, store)
        for layer in made.values():
            _keep_plan(store, location, layer)
        if image.manifest.digest != row["manifest"][1]:
            table["previous"] = row
        table["image"] = _image_row(image)
    if news.files or news.directories:
        if news.files:
            rows = _kept_files(store, location, table["files"]) or iter(())
            now = (news.files.get(row[0], row) for row in rows)
            table["files"] = str(time.time_ns())
            _keep_files(store, location, table["files"], now)
        table["directories"].update(news.directories)
        store.keep_table("builds", place_key(location), table)
    return Again(image, plans)


@dataclasses.dataclass(slots=True)
class _News:
    """Rows of the table that are no longer what they were, and files with other bytes."""

    files: dict[str, _Row] = dataclasses.field(default_factory=dict)
    directories: dict[str, Any] = dataclasses.field(default_factory=dict)
    changed: dict[str, Facts] = dataclasses.field(default_factory=dict)


def _same_surroundings(table: Mapping[str, Any], news: _News) -> bool:
    """Whether directories have what they had, links lead where they led, and the rest is not
    there still."""
    try:
        for path, (sign, names) in table["directories"].items():
            now = time.time_ns()
            status = os.stat(path)
            if sign == stamp(status):
                continue
            with os.scandir(path) as found:
                if listing(sorted(found, key=lambda child: child.name)) != names:
                    return False
            if os.path.islink(path) and path not in table["links"]:
                return False
            known = tuple(stamp(status)) if settled(status, now) else None
            news.directories[path] = (known, names)
        for path, text in table["links"].items():
            if os.readlink(path) != text:
                return False
    except OSError:
        return False
    return not any(map(os.path.lexists, table["absent"]))


def _same_but_bytes(table: Mapping[str, Any], rows: Iterable[_Row], news: _News) -> bool:
    """Whether files are as they were, but for the bytes of ordinary ones."""
    from eggcrate.payload.relocation import Relocation, Rule

    files = Files(Relocation(tuple(Rule(*rule) for rule in table["rules"])))
    if files.key != table["facts"]:
        return False
    links = table["links"]
    plain: dict[str, bool] = {}
    for path, sign, lasting, digest, ordinary in rows:
        try:
            status = os.stat(path) if path in links else os.lstat(path)
            now, before = stamp(status), Stamp(*sign)
            if lasting and now == before:
                continue
            # with another name more or less, it may be a link in the image, or be none
            if now.mode != before.mode or max(now.links, before.links) > 1:
                return False
            plain[path] = ordinary
            facts = files.facts(path, status, secrets=ordinary)
        except OSError:
            return False
        if facts.digest != digest:
            if not ordinary or not _is_simple(facts):
                return False
            news.changed[path] = facts
    news.files = {
        path: (path, tuple(sign), lasting, facts.digest, plain[path])
        for path, sign, lasting, facts in files.seen()
    }
    return True


def _patched(
    table: Mapping[str, Any],
    changed: Mapping[str, Facts],
    store: Store,
    location: pathlib.Path,
) -> dict[int, LayerPlan] | None:
    """The plans of the layers that hold changed files, by their place in the image.

    None when the plans have not all of them, or when byte-code is no longer there.
    """
    from eggcrate.payload.bytecode import bytecode_entries, bytecode_path

    cache_tag = table["cache_tag"]
    found: dict[int, LayerPlan] = {}
    missed = set(changed)
    for number, (name, _, _, _, key) in enumerate(table["image"]["layers"]):
        if name.partition(" ")[0] not in _PLAIN_KINDS:
            continue
        plan = _recall_plan(store, location, key)
        if plan is None:
            return None
        entries = {entry.path: entry for entry in plan.entries}
        modules: list[FileEntry] = []
        for entry in plan.entries:
            facts = changed.get(entry.source or "")
            if facts is not None:
                missed.discard(entry.source or "")
                entry = dataclasses.replace(entry, size=facts.size, digest=facts.digest)
                entries[entry.path] = entry
                if entry.path.endswith(".py"):
                    modules.append(entry)
                found[number] = plan
        compiled = bytecode_entries(modules, store, cache_tag=cache_tag, whole_groups=False)
        wanted = {bytecode_path(module.path, cache_tag) for module in modules}
        if {entry.path for entry in compiled} != wanted & entries.keys():
            return None  # a source that compiles no more, or does now
        entries.update((entry.path, entry) for entry in compiled)
        if number in found:
            found[number] = LayerPlan(name, tuple(entries.values()))
            bundles = {entry.source for entry in entries.values() if entry.offset is not None}
            if not all(map(os.path.exists, filter(None, bundles))):
                return None
    return None if missed else found
