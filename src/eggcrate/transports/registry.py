"""Repositories of registries (OCI distribution-spec 1.1): images pulled and pushed.

Nothing is believed: a digest is computed from the bytes that come, no more of them are read
than were announced, and what was pushed is read back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import random
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from eggcrate.errors import TransportError
from eggcrate.image import oci
from eggcrate.image.descriptor import INDEX, Descriptor
from eggcrate.image.oci import Reference, digest_of
from eggcrate.image.progress import progress
from eggcrate.image.store import Store
from eggcrate.image.stored import Stored
from eggcrate.image.words import amount
from eggcrate.transports.connection import (
    PASSING,
    Access,
    Answer,
    Connection,
    Interrupted,
    Limits,
    Stopped,
)

__all__ = ["Access", "Limits", "Repository", "Sent", "push", "summary"]

logger = logging.getLogger(__name__)

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_EMPTY = "application/vnd.oci.empty.v1+json"
# the limit that registries have, too (distribution-spec, "Pushing Manifests")
_LONGEST_MANIFEST = 4 << 20
# What is no larger is sent without asking for it first, where it is most likely not there.
_SMALL = 16 << 10
# Up to so many bytes go with one request; what is larger is sent so that it can go on after
# the connection is lost.
_ONE_REQUEST = 8 << 20
# What a request may have, from the whole to what nginx lets through unless it is told more
_CHUNKS = (1 << 62, 32 << 20, 8 << 20, 960 << 10)
# what another session, or a moment later, may make good
_UPLOAD_AGAIN = (*PASSING, 202, 204, 400, 404, 416)
# What docker-registry says while somebody else pushes the same layer into the same repository:
# for a moment the file that says that the layer is there is empty.
_NOT_YET = re.compile(rb"DIGEST_INVALID|BLOB_UNKNOWN")
_MANIFEST_TRIES = 5
# of how many images of an index the blobs are looked at before a push
_MOST_PLATFORMS = 8
# What registries say of a tag that may not become another image: Harbor, ECR, Quay and ACR each
# with another status and code.
_IMMUTABLE = re.compile(rb"immutable|already exists|overwrit", re.IGNORECASE)
# how often a list of referrers is written anew because somebody else has written it
_REFERRER_TRIES = 8
# and so many seconds, from the least to the most, before it is read again
_MOMENT = (0.2, 0.4)

Told = Callable[[int], None]


def _nobody(size: int) -> None:
    """Nobody wants to know."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """What a push took: names, the image's digest, bytes of bodies sent, and layers.

    ``layers_there`` of ``layers`` were in the repository, or could be mounted.
    """

    references: tuple[Reference, ...]
    digest: str
    bytes: int
    blobs: int
    layers: int
    layers_there: int


def summary(sent: Sent) -> str:
    """One line on a push: names, digest, how much was sent."""
    names = ", ".join(map(str, sent.references))
    return (
        f"pushed {names} {sent.digest} ({amount(sent.bytes)} sent, {sent.layers_there} of "
        f"{sent.layers} layers there)"
    )


class Repository:
    """One repository of a registry, used from several threads if need be.

    ``host`` and ``path`` are those of a :class:`eggcrate.image.oci.Reference`.  ``writing``
    asks for the right to push.  ``sources`` are paths of other repositories of the same
    host, from which blobs may be mounted.
    """

    def __init__(
        self,
        host: str,
        path: str,
        *,
        access: Access | None = None,
        writing: bool = False,
        sources: Sequence[str] = (),
        stop: threading.Event | None = None,
    ) -> None:
        self.host = host
        self.path = path
        self.sources = tuple(dict.fromkeys(source for source in sources if source != path))
        self._connection = Connection(
            host,
            path,
            access or Access(),
            actions="pull,push" if writing else "pull",
            sources=self.sources,
            stop=stop,
        )

    @property
    def name(self) -> str:
        """Host and path."""
        return f"{self.host}/{self.path}"

    # Manifests

    def _ask_for(self, method: str, reference: str) -> Answer:
        """What the registry answers of a manifest, by a tag or a digest."""
        _check(reference, self.name)
        return self._connection.call(
            method,
            f"manifests/{reference}",
            headers={"Accept": ", ".join((*oci.MANIFESTS, *oci.INDEXES))},
            limit=_LONGEST_MANIFEST,
        )

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """The manifest or index with a tag or a digest: its descriptor and its bytes.

        It is whole, of a known media type, and every digest in it has the form of one.
        """
        wanted = reference if ":" in reference else ""
        answer = self._ask_for("GET", reference)
        if answer.status == 404:
            raise self._not_found(answer, reference)
        if answer.status != 200:
            raise self._connection.refusal(answer, f"give the manifest {reference}")
        found = digest_of(answer.body)
        said = answer.headers.get("docker-content-digest", found)
        if (wanted or said) != found or said != found:
            raise TransportError(
                f"{self.name}: the manifest {reference} is {found}, and not {wanted or said}",
                "ask who runs the registry, or what is between: nothing of it is used",
            )
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if answer.is_page:
            raise self._connection.page(answer)
        media_type = _checked_manifest(answer.body, kind, f"{self.name}@{found}")
        return Descriptor(media_type, found, len(answer.body)), answer.body

    def _not_found(self, answer: Answer, reference: str) -> TransportError:
        if answer.is_page:
            return self._connection.page(answer)
        if b"NAME_UNKNOWN" in answer.body:
            return TransportError(
                f"{self.host} has no repository {self.path} (404)",
                "see whether the name is right",
            )
        kind = "manifest" if ":" in reference else "tag"
        return TransportError(
            f"{self.name} has no {kind} {reference} (404)",
            "see which there are, and whether the name is right: "
            f"skopeo list-tags docker://{self.name}",
        )

    def digest(self, reference: str) -> str | None:
        """The digest of the manifest with a tag or a digest; None where there is none."""
        answer = self._ask_for("HEAD", reference)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._connection.refusal(answer, f"say whether there is {reference}")
        found: str = answer.headers.get("docker-content-digest", "")
        if oci.DIGEST.fullmatch(found):
            return found
        return self.manifest(reference)[0].digest

    def blobs_of(self, reference: str, *, within: bool = False) -> frozenset[str]:
        """The digests of the blobs of the image with a tag; none where there is no such image.

        Nor are there any where it can't be read: who asks is about to replace it.  Of an index
        they are those of its images, which are asked for ``within`` it.
        """
        answer = self._ask_for("GET", reference)
        if answer.status in PASSING:
            raise self._connection.refusal(answer, f"give the manifest {reference}")
        if answer.status != 200:
            return frozenset()
        try:
            value = _json(answer.body, self.name)
            if "manifests" in value and not within:
                images = [item["digest"] for item in value["manifests"][:_MOST_PLATFORMS]]
                return frozenset().union(
                    *(self.blobs_of(digest, within=True) for digest in images)
                )
            return frozenset(item["digest"] for item in (*value["layers"], value["config"]))
        except (TransportError, KeyError, TypeError):
            return frozenset()

    def put_manifest(
        self,
        data: bytes,
        media_type: str,
        reference: str,
        *,
        unknown: Callable[[], None] | None = None,
    ) -> bool:
        """Store a manifest under a tag or its digest, and see that it is there.

        Whether the registry has understood its ``subject``: that it will be found among the
        referrers (OCI-Subject).  Where the registry says that it lacks a blob, ``unknown`` is
        called, once, to do something about it.
        """
        _check(reference, self.name)
        digest = digest_of(data)
        limits = self._connection.limits
        deadline = time.monotonic() + limits.total
        for attempt in range(1, _MANIFEST_TRIES + 1):
            answer = self._connection.call(
                "PUT",
                f"manifests/{reference}",
                headers={"Content-Type": media_type, "Content-Length": str(len(data))},
                body=lambda: data,
            )
            if _NOT_YET.search(answer.body) is None or attempt == _MANIFEST_TRIES:
                break
            if unknown is not None:
                unknown()
                unknown = None
            else:
                self._connection.rest(attempt, deadline)
        if answer.status not in (200, 201, 202):
            if 400 <= answer.status < 500 and _IMMUTABLE.search(answer.body):
                raise TransportError(
                    f"{self.host} does not let the tag {reference} be another image "
                    f"({answer.status}){self._connection.quoted(answer)}",
                    "push under another tag, or ask for one that may move",
                )
            raise self._refused_push(answer, f"take the manifest {reference}")
        said = answer.headers.get("docker-content-digest", digest)
        found = said if said != digest else self.digest(reference)
        if found != digest:
            raise TransportError(
                f"{self.name}: {reference} is {found or 'nothing'} after {digest} was pushed",
                "see who else pushes there at the same time, and run again; if nobody does, "
                "ask who runs the registry",
            )
        return "oci-subject" in answer.headers

    def _refused_push(self, answer: Answer, doing: str) -> TransportError:
        if answer.status == 404 and not answer.is_page:
            return TransportError(
                f"{self.host} has no repository {self.path} to push to (404)"
                f"{self._connection.quoted(answer)}",
                "make it there first, or see whether the name is right",
            )
        if answer.status == 405:
            return TransportError(
                f"{self.host} takes no pushes (405){self._connection.quoted(answer)}",
                "push to the registry itself, and not to a mirror of it",
            )
        return self._connection.refusal(answer, doing)

    # Blobs, down

    def blob(self, descriptor: Descriptor, store: Store) -> None:
        """Have a blob in the store: exactly the bytes that the descriptor announces.

        A download that breaks off goes on where it was.
        """
        _check(descriptor.digest, self.name)
        if store.has(descriptor.digest, descriptor.size):
            return
        if "foreign" in descriptor.media_type or "nondistributable" in descriptor.media_type:
            raise TransportError(
                f"{self.name}: the layer {descriptor.digest} is said to lie elsewhere",
                "take another base image: eggcrate fetches nothing from the URLs of a manifest",
            )
        what = f"fetching {descriptor.digest[:19]} of {self.name}"
        with progress(logger, what, descriptor.size) as told, store.writing() as stream:
            self._download(descriptor, stream, told)
            store.adopt(stream, descriptor.digest)

    def _download(self, descriptor: Descriptor, stream: BinaryIO, told: Told) -> None:
        limits = self._connection.limits
        deadline = time.monotonic() + limits.total
        attempt = damaged = 0
        digest = hashlib.sha256()
        got = 0
        while True:
            try:
                for block, start in self._pieces(descriptor, got):
                    if start != got:  # from the beginning again
                        stream.seek(0)
                        stream.truncate()
                        digest, got = hashlib.sha256(), 0
                    stream.write(block)
                    digest.update(block)
                    got += len(block)
                    told(len(block))
                    if time.monotonic() > deadline:
                        raise TransportError(
                            f"{self.name}: {got} of {descriptor.size} bytes of "
                            f"{descriptor.digest} have come in {limits.total:.0f} seconds",
                            "see whether the network is slow, and run again",
                        )
            except Interrupted as failed:
                attempt += 1
                if not failed.passing:
                    raise failed.error from failed
                if attempt >= limits.tries:
                    raise TransportError(
                        f"{self.name}: {got} of {descriptor.size} bytes of {descriptor.digest} "
                        f"have come in {attempt} tries: {failed.error.what}",
                        failed.error.hint,
                    ) from failed
                self._connection.rest(attempt, deadline)
                continue
            if f"sha256:{digest.hexdigest()}" == descriptor.digest:
                return
            damaged += 1
            if damaged > 1:
                raise TransportError(
                    f"{self.name}: what has come as {descriptor.digest} has the digest "
                    f"sha256:{digest.hexdigest()}",
                    "ask who runs the registry, or what is between: nothing of it is kept",
                )
            stream.seek(0)
            stream.truncate()
            digest, got = hashlib.sha256(), 0

    def _pieces(self, descriptor: Descriptor, got: int) -> Iterable[tuple[bytes, int]]:
        """The blob from byte ``got`` on, or from its beginning: each piece with its place."""
        size = descriptor.size
        if got == size:
            return
        headers = {"Range": f"bytes={got}-"} if got else {}
        target = f"blobs/{descriptor.digest}"
        with self._connection.request("GET", target, headers=headers) as response:
            start = 0
            if response.status == 206 and got:
                said = response.headers.get("content-range", "")
                if said.replace(" ", "") not in (
                    f"bytes{got}-{size - 1}/{size}",
                    f"bytes{got}-{size - 1}/*",
                ):
                    raise self._size(descriptor, f"bytes {said!r}")
                start = got
            elif response.status == 404:
                raise TransportError(
                    f"{self.name} has no blob {descriptor.digest} (404)",
                    "push the image again, or take another base: what its manifest names is "
                    "not all there",
                )
            elif response.status != 200:
                answer = self._connection.answer(target, response)
                raise self._connection.refusal(answer, f"give the blob {descriptor.digest}")
            length = response.headers.get("content-length")
            if length is not None and length != str(size - start):
                kind = response.headers.get("content-type", "")
                if kind.startswith("text/html"):
                    answer = Answer(target, response.status, response.headers, b"")
                    raise self._connection.page(answer)
                raise self._size(descriptor, f"{length} bytes")
            for block in self._connection.blocks(response):
                if start + len(block) > size:
                    raise self._size(descriptor, "more")
                yield block, start
                start += len(block)
            if start != size:
                raise self._size(descriptor, f"{start} bytes")

    def _size(self, descriptor: Descriptor, said: str) -> TransportError:
        return TransportError(
            f"{self.name}: {descriptor.digest} has {said}, where its manifest announces "
            f"{descriptor.size} bytes",
            "ask who runs the registry, or what is between: nothing of it is used",
        )

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the repository has the blob."""
        _check(descriptor.digest, self.name)
        answer = self._connection.call("HEAD", f"blobs/{descriptor.digest}")
        if answer.status in (400, 404):
            # 400 is nobody's no; what is the matter is said to an upload, or it is over
            return False
        if answer.status != 200:
            raise self._connection.refusal(answer, f"say whether it has {descriptor.digest}")
        length = answer.headers.get("content-length")
        if length not in (None, str(descriptor.size)):
            if answer.is_page:
                raise self._connection.page(answer)
            raise self._size(descriptor, f"{length} bytes")
        return True

    # Blobs, up

    def mount(self, descriptor: Descriptor) -> bool:
        """Whether the blob could be mounted from one of the sources."""
        for source in self.sources:
            query = urllib.parse.urlencode({"mount": descriptor.digest, "from": source})
            answer = self._connection.call(
                "POST", f"blobs/uploads/?{query}", headers={"Content-Length": "0"}
            )
            if answer.status == 201:
                return True
            if answer.status == 202:
                # a session that was opened instead
                location = self._location(answer)
                with contextlib.suppress(TransportError, Interrupted):
                    self._connection.call("DELETE", location, tries=1)
        return False

    def _session(self) -> str:
        """Where a new upload goes."""
        answer = self._connection.call(
            "POST", "blobs/uploads/", headers={"Content-Length": "0"}
        )
        if answer.status != 202:
            raise self._refused_push(answer, "begin an upload")
        return self._location(answer)

    def _location(self, answer: Answer) -> str:
        """Where the registry wants the next request of an upload."""
        location = self._connection.joined(answer.url, answer.headers.get("location", ""))
        own = urllib.parse.urlsplit(self._connection.origin)
        parts = urllib.parse.urlsplit(location)
        host, known = parts.hostname or "", own.hostname or ""
        if "location" not in answer.headers or not host:
            raise TransportError(
                f"{self.host} does not say where an upload is to go",
                "see whether this is a registry, and ask who runs it",
            )
        if parts.scheme != own.scheme and parts.scheme != "https":
            raise TransportError(
                f"{self.host} wants an upload without TLS, at {parts.scheme}://{host}",
                "have the proxy in front of the registry send X-Forwarded-Proto, or set "
                "relativeurls of the registry's http section",
            )
        if host != known and not host.endswith(f".{known}") and not known.endswith(f".{host}"):
            raise TransportError(
                f"{self.host} wants an upload at another host, {host}",
                "ask who runs the registry: blobs are sent to the registry alone",
            )
        return location

    def send(self, descriptor: Descriptor, stream: BinaryIO, told: Told = _nobody) -> None:
        """Send the blob, in one request or in some; each piece is ``told``."""
        limits = self._connection.limits
        deadline = time.monotonic() + limits.total
        upload = _Upload()
        attempt = 0
        while True:
            answer: Answer | None = None
            failure: Interrupted | None = None
            try:
                if upload.location is None:
                    upload.location, upload.offset = self._session(), 0
                answer = self._go_on(descriptor, stream, upload, told)
            except Interrupted as failed:
                failure = failed
            if answer is not None and answer.status == 201:
                self._same(answer, descriptor)
                return
            if answer is not None and answer.status == 413 and upload.smaller(descriptor.size):
                self._resume(upload)
                continue
            attempt += 1
            if failure is not None and (not failure.passing or attempt >= limits.tries):
                raise TransportError(
                    f"{self.name}: {descriptor.digest} could not be sent in {attempt} "
                    f"tries: {failure.error.what}",
                    failure.error.hint,
                ) from failure
            wanted = None
            if answer is not None:
                if attempt >= limits.tries or answer.status not in _UPLOAD_AGAIN:
                    raise self._refused_push(answer, f"take the blob {descriptor.digest}")
                wanted = self._connection.asked_wait(answer.status, answer.headers)
            self._connection.rest(attempt, deadline, wanted)
            self._resume(upload)

    def _go_on(
        self, descriptor: Descriptor, stream: BinaryIO, upload: _Upload, told: Told
    ) -> Answer:
        """Send what is not there yet, as far as the registry takes it; its last answer."""
        assert upload.location is not None
        in_parts = descriptor.size > min(_ONE_REQUEST, upload.chunk)
        while in_parts and upload.offset < descriptor.size:
            end = min(upload.offset + upload.chunk, descriptor.size)
            answer = self._patch(descriptor, stream, upload, end, told)
            if answer.status not in (201, 202, 204) or _received(answer, end) not in (
                None,
                end,
            ):
                return answer
            upload.location, upload.offset = self._location(answer), end
        return self._put(descriptor, stream, upload.location, upload.offset, told)

    def _resume(self, upload: _Upload) -> None:
        """Find out from which byte an upload goes on; where it can't, it begins anew."""
        location, upload.location = upload.location, None
        if location is None:
            return
        with contextlib.suppress(TransportError, Interrupted):
            answer = self._connection.call("GET", location)
            if answer.status == 204 and (offset := _received(answer, 0)):
                upload.location, upload.offset = self._location(answer), offset

    def _patch(
        self,
        descriptor: Descriptor,
        stream: BinaryIO,
        upload: _Upload,
        end: int,
        told: Told,
    ) -> Answer:
        assert upload.location is not None
        offset = upload.offset
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - offset),
        }
        if offset or end < descriptor.size:
            headers["Content-Range"] = f"{offset}-{end - 1}"
        return self._connection.call(
            "PATCH",
            upload.location,
            headers=headers,
            body=lambda: _Piece(stream, offset, end, told, self._connection),
            tries=1,
        )

    def _put(
        self, descriptor: Descriptor, stream: BinaryIO, location: str, offset: int, told: Told
    ) -> Answer:
        """End an upload, with what has not been sent yet."""
        joint = "&" if urllib.parse.urlsplit(location).query else "?"
        digest = urllib.parse.quote(descriptor.digest, safe="")
        return self._connection.call(
            "PUT",
            f"{location}{joint}digest={digest}",
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(descriptor.size - offset),
            },
            body=lambda: _Piece(stream, offset, descriptor.size, told, self._connection),
            tries=1,
        )

    def _same(self, answer: Answer, descriptor: Descriptor) -> None:
        said = answer.headers.get("docker-content-digest", descriptor.digest)
        if said != descriptor.digest:
            raise TransportError(
                f"{self.name}: {descriptor.digest} was stored as {said!r}",
                "ask who runs the registry, or what is between, and push again",
            )

    # Referrers

    def attach(
        self,
        subject: Descriptor,
        artifact_type: str,
        media_type: str,
        data: bytes,
        *,
        title: str = "",
    ) -> Descriptor:
        """Store a document that belongs to an image, as one of its referrers.

        The descriptor of its manifest comes back.  Where the registry has no API for
        referrers, the list of them gets the tag that stands for it (distribution-spec,
        "Referrers Tag Schema"); what others have put there stays.
        """
        layer = Descriptor(media_type, digest_of(data), len(data))
        config = Descriptor(_EMPTY, digest_of(b"{}"), 2)
        for descriptor, content in ((config, b"{}"), (layer, data)):
            if not self.has_blob(descriptor):
                self.send(descriptor, io.BytesIO(content))
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": artifact_type,
            "config": config.as_json(),
            "layers": [layer.as_json()],
            "subject": subject.as_json(),
        }
        if title:
            value["layers"][0]["annotations"] = {"org.opencontainers.image.title": title}
        manifest = oci.document(value)
        descriptor = Descriptor(oci.MANIFEST, digest_of(manifest), len(manifest))
        if not self.put_manifest(manifest, oci.MANIFEST, descriptor.digest):
            self._list(subject, {**descriptor.as_json(), "artifactType": artifact_type})
        return descriptor

    def referrers(self, subject: Descriptor) -> list[dict[str, Any]]:
        """What belongs to an image: descriptors, as the registry or the tag has them."""
        answer = self._connection.call(
            "GET", f"referrers/{subject.digest}", limit=_LONGEST_MANIFEST
        )
        if answer.status == 200 and not answer.is_page:
            data = answer.body
        else:
            data = self._listed(subject) or b"{}"
        found: list[dict[str, Any]] = _json(data, self.name).get("manifests") or []
        return found

    def _listed(self, subject: Descriptor) -> bytes | None:
        tag = subject.digest.replace(":", "-")
        if self.digest(tag) is None:
            return None
        return self.manifest(tag)[1]

    def _list(self, subject: Descriptor, entry: dict[str, Any]) -> None:
        """Have an entry in the list of referrers, with those of others.

        Nobody can lock it.  So it is read again, at once and a moment later: who has read it
        before us may have written it after us.
        """
        tag = subject.digest.replace(":", "-")
        for _ in range(_REFERRER_TRIES):
            seen = 0
            while seen < 2:
                data = self._listed(subject)
                entries = _json(data, self.name).get("manifests", []) if data else []
                if any(other.get("digest") == entry["digest"] for other in entries):
                    seen += 1
                    if seen < 2:
                        time.sleep(random.uniform(*_MOMENT))  # noqa: S311  (to come apart)
                    continue
                break
            if seen == 2:
                return
            index = oci.document(
                {
                    "schemaVersion": 2,
                    "mediaType": INDEX,
                    "manifests": sorted((*entries, entry), key=lambda item: item["digest"]),
                }
            )
            with contextlib.suppress(_Overtaken):
                self._put_list(index, tag)
        raise TransportError(
            f"{self.name}: the list of what belongs to {subject.digest} is always written by "
            f"somebody else",
            "run again when nobody else attaches something to this image",
        )

    def _put_list(self, index: bytes, tag: str) -> None:
        try:
            self.put_manifest(index, INDEX, tag)
        except TransportError as error:
            if self.digest(tag) not in (None, digest_of(index)):
                raise _Overtaken from error
            raise


@dataclasses.dataclass(slots=True)
class _Upload:
    """How far an upload is, where it goes on, and how much goes with a request."""

    location: str | None = None
    offset: int = 0
    chunk: int = 1 << 62

    def smaller(self, size: int) -> bool:
        """Whether less can go with a request, which it does from now on."""
        left = [chunk for chunk in _CHUNKS if chunk < min(self.chunk, size)]
        if left:
            self.chunk = left[0]
        return bool(left)


class _Overtaken(Exception):
    """Somebody else has written the list at the same time."""


class _Piece:
    """Some bytes of a stream, as the body of a request."""

    def __init__(
        self, stream: BinaryIO, start: int, end: int, told: Told, connection: Connection
    ) -> None:
        self._stream = stream
        self._left = end - start
        self._told = told
        self._connection = connection
        stream.seek(start)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if self._connection.stopped():
            raise Stopped
        size = self._left if size < 0 else min(size, self._left)
        block = self._stream.read(size)
        self._left -= len(block)
        self._told(len(block))
        return block


def _received(answer: Answer, otherwise: int) -> int | None:
    """How many bytes of an upload the registry has, as far as it says so."""
    match = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,18})", answer.headers.get("range", ""))
    if match is None:
        return None
    # 0-0 is said of one byte and of none
    return int(match[1]) + 1 if match[1] != "0" else otherwise


# Documents that strangers have written


def _check(reference: str, name: str) -> None:
    """Nothing, when this is a tag or a digest, with which paths and URLs may be made."""
    if ":" in reference:
        if oci.DIGEST.fullmatch(reference) is None:
            raise TransportError(
                f"{name}: {reference[:100]!r} is not a digest that eggcrate knows",
                "use sha256: and 64 hexadecimal digits; in a manifest it is damage or worse",
            )
    elif oci.TAG.fullmatch(reference) is None:
        raise TransportError(
            f"{name}: {reference[:100]!r} is not a tag",
            "use up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'",
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _json(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object in which no key is twice."""
    value = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data, object_pairs_hook=_once)
    if not isinstance(value, dict):
        raise TransportError(
            f"{name}: the manifest is not JSON as it should be",
            "ask who runs the registry, or what is between: nothing of it is used",
        )
    return value


def _checked_manifest(data: bytes, kind: str, name: str) -> str:
    """The media type of a manifest or an index that can't be taken for something else."""
    value = _json(data, name)
    said = value.get("mediaType")
    if kind.startswith(_SCHEMA_1) or value.get("schemaVersion") == 1:
        raise TransportError(
            f"{name} has the format of 2014, schema 1, which has no digests to rely on",
            "push the image anew with a tool of these days, or take another one",
        )
    lists, has_layers = "manifests" in value, bool({"config", "layers"} & set(value))
    expected = oci.INDEXES if lists else oci.MANIFESTS
    media_type = said or (kind if kind in expected else expected[0])
    if (
        lists == has_layers
        or media_type not in expected
        or (said and kind in (*oci.MANIFESTS, *oci.INDEXES) and kind != said)
        or value.get("schemaVersion") != 2
    ):
        raise TransportError(
            f"{name} is not clearly an image or an index: it is sent as {kind[:80]!r} and says "
            f"{str(said)[:80]!r}",
            "take another image: such a document means this to some, and that to others",
        )
    entries = value.get("manifests" if lists else "layers")
    found = list(entries) if isinstance(entries, list) else [entries]
    if not lists:
        found.append(value.get("config"))
    if value.get("subject") is not None:
        found.append(value["subject"])
    for item in found:
        _check_descriptor(item, name)
    return str(media_type)


def _check_descriptor(item: Any, name: str) -> None:
    size = item.get("size") if isinstance(item, Mapping) else None
    if (
        not isinstance(item, Mapping)
        or not isinstance(item.get("mediaType"), str)
        or type(size) is not int
        or not 0 <= size < 1 << 50
    ):
        raise TransportError(
            f"{name} has an entry without media type, digest and size",
            "take another image, or push this one anew",
        )
    _check(f"{item.get('digest')}" if ":" in f"{item.get('digest')}" else ":", name)


# An image, to all its places


def push(
    image: Stored,
    references: Sequence[Reference],
    *,
    access: Access | None = None,
    mount_from: Sequence[str] = (),
    parallel: int = 4,
) -> list[Sent]:
    """Have the image under all these references; what each repository was sent.

    First every blob is everywhere, then the manifests that an index names, and where there are
    several repositories the image's own under its digest; tags come last, so that none ever
    has half an image.  ``mount_from`` are repositories (``HOST/PATH``) that may have blobs
    already, beside those of its base.
    """
    stop = threading.Event()
    places: dict[tuple[str, str], list[Reference]] = {}
    for reference in references:
        places.setdefault((reference.host, reference.path), []).append(reference)
    near = (oci.repository(image.base_name), *mount_from)
    known = [name.partition("/")[::2] for name in near]
    documents = {}
    for blob in (image.manifest, *(one.manifest for one in image.images)):
        with image.open(blob) as stream:
            documents[blob] = stream.read()
    pushes = []
    for (host, path), names in places.items():
        sources = [other for at, other in (*known, *places) if at == host and other != path]
        repository = Repository(
            host, path, access=access, writing=True, sources=sources, stop=stop
        )
        one = _Push(repository, image, names, stop, parallel)
        # one tag may be new, as 1.4.1 is, and another one have the image before this
        found = (repository.blobs_of(name.tag) for name in names)
        one.send(next(filter(None, found), frozenset()))
        pushes.append(one)
    # an index is taken when what it names is there
    first = [one.manifest for one in image.images]
    if len(pushes) > 1:
        # where one does not take it, the tags of all stay as they are
        first.append(image.manifest)
    for one in pushes:
        for manifest in first:
            one.put(manifest, documents[manifest], manifest.digest)
    for one in pushes:
        for name in one.names:
            one.put(image.manifest, documents[image.manifest], name.tag)
    return [one.sent() for one in pushes]


@dataclasses.dataclass(slots=True)
class _Push:
    """An image on its way into one repository."""

    repository: Repository
    image: Stored
    names: Sequence[Reference]
    stop: threading.Event
    parallel: int
    absent: set[str] = dataclasses.field(default_factory=set)
    size: int = 0

    def send(self, there: frozenset[str]) -> None:
        """Have every blob in the repository.

        ``there`` are those of the image that the tag has now: a registry keeps what an image
        needs, so nothing is asked about them.
        """
        stop, parallel = self.stop, self.parallel
        manifests = {self.image.manifest, *(image.manifest for image in self.image.images)}
        blobs = [
            blob
            for blob in self.image.blobs
            if blob not in manifests and blob.digest not in there
        ]
        lock = threading.Lock()

        def lacks(blob: Descriptor) -> bool:
            if there and blob.size <= _SMALL:
                return True
            return not self.repository.has_blob(blob) and not self.repository.mount(blob)

        found = _all(lacks, blobs, stop, parallel)
        absent = [blob for blob, is_absent in zip(blobs, found, strict=True) if is_absent]
        # the largest first, so that they do not end alone
        absent.sort(key=lambda blob: -blob.size)
        what = f"pushing to {self.repository.name}"
        total = sum(blob.size for blob in absent)
        with contextlib.ExitStack() as stack, progress(logger, what, total) as told:
            # all at once: a build may put another image in its place meanwhile
            streams = {
                blob.digest: stack.enter_context(self.image.open(blob)) for blob in absent
            }

            def locked(size: int) -> None:
                with lock:
                    self.size += size
                    told(size)

            def send(blob: Descriptor) -> None:
                stream = streams[blob.digest]
                try:
                    self.repository.send(blob, stream, locked)
                except TransportError:
                    # a registry refuses what is damaged, and does not know where
                    self.image.check(blob, stream)
                    raise

            _all(send, absent, stop, parallel)
        self.absent |= {blob.digest for blob in absent}

    def put(self, manifest: Descriptor, data: bytes, reference: str) -> None:
        """Have the manifest under a tag or its digest.

        A registry that has lost a blob of the image that it had is given it again.
        """
        self.repository.put_manifest(
            data, manifest.media_type, reference, unknown=lambda: self.send(frozenset())
        )
        self.size += len(data)

    def sent(self) -> Sent:
        """What it took."""
        layers = {layer.digest for layer in self.image.layers}
        return Sent(
            tuple(self.names),
            self.image.manifest.digest,
            self.size,
            len(self.absent),
            len(layers),
            len(layers - self.absent),
        )


def _all(
    work: Callable[[Descriptor], Any],
    blobs: Sequence[Descriptor],
    stop: threading.Event,
    parallel: int,
) -> list[Any]:
    """What the work gives for each blob; after an error nothing more is begun."""
    if len(blobs) < 2:
        try:
            return [work(blob) for blob in blobs]
        except Interrupted as interrupted:
            raise interrupted.error from interrupted
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(work, blob) for blob in blobs]
        try:
            finished = wait(futures, return_when=FIRST_EXCEPTION).done
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        failed = [f for f in finished if f.exception() is not None]
        if failed:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    errors = [e for f in failed if (e := f.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, Stopped)):
        if isinstance(error, Interrupted):
            raise error.error from error
        raise error
    return [future.result() for future in futures]
