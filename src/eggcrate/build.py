"""An image of settings: planned, or made of the last one; written, checked, compared."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import pathlib
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

# what plans an image is loaded when one has to be planned: mostly it has not
from eggcrate import record
from eggcrate.errors import EggcrateError, PlanError, SeveralErrors, raise_all
from eggcrate.image import cache, layout
from eggcrate.image.compression import compressor
from eggcrate.image.layout import Image, ImageIndex
from eggcrate.image.plan import PLAN_HEADER, PLAN_LAYER
from eggcrate.image.store import Store, remove, replacing, write_if_changed
from eggcrate.image.words import amount
from eggcrate.settings import BASE_SIZE, ImageSettings, this_platform

if TYPE_CHECKING:
    from eggcrate.payload.relocation import Relocation
    from eggcrate.planning import Planned

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """An image that was made, and what it took: layers and bytes that were not there before.

    ``same`` says that it is the one that was there, to its last byte.
    The plans of its layers may have no entries, see :class:`eggcrate.record.Again`.
    """

    image: Image
    changed_layers: int
    changed_bytes: int
    same: bool = True


def build(settings: ImageSettings, store: Store) -> tuple[Outcome, ...]:
    """Build the image and leave it at the settings' location; what came of each platform.

    Nothing is written there before the plan is complete and has passed every check.  Where
    only ordinary files have other bytes than at the last build, its plan is used again.
    """
    limit = cache.size_limit()
    with store.in_use(), _alone(settings.location):
        made = _all(settings, lambda one: _made(one, store))
        outcomes = [_written(one, image, text, store) for one, image, text in made]
        _settle(settings, [outcome.image for outcome in outcomes], store)
    cache.bound(store, limit)
    return tuple(outcomes)


@contextlib.contextmanager
def _alone(location: pathlib.Path) -> Iterator[None]:
    """While the block runs, no other build is for the same directory: one waits."""
    lock = None
    # where there can't be a lock, nothing can be written either, which says why
    with contextlib.suppress(OSError):
        location.mkdir(parents=True, exist_ok=True)
        lock = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("Waiting for another build of %s.", location)
            fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


_Done = TypeVar("_Done")


def _all(settings: ImageSettings, work: Callable[[ImageSettings], _Done]) -> list[_Done]:
    """What the work gives for each platform; what goes wrong is said of all at once."""
    each = settings.each()
    done: list[_Done] = []
    errors: dict[tuple[type[EggcrateError], str, str], list[str]] = {}
    for one in each:
        try:
            done.append(work(one))
        except EggcrateError as error:
            for single in error.errors if isinstance(error, SeveralErrors) else (error,):
                key = type(single), single.what, single.hint
                errors.setdefault(key, []).append(str(one.platform))
    raise_all(
        kind(what if len(where) == len(each) else f"{', '.join(where)}: {what}", hint)
        for (kind, what, hint), where in errors.items()
    )
    return done


def _settle(settings: ImageSettings, images: Sequence[Image], store: Store) -> None:
    """Leave the index of several platforms' images beside them, and of other ones nothing."""
    wanted = {one.location.name for one in settings.each()}
    for path in settings.location.glob("linux-*"):
        if path.name not in wanted:
            remove(path)
    if settings.platforms:
        mine = this_platform()
        default = next((image for image in images if image.platform == mine), images[0])
        _write(settings, layout.index_of(images, default, store), store)
        remove(settings.location / "plan.txt")


def _made(settings: ImageSettings, store: Store) -> tuple[ImageSettings, Image, str]:
    """The image as it is in the store, and what ``plan.txt`` is to say."""
    location = settings.location
    if settings.base:
        from eggcrate.bases import pinned

        settings = pinned(settings, store)
    elif settings.refresh:
        from eggcrate.planning import Base

        Base(settings, store).refresh()
    key = surroundings(settings)
    again = record.again(
        store, location, key, compression=settings.compression, epoch=settings.epoch
    )
    if again is not None and (text := _patched_text(location, again)) is not None:
        image = again.image
    else:
        from eggcrate.planning import plan_image

        started = time.time_ns()
        planned = plan_image(settings, store)
        for warning in planned.warnings:
            logger.warning("%s", warning)
        image = _make(settings, planned, store)
        record.remember(
            store,
            location,
            key,
            image,
            planned.files,
            relocation=planned.details.relocation,
            cache_tag=planned.details.python.cache_tag,
            started=started,
            telling=planned.telling,
        )
        record.remember_details(store, location, planned.details)
        text = planned.text()
    return settings, image, text


def _written(settings: ImageSettings, image: Image, text: str, store: Store) -> Outcome:
    """What the image is, when it is at its location."""
    before = layout.layer_digests(settings.location / "oci")
    new = [layer for layer in image.layers if layer.descriptor.digest not in before]
    same = _read(settings.location / "digest") == f"{image.manifest.digest}\n".encode()
    _write(settings, image, store, text)
    if settings.base:
        from eggcrate.bases import keep_lock

        keep_lock(settings)
    return Outcome(image, len(new), sum(layer.descriptor.size for layer in new), same)


@contextlib.contextmanager
def packed_program(settings: ImageSettings, store: Store, path: str) -> Iterator[str | None]:
    """A program of the image's packages that runs here, while the block lasts.

    None where the packages have none of that path, or this machine can't run it.
    """
    if settings.platform != this_platform():
        yield None
        return
    from eggcrate.planning import base_of

    with store.in_use(), tempfile.TemporaryDirectory(prefix="eggcrate-") as scratch:
        words = base_of(settings, store).extract(path, pathlib.Path(scratch))
        script = pathlib.Path(scratch, "run")
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)
        yield os.fspath(script) if words else None


def summary(settings: ImageSettings, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line on what was made: names, digest, layers, bytes, and what of it is new.

    For several platforms it is one of each, and one on all of them.
    """
    names = ", ".join(reference.familiar for reference in settings.references)
    for outcome in outcomes:
        image = outcome.image
        change = (
            f"{outcome.changed_layers} changed, {amount(outcome.changed_bytes)}"
            if outcome.changed_layers
            else "unchanged"
            if outcome.same
            else "no layer changed"
        )
        yield (
            f"{image.platform if settings.platforms else names}  {image.manifest.digest}  "
            f"{len(image.layers)} layers, {amount(image.size)}  ({change})"
        )
    if settings.platforms:
        digest = (_read(settings.location / "digest") or b"").decode().strip()
        yield f"{names}  {digest}  {len(outcomes)} platforms"


def before_last(settings: ImageSettings, store: Store) -> Image | None:
    """The image that was built before the last one; None when there was none."""
    return record.recall(store, settings.location, previous=True)


def last(settings: ImageSettings, store: Store) -> Image:
    """The image at the settings' location, with its whole plan."""
    image = record.recall(store, settings.location)
    digest = _read(settings.location / "digest")
    if image is None or digest != f"{image.manifest.digest}\n".encode():
        raise PlanError(
            f"the cache does not know the image at {settings.location}",
            "build it, with bin/buildout or with the command build",
        )
    return image


def relocation_of(settings: ImageSettings, store: Store) -> Relocation:
    """By which rules the paths of this machine became those of the last image."""
    return record.recall_details(store, settings.location).relocation


def verify(settings: ImageSettings, store: Store) -> tuple[Image, Image | None]:
    """The last image, and the one that is built now from nothing but downloads.

    None in its place when it has the same digest.
    """
    from eggcrate.planning import plan_image

    image = last(settings, store)
    layout.check_layout(image, settings.location / "oci")
    with store.in_use(), store.scratch() as scratch:
        fresh = Store(scratch)
        (fresh.root / "debs").mkdir()
        (fresh.root / "apt").symlink_to(store.root / "apt")
        for deb_file in sorted((store.root / "debs").glob("*.deb")):
            (fresh.root / "debs" / deb_file.name).symlink_to(deb_file)
        planned = plan_image(settings, fresh, downloads=store)
        for layer in planned.below.layers:
            blob = fresh.blob(layer.descriptor.digest)
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.unlink(missing_ok=True)
            blob.symlink_to(store.blob(layer.descriptor.digest))
        again = _make(settings, planned, fresh)
    return image, None if again.manifest == image.manifest else again


def rebase(settings: ImageSettings, store: Store) -> tuple[Outcome, ...]:
    """The last image's layers on the base's packages as they are now, at its location.

    Nothing else is read or made again: the layers of the application do not depend on
    what is below them.
    """
    limit = cache.size_limit()
    with store.in_use(), _alone(settings.location):
        made = _all(settings, lambda one: _rebased(one, store))
        outcomes = [_written(one, image, text, store) for one, image, text in made]
        _settle(settings, [outcome.image for outcome in outcomes], store)
    cache.bound(store, limit)
    return tuple(outcomes)


def _rebased(settings: ImageSettings, store: Store) -> tuple[ImageSettings, Image, str]:
    from eggcrate.planning import plan_rebased

    if settings.base:
        raise PlanError(
            f"the image is built on {settings.base}, and rebase is for Debian's packages",
            "run the command build --newest: the layers of the application stay as they are",
        )
    image = last(settings, store)
    details = record.recall_details(store, settings.location)
    plan = plan_rebased(settings, store, image, details)
    made = layout.make_layers(
        plan, store=store, compression=settings.compression, epoch=settings.epoch
    )
    image = layout.with_layers(image, made, store)
    record.replace(store, settings.location, image)
    before_text = _read(settings.location / "plan.txt") or b""
    header = before_text.decode("utf-8", "replace").partition(PLAN_LAYER)[0]
    text = plan.text()
    if header.startswith(PLAN_HEADER):
        text = header + text.removeprefix(PLAN_HEADER)
    return settings, image, text


def _make(settings: ImageSettings, planned: Planned, store: Store) -> Image:
    return layout.make_image(
        planned.plan,
        platform=settings.platform,
        runtime=planned.runtime,
        references=settings.references,
        store=store,
        compression=settings.compression,
        epoch=settings.epoch,
        below=planned.below,
    )


def surroundings(settings: ImageSettings) -> str:
    """What an image depends on beside the files that are read for it, as one digest."""
    own = []
    for directory, _, names in sorted(os.walk(pathlib.Path(__file__).parent)):
        if not directory.endswith(("tests", "__pycache__")):
            for name in sorted(names):
                status = os.stat(f"{directory}/{name}")
                own.append((name, status.st_size, status.st_mtime_ns))
    # whether package lists are to be fetched anew says nothing about what is built, nor does
    # where it goes, or how large a base may be
    same = dataclasses.replace(
        settings,
        refresh=False,
        offline=False,
        push=(),
        insecure_registries=(),
        token_hosts=(),
        base_size=BASE_SIZE,
    )
    python = f"{sys.version} {sys.executable} {sys.prefix}"
    text = f"{record.FORMAT} {python} {compressor(settings.compression)} {own} {same}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _patched_text(location: pathlib.Path, again: record.Again) -> str | None:
    """What ``plan.txt`` is to say, when some layers have changed; None when it is not whole."""
    try:
        text = (location / "plan.txt").read_bytes().decode("utf-8")
    except (OSError, ValueError):
        return None
    header, *layers = text.split(PLAN_LAYER)
    if not header.startswith(PLAN_HEADER) or len(layers) != len(again.image.layers):
        return None
    for number, plan in again.changed.items():
        layers[number] = plan.text(number + 1).removeprefix(PLAN_LAYER)
    return PLAN_LAYER.join((header, *layers))


def _write(
    settings: ImageSettings, image: Image | ImageIndex, store: Store, plan_text: str = ""
) -> None:
    root = settings.location
    digest = f"{image.manifest.digest}\n".encode()
    archives = f"{image.manifest.digest} {' '.join(map(str, image.references))}"
    key = hashlib.sha256(archives.encode()).hexdigest()
    unchanged = (
        _read(root / "digest") == digest
        and {"size": _size(root / "image.tar")} == store.recall("archives", key)
        and layout.is_layout_of(image, root / "oci")
    )
    if not unchanged:
        # whatever fails, the archive and the layout are of one image, the old or the new
        with replacing(root / "image.tar") as archive:
            layout.write_archive(image, store, archive, settings.epoch)
            layout.write_layout(image, store, root / "oci")
        store.remember("archives", key, {"size": _size(root / "image.tar")})
    # a power cut may take these, which the next build makes anew
    if plan_text:
        text = plan_text.encode("utf-8", "backslashreplace")
        write_if_changed(root / "plan.txt", text, sync=False)
    write_if_changed(root / "digest", digest, sync=False)


def _size(path: pathlib.Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read(path: pathlib.Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
